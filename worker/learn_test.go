package worker

import (
	"flag"
	"fmt"
	"hash/fnv"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// hidden is a limit of a server that does not tell of it.
type hidden interface {
	take(now time.Time) bool
}

// hiddenBucket is a strict token bucket.
type hiddenBucket struct {
	rate, burst, tokens float64
	last                time.Time
}

func (h *hiddenBucket) take(now time.Time) bool {
	if h.last.IsZero() {
		h.tokens = h.burst
	} else {
		h.tokens = min(h.burst, h.tokens+now.Sub(h.last).Seconds()*h.rate)
	}
	h.last = now
	if h.tokens < 1-1e-9 {
		return false
	}
	h.tokens--
	return true
}

// hiddenWindow counts in back-to-back windows; refused requests may count.
type hiddenWindow struct {
	span  time.Duration
	limit int
	all   bool
	no    int64
	n     int
}

func (h *hiddenWindow) take(now time.Time) bool {
	if no := now.UnixNano() / int64(h.span); no != h.no {
		h.no, h.n = no, 0
	}
	if h.n >= h.limit {
		if h.all {
			h.n++
		}
		return false
	}
	h.n++
	return true
}

// rig is a number of callers that spend one budget on one server.
type rig struct {
	b       *Budget
	server  hidden
	callers int
	latency func() time.Duration

	mu       sync.Mutex
	accepted []time.Time
	refused  []time.Time
}

// run calls for a time, as a lane does: a free connection, then the quota, then
// the call.
func (r *rig) run(t *testing.T, long time.Duration) {
	var wg sync.WaitGroup
	defer wg.Wait()
	free := make(chan struct{}, r.callers)
	for end := time.Now().Add(long); time.Now().Before(end); {
		free <- struct{}{}
		if err := r.b.spend(t.Context()); err != nil {
			t.Error(err)
			return
		}
		wg.Go(func() {
			r.call()
			<-free
		})
	}
}

func (r *rig) call() {
	began, l := time.Now(), r.latency()
	time.Sleep(l / 2)
	r.mu.Lock()
	ok := r.server.take(time.Now())
	if ok {
		r.accepted = append(r.accepted, time.Now())
	} else {
		r.refused = append(r.refused, time.Now())
	}
	r.mu.Unlock()
	time.Sleep(l - l/2)
	if ok {
		r.b.Hear(time.Now(), nil, began)
	} else {
		r.b.Refused(time.Now(), began, 0)
	}
}

func countIn(times []time.Time, from, to time.Time) (n int) {
	for _, t := range times {
		if !t.Before(from) && t.Before(to) {
			n++
		}
	}
	return n
}

func about(ms int) func() time.Duration {
	var mu sync.Mutex
	r := rand.New(rand.NewPCG(1, uint64(ms)))
	return func() time.Duration {
		mu.Lock()
		defer mu.Unlock()
		return time.Duration((0.7 + 0.6*r.Float64()) * float64(ms) * float64(time.Millisecond))
	}
}

var allHidden = flag.Bool("quota.all", false, "every hidden limit, not only some")

// hiddenCase is one server and one way to call it.
type hiddenCase struct {
	limit   float64 // a second
	server  string
	times   float64 // the configured rate, of the limit; 0: none is configured
	callers int
	ms      int // latency
}

func (c hiddenCase) String() string {
	return fmt.Sprintf("%v/%s/x%v/%d callers/%d ms", c.limit, c.server, c.times, c.callers, c.ms)
}

func (c hiddenCase) hidden() hidden {
	switch c.server {
	case "small bucket":
		return &hiddenBucket{rate: c.limit, burst: max(2, c.limit/10)}
	case "bucket of 20":
		return &hiddenBucket{rate: c.limit, burst: 20}
	case "bucket of a second":
		return &hiddenBucket{rate: c.limit, burst: max(2, c.limit)}
	case "second":
		return &hiddenWindow{span: time.Second, limit: int(c.limit)}
	case "minute":
		return &hiddenWindow{span: time.Minute, limit: int(c.limit * 60)}
	}
	panic(c.server)
}

func hiddenCases() (out []hiddenCase) {
	for _, limit := range []float64{1, 5, 30, 200} {
		for _, server := range []string{"small bucket", "bucket of 20", "bucket of a second", "second", "minute"} {
			if server == "second" && limit == 1 {
				continue // requests that come 0.7 to 1.3 s apart: some meet in one second at any rate
			}
			for _, times := range []float64{1.5, 10, 50, 0} {
				for _, callers := range []int{1, 4, 16} {
					for _, ms := range []int{20, 500} {
						if float64(callers)*1000/float64(ms) >= limit*1.2 { // fewer cannot reach it
							out = append(out, hiddenCase{limit, server, times, callers, ms})
						}
					}
				}
			}
		}
	}
	if !*allHidden {
		out = slices.DeleteFunc(out, func(c hiddenCase) bool {
			every := uint64(17)
			if c.limit == 200 {
				every = 23 // they take longest
			}
			h := fnv.New64a()
			h.Write([]byte(c.String()))
			return h.Sum64()%every > 0 && c != (hiddenCase{200, "small bucket", 50, 16, 20})
		})
	}
	return out
}

// A limit that nobody tells of is found and used: in the five minutes after the
// first five between nine tenths and all of it, with fewer than one call in
// twenty refused. Once it is gone, the configured rate is back within five
// minutes more.
func TestHiddenLimits(t *testing.T) {
	for _, c := range hiddenCases() {
		t.Run(c.String(), func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) { checkHidden(t, c) })
		})
	}
}

func checkHidden(t *testing.T, c hiddenCase) {
	start := time.Now()
	r := &rig{
		b: NewBudget(Quota{Rate: c.limit * c.times, Burst: 10}, nil, start), server: c.hidden(),
		callers: c.callers, latency: about(c.ms),
	}
	r.run(t, 10*time.Minute)
	from, to := start.Add(5*time.Minute), start.Add(10*time.Minute)
	ok, no := countIn(r.accepted, from, to), countIn(r.refused, from, to)
	use, share := float64(ok)/(c.limit*300), float64(no)/float64(ok+no)
	if use < 0.9 || share >= 0.05 {
		t.Errorf("use %.3f, refused %.3f; first five minutes: %d accepted, %d refused; rate %v", use, share,
			countIn(r.accepted, start, from), countIn(r.refused, start, from), r.b.Describe(to).Rate)
	}
	time.Sleep(time.Until(to.Add(5 * time.Minute)))
	if st := r.b.Describe(time.Now()); st.Slowed != WhyNone || st.Rate != st.Allowed {
		t.Errorf("five minutes after the limit has gone: %+v", st)
	}
}

// chance refuses one request in eight, whatever the rate.
type chance struct{ rng *rand.Rand }

func (c chance) take(time.Time) bool { return c.rng.IntN(8) > 0 }

// Refusals that do not come of our rate do not bring it down.
func TestRandomRefusals(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		r := &rig{
			b: NewBudget(Quota{Rate: 10}, nil, start), server: chance{rand.New(rand.NewPCG(1, 1))},
			callers: 4, latency: about(50),
		}
		r.run(t, 20*time.Minute)
		if n := countIn(r.accepted, start.Add(10*time.Minute), start.Add(20*time.Minute)); n < 3000 {
			t.Errorf("%d accepted in ten minutes, of 5250 possible", n)
		}
		r.server = &hiddenBucket{rate: 3, burst: 3}
		r.run(t, 15*time.Minute)
		from, to := start.Add(30*time.Minute), start.Add(35*time.Minute)
		ok, no := countIn(r.accepted, from, to), countIn(r.refused, from, to)
		if float64(ok)/900 < 0.9 || float64(no)/float64(ok+no) > 0.05 {
			t.Errorf("then of a limit of 3/s: %d accepted, %d refused", ok, no)
		}
	})
}
