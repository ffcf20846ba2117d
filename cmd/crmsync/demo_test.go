package main

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// watched keeps what a process says and lets a test wait for it.
type watched struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (w *watched) Write(b []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.buf.Write(b)
}

func (w *watched) String() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.buf.String()
}

func (w *watched) await(t *testing.T, re *regexp.Regexp) []string {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); time.Now().Before(end); poll() {
		if m := re.FindStringSubmatch(w.String()); m != nil {
			return m
		}
	}
	t.Fatalf("no %q in:\n%s", re, w)
	return nil
}

// startDemo starts a demo with a folder of its own for what is temporary.
func startDemo(t *testing.T) (cmd *exec.Cmd, said *watched, tmp string) {
	t.Helper()
	tmp = t.TempDir()
	cmd, said = exec.Command("crmsync", "demo", "--updates", "300"), &watched{}
	cmd.Env = append(os.Environ(), "TMPDIR="+tmp)
	cmd.Stdout, cmd.Stderr = said, said
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if cmd.ProcessState == nil {
			_ = cmd.Process.Kill()
			_ = cmd.Wait()
		}
	})
	return cmd, said, tmp
}

var demoWorkerLine = regexp.MustCompile(`worker (\d+) runs`)

// gone waits until a process has ended; one that only waits to be counted by
// its parent has.
func gone(t *testing.T, pid int) {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); time.Now().Before(end); poll() {
		if err := syscall.Kill(pid, 0); errors.Is(err, syscall.ESRCH) {
			return
		}
		stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
		if err == nil && strings.Contains(string(stat), ") Z ") {
			return
		}
	}
	t.Errorf("process %d is still there", pid)
}

// Whoever interrupts the demo finds nothing left behind.
func TestDemoInterrupted(t *testing.T) {
	t.Parallel()
	cmd, said, tmp := startDemo(t)
	pid, err := strconv.Atoi(said.await(t, demoWorkerLine)[1])
	if err != nil {
		t.Fatal(err)
	}
	said.await(t, regexp.MustCompile(`office [1-9]`)) // it is at work
	if err := cmd.Process.Signal(syscall.SIGINT); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait() // its code is looked at
	if code := cmd.ProcessState.ExitCode(); code != exitInterrupted {
		t.Errorf("exit code %d, want %d:\n%s", code, exitInterrupted, said)
	}
	gone(t, pid)
	if left, err := os.ReadDir(tmp); err != nil || len(left) > 0 {
		t.Errorf("left behind: %v %v", left, err)
	}
	if !strings.HasSuffix(said.String(), "crmsync: interrupted\n") {
		t.Errorf("it said:\n%s", said)
	}
}

// A demo that is killed takes its worker with it.
func TestDemoKilled(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("only Linux ends a child with its parent")
	}
	t.Parallel()
	cmd, said, _ := startDemo(t)
	pid, err := strconv.Atoi(said.await(t, demoWorkerLine)[1])
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait() // killed
	gone(t, pid)
}

func TestOwnEnvironment(t *testing.T) {
	got := ownEnvironment([]string{"PATH=/bin", "NATS_URL=nats://elsewhere", "CRMSYNC_TARGETS_OFFICE_URL=x", "HOME=/root"})
	if strings.Join(got, " ") != "PATH=/bin HOME=/root" {
		t.Errorf("environment %q", got)
	}
}

// The view writes no terminal codes where there is no terminal, whatever it is
// asked to show, and at most one line of progress a second.
func TestPlainView(t *testing.T) {
	var out bytes.Buffer
	g := &Globals{std: std{err: &out}}
	v := g.demoView()
	lanes := map[string]*demoLane{
		demoOffice: {target: demoOffice, total: 10, published: 8, applied: 3, dead: 1, waits: "waits for the quota"},
		demoShop:   {target: demoShop, total: 10, published: 5, applied: 5, waits: "done"},
	}
	for range 5 {
		v.show(lanes)
	}
	v.say("%s goes on", demoOffice)
	v.close()
	lines := strings.Split(strings.TrimSpace(out.String()), "\n")
	if len(lines) != 2 || !strings.Contains(lines[0], "office 4 of 8: waits for the quota | shop 5 of 5: done") ||
		!strings.HasSuffix(lines[1], "s  office goes on") || strings.Contains(out.String(), "\x1b") {
		t.Errorf("it wrote %q", out.String())
	}
	out.Reset()
	g.Quiet = true
	v = g.demoView()
	v.note("hello")
	v.show(lanes)
	v.close()
	if out.Len() > 0 {
		t.Errorf("quiet, it wrote %q", out.String())
	}
}

func TestReport(t *testing.T) {
	r := &demoReport{Seed: 5, Took: 18.2, demoVerdict: demoVerdict{Targets: []demoTotals{
		{Target: demoOffice, Published: 1500, Dead: map[string]int{"missing": 3}, Rate: 150, Burst: 20},
		{Target: demoShop, Published: 1400, Dead: map[string]int{}, Rate: 120, Burst: 20, Lost: 2, Stale: 1},
	}}}
	d := &demoRun{plan: &demoPlan{updates: make([]demoUpdate, 2900)}}
	var out bytes.Buffer
	r.print(&out, d)
	for _, want := range []string{"office", "published", "dead: missing", "150/s +20", "lost 2, stale 1: counted", "Every update ended as planned, in 18 s."} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("no %q in\n%s", want, out.String())
		}
	}
	for i := range findingsShown + 3 {
		r.Findings = append(r.Findings, demoFinding{demoShop, "7", findLost, fmt.Sprint("evidence ", i)})
	}
	out.Reset()
	r.print(&out, d)
	for _, want := range []string{"Not as planned (seed 5, 2900 updates)", "lost: shop contact 7: evidence 0\n", "and 3 more (--json has them all)"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("no %q in\n%s", want, out.String())
		}
	}
	if strings.Contains(out.String(), "as planned, in") {
		t.Errorf("it praises what went wrong:\n%s", out.String())
	}
}
