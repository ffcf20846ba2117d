package queue

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"crmsync/contact"
)

// Filter chooses records. The zero value chooses all; each field that is set
// narrows it.
type Filter struct {
	Target  string
	Contact string
	Outcome contact.Outcome // Pending: any
	Reason  contact.Reason  // NoReason: any
	Job     string
	Since   time.Time // stored at or after
	Until   time.Time // stored before
	After   uint64    // records behind this one
	Limit   int       // at most so many; 0: no limit
}

// subject is the part of the filter that the server can do.
func (f Filter) subject() string {
	target, id, outcome, job := "*", "*", "*", "*"
	if f.Target != "" {
		target = f.Target
	}
	if f.Contact != "" {
		id = contactToken(f.Contact)
	}
	if f.Outcome != contact.Pending {
		outcome = f.Outcome.String()
	} else if f.Reason != contact.NoReason {
		outcome = contact.Dead.String()
	}
	if f.Job != "" {
		job = jobToken(f.Job)
	}
	return contact.OutcomePrefix + strings.Join([]string{target, id, outcome, job}, ".")
}

func (f Filter) config() (jetstream.ConsumerConfig, error) {
	if f.Target != "" {
		if err := contact.CheckTarget(f.Target); err != nil {
			return jetstream.ConsumerConfig{}, fmt.Errorf("queue: %w", err)
		}
	}
	cfg := jetstream.ConsumerConfig{FilterSubject: f.subject(), DeliverPolicy: jetstream.DeliverAllPolicy}
	switch {
	case f.After > 0:
		cfg.DeliverPolicy, cfg.OptStartSeq = jetstream.DeliverByStartSequencePolicy, f.After+1
	case !f.Since.IsZero():
		cfg.DeliverPolicy, cfg.OptStartTime = jetstream.DeliverByStartTimePolicy, &f.Since
	}
	return cfg, nil
}

func (f Filter) admits(r *Record) bool {
	return (f.Reason == contact.NoReason || r.Reason == f.Reason) &&
		(f.Since.IsZero() || !r.Time.Before(f.Since)) &&
		(f.Job == "" || r.Job == f.Job) && (f.Contact == "" || r.Contact == f.Contact)
}

var errEnough = errors.New("enough")

// Records calls yield for each record that the filter chooses, in the order in
// which they were stored, up to those that are there when it begins. An error of
// yield ends it and is returned. Target, contact, outcome and job are chosen by
// the server and cheap.
func (q *Queue) Records(ctx context.Context, f Filter, yield func(Record) error) error {
	cfg, err := f.config()
	if err != nil {
		return err
	}
	n := 0
	err = q.follow(ctx, outcomeStream, cfg, false, func(m inMsg) error {
		if !f.Until.IsZero() && !m.time.Before(f.Until) {
			return errEnough
		}
		r, err := decodeRecord(m.subject, m.seq, m.time, m.header, m.data)
		if err != nil {
			return fmt.Errorf("queue: %w", err)
		}
		if !f.admits(&r) {
			return nil
		}
		if err := yield(r); err != nil {
			return err
		}
		if n++; f.Limit > 0 && n >= f.Limit {
			return errEnough
		}
		return nil
	})
	if errors.Is(err, errEnough) {
		return nil
	}
	return err
}

// Record reads one record; the error wraps ErrNotFound where there is none.
func (q *Queue) Record(ctx context.Context, seq uint64) (Record, error) {
	m, err := q.get(ctx, outcomeStream, getRequest{Seq: seq})
	if err != nil {
		return Record{}, fmt.Errorf("queue: read record %d: %w", seq, err)
	}
	if m == nil || m.Seq != seq {
		return Record{}, fmt.Errorf("queue: record %d: %w; it may have expired", seq, ErrNotFound)
	}
	r, err := decodeRecord(m.Subject, m.Seq, m.Time, m.Header, m.Data)
	if err != nil {
		return Record{}, fmt.Errorf("queue: %w", err)
	}
	return r, nil
}

// FollowJob calls yield for each record of a job, from the first and then as
// they are stored, until yield returns an error, which it returns, or ctx ends.
func (q *Queue) FollowJob(ctx context.Context, target, job string, yield func(Record) error) error {
	f := Filter{Target: target, Job: job}
	cfg, err := f.config()
	if err != nil {
		return err
	}
	return q.follow(ctx, outcomeStream, cfg, true, func(m inMsg) error {
		r, err := decodeRecord(m.subject, m.seq, m.time, m.header, m.data)
		if err != nil {
			return fmt.Errorf("queue: %w", err)
		}
		if !f.admits(&r) {
			return nil
		}
		return yield(r)
	})
}

// Count is how many records the filter chooses. A record may tell of several
// updates.
func (q *Queue) Count(ctx context.Context, f Filter) (int64, error) {
	if f.Reason != contact.NoReason || !f.Until.IsZero() {
		var n int64
		err := q.Records(ctx, f, func(Record) error { n++; return nil })
		return n, err
	}
	cfg, err := f.config()
	if err != nil {
		return 0, err
	}
	var n int64
	err = q.iterate(ctx, outcomeStream, cfg, func(pending uint64) error {
		n = int64(pending)
		return errEnough
	}, nil)
	if !errors.Is(err, errEnough) {
		return 0, fmt.Errorf("queue: count records: %w", err)
	}
	if f.Limit > 0 {
		n = min(n, int64(f.Limit))
	}
	return n, nil
}

// Dead counts the dead letters of each target by reason.
func (q *Queue) Dead(ctx context.Context) (map[string]map[contact.Reason]int64, error) {
	out := map[string]map[contact.Reason]int64{}
	cfg := jetstream.ConsumerConfig{
		FilterSubject: Filter{Outcome: contact.Dead}.subject(), DeliverPolicy: jetstream.DeliverAllPolicy, HeadersOnly: true,
	}
	err := q.follow(ctx, outcomeStream, cfg, false, func(m inMsg) error {
		k, _, err := parseOutcomeSubject(m.subject)
		if err != nil {
			return fmt.Errorf("queue: %w", err)
		}
		var reason contact.Reason
		_ = reason.UnmarshalText([]byte(m.header.Get(headerReason))) // a code of a newer version counts as none
		if out[k.Target] == nil {
			out[k.Target] = map[contact.Reason]int64{}
		}
		out[k.Target][reason]++
		return nil
	})
	return out, err
}
