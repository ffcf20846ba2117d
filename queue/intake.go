package queue

import (
	"fmt"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"crmsync/contact"
)

// readAll reads one class until the source ends.
func (s *Source) readAll(r *reading) {
	for n := 0; s.ctx.Err() == nil; n++ {
		cfg := jetstream.ConsumerConfig{DeliverPolicy: jetstream.DeliverByStartSequencePolicy, OptStartSeq: r.read + 1}
		err := s.q.iterate(s.ctx, r.stream, cfg, pass{each: func(m inMsg) error {
			n = 0
			return s.take(r, m)
		}})
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
		s.miss(r, r.read+1, m.seq-1)
	}
	u := decode(m)
	if s.forgotten(u) {
		return s.passOver(r, m.seq)
	}
	s.meet(r, u)
	s.mu.Lock()
	if m.seq > r.read+1 {
		s.finishRangeLocked(r, r.read+1, m.seq-1)
	}
	of, fresh := s.pinLocked(u.Contact)
	r.read = m.seq
	s.mu.Unlock()
	if fresh {
		select {
		case s.q.loads[r.class] <- &load{s: s, of: of}:
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

// passOver erases an update of a forgotten contact, such as a redrive whose
// sender had the letter in hand, and counts it as ended. It gets no record: there
// shall be none, and the receipt stands for it.
func (s *Source) passOver(r *reading, seq uint64) error {
	if err := s.q.erase(s.ctx, r.stream, seq); err != nil {
		return fmt.Errorf("%w: %w", errBroken, err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.finishRangeLocked(r, r.read+1, seq)
	r.read = seq
	return nil
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

// miss tells of updates that were removed before they were read. Nobody does that:
// neither an owner, who purges what has ended, nor a forgetting, of which we know.
func (s *Source) miss(r *reading, from, to uint64) {
	k := s.q.keeper.Load()
	if k == nil || s.anyForgotten(r.class, from) {
		return
	}
	s.wg.Go(func() {
		losses := s.q.settleSuspicions(s.ctx, []suspicion{{stream: r.stream, seqs: spans{}.add(from, to), why: lossMissing}})
		if len(losses) > 0 && s.ctx.Err() == nil {
			k.miss(s.ctx, losses)
		}
	})
}

// anyForgotten says that a contact of the target was forgotten with updates of a
// class up to a sequence, or behind it.
func (s *Source) anyForgotten(class contact.Class, seq uint64) bool {
	s.q.mu.Lock()
	defer s.q.mu.Unlock()
	for k, upto := range s.q.gone {
		if k.Target == s.target && upto[class] >= seq {
			return true
		}
	}
	return false
}

// decode makes an update of a message; one that is none is Bad and keeps its
// place.
func decode(m inMsg) *contact.Update {
	k, class, err := contact.ParseSubject(m.subject)
	u := contact.Decode(m.data, m.header)
	u.Contact, u.Class, u.Seq, u.Stored = k, class, m.seq, m.time
	switch {
	case err != nil:
		u.Bad = &contact.BadUpdate{Reason: contact.Malformed, Field: "subject", Detail: err.Error()}
	case u.Bad == nil:
		u.Bad = misplaced(u)
	}
	if u.Bad != nil {
		u.Fields, u.Version, u.Versioned = nil, 0, false
	}
	lean(u)
	return u
}

// clockStep is how far the broker's clock may have been put back.
const clockStep = time.Minute

// misplaced refuses a place of an original that cannot be one: it would stand
// before everything that comes. A place so old that the records of what is newer
// may have expired proves nothing either.
func misplaced(u *contact.Update) *contact.BadUpdate {
	r := u.Redrive
	if r == nil || r.Order.IsZero() || r.Force {
		return nil
	}
	if r.Order.Stored.After(u.Stored.Add(clockStep)) || r.Order.Class == u.Class && r.Order.Seq >= u.Seq {
		return &contact.BadUpdate{Reason: contact.Malformed, Detail: "header " + contact.HeaderOrder + " names a place behind the update's own"}
	}
	if time.Since(r.Order.Stored) > recordTTL {
		return &contact.BadUpdate{
			Reason: contact.StaleRedrive,
			Detail: "the original is older than the records of what followed it; send it with force if it shall count as new",
		}
	}
	return nil
}
