package contact

import (
	"encoding"
	"encoding/json"
	"strings"
	"testing"
	"time"
)

func TestCheckTarget(t *testing.T) {
	for name, ok := range map[string]bool{
		"office": true, "a": true, "shop-2": true, "-": true, strings.Repeat("a", 32): true,
		"": false, "Office": false, "a.b": false, "a b": false, "a_b": false, "a\n": false, "é": false,
		strings.Repeat("a", 33): false,
	} {
		if err := CheckTarget(name); (err == nil) != ok {
			t.Errorf("CheckTarget(%q) = %v, want ok %v", name, err, ok)
		}
	}
}

func TestCheckID(t *testing.T) {
	for _, c := range []struct{ id, want string }{
		{"1", ""},
		{"bob@x.io", ""},
		{"Zoë Q", ""},
		{"a*b>c.d", ""},
		{strings.Repeat("é", 64), ""},
		{"", "empty"},
		{strings.Repeat("a", 129), "129 bytes"},
		{strings.Repeat("é", 65), "130 bytes"},
		{"a\xff", "UTF-8"},
		{"\xed\xa0\x80", "UTF-8"},
		{"a\nb", "control"},
		{"a\x00", "control"},
		{"a\x7fb", "control"},
		{"a\u0085b", "control"},
		{" a", "white space"},
		{"a ", "white space"},
		{"\u00a0a", "white space"},
		{"a\u2003", "white space"},
	} {
		err := CheckID(c.id)
		switch {
		case c.want == "" && err != nil:
			t.Errorf("CheckID(%q) = %v", c.id, err)
		case c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)):
			t.Errorf("CheckID(%q) = %v, want %q", c.id, err, c.want)
		}
	}
}

func TestKeyString(t *testing.T) {
	if got := (Key{Target: "office", ID: "7"}).String(); got != "office/7" {
		t.Error(got)
	}
}

type enum interface {
	comparable
	encoding.TextMarshaler
	String() string
}

// closed checks that exactly these values have names, each its own, that they
// round trip, and that nothing else is read or written.
func closed[T enum](t *testing.T, of func(uint8) T, parse func([]byte, *T) error, names ...string) {
	t.Helper()
	for i, name := range names {
		v := of(uint8(i))
		if v.String() != name {
			t.Errorf("%d is %q, want %q", i, v, name)
		}
		b, err := v.MarshalText()
		if err != nil || string(b) != name {
			t.Errorf("%q: MarshalText = %q, %v", name, b, err)
		}
		back := of(200)
		if err := parse(b, &back); err != nil || back != v {
			t.Errorf("%q: read back as %v, %v", name, back, err)
		}
		if j, err := json.Marshal(map[string]T{"v": v}); err != nil || string(j) != `{"v":"`+name+`"}` {
			t.Errorf("%q: JSON %s, %v", name, j, err)
		}
	}
	beyond := of(uint8(len(names)))
	if _, err := beyond.MarshalText(); err == nil {
		t.Errorf("%v has no name and yet can be written", beyond)
	}
	if s := beyond.String(); !strings.HasSuffix(s, ")") {
		t.Errorf("a value without a name is %q", s)
	}
	for _, bad := range []string{"nonsense", strings.ToUpper(names[1]), names[1] + " ", beyond.String()} {
		v := of(1)
		if err := parse([]byte(bad), &v); err == nil || v != of(1) {
			t.Errorf("%q: read as %v, %v", bad, v, err)
		}
	}
}

func TestEnums(t *testing.T) {
	t.Run("class", func(t *testing.T) {
		closed(t, func(i uint8) Class { return Class(i) }, func(b []byte, c *Class) error { return c.UnmarshalText(b) }, "live", "bulk")
	})
	t.Run("verdict", func(t *testing.T) {
		closed(t, func(i uint8) Verdict { return Verdict(i) }, func(b []byte, v *Verdict) error { return v.UnmarshalText(b) },
			"unknown", "applied", "unchanged", "invalid", "missing", "throttled", "transient", "unauthorized", "forbidden")
	})
	t.Run("outcome", func(t *testing.T) {
		closed(t, func(i uint8) Outcome { return Outcome(i) }, func(b []byte, o *Outcome) error { return o.UnmarshalText(b) },
			"pending", "applied", "unchanged", "superseded", "dead", "discarded", "cancelled")
	})
	t.Run("reason", func(t *testing.T) {
		closed(t, func(i uint8) Reason { return Reason(i) }, func(b []byte, r *Reason) error { return r.UnmarshalText(b) },
			"", "malformed", "invalid", "missing", "conflict", "refused", "exhausted", "protocol", "stale-redrive", "expired")
	})
}

func TestOutcomesAndReasonsAreWhole(t *testing.T) {
	if got := Outcomes(); len(got) != outcomes-1 || got[0] != Applied || got[len(got)-1] != Cancelled {
		t.Errorf("Outcomes() = %v", got)
	}
	if got := Reasons(); len(got) != reasons-1 || got[0] != Malformed || got[len(got)-1] != Expired {
		t.Errorf("Reasons() = %v", got)
	}
	for _, o := range Outcomes() {
		if Token(o.String()) != o.String() {
			t.Errorf("outcome %q is no subject token", o)
		}
	}
}

func TestVerdictKinds(t *testing.T) {
	success := map[Verdict]bool{VerdictApplied: true, VerdictUnchanged: true}
	permanent := map[Verdict]bool{VerdictInvalid: true, VerdictMissing: true}
	for v := range Verdict(verdicts) {
		if v.Success() != success[v] || v.Permanent() != permanent[v] {
			t.Errorf("%v: success %v, permanent %v", v, v.Success(), v.Permanent())
		}
	}
}

func TestUpdateMark(t *testing.T) {
	at := time.Unix(3, 4)
	u := Update{Class: Bulk, Seq: 9, Stored: at, Version: 5}
	if got, want := u.Mark(), (Mark{Class: Bulk, Seq: 9, Stored: at.UnixNano()}); got != want {
		t.Errorf("without a version: %+v", got)
	}
	u.Versioned = true
	if got, want := u.Mark(), (Mark{Class: Bulk, Seq: 9, Stored: at.UnixNano(), Version: 5, Versioned: true}); got != want {
		t.Errorf("with a version: %+v", got)
	}
	if got := (&Update{}).Mark(); got != (Mark{}) {
		t.Errorf("not stored yet: %+v", got)
	}
}

func TestBadUpdateText(t *testing.T) {
	for want, b := range map[string]*BadUpdate{
		"malformed: why":       {Reason: Malformed, Detail: "why"},
		"invalid: fields: why": {Reason: Invalid, Field: "fields", Detail: "why"},
	} {
		if b.Error() != want {
			t.Errorf("%q, want %q", b.Error(), want)
		}
	}
}
