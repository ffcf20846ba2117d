package queue

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"crmsync/contact"
)

// begunNote says of a contact which of its updates with side effects were about to
// be sent: whoever owns the target next does not ask for those again. There is one
// for each contact, written over by compare-and-set, and removed when all that it
// names has ended. Like an outcome record it lives for 30 days.
type begunNote struct {
	Target  string     `json:"target"`
	Contact string     `json:"contact"`
	Owner   string     `json:"owner"` // the claim of who wrote it
	Updates []begunRef `json:"updates"`

	rev uint64
	at  time.Time
}

type begunRef struct {
	Class contact.Class `json:"class"`
	Seq   uint64        `json:"seq"`
}

func begunOf(u *contact.Update) begunRef { return begunRef{Class: u.Class, Seq: u.Seq} }

func (n *begunNote) has(r begunRef) bool { return n != nil && slices.Contains(n.Updates, r) }

func decodeBegun(e entry) (*begunNote, error) {
	n := &begunNote{}
	if !e.gone {
		if err := json.Unmarshal(e.value, n); err != nil {
			return nil, fmt.Errorf("queue: note %s: %w", e.key, err)
		}
	}
	n.rev, n.at = e.rev, e.time
	return n, nil
}

// Begin notes that an update, which has a side effect, is about to be sent, and
// returns once that is durable; it repeats what fails for a reason that passes for
// as long as ctx lasts. before says that another owner noted it: what became of
// that is not known, and the side effect must not be asked for again. ErrLost
// means that the target is not ours any more.
//
// It is called for updates that were handed out and have not been settled, for one
// of a contact at a time.
func (s *Source) Begin(ctx context.Context, u *contact.Update) (before bool, err error) {
	of, err := s.begin(ctx, u.Contact)
	if err != nil {
		return false, err
	}
	if of == nil {
		return false, fmt.Errorf("queue: update %d of %s was not handed out", u.Seq, u.Contact)
	}
	defer s.end(of)
	s.mu.Lock()
	note := s.begun[u.Contact.ID]
	s.mu.Unlock()
	err = s.tryOn(ctx, u.Contact, func() error {
		if note.has(begunOf(u)) {
			before = note.Owner != s.owner
			return nil
		}
		next := s.renewed(u.Contact, note)
		next.Updates = append(next.Updates, begunOf(u))
		err := s.writeBegun(ctx, next)
		if err == nil {
			note = next
		} else if apiErrorOf(err).ErrCode == errWrongLast {
			note, err = s.q.begunNote(ctx, u.Contact)
			if err == nil {
				err = errAgain
			}
		}
		return err
	})
	if err != nil {
		return false, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.begun[u.Contact.ID] = note
	return before, nil
}

// TakeBack removes what [Source.Begin] has noted of an update, since nothing of it
// has reached the CRM: whoever sends it next may ask for its side effects.
func (s *Source) TakeBack(ctx context.Context, u *contact.Update) error {
	of, err := s.begin(ctx, u.Contact)
	if err != nil || of == nil {
		return err
	}
	defer s.end(of)
	s.mu.Lock()
	note := s.begun[u.Contact.ID]
	s.mu.Unlock()
	if !note.has(begunOf(u)) || note.Owner != s.owner {
		return nil
	}
	next := s.renewed(u.Contact, note)
	next.Updates = slices.DeleteFunc(next.Updates, func(r begunRef) bool { return r == begunOf(u) })
	err = s.tryOn(ctx, u.Contact, func() error {
		if len(next.Updates) == 0 {
			return s.q.remove(ctx, s.q.letters.stream(), note.rev)
		}
		return s.writeBegun(ctx, next)
	})
	switch {
	case err == nil && len(next.Updates) == 0:
		next = nil
	case apiErrorOf(err).ErrCode == errWrongLast: // our own, whose answer was lost, or we are no owner any more
		if next, err = s.q.begunNote(ctx, u.Contact); err != nil {
			return err
		}
	case err != nil:
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.begun[u.Contact.ID] = next; next == nil {
		delete(s.begun, u.Contact.ID)
	}
	return nil
}

// renewed is a note as this owner writes it next: without what has ended.
func (s *Source) renewed(k contact.Key, was *begunNote) *begunNote {
	n := &begunNote{Target: k.Target, Contact: k.ID, Owner: s.owner}
	if was == nil {
		return n
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	n.rev = was.rev
	for _, r := range was.Updates {
		if !s.class[r.Class].floor.done(r.Seq) {
			n.Updates = append(n.Updates, r)
		}
	}
	return n
}

func (s *Source) writeBegun(ctx context.Context, n *begunNote) error {
	b, err := json.Marshal(n)
	if err != nil {
		return err
	}
	key := begunKey + personKey(contact.Key{Target: n.Target, ID: n.Contact})
	rev, err := s.q.letters.write(ctx, key, b, "", int64(n.rev), recordTTL)
	if err == nil {
		n.rev = rev
	}
	return err
}

// errAgain has tryOn call again at once.
var errAgain = errors.New("again")

// tryOn repeats what fails for a reason that passes.
func (s *Source) tryOn(ctx context.Context, k contact.Key, f func() error) error {
	for n := 0; ; n++ {
		if err := s.lost(); err != nil {
			return err
		}
		err := f()
		switch {
		case err == nil, ctx.Err() != nil, apiErrorOf(err).ErrCode == errWrongLast:
			return err
		case errors.Is(err, errAgain) && n < 3:
			continue
		}
		if n == 5 {
			s.q.log.Warn().Err(err).Str("target", s.target).Str("contact", k.ID).Msg("it cannot be noted that an update is begun; trying on")
		}
		if !sleep(ctx, pause(n)) {
			return fmt.Errorf("queue: begin an update of %s: %w (last: %w)", k, ctx.Err(), err)
		}
	}
}

// begunNote reads a contact's note; nil where there never was one.
func (q *Queue) begunNote(ctx context.Context, k contact.Key) (*begunNote, error) {
	e, err := q.letters.get(ctx, begunKey+personKey(k))
	if err != nil || e.gone && e.rev == 0 {
		return nil, err
	}
	return decodeBegun(e)
}

// sawBegun keeps a note that former owners have left.
func (s *Source) sawBegun(e entry) error {
	n, err := decodeBegun(e)
	if err != nil {
		s.q.log.Error().Err(err).Str("target", s.target).Msg("it cannot be read which side effects were begun")
		return nil // one note must not keep the target from everybody
	}
	s.begun[n.Contact] = n
	return nil
}

// endBegun removes the notes of what has ended.
func (s *Source) endBegun(ctx context.Context) error {
	s.mu.Lock()
	var over []*begunNote
	for id, n := range s.begun {
		if !slices.ContainsFunc(n.Updates, func(r begunRef) bool { return !s.class[r.Class].floor.done(r.Seq) }) {
			over = append(over, n)
			delete(s.begun, id)
		}
	}
	s.mu.Unlock()
	for i, n := range over {
		if err := s.q.remove(ctx, s.q.letters.stream(), n.rev); err != nil {
			s.mu.Lock()
			for _, n := range over[i:] {
				if s.begun[n.Contact] == nil {
					s.begun[n.Contact] = n
				}
			}
			s.mu.Unlock()
			return err
		}
	}
	return nil
}
