package worker

import (
	"context"
	"fmt"
	"testing"
	"time"

	"crmsync/contact"
	"crmsync/crm"
)

func (p prober) Probe(ctx context.Context, spend crm.Spend, _ contact.Key) crm.Answer {
	*p.reads = append(*p.reads, time.Now())
	pause(ctx, 50*time.Millisecond)
	a := p.read()
	a.Requests = 1
	return a
}

func (w *world) probes(read func() crm.Answer) *[]time.Time {
	reads := &[]time.Time{}
	w.o.Sender = prober{crmModel: w.m, reads: reads, read: read}
	return reads
}

// The probes of an outage are reads; one change alone follows the first that
// is answered, and the ramp follows that.
func TestProbesRead(t *testing.T) {
	inBubble(t, func(w *world) {
		born := time.Now()
		w.m.plan = during(0, time.Hour, incident())
		reads := w.probes(func() crm.Answer {
			if time.Since(born) < time.Hour {
				return crm.Answer{Verdict: contact.VerdictTransient, Incident: true}
			}
			return crm.Answer{Verdict: contact.VerdictMissing} // an answer all the same
		})
		w.contacts(0, 200, "a")
		w.start().settleAll(2 * time.Hour)
		if n := len(between(w.m.callsOf(""), born, time.Minute, time.Hour)); n != 0 {
			t.Errorf("%d changes were sent during the outage", n)
		}
		if n := len(*reads); n < 100 {
			t.Errorf("%d reads in an hour", n)
		}
		after := between(w.m.callsOf(""), born, time.Hour, 2*time.Hour)
		if after[1].at.Before(after[0].end) {
			t.Error("the first change was not alone")
		}
	})
}

// A CRM that reads and does not write is not asked to write more often than
// the probes come, and the hold does not flap.
func TestReadableButBroken(t *testing.T) {
	inBubble(t, func(w *world) {
		born := time.Now()
		w.m.plan = during(0, time.Hour, fails(contact.VerdictTransient, 500))
		reads := w.probes(func() crm.Answer { return crm.Answer{Verdict: contact.VerdictUnchanged, Status: 200} })
		w.contacts(0, 200, "a")
		r := w.start()
		time.Sleep(59 * time.Minute)
		if n := r.status().Counts.Holds[HoldOutage]; n != 1 {
			t.Errorf("%d holds", n)
		}
		writes := len(between(w.m.callsOf(""), born, time.Minute, time.Hour))
		if n := len(*reads); writes > n || n > 260 {
			t.Errorf("%d writes and %d reads in an hour", writes, n)
		}
		r.settleAll(time.Hour)
	})
}

// An incident that comes back soon is not asked as often as at first.
func TestFlapping(t *testing.T) {
	inBubble(t, func(w *world) {
		born := time.Now()
		n := 0
		w.m.plan = func(c *crmCall) fate {
			if n++; c.at.Sub(born) < 2*time.Hour && n%20 != 0 {
				return incident()
			}
			return fine
		}
		w.contacts(0, 2000, "a")
		r := w.start()
		time.Sleep(2 * time.Hour)
		st := r.status()
		if calls := len(w.m.callsOf("")); calls > 1000 {
			t.Errorf("%d calls in two hours, %d holds", calls, st.Counts.Holds[HoldOutage])
		}
		r.settleAll(2 * time.Hour)
		if w.dead() != 0 {
			t.Errorf("%d are dead", w.dead())
		}
	})
}

// A successor does not ask what the lane before had found out, and does not
// forget what it was told to wait for.
func TestHoldOutlivesTheLane(t *testing.T) {
	for name, tt := range map[string]struct {
		bad   fate
		hold  HoldReason
		calls int // that the successors may make in ten minutes, ten restarts included
	}{
		"outage":      {incident(), HoldOutage, 60},
		"credentials": {fails(contact.VerdictUnauthorized, 401), HoldCredentials, 22},
		"forbidden":   {fails(contact.VerdictForbidden, 403), HoldCredentials, 21},
		"throttled": {func() fate {
			f := fails(contact.VerdictThrottled, 429)
			f.answer.Wait = 30 * time.Minute
			return f
		}(), HoldThrottled, 0},
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(w *world) {
				w.o.Quota.Concurrency = 1
				w.m.plan = during(0, 20*time.Minute, tt.bad)
				w.contacts(0, 30, "a")
				r := w.start()
				time.Sleep(5 * time.Minute)
				since := wantHold(w.t, r.status(), tt.hold).Since
				before := len(w.m.callsOf(""))
				for range 10 {
					w.o.Memory = roundTrip(w.t, r.status()).Memory
					r.kill()
					<-r.done
					r = w.start()
					time.Sleep(time.Minute)
					if h := wantHold(w.t, r.status(), tt.hold); !h.Since.Equal(since) || len(h.Evidence) == 0 {
						t.Errorf("the hold began %s and has %d pieces of evidence", h.Since, len(h.Evidence))
					}
				}
				if n := len(w.m.callsOf("")) - before; n > tt.calls {
					t.Errorf("%d calls in ten minutes with ten restarts, want at most %d", n, tt.calls)
				}
				r.settleAll(time.Hour)
				if w.dead() != 0 {
					t.Errorf("%d are dead", w.dead())
				}
			})
		})
	}
}

// A new process may have been given what the old one lacked: it asks soon.
func TestRestartAsksSoon(t *testing.T) {
	inBubble(t, func(w *world) {
		w.m.plan = during(0, 11*time.Minute, fails(contact.VerdictForbidden, 403))
		w.contacts(0, 3, "a")
		r := w.start()
		time.Sleep(11*time.Minute + 45*time.Second)
		h := wantHold(w.t, r.status(), HoldCredentials)
		if time.Until(h.NextProbe) < time.Minute {
			t.Fatalf("the next probe comes in %s: the test shows nothing", time.Until(h.NextProbe))
		}
		w.o.Memory = roundTrip(w.t, r.status()).Memory
		r.end()
		w.start().settleAll(5 * time.Second)
	})
}

func TestContactStatus(t *testing.T) {
	inBubble(t, func(w *world) {
		w.m.plan = func(c *crmCall) fate {
			if c.change.Contact.ID == "sick" {
				return fails(contact.VerdictTransient, 500)
			}
			return fine
		}
		u := w.q.publish("sick", contact.Live, "a")
		r := w.start()
		time.Sleep(time.Second)
		v := w.q.publish("sick", contact.Bulk, "b")
		time.Sleep(time.Second)
		st, ok := r.l.Contact(w.t.Context(), "sick")
		if !ok || st.State != "waiting" || st.Attempts != 1 || len(st.Tries) != 1 || st.Due.IsZero() || st.Sent != 1 ||
			fmt.Sprint(st.Updates) != fmt.Sprint([]contact.Ref{{ID: "sick", Class: contact.Live, Seq: u.update.Seq}, {ID: "sick", Class: contact.Bulk, Seq: v.update.Seq}}) {
			t.Errorf("%v %+v", ok, st)
		}
		if st, ok = r.l.Contact(w.t.Context(), "nobody"); !ok || st.State != "" || st.Waiting == "" {
			t.Errorf("%v %+v", ok, st)
		}
		r.l.Steer(w.t.Context(), Orders{Hold: true})
		if st, _ = r.l.Contact(w.t.Context(), "sick"); st.Hold == nil || st.Hold.Reason != HoldOperator {
			t.Errorf("%+v", st)
		}
		r.kill()
		<-r.done
		if _, ok = r.l.Contact(w.t.Context(), "sick"); ok {
			t.Error("a lane that has ended answers")
		}
	})
}

// Writes fail while reads are answered, and most rows need none: that is an
// outage of writes, and nobody is dead for it.
func TestWriteOutageAmongEqualRows(t *testing.T) {
	inBubble(t, func(w *world) {
		born, n := time.Now(), 0
		w.o.Quota.Rate = 5
		w.m.plan = func(c *crmCall) fate {
			if _, err := fmt.Sscanf(c.change.Contact.ID, "c%d", &n); err == nil && n%10 != 0 {
				return readOnly()
			}
			if c.at.Sub(born) < 30*time.Minute {
				f := fails(contact.VerdictTransient, 500)
				f.answer.Alive = true
				return f
			}
			return fine
		}
		r := w.start()
		for i := range 3600 {
			w.contacts(i, 1, "a")
			time.Sleep(500 * time.Millisecond)
		}
		r.settleAll(time.Hour)
		if n := w.dead(); n != 0 {
			t.Errorf("%d are dead", n)
		}
		if writes := len(w.m.callsOf("")); writes > 3600+1500 {
			t.Errorf("%d calls for 3600 updates", writes)
		}
		w.m.contacts = map[string]*crmContact{} // the plan decided, not the values
		w.q.contacts = map[string]*storedContact{}
	})
}

// What was said before the hold began, last month perhaps, asks for no probe.
func TestOldResumeAsksForNoProbe(t *testing.T) {
	inBubble(t, func(w *world) {
		w.m.plan = func(*crmCall) fate { return fails(contact.VerdictForbidden, 403) }
		w.contacts(0, 10, "a")
		w.o.Orders = Orders{Since: time.Now().Add(-24 * time.Hour), By: "ann"}
		r := w.start()
		time.Sleep(time.Second)
		for range 30 {
			w.o.Memory = roundTrip(w.t, r.status()).Memory
			r.end()
			r = w.start()
			time.Sleep(time.Second)
		}
		if n := len(w.m.callsOf("")); n > 4+3 {
			t.Errorf("%d calls in half a minute of a missing permission, with 30 restarts", n)
		}
		w.o.Memory = roundTrip(w.t, r.status()).Memory
		r.end()
		w.o.Orders.Since = time.Now() // but whoever says so while nobody runs it is heard
		before := len(w.m.callsOf(""))
		w.start()
		time.Sleep(time.Second)
		if n := len(w.m.callsOf("")) - before; n != 1 {
			t.Errorf("%d probes after a resume between two lanes", n)
		}
	})
}
