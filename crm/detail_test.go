package crm

import (
	"encoding/json"
	"html"
	"net/url"
	"slices"
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"

	"crmsync/contact"
)

func TestDetail(t *testing.T) {
	long := strings.Repeat("é", 400)
	for _, tt := range []struct {
		name, body string
		secrets    []string
		want       string
	}{
		{"plain", "The Email field is required.", nil, "The Email field is required."},
		{"tags", "<p>The Email field\n is <b>required</b>.</p>\n", nil, "The Email field is required ."},
		{"scripts and styles", "<style>a{}</style><h1>Oops</h1><script>secret()</script>", nil, "Oops"},
		{"not a tag", "1 < 2 > 0", nil, "1 < 2 > 0"},
		{"entities", "a &amp; b", nil, "a & b"},
		{"controls", "a\x1b[31mb\x00c\r\nd\u202ee", nil, `a\u001b[31mb\u0000c d\u202ee`},
		{"invalid UTF-8", "a\xff\xfeb", nil, "a\uFFFDb"},
		{"secret", "token s3cr3t-token refused", []string{"s3cr3t-token"}, "token [redacted] refused"},
		{"any case", "bob@X.io is taken", []string{"BOB@x.io"}, "[redacted] is taken"},
		{"HTML-escaped", "no: O&#39;Neil &amp; Co", []string{"O'Neil & Co"}, "no: [redacted]"},
		{"JSON-escaped", `no: a\/b\u00e9`, []string{"a/b"}, `no: [redacted]\u00e9`},
		{"URL-escaped", "no: a%2Fb%20c and a%2Fb+c", []string{"a/b c"}, "no: [redacted] and [redacted]"},
		{"spaces folded", "no: ab  cd", []string{"ab \t cd"}, "no: [redacted]"},
		{"longest first", "abcdef", []string{"abcd", "abcdef"}, "[redacted]"},
		{"short values stay", "the abc is wrong", []string{"abc", ""}, "the abc is wrong"},
		{"cut at a rune", long, nil, strings.Repeat("é", 148) + "…"},
		{"empty", "", nil, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got := Detail([]byte(tt.body), tt.secrets...); got != tt.want {
				t.Errorf("%q, want %q", got, tt.want)
			}
		})
	}
	secret := "a-long-secret-value"
	for n := range len(secret) { // cut off within a secret, and little shown before it
		body := "<" + strings.Repeat("p", maxRead-2-n) + ">" + secret
		if got := Detail([]byte(body), secret); strings.Contains(got, "a") {
			t.Errorf("%d bytes of a secret stand in %q", n, got)
		}
	}
	if got := Detail([]byte(strings.Repeat("<", 1<<20) + "secret-value")); len(got) > MaxDetail {
		t.Errorf("%d bytes", len(got))
	}
}

func TestValues(t *testing.T) {
	p, err := contact.ParsePatch([]byte(`{"a":"x1","b":null,"c":{"d":["x2",{"e":"x3"}],"f":12345678},"g":true}`))
	if err != nil {
		t.Fatal(err)
	}
	got := Values(p)
	slices.Sort(got)
	if !slices.Equal(got, []string{"12345678", "x1", "x2", "x3"}) {
		t.Errorf("%q", got)
	}
}

func FuzzDetail(f *testing.F) {
	f.Add("<p>no: ", "bob@x.io", " is taken</p>", 0)
	f.Add("\x1b[", "p<4>ss & w0rd", "\xff", 1)
	f.Add("", "tab\tand\nline", "", 2)
	f.Add("<script>", "a/b c+d", "</script>", 3)
	f.Add("%41&#", "\u202eabcd", ";", 4)
	f.Fuzz(func(t *testing.T, before, secret, after string, form int) {
		echo := secret
		switch form & 3 {
		case 1:
			echo = html.EscapeString(secret)
		case 2:
			b, _ := json.Marshal(secret)
			echo = strings.Trim(string(b), `"`)
		case 3:
			echo = url.QueryEscape(secret)
		}
		got := Detail([]byte(before+echo+after), secret)
		if len(got) > MaxDetail || !utf8.ValidString(got) {
			t.Fatalf("%d bytes, valid %v", len(got), utf8.ValidString(got))
		}
		for _, r := range got {
			if !unicode.IsPrint(r) {
				t.Fatalf("%U stands in %q", r, got)
			}
		}
		s := strings.TrimSpace(secret)
		if len(s) < MinSecret || !utf8.ValidString(s) || strings.ContainsAny(s, "[]") || strings.Contains(redacted, s) {
			return // too short, or made up anew by the replacement's own text
		}
		if strings.Contains(got, s) {
			t.Fatalf("%q stands in %q", s, got)
		}
	})
}
