package worker

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing/synctest"
	"time"

	"crmsync/contact"
)

func (s *sim) run() {
	ctx, end := context.WithCancel(s.t.Context())
	var parts []chan struct{}
	part := func(f func(context.Context)) {
		done := make(chan struct{})
		parts = append(parts, done)
		go func() { defer close(done); f(ctx) }()
	}
	part(s.produce)
	part(s.breakLeaseAndQueue)
	owner := make(chan *running, 1)
	part(func(ctx context.Context) { owner <- s.own(ctx) })
	for _, p := range parts {
		<-p
	}
	end()
	last := <-owner
	s.liveness(last)
	s.w.killAll()
	synctest.Wait()
	s.check()
}

func sleep(ctx context.Context, d time.Duration) bool { return pause(ctx, d) && ctx.Err() == nil }

// produce publishes the updates, in bursts.
func (s *sim) produce(ctx context.Context) {
	r := s.actor("producer")
	popular := rand.NewZipf(r, 1.1+r.Float64(), 1, uint64(s.contacts-1))
	mean := s.rough / time.Duration(s.updates)
	bulkShare, odd := r.Float64(), 0.1*r.Float64()
	versions := map[string]int64{}
	for i := 0; i < s.updates; {
		burst := min(1+int(r.ExpFloat64()*float64(1+r.IntN(40))), s.updates-i)
		for range burst {
			id := fmt.Sprintf("c%d", popular.Uint64())
			if r.Float64() < odd && !s.narrow {
				// Not with a small window: once such contacts alone fill it,
				// nothing tells them from an outage.
				id = []string{"gone", "poison", "trap"}[r.IntN(3)] + fmt.Sprint(r.IntN(2))
			}
			u := contact.Update{Contact: contact.Key{Target: "shop", ID: id}}
			if r.Float64() < bulkShare {
				u.Class = contact.Bulk
			}
			if strings.HasSuffix(id, "7") { // a source that counts, and sends out of order
				versions[id]++
				u.Versioned, u.Version = true, max(0, versions[id]+r.Int64N(7)-3)
				if u.Version < versions[id] {
					s.saw("version out of order")
				}
			}
			if u.Class == contact.Bulk {
				u.Job = fmt.Sprint("job", i*8/s.updates)
			}
			s.w.q.publishUpdate(u, s.fields(r, odd)...)
		}
		i += burst
		if !sleep(ctx, time.Duration(r.ExpFloat64()*float64(mean)*float64(burst))) {
			return
		}
	}
}

// fields draws what an update writes.
func (s *sim) fields(r *rand.Rand, odd float64) []string {
	switch x := r.Float64() / max(odd, 1e-9); {
	case x < 0.1:
		return nil // malformed
	case x < 0.2:
		return []string{"never"}
	case x < 0.5 && !s.narrow:
		// Not with a small window: what had to go alone may then reach the
		// next owner before a newer one that the last owner had sent.
		return []string{"mail", "m"}
	}
	var out []string
	for range 1 + r.IntN(3) {
		name := []string{"a", "b", "c", "d", "addr.x", "addr.y"}[r.IntN(6)]
		if slices.ContainsFunc(out, func(f string) bool { return strings.HasPrefix(f, name) }) {
			continue
		}
		switch x := r.Float64(); {
		case x < odd/2:
			name += "=bad"
		case x < odd:
			name += "=taken"
		}
		out = append(out, name)
	}
	return out
}

// breakLeaseAndQueue stalls renewals and the storing of outcomes now and then.
func (s *sim) breakLeaseAndQueue(ctx context.Context) {
	r := s.actor("lease and queue")
	every := 10*time.Minute + time.Duration(r.ExpFloat64()*float64(2*time.Hour))
	for sleep(ctx, time.Duration(r.ExpFloat64()*float64(every))) && time.Since(s.born) < s.rough {
		long := time.Duration(r.IntN(int(2 * time.Minute)))
		q := s.w.q
		q.mu.Lock()
		now := q.now
		if r.IntN(2) == 0 {
			q.down = true
		}
		down := q.down
		q.mu.Unlock()
		if now == nil {
			continue
		}
		if down {
			s.saw("queue down")
		} else {
			now.freeze(time.Duration(r.IntN(int(time.Minute))))
			s.saw("lease frozen")
		}
		sleep(ctx, long)
		now.thaw()
		q.mu.Lock()
		q.down = false
		q.mu.Unlock()
	}
}

// own runs one lane after another, each until something ends it, and steers
// them; it returns the one that runs when the rough time is over.
func (s *sim) own(ctx context.Context) *running {
	r := s.actor("owner")
	every := 15*time.Minute + time.Duration(r.ExpFloat64()*float64(8*time.Hour))
	for {
		if s.w.o.Memory.Hold != nil {
			s.saw("hold inherited")
		}
		lane := s.w.start()
		s.owners++
		until := min(time.Duration(r.ExpFloat64()*float64(every)), s.rough-time.Since(s.born))
		s.steer(ctx, lane, r, time.Now().Add(until))
		if time.Since(s.born) >= s.rough {
			return lane
		}
		s.w.o.Inherited = !s.finish(lane, r)
		sleep(ctx, time.Duration(r.IntN(int(time.Minute))))
		s.w.o.Spent = lane.l.Spent()
	}
}

// finish ends a lane in one of three ways, and says whether that was in good order.
func (s *sim) finish(lane *running, r *rand.Rand) bool {
	st, ok := lane.l.Status(s.t.Context())
	if ok { // an old one may stand there as well
		s.w.o.Memory = roundTrip(s.t, st).Memory
	}
	switch kind := r.IntN(3); {
	case kind == 0:
		s.saw("end graceful")
		lane.end()
		return true
	case kind == 1:
		s.saw("end kill")
		lane.stop()
		time.Sleep(time.Duration(r.IntN(int(3 * time.Second))))
		lane.kill()
		<-lane.done
		s.breaks++
	default:
		s.saw("end crash")
		if ok && st.Calling > 0 {
			s.saw("crash with calls in flight")
		}
		lane.s.lose()
		time.Sleep(time.Second)
		lane.stop() // a lane whose windows are full is told so
		<-lane.done
		s.breaks++
	}
	return false
}

// steer watches a lane and gives it orders until an instant.
func (s *sim) steer(ctx context.Context, lane *running, r *rand.Rand, until time.Time) {
	for time.Now().Before(until) {
		if !sleep(ctx, min(time.Until(until), time.Duration(r.ExpFloat64()*float64(2*time.Minute)))) {
			return
		}
		s.sample(lane)
		switch r.IntN(70) {
		case 60, 61, 62, 63:
			s.pause(fmt.Sprint("job", r.IntN(8)))
			lane.l.Sweep()
		case 64, 65, 66, 67, 68:
			s.resume(fmt.Sprint("job", r.IntN(8)))
			lane.l.Sweep()
		case 0:
			s.order(lane, Orders{Hold: true, By: "sim"}, "operator hold")
		case 1:
			s.order(lane, Orders{Hold: true, Until: time.Now().Add(time.Duration(r.IntN(int(10 * time.Minute))))}, "operator until")
		case 2:
			s.order(lane, Orders{Limits: Limits{Rate: s.w.o.Quota.Rate * (0.2 + 0.8*r.Float64())}}, "operator rate")
		case 3, 4, 5, 6:
			s.order(lane, Orders{Since: time.Now()}, "operator resume")
		case 8:
			s.mu.Lock()
			s.cancelled[fmt.Sprint("job", r.IntN(8))] = true
			s.mu.Unlock()
			lane.l.Sweep()
		case 9:
			if st, ok := lane.l.Status(s.t.Context()); ok && st.Hold != nil {
				s.order(lane, Orders{Storm: st.Hold.Since, Recall: true, Since: time.Now()}, "operator recall")
			}
		case 10:
			if st, ok := lane.l.Status(s.t.Context()); ok && st.Hold != nil && st.Hold.Cause != nil {
				s.accepted = true
				s.order(lane, Orders{Storm: st.Hold.Since, Accepted: st.Hold.Cause.Fingerprint(), AcceptedAt: time.Now(), Since: time.Now()}, "operator accepts")
			}
		case 7:
			s.mu.Lock()
			s.secretNew = true
			s.mu.Unlock()
			s.saw("secret changed")
		}
	}
	s.order(lane, Orders{Since: time.Now()}, "operator resume")
}

func (s *sim) order(lane *running, o Orders, what string) {
	if lane.l.Steer(s.t.Context(), o) {
		s.saw(what)
	}
}

// sample looks at a lane as an operator does; what it says must be true.
func (s *sim) sample(lane *running) {
	st, ok := lane.l.Status(s.t.Context())
	if !ok {
		s.t.Errorf("the lane has ended by itself: %v", lane.err)
		return
	}
	s.saw("waits for " + st.Waiting)
	if st.Hold != nil {
		s.saw("hold " + string(st.Hold.Reason))
	}
	if st.Paused > 0 {
		s.saw("contacts set aside")
	}
	if st.Counts.Recalled > 0 {
		s.saw("letters recalled")
	}
	if st.Counts.Unmerged > 0 {
		s.saw("un-merged")
	}
	q := s.w.q
	q.mu.Lock()
	defer q.mu.Unlock()
	full := 0
	for c, held := range []int{st.Live, st.Bulk} {
		if out := q.outNow(contact.Class(c)); held > out || out > q.window {
			s.t.Errorf("%s: the lane holds %d, %d are handed out, the window is %d", contact.Class(c), held, out, q.window)
		}
		if held >= q.window {
			full++
		}
	}
	if full > 0 {
		s.saw("window full")
	}
	if st.Calling > s.w.o.Quota.Concurrency {
		s.t.Errorf("%d calls at once", st.Calling)
	}
}

// liveness is the time after: with nothing wrong any more, all must end.
func (s *sim) liveness(lane *running) {
	s.stopped = true
	for i := range 8 {
		s.resume(fmt.Sprint("job", i))
	}
	lane.l.Sweep()
	s.order(lane, Orders{Since: time.Now()}, "operator resume")
	q := s.w.o.Quota
	perHour := q.Rate * (1 - q.Reserve) * 3600
	for _, w := range q.Windows {
		perHour = min(perHour, float64(w.Limit)*(1-q.Reserve)*float64(time.Hour)/float64(w.Span))
	}
	need := 3 * float64(s.w.q.pending()) / perHour * float64(time.Hour)
	for end := time.Now().Add(time.Duration(need) + 12*time.Hour); s.w.q.pending() > 0; {
		// A contact that always fails ends only where the target is seen to
		// work for others.
		s.w.q.publish("well", contact.Live, "a")
		s.sample(lane)
		time.Sleep(time.Minute)
		if s.w.q.pending() == 1 {
			time.Sleep(10 * time.Second) // it is the one just published
		}
		if time.Now().After(end) {
			st := lane.status()
			s.t.Errorf("%d updates are still pending %v after the last fault; the lane is %s and waits for %s; hold %+v; retries %+v",
				s.w.q.pending(), 12*time.Hour+time.Duration(need), st.State, st.Waiting, st.Hold, st.Retries)
			break
		}
	}
	time.Sleep(2 * DefaultLate) // until nothing can come late any more
	if st, ok := lane.l.Status(s.t.Context()); ok && st.Counts.Repairs > 0 {
		s.saw("put on top again")
	}
	lane.end()
}
