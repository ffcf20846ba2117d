package worker

import (
	"math"
	"time"
)

// What a refusal teaches. TestHiddenLimits holds these numbers against limits
// of many kinds: together they keep between nine tenths and all of a limit in
// use, with fewer than one call in twenty refused.
const (
	learnCut  = 0.92 // of the rate that was accepted: where the climb begins
	learnMore = 1.04 // what was accepted on average was a little less than the limit
	learnSpan = 60   // seconds over which what was accepted is measured

	// The climb is back at the rate that was accepted after so many requests,
	// within these bounds: probing costs a refusal. A limit that has shown
	// itself to be a window is climbed to slowly: it refuses once it is spent,
	// not when the rate is too high.
	learnEach  = 40.0
	learnQuick = 15 * time.Second
	learnSlow  = 50 * time.Second

	// How long to hold after a refusal that names no time: as long as one
	// request takes at the learned rate, within these bounds; then, while
	// nothing is accepted, twice as long each time.
	learnSoon  = 100 * time.Millisecond
	learnFirst = time.Second
	learnMost  = time.Minute
	// learnShut is for how long a CRM that accepts nothing says that the rate
	// before was too high; after that it is shut for another reason.
	learnShut = 30 * time.Second

	// After learnSeries refusals in a row on the way back, each after learnFew
	// requests that were accepted, and the last at half the rate of the first,
	// refusals are taken for random; for so long as they come within
	// learnForget of each other.
	learnSeries = 6
	learnFew    = 4
	learnForget = 10 * time.Minute

	// longWait is from when on a wait is a window that is spent, not a rate
	// that was too high.
	longWait = 90 * time.Second
)

// learned is the rate that refusals teach: at each it falls to a part of what
// was accepted just before, and climbs back along an odd power, as TCP's CUBIC does:
// quickly at first, flat near the rate that was accepted, then ever faster.
// Plain additive increase is either slow to come back or refused often.
type learned struct {
	top   float64   // rate that was accepted when we were refused last; 0: nothing is learned
	since time.Time // of the climb
	at    time.Time // of the last refusal that counted
	until time.Time // what it said to hold for
	tries int       // refusals in a row with nothing accepted between
	shut  time.Time // when these began

	last     time.Time // request
	active   float64   // seconds in which something was sent or would have been
	accepted [learnSpan + 1]int
	newest   int // second of active
	sum      int
	fresh    int  // sent since the last refusal
	served   bool // one of these is known to have been accepted
	series   series
}

// series is refusals in a row that came before the climb was back at the top.
type series struct {
	n                 int
	from              float64 // top before the first
	accepted, refused int
	shut              int  // refused with nothing accepted between
	random            bool // our rate has nothing to do with them
}

// rate is the learned rate now; +Inf where nothing is learned.
func (l *learned) rate(now time.Time) float64 {
	if l.top == 0 {
		return math.Inf(1)
	}
	x := float64(now.Sub(l.since))/float64(l.back()) - 1
	return max(rateLeast, l.top*(1+(1-learnCut)*x*x*x*x*x))
}

// back is how long the climb takes to what was accepted.
func (l *learned) back() time.Duration {
	if l.tries > 0 {
		return learnSlow
	}
	return min(max(time.Duration(learnEach/l.top*1e9), learnQuick), learnSlow)
}

// outgrown says that the climb has left behind what was learned: it is at what
// is allowed, or, where nothing limits, far above what is in use.
func (l *learned) outgrown(now time.Time, allowed, use float64) bool {
	r := l.rate(now)
	return l.top > 0 && (r >= allowed || math.IsInf(allowed, 1) && r >= max(4*l.top, 10*use))
}

func (l *learned) forget() { l.top = 0 }

// takeOver goes on with what a former owner has learned.
func (l *learned) takeOver(now time.Time, top float64) { l.top, l.since = top, now }

// spend counts a request. gap is how long the budget itself kept it: a pause in
// which there was nothing to send is not time in which nothing was accepted.
func (l *learned) spend(now time.Time, gap time.Duration) {
	if !l.last.IsZero() {
		l.active += max(0, min(now.Sub(l.last), max(gap, time.Second))).Seconds()
	}
	l.last = now
	l.fresh++
	l.count(1)
}

func (l *learned) count(n int) {
	t := int(l.active)
	for i := l.newest + 1; i <= t && i <= l.newest+len(l.accepted); i++ {
		l.sum -= l.accepted[i%len(l.accepted)]
		l.accepted[i%len(l.accepted)] = 0
	}
	l.newest = t
	l.accepted[t%len(l.accepted)] += n
	l.sum += n
}

// accept takes in an answer that was no refusal.
func (l *learned) accept(began time.Time) {
	l.served = l.served || began.After(l.at)
	l.series.accepted++
}

// refused takes in one refusal at a rate and says how long to hold. spent says that
// a quota is known to be spent, and so is no reason to be slower.
func (l *learned) refused(now, began time.Time, wait time.Duration, rate float64, spent bool) time.Duration {
	l.count(-1)
	if !l.at.IsZero() && !began.After(l.at) { // side by side with one that counted
		return max(wait, l.until.Sub(now))
	}
	l.fresh--
	before := l.at
	l.at = now
	if wait >= longWait || spent && wait > 0 {
		return wait
	}
	if l.atRandom(now, before, rate) {
		l.until = now.Add(max(wait, learnSoon))
		return max(wait, learnSoon)
	}
	est := float64(max(l.sum, 1)) / min(max(l.active, 1), learnSpan)
	if l.served || l.top == 0 {
		l.top = min(rate, max(l.estimate(est, rate, now.Sub(before)), rateLeast))
		l.tries, l.shut = 0, now
	} else {
		if l.sum > 0 && now.Sub(l.shut) < learnShut {
			l.top = min(l.top, max(est, rateLeast))
		}
		l.tries++
	}
	l.since, l.fresh, l.served = now, 0, false
	if wait <= 0 {
		wait = min(max(time.Duration(1e9/l.top), learnSoon), learnFirst)
		if l.tries > 0 {
			wait = stepped(2*learnFirst, learnMost, l.tries-1)
		}
	}
	l.until = now.Add(wait)
	return wait
}

// atRandom says that refusals do not come of our rate: they go on, though it has
// fallen several times in a row, and each comes after many requests that were
// accepted. To fall further would gain nothing. The rate then returns to where
// the series began, and climbs on.
func (l *learned) atRandom(now, before time.Time, rate float64) bool {
	s := &l.series
	s.refused++
	if s.refused == learnSeries*2 { // the old counts for less
		s.refused, s.accepted = s.refused/2, s.accepted/2
	}
	if s.shut++; l.served {
		s.shut = 0
	}
	few := s.accepted >= learnFew*s.refused
	switch {
	case now.Sub(before) > learnForget, s.shut > 2, s.random && !few: // a door that is shut
		*s = series{}
		return false
	case s.random:
		l.fresh, l.served = 0, false
		return true
	case !l.served:
		return false
	case l.top == 0 || rate >= l.top:
		*s = series{}
		return false
	case s.n == 0:
		*s = series{from: l.top, refused: 1}
	}
	if s.n++; s.n < learnSeries || rate > s.from/2 || !few {
		return false
	}
	s.random = true
	l.top, l.since, l.fresh, l.served = s.from, now.Add(-l.back()), 0, false
	return true
}

// estimate is the rate that the CRM accepts, from the one that it accepted over
// the last minute, the one that it refused, and the time since the refusal
// before.
func (l *learned) estimate(accepted, rate float64, epoch time.Duration) float64 {
	switch {
	case l.top == 0 && l.active < 2 && l.sum < 20: // hardly begun: little is known
		return max(accepted, min(rate, float64(l.sum)/max(l.active, 0.02))/2)
	case l.top == 0:
		return accepted * learnMore
	case l.tries == 0 && l.fresh >= 8 && rate < l.top:
		// Refused on the way back: a bucket that was empty then is empty again,
		// and gave just what flowed in.
		return min(accepted, float64(l.fresh)/epoch.Seconds()) * learnMore
	case rate > l.top:
		// Refused beyond what was accepted: the truth is between.
		return max(accepted, math.Sqrt(accepted*rate))
	}
	return accepted * learnMore
}
