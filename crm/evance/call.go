package evance

import (
	"context"
	"encoding/json"
	"net/http"
	"time"

	"crmsync/contact"
	"crmsync/crm"
)

// call is one change on its way.
type call struct {
	*Client
	meter   *crm.Meter
	id      string
	fields  contact.Patch
	secrets []string // what no text may hold
}

func (c *Client) send(ctx context.Context, m *crm.Meter, ch *contact.Change) crm.Answer {
	if bad := crm.CheckID(ch.Contact.ID); bad != nil {
		return crm.Refusal(bad)
	}
	if bad := c.v.check(ch.Fields); bad != nil {
		return crm.Refusal(bad)
	}
	k := &call{Client: c, meter: m, id: ch.Contact.ID, fields: ch.Fields, secrets: crm.Values(ch.Fields)}
	body, err := json.Marshal(map[string]contact.Patch{c.v.wrapper: ch.Fields})
	if err != nil {
		return crm.Refusal(crm.Invalid("", "the fields cannot be written as JSON"))
	}
	r, f, a := k.do(ctx, http.MethodPut, body, 0)
	switch {
	case f == nil && r == nil:
		return a
	case f == nil:
		a, d := k.verdict(r, true)
		if d == certain {
			a.Wrote = a.Verdict.Success() || a.Verdict == contact.VerdictInvalid
			return a
		}
		return k.settle(ctx, a, d)
	case !f.Sent:
		return f.Answer(true)
	case f.Kind == crm.FaultTimeout || f.Kind == crm.FaultStopped:
		return k.settle(ctx, f.Answer(true), pending)
	}
	return k.settle(ctx, f.Answer(true), broken)
}

// do makes one request about the contact.
func (k *call) do(ctx context.Context, method string, body []byte, timeout time.Duration) (*crm.Reply, *crm.Fault, crm.Answer) {
	return k.request(ctx, crm.Request{Method: method, Path: k.v.path + k.id + ".json", Body: body, Timeout: timeout})
}

// request makes one request with a token. A token that is refused is replaced
// once: it may have ended early. Where there is no token, reply and fault are
// nil and the answer says why.
func (k *call) request(ctx context.Context, q crm.Request) (*crm.Reply, *crm.Fault, crm.Answer) {
	spoilt := ""
	for {
		token, a, ok := k.tokens.get(ctx, k.meter, spoilt)
		if !ok {
			return nil, nil, a
		}
		k.secrets = append(k.secrets, token)
		q.Header, q.Secrets = http.Header{"Authorization": {"Bearer " + token}}, k.secrets
		if q.Body != nil {
			q.Header.Set("Content-Type", "application/json")
		}
		r, f := k.http.Do(ctx, k.meter, q)
		if f != nil || r.Status != http.StatusUnauthorized || spoilt != "" {
			return r, f, crm.Answer{}
		}
		spoilt = token
	}
}

// settle finds out by reading what became of a write whose answer does not
// say. Where it cannot, the verdict is Unknown.
func (k *call) settle(ctx context.Context, a crm.Answer, d doubt) crm.Answer {
	a.Verdict = contact.VerdictUnknown
	r, f, ra := k.do(ctx, http.MethodGet, nil, readBackTimeout)
	var now map[string]json.RawMessage
	switch {
	case f != nil:
		ra = f.Answer(false)
	case r != nil:
		var rd doubt
		if ra, rd = k.verdict(r, false); rd == certain && ra.Verdict == contact.VerdictApplied {
			_ = json.Unmarshal(read(r).obj[k.v.wrapper], &now) // verdict has read it as an object
		} else if ra.Verdict == contact.VerdictMissing {
			return ra
		}
	}
	if now == nil {
		a.Incident = a.Incident || ra.Incident
		a.Wait = max(a.Wait, ra.Wait)
		a.Detail = crm.Detail([]byte(a.Detail + "; reading back: " + ra.Detail))
		return a
	}
	a.Alive = true
	switch k.v.holds(now, k.fields) {
	case yes:
		return crm.Answer{Verdict: contact.VerdictApplied, Status: r.Status, Wait: a.Wait, Alive: true, Wrote: true, ReadBack: true, Detail: "found applied by reading back"}
	case cannotSay:
		a.Detail = crm.Detail([]byte(a.Detail + "; reading back does not show all of it"))
	case no:
		if d == broken {
			a.Verdict = contact.VerdictTransient
			a.Detail = crm.Detail([]byte(a.Detail + "; not applied, as reading back shows"))
		} else {
			a.Detail = crm.Detail([]byte(a.Detail + "; not there yet on reading back"))
		}
	}
	return a
}
