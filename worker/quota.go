package worker

import (
	"context"
	"errors"
	"math"
	"sync"
	"time"

	"golang.org/x/time/rate"
)

// How a lane's rate answers to refusals that name no number, and to an outage
// that has ended.
const (
	rateCut     = 0.7              // factor at a refusal, at most once a second
	rateLeast   = 0.02             // of the allowed rate: it never falls below
	rateClimb   = 60 * time.Second // from nothing back to the allowed rate
	rateRestart = 0.1              // of the allowed rate: after an outage
)

// errLease says that a request was not made because our ownership might not
// outlast it.
var errLease = errors.New("the lease on the target could end before the request does")

// budget is what the lane may still send: a token bucket, windows, and the
// instant before which the CRM wants nothing. Safe for concurrent use.
type budget struct {
	mu        sync.Mutex
	lim       *rate.Limiter
	allowed   float64 // configured or ordered rate less the reserve; +Inf: none
	now_      float64 // the rate in force, at most allowed
	climbed   time.Time
	lastCut   time.Time
	notBefore time.Time
	windows   []*rolling
	reserve   float64
	spent     int64
}

// newBudget starts with an empty bucket: what the owner before us has just
// sent is not known.
func newBudget(q Quota, spent []Spent, now time.Time) *budget {
	b := &budget{reserve: min(max(q.Reserve, 0), 0.9)}
	b.lim = rate.NewLimiter(rate.Inf, max(1, q.Burst))
	for _, w := range q.Windows {
		r := &rolling{span: w.Span, limit: max(1, int(float64(w.Limit)*(1-b.reserve)+1e-9)), born: now}
		for _, s := range spent {
			if s.Span == w.Span {
				r.restore(s, now)
			}
		}
		b.windows = append(b.windows, r)
	}
	b.setRate(now, q.Rate)
	b.emptyLocked(now)
	return b
}

// setRate sets the requests a second before the reserve; 0 is no limit.
func (b *budget) setRate(now time.Time, perSecond float64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	allowed := math.Inf(1)
	if perSecond > 0 {
		allowed = perSecond * (1 - b.reserve)
	}
	if allowed == b.allowed {
		return
	}
	wasFree := math.IsInf(b.allowed, 1)
	b.allowed, b.now_, b.climbed = allowed, allowed, now
	b.lim.SetLimitAt(now, limit(allowed))
	if wasFree {
		b.emptyLocked(now) // what was sent without a limit is not known
	}
}

// limit is a rate as the limiter wants it: it knows no IEEE infinity.
func limit(perSecond float64) rate.Limit {
	if math.IsInf(perSecond, 1) {
		return rate.Inf
	}
	return rate.Limit(perSecond)
}

// emptyLocked takes what has gathered in the bucket.
func (b *budget) emptyLocked(now time.Time) {
	if n := int(b.lim.TokensAt(now)); n > 0 {
		b.lim.AllowN(now, n)
	}
}

func (b *budget) climbLocked(now time.Time) {
	if b.now_ >= b.allowed {
		b.climbed = now
		return
	}
	if gain := b.allowed * float64(now.Sub(b.climbed)) / float64(rateClimb); gain >= b.allowed/1000 {
		b.now_ = min(b.allowed, b.now_+gain)
		b.climbed = now
		b.lim.SetLimitAt(now, rate.Limit(b.now_))
	}
}

// when is the earliest instant at which a request may be sent, as far as is
// known now; now itself if at once.
func (b *budget) when(now time.Time) time.Time {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.climbLocked(now)
	at := now
	if b.notBefore.After(at) {
		at = b.notBefore
	}
	if t := b.lim.TokensAt(now); t < 1 && b.now_ < math.Inf(1) {
		if next := now.Add(time.Duration(math.Ceil((1 - t) / b.now_ * 1e9))); next.After(at) {
			at = next
		}
	}
	for _, w := range b.windows {
		if next := w.when(now); next.After(at) {
			at = next
		}
	}
	return at
}

// try spends one request if it may be sent now.
func (b *budget) try(now time.Time) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.climbLocked(now)
	if b.notBefore.After(now) {
		return false
	}
	for _, w := range b.windows {
		if w.when(now).After(now) {
			return false
		}
	}
	if !b.lim.AllowN(now, 1) {
		return false
	}
	for _, w := range b.windows {
		w.add(now)
	}
	b.spent++
	return true
}

// spend waits until one request may be sent and spends it.
func (b *budget) spend(ctx context.Context) error {
	for {
		now := time.Now()
		if b.try(now) {
			return ctx.Err()
		}
		timer := time.NewTimer(max(time.Microsecond, b.when(now).Sub(now)))
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return ctx.Err()
		}
	}
}

// hold sends nothing before an instant.
func (b *budget) hold(until time.Time) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if until.After(b.notBefore) {
		b.notBefore = until
	}
}

// cut lowers the rate after a refusal.
func (b *budget) cut(now time.Time) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.climbLocked(now)
	if math.IsInf(b.now_, 1) || now.Sub(b.lastCut) < time.Second {
		return
	}
	b.lastCut, b.climbed = now, now
	b.now_ = max(b.allowed*rateLeast, b.now_*rateCut)
	b.lim.SetLimitAt(now, rate.Limit(b.now_))
}

// restart begins the ramp after an outage.
func (b *budget) restart(now time.Time) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if math.IsInf(b.allowed, 1) {
		return
	}
	b.climbed = now
	b.now_ = max(b.allowed*rateLeast, b.allowed*rateRestart)
	b.lim.SetLimitAt(now, rate.Limit(b.now_))
	b.emptyLocked(now) // what gathered meanwhile is not a burst
}

// buckets is the resolution of a rolling window: its span in 60 parts, and one
// more so that the part which is only half over counts whole.
const buckets = 61

// rolling counts requests over a rolling span. It errs towards counting up to
// a sixtieth of the span too long, never too short. The wall clock is read once,
// at born: should it be set afterwards, the span stays what it is.
type rolling struct {
	span  time.Duration
	limit int
	born  time.Time
	tick  int64 // index of the newest bucket since the Unix epoch
	n     [buckets]int
	sum   int
}

// Spent is what of a window has been used, to be kept across restarts.
type Spent struct {
	Span  time.Duration `json:"span"`
	Tick  int64         `json:"tick"`  // index of the newest count, in sixtieths of Span since the Unix epoch
	Count []int         `json:"count"` // oldest first
}

// width is a sixtieth of the span, rounded up so that sixty are never less.
func (r *rolling) width() int64 { return (int64(r.span) + buckets - 2) / (buckets - 1) }

// clock is the Unix time in nanoseconds as it goes on from born.
func (r *rolling) clock(now time.Time) int64 { return r.born.UnixNano() + int64(now.Sub(r.born)) }

func (r *rolling) advance(now time.Time) {
	t := r.clock(now) / r.width()
	if t <= r.tick {
		return
	}
	for i := r.tick + 1; i <= t && i <= r.tick+buckets; i++ {
		r.sum -= r.n[i%buckets]
		r.n[i%buckets] = 0
	}
	r.tick = t
}

func (r *rolling) add(now time.Time) {
	r.advance(now)
	r.n[r.tick%buckets]++
	r.sum++
}

// when is the first instant at which the window has room.
func (r *rolling) when(now time.Time) time.Time {
	r.advance(now)
	if r.sum < r.limit {
		return now
	}
	left := r.sum
	for i := r.tick - buckets + 1; i <= r.tick; i++ {
		left -= r.n[i%buckets]
		if left < r.limit {
			return now.Add(time.Duration((i+buckets)*r.width() - r.clock(now)))
		}
	}
	return now.Add(r.span)
}

// restore takes over what a former lane has counted. Where that lane's clock
// was ahead of ours, its newest count is as if of now: it holds us up for a
// span, not for as long as the clocks differ.
func (r *rolling) restore(s Spent, now time.Time) {
	if len(s.Count) > buckets {
		s.Count = s.Count[len(s.Count)-buckets:]
	}
	s.Tick = min(s.Tick, r.clock(now)/r.width())
	r.tick = s.Tick
	for i, n := range s.Count {
		at := s.Tick - int64(len(s.Count)-1-i)
		if at >= 0 && n > 0 {
			r.n[at%buckets] += n
			r.sum += n
		}
	}
}

func (r *rolling) save() Spent {
	s := Spent{Span: r.span, Tick: r.tick, Count: make([]int, 0, buckets)}
	for i := r.tick - buckets + 1; i <= r.tick; i++ {
		n := 0
		if i >= 0 {
			n = r.n[i%buckets]
		}
		s.Count = append(s.Count, n)
	}
	return s
}

// spentNow is what each window has counted.
func (b *budget) spentNow(now time.Time) []Spent {
	b.mu.Lock()
	defer b.mu.Unlock()
	out := make([]Spent, len(b.windows))
	for i, w := range b.windows {
		w.advance(now)
		out[i] = w.save()
	}
	return out
}
