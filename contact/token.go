package contact

import (
	"fmt"
	"strings"
)

// Subject names. An update is published to
// crm.update.<target>.<class>.<contact>; its outcome is stored under
// crm.outcome.<target>.<contact>.<outcome>.<job or ->.
const (
	UpdatePrefix  = "crm.update."
	OutcomePrefix = "crm.outcome."
)

const upperHex = "0123456789ABCDEF"

func plainByte(c byte) bool {
	return c >= 'A' && c <= 'Z' || c >= 'a' && c <= 'z' || c >= '0' && c <= '9' || c == '_' || c == '-'
}

// Token writes a contact id (or a job id) as one token of a subject: every
// byte outside A-Za-z0-9_- is percent-encoded with upper-case digits, so
// bob@x.io is bob%40x%2Eio. It is one to one: no two ids share a token, and no
// id can reach beyond its token.
func Token(id string) string {
	n := 0
	for i := 0; i < len(id); i++ {
		if !plainByte(id[i]) {
			n++
		}
	}
	if n == 0 {
		return id
	}
	b := make([]byte, 0, len(id)+2*n)
	for i := 0; i < len(id); i++ {
		if c := id[i]; plainByte(c) {
			b = append(b, c)
		} else {
			b = append(b, '%', upperHex[c>>4], upperHex[c&15])
		}
	}
	return string(b)
}

// ParseToken reads what [Token] wrote. Any other spelling of the same id (a
// lower-case digit, a plain byte that is encoded) is refused: two spellings
// would be two contacts to the queue and lose the order between them.
func ParseToken(token string) (string, error) {
	if !strings.Contains(token, "%") {
		for i := 0; i < len(token); i++ {
			if !plainByte(token[i]) {
				return "", fmt.Errorf("contact token: byte %d (%q) must be percent-encoded", i, token[i])
			}
		}
		return token, CheckID(token)
	}
	b := make([]byte, 0, len(token))
	for i := 0; i < len(token); i++ {
		c := token[i]
		switch {
		case plainByte(c):
			b = append(b, c)
		case c == '%':
			hi, lo := -1, -1
			if i+2 < len(token) {
				hi, lo = strings.IndexByte(upperHex, token[i+1]), strings.IndexByte(upperHex, token[i+2])
			}
			if hi < 0 || lo < 0 {
				return "", fmt.Errorf("contact token: bad percent-encoding at byte %d: use two upper-case hexadecimal digits", i)
			}
			d := byte(hi<<4 | lo)
			if plainByte(d) {
				return "", fmt.Errorf("contact token: %%%c%c at byte %d stands for %q, which is written plainly", token[i+1], token[i+2], i, d)
			}
			b = append(b, d)
			i += 2
		default:
			return "", fmt.Errorf("contact token: byte %d (%q) must be percent-encoded", i, c)
		}
	}
	id := string(b)
	return id, CheckID(id)
}

// Subject is where an update of this class and contact is published. The
// target and the id must have been checked.
func Subject(k Key, c Class) string {
	return UpdatePrefix + k.Target + "." + c.String() + "." + Token(k.ID)
}

// ParseSubject reads the subject of an update. Where only the contact's token
// is wrong, the target, the class and the raw token as id come back with the
// error, so that the message can be dead-lettered in its place.
func ParseSubject(subject string) (k Key, c Class, err error) {
	rest, ok := strings.CutPrefix(subject, UpdatePrefix)
	if !ok {
		return k, c, fmt.Errorf("subject does not begin with %q", UpdatePrefix)
	}
	part := strings.Split(rest, ".")
	if len(part) != 3 {
		return k, c, fmt.Errorf("subject has %d tokens after %q, not <target>.<class>.<contact>", len(part), UpdatePrefix)
	}
	if err = CheckTarget(part[0]); err != nil {
		return k, c, err
	}
	if c, err = ParseClass(part[1]); err != nil {
		return k, c, err
	}
	id, err := ParseToken(part[2])
	if err != nil {
		id = part[2]
	}
	return Key{Target: part[0], ID: id}, c, err
}
