package queue

import (
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"time"
)

// shared is targets of which each has its group, "" for none.
func shared(groups map[string]string) OwnOptions {
	var o OwnOptions
	for t, g := range groups {
		o.Targets = append(o.Targets, Target{Name: t, Group: g})
	}
	return o
}

// groupWatch counts who runs lanes, of each target and of each group.
type groupWatch struct {
	t  *testing.T
	mu sync.Mutex
	// by target, and by "group." + group: how many lanes each process runs
	runs map[string]map[string]int
	// a lane that was told to end takes so long
	linger time.Duration
}

func newGroupWatch(t *testing.T) *groupWatch {
	return &groupWatch{t: t, runs: map[string]map[string]int{}, linger: 100 * time.Millisecond}
}

func (w *groupWatch) add(key, name string, n int) {
	if w.runs[key] == nil {
		w.runs[key] = map[string]int{}
	}
	if w.runs[key][name] += n; w.runs[key][name] == 0 {
		delete(w.runs[key], name)
	}
	if len(w.runs[key]) > 1 {
		w.t.Errorf("%s is run by %v", key, slices.Sorted(maps.Keys(w.runs[key])))
	}
}

// process is one queue that takes part until it is stopped or cut off.
func (w *groupWatch) process(q *Queue, name string, groups map[string]string) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	count := func(target string, n int) {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.add(target, name, n)
		if g := groups[target]; g != "" {
			w.add(groupKey+g, name, n)
		}
	}
	go func() {
		done <- q.Own(ctx, shared(groups), func(ctx context.Context, s *Source) {
			count(s.Target(), 1)
			<-ctx.Done()
			if s.ctx.Err() == nil { // released, not lost: calls in flight end first
				<-time.After(w.linger)
			}
			count(s.Target(), -1)
		})
	}()
	return sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			w.t.Error(err)
		}
	})
}

// runner is who runs a target, or a group by its key; "" is nobody.
func (w *groupWatch) runner(key string) string {
	w.mu.Lock()
	defer w.mu.Unlock()
	for name := range w.runs[key] {
		return name
	}
	return ""
}

// all says whether each target has somebody who runs it.
func (w *groupWatch) all(targets ...string) func() bool {
	return func() bool {
		for _, t := range targets {
			if w.runner(t) == "" {
				return false
			}
		}
		return true
	}
}

// groupSoon covers leases that run out and connections that come back, one upon
// the other: changes do not wait for one another.
const groupSoon = 30 * time.Second

var twoGroups = map[string]string{"a1": "a", "a2": "a", "a3": "a", "b1": "b", "b2": "b", "b3": "b"}

// Processes come, go, and are killed or cut off; at no instant do two of them
// run lanes of one group, and after each change everything is run again soon.
func TestGroupsHaveOneProcess(t *testing.T) {
	seeds := 4
	if testing.Short() {
		seeds = 1
	}
	for seed := range seeds {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			bubble(t, func(t *testing.T) { testGroups(t, rand.New(rand.NewPCG(uint64(seed), 7))) })
		})
	}
}

func testGroups(t *testing.T, rng *rand.Rand) {
	targets := slices.Sorted(maps.Keys(twoGroups))
	q := setUpSilent(t, testLease, targets...)
	w := newGroupWatch(t)
	type process struct {
		name string
		q    *Queue
		link *link
		stop func()
	}
	var there []*process
	var gone []func()
	n := 0
	join := func() {
		n++
		l := &link{}
		p := &process{name: fmt.Sprint("p", n), q: peerOf(t, q, l), link: l}
		p.stop = w.process(p.q, p.name, twoGroups)
		there = append(there, p)
		time.Sleep(100 * time.Millisecond) // it takes part by now, if only just
	}
	defer func() {
		for _, p := range there {
			p.stop()
		}
		for _, stop := range gone {
			stop()
		}
	}()
	owners := map[string]bool{}
	for range 24 {
		switch step := rng.IntN(5); {
		case len(there) < 2 || step < 2 && len(there) < 3:
			join()
		case step == 2:
			p := there[0]
			there = there[1:]
			p.stop()
		case step == 3: // killed: nothing that it does from here reaches anybody
			p := there[0]
			there = there[1:]
			p.link.sever()
			gone = append(gone, p.stop)
		default: // cut off, and back as a new session
			p := there[rng.IntN(len(there))]
			p.link.sever()
			time.Sleep(time.Duration(rng.IntN(2500)) * time.Millisecond)
			p.link.mend()
		}
		if rng.IntN(2) == 0 { // changes come one upon the other, or one by one
			eventually(t, groupSoon, "every target is run", w.all(targets...))
			owners[w.runner("group.a")+w.runner("group.b")] = true
		}
	}
	eventually(t, groupSoon, "every target is run at the end", w.all(targets...))
	if len(owners) < 3 {
		t.Errorf("the groups hardly changed hands: %v", owners)
	}
}

// A process that leaves hands its groups on at once, and the group's key is
// free only when the last of its lanes has ended.
func TestGroupIsHandedOn(t *testing.T) {
	bubble(t, func(t *testing.T) {
		q := setUpSilent(t, 30*time.Second, "a1", "a2")
		w := newGroupWatch(t)
		w.linger = 700 * time.Millisecond
		groups := map[string]string{"a1": "a", "a2": "a"}
		p1, p2 := peerOf(t, q, &link{}), peerOf(t, q, &link{})
		stop1 := w.process(p1, "1", groups)
		eventually(t, time.Second, "the first has both", w.all("a1", "a2"))
		if e, err := q.owners.get(t.Context(), "group.a"); err != nil || e.gone {
			t.Fatalf("the group's key: %+v, %v", e, err)
		}
		stop2 := w.process(p2, "2", groups)
		defer stop2()
		time.Sleep(3 * time.Second) // it may move to the second now, or stay
		before := w.runner("group.a")
		began := time.Now()
		if before == "2" {
			stop2()
			stop2 = func() {}
		} else {
			stop1()
		}
		eventually(t, 2*time.Second, "the other has both", func() bool {
			return w.all("a1", "a2")() && w.runner("group.a") != before
		})
		if d := time.Since(began); d > 1500*time.Millisecond {
			t.Errorf("it took %s", d)
		}
		stop1()
		stop2()
		e, err := q.owners.get(t.Context(), "group.a")
		if err != nil || string(e.value) != string(ownerValue("")) {
			t.Errorf("after all have left the group's key is %s, %v", e.value, err)
		}
	})
}

// A process whose configuration knows no group, or another one, or fewer
// members, still never runs a target together with somebody else; and every
// target is run while somebody can.
func TestGroupsOfDifferentConfigurations(t *testing.T) {
	bubble(t, func(t *testing.T) {
		targets := []string{"a1", "a2", "a3"}
		q := setUpSilent(t, testLease, targets...)
		w := newGroupWatch(t)
		stopOld := w.process(peerOf(t, q, &link{}), "old", map[string]string{"a1": "", "a2": "", "a3": ""})
		eventually(t, 2*time.Second, "the old one has all", w.all(targets...))
		grouped := map[string]string{"a1": "a", "a2": "a", "a3": "a"}
		stopNew := w.process(peerOf(t, q, &link{}), "new", grouped)
		time.Sleep(3 * time.Second)
		eventually(t, time.Second, "old and new have all", w.all(targets...))
		stopFew := w.process(peerOf(t, q, &link{}), "few", map[string]string{"a1": "a", "a2": "a"})
		stopOld()
		eventually(t, 3*time.Second, "whoever knows all members has all", func() bool {
			return w.runner("a1") == "new" && w.runner("a2") == "new" && w.runner("a3") == "new"
		})
		stopNew()
		eventually(t, 3*time.Second, "the last has what it knows", func() bool {
			return w.runner("a1") == "few" && w.runner("a2") == "few" && w.runner("a3") == ""
		})
		stopNew = w.process(peerOf(t, q, &link{}), "again", grouped)
		eventually(t, 3*time.Second, "all are run again", func() bool {
			return w.runner("a1") == "again" && w.runner("a2") == "again" && w.runner("a3") == "again"
		})
		stopFew()
		stopNew()
	})
}

// Nobody runs a member while another live process has the group, whether that
// one knows what to do with it or not; nor while a call of a member may be at
// work in the CRM.
func TestGroupIsWaitedFor(t *testing.T) {
	bubble(t, func(t *testing.T) {
		q := setUpSilent(t, testLease, "a1", "other")
		w := newGroupWatch(t)
		stop := w.process(peerOf(t, q, &link{}), "old", map[string]string{"other": ""})
		eventually(t, time.Second, "the old one is there", w.all("other"))
		ss, err := q.Sessions(t.Context())
		if err != nil || len(ss) != 1 {
			t.Fatalf("%v, %v", ss, err)
		}
		if _, err := q.owners.put(t.Context(), "group.a", ownerValue(ss[0].ID), 0); err != nil {
			t.Fatal(err)
		}
		l := &lanes{sources: make(chan *Source, 10)}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		p := peerOf(t, q, &link{})
		go func() {
			done <- p.Own(ctx, shared(map[string]string{"a1": "a"}), func(ctx context.Context, s *Source) {
				l.sources <- s
				<-ctx.Done()
				s.Abandon()
			})
		}()
		time.Sleep(5 * time.Second)
		if len(l.sources) > 0 {
			t.Fatal("a member is run without its group")
		}
		stop()
		l.source(t)
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
		began := time.Now()
		stop = w.process(peerOf(t, q, &link{}), "heir", map[string]string{"a1": "a"})
		defer stop()
		if e, err := q.owners.get(t.Context(), "group.a"); err != nil || string(e.value) == string(ownerValue("")) {
			t.Errorf("the group of an abandoned member is free: %s, %v", e.value, err)
		}
		eventually(t, 3*testLease, "it is taken when the session has run out", w.all("a1"))
		if d := time.Since(began); d < testLease/2 {
			t.Errorf("taken after %s", d)
		}
	})
}

func TestElect(t *testing.T) {
	me := &session{id: "me"}
	o := &ownership{
		groups: map[string][]string{"g": {"a", "b"}}, groupOf: map[string]string{"a": "g", "b": "g"},
		live: map[string]*peer{}, heldGroups: map[string]*groupHolding{},
	}
	// By score alone, either of these two could win; the greater part decides.
	for i := range 20 {
		id := fmt.Sprint("peer", i)
		for part, want := range map[int]string{1: "me", 3: id} {
			o.live = map[string]*peer{id: {shares: map[string]int{"g": part}}}
			if got := o.rightful("a", me, false); got != want {
				t.Errorf("%s knows %d members, we 2: %q", id, part, got)
			}
		}
		o.live = map[string]*peer{id: {shares: map[string]int{"h": 9}, serves: map[string]bool{"a": true}}}
		if got := o.rightful("a", me, false); got != "me" {
			t.Errorf("%s does not know the group: %q", id, got)
		}
		if got := o.rightful("a", me, true); got != "" {
			t.Errorf("we leave and %s does not know the group: %q", id, got)
		}
	}
	for _, h := range []*groupHolding{nil, {sess: me, busy: true}, {sess: &session{id: "before"}}} {
		o.heldGroups["g"] = h
		if o.mayRun("a", me) {
			t.Errorf("a member may run with %+v", h)
		}
	}
	o.heldGroups["g"] = &groupHolding{sess: me}
	if !o.mayRun("a", me) || !o.mayRun("z", me) {
		t.Error("may not run")
	}
}

func TestGroupsAreChecked(t *testing.T) {
	q := setUp(t, "a")
	for _, o := range []OwnOptions{
		{Targets: []Target{{Name: "a", Group: "A b"}}},
		{Targets: []Target{{Name: "a", Group: "a.>"}}},
		{Targets: []Target{{Name: "A"}}},
	} {
		if err := q.Own(t.Context(), o, nil); err == nil {
			t.Errorf("%+v is taken", o)
		}
	}
}
