// Package crm is what a CRM's answer means, in words that the worker acts on,
// and the HTTP manners that every CRM client shares: limits, no redirects, no
// secrets in errors, quota hints read and clamped. The packages below it speak
// one vendor's API each.
package crm

import (
	"context"
	"time"

	"crmsync/contact"
)

// Answer is what one change brought back: the verdict and its evidence.
type Answer struct {
	Verdict contact.Verdict
	// Reason is the code of the dead letter that a permanent verdict makes
	// (Invalid, Missing, Conflict, Refused); for Transient and Unknown it is
	// the code to end with when retries are spent: Exhausted (also the
	// meaning of NoReason) or Protocol.
	Reason contact.Reason
	// Status is the HTTP status that decided, 0 where no answer came.
	Status int
	// Wait is how long the CRM asked us to wait, clamped to [0, 1 h]; 0 where
	// it said nothing. It is honoured with every verdict.
	Wait time.Duration
	// Incident says that the failure is the target's, not the change's: the
	// connection, TLS, DNS, a redirect, a gateway, a dead token. Any other
	// transient failure becomes an incident only by its company.
	Incident bool
	// Alive says that another request of the same call was answered in order
	// (the read before a failing write): the target works, the failure is
	// more likely this change's own.
	Alive bool
	// Wrote says that a write was answered, or found carried out: the answer
	// shows that the CRM takes writes, not only that it can be read.
	Wrote bool
	// ReadBack says of a success that the write's own answer was lost, and that
	// the contact was read and holds it.
	ReadBack bool
	// Field names the offending field, where the CRM says; else "".
	Field string
	// Detail is the CRM's words or ours: one line, redacted, at most 300
	// bytes. It holds no secret and no value that was sent.
	Detail string
	// Requests is how many HTTP requests were made for it.
	Requests int
	// Hints are what the newest answer that spoke of the quota said; nil where
	// none did.
	Hints *Hints
}

// Spend waits until one more HTTP request may be sent and counts it. A client
// calls it before each request it makes, except the first of a Send, which the
// lane has paid for. Its error is the context's.
type Spend func(ctx context.Context) error

// Refusal is the answer to a change that was not sent because it breaks a rule.
func Refusal(bad *contact.BadUpdate) Answer {
	return Answer{Verdict: contact.VerdictInvalid, Reason: bad.Reason, Field: bad.Field, Detail: bad.Detail}
}
