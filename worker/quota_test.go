package worker

import (
	"fmt"
	"math"
	"testing"
	"testing/synctest"
	"time"

	"crmsync/contact"
)

// replayBucket says how far requests overdrew a token bucket that was empty at
// start, in tokens; 0 is not at all.
func replayBucket(requests []time.Time, start time.Time, rate float64, burst int) float64 {
	tokens, last, worst := 0.0, start, 0.0
	for _, at := range requests {
		tokens = min(float64(burst), tokens+at.Sub(last).Seconds()*rate)
		last = at
		tokens--
		worst = min(worst, tokens)
	}
	return -worst
}

// fullest is the most requests within any span.
func fullest(requests []time.Time, span time.Duration) int {
	most, i := 0, 0
	for j := range requests {
		for requests[j].Sub(requests[i]) >= span {
			i++
		}
		most = max(most, j-i+1)
	}
	return most
}

func TestQuotaIsExactAndUsed(t *testing.T) {
	for _, q := range []Quota{
		{Rate: 4, Burst: 1, Concurrency: 1},
		{Rate: 4, Burst: 8, Concurrency: 16},
		{Rate: 50, Burst: 5, Concurrency: 64},
		{Rate: 10, Burst: 4, Concurrency: 8, Reserve: 0.2},
		{Rate: 0.7, Burst: 2, Concurrency: 2},
	} {
		t.Run(fmt.Sprintf("%+v", q), func(t *testing.T) {
			inBubble(t, func(w *world) {
				w.o.Quota = q
				w.m.plan = func(c *crmCall) fate { // mostly a read and a write
					f := fine
					f.readFirst = c.at.UnixNano()%3 != 0
					f.before, f.latency = time.Duration(c.n+1)*70*time.Millisecond, 130*time.Millisecond
					return f
				}
				for i := range 300 {
					w.q.publish(fmt.Sprintf("c%d", i), contact.Live, "a")
				}
				start := time.Now()
				w.start().settleAll(time.Hour)
				rate := q.Rate * (1 - max(q.Reserve, hair))
				if over := replayBucket(w.m.requests, start, rate, q.Burst); over > 1e-6 {
					t.Errorf("the bucket was overdrawn by %v tokens", over)
				}
				if first := w.m.requests[0].Sub(start).Seconds(); math.Abs(first-1/rate) > 1e-6 {
					t.Errorf("the first request came after %v s: the bucket must be empty at first", first)
				}
				if q.Concurrency > 1 {
					took := w.m.requests[len(w.m.requests)-1].Sub(start).Seconds()
					if ideal := float64(len(w.m.requests)) / rate; took > ideal*1.02+1 {
						t.Errorf("%d requests took %.1f s, the quota allows it in %.1f", len(w.m.requests), took, ideal)
					}
				}
			})
		})
	}
}

func TestBurstAfterAPause(t *testing.T) {
	inBubble(t, func(w *world) {
		w.o.Quota = Quota{Rate: 1, Burst: 5, Concurrency: 8}
		r := w.start()
		time.Sleep(time.Minute)
		for i := range 10 {
			w.q.publish(fmt.Sprintf("c%d", i), contact.Live, "a")
		}
		time.Sleep(10 * time.Millisecond)
		if n := len(w.m.callsOf("")); n != 4 { // one is kept for requests that bunch up on their way
			t.Errorf("%d calls at once", n)
		}
		r.settleAll(time.Minute)
	})
}

func TestConcurrency(t *testing.T) {
	inBubble(t, func(w *world) {
		w.o.Quota = Quota{Concurrency: 3}
		for i := range 30 {
			w.q.publish(fmt.Sprintf("c%d", i), contact.Live, "a")
		}
		born := time.Now()
		r := w.start()
		time.Sleep(10 * time.Millisecond)
		if st := r.status(); st.Calling != 3 || st.Ready != 27 || st.Waiting != "a free connection" {
			t.Errorf("status %+v", st)
		}
		r.settleAll(time.Minute)
		if took := time.Since(born); took > 600*time.Millisecond {
			t.Errorf("took %v", took)
		}
	})
}

// Windows hold over restarts: what one lane has used, the next knows.
func TestWindowsAcrossRestarts(t *testing.T) {
	inBubble(t, func(w *world) {
		w.o.Quota = Quota{
			Rate: 2, Burst: 10, Concurrency: 4, Reserve: 0.1,
			Windows: []WindowLimit{{Span: time.Hour, Limit: 100}, {Span: 24 * time.Hour, Limit: 500}},
		}
		w.m.plan = func(*crmCall) fate { f := fine; f.readFirst = true; return f }
		for i := range 300 {
			w.q.publish(fmt.Sprintf("c%d", i), contact.Live, "a")
		}
		for w.q.pending() > 0 {
			r := w.start()
			time.Sleep(17 * time.Minute)
			st := r.status()
			if st.Windows[0].Limit != 90 || st.Windows[1].Limit != 450 || st.Windows[0].Used > 90 {
				t.Fatalf("windows %+v", st.Windows)
			}
			if r.l.Spent() != nil || len(st.Spent) != 3 {
				t.Fatal("Spent is complete only once the lane has ended")
			}
			r.end()
			w.o.Spent = r.l.Spent()
			time.Sleep(time.Minute)
		}
		if n := fullest(w.m.requests, time.Hour); n > 90 {
			t.Errorf("%d requests within an hour, 90 are allowed", n)
		} else if n < 88 {
			t.Errorf("at most %d requests within an hour: the window is not used", n)
		}
		if n := fullest(w.m.requests, 24*time.Hour); n > 450 {
			t.Errorf("%d requests within a day, 450 are allowed", n)
		}
	})
}

// A spent token is a spent token, whoever asks: many askers side by side.
func TestBudgetSpend(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		b := NewBudget(Quota{Rate: 5, Burst: 3}, nil, start)
		got := make(chan time.Time)
		for range 50 {
			go func() {
				if err := b.spend(t.Context()); err != nil {
					t.Error(err)
				}
				got <- time.Now()
			}()
		}
		var all []time.Time
		for range 50 {
			all = append(all, <-got)
		}
		if over := replayBucket(all, start, 5, 2); over > 1e-6 {
			t.Errorf("overdrawn by %v", over)
		}
		if took := time.Since(start).Seconds(); math.Abs(took-10/(1-hair)) > 0.01 {
			t.Errorf("50 requests at 5/s took %v s", took)
		}
	})
}
