package worker

import (
	"flag"
	"fmt"
	"hash/fnv"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"crmsync/contact"
	"crmsync/crm"
)

var (
	simSeeds = flag.Int("sim.seeds", simDefault, "how many seeds the simulation runs")
	simFirst = flag.Uint64("sim.first", 1, "the first of them")
)

// TestSimulation runs lanes against the models with everything that can go wrong,
// drawn from a seed, and checks that the promises hold.
func TestSimulation(t *testing.T) {
	total := &simTotals{sometimes: map[string]int{}}
	t.Run("seeds", func(t *testing.T) {
		for i := range *simSeeds {
			seed := *simFirst + uint64(i)
			t.Run(fmt.Sprint(seed), func(t *testing.T) {
				t.Parallel()
				synctest.Test(t, func(t *testing.T) {
					s := newSim(t, seed)
					s.run()
					total.add(s)
				})
				if t.Failed() {
					t.Logf("to repeat it: go test ./worker -run 'TestSimulation$' -sim.first=%d -sim.seeds=1", seed)
				}
			})
		}
	})
	t.Logf("%d seeds, %.0f simulated hours, %d updates, %d calls, %d requests, %d owners",
		*simSeeds, total.simulated.Hours(), total.updates, total.calls, total.requests, total.owners)
	names := slices.Sorted(maps.Keys(total.sometimes))
	for _, n := range names {
		t.Logf("%8d %s", total.sometimes[n], n)
	}
	if *simSeeds < 100 { // too few for the rare ones
		return
	}
	for _, want := range simWanted() {
		if total.sometimes[want] == 0 {
			t.Errorf("never happened: %s", want)
		}
	}
}

// simWanted is what must have happened at least once over the seeds.
func simWanted() []string {
	out := []string{
		"fault lost before", "fault lost after", "fault late", "put right again", "fault panic", "fault 500", "fault wait",
		"end crash", "end graceful", "end kill", "crash with calls in flight", "settlement cut off",
		"lease frozen", "queue down", "secret changed", "operator hold", "operator until", "operator rate",
		"unknown then success", "merged after a takeover", "merged retry", "part of a change was left out",
		"version out of order", "waits for its lease to be renewed", "waits for the quota", "waits for the next probe",
		"waits for the operator", "window full", "not a second request",
		"job paused", "job resumed", "contacts set aside", "waits for a paused job to be resumed", "sent beside a paused one",
		"un-merged", "exhausted", "hold operator", "read as a probe", "letters recalled", "hold inherited",
	}
	for _, v := range []contact.Verdict{
		contact.VerdictUnknown, contact.VerdictApplied, contact.VerdictUnchanged, contact.VerdictInvalid, contact.VerdictMissing,
		contact.VerdictThrottled, contact.VerdictTransient, contact.VerdictUnauthorized, contact.VerdictForbidden,
	} {
		out = append(out, "answer "+v.String())
	}
	for _, o := range []contact.Outcome{contact.Applied, contact.Unchanged, contact.Superseded, contact.Dead, contact.Cancelled} {
		out = append(out, "outcome "+o.String())
	}
	for _, r := range []contact.Reason{contact.Malformed, contact.Invalid, contact.Missing, contact.Conflict, contact.Exhausted, contact.Protocol} {
		out = append(out, "reason "+r.String())
	}
	for _, h := range []HoldReason{HoldThrottled, HoldOutage, HoldCredentials, HoldStorm} {
		out = append(out, "hold "+string(h))
	}
	return out
}

type simTotals struct {
	mu                               sync.Mutex
	sometimes                        map[string]int
	simulated                        time.Duration
	updates, calls, requests, owners int
}

func (a *simTotals) add(s *sim) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for k, n := range s.sometimes {
		a.sometimes[k] += n
	}
	a.simulated += time.Since(s.born)
	a.updates += len(s.w.q.byNumber)
	a.calls += len(s.w.m.calls)
	a.requests += len(s.w.m.requests)
	a.owners += s.owners
}

// sim is one seed: a world, what goes wrong in it and when.
type sim struct {
	t    *testing.T
	seed uint64
	w    *world
	born time.Time

	rough     time.Duration // so long things go wrong
	updates   int
	contacts  int
	faults    []simFault
	p         map[string]float64 // of single calls
	stopped   bool               // the rough time is over
	owners    int
	breaks    int // ownerships that did not end in good order
	secretNew bool
	narrow    bool // the windows are small
	cancelled map[string]bool
	paused    map[string]time.Time // jobs, and since when
	pauses    []simPause
	sent      map[string][]time.Time  // calls, by contact; the CRM's lock guards it
	accepted  bool                    // the operator has taken a storm for what it seems
	leftDead  map[int]map[string]bool // by fault: contacts that a storm left dead
	reads     []time.Time

	mu        sync.Mutex
	sometimes map[string]int
}

// simFault is a time in which every call meets the same.
type simFault struct {
	from, to time.Duration
	kind     string
}

var simFaultKinds = []string{"incident", "500", "timeout", "unauthorized", "forbidden", "throttled", "throttled for a time", "flapping", "refused"}

// actor is the randomness of one part of a simulation, so that another part
// does not shift it.
func (s *sim) actor(name string) *rand.Rand {
	h := fnv.New64a()
	h.Write([]byte(name))
	return rand.New(rand.NewPCG(s.seed, h.Sum64()))
}

func newSim(t *testing.T, seed uint64) *sim {
	s := &sim{t: t, seed: seed, w: newWorld(t), born: time.Now(), sometimes: map[string]int{}, cancelled: map[string]bool{}, paused: map[string]time.Time{}, sent: map[string][]time.Time{}, p: map[string]float64{}}
	r := s.actor("options")
	chance := func(p float64) bool { return r.Float64() < p }
	s.rough = time.Hour + time.Duration(r.ExpFloat64()*float64(12*time.Hour))
	s.updates = 100 + r.IntN(1500)
	s.contacts = 3 + r.IntN(300)
	for _, name := range []string{"500", "lost before", "lost after", "late", "wait", "throttled", "slow"} {
		if chance(0.4) {
			s.p[name] = 0.07 * r.Float64() // eight in a row of these would be bad luck, not a bug
		}
	}
	s.p["read"] = r.Float64()
	if chance(0.8) {
		for range 1 + r.IntN(6) {
			from := time.Duration(r.Float64() * float64(s.rough))
			long := time.Duration(r.ExpFloat64() * float64(20*time.Minute))
			s.faults = append(s.faults, simFault{from, min(s.rough, from+long), simFaultKinds[r.IntN(len(simFaultKinds))]})
		}
	}
	q := Quota{Rate: 0.2 + r.Float64()*20, Burst: 1 + r.IntN(10), Concurrency: 1 + r.IntN(12)}
	if chance(0.2) {
		q.Reserve = 0.3
	}
	if chance(0.3) {
		q.Windows = []WindowLimit{{Span: time.Hour, Limit: 100 + r.IntN(1000)}}
	}
	o := &s.w.o
	o.Quota, o.Seed, o.Timeout = q, seed, 20*time.Second
	if chance(0.4) {
		o.Window = 2 + r.IntN(60)
	}
	if chance(0.2) {
		o.WindowBytes = 100 + r.IntN(3000)
	}
	o.Check = func(u *contact.Update) *contact.BadUpdate {
		if _, ok := u.Fields.Get("never"); ok {
			return &contact.BadUpdate{Reason: contact.Invalid, Field: "never"}
		}
		return nil
	}
	o.SecretChanged = func() bool {
		s.mu.Lock()
		defer s.mu.Unlock()
		c := s.secretNew
		s.secretNew = false
		return c
	}
	if chance(0.5) {
		o.Sender = prober{crmModel: s.w.m, reads: &s.reads, read: s.read}
	}
	o.Cancelled = func(u *contact.Update) string {
		s.mu.Lock()
		defer s.mu.Unlock()
		if u.Job != "" && s.cancelled[u.Job] {
			return "cancelled"
		}
		return ""
	}
	o.Paused = func(u *contact.Update) bool {
		s.mu.Lock()
		defer s.mu.Unlock()
		_, ok := s.paused[u.Job]
		return ok
	}
	s.w.m.excused = s.unwanted
	o.OnAnswer = func(a crm.Answer, _ time.Duration) { s.saw("answer " + a.Verdict.String()) }
	o.OnSettled = s.onSettled
	s.w.q.lease = time.Minute
	s.w.q.delay = time.Duration(r.IntN(3000)) * time.Millisecond
	if chance(0.4) {
		s.w.q.reading = time.Duration(r.IntN(200)) * time.Millisecond
	}
	s.w.q.window = o.withDefaults().Window
	s.narrow = o.Window+o.WindowBytes > 0
	s.w.m.plan = s.plan
	return s
}

func (s *sim) saw(what string) {
	s.mu.Lock()
	s.sometimes[what]++
	s.mu.Unlock()
}

func (s *sim) onSettled(e contact.Ended) {
	s.saw("outcome " + e.Ending.Outcome.String())
	if e.Ending.Outcome == contact.Dead {
		s.saw("reason " + e.Ending.Reason.String())
		if e.Ending.Reason == contact.Exhausted {
			s.saw("exhausted")
		}
	}
	tries := e.Ending.Tries
	if n := len(tries); n > 1 && tries[n-1].Verdict.Success() && tries[n-2].Verdict == contact.VerdictUnknown {
		s.saw("unknown then success")
	}
	if e.Ending.Attempts > 1 && e.Ending.Merged > 1 {
		s.saw("merged retry")
	}
}

// plan says what becomes of a call; the same call of the same seed meets the
// same, whatever runs beside it.
func (s *sim) plan(c *crmCall) fate {
	id := c.change.Contact.ID
	s.checkPaused(c)
	r := s.actor(fmt.Sprintf("call %s %d", id, c.n))
	f := fine
	f.latency = 10*time.Millisecond + time.Duration(r.ExpFloat64()*float64(200*time.Millisecond))
	f.latency = min(f.latency, 5*time.Second)
	f.readFirst = r.Float64() < s.p["read"]
	f.before = time.Duration(r.IntN(int(100 * time.Millisecond)))
	x := r.Float64()
	since := c.at.Sub(s.born)
	for _, w := range s.faults {
		if since >= w.from && since < w.to && !s.stopped {
			if w.kind != "flapping" || x < 0.5 {
				return s.inFault(w.kind, f)
			}
		}
	}
	switch {
	case strings.HasPrefix(id, "gone"):
		f.answer = crm.Answer{Verdict: contact.VerdictMissing, Reason: contact.Missing, Status: 404}
		return f
	case strings.HasPrefix(id, "trap"):
		f.panics = true
		s.saw("fault panic")
		return f
	case strings.HasPrefix(id, "poison"):
		f.answer = crm.Answer{Verdict: contact.VerdictTransient, Status: 500, Alive: x < 0.3}
		return f
	}
	if s.stopped {
		return f
	}
	return s.single(f, r)
}

// read is the answer to a probe that only reads.
func (s *sim) read() crm.Answer {
	s.saw("read as a probe")
	since := time.Since(s.born)
	for _, w := range s.faults {
		if since >= w.from && since < w.to && !s.stopped && w.kind != "refused" && w.kind != "forbidden" && w.kind != "flapping" {
			return s.inFault(w.kind, fine).answer
		}
	}
	return crm.Answer{Verdict: contact.VerdictUnchanged, Status: 200}
}

func (s *sim) inFault(kind string, f fate) fate {
	f.readFirst = false
	a := crm.Answer{Verdict: contact.VerdictTransient, Status: 503}
	switch kind {
	case "incident", "flapping":
		a.Incident = true
	case "timeout":
		a, f.latency, f.apply = crm.Answer{Verdict: contact.VerdictUnknown, Incident: true}, 15*time.Second, true
	case "unauthorized":
		a = crm.Answer{Verdict: contact.VerdictUnauthorized, Status: 401, Incident: true}
	case "forbidden":
		a = crm.Answer{Verdict: contact.VerdictForbidden, Status: 403}
	case "refused":
		a = crm.Answer{Verdict: contact.VerdictInvalid, Reason: contact.Refused, Status: 400, Detail: "the licence has run out"}
	case "throttled":
		a = crm.Answer{Verdict: contact.VerdictThrottled, Status: 429}
	case "throttled for a time":
		a = crm.Answer{Verdict: contact.VerdictThrottled, Status: 429, Wait: 3 * time.Minute}
	}
	f.answer = a
	return f
}

// single is what befalls one call.
func (s *sim) single(f fate, r *rand.Rand) fate {
	hit := func(name string) bool {
		if r.Float64() >= s.p[name] {
			return false
		}
		s.saw("fault " + name)
		return true
	}
	switch {
	case hit("500"):
		f.answer = crm.Answer{Verdict: contact.VerdictTransient, Status: 500}
	case hit("lost before"):
		f.answer = crm.Answer{Verdict: contact.VerdictUnknown}
	case hit("lost after"):
		f.answer, f.apply = crm.Answer{Verdict: contact.VerdictUnknown}, true
	case hit("late"):
		f.answer, f.apply = crm.Answer{Verdict: contact.VerdictUnknown}, true
		f.late = time.Duration(r.IntN(int(DefaultLate - 10*time.Second)))
	case hit("wait"):
		f.answer = crm.Answer{Verdict: contact.VerdictTransient, Status: 503, Wait: time.Duration(r.IntN(600)) * time.Second}
	case hit("throttled"):
		f.answer = crm.Answer{Verdict: contact.VerdictThrottled, Status: 429}
		if r.IntN(2) == 0 {
			f.answer.Wait = time.Duration(1+r.IntN(20)) * time.Second
		}
	case hit("slow"):
		f.latency = 10 * time.Second
	}
	return f
}
