package worker

import (
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"crmsync/crm"
	"crmsync/emulator"
)

// usualRules are the headers that most CRMs have, slidingRules the same of one
// whose window slides.
var (
	usualRules = []crm.HintRule{{
		Limit: "X-Ratelimit-Limit", Remaining: "X-Ratelimit-Remaining", Reset: "X-Ratelimit-Reset", Before: true,
	}}
	slidingRules = []crm.HintRule{{
		Limit: "X-Ratelimit-Limit", Remaining: "X-Ratelimit-Remaining", Reset: "X-Ratelimit-Reset", Sliding: true, Before: true,
	}}
)

// teller is a CRM that tells of its limit.
type teller struct {
	crm     *emulator.CRM
	rules   []crm.HintRule
	calls   atomic.Int64
	mu      sync.Mutex
	served  []time.Time
	refused []time.Time
}

// thisCentury makes the bubble's time one that Unix seconds are taken for.
func thisCentury() { time.Sleep(26 * 365 * 24 * time.Hour) }

// call makes one request and tells the budget what came of it.
func (e *teller) call(b *Budget) {
	began := time.Now()
	time.Sleep(10 * time.Millisecond)
	w := httptest.NewRecorder()
	r := httptest.NewRequest(http.MethodGet, "/api/contacts/1/"+strconv.Itoa(1+int(e.calls.Add(1)%40)), strings.NewReader(""))
	r.Header.Set("authtoken", emulator.DefaultToken)
	e.crm.ServeHTTP(w, r)
	arrived := time.Now()
	time.Sleep(10 * time.Millisecond)
	h := crm.ReadHints(w.Header(), e.rules, time.Now())
	h.Began = began
	e.mu.Lock()
	defer e.mu.Unlock()
	if w.Code == http.StatusOK {
		e.served = append(e.served, arrived)
		b.Hear(time.Now(), &h, began)
		return
	}
	e.refused = append(e.refused, arrived)
	b.HearRefusal(time.Now(), &h, began)
	b.Refused(time.Now(), began, h.Wait())
}

// work calls from several callers for a time.
func (e *teller) work(t *testing.T, b *Budget, callers int, long time.Duration) {
	var wg sync.WaitGroup
	end := time.Now().Add(long)
	for range callers {
		wg.Go(func() {
			for {
				if at, _ := b.when(time.Now()); at.After(end) {
					time.Sleep(time.Until(end))
					return
				}
				if err := b.spend(t.Context()); err != nil {
					t.Error(err)
					return
				}
				e.call(b)
			}
		})
	}
	wg.Wait()
}

// What the CRM tells of is kept without one refusal, and used, whatever is
// configured.
func TestAdvertisedIsKept(t *testing.T) {
	for _, tt := range []struct {
		name   string
		mode   string
		limits emulator.Limits
		rules  []crm.HintRule
		use    float64
	}{
		{"fixed", emulator.PerfexDocs, emulator.Limits{PerHour: 300, Window: 5 * time.Minute, FixedWindow: true}, usualRules, 0.97},
		{"fixed, a minute", emulator.PerfexDocs, emulator.Limits{PerHour: 50, Window: time.Minute, FixedWindow: true}, usualRules, 0.94},
		{"sliding", emulator.Perfex303, emulator.Limits{PerHour: 300, Window: 5 * time.Minute}, slidingRules, 0.97},
	} {
		for _, q := range []Quota{{}, {Rate: 50, Burst: 10}} {
			t.Run(tt.name, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					thisCentury()
					e := &teller{crm: emulator.NewPerfex(emulator.Options{Mode: tt.mode, Contacts: 40, Limits: tt.limits}), rules: tt.rules}
					b := NewBudget(q, nil, time.Now())
					e.work(t, b, 4, 30*time.Minute)
					if len(e.refused) > 0 {
						t.Errorf("%d refused of %d", len(e.refused), len(e.served))
					}
					possible := float64(tt.limits.PerHour) * float64(30*time.Minute) / float64(tt.limits.Window)
					if use := float64(len(e.served)) / possible; use < tt.use || use > 1.001+float64(tt.limits.PerHour)/possible {
						t.Errorf("used to %.3f", use)
					}
					// The next owner, who knows nothing of it, hears of it soon.
					next := NewBudget(q, b.Release(time.Now()), time.Now())
					e.work(t, next, 1, 5*time.Minute)
					if len(e.refused) > 2 {
						t.Errorf("%d refused after a takeover", len(e.refused))
					}
				})
			})
		}
	}
}

// Others eat of the same quota: what is left is used, with few refusals.
func TestForeignUse(t *testing.T) {
	for _, rules := range [][]crm.HintRule{usualRules, slidingRules} {
		synctest.Test(t, func(t *testing.T) {
			thisCentury()
			l := emulator.Limits{PerHour: 600, Window: 10 * time.Minute, FixedWindow: !rules[0].Sliding}
			mode := emulator.Perfex303
			if l.FixedWindow {
				mode = emulator.PerfexDocs
			}
			e := &teller{crm: emulator.NewPerfex(emulator.Options{Mode: mode, Contacts: 40, Limits: l}), rules: rules}
			b := NewBudget(Quota{Rate: 10, Burst: 2}, nil, time.Now())
			var wg sync.WaitGroup
			other := NewBudget(Quota{Rate: 0.5}, nil, time.Now())
			for range 1 {
				wg.Go(func() {
					o := &teller{crm: e.crm, rules: rules}
					for end := time.Now().Add(time.Hour); time.Now().Before(end); {
						if err := other.spend(t.Context()); err != nil {
							t.Error(err)
							return
						}
						o.call(NewBudget(Quota{}, nil, time.Now())) // it learns nothing
					}
				})
			}
			e.work(t, b, 3, time.Hour)
			wg.Wait()
			share := float64(len(e.refused)) / float64(len(e.refused)+len(e.served))
			if share > 0.05 || len(e.served) < 1500 {
				t.Errorf("sliding %v: %d served, %d refused", rules[0].Sliding, len(e.served), len(e.refused))
			}
		})
	}
}

// told is a budget that has heard one thing.
func told(now time.Time, q Quota, as ...crm.Advertised) *Budget {
	b := NewBudget(q, nil, now.Add(-time.Hour))
	b.Hear(now, &crm.Hints{Quotas: as, Began: now.Add(-time.Second)}, now)
	return b
}

func TestHear(t *testing.T) {
	now := time.Unix(1_800_000_000, 0)
	minute := func(limit, left int64) crm.Advertised {
		return crm.Advertised{Limit: limit, Remaining: left, Reset: 50 * time.Second}
	}
	at := func(b *Budget, now time.Time) time.Duration {
		at, _ := b.when(now)
		return at.Sub(now).Round(time.Millisecond)
	}
	t.Run("the rest is paced", func(t *testing.T) {
		b := told(now, Quota{Rate: 100, Burst: 1}, minute(100, 25))
		if st := b.Describe(now); st.Rate < 0.48 || st.Rate > 0.51 || st.Slowed != WhyAdvertised || st.Allowed != 100 {
			t.Errorf("%+v", st)
		}
		if st := told(now, Quota{Rate: 0.2}, minute(100, 25)).Describe(now); st.Slowed != WhyNone || st.Rate != 0.2 {
			t.Errorf("slower than that anyway: %+v", st)
		}
	})
	t.Run("nothing is left", func(t *testing.T) {
		b := told(now, Quota{}, minute(100, 0))
		got, why := b.when(now)
		if got.Sub(now) != 51*time.Second || why.Why != WhyAdvertised || why.String() != "the quota that the CRM tells of, 100" {
			t.Errorf("%v: %v", got.Sub(now), why)
		}
		if b.try(now.Add(50 * time.Second)) {
			t.Error("spent what is not there")
		}
		if !b.try(now.Add(52 * time.Second)) {
			t.Error("not renewed")
		}
		if st := b.Describe(now.Add(52 * time.Second)); st.Advertised[0].Left != 99 || !st.Advertised[0].Resets.IsZero() {
			t.Errorf("%+v", st.Advertised)
		}
	})
	t.Run("the reserve is left", func(t *testing.T) {
		b := told(now, Quota{Reserve: 0.2}, minute(100, 22))
		if st := b.Describe(now); st.Rate > 0.04 {
			t.Errorf("two are ours, the rate is %v", st.Rate)
		}
		if b.try(now.Add(20*time.Second)) || !b.try(now.Add(30*time.Second)) || b.try(now.Add(40*time.Second)) {
			t.Error("two are ours, one each 25 s")
		}
		if wait := at(told(now, Quota{Reserve: 0.2}, minute(100, 20)), now); wait != 51*time.Second {
			t.Errorf("waits %v", wait)
		}
	})
	t.Run("requests in flight are counted", func(t *testing.T) {
		b := NewBudget(Quota{}, nil, now)
		for i := range 5 {
			b.try(now.Add(time.Duration(i) * time.Second))
		}
		later := now.Add(5 * time.Second)
		b.Hear(later, &crm.Hints{Quotas: []crm.Advertised{minute(100, 10)}, Began: now.Add(1500 * time.Millisecond)}, now)
		if st := b.Describe(later); st.Advertised[0].Left != 7 {
			t.Errorf("%+v", st.Advertised)
		}
		// An older answer, with more, comes last: what is left does not rise.
		b.Hear(later, &crm.Hints{Quotas: []crm.Advertised{minute(100, 90)}, Began: later}, now)
		if st := b.Describe(later); st.Advertised[0].Left != 7 {
			t.Errorf("%+v", st.Advertised)
		}
		// A new window does.
		b.Hear(later.Add(time.Minute), &crm.Hints{Quotas: []crm.Advertised{minute(100, 90)}}, later.Add(time.Minute))
		if st := b.Describe(later.Add(time.Minute)); st.Advertised[0].Left != 90 {
			t.Errorf("%+v", st.Advertised)
		}
	})
	t.Run("it wakes who waits", func(t *testing.T) {
		b := told(now, Quota{}, minute(100, 0))
		changed := b.changed()
		b.Hear(now.Add(time.Second), &crm.Hints{Quotas: []crm.Advertised{{Limit: 100, Remaining: 100, Reset: 5 * time.Minute}}}, now)
		select {
		case <-changed:
		default:
			t.Error("nobody is told")
		}
		if wait := at(b, now.Add(10*time.Second)); wait > 4*time.Second {
			t.Errorf("waits %v", wait)
		}
	})
	t.Run("a month is not believed", func(t *testing.T) {
		b := told(now, Quota{}, crm.Advertised{Limit: 100, Reset: 30 * 24 * time.Hour})
		if wait := at(b, now); wait != crm.MaxWait {
			t.Errorf("waits %v", wait)
		}
		if probe := now.Add(crm.MaxWait); !b.try(probe) || b.try(probe) || at(b, probe) != crm.MaxWait {
			t.Error("one request an hour finds out")
		}
	})
	t.Run("without a time", func(t *testing.T) {
		if wait := at(told(now, Quota{}, crm.Advertised{Limit: 5}), now); wait != 0 {
			t.Errorf("waits %v", wait)
		}
		b := told(now, Quota{}, crm.Advertised{Limit: 5, Window: 24 * time.Hour})
		if wait := at(b, now); wait != time.Minute {
			t.Errorf("waits %v", wait)
		}
		if probe := now.Add(time.Minute); !b.try(probe) || b.try(probe) {
			t.Error("one request a minute finds out")
		}
	})
	t.Run("several", func(t *testing.T) {
		b := told(now, Quota{}, minute(100, 50), crm.Advertised{Name: "day", Limit: 1000, Reset: 30 * time.Minute})
		if wait := at(b, now); wait != 30*time.Minute+time.Second {
			t.Errorf("waits %v", wait)
		}
		for range 10 {
			b.Hear(now, &crm.Hints{Quotas: []crm.Advertised{{Name: "more", Remaining: 1}, {Name: now.String(), Remaining: 1}}}, now)
			now = now.Add(time.Second)
		}
		if n := len(b.Describe(now).Advertised); n != maxAdverts {
			t.Errorf("%d are followed", n)
		}
	})
	t.Run("a limit that is not enforced", func(t *testing.T) {
		slide := crm.Advertised{Limit: 2, Window: time.Hour, Sliding: true}
		b := told(now, Quota{}, slide)
		if wait := at(b, now); wait == 0 {
			t.Error("nothing is left")
		}
		slide.Over = true
		b.Hear(now, &crm.Hints{Quotas: []crm.Advertised{slide}}, now)
		if wait := at(b, now); wait != 0 || !b.Describe(now).Advertised[0].Unenforced {
			t.Errorf("served, and it waits %v", wait)
		}
		b.HearRefusal(now, &crm.Hints{Quotas: []crm.Advertised{slide}}, now)
		if wait := at(b, now); wait == 0 {
			t.Error("refused, and it is not believed again")
		}
	})
	t.Run("a shared one hears", func(t *testing.T) {
		shared, b := NewBudget(Quota{}, nil, now), NewBudget(Quota{}, nil, now)
		b.ride(shared)
		b.Hear(now, &crm.Hints{Quotas: []crm.Advertised{minute(100, 0)}}, now)
		if len(b.Describe(now).Advertised) != 0 || len(shared.Describe(now).Advertised) != 1 {
			t.Error("heard by the wrong one")
		}
		if got, why := b.when(now); got.Sub(now) != 51*time.Second || !why.Shared {
			t.Errorf("%v, %v", got.Sub(now), why)
		}
		b.Refused(now, now, 0)
		if b.learned.top != 0 || shared.learned.top == 0 {
			t.Error("learned by the wrong one")
		}
	})
	t.Run("ETA", func(t *testing.T) {
		b := told(now, Quota{Rate: 10, Burst: 1}, crm.Advertised{Limit: 100, Remaining: 0, Reset: 50 * time.Second, Window: time.Minute})
		for n, want := range map[int]time.Duration{1: 51 * time.Second, 100: 61 * time.Second, 101: 111 * time.Second, 1000: 601 * time.Second} {
			if got := b.ETA(now, n).Sub(now); (got - want).Abs() > time.Second {
				t.Errorf("%d after %v, want %v", n, got, want)
			}
		}
	})
}
