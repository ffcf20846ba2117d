package queue

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go"
)

// again is a letter on its way to be sent again, and what came of it.
type again struct {
	letter *Record
	claim  *Claim
	sent   Redriven
	err    error
}

// redriveAll is redrive for many letters: each step is taken for all of them
// before the next, and stored together where they are many. What stands in the way
// of one is its error and stops no other.
func (q *Queue) redriveAll(ctx context.Context, letters []*Record, o RedriveOptions) []*again {
	all := make([]*again, len(letters))
	for i, l := range letters {
		all[i] = &again{letter: l}
	}
	open := all
	step := func(f func([]*again)) {
		if open = still(open); len(open) > 0 {
			f(open)
		}
	}
	step(func(open []*again) { q.prepareAll(ctx, open, o) })
	claimed := time.Now() // at the earliest
	step(func(open []*again) { q.takeAll(ctx, open) })
	step(func(open []*again) { q.checkAgain(ctx, open, o) })
	step(func(open []*again) { q.sendAll(ctx, open, claimed) })
	return all
}

// still is those that nothing stands in the way of.
func still(all []*again) []*again {
	var out []*again
	for _, a := range all {
		if a.err == nil {
			out = append(out, a)
		}
	}
	return out
}

// prepareAll makes the claims.
func (q *Queue) prepareAll(ctx context.Context, all []*again, o RedriveOptions) {
	edits := q.editsOf(ctx, all)
	for i, a := range all {
		if a.err == nil {
			a.claim, a.err = prepared(a.letter, edits[i], o)
		}
	}
}

// editsOf reads the edits of these letters, nil where there is none.
func (q *Queue) editsOf(ctx context.Context, all []*again) []*Edit {
	edits := make([]*Edit, len(all))
	aside(len(all), atOnce, func(i int) { edits[i], all[i].err = q.Edited(ctx, all[i].letter) })
	return edits
}

// takeAll takes the claims.
func (q *Queue) takeAll(ctx context.Context, all []*again) {
	msgs := make([]*nats.Msg, len(all))
	for i, a := range all {
		b, err := a.claim.encode()
		if err != nil {
			for _, a := range all {
				a.err = err
			}
			return
		}
		msgs[i] = q.letters.message(a.claim.key(), b, "", 0, 0)
	}
	stored := q.storeAll(ctx, msgs)
	aside(len(all), atOnce, func(i int) {
		if a := all[i]; stored[i].err == nil {
			a.claim.rev = stored[i].seq
		} else {
			a.err = q.take(ctx, a.claim) // somebody has it, or had; or the answer was lost
		}
	})
}

// checkAgain gives back what was finished between the reading and the claim, and
// what was edited then.
func (q *Queue) checkAgain(ctx context.Context, all []*again, o RedriveOptions) {
	edits := q.editsOf(ctx, all)
	aside(len(all), atOnce, func(i int) {
		a := all[i]
		if a.err != nil {
			return // the target's owner sends it or gives it back
		}
		if _, a.err = q.deadLetter(ctx, a.letter.Seq); a.err != nil {
			if errors.Is(a.err, ErrNotFound) {
				a.err = errors.Join(a.err, q.drop(ctx, a.claim))
			}
			return
		}
		now, err := prepared(a.letter, edits[i], o)
		if err == nil && string(now.Body) != string(a.claim.Body) {
			err = editedNow(a.letter.Seq)
		}
		if err != nil {
			a.err = errors.Join(err, q.drop(ctx, a.claim))
		}
	})
}

func editedNow(letter uint64) error {
	return fmt.Errorf("letter %d: %w: it was edited at this moment; try again", letter, ErrInHand)
}

// sendAll publishes what the claims stand for.
func (q *Queue) sendAll(ctx context.Context, all []*again, claimed time.Time) {
	for _, part := range byStream(all) {
		q.sendPart(ctx, part, claimed)
	}
}

// byStream puts together what goes into one stream.
func byStream(all []*again) (parts [][]*again) {
	at := map[string]int{}
	for _, a := range all {
		name := streamName(a.claim.Target, a.claim.Class)
		i, ok := at[name]
		if !ok {
			i = len(parts)
			at[name], parts = i, append(parts, nil)
		}
		parts[i] = append(parts[i], a)
	}
	return parts
}

// sendPart publishes to one stream. What the stream has no room for is given back;
// once it has none for one letter, the others need not be tried.
func (q *Queue) sendPart(ctx context.Context, part []*again, claimed time.Time) {
	msgs := make([]*nats.Msg, len(part))
	for i, a := range part {
		if msgs[i], a.err = message(sendable(repeat(a.letter, a.claim))); a.err != nil {
			for _, a := range part {
				a.err = fmt.Errorf("queue: redrive: %w", part[i].err)
			}
			return // prepared has tried that
		}
	}
	if time.Since(claimed) > publishWithin {
		for _, a := range part {
			a.err = notInTime(a.letter.Seq)
		}
		return
	}
	if err := q.hasRoom(ctx); err != nil {
		for _, a := range part {
			a.err = fmt.Errorf("letter %d: %w", a.letter.Seq, err)
		}
		q.giveBack(ctx, part)
		return
	}
	stored := q.storeAll(ctx, msgs)
	unsafe := q.holds()
	full := false
	for i, a := range part {
		switch err := stored[i].err; {
		case err == nil && unsafe != nil:
			a.err = fmt.Errorf("letter %d: %w", a.letter.Seq, unsafe)
		case err == nil:
			a.sent = Redriven{Letter: a.letter.Seq, Class: a.claim.Class, Seq: stored[i].seq, MsgID: a.claim.MsgID}
		case full && refused(err):
			a.err = errors.Join(fmt.Errorf("letter %d: %w", a.letter.Seq, ErrFull), q.drop(ctx, a.claim))
		default:
			a.sent, a.err = q.send(ctx, a.letter, a.claim, claimed)
			full = full || errors.Is(a.err, ErrFull)
		}
	}
}

// giveBack drops the claims of what is not sent.
func (q *Queue) giveBack(ctx context.Context, part []*again) {
	claims := make([]*Claim, len(part))
	for i, a := range part {
		claims[i] = a.claim
	}
	if err := q.dropAll(ctx, claims); err != nil {
		for _, a := range part {
			a.err = errors.Join(a.err, err)
		}
	}
}

// dropAll gives claims back.
func (q *Queue) dropAll(ctx context.Context, claims []*Claim) error {
	msgs := make([]*nats.Msg, len(claims))
	for i, c := range claims {
		msgs[i] = q.letters.message(c.key(), nil, kvDeleteMark, int64(c.rev), markTTL)
	}
	stored := q.storeAll(ctx, msgs)
	errs := make([]error, len(claims))
	aside(len(claims), atOnce, func(i int) {
		if stored[i].err != nil {
			errs[i] = q.drop(ctx, claims[i])
		}
	})
	return errors.Join(errs...)
}
