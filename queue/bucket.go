package queue

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// bucket is a key-value bucket as NATS clients know it, read from its leader.
type bucket struct {
	q    *Queue
	name string
}

type entry struct {
	key   string
	value []byte
	rev   uint64
	time  time.Time
	gone  bool // deleted
}

const (
	anyRevision  = -1
	kvOperation  = "KV-Operation"
	kvDeleteMark = "DEL"
)

func (b bucket) stream() string { return "KV_" + b.name }

func (b bucket) subject(key string) string { return "$KV." + b.name + "." + key }

// put stores a value under the condition that the key's revision is expect; 0:
// the key does not exist. It returns the new revision.
func (b bucket) put(ctx context.Context, key string, value []byte, expect int64) (uint64, error) {
	return b.write(ctx, key, value, "", expect, 0)
}

func (b bucket) delete(ctx context.Context, key string) error {
	_, err := b.write(ctx, key, nil, kvDeleteMark, anyRevision, 0)
	return err
}

// create stores a value under a key that does not exist; errWrongLast where it
// does.
func (b bucket) create(ctx context.Context, key string, value []byte) (uint64, error) {
	rev, err := b.put(ctx, key, value, 0)
	if apiErrorOf(err).ErrCode != errWrongLast {
		return rev, err
	}
	e, again := b.get(ctx, key)
	if again != nil || !e.gone || e.rev == 0 {
		return 0, err
	}
	return b.put(ctx, key, value, int64(e.rev)) // over the mark of a deletion
}

// write stores a value, or the mark of a deletion, that ttl later is gone; 0:
// never.
func (b bucket) write(ctx context.Context, key string, value []byte, op string, expect int64, ttl time.Duration) (uint64, error) {
	ctx, cancel := context.WithTimeout(ctx, b.q.timeout)
	defer cancel()
	a, err := b.q.publish(ctx, b.message(key, value, op, expect, ttl))
	return a.Seq, err
}

// message is what write publishes.
func (b bucket) message(key string, value []byte, op string, expect int64, ttl time.Duration) *nats.Msg {
	subject := b.subject(key)
	if b.q.api != jetstream.DefaultAPIPrefix {
		subject = b.q.api + subject // as every client reaches a bucket of another domain
	}
	m := nats.NewMsg(subject)
	m.Data = value
	if op != "" {
		m.Header.Set(kvOperation, op)
	}
	if ttl > 0 {
		m.Header.Set(headerTTL, ttl.String())
	}
	if expect != anyRevision {
		m.Header.Set(headerLast, strconv.FormatInt(expect, 10))
	}
	return m
}

// get reads a key; its entry is gone where it does not exist.
func (b bucket) get(ctx context.Context, key string) (entry, error) {
	m, err := b.q.get(ctx, b.stream(), getRequest{Last: b.subject(key)})
	if err != nil {
		return entry{}, err
	}
	if m == nil {
		return entry{key: key, gone: true}, nil
	}
	op := m.Header.Get(kvOperation)
	return entry{key: key, value: m.Data, rev: m.Seq, time: m.Time, gone: op != ""}, nil
}

// each calls f for every key that matches (">" for all), once.
func (b bucket) each(ctx context.Context, match string, f func(entry) error) error {
	cfg := jetstream.ConsumerConfig{DeliverPolicy: jetstream.DeliverLastPerSubjectPolicy, FilterSubject: b.subject(match)}
	return b.q.follow(ctx, b.stream(), cfg, false, func(m inMsg) error {
		if e := b.entry(m); !e.gone {
			return f(e)
		}
		return nil
	})
}

func (b bucket) entry(m inMsg) entry {
	return entry{
		key: strings.TrimPrefix(m.subject, b.subject("")), value: m.data, rev: m.seq, time: m.time,
		gone: m.header.Get(kvOperation) != "",
	}
}

// watch calls f for every key that matches, then ready, then f for each change,
// until the context ends. After an interruption it begins anew; keys that went
// in between are reported as gone. Expiry is not reported while it reads on.
func (b bucket) watch(ctx context.Context, match string, ready func(), f func(entry)) error {
	cfg := jetstream.ConsumerConfig{DeliverPolicy: jetstream.DeliverLastPerSubjectPolicy, FilterSubject: b.subject(match)}
	known := map[string]bool{}
	for n := 0; ; n++ {
		fresh, complete := map[string]bool{}, false
		err := b.q.iterate(ctx, b.stream(), cfg, pass{complete: func() error {
			n, complete = 0, true
			for key := range known {
				if !fresh[key] {
					delete(known, key)
					f(entry{key: key, gone: true})
				}
			}
			if ready != nil {
				ready()
			}
			return nil
		}, each: func(m inMsg) error {
			e := b.entry(m)
			if e.gone {
				delete(known, e.key)
			} else {
				known[e.key] = true
				if !complete {
					fresh[e.key] = true
				}
			}
			f(e)
			return nil
		}})
		if !errors.Is(err, errBroken) {
			return err
		}
		if !sleep(ctx, pause(n)) {
			return ctx.Err()
		}
	}
}

// setUp says with a hint that the bucket does not exist.
func (b bucket) setUp(ctx context.Context) error {
	_, err := b.q.info(ctx, b.stream())
	if err != nil {
		return fmt.Errorf("bucket %s: %w", b.name, err)
	}
	return nil
}
