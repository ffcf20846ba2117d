package worker

import (
	"cmp"
	"context"
	"math"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"crmsync/emulator"
)

// emulated is a CRM with strict limits, and callers whose requests take
// differently long to it.
type emulated struct {
	crm   *emulator.CRM
	mu    sync.Mutex
	rng   *rand.Rand
	least time.Duration
	most  time.Duration
}

func newEmulated(t *testing.T, l emulator.Limits, least, most time.Duration) *emulated {
	t.Helper()
	return &emulated{crm: emulator.NewPerfex(emulator.Options{Mode: emulator.Perfex208, Contacts: 4, Limits: l}), rng: rand.New(rand.NewPCG(3, 4)), least: least, most: most}
}

func (e *emulated) latency() time.Duration {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.least + time.Duration(e.rng.Int64N(int64(e.most-e.least)+1))
}

// call makes one request and says whether it was let in.
func (e *emulated) call() bool {
	time.Sleep(e.latency())
	w := httptest.NewRecorder()
	r := httptest.NewRequest(http.MethodGet, "/api/contacts/1/1", strings.NewReader(""))
	r.Header.Set("authtoken", emulator.DefaultToken)
	e.crm.ServeHTTP(w, r)
	time.Sleep(e.latency())
	return w.Code == http.StatusOK
}

// A strict limit of 200 a second with bursts of 20 is used to 99 % and never
// refuses, with requests that take 0 to 40 ms to arrive, over owners that follow
// each other; the ledger proves it.
func TestStrictBucketIsUsedAndKept(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := newEmulated(t, emulator.Limits{Rate: 200, Burst: 20}, 0, 40*time.Millisecond)
		q := Quota{Rate: 200, Burst: 20}
		var spent []Spent
		start := time.Now()
		for range 5 {
			b := NewBudget(q, spent, time.Now())
			var wg sync.WaitGroup
			free := make(chan struct{}, 32)
			for end := time.Now().Add(12 * time.Second); time.Now().Before(end); {
				free <- struct{}{}
				if err := b.spend(t.Context()); err != nil {
					t.Fatal(err)
				}
				wg.Go(func() {
					if !e.call() {
						t.Error("refused")
					}
					<-free
				})
			}
			wg.Wait()
			spent = b.Release(time.Now())
		}
		ledger := e.crm.Ledger()
		if n, first := emulator.OverQuota(ledger, 200, 20, 0); n > 0 {
			t.Errorf("%d requests beyond the limit, the first at %v", n, first.Arrived.Sub(start))
		}
		took := ledger[len(ledger)-1].Arrived.Sub(start).Seconds()
		if use := float64(len(ledger)) / (200 * took); use < 0.99 {
			t.Errorf("used to %.4f", use)
		}
	})
}

// How much of a burst is left alone, and of a rate.
func TestHeadRoom(t *testing.T) {
	now := time.Unix(1_800_000_000, 0)
	for _, tt := range []struct {
		rate    float64
		burst   int
		atOnce  int
		reserve float64
		in100s  float64
	}{
		{200, 20, 10, 0, 19960},
		{200, 100, 80, 0, 19960},
		{4, 8, 7, 0, 399.2},
		{1, 5, 4, 0, 99.8},
		{1, 2, 1, 0, 99.8},
		{1, 1, 1, 0, 99.8},
		{10, 1, 1, 0.2, 800},
		{10, 0, 1, 0.001, 997},
	} {
		b := NewBudget(Quota{Rate: tt.rate, Burst: tt.burst, Reserve: tt.reserve}, nil, now)
		if b.try(now) {
			t.Errorf("%+v: the bucket is not empty at first", tt)
		}
		at := now.Add(time.Hour)
		n := 0
		for b.try(at) {
			n++
		}
		if n != tt.atOnce {
			t.Errorf("%+v: %d at once", tt, n)
		}
		for end := at.Add(100 * time.Second); !at.After(end); {
			if b.try(at) {
				n++
				continue
			}
			at, _ = b.when(at)
		}
		if math.Abs(float64(n-tt.atOnce)-tt.in100s) > 2 {
			t.Errorf("%+v: %d more in 100 s", tt, n-tt.atOnce)
		}
	}
}

// After an outage the rate comes back within a minute, and not as a burst.
func TestRampAfterAnOutage(t *testing.T) {
	now := time.Unix(1_800_000_000, 0)
	b := NewBudget(Quota{Rate: 10, Burst: 10}, nil, now)
	now = now.Add(time.Hour)
	b.restart(now)
	if b.try(now) {
		t.Error("what gathered during an outage is a burst")
	}
	for after, want := range map[time.Duration]float64{0: 1, 30 * time.Second: 5.5, 61 * time.Second: 10} {
		at := now.Add(after)
		c := NewBudget(Quota{Rate: 10, Burst: 10}, nil, now)
		c.restart(now)
		if st := c.Describe(at); math.Abs(st.Rate-want) > 0.01 || (st.Slowed == WhyOutage) != (want < 10) {
			t.Errorf("%v after: %+v", after, st)
		}
	}
	shares := NewBudget(Quota{}, nil, now)
	shares.ride(NewBudget(Quota{Rate: 20}, nil, now))
	shares.restart(now)
	if st := shares.Describe(now); st.Rate != 2 {
		t.Errorf("a lane that only a shared quota limits begins with %v", st.Rate)
	}
	free := NewBudget(Quota{}, nil, now)
	free.restart(now)
	if at, _ := free.when(now); !free.try(now) || !at.Equal(now) {
		t.Error("no limit limits")
	}
}

// Lanes that share a quota take turns, whatever each has waiting, and together
// use the whole of it; a lane's own limit is kept beside it.
func TestSharedIsFair(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		shared := NewBudget(Quota{Rate: 60, Burst: 4, Windows: []WindowLimit{{Span: time.Hour, Limit: 3000}}}, nil, start)
		ctx, stop := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		counts := make([]int, 4)
		var all []time.Time
		var mu sync.Mutex
		for lane, askers := range []int{1, 16, 4, 8} {
			own := Quota{}
			if lane == 3 {
				own.Rate, own.Burst = 5, 4
			}
			b := NewBudget(own, nil, start)
			b.ride(shared)
			defer b.leave()
			for range askers {
				wg.Go(func() {
					for b.spend(ctx) == nil {
						mu.Lock()
						counts[lane]++
						all = append(all, time.Now())
						mu.Unlock()
						time.Sleep(time.Millisecond)
					}
				})
			}
		}
		time.Sleep(40 * time.Second)
		mu.Lock()
		if n := len(all); n < 2380 || n > 2400 {
			t.Errorf("%d requests in 40 s at 60 a second", n)
		}
		if over := replayBucket(all, start, 60, 4); over > 1e-6 {
			t.Errorf("overdrawn by %v", over)
		}
		if least := slices.Min(counts[:3]); least < slices.Max(counts[:3])*9/10 || counts[3] < 190 || counts[3] > 200 {
			t.Errorf("shares %v", counts)
		}
		mu.Unlock()
		time.Sleep(time.Minute)
		mu.Lock()
		defer mu.Unlock()
		if len(all) != 3000 {
			t.Errorf("%d requests within an hour", len(all))
		}
		stop()
		wg.Wait()
	})
}

// A lane that has left, or whose own limit keeps it, keeps nobody.
func TestSharedTurnsLapse(t *testing.T) {
	now := time.Unix(1_800_000_000, 0)
	shared := NewBudget(Quota{Rate: 10, Burst: 1}, nil, now)
	a, b := NewBudget(Quota{}, nil, now), NewBudget(Quota{}, nil, now)
	a.ride(shared)
	b.ride(shared)
	first, why := a.when(now)
	if !why.Shared || why.Why != WhyRate || why.String() != "the shared quota" {
		t.Errorf("waits for %v", why)
	}
	second, _ := b.when(now)
	if gap := second.Sub(first); gap < 99*time.Millisecond || gap > 102*time.Millisecond {
		t.Errorf("the turns are %v apart", gap)
	}
	if b.try(first) {
		t.Error("out of turn")
	}
	if !b.try(first.Add(turnLapses + time.Millisecond)) {
		t.Error("a turn that is not taken never lapses")
	}
	now = first.Add(time.Second)
	a.try(now)
	a.when(now)
	a.leave()
	if at, _ := b.when(now); at.Sub(now) > 101*time.Millisecond {
		t.Errorf("one that has left keeps its turn: %v", at.Sub(now))
	}
	b.pause(now.Add(time.Hour)) // what the CRM says is said of all
	if at, why := b.when(now); !at.Equal(now.Add(time.Hour)) || why.String() != "a pause that the CRM wants" {
		t.Errorf("%v, %v", at, why)
	}
	// Its own limit keeps c: it has no turn that others would wait for.
	b.leave()
	shared.asked = time.Time{}
	c := NewBudget(Quota{Windows: []WindowLimit{{Span: time.Hour, Limit: 1}}}, nil, now)
	c.ride(shared)
	now = now.Add(time.Second)
	if !c.try(now) {
		t.Fatal("not allowed")
	}
	if at, why := c.when(now); at.Before(now.Add(time.Hour)) || why.Shared || why.String() != "the quota of 1 in 1h0m0s" {
		t.Errorf("%v, %v", at, why)
	}
	if len(shared.line) > 1 {
		t.Errorf("%d in line", len(shared.line))
	}
}

// An ETA does not fall with the number of requests, and is what happens.
func TestETA(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		now := time.Date(2026, 3, 28, 9, 58, 7, 0, time.UTC)
		berlin, err := time.LoadLocation("Europe/Berlin")
		if err != nil {
			t.Fatal(err)
		}
		q := Quota{Rate: rapid.SampledFrom([]float64{0, 0.5, 4, 100}).Draw(t, "rate"), Burst: rapid.IntRange(1, 10).Draw(t, "burst")}
		for range rapid.IntRange(0, 2).Draw(t, "windows") {
			q.Windows = append(q.Windows, WindowLimit{
				Span:  rapid.SampledFrom([]time.Duration{time.Minute, time.Hour, 24 * time.Hour}).Draw(t, "span"),
				Limit: rapid.IntRange(1, 500).Draw(t, "limit"), Calendar: rapid.Bool().Draw(t, "calendar"), Zone: berlin,
			})
		}
		b := NewBudget(q, nil, now)
		for range rapid.IntRange(0, 300).Draw(t, "spent") {
			if at, _ := b.when(now); at.Sub(now) < time.Minute {
				now = at
				b.try(now)
			}
		}
		if rapid.Bool().Draw(t, "asked") {
			b.pause(now.Add(time.Minute))
		}
		if !b.ETA(now, 0).Equal(now) || !b.ETA(now, -1).Equal(now) {
			t.Fatal("no requests take time")
		}
		last := now
		for n := 1; n < 5000; n += max(1, n/7) {
			at := b.ETA(now, n)
			if at.Before(last) {
				t.Fatalf("%d requests are through at %v, fewer only at %v", n, at, last)
			}
			last = at
		}
		n := rapid.IntRange(1, 600).Draw(t, "n")
		// What is sent close to a boundary of the calendar counts on both of its
		// sides, and can make one request more or less a matter of a period.
		near := 0
		for _, w := range q.Windows {
			if w.Calendar {
				near = 2
			}
		}
		early, late := b.ETA(now, n-near).Sub(now), b.ETA(now, n+near).Sub(now)
		at := now
		for range n {
			for !b.try(at) {
				next, _ := b.when(at)
				at = latest(at.Add(time.Microsecond), next)
			}
		}
		took := at.Sub(now)
		slack := time.Second + took/20
		if q.Rate > 0 { // nor what gathers in the bucket meanwhile
			slack += time.Duration(float64(q.Burst+1) / q.Rate * 1e9)
		}
		if len(q.Windows) > 1 { // how far the shorter has got when the longer opens is not reckoned
			slack += min(q.Windows[0].Span, q.Windows[1].Span)
		}
		if took < early-slack || took > late+slack {
			t.Fatalf("%d requests took %v, %v to %v was said (%+v)", n, took, early, late, q)
		}
	})
}

func TestETAIsBounded(t *testing.T) {
	now := time.Unix(1_800_000_000, 0)
	for _, q := range []Quota{
		{Rate: 1e-6},
		{Windows: []WindowLimit{{Span: 24 * time.Hour, Limit: 1}}},
		{Windows: []WindowLimit{{Span: 24 * time.Hour, Limit: 1, Calendar: true}}},
		{Windows: []WindowLimit{{Span: time.Minute, Limit: 1, Calendar: true}}},
	} {
		at := NewBudget(q, nil, now).ETA(now, math.MaxInt32)
		if at.Before(now.Add(1000*24*time.Hour)) || at.After(now.Add(2*farOff)) {
			t.Errorf("%+v: %v", q, at)
		}
	}
	shared := NewBudget(Quota{Rate: 1}, nil, now)
	b := NewBudget(Quota{Rate: 100}, nil, now)
	b.ride(shared)
	if at := b.ETA(now, 100); at.Sub(now) < 99*time.Second {
		t.Errorf("the shared quota is left out: %v", at.Sub(now))
	}
}

func TestRecent(t *testing.T) {
	var r recent
	var times []time.Duration
	rng := rand.New(rand.NewPCG(1, 2))
	now := time.Duration(0)
	for n := range 2000 {
		now += time.Duration(rng.IntN(40)) * time.Millisecond
		if n%500 == 0 {
			now += 20 * time.Second
		}
		r.spend(now, int64(n+1))
		times = append(times, now)
		then := now - time.Duration(rng.IntN(3000))*time.Millisecond
		i, found := slices.BinarySearchFunc(times, then+1, cmp.Compare[time.Duration])
		_ = found
		if got, ok := r.since(then, int64(n+1)); ok && got != len(times)-i || !ok && len(times)-i < len(r.at) {
			t.Fatalf("%d, %v since %v, want %d", got, ok, then, len(times)-i)
		}
	}
	if use := r.rate(now); use < 45 || use > 55 {
		t.Errorf("%v a second", use)
	}
	if use := r.rate(now + 5*time.Second); use < 20 || use > 30 {
		t.Errorf("%v a second after a pause", use)
	}
	if use := r.rate(now + 11*time.Second); use != 0 {
		t.Errorf("%v a second after a long pause", use)
	}
}

func BenchmarkBudget(b *testing.B) {
	for name, q := range map[string]Quota{
		"free":    {},
		"bucket":  {Rate: 1e9, Burst: 1 << 30},
		"windows": {Rate: 1e9, Burst: 1 << 30, Windows: []WindowLimit{{Span: time.Minute, Limit: 1 << 29}, {Span: time.Hour, Limit: 1 << 29}, {Span: 24 * time.Hour, Limit: 1 << 29, Calendar: true}}},
	} {
		b.Run(name, func(b *testing.B) {
			now := time.Now()
			budget := NewBudget(q, nil, now)
			b.ReportAllocs()
			for range b.N {
				now = now.Add(time.Microsecond)
				if at, _ := budget.when(now); at.Equal(now) {
					budget.try(now)
				}
			}
		})
	}
}
