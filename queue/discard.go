package queue

import (
	"context"
	"errors"
	"fmt"
	"strconv"

	"github.com/nats-io/nuid"

	"crmsync/contact"
)

// Discard gives a dead letter up: a record with the outcome discarded takes its
// place for as long as records live, which names the same updates and holds no
// original. reason says why. The error wraps [ErrNotFound] where there is no such
// letter, [ErrInHand] where somebody sends or discards it. It may be called while
// the target's owner is at work. The audit trail is the caller's: one entry for
// all that are discarded together, before the first.
func (q *Queue) Discard(ctx context.Context, id uint64, who Actor, reason string) error {
	letter, err := q.deadLetter(ctx, id)
	if err != nil {
		return err
	}
	c := &Claim{Letter: id, Target: letter.Target, Contact: letter.Contact, By: who.By, MsgID: "discard-" + nuid.Next(), Discard: reason}
	if c.Discard == "" {
		c.Discard = "no reason was given"
	}
	if err := q.take(ctx, c); err != nil {
		return err
	}
	err = q.discardClaimed(ctx, c)
	if errors.Is(err, ErrNotFound) {
		return errors.Join(err, q.release(ctx, c)) // whoever had it before us finished between our reading and our claim
	}
	return err
}

// discardClaimed discards a letter that a claim holds for that. Where the letter
// is gone already the error wraps ErrNotFound and the claim stays.
func (q *Queue) discardClaimed(ctx context.Context, c *Claim) error {
	detail := c.Discard
	if c.By != "" {
		detail = "by " + c.By + ": " + c.Discard
	}
	if err := q.discard(ctx, c.Letter, detail, false); err != nil {
		return err
	}
	return q.release(ctx, c)
}

// release ends what a claim stood for, once its letter is gone. The claim goes
// last: it is what leads whoever mends to the rest.
func (q *Queue) release(ctx context.Context, c *Claim) error {
	if err := q.dropEdit(ctx, contact.Key{Target: c.Target, ID: c.Contact}, c.Letter); err != nil {
		return err
	}
	return q.drop(ctx, c)
}

// discard replaces a letter by a discarded record, once: it may be repeated
// after it was cut short. Only who holds the letter's claim may call it.
func (q *Queue) discard(ctx context.Context, id uint64, detail string, keepOriginal bool) error {
	letter, err := q.deadLetter(ctx, id)
	if err != nil {
		return err
	}
	k := contact.Key{Target: letter.Target, ID: letter.Contact}
	r := discarded(&letter, detail, keepOriginal, standing{})
	for n := 0; ; n++ {
		err := q.discardOnce(ctx, k, r)
		if err == nil {
			break
		}
		if apiErrorOf(err).ErrCode != errWrongLast || !sleep(ctx, pause(n)) {
			return fmt.Errorf("queue: discard letter %d: %w", id, err)
		}
	}
	if err := q.remove(ctx, outcomeStream, id); err != nil {
		return fmt.Errorf("queue: discard letter %d: %w; try again", id, err)
	}
	return nil
}

// discardOnce stores the record unless it is there.
func (q *Queue) discardOnce(ctx context.Context, k contact.Key, r *Record) error {
	rev, st, err := q.lastRecord(ctx, k)
	if err != nil {
		return err
	}
	there := false
	id := strconv.FormatUint(r.Letter, 10)
	err = q.scan(ctx, outcomeStream, outcomeSubject(k, contact.Discarded, r.Job), r.Letter, func(m *stored) error {
		if there = m.Header.Get(headerLetter) == id; there {
			return errEnough
		}
		return nil
	})
	if err != nil || there {
		return err
	}
	r.Covers, r.Fence, r.Owner = st.covers, st.fence, st.owner // the contact stands where it stood
	m, err := encodeRecord(r)
	if err != nil {
		return err
	}
	m.Header.Set(headerLast, strconv.FormatUint(rev, 10))
	m.Header.Set(headerLastOf, contactFilter(k))
	_, err = q.publish(ctx, m)
	return err
}

// remove takes one message out of a stream; it is no error where it is gone.
func (q *Queue) remove(ctx context.Context, stream string, seq uint64) error {
	return q.deleteMsg(ctx, stream, removeRequest{Seq: seq, NoErase: true})
}

// erase is remove that overwrites the message's bytes. The server rewrites up to
// 8 MB for it.
func (q *Queue) erase(ctx context.Context, stream string, seq uint64) error {
	return q.deleteMsg(ctx, stream, removeRequest{Seq: seq})
}

func (q *Queue) deleteMsg(ctx context.Context, stream string, r removeRequest) error {
	err := q.ask(ctx, "STREAM.MSG.DELETE."+stream, r, nil)
	if e := apiErrorOf(err); e.ErrCode == errEraseFailed || e.ErrCode == errNoMessage || e.ErrCode == errNoSequence {
		m, again := q.get(ctx, stream, getRequest{Seq: r.Seq})
		if again == nil && m == nil {
			return nil
		}
	}
	return err
}

type removeRequest struct {
	Seq     uint64 `json:"seq"`
	NoErase bool   `json:"no_erase,omitempty"`
}
