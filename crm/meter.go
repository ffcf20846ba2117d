package crm

import (
	"context"
	"time"

	"crmsync/contact"
)

// Meter pays for the requests of one Send: the first is free, since the lane
// has paid for it, each other waits for Spend. It is not safe for concurrent
// use.
type Meter struct {
	spend  Spend
	n      int
	lapsed bool
	hints  *Hints
}

// NewMeter counts from nothing.
func NewMeter(spend Spend) *Meter { return &Meter{spend: spend} }

// Pay waits until one more request may be made and counts it. Its error is the
// context's, or Spend's; then the request must not be made.
func (m *Meter) Pay(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if m.n > 0 || m.lapsed {
		if err := m.spend(ctx); err != nil {
			return err
		}
	}
	m.n++
	return nil
}

// Lapse gives up the first request's payment. A client calls it when it has
// waited for something before that request: what the lane found when it paid,
// its lease above all, may no longer hold, and Spend looks again.
func (m *Meter) Lapse() { m.lapsed = true }

// Requests is how many were paid for and made.
func (m *Meter) Requests() int { return m.n }

// Hints are those of the last answer that said something of the quota; nil
// where none did.
func (m *Meter) Hints() *Hints { return m.hints }

// hear keeps what an answer says of the quota.
func (m *Meter) hear(r *Reply, began time.Time) {
	if r == nil {
		return
	}
	r.Hints.Began = began
	if len(r.Hints.Quotas) > 0 || r.Hints.RetryAfter > 0 {
		h := r.Hints
		m.hints = &h
	}
}

// EachChange sends changes one after the other, for a CRM without batches, with
// one meter over all of them: the first request of the first change is the one
// that the lane has paid for. Each answer gets the requests that it took and the
// newest hints about the quota.
func EachChange(spend Spend, changes []contact.Change, send func(*Meter, *contact.Change) Answer) []Answer {
	m := NewMeter(spend)
	answers := make([]Answer, len(changes))
	for i := range changes {
		before := m.Requests()
		answers[i] = send(m, &changes[i])
		answers[i].Requests = m.Requests() - before
		answers[i].Hints = m.Hints()
	}
	return answers
}
