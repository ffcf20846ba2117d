package worker

import (
	"math/rand/v2"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"
)

// chain is a line of owners of one quota, and the record that they leave to
// each other, which takes time to be stored.
type chain struct {
	t      *rapid.T
	q      Quota
	now    time.Time
	b      *Budget
	stored []Spent
	due    time.Time // when what is on its way is stored; zero: nothing is
	onWay  []Spent
	all    []time.Time // requests of all owners
}

// settleStore lets what is on its way arrive.
func (c *chain) settleStore() {
	if !c.due.IsZero() && !c.due.After(c.now) {
		c.stored, c.due = c.onWay, time.Time{}
		c.b.Stored(c.onWay)
	}
	select {
	case <-c.b.Want():
		if c.due.IsZero() {
			c.onWay, c.due = c.b.Memory(c.now), c.now.Add(time.Duration(rapid.Int64Range(1, int64(200*time.Millisecond)).Draw(c.t, "store")))
		} else {
			c.b.grant.ask()
		}
	default:
	}
}

// work spends for a time, as fast as it goes.
func (c *chain) work(long time.Duration) {
	end := c.now.Add(long)
	for c.now.Before(end) {
		c.settleStore()
		if c.b.try(c.now) {
			c.all = append(c.all, c.now)
			continue
		}
		at, _ := c.b.when(c.now)
		if !c.due.IsZero() {
			at = earliest(at, c.due)
		}
		c.now = latest(c.now.Add(time.Millisecond), earliest(at, end))
	}
}

// crash ends the owner; what was on its way may have been stored all the same.
func (c *chain) crash() {
	if !c.due.IsZero() && rapid.Bool().Draw(c.t, "stored all the same") {
		c.stored = c.onWay
	}
	c.due = time.Time{}
	c.now = c.now.Add(time.Duration(rapid.Int64Range(int64(grantSpan), int64(20*time.Second)).Draw(c.t, "takeover")))
	c.b = NewBudget(c.q, c.stored, c.now)
}

// release ends the owner in order.
func (c *chain) release() {
	c.stored, c.due = c.b.Release(c.now), time.Time{}
	if c.b.try(c.now) {
		c.t.Fatal("spent after the release")
	}
	c.now = c.now.Add(time.Duration(rapid.Int64Range(0, int64(time.Second)).Draw(c.t, "handover")))
	c.b = NewBudget(c.q, c.stored, c.now)
}

// However owners crash, no window is ever used beyond its limit; and owners
// that follow each other in order use it nearly whole.
func TestWindowsOverOwners(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		l := WindowLimit{
			Span:     rapid.SampledFrom([]time.Duration{10 * time.Second, time.Minute, time.Hour}).Draw(t, "span"),
			Limit:    rapid.IntRange(1, 2000).Draw(t, "limit"),
			Calendar: rapid.Bool().Draw(t, "calendar"),
		}
		start := time.Date(2026, 11, 21, 9, 58, 7, 0, time.UTC)
		c := &chain{t: t, now: start, q: Quota{
			Rate: rapid.SampledFrom([]float64{0, 1, 50}).Draw(t, "rate"), Burst: 5, Durable: true, Windows: []WindowLimit{l},
		}}
		if c.q.Rate == 0 {
			c.q.Burst = 1
		}
		c.b = NewBudget(c.q, nil, c.now)
		kills := rapid.Bool().Draw(t, "kills")
		for range 8 {
			c.work(time.Duration(rapid.Int64Range(0, int64(l.Span)).Draw(t, "long")))
			if kills && rapid.Bool().Draw(t, "kill") {
				c.crash()
			} else {
				c.release()
			}
		}
		c.work(2 * l.Span)
		most := fullest(c.all, l.Span)
		if l.Calendar {
			most = fullestPeriod(&calendar{WindowLimit: l}, c.all)
		}
		if most > l.Limit {
			t.Fatalf("%d requests in a window of %d", most, l.Limit)
		}
		if possible := c.q.Rate == 0 || c.q.Rate*l.Span.Seconds() > 1.1*float64(l.Limit); possible && l.Limit >= 50 && !kills {
			spans := float64(c.now.Sub(start)) / float64(l.Span)
			if l.Calendar {
				spans-- // the first and the last are not whole
			}
			if use := float64(len(c.all)) / float64(l.Limit) / spans; use < 0.98*(spans-1)/spans && !l.Calendar || use < 0.9*(spans-1)/spans {
				t.Fatalf("used to %.3f over %.1f windows", use, spans)
			}
		}
	})
}

// What is stored is little, and is not asked for more often than it must be.
func TestGrants(t *testing.T) {
	now := time.Unix(1_800_000_000, 0)
	b := NewBudget(Quota{Rate: 4, Burst: 1, Durable: true, Windows: []WindowLimit{{Span: time.Hour, Limit: 1000}}}, nil, now)
	if b.try(now.Add(time.Second)) {
		t.Fatal("spent before anything was stored")
	}
	if _, why := b.when(now.Add(time.Second)); why.Why != WhyStoring {
		t.Errorf("waits for %v", why)
	}
	stores, spent := 0, 0
	for spent < 900 {
		select {
		case <-b.Want():
			m := b.Memory(now)
			if g := m[0].Granted; g < 1 || g > 10 {
				t.Fatalf("granted %d", g)
			}
			b.Stored(m)
			stores++
		default:
		}
		if b.try(now) {
			spent++
		}
		now = now.Add(100 * time.Millisecond)
	}
	if stores > spent/3 {
		t.Errorf("stored %d times for %d requests", stores, spent)
	}
	// Memory alone, for a display, grants nothing and takes nothing back that
	// is needed.
	before := b.grant.ceiling
	b.Memory(now)
	if b.grant.ceiling > before {
		t.Error("a record that is not stored raises the limit")
	}
	b.Stored(nil)
	// A grant that shrinks while the lane idles is in force at once: the record
	// would not cover the larger one.
	now = now.Add(time.Minute)
	b.Set(now, Quota{Burst: 1, Durable: true, Windows: []WindowLimit{{Span: time.Hour, Limit: 1100}}})
	m := b.Memory(now)
	n := 0
	for b.try(now) {
		n++
	}
	if n > m[0].Granted || m[0].Granted == 0 {
		t.Errorf("%d spent on a grant of %d", n, m[0].Granted)
	}
	// Without windows that outlive an owner nothing is ever asked for.
	for _, q := range []Quota{{Durable: true}, {Durable: true, Windows: []WindowLimit{{Span: time.Second, Limit: 5}}}, {Windows: []WindowLimit{{Span: time.Hour, Limit: 5}}}} {
		b := NewBudget(q, nil, now)
		if !b.try(now) || len(b.Want()) > 0 || b.Memory(now)[0].Granted != 0 {
			t.Errorf("%+v waits for a grant", q)
		}
	}
}

// What the CRM asked for and what its refusals taught outlives an owner, within
// reason.
func TestMemoryOfTheWhole(t *testing.T) {
	now := time.Unix(1_800_000_000, 0)
	b := NewBudget(Quota{Rate: 10}, nil, now)
	for range 50 {
		now = now.Add(time.Second)
		b.try(now)
	}
	b.Refused(now, now.Add(-time.Second), 0)
	b.pause(now.Add(10 * time.Minute))
	m := b.Memory(now)
	next := NewBudget(Quota{Rate: 10}, m, now.Add(time.Minute))
	if at, why := next.when(now.Add(time.Minute)); !at.Equal(now.Add(10*time.Minute)) || why.Why != WhyAsked {
		t.Errorf("the next may send at %v: %v", at, why)
	}
	if st := next.Describe(now.Add(time.Minute)); st.Rate < 0.8 || st.Rate > 1.1 || st.Slowed != WhyRefused {
		t.Errorf("the next begins with %+v", st)
	}
	late := NewBudget(Quota{Rate: 10}, m, now.Add(time.Hour))
	if st := late.Describe(now.Add(time.Hour)); st.Rate != 10 || !st.Asked.IsZero() {
		t.Errorf("an hour later: %+v", st)
	}
	m[0].Asked = now.Add(1000 * time.Hour) // nonsense, or another's clock
	if at, _ := NewBudget(Quota{}, m, now).when(now); at.Sub(now) > time.Hour {
		t.Errorf("held for %v", at.Sub(now))
	}
}

// A store that comes wakes who waits for it; so do higher limits.
func TestBudgetWakes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := NewBudget(Quota{Durable: true, Windows: []WindowLimit{{Span: time.Hour, Limit: 10}}}, nil, time.Now())
		got := make(chan time.Duration)
		start := time.Now()
		spend := func() {
			go func() {
				if err := b.spend(t.Context()); err != nil {
					t.Error(err)
				}
				got <- time.Since(start)
			}()
		}
		spend()
		time.Sleep(300 * time.Millisecond)
		<-b.Want()
		b.Stored(b.Memory(time.Now()))
		if d := <-got; d != 300*time.Millisecond {
			t.Errorf("woken after %v", d)
		}
		b.Set(time.Now(), Quota{Windows: []WindowLimit{{Span: time.Hour, Limit: 1}}})
		spend()
		time.Sleep(time.Minute)
		b.Set(time.Now(), Quota{Windows: []WindowLimit{{Span: time.Hour, Limit: 2}}})
		if d := <-got; d != time.Minute+300*time.Millisecond {
			t.Errorf("woken after %v", d)
		}
	})
}

// 1,000 an hour, used by owners that take turns, with a strict judge: all but
// nothing refused and 99 % in use.
func TestThousandAnHour(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	q := Quota{Rate: 4, Burst: 8, Durable: true, Windows: []WindowLimit{{Span: time.Hour, Limit: 1000}}}
	now := time.Unix(1_800_000_000, 0)
	var arrived []time.Time
	b := NewBudget(q, nil, now)
	start := now
	for now.Sub(start) < 24*time.Hour {
		select {
		case <-b.Want():
			b.Stored(b.Memory(now))
		default:
		}
		if r.IntN(500) == 0 {
			m := b.Release(now)
			now = now.Add(time.Duration(r.IntN(int(time.Second))))
			b = NewBudget(q, m, now)
		}
		if b.try(now) {
			arrived = append(arrived, now.Add(time.Duration(20+r.IntN(80))*time.Millisecond))
			continue
		}
		at, _ := b.when(now)
		now = latest(now.Add(time.Millisecond), at)
	}
	slices.SortFunc(arrived, time.Time.Compare)
	if n := fullest(arrived, time.Hour); n > 1000 {
		t.Errorf("%d requests arrived within an hour", n)
	}
	if use := float64(len(arrived)) / 24000; use < 0.99 {
		t.Errorf("used to %.4f", use)
	}
}
