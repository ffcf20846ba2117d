package queue

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

const (
	prefetch      = 500     // messages asked for ahead
	prefetchBytes = 8 << 20 // and their bytes
	heartbeat     = 2 * time.Second
	lookAfter     = 250 * time.Millisecond // without a message
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

// iterate creates a consumer, calls begin with the number of messages that wait
// and then f for each message in order, without a gap in what the server sends.
// What waits may be removed before it is sent; so where no message has come for a
// while it calls begin again, until that was told 0. It returns the context's error, the callbacks' error, or errBroken with
// the cause where the consumer or the connection failed.
func (q *Queue) iterate(ctx context.Context, stream string, cfg jetstream.ConsumerConfig, begin func(pending uint64) error, f func(inMsg) error) error {
	outer := ctx
	ctx, cancel := q.untilReconnect(ctx)
	defer cancel()
	var looking sync.WaitGroup
	defer looking.Wait()
	ctx, end := context.WithCancel(ctx)
	defer end()
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
	var l looker
	turn := l.turn(ctx)
	defer func() { l.ended() }()
	if begin != nil {
		if err := begin(cons.CachedInfo().NumPending); err != nil {
			return err
		}
		if cons.CachedInfo().NumPending > 0 {
			looking.Go(func() { l.look(ctx, cons) })
		}
	}
	for next := uint64(1); ; next++ {
		m, err := it.Next(jetstream.NextContext(turn))
		for err != nil && turn.Err() != nil && ctx.Err() == nil {
			if err := begin(l.ended()); err != nil {
				return err
			}
			turn = l.turn(ctx)
			m, err = it.Next(jetstream.NextContext(turn))
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
		err = f(inMsg{
			subject: m.Subject(), header: m.Headers(), data: m.Data(),
			seq: meta.Sequence.Stream, time: meta.Timestamp, pending: meta.NumPending,
		})
		if err != nil {
			return err
		}
		l.read.Store(next)
	}
}

// looker interrupts a reading to tell it what is left, where no message has come
// for a while and all that was sent has been read.
type looker struct {
	read atomic.Uint64 // messages read

	mu   sync.Mutex
	wake context.CancelFunc // ends the turn
	left uint64             // what the server says is left, once the turn has ended
}

// turn is a context for waiting for messages until the looker ends it.
func (l *looker) turn(ctx context.Context) context.Context {
	l.mu.Lock()
	defer l.mu.Unlock()
	ctx, l.wake = context.WithCancel(ctx)
	return ctx
}

// ended ends the turn that there is, and tells what was left.
func (l *looker) ended() uint64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.wake()
	return l.left
}

// look looks until nothing is left, or ctx ends.
func (l *looker) look(ctx context.Context, cons jetstream.Consumer) {
	before := uint64(0)
	for sleep(ctx, lookAfter) {
		now := l.read.Load()
		if now != before {
			before = now
			continue
		}
		info, err := cons.Info(ctx)
		if err != nil || info.Delivered.Consumer != now {
			continue // the reading itself finds out
		}
		l.mu.Lock()
		l.left = info.NumPending
		l.wake()
		l.mu.Unlock()
		if info.NumPending == 0 {
			return
		}
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
	for n := 0; ; n++ {
		var begin func(uint64) error
		if !live {
			begin = func(pending uint64) error {
				if pending == 0 {
					return errEnd
				}
				return nil
			}
		}
		err := q.iterate(ctx, stream, cfg, begin, func(m inMsg) error {
			n = 0
			if err := f(m); err != nil {
				return err
			}
			cfg.DeliverPolicy, cfg.OptStartSeq, cfg.OptStartTime = jetstream.DeliverByStartSequencePolicy, m.seq+1, nil
			if m.pending == 0 && !live {
				return errEnd
			}
			return nil
		})
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
