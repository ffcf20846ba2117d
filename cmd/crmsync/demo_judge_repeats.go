package main

import (
	"net/http"
	"slices"
	"time"

	"crmsync/emulator"
)

// arrivalGrace is how long after a kill the CRM may still read what was sent
// before.
const arrivalGrace = time.Second

// What was written is put on top again onTopAfter a write, where something older may
// come late, and onTopMost times while it may.
const (
	onTopAfter = 15 * time.Second
	onTopMost  = 4
)

// openAt says whether a call was made before a kill, and an update that it carried
// had no stored end by then: whoever takes over cannot know what became of it.
func (j *demoJudge) openAt(k time.Time, e emulator.Entry, n int64) bool {
	if !e.Arrived.Before(k.Add(arrivalGrace)) {
		return false
	}
	ended, stored := j.ended[n]
	return !stored || !ended.Before(k)
}

// repeats looks at accepted writes of marked values that the CRM held already. A
// worker that dies leaves calls whose end is not stored, and so may a lost answer;
// only what such a call carried may be sent again.
func (j *demoJudge) repeats() {
	j.onTop, j.unanswered = map[string]int{}, map[string][]time.Time{}
	carried := map[int64]emulator.Entry{} // the last call that may have written an update
	for _, e := range j.entries {
		if e.Operation == emulator.OpUpdate && j.mayBeGivenUp(e) {
			j.unanswered[e.Contact] = append(j.unanswered[e.Contact], e.Arrived)
		}
		mayHave := e.Applied || e.Unchanged || e.Status == 0
		if e.Operation != emulator.OpUpdate || len(e.Updates) == 0 || !mayHave {
			continue
		}
		n := e.Updates[len(e.Updates)-1]
		if j.openAtKill(e, n, time.Time{}) {
			j.t.InFlight++
		}
		before := carried[n]
		switch {
		case !e.Unchanged:
		case j.putOnTop(e):
			j.t.PutOnTop++
		case before.Fault == string(emulator.LostAnswer) || j.gaveUp(before, e, n):
			j.t.Repeated++
			j.t.GivenUp++
		default:
			j.t.Repeated++
			if !j.openAtKill(before, n, e.Arrived) {
				j.find(findRepeat, e.Contact, "request %d repeats request %d, of which the answer was known%s", e.N, before.N, j.since(n))
			}
		}
		for _, n := range e.Updates {
			carried[n] = e
		}
	}
}

// mayBeGivenUp says whether the worker may have got no answer to a call, or none that
// tells whether the CRM is done with it.
func (j *demoJudge) mayBeGivenUp(e emulator.Entry) bool {
	return e.Status == 0 || e.Status >= http.StatusInternalServerError || e.Fault == string(emulator.LostAnswer) ||
		e.Answered.Sub(e.Arrived) >= demoTimeout || j.evidence.starved >= demoTimeout/4
}

// gaveUp says whether the worker can have stopped waiting for an answer before it
// called again: the answer took long, or the machine is slow; as long as a call may
// take lies between the two, and no end was stored.
func (j *demoJudge) gaveUp(before, again emulator.Entry, n int64) bool {
	const long = demoTimeout / 4
	slow := before.Answered.IsZero() || before.Answered.Sub(before.Arrived) >= long || j.evidence.starved >= long
	ended, stored := j.ended[n]
	return before.N > 0 && slow && again.Arrived.Sub(before.Arrived) >= demoTimeout && (!stored || ended.After(again.Arrived))
}

// openAtKill says whether there was a kill, before an instant unless that is zero,
// at which a call had been made and an update that it carried had no stored end.
func (j *demoJudge) openAtKill(e emulator.Entry, n int64, before time.Time) bool {
	return e.N > 0 && slices.ContainsFunc(j.evidence.killed, func(k time.Time) bool {
		return (before.IsZero() || k.Before(before)) && j.openAt(k, e, n)
	})
}

// putOnTop says whether a write puts on top again what has ended, since a request
// that somebody gave up may come late and overwrite it: there was a moment at which a
// call for the contact may have been given up, two of its updates had not ended then,
// and long enough before this write another was made. It may be done so many times
// for each such moment, and no more.
func (j *demoJudge) putOnTop(e emulator.Entry) bool {
	for _, n := range e.Updates {
		if at, stored := j.ended[n]; !stored || !at.Before(e.Arrived) {
			return false
		}
	}
	moments := 0
	for _, m := range slices.Concat(j.evidence.killed, j.evidence.doubted, j.unanswered[e.Contact]) {
		written := slices.ContainsFunc(j.entries, func(w emulator.Entry) bool {
			return w.Contact == e.Contact && w.Operation == emulator.OpUpdate && w.Arrived.After(m) && e.Arrived.Sub(w.Arrived) >= onTopAfter
		})
		if written && j.openUpdates(e.Contact, m) >= 2 {
			moments++
		}
	}
	if j.onTop[e.Contact] >= moments*onTopMost {
		return false
	}
	j.onTop[e.Contact]++
	return true
}

// openUpdates counts the updates of a contact that had not ended at an instant.
func (j *demoJudge) openUpdates(id string, at time.Time) (n int) {
	for _, u := range j.updates {
		if ended, stored := j.ended[u.n]; u.contact == id && (!stored || ended.After(at)) {
			n++
		}
	}
	return n
}

// since tells when an update's end was stored, for a finding.
func (j *demoJudge) since(n int64) string {
	ended, stored := j.ended[n]
	if !stored {
		return ""
	}
	return ": its end was stored at " + ended.Format(time.StampMilli)
}
