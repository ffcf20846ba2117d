package worker

import (
	"testing"
	"time"
)

// A process is stopped for half a minute while one of its goroutines has looked at
// the clock and not yet asked: that moment, long past, neither breaks the budget nor
// gives anything back that was spent since.
func TestBudgetIsAskedLate(t *testing.T) {
	born := time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC)
	for name, shared := range map[string]bool{"its own": false, "shared": true} {
		t.Run(name, func(t *testing.T) {
			q := Quota{Rate: 10, Burst: 5, Windows: []WindowLimit{{Span: time.Hour, Limit: 1000}}}
			b := NewBudget(q, nil, born)
			if shared {
				b = NewBudget(Quota{}, nil, born)
				b.ride(NewBudget(q, nil, born))
			}
			looked := born.Add(time.Second)
			if !b.try(looked) {
				t.Fatal("nothing may be sent after a second")
			}
			now := born.Add(30 * time.Second)
			n := 0
			for b.try(now) {
				n++
			}
			if n == 0 || n > 5 {
				t.Fatalf("%d requests at once, of a burst of 5", n)
			}
			for range 20 {
				if b.try(looked) {
					t.Fatal("a request was let through for an instant that is long past")
				}
			}
			if b.try(now) {
				t.Error("one more than the burst")
			}
			for range 100 { // what was learned counts in seconds that do not go back either
				now = now.Add(200 * time.Millisecond)
				b.try(now)
				b.try(looked)
			}
			if got := b.learned.active; got <= 0 {
				t.Errorf("%g s of sending", got)
			}
		})
	}
}
