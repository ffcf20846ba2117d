package worker

import (
	"testing"
	"time"

	"crmsync/contact"
)

// What is cancelled before it is sent ends so, on a lane that holds at the
// next sweep, and takes nobody else with it.
func TestCancelled(t *testing.T) {
	inBubble(t, func(w *world) {
		cancelled := map[string]bool{}
		w.o.Cancelled = func(u *contact.Update) string {
			if cancelled[u.Job] {
				return "cancelled with its job"
			}
			return ""
		}
		w.o.Orders = Orders{Hold: true}
		key := func(id string) contact.Key { return contact.Key{Target: "shop", ID: id} }
		alone := w.q.publishUpdate(contact.Update{Contact: key("c1"), Class: contact.Bulk, Job: "night"}, "a")
		first := w.q.publishUpdate(contact.Update{Contact: key("c2"), Class: contact.Bulk, Job: "night"}, "a", "b")
		other := w.q.publishUpdate(contact.Update{Contact: key("c2"), Class: contact.Bulk}, "b")
		r := w.start()
		time.Sleep(time.Second)
		cancelled["night"] = true
		r.l.Sweep()
		time.Sleep(time.Second)
		if e := w.q.outcome(alone); e.Outcome != contact.Cancelled || e.Detail != "cancelled with its job" {
			t.Errorf("a cancelled update on a lane that holds: %+v", e)
		}
		if e := w.q.outcome(first); e.Outcome != contact.Pending {
			t.Errorf("one before another that is not cancelled: %+v", e)
		}
		r.l.Steer(w.t.Context(), Orders{})
		r.settleAll(time.Minute)
		wantOutcome(t, w, first, contact.Cancelled, contact.NoReason)
		wantOutcome(t, w, other, contact.Applied, contact.NoReason)
		if w.m.field("c2", "a") >= 0 || w.m.field("c1", "a") >= 0 {
			t.Error("a cancelled update reached the CRM")
		}
	})
}

// What may have reached the CRM cannot be cancelled any more.
func TestTooLateToCancel(t *testing.T) {
	inBubble(t, func(w *world) {
		w.o.Cancelled = func(u *contact.Update) string {
			if len(w.m.calls) > 0 {
				return "too late"
			}
			return ""
		}
		lost := fails(contact.VerdictUnknown, 0)
		lost.apply = true
		w.m.plan = func(c *crmCall) fate {
			if c.n == 0 {
				return lost
			}
			return fine
		}
		u := w.q.publish("c", contact.Bulk, "a")
		r := w.start()
		time.Sleep(time.Second)
		r.l.Sweep()
		r.settleAll(time.Hour)
		if e := w.q.outcome(u); !(e.Outcome == contact.Applied || e.Outcome == contact.Unchanged) || e.Resolved == contact.Unlost {
			t.Errorf("%+v", e)
		}
	})
}
