package worker

import (
	"sync"
	"testing"
	"time"

	"crmsync/contact"
)

// jobSet is a set of jobs that tests change while lanes ask.
type jobSet struct{ m sync.Map }

func (s *jobSet) has(u *contact.Update) bool { _, ok := s.m.Load(u.Job); return ok }
func (s *jobSet) add(job string)             { s.m.Store(job, true) }
func (s *jobSet) remove(job string)          { s.m.Delete(job) }

// pausing is a world whose jobs can be paused.
func pausing(w *world) *jobSet {
	paused := &jobSet{}
	w.o.Paused = paused.has
	return paused
}

func ofJob(job, id string, class contact.Class) contact.Update {
	return contact.Update{Contact: contact.Key{Target: "shop", ID: id}, Class: class, Job: job}
}

// What is paused before it is sent waits, also on a new owner, with whatever bulk
// stands behind it; live updates of the same contact go, and others' bulk. When
// the job is resumed it goes on, and older values do not come back.
func TestPaused(t *testing.T) {
	inBubble(t, func(w *world) {
		paused := pausing(w)
		paused.add("night")
		alone := w.q.publishUpdate(ofJob("night", "c1", contact.Bulk), "a")
		first := w.q.publishUpdate(ofJob("night", "c2", contact.Bulk), "a", "b")
		time.Sleep(time.Millisecond)
		live := w.q.publishUpdate(ofJob("", "c2", contact.Live), "a")
		behind := w.q.publishUpdate(ofJob("day", "c2", contact.Bulk), "c")
		other := w.q.publishUpdate(ofJob("day", "c3", contact.Bulk), "a")
		liveToo := w.q.publishUpdate(ofJob("night", "c4", contact.Live), "a")
		for range 2 {
			r := w.start()
			time.Sleep(time.Minute)
			for _, u := range []*stored{live, other, liveToo} {
				if e := w.q.outcome(u); e.Outcome != contact.Applied {
					t.Errorf("update %d, which is not paused: %s", u.n, e.Outcome)
				}
			}
			for _, u := range []*stored{alone, first, behind} {
				if e := w.q.outcome(u); e.Outcome != contact.Pending {
					t.Errorf("update %d, which waits for a paused job: %s", u.n, e.Outcome)
				}
			}
			if st := r.status(); st.Paused != 2 || st.State != "idle" || st.Waiting != "a paused job to be resumed" {
				t.Errorf("%d paused, %s, waits for %s", st.Paused, st.State, st.Waiting)
			}
			r.end()
		}
		r := w.start()
		time.Sleep(time.Second)
		paused.remove("night")
		r.l.Sweep()
		r.settleAll(time.Minute)
		if w.m.field("c2", "a") != live.n || w.m.field("c2", "b") != first.n || w.m.field("c2", "c") != behind.n || w.m.field("c1", "a") != alone.n {
			t.Error("not all that was paused has come, or an older value came back")
		}
	})
}

// A job that is paused while it waits in a lane's memory stops at the next sweep,
// one that is cancelled then ends, and a slot whose retry is due is set aside.
func TestPausedInMemory(t *testing.T) {
	inBubble(t, func(w *world) {
		paused, cancelled := pausing(w), &jobSet{}
		w.o.Cancelled = func(u *contact.Update) string {
			if cancelled.has(u) {
				return "cancelled"
			}
			return ""
		}
		w.o.Orders = Orders{Hold: true}
		w.m.plan = func(c *crmCall) fate {
			if c.change.Contact.ID == "c1" && c.n == 0 {
				return fails(contact.VerdictTransient, 500)
			}
			return fine
		}
		retried := w.q.publishUpdate(ofJob("night", "c1", contact.Bulk), "a")
		r := w.start()
		r.l.Steer(w.t.Context(), Orders{})
		time.Sleep(20 * time.Millisecond)
		waits := w.q.publishUpdate(ofJob("night", "c2", contact.Bulk), "a") // the bucket is empty for a moment
		for len(w.m.callsOf("")) == 0 {
			time.Sleep(time.Millisecond)
		}
		paused.add("night")
		r.l.Sweep()
		time.Sleep(time.Hour)
		if n := len(w.m.callsOf("")); n != 1 {
			t.Errorf("%d calls, all but the first of a paused job", n)
		}
		if st := r.status(); st.Paused != 2 || st.Retrying != 0 || st.Ready != 0 {
			t.Errorf("%+v", st)
		}
		cancelled.add("night")
		r.l.Sweep()
		r.settleAll(time.Minute)
		wantOutcome(t, w, retried, contact.Cancelled, contact.NoReason)
		wantOutcome(t, w, waits, contact.Cancelled, contact.NoReason)
	})
}

// What may have reached the CRM is not paused any more.
func TestTooLateToPause(t *testing.T) {
	inBubble(t, func(w *world) {
		w.o.Paused = func(*contact.Update) bool { return len(w.m.callsOf("")) > 0 }
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
		next := w.q.publish("c", contact.Bulk, "b")
		r.l.Sweep()
		time.Sleep(time.Hour)
		if e := w.q.outcome(u); !(e.Outcome == contact.Applied || e.Outcome == contact.Unchanged) {
			t.Errorf("%+v", e)
		}
		if e := w.q.outcome(next); e.Outcome != contact.Pending {
			t.Errorf("what came later and is paused: %+v", e)
		}
		r.end()
	})
}
