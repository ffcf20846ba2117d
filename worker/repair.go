package worker

import (
	"context"
	"slices"
	"strings"
	"time"

	"crmsync/contact"
)

// DefaultLate is how long after its sender gave a request up the CRM may still
// carry it out.
const DefaultLate = 2 * time.Minute

// When what was written is put on top again. An older value that comes late
// stands for repairEvery and a call at most.
const (
	repairFirst = 15 * time.Second
	repairEvery = 45 * time.Second
	repairSoon  = 5 * time.Second // after one that failed

	maxRefused = 5 // repairs in a row, then the CRM takes this no longer
)

// doubt is a contact that requests may still reach of which nobody waits for the
// answer any more: ours that timed out, those that an owner before us gave up, and all
// that one may have made who did not end in good order. Where something else has been
// written since, it is put on top again, until nothing can come any more.
type doubt struct {
	key   contact.Key
	late  []lateWrite
	wrote contact.Patch // what was written since over paths of which something older may come
	due   time.Time     // when wrote is put on top again; zero: nothing has to be

	// newer is what calls without a decision may have written since: what was
	// written before is not put over that.
	newer   []contact.Patch
	sent    contact.Patch // by the repair that is under way, or was last
	refused int           // repairs in a row that the CRM refused for good
}

type lateWrite struct {
	fields contact.Patch // nil: the lane before gave it up, and only the paths are known
	paths  []string
	until  time.Time
	// supposed says that nobody knows of such a request: the lane before may have
	// made it. The next lane does not hear of it, which would take all that is
	// written there for contested.
	supposed bool
}

// mayComeLate notes that the CRM may still carry out a write of these fields, which
// we gave up, or of which it is supposed that somebody did.
func (l *Lane) mayComeLate(k contact.Key, fields contact.Patch, now time.Time, supposed bool) {
	fields = l.lasting(fields)
	if len(fields) == 0 {
		return
	}
	d := l.doubts[k.ID]
	if d == nil {
		d = &doubt{key: k}
		l.doubts[k.ID] = d
	}
	d.expire(now)
	if len(d.wrote) > 0 {
		d.newer = append(d.newer, fields)
	}
	l.late(d, fields, now, supposed)
}

func (l *Lane) late(d *doubt, fields contact.Patch, now time.Time, supposed bool) {
	until := now.Add(l.o.Late)
	d.late = append(d.late, lateWrite{fields, l.o.Rules.Paths(fields), until, supposed})
	if until.After(l.doubtsEnd) {
		l.doubtsEnd = until
	}
}

// lasting is what of a patch the CRM keeps: all but what has it do something.
func (l *Lane) lasting(p contact.Patch) contact.Patch {
	p, _ = l.o.Rules.Without(p, func(path string) bool { return slices.Contains(l.o.Rules.SideEffects, path) })
	return p
}

// expire drops what can no longer come.
func (d *doubt) expire(now time.Time) {
	d.late = slices.DeleteFunc(d.late, func(w lateWrite) bool { return w.until.Before(now) })
}

// until is when the last request that may still come no longer can.
func (d *doubt) until() (last time.Time) {
	for _, w := range d.late {
		if w.until.After(last) {
			last = w.until
		}
	}
	return last
}

// took notes that the CRM has taken these fields.
func (l *Lane) took(k contact.Key, fields contact.Patch, now time.Time) {
	d := l.doubts[k.ID]
	if d == nil {
		return
	}
	d.expire(now)
	if len(d.late) == 0 && d.due.IsZero() {
		delete(l.doubts, k.ID)
		return
	}
	r, fields := l.o.Rules, l.lasting(fields)
	d.forget(r, fields)
	d.settled(r, r.Paths(fields))
	newer, _ := r.Without(fields, func(path string) bool {
		return !slices.ContainsFunc(d.late, func(w lateWrite) bool { return contests(r, w, fields, path) })
	})
	d.wrote = r.Merge(d.wrote, newer)
	if d.due.IsZero() && len(d.wrote) > 0 {
		d.due = now.Add(repairFirst)
		l.contested = append(l.contested, d)
	}
}

// turnedDown notes that the CRM has refused a change for good: no earlier call with
// the same has written it. One with less in it may have.
func (l *Lane) turnedDown(k contact.Key, fields contact.Patch) {
	if d := l.doubts[k.ID]; d != nil {
		fields = l.lasting(fields)
		d.newer = slices.DeleteFunc(d.newer, fields.Equal)
	}
}

// settled drops from what calls may have written the paths that were written since.
func (d *doubt) settled(r contact.Rules, paths []string) {
	left := d.newer[:0]
	for _, p := range d.newer {
		if p, _ := r.Without(p, func(path string) bool { return slices.Contains(paths, path) }); len(p) > 0 {
			left = append(left, p)
		}
	}
	d.newer = left
}

// certain is what was written and is the newest there can be.
func (d *doubt) certain(r contact.Rules) contact.Patch {
	p := d.wrote
	for _, n := range d.newer {
		paths := r.Paths(n)
		p, _ = r.Without(p, func(path string) bool {
			return slices.ContainsFunc(paths, func(n string) bool { return overlap(n, path) })
		})
	}
	return p
}

// forget drops what was written to the paths of a patch.
func (d *doubt) forget(r contact.Rules, fields contact.Patch) {
	paths := r.Paths(fields)
	d.wrote, _ = r.Without(d.wrote, func(path string) bool {
		return slices.ContainsFunc(paths, func(p string) bool { return overlap(p, path) })
	})
	if len(d.wrote) == 0 {
		d.due = time.Time{}
	}
}

// contests says whether the CRM, if it took late now, would hold something else at
// the path than fields has there.
func contests(r contact.Rules, late lateWrite, fields contact.Patch, path string) bool {
	for _, p := range late.paths {
		if p != path && overlap(p, path) {
			return true
		}
		if p == path && (late.fields == nil || !only(r, late.fields, path).Equal(only(r, fields, path))) {
			return true
		}
	}
	return false
}

// only is what a patch has at one path.
func only(r contact.Rules, p contact.Patch, path string) contact.Patch {
	part, _ := r.Without(p, func(q string) bool { return q != path })
	return part
}

// overlap says whether two paths are the same, or one a member of the other.
func overlap(p, q string) bool {
	return p == q || strings.HasPrefix(q, p+".") || strings.HasPrefix(p, q+".")
}

// repairsDue lines up the contacts whose repair is due, and notes when to look
// again.
func (l *Lane) repairsDue(now time.Time) {
	l.nextRepair = time.Time{}
	l.contested = slices.DeleteFunc(l.contested, func(d *doubt) bool { return d.due.IsZero() })
	if len(l.contested) == 0 && len(l.doubts) > 0 && l.doubtsEnd.Before(now) {
		clear(l.doubts)
	}
	if !l.mayRepair(now) {
		if h := l.hold; h != nil && len(l.contested) > 0 {
			for _, at := range []time.Time{h.Until, h.NextProbe} {
				if at.After(now) {
					l.nextRepair = at
				}
			}
		}
		return
	}
	for _, d := range l.contested {
		s := l.slots[d.key.ID]
		switch {
		case d.due.After(now):
			if l.nextRepair.IsZero() || d.due.Before(l.nextRepair) {
				l.nextRepair = d.due
			}
		case s != nil && (s.state == slotCalling || s.state == slotSettling || s.notBefore.After(now)):
			// Looked at again when that is over.
		case len(d.certain(l.o.Rules)) == 0:
			if d.until().Before(now) {
				l.repairNoMore(d)
			}
		case !slices.Contains(l.repairs, d):
			l.repairs = append(l.repairs, d)
		}
	}
}

// mayRepair says whether a repair may be made now. Where the lane holds it is made
// as a probe, and only where nothing else is there that could be one.
func (l *Lane) mayRepair(now time.Time) bool {
	if l.operator.Hold || l.draining || !l.open {
		return false
	}
	h := l.hold
	return h == nil || h.Probes() && l.probing == nil && !l.reading && !h.NextProbe.After(now) && l.ready.len()+len(l.retries) == 0
}

// repair puts on top again what was last written to the contact that is first in
// line.
func (l *Lane) repair(work context.Context, now time.Time) {
	d := l.repairs[0]
	s, fields := l.slots[d.key.ID], d.certain(l.o.Rules)
	if d.due.IsZero() || len(fields) == 0 || s != nil && (s.state == slotCalling || s.state == slotSettling) {
		l.repairs = l.repairs[1:]
		return
	}
	if !l.budget.try(now) { // a call in flight was quicker
		return
	}
	l.repairs = l.repairs[1:]
	if s == nil {
		s = &slot{key: d.key, fence: l.o.Source.Fence(d.key.ID), heapIndex: -1}
		l.slots[d.key.ID] = s
	}
	l.leaveTurn(s)
	s.state = slotCalling
	l.calling++
	l.callNo++
	l.stats.Calls++
	l.stats.Repairs++
	if l.hold != nil {
		l.probing = s
		if !l.hold.trial {
			l.hold.tried(now)
		}
	}
	d.sent = fields
	change := contact.Change{Contact: s.key, Fields: fields, Repair: true}
	go l.guarded(s.key, now, s, func(r *result) {
		r.repair = true
		l.send(work, r, change)
	})
}

// repaired says what comes after a repair.
func (l *Lane) repaired(r result) {
	now, s, a := r.ended, r.slot, r.ans
	l.calling--
	if l.probing == s {
		l.probing = nil
	}
	l.goBack(s, now)
	d := l.doubts[s.key.ID]
	if a.Verdict == contact.VerdictUnknown || a.Verdict == contact.VerdictTransient {
		l.late(d, d.sent, now, false) // a repair may come late as well
	}
	if r.cut != nil {
		l.stats.Requests += int64(a.Requests)
		return
	}
	l.note(s.key, r)
	switch {
	case a.Verdict.Success():
		l.alive(now, a.Wrote)
		if a.Wrote {
			l.calm()
			l.o.Log.Info().Str("target", l.o.Target).Str("contact", s.key.ID).
				Msg("a request that was given up may have come late: what was written since was put on top again")
		}
		d.refused = 0
		l.repairAgain(d, now)
	case a.Verdict == contact.VerdictMissing:
		l.alive(now, false)
		l.repairNoMore(d)
	case a.Verdict == contact.VerdictInvalid:
		l.alive(now, false)
		d.due = now.Add(repairEvery) // what it took before it may take again
		if d.refused++; d.refused == maxRefused {
			l.repairNoMore(d)
		}
	case a.Verdict == contact.VerdictThrottled:
		l.throttledBy(r)
	case a.Verdict == contact.VerdictUnauthorized || a.Verdict == contact.VerdictForbidden:
		l.refusedUs(now, a)
	default:
		if a.Incident {
			if l.incident++; l.incident >= l.o.OutageAfter {
				l.beginOutage(now, a)
			}
		}
		l.nextProbe(now, a)
		d.due = now.Add(max(repairSoon, a.Wait))
	}
}

// repairAgain sets the time of the next repair, the last one behind when nothing
// can come late any more.
func (l *Lane) repairAgain(d *doubt, now time.Time) {
	left := d.until().Sub(now)
	if left <= 0 {
		l.repairNoMore(d)
		return
	}
	d.due = now.Add(min(repairEvery, left+repairSoon))
}

func (l *Lane) repairNoMore(d *doubt) {
	d.due = time.Time{}
	delete(l.doubts, d.key.ID)
}

// goBack gives a slot whose turn a repair took what it had before.
func (l *Lane) goBack(s *slot, now time.Time) {
	s.state = slotIdle
	switch {
	case s.take == nil && len(s.pending) == 0:
		delete(l.slots, s.key.ID)
	case s.due.After(now):
		l.waitForDue(s)
	default:
		l.turn(s)
	}
}
