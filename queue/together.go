package queue

import (
	"context"

	"github.com/nats-io/nats.go"
	"golang.org/x/sync/errgroup"
)

// fewMessages is up to how many messages are stored one by one: a batch makes the
// server create and sync a store of its own, about as much as a dozen messages cost.
const fewMessages = 12

// atOnce is how many requests of one kind, other than publishing, are under way at
// the same time. A server answers them one after another, for everybody: what is in
// no hurry must not line up many before what somebody waits for.
const atOnce = 3

// aside calls f for each index below n, for so many at the same time.
func aside(n, most int, f func(i int)) {
	var g errgroup.Group
	g.SetLimit(most)
	for i := range n {
		g.Go(func() error { f(i); return nil })
	}
	_ = g.Wait() // none of them fails
}

// storeAll stores messages of one stream of which each stands by itself: many as
// batches, which sync once, few one by one; where a batch is refused, for one of
// its messages perhaps, those of it one by one as well. It says of each where it is
// stored, or what stood in the way; after an error that is not refused that is open.
// No two of them may share a condition.
func (q *Queue) storeAll(ctx context.Context, msgs []*nats.Msg) []result {
	out := make([]result, len(msgs))
	for from := 0; from < len(msgs); {
		to, size := from, 0
		for to < len(msgs) && to-from < maxBatch && (to == from || size+msgs[to].Size() <= maxBatchBytes) {
			size += msgs[to].Size()
			to++
		}
		q.storePart(ctx, msgs[from:to], out[from:to])
		from = to
	}
	return out
}

func (q *Queue) storePart(ctx context.Context, msgs []*nats.Msg, out []result) {
	if len(msgs) > fewMessages {
		ack, err := q.atomic(ctx, msgs)
		if err == nil || !refused(err) {
			for i := range out {
				if out[i].err = err; err == nil {
					out[i].seq = ack.Seq - uint64(len(msgs)-1-i)
				}
			}
			return
		}
	}
	for i := range msgs { // one after another: nobody's write then waits for more than one of them
		ack, err := q.atomic(ctx, msgs[i:i+1])
		out[i] = result{seq: ack.Seq, err: err}
	}
}
