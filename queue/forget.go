package queue

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/nats-io/nats.go"

	"crmsync/contact"
)

// Receipt says what was removed of a person, and where.
type Receipt struct {
	Target     string    `json:"target"`
	Contact    string    `json:"contact"`
	At         time.Time `json:"at,omitzero"`
	Updates    int64     `json:"updates"`    // that waited, or had ended and not been purged
	Letters    int64     `json:"letters"`    // dead letters
	Outcomes   int64     `json:"outcomes"`   // other records
	Edits      int64     `json:"edits"`      // edited bodies
	Claims     int64     `json:"claims"`     // marks of letters in hand
	Begun      int64     `json:"begun"`      // notes of side effects that were asked for
	Operations int64     `json:"operations"` // redrives that named the contact
}

// tombstone is the memory that a contact was forgotten. It holds the contact's
// id, and is the only thing that stays, beside the audit trail.
type tombstone struct {
	Target  string `json:"target"`
	Contact string `json:"contact"`
	By      string `json:"by,omitempty"`
	// Upto is, in each class, the last update there was when it was written:
	// what lies behind belongs to whoever has the contact's id now.
	Upto    [contact.Classes]uint64 `json:"upto"`
	Done    bool                    `json:"done,omitempty"`
	Receipt Receipt                 `json:"receipt"`

	rev   uint64
	saved Receipt // as it is stored
}

// plus adds what was removed between two receipts.
func (r Receipt) plus(now, before Receipt) Receipt {
	r.Updates += now.Updates - before.Updates
	r.Letters += now.Letters - before.Letters
	r.Outcomes += now.Outcomes - before.Outcomes
	r.Edits += now.Edits - before.Edits
	r.Claims += now.Claims - before.Claims
	r.Begun += now.Begun - before.Begun
	r.Operations += now.Operations - before.Operations
	return r
}

func (t *tombstone) key() contact.Key { return contact.Key{Target: t.Target, ID: t.Contact} }

// covers says that an update at a place was there before.
func (t *tombstone) covers(class contact.Class, seq uint64) bool { return seq <= t.Upto[class] }

// Forget removes a person: every update of the contact that waits, its dead
// letters, outcome records, edits and marks, and says what was removed. It
// survives a restart (the target's owner goes on where it was cut short) and no
// redrive undoes it. Updates that are published after it began are somebody's
// new data and are applied. A call that is under way at this moment ends; what
// the CRM holds is not touched.
//
// The audit trail names the contact before, and keeps its name.
func (q *Queue) Forget(ctx context.Context, who Actor, k contact.Key) (Receipt, error) {
	if err := contact.CheckTarget(k.Target); err != nil {
		return Receipt{}, fmt.Errorf("queue: %w", err)
	}
	if err := contact.CheckID(k.ID); err != nil {
		return Receipt{}, fmt.Errorf("queue: target %s: %w", k.Target, err)
	}
	if err := q.Audit(ctx, Entry{Actor: who, Action: "forget", Target: k.Target, Contact: k.ID, Count: 1}); err != nil {
		return Receipt{}, err
	}
	t := &tombstone{Target: k.Target, Contact: k.ID, By: who.By, Receipt: Receipt{Target: k.Target, Contact: k.ID, At: time.Now().UTC()}}
	for c := range contact.Class(contact.Classes) {
		info, err := q.info(ctx, streamName(k.Target, c))
		if err != nil {
			return Receipt{}, err
		}
		t.Upto[c] = info.State.LastSeq
	}
	if err := q.bury(ctx, t); err != nil {
		return Receipt{}, err
	}
	if err := q.finishForget(ctx, t); err != nil {
		return t.Receipt, fmt.Errorf("forget %s: %w; it has begun, and the target's owner goes on with it; or forget it again", k, err)
	}
	return t.Receipt, nil
}

// bury stores a tombstone. Where somebody else has stored it meanwhile, what each
// of the two removed is added up, and it covers what either of them does. It is
// done when one of the two has removed all that.
func (q *Queue) bury(ctx context.Context, t *tombstone) error {
	key := forgetKey + personKey(t.key())
	for n := 0; ; n++ {
		b, err := json.Marshal(t)
		if err == nil {
			var rev uint64
			if rev, err = q.letters.put(ctx, key, b, int64(t.rev)); err == nil {
				t.rev, t.saved = rev, t.Receipt
				return nil
			}
		}
		if apiErrorOf(err).ErrCode != errWrongLast || !sleep(ctx, pause(n)) {
			return fmt.Errorf("queue: forget %s: %w", t.key(), err)
		}
		e, err := q.letters.get(ctx, key)
		if err != nil {
			return fmt.Errorf("queue: %w", err)
		}
		there, err := decodeTombstone(e)
		switch {
		case err != nil:
			return err
		case there == nil: // somebody removed it by hand
			t.rev = e.rev
		case t.rev == 0 && there.Done: // of a former time: its receipt was given
			t.rev = there.rev
			t.Upto, _, _ = t.both(there)
		default:
			t.join(there)
		}
	}
}

// join makes t what both say, at the revision of the other.
func (t *tombstone) join(there *tombstone) {
	upto, mine, its := t.both(there)
	there.Receipt = there.Receipt.plus(t.Receipt, t.saved)
	there.Done = t.Done && mine || there.Done && its
	there.Upto = upto
	*t = *there
}

// both is what either covers, and which of them covers all that.
func (t *tombstone) both(there *tombstone) (upto [contact.Classes]uint64, mine, its bool) {
	for c := range upto {
		upto[c] = max(t.Upto[c], there.Upto[c])
	}
	return upto, upto == t.Upto, upto == there.Upto
}

// tombstone reads one, nil where there is none.
func (q *Queue) tombstone(ctx context.Context, key string) (*tombstone, error) {
	e, err := q.letters.get(ctx, key)
	if err != nil {
		return nil, fmt.Errorf("queue: %w", err)
	}
	return decodeTombstone(e)
}

func decodeTombstone(e entry) (*tombstone, error) {
	if e.gone {
		return nil, nil
	}
	t := &tombstone{rev: e.rev}
	if err := json.Unmarshal(e.value, t); err != nil {
		return nil, fmt.Errorf("queue: tombstone %s: %w", e.key, err)
	}
	t.saved = t.Receipt
	return t, nil
}

// finishForget removes what a tombstone covers; it may be repeated after it was
// cut short anywhere. The updates go before the records: an update whose watermark
// had gone first would be taken for a new one.
func (q *Queue) finishForget(ctx context.Context, t *tombstone) error {
	if err := q.announceForget(ctx, t); err != nil {
		return err
	}
	k, upto := t.key(), t.Upto
	for c := range contact.Class(contact.Classes) {
		err := q.scan(ctx, streamName(k.Target, c), contact.Subject(k, c), 0, func(m *stored) error {
			order, err := contact.ParsePlace(m.Header.Get(contact.HeaderOrder))
			if !t.covers(c, m.Seq) && (err != nil || !t.covers(order.Class, order.Seq)) {
				return nil
			}
			t.Receipt.Updates++
			return q.erase(ctx, streamName(k.Target, c), m.Seq)
		})
		if err != nil {
			return err
		}
	}
	if err := q.bury(ctx, t); err != nil { // the receipt survives
		return err
	}
	err := q.scan(ctx, outcomeStream, contactFilter(k), 0, func(m *stored) error {
		r, err := decodeRecord(m.Subject, m.Seq, m.Time, m.Header, m.Data)
		if err == nil && !t.whole(&r) {
			return nil
		}
		if r.Outcome == contact.Dead {
			t.Receipt.Letters++
		} else {
			t.Receipt.Outcomes++
		}
		return q.erase(ctx, outcomeStream, m.Seq)
	})
	if err != nil {
		return err
	}
	if err := q.eraseKeys(ctx, t); err != nil {
		return err
	}
	t.Done = t.Upto == upto // else somebody forgets more and goes on
	return q.bury(ctx, t)
}

// whole says that a record tells of nothing newer than the tombstone.
func (t *tombstone) whole(r *Record) bool {
	if d := r.Redrive; d != nil && !d.Order.IsZero() {
		return t.covers(d.Order.Class, d.Order.Seq)
	}
	for _, u := range r.Updates {
		if !t.covers(u.Class, u.Seq) {
			return false
		}
	}
	return true
}

// eraseKeys removes the contact's edits and marks, unless their letter stands,
// and the redrives that named it.
func (q *Queue) eraseKeys(ctx context.Context, t *tombstone) error {
	person := personKey(t.key())
	for kind, n := range map[string]*int64{editKey: &t.Receipt.Edits, claimKey: &t.Receipt.Claims} {
		err := q.scan(ctx, q.letters.stream(), q.letters.subject(kind+person+".*"), 0, func(m *stored) error {
			if id, ok := lastNumber(m.Subject); ok {
				if _, err := q.deadLetter(ctx, id); !errors.Is(err, ErrNotFound) {
					return err
				}
			}
			if m.Header.Get(kvOperation) == "" {
				*n++
			}
			return q.erase(ctx, q.letters.stream(), m.Seq)
		})
		if err != nil {
			return err
		}
	}
	if err := q.eraseBegun(ctx, t); err != nil {
		return err
	}
	return q.letters.each(ctx, opKey+">", func(e entry) error {
		o, err := decodeOperation(e)
		if err != nil || o.Filter.Contact != t.Contact || o.Filter.Target != "" && o.Filter.Target != t.Target {
			return err
		}
		t.Receipt.Operations++
		return q.erase(ctx, q.letters.stream(), e.rev)
	})
}

// eraseBegun removes the note of side effects, unless it names what is newer.
func (q *Queue) eraseBegun(ctx context.Context, t *tombstone) error {
	n, err := q.begunNote(ctx, t.key())
	if err != nil || n == nil || slices.ContainsFunc(n.Updates, func(r begunRef) bool { return !t.covers(r.Class, r.Seq) }) {
		return err
	}
	t.Receipt.Begun++
	return q.erase(ctx, q.letters.stream(), n.rev)
}

const forgetSubject = "crm.forget."

// announceForget tells the target's owner, if there is one, and returns when it
// knows: from then on it hands out, sends and records nothing that the tombstone
// covers.
func (q *Queue) announceForget(ctx context.Context, t *tombstone) error {
	q.noteForgotten(t)
	limited, cancel := context.WithTimeout(ctx, q.timeout)
	defer cancel()
	_, err := q.request(limited, &nats.Msg{Subject: forgetSubject + t.Target, Data: []byte(personKey(t.key()))})
	if errors.Is(err, nats.ErrNoResponders) {
		return nil // who takes the target later reads the tombstones first
	}
	if err != nil {
		return fmt.Errorf("the target's owner does not answer: %w", err)
	}
	return nil
}

// hearForgets answers announceForget for as long as the source lasts.
func (s *Source) hearForgets(sub *nats.Subscription) {
	defer func() { _ = sub.Unsubscribe() }() // it is no use any more
	for {
		m, err := sub.NextMsgWithContext(s.ctx)
		if err != nil {
			if s.ctx.Err() != nil {
				return
			}
			sleep(s.ctx, pause(0))
			continue
		}
		if e, err := s.q.letters.get(s.ctx, forgetKey+string(m.Data)); err == nil {
			s.q.sawForgotten(e)
			_ = m.Respond(nil) // who asked asks again
		}
	}
}

// sawForgotten notes a tombstone.
func (q *Queue) sawForgotten(e entry) {
	if t, err := decodeTombstone(e); err == nil && t != nil {
		q.noteForgotten(t)
		q.pokeSources()
	}
}

func (q *Queue) noteForgotten(t *tombstone) {
	q.mu.Lock()
	defer q.mu.Unlock()
	upto := q.gone[t.key()]
	for c := range upto {
		upto[c] = max(upto[c], t.Upto[c])
	}
	q.gone[t.key()] = upto
	q.goneSome.Store(true)
}

// forgotten says that an update is older than the forgetting of its contact. A
// redrive is as old as its original, forced or not.
func (s *Source) forgotten(u *contact.Update) bool {
	if !s.q.goneSome.Load() {
		return false
	}
	s.q.mu.Lock()
	upto, ok := s.q.gone[u.Contact]
	s.q.mu.Unlock()
	if !ok {
		return false
	}
	if u.Redrive != nil && !u.Redrive.Order.IsZero() {
		o := u.Redrive.Order
		return o.Seq <= upto[o.Class]
	}
	return u.Seq <= upto[u.Class]
}

// unmark takes out of a fence what a forgotten contact's updates left in it.
func (q *Queue) unmark(k contact.Key, f contact.Fence) {
	if !q.goneSome.Load() {
		return
	}
	q.mu.Lock()
	upto, ok := q.gone[k]
	q.mu.Unlock()
	if !ok {
		return
	}
	for path, m := range f {
		if m.Seq <= upto[m.Class] {
			delete(f, path)
		}
	}
}

// finishForgets goes on with what was cut short, once whoever began it must have
// ended it.
func (q *Queue) finishForgets(ctx context.Context, target string, now time.Time) error {
	var open []*tombstone
	err := q.letters.each(ctx, forgetKey+target+".>", func(e entry) error {
		t, err := decodeTombstone(e)
		if err == nil && !t.Done && now.Sub(e.time) >= q.mendAfter {
			open = append(open, t)
		}
		return err
	})
	for _, t := range open {
		if e := q.finishForget(ctx, t); e != nil {
			err = errors.Join(err, e)
		}
	}
	return err
}

// Forgotten says when a contact was forgotten and what was removed; nil where it
// was not.
func (q *Queue) Forgotten(ctx context.Context, k contact.Key) (*Receipt, error) {
	t, err := q.tombstone(ctx, forgetKey+personKey(k))
	if err != nil || t == nil {
		return nil, err
	}
	return &t.Receipt, nil
}
