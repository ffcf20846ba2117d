package contact

import (
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"
)

func anyPlace() *rapid.Generator[Place] {
	return rapid.Custom(func(t *rapid.T) Place {
		return Place{
			Class: rapid.SampledFrom([]Class{Live, Bulk}).Draw(t, "class"), Seq: rapid.Uint64Min(1).Draw(t, "seq"),
			Stored: time.Unix(0, rapid.Int64Min(1).Draw(t, "stored")).UTC(),
		}
	})
}

func TestPlaceReadsBack(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		p := anyPlace().Draw(t, "place")
		if got, err := ParsePlace(p.String()); err != nil || got != p || got.IsZero() {
			t.Fatalf("%s: %+v %v", p, got, err)
		}
	})
	if !(Place{}).IsZero() {
		t.Error("no place is one")
	}
}

func FuzzParsePlace(f *testing.F) {
	for _, s := range []string{"live,1,1", "bulk,18446744073709551615,9223372036854775807", "", "live,0,1", "live,01,1", "live,+1,1", "live,1,-1", "Live,1,1", "live,1", "live,1,1,1"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		p, err := ParsePlace(s)
		if err == nil && (p.String() != s || p.Seq == 0 || p.IsZero()) {
			t.Errorf("%q is read as %+v", s, p)
		}
	})
}

func TestHeadersOfARedrive(t *testing.T) {
	body := []byte(`{"fields":{"a":1},"version":4}`)
	header := map[string][]string{
		HeaderRedriveOf: {"7"}, HeaderOperation: {"op"}, HeaderRedriveRoot: {"3"}, HeaderRedriveBy: {"alice"}, HeaderEdited: {"bob"}, HeaderOrder: {"live,5,1000"}, HeaderMaybeSent: {"1"},
	}
	u := Decode(body, header)
	u.Class, u.Seq, u.Stored = Bulk, 9, time.Unix(9, 0)
	want := Redrive{Operation: "op", Root: "3", By: "alice", Edited: "bob", Order: Place{Live, 5, time.Unix(0, 1000).UTC()}, MaybeSent: true}
	if u.Bad != nil || u.Redrive == nil || *u.Redrive != want {
		t.Fatalf("%+v %v", u.Redrive, u.Bad)
	}
	if u.Place() != want.Order || u.Mark() != (Mark{Class: Live, Seq: 5, Stored: 1000, Version: 4, Versioned: true}) {
		t.Errorf("it counts at %+v", u.Mark())
	}
	u.Redrive.Force = true
	if u.Mark() != (Mark{Class: Bulk, Seq: 9, Stored: 9e9}) {
		t.Errorf("forced it counts at %+v", u.Mark())
	}
	header[HeaderForce] = []string{"1"}
	if u = Decode(body, header); u.Bad != nil || !u.Redrive.Force {
		t.Errorf("%+v %v", u.Redrive, u.Bad)
	}
	if u = Decode(body, map[string][]string{HeaderRedriveOf: {"7"}}); u.Bad != nil || u.Redrive != nil {
		t.Errorf("by hand: %+v %v", u.Redrive, u.Bad)
	}
	for _, c := range []struct{ name, value, of, says string }{
		{HeaderOrder, "live,5", "7", HeaderOrder},
		{HeaderOrder, "live,0,1", "7", HeaderOrder},
		{HeaderForce, "yes", "7", HeaderForce},
		{HeaderMaybeSent, "0", "7", HeaderMaybeSent},
		{HeaderOrder, "live,5,1000", "", HeaderRedriveOf},
		{HeaderForce, "1", "", HeaderRedriveOf},
		{HeaderOperation, "op", "", HeaderRedriveOf},
	} {
		u := Decode(body, map[string][]string{HeaderRedriveOf: {c.of}, c.name: {c.value}})
		if u.Bad == nil || u.Bad.Reason != Malformed || !strings.Contains(u.Bad.Error(), c.says) || u.Fields != nil {
			t.Errorf("%s %q of %q: %v", c.name, c.value, c.of, u.Bad)
		}
	}
}
