package worker

import (
	"context"
	"fmt"
	"time"

	"crmsync/contact"
)

type settleResult struct {
	slot *slot
	st   contact.Settlement
	err  error
}

// settle stores how the slot's take ended.
func (l *Lane) settle(work context.Context, s *slot, now time.Time) {
	s.state = slotSettling
	l.settling++
	ended := s.take.endings(l.o.Rules, now)
	l.suspect(ended)
	st := contact.Settlement{Contact: s.key, Ended: ended, Fence: s.take.fence}
	go func() {
		err := l.o.Source.Settle(work, st)
		l.settled <- settleResult{slot: s, st: st, err: err}
	}()
}

// finish lets go of what has been settled.
func (l *Lane) finish(r settleResult) {
	l.settling--
	s := r.slot
	if r.err != nil {
		// The outcome may be stored or not; whoever owns the target next
		// finds out. We stop.
		if l.fatal == nil {
			l.fatal = fmt.Errorf("store the outcome of %s: %w", s.key, r.err)
		}
		l.draining = true
		return
	}
	var n, bytes [contact.Classes]int
	calls := map[string]int{}
	for i := range r.st.Ended {
		e := &r.st.Ended[i]
		c := e.Update.Class
		n[c]++
		bytes[c] += weight(e.Update)
		l.stats.add(e.Ending)
		if e.Ending.Call != "" {
			calls[e.Ending.Call]++
		}
		if l.o.OnSettled != nil {
			l.o.OnSettled(*e)
		}
	}
	for _, k := range calls {
		l.stats.Saved += int64(k - 1)
	}
	for c := range l.windows {
		if n[c] > 0 {
			l.windows[c].release(n[c], bytes[c])
			l.held[c].n -= n[c]
			l.held[c].bytes -= bytes[c]
		}
	}
	*s = slot{key: s.key, fence: r.st.Fence, pending: s.pending, lives: s.lives - n[contact.Live], undo: s.undo, heapIndex: -1}
	if len(s.pending) > 0 {
		l.turn(s)
		return
	}
	delete(l.slots, s.key.ID)
}
