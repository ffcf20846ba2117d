package perfex

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"regexp"
	"slices"
	"strings"

	"crmsync/contact"
	"crmsync/crm"
)

// Compare reads a contact, which is one request, and sets each field of the
// change beside what the contact holds. The verdict is Applied where the
// contact was read; spend is asked for nothing, the one request is taken as
// paid for.
func (c *Client) Compare(ctx context.Context, spend crm.Spend, ch *contact.Change) ([]crm.Difference, crm.Answer) {
	if bad := crm.CheckID(ch.Contact.ID); bad != nil {
		return nil, crm.Refusal(bad)
	}
	k := &call{Client: c, meter: crm.NewMeter(spend), id: ch.Contact.ID, secrets: crm.Values(ch.Fields)}
	now, a, ok := k.get(ctx, 0)
	a.Requests = k.meter.Requests()
	if !ok {
		return nil, a
	}
	a.Verdict = contact.VerdictApplied
	out := make([]crm.Difference, 0, len(ch.Fields))
	for _, f := range ch.Fields {
		out = append(out, compare(f, now))
	}
	return out, a
}

// compare sets one field beside the contact. A field that an update may not
// have (that may be why the letter is dead) is not compared.
func compare(f contact.Field, now *current) crm.Difference {
	d := crm.Difference{Field: f.Name, Sent: f.Value, Seen: crm.SeenNot}
	w, bad := parse(contact.Patch{f})
	if bad != nil && !seenByColumn(f.Name) {
		return d
	}
	switch f.Name {
	case fieldPassword:
		if bad == nil && now.passwordHeld(w.password) {
			d.Seen = crm.SeenSame
		}
		return d
	case fieldPermissions, fieldCustom, fieldMail:
		return d
	case fieldCustomer:
		d.Held = quote(now.get("userid"))
		d.Seen = seen(bad == nil && now.get("userid") == w.customer)
		return d
	}
	v, shown := now.values[f.Name]
	if !shown {
		return d
	}
	d.Held = json.RawMessage("null")
	if v != nil {
		d.Held = quote(*v)
	}
	d.Seen = seen(bad == nil && len(w.differs(now)) == 0)
	return d
}

// seenByColumn says that a GET shows the field whatever is wrong with the value
// that was sent.
func seenByColumn(name string) bool {
	_, text := columns[name]
	return text || name == "active" || name == fieldCustomer || slices.Contains(flags, name)
}

func seen(same bool) crm.Seen {
	if same {
		return crm.SeenSame
	}
	return crm.SeenOther
}

// Suggest says what an operator may do about letters of one cause; "" where
// there is nothing to say.
func (c *Client) Suggest(s crm.Symptom) string {
	switch s.Reason {
	case contact.Missing:
		return "Perfex numbers contacts and customers apart: the ids may be customers' (dead groups --ask finds out); or the contacts were deleted"
	case contact.Conflict:
		return "another contact has the e-mail address, or it is this contact's own in another letter case, which Perfex refuses too; " +
			"dead show ID --diff looks for the holder; dead edit --unset email sends the rest"
	case contact.Invalid:
		switch s.Field {
		case fieldEmail:
			return "Perfex takes no update without an e-mail address: add one with dead edit --put email=..., then redrive"
		case fieldCustomer:
			return "the contact belongs to another customer than the letter says: the ids are mixed up, or dead edit --unset customer_id sends the rest"
		}
	case contact.Refused:
		if s.Status == http.StatusForbidden {
			return "a firewall before the CRM dislikes what is written (markup, links); have it let through, or edit the value"
		}
	case contact.Exhausted:
		if strings.Contains(s.Message, "did not store") {
			return "the database refuses a value, or was locked: look at the named fields, redrive a few first (--canary)"
		}
	}
	return crm.Advise(s)
}

// Explain asks the CRM why letters like this one are dead, with one request,
// which is taken as paid for: who has the e-mail address, and whether what was
// taken for a contact is a customer. The text is "" where there is nothing to
// ask (then no request is made) or to say.
func (c *Client) Explain(ctx context.Context, spend crm.Spend, why contact.Reason, ch *contact.Change) (string, crm.Answer) {
	k := &call{Client: c, meter: crm.NewMeter(spend), id: ch.Contact.ID, secrets: crm.Values(ch.Fields)}
	if crm.CheckID(ch.Contact.ID) != nil {
		return "", crm.Answer{}
	}
	var said string
	var a crm.Answer
	switch why {
	case contact.Missing:
		said, a = k.customerOf(ctx)
	case contact.Conflict:
		said, a = k.holder(ctx, ch.Fields)
	}
	a.Requests = k.meter.Requests()
	return said, a
}

// row is one contact of a list.
type row struct {
	ID     string `json:"id"`
	UserID string `json:"userid"`
	Email  string `json:"email"`
}

// rows asks for a list. Nothing found is a list of none.
func (k *call) rows(ctx context.Context, path string) ([]row, crm.Answer, bool) {
	r, f := k.do(ctx, http.MethodGet, path, nil, 0)
	if f != nil {
		return nil, f.Answer(false), false
	}
	var list []row
	if r.Status == http.StatusOK && !r.Cut && json.Unmarshal(r.Body, &list) == nil {
		return list, crm.Answer{Verdict: contact.VerdictApplied, Status: r.Status}, true
	}
	if r.Status == http.StatusOK && r.Cut {
		return nil, crm.Answer{Verdict: contact.VerdictApplied, Status: r.Status, Detail: "the list is too long to be read"}, true
	}
	a, _ := k.verdict(r, reading)
	if a.Verdict == contact.VerdictMissing {
		return nil, crm.Answer{Verdict: contact.VerdictApplied, Status: r.Status}, true
	}
	return nil, a, false
}

// customerOf asks whether our id is a customer's: GET /contacts/{id} lists that
// customer's contacts (crm-apis A8).
func (k *call) customerOf(ctx context.Context) (string, crm.Answer) {
	list, a, ok := k.rows(ctx, "/api/contacts/"+k.id)
	if !ok || len(list) == 0 {
		return "", a
	}
	var ids []string
	for _, x := range list {
		if x.UserID != k.id || crm.CheckID(x.ID) != nil {
			return "", a // not the list that we know
		}
		ids = append(ids, x.ID)
	}
	return fmt.Sprintf("%s is a customer's id: its contacts are %s; the ids look like customer ids", k.id, some(ids)), a
}

// plainWord is what a search may ask for: the path of a request holds nothing
// that would have to be escaped.
var plainWord = regexp.MustCompile(`[A-Za-z0-9._-]{3,}`)

// holder asks who has the e-mail address of the change. The search finds parts,
// so that the longest part which can stand in a path is enough to look for.
func (k *call) holder(ctx context.Context, p contact.Patch) (string, crm.Answer) {
	v, _ := p.Get(fieldEmail)
	email, ok := plain(v)
	local, _, at := strings.Cut(email, "@")
	if !ok || !at {
		return "", crm.Answer{}
	}
	word := ""
	for _, w := range plainWord.FindAllString(local, -1) {
		if w = strings.Trim(w, "."); len(w) > len(word) {
			word = w
		}
	}
	if word == "" {
		return "", crm.Answer{}
	}
	list, a, ok := k.rows(ctx, "/api/contacts/search/"+word)
	if !ok {
		return "", a
	}
	var ids []string
	for _, x := range list {
		if !strings.EqualFold(x.Email, email) || crm.CheckID(x.ID) != nil {
			continue
		}
		if x.ID == k.id {
			return "the address is this contact's own, in another letter case, which Perfex refuses: take email out", a
		}
		ids = append(ids, x.ID)
	}
	switch {
	case len(ids) == 1:
		return "e-mail taken by contact " + ids[0], a
	case len(ids) > 1:
		return "e-mail taken by contacts " + some(ids), a
	case a.Detail != "":
		return "", a
	}
	return "no contact of an active customer has the address now: redrive; where it dies again, look among inactive customers", a
}

// some lists the first few of many ids.
func some(ids []string) string {
	const most = 5
	if len(ids) <= most {
		return strings.Join(ids, ", ")
	}
	return fmt.Sprintf("%s and %d more", strings.Join(ids[:most], ", "), len(ids)-most)
}
