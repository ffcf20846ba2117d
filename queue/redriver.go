package queue

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nuid"

	"crmsync/contact"
)

const (
	redrivePage = 500 // letters that are chosen at a time
	saveEach    = time.Second
	// settleWait is how long a runner waits for the owners to remove the
	// letters of updates that have ended before it does that itself.
	settleWait = 3 * time.Second
	// missAfter is how long nothing has been heard of the updates when a
	// runner looks whether they are still there.
	missAfter = 5 * time.Second
)

// redriver carries out one operation.
type redriver struct {
	q    *Queue
	op   Operation
	opt  RedriveOptions
	tell func(Operation)

	open   map[uint64]*Claim // letters whose updates have not ended, without bodies
	missed map[uint64]bool   // letters of which neither claim nor record was left
	heard  time.Time         // when the last was sent, ended, or was looked for
	before map[uint64]bool   // letters behind the cursor whose updates had ended when this process began
	ends   chan ended
	steers chan entry // the operation as others store it
	failed chan error // the readers' ends

	page    []uint64
	read    bool // nothing follows the page
	due     time.Time
	changed bool
}

// ended is the end of one update of an operation.
type ended struct {
	letter  uint64
	outcome contact.Outcome
	record  uint64
}

// RunRedrive carries an operation out, from where it is, until all its updates
// have ended, it is cancelled, or ctx ends; then it may be run again, by any
// process, and goes on. Of two that run one operation the later goes on, and the
// other's error wraps [ErrLost]. check, which may be nil, may refuse a letter's
// update. tell, which may be nil, hears of progress, about once a second.
//
// It returns the operation as it is at the end; where that is not done, State and
// Why say why.
func (q *Queue) RunRedrive(ctx context.Context, id string, check func(*contact.Update) error, tell func(Operation)) (Operation, error) {
	o, err := q.takeOperation(ctx, id)
	if err != nil || o.State.Final() {
		return o, err
	}
	if o.Ended == nil {
		o.Ended = map[contact.Outcome]int64{}
	}
	if o.Skipped == nil {
		o.Skipped = map[Skip]int64{}
	}
	r := &redriver{
		q: q, op: o, tell: tell, open: map[uint64]*Claim{}, missed: map[uint64]bool{}, before: map[uint64]bool{},
		ends: make(chan ended, 64), steers: make(chan entry, 16), failed: make(chan error, 2), heard: time.Now(),
		opt: RedriveOptions{Actor: o.actor(), Force: o.Force, OriginalClass: o.OriginalClass, Check: check, operation: o.ID},
	}
	return r.run(ctx)
}

// takeOperation makes this process the one that carries an operation out.
func (q *Queue) takeOperation(ctx context.Context, id string) (Operation, error) {
	for n := 0; ; n++ {
		o, err := q.Operation(ctx, id)
		if err != nil || o.State.Final() {
			return o, err
		}
		o.Runner = nuid.Next()
		err = q.saveOperation(ctx, &o)
		if apiErrorOf(err).ErrCode != errWrongLast || !sleep(ctx, pause(n)) {
			return o, err
		}
	}
}

func (r *redriver) run(ctx context.Context) (Operation, error) {
	from, err := r.recount(ctx)
	if err != nil {
		return r.op, err
	}
	reading, stop := context.WithCancel(ctx)
	done := make(chan struct{}, 2)
	go func() { r.failed <- r.follow(reading, from); done <- struct{}{} }()
	go func() {
		r.failed <- r.q.letters.watch(reading, opKey+r.op.ID, nil, func(e entry) {
			select {
			case r.steers <- e:
			case <-reading.Done():
			}
		})
		done <- struct{}{}
	}()
	defer func() { stop(); <-done; <-done }()
	err = r.loop(ctx)
	if err == nil && r.op.State == OperationDone {
		err = r.clear(ctx)
	}
	if r.tell != nil {
		r.tell(r.op)
	}
	return r.op, err
}

// loop sends letters and hears of their ends until nothing is left to do.
func (r *redriver) loop(ctx context.Context) error {
	tick := time.NewTicker(saveEach)
	defer tick.Stop()
	turn := time.NewTimer(0)
	defer turn.Stop()
	for {
		if err := r.step(ctx); err != nil {
			return errors.Join(err, r.save(context.WithoutCancel(ctx)))
		}
		if r.op.State.Final() {
			return r.save(ctx)
		}
		var due <-chan time.Time
		if ready, wait := r.ready(); ready {
			turn.Reset(wait)
			due = turn.C
		}
		select {
		case e := <-r.ends:
			r.count(e)
		case e := <-r.steers:
			if err := r.steered(e); err != nil {
				return err
			}
		case err := <-r.failed:
			return err
		case <-due:
		case <-tick.C:
			r.miss(ctx)
			if err := r.save(ctx); err != nil {
				return err
			}
		case <-ctx.Done():
			return errors.Join(ctx.Err(), r.save(context.WithoutCancel(ctx)))
		}
	}
}

// ready says whether a letter may be sent, and how long it has to wait for its
// turn.
func (r *redriver) ready() (bool, time.Duration) {
	c := int64(r.op.Canary)
	switch {
	case r.op.State != OperationRunning, len(r.open) >= r.op.Window, r.read && len(r.page) == 0:
		return false, 0
	case c > 0 && r.canaries() && (r.op.Ended[contact.Dead] > 0 || r.op.Sent == c && len(r.open) > 0):
		return false, 0 // the canaries have not all ended, or not well
	}
	return true, time.Until(r.due)
}

// canaries says that nothing but the canaries has been sent.
func (r *redriver) canaries() bool { return r.op.Sent <= int64(r.op.Canary) }

// step does what can be done now.
func (r *redriver) step(ctx context.Context) error {
	if n := r.op.Ended[contact.Dead]; n > 0 && r.canaries() && r.op.Canary > 0 {
		if len(r.open) == 0 || r.op.State != OperationRunning {
			r.op.State, r.op.Why = OperationStopped, fmt.Sprintf("%d of the first %d died again; see letter %d", n, r.op.Sent, r.op.DeadAgain[0])
			r.changed = true
		}
		return nil
	}
	if len(r.page) == 0 && !r.read {
		if err := r.choose(ctx); err != nil {
			return err
		}
	}
	if r.read && len(r.page) == 0 && len(r.open) == 0 && r.op.State == OperationRunning {
		r.op.State, r.changed = OperationDone, true
		return nil
	}
	if ready, wait := r.ready(); !ready || wait > 0 {
		return nil
	}
	return r.send(ctx)
}

// choose finds the next letters.
func (r *redriver) choose(ctx context.Context) error {
	if ids := r.op.IDs; len(ids) > 0 {
		r.page, r.read = ids[min(int(r.op.Cursor), len(ids)):], true
		return nil
	}
	f := r.op.Filter
	f.After = r.op.Cursor
	page := redrivePage
	if f.Limit > 0 {
		page = min(page, f.Limit-int(r.op.Chosen))
	}
	r.read = true
	if page <= 0 {
		return nil
	}
	f.Limit = page
	return r.q.choose(ctx, f, func(h letterHead) error {
		if h.id > r.op.Last {
			return errEnough
		}
		r.page = append(r.page, h.id)
		r.read = len(r.page) < page
		return nil
	})
}

// send sends the next letter of the page.
func (r *redriver) send(ctx context.Context) error {
	id := r.page[0]
	known := r.open[id] != nil || r.before[id] // sent before this process began
	var err error
	if !known {
		var letter Record
		if letter, err = r.q.deadLetter(ctx, id); err == nil {
			var sent Redriven
			if sent, err = r.q.redrive(ctx, &letter, r.opt); err == nil {
				r.open[id] = &Claim{Letter: id, Target: letter.Target, Contact: letter.Contact, MsgID: sent.MsgID}
				r.heard = time.Now()
			}
		}
	}
	skip, one := skipOf(err)
	switch {
	case known:
	case err == nil:
		r.op.Sent++
	case one:
		r.op.Skipped[skip]++
	case errors.Is(err, ErrFull):
		r.due = time.Now().Add(saveEach)
		return nil
	default:
		return err
	}
	r.page = r.page[1:]
	r.op.Chosen++
	if len(r.op.IDs) > 0 {
		r.op.Cursor++
	} else {
		r.op.Cursor = id
	}
	if r.op.Rate > 0 && err == nil && !known {
		r.due = later(r.due, time.Now()).Add(time.Duration(float64(time.Second) / r.op.Rate))
	}
	r.changed = true
	return nil
}

// later is the time from which the next turn is counted: a letter that came late
// does not make the next ones come faster.
func later(due, now time.Time) time.Time {
	if due.After(now.Add(-100 * time.Millisecond)) {
		return due
	}
	return now
}

// steered takes over what others have stored.
func (r *redriver) steered(e entry) error {
	if e.gone || e.rev <= r.op.rev {
		return nil
	}
	o, err := decodeOperation(e)
	if err != nil {
		return err
	}
	if o.Runner != r.op.Runner {
		return fmt.Errorf("operation %s: %w: another process goes on with it", r.op.ID, ErrLost)
	}
	r.op.State, r.op.Why, r.op.rev = o.State, o.Why, o.rev
	r.changed = true
	return nil
}

// save stores how far the operation is, and tells it.
func (r *redriver) save(ctx context.Context) error {
	if !r.changed {
		return nil
	}
	final := r.op.State == OperationDone || r.op.State == OperationStopped
	for {
		err := r.q.saveOperation(ctx, &r.op)
		if apiErrorOf(err).ErrCode != errWrongLast {
			r.changed = err != nil
			if err == nil && r.tell != nil {
				r.tell(r.op)
			}
			return err
		}
		e, err := r.q.letters.get(ctx, opKey+r.op.ID)
		if err != nil {
			return err
		}
		if e.gone {
			return fmt.Errorf("operation %s: %w", r.op.ID, ErrNotFound)
		}
		was, why := r.op.State, r.op.Why
		if err := r.steered(e); err != nil {
			return err
		}
		if final && !r.op.State.Final() {
			r.op.State, r.op.Why = was, why
		}
	}
}
