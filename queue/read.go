package queue

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

const (
	prefetch      = 500     // messages asked for ahead
	prefetchBytes = 8 << 20 // and their bytes
	heartbeat     = 2 * time.Second
	// lullAfter is how long nothing may come in a reading that has an end
	// before the server is asked whether there is anything left.
	lullAfter = 200 * time.Millisecond
)

// inMsg is a message of an ordered reading.
type inMsg struct {
	subject string
	header  nats.Header
	data    []byte
	seq     uint64
	time    time.Time
	pending uint64 // matching messages behind this one when it was sent
}

// errBroken says that a reading ended and may be taken up again.
var errBroken = errors.New("the reading was interrupted")

// errDrained says that what a reading still waited for was deleted.
var errDrained = errors.New("nothing is left to read")

// pass is what one reading does.
type pass struct {
	begin func(pending uint64) error // is told how many messages wait; may be nil
	each  func(inMsg) error
	// ends says whether the reading is over once what there is has come: it then
	// returns errDrained where the rest is deleted or replaced before it comes,
	// which the count of what is pending does not tell. nil: it never is.
	ends func() bool
}

// iterate creates a consumer, calls begin and then each for each message in order,
// without a gap in what the server sends. It returns the context's error, the
// callbacks' error, errDrained, or errBroken with the cause where the consumer or
// the connection failed.
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
	if p.begin != nil {
		if err := p.begin(cons.CachedInfo().NumPending); err != nil {
			return err
		}
	}
	var seen atomic.Uint64
	if p.ends != nil {
		var stop func()
		ctx, stop = watchLull(ctx, cons, p.ends, &seen)
		defer stop()
	}
	for next := uint64(1); ; next++ {
		m, err := it.Next(jetstream.NextContext(ctx))
		if errors.Is(context.Cause(ctx), errDrained) && err != nil {
			return errDrained
		}
		if err != nil {
			return broken(err)
		}
		seen.Store(next)
		meta, err := m.Metadata()
		if err != nil {
			return broken(err)
		}
		if meta.Sequence.Consumer != next {
			return broken(fmt.Errorf("message %d where %d was due", meta.Sequence.Consumer, next))
		}
		err = p.each(inMsg{
			subject: m.Subject(), header: m.Headers(), data: m.Data(),
			seq: meta.Sequence.Stream, time: meta.Timestamp, pending: meta.NumPending,
		})
		if err != nil {
			return err
		}
	}
}

// watchLull ends a reading of which nothing is left: the consumer was made when
// more waited, and what was deleted since never comes. The context that it returns
// then ends with errDrained.
func watchLull(ctx context.Context, cons jetstream.Consumer, ends func() bool, seen *atomic.Uint64) (context.Context, func()) {
	ctx, drain := context.WithCancelCause(ctx)
	done := make(chan struct{})
	go func() {
		defer close(done)
		t := time.NewTicker(lullAfter)
		defer t.Stop()
		for last := ^uint64(0); ; {
			select {
			case <-t.C:
			case <-ctx.Done():
				return
			}
			n := seen.Load()
			switch {
			case !ends():
				return
			case n != last:
				last = n
				continue
			}
			info, err := cons.Info(ctx)
			if err == nil && info.NumPending == 0 && info.Delivered.Consumer == n && seen.Load() == n && ends() {
				drain(errDrained)
				return
			}
		}
	}()
	return ctx, func() {
		drain(nil)
		<-done
	}
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
	var ends func() bool
	if !live {
		ends = func() bool { return true }
	}
	for n := 0; ; n++ {
		begin := func(pending uint64) error {
			if pending == 0 && !live {
				return errEnd
			}
			return nil
		}
		err := q.iterate(ctx, stream, cfg, pass{begin: begin, ends: ends, each: func(m inMsg) error {
			n = 0
			if err := f(m); err != nil {
				return err
			}
			cfg.DeliverPolicy, cfg.OptStartSeq, cfg.OptStartTime = jetstream.DeliverByStartSequencePolicy, m.seq+1, nil
			if m.pending == 0 && !live {
				return errEnd
			}
			return nil
		}})
		switch {
		case errors.Is(err, errEnd), errors.Is(err, errDrained):
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
