package main

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"crmsync/app"
	"crmsync/emulator"
)

// ownerWatch hears who claims which target.
type ownerWatch struct {
	mu     sync.Mutex
	pids   map[string]int // by session
	claims []ownerClaim
}

type ownerClaim struct {
	at      time.Time
	target  string
	session string
}

func (w *faultWorld) watchOwners() *ownerWatch {
	w.t.Helper()
	nc, err := nats.Connect(w.app.URL(), nats.Name("test"))
	w.must(err)
	w.onClose(func() error { nc.Close(); return nil })
	o := &ownerWatch{pids: map[string]int{}}
	_, err = nc.Subscribe("$KV.crm_sessions.*", func(m *nats.Msg) {
		var s struct {
			ID  string `json:"id"`
			PID int    `json:"pid"`
		}
		if json.Unmarshal(m.Data, &s) == nil && s.ID != "" {
			o.mu.Lock()
			o.pids[s.ID] = s.PID
			o.mu.Unlock()
		}
	})
	w.must(err)
	_, err = nc.Subscribe("$KV.crm_owners.own.*", func(m *nats.Msg) {
		var c struct {
			Session string `json:"session"`
		}
		if json.Unmarshal(m.Data, &c) == nil && c.Session != "" {
			o.mu.Lock()
			o.claims = append(o.claims, ownerClaim{time.Now(), m.Subject[strings.LastIndexByte(m.Subject, '.')+1:], c.Session})
			o.mu.Unlock()
		}
	})
	w.must(err)
	w.must(nc.Flush())
	return o
}

// claimed is when a process first claimed a target behind an instant; the zero time
// where it did not.
func (o *ownerWatch) claimed(pid int, target string, after time.Time) time.Time {
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, c := range o.claims {
		if c.target == target && o.pids[c.session] == pid && c.at.After(after) {
			return c.at
		}
	}
	return time.Time{}
}

// TestFaultZombie stops a worker for longer than its lease, in the middle of calls,
// and lets it go on when another has its targets: it must send nothing more, until
// it has claimed a target anew.
func TestFaultZombie(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute+time.Duration(*faultRounds)*30*time.Second)
	defer cancel()
	n := roundsOf(1, 0.1)
	const wave = 500
	w := newFaultWorld(t, "SIGSTOP beyond the lease, SIGCONT", wave*2*n, demoOffice, demoShop)
	w.row.rounds = n
	w.askForMails()
	w.apart(ctx)
	owners := w.watchOwners()
	for i := range n {
		g := w.gates()
		zombie := w.workAs(g.args...)
		w.until(ctx, "the worker owns the targets", 20*time.Second, ownedBy(zombie.pid))
		w.must(w.publish(ctx, w.plan.updates[2*i*wave:(2*i+1)*wave]))
		w.must(pause(ctx, time.Duration(w.rng.IntN(400))*time.Millisecond))
		w.calls(500 * time.Millisecond)
		stopped := w.crash()
		w.signal(zombie, syscall.SIGSTOP)
		heir := w.workAs()
		w.must(w.publish(ctx, w.plan.updates[(2*i+1)*wave:2*(i+1)*wave]))
		w.heir(ctx, stopped)
		before := w.requests()
		w.until(ctx, "the heir is at work", 20*time.Second, func(st app.Status) bool { return w.requests() > before+20 || allEnded(st) })
		woken := w.signal(zombie, syscall.SIGCONT)
		w.until(ctx, "the woken worker is one of two again", 20*time.Second, func(st app.Status) bool {
			return len(st.Sessions) == 2 && ownedBy(zombie.pid, heir.pid)(st)
		})
		for target, gt := range g.target {
			claimed := owners.claimed(zombie.pid, target, woken)
			for _, at := range gt.since(woken) {
				if claimed.IsZero() || at.Before(claimed) {
					t.Errorf("round %d: %s: a call %s after the worker was woken, which claimed the target after %s",
						i+1, target, at.Sub(woken).Round(time.Millisecond), claimed.Sub(woken).Round(time.Millisecond))
					break
				}
			}
		}
		w.until(ctx, "all has ended", time.Minute, allEnded)
		for _, worker := range []*demoWorker{zombie, heir} {
			w.signal(worker, syscall.SIGTERM)
			w.endsWithin(worker, 20*time.Second)
		}
	}
	w.judge(ctx)
	w.wasOpen()
}

// requests is how many have arrived at all CRMs.
func (w *faultWorld) requests() (n int) {
	for _, crm := range w.crms {
		n += len(crm.Ledger())
	}
	return n
}

// noCallAfter is how long after a signal to stop a call may still begin.
const noCallAfter = 250 * time.Millisecond

// TestFaultTerm restarts one of two workers after the other under load: nothing is
// repeated, no call begins once the signal has been heard, and each ends in order.
func TestFaultTerm(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute+time.Duration(*faultRounds)*20*time.Second)
	defer cancel()
	n := roundsOf(3, 0.25)
	w := newFaultWorld(t, "SIGTERM, rolling restart", 200*n, demoOffice, demoShop, "depot")
	w.row.rounds = n
	w.apart(ctx)
	type one struct {
		*demoWorker
		g *gates
	}
	start := func() one {
		g := w.gates()
		return one{w.workAs(g.args...), g}
	}
	workers := []one{start(), start()}
	w.until(ctx, "two workers share the targets", 20*time.Second, ownedBy(workers[0].pid, workers[1].pid))
	wait := w.publishing(ctx, time.Duration(n)*2*time.Second)
	var longest time.Duration
	for i := range n {
		w.must(pause(ctx, time.Second+time.Duration(w.rng.IntN(500))*time.Millisecond))
		w.calls(500 * time.Millisecond)
		old := workers[0]
		hunger := measureStarving()
		at := w.signal(old.demoWorker, syscall.SIGTERM)
		w.endsWithin(old.demoWorker, 10*time.Second)
		longest = max(longest, time.Since(at))
		slack := hunger.stop()
		if old.err != nil {
			t.Errorf("restart %d: %v%s", i+1, old.err, old.lastWords())
		}
		for target, gt := range old.g.target {
			if late := gt.since(at.Add(noCallAfter + slack)); len(late) > 0 {
				t.Errorf("restart %d: %s: %d calls began later than %s after the signal, the first after %s (the machine keeps processes waiting for %s)",
					i+1, target, len(late), noCallAfter, late[0].Sub(at), slack)
			}
		}
		workers = []one{workers[1], start()}
		w.until(ctx, "two workers share the targets", 20*time.Second, ownedBy(workers[0].pid, workers[1].pid))
		w.row.takeovers = append(w.row.takeovers, time.Since(at))
	}
	wait()
	w.until(ctx, "all has ended", time.Minute, allEnded)
	for _, worker := range workers {
		w.signal(worker.demoWorker, syscall.SIGTERM)
		w.endsWithin(worker.demoWorker, 10*time.Second)
	}
	w.row.note = fmt.Sprintf("ends within %s", longest.Round(time.Millisecond))
	w.judge(ctx)
}

// TestFaultSecondTerm signals a worker twice while its CRM is slow: it ends at once,
// says that it did not end in order, and is as good as killed.
func TestFaultSecondTerm(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute+time.Duration(*faultRounds)*20*time.Second)
	defer cancel()
	n := roundsOf(1, 0.1)
	const wave = 200
	w := newFaultWorld(t, "second SIGTERM", wave*(n+1), demoOffice, demoShop)
	w.row.rounds = n
	w.apart(ctx)
	var cut time.Time
	for i := range n {
		w.must(w.work())
		w.heir(ctx, cut)
		for _, target := range w.targets {
			w.crms[target].SetFaults(emulator.Faults{{Kind: emulator.Latency, Min: 700 * time.Millisecond, Max: 900 * time.Millisecond}})
		}
		w.must(w.publish(ctx, w.plan.updates[i*wave:(i+1)*wave]))
		w.calls(5 * time.Second)
		worker := w.current()
		hunger := measureStarving()
		w.signal(worker, syscall.SIGTERM)
		w.must(pause(ctx, 100*time.Millisecond))
		cut = w.crash()
		w.signal(worker, syscall.SIGTERM)
		took := w.endsWithin(worker, 10*time.Second)
		if slack := hunger.stop(); took > 2*time.Second+10*slack {
			t.Errorf("it took %s (the machine keeps processes waiting for %s)", took, slack)
		}
		if worker.err == nil {
			t.Errorf("it ended as if all were well%s", worker.lastWords())
		}
		for _, target := range w.targets {
			w.crms[target].SetFaults(emulator.Faults{demoLatency})
		}
	}
	w.must(w.work())
	w.heir(ctx, cut)
	w.must(w.publish(ctx, w.plan.updates[n*wave:]))
	w.until(ctx, "all has ended", time.Minute, allEnded)
	w.must(w.stop(ctx))
	w.judge(ctx)
	w.wasOpen()
}
