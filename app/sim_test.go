package app

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/nats-io/nats-server/v2/server/ats"
	"github.com/rs/zerolog"

	"crmsync/contact"
	"crmsync/emulator"
	"crmsync/history"
)

var (
	simSeeds = flag.Int("sim.seeds", simDefault(), "how many seeds the simulation runs")
	simFirst = flag.Uint64("sim.first", 1, "the first of them")
	simOut   = flag.String("sim.out", "", "a folder for the histories that break a promise")
	simStop  = flag.Bool("sim.stop", false, "end with the first seed that breaks a promise")
	simFile  = flag.Bool("sim.file", false, "keep the streams in files; histories do not repeat then")
	simLog   = flag.Bool("sim.log", false, "print what the processes log")
)

var simCredentials = func() string {
	b, _ := json.Marshal(map[string]string{
		"account": emulator.DefaultAccount, "client_id": emulator.DefaultClientID,
		"private_key": emulator.DefaultPrivateKey, "algorithm": "HS256",
	})
	return string(b)
}()

func simDefault() int {
	if raced {
		return 1
	}
	return 8
}

// simOptions is a seed spelled out.
type simOptions struct {
	seed           uint64
	procs          int
	safety         time.Duration // so long things go wrong
	rate           float64
	burst          int
	conc           int
	strict         bool   // the CRMs enforce that themselves
	shared         string // the limits of a quota that both targets share, "" for none
	perfex         string
	contacts       int
	pace           time.Duration
	troubles       int
	kinds          []string // what can go wrong
	plan           []simTrouble
	log            zerolog.Logger
	timeout, retry time.Duration
	attempts       int
}

func newSimOptions(seed uint64) simOptions {
	w := simWorld{o: simOptions{seed: seed}}
	r := w.actor("options")
	o := simOptions{
		seed: seed, procs: 1 + r.IntN(3), safety: 3*time.Minute + time.Duration(r.IntN(8))*time.Minute,
		rate: 3 + 12*r.Float64(), burst: 1 + r.IntN(6), conc: 1 + r.IntN(6), strict: r.IntN(2) == 0,
		perfex: []string{emulator.Perfex208, emulator.Perfex303}[r.IntN(2)], contacts: 4 + r.IntN(40),
		timeout: 3 * time.Second, retry: 2 * time.Second, attempts: 8, log: zerolog.Nop(),
	}
	o.pace = time.Duration(float64(time.Second) * 3 / o.rate * (0.5 + 2*r.Float64()))
	o.troubles = 3 + r.IntN(12)
	for _, k := range simKinds { // a swarm: each seed has some of them
		if r.IntN(2) == 0 {
			o.kinds = append(o.kinds, k)
		}
	}
	if len(o.kinds) == 0 {
		o.kinds = []string{"crash"}
	}
	o.plan = o.rehearse(w.actor("plan"))
	return o
}

func (o *simOptions) config(dir string) string {
	limits := fmt.Sprintf("{rate: %g/s, burst: %d, concurrency: %d}", o.rate, o.burst, o.conc)
	quota, shared := "quota: "+limits, ""
	if o.shared != "" {
		quota, shared = "quota_group: agency", "quotas: {agency: "+o.shared+"}\n"
	}
	one := func(name, kind, secret string) string {
		return fmt.Sprintf(`
  %s:
    kind: %s
    url: http://%[1]s
    allow_insecure: true
    allow_private: true
    %[3]s
    timeout: %s
    %s
    retry: {attempts: %d, base: %s, max: 10s}
`, name, kind, secret, o.timeout, quota, o.attempts, o.retry)
	}
	return fmt.Sprintf("data: %s\nhttp: {listen: off}\nnats: {lease: 8s}\n%stargets:\n", filepath.Join(dir, "data"), shared) +
		one(simOffice, "perfex", "token_file: perfex.token\n    permissions: [1, 2]") +
		one(simShop, "evance", "credentials_file: evance.json")
}

func (o *simOptions) rules() *history.Rules {
	l := history.Limits{Rate: o.rate, Burst: o.burst, Attempts: o.attempts, Backoff: o.retry / 20}
	return &history.Rules{
		Targets: map[string]history.Limits{simOffice: l, simShop: l},
		Grace:   250 * time.Millisecond, Exit: time.Minute, Repaired: 65 * time.Second, Drain: 40 * time.Minute,
	}
}

func (o *simOptions) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "seed %d: %d processes, %s of trouble, %.2f/s burst %d, %d at once, strict %v, perfex %s, %d contacts, an update each %s",
		o.seed, o.procs, o.safety, o.rate, o.burst, o.conc, o.strict, o.perfex, o.contacts, o.pace/3)
	for _, t := range o.plan {
		fmt.Fprintf(&b, "\n  at %s for %s: %s %s p%d %.2f", t.at.Round(time.Millisecond), t.long.Round(time.Millisecond), t.kind, t.target, t.proc, t.p)
	}
	return b.String()
}

// TestSimulation runs whole workers over the real server and the real HTTP stack in
// virtual time, has go wrong what the seed says, and gives the history to the judge.
func TestSimulation(t *testing.T) {
	total := simTotal{seen: map[string]int{}, situations: map[string]bool{}}
	for i := range *simSeeds {
		seed := *simFirst + uint64(i)
		ok := t.Run(fmt.Sprint(seed), func(t *testing.T) {
			o := newSimOptions(seed)
			r, seen := simulate(t, o, total.situations)
			total.add(r, seen)
			report(t, o, r)
		})
		if !ok && *simStop {
			return
		}
	}
	total.report(t)
}

// simTotal sums up what the seeds of a run met.
type simTotal struct {
	span       time.Duration
	seen       map[string]int
	situations map[string]bool
}

func (s *simTotal) add(r history.Report, seen map[string]int) {
	if span, err := time.ParseDuration(r.Span); err == nil {
		s.span += span
	}
	for k, n := range seen {
		s.seen[k] += n
	}
}

// simMeant is what a long run has to have met beside every trouble: one that
// has not proves nothing.
var simMeant = []string{
	"answer applied", "answer unchanged", "answer unknown", "answer throttled", "answer unauthorized", "answer transient", "answer invalid", "answer missing",
	"outcome applied", "outcome unchanged", "outcome superseded", "outcome dead", "outcome cancelled",
	"repair", "import taken up again", "publish repeated", "version out of order", "operator redrive", "operator forget", "job cancelled",
	"met outage", "met server-error", "met too-many", "met lost-answer", "met reset-before", "met late-apply", "met refusing", "met garbage", "met redirect", "met poison-contact",
}

const simLong = 60 // seeds that meet everything

func (s *simTotal) report(t *testing.T) {
	t.Logf("%.1f simulated hours, %d situations in which an answer came", s.span.Hours(), len(s.situations))
	for _, k := range sortedKeys(s.seen) {
		t.Logf("%7d %s", s.seen[k], k)
	}
	if *simSeeds < simLong {
		return
	}
	for _, k := range simKinds {
		if s.seen["trouble "+k] == 0 {
			t.Errorf("the run is not valid: no %q in all of it", "trouble "+k)
		}
	}
	for _, k := range simMeant {
		if s.seen[k] == 0 {
			t.Errorf("the run is not valid: no %q in all of it", k)
		}
	}
}

// situations notes in which circumstances answers came: what went wrong at that
// time, how the CRM answered, and how many had.
func situations(events []history.Event, into map[string]bool) {
	wrong := map[string]int{}
	tries := map[string]int{}
	for i := range events {
		e := &events[i]
		switch e.Kind {
		case history.Fault:
			wrong[e.Name+" "+e.Target]++
		case history.Heal:
			if wrong[e.Name+" "+e.Target]--; wrong[e.Name+" "+e.Target] == 0 {
				delete(wrong, e.Name+" "+e.Target)
			}
		case history.Answer:
			k := e.Target + "/" + e.Contact
			into[fmt.Sprint(e.Target, e.Verdict, e.Cut, min(tries[k], 4), sortedKeys(wrong))] = true
			if tries[k]++; e.Verdict == "applied" || e.Verdict == "unchanged" {
				tries[k] = 0
			}
		}
	}
}

func report(t *testing.T, o simOptions, r history.Report) {
	t.Helper()
	if len(r.Violations()) == 0 && !t.Failed() {
		t.Logf("%s\n%d events over %s, %d updates, %d requests", strings.SplitN(o.String(), "\n", 2)[0], r.Events, r.Span, r.Updates, r.Requests)
		return
	}
	t.Errorf("%s\n%s\nto repeat it: GODEBUG=asyncpreemptoff=1 go test ./app -run 'TestSimulation$' -sim.first=%d -sim.seeds=1", o.String(), r, o.seed)
}

// simulate runs one seed and judges it.
func simulate(t *testing.T, o simOptions, met map[string]bool) (r history.Report, seen map[string]int) {
	t.Helper()
	if *simLog {
		o.log = zerolog.New(os.Stderr)
	}
	inSim(t, func(t *testing.T) {
		w := newSimWorld(t, o)
		w.run()
		_, seen = w.happened()
		events := w.Events()
		r = history.Check(events)
		situations(events, met)
		if *simOut != "" && len(r.Broken()) > 0 {
			w.save(events)
		}
	})
	return r, seen
}

func (w *simWorld) save(events []history.Event) {
	f, err := os.Create(filepath.Join(*simOut, fmt.Sprintf("%d.jsonl", w.o.seed)))
	if err == nil {
		err = history.Write(f, events)
	}
	if err == nil {
		err = f.Close()
	}
	if err != nil {
		w.t.Error(err)
	}
}

func (w *simWorld) run() {
	defer w.close()
	ctx, cancel := context.WithCancel(w.t.Context())
	var followers sync.WaitGroup
	defer followers.Wait()
	defer cancel()
	for _, target := range simTargets {
		followers.Go(func() { w.followRecords(ctx, target) })
	}
	r := w.actor("start")
	for i := range w.o.procs {
		w.start(i)
		time.Sleep(time.Duration(r.Int64N(int64(time.Second)))) // no two tick together
	}
	// Latency never ceases; neither does the contact that its CRM breaks on.
	for _, target := range simTargets {
		w.faults[target].add(emulator.Fault{Kind: emulator.Latency, Min: 5 * time.Millisecond, Max: 120 * time.Millisecond})
	}
	w.faults[simOffice].add(emulator.Fault{Kind: emulator.PoisonContact, Contact: simPoison})

	rough, calm := context.WithTimeout(ctx, w.o.safety)
	defer calm()
	var actors, troubles sync.WaitGroup
	actors.Go(func() { w.produce(rough, "a") })
	actors.Go(func() { w.importFiles(rough) })
	actors.Go(func() { w.operate(rough) })
	for _, t := range w.o.plan {
		troubles.Go(func() {
			if simPause(rough, t.at) {
				w.trouble(rough, t)
			}
		})
	}
	troubles.Wait()
	<-rough.Done()
	actors.Wait()
	w.heal(ctx)
	w.Note(history.Event{Kind: history.Calm})
	w.untilQuiet(ctx)
	time.Sleep(3 * time.Minute) // until nothing can come late any more
	w.untilQuiet(ctx)
	w.Note(history.Event{Kind: history.Rest})
	w.collect()
}

// heal sees to it that everything is as it should be again.
func (w *simWorld) heal(ctx context.Context) {
	w.secret(emulator.DefaultToken)
	w.crms[simOffice].SetToken(emulator.DefaultToken)
	for _, target := range simTargets {
		if err := w.control.Resume(ctx, Who{By: "ann", Via: "cli"}, target); err != nil {
			w.t.Errorf("resume %s: %v", target, err)
		}
		if _, err := w.control.ResumeStorm(ctx, Who{By: "ann", Via: "cli"}, target, RecallLetters); err == nil {
			w.saw("storm ended by the operator")
		}
	}
	for i := range w.o.procs {
		if w.in(i) == nil {
			w.start(i)
		}
	}
}

// untilQuiet waits until nothing is queued any more, and no letter is in hand.
func (w *simWorld) untilQuiet(ctx context.Context) {
	var last string
	r := w.actor("well")
	for i, end := 0, time.Now().Add(45*time.Minute); time.Now().Before(end); time.Sleep(2 * time.Second) {
		if i++; i%15 == 1 {
			// A contact that always fails ends only where the CRM is seen to
			// work for others.
			for _, target := range simTargets {
				w.publishOne(ctx, r, target, "990", nil)
			}
			continue
		}
		stats, err := w.control.q.Stats(ctx)
		if err != nil {
			last = err.Error()
			continue
		}
		waiting := uint64(0)
		for _, s := range stats {
			for c := range contact.Class(contact.Classes) {
				waiting += s.Class[c].Messages
			}
		}
		if waiting == 0 {
			return
		}
		last = fmt.Sprint(waiting, " wait")
	}
	w.t.Errorf("it does not come to rest: %s", last)
	if st, err := w.control.Status(ctx); err == nil {
		for _, t := range st.Targets {
			b, _ := json.Marshal(t)
			w.t.Logf("%s", b)
		}
	}
}

// The same seed, the same history: what fails can be repeated.
func TestSimulationRepeats(t *testing.T) {
	if raced || os.Getenv("GODEBUG") != "asyncpreemptoff=1" {
		t.Skip("histories are equal where nothing is preempted: GODEBUG=asyncpreemptoff=1 go test ./app -run TestSimulationRepeats")
	}
	var first []string
	for range 3 {
		var lines []string
		o := newSimOptions(*simFirst)
		inSim(t, func(t *testing.T) {
			w := newSimWorld(t, o)
			w.run()
			for _, e := range w.Events() {
				lines = append(lines, e.String())
			}
		})
		if first == nil {
			first = lines
			continue
		}
		for i := range min(len(first), len(lines)) {
			if first[i] != lines[i] {
				t.Fatalf("event %d of %d was\n%s\nand is\n%s", i, len(first), strings.Join(first[max(0, i-8):i+1], "\n"), strings.Join(lines[max(0, i-8):i+1], "\n"))
			}
		}
		if !slices.Equal(first, lines) {
			t.Fatalf("%d events and %d", len(first), len(lines))
		}
	}
}

// inSim runs f in a bubble in which the real server works.
func inSim(t *testing.T, f func(t *testing.T)) {
	t.Helper()
	ats.Register() // the server's clock must not belong to the bubble
	defer ats.Unregister()
	if !raced {
		// One thread, so that a seed repeats; and a collection would let
		// goroutines wait that would not have.
		defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1))
		defer debug.SetGCPercent(debug.SetGCPercent(-1))
		defer debug.SetMemoryLimit(debug.SetMemoryLimit(2 << 30))
	}
	// The client library pools timers; one of another bubble would be fatal. Two
	// collections empty a pool.
	empty := func() { runtime.GC(); runtime.GC() }
	empty()
	defer empty()
	synctest.Test(t, f)
}
