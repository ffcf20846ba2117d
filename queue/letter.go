package queue

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"time"
	"unicode"

	"github.com/nats-io/nats.go"

	"crmsync/contact"
)

// LetterState is what happens to a dead letter at the moment.
type LetterState uint8

const (
	// LetterDead: nothing; it can be sent again, edited and discarded. It is
	// the zero value.
	LetterDead LetterState = iota
	// LetterRedriven: it was sent again and the new update has not ended.
	LetterRedriven
	// LetterLeaving: it is being discarded.
	LetterLeaving
)

var letterStates = [...]string{"dead", "redriven", "leaving"}

// String is the state's name in commands and pages.
func (s LetterState) String() string {
	if int(s) < len(letterStates) {
		return letterStates[s]
	}
	return fmt.Sprintf("state(%d)", uint8(s))
}

// MarshalText writes the name.
func (s LetterState) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// Letter is a dead letter as it stands. It holds the contact's values, in
// Original, Edit and Claim.
type Letter struct {
	Record
	State LetterState `json:"state"`
	// Claim says who has it in hand since when, where State is not
	// LetterDead.
	Claim *Claim `json:"claim,omitempty"`
	// Edit is the body that a redrive will send instead of the original; nil
	// where it was not edited.
	Edit *Edit `json:"edit,omitempty"`
}

// Cause is what it has in common with others that died of the same thing.
func (r *Record) Cause() contact.Cause {
	return contact.CauseOf(contact.Ending{Reason: r.Reason, Status: r.Status, Field: r.Field, Detail: r.Detail})
}

// Place is where the letter's update counts in the order of its contact; the
// zero value where that is not known, as in letters of versions that did not
// keep it.
func (r *Record) Place() contact.Place {
	if d := r.Redrive; d != nil && !d.Force && !d.Order.IsZero() {
		return d.Order
	}
	if len(r.Updates) == 0 || r.Updates[0].Stored.IsZero() {
		return contact.Place{}
	}
	u := r.Updates[0]
	return contact.Place{Class: u.Class, Seq: u.Seq, Stored: u.Stored}
}

// root is the first letter of the chain that this one ends.
func (r *Record) root() string {
	switch {
	case r.Redrive != nil && r.Redrive.Root != "":
		return r.Redrive.Root
	case r.RedriveOf != "":
		return r.RedriveOf
	}
	return strconv.FormatUint(r.Seq, 10)
}

// Headers of a dead letter beside its reason: what lists and groups read
// without its body.
const (
	headerStatus = "Crmsync-Status"
	headerField  = "Crmsync-Field"
	headerCause  = "Crmsync-Cause"       // the message as contact.Normalise leaves it, cut
	headerPrint  = "Crmsync-Fingerprint" // contact.Cause.Fingerprint
	headerSize   = "Nats-Msg-Size"       // the server's, where it leaves the body out

	maxCauseHeader = 240 // bytes
)

func letterHeaders(h nats.Header, r *Record) {
	c := r.Cause()
	h.Set(headerReason, r.Reason.String())
	if c.Status != 0 {
		h.Set(headerStatus, strconv.Itoa(c.Status))
	}
	if c.Field != "" {
		h.Set(headerField, oneLine(c.Field))
	}
	if c.Message != "" {
		h.Set(headerCause, oneLine(c.Message))
	}
	h.Set(headerPrint, c.Fingerprint())
}

// oneLine is a text as a header can hold it: printable, of bounded length.
func oneLine(s string) string {
	s = strings.ToValidUTF8(s, "\ufffd")
	s = strings.Map(func(r rune) rune {
		if unicode.IsControl(r) {
			return ' '
		}
		return r
	}, s)
	if len(s) > maxCauseHeader {
		s = strings.ToValidUTF8(s[:maxCauseHeader], "")
	}
	return strings.TrimSpace(s)
}

// letterHead is a dead letter as its headers tell it.
type letterHead struct {
	id     uint64
	at     time.Time
	key    contact.Key
	cause  contact.Cause // its message is cut
	print  string
	size   int64
	legacy bool // of a version that kept only the reason in headers
}

func headOf(m inMsg) (letterHead, error) {
	k, _, err := parseOutcomeSubject(m.subject)
	if err != nil {
		return letterHead{}, fmt.Errorf("queue: %w", err)
	}
	h := letterHead{id: m.seq, at: m.time, key: k, print: m.header.Get(headerPrint)}
	_ = h.cause.Reason.UnmarshalText([]byte(m.header.Get(headerReason))) // a code of a newer version counts as none
	h.cause.Status, _ = strconv.Atoi(m.header.Get(headerStatus))         // 0 where there is none
	h.cause.Field, h.cause.Message = m.header.Get(headerField), m.header.Get(headerCause)
	h.size, _ = strconv.ParseInt(m.header.Get(headerSize), 10, 64)
	h.size += int64(len(m.data))
	h.legacy = h.print == ""
	return h, nil
}

// ErrInHand is wrapped where a letter is being sent again or discarded by
// someone: the text says by whom and since when.
var ErrInHand = fmt.Errorf("the letter is in other hands")

// Claim is a letter's mark of being in somebody's hands: there is at most one.
type Claim struct {
	Letter    uint64        `json:"letter"`
	Target    string        `json:"target"`
	Contact   string        `json:"contact"`
	Discard   string        `json:"discard,omitempty"`   // it is being discarded, for this reason
	Operation string        `json:"operation,omitempty"` // the redrive of many that it belongs to
	By        string        `json:"by,omitempty"`
	Class     contact.Class `json:"class"`
	MsgID     string        `json:"msg_id,omitempty"` // of the update that repeats it
	Force     bool          `json:"force,omitempty"`
	Edited    string        `json:"edited,omitempty"` // who edited
	Body      []byte        `json:"body,omitempty"`   // what is sent instead of the original
	At        time.Time     `json:"at,omitzero"`      // when it was made, by the broker's clock

	rev uint64
}

func (c *Claim) held() error {
	what := "sent again"
	if c.Discard != "" {
		what = "discarded"
	}
	since := ""
	if !c.At.IsZero() {
		since = " at " + c.At.UTC().Format(time.RFC3339)
	}
	return fmt.Errorf("letter %d: %w: %s by %s%s", c.Letter, ErrInHand, what, cmp.Or(c.By, "someone"), since)
}

// Keys of the letters' bucket. The contact's token keeps a person's entries
// together.
const (
	claimKey  = "claim."
	editKey   = "edit."
	opKey     = "op."
	forgetKey = "forget."
	begunKey  = "begun."
)

// personKey is the part of a key that names a contact. A key admits no percent
// sign and no tilde; the equals sign stands in no token.
func personKey(k contact.Key) string {
	return k.Target + "." + strings.NewReplacer("%", "=", "~", "==").Replace(contactToken(k.ID))
}

func letterKey(kind string, k contact.Key, id uint64) string {
	return kind + personKey(k) + "." + strconv.FormatUint(id, 10)
}

func (q *Queue) claimOf(ctx context.Context, k contact.Key, id uint64) (*Claim, error) {
	e, err := q.letters.get(ctx, letterKey(claimKey, k, id))
	if err != nil {
		return nil, fmt.Errorf("queue: read the claim of letter %d: %w", id, err)
	}
	return decodeClaim(e)
}

func decodeClaim(e entry) (*Claim, error) {
	if e.gone {
		return nil, nil
	}
	var c Claim
	if err := json.Unmarshal(e.value, &c); err != nil {
		return nil, fmt.Errorf("queue: claim %s: %w", e.key, err)
	}
	c.rev, c.At = e.rev, e.time
	return &c, nil
}

// claims calls f for each letter that is in somebody's hands; target "" is all.
func (q *Queue) claims(ctx context.Context, target string, f func(*Claim) error) error {
	match := claimKey + ">"
	if target != "" {
		match = claimKey + target + ".>"
	}
	return q.letters.each(ctx, match, func(e entry) error {
		c, err := decodeClaim(e)
		if err != nil {
			return err
		}
		return f(c)
	})
}

func (c *Claim) encode() ([]byte, error) {
	b, err := json.Marshal(c)
	if err != nil {
		return nil, fmt.Errorf("queue: claim letter %d: %w", c.Letter, err)
	}
	return b, nil
}

// key is where a claim is stored.
func (c *Claim) key() string {
	return letterKey(claimKey, contact.Key{Target: c.Target, ID: c.Contact}, c.Letter)
}

// take claims a letter for c; the error wraps ErrInHand where somebody has it.
func (q *Queue) take(ctx context.Context, c *Claim) error {
	b, err := c.encode()
	if err != nil {
		return err
	}
	var there *Claim
	var again error
	for n := 0; ; n++ {
		c.rev, err = q.letters.create(ctx, c.key(), b)
		if err == nil {
			return nil
		}
		// Someone has it, or we have and the answer was lost; or whoever had it
		// has given it back since.
		there, again = q.claimOf(ctx, contact.Key{Target: c.Target, ID: c.Contact}, c.Letter)
		if n == 3 || again != nil || there != nil || apiErrorOf(err).ErrCode != errWrongLast {
			break
		}
	}
	switch {
	case again == nil && there == nil && apiErrorOf(err).ErrCode == errWrongLast:
		return fmt.Errorf("letter %d: %w: it goes from hand to hand at this moment; try again", c.Letter, ErrInHand)
	case again != nil || there == nil:
		return fmt.Errorf("queue: claim letter %d: %w", c.Letter, err)
	case there.MsgID == c.MsgID && there.By == c.By && there.Discard == c.Discard && c.MsgID != "":
		c.rev = there.rev
		return nil
	}
	return there.held()
}

// markTTL is how long the mark of a claim that was given back stays. Whoever lists
// claims reads the marks as well, and a redrive of many leaves as many.
const markTTL = time.Minute

// drop gives a claim back.
func (q *Queue) drop(ctx context.Context, c *Claim) error {
	_, err := q.letters.write(ctx, c.key(), nil, kvDeleteMark, int64(c.rev), markTTL)
	if err != nil && apiErrorOf(err).ErrCode != errWrongLast { // else it was dropped, by us or in our place
		return fmt.Errorf("queue: give letter %d back: %w", c.Letter, err)
	}
	return nil
}

// lastNumber is the number that a key ends with.
func lastNumber(key string) (uint64, bool) {
	n, err := strconv.ParseUint(key[strings.LastIndexByte(key, '.')+1:], 10, 64)
	return n, err == nil
}
