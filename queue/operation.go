package queue

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/nats-io/nuid"

	"crmsync/contact"
)

// OperationState is what a redrive of many letters does.
type OperationState string

// States of operations. The last three are final.
const (
	OperationRunning   OperationState = "running"
	OperationPaused    OperationState = "paused"    // nothing more is sent until it is resumed
	OperationStopped   OperationState = "stopped"   // it ended itself; Why says why
	OperationCancelled OperationState = "cancelled" // an operator ended it; what was not sent to the CRM stays dead
	OperationDone      OperationState = "done"
)

// Final says that an operation in this state does nothing more.
func (s OperationState) Final() bool { return s != OperationRunning && s != OperationPaused }

// RedrivePlan says which letters a redrive of many sends and how.
type RedrivePlan struct {
	// Filter chooses among the letters that are there when it begins; Limit,
	// where it is set, bounds how many.
	Filter Filter `json:"filter,omitzero"`
	// IDs, where there are any, are the letters instead.
	IDs           []uint64 `json:"ids,omitempty"`
	Force         bool     `json:"force,omitempty"`
	OriginalClass bool     `json:"original_class,omitempty"`
	// Rate is how many letters a second are sent at most; 0:
	// DefaultRedriveRate.
	Rate float64 `json:"rate,omitempty"`
	// Window is how many updates may be unfinished at once; 0:
	// DefaultRedriveWindow.
	Window int `json:"window,omitempty"`
	// Canary is how many letters are sent before all others; if one of them
	// dies again nothing more is sent. 0: none.
	Canary int `json:"canary,omitempty"`
}

// DefaultRedriveRate is how many letters a second an operation sends at most: what
// has died can wait, and live traffic shares the store with it.
const DefaultRedriveRate = 20

func (p *RedrivePlan) rate() float64 {
	if p.Rate > 0 {
		return p.Rate
	}
	return DefaultRedriveRate
}

// DefaultRedriveWindow is how many updates of one operation may be unfinished at
// once.
const DefaultRedriveWindow = 200

// Operation is a redrive of many letters.
type Operation struct {
	ID string `json:"id"`
	RedrivePlan
	Actor                  // who began it
	Acting  *Actor         `json:"acting,omitempty"` // who goes on with it, where somebody does
	Started time.Time      `json:"started,omitzero"`
	Updated time.Time      `json:"updated,omitzero"` // when this was stored, by the broker's clock
	State   OperationState `json:"state"`
	Why     string         `json:"why,omitempty"`

	// Target is the one that all its letters are of; "" where there are more.
	Target string `json:"target,omitempty"`

	Total int64 `json:"total"` // letters chosen, as far as it was known when it began
	// Sent is how many have been sent again, Ended how their updates ended.
	Sent  int64                     `json:"sent"`
	Ended map[contact.Outcome]int64 `json:"ended,omitempty"`
	// DeadAgain are the new letters, the first 100.
	DeadAgain []uint64 `json:"dead_again,omitempty"`
	// Skipped is how many letters were not sent, by what stood in the way.
	Skipped map[Skip]int64 `json:"skipped,omitempty"`

	// Where it is: records up to First were there before it, letters up to
	// Last are its own, and those up to Cursor (a letter's id, or an index of
	// IDs) have been dealt with.
	First  uint64 `json:"first"`
	Last   uint64 `json:"last"`
	Cursor uint64 `json:"cursor"`
	Chosen int64  `json:"chosen"` // letters dealt with, for Filter.Limit
	Runner string `json:"runner,omitempty"`

	rev uint64
}

// Unfinished is how many updates were sent and have not ended.
func (o *Operation) Unfinished() int64 {
	n := o.Sent
	for _, k := range o.Ended {
		n -= k
	}
	return n
}

// Skip is why a letter of an operation was not sent.
type Skip string

// What stands in the way of a letter.
const (
	SkipGone       Skip = "gone"       // it was removed meanwhile
	SkipInHand     Skip = "in-hand"    // somebody else sends or discards it
	SkipTooOld     Skip = "too-old"    // see ErrTooOld
	SkipUnsendable Skip = "unsendable" // see ErrUnsendable
	SkipNoTarget   Skip = "no-target"  // its target has no stream
)

// skipOf says whether an error concerns one letter only.
func skipOf(err error) (Skip, bool) {
	for _, s := range []struct {
		is   error
		skip Skip
	}{{ErrNotFound, SkipGone}, {ErrInHand, SkipInHand}, {ErrTooOld, SkipTooOld}, {ErrUnsendable, SkipUnsendable}, {ErrNotSetUp, SkipNoTarget}} {
		if errors.Is(err, s.is) {
			return s.skip, true
		}
	}
	return "", false
}

// opTTL is how long an operation that has ended can be looked up.
const opTTL = 30 * 24 * time.Hour

// ErrOperationEnded is wrapped where an operation cannot be changed any more.
var ErrOperationEnded = errors.New("the operation has ended")

// StartRedrive makes an operation; [Queue.RunRedrive] carries it out. The audit
// trail names it before.
func (q *Queue) StartRedrive(ctx context.Context, who Actor, p RedrivePlan) (Operation, error) {
	p.Filter.Outcome, p.Filter.Newest, p.Filter.After = contact.Dead, false, 0
	if p.Window <= 0 {
		p.Window = DefaultRedriveWindow
	}
	if p.Rate < 0 || p.Canary < 0 {
		return Operation{}, errors.New("queue: redrive: rate and canary are not negative")
	}
	if _, err := p.Filter.config(); err != nil {
		return Operation{}, err
	}
	if err := q.hasRoom(ctx); err != nil {
		return Operation{}, err
	}
	info, err := q.info(ctx, outcomeStream)
	if err != nil {
		return Operation{}, err
	}
	target := p.Filter.Target
	if len(p.IDs) > 0 {
		if target, err = q.targetOf(ctx, p.IDs); err != nil {
			return Operation{}, err
		}
	}
	o := Operation{
		Target: target,
		ID:     strings.ToLower(nuid.Next()[14:]), RedrivePlan: p, Actor: who, Started: time.Now().UTC(), State: OperationRunning,
		First: info.State.LastSeq, Last: info.State.LastSeq, Total: int64(len(p.IDs)),
		Ended: map[contact.Outcome]int64{}, Skipped: map[Skip]int64{},
	}
	e := Entry{Actor: who, Action: "redrive", Target: target, IDs: p.IDs, Detail: "operation " + o.ID}
	if p.Force {
		e.Detail += ", forced"
	}
	if len(p.IDs) == 0 {
		e.Filter = &p.Filter
		if o.Total, err = q.Count(ctx, p.Filter); err != nil {
			return Operation{}, err
		}
	}
	e.Count = o.Total
	if err := q.Audit(ctx, e); err != nil {
		return Operation{}, err
	}
	b, err := json.Marshal(o)
	if err != nil {
		return Operation{}, fmt.Errorf("queue: redrive: %w", err)
	}
	if o.rev, err = q.letters.create(ctx, opKey+o.ID, b); err != nil {
		return Operation{}, fmt.Errorf("queue: redrive: %w", err)
	}
	o.Updated = o.Started
	return o, nil
}

// targetOf is the target that all these letters are of, or "". It reads them one
// by one, up to the first of a second target.
func (q *Queue) targetOf(ctx context.Context, ids []uint64) (target string, err error) {
	for _, id := range ids {
		r, err := q.deadLetter(ctx, id)
		switch {
		case errors.Is(err, ErrNotFound):
		case err != nil:
			return "", err
		case target != "" && target != r.Target:
			return "", nil
		default:
			target = r.Target
		}
	}
	return target, nil
}

// Operation reads one; the error wraps ErrNotFound where there is none.
func (q *Queue) Operation(ctx context.Context, id string) (Operation, error) {
	if err := checkKey(opKey + id); err != nil {
		return Operation{}, err
	}
	e, err := q.letters.get(ctx, opKey+id)
	if err != nil {
		return Operation{}, fmt.Errorf("queue: read operation %s: %w", id, err)
	}
	if e.gone {
		return Operation{}, fmt.Errorf("operation %s: %w", id, ErrNotFound)
	}
	return decodeOperation(e)
}

func decodeOperation(e entry) (Operation, error) {
	var o Operation
	if err := json.Unmarshal(e.value, &o); err != nil {
		return Operation{}, fmt.Errorf("queue: operation %s: %w", e.key, err)
	}
	o.rev, o.Updated = e.rev, e.time
	return o, nil
}

// Operations lists all there are, the newest first.
func (q *Queue) Operations(ctx context.Context) ([]Operation, error) {
	var out []Operation
	err := q.letters.each(ctx, opKey+">", func(e entry) error {
		o, err := decodeOperation(e)
		if err == nil {
			out = append(out, o)
		}
		return err
	})
	slices.SortFunc(out, func(a, b Operation) int { return cmp.Or(b.Started.Compare(a.Started), strings.Compare(a.ID, b.ID)) })
	return out, err
}

// CancelRedrive ends an operation: letters that were not sent stay dead, and
// those whose updates wait are dead again as if nothing had happened.
func (q *Queue) CancelRedrive(ctx context.Context, who Actor, id string) (Operation, error) {
	return q.steer(ctx, who, id, "redrive-cancel", OperationCancelled)
}

// PauseRedrive has an operation send nothing more until it is resumed.
func (q *Queue) PauseRedrive(ctx context.Context, who Actor, id string) (Operation, error) {
	return q.steer(ctx, who, id, "redrive-pause", OperationPaused)
}

// ResumeRedrive undoes PauseRedrive. It does not run the operation: where its
// process has gone, [Queue.RunRedrive] goes on with it.
func (q *Queue) ResumeRedrive(ctx context.Context, who Actor, id string) (Operation, error) {
	return q.steer(ctx, who, id, "redrive-resume", OperationRunning)
}

func (q *Queue) steer(ctx context.Context, who Actor, id, action string, to OperationState) (Operation, error) {
	audited := false
	for n := 0; ; n++ {
		o, err := q.Operation(ctx, id)
		switch {
		case err != nil || o.State == to:
			return o, err
		case o.State.Final():
			return o, fmt.Errorf("operation %s: %w: it is %s", id, ErrOperationEnded, o.State)
		}
		if !audited {
			if err := q.Audit(ctx, Entry{Actor: who, Action: action, Target: o.Target, Detail: "operation " + id}); err != nil {
				return Operation{}, err
			}
			audited = true
		}
		o.State, o.Why = to, "by "+who.By
		if to == OperationRunning {
			o.Why = ""
		}
		err = q.saveOperation(ctx, &o)
		if err == nil || apiErrorOf(err).ErrCode != errWrongLast || !sleep(ctx, pause(min(n, 2))) {
			return o, err
		}
	}
}

// saveOperation stores an operation over the revision that it was read at.
func (q *Queue) saveOperation(ctx context.Context, o *Operation) error {
	var ttl time.Duration
	if o.State.Final() {
		ttl = opTTL
		if o.Filter.Match != "" {
			o.Filter.Match = maskedMatch // nothing is chosen by it any more
		}
	}
	b, err := json.Marshal(o)
	if err != nil {
		return fmt.Errorf("queue: operation %s: %w", o.ID, err)
	}
	rev, err := q.letters.write(ctx, opKey+o.ID, b, "", int64(o.rev), ttl)
	if err != nil {
		return fmt.Errorf("queue: store operation %s: %w", o.ID, err)
	}
	o.rev, o.Updated = rev, time.Now().UTC()
	return nil
}

// sawOperation keeps the set of operations that were cancelled.
func (q *Queue) sawOperation(e entry) {
	if e.gone {
		return // one that is forgotten stays cancelled: updates of it may wait
	}
	if o, err := decodeOperation(e); err == nil && o.State == OperationCancelled {
		q.mu.Lock()
		q.ended[o.ID] = true
		q.mu.Unlock()
		q.pokeSources()
	}
}

func (q *Queue) cancelled(operation string) bool {
	if operation == "" {
		return false
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.ended[operation]
}

// Cancelled says that an update must not be sent: the redrive that it belongs to
// was cancelled, or its contact was forgotten. It asks no server and may be
// called for each update.
func (s *Source) Cancelled(u *contact.Update) bool {
	return u.Redrive != nil && s.q.cancelled(u.Redrive.Operation) || s.forgotten(u)
}
