package contact

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"
	"sync"
	"testing"

	"github.com/santhosh-tekuri/jsonschema/v6"
	"pgregory.net/rapid"
)

var compiled = sync.OnceValues(func() (*jsonschema.Schema, error) {
	doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(Schema()))
	if err != nil {
		return nil, err
	}
	c := jsonschema.NewCompiler()
	c.AssertFormat()
	if err := c.AddResource("urn:crmsync:schema:update", doc); err != nil {
		return nil, err
	}
	return c.Compile("urn:crmsync:schema:update")
})

// bySchema is what the schema says of a body; a body that is not one JSON
// document is refused, as no validator can read it.
func bySchema(t interface{ Fatal(...any) }, body []byte) error {
	s, err := compiled()
	if err != nil {
		t.Fatal(err)
	}
	doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(body))
	if err != nil {
		return err
	}
	return s.Validate(doc)
}

// beyondSchema are the refusals that no JSON Schema can express. Everything
// else in refusals, the schema refuses too.
var beyondSchema = map[string]string{
	"oversize":                              "size in bytes",
	"too deep":                              "depth",
	"nested beyond the library":             "depth",
	"version 1.0":                           "spelling of a number",
	"version exponent":                      "spelling of a number",
	"duplicate at the top":                  "duplicates",
	"duplicate field":                       "duplicates",
	"duplicate by escape":                   "duplicates",
	"duplicate in a value":                  "duplicates",
	"duplicate in an array":                 "duplicates",
	"case variants of a field":              "case variants",
	"case variants in a value":              "case variants",
	"case variants beyond ASCII":            "case variants",
	"case variants among many":              "case variants",
	"case variants beyond ASCII among many": "case variants",
	"invalid UTF-8 in a value":              "encoding",
	"invalid UTF-8 in a name":               "encoding",
	"surrogate as UTF-8":                    "encoding",
	"high surrogate alone":                  "half surrogate pairs",
	"high surrogate and text":               "half surrogate pairs",
	"high surrogate twice":                  "half surrogate pairs",
	"high surrogate and another escape":     "half surrogate pairs",
	"high surrogate and a plain character":  "half surrogate pairs",
	"low surrogate alone":                   "half surrogate pairs",
	"surrogate in a name":                   "half surrogate pairs",
}

func TestSchemaRefusesWhatDecodeRefuses(t *testing.T) {
	seen := map[string]bool{}
	for _, c := range refusals {
		seen[c.name] = true
		err := bySchema(t, []byte(c.body))
		switch why, beyond := beyondSchema[c.name]; {
		case err == nil && !beyond:
			t.Errorf("%s: the schema accepts it", c.name)
		case err != nil && beyond && c.name != "nested beyond the library":
			t.Errorf("%s (%s): the schema can say it: %v", c.name, why, err)
		}
	}
	for name := range beyondSchema {
		if !seen[name] {
			t.Errorf("%q is no refusal", name)
		}
	}
}

func TestSchemaHoldsItsExample(t *testing.T) {
	var s struct {
		ID       string            `json:"$id"`
		Examples []json.RawMessage `json:"examples"`
	}
	if err := json.Unmarshal(Schema(), &s); err != nil {
		t.Fatal(err)
	}
	if len(s.Examples) != 1 {
		t.Fatalf("%d examples", len(s.Examples))
	}
	if err := bySchema(t, s.Examples[0]); err != nil {
		t.Error(err)
	}
	if u := Decode(s.Examples[0], nil); u.Bad != nil || u.Version != 17 || u.OccurredAt.IsZero() {
		t.Errorf("%+v", u)
	}
	if !strings.Contains(string(Schema()), fmt.Sprintf("at most %d bytes", MaxBody)) ||
		!strings.Contains(string(Schema()), fmt.Sprintf("at most %d deep", MaxDepth)) ||
		strings.Count(string(Schema()), fmt.Sprintf(`"maxProperties": %d`, MaxMembers)) != 2 {
		t.Error("the limits in the schema are not those of Decode")
	}
	if b := Schema(); len(b) > 0 {
		b[0] = 'x'
		if Schema()[0] == 'x' {
			t.Error("a caller can change the schema")
		}
	}
}

// anyBody is the text of a body, right or nearly right, in everything that the
// schema can express.
func anyBody() *rapid.Generator[string] {
	pick := func(s ...string) *rapid.Generator[string] { return rapid.SampledFrom(s) }
	name := rapid.OneOf(anyText(), pick("", "a\x7f", "a\u0000", "\u001fb", "é"))
	wild := rapid.OneOf(
		rapid.Map(anyValue(2), func(v json.RawMessage) string { return string(v) }),
		pick(`"\u0000"`, `"a\u007f"`, `["\b"]`, `{"a":"\u001b"}`, `{"\u0001":1}`, `{"":{"":[]}}`, `1e400`, `0`, `-0`, `""`, `[[{"a":[false]}]]`),
	)
	return rapid.Custom(func(t *rapid.T) string {
		var out []string
		add := func(name, value string) { out = append(out, name+":"+value) }
		switch rapid.IntRange(0, 9).Draw(t, "fields") {
		case 0:
		case 1:
			add(`"fields"`, wild.Draw(t, "odd fields"))
		default:
			var fields []string
			for _, n := range rapid.SliceOfNDistinct(name, 0, 4, foldCase).Draw(t, "names") {
				b, err := json.Marshal(n)
				if err != nil {
					t.Fatal(err)
				}
				fields = append(fields, string(b)+" : "+wild.Draw(t, "value"))
			}
			add(`"fields"`, "{"+strings.Join(fields, ",")+"}")
		}
		if rapid.Bool().Draw(t, "has version") {
			add(`"version"`, rapid.OneOf(pick("0", "17", "-1", "-0", "1.5", `"1"`, "null", "9223372036854775807", "9223372036854775808", "1e400", "[]"),
				rapid.Map(rapid.Int64(), func(i int64) string { return fmt.Sprint(i) })).Draw(t, "version"))
		}
		if rapid.Bool().Draw(t, "has time") {
			add(`"occurred_at"`, rapid.OneOf(pick("null", "1", "{}", `""`, `"2026-02-29T00:00:00Z"`, `"2024-02-29T00:00:00Z"`),
				anyTime()).Draw(t, "time"))
		}
		if rapid.IntRange(0, 9).Draw(t, "more") == 0 {
			add(pick(`"FIELDS2"`, `"contact"`, `""`, `"a\u0000"`).Draw(t, "name"), wild.Draw(t, "value"))
		}
		return "{" + strings.Join(rapid.Permutation(out).Draw(t, "order"), ", ") + "}"
	})
}

// anyTime is a time in JSON, with about one fault in two.
func anyTime() *rapid.Generator[string] {
	part := func(good ...string) *rapid.Generator[string] { return rapid.SampledFrom(good) }
	return rapid.Custom(func(t *rapid.T) string {
		fault := rapid.IntRange(0, 20).Draw(t, "fault") // which part may be wrong, if any
		at := 0
		pick := func(good *rapid.Generator[string], bad ...string) string {
			if at++; at == fault {
				return part(bad...).Draw(t, "bad")
			}
			return good.Draw(t, "good")
		}
		return `"` + pick(part("2026", "0000", "9999", "2024"), "26", "12026", "-026") + "-" +
			pick(part("01", "12", "02"), "13", "00", "1") + "-" +
			pick(part("01", "28", "29", "30", "31"), "32", "00", "7") +
			pick(part("T"), "t", " ", "") +
			pick(part("00", "23", "12"), "24", "9", "") + ":" +
			pick(part("00", "59"), "60", "5") + ":" +
			pick(part("00", "59"), "60", "5", "") +
			pick(part("", ".5", ".123456789", ".1234567890123"), ",5", ".", ".x") +
			pick(part("Z", "+00:00", "-23:59"), "z", "+24:00", "+01:60", "+0100", "", "+01", "ZZ", "Z+01:00") + `"`
	})
}

func TestSchemaAndDecodeAgree(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		body := anyBody().Draw(t, "body")
		u, err := Decode([]byte(body), nil), bySchema(t, []byte(body))
		if (u.Bad == nil) != (err == nil) {
			t.Fatalf("%s\nDecode: %v\nschema: %v", body, u.Bad, err)
		}
	})
}

// What Decode accepts and the schema does not: the envelope, which has a
// specification of its own.
func TestSchemaIsOfTheBareBody(t *testing.T) {
	body := []byte(`{` + eventHead + `,"data":{"fields":{"a":1}}}`)
	if u := Decode(body, nil); u.Bad != nil {
		t.Error(u.Bad)
	}
	if bySchema(t, body) == nil {
		t.Error("the schema accepts an envelope")
	}
}

func FuzzDecode(f *testing.F) {
	for _, c := range refusals {
		if len(c.body) < 200 {
			f.Add([]byte(c.body), "", "")
		}
	}
	f.Add([]byte(`{"fields":{"firstname":"Bob","phonenumber":null},"version":17,"occurred_at":"2026-11-21T19:05:00Z"}`), "", "5")
	f.Add([]byte(`{`+eventHead+`,"data":{"fields":{"a":1}}}`), cloudEventsJSON, "")
	f.Add([]byte(`{`+eventHead+`,"data_base64":"eyJmaWVsZHMiOnsiYSI6MX19"}`), "", "")
	f.Fuzz(func(t *testing.T, body []byte, media, row string) {
		u := Decode(body, map[string][]string{"Content-Type": {media}, HeaderRow: {row}})
		if u.Bad != nil {
			if u.Bad.Reason == NoReason || u.Bad.Detail == "" || u.Fields != nil || len(u.Bad.Field) > maxPlace+3 {
				t.Fatalf("%q: %+v", body, u)
			}
			return
		}
		b, err := Encode(u)
		if len(body) > MaxBody/4 {
			return // names may be longer as Encode escapes them
		}
		if err != nil {
			t.Fatalf("%q was accepted and cannot be written: %v", body, err)
		}
		again := Decode(b, nil)
		if again.Bad != nil || !again.Fields.Equal(u.Fields) || again.Version != u.Version || again.Versioned != u.Versioned || !again.OccurredAt.Equal(u.OccurredAt) {
			t.Fatalf("%q -> %q: %+v, %+v", body, b, u, again)
		}
		if err := bySchema(t, b); err != nil {
			t.Fatalf("%q: %v", b, err)
		}
	})
}
