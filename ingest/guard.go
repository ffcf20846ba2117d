package ingest

import (
	"regexp"
	"strings"
)

// Names of the columns that an export of rows adds to those of the file. An import
// applies none of them; a file with both GuardRow and GuardReason is known by them.
const (
	GuardJob     = "_job"
	GuardRow     = "_row"
	GuardReason  = "_reason"
	GuardMessage = "_message"
)

// harmless is what begins like a formula and is a number, such as a phone's.
var harmless = regexp.MustCompile(`^[+-][0-9 ()./-]*$`)

// Guard keeps a spreadsheet from taking a cell for a formula: it puts an
// apostrophe before it. An import of a file with the columns of an export takes
// it off again, so that what was guarded is what was meant.
func Guard(cell string) string {
	bare := strings.TrimLeft(cell, "'")
	if !formula(bare) || bare == cell && harmless.MatchString(cell) {
		return cell
	}
	return "'" + cell
}

func formula(s string) bool { return s != "" && strings.ContainsRune("=+-@\t\r\n", rune(s[0])) }

// unguard undoes Guard in place.
func unguard(cells []string) {
	for i, c := range cells {
		if rest, ok := strings.CutPrefix(c, "'"); ok && formula(strings.TrimLeft(rest, "'")) {
			cells[i] = rest
		}
	}
}

// isExport says that a header is an export's.
func isExport(names []string) bool {
	found := 0
	for _, n := range names {
		if n == GuardRow || n == GuardReason {
			found++
		}
	}
	return found == 2
}
