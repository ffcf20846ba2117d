package queue

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"crmsync/contact"
)

// Edit is what a redrive of a letter will send instead of the original. It holds
// the contact's values.
type Edit struct {
	Body []byte    `json:"body"`
	By   string    `json:"by"`
	At   time.Time `json:"at,omitzero"` // by the broker's clock
	// Revision grows with each edit of the letter; it is 0 in no edit.
	Revision uint64 `json:"revision,omitempty"`
}

// Edited is the last edit of a letter, nil where there is none.
func (q *Queue) Edited(ctx context.Context, letter *Record) (*Edit, error) {
	e, err := q.letters.get(ctx, letterKey(editKey, contact.Key{Target: letter.Target, ID: letter.Contact}, letter.Seq))
	if err != nil {
		return nil, fmt.Errorf("queue: read the edit of letter %d: %w", letter.Seq, err)
	}
	return decodeEdit(e)
}

func decodeEdit(e entry) (*Edit, error) {
	if e.gone {
		return nil, nil
	}
	var out Edit
	if err := json.Unmarshal(e.value, &out); err != nil {
		return nil, fmt.Errorf("queue: edit %s: %w", e.key, err)
	}
	out.Revision, out.At = e.rev, e.time
	return &out, nil
}

// EditLetter stores the body that a redrive of the letter will send; the letter
// keeps its original. revision is that of the edit which the caller has seen, 0
// for none; where there is another the error wraps [ErrChanged]. It wraps
// [ErrUnsendable] where the body is no update or check, which may be nil, refuses
// it with a *[contact.BadUpdate] (its other errors are passed on), [ErrNotFound]
// and [ErrInHand]. The audit trail names the letter before.
func (q *Queue) EditLetter(ctx context.Context, id uint64, who Actor, body []byte, revision uint64, check func(*contact.Update) error) (Edit, error) {
	letter, err := q.deadLetter(ctx, id)
	if err != nil {
		return Edit{}, err
	}
	k := contact.Key{Target: letter.Target, ID: letter.Contact}
	u := repeat(&letter, &Claim{Body: body})
	if u.Bad != nil {
		return Edit{}, fmt.Errorf("letter %d: %w: %w", id, ErrUnsendable, u.Bad)
	}
	if check != nil {
		if err := check(u); err != nil {
			return Edit{}, checked(id, err)
		}
	}
	if err := q.inHand(ctx, k, id); err != nil {
		return Edit{}, err
	}
	if err := q.Audit(ctx, Entry{Actor: who, Action: "edit", Target: k.Target, Contact: k.ID, Count: 1, IDs: []uint64{id}}); err != nil {
		return Edit{}, err
	}
	out := Edit{Body: body, By: who.By}
	b, err := json.Marshal(out)
	if err != nil {
		return Edit{}, fmt.Errorf("queue: edit of letter %d: %w", id, err)
	}
	key := letterKey(editKey, k, id)
	if revision == 0 {
		out.Revision, err = q.letters.create(ctx, key, b)
	} else {
		out.Revision, err = q.letters.put(ctx, key, b, int64(revision))
	}
	if apiErrorOf(err).ErrCode == errWrongLast {
		return Edit{}, fmt.Errorf("letter %d: %w: read it again", id, ErrChanged)
	}
	if err != nil {
		return Edit{}, fmt.Errorf("queue: edit of letter %d: %w", id, err)
	}
	// A redrive that began before it was stored may have sent what was there
	// before, and one that ended has left an edit of nothing.
	if err := q.inHand(ctx, k, id); err != nil {
		return Edit{}, errors.Join(err, q.dropEdit(ctx, k, id))
	}
	if _, err := q.deadLetter(ctx, id); err != nil {
		return Edit{}, errors.Join(err, q.dropEdit(ctx, k, id))
	}
	return out, nil
}

func (q *Queue) inHand(ctx context.Context, k contact.Key, id uint64) error {
	c, err := q.claimOf(ctx, k, id)
	if err != nil {
		return err
	}
	if c != nil {
		return c.held()
	}
	return nil
}

// dropEdit removes a letter's edit.
func (q *Queue) dropEdit(ctx context.Context, k contact.Key, id uint64) error {
	e, err := q.letters.get(ctx, letterKey(editKey, k, id))
	if err == nil && e.rev > 0 {
		err = q.remove(ctx, q.letters.stream(), e.rev)
	}
	if err != nil {
		return fmt.Errorf("queue: remove the edit of letter %d: %w", id, err)
	}
	return nil
}
