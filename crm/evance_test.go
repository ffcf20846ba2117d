package crm_test

import (
	"reflect"
	"testing"
	"time"

	"crmsync/contact"
	"crmsync/emulator"
)

// eachEvance runs a test for both versions of the Evance API.
func eachEvance(t *testing.T, change func(*emulator.Options), f func(s *stand)) {
	for _, sub := range subjects() {
		if sub.perfex {
			continue
		}
		if change != nil {
			change(&sub.options)
		}
		t.Run(sub.name, func(t *testing.T) { sub.run(t, f) })
	}
}

func TestEvanceKeepsWhatItDoesNotName(t *testing.T) {
	eachEvance(t, nil, func(s *stand) {
		before := s.record("7")
		s.want(s.send(s.change("7", patch(s.t, `{"address": {"city": "York"}, "tags": {"contact": ["A", "B"]}}`))), contact.VerdictApplied, 0, false)
		after := s.record("7")
		for name, v := range before {
			switch name {
			case "address", "tags", "modifiedOn":
			default:
				if !reflect.DeepEqual(after[name], v) {
					s.t.Errorf("%s is %v, want %v", name, after[name], v)
				}
			}
		}
		was, is := before["address"].(map[string]any), after["address"].(map[string]any)
		for name, v := range was {
			if name == "city" {
				v = "York"
			}
			if !reflect.DeepEqual(is[name], v) {
				s.t.Errorf("address.%s is %v, want %v", name, is[name], v)
			}
		}
	})
}

// Roles are replaced whole, and found again however Evance shows them.
func TestEvanceRoles(t *testing.T) {
	eachEvance(t, nil, func(s *stand) {
		roles := patch(s.t, `{"accessRoles": ["customer", {"reference": "trade-account", "expires": "2030-01-01T00:00:00+00:00", "status": "active"}]}`)
		s.crm.SetFaults(emulator.Faults{{Kind: emulator.LostAnswer, Operation: emulator.OpUpdate}})
		s.want(s.send(s.change("7", roles)), contact.VerdictApplied, 0, false)
		s.crm.SetFaults(emulator.Faults{{Kind: emulator.ResetBefore, Operation: emulator.OpUpdate}})
		s.want(s.send(s.change("8", roles)), contact.VerdictTransient, 0, false)
		s.crm.SetFaults(nil)
		s.want(s.send(s.change("7", patch(s.t, `{"accessRoles": ["customer"]}`))), contact.VerdictApplied, 0, false)
		if got := s.record("7")["accessRoles"].(map[string]any); len(got) != 1 {
			s.t.Errorf("%v", got)
		}
		a := s.send(s.change("7", patch(s.t, `{"accessRoles": ["no-such-role"]}`)))
		s.want(a, contact.VerdictInvalid, contact.Invalid, false)
		if a.Field != "accessRoles" {
			s.t.Errorf("%+v", a)
		}
	})
}

func TestEvanceRulesOfTheCRM(t *testing.T) {
	eachEvance(t, nil, func(s *stand) {
		a := s.send(s.change("7", patch(s.t, `{"type": "branch", "company": ""}`)))
		s.want(a, contact.VerdictInvalid, contact.Invalid, false)
		if a.Field != "company" {
			s.t.Errorf("%+v", a)
		}
		s.want(s.send(s.change("7", patch(s.t, `{"type": "guest", "email": "contact8@example.com"}`))), contact.VerdictApplied, 0, false)
	})
}

// One token serves until it ends, and an end that came early costs one call.
func TestEvanceTokens(t *testing.T) {
	eachEvance(t, nil, func(s *stand) {
		for i, want := range []int{2, 1, 1} {
			if a := s.send(s.change("7", s.name("Bob "+string(rune('a'+i))))); a.Requests != want {
				s.t.Errorf("call %d: %+v", i, a)
			}
		}
		time.Sleep(59*time.Minute + 30*time.Second)
		a := s.send(s.change("7", s.name("Late")))
		s.want(a, contact.VerdictApplied, 0, false)
		if a.Requests != 2 {
			s.t.Errorf("at the end of its life: %+v", a)
		}
		s.crm.RevokeTokens()
		a = s.send(s.change("7", s.name("Revoked")))
		s.want(a, contact.VerdictApplied, 0, false)
		if a.Requests != 3 {
			s.t.Errorf("revoked: %+v", a)
		}
	})
	// A shop whose tokens are shorter than our skew still works.
	eachEvance(t, func(o *emulator.Options) { o.TokenLife = 20 * time.Second }, func(s *stand) {
		for i := range 5 {
			s.want(s.send(s.change("7", s.name("Bob "+string(rune('a'+i))))), contact.VerdictApplied, 0, false)
			time.Sleep(15 * time.Second)
		}
	})
}
