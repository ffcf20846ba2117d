package worker

import (
	"context"
	"fmt"
	"time"

	"crmsync/contact"
)

// maxExhausted is how many parts of one take end their retries, with none
// accepted between, before the rest of it is given up with them.
const maxExhausted = 8

// decide says what an answer leads to: settle, retry, look for the culprit, or
// hold the lane.
func (l *Lane) decide(work context.Context, r result) {
	if r.slot == nil {
		l.probed(work, r)
		return
	}
	if r.repair {
		l.repaired(r)
		return
	}
	now, s, a := r.ended, r.slot, r.ans
	l.calling--
	probe := l.probing == s
	if probe {
		l.probing = nil
	}
	s.maybeSent = s.maybeSent || r.begun
	l.takeBack(work, s, r)
	if r.cut != nil || work.Err() != nil {
		// Not an attempt: we stopped it ourselves. What it may have done is
		// not known, unless the sender is sure.
		s.maybeSent = s.maybeSent || a.Verdict == contact.VerdictUnknown
		if !a.Verdict.Success() {
			if a.Verdict == contact.VerdictUnknown {
				l.mayComeLate(s.key, s.take.fields, now, false)
			}
			l.stats.Requests += int64(a.Requests)
			l.requeue(s)
			return
		}
	}
	l.record(s, r)
	if a.Wait > 0 && (a.Verdict != contact.VerdictTransient || a.Incident) {
		// It asks everybody for a pause, whatever became of this one. Only what
		// fails for itself may be meant for itself.
		l.budget.pause(now.Add(a.Wait))
	}
	switch a.Verdict {
	case contact.VerdictApplied, contact.VerdictUnchanged:
		l.alive(now, a.Wrote)
		if a.Wrote {
			l.calm()
		}
		l.accepted(work, s, r)
	case contact.VerdictInvalid, contact.VerdictMissing:
		l.alive(now, a.Wrote)
		l.refused(work, s, r)
	case contact.VerdictThrottled:
		l.throttledBy(r)
		l.requeue(s)
	case contact.VerdictUnauthorized, contact.VerdictForbidden:
		l.refusedUs(now, a)
		l.requeue(s)
	default:
		s.maybeSent = s.maybeSent || a.Verdict == contact.VerdictUnknown
		l.mayComeLate(s.key, s.take.fields, now, false) // even behind a 504
		l.tryAgain(work, s, r)
	}
}

// record keeps the attempt for the outcome record and the counts.
func (l *Lane) record(s *slot, r result) {
	a := r.ans
	s.tries = append(s.tries, contact.Attempt{At: r.began, Verdict: a.Verdict, Status: a.Status, Detail: a.Detail})
	if n := len(s.tries); n > maxTries {
		s.tries = append(s.tries[:0:0], s.tries[n-maxTries:]...)
	}
	l.note(s.key, r)
}

// evidence is the ending that this call would give.
func (l *Lane) evidence(s *slot, r result, o contact.Outcome) contact.Ending {
	return contact.Ending{
		Outcome: o, Reason: contact.NoReason,
		Call:   fmt.Sprintf("%s-%x-%d", l.o.Target, l.born.UnixMilli(), s.call),
		Merged: s.take.carried(), Status: r.ans.Status,
		Attempts: s.attempts + 1, Tries: s.tries, Field: r.ans.Field, Detail: r.ans.Detail,
		MaybeSent: o == contact.Dead && s.maybe() && l.o.Rules.Effects(s.take.fields),
	}
}

func (l *Lane) accepted(work context.Context, s *slot, r result) {
	o := contact.Applied
	if r.ans.Verdict == contact.VerdictUnchanged {
		o = contact.Unchanged
	}
	if s.attempts > 0 || len(s.tries) > 1 {
		l.stats.Recovered++
	}
	e := l.evidence(s, r, o)
	switch {
	case r.ans.ReadBack:
		e.Resolved = contact.ReadBack
	case s.maybe() && o == contact.Unchanged:
		e.Resolved = contact.FoundDone
	case s.maybe():
		e.Resolved = contact.Repeated
	}
	l.took(s.key, s.take.fields, r.ended)
	s.take.accept(l.o.Rules, e)
	s.startAfresh()
	l.goOn(work, s, r.ended)
}

func (l *Lane) refused(work context.Context, s *slot, r result) {
	e := l.evidence(s, r, contact.Dead)
	if r.ans.Verdict == contact.VerdictMissing {
		e.Reason = contact.Missing
	} else if e.Reason = r.ans.Reason; e.Reason == contact.NoReason {
		e.Reason = contact.Invalid
	}
	l.turnedDown(s.key, s.take.fields)
	if l.brake(r.ended, s, contact.CauseOf(e), r.ans) {
		l.requeue(s)
		return
	}
	if e.Reason == contact.Missing {
		s.take.killAll(l.o.Rules, e)
	} else {
		l.culprit(s, e)
	}
	s.startAfresh()
	l.goOn(work, s, r.ended)
}

// culprit narrows a refusal down.
func (l *Lane) culprit(s *slot, e contact.Ending) {
	if len(s.take.group) > 1 {
		l.stats.Unmerged++
	}
	s.take.refuse(l.o.Rules, s.fence, e)
}

// goOn sends what is left of a take, or settles it.
func (l *Lane) goOn(work context.Context, s *slot, now time.Time) {
	if s.take.next(l.o.Rules) {
		l.makeReady(s)
		return
	}
	l.settle(work, s, now)
}

// tryAgain decides about a failure that may pass.
func (l *Lane) tryAgain(work context.Context, s *slot, r result) {
	now, a := r.ended, r.ans
	if a.Verdict == contact.VerdictUnknown {
		l.stats.Unknown++
	}
	s.failures++
	if l.failed(now, s, a) || s.attempts < l.o.Retry.Attempts {
		l.retryLater(s, now, a.Wait)
		return
	}
	if !a.Alive && l.streak[s.key.ID] > l.o.Retry.Attempts/2 {
		// Most of these attempts met a target that worked for nobody else
		// either: that is an outage, not this update's failure. One of them
		// stays counted, so that a contact which fails while little else is
		// sent still comes to an end.
		l.beginOutage(now, a)
		s.attempts++
		l.retryLater(s, now, a.Wait)
		return
	}
	e := l.evidence(s, r, contact.Dead)
	e.Attempts = s.attempts
	e.Reason = contact.Exhausted
	if a.Reason == contact.Protocol {
		e.Reason = contact.Protocol
	}
	if s.exhausted++; s.exhausted > maxExhausted {
		// One value may be what the CRM breaks on; so many in a row are not.
		s.take.killAll(l.o.Rules, e)
	} else {
		l.culprit(s, e)
	}
	// What is left of it gets two more tries, soon.
	s.attempts, s.failures = max(0, l.o.Retry.Attempts-2), 0
	l.goOn(work, s, now)
}
