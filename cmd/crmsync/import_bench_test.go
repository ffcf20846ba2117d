package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"crmsync/app"
	"crmsync/contact"
	"crmsync/emulator"
	"crmsync/queue"
)

// BenchmarkImport queues 200,000 rows, or CRMSYNC_BENCH_ROWS, by a real importer
// into a real worker, whose embedded server syncs each batch; each row has a
// message id. It tells rows a second, and of both processes the processor time for
// 100,000 rows and the most memory ever held.
//
// Then, while all those rows wait, live updates are published one after another: their
// 99th percentile from being published to being applied stands beside what it
// is while no row waits. The CRM answers after 20 to 60 ms.
func BenchmarkImport(b *testing.B) {
	rows := 200_000
	if n, err := strconv.Atoi(os.Getenv("CRMSYNC_BENCH_ROWS")); err == nil {
		rows = n
	}
	for range b.N {
		importOnce(b, rows)
	}
}

func importOnce(b *testing.B, rows int) {
	dir := b.TempDir()
	bin := filepath.Join(dir, "crmsync")
	if out, err := exec.Command("go", "build", "-o", bin, ".").CombinedOutput(); err != nil {
		b.Fatalf("build: %v\n%s", err, out)
	}
	crm := emulator.NewPerfex(emulator.Options{Contacts: rows + 1000})
	defer crm.Close()
	crm.SetFaults(emulator.Faults{{Kind: emulator.Latency, Min: 20 * time.Millisecond, Max: 60 * time.Millisecond}})
	srv := httptest.NewServer(crm)
	defer srv.Close()
	write := func(name, text string) {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			b.Fatal(err)
		}
	}
	write("token", emulator.DefaultToken)
	write("crmsync.yaml", fmt.Sprintf("data: %s\nhttp: {listen: off}\nlog: {level: warn}\ntargets:\n  office:\n    kind: perfex\n    url: %s\n"+
		"    token_file: token\n    permissions: clear\n    quota: {rate: 50/s, burst: 5, concurrency: 4}\n", filepath.Join(dir, "data"), srv.URL))
	f, err := os.Create(filepath.Join(dir, "list.csv"))
	if err != nil {
		b.Fatal(err)
	}
	w := bufio.NewWriter(f)
	fmt.Fprintln(w, "id;first name;last name;phone;position")
	for i := 1; i <= rows; i++ {
		fmt.Fprintf(w, "%d;Jörg;Müller %d;+49 30 %d;Head of sales\n", i, i, i)
	}
	if err := w.Flush(); err != nil {
		b.Fatal(err)
	}
	if err := f.Close(); err != nil {
		b.Fatal(err)
	}
	worker, url := benchWorker(b, bin, dir)
	defer stopBench(b, worker)
	q := benchQueue(b, url)
	defer func() { _ = q.Close() }()
	idle := liveTook(b, q, crm, rows, 0)

	if out, err := benchCommand(bin, dir, "hold", "office").CombinedOutput(); err != nil {
		b.Fatalf("%v: %s", err, out)
	}
	before := cpuOf(b, worker.Process.Pid)
	importer := benchCommand(bin, dir, "import", "office", "list.csv", "--json")
	out, err := importer.Output()
	var rep app.ImportReport
	if err == nil {
		err = json.Unmarshal(out, &rep)
	}
	if err != nil || rep.Queued != int64(rows) {
		b.Fatalf("%v: %s", err, out)
	}
	spent := cpuOf(b, worker.Process.Pid) - before
	usage := importer.ProcessState.SysUsage().(*syscall.Rusage)
	per := 100_000 / float64(rows)
	b.ReportMetric(float64(rows)/rep.Took.Seconds(), "rows/s")
	b.ReportMetric((importer.ProcessState.UserTime()+importer.ProcessState.SystemTime()).Seconds()*per, "importer-cpu-s/100k")
	b.ReportMetric(float64(usage.Maxrss)/1024, "importer-MB")
	b.ReportMetric(spent.Seconds()*per, "worker-cpu-s/100k")
	b.ReportMetric(peakRSS(b, worker.Process.Pid), "worker-MB")

	if out, err := benchCommand(bin, dir, "resume", "office").CombinedOutput(); err != nil {
		b.Fatalf("%v: %s", err, out)
	}
	stats := func() uint64 {
		all, err := q.Stats(context.Background())
		if err != nil {
			b.Fatal(err)
		}
		return all[0].Class[contact.Bulk].First
	}
	for first := stats(); stats() == first; poll() { // until bulk flows
	}
	beside := liveTook(b, q, crm, rows, 500)
	b.ReportMetric(idle.Seconds()*1000, "live-p99-ms-idle")
	b.ReportMetric(beside.Seconds()*1000, "live-p99-ms-beside")
	b.ReportMetric(beside.Seconds()/idle.Seconds(), "live-ratio")
	b.ReportMetric(0, "ns/op")
}

// liveTook publishes 200 live updates, at a quarter of what the quota allows, and
// returns the 99th percentile of the time until the CRM holds each.
func liveTook(b *testing.B, q *queue.Queue, crm *emulator.CRM, rows, from int) time.Duration {
	const updates = 200
	took := make([]time.Duration, updates)
	var wg sync.WaitGroup
	tick := time.NewTicker(160 * time.Millisecond)
	defer tick.Stop()
	for i := range updates {
		<-tick.C
		id := strconv.Itoa(rows + 1 + from + i)
		u := &contact.Update{
			Contact: contact.Key{Target: "office", ID: id}, Class: contact.Live,
			Raw: []byte(`{"fields":{"title":"live"}}`), MsgID: "live" + id,
		}
		began := time.Now()
		if _, err := q.Publish(context.Background(), u); err != nil {
			b.Fatal(err)
		}
		wg.Go(func() {
			for ; time.Since(began) < time.Minute; <-time.After(time.Millisecond) {
				if c, _ := crm.Contact(id); c["title"] == "live" {
					took[i] = time.Since(began)
					return
				}
			}
			took[i] = time.Minute
		})
	}
	wg.Wait()
	slices.Sort(took)
	return took[updates*99/100]
}

func benchCommand(bin, dir string, args ...string) *exec.Cmd {
	cmd := exec.Command(bin, args...)
	cmd.Dir = dir
	return cmd
}

// benchWorker runs a worker with a server in it.
func benchWorker(b *testing.B, bin, dir string) (*exec.Cmd, string) {
	cmd := exec.Command(bin, "run", "--port=-1")
	cmd.Dir = dir
	said, err := cmd.StderrPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		b.Fatal(err)
	}
	lines := bufio.NewScanner(said)
	for lines.Scan() {
		if m := regexp.MustCompile(`NATS at (\S+)`).FindStringSubmatch(lines.Text()); m != nil {
			go func() {
				for lines.Scan() {
					fmt.Fprintln(os.Stderr, lines.Text())
				}
			}()
			return cmd, m[1]
		}
	}
	b.Fatal("the worker does not say where NATS is")
	return nil, ""
}

func stopBench(b *testing.B, cmd *exec.Cmd) {
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		b.Error(err)
	}
	if err := cmd.Wait(); err != nil {
		b.Error(err)
	}
}

func benchQueue(b *testing.B, url string) *queue.Queue {
	for end := time.Now().Add(scriptPatience); ; poll() {
		q, err := queue.Open(b.Context(), queue.Options{URL: url, Name: "bench", Log: zerolog.Nop()})
		if err == nil {
			if _, err = q.Stats(b.Context()); err == nil {
				return q
			}
			_ = q.Close()
		}
		if time.Now().After(end) {
			b.Fatal(err)
		}
	}
}

// cpuOf is the processor time that a process has used.
func cpuOf(b *testing.B, pid int) time.Duration {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		b.Skip("no /proc to read the processor time from")
	}
	var user, system int64
	rest := text[slices.Index(text, ')')+1:]
	if _, err := fmt.Sscanf(string(rest), " %1s %d %d %d %d %d %d %d %d %d %d %d %d", new(string), new(int), new(int), new(int), new(int), new(int),
		new(uint), new(uint), new(uint), new(uint), new(uint), &user, &system); err != nil {
		b.Fatal(err)
	}
	return time.Duration(user+system) * 10 * time.Millisecond
}
