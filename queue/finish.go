package queue

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"crmsync/contact"
)

// end is how an update that repeated a letter ended.
type end struct {
	letter  uint64
	key     contact.Key
	msgID   string
	outcome contact.Outcome
	record  uint64
	tried   bool // an attempt to finish it may have come part of the way
}

// finish removes a letter, or gives it back, once the update that repeated it has
// ended. It may be repeated at any time.
func (q *Queue) finish(ctx context.Context, e end) error {
	c, err := q.claimOf(ctx, e.key, e.letter)
	if err != nil || c == nil || c.MsgID != e.msgID {
		return err // not a redrive of ours, or finished
	}
	if e.outcome == contact.Cancelled {
		return q.drop(ctx, c)
	}
	if err := q.discard(ctx, e.letter, e.detail(c), c.Body != nil); err != nil && !errors.Is(err, ErrNotFound) {
		return err
	}
	return q.release(ctx, c)
}

// detail is what the record that takes the letter's place says.
func (e *end) detail(c *Claim) string {
	by := cmp.Or(c.By, "someone")
	if e.outcome == contact.Dead {
		return fmt.Sprintf("sent again by %s: dead again as letter %d", by, e.record)
	}
	return fmt.Sprintf("sent again by %s: %s, record %d", by, e.outcome, e.record)
}

// finishAll is finish for the ends of updates that this source has settled. It goes
// through them one by one: each is two writes to the records that live traffic is
// settled with, and a batch would keep that waiting for longer. What marks the
// letters is of no interest to anybody else and goes together. It says of each what
// stood in the way.
func (s *Source) finishAll(ctx context.Context, ends []end) []error {
	errs := make([]error, len(ends))
	var over []*Claim
	var at []int
	for i := range ends {
		if i > 0 && errs[i-1] != nil && passing(errs[i-1]) {
			errs[i] = errs[i-1] // it lies with the connection
			continue
		}
		c, err := s.q.claimOf(ctx, ends[i].key, ends[i].letter)
		if errs[i] = err; err != nil || c == nil || c.MsgID != ends[i].msgID {
			continue // not a redrive of ours, or finished
		}
		if ends[i].outcome != contact.Cancelled {
			errs[i] = s.replace(ctx, &ends[i], c)
		}
		if errs[i] == nil {
			over, at = append(over, c), append(at, i)
		}
	}
	if err := s.q.dropAll(ctx, over); err != nil {
		for _, i := range at {
			errs[i] = err
		}
	}
	return errs
}

// replace puts the discarded record in a letter's place, and removes the letter with
// its edit. Where all records of the contact since the end of the update are ours, the
// discarded one is not among them; else discard looks first.
func (s *Source) replace(ctx context.Context, e *end, c *Claim) error {
	err := errNotKnown
	if !e.tried {
		err = s.replaceKnown(ctx, e, c)
	}
	if errors.Is(err, errNotKnown) {
		err = s.q.discard(ctx, e.letter, e.detail(c), c.Body != nil)
	}
	if err != nil && !errors.Is(err, ErrNotFound) { // else somebody was quicker
		return err
	}
	return s.q.dropEdit(ctx, e.key, e.letter)
}

var errNotKnown = errors.New("where the contact stands is not known")

func (s *Source) replaceKnown(ctx context.Context, e *end, c *Claim) error {
	rev, st, ok := s.standsAt(e.key, e.record)
	if !ok {
		return errNotKnown
	}
	letter, err := s.q.deadLetter(ctx, e.letter)
	if err != nil {
		return err
	}
	m, err := encodeRecord(discarded(&letter, e.detail(c), c.Body != nil, st))
	if err != nil {
		return err
	}
	m.Header.Set(headerLast, strconv.FormatUint(rev, 10))
	m.Header.Set(headerLastOf, contactFilter(e.key))
	e.tried = true
	ack, err := s.q.publish(ctx, m)
	if apiErrorOf(err).ErrCode == errWrongLast {
		return errNotKnown
	}
	if err != nil {
		return err
	}
	s.moved(e.key, rev, ack.Seq)
	return s.q.remove(ctx, outcomeStream, e.letter)
}

// standsAt is where a contact stands, if all its records from this one on are this
// owner's and nothing of it is being stored.
func (s *Source) standsAt(k contact.Key, record uint64) (rev uint64, st standing, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	of := s.contacts[k.ID]
	if of == nil || of.busy != nil || of.unsure || of.rev == 0 || of.rev != of.own || record < of.since {
		return 0, standing{}, false
	}
	return of.rev, standing{covers: of.covers, fence: of.fence.Clone(), owner: s.owner}, true
}

// moved notes a record of a contact that was stored beside its settlements.
func (s *Source) moved(k contact.Key, from, to uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if of := s.contacts[k.ID]; of != nil && of.rev == from {
		of.rev, of.own = to, to
	}
}

// discarded is the record that takes a letter's place.
func discarded(letter *Record, detail string, keepOriginal bool, st standing) *Record {
	r := *letter
	r.Outcome, r.Detail, r.Ended, r.Letter = contact.Discarded, detail, time.Now().UTC(), letter.Seq
	r.Seq, r.Time = 0, time.Time{}
	if !keepOriginal {
		r.Original, r.OriginalHeader = nil, nil
	}
	r.Covers, r.Fence, r.Owner = st.covers, st.fence, st.owner // the contact stands where it stood
	return &r
}
