package queue

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

const (
	prefetch      = 500     // messages asked for ahead
	prefetchBytes = 8 << 20 // and their bytes
	heartbeat     = 2 * time.Second
	// After a lull in a reading whose end somebody waits for the server is asked
	// whether there is anything left: the first time soon, then less and less often.
	lullFirst = 25 * time.Millisecond
	lullMost  = time.Second
)

// inMsg is a message of an ordered reading.
type inMsg struct {
	subject string
	header  nats.Header
	data    []byte
	seq     uint64
	time    time.Time
}

// errBroken says that a reading ended and may be taken up again.
var errBroken = errors.New("the reading was interrupted")

// pass is what one reading does.
type pass struct {
	begin func(pending uint64) error // is told about how many messages wait; may be nil
	each  func(inMsg) error
	// complete is called once, when all that was there when the reading began has
	// been read; its error ends the reading. nil: nobody asks.
	complete func() error
}

// iterate creates a consumer, calls begin and then each for each message in order,
// without a gap in what the server sends. It returns the context's error, the
// callbacks' error, or errBroken with the cause where the consumer or the
// connection failed.
func (q *Queue) iterate(ctx context.Context, stream string, cfg jetstream.ConsumerConfig, p pass) error {
	outer := ctx
	ctx, cancel := q.untilReconnect(ctx)
	defer cancel()
	cfg.AckPolicy, cfg.Replicas, cfg.MemoryStorage = jetstream.AckNonePolicy, 1, true
	cfg.InactiveThreshold = 30 * time.Second
	broken := func(err error) error {
		if e := outer.Err(); e != nil {
			return e
		}
		return fmt.Errorf("%w: %w", errBroken, err)
	}
	made, stop := context.WithTimeout(ctx, q.timeout)
	cons, err := q.js.CreateConsumer(made, stream, cfg)
	stop()
	if errors.Is(err, jetstream.ErrStreamNotFound) {
		return fmt.Errorf("queue: stream %s does not exist: %w; run \"crmsync setup\"", stream, ErrNotSetUp)
	}
	if err != nil {
		return broken(err)
	}
	defer q.dropConsumer(stream, cons.CachedInfo().Name)
	it, err := cons.Messages(jetstream.PullMaxMessagesWithBytesLimit(prefetch, prefetchBytes),
		jetstream.PullHeartbeat(heartbeat), jetstream.WithMessagesErrOnMissingHeartbeat(true))
	if err != nil {
		return broken(err)
	}
	defer it.Stop()
	waiting := cons.CachedInfo().NumPending
	if p.begin != nil {
		if err := p.begin(waiting); err != nil {
			return err
		}
	}
	end := newEnding(q, stream, &cfg, cons.CachedInfo().Delivered.Stream)
	lull := lullFirst
	for next := uint64(1); ; {
		if p.complete != nil && waiting == 0 {
			over, err := end.reached(ctx)
			if err != nil {
				return broken(err)
			}
			if over {
				err, p.complete = p.complete(), nil
			}
			if err != nil {
				return err
			}
		}
		m, err := nextWithin(ctx, it, lull, p.complete == nil)
		if errors.Is(err, errLull) {
			waiting, lull = 0, min(2*lull, lullMost) // it may have been deleted
			continue
		}
		if err != nil {
			return broken(err)
		}
		meta, err := m.Metadata()
		if err != nil {
			return broken(err)
		}
		if meta.Sequence.Consumer != next {
			return broken(fmt.Errorf("message %d where %d was due", meta.Sequence.Consumer, next))
		}
		next++
		lull = lullFirst
		waiting, end.at = meta.NumPending, meta.Sequence.Stream
		err = p.each(inMsg{subject: m.Subject(), header: m.Headers(), data: m.Data(), seq: meta.Sequence.Stream, time: meta.Timestamp})
		if err != nil {
			return err
		}
	}
}

// errLull says that nothing has come for a while.
var errLull = errors.New("nothing came")

// nextWithin is the iterator's next message, errLull where none comes for so long;
// with patient it waits for as long as the context lasts.
func nextWithin(ctx context.Context, it jetstream.MessagesContext, d time.Duration, patient bool) (jetstream.Msg, error) {
	if patient {
		return it.Next(jetstream.NextContext(ctx))
	}
	limited, cancel := context.WithTimeout(ctx, d)
	defer cancel()
	m, err := it.Next(jetstream.NextContext(limited))
	if err != nil && limited.Err() != nil && ctx.Err() == nil {
		return nil, errLull
	}
	return m, err
}

// ending finds out whether a reading has come to the end of what there is. What
// the server says is pending cannot tell: it counts too few where a message is
// removed at the moment at which the consumer is made, since that is taken off a
// count which never had it, and too many where what waits is removed before it
// comes. So the stream's leader is asked for what follows.
type ending struct {
	q       *Queue
	stream  string
	filters []string
	at      uint64 // read up to here
	until   uint64 // the stream's last sequence when something was found to follow; 0: that was never
}

func newEnding(q *Queue, stream string, cfg *jetstream.ConsumerConfig, at uint64) ending {
	e := ending{q: q, stream: stream, filters: cfg.FilterSubjects, at: at}
	switch {
	case len(e.filters) > 0:
	case cfg.FilterSubject != "":
		e.filters = []string{cfg.FilterSubject}
	default:
		e.filters = []string{">"}
	}
	return e
}

// reached says whether nothing follows, or only what came after the first call.
func (e *ending) reached(ctx context.Context) (bool, error) {
	if e.until > 0 && e.at >= e.until {
		return true, nil
	}
	follows := uint64(0)
	for _, f := range e.filters {
		m, err := e.q.get(ctx, e.stream, getRequest{Seq: e.at + 1, Next: f})
		if err != nil {
			return false, err
		}
		if m != nil && (follows == 0 || m.Seq < follows) {
			follows = m.Seq
		}
	}
	if follows > 0 && e.until == 0 {
		info, err := e.q.info(ctx, e.stream)
		if err != nil {
			return false, err
		}
		e.until = info.State.LastSeq
	}
	return follows == 0 || follows > e.until, nil
}

// dropConsumer is a courtesy: the server forgets it by itself.
func (q *Queue) dropConsumer(stream, name string) {
	if !q.nc.IsConnected() {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	_ = q.js.DeleteConsumer(ctx, stream, name)
}

// follow is iterate that takes itself up again where it broke. Once
// it has read a message it goes on behind it. live false ends it when everything
// that waited when it began has been read.
func (q *Queue) follow(ctx context.Context, stream string, cfg jetstream.ConsumerConfig, live bool, f func(inMsg) error) error {
	errEnd := errors.New("end")
	var complete func() error
	if !live {
		complete = func() error { return errEnd }
	}
	for n := 0; ; n++ {
		err := q.iterate(ctx, stream, cfg, pass{complete: complete, each: func(m inMsg) error {
			n = 0
			if err := f(m); err != nil {
				return err
			}
			cfg.DeliverPolicy, cfg.OptStartSeq, cfg.OptStartTime = jetstream.DeliverByStartSequencePolicy, m.seq+1, nil
			return nil
		}})
		switch {
		case errors.Is(err, errEnd):
			return nil
		case !errors.Is(err, errBroken):
			return err
		case !live && n >= 3:
			return fmt.Errorf("queue: read %s: %w", stream, err)
		}
		if !sleep(ctx, pause(n)) {
			return ctx.Err()
		}
	}
}
