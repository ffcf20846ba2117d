package worker

import (
	"sort"
	"time"
)

// skewOf is how far the CRM's clock and ours may be apart at the end of a
// period of the calendar.
func skewOf(span time.Duration) time.Duration { return min(2*time.Second, span/200) }

// calendar counts requests from one boundary of the calendar to the next. A
// request close to a boundary counts on both of its sides: the CRM's clock
// decides where it belongs, not ours.
type calendar struct {
	WindowLimit
	limit      int // less the reserve
	start, end time.Time
	before     int // requests of the period before
	n          int // requests of this period, and those that came shortly before it
	late       int // of these, those shortly before its end
}

func (c *calendar) of() WindowLimit { return c.WindowLimit }

func (c *calendar) allow(limit int) { c.limit = limit }

func (c *calendar) allowed() int { return c.limit }

// advance begins a new period when it is time. A clock that is set back never
// returns to an old one.
func (c *calendar) advance(now time.Time) {
	if !c.end.IsZero() && now.Before(c.end) {
		return
	}
	start, end := c.period(now)
	if start.Equal(c.end) {
		c.before, c.n = c.n, c.late
	} else {
		c.before, c.n = 0, 0
	}
	c.late, c.start, c.end = 0, start, end
}

// period is the minute, hour or day of the calendar that an instant lies in.
// Days have 23 or 25 hours where the zone's clocks are changed. Any other span
// is counted from the Unix epoch.
func (c *calendar) period(now time.Time) (start, end time.Time) {
	zone := c.Zone
	if zone == nil {
		zone = time.UTC
	}
	t := now.In(zone).Round(0) // the calendar goes by the wall clock alone
	switch c.Span {
	case 24 * time.Hour:
		y, m, d := t.Date()
		return midnight(y, m, d, zone), midnight(y, m, d+1, zone)
	case time.Hour, time.Minute:
		into := time.Duration(t.Second())*time.Second + time.Duration(t.Nanosecond())
		if c.Span == time.Hour {
			into += time.Duration(t.Minute()) * time.Minute
		}
		start = t.Add(-into)
	default:
		start = time.Unix(0, t.UnixNano()-t.UnixNano()%int64(c.Span)).In(zone)
	}
	return start, start.Add(c.Span)
}

// midnight is the first instant of a day. Where clocks go forward at midnight
// that is one o'clock.
func midnight(y int, m time.Month, d int, zone *time.Location) time.Time {
	t := time.Date(y, m, d, 0, 0, 0, 0, zone)
	if noon := time.Date(y, m, d, 12, 0, 0, 0, zone); t.Day() != noon.Day() {
		_, t = t.ZoneBounds()
	}
	return t
}

func (c *calendar) add(now time.Time, n int) {
	c.advance(now)
	c.n += n
	if now.Before(c.start.Add(skewOf(c.Span))) {
		c.before += n
	}
	if !now.Before(c.end.Add(-skewOf(c.Span))) {
		c.late += n
	}
}

func (c *calendar) used(now time.Time) int {
	c.advance(now)
	return c.n
}

func (c *calendar) when(now time.Time, n int) time.Time {
	c.advance(now)
	n = min(n, c.limit)
	opens := c.start.Add(skewOf(c.Span))
	switch {
	case c.n+n > c.limit:
		return until(now, c.end.Add(skewOf(c.Span)))
	case c.before+n > c.limit && now.Before(opens):
		return until(now, opens)
	}
	return now
}

// until is an instant of the calendar by the monotonic clock of now.
func until(now, at time.Time) time.Time { return now.Add(max(0, at.Sub(now.Round(0)))) }

func (c *calendar) resets(now time.Time) time.Time {
	c.advance(now)
	return c.end
}

func (c *calendar) eta(now time.Time, n int, further func(int) time.Duration) time.Time {
	c.advance(now)
	left := max(0, c.limit-c.n)
	if span := c.end.Sub(now.Round(0)); further(left) >= span { // not all of it before the end
		left = sort.Search(left, func(n int) bool { return further(n+1) >= span })
	}
	if n <= left {
		at := c.when(now, n)
		if t := now.Add(further(n)); t.After(at) {
			at = t
		}
		return at
	}
	n -= left + 1
	cycles, n := n/c.limit, n%c.limit+1
	at, next := c.after(cycles), c.after(cycles+1)
	return until(now, at.Add(skewOf(c.Span))).Add(min(further(n), next.Sub(at)))
}

// after is the end of a later period: of the n-th from this one on.
func (c *calendar) after(n int) time.Time {
	if c.Span == 24*time.Hour && n < 100_000 {
		return c.end.AddDate(0, 0, n)
	}
	return c.end.Add(times(c.Span, n))
}

// restore takes over what another has counted in a period, or what a rolling
// window has counted since its start. A period that was later than ours by its
// clock counts as ours.
func (c *calendar) restore(s Spent, now time.Time) {
	c.advance(now)
	n := 0
	for i, k := range s.Count {
		if s.Calendar || s.partEnd(i) > c.start.UnixNano() {
			n += min(max(k, 0), 1<<30)
		}
	}
	switch {
	case !s.Calendar:
		c.n += n
	case s.End.After(c.start):
		c.n += n
		c.late += s.Late
	case s.End.Equal(c.start):
		c.before += n
		c.n += s.Late
	}
}

func (c *calendar) save(now time.Time) Spent {
	c.advance(now)
	s := Spent{Span: c.Span, Calendar: true, End: c.end, Late: c.late}
	if c.Zone != nil {
		s.Zone = c.Zone.String()
	}
	if c.n > 0 {
		s.Count = []int{c.n}
	}
	return s
}
