package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"crmsync/app"
	"crmsync/contact"
	"crmsync/emulator"
	"crmsync/queue"
)

// importHouse is a worker in this process, an emulated CRM, and a file that
// other processes import.
type importHouse struct {
	t       *testing.T
	dir     string
	crm     *emulator.CRM
	app     *app.App
	program string
}

func newImportHouse(t *testing.T, contacts int) *importHouse {
	t.Helper()
	h := &importHouse{t: t, dir: t.TempDir(), crm: emulator.NewPerfex(emulator.Options{Contacts: contacts})}
	srv := httptest.NewServer(h.crm)
	t.Cleanup(func() { h.crm.Close(); srv.Close() })
	h.write("token", []byte(emulator.DefaultToken))
	h.write("crmsync.yaml", fmt.Appendf(nil, `
data: %s
http: {listen: "off"}
targets:
  office:
    kind: perfex
    url: %s
    token_file: token
    permissions: clear
    quota: {rate: 2000/s, burst: 100, concurrency: 8}
`, filepath.Join(h.dir, "data"), srv.URL))
	var err error
	if h.program, err = exec.LookPath("crmsync"); err != nil {
		t.Fatal(err)
	}
	cfg, err := app.LoadConfig(filepath.Join(h.dir, "crmsync.yaml"), nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	if h.app, err = app.Open(t.Context(), cfg, app.Options{Host: true, Port: app.AnyPort, Log: zerolog.Nop()}); err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- h.app.Work(ctx, context.Background()) }()
	t.Cleanup(func() {
		stop()
		if err := <-done; err != nil {
			t.Error(err)
		}
		if err := h.app.Close(); err != nil {
			t.Error(err)
		}
	})
	h.untilSetUp()
	return h
}

// untilSetUp waits until the worker has set up what the others need.
func (h *importHouse) untilSetUp() {
	h.t.Helper()
	q := h.queue()
	defer func() { _ = q.Close() }()
	for end := time.Now().Add(scriptPatience); ; poll() {
		_, err := q.Stats(h.t.Context())
		if err == nil {
			return
		}
		if !errors.Is(err, queue.ErrNotSetUp) || time.Now().After(end) {
			h.t.Fatal(err)
		}
	}
}

func (h *importHouse) write(name string, b []byte) {
	h.t.Helper()
	if err := os.WriteFile(filepath.Join(h.dir, name), b, 0o600); err != nil {
		h.t.Fatal(err)
	}
}

// command is crmsync in a process of its own.
func (h *importHouse) command(args ...string) *exec.Cmd {
	cmd := exec.Command(h.program, args...)
	cmd.Dir = h.dir
	cmd.Env = append(os.Environ(), "NATS_URL="+h.app.URL())
	return cmd
}

// TestKillImport kills the importing process at random moments. Taken up again,
// each row of the file is stored once, and the CRM holds the last one of each
// contact.
func TestKillImport(t *testing.T) {
	skipShort(t)
	t.Parallel()
	const rows, contacts, rounds = 20_000, 100, 10
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 1))
	h := newImportHouse(t, contacts)
	var file bytes.Buffer
	file.WriteString("id,title\n")
	bad := int64(0)
	for i := 1; i <= rows; i++ {
		id := fmt.Sprint(i%contacts + 1)
		if rng.IntN(100) == 0 && i <= rows-contacts {
			id, bad = "nobody", bad+1
		}
		fmt.Fprintf(&file, "%s,row %d\n", id, i)
	}
	h.write("big.csv", file.Bytes())
	midway := 0
	for range rounds {
		if last := h.killed(rng); last > 0 && last < rows {
			midway++
		}
	}
	if midway == 0 {
		t.Error("no process was killed between the first row and the last")
	}
	cmd := h.command("import", "office", "big.csv", "--wait", "--json")
	out, err := cmd.Output()
	if code := cmd.ProcessState.ExitCode(); code != exitRejects {
		t.Fatalf("exit code %d, %v: %s", code, err, out)
	}
	var rep app.ImportReport
	if err := json.Unmarshal(out, &rep); err != nil {
		t.Fatal(err)
	}
	if rep.Rows != rows || rep.Rejected != bad || rep.Queued+rep.Duplicates != rows-bad || !rep.Done {
		t.Errorf("the last run: %s", out)
	}
	if rep.Outcomes["applied"]+rep.Outcomes["superseded"]+rep.Outcomes["unchanged"] != rows-bad {
		t.Errorf("outcomes %v of %d rows", rep.Outcomes, rows-bad)
	}
	t.Logf("%d of %d processes were killed midway; the last one found %d rows queued", midway, rounds, rep.Duplicates)
	h.onceEach(rep.Job, rows-bad)
	for i := rows - contacts + 1; i <= rows; i++ {
		if c, _ := h.crm.Contact(fmt.Sprint(i%contacts + 1)); c["title"] != fmt.Sprintf("row %d", i) {
			t.Errorf("contact %d holds %v, want row %d", i%contacts+1, c["title"], i)
		}
	}
}

// killed runs one import, kills it and returns the last row that is stored.
func (h *importHouse) killed(rng *rand.Rand) int64 {
	h.t.Helper()
	q := h.queue()
	defer func() { _ = q.Close() }()
	before := h.stored(q)
	cmd := h.command("import", "office", "big.csv")
	var said bytes.Buffer
	cmd.Stderr = &said
	if err := cmd.Start(); err != nil {
		h.t.Fatal(err)
	}
	// Now and then while it begins, mostly once it stores rows.
	if rng.IntN(4) > 0 {
		for end := time.Now().Add(scriptPatience); h.stored(q) == before && time.Now().Before(end); {
			poll()
		}
	}
	<-time.After(time.Duration(rng.Int64N(int64(100 * time.Millisecond))))
	if err := cmd.Process.Kill(); err != nil && cmd.ProcessState == nil {
		h.t.Fatal(err)
	}
	_ = cmd.Wait() // it was killed
	if strings.Contains(said.String(), "crmsync:") {
		h.t.Errorf("before it was killed: %s", said.String())
	}
	jobs, err := q.Jobs(h.t.Context(), "office")
	if err != nil {
		h.t.Fatal(err)
	}
	last := int64(0)
	for _, j := range jobs {
		n, err := q.LastRow(h.t.Context(), "office", j.Class, j.ID)
		if err != nil {
			h.t.Fatal(err)
		}
		last = max(last, n)
	}
	return last
}

// stored is how many updates were ever stored for the target.
func (h *importHouse) stored(q *queue.Queue) (n uint64) {
	h.t.Helper()
	stats, err := q.Stats(h.t.Context())
	if err != nil {
		h.t.Fatal(err)
	}
	for _, s := range stats {
		n += s.Class[contact.Bulk].Last
	}
	return n
}

func (h *importHouse) queue() *queue.Queue {
	h.t.Helper()
	q, err := queue.Open(h.t.Context(), queue.Options{URL: h.app.URL(), Name: "test", Log: zerolog.Nop()})
	if err != nil {
		h.t.Fatal(err)
	}
	return q
}

// onceEach checks from the records that no row was stored twice.
func (h *importHouse) onceEach(job string, rows int64) {
	h.t.Helper()
	q := h.queue()
	defer func() { _ = q.Close() }()
	seq := map[int64]uint64{}
	err := q.Records(h.t.Context(), queue.Filter{Target: "office", Job: job}, func(r queue.Record) error {
		for _, u := range r.Updates {
			if was, ok := seq[u.Row]; ok && was != u.Seq {
				h.t.Errorf("row %d was stored twice: as %d and as %d", u.Row, was, u.Seq)
			}
			seq[u.Row] = u.Seq
		}
		return nil
	})
	if err != nil {
		h.t.Fatal(err)
	}
	// Records beyond a contact's last 16 are gone; whoever was counted by --wait
	// had them.
	if len(seq) == 0 || int64(len(seq)) > rows {
		h.t.Errorf("%d rows have a record, %d were queued", len(seq), rows)
	}
}
