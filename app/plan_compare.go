package app

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"strings"

	"golang.org/x/time/rate"

	"crmsync/config"
	"crmsync/contact"
	"crmsync/crm"
)

// CompareMost is how many contacts are compared at most.
const CompareMost = 100

// ErrRefusedUs says that a CRM does not take our credentials.
var ErrRefusedUs = errors.New("the CRM refuses our credentials")

// Compared is one contact of a file as the CRM holds it.
type Compared struct {
	Contact string          `json:"contact"`
	Row     int64           `json:"row"`
	Missing bool            `json:"missing,omitempty"` // the CRM has no such contact
	Fields  []ComparedField `json:"fields,omitempty"`
}

// ComparedField is one field that a row would write, beside what the CRM holds.
// It has values of the contact, secrets masked: it is for whoever asked.
type ComparedField struct {
	Field  string          `json:"field"`          // its path, as address.city
	Held   json.RawMessage `json:"held,omitempty"` // nil where the CRM does not show it
	Sent   json.RawMessage `json:"sent"`
	Change string          `json:"change"` // same, differs or unseen
}

// compare reads contacts from the CRM, one after another, and sets what their
// rows would write beside them. Secrets are masked.
func (o *opened) compare(ctx context.Context, updates []*contact.Update) ([]Compared, error) {
	pay, err := purse(o.target.Quota, len(updates))
	if err != nil {
		return nil, fmt.Errorf("target %s: %w", o.target.Name, err)
	}
	out := make([]Compared, 0, len(updates))
	for _, u := range updates {
		if err := pay(ctx); err != nil {
			return out, err
		}
		ch := &contact.Change{Contact: u.Contact, Fields: u.Fields, Updates: 1}
		diff, ans := o.client.Compare(ctx, pay, ch)
		switch {
		case ans.Verdict == contact.VerdictMissing:
		case ans.Verdict == contact.VerdictUnauthorized, ans.Verdict == contact.VerdictForbidden:
			return out, fmt.Errorf("contact %s: %w: HTTP %d: %s", u.Contact.ID, ErrRefusedUs, ans.Status, ans.Detail)
		case !ans.Verdict.Success():
			return out, fmt.Errorf("contact %s cannot be read from the CRM: %s, HTTP %d: %s", u.Contact.ID, ans.Verdict, ans.Status, ans.Detail)
		}
		c := Compared{Contact: u.Contact.ID, Row: u.Row, Missing: ans.Verdict == contact.VerdictMissing}
		for _, d := range diff {
			c.Fields = append(c.Fields, ComparedField{
				Field: d.Field, Held: hideSecret(d.Field, d.Held), Sent: hideSecret(d.Field, d.Sent), Change: string(d.Seen),
			})
		}
		out = append(out, c)
	}
	return out, nil
}

// purse pays for requests that no lane makes: one by one, no faster than the
// target's rate and its shortest windows allow. What the lane spends meanwhile it
// does not know.
func purse(q config.Quota, contacts int) (crm.Spend, error) {
	perSecond := q.Rate * (1 - q.Reserve)
	for _, w := range q.AllWindows() {
		if most := int(float64(w.Limit) * (1 - q.Reserve)); contacts > most {
			return nil, fmt.Errorf("its quota (%s) does not allow for %d contacts to be read", q, contacts)
		}
	}
	if perSecond <= 0 {
		return nil, fmt.Errorf("its quota (%s) allows no request", q)
	}
	return rate.NewLimiter(rate.Limit(perSecond), 1).Wait, nil
}

// hideSecret masks the value of a field that is never shown.
func hideSecret(path string, v json.RawMessage) json.RawMessage {
	if v == nil || !isSecret(lastPart(path)) {
		return v
	}
	return json.RawMessage(masked)
}

// hideSecrets masks the constants for such fields.
func hideSecrets(constants map[string]string) map[string]string {
	out := maps.Clone(constants)
	for path := range out {
		if isSecret(lastPart(path)) {
			out[path] = strings.Trim(masked, `"`)
		}
	}
	return out
}

func lastPart(path string) string { return path[strings.LastIndexByte(path, '.')+1:] }
