package contact

import (
	"fmt"
	"hash/fnv"
	"regexp"
	"strings"
)

// Cause is what letters that died of the same thing have in common. Causes
// compare with ==.
type Cause struct {
	Reason  Reason
	Status  int    // HTTP status; 0 where no answer decided
	Field   string // the offending field, where it is known
	Message string // the CRM's words as [Normalise] leaves them
}

// CauseOf is the cause of an ending.
func CauseOf(e Ending) Cause {
	return Cause{Reason: e.Reason, Status: e.Status, Field: e.Field, Message: Normalise(e.Detail)}
}

// Fingerprint names the cause within its target: 12 hexadecimal digits, the
// same in every process and version.
func (c Cause) Fingerprint() string {
	h := fnv.New64a()
	fmt.Fprintf(h, "%s\x00%d\x00%s\x00%s", c.Reason, c.Status, c.Field, c.Message)
	return fmt.Sprintf("%016x", h.Sum64())[:12]
}

// Each pattern is what differs from contact to contact in one and the same
// message; the order matters, since a date holds numbers.
var differs = []struct {
	pattern *regexp.Regexp
	becomes string
}{
	{regexp.MustCompile(`[^\s@"'<>()]+@[^\s@"'<>()]+\.[^\s@"'<>()]+`), "<email>"},
	{regexp.MustCompile(`(?i)\b[a-z][a-z0-9+.-]*://[^\s"'<>]+`), "<url>"},
	{regexp.MustCompile(`"[^"]*"|'[^']*'`), "<text>"},
	{regexp.MustCompile(`(?i)\b[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}\b`), "<id>"},
	{regexp.MustCompile(`(?i)\b[0-9a-f]{16,}\b`), "<id>"},
	{regexp.MustCompile(`\d+(?:[.,:/-]\d+)*`), "<n>"},
}

// Normalise takes out of a message what differs from contact to contact:
// addresses, quoted values, ids and numbers. White space and letter case do not
// count either. It is idempotent.
func Normalise(message string) string {
	for _, d := range differs {
		message = d.pattern.ReplaceAllString(message, d.becomes)
	}
	return strings.ToLower(strings.Join(strings.Fields(message), " "))
}
