package queue

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"strings"

	"crmsync/contact"
)

// contactToken is the contact's token in subjects of outcomes. It is one to one:
// [contact.Token], except that an id beyond [contact.MaxID], which only a
// message with a bad subject can have, is written as a digest behind a tilde,
// a byte that Token never writes, so that the subject stays within the server's
// limits.
func contactToken(id string) string {
	if len(id) <= contact.MaxID {
		return contact.Token(id)
	}
	return digest(id)
}

// jobToken is the job's token; the dash is for updates without a job.
func jobToken(job string) string {
	switch {
	case job == "":
		return "-"
	case job == "-":
		return "%2D"
	case len(job) > contact.MaxID:
		return digest(job)
	}
	return contact.Token(job)
}

func digest(s string) string {
	sum := sha256.Sum256([]byte(s))
	return "~" + hex.EncodeToString(sum[:])
}

func outcomeSubject(k contact.Key, o contact.Outcome, job string) string {
	return contact.OutcomePrefix + k.Target + "." + contactToken(k.ID) + "." + o.String() + "." + jobToken(job)
}

// contactFilter matches all records of one contact.
func contactFilter(k contact.Key) string {
	return contact.OutcomePrefix + k.Target + "." + contactToken(k.ID) + ".>"
}

// parseOutcomeSubject reads the target, the outcome and, unless it is a digest,
// the contact of a record's subject.
func parseOutcomeSubject(s string) (k contact.Key, o contact.Outcome, err error) {
	rest, ok := strings.CutPrefix(s, contact.OutcomePrefix)
	part := strings.Split(rest, ".")
	if !ok || len(part) != 4 {
		return k, o, fmt.Errorf("subject %q is not an outcome's", s)
	}
	if err := o.UnmarshalText([]byte(part[2])); err != nil {
		return k, o, err
	}
	k.Target = part[0]
	if !strings.HasPrefix(part[1], "~") {
		k.ID = unescape(part[1])
	}
	return k, o, nil
}

// unescape undoes [contact.Token] for any bytes, also those that no valid id
// holds.
func unescape(token string) string {
	if !strings.Contains(token, "%") {
		return token
	}
	var b strings.Builder
	for i := 0; i < len(token); i++ {
		if token[i] == '%' && i+2 < len(token) {
			if v, err := hex.DecodeString(token[i+1 : i+3]); err == nil {
				b.WriteByte(v[0])
				i += 2
				continue
			}
		}
		b.WriteByte(token[i])
	}
	return b.String()
}
