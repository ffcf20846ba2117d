package worker

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"crmsync/contact"
	"crmsync/crm"
)

// gated is a source that hands out its deliveries one at a time, when told.
type gated struct {
	*session
	gate [contact.Classes]chan struct{}
}

func (g *gated) Next(ctx context.Context, c contact.Class) (contact.Delivery, error) {
	select {
	case <-g.gate[c]:
	case <-ctx.Done():
		return contact.Delivery{}, ctx.Err()
	}
	return g.session.Next(ctx, c)
}

func (w *world) startGated() (*running, *gated) {
	g := &gated{session: w.q.claim()}
	for c := range g.gate {
		g.gate[c] = make(chan struct{})
	}
	w.o.Source = g
	return w.startWith(g.session), g
}

func TestReplayHorizon(t *testing.T) {
	inBubble(t, func(w *world) {
		for range 3 {
			w.q.publish("c1", contact.Live, "a")
		}
		w.q.publish("c1", contact.Bulk, "b")
		r, g := w.startGated()
		step := func(c contact.Class, state string) {
			t.Helper()
			g.gate[c] <- struct{}{}
			time.Sleep(10 * time.Second)
			if st := r.status(); st.State != state || st.Counts.Calls != 0 && state == "loading" {
				t.Fatalf("state %s after %d calls, want %s", st.State, st.Counts.Calls, state)
			}
		}
		for range 4 { // three updates, and the word that these were all
			step(contact.Live, "loading")
		}
		step(contact.Bulk, "loading")
		step(contact.Bulk, "idle")
		if calls := w.m.callsOf(""); len(calls) != 1 || calls[0].change.Updates != 4 {
			t.Errorf("calls %+v, want one of all that waited", calls)
		}
		r.end()
	})
}

func TestFullWindowOpensTheGate(t *testing.T) {
	for name, limit := range map[string]func(*Options){
		"count": func(o *Options) { o.Window = 4 },
		"bytes": func(o *Options) { o.WindowBytes = 50 }, // of about 14 each
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(w *world) {
				limit(&w.o)
				w.o.Quota.Rate = 0.1
				for i := range 20 {
					w.q.publish(fmt.Sprintf("c%d", i%2), contact.Live, "a")
				}
				r := w.start()
				time.Sleep(time.Second)
				st := r.status()
				if st.State != "running" || st.Live != 4 || r.s.handedOut(contact.Live) != 4 {
					t.Errorf("%s: %d live updates in memory, %d handed out, want 4", st.State, st.Live, r.s.handedOut(contact.Live))
				}
				time.Sleep(10 * time.Second) // one call: two of them end, two more come
				if n := r.s.handedOut(contact.Live); n != 6 {
					t.Errorf("%d handed out, want 6", n)
				}
				r.wait(time.Hour)
				if st := r.status(); st.Live != 0 || st.Contacts != 0 || st.State != "idle" || st.Waiting != "updates" {
					t.Errorf("status at the end %+v", st)
				}
				r.end()
			})
		})
	}
}

// A class that is full does not keep the other from being read.
func TestWindowsAreApart(t *testing.T) {
	inBubble(t, func(w *world) {
		w.o.Window = 2
		w.o.Quota.Rate = 0.01
		for i := range 10 {
			w.q.publish(fmt.Sprintf("b%d", i), contact.Bulk, "a")
		}
		r := w.start()
		time.Sleep(time.Second)
		w.q.publish("l", contact.Live, "a")
		time.Sleep(time.Second)
		if st := r.status(); st.Bulk != 2 || st.Live != 1 {
			t.Errorf("%d bulk, %d live", st.Bulk, st.Live)
		}
		r.end()
	})
}

func TestOneUpdateBeyondTheWindowsBytes(t *testing.T) {
	inBubble(t, func(w *world) {
		w.o.WindowBytes = 1
		w.q.publish("c1", contact.Live, "a", "b", "c")
		w.q.publish("c2", contact.Live, "a", "b", "c")
		w.start().settleAll(time.Minute)
	})
}

func TestDrain(t *testing.T) {
	inBubble(t, func(w *world) {
		w.o.Quota = Quota{Concurrency: 4}
		w.m.plan = func(*crmCall) fate {
			f := fine
			f.latency, f.readFirst, f.before = 3*time.Second, true, time.Second
			return f
		}
		w.q.delay = 2 * time.Second
		for i := range 10 {
			w.q.publish(fmt.Sprintf("c%d", i), contact.Live, "a")
		}
		r := w.start()
		time.Sleep(500 * time.Millisecond)
		r.stop()
		time.Sleep(time.Second)
		if st := r.status(); st.State != "draining" || st.Calling != 4 || st.Waiting != "calls in flight to end" {
			t.Errorf("status %+v", st)
		}
		r.end()
		if n := len(w.m.callsOf("")); n != 4 {
			t.Errorf("%d calls, want the 4 in flight", n)
		}
		if n := w.q.pending(); n != 6 {
			t.Errorf("%d updates pending, want 6: what was in flight is stored", n)
		}
		if _, ok := r.l.Status(w.t.Context()); ok {
			t.Error("a lane that has ended has a status")
		}
		if r.l.Steer(w.t.Context(), Orders{}) {
			t.Error("a lane that has ended takes orders")
		}
	})
}

// A drain does not wait for retries, nor for what a take has still to send.
func TestDrainLeavesRetries(t *testing.T) {
	inBubble(t, func(w *world) {
		w.m.plan = func(*crmCall) fate { return fails(contact.VerdictTransient, 500) }
		w.q.publish("c1", contact.Live, "a")
		r := w.start()
		time.Sleep(time.Second)
		r.end()
		w.m.plan = func(*crmCall) fate { return fine }
		w.o.Quota.Rate = 100
		for i := range 8 {
			w.q.publish("c2", contact.Live, fmt.Sprintf("f%d=bad", i))
		}
		r = w.start()
		time.Sleep(60 * time.Millisecond) // amid the search for culprits
		r.end()
		if n := w.q.pending(); n != 9 && n != 8 {
			t.Errorf("%d pending", n)
		}
		w.start().settleAll(time.Minute)
	})
}

func TestWorkCutsCallsShort(t *testing.T) {
	inBubble(t, func(w *world) {
		w.m.plan = func(*crmCall) fate { f := fine; f.latency = time.Hour; return f }
		w.q.publish("c1", contact.Live, "a")
		r := w.start()
		time.Sleep(time.Second)
		r.stop()
		time.Sleep(time.Second)
		began := time.Now()
		r.kill()
		<-r.done
		if !errors.Is(r.err, context.Canceled) || time.Since(began) > time.Millisecond {
			t.Errorf("%v after %v", r.err, time.Since(began))
		}
		if w.q.pending() != 1 {
			t.Error("a call that was cut short has an outcome")
		}
	})
}

func TestWorkCutsSettlementsShort(t *testing.T) {
	inBubble(t, func(w *world) {
		w.q.down = true
		w.q.publish("c1", contact.Live, "a")
		r := w.start()
		time.Sleep(time.Second)
		r.stop()
		time.Sleep(time.Minute)
		select {
		case <-r.done:
			t.Fatal("it ended with an outcome that is not stored")
		default:
		}
		r.kill()
		<-r.done
		if !errors.Is(r.err, context.Canceled) {
			t.Error(r.err)
		}
	})
}

func TestLostSource(t *testing.T) {
	inBubble(t, func(w *world) {
		w.m.plan = func(*crmCall) fate { f := fine; f.latency = 5 * time.Second; return f }
		for i := range 10 {
			w.q.publish(fmt.Sprintf("c%d", i), contact.Live, "a")
		}
		r := w.start()
		time.Sleep(time.Second)
		began := time.Now()
		r.s.lose()
		<-r.done
		if !errors.Is(r.err, errLost) || errors.Is(r.err, context.Canceled) {
			t.Errorf("Run: %v", r.err)
		}
		if took := time.Since(began); took < 3*time.Second || took > 5*time.Second {
			t.Errorf("it ended after %v, want once the calls in flight have", took)
		}
		if n := len(w.m.callsOf("")); n != 4 {
			t.Errorf("%d calls", n)
		}
	})
}

func TestLostSourceOfAnIdleLane(t *testing.T) {
	inBubble(t, func(w *world) {
		r := w.start()
		time.Sleep(time.Second)
		r.s.lose()
		<-r.done
		if !errors.Is(r.err, errLost) {
			t.Errorf("Run: %v", r.err)
		}
	})
}

// While outcomes cannot be stored, a contact's next call waits, and others go on.
func TestSettlementBeforeTheNextCall(t *testing.T) {
	inBubble(t, func(w *world) {
		w.q.delay = 10 * time.Second
		w.q.publish("c1", contact.Live, "a")
		r := w.start()
		time.Sleep(time.Second)
		w.q.publish("c1", contact.Live, "a")
		w.q.publish("c2", contact.Live, "a")
		time.Sleep(2 * time.Second)
		if a, b := len(w.m.callsOf("c1")), len(w.m.callsOf("c2")); a != 1 || b != 1 {
			t.Errorf("%d and %d calls, want one each", a, b)
		}
		r.settleAll(time.Minute)
	})
}

func TestSettlementsInFlightAreBounded(t *testing.T) {
	inBubble(t, func(w *world) {
		w.o.Quota = Quota{Concurrency: 50}
		w.q.down = true
		for i := range maxSettling + 500 {
			w.q.publish(fmt.Sprintf("c%d", i), contact.Live, "a")
		}
		r := w.start()
		time.Sleep(time.Minute)
		if n := len(w.m.callsOf("")); n < maxSettling || n > maxSettling+50 {
			t.Errorf("%d calls while nothing can be stored", n)
		}
		if st := r.status(); st.Waiting != "outcomes to be stored" {
			t.Errorf("waits for %s", st.Waiting)
		}
		w.q.mu.Lock()
		w.q.down = false
		w.q.mu.Unlock()
		r.settleAll(time.Minute)
	})
}

func TestCallbacks(t *testing.T) {
	inBubble(t, func(w *world) {
		ended, answers := 0, 0
		w.o.OnSettled = func(e contact.Ended) {
			if ended++; w.q.outcome(w.q.byNumber[e.Update.Seq-1]).Outcome != e.Ending.Outcome {
				t.Errorf("update %d is told to be %s before that is stored", e.Update.Seq, e.Ending.Outcome)
			}
		}
		w.o.OnAnswer = func(a crm.Answer, took time.Duration) {
			if answers++; took != 50*time.Millisecond || a.Verdict != contact.VerdictApplied {
				t.Errorf("answer %+v after %v", a, took)
			}
		}
		w.q.publish("c1", contact.Live, "a")
		w.q.publish("c1", contact.Live, "a")
		r := w.start()
		r.wait(time.Minute)
		st := r.status()
		if c := st.Counts; ended != 2 || answers != 1 || c.Calls != 1 || c.Requests != 1 || c.Saved != 1 ||
			c.Outcomes[contact.Applied] != 1 || c.Outcomes[contact.Superseded] != 1 || c.Answers[contact.VerdictApplied] != 1 {
			t.Errorf("told of %d endings and %d answers; counts %+v", ended, answers, c)
		}
		r.end()
	})
}

func TestStatusBeforeRunEndsWithItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := New(Options{Target: "shop"})
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, ok := l.Status(ctx); ok {
			t.Error("a lane that does not run has a status")
		}
		if l.Steer(ctx, Orders{}) {
			t.Error("a lane that does not run takes orders")
		}
	})
}

// fencedSource loses the target without Next being told.
type fencedSource struct{ *session }

func (fencedSource) Settle(context.Context, contact.Settlement) error { return errLost }

func TestOutcomeThatCannotBeStoredEndsTheLane(t *testing.T) {
	inBubble(t, func(w *world) {
		w.m.plan = func(c *crmCall) fate {
			f := fine
			f.latency = time.Duration(c.change.Contact.ID[1]) * time.Second / 10
			return f
		}
		s := w.q.claim()
		w.o.Source = fencedSource{s}
		for i := range 10 {
			w.q.publish(fmt.Sprintf("c%d", i), contact.Live, "a")
		}
		r := w.startWith(s)
		<-r.done
		if !errors.Is(r.err, errLost) {
			t.Errorf("Run: %v", r.err)
		}
		if n := len(w.m.callsOf("")); n > 5 { // the fifth may start before the first outcome fails
			t.Errorf("%d calls, want none after the first outcome that could not be stored", n)
		}
	})
}

// What a call in flight has still to send is sent where the quota has it at
// once, however the lane's end and the request come together.
func TestStoppingSpendsWhatThereIs(t *testing.T) {
	inBubble(t, func(w *world) {
		stopped := func(q Quota) *Lane {
			w.o.Quota, w.o.Source = q, w.q.claim()
			l := New(w.o)
			l.drains()
			return l
		}
		l := stopped(Quota{Concurrency: 1})
		for range 5000 {
			if err := l.Spend(w.t.Context()); err != nil {
				t.Fatalf("a quota without limits: %v", err)
			}
		}
		if err := stopped(Quota{Rate: 0.001, Burst: 1}).Spend(w.t.Context()); err == nil {
			t.Error("a lane that stops waited for its quota")
		}
		ctx, cancel := context.WithCancel(w.t.Context())
		cancel()
		l = stopped(Quota{})
		if err := l.Spend(ctx); err == nil || l.budget.Describe(time.Now()).Total != 0 {
			t.Errorf("a request of a call that was cut short: %v", err)
		}
	})
}
