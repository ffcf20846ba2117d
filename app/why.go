package app

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"crmsync/contact"
	"crmsync/queue"
)

// What a story is told of.
type (
	// StoryEvent is one thing that is stored about a contact.
	StoryEvent = queue.Event
	// StoryRecord is how updates ended.
	StoryRecord = queue.Record
	// StoryCall is one call that was made.
	StoryCall = contact.Attempt
)

// Why is a contact's whole story, and what it is waiting for.
type Why struct {
	Target  string       `json:"target"`
	Contact string       `json:"contact"`
	Events  []StoryEvent `json:"events"` // in the order of time
	Pending int          `json:"pending"`
	Now     ContactState `json:"now,omitzero"` // what the lane holds of it, where that is known
	Owner   string       `json:"owner,omitempty"`
	Waits   string       `json:"waits,omitempty"` // what it waits for, in words; "" where nothing is pending
	Until   time.Time    `json:"until,omitzero"`  // and until when, where that is known
}

// Why tells everything that is stored about a contact, and what its lane waits
// for.
func (a *App) Why(ctx context.Context, target, id string) (Why, error) {
	w := Why{Target: target, Contact: id}
	if err := a.known(ctx, target); err != nil {
		return w, err
	}
	if err := contact.CheckID(id); err != nil {
		return w, err
	}
	var err error
	if w.Events, err = a.q.Story(ctx, contact.Key{Target: target, ID: id}); err != nil {
		return w, err
	}
	for _, e := range w.Events {
		if e.Update != nil && !e.Update.Ended {
			w.Pending++
		}
	}
	if w.Pending == 0 {
		return w, nil
	}
	return w, a.waits(ctx, &w)
}

// waits says what a contact with pending updates waits for: what holds the lane
// up holds all its contacts up.
func (a *App) waits(ctx context.Context, w *Why) error {
	st, err := a.Status(ctx)
	if err != nil {
		return err
	}
	var t TargetStatus
	for _, x := range st.Targets {
		if x.Target == w.Target {
			t = x
		}
	}
	w.Owner = t.Owner
	switch {
	case t.Lane == nil:
		w.Waits = "somebody who runs the lane of " + w.Target + ": crmsync run"
	case t.Lane.Hold != nil:
		h := t.Lane.Hold
		w.Waits, w.Until = fmt.Sprintf("the lane, which holds: %s since %s", h.Reason, h.Since.UTC().Format(time.RFC3339)), h.Until
		if h.Detail != "" {
			w.Waits += ", " + h.Detail
		}
	}
	if t.Owner == "" {
		return nil
	}
	answered, err := a.ask(ctx, w.Target, question{Contact: w.Contact}, &w.Now)
	if err == nil && !answered {
		err = errors.New("nobody answers for " + w.Target + " at this moment")
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if err != nil {
		w.Waits = strings.TrimPrefix(w.Waits+"; ", "; ") + "what only its owner knows, " + t.Owner + ": " + err.Error() + "; try again, or see crmsync status"
		return nil // the story is told all the same
	}
	switch {
	case w.Waits != "":
	case w.Now.State == "idle" || w.Now.State == "ready":
		w.Waits, w.Until = "its turn; the lane waits for "+w.Now.Waiting, w.Now.Until
	case w.Now.Waiting != "":
		w.Waits, w.Until = w.Now.Waiting, w.Now.Until
	case t.Lane.Waiting != "":
		w.Waits, w.Until = "its turn; the lane waits for "+t.Lane.Waiting, t.Lane.Until
	default:
		w.Waits = "its turn"
	}
	return nil
}

// Receipt says what was removed of a person, and where.
type Receipt = queue.Receipt

// Forget removes a person from the queue, the dead letters and the outcomes. It
// cannot be undone. What the CRM holds is not touched.
func (a *App) Forget(ctx context.Context, who Who, target, id string) (Receipt, error) {
	if err := a.known(ctx, target); err != nil {
		return Receipt{}, err
	}
	return a.q.Forget(ctx, a.actor(who), contact.Key{Target: target, ID: id})
}
