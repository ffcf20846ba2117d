package worker

import (
	"cmp"
	"context"
	"maps"
	"slices"
	"time"

	"crmsync/contact"
	"crmsync/crm"
)

// The storm brake. A CRM that is broken in the right way refuses everybody for
// good: a wrong base address, a renamed field, a licence that ran out. Then the
// refusals are an incident of the target, not so many dead letters.
const (
	// DefaultStormAfter is how many distinct contacts must be refused for good
	// for the same cause, with no success between, for a storm.
	DefaultStormAfter = 25
	// stormAnyAfter times as many refused with the same status, whatever the
	// words, are one too: messages may hold what no rule takes out.
	stormAnyAfter = 4
	// acceptFor is how long the operator's word that the contacts really are
	// wrong stands for a cause.
	acceptFor = time.Hour
	// maxRecalled bounds the letters of a storm that are remembered.
	maxRecalled = 1000
	// Letters that the queue had no room for are recalled again, at first so soon,
	// then less and less often: each time is an entry in the audit trail.
	recallSoon = 30 * time.Second
	recallLate = 10 * time.Minute
)

// Streak is a row of contacts that were refused for one cause since the last
// success, as it is kept across owners.
type Streak struct {
	Cause    contact.Cause `json:"cause"`
	Any      bool          `json:"any,omitempty"` // whatever the words: Cause has reason and status only
	Contacts []string      `json:"contacts"`
	// Letters are the updates that became dead letters on the way.
	Letters []contact.Ref `json:"letters,omitempty"`
}

// storms counts refusals, and holds what a storm keeps back.
type storms struct {
	rows map[rowKey]*row // since the last success
	hold *Hold           // the storm, once there is one
	over bool            // the storm was an incident and is over: its letters are to be recalled
	back *Hold           // the storm whose letters are being recalled

	left   []contact.Ref // letters of storms that are over, for which there was no room yet
	again  time.Time     // when they are tried next
	wait   time.Duration // and how long after that
	trying bool          // they are being tried
}

type row struct {
	contacts map[string]bool
	letters  []contact.Ref
	more     bool // than are remembered
}

// rowKey is a cause, or every cause with its reason and status.
type rowKey struct {
	cause contact.Cause
	any   bool
}

// keysOf are the rows that a refusal belongs to.
func keysOf(c contact.Cause) [2]rowKey {
	return [2]rowKey{{cause: c}, {cause: coarse(c), any: true}}
}

func coarse(c contact.Cause) contact.Cause { return contact.Cause{Reason: c.Reason, Status: c.Status} }

func (s *storms) row(k rowKey) *row {
	r := s.rows[k]
	if r == nil {
		r = &row{contacts: map[string]bool{}}
		s.rows[k] = r
	}
	return r
}

// brake counts a refusal for good. It says whether the lane holds for a storm:
// then the update stays pending.
func (l *Lane) brake(now time.Time, s *slot, c contact.Cause, a crm.Answer) bool {
	if l.storms.hold != nil {
		l.nextProbe(now, a)
		return true
	}
	if l.accepts(now, c) {
		return false
	}
	for _, k := range keysOf(c) {
		limit := l.o.StormAfter
		if k.any {
			limit *= stormAnyAfter
		}
		r := l.storms.row(k)
		r.contacts[s.key.ID] = true
		if len(r.contacts) >= limit {
			l.storms.hold = l.beginHold(Hold{
				Reason: HoldStorm, Since: now, NextProbe: now.Add(l.jitter(probeStormFirst)),
				Cause: &k.cause, Contacts: len(r.contacts), Letters: r.letters,
			}, a)
			return true
		}
	}
	return false
}

// accepts says whether the operator wants refusals of this cause as dead
// letters.
func (l *Lane) accepts(now time.Time, c contact.Cause) bool {
	o := l.operator
	return !o.AcceptedAt.IsZero() && now.Sub(o.AcceptedAt).Abs() < acceptFor &&
		(o.Accepted == c.Fingerprint() || o.Accepted == coarse(c).Fingerprint())
}

// suspect remembers the dead letters that may turn out to be a storm's. One
// that was sent before and is dead again is not recalled a second time.
func (l *Lane) suspect(ended []contact.Ended) {
	h := l.storms.hold
	for _, e := range ended {
		if e.Ending.Outcome != contact.Dead || e.Ending.Call == "" || e.Update.RedriveOf != "" {
			continue
		}
		ref := contact.Ref{ID: e.Update.Contact.ID, Class: e.Update.Class, Seq: e.Update.Seq}
		c := contact.CauseOf(e.Ending)
		if h != nil && (*h.Cause == c || *h.Cause == coarse(c)) {
			h.Letters = append(h.Letters, ref) // decided before the storm was
			continue
		}
		for _, k := range keysOf(c) {
			r := l.storms.rows[k]
			if r == nil || !r.contacts[ref.ID] {
				continue
			}
			if r.letters = append(r.letters, ref); len(r.letters) > maxRecalled {
				if r.letters = r.letters[:maxRecalled]; !r.more {
					l.o.Log.Warn().Str("target", l.o.Target).Int("letters", maxRecalled).Msg("more died of one cause than are recalled if it is a storm; send the others with crmsync dead redrive")
				}
				r.more = true
			}
		}
	}
}

// calm notes a success: whoever was refused before it was refused alone, or,
// where the lane holds for a storm, the storm was an incident and is over.
func (l *Lane) calm() {
	if l.storms.hold != nil {
		l.storms.over = true
		return
	}
	clear(l.storms.rows)
}

// recall puts the letters of a storm that is over back into the queue, once
// they are all stored; then the lane goes on.
func (l *Lane) recall(work context.Context, now time.Time) {
	h := l.storms.hold
	if h == nil || !l.storms.over || l.storms.back != nil || l.storms.trying || l.settling > 0 || l.calling > 0 || l.draining {
		return
	}
	if len(h.Letters) == 0 {
		l.endStorm(now, "a change was taken")
		return
	}
	l.storms.back = h
	l.sendBack(work, h.Letters)
}

// recallLeft tries letters again that there was no room for: beside the lane's work,
// which makes room.
func (l *Lane) recallLeft(work context.Context, now time.Time) {
	if l.leftWait() && !l.storms.again.After(now) {
		l.storms.trying = true
		l.sendBack(work, l.storms.left)
	}
}

// leftWait says that there are letters to be tried again, and nothing but the time
// stands in the way: not in a storm, whose letters they would only join.
func (l *Lane) leftWait() bool {
	s := &l.storms
	return len(s.left) > 0 && !s.trying && s.back == nil && s.hold == nil && !l.draining
}

func (l *Lane) sendBack(work context.Context, letters []contact.Ref) {
	go func() {
		left, err := l.o.Source.Recall(work, letters)
		l.recalled <- recalled{letters, left, err}
	}()
}

// recalled is how a recall ended; left stay dead letters until there is room for
// them.
type recalled struct {
	letters, left []contact.Ref
	err           error
}

// recallEnded is told how a recall ended.
func (l *Lane) recallEnded(now time.Time, r recalled) {
	st := &l.storms
	h, first := st.back, !st.trying
	st.back, st.trying = nil, false
	if r.err != nil {
		// What is not in the queue again is a dead letter still; the next
		// owner, or the operator, can recall it.
		if l.fatal == nil {
			l.fatal = r.err
		}
		l.draining = true
		return
	}
	l.stats.Recalled += int64(len(r.letters) - len(r.left))
	st.wait = min(2*max(st.wait, recallSoon/2), recallLate)
	if first || len(r.left) < len(r.letters) {
		st.wait = recallSoon
	}
	st.again = now.Add(st.wait)
	if first {
		st.left = append(st.left, r.left...)
	} else {
		st.left = r.left
	}
	switch n := len(st.left); {
	case first && len(r.left) > 0:
		l.o.Log.Warn().Str("target", l.o.Target).Int("letters", n).Msg("the queue has no room for dead letters of the storm; they are recalled when there is some")
	case !first && n == 0:
		l.o.Log.Info().Str("target", l.o.Target).Msg("all dead letters of the storm are recalled")
	}
	if first {
		l.forgive(*h.Cause)
		l.endStorm(now, "a change was taken, the letters are recalled")
	}
}

// forgive takes back what a storm has decided about updates that wait for the
// rest of their take.
func (l *Lane) forgive(c contact.Cause) {
	for _, s := range l.slots {
		if s.take == nil || s.take.written != nil || s.state == slotSettling || s.state == slotCalling {
			continue
		}
		for _, e := range s.take.end {
			if e.Outcome == contact.Dead && e.Call != "" && (contact.CauseOf(e) == c || coarse(contact.CauseOf(e)) == c) {
				s.pending = append(s.take.updates, s.pending...)
				s.sent = len(s.take.updates)
				s.take = nil
				break
			}
		}
	}
}

// endStorm ends the brake and forgets the row that led to it.
func (l *Lane) endStorm(now time.Time, why string) {
	h := l.storms.hold
	if l.storms.over {
		l.budget.restart(now)
	}
	l.storms.hold, l.storms.over = nil, false
	clear(l.storms.rows)
	if l.hold == h {
		l.endHold(now, why)
	}
}

// maxKept bounds the rows that are handed on.
const maxKept = 8

// kept is the longest rows, for the next owner.
func (s *storms) kept() []Streak {
	var out []Streak
	for k, r := range s.rows {
		if len(r.contacts) > 1 {
			out = append(out, Streak{
				Cause: k.cause, Any: k.any, Contacts: slices.Sorted(maps.Keys(r.contacts)), Letters: slices.Clone(r.letters),
			})
		}
	}
	slices.SortFunc(out, func(a, b Streak) int {
		return cmp.Or(cmp.Compare(len(b.Contacts), len(a.Contacts)), cmp.Compare(a.Cause.Fingerprint(), b.Cause.Fingerprint()))
	})
	return out[:min(len(out), maxKept)]
}

// restore takes over a former owner's rows.
func (s *storms) restore(kept []Streak) {
	for _, k := range kept {
		r := s.row(rowKey{cause: k.Cause, any: k.Any})
		for _, id := range k.Contacts {
			r.contacts[id] = true
		}
		r.letters = slices.Clone(k.Letters)
	}
}
