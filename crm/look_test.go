package crm_test

import (
	"context"
	"encoding/json"
	"strings"
	"testing"

	"crmsync/contact"
	"crmsync/crm"
	"crmsync/emulator"
)

// looker is what both vendors' clients can find out for an operator.
type looker interface {
	Compare(ctx context.Context, spend crm.Spend, ch *contact.Change) ([]crm.Difference, crm.Answer)
	Explain(ctx context.Context, spend crm.Spend, why contact.Reason, ch *contact.Change) (string, crm.Answer)
	Suggest(s crm.Symptom) string
}

// look counts what is spent beyond the first request and holds it against what
// arrived.
func (s *stand) look(f func(looker, crm.Spend) crm.Answer) crm.Answer {
	s.t.Helper()
	before, paid := len(s.crm.Ledger()), 0
	a := f(s.client.(looker), func(context.Context) error { paid++; return nil })
	if n := len(s.crm.Ledger()) - before; a.Requests != n || n > 0 && paid != n-1 {
		s.t.Errorf("%d requests counted, %d arrived, %d paid beyond the first", a.Requests, n, paid)
	}
	return a
}

func (s *stand) compare(id string, p contact.Patch) (map[string]crm.Difference, crm.Answer) {
	s.t.Helper()
	ch := s.change(id, p)
	out := map[string]crm.Difference{}
	a := s.look(func(l looker, spend crm.Spend) crm.Answer {
		list, a := l.Compare(context.Background(), spend, &ch)
		for _, d := range list {
			out[d.Field] = d
		}
		return a
	})
	return out, a
}

func (s *stand) explain(why contact.Reason, id string, p contact.Patch) (string, crm.Answer) {
	s.t.Helper()
	ch, said := s.change(id, p), ""
	a := s.look(func(l looker, spend crm.Spend) (a crm.Answer) {
		said, a = l.Explain(context.Background(), spend, why, &ch)
		return a
	})
	return said, a
}

func TestCompare(t *testing.T) {
	eachSubject(t, func(s *stand) {
		s.want(s.send(s.change("7", s.name("Ada"))), contact.VerdictApplied, 0, false)
		before := len(s.crm.Ledger())
		got, a := s.compare("7", patchf(s.t, `{%q: "Bob", "email": "contact7@example.com", "nonsense": 1}`, s.first))
		s.want(a, contact.VerdictApplied, 0, false)
		if d := got[s.first]; d.Seen != crm.SeenOther || string(d.Held) != `"Ada"` || string(d.Sent) != `"Bob"` {
			s.t.Errorf("another name: %+v", d)
		}
		if d := got["email"]; d.Seen != crm.SeenSame {
			s.t.Errorf("the address that is there: %+v", d)
		}
		if d := got["nonsense"]; d.Seen != crm.SeenNot || d.Held != nil {
			s.t.Errorf("no field of the CRM: %+v", d)
		}
		_, a = s.compare("77", s.name("Bob"))
		s.want(a, contact.VerdictMissing, contact.Missing, false)
		_, a = s.compare("1/../2", s.name("Bob"))
		s.want(a, contact.VerdictInvalid, contact.Invalid, false)
		for _, e := range s.crm.LedgerSince(before) {
			if e.Operation != emulator.OpRead && e.Operation != emulator.OpToken {
				s.t.Errorf("entry %d is no read: %s", e.N, e.Operation)
			}
		}
	})
}

func TestCompareOfWhatIsNotShown(t *testing.T) {
	eachSubject(t, func(s *stand) {
		if s.perfex {
			got, _ := s.compare("7", patch(s.t, `{"permissions": [1], "password": "secret", "is_primary": false, "active": "x", "title": 5, "customer_id": "999"}`))
			for name, want := range map[string]crm.Seen{
				"permissions": crm.SeenNot, "password": crm.SeenNot, "active": crm.SeenOther, "title": crm.SeenOther, "customer_id": crm.SeenOther,
			} {
				if d := got[name]; d.Seen != want || name == "password" && d.Held != nil {
					s.t.Errorf("%s: %+v, want %s", name, d, want)
				}
			}
			return
		}
		got, _ := s.compare("7", patch(s.t, `{"address": {"city": "Nowhere", "moon": "x"}, "accessRoles": ["trade-account"], "tags": "x"}`))
		for name, want := range map[string]crm.Seen{
			"address.city": crm.SeenOther, "address.moon": crm.SeenNot, "accessRoles": crm.SeenOther, "tags": crm.SeenNot,
		} {
			if got[name].Seen != want {
				s.t.Errorf("%s: %+v, want %s", name, got[name], want)
			}
		}
		var city string
		if json.Unmarshal(got["address.city"].Held, &city) != nil || city == "" {
			s.t.Errorf("address.city holds %s", got["address.city"].Held)
		}
	})
}

func TestExplain(t *testing.T) {
	eachSubject(t, func(s *stand) {
		taken := patch(s.t, `{"email": "contact8@example.com"}`)
		said, a := s.explain(contact.Conflict, "7", taken)
		s.want(a, contact.VerdictApplied, 0, false)
		if said != "e-mail taken by contact 8" {
			s.t.Errorf("taken: %q", said)
		}
		if strings.Contains(said+a.Detail, "@") {
			s.t.Errorf("an address in %q %q", said, a.Detail)
		}
		if said, _ = s.explain(contact.Conflict, "7", patch(s.t, `{"email": "nobody.here@example.com"}`)); !strings.Contains(said, "redrive") {
			s.t.Errorf("free: %q", said)
		}
		if said, a = s.explain(contact.Conflict, "7", s.name("Bob")); said != "" || a.Requests != 0 {
			s.t.Errorf("nothing to ask: %q, %+v", said, a)
		}
		if said, a = s.explain(contact.Invalid, "7", taken); said != "" || a.Requests != 0 {
			s.t.Errorf("another reason: %q, %+v", said, a)
		}
		s.crm.SetFaults(emulator.Faults{{Kind: emulator.Outage, Status: 503}})
		said, a = s.explain(contact.Conflict, "7", taken)
		s.want(a, contact.VerdictTransient, 0, true)
		if said != "" {
			s.t.Errorf("during an outage: %q", said)
		}
	})
}

func TestExplainCustomers(t *testing.T) {
	for _, sub := range subjects() {
		if !sub.perfex || sub.options.Mode == emulator.PerfexDocs {
			continue // as documented, the path means a contact
		}
		sub.options.Contacts = 3
		t.Run(sub.name, func(t *testing.T) {
			sub.run(t, func(s *stand) {
				s.crm.Put("2", map[string]any{"userid": "500", "active": "1"})
				s.crm.Put("3", map[string]any{"userid": "500", "active": "1"})
				said, a := s.explain(contact.Missing, "500", s.name("Bob"))
				s.want(a, contact.VerdictApplied, 0, false)
				if !strings.HasPrefix(said, "500 is a customer's id: its contacts are ") || !strings.Contains(said, "2") || !strings.Contains(said, "3") {
					s.t.Errorf("a customer: %q", said)
				}
				if said, _ = s.explain(contact.Missing, "501", s.name("Bob")); said != "" {
					s.t.Errorf("nobody: %q", said)
				}
				said, _ = s.explain(contact.Conflict, "3", patch(s.t, `{"email": "CONTACT3@example.com"}`))
				if !strings.Contains(said, "own") {
					s.t.Errorf("another letter case: %q", said)
				}
			})
		})
	}
}

func TestSuggest(t *testing.T) {
	eachSubject(t, func(s *stand) {
		l := s.client.(looker)
		for _, r := range contact.Reasons() {
			for _, field := range []string{"", "email"} {
				said := l.Suggest(crm.Symptom{Reason: r, Field: field})
				if said == "" && r != contact.Refused && r != contact.StaleRedrive {
					s.t.Errorf("%s, field %q: nothing to say", r, field)
				}
			}
		}
		for field, want := range map[string]string{"title": "--unset title", "": "correct the letters"} {
			if said := l.Suggest(crm.Symptom{Reason: contact.Invalid, Field: field}); !strings.Contains(said, want) {
				s.t.Errorf("invalid %q: %q", field, said)
			}
		}
		if s.perfex {
			for want, m := range map[string]crm.Symptom{
				"customers":   {Reason: contact.Missing},
				"letter case": {Reason: contact.Conflict},
				"--put email": {Reason: contact.Invalid, Field: "email"},
				"another cus": {Reason: contact.Invalid, Field: "customer_id"},
				"firewall":    {Reason: contact.Refused, Status: 403},
				"database":    {Reason: contact.Exhausted, Message: "the crm did not store title and does not say why"},
			} {
				if said := l.Suggest(m); !strings.Contains(said, want) {
					s.t.Errorf("%+v: %q, want %q", m, said, want)
				}
			}
			return
		}
		for want, m := range map[string]crm.Symptom{
			"username":      {Reason: contact.Conflict},
			"other version": {Reason: contact.Invalid, Message: contact.Normalise("version 1 of the API calls it firstname")},
			"a role must":   {Reason: contact.Invalid, Field: "accessRoles"},
		} {
			if said := l.Suggest(m); !strings.Contains(said, want) {
				s.t.Errorf("%+v: %q, want %q", m, said, want)
			}
		}
	})
}
