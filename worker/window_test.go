package worker

import (
	"fmt"
	"math"
	"math/rand/v2"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// fullestPeriod is the most requests within any period of the calendar.
func fullestPeriod(c *calendar, requests []time.Time) int {
	n, most := map[int64]int{}, 0
	for _, at := range requests {
		start, _ := c.period(at)
		n[start.UnixNano()]++
		most = max(most, n[start.UnixNano()])
	}
	return most
}

func zone(t testing.TB, name string) *time.Location {
	t.Helper()
	z, err := time.LoadLocation(name)
	if err != nil {
		t.Fatal(err)
	}
	return z
}

func TestCalendarPeriods(t *testing.T) {
	berlin, kolkata, beirut := zone(t, "Europe/Berlin"), zone(t, "Asia/Kolkata"), zone(t, "Asia/Beirut")
	for _, tt := range []struct {
		zone       *time.Location
		span       time.Duration
		at         string
		start, end string
	}{
		{nil, 24 * time.Hour, "2026-11-21T23:59:59Z", "2026-11-21T00:00:00Z", "2026-11-22T00:00:00Z"},
		{nil, time.Hour, "2026-11-21T23:59:59Z", "2026-11-21T23:00:00Z", "2026-11-22T00:00:00Z"},
		{nil, time.Minute, "2026-11-21T23:59:00Z", "2026-11-21T23:59:00Z", "2026-11-22T00:00:00Z"},
		{nil, 10 * time.Second, "2026-11-21T23:59:09.5Z", "2026-11-21T23:59:00Z", "2026-11-21T23:59:10Z"},
		{berlin, 24 * time.Hour, "2026-11-21T23:30:00Z", "2026-11-21T23:00:00Z", "2026-11-22T23:00:00Z"},
		{berlin, 24 * time.Hour, "2026-03-29T10:00:00Z", "2026-03-28T23:00:00Z", "2026-03-29T22:00:00Z"}, // 23 hours
		{berlin, 24 * time.Hour, "2026-10-25T10:00:00Z", "2026-10-24T22:00:00Z", "2026-10-25T23:00:00Z"}, // 25 hours
		{berlin, time.Hour, "2026-10-25T00:30:00Z", "2026-10-25T00:00:00Z", "2026-10-25T01:00:00Z"},      // 02:30, the first time
		{berlin, time.Hour, "2026-10-25T01:30:00Z", "2026-10-25T01:00:00Z", "2026-10-25T02:00:00Z"},      // and the second
		{kolkata, time.Hour, "2026-11-21T10:00:00Z", "2026-11-21T09:30:00Z", "2026-11-21T10:30:00Z"},
		{beirut, 24 * time.Hour, "2022-03-27T10:00:00Z", "2022-03-26T22:00:00Z", "2022-03-27T21:00:00Z"}, // no midnight
		{beirut, 24 * time.Hour, "2022-03-26T10:00:00Z", "2022-03-25T22:00:00Z", "2022-03-26T22:00:00Z"},
	} {
		at, err := time.Parse(time.RFC3339, tt.at)
		if err != nil {
			t.Fatal(err)
		}
		c := &calendar{WindowLimit: WindowLimit{Span: tt.span, Calendar: true, Zone: tt.zone}}
		start, end := c.period(at)
		if got := start.UTC().Format(time.RFC3339); got != tt.start {
			t.Errorf("%s of %v at %s begins %s, want %s", tt.span, tt.zone, tt.at, got, tt.start)
		}
		if got := end.UTC().Format(time.RFC3339); got != tt.end {
			t.Errorf("%s of %v at %s ends %s, want %s", tt.span, tt.zone, tt.at, got, tt.end)
		}
	}
}

// Periods have no gap and no overlap, in any zone and at any time.
func TestCalendarModel(t *testing.T) {
	names := []string{"UTC", "Europe/Berlin", "America/New_York", "Asia/Kolkata", "Australia/Lord_Howe", "America/Sao_Paulo", "Asia/Beirut", "Pacific/Apia"}
	rapid.Check(t, func(t *rapid.T) {
		z, err := time.LoadLocation(rapid.SampledFrom(names).Draw(t, "zone"))
		if err != nil {
			t.Fatal(err)
		}
		l := WindowLimit{Span: rapid.SampledFrom([]time.Duration{time.Minute, 24 * time.Hour, 90 * time.Second}).Draw(t, "span"), Calendar: true, Zone: z}
		c := &calendar{WindowLimit: l}
		at := time.Unix(rapid.Int64Range(1_200_000_000, 2_000_000_000).Draw(t, "at"), 0)
		start, end := c.period(at)
		if at.Before(start) || !at.Before(end) {
			t.Fatalf("%v is not within %v to %v", at, start, end)
		}
		if next, _ := c.period(end); !next.Equal(end) {
			t.Fatalf("after %v comes %v", end, next)
		}
		if before, until := c.period(start.Add(-1)); !until.Equal(start) || !before.Before(start) {
			t.Fatalf("before %v lies %v to %v", start, before, until)
		}
	})
}

// A calendar window by our clock keeps the CRM's, though that one is off by as
// much as is allowed for; and it is used.
func TestCalendarSkew(t *testing.T) {
	for _, skew := range []time.Duration{0, time.Second, -time.Second, 1900 * time.Millisecond, -1900 * time.Millisecond} {
		t.Run(skew.String(), func(t *testing.T) {
			r := rand.New(rand.NewPCG(1, 1))
			l := WindowLimit{Span: time.Hour, Limit: 100, Calendar: true}
			now := time.Date(2026, 11, 21, 9, 58, 0, 0, time.UTC)
			c := &calendar{WindowLimit: l, limit: l.Limit}
			var theirs []time.Time
			for len(theirs) < 10000 {
				if r.IntN(20) == 0 { // nothing to send until close to a boundary
					near := now.Truncate(time.Hour).Add(time.Hour + time.Duration(r.IntN(6000)-4000)*time.Millisecond)
					now = latest(now, near)
				}
				if r.IntN(200) == 0 { // another owner
					s := c.save(now)
					c = &calendar{WindowLimit: l, limit: l.Limit}
					now = now.Add(time.Duration(r.IntN(3000)) * time.Millisecond)
					c.restore(s, now)
				}
				now = c.when(now, 1)
				c.add(now, 1)
				theirs = append(theirs, now.Add(skew))
				now = now.Add(time.Duration(r.IntN(100)) * time.Millisecond)
			}
			if n := fullestPeriod(c, theirs); n > 100 {
				t.Errorf("%d requests in an hour of theirs", n)
			}
		})
	}
	now := time.Date(2026, 11, 21, 10, 0, 0, 0, time.UTC)
	c := &calendar{WindowLimit: WindowLimit{Span: time.Hour, Calendar: true}, limit: 100}
	first := now
	for range 1000 {
		now = c.when(now, 1)
		c.add(now, 1)
		now = now.Add(500 * time.Millisecond)
	}
	if took := now.Sub(first); took > 9*time.Hour+time.Minute {
		t.Errorf("ten hours' worth took %v", took)
	}
}

func TestCalendarClockSetBack(t *testing.T) {
	now := time.Date(2026, 11, 21, 9, 58, 0, 0, time.UTC)
	c := &calendar{WindowLimit: WindowLimit{Span: time.Hour, Limit: 2, Calendar: true}, limit: 2}
	c.add(now, 2)
	c.add(now.Add(time.Hour), 2)
	if at := c.when(now, 1); at.Before(now.Add(time.Hour)) {
		t.Errorf("a clock that is set back makes room at %v", at)
	}
}

// A clock that runs ahead does not hold us up for as long as it is ahead.
func TestRestoreFromAClockAhead(t *testing.T) {
	now := time.Unix(1_800_000_000, 0)
	for _, cal := range []bool{false, true} {
		l := WindowLimit{Span: time.Hour, Limit: 10, Calendar: cal}
		ahead := newWindowOf(l, now.Add(24*time.Hour))
		ahead.allow(10)
		ahead.add(now.Add(24*time.Hour), 10)
		w := newWindowOf(l, now)
		w.allow(10)
		w.restore(ahead.save(now.Add(24*time.Hour)), now)
		if wait := w.when(now, 1).Sub(now); wait <= 0 || wait > 61*time.Minute {
			t.Errorf("calendar %v: it waits %v", cal, wait)
		}
		w = newWindowOf(l, now)
		w.allow(10)
		w.restore(Spent{Span: time.Hour, Calendar: cal, Tick: 3, Count: make([]int, 1000)}, now) // nonsense
		w.restore(Spent{Span: time.Hour, Calendar: cal, Tick: 1 << 62, Width: 1, Count: []int{-5}}, now)
		huge := newWindowOf(l, now)
		huge.allow(10)
		for range 3 {
			huge.restore(Spent{Span: time.Hour, Calendar: cal, Tick: now.Unix(), Width: time.Second, End: now.Add(time.Hour), Count: []int{math.MaxInt}}, now)
		}
		if huge.used(now) < 10 {
			t.Errorf("calendar %v: a huge count comes to %d", cal, huge.used(now))
		}
		if !w.when(now, 1).Equal(now) {
			t.Errorf("calendar %v: an empty record blocks", cal)
		}
	}
}

// The rolling window against a list of all requests.
func TestRollingModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		span := time.Duration(rapid.Int64Range(int64(time.Second), int64(24*time.Hour)).Draw(t, "span"))
		limit := rapid.IntRange(1, 20).Draw(t, "limit")
		now := time.Unix(1_800_000_000, 0)
		r := &rolling{WindowLimit: WindowLimit{Span: span}, limit: limit, born: now}
		var all []time.Time
		for range rapid.IntRange(1, 200).Draw(t, "n") {
			now = now.Add(time.Duration(rapid.Int64Range(0, int64(span)/5).Draw(t, "gap")))
			if rapid.IntRange(0, 20).Draw(t, "restart") == 0 {
				s := r.save(now)
				if len(s.Count) > 0 && (s.Count[0] == 0 || s.Count[len(s.Count)-1] == 0) {
					t.Fatalf("stored with nothing at an end: %+v", s)
				}
				r = &rolling{WindowLimit: WindowLimit{Span: span}, limit: limit, born: now}
				r.restore(s, now)
			}
			at := r.when(now, 1)
			if at.Before(now) {
				t.Fatalf("when is before now")
			}
			inSpan := 0
			for _, x := range all {
				if at.Sub(x) < span {
					inSpan++
				}
			}
			if inSpan >= limit {
				t.Fatalf("%d requests within the span at the time it names, %d are allowed", inSpan, limit)
			}
			if at.After(now) {
				// It must not be late by more than a part and its slack.
				oldest := all[len(all)-limit]
				if late := at.Sub(oldest.Add(span)); late > time.Duration(2*r.width())+slackOf(span) {
					t.Fatalf("room appears %v late, of a span of %v", late, span)
				}
				if rapid.Bool().Draw(t, "wait") {
					now = at
				} else {
					continue
				}
			}
			r.add(now, 1)
			all = append(all, now)
		}
	})
}

// A rolling window that limits is used to 99.5 %, however requests come.
func TestRollingIsUsed(t *testing.T) {
	for _, span := range []time.Duration{10 * time.Second, time.Minute, time.Hour, 24 * time.Hour} {
		for _, gap := range []time.Duration{span / 100000, span / 1100} {
			t.Run(fmt.Sprint(span, gap), func(t *testing.T) {
				start := time.Unix(1_800_000_000, 0)
				now := start
				r := &rolling{WindowLimit: WindowLimit{Span: span}, limit: 1000, born: now}
				var all []time.Time
				for range 20000 {
					now = r.when(now, 1)
					r.add(now, 1)
					all = append(all, now)
					now = now.Add(gap)
				}
				if n := fullest(all, span); n > 1000 {
					t.Errorf("%d within a span", n)
				}
				spans := float64(all[len(all)-1].Sub(all[1000])) / float64(span)
				if use := float64(len(all)-1000) / 1000 / spans; use < 0.995 {
					t.Errorf("used to %.4f", use)
				}
			})
		}
	}
}

// A limit that is changed while the lane runs keeps what was counted; a window
// that is new knows what the longest of the others has counted.
func TestSetKeepsTheCount(t *testing.T) {
	now := time.Unix(1_800_000_000, 0)
	hour, minute := WindowLimit{Span: time.Hour, Limit: 100}, WindowLimit{Span: time.Minute, Limit: 30}
	b := NewBudget(Quota{Windows: []WindowLimit{hour}}, nil, now)
	spend := func(n int) {
		t.Helper()
		for range n {
			if !b.try(now) {
				t.Fatal("not allowed")
			}
		}
	}
	left := func(want ...int) {
		t.Helper()
		st := b.Describe(now)
		for i, n := range want {
			if st.Windows[i].Left != n {
				t.Errorf("windows %+v, want %v left", st.Windows, want)
			}
		}
	}
	spend(40)
	now = now.Add(10 * time.Minute)
	spend(20)
	b.Set(now, Quota{Windows: []WindowLimit{{Span: time.Hour, Limit: 70}, minute}})
	left(10, 10)
	b.Set(now, Quota{})
	left()
	spend(5)
	b.Set(now, Quota{Windows: []WindowLimit{minute, hour}, Reserve: 0.1})
	left(2, 25)
	b.Set(now, Quota{Windows: []WindowLimit{{Span: time.Hour, Limit: 60}}})
	left(0)
	if b.try(now) {
		t.Error("a lower limit is not obeyed")
	}
	// The whole of it is handed on, though the minute limits no more.
	next := NewBudget(Quota{Windows: []WindowLimit{minute, hour}}, b.Memory(now), now)
	if st := next.Describe(now); st.Windows[0].Left != 5 || st.Windows[1].Left != 35 {
		t.Errorf("the next has %+v", st.Windows)
	}
}
