package queue

import (
	"context"
	"sync/atomic"

	"github.com/nats-io/nats.go"

	"crmsync/contact"
)

// commit is one act on its way to the store.
type commit struct {
	s    *Source
	key  contact.Key
	gone atomic.Bool // its caller waits no longer; it need not be stored
	msgs []*nats.Msg
	size int
	done chan result
}

type result struct {
	seq uint64 // of the act's last record
	err error
}

func (c *commit) finish(r result) {
	c.done <- r
	c.s.inflight.Add(-1)
}

const committers = 2

// committer stores acts as they come, and those that came meanwhile together:
// a store that syncs each write then syncs once for all of them.
func (q *Queue) committer() {
	var held *commit
	for {
		if held == nil {
			select {
			case held = <-q.commits:
			case <-q.life.Done():
				return
			}
		}
		var group []*commit
		group, held = q.gather(held)
		q.commitAll(group)
	}
}

// gather adds to an act what else is ready, and returns with it the act that
// did not fit. No two acts of one contact share a batch: the server checks the
// conditions of a batch before it stores any of it, so that both would pass. Two
// can be ready where a caller gave up on the first and came again.
func (q *Queue) gather(first *commit) (group []*commit, held *commit) {
	group = []*commit{first}
	n, size, keys := len(first.msgs), first.size, map[contact.Key]bool{first.key: true}
	for n < maxBatch && size < maxBatchBytes {
		select {
		case c := <-q.commits:
			if n+len(c.msgs) > maxBatch || size+c.size > maxBatchBytes || keys[c.key] {
				return group, c
			}
			keys[c.key] = true
			group, n, size = append(group, c), n+len(c.msgs), size+c.size
		default:
			return group, nil
		}
	}
	return group, nil
}

// commitAll stores a group as one batch, and each act by itself where they are few
// or the batch is refused.
func (q *Queue) commitAll(group []*commit) {
	var msgs []*nats.Msg
	valid := group[:0]
	for _, c := range group {
		if err := c.s.lost(); err != nil {
			c.finish(result{err: err})
			continue
		}
		if c.gone.Load() {
			c.finish(result{err: context.Canceled})
			continue
		}
		valid = append(valid, c)
		msgs = append(msgs, c.msgs...)
	}
	if len(valid) == 0 {
		return
	}
	if len(valid) > 1 && len(msgs) <= fewMessages {
		q.commitEach(valid)
		return
	}
	ack, err := q.atomic(q.life, msgs)
	switch {
	case err == nil:
		seq := ack.Seq - uint64(len(msgs))
		for _, c := range valid {
			seq += uint64(len(c.msgs))
			c.finish(result{seq: seq})
		}
	case len(valid) == 1 || !refused(err):
		for _, c := range valid {
			c.finish(result{err: err})
		}
	default:
		q.commitEach(valid)
	}
}

// commitEach stores each act by itself.
func (q *Queue) commitEach(group []*commit) {
	aside(len(group), fewMessages, func(i int) { q.commitAll(group[i : i+1]) })
}
