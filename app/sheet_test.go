package app

import (
	"encoding/csv"
	"encoding/json"
	"regexp"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

func TestHarmlessText(t *testing.T) {
	for in, want := range map[string]string{
		"=1+1": "'=1+1", "+44 1": "'+44 1", "-3": "'-3", "@x": "'@x", "\tx": "'\tx", "\rx": "'\rx",
		"'=1": "''=1", "'x": "'x", "x=1": "x=1", "": "", "''": "''", "Ann": "Ann",
		"\nx": "'\nx", "Bob;=1": "Bob;'=1", "a\n\"'+1": "a\n'\"'+1", "a; -1;b": "a; -1;b", "a\t@x\r-y": "a\t'@x\r'-y",
	} {
		if got := harmlessText(in); got != want {
			t.Errorf("%q becomes %q, want %q", in, got, want)
		}
	}
}

// No text runs, and none is changed by the way out and back.
func TestHarmlessTextComesBack(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := rapid.OneOf(rapid.String(), rapid.StringMatching(`[='+\-@\t\r]{0,4}[a-z]{0,3}`), rapid.StringMatching(`[=+;'"\t\r\na]{0,8}`)).Draw(t, "text")
		h := harmlessText(s)
		if h != "" && strings.ContainsRune("=+-@\t\r\n", rune(h[0])) || regexp.MustCompile(`[;\t\n\r]"*[=+\-@]`).MatchString(h) {
			t.Fatalf("%q runs", h)
		}
		if got := plainText(h); got != s {
			t.Fatalf("%q comes back as %q", s, got)
		}
	})
}

func FuzzHarmlessText(f *testing.F) {
	for _, s := range []string{"=cmd|' /C calc'!A0", "'+44", "\t=1", "\"=1\"", "a\n=1"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		var b strings.Builder
		w := csv.NewWriter(&b)
		if err := w.Write([]string{harmlessText(s), "x"}); err != nil {
			t.Fatal(err)
		}
		w.Flush()
		row, err := csv.NewReader(strings.NewReader(b.String())).Read()
		if err != nil {
			t.Fatal(err)
		}
		if want := strings.ReplaceAll(s, "\r\n", "\n"); plainText(row[0]) != want { // a CSV has one kind of line end
			t.Fatalf("%q comes back as %q", s, plainText(row[0]))
		}
	})
}

func TestCellText(t *testing.T) {
	for in, want := range map[string]string{
		`"Ann"`: "Ann", `null`: "", `true`: "true", `12.50`: "12.50", `[1,"2",3]`: "1,2,3", `[]`: "",
		`{"contact":["A","B"]}`: "A,B", `[{"reference":"x"}]`: `[{"reference":"x"}]`, `["a,b"]`: `["a,b"]`, `{"a":1,"b":2}`: `{"a":1,"b":2}`,
	} {
		if got := cellText(json.RawMessage(in)); got != want {
			t.Errorf("%s becomes %q, want %q", in, got, want)
		}
	}
}
