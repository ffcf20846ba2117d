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
	redrivePage      = 500     // letters that are chosen at a time
	redrivePageBytes = 8 << 20 // and so much of their originals is read with them
	redriveTogether  = 100     // letters that are sent together at most
	saveEach         = time.Second
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
	over   map[uint64]bool   // letters behind the cursor whose updates have ended
	ends   chan ended
	steers chan entry // the operation as others store it
	failed chan error // the readers' ends

	page    []uint64
	letters map[uint64]*Record // of the page, as far as they were read with it
	read    bool               // nothing follows the page
	due     time.Time
	changed bool
	running bool // what was done before is known
	unclear bool // what became of some letters is not
}

// ended is the end of one update of an operation.
type ended struct {
	letter  uint64
	outcome contact.Outcome
	record  uint64
}

// RunRedrive carries an operation out, from where it is, until all its updates
// have ended, it is cancelled, or ctx ends; then it may be run again, by any
// process, and goes on. It outlasts a server that does not answer for a while. Of two that run one operation the later goes on, and the
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
		q: q, op: o, tell: tell, letters: map[uint64]*Record{}, open: map[uint64]*Claim{}, missed: map[uint64]bool{}, over: map[uint64]bool{},
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
	for n := 0; err != nil && r.passing(ctx, err, n); n++ {
		from, err = r.recount(ctx)
	}
	if err != nil {
		return r.op, err
	}
	r.running = true
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
	for n := 0; ; {
		err := r.step(ctx)
		final := r.op.State.Final()
		if err == nil && final && r.op.State != OperationCancelled && len(r.open) == 0 {
			err = r.clear(ctx) // so that whoever hears of the end finds each letter once
		}
		if err == nil && final {
			err = r.save(ctx)
		}
		switch {
		case err == nil && final:
			return nil
		case err == nil:
			n = 0
		case !r.passing(ctx, err, n):
			return errors.Join(err, r.save(context.WithoutCancel(ctx)))
		default:
			n++
			r.unclear = true
			continue
		}
		var due <-chan time.Time
		if n, wait := r.ready(); n > 0 {
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
			if err := r.save(ctx); err != nil && !passing(err) {
				return err
			}
		case <-ctx.Done():
			return errors.Join(ctx.Err(), r.save(context.WithoutCancel(ctx)))
		}
	}
}

// passing says that what failed for the nth time may be tried again, and waits until
// then.
func (r *redriver) passing(ctx context.Context, err error, n int) bool {
	if !passing(err) && !errors.Is(err, errNotInTime) || r.q.isClosed() {
		return false
	}
	if n == 5 {
		r.q.log.Warn().Err(err).Str("operation", r.op.ID).Msg("letters cannot be sent again; trying on")
	}
	return sleep(ctx, pause(n))
}

// ready says how many letters may be sent, and how long they have to wait for
// their turn.
func (r *redriver) ready() (n int, wait time.Duration) {
	n = min(r.op.Window-len(r.open), redriveTogether, len(r.page))
	c := int64(r.op.Canary)
	switch {
	case r.op.State != OperationRunning || n <= 0:
		return 0, 0
	case c > 0 && r.canaries() && (r.op.Ended[contact.Dead] > 0 || r.op.Sent == c && len(r.open) > 0):
		return 0, 0 // the canaries have not all ended, or not well
	case c > 0 && r.op.Sent < c:
		n = min(n, int(c-r.op.Sent))
	}
	// A few at a time, evenly: what comes in heaps gets into the way of others.
	return min(n, max(1, int(r.op.rate()/100))), time.Until(r.due)
}

// canaries says that nothing but the canaries has been sent.
func (r *redriver) canaries() bool { return r.op.Sent <= int64(r.op.Canary) }

// step does what can be done now.
func (r *redriver) step(ctx context.Context) error {
	if r.unclear {
		if err := r.takeUp(ctx); err != nil {
			return err
		}
		r.unclear = false
	}
	if n := r.op.Ended[contact.Dead]; n > 0 && r.canaries() && r.op.Canary > 0 {
		if len(r.open) == 0 || r.op.State != OperationRunning {
			r.op.State, r.op.Why = OperationStopped, fmt.Sprintf("%d of the first %d died again; see letter %d", n, r.op.Sent, r.op.DeadAgain[0])
			r.changed = true
		}
		return nil
	}
	if len(r.page) == 0 && !r.read {
		if err := r.choose(ctx); err != nil {
			r.page, r.read = nil, false // what was chosen may not be all
			return err
		}
	}
	if r.read && len(r.page) == 0 && len(r.open) == 0 && r.op.State == OperationRunning {
		r.op.State, r.changed = OperationDone, true
		return nil
	}
	n, wait := r.ready()
	if n == 0 || wait > 0 {
		return nil
	}
	return r.send(ctx, r.page[:n])
}

// send sends the next letters of the page, which go on with the first that there
// was no room for.
func (r *redriver) send(ctx context.Context, ids []uint64) error {
	errs := make([]error, len(ids))
	letters, at := r.lettersOf(ctx, ids, errs)
	sent := 0
	for i, a := range r.q.redriveAll(ctx, letters, r.opt) {
		if errs[at[i]] = a.err; a.err != nil {
			continue
		}
		sent++
		id := ids[at[i]]
		r.open[id] = &Claim{Letter: id, Target: a.letter.Target, Contact: a.letter.Contact, MsgID: a.sent.MsgID}
		r.heard = time.Now()
		r.changed = true
	}
	defer r.tally()
	if sent > 0 {
		r.due = later(r.due, time.Now()).Add(time.Duration(float64(sent) * float64(time.Second) / r.op.rate()))
	}
	for i, err := range errs {
		skip, one := skipOf(err)
		switch {
		case err == nil: // sent now, or before there was room for one that comes before it
		case one:
			r.op.Skipped[skip]++
		case errors.Is(err, ErrFull):
			r.due = time.Now().Add(saveEach)
			return nil
		default:
			return err
		}
		r.page = r.page[1:]
		r.op.Cursor++
		if len(r.op.IDs) == 0 {
			r.op.Cursor = ids[i]
		}
		r.changed = true
	}
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
