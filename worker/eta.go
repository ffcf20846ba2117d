package worker

import (
	"cmp"
	"math"
	"slices"
	"time"
)

// farOff is as far as an ETA looks.
const farOff = 100 * 365 * 24 * time.Hour

// ETA is when n more requests will have been allowed, at the rate in force now:
// over bucket, windows, what is advertised and, where the budget is shared, the
// shared one. It does not fall with n. Where several windows limit it is exact to
// the span of the shorter ones, else to a few requests. It is now where n is not
// positive, and a century from now where nothing is ever allowed.
func (b *Budget) ETA(now time.Time, n int) time.Time {
	if n <= 0 {
		return now
	}
	b.mu.Lock()
	at := b.etaLocked(now, n)
	s := b.shared
	b.mu.Unlock()
	if s != nil {
		at = latest(at, s.ETA(now, n))
	}
	return at
}

func (b *Budget) etaLocked(now time.Time, n int) time.Time {
	b.tuneLocked(now)
	from := latest(now, b.asked)
	tokens := 0.0
	if !math.IsInf(b.set, 1) {
		tokens = b.lim.TokensAt(from)
	}
	further := func(n int) time.Duration {
		if math.IsInf(b.set, 1) {
			return 0
		}
		seconds := max(0, float64(n)-tokens) / float64(b.lim.Limit())
		return time.Duration(min(seconds, farOff.Seconds()) * 1e9)
	}
	// Each window has what the bucket and the shorter windows let through. It is
	// asked on a copy: from may lie ahead, and a window's time does not go back.
	windows := slices.SortedStableFunc(slices.Values(b.windows), func(a, b tally) int { return cmp.Compare(a.of().Span, b.of().Span) })
	for _, w := range windows {
		c := newWindowOf(w.of(), b.born)
		c.allow(w.allowed())
		c.restore(w.save(now), now)
		shorter := further
		further = func(n int) time.Duration { return max(shorter(n), c.eta(from, n, shorter).Sub(from)) }
	}
	at := from.Add(further(n))
	for i := range b.adverts {
		at = latest(at, b.adverts[i].eta(from, n, further))
	}
	return at
}

// eta is when the n-th request fits into what is advertised.
func (a *advert) eta(now time.Time, n int, further func(int) time.Duration) time.Time {
	switch left := a.usable(); {
	case a.off:
		return now
	case a.own != nil:
		return a.own.eta(now, n, further)
	case int64(n) <= left:
		return now
	case a.end.IsZero():
		return now
	default:
		at := latest(now, a.end)
		each := a.Limit - int64(math.Ceil(float64(a.Limit)*a.reserve-1e-9))
		if a.Window > 0 && each > 0 {
			rest := int64(n) - max(left, 0) - 1
			return at.Add(times(a.Window, int(rest/each))).Add(further(int(rest%each) + 1))
		}
		return at
	}
}
