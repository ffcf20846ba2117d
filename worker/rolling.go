package worker

import (
	"math"
	"time"
)

// parts is the resolution of a rolling window: its span in so many parts, and
// one more so that the part which is only half over counts whole. A window that
// limits is therefore used to parts/(parts+1).
const parts = 360

// slackOf is by how much a rolling span is counted longer than it is: requests
// do not take equally long to the CRM, and the first of a window may be
// counted later there than the last is early.
func slackOf(span time.Duration) time.Duration { return min(100*time.Millisecond, span/500) }

// rolling counts requests over a rolling span. It errs towards counting a part
// of the span too long, never too short. The wall clock is read once, at born:
// should it be set afterwards, the span stays what it is.
type rolling struct {
	WindowLimit
	limit int // less the reserve
	born  time.Time
	tick  int64 // index of the newest part since the Unix epoch
	n     [parts + 1]int32
	sum   int
}

// width is one part, rounded up so that all together are never less than the
// span and its slack.
func (r *rolling) width() int64 {
	return (int64(r.Span+slackOf(r.Span)) + parts - 1) / parts
}

// clock is the Unix time in nanoseconds as it goes on from born.
func (r *rolling) clock(now time.Time) int64 { return r.born.UnixNano() + int64(now.Sub(r.born)) }

func (r *rolling) of() WindowLimit { return r.WindowLimit }

func (r *rolling) allow(limit int) { r.limit = limit }

func (r *rolling) allowed() int { return r.limit }

func (r *rolling) advance(now time.Time) {
	t := r.clock(now) / r.width()
	if t <= r.tick {
		return
	}
	for i := r.tick + 1; i <= t && i <= r.tick+parts+1; i++ {
		j := i % (parts + 1)
		r.sum -= int(r.n[j])
		r.n[j] = 0
	}
	r.tick = t
}

func (r *rolling) add(now time.Time, n int) {
	r.advance(now)
	r.put(r.tick, n)
}

// put counts in a part, as far as its number goes.
func (r *rolling) put(tick int64, n int) {
	p := &r.n[tick%(parts+1)]
	n = min(n, math.MaxInt32-int(*p))
	*p += int32(n)
	r.sum += n
}

func (r *rolling) used(now time.Time) int {
	r.advance(now)
	return r.sum
}

// when is the first instant at which n more requests fit in, as far as those
// that are counted now decide.
func (r *rolling) when(now time.Time, n int) time.Time {
	r.advance(now)
	over := r.sum + min(n, r.limit) - r.limit
	if over <= 0 {
		return now
	}
	for i := max(0, r.tick-parts); i <= r.tick; i++ {
		if over -= int(r.n[i%(parts+1)]); over <= 0 {
			return now.Add(time.Duration((i+parts+1)*r.width() - r.clock(now)))
		}
	}
	return now.Add(r.Span)
}

func (r *rolling) resets(now time.Time) time.Time {
	r.advance(now)
	for i := max(0, r.tick-parts); i <= r.tick; i++ {
		if r.n[i%(parts+1)] > 0 {
			return now.Add(time.Duration((i+parts+1)*r.width() - r.clock(now)))
		}
	}
	return time.Time{}
}

// eta is when the n-th request from now fits in, where each is sent as soon as
// it fits; further is how long the bucket takes for so many.
func (r *rolling) eta(now time.Time, n int, further func(int) time.Duration) time.Time {
	cycles := (n - 1) / r.limit
	n -= cycles * r.limit
	at := latest(r.when(now, n), now.Add(further(n)))
	// No later than a span: a part's width more is not needed, and where all
	// that is quicker takes longer, it decides.
	return earliest(at, now.Add(r.Span)).Add(times(r.Span, cycles))
}

// times is n spans, as far as a Duration goes.
func times(span time.Duration, n int) time.Duration {
	const most = 100 * 365 * 24 * time.Hour
	if int64(n) > int64(most/span) {
		return most
	}
	return time.Duration(n) * span
}

// restore takes over what another has counted. Where that one's clock was ahead
// of ours, its newest count is as if of now: it holds us up for a span, not for
// as long as the clocks differ.
func (r *rolling) restore(s Spent, now time.Time) {
	newest := r.clock(now) / r.width()
	r.advance(now)
	for i, n := range s.Count {
		at := min(newest, (s.partEnd(i)-1)/r.width())
		if n > 0 && at > newest-parts-1 && at >= 0 {
			r.put(at, n)
		}
	}
}

// save writes down the parts from the first to the last that count something.
func (r *rolling) save(now time.Time) Spent {
	r.advance(now)
	s := Spent{Span: r.Span, Width: time.Duration(r.width()), Tick: r.tick}
	for i := max(0, r.tick-parts); i <= r.tick; i++ {
		n := int(r.n[i%(parts+1)])
		if n > 0 {
			s.Tick = i
		}
		if n > 0 || len(s.Count) > 0 {
			s.Count = append(s.Count, n)
		}
	}
	s.Count = s.Count[:max(0, len(s.Count)-int(r.tick-s.Tick))]
	return s
}
