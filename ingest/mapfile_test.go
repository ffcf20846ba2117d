package ingest

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"crmsync/contact"
)

func TestReadMapping(t *testing.T) {
	for _, tc := range []struct{ name, text, want, err string }{
		{"all", "id: Nr\ncolumns: {Vorname: firstname, Notiz: '', Alt: -}\nconstants:\n  active: 1\n  direction: \"\"\nempty: clear\n", "{Nr map[Alt:- Notiz: Vorname:firstname] map[active:1 direction:] clear}", ""},
		{"nothing", "", "{ map[] map[] }", ""},
		{"unknown key", "colums: {a: b}\n", "", "line 1: field colums is not known; a mapping has id, columns, constants and empty"},
		{"a list", "columns: [a]\n", "", "cannot unmarshal"},
		{"nested", "columns: {address: {city: x}}\n", "", "cannot unmarshal"},
		{"twice", "columns:\n  a: b\n  a: c\n", "", "already defined"},
		{"the same column", "columns: {First Name: a, first_name: b}\n", "", `columns: "First Name" and "first_name" are the same column`},
		{"another column", "columns: {row: a, _row: b}\n", "{ map[_row:b row:a] map[] }", ""},
		{"empty", "empty: null it\n", "", `"null it" is not a meaning`},
		{"not YAML", "{", "", "did not find"},
		{"too large", strings.Repeat("#", maxMapping+1), "", "1024 KiB"},
	} {
		m, err := ReadMapping(strings.NewReader(tc.text))
		switch {
		case tc.err == "" && (err != nil || fmt.Sprint(m) != tc.want):
			t.Errorf("%s: %v %v", tc.name, m, err)
		case tc.err != "" && (err == nil || !strings.Contains(err.Error(), tc.err)):
			t.Errorf("%s: %v, want %s", tc.name, err, tc.err)
		}
	}
}

// What a mapping says when it is saved maps the same file the same way.
func TestMappingRoundTrip(t *testing.T) {
	text := "Nr,Vorname,E-Mail,Schuhe,Notiz,_reason\n7,Bob,a@b,9,x,y\n"
	o := Options{
		Labels: labels, IDColumn: "nr", Empty: EmptyClear,
		Map: map[string]string{"vorname": "firstname", "notiz": "-"}, Constants: map[string]string{"phonenumber": "yes: no"},
	}
	want, rep := read(text, o)
	var b bytes.Buffer
	if err := rep.AsMapping(o).Write(&b); err != nil {
		t.Fatal(err)
	}
	m, err := ReadMapping(bytes.NewReader(b.Bytes()))
	if err != nil {
		t.Fatal(err)
	}
	wantMap := map[string]string{"Vorname": "firstname", "E-Mail": "email", "Schuhe": "", "notiz": "", "Notiz": ""}
	delete(wantMap, "Notiz")
	if d := cmp.Diff(Mapping{ID: "Nr", Columns: wantMap, Constants: o.Constants, Empty: "clear"}, m); d != "" {
		t.Error(d)
	}
	got, _ := read(text, Options{IDColumn: m.ID, Map: m.Columns, Constants: m.Constants, Empty: m.Empty, Labels: map[string]string{}})
	if got != want || !strings.Contains(got, `{"email":"a@b","firstname":"Bob","phonenumber":"yes: no"}`) {
		t.Errorf("got %swant %s", got, want)
	}
	// Columns that the mapping leaves out need not be there.
	if got, _ = read("Nr,Vorname,E-Mail\n7,Bob,a@b\n", Options{IDColumn: m.ID, Map: m.Columns, Labels: labels}); !strings.HasPrefix(got, "1@2 7 {") {
		t.Error(got)
	}
}

func TestConstants(t *testing.T) {
	convert := func(field, text string) (json.RawMessage, error) {
		switch text {
		case "bad":
			return nil, errors.New("is bad")
		case "nothing":
			return nil, nil
		}
		return contact.JSONString(text), nil
	}
	with := func(kv ...string) Options {
		o := Options{Constants: map[string]string{}, Convert: convert}
		for i := 0; i < len(kv); i += 2 {
			o.Constants[kv[i]] = kv[i+1]
		}
		return o
	}
	for _, tc := range []struct {
		name, text string
		o          Options
		want       string
	}{
		{"with columns", "id,b\n7,x\n8,\n", with("a", "1", "c", ""), "1@2 7 {\"a\":\"1\",\"b\":\"x\",\"c\":null}\n2@3 8 {\"a\":\"1\",\"c\":null}\n"},
		{"alone", "id\n7\n", with("a", "1"), "1@2 7 {\"a\":\"1\"}\n"},
		{"members", "id,address.zip\n7,x\n", with("address.city", "Ips", "address.aa", "y"), "1@2 7 {\"address\":{\"aa\":\"y\",\"city\":\"Ips\",\"zip\":\"x\"}}\n"},
		{"nothing", "id,b\n7,\n", with("a", "nothing"), "1@2 ! the row changes nothing: no mapped column has a value\n"},
		{"and a column", "id,a\n7,x\n", with("a", "1"), "open: line 1: column \"a\" and a constant are both for the field \"a\"; ignore the column or leave the constant out"},
		{"and a member", "id,a\n7,x\n", with("a.b", "1"), "open: line 1: column \"a\" and a constant are both for the field \"a\"; ignore the column or leave the constant out"},
		{"member of each other", "id\n7\n", with("a.b", "1", "a", "2"), "open: line 1: two constants are for the field \"a\""},
		{"bad", "id\n7\n", with("a", "bad"), "open: line 1: the constant for the field \"a\": is bad"},
		{"control", "id\n7\n", with("a", "\x01"), "open: line 1: the constant for the field \"a\": holds a control character (U+0001)"},
		{"no name", "id\n7\n", with("a.", "1"), "open: line 1: a constant is for the field \"a.\", which has a part without a name"},
		{"flat", "{\"id\":7,\"b\":1}\n{\"id\":8}\n{\"id\":9,\"a\":2}\n", with("a", "1"), "1@1 7 {\"a\":\"1\",\"b\":1}\n2@2 8 {\"a\":\"1\"}\n3@3 ! the field \"a\" is there twice\n"},
		{"update", "{\"id\":7,\"fields\":{\"b\":1}}\n{\"id\":8,\"fields\":{\"a\":1}}\n", with("a", "1"), "1@1 7 {\"a\":\"1\",\"b\":1}\n2@2 ! the field \"a\" has a constant already\n"},
		{"bad in JSON", "{\"id\":7}\n", with("a", "bad"), "open: the constant for the field \"a\": is bad"},
	} {
		if got, _ := read(tc.text, tc.o); got != tc.want {
			t.Errorf("%s:\n got %s\nwant %s", tc.name, got, tc.want)
		}
	}
}

// Columns that begin with an underscore are remarks.
func TestPrivateColumns(t *testing.T) {
	for _, tc := range []struct {
		name, text string
		o          Options
		want       string
	}{
		{"ignored", "_row,id,a,_reason\n1,7,x,bad\n", Options{}, "1@2 7 {\"a\":\"x\"}\n"},
		{"beside one without", "id,_a,a\n7,1,2\n", Options{}, "1@2 7 {\"a\":\"2\"}\n"},
		{"mapped", "id,_a\n7,1\n", Options{Map: map[string]string{"_a": "b"}}, "1@2 7 {\"b\":\"1\"}\n"},
		{"the other is mapped", "id,_a,c\n7,1,2\n", Options{Map: map[string]string{"a": "b"}}, "open: line 1: the mapping names a column \"a\", but the columns are \"id\", \"_a\", \"c\""},
		{"no id", "_id,a\n7,1\n", Options{}, "open: line 1: no column is the contact's id (id or contact id); the columns are \"_id\", \"a\"; name the one it is, and check the delimiter"},
		{"as id", "_id,a\n7,1\n", Options{IDColumn: "_ID"}, "1@2 7 {\"a\":\"1\"}\n"},
		{"twice", "id,a,_r,_R\n7,1,2,3\n", Options{}, "open: line 1: columns 3 and 4 have the same name (\"_R\"); rename or remove one"},
		{"members", "{\"id\":7,\"a\":1,\"_b\":2}\n", Options{}, "1@1 7 {\"a\":1}\n"},
	} {
		got, rep := read(tc.text, tc.o)
		if got != tc.want {
			t.Errorf("%s:\n got %s\nwant %s", tc.name, got, tc.want)
		}
		if len(rep.Unmapped) > 0 {
			t.Errorf("%s: unmapped %q", tc.name, rep.Unmapped)
		}
	}
}

func FuzzReadMapping(f *testing.F) {
	for _, s := range []string{"id: Nr\ncolumns: {a: b}\n", "constants: {a: 1}\nempty: clear\n", "columns: &x {a: b}\nconstants: *x\n", ""} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		m, err := ReadMapping(strings.NewReader(s))
		if err != nil {
			return
		}
		var b bytes.Buffer
		if err := m.Write(&b); err != nil {
			t.Fatal(err)
		}
		again, err := ReadMapping(&b)
		if err != nil || fmt.Sprint(again) != fmt.Sprint(m) {
			t.Errorf("%v is read again as %v, %v", m, again, err)
		}
	})
}

func TestMappingWith(t *testing.T) {
	file := Mapping{ID: "Nr", Columns: map[string]string{"First Name": "a", "B": "b"}, Constants: map[string]string{"x": "1", "y": "2"}, Empty: "clear"}
	got := file.With(Mapping{Columns: map[string]string{"first_name": "c"}, Constants: map[string]string{"y": "3"}})
	want := Mapping{ID: "Nr", Columns: map[string]string{"first_name": "c", "B": "b"}, Constants: map[string]string{"x": "1", "y": "3"}, Empty: "clear"}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
	if d := cmp.Diff(file, file.With(Mapping{})); d != "" {
		t.Error(d)
	}
	got = file.With(Mapping{ID: "id", Empty: "ignore"})
	if got.ID != "id" || got.Empty != "ignore" {
		t.Errorf("%+v", got)
	}
}
