package worker

import (
	"context"
	"maps"
	"slices"
	"time"

	"crmsync/contact"
)

// cancelled says why an update shall not be sent any more, "" for one that
// shall.
func (l *Lane) cancelled(u *contact.Update) string {
	if l.o.Cancelled == nil {
		return ""
	}
	return l.o.Cancelled(u)
}

// paused says that an update shall not be sent for now. What is cancelled is not:
// it can end.
func (l *Lane) paused(u *contact.Update) bool {
	return l.o.Paused != nil && l.o.Paused(u) && l.cancelled(u) == ""
}

// turn gives an idle slot its place in the FIFO of its class, or sets it aside
// where all it could send is paused.
func (l *Lane) turn(s *slot) {
	if s.take == nil && l.allPaused(s) {
		l.park(s)
		return
	}
	l.makeReady(s)
}

// allPaused says that nothing of a slot may be sent: it has no live update and
// its first one is paused.
func (l *Lane) allPaused(s *slot) bool {
	return s.lives == 0 && len(s.pending) > 0 && !s.reached(s.pending[0]) && l.paused(s.pending[0])
}

// park sets a slot aside until the next sweep, or until something live comes.
func (l *Lane) park(s *slot) {
	if s.state != slotPaused {
		l.leaveTurn(s)
		s.state = slotPaused
		l.parked++
	}
}

func (l *Lane) unpark(s *slot) {
	if s.state == slotPaused {
		s.state = slotIdle
		l.parked--
	}
}

// sweep ends what has been cancelled meanwhile, even while the lane holds, and
// sets aside or takes up what has been paused or resumed. Of a contact with other
// updates the cancelled ones end when their turn comes: an update ends after
// those before it. A contact that waits for a retry is set aside when that comes.
func (l *Lane) sweep(work context.Context) {
	for _, id := range slices.Sorted(maps.Keys(l.slots)) { // in one order, so that a seed repeats it
		s := l.slots[id]
		if l.draining || s.take != nil && !s.take.untouched() {
			continue
		}
		switch s.state {
		case slotReady, slotPaused:
			l.putBack(s)
			if l.allPaused(s) {
				l.park(s)
			} else if s.state == slotPaused {
				l.makeReady(s)
			}
		case slotWaiting:
			l.putBack(s)
		default:
			continue
		}
		if !l.open {
			continue
		}
		if slices.ContainsFunc(s.pending, func(u *contact.Update) bool { return s.reached(u) || l.cancelled(u) == "" }) {
			continue
		}
		l.leaveTurn(s)
		s.take = l.newTake(s)
		l.settle(work, s, time.Now())
	}
}
