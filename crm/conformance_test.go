package crm_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"crmsync/contact"
	"crmsync/crm"
	"crmsync/emulator"
)

func TestApplied(t *testing.T) {
	eachSubject(t, func(s *stand) {
		s.want(s.send(s.change("7", s.name(canaryValue))), contact.VerdictApplied, 0, false)
		a := s.send(s.change("7", s.name(canaryValue)))
		if s.perfex {
			s.want(a, contact.VerdictUnchanged, 0, false)
			if a.Requests != 1 {
				s.t.Errorf("nothing to write cost %d requests", a.Requests)
			}
		} else {
			s.want(a, contact.VerdictApplied, 0, false)
		}
		if st := s.crm.Stats(); st.Applied != 1 {
			s.t.Errorf("%d writes changed something, want 1", st.Applied)
		}
	})
}

func TestManyChangesInOneSend(t *testing.T) {
	eachSubject(t, func(s *stand) {
		changes := []contact.Change{s.change("1", s.name("One")), s.change("99", s.name("Two")), s.change("x", s.name("Three")), s.change("2", s.name("Four"))}
		paid := 0
		answers := s.client.Send(context.Background(), func(context.Context) error { paid++; return nil }, changes)
		want := []contact.Verdict{contact.VerdictApplied, contact.VerdictMissing, contact.VerdictInvalid, contact.VerdictApplied}
		total := 0
		for i, a := range answers {
			total += a.Requests
			if a.Verdict != want[i] {
				s.t.Errorf("change %d: %+v, want %v", i, a, want[i])
			}
		}
		if len(answers) != 4 || total != len(s.crm.Ledger()) || paid != total-1 {
			s.t.Errorf("%d answers, %d requests counted, %d arrived, %d paid", len(answers), total, len(s.crm.Ledger()), paid)
		}
		if got := s.client.Send(context.Background(), nil, nil); len(got) != 0 {
			s.t.Errorf("%d answers to nothing", len(got))
		}
	})
}

func TestRefusals(t *testing.T) {
	eachSubject(t, func(s *stand) {
		a := s.send(s.change("77", s.name("Bob")))
		s.want(a, contact.VerdictMissing, contact.Missing, false)
		a = s.send(s.change("7", patch(s.t, `{"email": "contact8@example.com"}`)))
		s.want(a, contact.VerdictInvalid, contact.Conflict, false)
		if a.Field != "email" {
			s.t.Errorf("field %q, want email", a.Field)
		}
		before := len(s.crm.Ledger())
		for _, id := range []string{"", ".", "..", "1/../2", "%2e%2e", "1?x=1", "1#f", "007", "0", "-1", "abc"} {
			a := s.send(s.change(id, s.name("Bob")))
			s.want(a, contact.VerdictInvalid, contact.Invalid, false)
		}
		for _, p := range []string{`{"nonsense": 1}`, `{"id": "8"}`, `{"email": 5}`} {
			s.want(s.send(s.change("7", patch(s.t, p))), contact.VerdictInvalid, contact.Invalid, false)
		}
		if n := len(s.crm.Ledger()) - before; n != 0 {
			s.t.Errorf("%d requests were spent on what can be refused without", n)
		}
	})
}

func TestThrottled(t *testing.T) {
	for form, want := range map[emulator.RetryAfter]time.Duration{
		emulator.RetryNone: 0, emulator.RetrySeconds: 40 * time.Second, emulator.RetryDate: 40 * time.Second, emulator.RetryGarbage: 0,
	} {
		t.Run(string(form), func(t *testing.T) {
			eachSubject(t, func(s *stand) {
				s.crm.SetFaults(emulator.Faults{{Kind: emulator.TooMany, RetryAfter: form, RetryIn: 40 * time.Second}})
				a := s.send(s.change("7", s.name("Bob")))
				s.want(a, contact.VerdictThrottled, 0, false)
				if a.Wait < want-time.Second || a.Wait > want+time.Second {
					s.t.Errorf("wait %v, want about %v", a.Wait, want)
				}
				s.crm.SetFaults(emulator.Faults{{Kind: emulator.Outage, Status: 503, RetryAfter: form, RetryIn: 40 * time.Second}})
				a = s.send(s.change("7", s.name("Bob")))
				if want > 0 {
					s.want(a, contact.VerdictThrottled, 0, false)
				} else {
					s.want(a, contact.VerdictTransient, 0, true)
				}
			})
		})
	}
}

func TestCredentials(t *testing.T) {
	eachSubject(t, func(s *stand) {
		s.want(s.send(s.change("7", s.name("Bob"))), contact.VerdictApplied, 0, false)
		s.crm.SetFaults(emulator.Faults{{Kind: emulator.DeadToken}})
		s.want(s.send(s.change("7", s.name("Bea"))), contact.VerdictUnauthorized, 0, true)
		s.crm.SetFaults(emulator.Faults{{Kind: emulator.Forbidden}})
		s.want(s.send(s.change("7", s.name("Bea"))), contact.VerdictForbidden, 0, true)
		s.crm.SetFaults(emulator.Faults{{Kind: emulator.ModuleOff}})
		a := s.send(s.change("7", s.name("Bea")))
		if v := a.Verdict; v != contact.VerdictUnauthorized && v != contact.VerdictForbidden || !a.Incident {
			s.t.Errorf("module off: %+v", a)
		}
		s.crm.SetFaults(nil)
		s.want(s.send(s.change("7", s.name("Bea"))), contact.VerdictApplied, 0, false)
		s.crm.SetToken("another-one")
		s.crm.RevokeTokens()
		s.want(s.send(s.change("7", s.name("Bob"))), contact.VerdictUnauthorized, 0, true)
	})
}

// An answer that is lost after the CRM did the work is found out by reading;
// where reading is not possible either, nobody knows.
func TestLostAnswers(t *testing.T) {
	for _, f := range []emulator.Fault{
		{Kind: emulator.LostAnswer},
		{Kind: emulator.CutBody},
		{Kind: emulator.HugeBody, Size: 100_000},
		{Kind: emulator.GzipBomb, Size: 1 << 20},
		{Kind: emulator.SlowBody},
		{Kind: emulator.Garbage, Body: emulator.LoginPage, Apply: true},
		{Kind: emulator.Garbage, Body: emulator.Noise, Apply: true},
		{Kind: emulator.Garbage, Body: emulator.Truncated, Apply: true},
		{Kind: emulator.Garbage, Body: emulator.Empty, Apply: true},
		{Kind: emulator.Garbage, Body: emulator.WrongJSON, Apply: true},
		{Kind: emulator.Garbage, Body: emulator.Failure, Apply: true},
		{Kind: emulator.Garbage, Body: emulator.Empty, Status: 202, Apply: true},
		{Kind: emulator.ServerError, Status: 502, Apply: true},
		{Kind: emulator.ServerError, Status: 504, Apply: true},
		{Kind: emulator.ServerError, Status: 524, Apply: true},
		{Kind: emulator.Latency, Min: timeout + time.Minute},
	} {
		t.Run(fmt.Sprintf("%s %s %d", f.Kind, f.Body, f.Status), func(t *testing.T) {
			eachSubject(t, func(s *stand) {
				f.Operation = emulator.OpUpdate
				s.crm.SetFaults(emulator.Faults{f})
				a := s.send(s.change("7", s.name(canaryValue)))
				if f.Kind == emulator.Latency && !s.holds(s.change("7", s.name(canaryValue))) {
					s.want(a, contact.VerdictUnknown, 0, false) // the CRM is still at it
				} else {
					s.want(a, contact.VerdictApplied, 0, false)
				}
				writes := 0
				for _, e := range s.crm.Ledger() {
					if e.Operation == emulator.OpUpdate {
						writes++
					}
				}
				if writes != 1 {
					s.t.Errorf("%d writes", writes)
				}

				s.crm.SetFaults(emulator.Faults{f, {Kind: emulator.Outage, Operation: emulator.OpRead, Count: 0}})
				if s.perfex { // its first read must pass for there to be a write
					s.crm.SetFaults(emulator.Faults{f, {Kind: emulator.Outage, Operation: emulator.OpRead, From: time.Millisecond}, {Kind: emulator.Latency, Operation: emulator.OpUpdate, Min: 2 * time.Millisecond}})
				}
				a = s.send(s.change("8", s.name(canaryValue)))
				if a.Verdict != contact.VerdictUnknown {
					s.t.Errorf("read-back impossible: %+v", a)
				}
				s.crm.SetFaults(nil)
				time.Sleep(2 * time.Minute)
				again := s.change("8", s.name(canaryValue))
				again.MaybeSent = true
				if a = s.send(again); !a.Verdict.Success() {
					s.t.Errorf("again: %+v", a)
				}
			})
		})
	}
}

// What the CRM did not do, and does not say, is not unknown for long either.
func TestNotApplied(t *testing.T) {
	for _, tt := range []struct {
		fault    emulator.Fault
		verdict  contact.Verdict
		reason   contact.Reason
		incident bool
	}{
		{emulator.Fault{Kind: emulator.ResetBefore}, contact.VerdictTransient, 0, false},
		{emulator.Fault{Kind: emulator.Garbage, Body: emulator.LoginPage}, contact.VerdictTransient, contact.Protocol, false},
		{emulator.Fault{Kind: emulator.Garbage, Body: emulator.Empty}, contact.VerdictTransient, contact.Protocol, false},
		{emulator.Fault{Kind: emulator.Garbage, Body: emulator.Failure}, contact.VerdictTransient, contact.Protocol, false},
		{emulator.Fault{Kind: emulator.ServerError}, contact.VerdictTransient, 0, false},
		{emulator.Fault{Kind: emulator.PoisonContact, Contact: "7"}, contact.VerdictTransient, 0, false},
		{emulator.Fault{Kind: emulator.Outage, Status: 503}, contact.VerdictTransient, 0, true},
		{emulator.Fault{Kind: emulator.Outage, Status: 502}, contact.VerdictTransient, 0, true},
		{emulator.Fault{Kind: emulator.Outage, Status: 504}, contact.VerdictUnknown, 0, true},
		{emulator.Fault{Kind: emulator.Garbage, Body: emulator.LoginPage, Status: 404}, contact.VerdictTransient, 0, true},
	} {
		t.Run(fmt.Sprintf("%s %s %d", tt.fault.Kind, tt.fault.Body, tt.fault.Status), func(t *testing.T) {
			eachSubject(t, func(s *stand) {
				tt.fault.Operation = emulator.OpUpdate
				s.crm.SetFaults(emulator.Faults{tt.fault})
				a := s.send(s.change("7", s.name(canaryValue)))
				s.want(a, tt.verdict, tt.reason, tt.incident)
				if a.Alive != (s.perfex || readBack(s.crm)) {
					s.t.Errorf("alive %v ", a.Alive)
				}
			})
		})
	}
}

func TestReadsAndOutages(t *testing.T) {
	eachSubject(t, func(s *stand) {
		s.crm.SetFaults(emulator.Faults{{Kind: emulator.Outage}})
		a := s.send(s.change("7", s.name("Bob")))
		if a.Verdict != contact.VerdictTransient || a.Requests != 1 {
			s.t.Errorf("%+v", a)
		}
		s.crm.SetFaults(emulator.Faults{{Kind: emulator.Latency, Min: time.Minute}})
		start := time.Now()
		a = s.send(s.change("7", s.name("Bob")))
		if a.Verdict != contact.VerdictTransient || time.Since(start) != timeout || a.Incident == s.perfex {
			// Evance's first request is for a token: that it hangs is the target's fault.
			s.t.Errorf("after %v: %+v", time.Since(start), a)
		}
	})
}

func TestRedirects(t *testing.T) {
	for _, status := range []int{301, 302, 303, 307, 308} {
		for _, op := range []emulator.Operation{emulator.OpUpdate, emulator.OpRead, emulator.OpToken, ""} {
			eachSubject(t, func(s *stand) {
				if s.perfex && op == emulator.OpToken || !s.perfex && op == emulator.OpRead {
					return
				}
				s.crm.SetFaults(emulator.Faults{{Kind: emulator.Redirect, Status: status, Operation: op, URL: "http://crm.test/elsewhere"}})
				s.want(s.send(s.change("7", s.name("Bob"))), contact.VerdictTransient, 0, true)
				for _, e := range s.crm.Ledger() {
					if e.Path == "/elsewhere" {
						s.t.Error("the redirect was followed")
					}
				}
			})
		}
	}
}

// A quota that runs out in the middle of a call leaves nothing half known.
func TestSpendRefuses(t *testing.T) {
	eachSubject(t, func(s *stand) {
		s.broke = context.Canceled
		a := s.send(s.change("7", s.name("Bob"))) // after the read, or after the token
		s.want(a, contact.VerdictTransient, 0, false)
		if a.Requests != 1 {
			s.t.Errorf("%d requests", a.Requests)
		}
		s.broke = nil
		if !s.perfex {
			s.want(s.send(s.change("7", s.name("Bob"))), contact.VerdictApplied, 0, false)
			s.crm.SetFaults(emulator.Faults{{Kind: emulator.LostAnswer, Operation: emulator.OpUpdate}})
			s.broke = errors.New("spent")
			s.want(s.send(s.change("7", s.name("Bea"))), contact.VerdictUnknown, 0, false)
		}
		ctx, cancel := context.WithCancel(context.Background())
		cancel()
		a = s.sendCtx(ctx, s.change("7", s.name("Cleo")))
		s.want(a, contact.VerdictTransient, 0, false)
		if a.Requests != 0 {
			s.t.Errorf("%d requests after the stop", a.Requests)
		}
	})
}

// A stop in the middle of a write leaves it unknown, and reads nothing back.
func TestStopDuringWrite(t *testing.T) {
	eachSubject(t, func(s *stand) {
		s.want(s.send(s.change("7", s.name("Bob"))), contact.VerdictApplied, 0, false)
		s.crm.SetFaults(emulator.Faults{{Kind: emulator.Latency, Operation: emulator.OpUpdate, Min: 5 * time.Second}})
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		a := s.sendCtx(ctx, s.change("7", s.name("Bea")))
		s.want(a, contact.VerdictUnknown, 0, false)
		for _, e := range s.crm.LedgerSince(len(s.crm.Ledger()) - 1) {
			if e.Operation != emulator.OpUpdate {
				s.t.Errorf("%s after the stop", e.Operation)
			}
		}
		time.Sleep(time.Minute)
	})
}

// Any mix of faults: the audit of send is the test. Values carry the number of
// their update; the last one that was answered as a success is what the CRM
// holds in the end.
func TestRandomFaults(t *testing.T) {
	kinds := []emulator.Kind{
		emulator.ServerError, emulator.TooMany, emulator.LostAnswer, emulator.ResetBefore, emulator.DeadToken, emulator.Forbidden,
		emulator.Garbage, emulator.SlowBody, emulator.HugeBody, emulator.GzipBomb, emulator.CutBody, emulator.Outage, emulator.Redirect,
	}
	bodies := []emulator.Nonsense{emulator.Noise, emulator.LoginPage, emulator.Truncated, emulator.Empty, emulator.WrongJSON, emulator.Failure}
	for seed := range uint64(4) {
		eachSubject(t, func(s *stand) {
			rng := rand.New(rand.NewPCG(seed, 7))
			seen := map[contact.Verdict]int{}
			for i := range 60 {
				var plan emulator.Faults
				for _, k := range kinds {
					if rng.IntN(4) > 0 {
						continue
					}
					f := emulator.Fault{Kind: k, Probability: 0.1 + 0.4*rng.Float64(), Apply: rng.IntN(2) == 0, Size: 70_000}
					switch k {
					case emulator.Garbage:
						f.Body, f.Status = bodies[rng.IntN(len(bodies))], []int{0, 0, 201, 202, 404, 409, 422, 500}[rng.IntN(8)]
					case emulator.ServerError:
						f.Status = []int{500, 502, 503, 504, 520}[rng.IntN(5)]
					case emulator.Redirect:
						f.URL, f.Apply = "http://evil.test/", false
					}
					// A CRM that does the work and then says in its own words
					// that it refused it cannot be seen through.
					if f.Kind == emulator.Garbage && f.Status >= 400 || f.Kind == emulator.ServerError && !crm.Lost(f.Status) {
						f.Apply = false
					}
					plan = append(plan, f)
				}
				s.crm.SetFaults(plan)
				a := s.send(s.change("7", s.name(fmt.Sprintf("Canary#%d#x", i))))
				seen[a.Verdict]++
				if s.t.Failed() {
					s.t.Fatalf("seed %d, call %d, plan %+v", seed, i, plan)
				}
			}
			if seen[contact.VerdictApplied] == 0 || len(seen) < 4 {
				s.t.Errorf("the faults tested little: %v", seen)
			}
		})
	}
}

func TestConversionsPassCheck(t *testing.T) {
	eachSubject(t, func(s *stand) {
		fields := map[string]bool{}
		for label, field := range s.client.Labels() {
			if label == "" || field == "" {
				s.t.Errorf("label %q for field %q", label, field)
			}
			fields[field] = true
		}
		for _, field := range []string{"email", s.first} {
			if !fields[field] {
				s.t.Errorf("no label for %s", field)
			}
		}
		if got := s.client.Labels()["First Name"]; got != s.first {
			s.t.Errorf("First Name is %q", got)
		}
		if _, err := s.client.Convert("nonsense", "x"); err == nil {
			s.t.Error("an unknown field was converted")
		}
	})
}

// Every rule names a field that exists.
func TestRulesAreOfThisCRM(t *testing.T) {
	eachSubject(t, func(s *stand) {
		r := s.client.Rules()
		known := slices.Collect(func(yield func(string) bool) {
			for _, f := range s.client.Labels() {
				if !yield(f) {
					return
				}
			}
		})
		for _, name := range r.SideEffects {
			if !slices.Contains(known, name) {
				s.t.Errorf("side effect %s is no field", name)
			}
		}
	})
}

// readBack says whether the CRM has answered a read in order.
func readBack(c *emulator.CRM) bool {
	return slices.ContainsFunc(c.Ledger(), func(e emulator.Entry) bool {
		return e.Operation == emulator.OpRead && e.Status == 200
	})
}
