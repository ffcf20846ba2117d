package worker

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"crmsync/contact"
)

func TestNoCallOutlastsTheLease(t *testing.T) {
	inBubble(t, func(w *world) {
		w.o.Margin = 2 * time.Second
		r := w.start()
		r.s.freeze(20 * time.Second) // calls need 12
		began := time.Now()
		go func() {
			for i := range 100 {
				w.q.publish(fmt.Sprintf("c%d", i), contact.Live, "a")
				time.Sleep(200 * time.Millisecond)
			}
		}()
		time.Sleep(15 * time.Second)
		calls := w.m.callsOf("")
		if last := calls[len(calls)-1].at.Sub(began); last > 8*time.Second || last < 7*time.Second {
			t.Errorf("the last call began after %v, want up to 8 s", last)
		}
		if st := r.status(); st.Waiting != "its lease to be renewed" {
			t.Errorf("waits for %s", st.Waiting)
		}
		r.s.thaw()
		time.Sleep(10 * time.Second)
		r.settleAll(time.Minute)
	})
}

func TestNoSecondRequestOutlastsTheLease(t *testing.T) {
	inBubble(t, func(w *world) {
		w.m.plan = func(c *crmCall) fate {
			f := fine
			if c.n == 0 {
				f.before, f.readFirst = 6*time.Second, true
			}
			return f
		}
		u := w.q.publish("c1", contact.Live, "a")
		r := w.start()
		r.s.freeze(14 * time.Second)
		time.Sleep(10 * time.Second)
		synctest.Wait()
		if len(w.m.requests) != 1 {
			t.Errorf("%d requests, want only the first", len(w.m.requests))
		}
		if st := r.status(); st.Retrying != 0 || st.Ready != 1 || st.Counts.Requests != 1 {
			t.Errorf("status %+v", st)
		}
		r.s.thaw()
		r.settleAll(time.Minute)
		if e := w.q.outcome(u); e.Attempts != 1 || e.Outcome != contact.Applied {
			t.Errorf("the cut call cost an attempt: %+v", e)
		}
	})
}
