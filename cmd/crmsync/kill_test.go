package main

import (
	"context"
	"net"
	"testing"
	"time"

	"crmsync/app"
)

// TestKillWorker kills workers that share a NATS server which lives on, each
// with a wave of updates before it: what the dead one has merged and sent, the
// next must not undo with less.
func TestKillWorker(t *testing.T) {
	skipShort(t)
	t.Parallel()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute+time.Duration(*kills)*20*time.Second)
	defer cancel()
	const wave = 1000
	n := max(1, *kills/4)
	w := newFaultWorld(t, "kill -9 of a worker", wave*n+300, demoOffice, demoShop)
	w.row.rounds = n
	w.askForMails()
	w.apart(ctx)
	w.must(w.work())
	var killed time.Time
	for i := range n {
		w.heir(ctx, killed)
		w.must(w.publish(ctx, w.plan.updates[i*wave:(i+1)*wave]))
		w.must(pause(ctx, time.Duration(w.rng.IntN(400))*time.Millisecond))
		w.calls(500 * time.Millisecond)
		killed = w.killed()
		w.must(w.work())
	}
	w.heir(ctx, killed)
	w.must(w.publish(ctx, w.plan.updates[n*wave:]))
	w.until(ctx, "all has ended", time.Minute+time.Duration(n)*10*time.Second, allEnded)
	w.must(w.stop(ctx))
	w.judge(ctx)
	w.wasOpen()
}

// TestKillServer kills workers with the NATS server in them; the next one starts
// on the same store at once.
func TestKillServer(t *testing.T) {
	skipShort(t)
	t.Parallel()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute+time.Duration(*kills)*10*time.Second)
	defer cancel()
	n := max(1, *kills/2)
	w := newFaultWorld(t, "kill -9 of a worker with the server in it", 100*n, demoOffice, demoShop)
	w.row.rounds = n
	w.askForMails()
	w.within(ctx)
	wait := w.publishing(ctx, time.Duration(n)*time.Second)
	for range n {
		w.must(pause(ctx, time.Duration(w.rng.IntN(800))*time.Millisecond))
		w.calls(300 * time.Millisecond)
		killed := w.killed()
		w.must(w.work())
		// Some are killed while they start, most when they work.
		if w.rng.IntN(4) > 0 {
			w.heir(ctx, killed)
		}
	}
	wait()
	w.until(ctx, "all has ended", time.Minute, allEnded)
	w.judge(ctx)
	w.wasOpen()
	w.must(w.stop(ctx))
}

// freePort is a port that nobody listens on, and that the system hands out to
// nobody soon.
func freePort(t *testing.T) int {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port
}

// TestKillOneOfTwo kills one of two workers: the other takes over its targets.
func TestKillOneOfTwo(t *testing.T) {
	skipShort(t)
	t.Parallel()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute+time.Duration(*faultRounds)*20*time.Second)
	defer cancel()
	n := roundsOf(1, 0.2)
	w := newFaultWorld(t, "kill -9 of one of two workers", 600*n, demoOffice, demoShop, "depot")
	w.row.rounds = n
	w.askForMails()
	w.apart(ctx)
	first := w.workAs()
	w.until(ctx, "the first worker owns the targets", 20*time.Second, ownedBy(first.pid))
	wait := func() {}
	for i := range n {
		second := w.workAs()
		st := w.until(ctx, "two workers share the targets", 20*time.Second, func(st app.Status) bool {
			return len(st.Sessions) == 2 && ownedBy(first.pid, second.pid)(st)
		})
		if len(st.Targets) != 3 {
			t.Fatalf("%d targets", len(st.Targets))
		}
		if i == 0 {
			wait = w.publishing(ctx, time.Duration(n)*5*time.Second)
		}
		w.must(pause(ctx, time.Second+time.Duration(w.rng.IntN(1000))*time.Millisecond))
		victim, heir := first, second
		if st, err := w.app.Status(ctx); err == nil && ownedBy(second.pid)(st) {
			victim, heir = second, first // whoever owns the most is missed the most
		}
		w.calls(500 * time.Millisecond)
		killed := w.crash()
		victim.kill()
		w.until(ctx, "the other worker owns all targets", 10*time.Second, ownedBy(heir.pid))
		w.row.takeovers = append(w.row.takeovers, time.Since(killed))
		first = heir
	}
	wait()
	w.until(ctx, "all has ended", time.Minute, allEnded)
	w.worker = first
	w.must(w.stop(ctx))
	w.judge(ctx)
	w.wasOpen()
}
