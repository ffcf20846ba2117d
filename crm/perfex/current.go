package perfex

import (
	"encoding/json"
	"regexp"
	"slices"
	"strings"

	"golang.org/x/crypto/bcrypt"
)

// current is a contact as the CRM shows it (crm-apis A8).
type current struct{ values map[string]*string }

// readCurrent reads the answer of a GET. Values are strings or null; numbers
// and booleans are taken as the strings they would be. It fails where a member
// is missing without which a write would clear something.
func readCurrent(obj map[string]json.RawMessage) (*current, bool) {
	c := &current{values: make(map[string]*string, len(obj))}
	for name, v := range obj {
		if isNull(v) {
			c.values[name] = nil
			continue
		}
		s, ok := plain(v)
		if !ok {
			switch string(v) {
			case "true":
				s = "1"
			case "false":
				s = "0"
			default:
				continue // customfields and whatever else is nested
			}
		}
		c.values[name] = &s
	}
	for _, name := range slices.Concat(flags, []string{"id", "userid", fieldEmail}) {
		if _, ok := c.values[name]; !ok {
			return nil, false
		}
	}
	return c, true
}

func (c *current) get(name string) string {
	if v := c.values[name]; v != nil {
		return *v
	}
	return ""
}

func (c *current) on(name string) bool { return c.get(name) != "" && c.get(name) != "0" }

// differs lists the fields, by name and in order, that the contact does not
// hold as wished. Passwords, permissions and custom fields are not compared:
// see hidden.
func (w *wish) differs(c *current) []string {
	var out []string
	for name, v := range w.columns {
		want := ""
		if v != nil {
			want = *v
		}
		// null and "" count as equal: 3.x stores the one as the other
		// (crm-apis A4), and a difference that no write removes would be
		// written for ever.
		if have, ok := c.values[name]; !ok || have != nil && *have != want || have == nil && want != "" {
			out = append(out, name)
		}
	}
	for name, on := range w.flags {
		if c.on(name) != on {
			out = append(out, name)
		}
	}
	if w.active != nil {
		if _, ok := c.values["active"]; !ok || c.on("active") != *w.active {
			out = append(out, "active")
		}
	}
	slices.Sort(out)
	return out
}

// hidden says that the wish holds what no GET shows, so that a contact that
// looks as wished may still lack something.
func (w *wish) hidden() bool { return w.setPermissions || w.custom != nil }

// passwordHeld says whether the stored hash proves the password. The hash is
// bcrypt's; one of a cost beyond the usual is left alone, it could take
// minutes.
func (c *current) passwordHeld(password string) bool {
	hash := []byte(c.get(fieldPassword))
	cost, err := bcrypt.Cost(hash)
	return err == nil && cost <= 12 && bcrypt.CompareHashAndPassword(hash, []byte(password)) == nil
}

// rewriteTrace is what the CRM's filter leaves behind where it changed text.
var rewriteTrace = regexp.MustCompile(`\[removed\]|&(lt|gt|amp|quot|#\d+);`)

// storedAs says whether have may be what the CRM makes of want: its filter
// drops control characters, turns tabs into spaces and defuses markup, and a
// database with three-byte UTF-8 ends a text before its first character beyond
// the basic plane (crm-apis A3).
func storedAs(want, have string) bool {
	if want == have {
		return true
	}
	s := strings.Map(func(r rune) rune {
		switch {
		case r == '\t':
			return ' '
		case r < ' ' && r != '\n' && r != '\r', r == 0x7F:
			return -1
		}
		return r
	}, want)
	if s == have {
		return true
	}
	if i := strings.IndexFunc(s, func(r rune) bool { return r > 0xFFFF }); i >= 0 && s[:i] == have {
		return true
	}
	return strings.ContainsAny(want, "<>&(:%") && rewriteTrace.MatchString(have) && !rewriteTrace.MatchString(want)
}

// rewritten says whether everything that still differs may be the CRM's own
// rewriting of what was sent.
func (w *wish) rewritten(differs []string, c *current) bool {
	for _, name := range differs {
		v, ok := w.columns[name]
		if !ok || v == nil || !storedAs(*v, c.get(name)) {
			return false
		}
	}
	return len(differs) > 0
}
