package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"crmsync/app"
	"crmsync/contact"
	"crmsync/emulator"
)

// BenchmarkDrain drains a backlog through a real worker process into a CRM
// that answers at once. NATS and the CRM are in this process, so the figures
// are the worker's alone: updates a second, CPU for 10,000 updates, and the
// most memory it ever held. The backlogs differ by a factor of ten to show
// whether memory grows with them.
//
// contacts=all gives each update a contact of its own, so that nothing merges.
func BenchmarkDrain(b *testing.B) {
	bin := filepath.Join(b.TempDir(), "crmsync")
	if out, err := exec.Command("go", "build", "-o", bin, ".").CombinedOutput(); err != nil {
		b.Fatalf("build: %v\n%s", err, out)
	}
	for _, c := range []struct{ updates, contacts int }{
		{100_000, 100_000}, {1_000_000, 1_000_000}, {1_000_000, 10_000},
	} {
		b.Run(fmt.Sprintf("updates=%d/contacts=%d", c.updates, c.contacts), func(b *testing.B) {
			for range b.N {
				drainOnce(b, bin, c.updates, c.contacts)
			}
		})
	}
}

func drainOnce(b *testing.B, bin string, updates, contacts int) {
	b.StopTimer()
	crm := httptest.NewServer(http.HandlerFunc(instantEvance))
	defer crm.Close()
	dir := b.TempDir()
	cred, err := json.Marshal(map[string]string{
		"account": emulator.DefaultAccount, "client_id": emulator.DefaultClientID,
		"private_key": emulator.DefaultPrivateKey, "algorithm": "HS256",
	})
	if err != nil {
		b.Fatal(err)
	}
	config := filepath.Join(dir, "crmsync.yaml")
	yaml := fmt.Sprintf("data: %s\nhttp: {listen: off}\nlog: {level: warn}\ntargets:\n  shop:\n    kind: evance\n    url: %s\n"+
		"    credentials_file: evance.json\n    quota: {rate: 10000/s, burst: 1000, concurrency: 16}\n", filepath.Join(dir, "data"), crm.URL)
	for name, text := range map[string][]byte{config: []byte(yaml), filepath.Join(dir, "evance.json"): cred} {
		if err := os.WriteFile(name, text, 0o600); err != nil {
			b.Fatal(err)
		}
	}
	cfg, err := app.LoadConfig(config, nil, nil)
	if err != nil {
		b.Fatal(err)
	}
	ctx := context.Background()
	a, err := app.Open(ctx, cfg, app.Options{Host: true, Port: app.AnyPort, Log: zerolog.Nop()})
	if err != nil {
		b.Fatal(err)
	}
	defer a.Close()
	rep, err := a.Import(ctx, app.Import{
		Target: "shop", Path: "-", Stdin: &ndjson{rows: updates, contacts: contacts}, Class: contact.Bulk, Format: "ndjson", Job: "bench",
	})
	if err != nil || rep.Queued != int64(updates) {
		b.Fatalf("import: %+v, %v", rep, err)
	}
	b.ReportMetric(float64(updates)/rep.Took.Seconds(), "imported/s")

	worker := exec.Command(bin, "run", "--config", config, "--server", a.URL())
	worker.Stderr = os.Stderr
	b.StartTimer()
	began := time.Now()
	if err := worker.Start(); err != nil {
		b.Fatal(err)
	}
	drained(b, a, worker.Process.Pid)
	took := time.Since(began)
	peak := peakRSS(b, worker.Process.Pid)
	b.StopTimer()
	if err := worker.Process.Signal(syscall.SIGTERM); err != nil {
		b.Fatal(err)
	}
	if err := worker.Wait(); err != nil {
		b.Fatalf("worker: %v", err)
	}
	cpu := worker.ProcessState.UserTime() + worker.ProcessState.SystemTime()
	b.ReportMetric(float64(updates)/took.Seconds(), "updates/s")
	b.ReportMetric(cpu.Seconds()/float64(updates)*10_000, "cpu-s/10k")
	b.ReportMetric(peak, "peak-MB")
	b.ReportMetric(0, "ns/op")
}

// drained waits until nothing is queued any more.
func drained(b *testing.B, a *app.App, pid int) {
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for range tick.C {
		st, err := a.Status(context.Background())
		if err != nil {
			b.Fatal(err)
		}
		if st.Targets[0].Queue["bulk"].Waiting == 0 {
			return
		}
		if err := syscall.Kill(pid, 0); err != nil {
			b.Fatalf("the worker is gone: %v", err)
		}
	}
}

// peakRSS is the most memory a process has held so far, in MB.
func peakRSS(b *testing.B, pid int) float64 {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		b.Skip("no /proc to read the memory from")
	}
	for _, line := range strings.Split(string(text), "\n") {
		if v, ok := strings.CutPrefix(line, "VmHWM:"); ok {
			kb, err := strconv.Atoi(strings.Fields(v)[0])
			if err != nil {
				b.Fatal(err)
			}
			return float64(kb) / 1024
		}
	}
	b.Fatal("VmHWM is not in /proc/pid/status")
	return 0
}

// instantEvance takes every token request and every update.
func instantEvance(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	w.Header().Set("Content-Type", "application/json")
	if strings.HasPrefix(r.URL.Path, "/admin/oauth/token") {
		fmt.Fprint(w, `{"access_token":"bench","expires_in":3600,"token_type":"Bearer","scope":null}`)
		return
	}
	id := strings.TrimSuffix(r.URL.Path[strings.LastIndexByte(r.URL.Path, '/')+1:], ".json")
	fmt.Fprintf(w, `{"contact":{"id":"%s",%s`, id, body[len(`{"contact":{`):])
}

// ndjson makes rows as they are read.
type ndjson struct {
	rows, contacts, n int
	left              []byte
}

func (r *ndjson) Read(p []byte) (int, error) {
	for len(r.left) < len(p) && r.n < r.rows {
		r.left = fmt.Appendf(r.left, `{"id":"%d","fields":{"company":"Company %d","phone":"+44 1473 %d","position":"Engineer"}}`+"\n",
			r.n%r.contacts+1, r.n, r.n)
		r.n++
	}
	if len(r.left) == 0 {
		return 0, io.EOF
	}
	n := copy(p, r.left)
	r.left = append(r.left[:0], r.left[n:]...)
	return n, nil
}
