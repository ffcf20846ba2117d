package app

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"crmsync/contact"
	"crmsync/emulator"
)

// clients are both CRMs' clients; nothing is sent.
func clients(t *testing.T) map[string]client {
	t.Helper()
	h := newHouse(t, emulator.Options{}, emulator.Options{})
	out := map[string]client{}
	for name, target := range h.cfg.Targets {
		c, err := newClient(target, "test")
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(c.CloseIdle)
		out[name] = c
	}
	return out
}

func letterUpdate(body string) *contact.Update {
	u := contact.Decode([]byte(body), nil)
	u.Contact = contact.Key{Target: "office", ID: "7"}
	return u
}

func settings(t *testing.T, list ...string) []Setting {
	t.Helper()
	var out []Setting
	for _, s := range list {
		x, err := ParseSetting(s)
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, x)
	}
	return out
}

func replacements(t *testing.T, list ...string) []Replacement {
	t.Helper()
	var out []Replacement
	for _, s := range list {
		x, err := ParseReplacement(s)
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, x)
	}
	return out
}

func TestEdit(t *testing.T) {
	both := clients(t)
	patch := func(s string) contact.Patch {
		p, err := contact.ParsePatch([]byte(s))
		if err != nil {
			t.Fatal(err)
		}
		return p
	}
	for name, tt := range map[string]struct {
		target, letter string
		edits          Edits
		want           string // the new body, or what the error says
	}{
		"set a flag":   {"office", `{"fields":{"email":"a@b.c"}}`, Edits{Set: settings(t, "active=no")}, `{"fields":{"active":false,"email":"a@b.c"}}`},
		"set a text":   {"office", `{"fields":{"email":"a"},"version":3}`, Edits{Set: settings(t, "email=a@b.c=d")}, `{"fields":{"email":"a@b.c=d"},"version":3}`},
		"set a member": {"shop", `{"fields":{"address":{"city":"Ely"}}}`, Edits{Set: settings(t, "address.countryCode=gb")}, `{"fields":{"address":{"city":"Ely","countryCode":"GB"}}}`},
		"set a new object": {
			"shop", `{"fields":{"company":"x"}}`, Edits{Set: settings(t, "address.city=Ely")}, `{"fields":{"address":{"city":"Ely"},"company":"x"}}`,
		},
		"set a list":      {"office", `{"fields":{"email":"a@b.c"}}`, Edits{Set: settings(t, "permissions=invoices, 5")}, `{"fields":{"email":"a@b.c","permissions":[1,5]}}`},
		"set JSON":        {"office", `{"fields":{"title":"x"}}`, Edits{JSON: settings(t, "title=null")}, `{"fields":{"title":null}}`},
		"unset":           {"office", `{"fields":{"email":"a@b.c","title":"x"}}`, Edits{Unset: []string{"email"}}, `{"fields":{"title":"x"}}`},
		"unset a member":  {"shop", `{"fields":{"address":{"city":"Ely","zip":"1"}}}`, Edits{Unset: []string{"address.zip"}}, `{"fields":{"address":{"city":"Ely"}}}`},
		"unset an object": {"shop", `{"fields":{"address":{"city":"Ely"},"phone":"1"}}`, Edits{Unset: []string{"address"}}, `{"fields":{"phone":"1"}}`},
		"replace": {
			"office", `{"fields":{"phonenumber":"0044 1","title":"x"}}`,
			Edits{Replace: replacements(t, `phonenumber:/^00(\d+)/+$1/`)},
			`{"fields":{"phonenumber":"+44 1","title":"x"}}`,
		},
		"replace another mark": {"office", `{"fields":{"title":"a/b"}}`, Edits{Replace: replacements(t, `title:#/#-#`)}, `{"fields":{"title":"a-b"}}`},
		"replace where it is not": {
			"office", `{"fields":{"title":"x"}}`, Edits{Replace: replacements(t, `phonenumber:/1/2/`)}, "!the edit changes nothing",
		},
		"replace no text": {"office", `{"fields":{"active":true}}`, Edits{Replace: replacements(t, `active:/1/2/`)}, "!active: not a text"},
		"fields over":     {"shop", `{"fields":{"address":{"zip":"1"}}}`, Edits{Fields: patch(`{"address":{"city":"Ely"}}`)}, `{"fields":{"address":{"city":"Ely","zip":"1"}}}`},
		"a whole body":    {"office", `{"fields":{"title":"x"},"version":1}`, Edits{Body: []byte(" {\"fields\":{\"title\":\"y\"}}\n")}, `{"fields":{"title":"y"}}`},
		"bytes to a body": {"office", `not JSON`, Edits{Body: []byte(`{"fields":{"title":"y"}}`)}, `{"fields":{"title":"y"}}`},
		"bytes by field":  {"office", `not JSON`, Edits{Set: settings(t, "title=y")}, "!give it a whole body"},
		"nothing left":    {"office", `{"fields":{"title":"x"}}`, Edits{Unset: []string{"title"}}, "!there is nothing to change"},
		"the CRM's rule":  {"office", `{"fields":{"title":"x"}}`, Edits{Set: settings(t, "direction=up")}, "!direction: write ltr or rtl"},
		"no such field":   {"office", `{"fields":{"title":"x"}}`, Edits{Set: settings(t, "titel=y")}, "!titel: titel is not a field"},
		"JSON that is none": {
			"office", `{"fields":{"title":"x"}}`, Edits{JSON: settings(t, "title=y")}, "!title: not a JSON value",
		},
		"a mask stays":      {"office", `{"fields":{"password":"hunter2","title":"x"}}`, Edits{Body: []byte(`{"fields":{"password":"********","title":"y"}}`)}, `{"fields":{"password":"hunter2","title":"y"}}`},
		"a mask of nothing": {"office", `{"fields":{"title":"x"}}`, Edits{Body: []byte(`{"fields":{"password":"********"}}`)}, "!password: the mask"},
		"nothing changed":   {"office", `{"fields":{"title":"x"}}`, Edits{Set: settings(t, "title=x")}, "!the edit changes nothing"},
		"was refused": {
			"office", `{"fields":{"nonsense":1,"title":"x"}}`, Edits{Unset: []string{"nonsense"}}, `{"fields":{"title":"x"}}`,
		},
	} {
		t.Run(name, func(t *testing.T) {
			before := letterUpdate(tt.letter)
			u, err := edit(both[tt.target], before, &tt.edits)
			if want, bad := strings.CutPrefix(tt.want, "!"); bad {
				if err == nil || !strings.Contains(err.Error(), want) {
					t.Errorf("%v, want %q", err, want)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if string(u.Raw) != tt.want {
				t.Errorf("%s\nwant %s", u.Raw, tt.want)
			}
			if string(before.Raw) != tt.letter {
				t.Errorf("the letter itself became %s", before.Raw)
			}
		})
	}
}

func TestEditOfAnEventIsAPlainBody(t *testing.T) {
	header := map[string][]string{"ce-specversion": {"1.0"}, "ce-id": {"1"}, "ce-source": {"/x"}, "ce-type": {"t"}}
	u := contact.Decode([]byte(`{"fields":{"title":"x"}}`), header)
	if u.Bad != nil {
		t.Fatal(u.Bad)
	}
	u.Contact = contact.Key{Target: "office", ID: "7"}
	got, err := edit(clients(t)["office"], u, &Edits{Set: []Setting{{"title", "y"}}})
	if err != nil {
		t.Fatal(err)
	}
	if again := contact.Decode(got.Raw, got.Header); again.Bad != nil || len(got.Header) != 0 {
		t.Errorf("%s with %v: %v", got.Raw, got.Header, again.Bad)
	}
}

func TestParseEdits(t *testing.T) {
	for _, s := range []string{"", "a", "=x"} {
		if _, err := ParseSetting(s); err == nil {
			t.Errorf("setting %q is taken", s)
		}
	}
	for _, s := range []string{"", "a", "a:", "a:/", "a:/b", "a:/b/", "a:/b/c", "a://c/", "a:/(/c/", ":/b/c/", `a:\b\c\`, "a:xbxcx", "a:/b/c/d/", "a: b c "} {
		if r, err := ParseReplacement(s); err == nil {
			t.Errorf("replacement %q is taken: %+v", s, r)
		}
	}
}

func FuzzParseReplacement(f *testing.F) {
	for _, s := range []string{"a:/b/c/", "a:#x#$1#", "a:/(/x/", "é:éaébé", "a:\xff/b/c/"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		r, err := ParseReplacement(s)
		if err != nil {
			return
		}
		if r.Field == "" || r.Find == nil || r.Find.String() == "" {
			t.Fatalf("%q: %+v", s, r)
		}
		_, _ = r.apply(contact.Patch{{Name: r.Field, Value: json.RawMessage(`"some text"`)}})
	})
}

func TestFieldChanges(t *testing.T) {
	rules := clients(t)["shop"].Rules()
	got := fieldChanges(rules,
		letterUpdate(`{"fields":{"address":{"city":"Ely","zip":"1"},"password":"hunter2","phone":"1","title":"x"},"version":1}`),
		letterUpdate(`{"fields":{"address":{"city":"York","zip":"1"},"password":"hunter3","company":null,"title":"x"},"version":2}`))
	b, err := json.Marshal(got)
	if err != nil {
		t.Fatal(err)
	}
	want := `[{"field":"address.city","before":"Ely","after":"York"},{"field":"company","after":null},` +
		`{"field":"password","before":"********","after":"********"},{"field":"phone","before":"1"},{"field":"(version)","before":1,"after":2}]`
	if string(b) != want {
		t.Errorf("%s\nwant %s", b, want)
	}
}

// Whatever is set in a letter that was right is what is sent, and nothing else
// has changed.
func TestEditChangesOnlyWhatItNames(t *testing.T) {
	c := clients(t)["office"]
	fields := []string{"firstname", "lastname", "title", "phonenumber"}
	rapid.Check(t, func(rt *rapid.T) {
		before := map[string]string{}
		for _, f := range fields {
			if rapid.Bool().Draw(rt, f) {
				before[f] = rapid.StringMatching(`[a-z ]{0,8}`).Draw(rt, "value")
			}
		}
		before["direction"] = "ltr"
		body, err := json.Marshal(map[string]any{"fields": before})
		if err != nil {
			rt.Fatal(err)
		}
		field, value := rapid.SampledFrom(fields).Draw(rt, "field"), rapid.StringMatching(`[a-z=:/ ]{0,8}`).Draw(rt, "new")
		u, err := edit(c, letterUpdate(string(body)), &Edits{Set: []Setting{{field, value}}})
		if v, had := before[field]; had && v == value {
			if !errors.Is(err, errNoChange) {
				rt.Fatalf("%v for what is there already", err)
			}
			return
		}
		if err != nil {
			rt.Fatal(err)
		}
		before[field] = value
		var after struct{ Fields map[string]string }
		if err := json.Unmarshal(u.Raw, &after); err != nil {
			rt.Fatal(err)
		}
		if len(after.Fields) != len(before) {
			rt.Fatalf("%v, want %v", after.Fields, before)
		}
		for f, v := range before {
			if after.Fields[f] != v {
				rt.Fatalf("%s is %q, want %q", f, after.Fields[f], v)
			}
		}
	})
}
