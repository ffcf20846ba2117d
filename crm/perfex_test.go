package crm_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/bcrypt"

	"crmsync/contact"
	"crmsync/crm"
	"crmsync/crm/perfex"
	"crmsync/emulator"
)

// eachPerfex runs a test for the generations of the Perfex module.
func eachPerfex(t *testing.T, change func(*emulator.Options), f func(s *stand)) {
	for _, sub := range subjects() {
		if !sub.perfex {
			continue
		}
		if change != nil {
			change(&sub.options)
		}
		t.Run(sub.name, func(t *testing.T) { sub.run(t, f) })
	}
}

func (s *stand) record(id string) map[string]any {
	s.t.Helper()
	rec, ok := s.crm.Contact(id)
	if !ok {
		s.t.Fatalf("contact %s is gone", id)
	}
	return rec
}

// Contact 5 is primary with all flags and permissions, contact 6 has one flag
// and two permissions: what an update does not name must stay as it was.
func TestPerfexKeepsWhatItDoesNotName(t *testing.T) {
	eachPerfex(t, nil, func(s *stand) {
		for _, id := range []string{"5", "6"} {
			before := s.record(id)
			s.want(s.send(s.change(id, s.name("Kept"))), contact.VerdictApplied, 0, false)
			after := s.record(id)
			for name, v := range before {
				want := v
				switch name {
				case "firstname":
					want = "Kept"
				case "permissions": // not readable: the policy of the target
					want = []string{"1", "2", "3", "4", "5", "6"}
				}
				if !reflect.DeepEqual(after[name], want) {
					s.t.Errorf("contact %s: %s is %v, want %v", id, name, after[name], want)
				}
			}
		}
	})
}

func TestPerfexFlags(t *testing.T) {
	eachPerfex(t, nil, func(s *stand) {
		s.want(s.send(s.change("5", patch(s.t, `{"is_primary": false, "invoice_emails": null, "task_emails": "0", "active": 0}`))), contact.VerdictApplied, 0, false)
		rec := s.record("5")
		for name, want := range map[string]string{"is_primary": "0", "invoice_emails": "0", "task_emails": "0", "ticket_emails": "1", "active": "0"} {
			if rec[name] != want {
				s.t.Errorf("%s is %v, want %s", name, rec[name], want)
			}
		}
		s.want(s.send(s.change("6", patch(s.t, `{"is_primary": "on", "ticket_emails": true, "active": true}`))), contact.VerdictApplied, 0, false)
		if rec = s.record("6"); rec["is_primary"] != "1" || rec["ticket_emails"] != "1" || rec["invoice_emails"] != "1" {
			s.t.Errorf("%v", rec)
		}
	})
}

func TestPerfexPermissions(t *testing.T) {
	eachPerfex(t, nil, func(s *stand) {
		s.want(s.send(s.change("6", patch(s.t, `{"permissions": ["2", 1, 2]}`))), contact.VerdictApplied, 0, false)
		if got := s.record("6")["permissions"]; !reflect.DeepEqual(got, []string{"1", "2"}) {
			s.t.Errorf("permissions %v", got)
		}
		a := s.send(s.change("6", patch(s.t, `{"permissions": [1, 2]}`)))
		if !a.Verdict.Success() {
			s.t.Errorf("the same again: %+v", a)
		}
		s.want(s.send(s.change("6", patch(s.t, `{"permissions": null}`))), contact.VerdictApplied, 0, false)
		if got := s.record("6")["permissions"]; !reflect.DeepEqual(got, []string{}) {
			s.t.Errorf("permissions %v", got)
		}
		s.want(s.send(s.change("6", patch(s.t, `{"custom_fields": {"1": "North", "2": 7}}`))), contact.VerdictApplied, 0, false)
		if got := s.record("6")["custom_fields"]; !reflect.DeepEqual(got, map[string]string{"1": "North", "2": "7"}) {
			s.t.Errorf("custom fields %v", got)
		}
		s.want(s.send(s.change("6", patch(s.t, `{"custom_fields": {"contacts": {"1": null}}}`))), contact.VerdictApplied, 0, false)
		if got := s.record("6")["custom_fields"]; !reflect.DeepEqual(got, map[string]string{"2": "7"}) {
			s.t.Errorf("custom fields %v", got)
		}
	})
}

func TestPerfexCustomer(t *testing.T) {
	eachPerfex(t, nil, func(s *stand) {
		owner := s.record("7")["userid"].(string)
		s.want(s.send(s.change("7", patchf(s.t, `{"firstname": "Bob", "customer_id": %q}`, owner))), contact.VerdictApplied, 0, false)
		a := s.send(s.change("7", patch(s.t, `{"firstname": "Bea", "customer_id": 9}`)))
		s.want(a, contact.VerdictInvalid, contact.Invalid, false)
		if a.Field != "customer_id" || s.record("7")["userid"] != owner {
			s.t.Errorf("%+v", a)
		}
		for _, e := range s.crm.Ledger() {
			if _, moved := e.Values["userid"]; moved {
				s.t.Error("the contact was moved")
			}
		}
	})
}

// null and "" are one thing to 3.x: a cleared field must not be written again
// and again.
func TestPerfexNull(t *testing.T) {
	eachPerfex(t, nil, func(s *stand) {
		p := patch(s.t, `{"title": null, "direction": null, "phonenumber": null, "firstname": ""}`)
		s.want(s.send(s.change("5", p)), contact.VerdictApplied, 0, false)
		rec := s.record("5")
		if title := rec["title"]; title != nil && title != "" || rec["phonenumber"] != "" || rec["firstname"] != "" {
			s.t.Errorf("%v", rec)
		}
		a := s.send(s.change("5", p))
		s.want(a, contact.VerdictUnchanged, 0, false)
		if a.Requests != 1 {
			s.t.Errorf("%d requests", a.Requests)
		}
	})
}

// Percent signs reach the CRM; markup is not smuggled past its filter, and a
// value that the CRM rewrote is not an error the second time.
func TestPerfexText(t *testing.T) {
	eachPerfex(t, nil, func(s *stand) {
		for _, v := range []string{`100 % sure`, `a%22b`, `%2541 %25`, `"quoted" \ back`, "Zoë 漢字 😀", `O'Neil & Söhne`} {
			p, _ := json.Marshal(map[string]string{"firstname": v})
			s.want(s.send(s.change("7", patch(s.t, string(p)))), contact.VerdictApplied, 0, false)
			s.want(s.send(s.change("7", patch(s.t, string(p)))), contact.VerdictUnchanged, 0, false)
		}
		for _, v := range []string{`<script>x</script>Bob`, `\u003cscript\u003ex\u003c/script\u003eBob`} {
			p := patch(s.t, `{"lastname": "`+v+`"}`)
			if a := s.client.Send(context.Background(), free, []contact.Change{s.change("8", p)})[0]; !a.Verdict.Success() {
				s.t.Errorf("%+v", a)
			}
			if got := fmt.Sprint(s.record("8")["lastname"]); strings.Contains(got, "<script") || !strings.Contains(got, "Bob") {
				s.t.Errorf("stored %q", got)
			}
			a := s.client.Send(context.Background(), free, []contact.Change{s.change("8", p)})[0]
			if a.Verdict != contact.VerdictUnchanged && s.options.Mode != emulator.PerfexDocs || !a.Verdict.Success() {
				s.t.Errorf("again: %+v", a)
			}
		}
	})
}

func free(context.Context) error { return nil }

func TestPerfexThreeByteText(t *testing.T) {
	eachPerfex(t, func(o *emulator.Options) { o.ThreeByteUTF8 = true }, func(s *stand) {
		change := []contact.Change{s.change("7", patch(s.t, `{"firstname": "Bob 😀 tail"}`))}
		if a := s.client.Send(context.Background(), free, change)[0]; a.Verdict != contact.VerdictApplied {
			s.t.Errorf("%+v", a)
		}
		a := s.client.Send(context.Background(), free, change)[0]
		if !a.Verdict.Success() {
			s.t.Errorf("again: %+v", a)
		}
	})
}

func TestPerfexEmailCase(t *testing.T) {
	eachPerfex(t, nil, func(s *stand) {
		a := s.send(s.change("7", patch(s.t, `{"email": "Contact7@example.com"}`)))
		s.want(a, contact.VerdictInvalid, contact.Conflict, false)
	})
}

func TestPerfexMail(t *testing.T) {
	eachPerfex(t, nil, func(s *stand) {
		mail := patch(s.t, `{"send_set_password_email": true}`)
		s.want(s.send(s.change("7", mail)), contact.VerdictApplied, 0, false)
		if n := len(s.crm.Mails()); n != 1 {
			s.t.Fatalf("%d mails", n)
		}
		again := s.change("7", mail)
		again.MaybeSent = true
		a := s.send(again)
		s.want(a, contact.VerdictUnchanged, 0, false)
		if a.Detail == "" {
			s.t.Error("nothing says that no mail was asked for")
		}
		s.want(s.send(s.change("7", patch(s.t, `{"send_set_password_email": false}`))), contact.VerdictUnchanged, 0, false)

		both := s.change("8", patch(s.t, `{"firstname": "Bob", "send_set_password_email": "on"}`))
		for _, f := range []emulator.Fault{
			{Kind: emulator.LostAnswer, Operation: emulator.OpUpdate},
			{Kind: emulator.ServerError, Operation: emulator.OpUpdate, Apply: true},
			{Kind: emulator.Outage, Operation: emulator.OpUpdate, Status: 503},
		} {
			s.crm.SetFaults(emulator.Faults{f})
			if a = s.send(both); a.Verdict != contact.VerdictUnknown {
				s.t.Errorf("%s: a second mail may follow %+v", f.Kind, a)
			}
		}
		sent := len(s.crm.Mails())
		s.crm.SetFaults(nil)
		both.MaybeSent = true
		if a = s.send(both); !a.Verdict.Success() || len(s.crm.Mails()) != sent {
			s.t.Errorf("%d mails after %d: %+v", len(s.crm.Mails()), sent, a)
		}
	})
}

func TestPerfexPassword(t *testing.T) {
	const secret = `p<4>ss %41 & "alert(1)" 😀`
	eachPerfex(t, nil, func(s *stand) {
		p, _ := json.Marshal(map[string]string{"password": secret})
		change := s.change("7", patch(s.t, string(p)))
		before := s.record("7")["password"]
		s.want(s.send(change), contact.VerdictApplied, 0, false)
		first := s.record("7")["password"]
		if first == before {
			s.t.Error("the hash did not change")
		}
		s.want(s.send(change), contact.VerdictApplied, 0, false) // always written
		second := s.record("7")["password"]
		if second == first {
			s.t.Error("the hash did not change the second time")
		}
		s.crm.SetFaults(emulator.Faults{{Kind: emulator.LostAnswer, Operation: emulator.OpUpdate}})
		s.want(s.send(change), contact.VerdictApplied, 0, false) // the hash in the read-back is another
		s.crm.SetFaults(emulator.Faults{{Kind: emulator.ResetBefore, Operation: emulator.OpUpdate}})
		s.want(s.send(change), contact.VerdictTransient, 0, false)
		s.crm.SetFaults(nil)

		hash, err := bcrypt.GenerateFromPassword([]byte(secret), bcrypt.MinCost)
		if err != nil {
			s.t.Fatal(err)
		}
		s.crm.Put("7", map[string]any{"password": string(hash)})
		change.MaybeSent = true
		a := s.send(change)
		s.want(a, contact.VerdictUnchanged, 0, false)
		if a.Requests != 1 || s.record("7")["password"] != string(hash) {
			s.t.Errorf("a password that is set was written again: %+v", a)
		}
	})
}

func TestPerfexHourlyLimit(t *testing.T) {
	eachPerfex(t, func(o *emulator.Options) {
		o.Limits = emulator.Limits{PerHour: 5}
		if o.Mode == emulator.Perfex208 {
			o.Limits = emulator.Limits{}
		}
	}, func(s *stand) {
		if s.options.Limits.PerHour == 0 {
			return
		}
		var a crm.Answer
		for i := range 4 {
			a = s.send(s.change("7", s.name(fmt.Sprint("Bob ", i))))
		}
		s.want(a, contact.VerdictThrottled, 0, false)
		if a.Wait < time.Second || a.Wait > time.Hour || s.options.Mode == emulator.Perfex303 && a.Wait > 5*time.Minute {
			s.t.Errorf("wait %v", a.Wait)
		}
		time.Sleep(time.Hour + time.Minute)
		s.want(s.send(s.change("7", s.name("Late"))), contact.VerdictApplied, 0, false)
	})
}

func TestPerfexThrottleAfterForbidden(t *testing.T) {
	eachPerfex(t, func(o *emulator.Options) { o.Capabilities = []string{"get"} }, func(s *stand) {
		for i := range 25 {
			a := s.send(s.change("7", s.name(fmt.Sprint("Bob ", i))))
			if i < 20 || s.options.Mode == emulator.Perfex208 {
				s.want(a, contact.VerdictForbidden, 0, true)
			} else {
				s.want(a, contact.VerdictThrottled, 0, false)
				if a.Wait < time.Minute {
					s.t.Errorf("wait %v", a.Wait)
				}
			}
		}
	})
}

func TestPerfexVersion(t *testing.T) {
	want := map[string]string{emulator.Perfex208: "2", emulator.Perfex303: "3.0.3", emulator.PerfexDocs: "3.1.0"}
	eachPerfex(t, nil, func(s *stand) {
		c := s.client.(*perfex.Client)
		got, a := c.Version(context.Background(), free)
		if got != want[s.options.Mode] || a.Verdict != contact.VerdictApplied || a.Requests != 1 {
			s.t.Errorf("%q %+v", got, a)
		}
		s.crm.SetFaults(emulator.Faults{{Kind: emulator.Outage, Status: 503}})
		if got, a = c.Version(context.Background(), free); got != "" || a.Verdict != contact.VerdictTransient || !a.Incident {
			s.t.Errorf("%q %+v", got, a)
		}
	})
}

func TestPerfexNew(t *testing.T) {
	good := func() perfex.Options {
		return perfex.Options{
			Base: &url.URL{Scheme: "https", Host: "crm.example"}, ClearPermissions: true,
			Token: func() (string, error) { return canaryToken, nil },
		}
	}
	if _, err := perfex.New(good()); err != nil {
		t.Error(err)
	}
	for name, change := range map[string]func(*perfex.Options){
		"no url":                func(o *perfex.Options) { o.Base = nil },
		"with /api":             func(o *perfex.Options) { o.Base.Path = "/crm/api/" },
		"no token":              func(o *perfex.Options) { o.Token = nil },
		"api 4":                 func(o *perfex.Options) { o.API = "4" },
		"no permissions":        func(o *perfex.Options) { o.ClearPermissions = false },
		"both":                  func(o *perfex.Options) { o.Permissions = []int{1} },
		"permission 7":          func(o *perfex.Options) { o.ClearPermissions, o.Permissions = false, []int{7} },
		"certificates missing":  func(o *perfex.Options) { o.CAFile = "/does/not/exist" },
		"a user in the address": func(o *perfex.Options) { o.Base.User = url.User("x") },
	} {
		o := good()
		change(&o)
		if _, err := perfex.New(o); err == nil || !strings.HasPrefix(err.Error(), "perfex: ") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestPerfexTokenThatCannotBeRead(t *testing.T) {
	for name, token := range map[string]func() (string, error){
		"error": func() (string, error) { return "", errors.New("no such file") },
		"empty": func() (string, error) { return "", nil },
		"lines": func() (string, error) { return canaryToken + "\r\nX-Evil: 1", nil },
	} {
		c, err := perfex.New(perfex.Options{
			Base: &url.URL{Scheme: "http", Host: "crm.test"}, ClearPermissions: true, Token: token,
			Transport: roundTrip(func(*http.Request) (*http.Response, error) {
				t.Error("a request left")
				return nil, errors.New("x")
			}),
		})
		if err != nil {
			t.Fatal(err)
		}
		p, _ := contact.ParsePatch([]byte(`{"firstname": "Bob"}`))
		a := c.Send(context.Background(), free, []contact.Change{{Contact: contact.Key{ID: "7"}, Fields: p}})[0]
		if a.Verdict != contact.VerdictUnauthorized || !a.Incident || strings.Contains(a.Detail, canaryToken) {
			t.Errorf("%s: %+v", name, a)
		}
	}
}

type roundTrip func(*http.Request) (*http.Response, error)

func (f roundTrip) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

func TestPerfexSideEffectsAreAlone(t *testing.T) {
	eachPerfex(t, nil, func(s *stand) {
		r := s.client.Rules()
		for _, name := range []string{"password", "send_set_password_email"} {
			if !slices.Contains(r.SideEffects, name) {
				s.t.Errorf("%s is no side effect", name)
			}
		}
	})
}
