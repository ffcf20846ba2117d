package worker

import (
	"math"
	"time"

	"crmsync/crm"
)

const (
	// maxAdverts bounds the quotas of one CRM that are followed.
	maxAdverts = 4
	// probeForeign is after how long one request finds out whether others who
	// spend the same quota have left something.
	probeForeign = 5 * time.Minute
	// resetGrain is how much later than it says a quota may be renewed: most
	// say it in whole seconds.
	resetGrain = time.Second
	// lateAnswer is how long ago a request may have begun that is not answered.
	lateAnswer = 15 * time.Second
)

// advert is one quota as the CRM's answers tell of it, held against what was
// sent since.
type advert struct {
	crm.Advertised
	heard time.Time
	left  int64     // fixed window: what remains less what was sent since
	end   time.Time // fixed window: when it is renewed; zero: not known
	// own is the CRM's sliding window as we fill it; foreign is what it counts
	// beyond that.
	own     *rolling
	foreign int
	reserve float64
	off     bool // the CRM does not enforce it
}

func (b *Budget) hear(now time.Time, hints *crm.Hints, began time.Time, refused bool) {
	h := b.head()
	if !refused {
		h.mu.Lock()
		h.learned.accept(began)
		h.mu.Unlock()
	}
	if hints == nil || len(hints.Quotas) == 0 {
		return
	}
	if !hints.Began.IsZero() {
		began = hints.Began
	}
	h.mu.Lock()
	newer, ok := h.recent.since(began.Sub(h.born), h.total)
	if ok {
		for _, q := range hints.Quotas {
			h.hearOneLocked(now, q, newer, refused)
		}
	}
	h.tuneLocked(now)
	h.mu.Unlock()
	h.ring()
}

func (b *Budget) hearOneLocked(now time.Time, q crm.Advertised, newer int, refused bool) {
	if q.Remaining < 0 {
		return // a limit alone says nothing of now
	}
	var a *advert
	for i := range b.adverts {
		if b.adverts[i].Name == q.Name {
			a = &b.adverts[i]
		}
	}
	if a == nil {
		if len(b.adverts) == maxAdverts {
			return
		}
		b.adverts = append(b.adverts, advert{})
		a = &b.adverts[len(b.adverts)-1]
	}
	a.reserve = b.quota.Reserve
	if a.off = q.Over && !refused || a.off && !refused; a.off {
		a.Advertised, a.heard = q, now
		return
	}
	if q.Sliding {
		a.slide(now, q, newer, b)
		return
	}
	a.fixed(now, q, newer)
}

// fixed takes in a quota that is renewed as a whole. Within one window what is
// left only falls: answers overtake each other.
func (a *advert) fixed(now time.Time, q crm.Advertised, newer int) {
	left := max(0, q.Remaining-int64(newer))
	var end time.Time
	if q.Reset > 0 {
		end = now.Add(q.Reset + min(resetGrain, q.Reset/50))
	}
	if gap := end.Sub(a.end).Abs(); !a.end.IsZero() && now.Before(a.end) && gap <= max(2*time.Second, q.Reset/50) {
		left, end = min(left, a.left), a.end
	}
	a.Advertised, a.heard, a.left, a.end = q, now, left, end
}

// slide takes in a quota whose window slides.
func (a *advert) slide(now time.Time, q crm.Advertised, newer int, b *Budget) {
	span := q.Window.Round(time.Second)
	if a.own != nil {
		span = max(span, a.own.Span)
	}
	if q.Limit <= 0 || q.Window <= 0 {
		return
	}
	if a.own == nil || a.own.Span != span {
		a.own = &rolling{WindowLimit: WindowLimit{Span: span}, born: b.born}
		if s, ok := b.longest(now); ok {
			a.own.restore(s, now)
		} else {
			// What the CRM has counted is ours as far as it can be; what was
			// sent lately it may not have counted yet.
			lately, _ := b.recent.since(now.Sub(b.born)-lateAnswer, b.total)
			a.own.add(now, int(min(b.total, q.Limit-q.Remaining+int64(lately), 1<<30)))
		}
	}
	a.Advertised, a.heard = q, now
	a.own.limit = max(1, int(float64(min(q.Limit, 1<<30))*(1-a.reserve)+1e-9))
	seen := a.own.used(now) - newer
	a.foreign = max(0, int(min(q.Limit-q.Remaining, 1<<30))-seen)
}

// usable is what of a fixed window is for us.
func (a *advert) usable() int64 { return a.left - int64(math.Ceil(float64(a.Limit)*a.reserve-1e-9)) }

// when is when n more may be sent.
func (a *advert) when(now time.Time, n int) time.Time {
	switch {
	case a.off:
		return now
	case a.own != nil:
		if a.own.used(now)+a.foreign+n <= a.own.limit {
			return now
		}
		at := now.Add(a.own.Span) // others fill it alone
		if n+a.foreign <= a.own.limit {
			at = a.own.when(now, n+a.foreign)
		}
		if probe := a.heard.Add(min(probeForeign, a.own.Span/12)); a.foreign > 0 && probe.Before(at) {
			at = probe
		}
		return latest(now, at)
	case a.usable() >= int64(n):
		return now
	case !a.end.IsZero():
		return latest(now, earliest(a.end, a.heard.Add(crm.MaxWait)))
	case a.Window > 0:
		// It does not say when: one request now and then finds out.
		return latest(now, a.heard.Add(min(a.Window/1000, time.Minute)))
	}
	return now
}

func (a *advert) spend(now time.Time) {
	if a.own != nil {
		if a.own.used(now)+a.foreign >= a.own.limit {
			a.heard = now // a probe: the next only after as long again
		}
		a.own.add(now, 1)
		return
	}
	if !a.end.IsZero() && !now.Before(a.end) {
		a.end, a.left = time.Time{}, max(a.Limit, 1) // renewed; how much is left, the answer says
		if a.Limit == 0 {
			a.left = math.MaxInt32
		}
	}
	if a.usable() <= 0 {
		a.heard = now
	}
	a.left = max(0, a.left-1)
}

// pace is the rate at which what is left lasts until it is renewed; +Inf where
// nothing is known.
func (a *advert) pace(now time.Time) float64 {
	if a.off || a.own != nil || a.end.IsZero() || !now.Before(a.end) || a.usable() <= 0 {
		return math.Inf(1)
	}
	return float64(a.usable()) / a.end.Sub(now).Seconds()
}

func (a *advert) window() WindowLimit {
	w := WindowLimit{Span: a.Window, Limit: int(min(a.Limit, math.MaxInt32))}
	if a.own != nil {
		w.Span = a.own.Span
	}
	return w
}

// paceLocked is the slowest pace of all adverts that is slower than a rate.
func (b *Budget) paceLocked(now time.Time, r float64) float64 {
	for i := range b.adverts {
		r = min(r, b.adverts[i].pace(now))
	}
	return max(r, rateLeast)
}

func latest(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

func earliest(a, b time.Time) time.Time {
	if a.Before(b) {
		return a
	}
	return b
}
