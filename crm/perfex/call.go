package perfex

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"time"

	"crmsync/contact"
	"crmsync/crm"
)

// call is one change on its way.
type call struct {
	*Client
	meter    *crm.Meter
	id       string
	customer string   // of the read path
	secrets  []string // what no text may hold
}

// do makes one request with the token.
func (k *call) do(ctx context.Context, method, path string, body []byte, timeout time.Duration) (*crm.Reply, *crm.Fault) {
	token, err := k.token()
	if err == nil {
		err = crm.CheckToken(token)
	}
	if err != nil {
		return nil, crm.NoCredentials(fmt.Errorf("read the token: %w", err), token)
	}
	k.secrets = append(k.secrets, token)
	h := http.Header{"Authtoken": {token}}
	if body != nil {
		h.Set("Content-Type", "application/json")
	} else {
		h.Set("Cache-Control", "no-cache") // 3.x may answer reads from a cache (crm-apis A8)
	}
	return k.http.Do(ctx, k.meter, crm.Request{
		Method: method, Path: path, Header: h, Body: body, Timeout: timeout, Secrets: k.secrets,
	})
}

// send reads, compares, writes and settles one change.
func (c *Client) send(ctx context.Context, m *crm.Meter, ch *contact.Change) crm.Answer {
	if bad := crm.CheckID(ch.Contact.ID); bad != nil {
		return crm.Refusal(bad)
	}
	w, bad := parse(ch.Fields)
	if bad != nil {
		return crm.Refusal(bad)
	}
	k := &call{Client: c, meter: m, id: ch.Contact.ID, customer: w.customer, secrets: crm.Values(ch.Fields)}
	now, a, ok := k.get(ctx, 0)
	if !ok {
		return a
	}
	if w.customer != "" && now.get("userid") != w.customer {
		return crm.Answer{
			Verdict: contact.VerdictInvalid, Reason: contact.Invalid, Status: a.Status,
			Field: fieldCustomer, Detail: "the contact belongs to another customer",
		}
	}
	if _, given := w.columns[fieldEmail]; !given && strings.TrimSpace(now.get(fieldEmail)) == "" {
		return crm.Answer{
			Verdict: contact.VerdictInvalid, Reason: contact.Invalid, Status: a.Status,
			Field: fieldEmail, Detail: "the contact has no e-mail address and Perfex needs one with each update; add email",
		}
	}
	o := writeOptions{password: w.password != "", mail: w.mail}
	note := ""
	if ch.MaybeSent {
		o.password = o.password && !now.passwordHeld(w.password)
		if o.mail {
			o.mail, note = false, "the set-password mail was not asked for again: an earlier attempt may have sent it"
		}
	}
	at := &attempt{call: k, wish: w, before: now, differed: w.differs(now), sent: o}
	if len(at.differed) == 0 && !o.password && !o.mail && !w.hidden() {
		return crm.Answer{Verdict: contact.VerdictUnchanged, Status: a.Status, Detail: note}
	}
	a = at.write(ctx)
	a.Alive = true // the read was answered
	a.Wrote = a.Verdict.Success() || a.Verdict == contact.VerdictInvalid
	if note != "" && a.Verdict.Success() {
		a.Detail = note
	}
	return a
}

// get reads the contact. The path needs some customer's id, which the module
// does not check; "0" would count as empty in PHP (crm-apis A8).
func (k *call) get(ctx context.Context, timeout time.Duration) (*current, crm.Answer, bool) {
	customer := k.customer
	if customer == "" {
		customer = "1"
	}
	r, f := k.do(ctx, http.MethodGet, "/api/contacts/"+customer+"/"+k.id, nil, timeout)
	if f != nil {
		return nil, f.Answer(false), false
	}
	if obj, ok := r.Object(); ok && r.Status == http.StatusOK {
		if now, ok := readCurrent(obj); ok && now.get("id") == k.id {
			k.secrets = append(k.secrets, now.get(fieldEmail)) // it goes out with each write
			return now, crm.Answer{Status: r.Status}, true
		}
	}
	a, d := k.verdict(r, reading)
	if d != certain {
		a.Detail = "the answer is not a contact as this API shows it"
	}
	return nil, a, false
}

// attempt is one write and what was known before it.
type attempt struct {
	*call
	wish     *wish
	before   *current
	differed []string // fields that were not as wished
	sent     writeOptions
}

func (t *attempt) write(ctx context.Context) crm.Answer {
	body := t.wish.body(t.before, t.permissions, t.sent)
	r, f := t.do(ctx, http.MethodPut, "/api/contacts/"+t.id, body, 0)
	switch {
	case f == nil:
	case !f.Sent:
		return f.Answer(true)
	case f.Kind == crm.FaultTimeout || f.Kind == crm.FaultStopped:
		return t.settle(ctx, f.Answer(true), pending)
	default:
		return t.settle(ctx, f.Answer(true), broken)
	}
	a, d := t.verdict(r, writing)
	if d != certain {
		return t.settle(ctx, a, d)
	}
	if t.sent.mail && r.Status >= 500 {
		// The mail goes out from within the request; a failure after it must
		// not send a second one.
		a.Verdict = contact.VerdictUnknown
	}
	return a
}

// settle finds out by reading what became of a write whose answer does not
// say. Where it cannot, the verdict is Unknown.
func (t *attempt) settle(ctx context.Context, a crm.Answer, d doubt) crm.Answer {
	a.Verdict = contact.VerdictUnknown
	after, ra, ok := t.get(ctx, readBackTimeout)
	if !ok {
		if ra.Verdict == contact.VerdictMissing {
			return ra
		}
		a.Incident = a.Incident || ra.Incident
		a.Wait = max(a.Wait, ra.Wait)
		a.Detail = join(a.Detail, "reading back: "+ra.Detail)
		return a
	}
	left := t.wish.differs(after)
	password := !t.sent.password || after.get(fieldPassword) != t.before.get(fieldPassword) ||
		after.passwordHeld(t.wish.password)
	if d == noChange {
		return t.unchanged(a, ra.Status, after, left, password)
	}
	switch {
	case t.arrived(after, left) && password && !t.sent.mail && !t.wish.hidden():
		return crm.Answer{Verdict: contact.VerdictApplied, Status: ra.Status, Wait: a.Wait, ReadBack: true, Detail: "found applied by reading back"}
	case t.arrived(after, left) && password, t.sent.mail:
		// Permissions and custom fields cannot be read, a mail leaves no trace.
		a.Detail = join(a.Detail, "reading back does not show all of it")
	case d == pending:
		a.Detail = join(a.Detail, "not there yet on reading back")
	default:
		a.Verdict = contact.VerdictTransient
		a.Detail = join(a.Detail, "not applied, as reading back shows")
	}
	return a
}

// arrived says that the contact holds what was written, or something that this
// write alone can have put there: the CRM rewrites some text.
func (t *attempt) arrived(after *current, left []string) bool {
	for _, name := range left {
		v, ok := t.wish.columns[name]
		if !ok || v == nil || after.get(name) == t.before.get(name) || !storedAs(*v, after.get(name)) {
			return false
		}
	}
	return true
}

// unchanged judges "no row changed". The module says so of identical data, of
// a statement that failed unseen, and of a write whose only effect was a mail
// (crm-apis A6).
func (t *attempt) unchanged(a crm.Answer, status int, after *current, left []string, password bool) crm.Answer {
	done := crm.Answer{Verdict: contact.VerdictUnchanged, Status: status, Wait: a.Wait}
	switch {
	case len(left) == 0 && password:
		if len(t.differed) > 0 || t.sent.mail || t.sent.password {
			done.Verdict = contact.VerdictApplied
		}
		return done
	case password && t.wish.rewritten(left, after):
		done.Detail = "stored as the CRM rewrites it"
		return done
	case t.sent.mail:
		a.Detail = "the write failed and the mail may have gone out: " + a.Detail
		return a
	}
	// A failed statement is as often a lock or a lost database as a value that
	// the database refuses, and nothing tells them apart: it is tried again,
	// and ends as exhausted if it never works.
	a.Verdict, a.Incident = contact.VerdictTransient, false
	if len(left) == 0 {
		left = []string{fieldPassword}
	}
	a.Detail = join("the CRM did not store "+strings.Join(left, ", ")+" and does not say why", a.Detail)
	return a
}

func join(a, b string) string {
	if a == "" || b == "" {
		return a + b
	}
	return crm.Detail([]byte(a + "; " + b))
}
