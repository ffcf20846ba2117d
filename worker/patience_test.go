package worker

import (
	"fmt"
	"testing"
	"time"

	"crmsync/contact"
)

// A lane that is told to stop does not wait for a quota that its calls in
// flight still need: what they have not written, the next owner does.
func TestStopDoesNotWaitForTheQuota(t *testing.T) {
	inBubble(t, func(w *world) {
		w.o.Quota = Quota{Concurrency: 1, Windows: []WindowLimit{{Span: time.Hour, Limit: 1}}}
		w.m.plan = func(*crmCall) fate { f := fine; f.readFirst = true; return f }
		u := w.q.publish("c", contact.Live, "a")
		r := w.start()
		time.Sleep(time.Minute) // the read has taken the hour's one request
		began := time.Now()
		r.end()
		if d := time.Since(began); d > time.Second {
			t.Errorf("the stop took %s", d)
		}
		if e := w.q.outcome(u); e.Outcome != contact.Pending {
			t.Errorf("outcome %v without a write", e.Outcome)
		}
	})
}

// What a CRM asks for it gets, also with an answer that is a success or a
// refusal of this change.
func TestWaitIsObeyedWithEveryVerdict(t *testing.T) {
	for _, v := range []contact.Verdict{contact.VerdictApplied, contact.VerdictUnchanged, contact.VerdictInvalid, contact.VerdictMissing} {
		t.Run(v.String(), func(t *testing.T) {
			inBubble(t, func(w *world) {
				w.o.Quota = Quota{Rate: 100, Burst: 1, Concurrency: 1}
				w.m.plan = func(c *crmCall) fate {
					f := fine
					f.answer.Verdict = v
					if len(w.m.calls) == 0 {
						f.answer.Wait = 10 * time.Minute
					}
					return f
				}
				for i := range 3 {
					w.q.publish(fmt.Sprint("c", i), contact.Live, "a")
				}
				w.start().settleAll(time.Hour)
				if d := w.m.calls[1].at.Sub(w.m.calls[0].end); d < 10*time.Minute {
					t.Errorf("the next call came after %s", d)
				}
			})
		})
	}
}

// Each probe of a refused login waits as long as the last refusal asks for: a
// missing permission longer than an unknown token.
func TestForbiddenProbesLessOften(t *testing.T) {
	inBubble(t, func(w *world) {
		w.m.plan = func(c *crmCall) fate {
			switch n := len(w.m.calls); {
			case n == 0:
				return fails(contact.VerdictUnauthorized, 401)
			case n < 4:
				return fails(contact.VerdictForbidden, 403)
			}
			return fine
		}
		w.q.publish("c", contact.Live, "a")
		w.start().settleAll(time.Hour)
		for i, want := range []time.Duration{probeCredentials, probeForbidden, probeForbidden, probeForbidden} {
			if got := w.m.calls[i+1].at.Sub(w.m.calls[i].end); got < want || got > want+time.Second {
				t.Errorf("probe %d came after %s, want %s", i+1, got, want)
			}
		}
	})
}

// A target that is held when its lane begins is not called first and held then.
func TestOrdersFromTheStart(t *testing.T) {
	inBubble(t, func(w *world) {
		w.o.Orders = Orders{Hold: true, By: "ann"}
		w.q.publish("c", contact.Live, "a")
		r := w.start()
		time.Sleep(time.Hour)
		if n := len(w.m.calls); n != 0 {
			t.Errorf("%d calls", n)
		}
		r.l.Steer(w.t.Context(), Orders{})
		r.settleAll(time.Minute)
	})
}

// A request of somebody else's counts like the lane's own, and waits like them,
// for as long as the lane works.
func TestSpend(t *testing.T) {
	inBubble(t, func(w *world) {
		w.o.Quota = Quota{Concurrency: 1, Windows: []WindowLimit{{Span: time.Hour, Limit: 2}}}
		r := w.start()
		if err := r.l.Spend(w.t.Context()); err != nil {
			t.Fatal(err)
		}
		w.q.publish("a", contact.Live, "a")
		w.q.publish("b", contact.Live, "a")
		time.Sleep(time.Minute)
		if n := len(w.m.callsOf("")); n != 1 {
			t.Errorf("%d calls beside a request of somebody else's, in a window of two", n)
		}
		ended := make(chan error, 1)
		go func() { ended <- r.l.Spend(w.t.Context()) }()
		time.Sleep(time.Minute)
		r.end()
		if err := <-ended; err == nil {
			t.Error("a lane that has ended lets somebody spend")
		}
	})
}

// What was read before a write does not grow old while the write waits for its
// quota, and no write goes out in the middle of a hold.
func TestCallDoesNotWaitForTheQuotaInTheMiddle(t *testing.T) {
	inBubble(t, func(w *world) {
		w.o.Quota = Quota{Rate: 10, Burst: 1, Concurrency: 4, Windows: []WindowLimit{{Span: time.Hour, Limit: 5}}}
		w.o.Requests = 2
		w.m.plan = func(*crmCall) fate { f := fine; f.readFirst = true; return f }
		w.contacts(0, 20, "a")
		r := w.start()
		time.Sleep(time.Minute)
		r.l.Steer(w.t.Context(), Orders{Hold: true, Since: time.Now()})
		n := len(w.m.requests)
		time.Sleep(2 * time.Hour)
		if got := len(w.m.requests) - n; got > 0 {
			t.Errorf("%d requests in the operator's hold", got)
		}
		r.l.Steer(w.t.Context(), Orders{Since: time.Now()})
		r.settleAll(24 * time.Hour)
		for _, c := range w.m.callsOf("") {
			if d := c.end.Sub(c.at); d > w.o.Timeout+time.Second {
				t.Fatalf("a call took %s", d)
			}
		}
	})
}
