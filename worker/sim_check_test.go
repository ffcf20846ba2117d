package worker

import (
	"slices"
	"strings"
	"time"

	"crmsync/contact"
)

// check holds the history against the promises.
func (s *sim) check() {
	s.w.m.check()
	s.checkOutcomes()
	s.checkRequests()
	s.checkSideEffects()
	s.countCalls()
	for _, o := range s.w.m.over {
		if o.late && !o.mended.IsZero() {
			s.saw("put right again")
		}
	}
	if s.w.q.cut > 0 {
		s.saw("settlement cut off")
	}
}

// refusedThen says whether an update ended while everybody was refused, and is
// one of those that a storm leaves dead: the few before it can be told.
func (s *sim) refusedThen(u *stored) bool {
	for i, f := range s.faults {
		then := slices.ContainsFunc(u.ending.Tries, func(a contact.Attempt) bool {
			at := a.At.Sub(s.born)
			return at >= f.from && at < f.to && a.Status == 400
		})
		if f.kind == "refused" && then {
			if u.again == nil && u.update.RedriveOf == "" && !s.accepted {
				if s.leftDead == nil {
					s.leftDead = map[int]map[string]bool{}
				}
				if s.leftDead[i] == nil {
					s.leftDead[i] = map[string]bool{}
				}
				s.leftDead[i][u.update.Contact.ID] = true
			}
			return len(s.leftDead[i]) < 2*DefaultStormAfter
		}
	}
	return false
}

// checkOutcomes: each update has one, and is dead only for its own faults.
func (s *sim) checkOutcomes() {
	for _, u := range s.w.q.byNumber {
		if u.ending == nil {
			s.t.Errorf("update %d of %s has no outcome", u.n, u.update.Contact)
			continue
		}
		if u.ending.Outcome != contact.Dead {
			continue
		}
		id, why := u.update.Contact.ID, u.ending.Reason
		holds := func(suffix string) bool {
			for _, v := range flat(u.update.Fields) {
				if strings.HasSuffix(v, suffix) {
					return true
				}
			}
			return false
		}
		_, never := u.update.Fields.Get("never")
		ok := false
		switch why {
		case contact.Malformed:
			ok = u.update.Bad != nil
		case contact.Invalid:
			ok = holds("#bad") || never
		case contact.Conflict:
			ok = holds("#taken")
		case contact.Missing:
			ok = strings.HasPrefix(id, "gone")
		case contact.Exhausted:
			ok = strings.HasPrefix(id, "poison") || strings.HasPrefix(id, "trap")
		case contact.Refused: // few contacts, or the operator's word
			ok = s.refusedThen(u)
		case contact.Protocol:
			ok = strings.HasPrefix(id, "trap")
		}
		if !ok {
			s.t.Errorf("update %d of %s is dead: %s, status %d, tries %+v", u.n, u.update.Contact, why, u.ending.Status, u.ending.Tries)
		}
	}
}

// checkRequests: the quota, the windows, and the times that the CRM gave.
func (s *sim) checkRequests() {
	m, q := s.w.m, s.w.o.Quota
	slices.SortFunc(m.requests, time.Time.Compare)
	if over := replayBucket(m.requests, s.born, q.Rate*(1-q.Reserve), q.Burst); over > 1e-5 {
		s.t.Errorf("the bucket was overdrawn by %v tokens", over)
	}
	for _, w := range q.Windows {
		if n := fullest(m.requests, w.Span); float64(n) > float64(w.Limit)*(1-q.Reserve)+1e-6 {
			s.t.Errorf("%d requests within %v", n, w.Span)
		}
	}
	for _, c := range m.calls {
		if c.verdict != contact.VerdictThrottled || c.wait == 0 {
			continue
		}
		i, _ := slices.BinarySearchFunc(m.requests, c.end.Add(time.Nanosecond), time.Time.Compare)
		for ; i < len(m.requests) && m.requests[i].Before(c.end.Add(c.wait)); i++ {
			if s.sameOwner(c.end, m.requests[i]) {
				s.t.Errorf("a request at %v, though at %v the CRM wanted none for %v", m.requests[i], c.end, c.wait)
				return
			}
		}
	}
}

// sameOwner says whether one lane ran from a to b: what the CRM said to one
// owner, the next has to hear for itself.
func (s *sim) sameOwner(a, b time.Time) bool {
	for _, l := range s.w.lanes {
		if l.began.After(a) && !l.began.After(b) {
			return false
		}
	}
	return true
}

// checkSideEffects: never twice, and left out only where nobody can tell.
func (s *sim) checkSideEffects() {
	for n, times := range s.w.m.mails {
		if times > 1 {
			s.t.Errorf("the side effect of update %d happened %d times over %d broken ownerships", n, times, s.breaks)
		}
	}
	for _, u := range s.w.q.byNumber {
		if _, mail := u.update.Fields.Get("mail"); !mail || u.ending == nil || u.ending.Outcome != contact.Applied && u.ending.Outcome != contact.Unchanged {
			continue
		}
		if s.w.m.mails[u.n] > 0 {
			s.saw("side effect")
			continue
		}
		s.saw("side effect left out")
		if !slices.ContainsFunc(s.w.m.calls, func(c crmCall) bool {
			_, carried := flat(c.change.Fields)["mail"]
			return carried && wrote(c, "mail", u.n) && (c.verdict == contact.VerdictUnknown || c.change.MaybeSent)
		}) {
			s.t.Errorf("the side effect of update %d never happened, though every answer was clear", u.n)
		}
	}
}

func (s *sim) countCalls() {
	for _, c := range s.w.m.calls {
		if c.change.Updates > 1 && len(s.w.lanes) > 1 && c.at.After(s.w.lanes[1].began) {
			s.saw("merged after a takeover")
		}
		if c.verdict == contact.VerdictTransient && c.cut {
			s.saw("not a second request")
		}
	}
	for _, u := range s.w.q.byNumber {
		if e := u.ending; e != nil && e.Outcome == contact.Applied {
			for path := range flat(u.update.Fields) {
				if path != "mail" && !slices.ContainsFunc(s.w.m.calls, func(c crmCall) bool { return wrote(c, path, u.n) }) {
					s.saw("part of a change was left out")
					return
				}
			}
		}
	}
}

func wrote(c crmCall, path string, n int) bool {
	v, ok := flat(c.change.Fields)[path]
	return ok && number(v) == n
}
