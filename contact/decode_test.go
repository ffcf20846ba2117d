package contact

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"
)

func nested(n int) string { return strings.Repeat("[", n) + strings.Repeat("]", n) }

func manyMembers(n int) string {
	var b strings.Builder
	b.WriteByte('{')
	for i := range n {
		if i > 0 {
			b.WriteByte(',')
		}
		fmt.Fprintf(&b, `"f%d":%d`, i, i)
	}
	b.WriteByte('}')
	return b.String()
}

func sized(n int) string {
	head, tail := `{"fields":{"a":"`, `"}}`
	return head + strings.Repeat("x", n-len(head)-len(tail)) + tail
}

// refusals is every way in which a body is not an update. field is the exact
// place, detail a part of the text.
var refusals = []struct {
	name, body    string
	reason        Reason
	field, detail string
}{
	{"empty", "", Malformed, "", "empty"},
	{"white space", "  \n", Malformed, "", "not one JSON value"},
	{"null", "null", Malformed, "", "not a JSON object"},
	{"array", "[]", Malformed, "", "not a JSON object"},
	{"string", `"x"`, Malformed, "", "not a JSON object"},
	{"number", "42", Malformed, "", "not a JSON object"},
	{"truncated", `{"fields":{"a":1}`, Malformed, "", "near byte 17"},
	{"truncated in a string", `{"fields":{"a":"b`, Malformed, "", "not one JSON value"},
	{"two documents", `{"fields":{"a":1}}{"fields":{"a":2}}`, Malformed, "", "near byte 19"},
	{"trailing garbage", `{"fields":{"a":1}} x`, Malformed, "", "not one JSON value"},
	{"trailing NUL", "{\"fields\":{\"a\":1}}\x00", Malformed, "", "not one JSON value"},
	{"byte order mark", "\ufeff{\"fields\":{\"a\":1}}", Malformed, "", "not one JSON value"},
	{"trailing comma", `{"fields":{"a":1,}}`, Malformed, "", "not one JSON value"},
	{"single quotes", `{'fields':{}}`, Malformed, "", "not one JSON value"},
	{"bare NaN", `{"fields":{"a":NaN}}`, Malformed, "", "not one JSON value"},
	{"leading zero", `{"fields":{"a":01}}`, Malformed, "", "not one JSON value"},
	{"nested beyond the library", `{"fields":{"a":` + nested(20000) + `}}`, Malformed, "", "not one JSON value"},
	{"invalid UTF-8 in a value", "{\"fields\":{\"a\":\"\xff\"}}", Malformed, "", "UTF-8"},
	{"invalid UTF-8 in a name", "{\"fields\":{\"\xc3\":1}}", Malformed, "", "UTF-8"},
	{"surrogate as UTF-8", "{\"fields\":{\"a\":\"\xed\xa0\x80\"}}", Malformed, "", "UTF-8"},
	{"oversize", sized(MaxBody + 1), Malformed, "", "262145 bytes"},

	{"no fields", `{}`, Malformed, "fields", "missing"},
	{"only a version", `{"version":1}`, Malformed, "fields", "missing"},
	{"fields null", `{"fields":null}`, Malformed, "fields", "not a JSON object"},
	{"fields array", `{"fields":[]}`, Malformed, "fields", "not a JSON object"},
	{"fields string", `{"fields":"{}"}`, Malformed, "fields", "not a JSON object"},
	{"fields empty", `{"fields":{}}`, Invalid, "fields", "nothing to change"},
	{"field without a name", `{"fields":{"":1}}`, Invalid, "fields", "without a name"},

	{"version null", `{"fields":{"a":1},"version":null}`, Malformed, "version", "whole number"},
	{"version string", `{"fields":{"a":1},"version":"1"}`, Malformed, "version", "whole number"},
	{"version negative", `{"fields":{"a":1},"version":-1}`, Malformed, "version", "whole number"},
	{"version fraction", `{"fields":{"a":1},"version":1.5}`, Malformed, "version", "whole number"},
	{"version 1.0", `{"fields":{"a":1},"version":1.0}`, Malformed, "version", "digits only"},
	{"version exponent", `{"fields":{"a":1},"version":1e3}`, Malformed, "version", "digits only"},
	{"version too large", `{"fields":{"a":1},"version":9223372036854775808}`, Malformed, "version", "9223372036854775807"},
	{"version object", `{"fields":{"a":1},"version":{}}`, Malformed, "version", "whole number"},

	{"time null", `{"fields":{"a":1},"occurred_at":null}`, Malformed, "occurred_at", "RFC 3339"},
	{"time number", `{"fields":{"a":1},"occurred_at":1763751900}`, Malformed, "occurred_at", "RFC 3339"},
	{"time without a zone", `{"fields":{"a":1},"occurred_at":"2026-11-21T19:05:00"}`, Malformed, "occurred_at", "RFC 3339"},
	{"time without a clock", `{"fields":{"a":1},"occurred_at":"2026-11-21"}`, Malformed, "occurred_at", "RFC 3339"},
	{"time with a space", `{"fields":{"a":1},"occurred_at":"2026-11-21 19:05:00Z"}`, Malformed, "occurred_at", "RFC 3339"},
	{"time with a short hour", `{"fields":{"a":1},"occurred_at":"2026-11-21T9:05:00Z"}`, Malformed, "occurred_at", "RFC 3339"},
	{"time with a comma", `{"fields":{"a":1},"occurred_at":"2026-11-21T19:05:00,5Z"}`, Malformed, "occurred_at", "RFC 3339"},
	{"no such day", `{"fields":{"a":1},"occurred_at":"2026-02-30T19:05:00Z"}`, Malformed, "occurred_at", "RFC 3339"},
	{"no such zone", `{"fields":{"a":1},"occurred_at":"2026-11-21T19:05:00+24:00"}`, Malformed, "occurred_at", "RFC 3339"},

	{"unknown member", `{"fields":{"a":1},"contact":7}`, Malformed, "contact", "unknown member"},
	{"unknown member with trouble inside", `{"fields":{"a":1},"x":{"a":1,"a":2}}`, Malformed, "x", "unknown member"},
	{"case of fields", `{"Fields":{"a":1}}`, Malformed, "Fields", `write it as "fields"`},
	{"case of version", `{"fields":{"a":1},"VERSION":1}`, Malformed, "VERSION", `write it as "version"`},
	{"case of occurred_at", `{"fields":{"a":1},"Occurred_At":"x"}`, Malformed, "Occurred_At", `write it as "occurred_at"`},
	{"both cases of fields", `{"fields":{"a":1},"Fields":{"a":1}}`, Malformed, "fields", "upper and lower case"},

	{"duplicate at the top", `{"fields":{"a":1},"fields":{"b":1}}`, Malformed, "fields", "twice"},
	{"duplicate field", `{"fields":{"a":1,"b":2,"a":1}}`, Malformed, "fields.a", "twice"},
	{"duplicate by escape", `{"fields":{"a":1,"\u0061":2}}`, Malformed, "fields.a", "twice"},
	{"duplicate in a value", `{"fields":{"a":{"b":1,"b":1}}}`, Malformed, "fields.a.b", "twice"},
	{"duplicate in an array", `{"fields":{"a":[1,{"b":{"c":1,"c":2}}]}}`, Malformed, "fields.a.b.c", "twice"},
	{"case variants of a field", `{"fields":{"email":1,"eMail":2}}`, Malformed, "fields.email", "upper and lower case"},
	{"case variants in a value", `{"fields":{"a":{"b":1,"B":1}}}`, Malformed, "fields.a.b", "upper and lower case"},
	{"case variants beyond ASCII", `{"fields":{"straſe":1,"strase":2}}`, Malformed, "fields.straſe", "upper and lower case"},
	{"case variants among many", `{"fields":{"F7":0,` + manyMembers(20)[1:] + `}`, Malformed, "fields.f7", "upper and lower case"},
	{"case variants beyond ASCII among many", `{"fields":{"\u212A":0,"k":1,` + manyMembers(20)[1:] + `}`, Malformed, "fields.\u212a", "upper and lower case"},

	{"high surrogate alone", `{"fields":{"a":"\ud83d"}}`, Malformed, "fields.a", "surrogate"},
	{"high surrogate and text", `{"fields":{"a":"\ud83dxxxxxx"}}`, Malformed, "fields.a", "surrogate"},
	{"high surrogate and another escape", `{"fields":{"a":"\ud83d\n"}}`, Malformed, "fields.a", "surrogate"},
	{"high surrogate twice", `{"fields":{"a":"\ud83d\ud83d"}}`, Malformed, "fields.a", "surrogate"},
	{"high surrogate and a plain character", `{"fields":{"a":"\ud83d\uE000"}}`, Malformed, "fields.a", "surrogate"},
	{"low surrogate alone", `{"fields":{"a":"\uDE00"}}`, Malformed, "fields.a", "surrogate"},
	{"surrogate in a name", `{"fields":{"\ud83d":1}}`, Malformed, "fields", "surrogate"},
	{"surrogate in a top name", `{"\ud83d":1}`, Malformed, "", "surrogate"},

	{"raw control character", "{\"fields\":{\"a\":\"\x01\"}}", Malformed, "", "not one JSON value"},
	{"raw newline", "{\"fields\":{\"a\":\"\n\"}}", Malformed, "", "not one JSON value"},
	{"raw DEL", "{\"fields\":{\"a\":\"\x7f\"}}", Malformed, "fields.a", "control character"},
	{"raw DEL in a name", "{\"fields\":{\"\x7f\":1}}", Malformed, "fields", "control character"},
	{"NUL", `{"fields":{"a":"\u0000"}}`, Malformed, "fields.a", "control character"},
	{"escape", `{"fields":{"a":["\u001B"]}}`, Malformed, "fields.a", "control character"},
	{"unit separator", `{"fields":{"a":"\u001f"}}`, Malformed, "fields.a", "control character"},
	{"DEL", `{"fields":{"a":"\u007F"}}`, Malformed, "fields.a", "control character"},
	{"backspace", `{"fields":{"a":"\b"}}`, Malformed, "fields.a", "control character"},
	{"form feed", `{"fields":{"a":"\f"}}`, Malformed, "fields.a", "control character"},
	{"control character in a name", `{"fields":{"a":{"\u0007":1}}}`, Malformed, "fields.a", "control character"},

	{"too deep", `{"fields":{"a":` + nested(MaxDepth-1) + `}}`, Malformed, "fields.a", "deeper than 16"},
	{"too many fields", `{"fields":` + manyMembers(MaxMembers+1) + `}`, Malformed, "fields", "more than 256"},
	{"too many members in a value", `{"fields":{"a":` + manyMembers(MaxMembers+1) + `}}`, Malformed, "fields.a", "more than 256"},
	{"too many members at the top", manyMembers(MaxMembers + 1), Malformed, "", "more than 256"},
}

func TestDecodeRefuses(t *testing.T) {
	for _, c := range refusals {
		t.Run(c.name, func(t *testing.T) { refused(t, Decode([]byte(c.body), nil), c.reason, c.field, c.detail) })
	}
}

func refused(t *testing.T, u *Update, reason Reason, field, detail string) {
	t.Helper()
	if u.Bad == nil {
		t.Fatal("was accepted")
	}
	if u.Bad.Reason != reason || u.Bad.Field != field || !strings.Contains(u.Bad.Detail, detail) {
		t.Errorf("%+v; want %v at %q with %q", *u.Bad, reason, field, detail)
	}
	if u.Fields != nil || u.Version != 0 || u.Versioned || !u.OccurredAt.IsZero() {
		t.Errorf("a bad update holds %v %v %v %v", u.Fields, u.Version, u.Versioned, u.OccurredAt)
	}
}

func TestDecodeAccepts(t *testing.T) {
	for name, c := range map[string]struct{ body, fields string }{
		"plain":               {`{"fields":{"a":1}}`, `{"a":1}`},
		"white space":         {" \r\n\t{ \"fields\" : { \"b\" : null , \"a\" : [ 1 , 2 ] } } \n", `{"a":[1,2],"b":null}`},
		"sorted":              {`{"fields":{"b":1,"a":2,"Z":3}}`, `{"Z":3,"a":2,"b":1}`},
		"order of an object":  {`{"fields":{"a":{"z":1,"b":2}}}`, `{"a":{"z":1,"b":2}}`},
		"text":                {`{"fields":{"a":"é\t\n\r\"\\\/\u0009\u000a\u000D <&>"}}`, `{"a":"é\t\n\r\"\\\/\u0009\u000a\u000D <&>"}`},
		"surrogate pair":      {`{"fields":{"\ud83d\uDE00":"\uD83D\ude00"}}`, `{"😀":"\uD83D\ude00"}`},
		"escaped backslash":   {`{"fields":{"a":"\\ud83d\\u0000\\"}}`, `{"a":"\\ud83d\\u0000\\"}`},
		"C1 is text":          {"{\"fields\":{\"a\":\"\u0085\\u0085\"}}", "{\"a\":\"\u0085\\u0085\"}"},
		"same name elsewhere": {`{"fields":{"a":{"a":{"a":1}},"fields":{"version":1}}}`, `{"a":{"a":{"a":1}},"fields":{"version":1}}`},
		"no number is lost":   {`{"fields":{"a":1e400,"b":12345678901234567890.10}}`, `{"a":1e400,"b":12345678901234567890.10}`},
		"as deep as allowed":  {`{"fields":{"a":` + nested(MaxDepth-2) + `}}`, `{"a":` + nested(MaxDepth-2) + `}`},
		"deep with a scalar":  {`{"fields":{"a":` + strings.Repeat("[", 14) + "1" + strings.Repeat("]", 14) + `}}`, `{"a":` + strings.Repeat("[", 14) + "1" + strings.Repeat("]", 14) + `}`},
		"structure in text":   {`{"fields":{"a":"}],{\"","b":"["}}`, `{"a":"}],{\"","b":"["}`},
	} {
		t.Run(name, func(t *testing.T) {
			u := Decode([]byte(c.body), nil)
			if u.Bad != nil {
				t.Fatal(u.Bad)
			}
			got, err := u.Fields.MarshalJSON()
			if err != nil || string(got) != c.fields {
				t.Errorf("%s, %v; want %s", got, err, c.fields)
			}
			if u.Versioned || !u.OccurredAt.IsZero() {
				t.Errorf("out of nowhere: %v %v", u.Version, u.OccurredAt)
			}
		})
	}
	for _, body := range []string{sized(MaxBody), `{"fields":` + manyMembers(MaxMembers) + `}`} {
		if u := Decode([]byte(body), nil); u.Bad != nil {
			t.Errorf("at the limit: %v", u.Bad)
		}
	}
}

func TestDecodeVersionAndTime(t *testing.T) {
	for text, want := range map[string]int64{"0": 0, "-0": 0, "17": 17, "9223372036854775807": 1<<63 - 1} {
		u := Decode([]byte(`{"version": `+text+` ,"fields":{"a":1}}`), nil)
		if u.Bad != nil || !u.Versioned || u.Version != want {
			t.Errorf("version %s: %v %v %v", text, u.Version, u.Versioned, u.Bad)
		}
	}
	for text, want := range map[string]time.Time{
		"2026-11-21T19:05:00Z":                time.Date(2026, 11, 21, 19, 5, 0, 0, time.UTC),
		"2026-11-21T19:05:00.123456789+05:30": time.Date(2026, 11, 21, 13, 35, 0, 123456789, time.UTC),
		"2026-11-21T19:05:00\\u005a":          time.Date(2026, 11, 21, 19, 5, 0, 0, time.UTC),
	} {
		u := Decode([]byte(`{"fields":{"a":1},"occurred_at":"`+text+`"}`), nil)
		if u.Bad != nil || !u.OccurredAt.Equal(want) {
			t.Errorf("occurred_at %s: %v %v", text, u.OccurredAt, u.Bad)
		}
	}
}

func TestDecodeHeaders(t *testing.T) {
	body := []byte(`{"fields":{"a":1}}`)
	h := map[string][]string{
		HeaderMsgID: {"m1", "m2"}, HeaderJob: {"j"}, HeaderRow: {"12"}, HeaderRedriveOf: {"r"}, HeaderTraceParent: {"tp"},
	}
	u := Decode(body, h)
	if u.Bad != nil || u.MsgID != "m1" || u.Job != "j" || u.Row != 12 || u.RedriveOf != "r" || u.TraceParent != "tp" {
		t.Errorf("%+v", u)
	}
	if !bytes.Equal(u.Raw, body) || len(u.Header) != len(h) {
		t.Error("the message as it came is not kept")
	}
	u = Decode(body, map[string][]string{"nats-msg-id": {"low"}, "NATS-MSG-ID": {"up"}, "Traceparent": {"tp"}, HeaderJob: {}})
	if u.MsgID != "up" || u.TraceParent != "tp" || u.Job != "" {
		t.Errorf("other spellings: %+v", u)
	}
	u = Decode(body, map[string][]string{HeaderMsgID: {"exact"}, "NATS-MSG-ID": {"up"}})
	if u.MsgID != "exact" {
		t.Errorf("the exact spelling does not win: %q", u.MsgID)
	}
	for _, row := range []string{"0", "-1", "x", "1.5", " 1", "9223372036854775808"} {
		u := Decode(body, map[string][]string{HeaderRow: {row}, HeaderJob: {"j"}})
		refused(t, u, Malformed, "", HeaderRow)
		if u.Job != "j" || u.Row != 0 {
			t.Errorf("row %q: job %q, row %d", row, u.Job, u.Row)
		}
	}
	bad := Decode([]byte("{"), h)
	if bad.Bad == nil || string(bad.Raw) != "{" || bad.MsgID != "m1" || bad.Job != "j" || bad.Row != 12 {
		t.Errorf("a bad update lost what its headers say: %+v", bad)
	}
}

// An error may name members, never values, and stays short.
func TestErrorsHoldNoValues(t *testing.T) {
	for _, body := range []string{
		`{"fields":{"a":"s3cret\u0000"}}`, `{"fields":"s3cret"}`, `{"fields":{"a":1},"version":"s3cret"}`,
		`{"fields":{"a":1},"occurred_at":"s3cret"}`, `{"fields":{"a":s3cret}}`, `{"x":"s3cret"}`,
	} {
		if u := Decode([]byte(body), nil); u.Bad == nil || strings.Contains(u.Bad.Error(), "s3c") {
			t.Errorf("%s: %v", body, u.Bad)
		}
	}
	long := strings.Repeat("é", 10000)
	for _, body := range []string{`{"` + long + `":1}`, `{"fields":{"` + long + `":"\u0000"}}`, `{"fields":{"` + long + `":1,"` + long + `":1}}`} {
		if u := Decode([]byte(body), nil); u.Bad == nil || len(u.Bad.Error()) > 2*maxPlace || strings.Contains(u.Bad.Error(), "\ufffd") {
			t.Errorf("%d bytes: %.300v", len(body), u.Bad)
		}
	}
}

func TestEncodeRefusesWhatDecodeRefuses(t *testing.T) {
	one := Patch{{"a", []byte("1")}}
	for name, u := range map[string]*Update{
		"no fields":          {},
		"negative version":   {Fields: one, Version: -1, Versioned: true},
		"name without UTF-8": {Fields: Patch{{"\xff", []byte("1")}}},
		"value not JSON":     {Fields: Patch{{"a", []byte("s3cret")}}},
		"value missing":      {Fields: Patch{{"a", nil}}},
		"control character":  {Fields: Patch{{"a", []byte(`"\u0000"`)}}},
		"duplicate":          {Fields: Patch{{"a", []byte("1")}, {"a", []byte("2")}}},
		"too large":          {Fields: Patch{{"a", []byte(`"` + strings.Repeat("x", MaxBody) + `"`)}}},
		"year 10000":         {Fields: one, OccurredAt: time.Date(10000, 1, 1, 0, 0, 0, 0, time.UTC)},
	} {
		u.Contact = Key{"office", "7"}
		b, err := Encode(u)
		if err == nil || !strings.Contains(err.Error(), "office/7") || strings.Contains(err.Error(), "s3cret") {
			t.Errorf("%s: %.100s, %v", name, b, err)
		}
	}
	_, err := Encode(&Update{Fields: Patch{{"a", []byte(`"\u0000"`)}}})
	if bad := (*BadUpdate)(nil); !errors.As(err, &bad) || bad.Field != "fields.a" {
		t.Errorf("the refusal is not in the error: %v", err)
	}
	b, err := Encode(&Update{Fields: Patch{{"a", []byte(`"<&>"`)}}})
	if err != nil || string(b) != `{"fields":{"a":"<&>"}}` {
		t.Errorf("%s, %v", b, err)
	}
}

func TestDecodeOfEncode(t *testing.T) {
	zone := rapid.SampledFrom([]*time.Location{time.UTC, time.FixedZone("", 5*3600+1800), time.FixedZone("LMT", 3208), time.FixedZone("", -43200)})
	rapid.Check(t, func(t *rapid.T) {
		u := &Update{Fields: anyPatch().Filter(func(p Patch) bool { return len(p) > 0 }).Draw(t, "fields")}
		if u.Versioned = rapid.Bool().Draw(t, "versioned"); u.Versioned {
			u.Version = rapid.Int64Min(0).Draw(t, "version")
		}
		if rapid.Bool().Draw(t, "dated") {
			u.OccurredAt = time.Unix(rapid.Int64Range(-6e10, 2e11).Draw(t, "sec"), rapid.Int64Range(0, 999999999).Draw(t, "nsec")).In(zone.Draw(t, "zone"))
		}
		b, err := Encode(u)
		if err != nil {
			t.Fatal(err)
		}
		got := Decode(b, nil)
		if got.Bad != nil || !got.Fields.Equal(u.Fields) || got.Version != u.Version || got.Versioned != u.Versioned || !got.OccurredAt.Equal(u.OccurredAt) {
			t.Fatalf("%s\n%+v\n%+v", b, u, got)
		}
		again, err := Encode(got)
		if err != nil || !bytes.Equal(again, b) {
			t.Fatalf("%s\n%s, %v", b, again, err)
		}
	})
}
