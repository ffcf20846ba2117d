package worker

import (
	"context"
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

// sweep ends what has been cancelled meanwhile, even while the lane holds. Of
// a contact with other updates the cancelled ones end when their turn comes:
// an update ends after those before it.
func (l *Lane) sweep(work context.Context) {
	for _, s := range l.slots {
		if l.draining || !l.open || s.state != slotReady && s.state != slotWaiting || s.take != nil && !s.take.untouched() {
			continue
		}
		l.putBack(s)
		if s.maybeSent && s.sent > 0 {
			continue // it is too late
		}
		if slices.ContainsFunc(s.pending, func(u *contact.Update) bool { return l.cancelled(u) == "" }) {
			continue
		}
		l.leaveTurn(s)
		s.take = l.newTake(s)
		l.settle(work, s, time.Now())
	}
}
