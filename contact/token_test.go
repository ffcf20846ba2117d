package contact

import (
	"strings"
	"testing"

	"pgregory.net/rapid"
)

func anyID() *rapid.Generator[string] {
	return rapid.OneOf(
		rapid.String(),
		rapid.StringOfN(rapid.SampledFrom([]rune("aZ0_-.*>% @+é\u2028")), 1, 20, -1),
	).Filter(func(s string) bool { return CheckID(s) == nil })
}

func TestToken(t *testing.T) {
	for id, want := range map[string]string{
		"17": "17", "a_b-C": "a_b-C", "bob@x.io": "bob%40x%2Eio", "a b": "a%20b", "*": "%2A", ">": "%3E", "%": "%25", "é": "%C3%A9",
	} {
		if got := Token(id); got != want {
			t.Errorf("Token(%q) = %q, want %q", id, got, want)
		}
	}
}

func TestParseTokenRefuses(t *testing.T) {
	for token, want := range map[string]string{
		"":                       "empty",
		"a.b":                    "must be percent-encoded",
		"a b":                    "must be percent-encoded",
		"é":                      "must be percent-encoded",
		"a*%20b":                 "must be percent-encoded",
		"%2e":                    "upper-case",
		"%2":                     "bad percent-encoding",
		"a%":                     "bad percent-encoding",
		"%zz":                    "bad percent-encoding",
		"%41":                    "written plainly",
		"%2D":                    "written plainly",
		"%5F":                    "written plainly",
		"%0A":                    "control",
		"%FF":                    "UTF-8",
		"%20a":                   "white space",
		strings.Repeat("a", 129): "129 bytes",
	} {
		if id, err := ParseToken(token); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("ParseToken(%q) = %q, %v, want %q", token, id, err, want)
		}
	}
}

func TestTokenIsOneToOne(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		id := anyID().Draw(t, "id")
		token := Token(id)
		if i := strings.IndexFunc(token, func(r rune) bool { return r > 0x7e || r != '%' && !plainByte(byte(r)) }); i >= 0 {
			t.Fatalf("%q holds %q", token, token[i])
		}
		back, err := ParseToken(token)
		if err != nil || back != id {
			t.Fatalf("%q -> %q -> %q, %v", id, token, back, err)
		}
	})
}

func TestNoOtherSpellingIsAccepted(t *testing.T) {
	alphabet := rapid.StringOfN(rapid.SampledFrom([]rune("aA2fFeE4%%%.é")), 1, 12, -1)
	rapid.Check(t, func(t *rapid.T) {
		token := alphabet.Draw(t, "token")
		if id, err := ParseToken(token); err == nil && Token(id) != token {
			t.Fatalf("%q was read as %q, which is written %q", token, id, Token(id))
		}
	})
}

func TestSubjectRoundTrip(t *testing.T) {
	target := rapid.StringMatching(`[a-z0-9-]{1,32}`)
	rapid.Check(t, func(t *rapid.T) {
		k := Key{Target: target.Draw(t, "target"), ID: anyID().Draw(t, "id")}
		c := rapid.SampledFrom([]Class{Live, Bulk}).Draw(t, "class")
		s := Subject(k, c)
		if strings.Count(s, ".") != 4 {
			t.Fatalf("%q has not 5 tokens", s)
		}
		k2, c2, err := ParseSubject(s)
		if err != nil || k2 != k || c2 != c {
			t.Fatalf("%q -> %v %v %v", s, k2, c2, err)
		}
	})
	if got := Subject(Key{"office", "b@x"}, Bulk); got != "crm.update.office.bulk.b%40x" {
		t.Error(got)
	}
}

func TestParseSubjectRefuses(t *testing.T) {
	for _, c := range []struct {
		subject, want string
		key           Key
		class         Class
	}{
		{"crm.outcome.office.live.1", "does not begin", Key{}, Live},
		{"crm.update.", "1 tokens", Key{}, Live},
		{"crm.update.office.live", "2 tokens", Key{}, Live},
		{"crm.update.office.live.1.2", "4 tokens", Key{}, Live},
		{"crm.update.Office.live.1", "target name", Key{}, Live},
		{"crm.update.office.slow.1", "use live or bulk", Key{}, Live},
		{"crm.update.office.bulk.%2e", "upper-case", Key{"office", "%2e"}, Bulk},
		{"crm.update.office.live.%20a", "white space", Key{"office", "%20a"}, Live},
		{"crm.update.office.bulk.", "empty", Key{"office", ""}, Bulk},
	} {
		k, class, err := ParseSubject(c.subject)
		if err == nil || !strings.Contains(err.Error(), c.want) || k != c.key || class != c.class {
			t.Errorf("ParseSubject(%q) = %+v, %v, %v; want %+v, %v, %q", c.subject, k, class, err, c.key, c.class, c.want)
		}
	}
}

func FuzzToken(f *testing.F) {
	for _, s := range []string{"bob%40x%2Eio", "17", "%", "%2e", "a.b", "%C3%A9", "\xff"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if id, err := ParseToken(s); err == nil {
			if Token(id) != s || CheckID(id) != nil {
				t.Fatalf("%q was read as %q", s, id)
			}
		}
		token := Token(s)
		if strings.ContainsAny(token, ".*> \t\r\n\x00") {
			t.Fatalf("Token(%q) = %q", s, token)
		}
		if id, err := ParseToken(token); CheckID(s) == nil && (err != nil || id != s) {
			t.Fatalf("%q -> %q -> %q, %v", s, token, id, err)
		}
	})
}
