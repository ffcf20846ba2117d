package queue

import (
	"context"
	"fmt"
	"sync"

	"crmsync/contact"
)

// Foresight is what a redrive would come to, as far as it can be said without
// sending anything.
type Foresight struct {
	Total int64 `json:"total"` // letters that were looked at
	// Sendable are those that would be sent.
	Sendable int64 `json:"sendable"`
	// Superseded are those of Sendable that would write nothing, because newer
	// updates have written all their fields; Partly those that would leave
	// some fields out. Nobody can foresee what others will write meanwhile.
	Superseded int64          `json:"superseded"`
	Partly     int64          `json:"partly"`
	Skipped    map[Skip]int64 `json:"skipped,omitempty"`
	// Examples are up to 5 letters of each kind that would not go out whole:
	// by "superseded", "partly" or the Skip.
	Examples map[string][]uint64 `json:"examples,omitempty"`
	Groups   []Group             `json:"groups"` // of all, by cause
}

const (
	foreseers   = 8
	maxExamples = 5
)

// Foresee says what [Queue.StartRedrive] with the same plan would come to now,
// and sends nothing. rules says how a target's contacts merge, false for a target
// that is not known; check may refuse an update and may be nil. Each letter is
// read, and the fence of its contact: some 5,000 letters a second.
func (q *Queue) Foresee(ctx context.Context, p RedrivePlan, rules func(target string) (contact.Rules, bool), check func(*contact.Update) error) (Foresight, error) {
	f := &foreseeing{
		q: q, opt: RedriveOptions{Force: p.Force, OriginalClass: p.OriginalClass, Check: check}, rules: rules,
		out: Foresight{Skipped: map[Skip]int64{}, Examples: map[string][]uint64{}},
	}
	ids := make(chan uint64)
	var workers sync.WaitGroup
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	for range foreseers {
		workers.Go(func() {
			for id := range ids {
				if err := f.letter(ctx, id); err != nil {
					cancel(err)
					return
				}
			}
		})
	}
	err := q.planned(ctx, p, func(id uint64) error {
		select {
		case ids <- id:
			return nil
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	})
	close(ids)
	workers.Wait()
	if err == nil {
		err = context.Cause(ctx)
	}
	if err == nil && len(p.IDs) == 0 {
		p.Filter.Limit = 0
		f.out.Groups, err = q.Groups(ctx, p.Filter)
	}
	return f.out, err
}

// planned calls f for the letters of a plan.
func (q *Queue) planned(ctx context.Context, p RedrivePlan, f func(id uint64) error) error {
	for _, id := range p.IDs {
		if err := f(id); err != nil {
			return err
		}
	}
	if len(p.IDs) > 0 {
		return nil
	}
	p.Filter.Outcome, p.Filter.Newest, p.Filter.After = contact.Dead, false, 0
	return q.choose(ctx, p.Filter, func(h letterHead) error { return f(h.id) })
}

type foreseeing struct {
	q     *Queue
	opt   RedriveOptions
	rules func(string) (contact.Rules, bool)

	mu  sync.Mutex
	out Foresight
}

func (f *foreseeing) letter(ctx context.Context, id uint64) error {
	left, whole, err := f.judge(ctx, id)
	skip, one := skipOf(err)
	if err != nil && !one {
		return err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.out.Total++
	switch {
	case one:
		f.out.Skipped[skip]++
		f.example(string(skip), id)
		return nil
	case !left:
		f.out.Superseded++
		f.example("superseded", id)
	case !whole:
		f.out.Partly++
		f.example("partly", id)
	}
	f.out.Sendable++
	return nil
}

func (f *foreseeing) example(of string, id uint64) {
	if l := f.out.Examples[of]; len(l) < maxExamples {
		f.out.Examples[of] = append(l, id)
	}
}

// judge says whether a letter would write anything, and all it wants to.
func (f *foreseeing) judge(ctx context.Context, id uint64) (left, whole bool, err error) {
	letter, err := f.q.deadLetter(ctx, id)
	if err != nil {
		return false, false, err
	}
	k := contact.Key{Target: letter.Target, ID: letter.Contact}
	rules, ok := f.rules(k.Target)
	if !ok {
		return false, false, fmt.Errorf("target %s: %w", k.Target, ErrNotSetUp)
	}
	if err := f.q.inHand(ctx, k, id); err != nil {
		return false, false, err
	}
	c, err := f.q.prepare(ctx, &letter, f.opt)
	if err != nil {
		return false, false, err
	}
	_, st, err := f.q.lastRecord(ctx, k)
	if err != nil {
		return false, false, fmt.Errorf("queue: fence of %s: %w", k, err)
	}
	u := repeat(&letter, c)
	if u.Redrive.Force { // its place is behind all there is
		return true, true, nil
	}
	kept, cut := st.fence.Keep(rules, u.Fields, u.Mark())
	return len(kept) > 0, !cut, nil
}
