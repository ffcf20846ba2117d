package worker

import (
	"fmt"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"crmsync/contact"
)

// during is a plan that answers with bad from one instant to another, counted
// from now.
func during(from, to time.Duration, bad fate) func(*crmCall) fate {
	born := time.Now()
	return func(c *crmCall) fate {
		if d := c.at.Sub(born); d >= from && d < to {
			return bad
		}
		return fine
	}
}

func incident() fate {
	f := fails(contact.VerdictTransient, 0)
	f.answer.Incident = true
	return f
}

// between are the calls that began in a span counted from born.
func between(calls []crmCall, born time.Time, from, to time.Duration) (out []crmCall) {
	for _, c := range calls {
		if d := c.at.Sub(born); d >= from && d < to {
			out = append(out, c)
		}
	}
	return out
}

func TestOutage(t *testing.T) {
	for name, bad := range map[string]fate{
		"incident": incident(), "500": fails(contact.VerdictTransient, 500), "timeouts": fails(contact.VerdictUnknown, 0),
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(w *world) {
				const begins, ends = time.Minute, 5 * time.Hour
				bad.latency = time.Second // so that probes could overlap
				born := time.Now()
				w.m.plan = during(begins, ends, bad)
				r := w.start()
				w.others(500*time.Millisecond, 2400) // for 20 minutes; fifty contacts
				time.Sleep(time.Hour)
				st := r.status()
				if st.State != "held" || st.Hold == nil || st.Hold.Reason != HoldOutage || st.Counts.Holds[HoldOutage] != 1 {
					t.Fatalf("status %+v", st)
				}
				time.Sleep(ends - time.Since(born) - time.Second)
				probes := between(w.m.callsOf(""), born, begins, ends)
				// Before the hold: five contacts and what was in flight. Then a probe
				// each 30 s at most often, less its jitter: never more than one in 1.5 s.
				if n := len(probes); n > 1200 || n < 5*60*2 {
					t.Errorf("%d calls during an outage of 5 h", n)
				}
				for i := 9; i < len(probes); i++ {
					if probes[i].at.Before(probes[i-1].end) {
						t.Fatal("two probes at once")
					}
				}
				r.wait(10 * time.Minute)
				after := between(w.m.callsOf(""), born, ends, ends+10*time.Minute)
				if d := after[25].at.Sub(after[0].at); d < 5*time.Second {
					t.Errorf("25 calls within %v of the first that succeeded: no ramp", d)
				}
				r.end()
				for _, u := range w.q.byNumber {
					if e := w.q.outcome(u); e.Outcome == contact.Dead {
						t.Fatalf("update %d is dead: %s", u.n, e.Reason)
					}
				}
			})
		})
	}
}

func TestOutageNeedsDistinctContacts(t *testing.T) {
	inBubble(t, func(w *world) {
		w.m.plan = func(c *crmCall) fate {
			if c.change.Contact.ID[0] == 'p' {
				return fails(contact.VerdictTransient, 500)
			}
			return fine
		}
		for i := range 4 {
			w.q.publish(fmt.Sprintf("p%d", i), contact.Live, "a")
		}
		r := w.start()
		time.Sleep(2 * time.Minute)
		if st := r.status(); st.Hold != nil || len(st.Retries) != 4 {
			t.Errorf("four contacts that fail make a hold: %+v", st.Hold)
		}
		w.others(10*time.Second, 300)
		r.settleAll(time.Hour)
	})
}

// Attempts made before an outage was noticed are given back.
func TestOutageRefundsAttempts(t *testing.T) {
	inBubble(t, func(w *world) {
		w.m.plan = during(0, 2*time.Hour, fails(contact.VerdictTransient, 500))
		r := w.start()
		for i := range 3 { // too few for an outage by number
			w.q.publish(fmt.Sprintf("c%d", i), contact.Live, "a")
		}
		time.Sleep(100 * time.Minute)
		if st := r.status(); st.Hold == nil || st.Hold.Reason != HoldOutage || w.q.pending() != 3 {
			t.Errorf("status %+v", st)
		}
		for _, x := range r.status().Retries {
			if x.Attempts > 1 {
				t.Errorf("%s has %d attempts against it", x.Contact, x.Attempts)
			}
		}
		r.settleAll(2 * time.Hour)
		for _, u := range w.q.byNumber {
			wantOutcome(t, w, u, contact.Applied, contact.NoReason)
		}
	})
}

// An outage whose answers name a time is not probed before it.
func TestOutageObeysRetryAfter(t *testing.T) {
	for _, contacts := range []int{5, 7} { // as many as make an outage, and some that were not called
		t.Run(fmt.Sprint(contacts), func(t *testing.T) {
			inBubble(t, func(w *world) {
				w.o.Quota.Concurrency = 1
				bad := fails(contact.VerdictTransient, 503)
				bad.answer.Wait = 20 * time.Minute
				w.m.plan = during(0, 10*time.Minute, bad)
				for i := range contacts {
					w.q.publish(fmt.Sprintf("c%d", i), contact.Live, "a")
				}
				born := time.Now()
				r := w.start()
				time.Sleep(time.Minute)
				if n := len(w.m.callsOf("")); n != 5 {
					t.Errorf("%d calls in the first minute, want 5", n)
				}
				if contacts == 5 { // nor if the operator would like it
					r.l.Steer(w.t.Context(), Orders{Since: time.Now()})
					r.status() // the lane looks round once more
				}
				r.settleAll(time.Hour)
				if n := len(between(w.m.callsOf(""), born, time.Minute, 20*time.Minute)); n != 0 {
					t.Errorf("%d calls before the time that the CRM gave", n)
				}
			})
		})
	}
}

// Where the contacts that wait were each promised a time, no probe comes for
// one before its own, even if the outage was begun by an answer without one.
func TestProbeObeysTheContactsOwnWait(t *testing.T) {
	inBubble(t, func(w *world) {
		w.o.Quota.Concurrency = 1
		w.m.plan = func(c *crmCall) fate {
			f := fails(contact.VerdictTransient, 503)
			if c.n == 0 && c.change.Contact.ID != "c4" {
				f.answer.Wait = 10 * time.Minute
				return f
			}
			if c.at.Sub(w.q.byNumber[0].update.Stored) < 9*time.Minute {
				return f
			}
			return fine
		}
		for i := range 5 {
			w.q.publish(fmt.Sprintf("c%d", i), contact.Live, "a")
		}
		r := w.start()
		time.Sleep(9 * time.Minute)
		for i := range 4 {
			if n := len(w.m.callsOf(fmt.Sprintf("c%d", i))); n != 1 {
				t.Errorf("c%d was called %d times", i, n)
			}
		}
		if n := len(w.m.callsOf("c4")); n < 10 {
			t.Errorf("c4, of which the CRM asked no patience, was probed with %d times", n)
		}
		r.settleAll(time.Hour)
	})
}

func TestCredentials(t *testing.T) {
	for v, every := range map[contact.Verdict]time.Duration{
		contact.VerdictUnauthorized: probeCredentials, contact.VerdictForbidden: probeForbidden,
	} {
		t.Run(v.String(), func(t *testing.T) {
			inBubble(t, func(w *world) {
				born := time.Now()
				w.m.plan = during(0, 3*time.Hour, fails(v, 401))
				for i := range 50 {
					w.q.publish(fmt.Sprintf("c%d", i), contact.Live, "a")
				}
				r := w.start()
				time.Sleep(2 * time.Hour)
				st := r.status()
				if st.Hold == nil || st.Hold.Reason != HoldCredentials || st.Hold.Status != 401 || st.Hold.Since.Sub(born) > time.Second {
					t.Fatalf("status %+v", st)
				}
				calls := w.m.callsOf("")
				want := int(2 * time.Hour / every)
				if n := len(calls); n < want-2 || n > want+4 { // what was in flight at first
					t.Errorf("%d calls in 2 h, want about %d", n, want)
				}
				for i := 4; i < len(calls); i++ {
					if gap := calls[i].at.Sub(calls[i-1].end); gap < every {
						t.Errorf("probe after %v", gap)
					}
				}
				r.settleAll(2 * time.Hour)
				for _, u := range w.q.byNumber {
					wantOutcome(t, w, u, contact.Applied, contact.NoReason)
				}
			})
		})
	}
}

func TestNewSecretEndsTheHold(t *testing.T) {
	inBubble(t, func(w *world) {
		var changed, good atomic.Bool
		w.o.SecretChanged = func() bool { return changed.Swap(false) }
		w.m.plan = func(*crmCall) fate {
			if good.Load() {
				return fine
			}
			f := fails(contact.VerdictUnauthorized, 401)
			f.latency = 10 * time.Second
			return f
		}
		w.q.publish("c1", contact.Live, "a")
		r := w.start()
		time.Sleep(20 * time.Second)
		changed.Store(true) // not the right one
		time.Sleep(5 * time.Second)
		// The probe with it is in flight; meanwhile comes the right one.
		if n := len(w.m.callsOf("")); n != 2 {
			t.Fatalf("%d calls, want the second to be the probe that the new secret caused", n)
		}
		good.Store(true)
		changed.Store(true)
		r.status() // the lane looks round, and must not take the news for old
		r.wait(10 * time.Second)
		r.end()
	})
}

func TestCredentialsTakePrecedence(t *testing.T) {
	inBubble(t, func(w *world) {
		kinds := []fate{fails(contact.VerdictThrottled, 429), incident(), incident(), incident(), incident(), incident(), fails(contact.VerdictUnauthorized, 401)}
		kinds[0].answer.Wait = time.Second
		i := 0
		w.o.Quota.Concurrency = 1
		w.m.plan = func(*crmCall) fate {
			if i++; i <= len(kinds) {
				return kinds[i-1]
			}
			return fine
		}
		for i := range 6 {
			w.q.publish(fmt.Sprintf("c%d", i), contact.Live, "a")
		}
		var seen []HoldReason
		r := w.start()
		for w.q.pending() > 0 {
			if h := r.status().Hold; h != nil && (len(seen) == 0 || seen[len(seen)-1] != h.Reason) {
				seen = append(seen, h.Reason)
			}
			time.Sleep(50 * time.Millisecond)
		}
		if fmt.Sprint(seen) != "[throttled outage credentials]" {
			t.Errorf("holds %v", seen)
		}
		r.end()
	})
}

func TestOutageDoesNotReplaceCredentials(t *testing.T) {
	inBubble(t, func(w *world) {
		w.o.Quota.Concurrency = 1
		i := 0
		w.m.plan = func(*crmCall) fate {
			switch i++; {
			case i == 1:
				return fails(contact.VerdictUnauthorized, 401)
			case i < 12:
				return incident()
			}
			return fine
		}
		for i := range 6 {
			w.q.publish(fmt.Sprintf("c%d", i), contact.Live, "a")
		}
		r := w.start()
		for w.q.pending() == 6 {
			time.Sleep(10 * time.Second)
			if h := r.status().Hold; w.q.pending() == 6 && (h == nil || h.Reason != HoldCredentials) {
				t.Fatalf("hold %+v", h)
			}
		}
		r.settleAll(time.Minute)
	})
}

// A refusal is an answer: the target lives.
func TestRefusalShowsTheTargetAlive(t *testing.T) {
	inBubble(t, func(w *world) {
		w.o.Quota.Concurrency = 1
		w.m.plan = func(c *crmCall) fate {
			if c.change.Contact.ID[0] == 'p' && c.n == 0 {
				return fails(contact.VerdictTransient, 500)
			}
			return fine
		}
		for i := range 4 {
			w.q.publish(fmt.Sprintf("p%d", i), contact.Live, "a")
		}
		w.q.publish("c", contact.Live, "a=bad")
		for i := range 4 {
			w.q.publish(fmt.Sprintf("p%d", 4+i), contact.Live, "a")
		}
		r := w.start()
		r.wait(time.Minute)
		if n := r.status().Counts.Holds[HoldOutage]; n != 0 {
			t.Error("four failures, a refusal and four failures make an outage")
		}
		r.end()
	})
}

// Three contacts that fail are no outage by number; that nobody is served
// meanwhile is held in their favour all the same.
func TestSmallOutageCostsOneAttempt(t *testing.T) {
	inBubble(t, func(w *world) {
		w.o.OutageAfter = 1000
		w.m.plan = during(0, 2*time.Minute, fails(contact.VerdictTransient, 500))
		for i := range 3 {
			w.q.publish(fmt.Sprintf("c%d", i), contact.Live, "a")
		}
		r := w.start()
		r.wait(time.Hour)
		fails, counted := 0, []int{}
		for _, u := range w.q.byNumber {
			e := w.q.outcome(u)
			fails += len(e.Tries) - 1
			counted = append(counted, e.Attempts)
		}
		if fails < 9 {
			t.Errorf("only %d failures", fails)
		}
		slices.Sort(counted) // the first to be served had no witness
		if counted[0] > 2 || counted[1] > 2 {
			t.Errorf("attempts %v", counted)
		}
		r.end()
	})
}
