package queue

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"crmsync/contact"
)

var (
	simSeeds = flag.Int("sim.seeds", 2, "simulated histories")
	simSpan  = flag.Duration("sim.span", 60*time.Second, "simulated time with faults")
	simSeed  = flag.Uint64("sim.seed", 0, "the one history to repeat")
)

// sim is one history: producers publish, processes come, go, are cut off and
// freeze, and settle what they are handed in random portions.
type sim struct {
	t       *testing.T
	q       *Queue
	targets []string

	mu        sync.Mutex
	rng       *rand.Rand
	published map[string]uint64 // message id to sequence
	crashes   int
	takeovers int
}

func (s *sim) intn(n int) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.rng.IntN(n)
}

func TestSimulation(t *testing.T) {
	first, last := uint64(1), uint64(*simSeeds)
	if *simSeed != 0 {
		first, last = *simSeed, *simSeed
	}
	for seed := first; seed <= last; seed++ {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			bubble(t, func(t *testing.T) { simulate(t, seed) })
		})
	}
}

func simulate(t *testing.T, seed uint64) {
	targets := []string{"a", "b", "c"}
	q := setUpSilent(t, DefaultLease, targets...)
	s := &sim{t: t, q: q, targets: targets, rng: rand.New(rand.NewPCG(seed, 1)), published: map[string]uint64{}}
	faults, heal := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	for i := range 3 {
		wg.Go(func() { s.process(faults, i) })
	}
	for i := range 2 {
		wg.Go(func() { s.produce(faults, i) })
	}
	time.Sleep(*simSpan)
	heal()
	wg.Wait()
	// The last process finishes everything.
	p := s.peer(&link{})
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- p.Own(ctx, plain(targets...), s.lane) }()
	eventuallySim(t, 5*time.Minute, func() bool {
		st, err := q.Stats(t.Context())
		if err != nil {
			return false
		}
		for _, ts := range st {
			if ts.Class[0].Messages+ts.Class[1].Messages > 0 {
				return false
			}
		}
		return true
	})
	stop()
	if err := <-done; err != nil {
		t.Error(err)
	}
	s.check()
	_ = p.Close()
	_ = q.Close()
}

func eventuallySim(t *testing.T, within time.Duration, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(within); !ok(); time.Sleep(time.Second) {
		if time.Now().After(end) {
			t.Error("the streams were not drained")
			return
		}
	}
}

func (s *sim) peer(l *link) *Queue {
	for {
		p, err := Open(context.Background(), peerOptions(s.q, l))
		if err == nil {
			return p
		}
		time.Sleep(time.Second)
	}
}

// process lives several lives, each ended in another way.
func (s *sim) process(ctx context.Context, n int) {
	for ctx.Err() == nil {
		l := &link{}
		p := s.peer(l)
		life, end := context.WithCancel(context.Background())
		done := make(chan error, 1)
		go func() { done <- p.Own(life, plain(s.targets...), s.lane) }()
		sleep(ctx, time.Duration(5+s.intn(40))*time.Second+time.Duration(n)*time.Millisecond)
		s.mu.Lock()
		s.crashes++
		s.mu.Unlock()
		switch s.intn(4) {
		case 0: // an orderly end
		case 1: // killed: nothing it does from here reaches anybody
			l.sever()
		case 2: // cut off for a while
			l.sever()
			sleep(ctx, time.Duration(s.intn(20))*time.Second)
			l.mend()
			sleep(ctx, 5*time.Second)
		case 3: // answers come late
			l.freeze()
			sleep(ctx, time.Duration(s.intn(20))*time.Second)
			l.thaw()
			sleep(ctx, 5*time.Second)
		}
		end()
		if err := <-done; err != nil {
			s.t.Error(err)
		}
		_ = p.Close()
	}
}

// produce publishes updates; one whose answer is lost is published again.
func (s *sim) produce(ctx context.Context, n int) {
	for i := 0; ctx.Err() == nil; i++ {
		u := update(s.targets[s.intn(3)], s.intn(5), contact.Class(s.intn(2)), n*1_000_000+i)
		if s.intn(10) == 0 {
			u.Job = "job"
		}
		st, err := s.q.Publish(context.Background(), u)
		if err != nil {
			s.t.Error(err)
			return
		}
		s.mu.Lock()
		s.published[u.MsgID] = st.Seq
		s.mu.Unlock()
		sleep(ctx, time.Duration(s.intn(400))*time.Millisecond)
	}
}

// lane collects what it is handed per contact and settles prefixes of it, some
// contacts at a time, until it is to end.
func (s *sim) lane(ctx context.Context, src *Source) {
	s.mu.Lock()
	s.takeovers++
	s.mu.Unlock()
	var mu sync.Mutex
	slots := map[string][]*contact.Update{}
	var wg sync.WaitGroup
	for c := range contact.Class(contact.Classes) {
		wg.Go(func() {
			for {
				d, err := src.Next(ctx, c)
				if err != nil {
					return
				}
				if d.Update != nil {
					mu.Lock()
					slots[d.Update.Contact.ID] = append(slots[d.Update.Contact.ID], d.Update)
					mu.Unlock()
				}
			}
		})
	}
	for id := range 5 {
		wg.Go(func() { s.slot(ctx, src, fmt.Sprint(id), &mu, slots) })
	}
	wg.Wait()
}

func (s *sim) slot(ctx context.Context, src *Source, id string, mu *sync.Mutex, slots map[string][]*contact.Update) {
	for sleep(ctx, time.Duration(50+s.intn(3000))*time.Millisecond) {
		mu.Lock()
		have := slots[id]
		mu.Unlock()
		if len(have) == 0 {
			continue
		}
		part := have[:1+s.intn(len(have))]
		st := settlement(contact.Applied, part...)
		for i := range st.Ended {
			if o := s.intn(8); o == 0 {
				st.Ended[i].Ending.Outcome, st.Ended[i].Ending.Reason = contact.Dead, contact.Refused
			} else if o == 1 {
				st.Ended[i].Ending.Outcome = contact.Superseded
			}
		}
		for {
			// A shutdown waits for its settlements, up to a point.
			work, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Duration(1+s.intn(5000))*time.Millisecond)
			err := src.Settle(work, st)
			cancel()
			if errors.Is(err, ErrLost) || err != nil && ctx.Err() != nil {
				return
			}
			if err == nil {
				break
			}
			if !errors.Is(err, context.DeadlineExceeded) {
				s.t.Errorf("settle: %v", err)
				return
			}
		}
		mu.Lock()
		slots[id] = slots[id][len(part):]
		mu.Unlock()
	}
}

// history is the records of the contact that an update belongs to, around those
// that name it.
func (s *sim) history(id string) string {
	part := strings.Split(id, "-")
	rs := allRecords(s.t, s.q, Filter{Target: part[0], Contact: part[1]})
	var b strings.Builder
	for i, r := range rs {
		names := slices.ContainsFunc(rs[max(0, i-2):min(len(rs), i+3)], func(r Record) bool {
			return slices.ContainsFunc(r.Updates, func(u Covered) bool { return u.MsgID == id })
		})
		if names {
			fmt.Fprintf(&b, "\n  record %d at %s by %s: %s covers %v:", r.Seq, r.Time.Format("04:05.000"), r.Owner, r.Outcome, r.Covers)
			for _, u := range r.Updates {
				fmt.Fprintf(&b, " %s/%d", u.Class, u.Seq)
			}
		}
	}
	return b.String()
}

// check holds the records against what was published: each update has one
// outcome, and those of a contact stand in order.
func (s *sim) check() {
	outcomes := map[string]int{}
	type place struct {
		target, id string
		class      contact.Class
	}
	last := map[place]uint64{}
	dead := 0
	for _, r := range allRecords(s.t, s.q, Filter{}) {
		top := map[place]uint64{}
		for _, u := range r.Updates {
			outcomes[u.MsgID]++
			p := place{r.Target, r.Contact, u.Class}
			top[p] = max(top[p], u.Seq)
			if want := s.published[u.MsgID]; want != u.Seq {
				s.t.Errorf("%s is recorded as %d and was stored as %d", u.MsgID, u.Seq, want)
			}
		}
		if r.Outcome == contact.Dead {
			dead++
			if len(r.Original) == 0 || len(r.Updates) != 1 {
				s.t.Errorf("dead letter %+v", r)
			}
		}
		for c := range contact.Class(contact.Classes) {
			p := place{r.Target, r.Contact, c}
			if r.Covers[c] < last[p] {
				s.t.Errorf("the watermark of %v went from %d to %d", p, last[p], r.Covers[c])
			}
			last[p] = r.Covers[c]
		}
	}
	for id := range s.published {
		if outcomes[id] != 1 {
			s.t.Errorf("%s has %d outcomes%s", id, outcomes[id], s.history(id))
		}
	}
	if len(outcomes) != len(s.published) || dead == 0 || s.crashes < 3 || s.takeovers < 8 {
		s.t.Errorf("%d updates, %d outcomes, %d dead letters, %d crashes, %d takeovers", len(s.published), len(outcomes), dead, s.crashes, s.takeovers)
	}
	s.t.Logf("%d updates, %d dead letters, %d crashes, %d takeovers", len(s.published), dead, s.crashes, s.takeovers)
}
