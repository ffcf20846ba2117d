package main

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/rs/zerolog"

	"crmsync/contact"
	"crmsync/queue"
)

// TestFaultServer restarts and kills a NATS server of its own under two workers.
func TestFaultServer(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute+time.Duration(*faultRounds)*20*time.Second)
	defer cancel()
	n := roundsOf(2, 0.2)
	w := newFaultWorld(t, "restart and kill -9 of the NATS server", 300*n, demoOffice, demoShop)
	w.row.rounds = n
	s := newServers(t, 1)
	w.at(ctx, s.url())
	workers := []*demoWorker{w.workAs(), w.workAs()}
	w.until(ctx, "two workers share the targets", 30*time.Second, ownedBy(workers[0].pid, workers[1].pid))
	wait := w.publishing(ctx, time.Duration(n)*2*time.Second)
	for i := range n {
		w.must(pause(ctx, 500*time.Millisecond+time.Duration(w.rng.IntN(1000))*time.Millisecond))
		w.calls(500 * time.Millisecond)
		at := w.crash() // sessions may be lost, and answers with them
		if i%2 == 0 {
			s.kill(0)
		} else {
			s.end(0)
		}
		if w.rng.IntN(2) == 0 {
			w.must(pause(ctx, time.Duration(w.rng.IntN(2000))*time.Millisecond))
		}
		s.start(0)
		w.until(ctx, "two workers share the targets", 30*time.Second, ownedBy(workers[0].pid, workers[1].pid))
		w.row.takeovers = append(w.row.takeovers, time.Since(at))
		w.crash()
	}
	wait()
	w.until(ctx, "all has ended", time.Minute, allEnded)
	for _, worker := range workers {
		w.signal(worker, syscall.SIGTERM)
		w.endsWithin(worker, 20*time.Second)
	}
	w.judge(ctx)
}

// inStep waits until all three servers have all of the streams that matter.
func (w *faultWorld) inStep(ctx context.Context) {
	w.t.Helper()
	nc, err := nats.Connect(w.app.URL(), nats.Timeout(2*time.Second))
	w.must(err)
	defer nc.Close()
	js, err := jetstream.New(nc)
	w.must(err)
	w.insist(ctx, 2*time.Minute, func() error {
		for _, name := range []string{"CRM_METER_LIVE", "CRM_OUTCOMES", "CRM_OFFICE_BULK", "CRM_SHOP_BULK", "KV_crm_sessions", "KV_crm_owners"} {
			limited, cancel := context.WithTimeout(ctx, 2*time.Second)
			st, err := js.Stream(limited, name)
			cancel()
			if err != nil {
				return err
			}
			c := st.CachedInfo().Cluster
			if c == nil || c.Leader == "" || len(c.Replicas) != 2 {
				return fmt.Errorf("stream %s: %+v", name, c)
			}
			for _, r := range c.Replicas {
				if !r.Current || r.Offline {
					return fmt.Errorf("stream %s: replica %+v", name, r)
				}
			}
		}
		return nil
	})
}

// leaderOf asks which server leads a stream.
func (w *faultWorld) leaderOf(ctx context.Context, stream string) string {
	nc, err := nats.Connect(w.app.URL(), nats.Timeout(2*time.Second))
	if err != nil {
		return ""
	}
	defer nc.Close()
	js, err := jetstream.New(nc)
	if err != nil {
		return ""
	}
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	st, err := js.Stream(ctx, stream)
	if err != nil || st.CachedInfo().Cluster == nil {
		return ""
	}
	if got := len(st.CachedInfo().Cluster.Replicas); got != 2 {
		w.t.Errorf("stream %s has %d replicas beside its leader, want 2", stream, got)
	}
	return st.CachedInfo().Cluster.Leader
}

// gapMeter publishes again and again and notes when that succeeded.
type gapMeter struct {
	mu   sync.Mutex
	at   []time.Time
	quit context.CancelFunc
	done chan struct{}
}

// meter publishes updates of a contact of its own, in a target that no worker has.
func (w *faultWorld) meter(ctx context.Context, url string) *gapMeter {
	w.t.Helper()
	o := queue.Options{URL: url, Name: "meter", Lease: killLease, Timeout: 2 * time.Second, Log: zerolog.Nop()}
	setup, err := queue.Open(ctx, o)
	w.must(err)
	w.insist(ctx, time.Minute, func() error { return setup.Setup(ctx, []string{"meter"}) })
	w.must(setup.Close())
	o.Timeout = 250 * time.Millisecond // what was sent to nobody is not waited for
	q, err := queue.Open(ctx, o)
	w.must(err)
	m := &gapMeter{done: make(chan struct{})}
	ctx, m.quit = context.WithCancel(ctx)
	go func() {
		defer close(m.done)
		for i := 0; pause(ctx, 20*time.Millisecond) == nil; i++ {
			u := &contact.Update{Contact: contact.Key{Target: "meter", ID: "1"}, Raw: []byte(`{"fields":{"a":"b"}}`), MsgID: fmt.Sprint("m", i)}
			if _, err := q.Publish(ctx, u); err == nil {
				m.mu.Lock()
				m.at = append(m.at, time.Now())
				m.mu.Unlock()
			}
		}
	}()
	w.onClose(func() error {
		m.quit()
		<-m.done
		return q.Close()
	})
	return m
}

// gap is the longest time without a success behind an instant, up to now.
func (m *gapMeter) gap(since time.Time) time.Duration {
	m.mu.Lock()
	defer m.mu.Unlock()
	last, most := since, time.Duration(0)
	for _, at := range m.at {
		if at.Before(since) {
			continue
		}
		most = max(most, at.Sub(last))
		last = at
	}
	return max(most, time.Since(last))
}

func (m *gapMeter) count() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return len(m.at)
}

// resumed waits until something is published again behind an instant.
func (m *gapMeter) resumed(w *faultWorld, ctx context.Context, since time.Time, most time.Duration) {
	w.t.Helper()
	for end := time.Now().Add(most); ; poll() {
		m.mu.Lock()
		n := len(m.at)
		again := n > 0 && m.at[n-1].After(since)
		m.mu.Unlock()
		if again {
			return
		}
		if time.Now().After(end) || ctx.Err() != nil {
			w.t.Fatalf("nothing can be published %s after the fault", time.Since(since).Round(time.Millisecond))
		}
	}
}

// How long nothing may be published after a leader was killed: an election begins after
// 4 to 9 seconds, and one in which the votes were split is held again.
const (
	gapGoal = 10 * time.Second // mostly
	gapMost = 20 * time.Second
)

// TestFaultCluster kills leaders of a cluster of three under two workers; in the long
// form it also takes its majority away and gives it back, and restarts one server after
// the other.
func TestFaultCluster(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithTimeout(t.Context(), 4*time.Minute+time.Duration(*faultRounds)*2*time.Minute)
	defer cancel()
	n := roundsOf(1, 0.05)
	w := newFaultWorld(t, "kill -9 of a cluster's leader; rolling restart; no quorum", 400+300*n, demoOffice, demoShop)
	w.row.rounds = n
	s := newServers(t, 3)
	w.at(ctx, s.url())
	meter := w.meter(ctx, s.url())
	workers := []*demoWorker{w.workAs(), w.workAs()}
	w.until(ctx, "two workers share the targets", time.Minute, ownedBy(workers[0].pid, workers[1].pid))
	wait := w.publishing(ctx, time.Duration(n)*15*time.Second)
	for range n {
		w.killLeader(ctx, s, meter, workers)
	}
	if *faultRounds > 0 {
		if gaps := slices.Sorted(slices.Values(w.row.gaps)); gaps[len(gaps)/2] > gapGoal {
			t.Errorf("nothing could be published for %s after half of the kills", gaps[len(gaps)/2])
		}
		w.row.note += w.rolling(ctx, s, meter, workers)
		w.row.note += w.withoutQuorum(ctx, s, meter, workers)
	}
	wait()
	w.until(ctx, "all has ended", 2*time.Minute, allEnded)
	for _, worker := range workers {
		w.signal(worker, syscall.SIGTERM)
		w.endsWithin(worker, 30*time.Second)
	}
	w.judge(ctx)
}

func (w *faultWorld) killLeader(ctx context.Context, s *natsServers, meter *gapMeter, workers []*demoWorker) {
	w.t.Helper()
	leader := -1
	w.insist(ctx, time.Minute, func() error {
		if leader = s.leader(ctx, w, "CRM_METER_LIVE"); leader < 0 {
			return fmt.Errorf("no leader")
		}
		return nil
	})
	w.calls(500 * time.Millisecond)
	at := w.crash()
	s.kill(leader)
	meter.resumed(w, ctx, at.Add(50*time.Millisecond), time.Minute)
	gap := meter.gap(at)
	w.row.gaps = append(w.row.gaps, gap)
	if gap > gapMost {
		w.t.Errorf("nothing could be published for %s", gap.Round(time.Millisecond))
	}
	w.until(ctx, "two workers share the targets", time.Minute, ownedBy(workers[0].pid, workers[1].pid))
	w.row.takeovers = append(w.row.takeovers, time.Since(at))
	w.crash()
	if *faultRounds > 0 { // else it is the last that happens
		s.start(leader)
		w.inStep(ctx)
	}
}

// rolling restarts each server in order.
func (w *faultWorld) rolling(ctx context.Context, s *natsServers, meter *gapMeter, workers []*demoWorker) string {
	w.t.Helper()
	var worst time.Duration
	for i := range s.running {
		at := w.crash()
		s.end(i)
		s.start(i)
		w.inStep(ctx)
		meter.resumed(w, ctx, time.Now(), time.Minute)
		worst = max(worst, meter.gap(at))
	}
	w.until(ctx, "two workers share the targets", time.Minute, ownedBy(workers[0].pid, workers[1].pid))
	w.crash()
	return fmt.Sprintf("rolling restart: gap %s; ", worst.Round(10*time.Millisecond))
}

// withoutQuorum kills two of three: nothing is confirmed until one is back.
func (w *faultWorld) withoutQuorum(ctx context.Context, s *natsServers, meter *gapMeter, workers []*demoWorker) string {
	w.t.Helper()
	w.crash()
	s.kill(0)
	s.kill(1)
	w.must(pause(ctx, 300*time.Millisecond)) // what was on its way
	before := meter.count()
	w.must(pause(ctx, 4*time.Second))
	if n := meter.count() - before; n > 0 {
		w.t.Errorf("%d updates were confirmed by one server of three", n)
	}
	at := time.Now()
	s.start(0)
	meter.resumed(w, ctx, at, time.Minute)
	took := time.Since(at)
	s.start(1)
	w.until(ctx, "two workers share the targets", time.Minute, ownedBy(workers[0].pid, workers[1].pid))
	w.crash()
	w.inStep(ctx)
	return fmt.Sprintf("quorum back: %s", took.Round(10*time.Millisecond))
}
