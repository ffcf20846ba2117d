package main

import (
	"bytes"
	"context"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"crmsync/emulator"
)

// killStep is a step of an update's life that shows outside of the worker.
type killStep string

const (
	stepRead      killStep = "read"              // Perfex was asked for the contact
	stepArrived   killStep = "write arrived"     // at the CRM, which has not applied it
	stepApplied   killStep = "write applied"     // by the CRM, which has not answered
	stepAnswered  killStep = "write answered"    // by the CRM, in full
	stepPublished killStep = "outcome published" // to NATS, which need not have stored it
	stepPurge     killStep = "purge requested"   // of NATS, as above
	stepClaimed   killStep = "claimed"           // a target of the worker killed before
	stepBegun     killStep = "side effect noted" // in NATS, which need not have stored it
)

// killCounts has for every step how many times it may happen, at most, before
// the kill.
var killCounts = map[killStep]int{
	stepRead: 30, stepArrived: 30, stepApplied: 30, stepAnswered: 30,
	stepPublished: 60, stepPurge: 4, stepClaimed: 2, stepBegun: 15,
}

// stepKiller kills the current worker in the middle of a step. It sits where
// the worker's requests and messages pass by.
type stepKiller struct {
	w     *faultWorld
	fired chan time.Time // when the kill began; by then the worker is dead

	mu      sync.Mutex
	step    killStep
	left    int
	reaches bool // the CRM goes on with a write whose sender died when it arrived
}

// arm has the worker killed at the n-th time that a step is reached.
func (k *stepKiller) arm(step killStep, n int, reaches bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.step, k.left, k.reaches = step, n, reaches
}

// at is called at each step, and returns true once the worker is dead of it.
func (k *stepKiller) at(step killStep) bool {
	if !k.due(step) {
		return false
	}
	k.fired <- k.w.killed()
	return true
}

func (k *stepKiller) due(step killStep) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.step != step || k.w.current() == nil { // what a dead worker had sent may come late
		return false
	}
	if k.left--; k.left > 0 {
		return false
	}
	k.step = ""
	return true
}

// between puts the killer between the workers and the CRMs.
func (k *stepKiller) between() {
	k.w.t.Helper()
	for target, crm := range k.w.crms {
		srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			switch {
			case r.Method == http.MethodPut:
				k.write(crm, w, r)
				return
			case r.Method == http.MethodGet && strings.HasPrefix(r.URL.Path, "/api/contacts/"): // Perfex's only
				k.at(stepRead)
			}
			crm.ServeHTTP(w, r)
		}))
		k.w.t.Cleanup(func() {
			srv.CloseClientConnections()
			srv.Close()
		})
		k.w.urls[target] = srv.URL
	}
	k.w.must(k.w.configure())
}

// write takes a write through its steps.
func (k *stepKiller) write(crm *emulator.CRM, w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		panic(http.ErrAbortHandler)
	}
	r.Body = io.NopCloser(bytes.NewReader(body))
	if k.at(stepArrived) && !k.reaches {
		panic(http.ErrAbortHandler)
	}
	answer := httptest.NewRecorder()
	crm.ServeHTTP(answer, r)
	applied := answer.Code < http.StatusMultipleChoices && lastApplied(crm, r.URL.Path)
	if applied && k.at(stepApplied) {
		panic(http.ErrAbortHandler)
	}
	for name, values := range answer.Header() {
		w.Header()[name] = values
	}
	// With its length said, the answer is complete once it is flushed.
	w.Header().Set("Content-Length", strconv.Itoa(answer.Body.Len()))
	w.WriteHeader(answer.Code)
	if _, err := w.Write(answer.Body.Bytes()); err != nil || http.NewResponseController(w).Flush() != nil {
		panic(http.ErrAbortHandler)
	}
	if applied {
		k.at(stepAnswered)
	}
}

// lastApplied says whether the last write to a path changed the CRM. A contact
// has one call at a time, so that it is the write just made.
func lastApplied(crm *emulator.CRM, path string) bool {
	for _, e := range slices.Backward(crm.Ledger()) {
		if e.Method == http.MethodPut && e.Path == path {
			return e.Applied
		}
	}
	return false
}

// listen puts the killer where it hears what the workers send to NATS.
func (k *stepKiller) listen() {
	k.w.t.Helper()
	nc, err := nats.Connect(k.w.app.URL(), nats.Name("test"))
	k.w.must(err)
	k.w.t.Cleanup(nc.Close)
	for subject, step := range map[string]killStep{
		"crm.outcome.>":           stepPublished,
		"$JS.API.STREAM.PURGE.>":  stepPurge,
		"$KV.crm_owners.own.*":    stepClaimed,
		"$KV.crm_letters.begun.>": stepBegun,
	} {
		_, err := nc.Subscribe(subject, func(*nats.Msg) { k.at(step) })
		k.w.must(err)
	}
	k.w.must(nc.Flush())
}

// killAt starts a worker that dies at a step, with a wave of updates on its
// way: half of it waits for the worker, the other half comes when it is at work
// or dead.
func (k *stepKiller) killAt(ctx context.Context, step killStep, wave []demoUpdate) {
	w := k.w
	w.t.Helper()
	w.must(w.publish(ctx, wave[:len(wave)/2]))
	n, reaches := 1+w.rng.IntN(killCounts[step]), w.rng.IntN(2) == 0
	k.arm(step, n, reaches)
	w.must(w.work())
	worker := w.current()
	early := false
	for end := time.Now().Add(20 * time.Second); !early && time.Now().Before(end); pollStatus() {
		if st, err := w.app.Status(ctx); err == nil && ownedBy(worker.pid)(st) {
			break
		}
		select {
		case <-k.fired:
			early = true
		default:
		}
	}
	w.must(w.publish(ctx, wave[len(wave)/2:]))
	if !early {
		select {
		case <-k.fired:
		case <-time.After(20 * time.Second):
			w.t.Fatalf("%s: did not happen %d times", step, n)
		}
	}
	w.t.Logf("%s: worker %d killed at occurrence %d, early %t, a write on its way goes on %t",
		step, worker.pid, n, early, step == stepArrived && reaches)
}

// TestKillAtSteps kills workers that share a NATS server which lives on, each in
// the middle of a step that it has just taken.
func TestKillAtSteps(t *testing.T) {
	skipShort(t)
	t.Parallel()
	rounds := max(1, *kills/12)
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute+time.Duration(rounds)*2*time.Minute)
	defer cancel()
	steps := slices.Sorted(maps.Keys(killCounts)) // for the seed to say what happens
	const wave = 250
	kill := rounds * len(steps)
	w := newFaultWorld(t, "kill -9 at a step", int(float64(wave*(kill+1))/(1-demoWave)), demoOffice, demoShop)
	w.plan.mixed()
	w.askForMails()
	k := &stepKiller{w: w, fired: make(chan time.Time, 1)}
	k.between()
	w.apart(ctx)
	k.listen()

	w.row.rounds = kill
	kills := 0
	rest := w.plan.updates
	fired := map[killStep]int{}
	for range rounds {
		w.rng.Shuffle(len(steps), func(i, j int) { steps[i], steps[j] = steps[j], steps[i] })
		if i := slices.Index(steps, stepClaimed); i == 0 && kills == 0 {
			steps[0], steps[1] = steps[1], steps[0] // the first worker takes over from nobody
		}
		for _, step := range steps {
			k.killAt(ctx, step, rest[:wave])
			kills++
			rest = rest[wave:]
			fired[step]++
		}
	}
	w.must(w.work())
	w.must(w.publish(ctx, rest))
	w.until(ctx, "all has ended", time.Minute+time.Duration(rounds)*10*time.Second, allEnded)
	w.must(w.stop(ctx))
	for step := range killCounts {
		if fired[step] != rounds {
			t.Errorf("%s: %d workers were killed there, want %d", step, fired[step], rounds)
		}
	}
	w.judge(ctx)
	w.wasOpen()
}

// mixed leaves of a plan what follows its first wave, which is all bulk.
func (p *demoPlan) mixed() {
	p.updates = slices.Clone(p.updates[p.wave:])
	p.wave = 0
	seqs := map[string]uint64{}
	for i := range p.updates {
		u := &p.updates[i]
		seqs[u.target+u.class]++
		u.seq = seqs[u.target+u.class]
	}
}
