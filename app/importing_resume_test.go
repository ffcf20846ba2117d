package app

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"testing"
	"time"

	"crmsync/contact"
	"crmsync/emulator"
	"crmsync/queue"
)

// numbered is a file of rows; bad ones have no id.
func numbered(rows int, bad func(i int) bool) string {
	var b strings.Builder
	b.WriteString("id,title\n")
	for i := 1; i <= rows; i++ {
		if bad != nil && bad(i) {
			fmt.Fprintf(&b, ",row %d\n", i)
		} else {
			fmt.Fprintf(&b, "%d,row %d\n", i%100+1, i)
		}
	}
	return b.String()
}

// A stopped import is taken up again by what is stored, not by what the broker
// remembers of message ids for ten minutes.
func TestImportKnowsWhatIsStored(t *testing.T) {
	t.Parallel()
	h := newHouse(t, emulator.Options{Contacts: 100}, emulator.Options{})
	a := h.open()
	defer a.Close()
	stop := h.work(a)
	defer stop()
	const rows = 3000
	im := Import{
		Target: "office", Path: h.write("c.csv", numbered(rows, func(i int) bool { return i == 2 || i == 7 })), Class: contact.Bulk,
		Canary: 5, By: "ann", Confirm: func(Canary) (bool, error) { return false, nil },
	}
	rep, err := a.Import(t.Context(), im)
	if err != nil || !rep.Stopped || rep.Queued != 5 || rep.Rows != 6 || rep.Rejected != 1 || rep.Resumed != nil {
		t.Fatalf("%+v, %v", rep, err)
	}
	j, err := a.q.Job(t.Context(), "office", rep.Job)
	if err != nil || j.Queued != 5 || j.Read != 6 || j.Rejected != 1 || !j.Loaded.IsZero() || j.By != "ann" || j.Host == "" || j.Path != im.Path || strings.Join(j.Columns, " ") != "id title" {
		t.Errorf("registered %+v, %v", j, err)
	}
	if got := h.after(a, im); got != 6 {
		t.Errorf("the next run begins after row %d, want 6", got)
	}
	im.Canary = 0
	rep, err = a.Import(t.Context(), im)
	if err != nil || rep.Queued != rows-2-5 || rep.Duplicates != 5 || rep.Rejected != 2 || rep.Resumed == nil || rep.Resumed.Complete || rep.Resumed.By != "ann" {
		t.Errorf("%+v, %v", rep, err)
	}
	if rep, err = a.Wait(t.Context(), rep, nil); err != nil || !rep.Done || total(rep.Outcomes) != rows-2 || rep.Outcomes["dead"] != 0 {
		t.Errorf("%+v, %v", rep, err)
	}
	j, err = a.q.Job(t.Context(), "office", rep.Job)
	if err != nil || j.Loaded.IsZero() || j.Queued != rows-2 || j.Read != rows || j.Size == 0 || j.First != 1 || j.Last != rows-2 {
		t.Errorf("registered %+v, %v", j, err)
	}
	// It is complete: nothing is looked up, whatever the queue still knows.
	if got := h.after(a, im); got < 1<<62 {
		t.Errorf("a complete job is taken up again after row %d", got)
	}
	if rep, err = a.Import(t.Context(), im); err != nil || rep.Queued != 0 || rep.Duplicates != rows-2 || !rep.Resumed.Complete {
		t.Errorf("%+v, %v", rep, err)
	}
	var acts []string
	err = a.q.AuditTrail(t.Context(), queue.AuditFilter{Action: "import"}, func(e queue.Entry) error {
		acts = append(acts, e.By+" "+e.Target+" "+e.Detail)
		return nil
	})
	if err != nil || len(acts) != 1 || acts[0] != "ann office job "+rep.Job {
		t.Errorf("audit %q, %v", acts, err)
	}
}

// after is the row after which a run of the import would begin.
func (h *house) after(a *App, im Import) int64 {
	h.t.Helper()
	o, err := im.begin(h.cfg, "test")
	if err != nil {
		h.t.Fatal(err)
	}
	defer o.close()
	in := &intake{a: a, o: o, rep: &ImportReport{}}
	if err := in.resume(h.t.Context()); err != nil {
		h.t.Fatal(err)
	}
	return in.after
}

// An interruption while the canary is waited for leaves a job that can be taken
// up, and shows why nothing moves.
func TestCanaryInterrupted(t *testing.T) {
	t.Parallel()
	h := newHouse(t, emulator.Options{Contacts: 100}, emulator.Options{})
	a := h.open()
	defer a.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	im := Import{
		Target: "office", Path: h.write("c.csv", numbered(50, nil)), Class: contact.Bulk, Canary: 3,
		Confirm: func(c Canary) (bool, error) { t.Errorf("asked: %+v", c); return false, nil },
		Waiting: func(p ImportProgress) {
			if p.Ended == 0 && p.Queued == 3 && strings.HasPrefix(p.Hold, "no worker") {
				cancel()
			}
		},
	}
	rep, err := a.Import(ctx, im)
	if !errors.Is(err, context.Canceled) || rep.Queued != 3 {
		t.Fatalf("%+v, %v", rep, err)
	}
	if j, err := a.q.Job(t.Context(), "office", rep.Job); err != nil || j.Queued != 3 || !j.Loaded.IsZero() {
		t.Errorf("registered %+v, %v", j, err)
	}
	stop := h.work(a)
	defer stop()
	var seen Canary
	im.Waiting, im.Confirm = nil, func(c Canary) (bool, error) { seen = c; return c.Well(), nil }
	if rep, err = a.Import(t.Context(), im); err != nil || rep.Queued != 47 || rep.Duplicates != 3 {
		t.Errorf("%+v, %v", rep, err)
	}
	if !seen.More || len(seen.Rows) != 3 || seen.Rows[2].Row != 3 || seen.Rows[2].Line != 4 || seen.Rows[2].Outcome != "applied" || fmt.Sprint(seen.Rows[2].Fields) != "[title]" {
		t.Errorf("the canary: %+v", seen)
	}
}

func TestCanaryWell(t *testing.T) {
	for outcome, want := range map[string]bool{
		"applied": true, "unchanged": true, "superseded": true, "dead": false, "discarded": false, "cancelled": false, "": false,
	} {
		if got := (Canary{Rows: []CanaryRow{{Outcome: "applied"}, {Outcome: outcome}}}).Well(); got != want {
			t.Errorf("%q: %v", outcome, got)
		}
	}
}

// A file that changes under the reader is not complete.
func TestFileChangesWhileRead(t *testing.T) {
	t.Parallel()
	h := newHouse(t, emulator.Options{}, emulator.Options{})
	a := h.open()
	defer a.Close()
	path := h.write("c.csv", numbered(20_000, nil))
	changed := false
	im := Import{Target: "office", Path: path, Class: contact.Bulk, Rejected: func(RejectedRow) {}}
	im.Canary, im.Confirm = 0, nil
	im.Progress = func(ImportReport) {
		if !changed {
			changed = true
			f, err := os.OpenFile(path, os.O_APPEND|os.O_WRONLY, 0)
			if err == nil {
				_, err = io.WriteString(f, "1,late\n")
				err = errors.Join(err, f.Close())
			}
			if err != nil {
				t.Error(err)
			}
		}
	}
	rep, err := a.Import(t.Context(), im)
	if !changed {
		t.Skip("it was read too fast to be changed")
	}
	if err == nil || !strings.Contains(err.Error(), "was changed while it was read") {
		t.Fatalf("%+v, %v", rep, err)
	}
	if j, err := a.q.Job(t.Context(), "office", rep.Job); err != nil || !j.Loaded.IsZero() {
		t.Errorf("registered %+v, %v", j, err)
	}
}

func TestUseMapping(t *testing.T) {
	h := newHouse(t, emulator.Options{}, emulator.Options{})
	im := Import{Map: map[string]string{"vorname": ""}, Empty: "ignore"}
	if err := im.UseMapping(h.write("m.yaml", "id: Nr\ncolumns: {Vorname: firstname, Stadt: title}\nconstants: {active: 1}\nempty: clear\n")); err != nil {
		t.Fatal(err)
	}
	if im.ID != "Nr" || im.Empty != "ignore" || fmt.Sprint(im.Map, im.Constants) != "map[Stadt:title vorname:] map[active:1]" {
		t.Errorf("%+v", im)
	}
	if err := im.UseMapping(h.write("bad.yaml", "nonsense")); err == nil || !strings.Contains(err.Error(), "bad.yaml") {
		t.Error(err)
	}
	if err := im.UseMapping(h.dir + "/none.yaml"); !errors.Is(err, os.ErrNotExist) {
		t.Error(err)
	}
}

// What an import writes for others holds no cell.
func TestJobHoldsNoCell(t *testing.T) {
	h := newHouse(t, emulator.Options{}, emulator.Options{})
	a := h.open()
	defer a.Close()
	rep, err := a.Import(t.Context(), Import{
		Target: "office", Path: h.write("c.csv", "id,title,password\n1,Spion,geheim-1\n"), Class: contact.Bulk,
		Constants: map[string]string{"firstname": "Sekret"},
	})
	if err != nil {
		t.Fatal(err)
	}
	var raw json.RawMessage
	if found, err := a.q.Get(t.Context(), "job.office."+rep.Job, &raw); err != nil || !found {
		t.Fatal(found, err)
	}
	for _, cell := range []string{"Spion", "geheim", "Sekret"} {
		if strings.Contains(string(raw), cell) {
			t.Errorf("%s is registered: %s", cell, raw)
		}
	}
}
