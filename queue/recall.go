package queue

import (
	"context"
	"errors"
	"fmt"

	"github.com/nats-io/nats.go"

	"crmsync/contact"
)

// stormBrake is who recalls letters of a storm, in the audit trail.
var stormBrake = Actor{By: "storm brake", Via: "worker"}

// Recall puts dead letters of this target back into the queue: as updates of
// their old class and place, so that they are older than whatever waits behind
// them. It returns once that is stored, and waits for the connection for as long
// as ctx lasts, but not for room: left are the letters that there was none for.
// They are dead letters still and may be recalled later. What is no dead letter
// any more, is in other hands or cannot be sent again is passed over: the operator
// has seen to it, or must. ErrLost means that the target is not ours any more.
func (s *Source) Recall(ctx context.Context, letters []contact.Ref) (left []contact.Ref, err error) {
	found, err := s.lettersOf(ctx, letters)
	if err != nil || len(found) == 0 {
		return nil, err
	}
	who := Entry{Actor: stormBrake, Action: "recall", Target: s.target, Count: int64(len(found))}
	for _, l := range found {
		who.IDs = append(who.IDs, l.id)
	}
	refused, err := s.insist(ctx, func() error { return s.q.Audit(ctx, who) })
	if err != nil {
		return nil, err
	}
	if refused != nil {
		s.q.log.Warn().Err(refused).Str("target", s.target).Int("letters", len(found)).Msg("letters of the storm are not recalled")
		return letters, nil
	}
	for _, l := range found {
		refused, err := s.insist(ctx, func() error { return s.recall(ctx, l.id) })
		switch {
		case err != nil:
			return nil, err
		case refused == nil:
			continue
		case errors.Is(refused, ErrFull), apiErrorOf(refused).ErrCode == errStoreFailed, apiErrorOf(refused).ErrCode == errWrongLast:
			left = append(left, l.ref)
		}
		s.q.log.Info().Err(refused).Uint64("letter", l.id).Msg("a letter of the storm is not recalled")
	}
	return left, nil
}

// recall sends one letter again.
func (s *Source) recall(ctx context.Context, id uint64) error {
	letter, err := s.q.deadLetter(ctx, id)
	if err == nil {
		_, err = s.q.redrive(ctx, &letter, RedriveOptions{Actor: stormBrake, OriginalClass: true})
	}
	return err
}

// recallable is the dead letter of an update.
type recallable struct {
	ref contact.Ref
	id  uint64
}

// lettersOf finds the dead letters of updates.
func (s *Source) lettersOf(ctx context.Context, letters []contact.Ref) (all []recallable, err error) {
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
		var found []recallable
		refused, err := s.insist(ctx, func() error {
			found = found[:0]
			return s.q.Records(ctx, Filter{Target: s.target, Contact: id, Outcome: contact.Dead}, func(r Record) error {
				if len(r.Updates) != 1 {
					return nil
				}
				if ref := (contact.Ref{ID: id, Class: r.Updates[0].Class, Seq: r.Updates[0].Seq}); wanted[id][ref] {
					found = append(found, recallable{ref, r.Seq})
				}
				return nil
			})
		})
		if err != nil {
			return nil, err
		}
		if refused != nil { // what was read before it is as good as ever
			s.q.log.Warn().Err(refused).Str("target", s.target).Msg("letters of the storm cannot be read and are not recalled")
		}
		all = append(all, found...)
	}
	return all, nil
}

// insist repeats f until it succeeds or fails for a reason that does not lie with
// the connection: that is refused. err says that ctx ended or the target is lost.
func (s *Source) insist(ctx context.Context, f func() error) (refused, err error) {
	for n := 0; ; n++ {
		if err := s.lost(); err != nil {
			return nil, err
		}
		err := f()
		if err == nil || ctx.Err() == nil && !passing(err) {
			return err, nil
		}
		if n == 5 {
			s.q.log.Warn().Err(err).Str("target", s.target).Msg("letters cannot be recalled; trying on")
		}
		if !sleep(ctx, pause(n)) {
			return nil, fmt.Errorf("queue: recall letters of %s: %w (last: %w)", s.target, ctx.Err(), err)
		}
	}
}

// Passing says that an error lies with the connection or with a server that cannot
// answer at the moment: what was asked may be asked again.
func Passing(err error) bool { return passing(err) }

// passing says that an error lies with the connection or with a server that
// cannot answer at the moment, and says nothing of what was asked.
func passing(err error) bool {
	if e := apiErrorOf(err); e.ErrCode != 0 {
		return e.Code >= 500 && e.ErrCode != errStoreFailed && !errors.Is(err, ErrFull)
	}
	for _, is := range []error{
		ErrNoSpace, ErrUnreachable, ErrUnled, errRenewed, errBroken, context.DeadlineExceeded, nats.ErrTimeout, nats.ErrNoResponders,
		nats.ErrConnectionClosed, nats.ErrConnectionReconnecting, nats.ErrReconnectBufExceeded, nats.ErrStaleConnection,
	} {
		if errors.Is(err, is) {
			return true
		}
	}
	return false
}
