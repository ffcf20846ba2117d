package worker

import (
	"fmt"
	"testing"
	"time"

	"crmsync/contact"
)

func TestThrottled(t *testing.T) {
	inBubble(t, func(w *world) {
		w.o.Quota = Quota{Rate: 100, Burst: 10, Concurrency: 8}
		born := time.Now()
		var until time.Time
		w.m.plan = func(c *crmCall) fate {
			if time.Since(born) < time.Second {
				return fine
			}
			if until.IsZero() {
				until = time.Now().Add(50*time.Millisecond + 10*time.Minute)
				f := fails(contact.VerdictThrottled, 429)
				f.answer.Wait = 10 * time.Minute
				return f
			}
			f := fine
			f.readFirst, f.before = true, 200*time.Millisecond // mid-call requests wait, too
			return f
		}
		for i := range 300 {
			w.q.publish(fmt.Sprintf("c%d", i), contact.Live, "a")
		}
		r := w.start()
		time.Sleep(5 * time.Minute)
		if st := r.status(); st.Hold == nil || st.Hold.Reason != HoldThrottled || !st.Hold.Until.Equal(until) || st.State != "held" {
			t.Errorf("status %+v", st)
		}
		r.settleAll(time.Hour)
		n := 0
		for _, at := range w.m.requests {
			if at.After(until.Add(-10*time.Minute)) && at.Before(until) {
				n++
			}
		}
		if n > 0 {
			t.Errorf("%d requests after the refusal and before its time", n)
		}
		if e := w.q.outcome(w.q.byNumber[299]); e.Attempts != 1 {
			t.Errorf("a refusal cost an attempt: %+v", e)
		}
	})
}

// An answer that asks for a pause asks everybody for it, even where it does not
// settle its own change, as a refused read-back; unless one contact alone fails.
func TestWaitIsForEverybody(t *testing.T) {
	for _, c := range []struct {
		verdict contact.Verdict
		all     bool
	}{{contact.VerdictUnknown, true}, {contact.VerdictApplied, true}, {contact.VerdictTransient, false}} {
		t.Run(c.verdict.String(), func(t *testing.T) {
			inBubble(t, func(w *world) {
				w.o.Quota = Quota{Rate: 100, Burst: 10, Concurrency: 1}
				asked := false
				w.m.plan = func(*crmCall) fate {
					if asked {
						return fine
					}
					asked = true
					f := fails(c.verdict, 429)
					f.answer.Wait = time.Minute
					return f
				}
				w.q.publish("first", contact.Live, "a")
				r := w.start()
				time.Sleep(time.Second)
				w.q.publish("second", contact.Live, "a")
				time.Sleep(58 * time.Second)
				if n := len(w.m.callsOf("second")); (n == 0) != c.all {
					t.Errorf("%d calls of another contact while the CRM wanted a pause", n)
				}
				r.settleAll(time.Hour)
			})
		})
	}
}

// Refusals that name no time: the waits grow, the rate falls and climbs back.
func TestThrottledWithoutATime(t *testing.T) {
	inBubble(t, func(w *world) {
		w.o.Quota = Quota{Rate: 10, Concurrency: 4}
		w.m.plan = during(0, 5*time.Minute, fails(contact.VerdictThrottled, 429))
		for i := range 2000 {
			w.q.publish(fmt.Sprintf("c%d", i), contact.Live, "a")
		}
		r := w.start()
		time.Sleep(2 * time.Second)
		if st := r.status(); st.Rate > 7.5 || st.Rate < 0.2 || st.Allowed != 10 {
			t.Errorf("rate %v of %v soon after a refusal", st.Rate, st.Allowed)
		}
		time.Sleep(5 * time.Minute)
		if n := len(between(w.m.callsOf(""), w.q.byNumber[0].update.Stored, 0, 5*time.Minute)); n > 60 || n < 8 {
			t.Errorf("%d calls in 5 min of refusals", n)
		}
		time.Sleep(4 * time.Minute)
		if st := r.status(); st.Rate != 10 {
			t.Errorf("rate %v later", st.Rate)
		}
		r.settleAll(time.Hour)
	})
}

// Eight calls that are refused side by side are one refusal.
func TestRefusalsSideBySideCountOnce(t *testing.T) {
	inBubble(t, func(w *world) {
		w.o.Quota = Quota{Concurrency: 8}
		w.m.plan = during(0, 900*time.Millisecond, fails(contact.VerdictThrottled, 429))
		for i := range 8 {
			w.q.publish(fmt.Sprintf("c%d", i), contact.Live, "a")
		}
		w.start().settleAll(5 * time.Second)
	})
}
