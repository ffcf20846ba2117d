package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/csv"
	"flag"
	"fmt"
	"math/rand/v2"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"crmsync/contact"
	"crmsync/emulator"
)

var nightRows = flag.Int("night.rows", 600, "how many rows the night's import has")

// night is an import of many rows through a night in which importers and workers are
// killed. The time of the CRM is compressed: what it allows in an hour, or in twenty
// seconds, it allows in one.
type night struct {
	*jobHouse
	rows    int
	valid   map[int]int // contact of each row that is an update of one that exists
	last    map[int]int // the last row of each such contact
	dead    map[int]bool
	refused int
	took    time.Duration
	killed  int
}

// TestNight imports a list at Perfex 3's default quota and at 50 requests a
// second, while importers and workers are killed at random moments. All along the job
// adds up; in the end each row's outcome is what the CRM's own ledger says, and what was
// rejected or dead is exported, mended and imported. `make night` does it with
// 200,000 rows.
func TestNight(t *testing.T) {
	skipShort(t)
	for _, tc := range []struct {
		name   string
		limits emulator.Limits
		quota  string
	}{
		// 1,000 requests an hour and address; an hour passes in a second. So compressed,
		// what is a moment on the way is minutes: a tenth is left alone.
		{"default quota", emulator.Limits{PerHour: 1000, Window: time.Second}, "{rate: 5000/s, burst: 100, concurrency: 8, reserve: 10%, windows: [{limit: 1000, per: 1s}]}"},
		// 20 seconds pass in one.
		{"50 a second", emulator.Limits{Rate: 1000, Burst: 100}, "{rate: 1000/s, burst: 100, concurrency: 8}"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if *nightRows < 10_000 { // large ones keep the machine busy one by one
				t.Parallel()
			}
			newNight(t, *nightRows, tc.limits, tc.quota).run()
		})
	}
}

func newNight(t *testing.T, rows int, limits emulator.Limits, quota string) *night {
	t.Helper()
	h := &importHouse{t: t, dir: t.TempDir(), crm: emulator.NewPerfex(emulator.Options{Contacts: rows, Limits: limits})}
	srv := httptest.NewServer(h.crm)
	t.Cleanup(func() { h.crm.Close(); srv.Close() })
	h.write("token", []byte(emulator.DefaultToken))
	h.write("crmsync.yaml", fmt.Appendf(nil, "data: %s\nhttp: {listen: \"off\"}\ntargets:\n  office:\n    kind: perfex\n    url: %s\n"+
		"    token_file: token\n    permissions: clear\n    timeout: 1s\n    quota: %s\n", filepath.Join(h.dir, "data"), srv.URL, quota))
	n := &night{jobHouse: houseOf(h), rows: rows, valid: map[int]int{}, last: map[int]int{}, dead: map[int]bool{}}
	n.writeList()
	return n
}

// writeList writes the evening's list: every fiftieth row is a second one of a
// contact, every hundredth of nobody, every 997th has no id.
func (n *night) writeList() {
	f, err := os.Create(filepath.Join(n.dir, "list.csv"))
	if err != nil {
		n.t.Fatal(err)
	}
	w := bufio.NewWriter(f)
	fmt.Fprint(w, "\ufeffID;Last Name;Position\r\n")
	for i := 1; i <= n.rows; i++ {
		var id string
		switch {
		case i%997 == 0:
			n.refused++
		case i%100 == 0:
			id = strconv.Itoa(10_000_000 + i)
			n.dead[i] = true
		default:
			k := i
			if i%50 == 1 && i > 1 {
				k = i - 1 - (i/50)%2*10 // far enough apart that some are sent apart
			}
			if k%997 == 0 || k%100 == 0 {
				k = i
			}
			id = strconv.Itoa(k)
			n.valid[i], n.last[k] = k, i
		}
		fmt.Fprintf(w, "%s;\"Müller \"\"%d\"\"\";row #%d#\r\n", id, i, i)
	}
	if err := w.Flush(); err != nil {
		n.t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		n.t.Fatal(err)
	}
}

// run is the night. The importer that waits for the end outlasts all of it.
func (n *night) run() {
	seed := uint64(time.Now().UnixNano())
	n.t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 1))
	expected := time.Duration(2*n.rows) * time.Millisecond // two requests for a row, 1,000 a second
	ctx, cancel := context.WithTimeout(n.t.Context(), 5*time.Minute+20*expected)
	defer cancel()
	began := time.Now()
	worker := n.start("run", "--log-level", "error")
	for range 3 { // the importer, while it begins and while it stores rows
		importer := n.start("import", "office", "list.csv", "--job", "night")
		n.pass(ctx, time.Duration(rng.Int64N(int64(min(2*time.Second, max(300*time.Millisecond, expected/20))))), rng)
		n.kill(importer)
		n.killed++
	}
	done := make(chan []byte, 1)
	importer := n.command("import", "office", "list.csv", "--job", "night", "--wait", "--json")
	go func() {
		out, _ := importer.CombinedOutput() // what became of it is looked at below
		done <- out
	}()
	for range 4 {
		n.pass(ctx, expected/12+time.Duration(rng.Int64N(int64(expected/6))), rng)
		n.kill(worker)
		n.killed++
		worker = n.start("run", "--log-level", "error")
	}
	defer func() { n.kill(worker) }()
	var out []byte
	for over := false; !over; {
		select {
		case out = <-done:
			over = true
		case <-ctx.Done():
			_ = importer.Process.Kill()
			n.t.Fatalf("the night does not end: %s", <-done)
		case <-time.After(n.pace()):
			n.look(ctx, int64(n.rows))
		}
	}
	n.took = time.Since(began)
	if code := importer.ProcessState.ExitCode(); code != exitRejects {
		n.t.Fatalf("exit code %d: %s", code, out)
	}
	n.judge(ctx)
	n.mend(ctx)
}

// pace is how often the job is looked at: counting a large one takes seconds.
func (n *night) pace() time.Duration {
	return min(10*time.Second, max(50*time.Millisecond, time.Duration(n.rows/20)*time.Millisecond))
}

// pass lets time go by, and looks at the job meanwhile.
func (n *night) pass(ctx context.Context, d time.Duration, rng *rand.Rand) {
	for end := time.Now().Add(d); time.Now().Before(end) && ctx.Err() == nil; {
		<-time.After(min(time.Until(end), n.pace()/2+time.Duration(rng.Int64N(int64(n.pace())))))
		n.look(ctx, int64(n.rows))
	}
}

// judge compares the job with the CRM's own ledger, row by row.
func (n *night) judge(ctx context.Context) {
	st := n.look(ctx, int64(n.rows))
	if !st.Ended() || st.Counts.Read != int64(n.rows) || st.Counts.Rejected != int64(n.refused) || st.Counts.Outcomes[contact.Dead] != int64(len(n.dead)) {
		n.t.Errorf("%d rows, %d without an id, %d of nobody: %+v", n.rows, n.refused, len(n.dead), st.Counts)
	}
	q := n.queue()
	defer func() { _ = q.Close() }()
	ledger, err := q.JobLedger(ctx, "office", "night")
	if err != nil {
		n.t.Fatal(err)
	}
	entries := n.crm.Ledger()
	reached := map[int]bool{} // rows that the CRM took
	throttled := 0
	for _, e := range entries {
		if e.Status == 429 || e.Status == 401 {
			throttled++
		}
		if e.Applied || e.Unchanged {
			for _, u := range e.Updates {
				reached[int(u)] = true
			}
		}
	}
	wrong := 0
	for i := 1; i <= n.rows && wrong < 10; i++ {
		o, _, known := ledger.Row(int64(i))
		k, valid := n.valid[i]
		switch {
		case n.dead[i] && o == contact.Dead, !valid && !n.dead[i] && !known:
			continue
		case valid && n.last[k] == i && (o == contact.Applied || o == contact.Unchanged):
			if c, _ := n.crm.Contact(strconv.Itoa(k)); c["title"] == fmt.Sprintf("row #%d#", i) && reached[i] {
				continue
			}
		case valid && n.last[k] != i && (o == contact.Applied || o == contact.Unchanged || o == contact.Superseded):
			continue // the later row of the contact holds
		}
		wrong++
		c, _ := n.crm.Contact(strconv.Itoa(k))
		n.t.Errorf("row %d of contact %d is %s, known %v; the CRM took it: %v, and holds %v", i, k, o, known, reached[i], c["title"])
	}
	for _, s := range emulator.Stale(entries) {
		n.t.Errorf("an older row over a newer one: %s", s)
	}
	n.t.Logf("%d rows in %s, %d processes killed: %v, %d rejected; %d requests, of which %d were throttled; %d rows reached the CRM",
		n.rows, n.took.Round(time.Second), n.killed, st.Counts.Outcomes, st.Counts.Rejected, len(entries), throttled, len(reached))
}

// mend exports what is wrong, puts it right and imports it.
func (n *night) mend(ctx context.Context) {
	out := n.output("jobs", "export", "night", "--only", "dead,rejected", "-o", "wrong.csv")
	b, err := os.ReadFile(filepath.Join(n.dir, "wrong.csv"))
	if err != nil {
		n.t.Fatalf("%v: %s", err, out)
	}
	r := csv.NewReader(bytes.NewReader(bytes.TrimPrefix(b, []byte("\ufeff"))))
	r.Comma = ';'
	rows, err := r.ReadAll()
	if err != nil || len(rows) != 1+len(n.dead)+n.refused || !slices.Equal(rows[0], []string{"ID", "Last Name", "Position", "_job", "_row", "_reason", "_message"}) {
		n.t.Fatalf("%d rows were exported, %v: %.300s", len(rows), err, b)
	}
	var mended bytes.Buffer
	w := csv.NewWriter(&mended)
	w.Comma = ';'
	for i, cells := range rows {
		if i > 0 {
			cells[0] = cells[4] // the contact of each row is there
		}
		if err := w.Write(cells); err != nil {
			n.t.Fatal(err)
		}
	}
	w.Flush()
	n.write("mended.csv", mended.Bytes())
	out = n.output("import", "office", "mended.csv", "--job", "morning", "--wait")
	if !strings.Contains(out, "rows of job night once more") {
		n.t.Error(out)
	}
	for _, cells := range rows[1:] {
		if c, _ := n.crm.Contact(cells[4]); c["title"] != fmt.Sprintf("row #%s#", cells[4]) {
			n.t.Fatalf("row %s was mended, and the CRM holds %v", cells[4], c["title"])
		}
	}
}

func (n *night) output(args ...string) string {
	cmd := n.command(args...)
	out, err := cmd.CombinedOutput()
	if err != nil {
		n.t.Fatalf("crmsync %s: %v: %s", strings.Join(args, " "), err, out)
	}
	return string(out)
}
