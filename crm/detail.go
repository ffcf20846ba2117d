package crm

import (
	"bytes"
	"encoding/json"
	"fmt"
	"html"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"crmsync/contact"
)

const (
	// MaxDetail is the longest text [Detail] returns, in bytes.
	MaxDetail = 300
	// MinSecret is the shortest string that is redacted, in bytes: anything
	// shorter stands in too many innocent words.
	MinSecret = 4

	redacted = "[redacted]"
	// maxRead is how much of a body is looked at, in bytes: enough to come to
	// the words of an HTML page.
	maxRead = 8 << 10
)

var (
	unseen = regexp.MustCompile(`(?is)<(script|style|head)\b.*?</(script|style|head)\s*>`)
	markup = regexp.MustCompile(`(?s)<[!?/A-Za-z][^<>]*>`)
)

// Detail makes a CRM's words fit to be stored and shown: one line of valid
// UTF-8, at most [MaxDetail] bytes, markup taken out, control and bidirectional
// characters escaped, and each of the secrets (the token, every value that was
// sent) replaced wherever it stands: in any letter case, plain or escaped for
// HTML, JSON or URLs.
func Detail(body []byte, secrets ...string) string {
	forms := variants(secrets)
	long := len(body) > maxRead
	if long {
		body = body[:maxRead]
	}
	s := redact(strings.ToValidUTF8(string(body), "\uFFFD"), forms)
	if long {
		s = dropHalf(s, forms)
	}
	s = html.UnescapeString(markup.ReplaceAllString(unseen.ReplaceAllString(s, " "), " "))
	s = redact(oneLine(redact(s, forms)), forms)
	return cut(s, MaxDetail)
}

// variants lists the forms in which secrets may be echoed, longest first so
// that none is left half replaced.
func variants(secrets []string) []string {
	var out []string
	for _, s := range secrets {
		s = strings.TrimSpace(s)
		quoted, _ := json.Marshal(s) // of a string: cannot fail
		plain := strings.Trim(string(quoted), `"`)
		forms := []string{
			s, plain, strings.ReplaceAll(plain, "/", `\/`), strings.ReplaceAll(s, "/", `\/`),
			html.EscapeString(s), html.UnescapeString(markup.ReplaceAllString(s, " ")),
			url.QueryEscape(s), url.PathEscape(s), oneLine(s),
		}
		for _, f := range forms {
			if len(f) >= MinSecret {
				out = append(out, f)
			}
		}
	}
	slices.SortFunc(out, func(a, b string) int {
		if len(a) != len(b) {
			return len(b) - len(a)
		}
		return strings.Compare(a, b)
	})
	return slices.Compact(out)
}

// redact replaces every form in any letter case.
func redact(s string, forms []string) string {
	lower := strings.ToLower(s)
	for _, f := range forms {
		if !strings.Contains(lower, strings.ToLower(f)) {
			continue
		}
		re, err := regexp.Compile(`(?i)` + regexp.QuoteMeta(f))
		if err != nil { // not UTF-8: such a value cannot have been sent
			continue
		}
		s = re.ReplaceAllLiteralString(s, redacted)
		lower = strings.ToLower(s)
	}
	return s
}

// dropHalf takes off the end of a text that was cut what may be the beginning
// of a secret.
func dropHalf(s string, forms []string) string {
	s = strings.TrimRight(s, "\uFFFD") // half a rune
	for _, f := range forms {
		for n := min(len(f), len(s)); n > 0; n-- {
			if strings.EqualFold(s[len(s)-n:], f[:n]) {
				s = s[:len(s)-n]
				break
			}
		}
	}
	return s
}

// oneLine folds white space and makes visible what would not be.
func oneLine(s string) string {
	var b strings.Builder
	for i, word := range strings.Fields(s) {
		if i > 0 {
			b.WriteByte(' ')
		}
		for _, r := range word {
			if unicode.IsPrint(r) {
				b.WriteRune(r)
			} else {
				fmt.Fprintf(&b, `\u%04x`, r) // controls, bidi marks, zero widths
			}
		}
	}
	return b.String()
}

func cut(s string, n int) string {
	if len(s) <= n {
		return s
	}
	s = s[:n-len("…")]
	for !utf8.ValidString(s) {
		s = s[:len(s)-1]
	}
	return s + "…"
}

// Values lists the strings and numbers in a patch that [Detail] should redact.
func Values(p contact.Patch) []string {
	var out []string
	for _, f := range p {
		d := json.NewDecoder(bytes.NewReader(f.Value))
		d.UseNumber() // as it was spelt
		var v any
		if d.Decode(&v) == nil {
			out = collect(out, v)
		}
	}
	return out
}

func collect(out []string, v any) []string {
	switch v := v.(type) {
	case string:
		return append(out, v)
	case json.Number:
		return append(out, v.String())
	case []any:
		for _, x := range v {
			out = collect(out, x)
		}
	case map[string]any:
		for _, x := range v {
			out = collect(out, x)
		}
	}
	return out
}
