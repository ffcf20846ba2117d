package worker

import (
	"errors"
	"math"
	"slices"
	"sync"
	"time"

	"golang.org/x/time/rate"
)

// How a budget stays clear of the limit that it was given, and of the one that
// it was not.
const (
	// hair is the share of a rate that is left alone where nothing else is
	// reserved: clocks do not run alike, and over hours a thousandth adds up to
	// a burst.
	hair = 0.002
	// bunching is by how much requests may come closer together on their way
	// than they were sent. So much of the burst is kept back for it, at most
	// half.
	bunching = 100 * time.Millisecond
	// lateness is how late we may be ourselves without losing what the bucket
	// would have gathered, where no burst is known to be allowed.
	lateness = 20 * time.Millisecond

	rateLeast   = 1.0 / 60         // requests a second: it never falls below
	rateClimb   = 60 * time.Second // from nothing back to the allowed rate, after an outage
	rateRestart = 0.1              // of the allowed rate: right after an outage
)

// tally counts requests against a limit over a span of time. Its methods are called with the
// budget's lock held and with times that do not fall.
type tally interface {
	of() WindowLimit
	allowed() int // the limit less the reserve, at least 1
	allow(limit int)
	used(now time.Time) int
	add(now time.Time, n int)
	// when is the first instant at which n more fit in, now itself if at once.
	when(now time.Time, n int) time.Time
	// resets is when room next grows; zero where nothing is used.
	resets(now time.Time) time.Time
	// eta is when the n-th request from now fits in; further is how long all
	// that is quicker, the bucket first, takes for so many.
	eta(now time.Time, n int, further func(int) time.Duration) time.Time
	save(now time.Time) Spent
	restore(s Spent, now time.Time)
}

// errNoQuota says that a request of a call was not made because the quota has no
// room for it soon.
var errNoQuota = errors.New("the quota has no room for the rest of the call")

// errLease says that a request was not made because our ownership might not
// outlast it.
var errLease = errors.New("the lease on the target could end before the request does")

// Budget is what one target, or several that share a quota, may still be sent:
// a token bucket, windows, what the CRM advertises, what its refusals teach,
// and the instant before which it wants nothing. Every HTTP request counts.
//
// A lane has its own; one that several share is made with [NewBudget] and given
// to each of them as [Options].Shared. Safe for concurrent use.
type Budget struct {
	mu      sync.Mutex
	quota   Quota
	born    time.Time
	lim     *rate.Limiter
	set     float64   // the rate that lim has; +Inf: none
	burst   int       // and its burst
	allowed float64   // configured or ordered rate less the reserve; +Inf: none
	keep    float64   // share of a rate that lim does not get
	ramp    time.Time // an outage ended then; zero: no ramp
	rampTo  float64   // the rate at its end; +Inf: there is none
	asked   time.Time // the CRM wants nothing before
	windows []tally
	learned learned
	adverts []advert
	recent  recent
	total   int64     // requests since born
	spent   time.Time // when the last of them was
	places  []*place  // requests that calls on their way wait for, in order
	grant   grant
	bell    bell

	shared *Budget // beside this one; set before the lane runs
	line   []turn  // of a shared one: who waits for it
	riders []*Budget
}

// NewBudget makes a budget that knows what was spent before it; its bucket is
// empty, since what the owner before has just sent is not known.
func NewBudget(q Quota, spent []Spent, now time.Time) *Budget {
	b := &Budget{born: now, lim: rate.NewLimiter(rate.Inf, 1), set: math.Inf(1), burst: 1}
	b.bell.ring()
	b.grant.want = make(chan struct{}, 1)
	b.setLocked(now, q)
	b.restoreLocked(now, spent)
	b.tuneLocked(now)
	b.emptyLocked(now)
	return b
}

// Set replaces rate, burst, windows and reserve. What was counted stays: a
// window that is new counts what the longest of the others knows of its span.
func (b *Budget) Set(now time.Time, q Quota) {
	b.mu.Lock()
	free := math.IsInf(b.set, 1)
	b.setLocked(now, q)
	b.tuneLocked(now)
	if free && !math.IsInf(b.set, 1) {
		b.emptyLocked(now) // what was sent without a limit is not in the bucket
	}
	b.mu.Unlock()
	b.ring()
}

func (b *Budget) setLocked(now time.Time, q Quota) {
	q.Burst = max(1, q.Burst)
	q.Reserve = min(max(q.Reserve, 0), 0.9)
	b.quota, b.allowed, b.keep = q, math.Inf(1), 0
	if q.Rate > 0 {
		b.allowed = q.Rate * (1 - q.Reserve)
		if q.Reserve < hair {
			b.keep = hair
		}
	}
	before := append(slices.Clone(b.windows), b.grant.former...)
	known, some := b.longest(now)
	b.windows = make([]tally, 0, len(q.Windows))
	for _, l := range q.Windows {
		w := takeWindow(&before, l)
		if w == nil {
			w = newWindowOf(l, b.born)
			if some {
				w.restore(known, now)
			}
		}
		w.allow(max(1, int(float64(l.Limit)*(1-q.Reserve)+1e-9)))
		b.windows = append(b.windows, w)
	}
	// What no longer limits still knows what was sent: it stays, out of the
	// way, for a window that is set later.
	b.grant.idle(now, before)
	b.grant.on = q.Durable && b.longSpan() > 0
}

// takeWindow takes the window of a limit out of a list.
func takeWindow(from *[]tally, l WindowLimit) tally {
	for i, w := range *from {
		if w.of().same(l) {
			*from = append((*from)[:i:i], (*from)[i+1:]...)
			return w
		}
	}
	return nil
}

func newWindowOf(l WindowLimit, born time.Time) tally {
	if l.Calendar {
		return &calendar{WindowLimit: l}
	}
	return &rolling{WindowLimit: l, born: born}
}

// tuneLocked gives the bucket the rate and the burst that are in force.
func (b *Budget) tuneLocked(now time.Time) {
	r, _ := b.inForceLocked(now)
	burst := b.burstLocked(r)
	if r != b.set && (math.IsInf(r, 1) || math.IsInf(b.set, 1) || math.Abs(r-b.set) > b.set/1000 || r == b.allowed) {
		wasFree := math.IsInf(b.set, 1)
		b.set = r
		if math.IsInf(r, 1) {
			b.lim.SetLimitAt(now, rate.Inf) // the limiter knows no IEEE infinity
		} else {
			b.lim.SetLimitAt(now, rate.Limit(r*(1-b.keep)))
		}
		if wasFree {
			b.emptyLocked(now)
		}
	}
	if burst != b.burst {
		b.burst = burst
		b.lim.SetBurstAt(now, burst)
	}
}

// inForceLocked is the rate in force and what makes it less than is allowed.
func (b *Budget) inForceLocked(now time.Time) (r float64, why Why) {
	r = b.allowed
	if !b.ramp.IsZero() {
		part := rateRestart + (1-rateRestart)*float64(now.Sub(b.ramp))/float64(rateClimb)
		if part >= 1 || math.IsInf(b.rampTo, 1) {
			b.ramp = time.Time{}
		} else if to := b.rampTo * part; to < r {
			r, why = to, WhyOutage
		}
	}
	if b.learned.outgrown(now, b.allowed, b.recent.rate(now.Sub(b.born))) {
		b.learned.forget()
	}
	if l := b.learned.rate(now); l < r {
		r, why = l, WhyRefused
	}
	if a := b.paceLocked(now, r); a < r {
		r, why = a, WhyAdvertised
	}
	return r, why
}

// burstLocked is how many requests may be sent at once at a rate: the
// configured burst less what is kept for bunching, less where the CRM has shown
// that it allows less than is configured.
func (b *Budget) burstLocked(r float64) int {
	n := b.quota.Burst
	if n > 1 && !math.IsInf(b.allowed, 1) {
		n -= min(n/2, int(math.Ceil(b.allowed*bunching.Seconds())))
	}
	if r < b.allowed {
		n = min(n, max(1, int(r*lateness.Seconds())))
	}
	return n
}

// emptyLocked takes what has gathered in the bucket.
func (b *Budget) emptyLocked(now time.Time) {
	if n := int(b.lim.TokensAt(now)); n > 0 && !math.IsInf(b.set, 1) {
		b.lim.AllowN(now, n)
	}
}

// readyLocked is the earliest instant at which a request may be sent once ahead
// others have been, as far as is known now, and what keeps it until then.
func (b *Budget) readyLocked(now time.Time, ahead, n int) (at time.Time, why Waited) {
	b.tuneLocked(now)
	at = now
	later := func(t time.Time, w Why, l WindowLimit) {
		if t.After(at) {
			at, why = t, Waited{Why: w, Window: l}
		}
	}
	if !math.IsInf(b.set, 1) {
		if t := b.lim.TokensAt(now) - float64(ahead); t < 1 {
			wait := time.Duration(math.Ceil((1 - t) / float64(b.lim.Limit()) * 1e9))
			_, slowed := b.inForceLocked(now)
			if slowed != WhyNone {
				wait = min(wait, max(time.Second, wait/2)) // the rate changes all the time
			} else {
				slowed = WhyRate
			}
			later(now.Add(wait), slowed, WindowLimit{})
		}
	}
	for _, w := range b.windows {
		later(w.when(now, ahead+min(n, w.allowed())), WhyWindow, w.of())
	}
	for i := range b.adverts {
		if t := b.adverts[i].when(now, ahead+1); t.After(at) {
			later(t, WhyAdvertised, b.adverts[i].window())
		}
	}
	later(b.asked, WhyAsked, WindowLimit{})
	if b.grant.short(b.total + int64(ahead)) {
		b.grant.ask()
		later(now.Add(time.Second), WhyStoring, WindowLimit{})
	}
	return at, why
}

// takeLocked spends one request.
func (b *Budget) takeLocked(now time.Time) {
	b.spent = now
	if !math.IsInf(b.set, 1) {
		b.lim.AllowN(now, 1)
	}
	for _, w := range b.windows {
		w.add(now, 1)
	}
	for _, w := range b.grant.former {
		w.add(now, 1)
	}
	for i := range b.adverts {
		b.adverts[i].spend(now)
	}
	b.total++
	b.recent.spend(now.Sub(b.born), b.total)
	b.learned.spend(now, b.gapLocked())
	b.grant.spend(b.total)
}

// gapLocked is how long the budget itself may have kept a request.
func (b *Budget) gapLocked() time.Duration {
	gap := b.asked.Sub(b.learned.last)
	if !math.IsInf(b.set, 1) {
		gap = max(gap, 0) + time.Duration(2e9/b.set)
	}
	return gap
}

// when is the earliest instant at which a request may be sent, as far as is
// known now (now itself if at once), and what it waits for.
func (b *Budget) when(now time.Time) (at time.Time, why Waited) { return b.whenRoom(now, 1) }

// whenRoom is when, for a request that others are to follow soon: the windows
// must have room for n, as far as they ever have.
func (b *Budget) whenRoom(now time.Time, n int) (at time.Time, why Waited) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.whenLocked(now, len(b.places), n)
}

func (b *Budget) whenLocked(now time.Time, ahead, n int) (at time.Time, why Waited) {
	at, why = b.readyLocked(now, ahead, n)
	s := b.shared
	if s == nil {
		return at, why
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	both, whyShared := s.readyLocked(now, s.aheadLocked(b, now), n)
	if both.Before(at) {
		s.leaveLineLocked(b) // its own limit keeps it: nobody need wait for it
		return at, why
	}
	if both.After(now) {
		s.lineUpLocked(b, both)
	}
	if both.After(at) {
		whyShared.Shared = true
		return both, whyShared
	}
	return at, why
}

// fits says whether every window can ever have room for n requests.
func (b *Budget) fits(n int) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, w := range b.windows {
		if w.allowed() < n {
			return false
		}
	}
	return b.shared == nil || b.shared.fits(n)
}

// try spends one request if it may be sent now. Whoever asks has looked at the
// clock before it was their turn, a long time ago where the process was stopped in
// between; time does not go back for that.
func (b *Budget) try(now time.Time) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.tryLocked(now, len(b.places))
}

func (b *Budget) tryLocked(now time.Time, ahead int) bool {
	now = latest(now, b.spent)
	if at, _ := b.readyLocked(now, ahead, 1); at.After(now) {
		return false
	}
	if s := b.shared; s != nil {
		s.mu.Lock()
		defer s.mu.Unlock()
		now = latest(now, s.spent)
		if at, _ := s.readyLocked(now, s.aheadLocked(b, now), 1); at.After(now) {
			s.lineUpLocked(b, at)
			return false
		}
		s.takeLocked(now)
		s.leaveLineLocked(b)
	}
	b.takeLocked(now)
	return true
}
