package queue

import (
	"context"
	"errors"
	"fmt"

	"crmsync/contact"
)

// stormBrake is who recalls letters of a storm, in the audit trail.
var stormBrake = Actor{By: "storm brake", Via: "worker"}

// Recall puts dead letters of this target back into the queue: as updates of
// their old class and place, so that they are older than whatever waits behind
// them. It returns once that is stored, and tries for as long as ctx lasts. What
// is no dead letter any more, is in other hands or cannot be sent again is passed
// over: the operator has seen to it, or must. ErrLost means that the target is
// not ours any more.
func (s *Source) Recall(ctx context.Context, letters []contact.Ref) error {
	ids, err := s.lettersOf(ctx, letters)
	if err != nil || len(ids) == 0 {
		return err
	}
	who := Entry{Actor: stormBrake, Action: "recall", Target: s.target, Count: int64(len(ids)), IDs: ids}
	if err := s.insist(ctx, func() error { return s.q.Audit(ctx, who) }); err != nil {
		return err
	}
	for _, id := range ids {
		if err := s.insist(ctx, func() error { return s.recall(ctx, id) }); err != nil {
			return err
		}
	}
	return nil
}

// recall sends one letter again.
func (s *Source) recall(ctx context.Context, id uint64) error {
	letter, err := s.q.deadLetter(ctx, id)
	if err == nil {
		_, err = s.q.redrive(ctx, &letter, RedriveOptions{Actor: stormBrake, OriginalClass: true})
	}
	for _, passed := range []error{ErrNotFound, ErrInHand, ErrTooOld, ErrUnsendable} {
		if errors.Is(err, passed) {
			s.q.log.Info().Err(err).Uint64("letter", id).Msg("a letter of the storm is not recalled")
			return nil
		}
	}
	return err
}

// lettersOf finds the dead letters of updates.
func (s *Source) lettersOf(ctx context.Context, letters []contact.Ref) (ids []uint64, err error) {
	wanted := map[string]map[contact.Ref]bool{}
	var order []string
	for _, ref := range letters {
		if wanted[ref.ID] == nil {
			wanted[ref.ID] = map[contact.Ref]bool{}
			order = append(order, ref.ID)
		}
		wanted[ref.ID][ref] = true
	}
	for _, id := range order {
		var found []uint64
		err := s.insist(ctx, func() error {
			found = found[:0]
			return s.q.Records(ctx, Filter{Target: s.target, Contact: id, Outcome: contact.Dead}, func(r Record) error {
				if len(r.Updates) == 1 && wanted[id][contact.Ref{ID: id, Class: r.Updates[0].Class, Seq: r.Updates[0].Seq}] {
					found = append(found, r.Seq)
				}
				return nil
			})
		})
		if err != nil {
			return nil, err
		}
		ids = append(ids, found...)
	}
	return ids, nil
}

// insist repeats f until it succeeds, ctx ends or the target is lost.
func (s *Source) insist(ctx context.Context, f func() error) error {
	for n := 0; ; n++ {
		if err := s.lost(); err != nil {
			return err
		}
		err := f()
		if err == nil {
			return nil
		}
		if n == 5 {
			s.q.log.Warn().Err(err).Str("target", s.target).Msg("letters cannot be recalled; trying on")
		}
		if !sleep(ctx, pause(n)) {
			return fmt.Errorf("queue: recall letters of %s: %w (last: %w)", s.target, ctx.Err(), err)
		}
	}
}
