package worker

import (
	"slices"
	"time"

	"crmsync/contact"
)

const maxTries = 10

// take is the updates of one contact that are being sent, and how far that
// has come. At first all go out as one change. Where the CRM refuses that for
// good, the take looks for the culprit: it sends halves of the updates that
// write anything. Each path is only ever written by the newest update that
// still stands for it, so no older value is put over a newer one on the way,
// not even over what a former owner's merge has left in the CRM.
type take struct {
	updates []*contact.Update
	end     []contact.Ending // by update; Pending until decided

	alive   []*contact.Update // updates that are neither bad nor dead
	fold    contact.Folded    // of alive
	written map[string]*contact.Update
	fence   contact.Fence
	groups  [][]*contact.Update // still to try, the next one last; each group's winners
	group   []*contact.Update   // being sent
	fields  contact.Patch       // what is being sent
	wrote   bool                // at least one call succeeded with a write
	split   bool                // the first change was refused: looking for culprits
	decided bool                // the CRM's answers have ended an update
	last    contact.Ending      // evidence of the last call
}

// newTake takes from the slot's pending updates as many as may go together: all
// that are not paused, up to one that must go alone. It is nil where all are
// paused.
func (l *Lane) newTake(s *slot) *take {
	t := &take{fence: s.fence}
	t.updates, s.pending = l.choose(s)
	if len(t.updates) == 0 {
		return nil
	}
	t.end = make([]contact.Ending, len(t.updates))
	s.sent = 0
	for i, u := range t.updates {
		if why := l.cancelled(u); why != "" && !s.reached(u) {
			t.end[i] = contact.Ending{Outcome: contact.Cancelled, Detail: why, Fields: l.o.Rules.Paths(u.Fields)}
			continue
		}
		if u.Bad != nil {
			t.end[i] = contact.Ending{Outcome: contact.Dead, Reason: u.Bad.Reason, Field: u.Bad.Field, Detail: u.Bad.Error(), Fields: l.o.Rules.Paths(u.Fields)}
		}
	}
	t.refold(l.o.Rules, s.fence)
	return t
}

// choose splits the pending updates of a slot into those that go now and the
// rest, both in their order.
func (l *Lane) choose(s *slot) (now, rest []*contact.Update) {
	blocked := false
	for i, u := range s.pending {
		if !s.reached(u) && u.Class == contact.Bulk && (blocked || l.paused(u)) {
			blocked = true // a class ends in its order
			rest = append(rest, u)
			continue
		}
		if u.Bad == nil && l.o.Rules.Alone(u.Fields) {
			if len(now) == 0 {
				now = append(now, u)
				i++
			}
			if len(rest) == 0 {
				return now, s.pending[i:]
			}
			return now, append(rest, s.pending[i:]...)
		}
		if len(rest) == 0 {
			now = s.pending[: i+1 : i+1]
		} else {
			now = append(now, u)
		}
	}
	return now, rest
}

// refold folds what is alive and plans one group of all that still writes.
func (t *take) refold(r contact.Rules, settled contact.Fence) {
	t.alive = t.alive[:0]
	for i, u := range t.updates {
		if t.end[i].Outcome == contact.Pending {
			t.alive = append(t.alive, u)
		}
	}
	t.fold = contact.Fold(r, settled, t.alive)
	t.groups = t.groups[:0]
	if g := t.winners(); len(g) > 0 {
		t.groups = append(t.groups, g)
	}
}

// winners lists the updates that have something left to write, oldest first.
func (t *take) winners() []*contact.Update {
	var open []int
	for path, i := range t.fold.Winner {
		if t.written[path] != t.alive[i] {
			open = append(open, i)
		}
	}
	slices.Sort(open)
	var g []*contact.Update
	for _, i := range slices.Compact(open) {
		g = append(g, t.alive[i])
	}
	return g
}

// next prepares the next call; false means that nothing is left to send.
func (t *take) next(r contact.Rules) bool {
	for {
		if len(t.groups) == 0 {
			g := t.winners() // paths that fell to updates which had been through already
			if len(g) == 0 {
				return false
			}
			t.groups = append(t.groups, g)
		}
		t.group = t.groups[len(t.groups)-1]
		if !t.split {
			t.fields = t.fold.Fields
		} else {
			t.fields = t.fold.Part(r, func(path string, w int) bool {
				return t.written[path] != t.alive[w] && slices.Contains(t.group, t.alive[w])
			})
		}
		if len(t.fields) > 0 {
			return true
		}
		t.groups = t.groups[:len(t.groups)-1]
	}
}

// carried is how many updates the call at hand carries.
func (t *take) carried() int {
	if t.split {
		return len(t.group)
	}
	return len(t.alive)
}

// accept notes that the CRM holds what was sent.
func (t *take) accept(r contact.Rules, e contact.Ending) {
	if t.written == nil {
		t.written = make(map[string]*contact.Update, len(t.fold.Winner))
		t.fence = t.fence.Clone()
	}
	for _, p := range r.Paths(t.fields) {
		t.written[p] = t.alive[t.fold.Winner[p]]
		t.fence[p] = t.fold.Fence[p]
	}
	if e.Outcome == contact.Applied {
		t.wrote = true
	}
	t.last = e
	t.groups = t.groups[:len(t.groups)-1]
}

// refuse notes that the CRM will never take what was sent. Of several updates
// it tries the newer half next; one alone is dead.
func (t *take) refuse(r contact.Rules, settled contact.Fence, e contact.Ending) {
	t.groups = t.groups[:len(t.groups)-1]
	if len(t.group) > 1 {
		t.split = true
		mid := len(t.group) / 2
		t.groups = append(t.groups, t.group[:mid:mid], t.group[mid:])
		return
	}
	t.kill(r, slices.Index(t.updates, t.group[0]), e)
	rest := slices.Clone(t.groups)
	t.refold(r, settled)
	if len(rest) > 0 {
		// The groups not yet tried stay apart; whatever else remains comes
		// after them.
		t.groups = rest
	}
}

// kill ends one update as dead.
func (t *take) kill(r contact.Rules, i int, e contact.Ending) {
	e.Outcome = contact.Dead
	e.Fields = r.Paths(t.updates[i].Fields)
	t.end[i] = e
	t.decided = true
}

// killAll ends everything that is undecided: the contact does not exist.
func (t *take) killAll(r contact.Rules, e contact.Ending) {
	for i := range t.updates {
		if t.end[i].Outcome == contact.Pending {
			t.kill(r, i, e)
		}
	}
	t.alive, t.groups, t.fold = nil, nil, contact.Folded{}
}

// endings decides what is still open, once nothing is left to send: an update
// of which the CRM holds a path is applied (or unchanged, where no call had to
// write), any other was overwritten by newer ones.
func (t *take) endings(r contact.Rules, now time.Time) []contact.Ended {
	out := make([]contact.Ended, len(t.updates))
	won := map[*contact.Update]bool{}
	for _, u := range t.written {
		won[u] = true
	}
	for i, u := range t.updates {
		e := t.end[i]
		if e.Outcome == contact.Pending {
			e = t.last
			e.Outcome = contact.Superseded
			e.Fields = r.Paths(u.Fields)
			if won[u] || len(e.Fields) == 0 {
				e.Outcome = contact.Unchanged
				if t.wrote {
					e.Outcome = contact.Applied
				}
			}
		}
		e.Ended = now
		out[i] = contact.Ended{Update: u, Ending: e}
	}
	return out
}

// untouched says that nothing of the take has been decided, so that it can go
// back and be merged with what has arrived since.
func (t *take) untouched() bool { return !t.split && !t.decided && t.written == nil }
