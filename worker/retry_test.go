package worker

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"crmsync/contact"
	"crmsync/crm"
)

func TestStepped(t *testing.T) {
	for i, want := range []time.Duration{10, 20, 40, 80, 160, 300, 300} {
		if got := stepped(10*time.Second, 300*time.Second, i); got != want*time.Second {
			t.Errorf("step %d is %v, want %v", i, got, want*time.Second)
		}
	}
	if got := stepped(10*time.Second, time.Second, 0); got != time.Second {
		t.Errorf("first above most: %v", got)
	}
	if got := stepped(time.Second, time.Hour, 1<<40); got != time.Hour {
		t.Errorf("a great step: %v", got)
	}
}

func TestJitter(t *testing.T) {
	l := &Lane{rng: rand.New(rand.NewPCG(1, 2))}
	lo, hi := time.Hour, time.Duration(0)
	for range 10000 {
		d := l.jitter(time.Second)
		lo, hi = min(lo, d), max(hi, d)
	}
	if lo < 50*time.Millisecond || lo > 60*time.Millisecond || hi > time.Second || hi < 990*time.Millisecond {
		t.Errorf("jitter of 1 s spans %v to %v", lo, hi)
	}
}

// others keeps a target visibly alive: a contact that succeeds now and then.
func (w *world) others(every time.Duration, n int) {
	go func() {
		for i := range n {
			w.q.publish(fmt.Sprintf("other%d", i%50), contact.Live, "a")
			select {
			case <-time.After(every):
			case <-w.t.Context().Done():
				return
			}
		}
	}()
}

func TestExhaustedAfterEightAttempts(t *testing.T) {
	for _, alive := range []bool{true, false} {
		t.Run(fmt.Sprintf("alive=%v", alive), func(t *testing.T) {
			inBubble(t, func(w *world) {
				w.m.plan = func(c *crmCall) fate {
					if c.change.Contact.ID == "poison" {
						f := fails(contact.VerdictTransient, 500)
						f.answer.Alive = alive
						return f
					}
					return fine
				}
				r := w.start()
				u := w.q.publish("poison", contact.Live, "a")
				if !alive {
					w.others(20*time.Second, 60)
				}
				time.Sleep(25 * time.Minute)
				wantOutcome(t, w, u, contact.Dead, contact.Exhausted)
				e := w.q.outcome(u)
				calls := w.m.callsOf("poison")
				if e.Attempts != 8 || len(e.Tries) != 8 || len(calls) != 8 || e.Status != 500 {
					t.Errorf("%d calls, ending %+v", len(calls), e)
				}
				for i := 1; i < len(calls); i++ {
					step := min(10*time.Second<<(i-1), 5*time.Minute)
					gap := calls[i].at.Sub(calls[i-1].end)
					if gap < step/20 || gap > step+2*time.Second {
						t.Errorf("wait %d is %v, want within 0.05 to 1 of %v", i, gap, step)
					}
				}
				if took := calls[7].at.Sub(calls[0].at); took < 3*time.Minute || took > 15*time.Minute {
					t.Errorf("eight attempts took %v", took)
				}
				for _, c := range w.m.callsOf("") {
					if c.change.Contact.ID != "poison" && c.at.Sub(w.q.byNumber[number(flat(c.change.Fields)["a"])].update.Stored) > time.Second {
						t.Errorf("%s waited for the one that fails", c.change.Contact)
					}
				}
				r.settleAll(time.Minute)
			})
		})
	}
}

// Several updates of a contact that always fails: each of those that write
// something ends, in bounded time, and none comes back.
func TestExhaustedMerge(t *testing.T) {
	inBubble(t, func(w *world) {
		w.m.plan = func(c *crmCall) fate {
			if c.change.Contact.ID == "poison" {
				return fails(contact.VerdictTransient, 500)
			}
			return fine
		}
		var all []*stored
		for range 1000 { // too many to try one by one
			all = append(all, w.q.publish("poison", contact.Live, "a"))
		}
		for i := range 4 {
			all = append(all, w.q.publish("poison", contact.Live, "a"))
			all = append(all, w.q.publish("poison", contact.Live, "a", fmt.Sprintf("f%d", i)))
		}
		r := w.start()
		w.others(5*time.Second, 1000)
		time.Sleep(80 * time.Minute)
		for _, u := range all {
			wantOutcome(t, w, u, contact.Dead, contact.Exhausted)
		}
		if n := len(w.m.callsOf("poison")); n > 50 {
			t.Errorf("%d calls", n)
		}
		r.settleAll(3 * time.Hour)
	})
}

func TestRecoversAfterFailures(t *testing.T) {
	inBubble(t, func(w *world) {
		w.m.plan = func(c *crmCall) fate {
			if c.n < 3 {
				return fails(contact.VerdictTransient, 500)
			}
			return fine
		}
		u := w.q.publish("c1", contact.Live, "a")
		r := w.start()
		r.wait(time.Hour)
		wantOutcome(t, w, u, contact.Applied, contact.NoReason)
		if e := w.q.outcome(u); e.Attempts != 4 || len(e.Tries) != 4 {
			t.Errorf("ending %+v", e)
		}
		if st := r.status(); st.Counts.Recovered != 1 || st.Counts.Retries != 3 {
			t.Errorf("counts %+v", st.Counts)
		}
		r.end()
	})
}

// What arrives while a contact waits for its retry goes with the retry.
func TestRetryMergesWhatArrived(t *testing.T) {
	inBubble(t, func(w *world) {
		w.m.plan = func(c *crmCall) fate {
			if c.n == 0 {
				f := fails(contact.VerdictTransient, 500)
				f.answer.Wait = 5 * time.Minute
				return f
			}
			return fine
		}
		u1 := w.q.publish("c1", contact.Live, "a")
		r := w.start()
		time.Sleep(time.Minute)
		if st := r.status(); st.Retrying != 1 || len(st.Retries) != 1 || st.Retries[0].Contact != "c1" ||
			st.Retries[0].Attempts != 1 || st.Retries[0].Status != 500 || st.Retries[0].Updates != 1 {
			t.Errorf("status %+v", st)
		}
		u2 := w.q.publish("c1", contact.Live, "a")
		r.settleAll(time.Hour)
		calls := w.m.callsOf("c1")
		if len(calls) != 2 || calls[1].change.Updates != 2 {
			t.Errorf("calls %+v", calls)
		}
		if gap := calls[1].at.Sub(calls[0].end); gap < 5*time.Minute || gap > 5*time.Minute+time.Second {
			t.Errorf("Retry-After of 5 min: the next call came after %v", gap)
		}
		wantOutcome(t, w, u1, contact.Superseded, contact.NoReason)
		wantOutcome(t, w, u2, contact.Applied, contact.NoReason)
	})
}

// An answer that fails as the target's fault, for one contact only, while
// others are served: it is excused for long, but not for ever.
func TestIncidentOfOneContactOnly(t *testing.T) {
	inBubble(t, func(w *world) {
		w.m.plan = func(c *crmCall) fate {
			if c.change.Contact.ID == "poison" {
				f := fails(contact.VerdictTransient, 502)
				f.answer.Incident = true
				return f
			}
			return fine
		}
		u := w.q.publish("poison", contact.Live, "a")
		r := w.start()
		w.others(20*time.Second, 3000)
		time.Sleep(30 * time.Minute)
		wantOutcome(t, w, u, contact.Pending, contact.NoReason)
		if n := len(w.m.callsOf("poison")); n > 20 {
			t.Errorf("%d calls in half an hour", n)
		}
		time.Sleep(5 * time.Hour)
		wantOutcome(t, w, u, contact.Dead, contact.Exhausted)
		r.settleAll(12 * time.Hour)
	})
}

func TestPanicIsContained(t *testing.T) {
	inBubble(t, func(w *world) {
		w.m.plan = func(c *crmCall) fate {
			f := fine
			f.panics = c.change.Contact.ID == "trap"
			return f
		}
		u := w.q.publish("trap", contact.Live, "a")
		r := w.start()
		w.others(5*time.Second, 400)
		time.Sleep(30 * time.Minute)
		wantOutcome(t, w, u, contact.Dead, contact.Protocol)
		r.settleAll(30 * time.Minute)
	})
}

func TestNoAnswerIsUnknown(t *testing.T) {
	inBubble(t, func(w *world) {
		sent := 0
		w.o.Sender = senderFunc(func() []crm.Answer {
			if sent++; sent == 1 {
				return nil
			}
			return []crm.Answer{{Verdict: contact.VerdictApplied, Status: 200}}
		})
		w.q.publish("c1", contact.Live, "mail")
		r := w.start()
		r.wait(time.Minute)
		if st := r.status(); st.Counts.Unknown != 1 {
			t.Errorf("counts %+v", st.Counts)
		}
		r.end()
		w.q.contacts = map[string]*storedContact{} // this sender is no model
	})
}

// What one part of a take has failed is not held against the next.
func TestAttemptsAreOfOnePart(t *testing.T) {
	inBubble(t, func(w *world) {
		bad := fails(contact.VerdictTransient, 500)
		bad.answer.Alive = true
		w.m.plan = func(c *crmCall) fate {
			switch {
			case c.n >= 1 && c.n < 6, // the half with the culprit, five times
				c.n >= 7 && c.n < 12,  // the culprit alone, five times
				c.n >= 13 && c.n < 19, // the newer of the others, six times
				c.n >= 20 && c.n < 24: // the older, four times
				return bad
			}
			return fine
		}
		u1 := w.q.publish("c1", contact.Live, "a")
		u2 := w.q.publish("c1", contact.Live, "b")
		u3 := w.q.publish("c1", contact.Live, "c=bad")
		w.start().settleAll(3 * time.Hour)
		wantOutcome(t, w, u1, contact.Applied, contact.NoReason)
		wantOutcome(t, w, u2, contact.Applied, contact.NoReason)
		wantOutcome(t, w, u3, contact.Dead, contact.Invalid)
		if n := len(w.m.callsOf("c1")); n != 25 {
			t.Errorf("%d calls, want 25", n)
		}
	})
}

// With little else sent, nothing but time tells a contact that always fails
// from an outage; it comes to its end nevertheless.
func TestExhaustedWithLittleTraffic(t *testing.T) {
	inBubble(t, func(w *world) {
		w.m.plan = func(c *crmCall) fate {
			if c.change.Contact.ID == "poison" {
				return fails(contact.VerdictTransient, 500)
			}
			return fine
		}
		u := w.q.publish("poison", contact.Live, "a")
		r := w.start()
		w.others(time.Hour, 48)
		time.Sleep(24 * time.Hour)
		wantOutcome(t, w, u, contact.Dead, contact.Exhausted)
		r.settleAll(48 * time.Hour)
	})
}
