package queue

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nuid"

	"crmsync/contact"
)

// Errors of redrives.
var (
	// ErrTooOld is wrapped where a letter is so old that the records of what
	// followed it may have expired: whether it would overwrite newer data
	// cannot be said. Force sends it nevertheless.
	ErrTooOld = errors.New("too old to be proven not stale")
	// ErrUnsendable is wrapped where a letter's body is no update: it can be
	// edited or discarded.
	ErrUnsendable = errors.New("the body is no update")
)

// RedriveLimit is how old a letter may be, counted from when its update was
// first stored, to be sent again without force: a day less than the records live
// that keep it from overwriting newer data.
const RedriveLimit = recordTTL - 24*time.Hour

// Actor is who does something, for the audit trail.
type Actor struct {
	By  string `json:"by"`            // a person or a program: alice@host, a NATS user, a token's name
	Via string `json:"via,omitempty"` // through what: cli, api, worker
}

// RedriveOptions say how a letter is sent again. The zero value sends what was
// edited, or else the original, in class bulk.
type RedriveOptions struct {
	Actor
	// Force lets it overwrite data that is newer than the original.
	Force bool
	// OriginalClass sends it in the class of the original, not in bulk.
	OriginalClass bool
	// Body is sent instead of the original and of what was edited before; nil
	// leaves that. It must decode.
	Body []byte
	// Check, where it is not nil, may refuse what would be sent: with a
	// *[contact.BadUpdate] where the update is at fault, which makes it
	// ErrUnsendable. Any other error is passed on; one that wraps ErrNotSetUp
	// says that the target cannot take anything.
	Check func(*contact.Update) error

	operation string
}

// Redriven is a letter that was sent again.
type Redriven struct {
	Letter uint64        `json:"letter"`
	Class  contact.Class `json:"class"`
	Seq    uint64        `json:"seq"` // of the new update, in the stream of its class
	MsgID  string        `json:"msg_id"`
}

// Redrive sends a dead letter again, once however many try at the same time: a
// new update that names the letter, as old as the original unless it is forced,
// behind live traffic. When that update has ended the letter is removed; if it is
// dead again, the new letter stands in its place.
//
// The audit trail tells of it before. The error wraps [ErrNotFound] where there
// is no such letter, [ErrInHand] where somebody sends or discards it, [ErrTooOld],
// [ErrUnsendable], [ErrFull] or [ErrNotSetUp]. After any other error the letter
// may be in hand: it is then sent by the target's owner, or given back.
func (q *Queue) Redrive(ctx context.Context, id uint64, o RedriveOptions) (Redriven, error) {
	letter, err := q.deadLetter(ctx, id)
	if err != nil {
		return Redriven{}, err
	}
	// What is refused now needs no entry.
	if err := q.inHand(ctx, contact.Key{Target: letter.Target, ID: letter.Contact}, id); err != nil {
		return Redriven{}, err
	}
	if _, err := q.prepare(ctx, &letter, o); err != nil {
		return Redriven{}, err
	}
	detail := ""
	if o.Force {
		detail = "forced"
	}
	err = q.Audit(ctx, Entry{Actor: o.Actor, Action: "redrive", Target: letter.Target, Contact: letter.Contact, Count: 1, IDs: []uint64{id}, Detail: detail})
	if err != nil {
		return Redriven{}, err
	}
	return q.redrive(ctx, &letter, o)
}

// redrive is Redrive behind the audit.
func (q *Queue) redrive(ctx context.Context, letter *Record, o RedriveOptions) (Redriven, error) {
	a := q.redriveAll(ctx, []*Record{letter}, o)[0]
	return a.sent, a.err
}

// deadLetter reads a dead letter.
func (q *Queue) deadLetter(ctx context.Context, id uint64) (Record, error) {
	r, err := q.Record(ctx, id)
	if err == nil && r.Outcome != contact.Dead {
		err = fmt.Errorf("queue: record %d: %w: it is %s, not a dead letter", id, ErrNotFound, r.Outcome)
	}
	return r, err
}

// prepare checks that a letter can be sent and says as what.
func (q *Queue) prepare(ctx context.Context, letter *Record, o RedriveOptions) (*Claim, error) {
	var edit *Edit
	if o.Body == nil {
		var err error
		if edit, err = q.Edited(ctx, letter); err != nil {
			return nil, err
		}
	}
	return prepared(letter, edit, o)
}

// prepared is prepare where the letter's edit is known, nil for none.
func prepared(letter *Record, edit *Edit, o RedriveOptions) (*Claim, error) {
	c := &Claim{
		Letter: letter.Seq, Target: letter.Target, Contact: letter.Contact, Operation: o.operation, By: o.By,
		Class: contact.Bulk, MsgID: "redrive-" + strconv.FormatUint(letter.Seq, 10) + "-" + nuid.Next(), Force: o.Force, Body: o.Body,
	}
	if o.OriginalClass {
		c.Class = letter.Place().Class
	}
	if c.Body != nil {
		c.Edited = o.By
	} else if edit != nil {
		c.Body, c.Edited = edit.Body, edit.By
	}
	u := repeat(letter, c)
	if u.Bad != nil {
		return nil, fmt.Errorf("letter %d: %w: %w; edit it or discard it", letter.Seq, ErrUnsendable, u.Bad)
	}
	if o.Check != nil {
		if err := o.Check(u); err != nil {
			return nil, checked(letter.Seq, err)
		}
	}
	if at := letter.Place(); !o.Force && (at.IsZero() || time.Since(at.Stored) > RedriveLimit) {
		return nil, fmt.Errorf("letter %d: %w: its update was stored before %s; force sends it as if it were new", letter.Seq, ErrTooOld,
			time.Now().Add(-RedriveLimit).UTC().Format(time.DateOnly))
	}
	_, err := message(sendable(u))
	if err != nil {
		err = fmt.Errorf("letter %d: %w: %w", letter.Seq, ErrUnsendable, err)
	}
	return c, err
}

// checked is the error of a check: only an update that is at fault itself is made
// sendable by an edit.
func checked(letter uint64, err error) error {
	var bad *contact.BadUpdate
	if errors.As(err, &bad) {
		return fmt.Errorf("letter %d: %w: %w", letter, ErrUnsendable, err)
	}
	return fmt.Errorf("letter %d: %w", letter, err)
}

// repeat is the update that repeats a letter under a claim, decoded.
func repeat(letter *Record, c *Claim) *contact.Update {
	body, header := letter.Original, letter.OriginalHeader
	if c.Body != nil {
		body, header = c.Body, nil // an edited body is a plain one, whatever envelope the original had
	}
	kept := map[string][]string{}
	for name, v := range header {
		if !ownHeader(name) {
			kept[name] = v
		}
	}
	u := contact.Decode(body, kept)
	u.Contact, u.Class, u.MsgID = contact.Key{Target: letter.Target, ID: letter.Contact}, c.Class, c.MsgID
	u.Job, u.TraceParent = letter.Job, letter.TraceParent
	if len(letter.Updates) > 0 {
		u.Row = letter.Updates[0].Row
	}
	u.RedriveOf = strconv.FormatUint(letter.Seq, 10)
	u.Redrive = &contact.Redrive{
		Operation: c.Operation, Root: letter.root(), By: oneLine(c.By), Edited: oneLine(c.Edited), Order: letter.Place(), Force: c.Force, MaybeSent: letter.MaybeSent,
	}
	return u
}

// sendable is the update as Publish takes it: with its bytes, not its fields.
func sendable(u *contact.Update) *contact.Update {
	c := *u
	c.Fields = nil
	return &c
}

// publishWithin bounds the time from the claim to the publishing. It is far below
// the duplicates window and below mendAfter: who comes later looks first whether
// the update was stored.
const (
	publishWithin = 20 * time.Second
	mendAfter     = 30 * time.Second
)

var errNotInTime = errors.New("it could not be stored in time; the target's owner sends it or gives it back")

func notInTime(letter uint64) error { return fmt.Errorf("queue: letter %d: %w", letter, errNotInTime) }

// send publishes what a claim stands for.
func (q *Queue) send(ctx context.Context, letter *Record, c *Claim, claimed time.Time) (Redriven, error) {
	for n := 0; ; n++ {
		if left := publishWithin - time.Since(claimed); left <= 0 {
			return Redriven{}, notInTime(letter.Seq)
		}
		s, err := q.Publish(ctx, sendable(repeat(letter, c)))
		if err == nil {
			return Redriven{Letter: letter.Seq, Class: c.Class, Seq: s.Seq, MsgID: c.MsgID}, nil
		}
		if errors.Is(err, ErrFull) || errors.Is(err, ErrNoSpace) || errors.Is(err, ErrNotSetUp) || permanent(err) {
			return Redriven{}, errors.Join(fmt.Errorf("letter %d: %w", letter.Seq, err), q.drop(ctx, c))
		}
		if !sleep(ctx, pause(n)) {
			return Redriven{}, fmt.Errorf("letter %d: %w", letter.Seq, err)
		}
	}
}

// mend finishes what was begun with letters of a target and not ended, because a
// process stopped between two steps: claims older than the time in which their
// makers must have published. It is the owner's work, and may be repeated.
func (q *Queue) mend(ctx context.Context, target string, now time.Time) error {
	var open []*Claim
	err := q.claims(ctx, target, func(c *Claim) error {
		if now.Sub(c.At) >= q.mendAfter {
			open = append(open, c)
		}
		return nil
	})
	for _, c := range open {
		if e := q.mendOne(ctx, c); e != nil {
			err = errors.Join(err, fmt.Errorf("queue: letter %d: %w", c.Letter, e))
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
	}
	return err
}

func (q *Queue) mendOne(ctx context.Context, c *Claim) error {
	k := contact.Key{Target: c.Target, ID: c.Contact}
	letter, err := q.deadLetter(ctx, c.Letter)
	if errors.Is(err, ErrNotFound) {
		return q.release(ctx, c) // all was done but this
	}
	if err != nil {
		return err
	}
	if c.Discard != "" {
		return q.discardClaimed(ctx, c)
	}
	// The stream first: an update leaves it only when its record is stored.
	waits, err := q.waits(ctx, k, c)
	if err != nil {
		return err
	}
	e, err := q.endOf(ctx, k, c)
	switch {
	case err != nil:
		return err
	case e != nil:
		return q.finish(ctx, *e)
	case waits:
		return nil
	}
	if q.cancelled(c.Operation) {
		return q.drop(ctx, c)
	}
	_, err = q.send(ctx, &letter, c, time.Now())
	return err
}

// waits says whether the update of a claim lies in its stream.
func (q *Queue) waits(ctx context.Context, k contact.Key, c *Claim) (found bool, err error) {
	err = q.scan(ctx, streamName(k.Target, c.Class), contact.Subject(k, c.Class), 1, func(m *stored) error {
		if m.Header.Get(contact.HeaderMsgID) == c.MsgID {
			found = true
			return errEnough
		}
		return nil
	})
	return found, err
}

// endOf finds the record of a claim's update; nil where there is none.
func (q *Queue) endOf(ctx context.Context, k contact.Key, c *Claim) (out *end, err error) {
	id := strconv.FormatUint(c.Letter, 10)
	err = q.scan(ctx, outcomeStream, contactFilter(k), c.Letter, func(m *stored) error {
		if m.Header.Get(contact.HeaderRedriveOf) != id || m.Header.Get(headerLetter) != "" {
			return nil
		}
		r, err := decodeRecord(m.Subject, m.Seq, m.Time, m.Header, m.Data)
		if err != nil {
			return err
		}
		if len(r.Updates) == 1 && r.Updates[0].MsgID == c.MsgID {
			out = &end{letter: c.Letter, key: k, msgID: c.MsgID, outcome: r.Outcome, record: r.Seq}
			return errEnough
		}
		return nil
	})
	return out, err
}

// scan calls f for the messages of a subject from a sequence on, one request for
// each: for the few that one contact has. errEnough ends it.
func (q *Queue) scan(ctx context.Context, stream, subject string, from uint64, f func(*stored) error) error {
	for {
		m, err := q.get(ctx, stream, getRequest{Seq: max(from, 1), Next: subject})
		switch {
		case apiErrorOf(err).ErrCode == errNoStream:
			return fmt.Errorf("queue: stream %s does not exist: %w; run \"crmsync setup\"", stream, ErrNotSetUp)
		case err != nil:
			return fmt.Errorf("queue: read %s: %w", stream, err)
		case m == nil:
			return nil
		}
		if m.Header == nil {
			m.Header = nats.Header{}
		}
		if err := f(m); errors.Is(err, errEnough) {
			return nil
		} else if err != nil {
			return err
		}
		from = m.Seq + 1
	}
}
