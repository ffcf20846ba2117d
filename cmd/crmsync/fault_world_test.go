package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"crmsync/app"
	"crmsync/queue"
)

// killLease is how long a killed worker's targets stay its own in these tests:
// short, so that many can be killed. It still outlasts a call.
const killLease = 3500 * time.Millisecond

// faultWorld is a demo's world in which the test decides what goes wrong.
type faultWorld struct {
	*demoWorld
	t    *testing.T
	plan *demoPlan
	rng  *rand.Rand
	mail map[int64]bool // updates of the plan that ask for a mail
	port int            // of the server that the workers host
	row  faultRow

	noted bool // row is in the table

	hunger *starved // measured from the beginning

	lock    sync.Mutex
	ended   map[demoPlace]endedAs // what the records say, also those that were trimmed since
	seen    uint64                // records up to here
	crashes []time.Time           // kills, and whatever else may cost an answer
	open    int                   // requests under way at these
	doubted []time.Time           // when a CRM's answers were lost on their way
	quit    func()                // of whoever reads the records

	// spared are contacts, as target/contact, of which an update was lost with its
	// file, and that was told.
	spared map[string]bool
}

// endedAs is how the record of an update tells that it ended.
type endedAs struct {
	outcome, contact string
	record           uint64
	at               time.Time
}

func newFaultWorld(t *testing.T, fault string, updates int, targets ...string) *faultWorld {
	t.Helper()
	skipShort(t)
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	w := &faultWorld{
		t: t, plan: newDemoPlan(seed, updates, targets...), rng: rand.New(rand.NewPCG(seed, 1)),
		row: faultRow{fault: fault}, ended: map[demoPlace]endedAs{}, spared: map[string]bool{}, hunger: measureStarving(),
	}
	t.Cleanup(func() { w.hunger.stop() })
	var err error
	w.demoWorld, err = newDemoWorld(w.plan, "")
	t.Cleanup(func() {
		if w.quit != nil {
			w.quit()
		}
		if t.Failed() {
			if !w.noted {
				faults.note(t, w.row)
			}
			w.tell()
		}
		if err := w.Close(); err != nil {
			t.Error(err)
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	if w.program, err = exec.LookPath("crmsync"); err != nil {
		t.Fatal(err)
	}
	return w
}

// skipShort skips a test of real processes where there is no time for any.
func skipShort(t *testing.T) {
	t.Helper()
	if testing.Short() {
		t.Skip("real processes take their time")
	}
}

// tell shows the end of every log.
func (w *faultWorld) tell() {
	names, _ := filepath.Glob(filepath.Join(w.dir, "*.log"))
	for _, name := range names[max(0, len(names)-12):] {
		b, _ := os.ReadFile(name)
		lines := strings.Split(strings.TrimSpace(string(b)), "\n")
		most := 15
		if strings.Contains(string(b), "goroutine ") { // it panicked
			most = 150
		}
		w.t.Logf("%s:\n%s", filepath.Base(name), strings.Join(lines[max(0, len(lines)-most):], "\n"))
	}
}

func (w *faultWorld) must(err error) {
	w.t.Helper()
	if err != nil {
		w.t.Fatal(err)
	}
}

// apart hosts NATS in the test, with short leases.
func (w *faultWorld) apart(ctx context.Context) {
	w.t.Helper()
	w.must(w.host(ctx))
	w.shorten(ctx)
}

// at has workers use NATS at an address, with short leases.
func (w *faultWorld) at(ctx context.Context, url string) {
	w.t.Helper()
	w.args = []string{"--server", url, "--set", "nats.durability=always"}
	w.reach(ctx, url)
	w.shorten(ctx)
}

// shorten sets the streams up before a worker does.
func (w *faultWorld) shorten(ctx context.Context) {
	w.t.Helper()
	q := w.queue(ctx)
	w.insist(ctx, time.Minute, func() error { return q.Setup(ctx, w.targets) })
	w.must(q.Close())
	w.must(w.app.Setup(ctx))
	w.listen()
}

// within has workers host NATS in their own process, one after the other on one
// store, and starts the first.
func (w *faultWorld) within(ctx context.Context, args ...string) {
	w.t.Helper()
	w.port = freePort(w.t)
	w.args = append([]string{fmt.Sprint("--port=", w.port)}, args...)
	w.must(w.work())
	w.reach(ctx, fmt.Sprint("nats://127.0.0.1:", w.port))
	w.until(ctx, "the worker owns the targets", 30*time.Second, ownedBy(w.current().pid))
	w.listen()
}

// reach connects the test.
func (w *faultWorld) reach(ctx context.Context, url string) {
	w.t.Helper()
	cfg, err := app.LoadConfig(w.config, nil, []string{"nats.url=" + url, "nats.durability=always"})
	w.must(err)
	w.insist(ctx, 30*time.Second, func() error {
		w.app, err = app.Open(ctx, cfg, app.Options{Version: "test", Log: zerolog.Nop()})
		if err != nil && !errors.Is(err, app.ErrUnreachable) {
			w.t.Fatal(err)
		}
		return err
	})
	w.onClose(w.app.Close)
}

// insist tries until something succeeds.
func (w *faultWorld) insist(ctx context.Context, most time.Duration, f func() error) {
	w.t.Helper()
	var err error
	for end := time.Now().Add(most); ; poll() {
		if err = f(); err == nil {
			return
		}
		if time.Now().After(end) || ctx.Err() != nil {
			w.t.Fatal(err)
		}
	}
}

func (w *faultWorld) queue(ctx context.Context) *queue.Queue {
	w.t.Helper()
	q, err := queue.Open(ctx, queue.Options{URL: w.app.URL(), Name: "test", Lease: killLease, Log: zerolog.Nop()})
	w.must(err)
	return q
}

// workAs starts a worker of its own beside the others.
func (w *faultWorld) workAs(args ...string) *demoWorker {
	w.t.Helper()
	common := w.args
	w.args = append(slices.Clone(common), args...)
	defer func() { w.args = common }()
	w.must(w.work())
	return w.current()
}

// crash notes a moment after which a call may be repeated whose end was not stored.
func (w *faultWorld) crash() time.Time {
	w.lock.Lock()
	defer w.lock.Unlock()
	now := time.Now()
	w.crashes = append(w.crashes, now)
	for _, crm := range w.crms {
		w.open += crm.Stats().Pending
	}
	return now
}

// doubt notes a moment at which answers of a CRM are lost on their way.
func (w *faultWorld) doubt() {
	w.lock.Lock()
	defer w.lock.Unlock()
	w.doubted = append(w.doubted, time.Now())
}

// killed kills the worker, and returns when that began.
func (w *faultWorld) killed() time.Time {
	at := w.crash()
	w.kill()
	return at
}

// heir waits until the current worker owns all targets, and notes how long after a
// crash that was.
func (w *faultWorld) heir(ctx context.Context, after time.Time) {
	w.t.Helper()
	w.until(ctx, "the worker owns the targets", 45*time.Second, ownedBy(w.current().pid))
	if !after.IsZero() {
		w.row.takeovers = append(w.row.takeovers, time.Since(after))
	}
}

// publishing publishes the plan in small parts over a time, in the background.
func (w *faultWorld) publishing(ctx context.Context, over time.Duration) (wait func()) {
	done := make(chan error, 1)
	go func() {
		part := max(10, len(w.plan.updates)/60) // each part is some batches, and each of these a sync
		pace := over * time.Duration(part) / time.Duration(len(w.plan.updates))
		for from := 0; from < len(w.plan.updates); from += part {
			err := app.ErrNoSpace
			for errors.Is(err, app.ErrNoSpace) && ctx.Err() == nil {
				if err = w.publish(ctx, w.plan.updates[from:min(from+part, len(w.plan.updates))]); err != nil {
					poll() // what is refused is published again, under the same ids
				}
			}
			if err == nil {
				err = pause(ctx, pace)
			}
			if err != nil {
				done <- err
				return
			}
		}
		done <- nil
	}()
	return func() {
		w.t.Helper()
		w.must(<-done)
	}
}

// calls waits until a request is under way at a CRM: the worst moment for a
// kill. Where none comes the next moment is as good.
func (w *faultWorld) calls(most time.Duration) {
	for end := time.Now().Add(most); time.Now().Before(end); {
		for _, crm := range w.crms {
			if crm.Stats().Pending > 0 {
				return
			}
		}
		<-time.After(time.Millisecond)
	}
}

// until waits for a condition on the status of the plan's targets.
func (w *faultWorld) until(ctx context.Context, what string, most time.Duration, ok func(app.Status) bool) app.Status {
	w.t.Helper()
	var st app.Status
	var err error
	for end := time.Now().Add(most); time.Now().Before(end); pollStatus() {
		asking, cancel := context.WithTimeout(ctx, statusWait)
		st, err = w.app.Status(asking)
		cancel()
		st.Targets = slices.DeleteFunc(st.Targets, func(t app.TargetStatus) bool { return !slices.Contains(w.targets, t.Target) })
		if err == nil && ok(st) {
			return st
		}
	}
	var b strings.Builder
	printStatus(&b, st)
	w.t.Fatalf("not within %s: %s (%v)\n%s", most, what, err, b.String())
	return st
}

// pollStatus waits longer than poll: a status is work for whoever is looked at.
func pollStatus() { <-time.After(100 * time.Millisecond) }

// statusWait is how long a status may take, on whatever day.
const statusWait = 20 * time.Second

func allEnded(st app.Status) bool {
	for _, t := range st.Targets {
		if t.Queue["live"].Waiting+t.Queue["bulk"].Waiting > 0 {
			return false
		}
	}
	return len(st.Targets) > 0
}

// ownedBy says whether these processes own all targets, each a live one.
func ownedBy(pids ...int) func(app.Status) bool {
	return func(st app.Status) bool {
		for _, t := range st.Targets {
			owned := false
			for _, pid := range pids {
				owned = owned || t.Lane != nil && strings.HasSuffix(t.Owner, fmt.Sprint("/", pid))
			}
			if !owned {
				return false
			}
		}
		return len(st.Targets) > 0
	}
}

// signal sends a signal to a worker.
func (w *faultWorld) signal(worker *demoWorker, s syscall.Signal) time.Time {
	w.t.Helper()
	at := time.Now()
	w.must(worker.cmd.Process.Signal(s))
	return at
}

// endsWithin waits for a worker's end.
func (w *faultWorld) endsWithin(worker *demoWorker, most time.Duration) time.Duration {
	w.t.Helper()
	began := time.Now()
	select {
	case <-worker.ended:
	case <-time.After(most):
		w.t.Fatalf("worker %d does not end within %s%s", worker.pid, most, worker.lastWords())
	}
	return time.Since(began)
}
