package crm_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"reflect"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"crmsync/contact"
	"crmsync/crm"
	"crmsync/crm/evance"
	"crmsync/crm/perfex"
	"crmsync/emulator"
)

// client is what both vendors' clients are to the rest of the program.
type client interface {
	Send(ctx context.Context, spend crm.Spend, changes []contact.Change) []crm.Answer
	Rules() contact.Rules
	Check(u *contact.Update) *contact.BadUpdate
	Labels() map[string]string
	Convert(field, text string) (json.RawMessage, error)
	CloseIdle()
}

// subject is one vendor and generation under test.
type subject struct {
	name    string
	perfex  bool
	crm     func(emulator.Options) *emulator.CRM
	open    func(http.RoundTripper) (client, error)
	options emulator.Options
	first   string // the field of the first name
	stored  string // the same in the emulator's record
}

const timeout = 10 * time.Second

// Canaries: none of these may stand in any text that leaves a client.
const (
	canaryToken  = "canary-token-5b1f"
	canaryKey    = "ca11ab1e5ec2e7ca11ab1e5ec2e7ca11ab1e5ec2e7ca11ab1e5ec2e7ca11ab1e"
	canaryClient = "c0ffee00c0ffee00c0ffee00c0ffee00.2.app.evance.me"
	canaryValue  = "Canary#1#Value"
)

func subjects() []subject {
	base := &url.URL{Scheme: "http", Host: "crm.test", Path: "/sub"}
	openPerfex := func(t http.RoundTripper) (client, error) {
		return perfex.New(perfex.Options{
			Base: base, Permissions: []int{1, 2, 3, 4, 5, 6}, Timeout: timeout, Transport: t, UserAgent: "crmsync/test",
			Token: func() (string, error) { return canaryToken, nil },
		})
	}
	openEvance := func(api string) func(http.RoundTripper) (client, error) {
		return func(t http.RoundTripper) (client, error) {
			return evance.New(evance.Options{
				Base: base, API: api, Timeout: timeout, Transport: t, UserAgent: "crmsync/test",
				Credentials: func() (evance.Credentials, error) {
					return evance.Credentials{Account: emulator.DefaultAccount, ClientID: canaryClient, PrivateKey: canaryKey}, nil
				},
			})
		}
	}
	var out []subject
	for _, mode := range []string{emulator.Perfex208, emulator.Perfex303, emulator.PerfexDocs} {
		out = append(out, subject{
			name: "perfex " + mode, perfex: true, crm: emulator.NewPerfex, open: openPerfex, first: "firstname", stored: "firstname",
			options: emulator.Options{Mode: mode, Token: canaryToken, Contacts: 40},
		})
	}
	for api, first := range map[string]string{"1": "firstname", "2": "firstName"} {
		out = append(out, subject{
			name: "evance v" + api, crm: emulator.NewEvance, open: openEvance(api), first: first, stored: "firstname",
			options: emulator.Options{ClientID: canaryClient, PrivateKey: canaryKey, Contacts: 40},
		})
	}
	return out
}

// stand is a client before an emulated CRM, in a bubble with its own clock.
type stand struct {
	subject
	t      *testing.T
	crm    *emulator.CRM
	client client
	spent  int
	broke  error // what spend answers
}

// eachSubject runs a test for both vendors and all generations.
func eachSubject(t *testing.T, f func(s *stand)) {
	for _, sub := range subjects() {
		t.Run(sub.name, func(t *testing.T) { sub.run(t, f) })
	}
}

func (sub subject) run(t *testing.T, f func(s *stand)) {
	synctest.Test(t, func(t *testing.T) {
		s := &stand{subject: sub, t: t, crm: sub.subjectCRM()}
		link := emulator.Serve(s.crm)
		tr := &http.Transport{DialContext: link.Dial, DisableCompression: true, MaxResponseHeaderBytes: crm.MaxHeader, IdleConnTimeout: 4 * time.Second}
		var err error
		if s.client, err = sub.open(tr); err != nil {
			t.Fatal(err)
		}
		defer func() {
			s.client.CloseIdle()
			s.crm.Close()
			link.Close()
		}()
		f(s)
	})
}

func (sub subject) subjectCRM() *emulator.CRM { return sub.crm(sub.options) }

func patchf(t testing.TB, s string, a ...any) contact.Patch {
	t.Helper()
	p, err := contact.ParsePatch(fmt.Appendf(nil, s, a...))
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// name is a change of the first name.
func (s *stand) name(value string) contact.Patch { return patchf(s.t, `{%q: %q}`, s.first, value) }

func (s *stand) change(id string, p contact.Patch) contact.Change {
	return contact.Change{Contact: contact.Key{Target: "t", ID: id}, Fields: p, Updates: 1}
}

// send makes one call and holds the answer against what the CRM saw: every
// request is counted and paid for, a success is stored, a failure is not, and
// no text holds a secret or a value.
func (s *stand) send(ch contact.Change) crm.Answer { return s.sendCtx(context.Background(), ch) }

func (s *stand) sendCtx(ctx context.Context, ch contact.Change) crm.Answer {
	s.t.Helper()
	before, spent := len(s.crm.Ledger()), s.spent
	answers := s.client.Send(ctx, func(context.Context) error {
		if s.broke == nil {
			s.spent++
		}
		return s.broke
	}, []contact.Change{ch})
	if len(answers) != 1 {
		s.t.Fatalf("%d answers to one change", len(answers))
	}
	a := answers[0]
	entries := s.crm.LedgerSince(before)
	if a.Requests != len(entries) || a.Requests > 0 && s.spent-spent != a.Requests-1 {
		s.t.Errorf("the answer counts %d requests, %d arrived, %d were paid beyond the first: %+v", a.Requests, len(entries), s.spent-spent, a)
	}
	s.audit(ch, a, entries)
	return a
}

func (s *stand) audit(ch contact.Change, a crm.Answer, entries []emulator.Entry) {
	s.t.Helper()
	applied, lied := false, false
	for _, e := range entries {
		applied = applied || e.Operation == emulator.OpUpdate && e.Applied
		lied = lied || e.Fault == string(emulator.Lie) || e.Fault == string(emulator.LateApply)
	}
	switch {
	case lied:
	case a.Verdict.Success() && !s.holds(ch):
		s.t.Errorf("%v, but the CRM does not hold it: %+v", a.Verdict, a)
	case a.Verdict == contact.VerdictUnchanged && applied && len(entries) == 1:
		s.t.Errorf("unchanged, but something was written: %+v", a)
	case !a.Verdict.Success() && a.Verdict != contact.VerdictUnknown && applied:
		s.t.Errorf("%v, but it was applied: %+v", a.Verdict, a)
	}
	if len(a.Detail) > crm.MaxDetail || strings.ContainsAny(a.Detail, "\n\r\x00\x1b") || a.Wait < 0 || a.Wait > crm.MaxWait {
		s.t.Errorf("unfit for a log: %+v", a)
	}
	all := fmt.Sprintf("%+v %#v %v", a, a, s.client)
	for _, canary := range append([]string{canaryToken, canaryKey, canaryClient}, crm.Values(ch.Fields)...) {
		if len(canary) >= 8 && strings.Contains(strings.ToLower(a.Detail+a.Field), strings.ToLower(canary)) ||
			strings.HasPrefix(canary, "ca") && len(canary) > 16 && strings.Contains(all, canary) {
			s.t.Errorf("%q stands in %s", canary, all)
		}
	}
}

// holds says whether the emulated CRM holds the texts of a change.
func (s *stand) holds(ch contact.Change) bool {
	rec, ok := s.crm.Contact(ch.Contact.ID)
	if !ok {
		return false
	}
	for _, f := range ch.Fields {
		var v any
		if json.Unmarshal(f.Value, &v) != nil {
			return false
		}
		name := f.Name
		if name == s.first {
			name = s.stored
		}
		text, ok := v.(string)
		if !ok || name == "is_primary" || name == "customer_id" || strings.HasSuffix(name, "_emails") || strings.Contains(name, "password") {
			continue
		}
		if !reflect.DeepEqual(rec[name], text) {
			return false
		}
	}
	return true
}

// want compares the parts of an answer that a worker acts on.
func (s *stand) want(a crm.Answer, v contact.Verdict, why contact.Reason, incident bool) {
	s.t.Helper()
	if a.Verdict != v || a.Reason != why || a.Incident != incident {
		s.t.Errorf("%v, reason %q, incident %v; want %v, %q, %v (%+v)", a.Verdict, a.Reason, a.Incident, v, why, incident, a)
	}
}

func patch(t testing.TB, s string) contact.Patch { t.Helper(); return patchf(t, "%s", s) }
