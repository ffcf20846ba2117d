package queue

import (
	"fmt"

	"github.com/nats-io/nats.go/jetstream"

	"crmsync/contact"
)

// readAll reads one class until the source ends.
func (s *Source) readAll(r *reading) {
	for n := 0; s.ctx.Err() == nil; n++ {
		cfg := jetstream.ConsumerConfig{DeliverPolicy: jetstream.DeliverByStartSequencePolicy, OptStartSeq: r.read + 1}
		err := s.q.iterate(s.ctx, r.stream, cfg, nil, func(m inMsg) error {
			n = 0
			return s.take(r, m)
		})
		if n == 5 && s.ctx.Err() == nil {
			s.q.log.Warn().Err(err).Str("target", s.target).Stringer("class", r.class).Msg("updates cannot be read; trying on")
		}
		sleep(s.ctx, pause(n))
	}
}

// take accepts one message from the stream.
func (s *Source) take(r *reading, m inMsg) error {
	if m.seq <= r.read {
		return nil
	}
	if err := s.awaitSpan(r, m.seq); err != nil {
		return err
	}
	if m.seq > r.read+1 {
		if err := s.checkGap(r, m.seq); err != nil {
			return err
		}
	}
	u := decode(m)
	s.mu.Lock()
	if m.seq > r.read+1 {
		s.finishRangeLocked(r, r.read+1, m.seq-1)
	}
	of, fresh := s.pinLocked(u.Contact)
	r.read = m.seq
	s.mu.Unlock()
	if fresh {
		select {
		case s.q.loads <- &load{s: s, of: of}:
		case <-s.ctx.Done():
			return s.ctx.Err()
		}
	}
	select {
	case r.items <- item{u: u, of: of}:
		return nil
	case <-s.ctx.Done():
		return s.ctx.Err()
	}
}

// awaitSpan waits while seq lies too far beyond the first unfinished update.
func (s *Source) awaitSpan(r *reading, seq uint64) error {
	for {
		s.mu.Lock()
		ok := seq <= r.floor.at+s.q.limits.span || r.floor.at == r.read
		r.stalled = !ok
		moved := r.moved
		s.mu.Unlock()
		if ok {
			return nil
		}
		poke(r.kick)
		select {
		case <-moved:
		case <-s.ctx.Done():
			return s.ctx.Err()
		}
	}
}

// checkGap asks the stream's leader whether the updates between what was read
// and seq are really gone. A replica that lacks them must not make them count as
// ended.
func (s *Source) checkGap(r *reading, seq uint64) error {
	m, err := s.q.get(s.ctx, r.stream, getRequest{Seq: r.read + 1, Next: updateFilter(s.target, r.class)})
	if err != nil {
		return fmt.Errorf("%w: %w", errBroken, err)
	}
	if m != nil && m.Seq < seq {
		return fmt.Errorf("%w: update %d was passed over", errBroken, m.Seq)
	}
	return nil
}

// decode makes an update of a message; one that is none is Bad and keeps its
// place.
func decode(m inMsg) *contact.Update {
	k, class, err := contact.ParseSubject(m.subject)
	u := contact.Decode(m.data, m.header)
	u.Contact, u.Class, u.Seq, u.Stored = k, class, m.seq, m.time
	if err != nil {
		u.Bad = &contact.BadUpdate{Reason: contact.Malformed, Field: "subject", Detail: err.Error()}
		u.Fields, u.Version, u.Versioned = nil, 0, false
	}
	lean(u)
	return u
}
