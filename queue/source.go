package queue

import (
	"container/list"
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"crmsync/contact"
)

// Bounds of what one owner holds of one class. They are part of the protocol: a
// new owner loads as much as the former may have held before it says that it
// caught up.
const (
	// Window is how many updates of a class may be handed out and not ended;
	// beyond it Next waits.
	Window = 20_000
	// WindowBytes is the same in bytes of their bodies.
	WindowBytes = 64 << 20

	maxIdle = 1024 // contacts whose standing is kept though nothing of them waits
)

// limits are Window, WindowBytes, Span, maxIdle and inferAbove; tests make them small.
type limits struct {
	window, bytes int
	span          uint64
	idle          int
	infer         uint64
}

// Source is one target's deliveries while this process owns it. [Queue.Own]
// makes it and hands it to the lane.
type Source struct {
	q      *Queue
	target string
	owner  string // the claim, unique among all claims
	sess   *session

	ctx  context.Context // ends when the target was lost or is released
	fail context.CancelCauseFunc
	wg   sync.WaitGroup

	class     [contact.Classes]*reading
	abandoned atomic.Bool
	inflight  atomic.Int64  // commits that were submitted and have no result yet
	dirty     chan struct{} // a floor moved
	hurry     chan struct{} // it moved far
	kicked    chan struct{} // there are ends to finish
	steered   chan struct{} // what is cancelled or paused may have changed

	mu       sync.Mutex
	contacts map[string]*standingOf
	idle     list.List // of *standingOf with nothing pending, newest first
	trims    []contact.Key
	ends     []end                 // of redrives, whose letters are to be removed
	begun    map[string]*begunNote // by contact
	unclear  bool                  // there may be more of which we have not heard
}

// reading is one class of a Source.
type reading struct {
	class  contact.Class
	stream string
	items  chan item
	head   *item           // taken from items, not yet handed out; Next's own
	jobs   map[string]bool // that were met; the reader's own
	kick   chan struct{}   // something Next waits for may have changed

	// Guarded by Source.mu.
	floor    floor
	moved    chan struct{} // closed and replaced when the floor moves
	read     uint64        // the reader dealt with everything up to here
	taken    uint64        // Next dealt with everything up to here
	horizon  uint64        // last update there was when the ownership began
	caught   bool          // Next has said so
	stalled  bool          // the reader waits for the floor
	out      int           // handed out, not ended
	outBytes int
	purged   uint64
	spared   time.Time // until then it is not purged
}

type item struct {
	u  *contact.Update
	of *standingOf
}

func openSource(ctx context.Context, q *Queue, sess *session, target string, rev uint64) (*Source, error) {
	s := &Source{
		q: q, target: target, sess: sess, owner: fmt.Sprintf("%s.%d", sess.id, rev),
		dirty: make(chan struct{}, 1), hurry: make(chan struct{}, 1), kicked: make(chan struct{}, 1), steered: make(chan struct{}, 1),
		contacts: map[string]*standingOf{}, begun: map[string]*begunNote{},
	}
	for c := range contact.Class(contact.Classes) {
		r := &reading{
			class: c, stream: streamName(target, c), items: make(chan item, prefetch),
			kick: make(chan struct{}, 1), moved: make(chan struct{}),
		}
		info, err := q.info(ctx, r.stream)
		if err != nil {
			return nil, err
		}
		first := info.State.FirstSeq
		if info.State.Msgs == 0 {
			first = info.State.LastSeq + 1
		}
		if r.horizon, err = s.lastWaiting(ctx, r, &info.State); err != nil {
			return nil, err
		}
		r.floor = newFloor(first - 1)
		r.read, r.taken, r.purged = first-1, first-1, first-1
		s.class[c] = r
	}
	forgets, err := s.learn(ctx)
	if err != nil {
		return nil, err
	}
	s.ctx, s.fail = context.WithCancelCause(sess.ctx)
	q.listen(s, true)
	s.wg.Go(func() { s.hearForgets(forgets) })
	s.wg.Go(s.tend)
	for _, r := range s.class {
		s.wg.Go(func() { s.readAll(r) })
	}
	s.wg.Go(s.purgeAll)
	return s, nil
}

// learn reads which operations and jobs were cancelled or paused, which contacts
// forgotten and which side effects begun, and begins to hear of more. What is stored before it is known here, what is
// announced after it is heard.
func (s *Source) learn(ctx context.Context) (forgets *nats.Subscription, err error) {
	forgets, err = s.q.nc.SubscribeSync(forgetSubject + s.target)
	if err != nil {
		return nil, fmt.Errorf("queue: target %s: %w", s.target, err)
	}
	limited, cancel := context.WithTimeout(ctx, s.q.timeout)
	defer cancel()
	err = s.q.nc.FlushWithContext(limited)
	if err == nil {
		err = s.q.letters.each(ctx, opKey+">", func(e entry) error { s.q.sawOperation(e); return nil })
	}
	if err == nil {
		err = s.q.letters.each(ctx, forgetKey+s.target+".>", func(e entry) error { s.q.sawForgotten(e); return nil })
	}
	if err == nil {
		err = s.q.letters.each(ctx, begunKey+s.target+".>", s.sawBegun)
	}
	if err == nil {
		err = s.q.state.each(ctx, keyJobOrder+s.target+".>", func(e entry) error { s.q.sawJobOrder(e); return nil })
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("queue: target %s: %w", s.target, err), forgets.Unsubscribe())
	}
	return forgets, nil
}

// lastWaiting is the sequence of the last update there is, 0 for none. The
// stream's last sequence may belong to a message that was deleted.
func (s *Source) lastWaiting(ctx context.Context, r *reading, st *jetstream.StreamState) (uint64, error) {
	switch {
	case st.Msgs == 0:
		return 0, nil
	case st.NumDeleted == 0:
		return st.LastSeq, nil
	}
	m, err := s.q.get(ctx, r.stream, getRequest{Last: updateFilter(s.target, r.class)})
	if err != nil || m == nil {
		return 0, err
	}
	return m.Seq, nil
}

// Target is the name of the target.
func (s *Source) Target() string { return s.target }

// Lease is the local instant until which the target is certainly ours, by the
// monotonic clock: a call must not start unless it will have ended by then. The
// zero time means that it was lost.
func (s *Source) Lease() time.Time {
	if s.ctx.Err() != nil {
		return time.Time{}
	}
	return s.sess.until()
}

// Abandon says that a call for the target was cut short and may still be at
// work in the CRM. The target is then not released when the lane returns: it
// falls to another process only when the session has expired.
func (s *Source) Abandon() {
	s.abandoned.Store(true)
	s.sess.abandoned.Store(true)
}

// lost is ErrLost once the target may have another owner, with the cause.
func (s *Source) lost() error {
	if s.ctx.Err() != nil {
		if cause := context.Cause(s.ctx); errors.Is(cause, ErrLost) {
			return fmt.Errorf("queue: target %s: %w", s.target, cause)
		}
		return fmt.Errorf("queue: target %s: %w", s.target, ErrLost)
	}
	if !time.Now().Before(s.sess.until()) {
		return fmt.Errorf("queue: target %s: %w: the lease ran out", s.target, ErrLost)
	}
	return nil
}

// Next waits for the next update of a class. Updates come in the order in which
// they were stored; those that a record already covers are left out. Once for
// each class it returns a delivery without an update: everything that waited when
// the ownership began has been handed out, or as much of it as [Window] and
// [Span] let out at once.
// [Source.Fence] has what the contact settled before.
//
// One goroutine at a time may call it for a class. The error is ErrLost or the
// context's; after the latter nothing is lost and Next may be called again.
func (s *Source) Next(ctx context.Context, class contact.Class) (contact.Delivery, error) {
	r := s.class[class]
	for {
		if err := s.lost(); err != nil {
			return contact.Delivery{}, err
		}
		caughtUp, full := s.progress(r)
		if caughtUp {
			return contact.Delivery{}, nil
		}
		if r.head != nil && !full {
			if d, ok, err := s.handOut(ctx, r); ok || err != nil {
				return d, err
			}
			continue
		}
		if err := s.await(ctx, r, full); err != nil {
			return contact.Delivery{}, err
		}
	}
}

// progress says whether Next has to say now that it caught up, and whether the
// window is full.
func (s *Source) progress(r *reading) (caughtUp, full bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	full = r.out >= s.q.limits.window || r.outBytes >= s.q.limits.bytes
	drained := r.head == nil && len(r.items) == 0
	if !r.caught && (r.taken >= r.horizon || full || r.stalled && drained) {
		r.caught = true
		return true, full
	}
	return false, full
}

// await waits until Next has something to look at.
func (s *Source) await(ctx context.Context, r *reading, full bool) error {
	items := r.items
	if full || r.head != nil {
		items = nil
	}
	var again <-chan time.Time
	if !r.caught {
		t := time.NewTimer(2 * time.Second)
		defer t.Stop()
		again = t.C
	}
	select {
	case it := <-items:
		r.head = &it
	case <-r.kick:
	case <-again:
		s.lowerHorizon(ctx, r)
	case <-ctx.Done():
		return ctx.Err()
	case <-s.ctx.Done():
	}
	return nil
}

// lowerHorizon mends a horizon whose update was deleted after it was noted,
// which would otherwise never be reached.
func (s *Source) lowerHorizon(ctx context.Context, r *reading) {
	info, err := s.q.info(ctx, r.stream)
	if err != nil {
		return // asked again in a moment
	}
	last, err := s.lastWaiting(ctx, r, &info.State)
	if err != nil {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	r.horizon = min(r.horizon, last)
}

// handOut gives out the head, or finishes it where a record covers it.
func (s *Source) handOut(ctx context.Context, r *reading) (contact.Delivery, bool, error) {
	select {
	case <-r.head.of.loaded:
	case <-ctx.Done():
		return contact.Delivery{}, false, ctx.Err()
	case <-s.ctx.Done():
		return contact.Delivery{}, false, s.lost()
	}
	u, of := r.head.u, r.head.of
	r.head = nil
	s.mu.Lock()
	defer s.mu.Unlock()
	r.taken = u.Seq
	u.Begun = s.begun[u.Contact.ID].has(begunOf(u))
	if u.Seq <= of.covers[r.class] || s.forgotten(u) {
		s.finishLocked(r, u.Seq)
		s.unpinLocked(of)
		return contact.Delivery{}, false, nil
	}
	size := len(u.Raw)
	of.out[r.class] = append(of.out[r.class], handed{seq: u.Seq, size: size})
	r.out++
	r.outBytes += size
	return contact.Delivery{Update: u}, true, nil
}

// Fence is the contact's fence as far as this owner knows it now: the one of the
// last settlement, or of the last record when its first pending update was read.
// It is exact while the contact has updates that were handed out and not
// settled; it is a copy, nil for none.
func (s *Source) Fence(id string) contact.Fence {
	s.mu.Lock()
	defer s.mu.Unlock()
	of := s.contacts[id]
	if of == nil || len(of.fence) == 0 {
		return nil
	}
	return of.fence.Clone()
}
