package queue

import (
	"context"
	"fmt"
	"maps"
	"sync"

	"github.com/nats-io/nats.go/jetstream"

	"crmsync/contact"
)

// tally is the number of dead letters of each target by reason, kept so that it
// need not be counted each time: what was stored since the last time is added,
// and where the sum then differs from how many there are, all are counted.
type tally struct {
	mu    sync.Mutex
	last  uint64 // every record up to here is in it
	total int64
	by    map[string]map[contact.Reason]int64
}

// Dead counts the dead letters of each target by reason. The first call reads the
// headers of all, later ones what has changed.
func (q *Queue) Dead(ctx context.Context) (map[string]map[contact.Reason]int64, error) {
	t := &q.tally
	t.mu.Lock()
	defer t.mu.Unlock()
	if err := t.refresh(ctx, q); err != nil {
		return nil, fmt.Errorf("queue: count dead letters: %w", err)
	}
	out := make(map[string]map[contact.Reason]int64, len(t.by))
	for target, by := range t.by {
		out[target] = maps.Clone(by)
	}
	return out, nil
}

func (t *tally) refresh(ctx context.Context, q *Queue) error {
	if t.by != nil {
		if err := t.read(ctx, q); err != nil {
			t.by = nil
			return err
		}
		n, err := q.Count(ctx, Filter{Outcome: contact.Dead})
		if err != nil || n == t.total {
			return err
		}
	}
	// For the first time, or letters went without a word: a person was
	// forgotten, or somebody else removed them.
	info, err := q.info(ctx, outcomeStream)
	if err != nil {
		return err
	}
	t.last, t.total, t.by = 0, 0, map[string]map[contact.Reason]int64{}
	if err := t.read(ctx, q); err != nil {
		t.by = nil
		return err
	}
	t.last = max(t.last, info.State.LastSeq)
	return nil
}

// read takes in what was stored behind last. A letter that was discarded counts
// off, unless it was gone before it could be counted.
func (t *tally) read(ctx context.Context, q *Queue) error {
	from, fresh := t.last, t.last == 0
	cfg := jetstream.ConsumerConfig{
		FilterSubjects: []string{Filter{Outcome: contact.Dead}.subject()}, HeadersOnly: true,
		DeliverPolicy: jetstream.DeliverByStartSequencePolicy, OptStartSeq: from + 1,
	}
	if !fresh {
		cfg.FilterSubjects = append(cfg.FilterSubjects, Filter{Outcome: contact.Discarded}.subject())
	}
	return q.follow(ctx, outcomeStream, cfg, false, func(m inMsg) error {
		k, outcome, err := parseOutcomeSubject(m.subject)
		if err != nil {
			return err
		}
		t.last = m.seq
		var reason contact.Reason
		_ = reason.UnmarshalText([]byte(m.header.Get(headerReason))) // a code of a newer version counts as none
		by := t.by[k.Target]
		if by == nil {
			by = map[contact.Reason]int64{}
			t.by[k.Target] = by
		}
		switch {
		case outcome == contact.Dead:
			by[reason]++
			t.total++
		case m.header.Get(headerLetter) != "":
			by[reason]--
			t.total--
		}
		if by[reason] == 0 {
			delete(by, reason)
		}
		return nil
	})
}
