package queue

import (
	"context"
	"errors"
	"slices"
	"sync"
	"testing"
	"time"

	"crmsync/contact"
)

// holders counts for each target who holds it, and fails where two do.
type holders struct {
	t  *testing.T
	mu sync.Mutex
	of map[string]string
}

func (h *holders) run(q *Queue, name string, targets ...string) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() {
		done <- q.Own(ctx, plain(targets...), func(ctx context.Context, s *Source) {
			h.mu.Lock()
			if other := h.of[s.Target()]; other != "" {
				h.t.Errorf("%s takes %s while %s has it", name, s.Target(), other)
			}
			h.of[s.Target()] = name
			h.mu.Unlock()
			<-ctx.Done()
			h.mu.Lock()
			h.of[s.Target()] = ""
			h.mu.Unlock()
		})
	}()
	return sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			h.t.Error(err)
		}
	})
}

func (h *holders) snapshot() map[string]string {
	h.mu.Lock()
	defer h.mu.Unlock()
	out := map[string]string{}
	for t, n := range h.of {
		if n != "" {
			out[t] = n
		}
	}
	return out
}

func TestDistribution(t *testing.T) { bubble(t, testDistribution) }

func testDistribution(t *testing.T) {
	var targets []string // so many that chance gives some to each
	for c := 'a'; c <= 'z'; c++ {
		targets = append(targets, string(c))
	}
	q := setUpSilent(t, testLease, targets...)
	la, lb := &link{}, &link{}
	a, b := peerOf(t, q, la), peerOf(t, q, lb)
	h := &holders{t: t, of: map[string]string{}}
	all := func(names ...string) func() bool {
		return func() bool {
			got := h.snapshot()
			seen := map[string]bool{}
			for _, n := range got {
				seen[n] = true
			}
			return len(got) == len(targets) && len(seen) == len(names) && seen[names[0]] && seen[names[len(names)-1]]
		}
	}
	stopA := h.run(a, "A", targets...)
	defer stopA()
	eventually(t, 2*time.Second, "A has all", all("A"))
	stopB := h.run(b, "B", targets...)
	defer stopB()
	eventually(t, 2*time.Second, "A and B share", all("A", "B"))
	ss, err := q.Sessions(t.Context())
	if err != nil || len(ss) != 2 || !slices.Equal(ss[0].Targets, targets) {
		t.Errorf("sessions %+v, %v", ss, err)
	}

	// Gracefully: the other has everything within a second.
	began := time.Now()
	stopB()
	eventually(t, 2*time.Second, "A has all after B left", all("A"))
	if d := time.Since(began); d > time.Second {
		t.Errorf("handing over took %s", d)
	}
	stopB = h.run(b, "B", targets...)
	defer stopB()
	eventually(t, 2*time.Second, "shared again", all("A", "B"))

	// Without a word: after the lease.
	began = time.Now()
	la.sever()
	eventually(t, testLease+2*time.Second, "B has all after A was cut off", all("B"))
	if d := time.Since(began); d < testLease/2 {
		t.Errorf("taken over after %s, within A's lease", d)
	}
	la.mend()
	eventually(t, 5*time.Second, "A is back with a new session", all("A", "B"))
}

// A process that leaves and whose lane takes its time for one target gives the
// others away at once.
func TestLeavingIsNotHeldUp(t *testing.T) {
	bubble(t, func(t *testing.T) {
		q := setUpSilent(t, 30*time.Second, "a", "b", "c", "d")
		a, b := peerOf(t, q, &link{}), peerOf(t, q, &link{})
		ctx, leave := contextWithCancel(t)
		slow, began := make(chan struct{}), make(chan struct{}, 4)
		left := make(chan error, 1)
		go func() {
			left <- a.Own(ctx, plain("a", "b", "c", "d"), func(ctx context.Context, s *Source) {
				began <- struct{}{}
				<-ctx.Done()
				if s.Target() == "a" {
					<-slow
				}
			})
		}()
		for range 4 {
			<-began
		}
		leave()
		time.Sleep(time.Second)
		l := own(t, b, "a", "b", "c", "d")
		start := time.Now()
		for range 3 {
			if s := l.source(t); s.Target() == "a" {
				t.Error("a was taken from its owner")
			}
		}
		if d := time.Since(start); d > time.Second {
			t.Errorf("it took %s", d)
		}
		close(slow)
		if s := l.source(t); s.Target() != "a" {
			t.Errorf("got %s", s.Target())
		}
		if err := <-left; err != nil {
			t.Error(err)
		}
		l.end(t)
		_, _ = a.Close(), b.Close()
	})
}

// A target that only one process serves stays there.
func TestOnlyThoseWhoServeATargetOwnIt(t *testing.T) {
	q := setUp(t, "a", "b", "c")
	p1, p2 := peerOf(t, q, &link{}), peerOf(t, q, &link{})
	h := &holders{t: t, of: map[string]string{}}
	defer h.run(p1, "1", "a", "b")()
	defer h.run(p2, "2", "b", "c")()
	eventually(t, 2*time.Second, "each its own", func() bool {
		got := h.snapshot()
		return got["a"] == "1" && got["c"] == "2" && got["b"] != ""
	})
}

func TestScoreSpreads(t *testing.T) {
	count := map[string]int{}
	for i := range 300 {
		target := "t" + string(rune('a'+i%26)) + string(rune('a'+i/26))
		best := "x1"
		for _, s := range []string{"x2", "x3"} {
			if score(s, target) > score(best, target) {
				best = s
			}
		}
		count[best]++
	}
	for s, n := range count {
		if n < 70 || n > 130 {
			t.Errorf("%s has %d of 300", s, n)
		}
	}
}

// A process that was cut off and does not know it cannot store anything once
// another has the target, and it knows by its own clock before that.
func TestZombie(t *testing.T) { bubble(t, testZombie) }

func testZombie(t *testing.T) {
	q := setUpSilent(t, testLease, "office")
	publish(t, q, update("office", 1, contact.Live, 1), update("office", 1, contact.Live, 2))
	cut := &link{}
	zombie := peerOf(t, q, cut)
	old := own(t, zombie, "office").source(t)
	held := take(t, old, contact.Live, 2)

	cut.sever()
	began := time.Now()
	waiting := make(chan error, 1)
	go func() {
		_, err := old.Next(context.Background(), contact.Live)
		for err == nil {
			_, err = old.Next(context.Background(), contact.Live)
		}
		waiting <- err
	}()
	fresh := own(t, q, "office").source(t)
	if d := time.Since(began); d < testLease/2 || d > testLease+2*time.Second {
		t.Errorf("taken over after %s", d)
	}
	if !old.Lease().IsZero() {
		t.Errorf("the zombie has a lease until %s", time.Until(old.Lease()))
	}
	select {
	case err := <-waiting:
		if !errors.Is(err, ErrLost) {
			t.Error(err)
		}
	case <-time.After(time.Second):
		t.Error("the zombie still waits")
	}
	if err := old.Settle(t.Context(), settlement(contact.Dead, held[0])); !errors.Is(err, ErrLost) {
		t.Errorf("the zombie settled: %v", err)
	}
	got := take(t, fresh, contact.Live, 2)
	settle(t, fresh, contact.Applied, got...)
	if rs := allRecords(t, q, Filter{}); len(rs) != 1 || rs[0].Owner != fresh.owner {
		t.Errorf("records %+v", rs)
	}
}

// What a zombie stores in the moment between its check and its end is found by
// the new owner, which starts over: no update has two outcomes.
func TestZombieThatSlipsThrough(t *testing.T) {
	t.Parallel()
	q := setUp(t, "office")
	publish(t, q, update("office", 1, contact.Live, 1), update("office", 1, contact.Live, 2), update("office", 2, contact.Live, 3))
	l := own(t, q, "office")
	s := l.source(t)
	us := take(t, s, contact.Live, 3)
	// As the former owner would, with what it knew.
	rs := records(us[0].Contact, settlement(contact.Superseded, us[0]).Ended, standing{owner: "former.1"}, standing{covers: [2]uint64{1, 0}})
	m, err := encodeRecord(rs[0])
	if err != nil {
		t.Fatal(err)
	}
	if _, err := q.publish(t.Context(), m); err != nil {
		t.Fatal(err)
	}
	if err := s.Settle(t.Context(), settlement(contact.Applied, us[0], us[1])); !errors.Is(err, ErrLost) {
		t.Fatalf("settle over a foreign record: %v", err)
	}
	if err := s.Settle(t.Context(), settlement(contact.Applied, us[2])); !errors.Is(err, ErrLost) {
		t.Errorf("another contact after that: %v", err)
	}
	again := l.source(t)
	rest := take(t, again, contact.Live, 2)
	if !slices.Equal(seqs(rest), []uint64{2, 3}) {
		t.Fatalf("handed out again: %v", seqs(rest))
	}
	settle(t, again, contact.Applied, rest[0])
	settle(t, again, contact.Applied, rest[1])
	covered := map[uint64]int{}
	for _, r := range allRecords(t, q, Filter{}) {
		for _, u := range r.Updates {
			covered[u.Seq]++
		}
	}
	if covered[1] != 1 || covered[2] != 1 || covered[3] != 1 {
		t.Errorf("outcomes %v", covered)
	}
}

// A lane that returns by itself gives its target back, and it is taken again.
func TestLaneThatReturns(t *testing.T) {
	t.Parallel()
	q := setUp(t, "office")
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	began := make(chan struct{}, 10)
	done := make(chan error, 1)
	go func() {
		done <- q.Own(ctx, plain("office"), func(context.Context, *Source) { began <- struct{}{} })
	}()
	for range 2 {
		select {
		case <-began:
		case <-time.After(5 * time.Second):
			t.Fatal("the lane was not called")
		}
	}
	if err := q.Own(ctx, plain("office"), nil); err == nil {
		t.Error("owned twice at a time")
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
	if ss, err := q.Sessions(t.Context()); err != nil || len(ss) != 0 {
		t.Errorf("sessions %v, %v", ss, err)
	}
}

// The server is restarted under a running owner: it goes on by itself.
func TestServerRestart(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	o := testOptions(t, dir)
	q := open(t, o)
	if err := q.Setup(t.Context(), []string{"office"}); err != nil {
		t.Fatal(err)
	}
	port := q.srv.server.Addr().String()
	p := peerOf(t, q, &link{})
	s := own(t, p, "office").source(t)
	publish(t, p, update("office", 1, contact.Live, 1))
	us := take(t, s, contact.Live, 1)
	if err := q.Close(); err != nil {
		t.Fatal(err)
	}
	settled := make(chan error, 1)
	go func() { settled <- s.Settle(context.Background(), settlement(contact.Applied, us[0])) }()
	_, o.Embedded.Port = splitPort(t, port)
	q = open(t, o)
	if err := <-settled; err != nil {
		t.Fatal(err)
	}
	publish(t, q, update("office", 1, contact.Live, 2))
	if got := take(t, s, contact.Live, 1); got[0].Seq != 2 {
		t.Errorf("after the restart: %v", seqs(got))
	}
}

// Closing the queue under Own ends it, and with it everything that waits.
func TestCloseEndsOwn(t *testing.T) {
	q := setUp(t, "office")
	p := peerOf(t, q, &link{})
	ctx, cancel := contextWithCancel(t)
	defer cancel()
	lane, done := make(chan error, 1), make(chan error, 1)
	started := make(chan struct{})
	go func() {
		done <- p.Own(ctx, plain("office"), func(_ context.Context, s *Source) {
			close(started)
			for err := error(nil); ; {
				if _, err = s.Next(context.Background(), contact.Live); err != nil {
					lane <- err
					return
				}
			}
		})
	}()
	<-started
	if err := p.Close(); err != nil {
		t.Error(err)
	}
	if err := <-lane; !errors.Is(err, ErrLost) {
		t.Error(err)
	}
	if err := <-done; err != nil {
		t.Error(err)
	}
}
