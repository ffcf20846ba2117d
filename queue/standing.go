package queue

import (
	"container/list"

	"crmsync/contact"
)

// standingOf is what the owner knows of one contact. Guarded by Source.mu.
type standingOf struct {
	key     contact.Key
	loaded  chan struct{} // closed once the rest is known
	rev     uint64        // the contact's last record, 0 for none
	own     uint64        // the last one that this owner has stored
	since   uint64        // from here to own all records of the contact are this owner's
	covers  [contact.Classes]uint64
	fence   contact.Fence
	unsure  bool                      // a record may have been stored since
	busy    chan struct{}             // a settlement is under way; closed at its end
	out     [contact.Classes][]handed // handed out and not ended, in order
	pending int                       // read and not ended
	settles int
	place   *list.Element // in Source.idle
}

type handed struct {
	seq  uint64
	size int
}

// pinLocked finds what is known of a contact and notes one more update of it;
// fresh where it has to be loaded first.
func (s *Source) pinLocked(k contact.Key) (of *standingOf, fresh bool) {
	of = s.contacts[k.ID]
	if of == nil {
		of = &standingOf{key: k, loaded: make(chan struct{})}
		s.contacts[k.ID] = of
		fresh = true
	}
	if of.place != nil {
		s.idle.Remove(of.place)
		of.place = nil
	}
	of.pending++
	return of, fresh
}

func (s *Source) unpinLocked(of *standingOf) {
	of.pending--
	if of.pending > 0 {
		return
	}
	of.place = s.idle.PushFront(of)
	for s.idle.Len() > s.q.limits.idle {
		e := s.idle.Back()
		old, _ := e.Value.(*standingOf)
		if old.busy != nil {
			break
		}
		s.idle.Remove(e)
		delete(s.contacts, old.key.ID)
	}
}

func (s *Source) finishLocked(r *reading, seq uint64) { s.finishRangeLocked(r, seq, seq) }

func (s *Source) finishRangeLocked(r *reading, lo, hi uint64) {
	before := r.floor.at
	r.floor.finishRange(lo, hi)
	if r.floor.at == before {
		return
	}
	if r.stalled {
		close(r.moved)
		r.moved = make(chan struct{})
	}
	poke(s.dirty)
	if r.floor.at-r.purged >= purgeEach {
		poke(s.hurry)
	}
}

func poke(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// load reads what is known of a contact.
type load struct {
	s  *Source
	of *standingOf
}

// Live traffic has loaders of its own, and the others look after it first: what
// somebody waits for does not stand behind an import.
const (
	liveLoaders = 16
	loaders     = 16
)

func (q *Queue) liveLoader() {
	for {
		select {
		case l := <-q.loads[contact.Live]:
			l.run()
		case <-q.life.Done():
			return
		}
	}
}

func (q *Queue) loader() {
	for {
		select {
		case l := <-q.loads[contact.Live]:
			l.run()
			continue
		default:
		}
		select {
		case l := <-q.loads[contact.Live]:
			l.run()
		case l := <-q.loads[contact.Bulk]:
			l.run()
		case <-q.life.Done():
			return
		}
	}
}

func (l *load) run() {
	s := l.s
	for n := 0; s.ctx.Err() == nil; n++ {
		rev, st, err := s.q.lastRecord(s.ctx, l.of.key)
		if err == nil {
			s.mu.Lock()
			l.of.rev, l.of.covers, l.of.fence = rev, st.covers, st.fence
			s.mu.Unlock()
			close(l.of.loaded)
			return
		}
		if n == 5 {
			s.q.log.Warn().Err(err).Str("target", s.target).Msg("records cannot be read; trying on")
		}
		sleep(s.ctx, pause(n))
	}
}
