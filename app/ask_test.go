package app

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"crmsync/emulator"
	"crmsync/queue"
)

// The owner answers a few at a time, each once, and nothing that it cannot read.
func TestDesk(t *testing.T) {
	t.Parallel()
	h, a, end := dying(t)
	defer end()
	id := h.letters(a, DeadFilter{Reason: "conflict"})["1"].ID
	for _, raw := range []string{"", "x", "{}", `{"newer":1}`, `{"contact":7}`, `{"contact":"1"}`} {
		if b, ok, err := a.q.Ask(t.Context(), "office", []byte(raw)); err != nil || !ok || string(b) != "{}" {
			t.Errorf("%q is answered %s, %v, %v", raw, b, ok, err)
		}
	}
	h.office.SetFaults(emulator.Faults{{Kind: emulator.Latency, Operation: emulator.OpRead, Min: 300 * time.Millisecond}})
	ask := func(ticket int) (l Look) {
		q := question{Look: &lookOrder{Ticket: fmt.Sprint(ticket), Letter: id}}
		if ok, err := a.ask(t.Context(), "office", q, &l); err != nil || !ok {
			t.Fatalf("%v, %v", ok, err)
		}
		return l
	}
	for i := range looksMost {
		if l := ask(i); l.Done {
			t.Errorf("ticket %d: %+v at once", i, l)
		}
	}
	if l := ask(99); !l.Done || !strings.Contains(l.Err, "others are looking") {
		t.Errorf("one too many: %+v", l)
	}
	for i := range looksMost {
		l := ask(i)
		for !l.Done {
			l = ask(i)
		}
		if l.Err != "" || len(l.Differences) == 0 {
			t.Errorf("ticket %d: %+v", i, l)
		}
	}
	var other Look
	for !other.Done {
		q := question{Look: &lookOrder{Ticket: "other", Letter: h.letters(a, DeadFilter{Target: "shop"})["99"].ID}}
		if ok, err := a.ask(t.Context(), "office", q, &other); err != nil || !ok {
			t.Fatalf("%v, %v", ok, err)
		}
	}
	if !strings.Contains(other.Err, "is of target shop, not of office") {
		t.Errorf("a letter of another target: %+v", other)
	}
	if l := ask(0); l.Done { // told once; this is another look with the same ticket
		t.Errorf("told twice: %+v", l)
	}
}

// What the CRM does not answer is said, and no wish is repeated by itself.
func TestLookThatFails(t *testing.T) {
	t.Parallel()
	h, a, end := dying(t)
	defer end()
	id := h.letters(a, DeadFilter{Reason: "conflict"})["1"].ID
	h.office.SetFaults(emulator.Faults{{Kind: emulator.Outage, Status: 503}})
	before := len(h.office.Ledger())
	if _, err := a.LookAt(t.Context(), id); err == nil || !strings.Contains(err.Error(), "HTTP 503") {
		t.Errorf("%v", err)
	}
	if n := len(h.office.Ledger()) - before; n != 1 {
		t.Errorf("%d requests", n)
	}
}

// While a window of the quota is spent nothing is asked.
func TestLookWithinTheQuota(t *testing.T) {
	t.Parallel()
	h := newHouse(t, emulator.Options{Contacts: 3}, emulator.Options{}, "targets.office.quota.per_hour=2", "targets.office.quota.burst=2")
	a := h.open()
	defer a.Close()
	h.raw(a, "office", "1", `{"fields":{"email":"contact2@example.com"}}`) // a read and a write
	stop := h.work(a)
	defer stop()
	h.settled(a)
	id := h.letters(a, DeadFilter{})["1"].ID
	before := len(h.office.Ledger())
	if _, err := a.LookAt(t.Context(), id); err == nil || !strings.Contains(err.Error(), "the quota allows no request now") || len(h.office.Ledger()) != before {
		t.Errorf("%v", err)
	}
}

func TestLimitsOfLettersAreTheConfigurations(t *testing.T) {
	h := newHouse(t, emulator.Options{}, emulator.Options{}, "dead_letters.max_size=1MiB", "dead_letters.max_age=30d")
	want := queue.Retention{MaxAge: 30 * 24 * time.Hour, MaxBytes: 1 << 20}
	if got := (&App{cfg: h.cfg}).retention(); got != want {
		t.Errorf("%+v, want %+v", got, want)
	}
	h = newHouse(t, emulator.Options{}, emulator.Options{})
	if got := (&App{cfg: h.cfg}).retention(); got != (queue.Retention{}) {
		t.Errorf("%+v where nothing is set", got)
	}
}
