package worker

import (
	"fmt"
	"testing"
	"time"

	"crmsync/contact"
)

func TestOperator(t *testing.T) {
	inBubble(t, func(w *world) {
		for i := range 100 {
			w.q.publish(fmt.Sprintf("c%d", i), contact.Live, "a")
		}
		r := w.start()
		born := time.Now()
		time.Sleep(2 * time.Second)
		since := time.Now()
		r.l.Steer(w.t.Context(), Orders{Hold: true, By: "ann", Note: "maintenance", Since: since})
		time.Sleep(time.Hour)
		n := len(w.m.callsOf(""))
		if n < 15 || n > 21 {
			t.Errorf("%d calls before the hold", n)
		}
		st := r.status()
		if st.State != "held" || st.Hold == nil || st.Hold.Reason != HoldOperator || st.Hold.Detail != "maintenance" ||
			!st.Hold.Since.Equal(since) || st.Waiting != "the operator" || st.Orders.By != "ann" {
			t.Errorf("status %+v", st)
		}
		// At half the pace, and held until an hour from now.
		until := time.Now().Add(time.Hour)
		r.l.Steer(w.t.Context(), Orders{Hold: true, Until: until, Limits: Limits{Rate: 5}})
		if st := r.status(); !st.Until.Equal(until) {
			t.Errorf("until %v, want %v", st.Until, until)
		}
		time.Sleep(time.Hour + 4*time.Second)
		if got := len(between(w.m.callsOf(""), born, 0, until.Sub(born))); got != n {
			t.Errorf("%d calls during the hold", got-n)
		}
		if got := len(w.m.callsOf("")) - n; got < 19 || got > 22 {
			t.Errorf("%d calls in 4 s at 5/s", got)
		}
		if st := r.status(); st.Orders.Hold || st.Rate != 5 || st.Allowed != 5 || st.State != "running" {
			t.Errorf("status %+v", st)
		}
		r.l.Steer(w.t.Context(), Orders{}) // back to the configured rate
		if st := r.status(); st.Rate != 10 {
			t.Errorf("rate %v", st.Rate)
		}
		r.settleAll(time.Minute)
	})
}

func TestResumeTriesAtOnce(t *testing.T) {
	inBubble(t, func(w *world) {
		w.m.plan = func(c *crmCall) fate {
			if c.n < 2 {
				return fails(contact.VerdictForbidden, 403)
			}
			return fine
		}
		w.q.publish("c1", contact.Live, "a")
		r := w.start()
		time.Sleep(time.Second)
		resumed := time.Now()
		r.l.Steer(w.t.Context(), Orders{Since: resumed})
		time.Sleep(time.Second)
		if n := len(w.m.callsOf("")); n != 2 {
			t.Errorf("%d calls: who resumes wants to see it tried", n)
		}
		r.l.Steer(w.t.Context(), Orders{Since: resumed}) // said again, it is no new wish
		time.Sleep(time.Second)
		if n := len(w.m.callsOf("")); n != 2 {
			t.Errorf("%d calls: the same orders again cause a probe", n)
		}
		r.l.Steer(w.t.Context(), Orders{Hold: true, Since: time.Now()})
		time.Sleep(time.Second)
		r.l.Steer(w.t.Context(), Orders{Since: time.Now()})
		r.settleAll(time.Second)
	})
}

func TestRateOrderOnUnlimitedTarget(t *testing.T) {
	inBubble(t, func(w *world) {
		w.o.Quota = Quota{Concurrency: 2}
		for i := range 100 {
			w.q.publish(fmt.Sprintf("c%d", i), contact.Live, "a")
		}
		r := w.start()
		r.l.Steer(w.t.Context(), Orders{Limits: Limits{Rate: 1}})
		n := len(w.m.callsOf(""))
		time.Sleep(20 * time.Second)
		if got := len(w.m.callsOf("")) - n; got < 19 || got > 20 {
			t.Errorf("%d calls in 20 s at 1/s", got)
		}
		r.l.Steer(w.t.Context(), Orders{})
		r.settleAll(5 * time.Second)
	})
}
