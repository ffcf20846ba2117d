package app

import (
	"encoding/json"
	"regexp"
	"strings"

	"crmsync/contact"
)

// A spreadsheet that opens a CSV runs a cell that begins with one of these as a
// formula.
var formula = regexp.MustCompile(`^'*[=+\-@\t\r\n]`)

// One that splits cells at a semicolon or a line's end, as those of many
// countries do, runs what follows there.
var (
	innerFormula  = regexp.MustCompile(`([;\t\n\r])(['"]*[=+\-@])`)
	innerHarmless = regexp.MustCompile(`([;\t\n\r])'(['"]*[=+\-@])`)
)

// A cell that has been made harmless, of which [plainText] undoes it.
var harmless = regexp.MustCompile(`^'+[=+\-@\t\r\n]`)

// harmlessText keeps a spreadsheet from running a text as a formula: an
// apostrophe before it says that it is text. plainText takes it off again.
func harmlessText(s string) string {
	s = innerFormula.ReplaceAllString(s, "$1'$2")
	if formula.MatchString(s) {
		return "'" + s
	}
	return s
}

// plainText undoes [harmlessText].
func plainText(s string) string {
	if harmless.MatchString(s) {
		s = s[1:]
	}
	return innerHarmless.ReplaceAllString(s, "$1$2")
}

// cellText is a field's value as a cell shows it, in the form that the CRM's
// Convert reads: a text as it is, a list with commas, null as nothing.
func cellText(v json.RawMessage) string {
	var s string
	if json.Unmarshal(v, &s) == nil { // null leaves it empty
		return s
	}
	if list, ok := listText(v); ok {
		return list
	}
	if p, err := contact.ParsePatch(v); err == nil && len(p) == 1 {
		if list, ok := listText(p[0].Value); ok { // {"contact": ["A", "B"]}, as Evance's tags
			return list
		}
	}
	return strings.TrimSpace(string(v))
}

// listText is a list of texts and numbers, with commas between.
func listText(v json.RawMessage) (string, bool) {
	var items []json.RawMessage
	if json.Unmarshal(v, &items) != nil || items == nil {
		return "", false
	}
	out := make([]string, len(items))
	for i, x := range items {
		var s string
		switch {
		case json.Unmarshal(x, &s) == nil:
			if strings.ContainsAny(s, ",;") {
				return "", false
			}
		case len(x) > 0 && (x[0] == '{' || x[0] == '['):
			return "", false
		default:
			s = string(x)
		}
		out[i] = s
	}
	return strings.Join(out, ","), true
}
