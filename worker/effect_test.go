package worker

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"crmsync/contact"
	"crmsync/crm"
)

// notes is how many updates are noted as begun.
func (q *queueModel) notes() (n int) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for _, r := range q.byNumber {
		if r.begun != nil {
			n++
		}
	}
	return n
}

// stalls has nothing stored from the first answer on.
func (w *world) stalls() {
	plan := w.m.plan
	w.m.plan = func(c *crmCall) fate {
		w.q.mu.Lock()
		w.q.down = true
		w.q.mu.Unlock()
		return plan(c)
	}
}

func (w *world) stores() {
	w.q.mu.Lock()
	w.q.down = false
	w.q.mu.Unlock()
}

// An owner dies between the CRM's answer and the stored outcome.
func TestSideEffectIsNotRepeatedByTheNextOwner(t *testing.T) {
	inBubble(t, func(w *world) {
		mail := w.q.publish("c1", contact.Live, "mail", "a")
		next := w.q.publish("c1", contact.Live, "mail")
		w.q.publish("c2", contact.Live, "a")
		plan := w.m.plan
		w.stalls()
		r := w.start()
		w.after(10 * time.Second)
		if w.m.mailsOf(mail) != 1 || w.q.pending() != 3 {
			t.Fatalf("%d mails, %d pending", w.m.mailsOf(mail), w.q.pending())
		}
		if n := w.q.notes(); n != 1 {
			t.Errorf("%d notes, want one: the other updates have no side effect or have not been sent", n)
		}
		r.s.lose()
		<-r.done
		w.stores()
		w.m.plan = plan
		w.start().settleAll(time.Minute)
		if w.m.mailsOf(mail) != 1 || w.m.mailsOf(next) != 1 {
			t.Errorf("mails %v, want one each", w.m.mails)
		}
		if e := w.q.outcome(mail); e.Outcome != contact.Unchanged && e.Outcome != contact.Applied || e.Resolved == contact.Unlost {
			t.Errorf("it ended %+v", e)
		}
		if e := w.q.outcome(next); e.Resolved != contact.Unlost {
			t.Errorf("the next one ended %+v", e)
		}
	})
}

// What certainly came to nothing is asked for by whoever comes next.
func TestSideEffectThatFailedIsAskedForByTheNextOwner(t *testing.T) {
	for name, first := range map[string]fate{
		"transient":    fails(contact.VerdictTransient, 503),
		"unauthorized": fails(contact.VerdictUnauthorized, 401),
		"throttled":    fails(contact.VerdictThrottled, 429),
	} {
		for _, end := range []string{"crash", "graceful"} {
			t.Run(name+" "+end, func(t *testing.T) {
				inBubble(t, func(w *world) {
					w.m.plan = func(*crmCall) fate { return first }
					mail := w.q.publish("c1", contact.Live, "mail")
					w.q.delay = 300 * time.Millisecond // of the note, and of taking it back
					r := w.start()
					w.after(510 * time.Millisecond)
					if end == "crash" {
						w.after(350 * time.Millisecond)
						r.s.lose()
						<-r.done
					} else {
						r.end()
					}
					if len(w.m.callsOf("c1")) == 0 || w.q.notes() != 0 {
						t.Fatalf("%d calls, %d notes", len(w.m.callsOf("c1")), w.q.notes())
					}
					w.m.plan, w.q.delay = func(*crmCall) fate { return fine }, 0
					w.start().settleAll(time.Hour)
					if w.m.mailsOf(mail) != 1 {
						t.Errorf("%d mails", w.m.mailsOf(mail))
					}
				})
			})
		}
	}
}

// Nothing is sent before the note is stored, nor with a lease that ran out
// meanwhile, nor when the quota that was paid is long since gone.
func TestSideEffectWaitsForItsNote(t *testing.T) {
	inBubble(t, func(w *world) {
		w.o.Margin = 2 * time.Second
		w.q.down = true
		mail := w.q.publish("c1", contact.Live, "mail")
		r := w.start()
		w.after(30 * time.Second)
		if n := len(w.m.callsOf("")); n != 0 {
			t.Fatalf("%d calls before the note was stored", n)
		}
		r.s.freeze(10 * time.Second) // a call needs 12
		w.stores()
		w.after(5 * time.Second)
		if n := len(w.m.callsOf("")); n != 0 {
			t.Fatalf("%d calls on a lease that is too short", n)
		}
		if n := w.q.notes(); n != 0 {
			t.Errorf("the note of a call that was not made stays")
		}
		r.s.thaw()
		r.settleAll(time.Minute)
		if w.m.mailsOf(mail) != 1 || w.q.outcome(mail).Attempts != 1 {
			t.Errorf("%d mails, %+v", w.m.mailsOf(mail), w.q.outcome(mail))
		}
	})
}

// The next owner knows of the note before it takes the update: it neither cancels
// it nor pauses it, since the CRM may hold it.
func TestBegunUpdateIsNotCancelled(t *testing.T) {
	inBubble(t, func(w *world) {
		u := contact.Update{Contact: contact.Key{Target: "shop", ID: "c1"}, Class: contact.Bulk, Job: "job"}
		begun := w.q.publishUpdate(u, "mail", "a")
		other := w.q.publishUpdate(u, "mail")
		w.stalls()
		r := w.start()
		w.after(10 * time.Second)
		r.s.lose()
		<-r.done
		w.stores()
		w.m.plan = func(*crmCall) fate { return fine }
		w.o.Cancelled = func(*contact.Update) string { return "its job was cancelled" }
		r = w.start()
		r.l.Sweep()
		r.settleAll(time.Minute)
		wantOutcome(t, w, other, contact.Cancelled, contact.NoReason)
		if e := w.q.outcome(begun); e.Outcome != contact.Applied || w.m.mailsOf(begun) != 1 || w.m.mailsOf(other) != 0 {
			t.Errorf("%+v, %d mails", e, w.m.mailsOf(begun))
		}
	})
}

// A letter remembers that its side effect may have happened, and so does what
// repeats it.
func TestLetterSaysThatItsSideEffectMayHaveHappened(t *testing.T) {
	inBubble(t, func(w *world) {
		w.o.Retry.Attempts = 2
		w.m.plan = func(c *crmCall) fate {
			f := fine
			if c.change.Contact.ID == "c1" {
				f.answer, f.apply = crm.Answer{Verdict: contact.VerdictUnknown, Alive: true}, c.n == 0
			}
			if c.change.Contact.ID == "c2" {
				f.answer = crm.Answer{Verdict: contact.VerdictTransient, Alive: true}
			}
			return f
		}
		asked := w.q.publish("c1", contact.Live, "mail")
		clear := w.q.publish("c2", contact.Live, "mail")
		plain := w.q.publish("c1", contact.Live, "a")
		w.others(time.Second, 120)
		r := w.start()
		r.wait(time.Hour)
		for _, c := range []struct {
			u    *stored
			want bool
		}{{asked, true}, {clear, false}, {plain, false}} {
			if e := w.q.outcome(c.u); e.Outcome != contact.Dead || e.MaybeSent != c.want {
				t.Errorf("update %d: %+v", c.u.n, e)
			}
		}
		u := contact.Update{Contact: contact.Key{Target: "shop", ID: "c1"}, Class: contact.Bulk, RedriveOf: "1", Redrive: &contact.Redrive{MaybeSent: true}}
		again := w.q.publishUpdate(u, "mail", "b")
		w.m.change(func(*crmCall) fate { return fine })
		r.settleAll(time.Minute)
		if e := w.q.outcome(again); e.Outcome != contact.Applied || w.m.mailsOf(again) != 0 {
			t.Errorf("%+v, %d mails", e, w.m.mailsOf(again))
		}
	})
}

// Notes take their time. The quota is not exceeded for that, and where it allows
// a burst it is used fully.
func TestSideEffectsSpendTheQuotaExactly(t *testing.T) {
	for burst, most := range map[int]time.Duration{1: 45 * time.Second, 4: 31 * time.Second} {
		inBubble(t, func(w *world) {
			w.o.Quota = Quota{Rate: 10, Burst: burst, Concurrency: 8}
			w.q.delay = 70 * time.Millisecond
			for i := range 300 {
				fields := []string{"a"}
				if i%2 == 0 {
					fields = append(fields, "mail")
				}
				w.q.publish(fmt.Sprintf("c%d", i), contact.Live, fields...)
			}
			began := time.Now()
			w.start().settleAll(time.Minute)
			slices.SortFunc(w.m.requests, time.Time.Compare)
			if over := replayBucket(w.m.requests, began, 10, burst); over > 1e-5 {
				t.Errorf("burst %d: the bucket was overdrawn by %v tokens", burst, over)
			}
			if took := w.m.requests[len(w.m.requests)-1].Sub(began); took > most {
				t.Errorf("burst %d: 300 requests at 10/s took %v", burst, took)
			}
		})
	}
}

// While a note is being stored nobody else gets the request that is due.
func TestSideEffectKeepsItsTurn(t *testing.T) {
	inBubble(t, func(w *world) {
		w.o.Quota = Quota{Rate: 1, Burst: 1, Concurrency: 8}
		w.q.delay = 70 * time.Millisecond
		for i := range 20 {
			fields := []string{"a"}
			if i == 10 {
				fields = append(fields, "mail")
			}
			w.q.publish(fmt.Sprintf("c%d", i), contact.Live, fields...)
		}
		w.start().settleAll(time.Minute)
		for i, c := range w.m.callsOf("") {
			if want := fmt.Sprintf("c%d", i); c.change.Contact.ID != want {
				t.Fatalf("call %d is of %s, want %s", i, c.change.Contact.ID, want)
			}
		}
	})
}
