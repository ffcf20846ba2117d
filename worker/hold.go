package worker

import (
	"time"

	"crmsync/contact"
	"crmsync/crm"
)

// HoldReason says why a lane sends nothing.
type HoldReason string

const (
	// HoldOperator: somebody said so.
	HoldOperator HoldReason = "operator"
	// HoldThrottled: the CRM named a time.
	HoldThrottled HoldReason = "throttled"
	// HoldQuota: a window, or what the CRM says is left, is used up. The lane
	// knows; nothing was refused.
	HoldQuota HoldReason = "quota"
	// HoldOutage: the CRM fails for everybody.
	HoldOutage HoldReason = "outage"
	// HoldCredentials: the CRM refuses our credentials or lacks us a
	// permission.
	HoldCredentials HoldReason = "credentials"
)

// Probe intervals.
const (
	probeCredentials = 30 * time.Second // a token the CRM does not know
	probeForbidden   = 5 * time.Minute  // a missing permission: Perfex counts these and blocks the address
	probeOutageFirst = time.Second
	probeOutageMax   = 30 * time.Second
	throttleShown    = time.Second // shorter pauses are part of finding the rate
)

// excusedPerAttempt is how many incidents that only one contact meets make one
// attempt of it.
const excusedPerAttempt = 4

// Hold is why a lane sends nothing, since when, and what would end it.
type Hold struct {
	Reason    HoldReason `json:"reason"`
	Since     time.Time  `json:"since"`
	Until     time.Time  `json:"until,omitzero"`      // throttled: then it ends
	NextProbe time.Time  `json:"next_probe,omitzero"` // outage, credentials: then one call is tried
	Tried     int        `json:"tried,omitempty"`     // probes so far
	Status    int        `json:"status,omitempty"`    // HTTP status that began it
	Detail    string     `json:"detail,omitempty"`    // the CRM's words, redacted
	every     time.Duration
}

// Probes says that the hold ends by a probe, not by itself.
func (h *Hold) Probes() bool { return h.Reason == HoldOutage || h.Reason == HoldCredentials }

// beginHold holds the lane. A hold that is on stays, unless the new one tells
// more: credentials over outage over throttled.
func (l *Lane) beginHold(h Hold, a crm.Answer) {
	if l.hold != nil && (l.hold.Reason == h.Reason || rank(l.hold.Reason) > rank(h.Reason)) {
		if h.Until.After(l.hold.Until) {
			l.hold.Until = h.Until
		}
		return
	}
	h.Status, h.Detail = a.Status, a.Detail
	l.hold = &h
	l.stats.Holds[h.Reason]++
	l.o.Log.Warn().Str("target", l.o.Target).Str("reason", string(h.Reason)).Int("status", a.Status).
		Str("detail", a.Detail).Time("until", h.Until).Time("next_probe", h.NextProbe).Msg("lane holds")
}

func rank(r HoldReason) int {
	switch r {
	case HoldCredentials:
		return 3
	case HoldOutage:
		return 2
	default:
		return 1
	}
}

func (l *Lane) endHold(now time.Time, why string) {
	if l.hold == nil {
		return
	}
	l.o.Log.Info().Str("target", l.o.Target).Str("reason", string(l.hold.Reason)).
		Dur("after", now.Sub(l.hold.Since)).Int("probes", l.hold.Tried).Str("why", why).Msg("lane resumes")
	if l.hold.Reason == HoldOutage {
		l.budget.restart(now)
	}
	l.hold = nil
}

// alive notes an answer that shows the target in order: whatever it said of
// this change, it answered us as itself.
func (l *Lane) alive(now time.Time) {
	if len(l.streak) > 1 {
		// Several failed and nobody was served: that was an outage too small
		// to be called one. It costs each of them one attempt.
		l.refund(1)
	}
	clear(l.streak)
	l.incident = 0
	l.lastGood = now
	if l.hold != nil && l.hold.Probes() {
		l.endHold(now, "a call was answered")
	}
}

// refusedUs holds the lane because the CRM does not take our credentials.
func (l *Lane) refusedUs(now time.Time, a crm.Answer) {
	every := probeCredentials
	if a.Verdict == contact.VerdictForbidden {
		every = probeForbidden
	}
	l.beginHold(Hold{Reason: HoldCredentials, Since: now, NextProbe: now.Add(max(every, a.Wait)), every: every}, a)
	if l.hold.Reason == HoldCredentials {
		l.hold.every = every
	}
	l.nextProbe(now, a)
}

// throttledBy holds the lane for the time the CRM named, or for a growing one
// of our own, and lowers the rate where it named none.
func (l *Lane) throttledBy(r result) {
	now, a := r.ended, r.ans
	l.budget.HearRefusal(now, a.Hints, r.began)
	until := l.budget.Refused(now, r.began, a.Wait)
	if until.Sub(now) >= throttleShown {
		l.beginHold(Hold{Reason: HoldThrottled, Since: now, Until: until}, a)
	}
	l.nextProbe(now, a)
}

// failed counts a failure: against the update, and towards an outage of the
// target. It says whether the lane holds for an outage; then the failure costs
// no attempt.
func (l *Lane) failed(now time.Time, s *slot, a crm.Answer) bool {
	if l.hold != nil && l.hold.Reason == HoldOutage {
		s.failures = s.attempts
		l.nextProbe(now, a)
		return true
	}
	if a.Incident {
		l.incident++
		l.excuse(s)
	} else {
		s.attempts++
		l.streak[s.key.ID]++
	}
	s.lastFail = now
	if l.incident < l.o.OutageAfter && len(l.streak) < l.o.OutageAfter {
		l.nextProbe(now, a)
		return false
	}
	l.beginOutage(now, a)
	return true
}

// excuse lets an incident pass without an attempt, unless it is one that only
// this contact meets: where others are served in between, every fourth counts.
func (l *Lane) excuse(s *slot) {
	if s.lastFail.IsZero() || !l.lastGood.After(s.lastFail) {
		return
	}
	if s.excused++; s.excused%excusedPerAttempt == 0 {
		s.attempts++
	}
}

// beginOutage holds the lane and gives back the attempts that the outage cost.
func (l *Lane) beginOutage(now time.Time, a crm.Answer) {
	l.refund(0)
	clear(l.streak)
	l.incident = 0
	l.beginHold(Hold{Reason: HoldOutage, Since: now, NextProbe: now.Add(max(a.Wait, l.jitter(probeOutageFirst))), every: probeOutageFirst}, a)
}

// refund gives back the attempts that count since the last answer which showed
// the target alive, all but keep of each contact's.
func (l *Lane) refund(keep int) {
	for id, n := range l.streak {
		if s := l.slots[id]; s != nil && n > keep {
			s.attempts = max(0, s.attempts-n+keep)
			s.failures = s.attempts
		}
	}
}

// nextProbe sets the time of the next probe after one has failed.
func (l *Lane) nextProbe(now time.Time, a crm.Answer) {
	h := l.hold
	if h == nil || !h.Probes() || h.NextProbe.After(now) {
		return
	}
	every := h.every
	if h.Reason == HoldOutage {
		every = l.jitter(stepped(probeOutageFirst, probeOutageMax, h.Tried))
	}
	h.NextProbe = now.Add(max(every, a.Wait))
}
