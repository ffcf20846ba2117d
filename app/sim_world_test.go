package app

import (
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"crmsync/config"
	"crmsync/emulator"
	"crmsync/history"
	"crmsync/queue"
	"crmsync/worker"
)

const (
	simOffice = "office"
	simShop   = "shop"
)

var simTargets = []string{simOffice, simShop}

// simWorld is everything in one bubble of virtual time: a real NATS server, real
// processes of ours short of being processes, and the emulated CRMs behind real
// HTTP. What happens in it goes into a history.
type simWorld struct {
	t    *testing.T
	o    simOptions
	dir  string
	born time.Time

	history.Recorder

	host    *queue.Queue // holds the server
	direct  simLink      // of control
	control *App         // of operators, whose link is never bad
	outside simLink      // of producers
	sources *App         // of producers
	crms    map[string]*emulator.CRM
	links   map[string]*emulator.Link
	faults  map[string]*simFaults

	mu       sync.Mutex
	procs    []*simProcess
	started  int
	numbers  int64 // of updates
	offered  map[int64]simOffer
	byRow    map[simRow]int64
	lettered map[uint64]int64 // dead letters: the update
	somewhen map[string]int
}

type simOffer struct {
	target, contact string
	fields          map[string]string
}

// simRow is a row of an import.
type simRow struct {
	job string
	row int64
}

// actor is the randomness of one part, so that another part does not shift it.
func (w *simWorld) actor(name string) *rand.Rand {
	h := fnv.New64a()
	h.Write([]byte(name))
	return rand.New(rand.NewPCG(w.o.seed, h.Sum64()))
}

func (w *simWorld) saw(what string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.somewhen[what]++
}

func newSimWorld(t *testing.T, o simOptions) *simWorld {
	w := &simWorld{
		direct: simLink{seed: o.seed}, outside: simLink{seed: o.seed + 1<<16}, t: t, o: o, dir: simDir(t), born: time.Now(), crms: map[string]*emulator.CRM{}, links: map[string]*emulator.Link{},
		faults: map[string]*simFaults{}, offered: map[int64]simOffer{}, byRow: map[simRow]int64{}, lettered: map[uint64]int64{},
		somewhen: map[string]int{},
	}
	limits := emulator.Limits{Rate: o.rate, Burst: o.burst, RetryAfter: emulator.RetrySeconds}
	if !o.strict {
		limits = emulator.Limits{}
	}
	w.crms[simOffice] = emulator.NewPerfex(emulator.Options{Mode: o.perfex, Contacts: 1000, Seed: o.seed, Limits: limits})
	w.crms[simShop] = emulator.NewEvance(emulator.Options{Contacts: 1000, Seed: o.seed, Limits: limits})
	for name, c := range w.crms {
		w.links[name] = emulator.Serve(c)
		w.faults[name] = &simFaults{crm: c, born: w.born}
	}
	w.secret(emulator.DefaultToken)
	w.write("evance.json", simCredentials)
	w.write("crmsync.yaml", o.config(w.dir))
	var err error
	w.host, err = queue.Open(t.Context(), queue.Options{
		Embedded: &queue.Embedded{Dir: filepath.Join(w.dir, "nats"), Port: -2}, Name: "server", Log: zerolog.Nop(),
	})
	if err != nil {
		t.Fatal(err)
	}
	w.control = w.without("control", &w.direct)
	w.sources = w.without("sources", &w.outside)
	if err := w.control.Setup(t.Context()); err != nil {
		t.Fatal(err)
	}
	w.Note(history.Event{Kind: history.World, Rules: o.rules()})
	return w
}

// without is a process that runs no lanes, at the end of a link.
func (w *simWorld) without(id string, l *simLink) *App {
	a, err := Open(w.t.Context(), w.config(), Options{Version: "sim", Log: zerolog.Nop(), seams: seams{
		id: id, seed: w.o.seed, memory: !*simFile, nats: func() (net.Conn, error) { return l.through(w.host.Dial) },
	}})
	if err != nil {
		w.t.Fatal(err)
	}
	return a
}

// simDir is a folder whose syncs cost nothing, where there is one.
func simDir(t *testing.T) string {
	dir, err := os.MkdirTemp("/dev/shm", "crmsync-sim")
	if err != nil {
		return t.TempDir()
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}

func (w *simWorld) write(name, text string) {
	if err := os.WriteFile(filepath.Join(w.dir, name), []byte(text), 0o600); err != nil {
		w.t.Fatal(err)
	}
}

// secret replaces the token that the workers use.
func (w *simWorld) secret(token string) { w.write("perfex.token", token) }

func (w *simWorld) config() *config.Config {
	cfg, err := LoadConfig(filepath.Join(w.dir, "crmsync.yaml"), nil, nil)
	if err != nil {
		w.t.Fatal(err)
	}
	return cfg
}

// close ends everything; the bubble ends only then.
func (w *simWorld) close() {
	for _, p := range w.running() {
		p.crash()
	}
	w.mu.Lock()
	procs := w.procs
	w.mu.Unlock()
	for _, p := range procs {
		<-p.gone
	}
	for _, a := range []*App{w.sources, w.control} {
		if err := a.Close(); err != nil {
			w.t.Error(err)
		}
	}
	if err := w.host.Close(); err != nil {
		w.t.Error(err)
	}
	for name, l := range w.links {
		w.crms[name].Close()
		l.Close()
	}
	time.Sleep(time.Second) // what was on its way on a link arrives, and finds nobody
}

// simProcess is a worker process: what it keeps in memory is its own, and all its
// ways out are links.
type simProcess struct {
	w     *simWorld
	name  string
	slot  int
	nats  simLink
	http  simLink
	app   *App
	stop  context.CancelFunc
	cut   context.CancelFunc
	ended chan struct{} // Work has returned
	gone  chan struct{} // and all is closed
	dead  bool          // what it does from here on reaches nobody
	paused
}

// paused is a process that was stopped (SIGSTOP): its lanes go no further at the
// points where they look at the world.
type paused struct {
	mu   sync.Mutex
	wake chan struct{} // nil where it runs
}

func (p *paused) stopped() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.wake == nil {
		p.wake = make(chan struct{})
	}
}

func (p *paused) goOn() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.wake != nil {
		close(p.wake)
		p.wake = nil
	}
}

// here waits while the process is stopped.
func (p *paused) here() {
	p.mu.Lock()
	wake := p.wake
	p.mu.Unlock()
	if wake != nil {
		<-wake
	}
}

// start runs a new process in a slot.
func (w *simWorld) start(slot int) *simProcess {
	w.mu.Lock()
	w.started++
	p := &simProcess{
		w: w, slot: slot, name: fmt.Sprintf("p%d-%d", slot, w.started), ended: make(chan struct{}), gone: make(chan struct{}),
	}
	p.nats.seed, p.http.seed = w.o.seed+uint64(w.started)<<8, w.o.seed+uint64(w.started)<<16
	w.procs = append(w.procs, p)
	w.mu.Unlock()
	var ctx, work context.Context
	ctx, p.stop = context.WithCancel(context.Background())
	work, p.cut = context.WithCancel(context.Background())
	go p.run(ctx, work)
	return p
}

func (p *simProcess) run(ctx, work context.Context) {
	defer close(p.gone)
	w := p.w
	o := Options{Version: "sim", Log: w.o.log, seams: seams{
		id: p.name, seed: w.o.seed + uint64(w.started), memory: !*simFile,
		nats: func() (net.Conn, error) { return p.nats.through(w.host.Dial) },
		crm: func(ctx context.Context, network, address string) (net.Conn, error) {
			host, _, _ := net.SplitHostPort(address)
			return p.http.through(func() (net.Conn, error) { return w.links[host].Dial(ctx, network, address) })
		},
		source: func(target string, s worker.Source) worker.Source { return &simSource{Source: s, p: p, target: target} },
		sender: func(target string, c client) client { return &simClient{client: c, p: p, target: target} },
	}}
	var err error
	for p.app, err = Open(ctx, w.config(), o); err != nil; p.app, err = Open(ctx, w.config(), o) {
		if ctx.Err() != nil {
			close(p.ended)
			return
		}
		time.Sleep(500 * time.Millisecond)
	}
	for {
		err = p.app.Work(ctx, work)
		if ctx.Err() != nil {
			break
		}
		if !errors.Is(err, queue.ErrUnreachable) && !p.isDead() {
			w.t.Errorf("%s: %v", p.name, err)
		}
		time.Sleep(500 * time.Millisecond)
	}
	if err != nil && !errors.Is(err, context.Canceled) && work.Err() == nil && !p.isDead() {
		w.t.Errorf("%s: %v", p.name, err)
	}
	p.mu.Lock()
	dead := p.dead
	p.mu.Unlock()
	if !dead {
		w.Note(history.Event{Kind: history.Exit, Actor: p.name})
	}
	close(p.ended)
	_ = p.app.Close()
}

func (p *simProcess) isDead() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.dead
}

// crash is kill -9: nothing that the process still does reaches anybody.
func (p *simProcess) crash() {
	p.mu.Lock()
	was := p.dead
	p.dead = true
	p.mu.Unlock()
	if was {
		return
	}
	p.w.Note(history.Event{Kind: history.Crash, Actor: p.name})
	p.nats.sever()
	p.http.sever()
	p.goOn()
	p.cut()
	p.stop()
}

// end is SIGTERM.
func (p *simProcess) end() {
	p.w.Note(history.Event{Kind: history.Stop, Actor: p.name})
	p.stop()
}

// running lists the processes that live.
func (w *simWorld) running() (out []*simProcess) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, p := range w.procs {
		select {
		case <-p.gone:
		default:
			if !p.isDead() {
				out = append(out, p)
			}
		}
	}
	return out
}

// simFaults is what goes wrong at a CRM: rules come and go, each on its own.
type simFaults struct {
	crm  *emulator.CRM
	born time.Time

	mu    sync.Mutex
	next  int
	rules map[int]emulator.Fault
}

// add puts a rule in force until the returned function is called.
func (f *simFaults) add(rules ...emulator.Fault) (remove func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.rules == nil {
		f.rules = map[int]emulator.Fault{}
	}
	var ids []int
	for _, r := range rules {
		f.next++
		f.rules[f.next] = r
		ids = append(ids, f.next)
	}
	f.setLocked()
	return func() {
		f.mu.Lock()
		defer f.mu.Unlock()
		for _, id := range ids {
			delete(f.rules, id)
		}
		f.setLocked()
	}
}

// setLocked has the newest rules decide first.
func (f *simFaults) setLocked() {
	var all emulator.Faults
	for id := f.next; id > 0; id-- {
		if r, ok := f.rules[id]; ok {
			all = append(all, r)
		}
	}
	f.crm.SetFaults(all)
}
