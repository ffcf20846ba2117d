package main

import (
	"context"
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"crmsync/app"
	"crmsync/emulator"
)

// TestFaultCRM has the CRMs reset connections, lose answers, and eat packets for
// longer than a call may take: nothing is lost, what was answered is not repeated, and
// all goes on by itself.
func TestFaultCRM(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute+time.Duration(*faultRounds)*30*time.Second)
	defer cancel()
	n := roundsOf(1, 0.1)
	w := newFaultWorld(t, "CRM resets, loses answers, is a black hole", 600*n, demoOffice, demoShop)
	w.row.rounds = n
	w.apart(ctx)
	g := w.gates()
	worker := w.workAs(g.args...)
	w.until(ctx, "the worker owns the targets", 20*time.Second, ownedBy(worker.pid))
	wait := w.publishing(ctx, time.Duration(n)*8*time.Second)
	var longest time.Duration
	for range n {
		for _, target := range w.targets {
			w.happen(target,
				emulator.Fault{Kind: emulator.ResetBefore, Probability: 0.15, Count: 8},
				emulator.Fault{Kind: emulator.LostAnswer, Operation: emulator.OpUpdate, Probability: 0.15, Count: 8})
		}
		w.must(pause(ctx, 2*time.Second))
		w.doubt()
		for _, gt := range g.target {
			gt.breakUp()
		}
		w.must(pause(ctx, 300*time.Millisecond+time.Duration(w.rng.IntN(500))*time.Millisecond))
		for _, gt := range g.target {
			gt.open()
		}
		w.must(pause(ctx, 500*time.Millisecond))
		w.doubt()
		for _, gt := range g.target {
			gt.close()
		}
		w.must(pause(ctx, 2500*time.Millisecond+time.Duration(w.rng.IntN(1000))*time.Millisecond))
		for _, gt := range g.target {
			gt.open()
		}
		healed := time.Now()
		w.until(ctx, "no lane holds", 40*time.Second, func(st app.Status) bool {
			for _, t := range st.Targets {
				if t.Lane == nil || t.Lane.Hold != nil {
					return false
				}
			}
			return ownedBy(worker.pid)(st)
		})
		longest = max(longest, time.Since(healed))
	}
	wait()
	w.until(ctx, "all has ended", time.Minute, allEnded)
	w.row.note = fmt.Sprintf("no hold after %s", longest.Round(10*time.Millisecond))
	w.harmed(g)
	w.must(w.stop(ctx))
	w.judge(ctx)
}

// harmed fails a test in which one of the faults did not happen.
func (w *faultWorld) harmed(g *gates) {
	w.t.Helper()
	for target, gt := range g.target {
		if broke, ate := gt.harm(); broke == 0 || ate == 0 {
			w.t.Errorf("%s: %d connections were reset, %d requests not answered: there is nothing to see", target, broke, ate)
		}
		met := map[string]bool{}
		for _, e := range w.crms[target].Ledger() {
			met[e.Fault] = true
		}
		if !met[string(emulator.LostAnswer)] || !met[string(emulator.ResetBefore)] {
			w.t.Errorf("%s: faults %v only", target, met)
		}
	}
}

// TestFaultTwoOnOneStore starts a second process on a store that is served: it refuses
// within a second, says whose it is, and the first does not notice.
func TestFaultTwoOnOneStore(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	n := roundsOf(2, 0.1)
	w := newFaultWorld(t, "two processes on one store", 300, demoOffice, demoShop)
	w.row.rounds = n
	w.within(ctx)
	wait := w.publishing(ctx, 2*time.Second)
	var longest time.Duration
	for range n {
		hunger := measureStarving()
		cmd := exec.CommandContext(ctx, w.program, "run", "--config", w.config, "--port=-1")
		began := time.Now()
		out, err := cmd.CombinedOutput()
		took, slack := time.Since(began), hunger.stop()
		longest = max(longest, took)
		if text := string(out); err == nil || !strings.Contains(text, "the store is in use by another process") || !strings.Contains(text, fmt.Sprint("pid ", w.current().pid)) {
			t.Errorf("%v: %s", err, text)
		}
		if took > time.Second+20*slack {
			t.Errorf("it took %s to refuse (the machine keeps processes waiting for %s)", took, slack)
		}
		w.must(w.alive())
	}
	wait()
	w.until(ctx, "all has ended", time.Minute, allEnded)
	if names, err := filepath.Glob(filepath.Join(w.dir, "worker-*.log")); err != nil || len(names) != 1 {
		t.Errorf("workers %v, %v", names, err)
	}
	w.row.note = fmt.Sprintf("refused within %s", longest.Round(10*time.Millisecond))
	w.judge(ctx)
	w.must(w.stop(ctx))
}
