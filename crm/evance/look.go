package evance

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"strings"

	"crmsync/contact"
	"crmsync/crm"
)

// Compare reads a contact, which is one request and once an hour a token, and
// sets each field of the change, of an address each part, beside what the
// contact holds. The verdict is Applied where the contact was read. The first
// request is taken as paid for.
func (c *Client) Compare(ctx context.Context, spend crm.Spend, ch *contact.Change) ([]crm.Difference, crm.Answer) {
	if bad := crm.CheckID(ch.Contact.ID); bad != nil {
		return nil, crm.Refusal(bad)
	}
	k := &call{Client: c, meter: crm.NewMeter(spend), id: ch.Contact.ID, secrets: crm.Values(ch.Fields)}
	r, f, a := k.do(ctx, http.MethodGet, nil, 0)
	switch {
	case f != nil:
		a = f.Answer(false)
	case r != nil:
		a, _ = k.verdict(r, false)
	}
	a.Requests = k.meter.Requests()
	if r == nil || a.Verdict != contact.VerdictApplied {
		return nil, a
	}
	var now map[string]json.RawMessage
	_ = json.Unmarshal(read(r).obj[k.v.wrapper], &now) // verdict has read it as an object
	var out []crm.Difference
	for _, f := range ch.Fields {
		out = append(out, c.v.beside(now, f)...)
	}
	return out, a
}

// beside sets one field beside the contact.
func (v *version) beside(now map[string]json.RawMessage, f contact.Field) []crm.Difference {
	k, known := v.fields[f.Name]
	if k == kindAddress && known {
		if parts, err := contact.ParsePatch(f.Value); err == nil {
			return v.addressBeside(now[f.Name], parts)
		}
	}
	d := crm.Difference{Field: f.Name, Sent: f.Value, Seen: crm.SeenNot}
	have, shown := now[f.Name]
	if !known || !shown || k == kindPassword {
		return []crm.Difference{d}
	}
	d.Held, d.Seen = have, crm.SeenOther
	switch v.compare(k, have, f.Value) {
	case yes:
		d.Seen = crm.SeenSame
	case cannotSay:
		d.Seen = crm.SeenNot
	}
	return []crm.Difference{d}
}

func (v *version) addressBeside(have json.RawMessage, parts contact.Patch) []crm.Difference {
	var members map[string]json.RawMessage
	_ = json.Unmarshal(have, &members) // a contact without an address shows null
	out := make([]crm.Difference, 0, len(parts))
	for _, p := range parts {
		d := crm.Difference{Field: fieldAddress + "." + p.Name, Sent: p.Value, Seen: crm.SeenNot}
		if x, ok := members[p.Name]; ok {
			d.Held, d.Seen = x, crm.SeenOther
			if sameText(x, p.Value) {
				d.Seen = crm.SeenSame
			}
		}
		out = append(out, d)
	}
	return out
}

// Suggest says what an operator may do about letters of one cause; "" where
// there is nothing to say.
func (c *Client) Suggest(s crm.Symptom) string {
	switch s.Reason {
	case contact.Conflict:
		return "another user has the value (e-mail, username or reference); dead groups --ask looks for the holder of an e-mail address; " +
			"dead edit --unset sends the rest"
	case contact.Invalid:
		if strings.Contains(s.Message, "version <n> of the api calls it") {
			return "the letters are written for the other version of the Evance API: set the target's api, or edit the field's name"
		}
		if s.Field == fieldRoles || strings.Contains(s.Message, "role") {
			return "a role must exist in Evance before it is granted: make it there, then redrive"
		}
	}
	return crm.Advise(s)
}

// Explain asks the CRM why letters like this one are dead: who has the e-mail
// address. That is one request, which is taken as paid for, and once an hour a
// token. The text is "" where there is nothing to ask (then no request is made)
// or to say.
func (c *Client) Explain(ctx context.Context, spend crm.Spend, why contact.Reason, ch *contact.Change) (string, crm.Answer) {
	v, _ := ch.Fields.Get(fieldEmail)
	email, ok := str(v)
	if why != contact.Conflict || !ok || email == "" || crm.CheckID(ch.Contact.ID) != nil {
		return "", crm.Answer{}
	}
	k := &call{Client: c, meter: crm.NewMeter(spend), id: ch.Contact.ID, secrets: crm.Values(ch.Fields)}
	path, list := c.v.path+"search.json", "contacts" // crm-apis B7
	if c.v.name == API2 {
		path, list = strings.TrimSuffix(c.v.path, "/")+".json", "data"
	}
	r, f, a := k.request(ctx, crm.Request{Method: http.MethodGet, Path: path, Query: url.Values{"email": {email}}})
	switch {
	case f != nil:
		a = f.Answer(false)
	case r != nil:
		a, _ = k.verdict(r, false)
	}
	a.Requests = k.meter.Requests()
	if r == nil || r.Status != http.StatusOK {
		return "", a
	}
	var found []struct {
		ID    json.RawMessage `json:"id"`
		Email string          `json:"email"`
	}
	if obj, ok := r.Object(); !ok || json.Unmarshal(obj[list], &found) != nil {
		a.Verdict, a.Detail = contact.VerdictTransient, "the answer is not a list of contacts as this API shows it"
		return "", a
	}
	a = crm.Answer{Verdict: contact.VerdictApplied, Status: r.Status, Requests: a.Requests}
	var ids []string
	for _, x := range found {
		id := strings.Trim(string(x.ID), `"`)
		if strings.EqualFold(x.Email, email) && id != k.id && crm.CheckID(id) == nil {
			ids = append(ids, id)
		}
	}
	switch len(ids) {
	case 0:
		return "no other contact has the address now: redrive", a
	case 1:
		return "e-mail taken by contact " + ids[0], a
	}
	return fmt.Sprintf("e-mail taken by %d contacts, %s the first", len(ids), ids[0]), a
}
