package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"crmsync/app"
	"crmsync/contact"
	"crmsync/emulator"
	"crmsync/queue"
)

// killLease is how long a killed worker's targets stay its own in these tests:
// short, so that many can be killed. It still outlasts a call.
const killLease = 3500 * time.Millisecond

// killWorld is a demo's world in which the test decides who dies.
type killWorld struct {
	*demoWorld
	t    *testing.T
	plan *demoPlan
	rng  *rand.Rand
	mail map[int64]bool // updates of the plan that ask for a mail
}

func newKillWorld(t *testing.T, updates int, targets ...string) *killWorld {
	t.Helper()
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	w := &killWorld{t: t, plan: newDemoPlan(seed, updates, targets...), rng: rand.New(rand.NewPCG(seed, 1))}
	w.askForMails()
	var err error
	w.demoWorld, err = newDemoWorld(w.plan, "")
	t.Cleanup(func() {
		if t.Failed() {
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

// askForMails has a part of Perfex's updates ask for a mail to set a password as
// well: live ones, since the mail of a bulk one is left out where a newer one has
// asked for it.
func (w *killWorld) askForMails() {
	w.mail = map[int64]bool{}
	for i := range w.plan.updates {
		u := &w.plan.updates[i]
		if demoKind(u.target) == "perfex" && u.class == "live" && u.fate == "" && w.rng.Float64() < 0.2 {
			w.mail[u.n] = true
			u.body = demoBody(append(slices.Clone(u.fields), demoField{path: "send_set_password_email", value: "on"}))
		}
	}
}

// mails counts what the CRMs have sent: never twice for one update, and not at all
// only where a worker died with the call in its hands.
func (w *killWorld) mails(killed int) {
	w.t.Helper()
	sent := map[int64]int{}
	for target, crm := range w.crms {
		ledger := crm.Ledger()
		for _, m := range crm.Mails() {
			e := ledger[m.Entry-1]
			if len(e.Updates) != 1 || !w.mail[e.Updates[0]] {
				w.t.Errorf("%s: request %d sent a mail for updates %v", target, m.Entry, e.Updates)
				continue
			}
			if sent[e.Updates[0]]++; sent[e.Updates[0]] == 2 {
				w.t.Errorf("%s: update #%d# sent a second mail with request %d", target, e.Updates[0], m.Entry)
			}
		}
	}
	published := 0
	for _, u := range w.plan.updates {
		if w.mail[u.n] {
			published++
		}
	}
	left, twice := published-len(sent), 0
	for _, n := range sent {
		twice += n - 1
	}
	w.t.Logf("%d of %d mails were sent, %d once too often; %d were left out over %d kills", len(sent), published, twice, left, killed)
	if left > killed*demoCalls || len(sent) == 0 {
		w.t.Errorf("%d mails were sent and %d left out over %d kills", len(sent), left, killed)
	}
}

// tell shows the end of every log.
func (w *killWorld) tell() {
	names, _ := filepath.Glob(filepath.Join(w.dir, "*.log"))
	for _, name := range names {
		b, _ := os.ReadFile(name)
		lines := strings.Split(strings.TrimSpace(string(b)), "\n")
		w.t.Logf("%s:\n%s", filepath.Base(name), strings.Join(lines[max(0, len(lines)-15):], "\n"))
	}
}

func (w *killWorld) must(err error) {
	w.t.Helper()
	if err != nil {
		w.t.Fatal(err)
	}
}

// apart hosts NATS in the test, with short leases.
func (w *killWorld) apart(ctx context.Context) {
	w.t.Helper()
	w.must(w.host(ctx))
	q := w.queue(ctx)
	w.must(q.Setup(ctx, w.targets))
	w.must(q.Close())
	w.must(w.app.Setup(ctx))
}

func (w *killWorld) queue(ctx context.Context) *queue.Queue {
	w.t.Helper()
	q, err := queue.Open(ctx, queue.Options{URL: w.app.URL(), Name: "test", Lease: killLease, Log: zerolog.Nop()})
	w.must(err)
	return q
}

// publishing publishes the plan in small parts over a time, in the background.
func (w *killWorld) publishing(ctx context.Context, over time.Duration) (wait func()) {
	done := make(chan error, 1)
	go func() {
		const part = 10
		pace := over * part / time.Duration(len(w.plan.updates))
		for from := 0; from < len(w.plan.updates); from += part {
			if err := w.publish(ctx, w.plan.updates[from:min(from+part, len(w.plan.updates))]); err != nil {
				done <- err
				return
			}
			if err := pause(ctx, pace); err != nil {
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
func (w *killWorld) calls(most time.Duration) {
	for end := time.Now().Add(most); time.Now().Before(end); {
		for _, crm := range w.crms {
			if crm.Stats().Pending > 0 {
				return
			}
		}
		<-time.After(time.Millisecond)
	}
}

// until waits for a condition on the status.
func (w *killWorld) until(ctx context.Context, what string, most time.Duration, ok func(app.Status) bool) app.Status {
	w.t.Helper()
	var st app.Status
	var err error
	for end := time.Now().Add(most); time.Now().Before(end); poll() {
		if st, err = w.app.Status(ctx); err == nil && ok(st) {
			return st
		}
	}
	var b strings.Builder
	printStatus(&b, st)
	w.t.Fatalf("not within %s: %s (%v)\n%s", most, what, err, b.String())
	return st
}

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

// judge holds all that happened against the plan.
func (w *killWorld) judge(ctx context.Context, killed []time.Time) {
	w.t.Helper()
	e, err := w.evidence(ctx)
	w.must(err)
	e.killed = killed
	v := judgeDemo(w.plan, e)
	for i, f := range v.Findings {
		if i == 20 {
			w.t.Errorf("and %d more findings", len(v.Findings)-i)
			break
		}
		w.t.Errorf("%s: %s contact %s: %s", f.Kind, f.Target, f.Contact, f.Text)
	}
	for _, t := range v.Targets {
		if t.Applied == 0 {
			w.t.Errorf("%s: nothing was applied", t.Target)
		}
		w.t.Logf("%s: %d published, %d applied, %d overwritten, dead %v, %d requests, %d of %d calls in flight repeated",
			t.Target, t.Published, t.Applied, t.Overwritten, t.Dead, t.Requests, t.Repeated, t.InFlight)
	}
	for target, entries := range e.ledger {
		for i, o := range emulator.Overlaps(entries) {
			if i < 5 && len(killed) == 0 {
				w.t.Errorf("%s: %s", target, o.Text)
			}
		}
	}
	w.outcomes(ctx)
	w.mails(len(killed))
}

// outcomes checks that the records give every update exactly one outcome, the
// planned one.
func (w *killWorld) outcomes(ctx context.Context) {
	w.t.Helper()
	q := w.queue(ctx)
	defer func() { w.must(q.Close()) }()
	type place struct {
		target, class string
		seq           uint64
	}
	planned := map[place]demoUpdate{}
	for _, u := range w.plan.updates {
		planned[place{u.target, u.class, u.seq}] = u
	}
	ended := map[place]string{}
	w.must(q.Records(ctx, queue.Filter{}, func(r queue.Record) error {
		for _, c := range r.Updates {
			at := place{r.Target, c.Class.String(), c.Seq}
			u, ok := planned[at]
			if !ok || u.contact != r.Contact {
				w.t.Errorf("record %d is of update %v of contact %s, which the plan does not have", r.Seq, at, r.Contact)
			}
			if before := ended[at]; before != "" {
				w.t.Errorf("update #%d# ended twice: %s, and %s by record %d", u.n, before, r.Outcome, r.Seq)
			}
			ended[at] = r.Outcome.String()
			if dead := r.Outcome == contact.Dead; dead != (u.fate != "") {
				w.t.Errorf("update #%d# ended %s, the plan says %q", u.n, r.Outcome, u.fate)
			}
		}
		return nil
	}))
	if len(ended) != len(planned) {
		w.t.Errorf("%d of %d updates have an outcome", len(ended), len(planned))
	}
}

// TestKillWorker kills workers that share a NATS server which lives on, each
// with a wave of updates before it: what the dead one has merged and sent, the
// next must not undo with less.
func TestKillWorker(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute+time.Duration(*kills)*20*time.Second)
	defer cancel()
	const wave = 1000
	n := max(1, *kills/4)
	w := newKillWorld(t, wave*n+300, demoOffice, demoShop)
	w.apart(ctx)
	w.must(w.work())
	var killed []time.Time
	for i := range n {
		w.until(ctx, "the worker owns the targets", 20*time.Second, ownedBy(w.current().pid))
		w.must(w.publish(ctx, w.plan.updates[i*wave:(i+1)*wave]))
		w.must(pause(ctx, time.Duration(w.rng.IntN(400))*time.Millisecond))
		w.calls(500 * time.Millisecond)
		killed = append(killed, time.Now())
		w.kill()
		w.must(w.work())
	}
	w.must(w.publish(ctx, w.plan.updates[n*wave:]))
	w.until(ctx, "all has ended", time.Minute+time.Duration(n)*10*time.Second, allEnded)
	w.must(w.stop(ctx))
	w.judge(ctx, killed)
}

// TestKillServer kills workers with the NATS server in them; the next one starts
// on the same store at once.
func TestKillServer(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute+time.Duration(*kills)*10*time.Second)
	defer cancel()
	n := max(1, *kills/2)
	w := newKillWorld(t, 100*n, demoOffice, demoShop)
	port := freePort(t)
	w.args = []string{fmt.Sprint("--port=", port)}
	w.must(w.work())
	cfg, err := app.LoadConfig(w.config, nil, []string{fmt.Sprint("nats.url=nats://127.0.0.1:", port)})
	w.must(err)
	for end := time.Now().Add(10 * time.Second); ; poll() {
		w.app, err = app.Open(ctx, cfg, app.Options{Version: "test", Log: zerolog.Nop()})
		if err == nil {
			break
		}
		if !errors.Is(err, app.ErrUnreachable) || time.Now().After(end) {
			t.Fatal(err)
		}
	}
	defer func() { w.must(w.app.Close()) }()
	w.until(ctx, "the worker owns the targets", 20*time.Second, ownedBy(w.current().pid))
	wait := w.publishing(ctx, time.Duration(n)*time.Second)
	var killed []time.Time
	for range n {
		w.must(pause(ctx, time.Duration(w.rng.IntN(800))*time.Millisecond))
		w.calls(300 * time.Millisecond)
		killed = append(killed, time.Now())
		w.kill()
		w.must(w.work())
		// Some are killed while they start, most when they work.
		if w.rng.IntN(4) > 0 {
			w.until(ctx, "the worker owns the targets", 20*time.Second, ownedBy(w.current().pid))
		}
	}
	wait()
	w.until(ctx, "all has ended", time.Minute, allEnded)
	w.judge(ctx, killed)
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
	t.Parallel()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	w := newKillWorld(t, 1200, demoOffice, demoShop, "depot")
	w.apart(ctx)
	w.must(w.work())
	first := w.current()
	w.until(ctx, "the first worker owns the targets", 20*time.Second, ownedBy(first.pid))
	w.must(w.work())
	second := w.current()
	st := w.until(ctx, "two workers share the targets", 20*time.Second, func(st app.Status) bool {
		return len(st.Sessions) == 2 && ownedBy(first.pid, second.pid)(st)
	})
	if len(st.Targets) != 3 {
		t.Fatalf("%d targets", len(st.Targets))
	}
	wait := w.publishing(ctx, 5*time.Second)
	w.must(pause(ctx, time.Second+time.Duration(w.rng.IntN(1000))*time.Millisecond))
	victim, heir := first, second
	if st, err := w.app.Status(ctx); err == nil && ownedBy(second.pid)(st) {
		victim, heir = second, first // whoever owns the most is missed the most
	}
	w.calls(500 * time.Millisecond)
	killed := time.Now()
	victim.kill()
	w.until(ctx, "the other worker owns all targets", 10*time.Second, ownedBy(heir.pid))
	t.Logf("taken over within %s", time.Since(killed).Round(time.Millisecond))
	wait()
	w.until(ctx, "all has ended", time.Minute, allEnded)
	w.worker = heir
	w.must(w.stop(ctx))
	w.judge(ctx, []time.Time{killed})
}
