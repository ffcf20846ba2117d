// Package contact is the vocabulary of crmsync: what an update is, how updates
// of one contact fold into one change, which of two updates is the newer, what
// a CRM's answer means and how an update ends. It is pure: no I/O, no clock, no
// goroutine. Every other package speaks in its words.
//
// Values of this package are safe for concurrent reading; nothing in it locks.
package contact

import (
	"errors"
	"fmt"
	"regexp"
	"time"
	"unicode"
	"unicode/utf8"
)

// Limits of what names a contact.
const (
	// MaxID is the longest contact id, in bytes of UTF-8.
	MaxID = 128
	// MaxTarget is the longest target name, in bytes.
	MaxTarget = 32
)

// Key names a contact: an id within a target.
type Key struct {
	Target string // a target's name, see [CheckTarget]
	ID     string // the CRM's contact id, see [CheckID]
}

// String is for people and logs: target/id.
func (k Key) String() string { return k.Target + "/" + k.ID }

var targetName = regexp.MustCompile(`^[a-z0-9-]{1,32}$`)

// CheckTarget says whether a name can be a target's: 1 to 32 of a-z, 0-9 and -.
func CheckTarget(name string) error {
	if !targetName.MatchString(name) {
		return fmt.Errorf("target name %q: use 1 to %d of a-z, 0-9 and -", name, MaxTarget)
	}
	return nil
}

// CheckID says whether a string can be a contact id at all: 1 to 128 bytes of
// valid UTF-8 without control characters and without white space at its ends.
// What a CRM accepts is narrower; its own package checks that.
func CheckID(id string) error {
	switch {
	case id == "":
		return errors.New("contact id is empty")
	case len(id) > MaxID:
		return fmt.Errorf("contact id has %d bytes, at most %d are allowed", len(id), MaxID)
	case !utf8.ValidString(id):
		return errors.New("contact id is not valid UTF-8")
	}
	for _, r := range id {
		if unicode.IsControl(r) {
			return errors.New("contact id holds a control character")
		}
	}
	first, _ := utf8.DecodeRuneInString(id)
	last, _ := utf8.DecodeLastRuneInString(id)
	if unicode.IsSpace(first) || unicode.IsSpace(last) {
		return errors.New("contact id begins or ends with white space")
	}
	return nil
}

// Class is the kind of traffic an update belongs to. Live overtakes bulk
// inside the same quota.
type Class uint8

const (
	// Live is traffic that someone waits for. It is the zero value.
	Live Class = iota
	// Bulk is imports and redrives.
	Bulk

	// Classes is how many there are; a Class is an index below it.
	Classes = 2
)

var classNames = [Classes]string{"live", "bulk"}

// String is the class's token in subjects: live or bulk.
func (c Class) String() string { return nameOf(classNames[:], uint8(c), "class") }

// ParseClass reads the token of a subject or flag.
func ParseClass(s string) (Class, error) {
	for i, n := range classNames {
		if n == s {
			return Class(i), nil
		}
	}
	return 0, fmt.Errorf("class %q: use live or bulk", s)
}

// MarshalText writes the class's token; a value that is no class is an error.
func (c Class) MarshalText() ([]byte, error) { return marshalName(classNames[:], uint8(c), "class") }

// UnmarshalText reads the class's token; any other text is an error.
func (c *Class) UnmarshalText(b []byte) error {
	v, err := ParseClass(string(b))
	if err != nil {
		return err
	}
	*c = v
	return nil
}

// Update is one message: fields to change on one contact of one target.
type Update struct {
	Contact Key
	Class   Class

	// Seq is the update's place in its target's stream of its class, from 1;
	// 0 before it is stored. Order within a class is order of Seq.
	Seq uint64
	// Stored is when the broker stored it; zero before that. It orders
	// updates of different classes.
	Stored time.Time

	// Fields is what to change, in the CRM's own field names.
	Fields Patch
	// Version is the source's own counter for this contact, rising with each
	// change; it means something only where Versioned is set.
	Version   int64
	Versioned bool
	// OccurredAt is when it happened at the source; zero where not said. It
	// is kept for people and decides nothing.
	OccurredAt time.Time

	MsgID     string // Nats-Msg-Id: a second update with it is a duplicate
	Job       string // the bulk import it came with, or ""
	Row       int64  // its row in that job, from 1
	RedriveOf string // the dead letter it repeats, or ""
	// Redrive says more about an update that repeats a dead letter; nil for
	// any other.
	Redrive     *Redrive
	TraceParent string // W3C trace context, carried through

	// Raw is the message's body as it arrived and Header its headers, kept
	// for the dead letter. Fields may alias Raw: neither may be changed.
	Raw    []byte
	Header map[string][]string

	// Begun says that a former owner of the target noted that it was about to
	// send it, and what became of that is not known.
	Begun bool

	// Bad says why the message cannot be an update; nil where it is one. A
	// bad update keeps its place in its contact's order and ends dead.
	Bad *BadUpdate
}

// Place is where the update counts in the order of its contact: where it was
// stored, or, where it repeats a dead letter and is not forced, where that
// letter's update was.
func (u *Update) Place() Place {
	if r := u.Redrive; r != nil && !r.Force && !r.Order.IsZero() {
		return r.Order
	}
	return Place{Class: u.Class, Seq: u.Seq, Stored: u.Stored}
}

// Mark is the update's place in the order of its contact, with its version. A
// forced redrive has none: its version is the original's, and would let it be
// taken for older than what it shall overwrite.
func (u *Update) Mark() Mark {
	at := u.Place()
	m := Mark{Class: at.Class, Seq: at.Seq}
	if !at.Stored.IsZero() { // UnixNano of the zero time is undefined
		m.Stored = at.Stored.UnixNano()
	}
	if u.Versioned && (u.Redrive == nil || !u.Redrive.Force) {
		m.Version, m.Versioned = u.Version, true
	}
	return m
}

// MaybeSent says that the CRM may have been asked for the update's side effects
// before: by a former owner, or when the letter that it repeats was an update.
func (u *Update) MaybeSent() bool { return u.Begun || u.Redrive != nil && u.Redrive.MaybeSent }

// BadUpdate is the error of a message that cannot be an update. Its text names
// the place and what is wrong, never a value of the contact.
type BadUpdate struct {
	// Reason is Malformed (the bytes are not an update) or Invalid (they are
	// one that breaks a rule).
	Reason Reason
	// Field is the path of the offending member, or "".
	Field string
	// Detail says what is wrong, in words.
	Detail string
}

// Error is the reason, the place and the detail.
func (b *BadUpdate) Error() string {
	if b.Field == "" {
		return b.Reason.String() + ": " + b.Detail
	}
	return b.Reason.String() + ": " + b.Field + ": " + b.Detail
}
