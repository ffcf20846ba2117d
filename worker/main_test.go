package worker

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rs/zerolog"
	"go.uber.org/goleak"

	"crmsync/contact"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var testRules = contact.Rules{Deep: []string{"addr"}, SideEffects: []string{"mail"}}

// world is a queue, a CRM and the options of the lanes between them.
type world struct {
	t testing.TB
	q *queueModel
	m *crmModel
	o Options

	lanes []*running
}

func newWorld(t testing.TB) *world {
	q := newQueueModel(t)
	m := newCRMModel(t, q)
	return &world{t: t, q: q, m: m, o: Options{
		Target: "shop", Sender: m, Rules: testRules, Timeout: 10 * time.Second,
		Quota: Quota{Rate: 10, Burst: 1, Concurrency: 4}, Log: zerolog.Nop(), Seed: 1,
	}}
}

// inBubble runs a test in virtual time and checks at its end what must hold in
// every one.
func inBubble(t *testing.T, f func(w *world)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		defer w.killAll() // a failing test ends here, too
		f(w)
		w.killAll()
		synctest.Wait()
		w.m.check()
	})
}

// after lets time pass, and what happens at that instant come to its end: what the
// models hold can be looked at then.
func (w *world) after(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

// running is a lane that runs.
type running struct {
	w     *world
	l     *Lane
	s     *session
	began time.Time
	stop  context.CancelFunc // graceful
	kill  context.CancelFunc // cuts calls, too
	done  chan struct{}
	err   error
}

// start claims the target and runs a lane for it.
func (w *world) start() *running {
	s := w.q.claim()
	w.o.Source, w.o.Effects = s, s
	return w.startWith(s)
}

func (w *world) startWith(s *session) *running {
	o := w.o
	ctx, stop := context.WithCancel(w.t.Context())
	work, kill := context.WithCancel(w.t.Context())
	r := &running{w: w, l: New(o), s: s, began: time.Now(), stop: stop, kill: func() { kill(); stop() }, done: make(chan struct{})}
	go func() {
		r.err = r.l.Run(ctx, work)
		close(r.done)
	}()
	w.lanes = append(w.lanes, r)
	return r
}

func (w *world) killAll() {
	for _, r := range w.lanes {
		r.kill()
		<-r.done
	}
}

// end stops a lane gracefully; it must return nil.
func (r *running) end() {
	r.w.t.Helper()
	r.stop()
	<-r.done
	if r.err != nil {
		r.w.t.Errorf("Run: %v", r.err)
	}
}

func (r *running) status() Status {
	st, ok := r.l.Status(r.w.t.Context())
	if !ok {
		r.w.t.Fatal("Status: the lane has ended")
	}
	return st
}

// settleAll waits until every update has its outcome, and ends the lane.
func (r *running) settleAll(within time.Duration) {
	r.w.t.Helper()
	r.wait(within)
	r.end()
}

func (r *running) wait(within time.Duration) {
	r.w.t.Helper()
	for end := time.Now().Add(within); r.w.q.pending() > 0; {
		if time.Now().After(end) {
			st := r.status()
			r.w.t.Fatalf("after %v %d updates are pending; the lane is %s, waits for %s; hold %+v; retries %+v",
				within, r.w.q.pending(), st.State, st.Waiting, st.Hold, st.Retries)
		}
		select {
		case <-r.done:
			r.w.t.Fatalf("the lane ended with %d updates pending: %v", r.w.q.pending(), r.err)
		case <-time.After(max(10*time.Millisecond, within/10000)):
		}
	}
}
