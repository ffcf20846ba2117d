package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"crmsync/emulator"
)

type demoCmd struct {
	Seed    uint64 `placeholder:"N" help:"Repeat the updates of an earlier demo (default: random, and printed)."`
	Updates int    `default:"3000" placeholder:"N" help:"Updates to publish, 100 to 100000."`
	Keep    string `placeholder:"DIR" help:"Keep the logs and the configuration there."`
}

// Help is the command's manual.
func (demoCmd) Help() string {
	return `It starts two emulated CRMs, NATS and a worker process, all on the loopback
interface and in a temporary folder that is removed at the end. The CRMs throttle,
fail and lose answers, the worker is killed (SIGKILL) and replaced once. At the end
every update is accounted for by what the CRMs wrote down; exit code 1 means that
it did not come out as it must.`
}

func (c *demoCmd) Run(ctx context.Context, g *Globals) (err error) {
	if c.Updates < 100 || c.Updates > 100_000 {
		return &exitError{exitUsage, errors.New("--updates: from 100 to 100000")}
	}
	seed := c.Seed
	if seed == 0 {
		seed = 1 + rand.Uint64N(999_999)
	}
	v := g.demoView()
	defer v.close()
	v.note("crmsync demo: %d contact updates for two emulated CRMs, on a bad day. About 20 s.", c.Updates)
	v.note("Everything runs on this machine and nothing leaves it. Seed %d.", seed)
	p := newDemoPlan(seed, c.Updates, demoOffice, demoShop)
	w, err := newDemoWorld(p, c.Keep)
	defer func() { err = errors.Join(err, w.Close()) }()
	if err != nil {
		return err
	}
	if err := w.host(ctx); err != nil {
		return err
	}
	if err := w.app.Setup(ctx); err != nil {
		return err
	}
	d := newDemoRun(p, w, v)
	if err := d.play(ctx); err != nil {
		return err
	}
	verdict, err := d.judge(ctx)
	if err != nil {
		return err
	}
	v.close()
	report := demoReport{Seed: seed, Took: time.Since(d.began).Seconds(), demoVerdict: verdict, Takeover: d.takeover.Seconds()}
	if g.JSON {
		err = g.printJSON(report)
	} else {
		report.print(g.std.out, d)
	}
	if err == nil && len(verdict.Findings) > 0 {
		return &exitError{code: exitFailure}
	}
	return err
}

// demoRun is one demo under way.
type demoRun struct {
	plan  *demoPlan
	world *demoWorld
	view  *demoView
	began time.Time
	span  time.Duration // how long updates go on to be published

	watch   demoWatch
	working chan struct{} // closed once both lanes are at work

	mu        sync.Mutex
	published map[string]int // by target
	sent      bool           // all are published
	staged    bool           // all episodes are over, as far as the director knows
	killed    time.Time
	deadPID   int
	takeover  time.Duration // from the kill until all targets had an owner again
}

// Speeds of the demo.
const (
	demoPace    = 100 // updates published a second, after the first wave
	demoSpanMin = 3 * time.Second
	demoSpanMax = 12 * time.Second
	demoBeat    = 100 * time.Millisecond
	demoPatient = 90 * time.Second // then it gives up, and says what is missing
)

func newDemoRun(p *demoPlan, w *demoWorld, v *demoView) *demoRun {
	rest := len(p.updates) - p.wave
	d := &demoRun{plan: p, world: w, view: v, began: v.began, published: map[string]int{}, working: make(chan struct{})}
	d.span = min(max(time.Duration(rest)*time.Second/demoPace, demoSpanMin), demoSpanMax)
	d.watch = newDemoWatch(d)
	return d
}

// play runs the demo until everything that was published has ended.
func (d *demoRun) play(ctx context.Context) error {
	d.view.say("NATS and two CRMs are up: office (Perfex, %g requests/s) and shop (Evance, %g/s)", demoRates["perfex"], demoRates["evance"])
	if err := d.world.work(); err != nil {
		return err
	}
	d.view.say("worker %d runs; %d updates come at once, %d more over %s",
		d.world.current().pid, d.plan.wave, len(d.plan.updates)-d.plan.wave, d.span)
	ctx, cancel := context.WithTimeout(ctx, demoPatient+time.Duration(len(d.plan.updates))*20*time.Millisecond)
	defer cancel()
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return d.publish(ctx) })
	group.Go(func() error { return d.direct(ctx) })
	group.Go(func() error { return d.observe(ctx) })
	err := group.Wait()
	if errors.Is(err, context.DeadlineExceeded) {
		d.view.say("not everything has ended in time; judging what there is")
		return nil
	}
	return err
}

// publish publishes the plan in its order: the first wave at once, the rest bit
// by bit.
func (d *demoRun) publish(ctx context.Context) error {
	if err := d.publishUpTo(ctx, 0, d.plan.wave); err != nil {
		return err
	}
	select {
	case <-d.working:
	case <-ctx.Done():
		return ctx.Err()
	}
	began, rest := time.Now(), len(d.plan.updates)-d.plan.wave
	for done := 0; done < rest; {
		if err := pause(ctx, demoBeat); err != nil {
			return err
		}
		due := min(rest, int(float64(rest)*float64(time.Since(began))/float64(d.span)))
		if err := d.publishUpTo(ctx, d.plan.wave+done, d.plan.wave+due); err != nil {
			return err
		}
		done = due
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.sent = true
	return nil
}

func (d *demoRun) publishUpTo(ctx context.Context, from, to int) error {
	part := d.plan.updates[from:to]
	if err := d.world.publish(ctx, part); err != nil {
		return err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, u := range part {
		d.published[u.target]++
	}
	return nil
}

// demoLost is how many answers of each CRM get lost.
const demoLost = 3

// direct makes the bad day happen, once both lanes are at work.
func (d *demoRun) direct(ctx context.Context) error {
	if err := until(ctx, 20*time.Second, d.watch.atWork); err != nil {
		return err
	}
	close(d.working)
	began := time.Now()
	at := func(share float64) error {
		return pause(ctx, time.Until(began.Add(time.Duration(share*float64(d.span)))))
	}
	if err := at(0.05); err != nil {
		return err
	}
	d.world.happen(demoOffice, emulator.Fault{
		Kind: emulator.TooMany, To: time.Second, RetryAfter: emulator.RetrySeconds, RetryIn: 2 * time.Second,
	})
	if err := at(0.25); err != nil {
		return err
	}
	d.view.say("%d answers of each CRM get lost: it applies the update, then the line breaks", demoLost)
	for _, target := range d.plan.targets {
		d.world.happen(target, emulator.Fault{Kind: emulator.LostAnswer, Operation: emulator.OpUpdate, Count: demoLost})
	}
	if err := at(0.35); err != nil {
		return err
	}
	d.world.happen(demoShop, emulator.Fault{Kind: emulator.Outage, Status: 503})
	if err := until(ctx, 8*time.Second, func() bool { return d.watch.isHeld(demoShop) }); err != nil {
		return err
	}
	if err := pause(ctx, time.Second); err != nil {
		return err
	}
	d.world.happen(demoShop) // it is over
	if err := at(0.6); err != nil {
		return err
	}
	return d.replaceWorker(ctx)
}

// until waits for a condition, but no longer than for most.
func until(ctx context.Context, most time.Duration, ok func() bool) error {
	for end := time.Now().Add(most); !ok() && time.Now().Before(end); {
		if err := pause(ctx, demoBeat/2); err != nil {
			return err
		}
	}
	return ctx.Err()
}

// replaceWorker kills the worker while calls are in flight, once its lanes are
// at work again, and starts another.
func (d *demoRun) replaceWorker(ctx context.Context) error {
	if err := until(ctx, 6*time.Second, func() bool { return !slices.ContainsFunc(d.plan.targets, d.watch.isHeld) }); err != nil {
		return err
	}
	for end := time.Now().Add(2 * time.Second); d.inFlight() == 0 && time.Now().Before(end); {
		if err := pause(ctx, time.Millisecond); err != nil {
			return err
		}
	}
	calls, now := d.inFlight(), time.Now()
	old := d.world.kill()
	d.mu.Lock()
	d.killed, d.deadPID = now, old.pid
	d.mu.Unlock()
	if err := d.world.work(); err != nil {
		return err
	}
	d.view.say("worker %d is killed (SIGKILL) with %s in flight; %d waits for its lease (%s) to end",
		old.pid, plural(calls, "request"), d.world.current().pid, demoLease)
	d.mu.Lock()
	defer d.mu.Unlock()
	d.staged = true
	return nil
}

// inFlight counts the requests that the CRMs have not answered.
func (d *demoRun) inFlight() (n int) {
	for _, target := range d.plan.targets {
		n += d.world.crms[target].Stats().Pending
	}
	return n
}

// judge ends the worker and holds what the CRMs wrote down against the plan.
func (d *demoRun) judge(ctx context.Context) (demoVerdict, error) {
	if err := d.world.stop(ctx); err != nil {
		return demoVerdict{}, err
	}
	e, err := d.world.evidence(ctx)
	if err != nil {
		return demoVerdict{}, err
	}
	e.killed = []time.Time{d.killed}
	return judgeDemo(d.plan, e), nil
}

// pause waits, or ends with the context's error.
func pause(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func plural(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, strings.TrimSpace(what))
}
