package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/rs/zerolog"

	"crmsync/app"
	"crmsync/emulator"
)

const (
	// demoCalls is how many calls a lane of the demo makes at once.
	demoCalls = 8
	// demoBurst is what each emulated CRM takes at once. A lane is given this
	// less its calls: of what it has spent, that many requests may be under
	// way and arrive late, together with a full burst.
	demoBurst = 20
	// demoTimeout is how long a lane waits for an answer.
	demoTimeout = time.Second
	// demoLease is short, so that the takeover does not take up the demo, and
	// long enough for a busy machine to renew it.
	demoLease = 4 * time.Second
)

// demoRates are what the CRMs allow, in requests a second. Perfex takes two for
// each update: a read and a write.
var demoRates = map[string]float64{"perfex": 150, "evance": 120}

// demoWorld is everything that the demo starts, in one temporary folder.
type demoWorld struct {
	dir     string
	config  string
	targets []string
	crms    map[string]*emulator.CRM
	urls    map[string]string
	app     *app.App
	program string   // what a worker is; "" is this program
	args    []string // for the worker's command line

	mu     sync.Mutex
	worker *demoWorker
	logs   int

	teardown []func() error // last in, first out
}

// newDemoWorld starts the CRMs and writes the configuration. The caller closes
// it, also after an error.
func newDemoWorld(p *demoPlan, keep string) (*demoWorld, error) {
	w := &demoWorld{targets: p.targets, crms: map[string]*emulator.CRM{}, urls: map[string]string{}}
	dir, err := os.MkdirTemp("", "crmsync-demo-")
	if err != nil {
		return w, err
	}
	w.dir = dir
	w.onClose(func() error { return os.RemoveAll(dir) })
	if keep != "" {
		if err := os.MkdirAll(keep, 0o700); err != nil {
			return w, err
		}
		w.onClose(func() error { return keepLogs(dir, keep) })
	}
	for _, target := range p.targets {
		if err := w.serve(target, p); err != nil {
			return w, fmt.Errorf("emulated CRM: %w", err)
		}
	}
	return w, w.configure()
}

// host runs NATS in this process; workers are told where.
func (w *demoWorld) host(ctx context.Context) error {
	cfg, err := app.LoadConfig(w.config, nil, nil)
	if err != nil {
		return err
	}
	log, err := os.Create(filepath.Join(w.dir, "nats.log"))
	if err != nil {
		return err
	}
	w.onClose(log.Close)
	w.app, err = app.Open(ctx, cfg, app.Options{
		Version: version, Host: true, Port: app.AnyPort, Log: zerolog.New(log).With().Timestamp().Logger(),
	})
	if err != nil {
		return err
	}
	w.onClose(w.app.Close)
	w.args = []string{"--server", w.app.URL()}
	return nil
}

func (w *demoWorld) onClose(f func() error) { w.teardown = append(w.teardown, f) }

// Close ends and removes everything.
func (w *demoWorld) Close() error {
	var errs []error
	for _, f := range slices.Backward(w.teardown) {
		errs = append(errs, f())
	}
	w.teardown = nil
	return errors.Join(errs...)
}

// serve starts one emulated CRM on a free port of the loopback interface.
func (w *demoWorld) serve(target string, p *demoPlan) error {
	o := emulator.Options{
		Contacts: p.contacts, Seed: p.seed,
		Limits: emulator.Limits{Rate: demoRates[demoKind(target)], Burst: demoBurst, RetryAfter: emulator.RetrySeconds},
	}
	build := emulator.NewPerfex
	if demoKind(target) == "evance" {
		build, o.Mode = emulator.NewEvance, emulator.EvanceV1
	}
	crm := build(o)
	crm.SetFaults(emulator.Faults{demoLatency})
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	srv := &http.Server{Handler: crm, ReadHeaderTimeout: 10 * time.Second}
	served := make(chan error, 1)
	go func() { served <- srv.Serve(ln) }()
	w.crms[target], w.urls[target] = crm, "http://"+ln.Addr().String()
	w.onClose(func() error {
		crm.Close()
		err := srv.Close()
		if e := <-served; !errors.Is(e, http.ErrServerClosed) {
			err = errors.Join(err, e)
		}
		return err
	})
	return nil
}

// demoLatency is how long a CRM takes on a good day.
var demoLatency = emulator.Fault{Kind: emulator.Latency, Min: 4 * time.Millisecond, Max: 25 * time.Millisecond}

// happen adds faults to a CRM's day, beside what is left of the former ones
// that are counted.
func (w *demoWorld) happen(target string, faults ...emulator.Fault) {
	plan := emulator.Faults{demoLatency}
	for _, f := range w.crms[target].Faults() {
		if f.Count > 0 {
			plan = append(plan, f)
		}
	}
	w.crms[target].SetFaults(append(plan, faults...))
}

// configure writes what an operator would have written.
func (w *demoWorld) configure() error {
	token, credentials := filepath.Join(w.dir, "perfex.token"), filepath.Join(w.dir, "evance.json")
	var text strings.Builder
	fmt.Fprintf(&text, "data: %q\nnats: {lease: %s}\nhttp: {listen: \"off\"}\nlog: {format: json}\ntargets:\n",
		filepath.Join(w.dir, "data"), demoLease)
	for _, target := range w.targets {
		secret := fmt.Sprintf("token_file: %q\n    permissions: [1, 5]", token)
		if demoKind(target) == "evance" {
			secret = fmt.Sprintf("credentials_file: %q", credentials)
		}
		fmt.Fprintf(&text, `  %s:
    kind: %s
    url: %s
    %s
    timeout: %s
    quota: {rate: %g/s, burst: %d, concurrency: %d}
    retry: {base: 250ms, max: 2s}
`, target, demoKind(target), w.urls[target], secret, demoTimeout, demoRates[demoKind(target)], demoBurst-demoCalls, demoCalls)
	}
	private, err := evanceCredentials()
	if err != nil {
		return err
	}
	w.config = filepath.Join(w.dir, "crmsync.yaml")
	for name, b := range map[string][]byte{
		w.config: []byte(text.String()), token: []byte(emulator.DefaultToken + "\n"), credentials: private,
	} {
		if err := os.WriteFile(name, b, 0o600); err != nil {
			return err
		}
	}
	return nil
}

// keepLogs copies the logs and the configuration out of the temporary folder.
func keepLogs(from, to string) error {
	var errs []error
	for _, pattern := range []string{"*.log", "*.yaml"} {
		names, err := filepath.Glob(filepath.Join(from, pattern))
		errs = append(errs, err)
		for _, name := range names {
			b, err := os.ReadFile(name)
			if err == nil {
				err = os.WriteFile(filepath.Join(to, filepath.Base(name)), b, 0o600)
			}
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// work starts a worker: this program again, as a process of its own.
func (w *demoWorld) work() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.logs++
	log := filepath.Join(w.dir, fmt.Sprintf("worker-%d.log", w.logs))
	worker, err := startDemoWorker(w.program, log, append([]string{"run", "--config", w.config}, w.args...)...)
	if err != nil {
		return err
	}
	w.worker = worker
	w.onClose(func() error { worker.kill(); return nil })
	return nil
}

// current is the worker that should be running.
func (w *demoWorld) current() *demoWorker {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.worker
}

// alive is an error where the worker has ended without having been told to.
func (w *demoWorld) alive() error {
	worker := w.current()
	if worker == nil {
		return nil
	}
	select {
	case <-worker.ended:
		return fmt.Errorf("worker %d has ended by itself%s", worker.pid, worker.lastWords())
	default:
		return nil
	}
}

// kill ends the worker as a power cut would, and says which it was.
func (w *demoWorld) kill() *demoWorker {
	w.mu.Lock()
	defer w.mu.Unlock()
	dead := w.worker
	w.worker = nil
	dead.kill()
	return dead
}

// stop lets the worker finish, as an operator would.
func (w *demoWorld) stop(ctx context.Context) error {
	worker := w.current()
	if err := worker.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		return fmt.Errorf("stop worker %d: %w%s", worker.pid, err, worker.lastWords())
	}
	select {
	case <-worker.ended:
	case <-ctx.Done():
		return ctx.Err()
	}
	if worker.err != nil {
		return fmt.Errorf("worker %d: %w%s", worker.pid, worker.err, worker.lastWords())
	}
	return nil
}

// publish stores updates of the plan, unchecked, as any NATS client would.
func (w *demoWorld) publish(ctx context.Context, updates []demoUpdate) error {
	msgs := make([]app.Message, 0, len(updates))
	for _, u := range updates {
		class, err := app.ParseClass(u.class)
		if err != nil {
			return err
		}
		msgs = append(msgs, app.Message{
			Target: u.target, Contact: u.contact, Class: class, Body: u.body, MsgID: fmt.Sprintf("demo-%d", u.n),
		})
	}
	return w.app.PublishAll(ctx, msgs)
}

// evidence collects what the judge looks at.
func (w *demoWorld) evidence(ctx context.Context) (demoEvidence, error) {
	e := demoEvidence{
		ledger: map[string][]emulator.Entry{}, limits: map[string]emulator.Limits{}, ended: map[demoPlace]time.Time{},
		contact: func(target, id string) (map[string]any, bool) { return w.crms[target].Contact(id) },
	}
	for target, crm := range w.crms {
		e.ledger[target], e.limits[target] = crm.Ledger(), crm.Options().Limits
	}
	err := w.app.Dead(ctx, app.DeadFilter{}, func(l app.Letter) error {
		e.letters = append(e.letters, l)
		return nil
	})
	if err != nil {
		return e, err
	}
	return e, w.app.Records(ctx, 0, func(r app.StoryRecord) error {
		for _, u := range r.Updates {
			e.ended[demoPlace{r.Target, u.Class.String(), u.Seq}] = r.Time
		}
		return nil
	})
}
