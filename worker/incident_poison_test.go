package worker

import (
	"strconv"
	"testing"
	"time"

	"crmsync/contact"
	"crmsync/emulator"
)

// A contact that the CRM breaks on stands first in line when an outage is over: the
// probes do not stay with it, the others are served, and it comes to its end.
func TestOutageEndsBesidePoison(t *testing.T) {
	onABadDay(t, emulator.Options{}, func(w *badDay) {
		const poison = 9000
		w.crm.SetFaults(emulator.Faults{{Kind: emulator.Outage}, {Kind: emulator.PoisonContact, Contact: strconv.Itoa(poison)}})
		bad := w.send(poison, contact.Live)
		r := w.start()
		for r.status().Hold == nil { // it alone begins the outage
			time.Sleep(time.Minute)
		}
		good := w.send(1, contact.Live)
		w.crm.SetFaults(emulator.Faults{{Kind: emulator.PoisonContact, Contact: strconv.Itoa(poison)}})
		time.Sleep(5 * time.Minute)
		if e := w.q.outcome(good); e.Outcome != contact.Applied {
			t.Fatalf("five minutes after the outage the other contact is %s; the lane: %+v", e.Outcome, r.status().Hold)
		}
		w.trickle(2, 400, 5*time.Second)
		w.over(r, time.Hour)
		if e := w.q.outcome(bad); e.Reason != contact.Exhausted {
			t.Errorf("the contact that fails for ever ended %s %s", e.Outcome, e.Reason)
		}
	})
}
