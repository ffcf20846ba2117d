package worker

import (
	"math"
	"time"

	"crmsync/crm"
)

// head is the budget that learns from answers: the shared one, where there is
// one, since what its CRM counts is counted for all.
func (b *Budget) head() *Budget {
	if b.shared != nil {
		return b.shared
	}
	return b
}

// pause sends nothing before an instant.
func (b *Budget) pause(until time.Time) {
	h := b.head()
	h.mu.Lock()
	defer h.mu.Unlock()
	if until.After(h.asked) {
		h.asked = until
	}
}

// restart begins the ramp after an outage: to the rate that is allowed, or to
// the shared one where that alone limits.
func (b *Budget) restart(now time.Time) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.ramp, b.rampTo = now, b.allowed
	if s := b.shared; s != nil {
		s.mu.Lock()
		b.rampTo = min(b.rampTo, s.allowed)
		s.mu.Unlock()
	}
	b.tuneLocked(now)
	b.emptyLocked(now) // what gathered meanwhile is not a burst
}

// Refused says that the CRM refused a request that began at began because there
// were too many, and asked for a wait (0: it named none). It returns until when
// nothing should be sent. Refusals side by side count as one.
func (b *Budget) Refused(now, began time.Time, wait time.Duration) (until time.Time) {
	h := b.head()
	h.mu.Lock()
	defer h.mu.Unlock()
	r, _ := h.inForceLocked(now)
	until = now.Add(h.learned.refused(now, began, wait, r, h.spentLocked(now)))
	h.tuneLocked(now)
	if !math.IsInf(h.set, 1) {
		h.emptyLocked(now)
	}
	if until.After(h.asked) {
		h.asked = until
	}
	return h.asked
}

// spentLocked says that the refusal that was just heard named the quota that is
// spent, and when there is more of it: that is followed, and our rate may be right.
func (b *Budget) spentLocked(now time.Time) bool {
	for i := range b.adverts {
		a := &b.adverts[i]
		if a.heard.Equal(now) && !a.off && a.Remaining == 0 && (a.own != nil || !a.end.IsZero()) {
			return true
		}
	}
	return false
}

// Hear takes in what an answer that was no refusal said of the quota. hints may
// be nil; began is when its call began, for hints that do not say themselves.
func (b *Budget) Hear(now time.Time, hints *crm.Hints, began time.Time) {
	b.hear(now, hints, began, false)
}

// HearRefusal takes in what a refusal said of the quota.
func (b *Budget) HearRefusal(now time.Time, hints *crm.Hints, began time.Time) {
	b.hear(now, hints, began, true)
}
