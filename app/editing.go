package app

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"

	"crmsync/contact"
	"crmsync/queue"
)

// EditPlan is what an edit does to one letter, before it is stored.
type EditPlan struct {
	Letter  Letter
	Changes []FieldChange // against what a redrive would send now; none where the edit leaves it as it is

	body     []byte
	revision uint64
}

// PlanEdit carries out an edit of one letter and says what it changes. Nothing
// is stored or sent. The error is a *[contact.BadUpdate] (see [IsBadUpdate])
// where the result breaks a rule of the target's CRM.
func (a *App) PlanEdit(ctx context.Context, id uint64, e *Edits) (EditPlan, error) {
	l, err := a.letter(ctx, id)
	if err != nil {
		return EditPlan{}, err
	}
	c, err := a.clientOf(l.Target)
	if err != nil {
		return EditPlan{}, fmt.Errorf("letter %d: %w", id, err)
	}
	defer c.CloseIdle()
	return planEdit(c, l, e)
}

func planEdit(c client, l queue.Letter, e *Edits) (EditPlan, error) {
	p := EditPlan{Letter: letterOf(l)}
	if l.Claim != nil {
		return p, fmt.Errorf("letter %d: %w: it is %s", l.Seq, queue.ErrInHand, l.State)
	}
	now := current(l)
	if l.Edit != nil {
		p.revision = l.Edit.Revision
	}
	u, err := edit(c, now, e)
	if errors.Is(err, errNoChange) {
		return p, nil
	}
	if err != nil {
		return p, fmt.Errorf("letter %d: %w", l.Seq, err)
	}
	p.body, p.Changes = u.Raw, fieldChanges(c.Rules(), now, u)
	return p, nil
}

// current is what a redrive of the letter would send now.
func current(l queue.Letter) *contact.Update {
	u := l.Update()
	if l.Edit != nil {
		n := contact.Decode(l.Edit.Body, nil)
		n.Contact, n.Class, n.Seq = u.Contact, u.Class, u.Seq
		return n
	}
	return u
}

// Mark tells a plan from one that was made of another state of its letter, or
// that would store something else. It is small: there is one for each letter of
// a group between its showing and its storing.
type Mark struct {
	revision uint64
	body     [16]byte
}

// Mark is that of the plan; the zero Mark is that of none that changes something.
func (p EditPlan) Mark() Mark {
	if p.body == nil {
		return Mark{}
	}
	sum := sha256.Sum256(p.body)
	return Mark{p.revision, [16]byte(sum[:])}
}

// IsChanged says whether an error is that something is not any more what the
// caller has seen: somebody else was there, and nothing was done.
func IsChanged(err error) bool { return errors.Is(err, queue.ErrChanged) }

// EditShown is [App.Edit] of a plan that was made again after one with the mark
// shown was agreed to. Where they differ nothing is stored, see [IsChanged].
func (a *App) EditShown(ctx context.Context, who Who, p EditPlan, shown Mark) error {
	if p.Mark() != shown {
		return fmt.Errorf("letter %d: %w", p.Letter.ID, queue.ErrChanged)
	}
	return a.Edit(ctx, who, p)
}

// Edit stores a planned edit: a later redrive sends it. The letter keeps its
// original. A plan that changes nothing is not stored.
func (a *App) Edit(ctx context.Context, who Who, p EditPlan) error {
	if p.body == nil {
		return nil
	}
	check, done := a.checker()
	defer done()
	_, err := a.q.EditLetter(ctx, p.Letter.ID, a.actor(who), p.body, p.revision, check)
	return err
}

// EditEach plans an edit of each letter that the filter chooses; edits says
// what it is for a letter, nil for none. A plan or the error of one letter goes
// to yield, whose error ends it.
func (a *App) EditEach(ctx context.Context, f DeadFilter, edits func(Letter) *Edits, yield func(EditPlan, error) error) error {
	qf, err := f.filter()
	if err != nil {
		return err
	}
	clients := map[string]client{}
	defer func() {
		for _, c := range clients {
			c.CloseIdle()
		}
	}()
	return a.q.Letters(ctx, qf, func(l queue.Letter) error {
		e := edits(letterOf(l))
		if e == nil {
			return nil
		}
		c := clients[l.Target]
		if c == nil {
			if c, err = a.clientOf(l.Target); err != nil {
				return err
			}
			clients[l.Target] = c
		}
		p, err := planEdit(c, l, e)
		return yield(p, err)
	})
}

// EditText is what an editor shows of a letter: the body that a redrive would
// send, indented where it is JSON, passwords masked. A mask that is left stands
// for what it masks.
func (a *App) EditText(ctx context.Context, id uint64) ([]byte, error) {
	l, err := a.letter(ctx, id)
	if err != nil {
		return nil, err
	}
	body := l.Original
	if l.Edit != nil {
		body = l.Edit.Body
	}
	return indented(body), nil
}
