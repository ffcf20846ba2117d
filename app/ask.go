package app

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"time"

	"crmsync/contact"
	"crmsync/crm"
	"crmsync/worker"
)

// question is what any process asks the owner of a target. Exactly one member
// is set.
type question struct {
	Contact string     `json:"contact,omitempty"` // what of it is in the lane's memory
	Look    *lookOrder `json:"look,omitempty"`
}

// ContactState is what a lane holds of one contact at one instant.
type ContactState struct {
	State    string    `json:"state"`             // idle, ready, calling, waiting or settling
	Due      time.Time `json:"due,omitzero"`      // of the next attempt, where it waits for that
	Attempts int       `json:"attempts"`          // that counted so far
	Waiting  string    `json:"waiting,omitempty"` // what for, in words
	Until    time.Time `json:"until,omitzero"`    // and until when, where that is known
	Hold     string    `json:"hold,omitempty"`    // why its lane sends nothing
	Updates  int       `json:"updates"`           // unfinished ones
	Sent     int       `json:"sent,omitempty"`    // so many of them have been in a call
	// Tries are the last calls that did not end them.
	Tries []contact.Attempt `json:"tries,omitempty"`
}

// contactState is what the lane has in memory of a contact; false where that is
// nothing.
func contactState(ctx context.Context, l *worker.Lane, id string) (ContactState, bool) {
	st, ok := l.Contact(ctx, id)
	if !ok || st.State == "" {
		return ContactState{}, false
	}
	out := ContactState{
		State: st.State, Due: st.Due, Attempts: st.Attempts, Waiting: st.Waiting, Until: st.Until,
		Updates: len(st.Updates), Sent: st.Sent, Tries: st.Tries,
	}
	if st.Hold != nil {
		out.Hold = string(st.Hold.Reason)
	}
	switch {
	case st.State == "waiting" && st.Hold == nil:
		out.Waiting, out.Until = "its next attempt", st.Due
		if n := len(st.Tries); n > 0 && st.Tries[n-1].Detail != "" {
			out.Waiting += "; the last one: " + st.Tries[n-1].Detail
		}
	case st.State == "calling":
		out.Waiting, out.Until = "the CRM's answer", time.Time{}
	case st.State == "settling":
		out.Waiting, out.Until = "its outcome to be stored", time.Time{}
	}
	return out, true
}

// lookOrder asks the owner to look at a contact in the CRM. The owner has the
// credentials and the quota. Since a request may last longer than an answer may,
// the same ticket is asked for again until it is done.
type lookOrder struct {
	Ticket string `json:"ticket"`
	Letter uint64 `json:"letter"`
	Why    bool   `json:"why,omitempty"` // ask why such letters are dead, else compare
}

// Look is what a look at a contact in the CRM has shown. It holds values of the
// contact, secrets masked.
type Look struct {
	Differences []crm.Difference `json:"differences,omitempty"`
	Said        string           `json:"said,omitempty"` // why such letters are dead, where the CRM knows
	Missing     bool             `json:"missing,omitempty"`
	Requests    int              `json:"requests"` // that it cost

	Done bool   `json:"done"`
	Err  string `json:"err,omitempty"`
}

const (
	lookEvery = 100 * time.Millisecond // how often a ticket is asked for
	lookLong  = 30 * time.Second       // after which it is given up
	looksMost = 4                      // at a time, for one target
)

// desk answers for a target that this process owns.
type desk struct {
	a      *App
	target string
	lane   *worker.Lane
	client client
	ctx    context.Context
	wg     sync.WaitGroup

	mu    sync.Mutex
	looks map[string]*looking // by ticket
}

// looking is a look and, once it is done, since when it waits to be told.
type looking struct {
	Look
	since time.Time
}

// answer answers what others ask about a target, for as long as its lane runs
// here.
func (a *App) answer(ctx context.Context, name string, l *worker.Lane, c client) {
	d := &desk{a: a, target: name, lane: l, client: c, ctx: ctx, looks: map[string]*looking{}}
	defer d.wg.Wait()
	for {
		err := a.q.Answer(ctx, name, d.serve)
		if err == nil || ctx.Err() != nil {
			return
		}
		a.o.Log.Warn().Err(err).Str("target", name).Msg("questions cannot be answered, trying again")
		select {
		case <-time.After(time.Second):
		case <-ctx.Done():
			return
		}
	}
}

// serve answers one question. What it cannot read it answers with nothing, as an
// older version would a newer one's question.
func (d *desk) serve(ctx context.Context, raw []byte) []byte {
	var q question
	if json.Unmarshal(raw, &q) != nil {
		return []byte("{}")
	}
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	var out any = struct{}{}
	switch {
	case q.Contact != "":
		if st, ok := contactState(ctx, d.lane, q.Contact); ok {
			out = st
		}
	case q.Look != nil:
		out = d.look(*q.Look)
	}
	b, err := json.Marshal(out)
	if err != nil {
		return []byte("{}")
	}
	return b
}

// look begins what a ticket orders, or says how far it is. What is done is told
// once and forgotten.
func (d *desk) look(o lookOrder) Look {
	d.mu.Lock()
	defer d.mu.Unlock()
	for ticket, l := range d.looks {
		if l.Done && time.Since(l.since) > lookLong {
			delete(d.looks, ticket) // whoever ordered it does not come back
		}
	}
	if l := d.looks[o.Ticket]; l != nil {
		if l.Done {
			delete(d.looks, o.Ticket)
		}
		return l.Look
	}
	if len(d.looks) >= looksMost {
		return Look{Done: true, Err: "others are looking at this moment; try again"}
	}
	l := &looking{}
	d.looks[o.Ticket] = l
	d.wg.Go(func() {
		ctx, cancel := context.WithTimeout(d.ctx, lookLong)
		defer cancel()
		out, err := d.see(ctx, o)
		if err != nil {
			out.Err = err.Error()
		}
		out.Done = true
		d.mu.Lock()
		defer d.mu.Unlock()
		l.Look, l.since = out, time.Now()
	})
	return l.Look
}

// see makes the request.
func (d *desk) see(ctx context.Context, o lookOrder) (Look, error) {
	letter, err := d.a.letter(ctx, o.Letter)
	if err != nil {
		return Look{}, err
	}
	if letter.Target != d.target {
		return Look{}, fmt.Errorf("letter %d is of target %s, not of %s", o.Letter, letter.Target, d.target)
	}
	u := current(letter)
	if err := editable(u); err != nil {
		return Look{}, fmt.Errorf("letter %d: %w", o.Letter, err)
	}
	ch := &contact.Change{Contact: u.Contact, Fields: u.Fields, Updates: 1}
	if err := d.pay(ctx); err != nil {
		return Look{}, err
	}
	var out Look
	var ans crm.Answer
	if o.Why {
		out.Said, ans = d.client.Explain(ctx, d.pay, letter.Reason, ch)
	} else {
		out.Differences, ans = d.client.Compare(ctx, d.pay, ch)
		for i := range out.Differences {
			x := &out.Differences[i]
			x.Sent, x.Held = hide(x.Field, x.Sent), hide(x.Field, x.Held)
		}
	}
	out.Requests = ans.Requests
	switch {
	case ans.Verdict == contact.VerdictMissing:
		out.Missing = true
	case ans.Requests > 0 && !ans.Verdict.Success():
		return out, fmt.Errorf("the CRM did not answer that: %s, HTTP %d: %s", ans.Verdict, ans.Status, ans.Detail)
	}
	return out, nil
}

// pay spends the target's quota on a request that is none of the lane's calls.
// While the lane holds it is not made.
func (d *desk) pay(ctx context.Context) error {
	st, ok := d.lane.Status(ctx)
	if !ok {
		return errors.New("the lane has ended; try again")
	}
	if h := st.Hold; h != nil {
		return fmt.Errorf("the lane holds (%s), so nothing is asked of the CRM", h.Reason)
	}
	if err := d.lane.Spend(ctx); err != nil {
		return fmt.Errorf("the quota allows no request now: %w", err)
	}
	return nil
}

// ask puts a question to the owner of a target; ok is false where nobody owns it.
func (a *App) ask(ctx context.Context, target string, q question, answer any) (ok bool, err error) {
	b, err := json.Marshal(q)
	if err != nil {
		return false, err
	}
	raw, ok, err := a.q.Ask(ctx, target, b)
	if err != nil || !ok {
		return ok, err
	}
	if err := json.Unmarshal(raw, answer); err != nil {
		return true, fmt.Errorf("the answer of the owner of %s cannot be read: %w", target, err)
	}
	return true, nil
}

// LookAt has the owner of a letter's target read its contact from the CRM, and
// sets what a redrive would send beside it. It costs one request of the target's
// quota, for a CRM with tokens now and then two.
func (a *App) LookAt(ctx context.Context, letter uint64) (Look, error) {
	return a.lookAt(ctx, letter, false)
}

// Explain has the owner ask the CRM why letters like this one are dead: who has
// the address, whether the id is another thing's. It costs at most a request
// where there is something to ask, else none.
func (a *App) Explain(ctx context.Context, letter uint64) (Look, error) {
	return a.lookAt(ctx, letter, true)
}

func (a *App) lookAt(ctx context.Context, letter uint64, why bool) (Look, error) {
	l, err := a.letter(ctx, letter)
	if err != nil {
		return Look{}, err
	}
	ctx, cancel := context.WithTimeout(ctx, lookLong)
	defer cancel()
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	q := question{Look: &lookOrder{Ticket: rand.Text(), Letter: letter, Why: why}}
	for {
		var out Look
		ok, err := a.ask(ctx, l.Target, q, &out)
		switch {
		case err != nil:
			return Look{}, err
		case !ok:
			return Look{}, fmt.Errorf("nobody runs the lane of %s, which would read the contact: start `crmsync run`", l.Target)
		case out.Done && out.Err != "":
			return out, fmt.Errorf("letter %d: %s", letter, out.Err)
		case out.Done:
			return out, nil
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return Look{}, fmt.Errorf("letter %d: the look at its contact takes too long: %w", letter, ctx.Err())
		}
	}
}
