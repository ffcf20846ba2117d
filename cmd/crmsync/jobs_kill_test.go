package main

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"crmsync/app"
	"crmsync/contact"
	"crmsync/emulator"
	"crmsync/queue"
)

// TestKillJob kills importers and workers at random. At every look the job's
// counters add up; at the end they say what the CRM's own ledger says, and so
// they do when the dead rows have been sent again.
func TestKillJob(t *testing.T) {
	skipShort(t)
	t.Parallel()
	const rows, rounds = 1500, 4
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 1))
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	h := newJobHouse(t, rows)
	var file bytes.Buffer
	file.WriteString("id,title\n")
	bad := int64(0)
	for i := 1; i <= rows; i++ {
		id := fmt.Sprint(i)
		if i%100 == 0 { // fewer in all than make a storm when they are sent again
			id, bad = fmt.Sprint(1_000_000+i), bad+1
		}
		fmt.Fprintf(&file, "%s,row %d\n", id, i)
	}
	h.write("big.csv", file.Bytes())
	for range rounds {
		worker := h.start("run", "--log-level", "error")
		importer := h.start("import", "office", "big.csv", "--job", "big")
		h.looks(ctx, rows, rng, 200*time.Millisecond)
		h.kill(importer)
		h.looks(ctx, rows, rng, 1500*time.Millisecond)
		h.kill(worker)
		h.look(ctx, rows)
	}
	worker := h.start("run", "--log-level", "error")
	defer h.kill(worker)
	if out, err := h.command("import", "office", "big.csv", "--job", "big").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	st := h.await(ctx, rows)
	won := st.Counts.Outcomes[contact.Applied] + st.Counts.Outcomes[contact.Unchanged] // one whose answer was lost is found done
	if won != rows-bad || st.Counts.Outcomes[contact.Dead] != bad || st.Counts.Ended() != rows {
		t.Errorf("%d rows, %d of contacts that do not exist: %+v", rows, bad, st.Counts)
	}
	held := int64(0)
	for i := 1; i <= rows; i++ {
		if c, _ := h.crm.Contact(fmt.Sprint(i)); c["title"] == fmt.Sprintf("row %d", i) {
			held++
		}
	}
	if held != won {
		t.Errorf("the CRM holds %d rows, the job counts %d", held, won)
	}

	q, err := queue.Open(ctx, queue.Options{URL: h.app.URL(), Name: "test", Log: zerolog.Nop()})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = q.Close() }()
	op, err := q.StartRedrive(ctx, queue.Actor{By: "kim"}, queue.RedrivePlan{Filter: queue.Filter{Target: "office", Job: "big"}})
	if err == nil {
		op, err = q.RunRedrive(ctx, op.ID, nil, func(queue.Operation) { h.look(ctx, rows) })
	}
	if err != nil || op.Ended[contact.Dead] != bad {
		t.Fatalf("%d sent again, %v, %v", op.Sent, op.Ended, err)
	}
	if again := h.await(ctx, rows); again.Counts.Outcomes[contact.Dead] != bad || again.Counts.Ended() != rows {
		t.Errorf("after %d letters were sent again: %+v", op.Sent, again.Counts)
	}
}

// jobHouse is NATS in this process, an emulated CRM, and workers and importers in
// processes of their own.
type jobHouse struct {
	*importHouse
	dead map[*exec.Cmd]bool
	read int64
}

func newJobHouse(t *testing.T, contacts int) *jobHouse {
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
    timeout: 1s
    quota: {rate: 1000/s, burst: 50, concurrency: 8}
`, filepath.Join(h.dir, "data"), srv.URL))
	return houseOf(h)
}

// houseOf runs NATS for what the configuration names.
func houseOf(i *importHouse) *jobHouse {
	t := i.t
	t.Helper()
	h := &jobHouse{importHouse: i, dead: map[*exec.Cmd]bool{}}
	var err error
	if h.program, err = exec.LookPath("crmsync"); err != nil {
		t.Fatal(err)
	}
	cfg, err := app.LoadConfig(filepath.Join(h.dir, "crmsync.yaml"), nil, []string{"nats.lease=" + killLease.String()})
	if err != nil {
		t.Fatal(err)
	}
	if h.app, err = app.Open(t.Context(), cfg, app.Options{Host: true, Port: app.AnyPort, Log: zerolog.Nop()}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := h.app.Close(); err != nil {
			t.Error(err)
		}
	})
	if err := h.app.Setup(t.Context()); err != nil {
		t.Fatal(err)
	}
	return h
}

func (h *jobHouse) start(args ...string) *exec.Cmd {
	h.t.Helper()
	cmd := h.command(args...)
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		h.t.Fatal(err)
	}
	h.t.Cleanup(func() { h.kill(cmd) })
	return cmd
}

func (h *jobHouse) kill(cmd *exec.Cmd) {
	if h.dead[cmd] {
		return
	}
	h.dead[cmd] = true
	_ = cmd.Process.Kill() // it may have ended
	_ = cmd.Wait()
}

// look checks that the job adds up, and that nothing of it is ever taken back.
func (h *jobHouse) look(ctx context.Context, rows int64) app.JobStatus {
	h.t.Helper()
	jobs, err := h.app.Jobs(ctx, "office", 0)
	if err != nil {
		h.t.Fatal(err)
	}
	if len(jobs) == 0 {
		return app.JobStatus{}
	}
	c := jobs[0].Counts
	if c.Read != c.Rejected+c.Queued || c.Queued != c.Ended()+c.Waiting+c.Gone || c.Gone > 0 || c.Queued > rows || c.Read < h.read {
		h.t.Errorf("it does not add up, after %d rows read: %+v", h.read, c)
	}
	h.read = c.Read
	return jobs[0]
}

// looks looks again and again for a random time.
func (h *jobHouse) looks(ctx context.Context, rows int64, rng *rand.Rand, most time.Duration) {
	h.t.Helper()
	for end := time.Now().Add(time.Duration(rng.Int64N(int64(most)))); time.Now().Before(end); poll() {
		h.look(ctx, rows)
	}
	h.look(ctx, rows)
}

// await looks until every row has its outcome.
func (h *jobHouse) await(ctx context.Context, rows int64) app.JobStatus {
	h.t.Helper()
	for {
		st := h.look(ctx, rows)
		if st.Ended() {
			return st
		}
		if ctx.Err() != nil {
			h.t.Fatalf("the job does not end: %+v", st)
		}
		poll()
	}
}
