// Package app wires the parts into a running crmsync and takes them down in
// order: configuration, queue, CRM clients, lanes, metrics and console. It is
// what the commands call, and it can be embedded in tests.
package app

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/rs/zerolog"

	"crmsync/config"
	"crmsync/queue"
	"crmsync/worker"
)

// DefaultPort is where the embedded server listens on the loopback interface:
// NATS's own port, so that any NATS client finds it.
const DefaultPort = 4222

// AnyPort lets the embedded server take any free port, NoPort lets it listen on
// none.
const (
	AnyPort = -1
	NoPort  = -2
)

// urlFile in the data folder says where the embedded server that holds the
// folder listens.
const urlFile = "nats.url"

// Options are what the configuration does not say.
type Options struct {
	Version string
	// Host makes this process start the embedded server where the
	// configuration names no other. Without it the process connects to the
	// one that another process hosts.
	Host bool
	// Port of that embedded server: 0 is [DefaultPort], [AnyPort] any, [NoPort]
	// none.
	Port int
	// AcceptLoss opens a store of which something is missing; see
	// [App.AcceptLosses].
	AcceptLoss bool
	Log        zerolog.Logger

	seams seams
}

// seams are where a simulation takes the place of what surrounds an App: the
// network, and what a lane sees of queue and CRM. The zero value leaves all as it is.
type seams struct {
	nats   func() (net.Conn, error)
	crm    func(ctx context.Context, network, address string) (net.Conn, error)
	id     string // of the process's sessions
	memory bool   // nothing goes to disk
	seed   uint64 // of the lanes
	source func(target string, s worker.Source) worker.Source
	sender func(target string, c client) client
}

// App is a crmsync that is connected to its queue. Its methods are safe for
// concurrent use.
type App struct {
	cfg *config.Config
	o   Options
	q   *queue.Queue

	born time.Time

	teardown []func() error // last in, first out

	mu     sync.Mutex
	lanes  map[string]*worker.Lane  // by target; those that run here
	orders map[string]worker.Orders // by target, or as sharedName says
	groups map[string]*group        // by name; shared quotas that were used here
	meters *meters

	durable durable
}

// Open connects to the queue, or starts it. The error wraps
// [queue.ErrUnreachable] where NATS cannot be reached.
func Open(ctx context.Context, cfg *config.Config, o Options) (*App, error) {
	a := &App{
		cfg: cfg, o: o, born: time.Now(), lanes: map[string]*worker.Lane{}, orders: map[string]worker.Orders{},
		groups: map[string]*group{}, meters: newMeters(),
	}
	qo, err := a.queueOptions()
	if err != nil {
		return nil, err
	}
	if a.q, err = queue.Open(ctx, qo); err != nil {
		return nil, a.explain(err)
	}
	a.onClose(a.q.Close)
	if qo.Embedded != nil && qo.Embedded.Port != NoPort {
		if err := a.publishURL(); err != nil {
			return nil, errors.Join(err, a.Close())
		}
	}
	return a, nil
}

// onClose registers what Close undoes, last in, first out.
func (a *App) onClose(f func() error) { a.teardown = append(a.teardown, f) }

// Close takes down what Open built. It is not for concurrent use.
func (a *App) Close() error {
	var errs []error
	for _, f := range slices.Backward(a.teardown) {
		errs = append(errs, f())
	}
	a.teardown = nil
	return errors.Join(errs...)
}

// URL is where NATS is reached by other processes.
func (a *App) URL() string { return a.q.URL() }

func (a *App) queueOptions() (queue.Options, error) {
	n := a.cfg.NATS
	o := queue.Options{
		URL: n.URL, Context: n.Context, Creds: n.Creds, NKey: n.NKey,
		User: n.User, TLSCert: n.TLSCert, TLSKey: n.TLSKey, TLSCA: n.TLSCA, TLSFirst: n.TLSFirst,
		Timeout: n.Timeout, Domain: n.JSDomain, InboxPrefix: n.InboxPrefix,
		Name: "crmsync", Replicas: n.Replicas, Lease: n.Lease,
		Log: a.o.Log, Dial: a.o.seams.nats, ID: a.o.seams.id, SessionsInMemory: a.o.seams.nats != nil, InMemory: a.o.seams.memory,
	}
	if !n.Password.IsZero() {
		var err error
		if o.Password, err = n.Password.Read(); err != nil {
			return o, fmt.Errorf("the NATS password: %w", err)
		}
	}
	if !n.Embedded() || o.Dial != nil {
		return o, nil
	}
	if a.o.Host {
		port := a.o.Port
		if port == 0 {
			port = DefaultPort
		}
		o.Embedded = &queue.Embedded{
			Dir: filepath.Join(a.cfg.Data, "nats"), Host: "127.0.0.1", Port: port,
			MinFree: a.cfg.Store.MinFree, MinFreeShare: a.cfg.Store.MinFreeShare, AcceptLoss: a.o.AcceptLoss,
		}
		return o, nil
	}
	o.URL = a.hostedURL()
	return o, nil
}

// hostedURL is where the process that holds our data folder serves NATS, or
// the default address where no such file is there.
func (a *App) hostedURL() string {
	if b, err := os.ReadFile(filepath.Join(a.cfg.Data, urlFile)); err == nil {
		if url := strings.TrimSpace(string(b)); url != "" {
			return url
		}
	}
	return fmt.Sprintf("nats://127.0.0.1:%d", DefaultPort)
}

func (a *App) publishURL() error {
	path := filepath.Join(a.cfg.Data, urlFile)
	tmp := path + ".new"
	if err := os.WriteFile(tmp, []byte(a.q.URL()+"\n"), 0o600); err != nil {
		return fmt.Errorf("say where the embedded server listens: %w", err)
	}
	if err := os.Rename(tmp, path); err != nil {
		return fmt.Errorf("say where the embedded server listens: %w", err)
	}
	a.onClose(func() error {
		if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
		return nil
	})
	return nil
}

// explain adds what to do to an error of connecting.
func (a *App) explain(err error) error {
	if errors.Is(err, queue.ErrUnreachable) && a.cfg.NATS.Embedded() && !a.o.Host {
		return fmt.Errorf("%w\nno server is named and none runs here: start `crmsync run`, or name one with --server or NATS_URL", err)
	}
	return err
}

// Setup creates the streams and buckets of the configured targets; what is
// there and right is left alone.
func (a *App) Setup(ctx context.Context) error {
	return a.q.Setup(ctx, a.targetNames())
}

// Plan is what Setup would create, as the JSON that the nats CLI takes.
func Plan(cfg *config.Config) ([]byte, error) {
	plan, err := queue.Plan(sortedKeys(cfg.Targets), cfg.NATS.Replicas, cfg.NATS.Lease)
	if err != nil {
		return nil, err
	}
	return json.MarshalIndent(plan, "", "  ")
}

func (a *App) targetNames() []string { return sortedKeys(a.cfg.Targets) }

func sortedKeys[V any](m map[string]V) []string {
	out := make([]string, 0, len(m))
	for k := range m {
		out = append(out, k)
	}
	slices.Sort(out)
	return out
}

// Drain is how long a shutdown waits for calls in flight.
func (a *App) Drain() time.Duration { return a.cfg.Drain }
