package worker

import (
	"math"
	"time"
)

// What a refusal teaches. The constants are those that the simulation in
// learn_test.go was tuned with.
const (
	learnCut   = 0.9              // of the rate that was accepted: where the climb begins
	learnBack  = 25 * time.Second // from there to the rate that was accepted, and as long again to beyond it
	learnSpan  = 60               // seconds over which what was accepted is measured
	learnFirst = time.Second      // wait after a refusal that names none, while nothing is accepted; doubles
	learnMost  = time.Minute      // and no longer than that
	learnSoon  = 250 * time.Millisecond
	// longWait is from when on a wait is a window that is spent, not a rate
	// that was too high.
	longWait = 90 * time.Second
)

// learned is the rate that refusals teach: at each it falls to a part of what
// was accepted just before, and climbs back along a cubic: quickly at first,
// flat near the rate that was accepted, then ever faster. Plain additive
// increase is either slow to come back or refused often.
type learned struct {
	top   float64   // rate that was accepted when we were refused last; 0: nothing is learned
	since time.Time // of the climb
	at    time.Time // of the last refusal that counted
	until time.Time // what it said to hold for
	tries int       // refusals in a row with nothing accepted between

	last     time.Time // request
	active   float64   // seconds in which something was sent or would have been
	accepted [learnSpan + 1]int
	newest   int // second of active
	sum      int
	fresh    int // accepted since the last refusal
}

// rate is the learned rate now; +Inf where nothing is learned.
func (l *learned) rate(now time.Time) float64 {
	if l.top == 0 {
		return math.Inf(1)
	}
	x := float64(now.Sub(l.since))/float64(learnBack) - 1
	return max(rateLeast, l.top*(1+(1-learnCut)*x*x*x))
}

func (l *learned) forget() { l.top = 0 }

// takeOver goes on with what a former owner has learned.
func (l *learned) takeOver(now time.Time, top float64) { l.top, l.since = top, now }

// spend counts a request. gap is how long the budget itself kept it: a pause in
// which there was nothing to send is not time in which nothing was accepted.
func (l *learned) spend(now time.Time, gap time.Duration) {
	if !l.last.IsZero() {
		l.active += min(now.Sub(l.last), max(gap, time.Second)).Seconds()
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

// refused takes in one refusal at a rate and says how long to hold.
func (l *learned) refused(now, began time.Time, wait time.Duration, rate float64) time.Duration {
	l.count(-1)
	l.fresh--
	if !l.at.IsZero() && !began.After(l.at) { // side by side with one that counted
		return max(wait, l.until.Sub(now))
	}
	l.at = now
	if wait >= longWait {
		return wait
	}
	if l.fresh > 0 || l.top == 0 {
		l.tries = 0
		seconds := min(max(l.active, 1), learnSpan)
		l.top = min(rate, max(float64(max(l.sum, 1))/seconds, rateLeast))
	} else {
		l.tries++
	}
	l.since, l.fresh = now, 0
	if wait <= 0 {
		wait = learnSoon
		if l.tries > 0 {
			wait = stepped(learnFirst, learnMost, l.tries-1)
		}
	}
	l.until = now.Add(wait)
	return wait
}
