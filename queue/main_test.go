package queue

import (
	"context"
	"fmt"
	"net"
	"os"
	"runtime"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/nats-io/nats-server/v2/server/ats"
	"github.com/nats-io/nats.go"
	"github.com/rs/zerolog"
	"go.uber.org/goleak"

	"crmsync/contact"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// testLease is of tests in virtual time; in real time no lease must run out
// because a machine is busy.
const testLease = time.Second

func testOptions(t testing.TB, dir string) Options {
	t.Helper()
	return Options{
		Embedded: &Embedded{Dir: dir, Port: -1}, Name: "test", Lease: time.Minute, Timeout: 3 * time.Second,
		Log: zerolog.New(os.Stderr).Level(zerolog.FatalLevel),
	}
}

func open(t testing.TB, o Options) *Queue {
	t.Helper()
	q, err := Open(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = q.Close() })
	return q
}

// setUp is an embedded queue with these targets set up.
func setUp(t testing.TB, targets ...string) *Queue {
	t.Helper()
	q := open(t, testOptions(t, t.TempDir()))
	if err := q.Setup(t.Context(), targets); err != nil {
		t.Fatal(err)
	}
	return q
}

// bubble runs a test in virtual time, with the real server in it.
func bubble(t *testing.T, f func(t *testing.T)) {
	t.Helper()
	ats.Register() // its goroutine must not belong to a bubble
	defer ats.Unregister()
	// The client library pools timers; one of another bubble would be fatal.
	// Two collections empty a pool.
	empty := func() { runtime.GC(); runtime.GC() }
	empty()
	defer empty()
	synctest.Test(t, f)
}

// setUpSilent is an embedded queue without sockets, as a bubble needs it.
func setUpSilent(t *testing.T, lease time.Duration, targets ...string) *Queue {
	t.Helper()
	o := testOptions(t, memoryDir(t))
	o.Embedded.Port, o.Lease, o.SessionsInMemory = -2, lease, true
	q := open(t, o)
	if err := q.Setup(t.Context(), targets); err != nil {
		t.Fatal(err)
	}
	return q
}

// memoryDir is a directory whose syncs cost nothing, where there is one.
func memoryDir(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("/dev/shm", "queue")
	if err != nil {
		return t.TempDir()
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}

// peerOf is another process' queue on the same server, whose connection the link
// controls.
func peerOf(t testing.TB, q *Queue, l *link) *Queue {
	t.Helper()
	return open(t, peerOptions(q, l))
}

func peerOptions(q *Queue, l *link) Options {
	o := q.opt
	o.Embedded, o.URL, o.natsExtra = nil, q.URL(), []nats.Option{nats.SetCustomDialer(l)}
	if q.URL() == "" {
		o.natsExtra = []nats.Option{nats.InProcessServer(pipe{q.srv, l})}
	}
	return o
}

func update(target string, id any, class contact.Class, n int) *contact.Update {
	u := contact.Decode(fmt.Appendf(nil, `{"fields":{"n":%d}}`, n), nil)
	u.Contact, u.Class = contact.Key{Target: target, ID: fmt.Sprint(id)}, class
	u.MsgID = fmt.Sprintf("%s-%v-%s-%d", target, id, class, n)
	return u
}

func publish(t testing.TB, q *Queue, us ...*contact.Update) {
	t.Helper()
	for _, u := range us {
		s, err := q.Publish(t.Context(), u)
		if err != nil {
			t.Fatal(err)
		}
		u.Seq = s.Seq
	}
}

// plain is targets without groups.
func plain(targets ...string) OwnOptions {
	var o OwnOptions
	for _, t := range targets {
		o.Targets = append(o.Targets, Target{Name: t})
	}
	return o
}

// lanes runs Own and hands its sources to the test.
type lanes struct {
	sources chan *Source
	stop    context.CancelFunc
	done    chan struct{}
	err     error
}

// own takes part in the distribution; each source stays until it is released.
func own(t testing.TB, q *Queue, targets ...string) *lanes {
	t.Helper()
	ctx, stop := context.WithCancel(context.Background())
	l := &lanes{sources: make(chan *Source, 100), stop: stop, done: make(chan struct{})}
	go func() {
		defer close(l.done)
		l.err = q.Own(ctx, plain(targets...), func(ctx context.Context, s *Source) {
			l.sources <- s
			<-ctx.Done()
		})
	}()
	t.Cleanup(func() { l.end(t) })
	return l
}

func (l *lanes) end(t testing.TB) {
	t.Helper()
	l.stop()
	select {
	case <-l.done:
	case <-time.After(20 * time.Second):
		t.Error("Own did not return")
	}
	if l.err != nil {
		t.Error(l.err)
	}
}

// source waits for the next target that becomes ours.
func (l *lanes) source(t testing.TB) *Source {
	t.Helper()
	select {
	case s := <-l.sources:
		return s
	case <-l.done:
		t.Fatal("Own returned: ", l.err)
	case <-time.After(20 * time.Second):
		t.Fatal("no target became ours")
	}
	return nil
}

// next reads one update; nil where everything that waits was handed out.
func next(t testing.TB, s *Source, class contact.Class, wait time.Duration) *contact.Delivery {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), wait)
	defer cancel()
	d, err := s.Next(ctx, class)
	if err != nil {
		if ctx.Err() == nil {
			t.Fatal(err)
		}
		return nil
	}
	return &d
}

// take reads n updates of a class, leaving out the word that it caught up.
func take(t testing.TB, s *Source, class contact.Class, n int) []*contact.Update {
	t.Helper()
	var out []*contact.Update
	for len(out) < n {
		d := next(t, s, class, 10*time.Second)
		if d == nil {
			t.Fatalf("%d %s updates, want %d", len(out), class, n)
		}
		if d.Update != nil {
			out = append(out, d.Update)
		}
	}
	return out
}

func settlement(outcome contact.Outcome, us ...*contact.Update) contact.Settlement {
	st := contact.Settlement{Contact: us[0].Contact, Fence: contact.Fence{}}
	for _, u := range us {
		e := contact.Ending{Outcome: outcome, Call: "call-1", Status: 200, Merged: len(us), Fields: []string{"n"}, Ended: time.Now()}
		if outcome == contact.Dead {
			e.Reason, e.Status = contact.Invalid, 422
		}
		st.Ended = append(st.Ended, contact.Ended{Update: u, Ending: e})
		st.Fence.Add([]string{"n"}, u.Mark())
	}
	return st
}

func settle(t testing.TB, s *Source, outcome contact.Outcome, us ...*contact.Update) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	if err := s.Settle(ctx, settlement(outcome, us...)); err != nil {
		t.Fatal(err)
	}
}

func allRecords(t testing.TB, q *Queue, f Filter) []Record {
	t.Helper()
	var out []Record
	if err := q.Records(t.Context(), f, func(r Record) error { out = append(out, r); return nil }); err != nil {
		t.Fatal(err)
	}
	return out
}

// eventually waits for a state of the world outside this process' memory.
func eventually(t testing.TB, within time.Duration, what string, ok func() bool) {
	t.Helper()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for end := time.Now().Add(within); !ok(); <-tick.C {
		if time.Now().After(end) {
			t.Fatalf("not within %s: %s", within, what)
		}
	}
}

// everything reads what each class hands out until nothing has come for a
// while after it caught up.
func everything(t testing.TB, s *Source) []*contact.Update {
	t.Helper()
	var mu sync.Mutex
	var out []*contact.Update
	var wg sync.WaitGroup
	for c := range contact.Class(contact.Classes) {
		wg.Go(func() {
			for {
				d := next(t, s, c, 10*time.Second)
				if d == nil || d.Update == nil {
					return
				}
				mu.Lock()
				out = append(out, d.Update)
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	return out
}

func contextWithCancel(t testing.TB) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancel(t.Context())
	t.Cleanup(cancel)
	return ctx, cancel
}

func splitPort(t testing.TB, addr string) (host string, port int) {
	t.Helper()
	a, err := net.ResolveTCPAddr("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	return a.IP.String(), a.Port
}
