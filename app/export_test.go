package app

import (
	"bytes"
	"encoding/csv"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"crmsync/contact"
	"crmsync/emulator"
	"crmsync/ingest"
)

// plans are the edits that a corrected file asks for.
func (h *house) plans(a *App, path string, f DeadFilter) (plans []EditPlan, refused []error) {
	h.t.Helper()
	err := a.EditFrom(h.t.Context(), path, f, func(p EditPlan, err error) error {
		if err != nil {
			refused = append(refused, err)
			return nil
		}
		plans = append(plans, p)
		return nil
	})
	if err != nil {
		h.t.Fatal(err)
	}
	return plans, refused
}

func (h *house) export(a *App, f DeadFilter, format string) (text, path string) {
	h.t.Helper()
	var out bytes.Buffer
	if _, _, err := a.Export(h.t.Context(), ann, f, nil, format, &out); err != nil {
		h.t.Fatal(err)
	}
	return out.String(), h.write("export."+format, out.String())
}

// Whatever a letter holds, a file that nobody corrected changes nothing.
func TestUncorrectedFilesChangeNothing(t *testing.T) {
	t.Parallel()
	h := newHouse(t, emulator.Options{}, emulator.Options{})
	a := h.open()
	defer a.Close()
	for id, body := range map[string]string{
		"77": `{"fields":{"firstname":"=1+1","lastname":"'=x","title":null,"phonenumber":"+44, \"1\";\n2","email":"a@example.com"}}`,
		"78": `{"fields":{"invoice_emails":"invoice_emails","ticket_emails":0,"active":true,"permissions":["1","2"],"password":"hunter2","customer_id":7}}`,
		"79": `{"fields":{"custom_fields":{"contacts":{"12":"x","13":["a","b"]}},"direction":"ltr","title":"********"}}`,
		"80": `{"fields":{"title":"","is_primary":"on"},"version":3,"occurred_at":"2026-11-21T19:05:00Z"}`,
	} {
		h.raw(a, "office", id, body)
	}
	for id, body := range map[string]string{
		"77": `{"fields":{"address":{"city":"=Ely","zip":null,"countryCode":"GB"},"company":null,"tags":{"contact":["A","B"]}}}`,
		"78": `{"fields":{"accessRoles":["customer",{"reference":"trade-account","expires":"2030-01-01T00:00:00+00:00","status":"active"}],"type":"user"}}`,
		"79": `{"fields":{"accessRoles":["customer"],"tags":{"contact":["A, B"]},"phone":"-1"}}`,
	} {
		h.raw(a, "shop", id, body)
	}
	stop := h.work(a)
	defer stop()
	h.settled(a)
	for target, n := range map[string]int{"office": 4, "shop": 3} {
		if got := len(h.letters(a, DeadFilter{Target: target})); got != n {
			t.Fatalf("%s: %d letters", target, got)
		}
		for _, format := range []string{ExportCSV, ExportNDJSON} {
			text, path := h.export(a, DeadFilter{Target: target}, format)
			if strings.Contains(text, "hunter2") {
				t.Errorf("a password: %s", text)
			}
			plans, refused := h.plans(a, path, DeadFilter{})
			if len(refused) > 0 || len(plans) != n {
				t.Errorf("%s, %s: %d plans, refused %v\n%s", target, format, len(plans), refused, text)
			}
			for _, p := range plans {
				if len(p.Changes) > 0 {
					t.Errorf("%s, %s: contact %s: %s", target, format, p.Letter.Contact, p.Changes)
				}
			}
		}
	}
	if _, path := h.export(a, DeadFilter{Target: "office", Reason: "missing"}, ExportCSV); path != "" {
		if _, refused := h.plans(a, path, DeadFilter{Reason: "conflict"}); len(refused) != 4 || !strings.Contains(refused[0].Error(), "line 2: letter") {
			t.Errorf("letters that were not chosen: %v", refused)
		}
	}
}

func TestCorrectedFile(t *testing.T) {
	t.Parallel()
	h := newHouse(t, emulator.Options{Contacts: 3}, emulator.Options{})
	a := h.open()
	defer a.Close()
	h.raw(a, "office", "1", `{"fields":{"title":5,"email":"a@example.com"}}`)
	h.raw(a, "office", "2", `{"fields":{"direction":"up","title":"x"}}`)
	stop := h.work(a)
	defer stop()
	h.settled(a)
	// The spelling may be all that was wrong, as with a number for a text.
	_, path := h.export(a, DeadFilter{}, ExportCSV)
	plans, refused := h.plans(a, path, DeadFilter{})
	if len(plans) != 1 || len(plans[0].Changes) != 1 || string(plans[0].Changes[0].After) != `"5"` || len(refused) != 1 || !strings.Contains(refused[0].Error(), "direction") {
		t.Fatalf("%+v, %v", plans, refused)
	}
	for i, wrong := range []string{
		"id,title\n1,x\n", "dead letter,title\nx,y\n", "dead letter,title\n", "", "{\"letter\":\"x\"}\n", `{"fields":{}}`,
	} {
		path := h.write(fmt.Sprintf("wrong%d", i), wrong)
		if err := a.EditFrom(t.Context(), path, DeadFilter{}, func(EditPlan, error) error { return nil }); err == nil {
			t.Errorf("%q is taken", wrong)
		}
	}
	if err := a.EditFrom(t.Context(), filepath.Join(h.dir, "none"), DeadFilter{}, nil); !os.IsNotExist(err) {
		t.Errorf("no file: %v", err)
	}
	id := plans[0].Letter.ID
	for _, f := range []DeadFilter{{Contact: "1"}, {Status: 404}, {Field: "title"}, {Match: "x"}, {Since: time.Now()}, {Until: time.Now()}, {Reason: "nonsense"}} {
		if err := a.EditFrom(t.Context(), path, f, func(EditPlan, error) error { return nil }); err == nil {
			t.Errorf("%+v is ignored", f)
		}
	}
	path = h.write("lines.ndjson", fmt.Sprintf("\n{\"letter\":%d,\"fields\":{\"title\":\"Boss\",\"password\":\"********\"},\"reason\":\"x\"}\n{\"letter\":99999,\"fields\":{\"title\":\"x\"}}\n", id))
	plans, refused = h.plans(a, path, DeadFilter{})
	if len(plans) != 1 || string(plans[0].Changes[0].After) != `"Boss"` || len(refused) != 1 || !strings.Contains(refused[0].Error(), "line 3: ") {
		t.Errorf("%+v, %v", plans, refused)
	}
}

// A filter's target is that of the rows that are edited, whatever the file begins
// with, and letters that are gone stop nobody.
func TestCorrectedFileOfSeveralTargets(t *testing.T) {
	t.Parallel()
	h, a, end := dying(t)
	defer end()
	all := h.letters(a, DeadFilter{Reason: "missing"})
	row := func(contact, fields string) string {
		return fmt.Sprintf("{\"letter\":%d,\"fields\":{%s}}\n", all[contact].ID, fields)
	}
	path := h.write("both.ndjson", "{\"letter\":99998,\"fields\":{}}\n"+row("77", `"title":"x"`)+row("99", `"phone":"2"`)+"{\"letter\":99999,\"fields\":{}}\n")
	for _, tt := range []struct{ target, contact, refused string }{
		{"", "77", "line 3: letter %d is of target shop, not of office"},
		{"office", "77", "line 3: letter %d is of target shop, not of office"},
		{"shop", "99", "line 2: letter %d is of target office, not of shop"},
	} {
		other := "99"
		if tt.contact == other {
			other = "77"
		}
		plans, refused := h.plans(a, path, DeadFilter{Target: tt.target})
		if len(plans) != 1 || plans[0].Letter.Contact != tt.contact || len(plans[0].Changes) != 1 {
			t.Errorf("%q: %+v", tt.target, plans)
		}
		if len(refused) != 3 || !IsGone(refused[0]) || !strings.Contains(refused[0].Error(), "line 1: ") || !IsGone(refused[2]) || !strings.Contains(refused[2].Error(), "line 4: ") ||
			IsGone(refused[1]) || !strings.Contains(refused[1].Error(), fmt.Sprintf(tt.refused, all[other].ID)) {
			t.Errorf("%q: %v", tt.target, refused)
		}
	}
	for text, want := range map[string]string{row("77", `"title":"x"`): "none of its letters is of target shop", "{\"letter\":99998}\n": "none of the 1 that it names"} {
		err := a.EditFrom(t.Context(), h.write("none.ndjson", text), DeadFilter{Target: "shop"}, func(EditPlan, error) error { return nil })
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %s", text, err, want)
		}
	}
}

// A job's letters go out in its file's own columns, whatever they are called, and
// come back by them.
func TestExportInTheUploadsColumns(t *testing.T) {
	t.Parallel()
	h := newHouse(t, emulator.Options{}, emulator.Options{})
	a := h.open()
	defer a.Close()
	stop := h.work(a)
	defer stop()
	rep, err := a.Import(t.Context(), Import{
		Target: "office", Class: contact.Bulk, Job: "up",
		Path: h.write("up.csv", "Nr;=Vorname;Notiz;Reason;Region\n77;Jörg;x;y;EU\n78;Ann;x;y;\n"), ID: "Nr",
		Map: map[string]string{"=Vorname": "firstname", "Reason": "title", "Region": "custom_fields.12"},
	})
	if err != nil || rep.Queued != 2 {
		t.Fatalf("%+v, %v", rep, err)
	}
	h.settled(a)
	text, path := h.export(a, DeadFilter{Job: "up"}, ExportAuto)
	rows, err := csv.NewReader(strings.NewReader(text)).ReadAll()
	if err != nil || len(rows) != 3 || !strings.Contains(text, ",EU,") || strings.Join(rows[0], "|") != "dead letter|Nr|'=Vorname|Reason|Region|dead reason|dead detail" {
		t.Fatalf("%q, %v", rows, err)
	}
	fixed := h.write("fixed.csv", strings.Replace(text, "Jörg", "Jürgen", 1))
	plans, refused := h.plans(a, fixed, DeadFilter{Job: "up"})
	changed := 0
	for _, p := range plans {
		for _, c := range p.Changes {
			changed++
			if p.Letter.Contact != "77" || c.Field != "firstname" || string(c.After) != `"Jürgen"` {
				t.Errorf("contact %s: %s becomes %s", p.Letter.Contact, c.Field, c.After)
			}
		}
	}
	if len(plans) != 2 || changed != 1 || len(refused) > 0 {
		t.Errorf("%s: %d plans, %d changes, refused %v", path, len(plans), changed, refused)
	}
	// With a letter of another job the columns are not one file's.
	h.raw(a, "office", "79", `{"fields":{"title":"x"}}`)
	h.settled(a)
	if text, _ := h.export(a, DeadFilter{Target: "office"}, ExportAuto); !strings.HasPrefix(text, "{") {
		t.Errorf("letters of two origins: %s", text)
	}
}

func TestFixLinesAreStrict(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		id := rapid.Uint64Min(1).Draw(t, "id")
		text := rapid.String().Draw(t, "text")
		b, err := json.Marshal(map[string]any{"letter": id, "fields": map[string]string{"title": text}, "more": []int{1}})
		if err != nil {
			t.Fatal(err)
		}
		got, fields, err := fixLine(b)
		if err != nil {
			if strings.ContainsFunc(text, func(r rune) bool { return r < ' ' || r == 0x7f }) {
				return // as in a message's body
			}
			t.Fatalf("%s: %v", b, err)
		}
		v, ok := fields.Get("title")
		if text == maskedText {
			if ok {
				t.Fatal("a mask is a value")
			}
			return
		}
		var back string
		if got != id || !ok || json.Unmarshal(v, &back) != nil || back != strings.ToValidUTF8(text, "\ufffd") {
			t.Fatalf("%d %s", got, v)
		}
	})
}

func FuzzReadFixes(f *testing.F) {
	for _, s := range []string{"dead letter,title\n1,x\n", "dead letter;title\n'=1;'+44\n", `{"letter":1,"fields":{"title":"x"}}`, "{", "dead letter\n1\n"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		_ = readFixes(bytes.NewReader(b), nil, nil, func(x fix) error {
			if x.err == nil && x.letter == 0 {
				t.Fatalf("%q: a row without a letter", b)
			}
			return nil
		})
	})
}

// Corrections come back as a workbook too.
func TestReadFixesOfWorkbook(t *testing.T) {
	var b bytes.Buffer
	w, err := ingest.NewWorkbookWriter(&b, "rows")
	if err != nil {
		t.Fatal(err)
	}
	for _, cells := range [][]string{{letterColumn, "id", "Nachname", "dead reason"}, {"17", "4", "Geist", "missing"}, {"x", "5", "Y", "missing"}} {
		if err := w.Write(cells); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	var got []string
	err = readFixes(&b, nil, nil, func(x fix) error {
		v, _ := x.fields.Get("Nachname")
		got = append(got, fmt.Sprintf("%d: letter %d %s, %v", x.line, x.letter, v, x.err))
		return nil
	})
	if want := []string{`2: letter 17 "Geist", <nil>`, `3: letter 0 "Y", "x" is not the id of a letter`}; err != nil || !slices.Equal(got, want) {
		t.Errorf("%q, %v", got, err)
	}
}
