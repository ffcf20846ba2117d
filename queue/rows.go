package queue

import (
	"context"
	"strconv"

	"github.com/nats-io/nats.go/jetstream"

	"crmsync/contact"
)

// LastRow is the highest row of a job that was ever stored for a target and
// class, as far as its stream and the outcomes still know; 0 where there is none.
// A job's rows are stored in their order, so that each row before it was stored
// too, or was never an update.
func (q *Queue) LastRow(ctx context.Context, target string, class contact.Class, job string) (int64, error) {
	if err := contact.CheckTarget(target); err != nil {
		return 0, err
	}
	last := int64(0)
	// The stream before the records: a row that ends meanwhile is seen twice
	// rather than not at all.
	cfg := jetstream.ConsumerConfig{DeliverPolicy: jetstream.DeliverAllPolicy, HeadersOnly: true}
	err := q.follow(ctx, streamName(target, class), cfg, false, func(m inMsg) error {
		if m.header.Get(contact.HeaderJob) != job {
			return nil
		}
		if n, err := strconv.ParseInt(m.header.Get(contact.HeaderRow), 10, 64); err == nil {
			last = max(last, n)
		}
		return nil
	})
	if err != nil {
		return 0, err
	}
	err = q.Records(ctx, Filter{Target: target, Job: job}, func(r Record) error {
		for _, u := range r.Updates {
			if u.Class == class {
				last = max(last, u.Row)
			}
		}
		return nil
	})
	return last, err
}
