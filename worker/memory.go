package worker

import (
	"slices"
	"time"

	"crmsync/contact"
	"crmsync/crm"
)

// Memory is what a lane knows that its successor must not have to find out
// again: it stands in [Status], and goes into the next lane's [Options].
type Memory struct {
	Hold    *Hold    `json:"hold,omitempty"`    // the automatic one that is on
	Storm   *Hold    `json:"storm,omitempty"`   // a storm that another hold covers
	Streaks []Streak `json:"streaks,omitempty"` // refusals that may become one
	// Left are dead letters of storms that are over, which the queue had no room
	// for yet.
	Left []contact.Ref `json:"left,omitempty"`
	// Late is what requests that were given up may still write; of 200 contacts at
	// most, those of which it can come last.
	Late []LateWrite `json:"late,omitempty"`
}

// memory is a copy for others.
func (l *Lane) memory() Memory {
	if l.hold != nil {
		l.hold.Writes = l.writesFail
	}
	m := Memory{Hold: l.hold.clone(), Streaks: l.storms.kept(), Left: slices.Clone(l.storms.left), Late: l.lateKept(time.Now())}
	if l.storms.hold != l.hold {
		m.Storm = l.storms.hold.clone()
	}
	return m
}

func (h *Hold) clone() *Hold {
	if h == nil {
		return nil
	}
	c := *h
	return &c
}

// remember takes over what a former lane knew. Its clock may have been another:
// no probe is put off for longer than this kind of hold waits at most.
func (l *Lane) remember(m Memory) {
	l.storms.restore(m.Streaks)
	l.rememberLate(m.Late)
	l.storms.left, l.storms.again = slices.Clone(m.Left), l.born.Add(recallSoon)
	for _, h := range []*Hold{m.Storm, m.Hold} {
		h = h.clone()
		if h == nil || h.Reason == HoldStorm && h.Cause == nil {
			continue
		}
		switch h.Reason {
		case HoldThrottled:
			if !h.Until.After(l.born) {
				continue
			}
			h.Until = minTime(h.Until, l.born.Add(crm.MaxWait))
			l.budget.pause(h.Until)
		case HoldOutage, HoldCredentials, HoldStorm:
			// A new process may have been given what the old one lacked: it
			// may ask sooner, but not so soon that restarts would be a hammer.
			soon := minTime(h.Probed, l.born).Add(probeCredentials)
			if h.Probed.IsZero() {
				soon = l.born
			}
			h.NextProbe = minTime(h.NextProbe, maxTime(soon, l.born))
			if h.Reason == HoldStorm {
				l.storms.hold = h
			}
		default: // of another version
			continue
		}
		l.hold, l.recent, l.writesFail = h, h.Evidence, h.Writes
		l.o.Log.Warn().Str("target", l.o.Target).Str("reason", string(h.Reason)).
			Time("since", h.Since).Msg("the lane before held; so does this one")
	}
}

func minTime(a, b time.Time) time.Time {
	if b.Before(a) {
		return b
	}
	return a
}

func maxTime(a, b time.Time) time.Time {
	if b.After(a) {
		return b
	}
	return a
}

// shownHold is the hold that people see: the automatic one, else the
// operator's, else that of a spent quota.
func (l *Lane) shownHold(now time.Time) *Hold {
	switch {
	case l.hold != nil:
		return l.hold.clone()
	case l.operator.Hold:
		return &Hold{Reason: HoldOperator, Since: l.operator.Since, Until: l.operator.Until, Detail: l.operator.Note}
	}
	return l.quotaHold(now)
}

// storyAsk asks what a lane has in memory of one contact.
type storyAsk struct {
	id    string
	reply chan ContactStatus
}

// ContactStatus is what a lane has in memory of one contact.
type ContactStatus struct {
	// State is idle, ready, calling, waiting or settling; "" where the lane has
	// nothing of the contact.
	State    string            `json:"state"`
	Due      time.Time         `json:"due,omitzero"` // waiting: for its next attempt
	Attempts int               `json:"attempts,omitempty"`
	Tries    []contact.Attempt `json:"tries,omitempty"`
	Updates  []contact.Ref     `json:"updates,omitempty"` // unfinished, in the order in which they are folded
	Sent     int               `json:"sent,omitempty"`    // so many of them have been in a call
	// Waiting and Until are what the lane's next call waits for; Hold is why it
	// sends nothing.
	Waiting string    `json:"waiting"`
	Until   time.Time `json:"until,omitzero"`
	Hold    *Hold     `json:"hold,omitempty"`
}

var slotStates = [...]string{"idle", "ready", "calling", "waiting", "settling"}

func (l *Lane) story(id string) ContactStatus {
	st := ContactStatus{Waiting: l.waiting.what, Until: l.waiting.until, Hold: l.shownHold(time.Now())}
	s := l.slots[id]
	if s == nil {
		return st
	}
	st.State, st.Attempts = slotStates[s.state], s.attempts
	st.Tries = append(st.Tries, s.tries...)
	if s.state == slotWaiting {
		st.Due = s.due
	}
	all := s.pending
	st.Sent = s.sent
	if s.take != nil {
		all = append(s.take.updates[:len(s.take.updates):len(s.take.updates)], all...)
		st.Sent = len(s.take.updates)
	}
	for _, u := range all {
		st.Updates = append(st.Updates, contact.Ref{ID: id, Class: u.Class, Seq: u.Seq})
	}
	return st
}
