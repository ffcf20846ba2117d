package emulator

import (
	"encoding/json"
	"strings"
	"testing"
	"unicode/utf8"
)

func FuzzPHPBody(f *testing.F) {
	for _, s := range []string{
		`{"email":"a@b.c"}`, `{}`, `[]`, `[1]`, `null`, `{"a":"%2522"}`, "{\"a\":\"\x00\t%\"}", `{"a":"<script>%3c?"}`,
		`{"a":"%ff"}`, `{"a":"alert(1) javascript: <iframe x>"}`, `{"a":{"b":[{"c":null}]}} `, strings.Repeat("[", 9000), `{"a":"%`,
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		clean := xssClean(string(b))
		if strings.ContainsAny(clean, "\t\x00\x07\x1b\x7f") {
			t.Errorf("control characters left in %q", clean)
		}
		if percentDecode(clean) != clean && !strings.Contains(string(b), "<") {
			// Only what the rewriting itself put together may decode further.
			if twice := xssClean(clean); percentDecode(twice) != twice {
				t.Errorf("escapes left in %q", clean)
			}
		}
		fields, ok := phpBody(b)
		if ok != (len(fields) > 0) {
			t.Errorf("ok %v with %d fields", ok, len(fields))
		}
		for k := range fields {
			if !utf8.ValidString(k) {
				t.Errorf("key %q", k)
			}
		}
		for _, mode := range perfexModes {
			c := NewPerfex(Options{Mode: mode, Contacts: 3})
			a := perfexCall(c, "PUT", "/api/contacts/2", string(b))
			if !json.Valid([]byte(a.body)) {
				t.Errorf("answer %d %q", a.status, a.body)
			}
			if e := lastEntry(t, c); e.Applied && a.status != 200 || a.status == 200 && mode != PerfexDocs && !e.Applied {
				t.Errorf("status %d, ledger %+v", a.status, e)
			}
		}
	})
}

func FuzzBatch(f *testing.F) {
	for _, s := range []string{
		`{"operations":[{"tool":"contacts_update","arguments":{"id":1,"data":{"title":"x"}}}]}`,
		`{"operations":[{"tool":"contacts_update","arguments":{"id":"1","data":{"id":2}}},5,null,{"tool":1}]}`,
		`{"operations":{}}`, `[]`, ``,
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		c := NewPerfex(Options{Contacts: 3})
		a := perfexCall(c, "POST", "/api/batch", string(b))
		if e := lastEntry(t, c); a.status == 200 && len(e.Batch) != len(batchOperations(mustDecode(b))) || a.status != 200 && a.status != 422 {
			t.Errorf("%d %s, ledger %+v", a.status, a.body, e)
		}
	})
}

func mustDecode(b []byte) any {
	d := json.NewDecoder(strings.NewReader(string(b)))
	d.UseNumber()
	var v any
	_ = d.Decode(&v)
	return v
}

func FuzzEvanceBody(f *testing.F) {
	for _, s := range []string{
		`{"contact":{"firstname":"Bob","address":{"line1":"x","countryCode":"GB"},"accessRoles":["customer",{"reference":"trade-account","status":"active"}],"tags":{"contact":["A"]}}}`,
		`{"data":{"firstName":null}}`, `{"contact":[]}`, `{"contact":{"accessRoles":[1,{}],"tags":[],"address":null,"type":[]}}`, `nonsense`,
	} {
		f.Add([]byte(s))
	}
	c := NewEvance(Options{Contacts: 3})
	f.Fuzz(func(t *testing.T, b []byte) {
		token := evanceToken(t, c)
		for _, path := range []string{"/api/contacts/2.json", "/api/v2/contacts/2.json"} {
			c.Delete("2")
			c.Put("2", map[string]any{"firstname": "F", "lastname": "L", "email": "f@x.io"})
			before := contact(t, c, "2")
			a := call1(c, "PUT", path, string(b), "Authorization", "Bearer "+token)
			if a.status != 200 && a.status != 400 && a.status != 422 || !json.Valid([]byte(a.body)) {
				t.Errorf("%d %q", a.status, a.body)
			}
			if e := lastEntry(t, c); e.Applied && a.status != 200 {
				t.Errorf("status %d, ledger %+v", a.status, e)
			}
			if after := contact(t, c, "2"); after["id"] != before["id"] || after["created"] != before["created"] {
				t.Errorf("read-only fields changed: %v", after)
			}
		}
	})
}

func FuzzParseFaults(f *testing.F) {
	f.Add([]byte(`[{"kind":"latency","min":"1s","max":"2s","probability":0.5}]`))
	f.Add([]byte(`[{"kind":"outage","from":"1s","to":"2s","status":503}]`))
	f.Add([]byte(`[] `))
	f.Fuzz(func(t *testing.T, b []byte) {
		plan, err := ParseFaults(b)
		if err != nil {
			return
		}
		c := NewPerfex(Options{})
		c.SetFaults(plan) // panics on what ParseFaults should have refused
		again, err := json.Marshal(c.Faults())
		if err != nil {
			t.Fatal(err)
		}
		if _, err := ParseFaults(again); err != nil && len(plan) > 0 {
			t.Errorf("%s does not read back: %v", again, err)
		}
	})
}
