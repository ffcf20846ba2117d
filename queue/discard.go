package queue

import (
	"context"
	"fmt"
	"strconv"
	"time"

	"crmsync/contact"
)

// Discard gives a dead letter up, because it was sent again or is not wanted any
// more: a record with the outcome discarded takes its place, which names the same
// updates and holds no original. detail says why and by whom. The error wraps
// [ErrNotFound] where the letter is gone already. It may be called while the
// target's owner is at work.
func (q *Queue) Discard(ctx context.Context, id uint64, detail string) error {
	letter, err := q.Record(ctx, id)
	if err != nil {
		return err
	}
	if letter.Outcome != contact.Dead {
		return fmt.Errorf("queue: record %d: %w: it is %s, not a dead letter", id, ErrNotFound, letter.Outcome)
	}
	k := contact.Key{Target: letter.Target, ID: letter.Contact}
	r := letter
	r.Outcome, r.Detail, r.Ended = contact.Discarded, detail, time.Now().UTC()
	r.Original, r.OriginalHeader, r.Seq, r.Time = nil, nil, 0, time.Time{}
	for n := 0; ; n++ {
		rev, st, err := q.lastRecord(ctx, k)
		if err != nil {
			return fmt.Errorf("queue: discard record %d: %w", id, err)
		}
		r.Covers, r.Fence, r.Owner = st.covers, st.fence, st.owner // the contact stands where it stood
		m, err := encodeRecord(&r)
		if err != nil {
			return fmt.Errorf("queue: %w", err)
		}
		m.Header.Set(headerLast, strconv.FormatUint(rev, 10))
		m.Header.Set(headerLastOf, contactFilter(k))
		_, err = q.publish(ctx, m)
		if err == nil {
			break
		}
		if apiErrorOf(err).ErrCode != errWrongLast || !sleep(ctx, pause(n)) {
			return fmt.Errorf("queue: discard record %d: %w", id, err)
		}
	}
	if err := q.ask(ctx, "STREAM.MSG.DELETE."+outcomeStream, eraseRequest{Seq: id}, nil); err != nil {
		return fmt.Errorf("queue: discard record %d: %w; try again", id, err)
	}
	return nil
}

type eraseRequest struct {
	Seq uint64 `json:"seq"`
}
