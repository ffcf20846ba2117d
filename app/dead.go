package app

import (
	"context"
	"encoding/json"
	"fmt"
	"regexp"
	"strings"
	"time"
	"unicode/utf8"

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
	Attempts int       `json:"attempts"`
	Detail   string    `json:"detail,omitempty"`
	Fields   []string  `json:"fields,omitempty"`
	Job      string    `json:"job,omitempty"`
	Row      int64     `json:"row,omitempty"`
	Class    string    `json:"class,omitempty"`
	Seq      uint64    `json:"seq,omitempty"` // its place in the update stream
	Ended    time.Time `json:"ended"`
}

// FullLetter is a dead letter with its original message. It holds the
// contact's values, as the source sent them; passwords are masked.
type FullLetter struct {
	Letter
	Tries  []contact.Attempt   `json:"tries,omitempty"`
	Header map[string][]string `json:"header,omitempty"`
	Body   json.RawMessage     `json:"body,omitempty"`  // where it is JSON
	Bytes  []byte              `json:"bytes,omitempty"` // where it is not: base64
}

// DeadFilter narrows a list of dead letters; the zero value takes all.
type DeadFilter struct {
	Target, Contact, Reason, Job string
	Since, Until                 time.Time
	After                        uint64 // continue behind this id
	Limit                        int    // 0: no limit
}

// Dead lists dead letters, oldest first.
func (a *App) Dead(ctx context.Context, f DeadFilter, yield func(Letter) error) error {
	qf := queue.Filter{
		Target: f.Target, Contact: f.Contact, Outcome: contact.Dead, Job: f.Job,
		Since: f.Since, Until: f.Until, After: f.After, Limit: f.Limit,
	}
	if f.Reason != "" {
		if err := qf.Reason.UnmarshalText([]byte(f.Reason)); err != nil {
			var codes []string
			for _, r := range contact.Reasons() {
				codes = append(codes, r.String())
			}
			return fmt.Errorf("%w; the reasons are %s", err, strings.Join(codes, ", "))
		}
	}
	return a.q.Records(ctx, qf, func(r queue.Record) error { return yield(letterOf(r)) })
}

func letterOf(r queue.Record) Letter {
	l := Letter{
		ID: r.Seq, Target: r.Target, Contact: r.Contact, Reason: r.Reason.String(), Status: r.Status,
		Attempts: r.Attempts, Detail: r.Detail, Fields: r.Fields, Job: r.Job, Ended: r.Time,
	}
	if len(r.Updates) > 0 {
		l.Row, l.Class, l.Seq = r.Updates[0].Row, r.Updates[0].Class.String(), r.Updates[0].Seq
	}
	return l
}

// Letter reads one dead letter whole.
func (a *App) Letter(ctx context.Context, id uint64) (FullLetter, error) {
	r, err := a.q.Record(ctx, id)
	if err != nil {
		return FullLetter{}, fmt.Errorf("dead letter %d: %w; `crmsync dead ls` lists them", id, err)
	}
	if r.Outcome != contact.Dead {
		return FullLetter{}, fmt.Errorf("record %d is not a dead letter: its update ended %s", id, r.Outcome)
	}
	l := FullLetter{Letter: letterOf(r), Tries: r.Tries, Header: r.OriginalHeader}
	if json.Valid(r.Original) && utf8.Valid(r.Original) {
		l.Body = maskSecrets(r.Original)
	} else {
		l.Bytes = maskText(r.Original)
	}
	return l, nil
}

// maskText masks what looks like a secret field in bytes that are no JSON.
func maskText(b []byte) []byte { return secretText.ReplaceAll(b, []byte(`$1"********"`)) }

var secretText = regexp.MustCompile(`(?i)((?:` + strings.Join(secretFields, "|") + `)["']?\s*[:=]\s*)("(?:[^"\\]|\\.)*"?|[^,}\s]+)`)

// secretFields are never shown, whatever the CRM.
var secretFields = []string{"password", "new_pass_key", "email_verification_key", "data_base64"}

const masked = `"********"`

// maskSecrets replaces the values of secret fields, at any depth.
func maskSecrets(body []byte) json.RawMessage {
	var v any
	dec := json.NewDecoder(strings.NewReader(string(body)))
	dec.UseNumber()
	if dec.Decode(&v) != nil || !mask(v) {
		return body
	}
	out, err := json.Marshal(v)
	if err != nil {
		return json.RawMessage(masked)
	}
	return out
}

// mask says whether it changed anything.
func mask(v any) bool {
	changed := false
	switch v := v.(type) {
	case map[string]any:
		for k, x := range v {
			if isSecret(k) && x != nil {
				v[k], changed = strings.Trim(masked, `"`), true
			} else if mask(x) {
				changed = true
			}
		}
	case []any:
		for _, x := range v {
			changed = mask(x) || changed
		}
	}
	return changed
}

func isSecret(name string) bool {
	for _, s := range secretFields {
		if strings.EqualFold(name, s) {
			return true
		}
	}
	return false
}
