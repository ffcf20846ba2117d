package app

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"crmsync/queue"
)

// Discarded counts what became of letters that were to be given up.
type Discarded struct {
	Chosen    int64 `json:"chosen"`
	Discarded int64 `json:"discarded"`
	InHand    int64 `json:"in_hand,omitempty"` // somebody sends or discards them at this moment
	Gone      int64 `json:"gone,omitempty"`    // removed meanwhile
}

// discardAtOnce bounds how many letters are discarded side by side: each waits
// for the disk.
const discardAtOnce = 8

// Discard gives dead letters up: those of the ids or, without any, those that
// the filter chooses. The audit trail tells of it first, with the reason why. One
// letter that somebody else has in hand does not stop the others. tell, which may
// be nil, hears of progress.
func (a *App) Discard(ctx context.Context, who Who, f DeadFilter, ids []uint64, why string, tell func(Discarded)) (Discarded, error) {
	n, run, err := a.startDiscard(ctx, who, f, ids, why)
	if err != nil || n == 0 {
		return Discarded{}, err
	}
	return run(ctx, tell)
}

// startDiscard is Discard up to the audit; it says how many letters are chosen,
// and run does it.
func (a *App) startDiscard(ctx context.Context, who Who, f DeadFilter, ids []uint64, why string) (n int64, run func(context.Context, func(Discarded)) (Discarded, error), err error) {
	qf, err := f.filter()
	if err != nil {
		return 0, nil, err
	}
	qf.Newest, qf.After = false, 0
	e := queue.Entry{Actor: a.actor(who), Action: "discard", Target: f.Target, Contact: f.Contact, Detail: why, IDs: ids, Count: int64(len(ids))}
	if len(ids) == 0 {
		e.Filter = &qf
		if e.Count, err = a.q.Count(ctx, qf); err != nil || e.Count == 0 {
			return 0, nil, err
		}
	} else if e.Target, e.Contact, err = a.about(ctx, ids); err != nil {
		return 0, nil, err // all of them exist, or nothing is done
	}
	if err := a.q.Audit(ctx, e); err != nil {
		return 0, nil, err
	}
	return e.Count, func(ctx context.Context, tell func(Discarded)) (Discarded, error) {
		d := discarding{a: a, ctx: ctx, who: e.Actor, why: why, tell: tell, turn: make(chan struct{}, discardAtOnce)}
		err := a.pick(ctx, qf, ids, func(l queue.Letter) error { return d.start(l.Seq) })
		d.wg.Wait()
		return d.sum, errors.Join(err, d.err)
	}, nil
}

// about is the target that all these letters are of, and their contact; "" where
// there is more than one.
func (a *App) about(ctx context.Context, ids []uint64) (target, contact string, err error) {
	for i, id := range ids {
		l, err := a.letter(ctx, id)
		if err != nil {
			return "", "", err
		}
		if i == 0 {
			target, contact = l.Target, l.Contact
			continue
		}
		if l.Target != target {
			target = ""
		}
		if target == "" || l.Contact != contact {
			contact = ""
		}
	}
	return target, contact, nil
}

// discarding is one Discard at work.
type discarding struct {
	a    *App
	ctx  context.Context
	who  queue.Actor
	why  string
	tell func(Discarded)
	turn chan struct{} // holds one for each letter being discarded
	wg   sync.WaitGroup

	mu  sync.Mutex
	sum Discarded
	err error
}

func (d *discarding) start(id uint64) error {
	d.mu.Lock()
	err := d.err
	d.sum.Chosen++
	d.mu.Unlock()
	if err != nil {
		return nil // it is told once
	}
	select {
	case d.turn <- struct{}{}:
	case <-d.ctx.Done():
		return d.ctx.Err()
	}
	d.wg.Go(func() {
		defer func() { <-d.turn }()
		d.done(d.a.q.Discard(d.ctx, id, d.who, d.why))
	})
	return nil
}

func (d *discarding) done(err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	switch {
	case err == nil:
		d.sum.Discarded++
	case errors.Is(err, queue.ErrInHand):
		d.sum.InHand++
	case errors.Is(err, queue.ErrNotFound):
		d.sum.Gone++
	case d.err == nil:
		d.err = fmt.Errorf("discard: %w", err)
	}
	if d.tell != nil {
		d.tell(d.sum)
	}
}
