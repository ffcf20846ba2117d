package evance

import (
	"context"
	"net/http"

	"crmsync/contact"
	"crmsync/crm"
)

// Probe reads one contact and writes nothing. The verdict is Unchanged where
// the CRM showed it, Missing where it said that there is none, else whatever
// kept it from answering. The first request is taken as paid for; one for a
// token is paid for on top.
func (c *Client) Probe(ctx context.Context, spend crm.Spend, key contact.Key) crm.Answer {
	if bad := crm.CheckID(key.ID); bad != nil {
		return crm.Refusal(bad)
	}
	k := &call{Client: c, meter: crm.NewMeter(spend), id: key.ID}
	r, f, a := k.do(ctx, http.MethodGet, nil, 0)
	switch {
	case f != nil:
		a = f.Answer(false)
	case r != nil:
		a, _ = k.verdict(r, false)
		if a.Verdict == contact.VerdictApplied {
			a.Verdict = contact.VerdictUnchanged
		}
	}
	a.Requests, a.Hints = k.meter.Requests(), k.meter.Hints()
	return a
}
