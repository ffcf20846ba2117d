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
	Target  string          `json:"target,omitempty"`
	Contact string          `json:"contact,omitempty"`
	Outcome contact.Outcome `json:"outcome,omitempty"` // Pending: any
	Job     string          `json:"job,omitempty"`
	Since   time.Time       `json:"since,omitzero"` // stored at or after
	Until   time.Time       `json:"until,omitzero"` // stored before

	// These choose among dead letters only.
	Reason      contact.Reason `json:"reason,omitempty"` // NoReason: any
	Status      int            `json:"status,omitempty"` // of the last answer
	Field       string         `json:"field,omitempty"`  // that was refused
	Fingerprint string         `json:"fingerprint,omitempty"`
	// Match is a text in the detail, the contact's id or the name of a field,
	// whatever its case.
	Match string `json:"match,omitempty"`

	// Newest lists the newest first.
	Newest bool   `json:"newest,omitempty"`
	After  uint64 `json:"after,omitempty"` // go on behind this record: later ones or, with Newest, earlier ones
	Limit  int    `json:"limit,omitempty"` // at most so many; 0: no limit
}

// letters says that only dead letters can be meant.
func (f Filter) letters() bool {
	return f.Outcome == contact.Dead ||
		f.Outcome == contact.Pending && (f.Reason != contact.NoReason || f.Status != 0 || f.Field != "" || f.Fingerprint != "" || f.Match != "")
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
	if f.letters() {
		outcome = contact.Dead.String()
	} else if f.Outcome != contact.Pending {
		outcome = f.Outcome.String()
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
		(f.Status == 0 || r.Status == f.Status) &&
		(f.Since.IsZero() || !r.Time.Before(f.Since)) && (f.Until.IsZero() || r.Time.Before(f.Until)) &&
		(f.Job == "" || r.Job == f.Job) && (f.Contact == "" || r.Contact == f.Contact) &&
		(f.Fingerprint == "" || r.Cause().Fingerprint() == f.Fingerprint) &&
		(f.Field == "" || r.Field == f.Field) &&
		(f.Match == "" || r.matches(strings.ToLower(f.Match)))
}

func (r *Record) matches(lower string) bool {
	for _, s := range append([]string{r.Detail, r.Contact, r.Field}, r.Fields...) {
		if strings.Contains(strings.ToLower(s), lower) {
			return true
		}
	}
	return false
}

var errEnough = errors.New("enough")

// Records calls yield for each record that the filter chooses, in the order in
// which they were stored or, with Newest, the other way round, up to those that
// are there when it begins. An error of yield ends it and is returned. Target,
// contact, outcome and job are chosen by the server and cheap; for the rest all
// that these choose is read.
func (q *Queue) Records(ctx context.Context, f Filter, yield func(Record) error) error {
	n := 0
	each := func(r Record) error {
		if err := yield(r); err != nil {
			return err
		}
		if n++; f.Limit > 0 && n >= f.Limit {
			return errEnough
		}
		return nil
	}
	cfg, err := f.config()
	if err != nil {
		return err
	}
	read := func(m inMsg) (Record, bool, error) {
		r, err := decodeRecord(m.subject, m.seq, m.time, m.header, m.data)
		if err != nil {
			return r, false, fmt.Errorf("queue: %w", err)
		}
		return r, f.admits(&r), nil
	}
	if f.Newest {
		err = backwards(ctx, q, f, false, read, each)
	} else {
		err = q.follow(ctx, outcomeStream, cfg, false, func(m inMsg) error {
			if !f.Until.IsZero() && !m.time.Before(f.Until) {
				return errEnough
			}
			r, ok, err := read(m)
			if err != nil || !ok {
				return err
			}
			return each(r)
		})
	}
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
// updates. Where target, contact, outcome, job and Since choose, nothing is read.
func (q *Queue) Count(ctx context.Context, f Filter) (int64, error) {
	cfg, err := f.config()
	if err != nil {
		return 0, err
	}
	plain := f
	plain.Target, plain.Contact, plain.Outcome, plain.Job, plain.Since, plain.After, plain.Limit = "", "", contact.Pending, "", time.Time{}, 0, 0
	if plain != (Filter{}) {
		var n int64
		f.Newest = false
		err := q.choose(ctx, f, func(letterHead) error { n++; return nil })
		return n, err
	}
	var n int64
	err = q.iterate(ctx, outcomeStream, cfg, pass{begin: func(pending uint64) error {
		n = int64(pending)
		return errEnough
	}})
	if !errors.Is(err, errEnough) {
		return 0, fmt.Errorf("queue: count records: %w", err)
	}
	if f.Limit > 0 {
		n = min(n, int64(f.Limit))
	}
	return n, nil
}
