package worker

import (
	"slices"
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
	// HoldStorm: one contact after the other is refused for the same cause.
	HoldStorm HoldReason = "storm"
	// HoldOutage: the CRM fails for everybody.
	HoldOutage HoldReason = "outage"
	// HoldCredentials: the CRM refuses our credentials or lacks us a
	// permission.
	HoldCredentials HoldReason = "credentials"
)

// HoldReasons lists every reason.
func HoldReasons() []HoldReason {
	return []HoldReason{HoldOperator, HoldThrottled, HoldQuota, HoldOutage, HoldCredentials, HoldStorm}
}

// throttleShown is how long a pause must be to be shown as a hold: shorter ones
// are part of finding the rate.
const throttleShown = time.Second

// maxEvidence is how many answers a hold shows.
const maxEvidence = 5

// excusedPerAttempt is how many incidents that only one contact meets make one
// attempt of it.
const excusedPerAttempt = 4

// Hold is why a lane sends nothing, since when, and what would end it.
type Hold struct {
	Reason    HoldReason    `json:"reason"`
	Since     time.Time     `json:"since"`
	Until     time.Time     `json:"until,omitzero"`      // throttled, quota: then it ends
	NextProbe time.Time     `json:"next_probe,omitzero"` // outage, credentials, storm: then one call is tried
	Every     time.Duration `json:"every,omitempty"`     // credentials: the time between probes
	Tried     int           `json:"tried,omitempty"`     // probes so far
	Probed    time.Time     `json:"probed,omitzero"`     // the last of them
	Status    int           `json:"status,omitempty"`    // HTTP status that began it
	Detail    string        `json:"detail,omitempty"`    // the CRM's words, redacted
	// Evidence is the last answers that were no success, oldest first.
	Evidence []Evidence `json:"evidence,omitempty"`

	// Of a storm: what all were refused for, how many contacts when it began,
	// and the updates that were dead letters before.
	Cause    *contact.Cause `json:"cause,omitempty"`
	Contacts int            `json:"contacts,omitempty"`
	Letters  []contact.Ref  `json:"letters,omitempty"`

	Writes bool `json:"writes,omitempty"` // writes fail while reads are answered

	trial bool // the read was answered: the next probe is one change
}

// Evidence is an answer, as it is shown to people.
type Evidence struct {
	At      time.Time       `json:"at"`
	Contact string          `json:"contact,omitempty"` // "" for a read
	Verdict contact.Verdict `json:"verdict"`
	Status  int             `json:"status,omitempty"`
	Detail  string          `json:"detail,omitempty"`
}

// Probes says that the hold ends by a probe, not by itself.
func (h *Hold) Probes() bool {
	return h.Reason == HoldOutage || h.Reason == HoldCredentials || h.Reason == HoldStorm
}

func (h *Hold) tried(now time.Time) {
	h.Tried++
	h.Probed = now
}

// beginHold holds the lane. A hold that is on stays, unless the new one tells
// more: credentials over outage over storm over throttled. The hold that was
// to begin is returned, in force or not.
func (l *Lane) beginHold(h Hold, a crm.Answer) *Hold {
	h.Status, h.Detail, h.Evidence = a.Status, a.Detail, l.recent
	if l.hold != nil && (l.hold.Reason == h.Reason || rank(l.hold.Reason) > rank(h.Reason)) {
		if h.Until.After(l.hold.Until) {
			l.hold.Until = h.Until
		}
		return &h
	}
	if p := l.lastHold; p.Reason == h.Reason && h.Probes() && h.Since.Sub(l.lastEnd) < flapWithin {
		h.Tried = p.Tried // the same incident: it is not asked as often as at first
		h.NextProbe = h.Since
		l.hold = &h
		l.nextProbe(h.Since, a)
	}
	l.hold = &h
	l.stats.Holds[h.Reason]++
	l.changed()
	l.o.Log.Warn().Str("target", l.o.Target).Str("reason", string(h.Reason)).Int("status", a.Status).
		Str("detail", a.Detail).Time("until", h.Until).Time("next_probe", h.NextProbe).Msg("lane holds")
	return &h
}

func rank(r HoldReason) int {
	switch r {
	case HoldCredentials:
		return 4
	case HoldOutage:
		return 3
	case HoldStorm:
		return 2
	default:
		return 1
	}
}

// endHold ends the hold that is on. A storm that it covered is on again.
func (l *Lane) endHold(now time.Time, why string) {
	h := l.hold
	if h == nil {
		return
	}
	l.o.Log.Info().Str("target", l.o.Target).Str("reason", string(h.Reason)).
		Dur("after", now.Sub(h.Since)).Int("probes", h.Tried).Str("why", why).Msg("lane resumes")
	l.lastHold, l.lastEnd = *h, now
	l.hold = l.storms.hold
	l.changed()
}

// note keeps an answer as evidence for the hold that is on or may come.
func (l *Lane) note(k contact.Key, r result) {
	a := r.ans
	l.stats.Answers[a.Verdict]++
	l.stats.Requests += int64(max(1, a.Requests))
	if l.o.OnAnswer != nil {
		l.o.OnAnswer(a, r.ended.Sub(r.began))
	}
	if a.Verdict != contact.VerdictThrottled && a.Status > 0 {
		l.budget.Hear(r.ended, a.Hints, r.began)
	}
	if a.Verdict.Success() {
		return
	}
	if n := len(l.recent); n >= maxEvidence {
		l.recent = slices.Clone(l.recent[n-maxEvidence+1:])
	}
	l.recent = append(l.recent, Evidence{At: r.ended, Contact: k.ID, Verdict: a.Verdict, Status: a.Status, Detail: a.Detail})
	if l.hold != nil {
		l.hold.Evidence = l.recent
	}
}

// readOnlyMost is how many changes in a row that need no write end a hold all
// the same: whoever is left may need none for hours.
const readOnlyMost = 50

// alive notes an answer that shows the target in order: whatever it said of
// this change, it answered us as itself. Where writes have failed while reads
// were answered, only an answer to a write shows that.
func (l *Lane) alive(now time.Time, wrote bool) {
	if l.writesFail && !wrote {
		l.lastGood = now
		if l.readOnly++; l.readOnly < readOnlyMost {
			if h := l.hold; h != nil && h.Probes() {
				h.trial, h.NextProbe = true, now // the next may need a write
			}
			return
		}
	}
	l.writesFail, l.readOnly = false, 0
	if len(l.streak) > 1 {
		// Several failed and nobody was served: that was an outage too small
		// to be called one. It costs each of them one attempt.
		l.refund(1)
	}
	clear(l.streak)
	l.incident = 0
	l.lastGood = now
	if l.hold != nil && l.hold.Probes() && l.hold.Reason != HoldStorm {
		l.budget.restart(now)
		l.endHold(now, "a call was answered")
	}
}

// refusedUs holds the lane because the CRM does not take our credentials.
func (l *Lane) refusedUs(now time.Time, a crm.Answer) {
	every := probeCredentials
	if a.Verdict == contact.VerdictForbidden {
		every = probeForbidden
		l.writesFail, l.readOnly = true, 0
	}
	l.beginHold(Hold{Reason: HoldCredentials, Since: now, NextProbe: now.Add(max(every, a.Wait)), Every: every}, a)
	if l.hold.Reason == HoldCredentials {
		l.hold.Every = every
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
	if a.Alive {
		l.writesFail, l.readOnly = true, 0
	}
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
	l.beginHold(Hold{Reason: HoldOutage, Since: now, NextProbe: now.Add(max(a.Wait, l.jitter(probeOutageFirst)))}, a)
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
