package worker

import (
	"encoding/json"
	"fmt"
	"testing"
	"time"

	"crmsync/contact"
	"crmsync/crm"
)

// refuses is a fate that refuses the change for good, in the same words but
// for what differs from contact to contact.
func refuses(c *crmCall) fate {
	f := fails(contact.VerdictInvalid, 422)
	f.answer.Reason, f.answer.Detail = contact.Invalid, fmt.Sprintf("no plan covers contact %s", c.change.Contact.ID)
	return f
}

// stormy refuses everybody from one instant to another, counted from now.
func stormy(from, to time.Duration) func(*crmCall) fate {
	born := time.Now()
	return func(c *crmCall) fate {
		if d := c.at.Sub(born); d >= from && d < to {
			return refuses(c)
		}
		return fine
	}
}

func (w *world) contacts(first, n int, fields ...string) {
	for i := range n {
		w.q.publish(fmt.Sprintf("c%d", first+i), contact.Bulk, fields...)
	}
}

// dead counts the dead letters that were not sent again.
func (w *world) dead() (n int) {
	for _, u := range w.q.byNumber {
		if u.again == nil && w.q.outcome(u).Outcome == contact.Dead {
			n++
		}
	}
	return n
}

func wantHold(t testing.TB, st Status, reason HoldReason) *Hold {
	t.Helper()
	if st.Hold == nil || st.Hold.Reason != reason {
		t.Fatalf("hold %+v, want %s", st.Hold, reason)
	}
	return st.Hold
}

// A storm keeps the rest pending and recalls what was dead already, once a
// change is taken.
func TestStorm(t *testing.T) {
	inBubble(t, func(w *world) {
		w.m.plan = stormy(0, time.Hour)
		w.contacts(0, 500, "a")
		r := w.start()
		time.Sleep(30 * time.Minute)
		st := r.status()
		h := wantHold(w.t, st, HoldStorm)
		if n := len(h.Letters); n > DefaultStormAfter-1 || n == 0 || int64(n) != st.Counts.Outcomes[contact.Dead] {
			t.Errorf("%d letters to be recalled, outcomes %v", n, st.Counts.Outcomes)
		}
		if h.Cause == nil || h.Cause.Message != "no plan covers contact c<n>" || h.Contacts != DefaultStormAfter || len(h.Evidence) != maxEvidence {
			t.Errorf("hold %+v", h)
		}
		before := len(w.m.callsOf(""))
		if before > DefaultStormAfter+4+20 {
			t.Errorf("%d calls in half an hour of a storm", before)
		}
		r.settleAll(2 * time.Hour)
		if n := w.dead(); n != 0 {
			t.Errorf("%d updates are dead after the storm", n)
		}
		probes := between(w.m.callsOf(""), w.q.byNumber[0].update.Stored, time.Minute, time.Hour)
		seen := map[string]bool{}
		for i, c := range probes {
			seen[c.change.Contact.ID] = true
			if i > 0 && c.at.Before(probes[i-1].end) {
				t.Error("two probes at once")
			}
		}
		if len(seen)*2 < len(probes) {
			t.Errorf("%d probes asked about %d contacts only", len(probes), len(seen))
		}
	})
}

// Refusals with a success between are no storm, nor are those of few contacts,
// nor of different causes.
func TestNoStorm(t *testing.T) {
	for name, plan := range map[string]func(n int) func(*crmCall) fate{
		"success between": func(int) func(*crmCall) fate {
			n := 0
			return func(c *crmCall) fate {
				if n++; n%DefaultStormAfter == 0 {
					return fine
				}
				return refuses(c)
			}
		},
		"other causes": func(int) func(*crmCall) fate {
			n := 0
			return func(c *crmCall) fate {
				n++
				f := refuses(c)
				f.answer.Status = 400 + n%10
				f.answer.Detail = []string{"too long", "too short", "taken", "odd"}[n%4]
				if n%90 == 0 {
					return fine
				}
				return f
			}
		},
		"missing and invalid": func(int) func(*crmCall) fate {
			n := 0
			return func(c *crmCall) fate {
				if n++; n > 2*(DefaultStormAfter-1) {
					return fine
				}
				if n%2 == 0 {
					return fails(contact.VerdictMissing, 404)
				}
				return refuses(c)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(w *world) {
				w.o.Quota.Concurrency = 1
				w.m.plan = plan(0)
				w.contacts(0, 300, "a")
				r := w.start()
				r.wait(time.Hour)
				if n := r.status().Counts.Holds[HoldStorm]; n != 0 {
					t.Errorf("%d storms", n)
				}
				r.end()
				if w.dead() == 0 {
					t.Error("nothing is dead: the test shows nothing")
				}
			})
		})
	}
	t.Run("few contacts", func(t *testing.T) {
		inBubble(t, func(w *world) {
			w.m.plan = func(c *crmCall) fate { return refuses(c) }
			r := w.start()
			for range 10 {
				w.contacts(0, DefaultStormAfter-1, "a")
				r.wait(time.Minute)
			}
			r.end()
			if n := w.dead(); n != 10*(DefaultStormAfter-1) {
				t.Errorf("%d dead", n)
			}
		})
	})
}

// Where each message is of its own kind, the status tells.
func TestStormOfManyWords(t *testing.T) {
	inBubble(t, func(w *world) {
		w.m.plan = func(c *crmCall) fate {
			f := refuses(c)
			f.answer.Detail = "cannot help you, " + string(rune('a'+len(w.m.calls)%26)) + string(rune('a'+len(w.m.calls)/26%26))
			return f
		}
		w.contacts(0, 500, "a")
		r := w.start()
		time.Sleep(10 * time.Minute)
		h := wantHold(w.t, r.status(), HoldStorm)
		if h.Contacts != stormAnyAfter*DefaultStormAfter || h.Cause.Message != "" || len(h.Letters) < h.Contacts-5 {
			t.Errorf("hold %+v with %d letters", h, len(h.Letters))
		}
	})
}

// The operator says that the contacts really are wrong: the letters stay, and
// the rest is not held back again.
func TestStormAccepted(t *testing.T) {
	inBubble(t, func(w *world) {
		w.m.plan = func(c *crmCall) fate { return refuses(c) }
		w.contacts(0, 200, "a")
		r := w.start()
		time.Sleep(time.Minute)
		h := wantHold(w.t, r.status(), HoldStorm)
		r.l.Steer(w.t.Context(), Orders{Accepted: "another", AcceptedAt: time.Now(), Since: time.Now()})
		time.Sleep(time.Minute)
		wantHold(w.t, r.status(), HoldStorm)
		o := Orders{Storm: h.Since, Accepted: h.Cause.Fingerprint(), AcceptedAt: time.Now(), Since: time.Now()}
		r.l.Steer(w.t.Context(), o)
		r.wait(time.Hour)
		st := r.status()
		if st.Counts.Holds[HoldStorm] != 1 || st.Counts.Recalled != 0 {
			t.Errorf("counts %+v", st.Counts)
		}
		if n := w.dead(); n != 200 {
			t.Errorf("%d of 200 are dead", n)
		}
		// The word stands for an hour, not for ever.
		time.Sleep(acceptFor)
		w.contacts(1000, 100, "a")
		time.Sleep(time.Minute)
		wantHold(w.t, r.status(), HoldStorm)
	})
}

// The operator says that it was an incident: the letters are recalled at once,
// though no probe has succeeded.
func TestStormRecalledByOrder(t *testing.T) {
	inBubble(t, func(w *world) {
		w.m.plan = stormy(0, 20*time.Minute)
		w.contacts(0, 100, "a")
		r := w.start()
		time.Sleep(20*time.Minute + time.Millisecond) // healed, and no probe soon
		h := wantHold(w.t, r.status(), HoldStorm)
		if time.Until(h.NextProbe) < 10*time.Second {
			t.Fatalf("the next probe is in %s: the test shows nothing", time.Until(h.NextProbe))
		}
		r.l.Steer(w.t.Context(), Orders{Storm: h.Since, Recall: true, Since: time.Now()})
		r.wait(time.Minute)
		if c := r.status().Counts; c.Recalled != int64(len(h.Letters)) || w.dead() != 0 {
			t.Errorf("%d recalled of %d, %d dead", c.Recalled, len(h.Letters), w.dead())
		}
		r.end()
	})
}

// Contacts that really are wrong come to their end by themselves wherever
// others are taken: each is recalled at most once.
func TestStormOfWrongContacts(t *testing.T) {
	inBubble(t, func(w *world) {
		w.o.Quota.Rate, w.o.Quota.Concurrency = 50, 1
		w.m.plan = func(c *crmCall) fate {
			if c.change.Contact.ID[0] == 'c' {
				return refuses(c)
			}
			return fine
		}
		w.contacts(0, 150, "a")
		go func() {
			for i := range 400 {
				w.q.publish(fmt.Sprintf("g%d", i), contact.Bulk, "a")
				time.Sleep(30 * time.Second)
			}
		}()
		r := w.start()
		time.Sleep(200*time.Minute + time.Second)
		r.settleAll(time.Hour)
		if n := w.dead(); n != 150 {
			t.Errorf("%d of 150 are dead", n)
		}
		for _, u := range w.q.byNumber {
			if u.again != nil && u.again.again != nil {
				t.Fatalf("update %d was recalled twice", u.n)
			}
		}
	})
}

// An update whose part was refused for good before the storm was noticed is
// not dead after it.
func TestStormForgivesWhatWaits(t *testing.T) {
	inBubble(t, func(w *world) {
		w.o.Quota.Concurrency = 1
		w.m.plan = stormy(0, time.Hour)
		for i := range 60 {
			for range 3 { // taken apart, one by one
				w.q.publish(fmt.Sprintf("c%d", i), contact.Live, "a", "b")
				w.q.publish(fmt.Sprintf("c%d", i), contact.Live, "c")
			}
		}
		w.start().settleAll(5 * time.Hour)
		if n := w.dead(); n != 0 {
			t.Errorf("%d updates are dead", n)
		}
	})
}

// A successor goes on where the lane before stood: in the storm, with what is
// to be recalled, and also shortly before it.
func TestStormOutlivesTheLane(t *testing.T) {
	for _, before := range []bool{false, true} {
		t.Run(fmt.Sprintf("before it %v", before), func(t *testing.T) {
			inBubble(t, func(w *world) {
				w.o.Quota.Rate, w.o.Quota.Concurrency = 1, 1
				w.m.plan = stormy(0, 2*time.Hour)
				w.contacts(0, 200, "a")
				r := w.start()
				time.Sleep(time.Hour)
				if before {
					w.killAll()
					w.q = newQueueModel(w.t)
					w.m = newCRMModel(w.t, w.q)
					w.o.Sender, w.m.plan = w.m, stormy(0, 2*time.Hour)
					w.contacts(0, 200, "a")
					r = w.start()
					time.Sleep(15 * time.Second)
				}
				st := r.status()
				if before == (st.Hold != nil) {
					t.Fatalf("hold %+v", st.Hold)
				}
				w.o.Memory = roundTrip(w.t, st).Memory
				r.kill()
				<-r.done
				dead := w.dead()
				r = w.start()
				time.Sleep(10 * time.Minute)
				h := wantHold(w.t, r.status(), HoldStorm)
				if len(h.Letters) != w.dead() || before == (dead == w.dead()) {
					t.Errorf("%d letters are to be recalled, %d are dead, %d were before", len(h.Letters), w.dead(), dead)
				}
				r.settleAll(5 * time.Hour)
				if n := w.dead(); n != 0 {
					t.Errorf("%d updates are dead after the storm", n)
				}
			})
		})
	}
}

func roundTrip(t testing.TB, st Status) (out Status) {
	t.Helper()
	b, err := json.Marshal(st)
	if err == nil {
		err = json.Unmarshal(b, &out)
	}
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// A dead token in the middle of a storm does not make it forgotten.
func TestStormBehindAnotherHold(t *testing.T) {
	inBubble(t, func(w *world) {
		born := time.Now()
		w.m.plan = func(c *crmCall) fate {
			switch d := c.at.Sub(born); {
			case d < 10*time.Minute, d >= 20*time.Minute && d < 40*time.Minute:
				return refuses(c)
			case d < 20*time.Minute:
				return fails(contact.VerdictUnauthorized, 401)
			}
			return fine
		}
		w.contacts(0, 300, "a")
		r := w.start()
		time.Sleep(18 * time.Minute)
		st := r.status()
		wantHold(w.t, st, HoldCredentials)
		if st.Memory.Storm == nil {
			t.Error("a successor would forget the storm")
		}
		w.o.Memory = roundTrip(w.t, st).Memory
		r.end()
		r = w.start()
		wantHold(w.t, r.status(), HoldCredentials)
		time.Sleep(12 * time.Minute)
		wantHold(w.t, r.status(), HoldStorm)
		r.settleAll(3 * time.Hour)
		if n := w.dead(); n != 0 {
			t.Errorf("%d updates are dead", n)
		}
	})
}

// What a storm's letters are put back by may fail with the ownership.
func TestLostDuringRecall(t *testing.T) {
	inBubble(t, func(w *world) {
		w.m.plan = stormy(0, time.Minute)
		w.contacts(0, 100, "a")
		r := w.start()
		for r.status().Waiting != "the storm's dead letters to be recalled" {
			time.Sleep(100 * time.Millisecond)
		}
		w.o.Memory = roundTrip(w.t, r.status()).Memory
		r.s.lose()
		<-r.done
		if r.err == nil {
			t.Error("the lane ended without an error")
		}
		w.start().settleAll(time.Hour)
		if n := w.dead(); n != 0 {
			t.Errorf("%d updates are dead", n)
		}
	})
}

var _ Prober = prober{}

// prober is the CRM model with a read.
type prober struct {
	*crmModel
	reads *[]time.Time
	read  func() crm.Answer
}

// A storm that ends while a contact's take is being sent leaves that take alone.
func TestStormEndsBesideACall(t *testing.T) {
	inBubble(t, func(w *world) {
		born := time.Now()
		w.o.Quota.Rate, w.o.Quota.Concurrency = 50, 4
		w.q.publish("slow", contact.Live, "a")
		w.q.publish("slow", contact.Live, "b")
		w.contacts(0, 60, "a")
		w.m.plan = func(c *crmCall) fate {
			switch {
			case c.change.Contact.ID == "slow" && c.n < 2, c.change.Contact.ID != "slow" && time.Since(born) < 2*time.Second:
				return refuses(c) // the whole, then the newer half
			case c.change.Contact.ID == "slow":
				f := fine
				f.latency = 9 * time.Second
				return f
			}
			return fine
		}
		w.start().settleAll(time.Hour)
	})
}

// What the operator says of a storm that is over already changes nothing, and
// what was said of one says nothing of the next.
func TestStormJudgedTooLate(t *testing.T) {
	inBubble(t, func(w *world) {
		w.m.plan = stormy(0, time.Minute)
		w.contacts(0, 100, "a")
		r := w.start()
		var h *Hold
		for r.status().Waiting != "the storm's dead letters to be recalled" {
			h = r.status().Hold
			time.Sleep(100 * time.Millisecond)
		}
		o := Orders{Storm: h.Since, Accepted: h.Cause.Fingerprint(), AcceptedAt: time.Now().Add(-2 * acceptFor), Since: time.Now()}
		r.l.Steer(w.t.Context(), o)
		r.wait(time.Hour)
		if n := w.dead(); n != 0 {
			t.Errorf("%d are dead", n)
		}
		w.m.plan = stormy(0, time.Hour)
		w.contacts(1000, 100, "a")
		time.Sleep(time.Minute)
		o.Recall, o.Note = true, "again"
		r.l.Steer(w.t.Context(), o)
		time.Sleep(time.Second)
		wantHold(w.t, r.status(), HoldStorm)
	})
}

// readOnly is a change that needed no write.
func readOnly() fate {
	f := fine
	f.answer = crm.Answer{Verdict: contact.VerdictUnchanged, Status: 200}
	return f
}

// Rows that are equal already show nothing of whether changes are taken: a
// nightly import of mostly equal rows brakes as any other.
func TestStormAmongEqualRows(t *testing.T) {
	inBubble(t, func(w *world) {
		born, n := time.Now(), 0
		w.o.Quota.Rate = 50
		w.m.plan = func(c *crmCall) fate {
			if _, err := fmt.Sscanf(c.change.Contact.ID, "c%d", &n); err == nil && n%10 != 0 {
				return readOnly()
			}
			if c.at.Sub(born) < 30*time.Minute {
				return refuses(c)
			}
			return fine
		}
		w.contacts(0, 5000, "a")
		r := w.start()
		time.Sleep(25 * time.Minute)
		wantHold(w.t, r.status(), HoldStorm)
		r.settleAll(time.Hour)
		if n := w.dead(); n != 0 {
			t.Errorf("%d are dead", n)
		}
		w.m.contacts = map[string]*crmContact{} // the plan decided, not the values
		w.q.contacts = map[string]*storedContact{}
	})
}
