package app

import (
	"context"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"crmsync/contact"
	"crmsync/queue"
)

// Who is a person or program that does something, and through what.
type Who struct {
	By  string // ann@host
	Via string // cli or api
}

// AuditEntry is one act in the audit trail. It names contacts and fields, never
// a value of them.
type AuditEntry = queue.Entry

// AuditFilter chooses entries of the trail; the zero value takes all.
type AuditFilter = queue.AuditFilter

// actor is who does something, with the NATS user in whose name: that one the
// server has proved.
func (a *App) actor(w Who) queue.Actor {
	by := w.By
	switch n := a.cfg.NATS; {
	case n.User != "":
		by += " as " + n.User
	case n.Creds != "":
		by += " with " + filepath.Base(n.Creds)
	case n.NKey != "":
		by += " with " + filepath.Base(n.NKey)
	}
	return queue.Actor{By: by, Via: w.Via}
}

// noteOrder writes to the audit trail, before its effect, that somebody gives an
// order for a target; it returns what the person is called in orders.
func (a *App) noteOrder(ctx context.Context, who Who, action, target, detail string) (by string, err error) {
	if err := a.known(ctx, target); err != nil {
		return "", err
	}
	actor := a.actor(who)
	return actor.By, a.q.Audit(ctx, queue.Entry{Actor: actor, Action: action, Target: target, Detail: detail})
}

func holdText(note string, until time.Time) string {
	if until.IsZero() {
		return note
	}
	return strings.TrimSuffix("until "+until.UTC().Format(time.RFC3339)+": "+note, ": ")
}

// Audit lists the trail, oldest first; of more than the filter's limit the
// newest.
func (a *App) Audit(ctx context.Context, f AuditFilter) ([]AuditEntry, error) {
	limit := f.Limit
	f.Limit = 0
	out := []AuditEntry{}
	err := a.q.AuditTrail(ctx, f, func(e queue.Entry) error {
		out = append(out, e)
		if limit > 0 && len(out) > 2*limit {
			out = slices.Delete(out, 0, len(out)-limit)
		}
		return nil
	})
	if limit > 0 && len(out) > limit {
		out = slices.Delete(out, 0, len(out)-limit)
	}
	return out, err
}

// FilterText is what a filter chooses, in the commands' own flags.
func FilterText(f queue.Filter) string {
	var parts []string
	add := func(flag, value string) {
		if value != "" {
			parts = append(parts, "--"+flag+" "+value)
		}
	}
	add("target", f.Target)
	if f.Reason != contact.NoReason {
		add("reason", f.Reason.String())
	}
	if f.Status != 0 {
		add("status", strconv.Itoa(f.Status))
	}
	add("field", f.Field)
	add("job", f.Job)
	add("contact", f.Contact)
	add("match", f.Match)
	add("group", f.Fingerprint)
	if !f.Since.IsZero() {
		add("since", f.Since.UTC().Format(time.RFC3339))
	}
	if !f.Until.IsZero() {
		add("until", f.Until.UTC().Format(time.RFC3339))
	}
	if len(parts) == 0 {
		return "all letters"
	}
	return strings.Join(parts, " ")
}
