package contact

import (
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

// parsed is a patch from text that is known to be one.
func parsed(text string) Patch {
	p, err := ParsePatch([]byte(text))
	if err != nil {
		panic(err)
	}
	return p
}

func patchText(t interface{ Fatal(...any) }, p Patch) string {
	b, err := p.MarshalJSON()
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func TestPatchBasics(t *testing.T) {
	p := parsed(`{"b":{"z":1,"y":2},"a":null}`)
	if !slices.Equal(p.Names(), []string{"a", "b"}) {
		t.Error(p.Names())
	}
	for name, want := range map[string]string{"a": "null", "b": `{"z":1,"y":2}`} {
		if v, ok := p.Get(name); !ok || string(v) != want {
			t.Errorf("%s: %s %v", name, v, ok)
		}
	}
	for _, name := range []string{"", "A", "aa", "c"} {
		if v, ok := p.Get(name); ok || v != nil {
			t.Errorf("%q: %s", name, v)
		}
	}
	q := p.With("aa", json.RawMessage("1")).With("a", json.RawMessage("2")).With("z", json.RawMessage("3"))
	if got := patchText(t, q); got != `{"a":2,"aa":1,"b":{"z":1,"y":2},"z":3}` {
		t.Error(got)
	}
	if got := patchText(t, p); got != `{"a":null,"b":{"z":1,"y":2}}` {
		t.Errorf("With changed its patch: %s", got)
	}
	if got := patchText(t, nil); got != "{}" {
		t.Error(got)
	}
	if got := patchText(t, Patch(nil).With("a", json.RawMessage("1"))); got != `{"a":1}` {
		t.Error(got)
	}
}

func TestPatchEqual(t *testing.T) {
	a := parsed(`{"a":{"x":1,"y":[1,2]}}`)
	for text, want := range map[string]bool{
		`{"a":{"x":1,"y":[1,2]}}`:           true,
		`{ "a" : { "x":1, "y" : [1, 2] } }`: true,
		`{"a":{"y":[1,2],"x":1}}`:           false,
		`{"b":{"x":1,"y":[1,2]}}`:           false,
		`{"a":{"x":1,"y":[1,2]},"b":1}`:     false,
		`{}`:                                false,
	} {
		if a.Equal(parsed(text)) != want || parsed(text).Equal(a) != want {
			t.Errorf("%s: not %v", text, want)
		}
	}
	broken := Patch{{"a", json.RawMessage("x")}}
	if broken.Equal(Patch{{"a", json.RawMessage("y")}}) || broken.Equal(parsed(`{"a":1}`)) {
		t.Error("values that are not JSON are equal")
	}
}

func TestPatchJSON(t *testing.T) {
	src := []byte(`{"p":{"b":1,"a":"<é>"}}`)
	var doc struct {
		P Patch `json:"p"`
	}
	if err := json.Unmarshal(src, &doc); err != nil {
		t.Fatal(err)
	}
	for i := range src {
		src[i] = 'x' // the decoder's buffer is not ours
	}
	if got := patchText(t, doc.P); got != `{"a":"<é>","b":1}` {
		t.Error(got)
	}
	for _, text := range []string{`null`, `[]`, `{"a":1,"a":2}`, `{"a":1,"A":2}`, `{"a":"\u0000"}`, `{"a":"\ud800"}`} {
		p := parsed(`{"kept":1}`)
		err := p.UnmarshalJSON([]byte(text))
		if bad := (*BadUpdate)(nil); !errors.As(err, &bad) || bad.Reason != Malformed || len(p) != 1 {
			t.Errorf("%s: %v, %v", text, p, err)
		}
		if p, err := ParsePatch([]byte(text)); err == nil || p != nil {
			t.Errorf("ParsePatch(%s) = %v, %v", text, p, err)
		}
	}
	for _, text := range []string{``, `{`, `{} {}`, "{\"\xff\":1}"} {
		if _, err := ParsePatch([]byte(text)); err == nil {
			t.Errorf("ParsePatch(%q) accepted it", text)
		}
	}
	for _, p := range []Patch{{{"\xff", json.RawMessage("1")}}, {{"a", json.RawMessage("s3cret")}}, {{"a", nil}}} {
		if b, err := p.MarshalJSON(); err == nil || strings.Contains(err.Error(), "s3cret") {
			t.Errorf("%s, %v", b, err)
		}
	}
}

func TestRulesAlone(t *testing.T) {
	for text, want := range map[string]bool{
		`{"a":1}`: false, `{"a":null}`: false, `{"addr":{"city":null}}`: false, `{"addr": {}}`: false,
		`{"addr":null}`: true, `{"addr":"x"}`: true, `{"addr":[{}]}`: true, `{"a":1,"x.y":1}`: true,
		`{"mail":true}`: true, `{"mail":false,"a":1}`: true, `{"Mail":1}`: false,
	} {
		if got := testRules.Alone(parsed(text)); got != want {
			t.Errorf("%s: %v", text, got)
		}
		if (Rules{}).Alone(parsed(text)) {
			t.Errorf("%s: alone without rules", text)
		}
	}
}

func TestMerge(t *testing.T) {
	for _, c := range []struct{ older, newer, want string }{
		{`{}`, `{}`, `{}`},
		{`{"a":1}`, `{}`, `{"a":1}`},
		{`{}`, `{"a":1}`, `{"a":1}`},
		{`{"a":1,"c":1}`, `{"b":2,"c":null}`, `{"a":1,"b":2,"c":null}`},
		{`{"o":{"x":1}}`, `{"o":{"y":2}}`, `{"o":{"y":2}}`},
		{`{"addr":{"x":1,"z":1}}`, `{"addr":{"y":2,"z":null}}`, `{"addr":{"x":1,"y":2,"z":null}}`},
		{`{"addr":{"x":{"p":1}}}`, `{"addr":{"x":{"q":1}}}`, `{"addr":{"x":{"q":1}}}`},
		{`{"addr":{"z":1,"y":1}}`, `{}`, `{"addr":{"z":1,"y":1}}`},
		{`{"addr":{"z":1}}`, `{"addr":{}}`, `{"addr":{"z":1}}`},
		{`{"addr":{"z":1}}`, `{"addr":null}`, `{"addr":null}`},
		{`{"addr":null}`, `{"addr":{"z":1}}`, `{"addr":{"z":1}}`},
		{`{"addr":{"city":1}}`, `{"addr":{"City":2}}`, `{"addr":{"City":2,"city":1}}`},
	} {
		if got := patchText(t, testRules.Merge(parsed(c.older), parsed(c.newer))); got != c.want {
			t.Errorf("%s + %s = %s, want %s", c.older, c.newer, got, c.want)
		}
	}
}

// What is merged may have more members, and members closer in name, than one
// update may; none must be lost by that.
func TestMergeKeepsManyMembers(t *testing.T) {
	var p Patch
	for i := range 4 {
		text := strings.ReplaceAll(manyMembers(200), `"f`, `"`+string(rune('a'+i)))
		p = testRules.Merge(p, Patch{{"addr", json.RawMessage(text)}})
	}
	p = testRules.Merge(p, parsed(`{"addr":{"A0":1}}`))
	p = testRules.Merge(p, parsed(`{"addr":{"A1":1}}`))
	if n := len(testRules.Paths(p)); n != 802 {
		t.Errorf("%d paths, want 802", n)
	}
}

// document is what a CRM holds: whole fields, and objects of Deep fields member
// by member.
type document map[string]any

func (d document) apply(r Rules, p Patch) {
	for _, f := range p {
		m, deep := r.members(f)
		if !deep {
			d[f.Name] = compact(f.Value)
			continue
		}
		o, ok := d[f.Name].(map[string]string)
		if !ok {
			o = map[string]string{}
			d[f.Name] = o
		}
		for _, g := range m {
			o[g.Name] = compact(g.Value)
		}
	}
}

func compact(v json.RawMessage) string {
	b, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	return string(b)
}

func (d document) String() string {
	b, err := json.Marshal(d)
	if err != nil {
		panic(err)
	}
	return string(b)
}

func TestMergeIsAssociativeAndEqualsOneByOne(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		p := make([]Patch, 3)
		base := foldPatch(true).Draw(t, "base")
		oneByOne, merged := document{}, document{}
		oneByOne.apply(testRules, base)
		merged.apply(testRules, base)
		for i := range p {
			p[i] = foldPatch(true).Draw(t, "patch")
			oneByOne.apply(testRules, p[i])
		}
		left := testRules.Merge(testRules.Merge(p[0], p[1]), p[2])
		right := testRules.Merge(p[0], testRules.Merge(p[1], p[2]))
		if !left.Equal(right) {
			t.Fatalf("not associative: %s, %s", patchText(t, left), patchText(t, right))
		}
		if !slices.IsSortedFunc(left, byName) {
			t.Fatalf("not sorted: %v", left.Names())
		}
		if merged.apply(testRules, left); merged.String() != oneByOne.String() {
			t.Fatalf("merged: %s, one by one: %s", merged, oneByOne)
		}
	})
}

func TestPaths(t *testing.T) {
	p := parsed(`{"a":{"x":1},"b.c":1,"d\\":1,"addr":{"city":1,"a.b":null,"":0},"x.y":{"z\\":1},"addr2":{}}`)
	want := []string{"a", `addr.`, `addr.a\.b`, "addr.city", "addr2", `b\.c`, `d\\`, `x\.y.z\\`}
	if got := testRules.Paths(p); !slices.Equal(got, want) {
		t.Errorf("%q", got)
	}
	if got := testRules.Paths(parsed(`{"addr":{}}`)); len(got) != 0 {
		t.Errorf("an empty object touches %q", got)
	}
	if got := testRules.Paths(parsed(`{"addr":null}`)); !slices.Equal(got, []string{"addr"}) {
		t.Errorf("%q", got)
	}
	if got := (Rules{}).Paths(parsed(`{"addr":{"city":1}}`)); !slices.Equal(got, []string{"addr"}) {
		t.Errorf("%q", got)
	}
}

func TestWithout(t *testing.T) {
	p := parsed(`{"a":1,"addr":{"zip":1,"city":2},"x.y":{}}`)
	for _, c := range []struct {
		drop []string
		want string
	}{
		{nil, `{"a":1,"addr":{"zip":1,"city":2},"x.y":{}}`},
		{[]string{"b", "addr", "city"}, `{"a":1,"addr":{"zip":1,"city":2},"x.y":{}}`},
		{[]string{"a"}, `{"addr":{"zip":1,"city":2},"x.y":{}}`},
		{[]string{"addr.zip"}, `{"a":1,"addr":{"city":2},"x.y":{}}`},
		{[]string{"addr.zip", "addr.city"}, `{"a":1,"x.y":{}}`},
		{[]string{`x\.y`}, `{"a":1,"addr":{"zip":1,"city":2}}`},
		{[]string{"a", "addr.zip", "addr.city", `x\.y`}, `{}`},
	} {
		got, cut := testRules.Without(p, func(path string) bool { return slices.Contains(c.drop, path) })
		if patchText(t, got) != c.want || cut != (c.want != patchText(t, p)) {
			t.Errorf("without %q: %s, %v", c.drop, patchText(t, got), cut)
		}
	}
}

func TestWithoutLeavesTheOtherPaths(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		p := foldPatch(false).Draw(t, "patch")
		var gone, stay []string
		for _, path := range testRules.Paths(p) {
			if rapid.Bool().Draw(t, "drop") {
				gone = append(gone, path)
			} else {
				stay = append(stay, path)
			}
		}
		got, cut := testRules.Without(p, func(path string) bool { return slices.Contains(gone, path) })
		if left := testRules.Paths(got); !slices.Equal(left, stay) || cut != (len(gone) > 0) {
			t.Fatalf("%s without %q: %q, %v", patchText(t, p), gone, left, cut)
		}
	})
}

// Values that were not decoded by this package are split as a CRM would read
// them: the last of duplicates counts, and no name is lost.
func TestMembersOfUncheckedValues(t *testing.T) {
	odd := Patch{{"addr", json.RawMessage(`{"c":1,"\u0001":0,"c":2}`)}}
	if got := testRules.Paths(odd); !slices.Equal(got, []string{"addr.\x01", "addr.c"}) {
		t.Errorf("%q", got)
	}
	if got := patchText(t, testRules.Merge(parsed(`{"addr":{"z":3}}`), odd)); got != `{"addr":{"\u0001":0,"c":2,"z":3}}` {
		t.Error(got)
	}
}
