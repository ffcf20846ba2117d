package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"crmsync/app"
	"crmsync/contact"
	"crmsync/emulator"
)

// What the CRM of these tests allows, strictly: one request more is refused.
const (
	strictRate  = 200
	strictBurst = 20
)

// quotaWorld is one strict CRM, a NATS server in this process, and workers.
type quotaWorld struct {
	t       testing.TB
	crm     *emulator.CRM
	dir     string
	config  string
	targets []string
	app     *app.App
	program string
	workers []*demoWorker
}

// newQuotaWorld sets up targets that all are this one CRM. More than one share a
// quota.
func newQuotaWorld(t testing.TB, program string, contacts int, targets ...string) *quotaWorld {
	t.Helper()
	w := &quotaWorld{t: t, dir: t.TempDir(), targets: targets, program: program}
	w.crm = emulator.NewEvance(emulator.Options{Contacts: contacts, Limits: emulator.Limits{Rate: strictRate, Burst: strictBurst}})
	srv := httptest.NewServer(w.crm)
	t.Cleanup(func() { w.crm.Close(); srv.Close() })
	cred, err := json.Marshal(map[string]string{
		"account": emulator.DefaultAccount, "client_id": emulator.DefaultClientID,
		"private_key": emulator.DefaultPrivateKey, "algorithm": "HS256",
	})
	w.must(err)
	w.must(os.WriteFile(filepath.Join(w.dir, "evance.json"), cred, 0o600))
	var yaml strings.Builder
	fmt.Fprintf(&yaml, "data: %s\nhttp: {listen: off}\nlog: {level: info}\nnats: {lease: 2200ms}\n", filepath.Join(w.dir, "data"))
	quota := fmt.Sprintf("{rate: %d/s, burst: %d, concurrency: 6}", strictRate, strictBurst)
	if len(targets) > 1 {
		fmt.Fprintf(&yaml, "quotas: {all: {rate: %d/s, burst: %d}}\n", strictRate, strictBurst)
		quota = "{concurrency: 2}\n    quota_group: all"
	}
	yaml.WriteString("targets:\n")
	for _, target := range targets {
		fmt.Fprintf(&yaml, "  %s:\n    kind: evance\n    url: %s\n    timeout: 1s\n    credentials_file: evance.json\n    quota: %s\n", target, srv.URL, quota)
	}
	w.config = filepath.Join(w.dir, "crmsync.yaml")
	w.must(os.WriteFile(w.config, []byte(yaml.String()), 0o600))
	cfg, err := app.LoadConfig(w.config, nil, nil)
	w.must(err)
	w.app, err = app.Open(context.Background(), cfg, app.Options{Host: true, Port: app.AnyPort, Log: zerolog.Nop()})
	w.must(err)
	t.Cleanup(func() {
		for _, p := range w.workers {
			p.kill()
			if t.Failed() {
				t.Logf("%s:%s", p.log, p.lastWords())
			}
		}
		w.must(w.app.Close())
	})
	w.must(w.app.Setup(context.Background()))
	return w
}

func (w *quotaWorld) must(err error) {
	w.t.Helper()
	if err != nil {
		w.t.Fatal(err)
	}
}

// fill queues one update for each of n contacts of each target.
func (w *quotaWorld) fill(n int) {
	w.t.Helper()
	for _, target := range w.targets {
		rep, err := w.app.Import(context.Background(), app.Import{
			Target: target, Path: "-", Stdin: &ndjson{rows: n, contacts: n}, Class: contact.Bulk, Format: "ndjson", Job: "quota",
		})
		if err != nil || rep.Queued != int64(n) {
			w.t.Fatalf("import: %+v, %v", rep, err)
		}
	}
}

func (w *quotaWorld) work(n int) {
	w.t.Helper()
	for i := range n {
		p, err := startDemoWorker(w.program, filepath.Join(w.dir, fmt.Sprintf("worker-%d.log", i)), "run", "--config", w.config, "--server", w.app.URL())
		w.must(err)
		w.workers = append(w.workers, p)
	}
}

// until waits for a condition on the status.
func (w *quotaWorld) until(what string, ok func(app.Status) bool) app.Status {
	w.t.Helper()
	for end := time.Now().Add(time.Minute); time.Now().Before(end); poll() {
		st, err := w.app.Status(context.Background())
		w.must(err)
		if ok(st) {
			return st
		}
	}
	w.t.Fatalf("not within a minute: %s; %d requests", what, len(w.crm.Ledger()))
	return app.Status{}
}

// owner is the worker that runs the lanes.
func (w *quotaWorld) owner() (*demoWorker, app.Status) {
	w.t.Helper()
	var owner *demoWorker
	st := w.until("one worker runs all lanes", func(st app.Status) bool {
		i := slices.IndexFunc(w.workers, func(p *demoWorker) bool { return ownedBy(p.pid)(st) })
		if i < 0 {
			return false
		}
		owner = w.workers[i]
		return true
	})
	return owner, st
}

// judge counts what the CRM refused, and what came too early although it was
// not.
func (w *quotaWorld) judge() (refused int, ledger []emulator.Entry) {
	w.t.Helper()
	ledger = w.crm.Ledger()
	for _, e := range ledger {
		if e.Status == http.StatusTooManyRequests {
			refused++
		}
	}
	if over, first := emulator.OverQuota(ledger, strictRate, strictBurst, 0); over != refused {
		w.t.Errorf("%d requests were refused, but %d were too many, the first of them at %s", refused, over, first.Arrived)
	}
	return refused, ledger
}

// TestStrictQuotaOverProcesses has two processes, of which the one at work is
// killed: three targets that share what their CRM allows, and not one refusal.
func TestStrictQuotaOverProcesses(t *testing.T) {
	skipShort(t)
	t.Parallel()
	program, err := exec.LookPath("crmsync")
	if err != nil {
		t.Fatal(err)
	}
	const each = 250
	w := newQuotaWorld(t, program, each, "a", "b", "c")
	w.fill(each)
	w.work(2)
	first, _ := w.owner()
	for len(w.crm.Ledger()) < each {
		poll()
	}
	first.kill()
	w.until("all has ended", allEnded)
	heir, st := w.owner()
	if heir == first {
		t.Error("the killed worker owns the targets")
	}
	refused, ledger := w.judge()
	if refused != 0 {
		t.Errorf("%d of %d requests were refused", refused, len(ledger))
	}
	for _, target := range st.Targets {
		if len(target.Dead) > 0 {
			t.Errorf("%s: dead letters %v", target.Target, target.Dead)
		}
	}
	if s := w.crm.Stats(); s.Applied+s.Unchanged < 3*each {
		t.Errorf("%d updates reached the CRM, want %d", s.Applied+s.Unchanged, 3*each)
	}
}

// BenchmarkQuota drains a backlog into a CRM with a strict limit by real worker
// processes: how much of the limit they use together, and how many requests are
// refused. One of several processes runs the lane and the others stand by;
// with a handover it is told to stop in the middle.
func BenchmarkQuota(b *testing.B) {
	program := filepath.Join(b.TempDir(), "crmsync")
	if out, err := exec.Command("go", "build", "-o", program, ".").CombinedOutput(); err != nil {
		b.Fatalf("build: %v\n%s", err, out)
	}
	for _, c := range []struct {
		name      string
		processes int
		targets   []string
		handover  bool
	}{
		{"processes=1", 1, []string{"a"}, false},
		{"processes=2", 2, []string{"a"}, false},
		{"processes=4", 4, []string{"a"}, false},
		{"processes=4/shared", 4, []string{"a", "b", "c"}, false},
		{"processes=2/handover", 2, []string{"a"}, true},
	} {
		b.Run(c.name, func(b *testing.B) {
			for range b.N {
				const updates = 3000
				w := newQuotaWorld(b, program, updates, c.targets...)
				w.fill(updates / len(c.targets))
				w.work(c.processes)
				if c.handover {
					owner, _ := w.owner()
					for len(w.crm.Ledger()) < updates/2 {
						poll()
					}
					w.must(owner.cmd.Process.Signal(syscall.SIGTERM))
				}
				w.until("all has ended", allEnded)
				refused, ledger := w.judge()
				at := make([]time.Time, 0, len(ledger))
				for _, e := range ledger {
					at = append(at, e.Arrived)
				}
				slices.SortFunc(at, time.Time.Compare)
				span := at[len(at)-1].Sub(at[0]).Seconds()
				b.ReportMetric(100*float64(len(at)-refused-1)/(strictRate*span), "use%")
				b.ReportMetric(float64(refused), "refused")
				b.ReportMetric(0, "ns/op")
			}
		})
	}
}
