package app

import (
	"bytes"
	"encoding/csv"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"crmsync/contact"
	"crmsync/emulator"
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
	path = h.write("lines.ndjson", fmt.Sprintf("\n{\"letter\":%d,\"fields\":{\"title\":\"Boss\",\"password\":\"********\"},\"reason\":\"x\"}\n{\"letter\":99999,\"fields\":{\"title\":\"x\"}}\n", id))
	plans, refused = h.plans(a, path, DeadFilter{})
	if len(plans) != 1 || string(plans[0].Changes[0].After) != `"Boss"` || len(refused) != 1 || !strings.Contains(refused[0].Error(), "line 3: ") {
		t.Errorf("%+v, %v", plans, refused)
	}
}

// A job's letters go out in its file's own columns, whatever they are called, and
// come back by them.
func TestExportInTheUploadsColumns(t *testing.T) {
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
