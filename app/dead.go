package app

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"strings"
	"time"
	"unicode/utf8"

	"crmsync/console"
	"crmsync/contact"
	"crmsync/queue"
)

// Letter is a dead letter as lists show it: no value of the contact in it.
type Letter struct {
	ID       uint64    `json:"id"` // its place in the outcome stream
	Target   string    `json:"target"`
	Contact  string    `json:"contact"`
	Reason   string    `json:"reason"`
	Status   int       `json:"status,omitempty"`
	Field    string    `json:"field,omitempty"` // the offending one, where the CRM said which
	Attempts int       `json:"attempts"`
	Detail   string    `json:"detail,omitempty"`
	Fields   []string  `json:"fields,omitempty"`
	Job      string    `json:"job,omitempty"`
	Row      int64     `json:"row,omitempty"`
	Class    string    `json:"class,omitempty"`
	Seq      uint64    `json:"seq,omitempty"` // its place in the update stream
	Stored   time.Time `json:"stored,omitzero"`
	Ended    time.Time `json:"ended"`
	Group    string    `json:"group"` // the fingerprint of its cause

	State     string    `json:"state"`                // dead, redriven or leaving
	By        string    `json:"by,omitempty"`         // who sends or discards it
	Since     time.Time `json:"since,omitzero"`       // since when
	Edited    string    `json:"edited,omitempty"`     // who changed what a redrive will send
	RedriveOf string    `json:"redrive_of,omitempty"` // the letter that it repeated
	Root      string    `json:"root,omitempty"`       // the first of that chain
}

// FullLetter is a dead letter with its original message. It holds the
// contact's values, as the source sent them; passwords are masked.
type FullLetter struct {
	Letter
	Tries []contact.Attempt `json:"tries,omitempty"`
	// MaybeSent says that the CRM may have carried out its side effects, such as
	// a mail: a redrive does not ask for them.
	MaybeSent bool                `json:"maybe_sent,omitempty"`
	Header    map[string][]string `json:"header,omitempty"`
	Body      json.RawMessage     `json:"body,omitempty"`  // where it is JSON
	Bytes     []byte              `json:"bytes,omitempty"` // where it is not: base64
	// Edit is what a redrive would send in its place.
	Edit *LetterEdit `json:"edit,omitempty"`
}

// LetterEdit is the version of a letter that an operator made.
type LetterEdit struct {
	By      string          `json:"by"`
	At      time.Time       `json:"at"`
	Body    json.RawMessage `json:"body"`
	Changes []FieldChange   `json:"changes,omitempty"` // against the original, where that is an update
}

// DeadFilter narrows a list of dead letters; the zero value takes all.
type DeadFilter struct {
	Target, Contact, Reason, Job string
	Status                       int
	Field                        string // that the CRM refused
	Match                        string // a text in the detail, the contact's id or a field's name
	Group                        string // a fingerprint
	Since, Until                 time.Time
	Newest                       bool   // newest first
	After                        uint64 // continue behind this id
	Limit                        int    // 0: no limit
}

// IsZero says that the filter chooses nothing: all letters are meant.
func (f DeadFilter) IsZero() bool {
	f.Newest, f.After, f.Limit = false, 0, 0
	return f == DeadFilter{}
}

var fingerprint = regexp.MustCompile(`^[0-9a-f]{12}$`)

// filter is f in the queue's words.
func (f DeadFilter) filter() (queue.Filter, error) {
	qf := queue.Filter{
		Target: f.Target, Contact: f.Contact, Outcome: contact.Dead, Job: f.Job, Status: f.Status, Field: f.Field,
		Match: f.Match, Fingerprint: f.Group, Since: f.Since, Until: f.Until, Newest: f.Newest, After: f.After, Limit: f.Limit,
	}
	if f.Group != "" && !fingerprint.MatchString(f.Group) {
		return qf, fmt.Errorf("%q is not a group: 12 hexadecimal digits, as `crmsync dead groups` shows them", f.Group)
	}
	if f.Reason == "" {
		return qf, nil
	}
	if err := qf.Reason.UnmarshalText([]byte(f.Reason)); err != nil || qf.Reason == contact.NoReason {
		var codes []string
		for _, r := range contact.Reasons() {
			codes = append(codes, r.String())
		}
		return qf, fmt.Errorf("reason %q is not known; the reasons are %s", f.Reason, strings.Join(codes, ", "))
	}
	return qf, nil
}

// Dead lists dead letters, oldest first or, with Newest, newest first.
func (a *App) Dead(ctx context.Context, f DeadFilter, yield func(Letter) error) error {
	qf, err := f.filter()
	if err != nil {
		return err
	}
	return a.q.Letters(ctx, qf, func(l queue.Letter) error { return yield(letterOf(l)) })
}

func letterOf(r queue.Letter) Letter {
	l := Letter{
		ID: r.Seq, Target: r.Target, Contact: r.Contact, Reason: r.Reason.String(), Status: r.Status, Field: r.Field,
		Attempts: r.Attempts, Detail: r.Detail, Fields: r.Fields, Job: r.Job, Ended: r.Time,
		Group: r.Cause().Fingerprint(), State: r.State.String(), RedriveOf: r.RedriveOf,
	}
	if len(r.Updates) > 0 {
		u := r.Updates[0]
		l.Row, l.Class, l.Seq, l.Stored = u.Row, u.Class.String(), u.Seq, u.Stored
	}
	if r.Redrive != nil {
		l.Root = r.Redrive.Root
	}
	if c := r.Claim; c != nil {
		l.By, l.Since = c.By, c.At
	}
	if r.Edit != nil {
		l.Edited = r.Edit.By
	}
	return l
}

// Letter reads one dead letter whole. The error wraps
// [console.ErrUnknownLetter] where there is none.
func (a *App) Letter(ctx context.Context, id uint64) (FullLetter, error) {
	r, err := a.letter(ctx, id)
	if err != nil {
		return FullLetter{}, err
	}
	l := FullLetter{Letter: letterOf(r), Tries: r.Tries, MaybeSent: r.MaybeSent, Header: r.OriginalHeader}
	if json.Valid(r.Original) && utf8.Valid(r.Original) {
		l.Body = maskSecrets(r.Original)
	} else {
		l.Bytes = maskText(r.Original)
	}
	if e := r.Edit; e != nil {
		l.Edit = &LetterEdit{By: e.By, At: e.At, Body: maskSecrets(e.Body)}
		if u := r.Update(); u.Bad == nil || u.Bad.Reason != contact.Malformed {
			l.Edit.Changes = fieldChanges(a.rulesOf(r.Target), u, contact.Decode(e.Body, nil))
		}
	}
	return l, nil
}

func (a *App) letter(ctx context.Context, id uint64) (queue.Letter, error) {
	r, err := a.q.Letter(ctx, id)
	if errors.Is(err, queue.ErrNotFound) {
		return r, fmt.Errorf("%w: dead letter %d: %w; `crmsync dead ls` lists them", console.ErrUnknownLetter, id, err)
	}
	return r, err
}

// IsGone says whether an error is that a dead letter does not exist, or not any
// more.
func IsGone(err error) bool { return errors.Is(err, console.ErrUnknownLetter) }

// rulesOf is how updates of a target fold; the zero value where the
// configuration does not have it.
func (a *App) rulesOf(target string) contact.Rules {
	c, err := a.clientOf(target)
	if err != nil {
		return contact.Rules{}
	}
	defer c.CloseIdle()
	return c.Rules()
}

// clientOf makes a client of a configured target, for its rules and checks. The
// caller closes its idle connections, of which there are none unless it sends.
func (a *App) clientOf(target string) (client, error) {
	t, err := a.target(target)
	if err != nil {
		return nil, err
	}
	c, err := newClient(t, a.o.Version)
	if err != nil {
		return nil, fmt.Errorf("target %s: %w", t.Name, err)
	}
	return c, nil
}

// CountDead is how many letters the filter chooses.
func (a *App) CountDead(ctx context.Context, f DeadFilter) (int64, error) {
	qf, err := f.filter()
	if err != nil {
		return 0, err
	}
	qf.Newest, qf.After, qf.Limit = false, 0, 0
	return a.q.Count(ctx, qf)
}
