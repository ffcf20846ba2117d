package worker

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	"crmsync/contact"
	"crmsync/crm"
)

// Lane is the one running owner of a target: it keeps order, merges, spends
// the quota and holds. Make one with [New], run it once with [Lane.Run].
//
// All its state belongs to the goroutine in Run; others talk to it through its
// channels. The budget alone is shared, behind its own lock.
type Lane struct {
	o   Options
	rng *rand.Rand

	arrivals chan arrival
	results  chan result
	settled  chan settleResult
	undone   chan struct{}
	recalled chan recalled
	asks     chan chan Status
	stories  chan storyAsk
	orders   chan Orders
	sweeps   chan struct{}
	news     chan struct{} // something that others should know has changed
	done     chan struct{} // closed when Run returns

	stopping context.Context // ends when the lane begins to drain
	drains   context.CancelFunc

	budget  *Budget
	windows [contact.Classes]*window

	// Owned by Run's goroutine from here on.
	slots    map[string]*slot // by contact id
	ready    readyQueue
	retries  retryHeap
	caughtUp [contact.Classes]bool
	held     [contact.Classes]struct{ n, bytes int } // unfinished updates in memory
	open     bool                                    // the replay horizon is reached: calls may start
	draining bool
	calling  int // calls in flight
	parked   int // slots of which all is paused

	concurrency int // and how many there may be
	settling    int // settlements in flight
	undoing     int // notes of begun side effects that are being taken back
	fatal       error

	operator Orders
	hold     *Hold // the automatic one that is on, nil for none
	lastHold Hold  // the one before
	lastEnd  time.Time
	storms   storms
	recent   []Evidence // the last answers that were no success
	prober   Prober     // nil where the sender is none
	probing  *slot
	reading  bool           // a read is in flight as a probe
	readOf   string         // the contact of the last of those
	streak   map[string]int // contact id: counted failures since the last answer that showed the target alive
	incident int            // failures in a row that the sender calls the target's
	lastGood time.Time      // last answer that showed the target alive

	doubts     map[string]*doubt // by contact id: what may come late
	doubtsEnd  time.Time         // nothing of it can after that
	contested  []*doubt          // those of which something has been written since
	repairs    []*doubt          // those whose turn it is
	nextRepair time.Time         // when the next is due; zero: none is

	writesFail bool // writes have failed while reads were answered
	readOnly   int  // changes in a row since, which needed no write

	waiting  waiting  // what dispatch waits for
	heldBack heldBack // by a quota
	stats    Counts
	callNo   uint64
	born     time.Time
}

// New makes a lane; it does nothing until [Lane.Run].
func New(o Options) *Lane {
	o = o.withDefaults()
	l := &Lane{
		o:        o,
		rng:      rand.New(rand.NewPCG(o.Seed, 0x6c616e65)),
		arrivals: make(chan arrival, 256),
		results:  make(chan result),
		settled:  make(chan settleResult),
		undone:   make(chan struct{}),
		recalled: make(chan recalled, 1),
		asks:     make(chan chan Status),
		stories:  make(chan storyAsk),
		orders:   make(chan Orders),
		sweeps:   make(chan struct{}, 1),
		news:     make(chan struct{}, 1),
		done:     make(chan struct{}),
		slots:    map[string]*slot{},
		streak:   map[string]int{},
		doubts:   map[string]*doubt{},
		storms:   storms{rows: map[rowKey]*row{}},
		stats:    newCounts(),
		budget:   NewBudget(o.Quota, o.Spent, time.Now()),
	}
	l.stopping, l.drains = context.WithCancel(context.Background())
	l.prober, _ = o.Sender.(Prober)
	l.budget.ride(o.Shared)
	for c := range l.windows {
		l.windows[c] = newWindow(o.Window, o.WindowBytes)
	}
	return l
}

// Run works until ctx ends or the source is lost. When ctx ends it takes and
// starts nothing more, waits for the calls in flight and stores how they ended,
// and returns nil. When work ends it cuts those short too and returns work's
// error. A lost source is returned as its own error, once no call is in flight
// any more; a lane with full windows may ask nothing of its source for long, so
// whoever ends the ownership should end ctx as well. ctx must end when work does.
func (l *Lane) Run(ctx, work context.Context) error {
	l.born = time.Now()
	defer close(l.done)
	defer l.budget.leave()
	defer context.AfterFunc(work, l.drains)()
	defer l.drains()
	l.remember(l.o.Memory)
	if h, o := l.hold, l.o.Orders; h == nil || !o.Since.After(h.Since) || !o.Since.After(h.Probed) {
		l.operator.Since = o.Since // an old order to resume asks for no probe
	}
	l.obey(l.o.Orders)
	intake, stop := context.WithCancel(ctx)
	var readers sync.WaitGroup
	failed := make(chan error, contact.Classes)
	for c := range contact.Class(contact.Classes) {
		readers.Go(func() {
			if err := l.read(intake, c); err != nil && intake.Err() == nil {
				failed <- err
			}
		})
	}
	defer readers.Wait()
	defer stop()

	err := l.loop(ctx, work, failed)
	if err != nil && work.Err() == nil {
		return fmt.Errorf("lane %s: %w", l.o.Target, err)
	}
	return err
}

func (l *Lane) loop(ctx, work context.Context, failed <-chan error) error {
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	stopping := ctx.Done()
	for {
		changed := l.budget.changed() // before it is asked
		l.dispatch(work)
		if l.draining {
			l.drains()
		}
		if l.draining && l.calling == 0 && l.settling == 0 && l.undoing == 0 && l.storms.back == nil && !l.storms.trying {
			return errors.Join(l.fatal, work.Err())
		}
		wake := idleWait
		if !l.waiting.until.IsZero() {
			wake = min(wake, max(0, time.Until(l.waiting.until)))
		}
		if !l.nextRepair.IsZero() {
			wake = min(wake, max(0, time.Until(l.nextRepair)))
		}
		if l.leftWait() {
			wake = min(wake, max(0, time.Until(l.storms.again)))
		}
		timer.Reset(wake)
		select {
		case a := <-l.arrivals:
			l.arrive(a)
			l.arriveMore()
		case r := <-l.results:
			l.decide(work, r)
		case s := <-l.settled:
			l.finish(s)
		case <-l.undone:
			l.undoing--
		case r := <-l.recalled:
			l.recallEnded(time.Now(), r)
		case reply := <-l.asks:
			reply <- l.snapshot(time.Now())
		case ask := <-l.stories:
			ask.reply <- l.story(ask.id)
		case <-l.sweeps:
			l.sweep(work)
		case o := <-l.orders:
			l.obey(o)
		case <-changed:
		case err := <-failed:
			l.fatal, l.draining = errors.Join(l.fatal, err), true
		case <-stopping:
			l.draining, stopping = true, nil
		case <-timer.C:
		}
	}
}

// arriveMore takes what else has arrived without going round the loop.
func (l *Lane) arriveMore() {
	for range cap(l.arrivals) {
		select {
		case a := <-l.arrivals:
			l.arrive(a)
		default:
			return
		}
	}
}

// Changed has something whenever a hold has begun or ended since it was last
// received from. One goroutine may listen.
func (l *Lane) Changed() <-chan struct{} { return l.news }

func (l *Lane) changed() {
	select {
	case l.news <- struct{}{}:
	default:
	}
}

// Sweep makes the lane ask [Options.Cancelled] and [Options.Paused] about
// everything that waits. It does not wait for that. Safe for concurrent use.
func (l *Lane) Sweep() {
	select {
	case l.sweeps <- struct{}{}:
	default:
	}
}

// Status asks the running lane how it is. It is false once the lane has ended
// or where ctx ends first. Safe for concurrent use.
func (l *Lane) Status(ctx context.Context) (Status, bool) {
	reply := make(chan Status, 1)
	select {
	case l.asks <- reply:
		return <-reply, true
	case <-l.done:
	case <-ctx.Done():
	}
	return Status{}, false
}

// Contact asks the running lane what it has in memory of a contact. It is false
// once the lane has ended or where ctx ends first. Safe for concurrent use.
func (l *Lane) Contact(ctx context.Context, id string) (ContactStatus, bool) {
	ask := storyAsk{id: id, reply: make(chan ContactStatus, 1)}
	select {
	case l.stories <- ask:
		return <-ask.reply, true
	case <-l.done:
	case <-ctx.Done():
	}
	return ContactStatus{}, false
}

// Steer gives the lane the operator's orders, which replace those before. It
// is false once the lane has ended or where ctx ends first. Safe for
// concurrent use.
func (l *Lane) Steer(ctx context.Context, o Orders) bool {
	select {
	case l.orders <- o:
		return true
	case <-l.done:
	case <-ctx.Done():
	}
	return false
}

// Spent is what the lane has used of the target's windows, for the next lane's
// options. It is complete once Run has returned; until then it is nil, and
// [Lane.Status] tells what was used so far. Safe for concurrent use.
func (l *Lane) Spent() []Spent {
	select {
	case <-l.done:
		return l.budget.Release(time.Now())
	default:
	}
	return nil
}

// Memory is what the next lane must know. It is complete once Run has returned;
// until then it is empty, and [Lane.Status] tells it. Safe for concurrent use.
func (l *Lane) Memory() Memory {
	select {
	case <-l.done:
		return l.memory()
	default:
		return Memory{}
	}
}

// Orders are what an operator wants of a lane. The zero value wants nothing.
type Orders struct {
	Hold  bool      `json:"hold,omitempty"`
	Until time.Time `json:"until,omitzero"` // the hold ends then; zero: when the operator says
	By    string    `json:"by,omitempty"`
	Note  string    `json:"note,omitempty"`
	Since time.Time `json:"since,omitzero"`
	// Limits take the place of the configured quota.
	Limits Limits `json:"limits,omitzero"`

	// Accepted is the fingerprint of the cause that the operator wants as dead
	// letters, for an hour from AcceptedAt: a storm of that cause ends, and no
	// other begins.
	Accepted   string    `json:"accepted,omitempty"`
	AcceptedAt time.Time `json:"accepted_at,omitzero"`
	// Storm is the Since of the storm that the operator has judged, by the
	// lane's clock: it ends, with its letters recalled or, if its cause is
	// Accepted, left.
	Storm  time.Time `json:"storm,omitzero"`
	Recall bool      `json:"recall,omitempty"`
}

func (l *Lane) obey(o Orders) {
	if o.Hold != l.operator.Hold {
		ev := l.o.Log.Info().Str("target", l.o.Target).Str("by", o.By)
		if o.Hold {
			if !o.Until.IsZero() {
				ev = ev.Time("until", o.Until)
			}
			ev.Msg("held by the operator")
		} else {
			ev.Msg("resumed by the operator")
		}
	}
	if !o.Hold && l.hold != nil && !o.Since.Equal(l.operator.Since) {
		l.hold.NextProbe = time.Now() // whoever resumes wants to see it tried
	}
	l.operator = o
	if h := l.storms.hold; h != nil && !l.storms.over && o.Storm.Equal(h.Since) {
		if o.Recall {
			l.storms.over = true
		} else {
			l.endStorm(time.Now(), "the operator accepts the refusals")
		}
	}
	q := l.o.Quota.Under(o.Limits)
	l.concurrency = q.Concurrency
	l.budget.Set(time.Now(), q)
}

// result is a call that has ended.
type result struct {
	slot  *slot // nil for a read that probes
	ans   crm.Answer
	began time.Time
	ended time.Time
	cut   error // a request was not made because of the lease or the context

	repair bool // it put on top again what was written before
	// effect is the update with a side effect that the call was the first to
	// carry; begun says that a former owner had noted that.
	effect *contact.Update
	begun  bool
}
