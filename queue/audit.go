package queue

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"crmsync/contact"
)

// Entry is one act in the audit trail. It names contacts and fields, never a
// value of them.
type Entry struct {
	ID uint64    `json:"id,omitempty"` // place in the trail
	At time.Time `json:"at,omitzero"`  // by the broker's clock
	Actor
	Action  string   `json:"action"` // a word of a-z and -
	Target  string   `json:"target,omitempty"`
	Contact string   `json:"contact,omitempty"`
	Filter  *Filter  `json:"filter,omitempty"` // what was chosen by it
	Count   int64    `json:"count,omitempty"`
	IDs     []uint64 `json:"ids,omitempty"` // of letters, the first 100
	Detail  string   `json:"detail,omitempty"`
}

const maxAuditIDs = 100

// maskedMatch stands for a text that was looked for: it may be a contact's value.
const maskedMatch = "(a text)"

var actionWord = regexp.MustCompile(`^[a-z]+(-[a-z]+)*$`)

// Audit adds an entry to the trail and returns once it is durable; ID and At are
// the broker's to give. Nothing removes it. Who does something to letters or
// targets writes it before the effect, and leaves the effect undone where this
// fails.
func (q *Queue) Audit(ctx context.Context, e Entry) error {
	if !actionWord.MatchString(e.Action) {
		return fmt.Errorf("queue: audit: action %q: use words of a-z with - between", e.Action)
	}
	target := "-"
	if e.Target != "" {
		if err := contact.CheckTarget(e.Target); err != nil {
			return fmt.Errorf("queue: audit: %w", err)
		}
		target = e.Target
	}
	e.ID, e.At = 0, time.Time{}
	e.IDs = e.IDs[:min(len(e.IDs), maxAuditIDs)]
	if e.Filter != nil && e.Filter.Match != "" {
		f := *e.Filter
		f.Match = maskedMatch
		e.Filter = &f
	}
	b, err := json.Marshal(e)
	if err != nil {
		return fmt.Errorf("queue: audit: %w", err)
	}
	m := nats.NewMsg(auditPrefix + target + "." + e.Action)
	m.Data = b
	ctx, cancel := context.WithTimeout(ctx, q.timeout)
	defer cancel()
	_, err = q.publish(ctx, m)
	if errors.Is(err, nats.ErrNoResponders) {
		if _, absent := q.info(ctx, auditStream); absent != nil {
			return absent
		}
	}
	if err != nil {
		return fmt.Errorf("queue: the audit trail cannot be written, so nothing was done: %w", err)
	}
	return nil
}

// AuditFilter chooses entries; the zero value takes all.
type AuditFilter struct {
	Target, Action string
	Since, Until   time.Time // stored at or after; stored before
	After          uint64    // behind this entry
	Limit          int       // 0: no limit
}

// AuditTrail calls yield for each entry, in the order of time, up to those that
// are there when it begins. An error of yield ends it and is returned.
func (q *Queue) AuditTrail(ctx context.Context, f AuditFilter, yield func(Entry) error) error {
	target, action := "*", "*"
	if f.Target != "" {
		if err := contact.CheckTarget(f.Target); err != nil {
			return fmt.Errorf("queue: %w", err)
		}
		target = f.Target
	}
	if f.Action != "" {
		if !actionWord.MatchString(f.Action) {
			return fmt.Errorf("queue: audit: action %q: use words of a-z with - between", f.Action)
		}
		action = f.Action
	}
	cfg := jetstream.ConsumerConfig{FilterSubject: auditPrefix + target + "." + action, DeliverPolicy: jetstream.DeliverAllPolicy}
	switch {
	case f.After > 0:
		cfg.DeliverPolicy, cfg.OptStartSeq = jetstream.DeliverByStartSequencePolicy, f.After+1
	case !f.Since.IsZero():
		cfg.DeliverPolicy, cfg.OptStartTime = jetstream.DeliverByStartTimePolicy, &f.Since
	}
	n := 0
	err := q.follow(ctx, auditStream, cfg, false, func(m inMsg) error {
		if !f.Until.IsZero() && !m.time.Before(f.Until) {
			return errEnough
		}
		if m.time.Before(f.Since) {
			return nil
		}
		var e Entry
		if err := json.Unmarshal(m.data, &e); err != nil {
			return fmt.Errorf("queue: audit entry %d: %w", m.seq, err)
		}
		e.ID, e.At = m.seq, m.time
		if err := yield(e); err != nil {
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
