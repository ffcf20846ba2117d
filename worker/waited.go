package worker

import (
	"fmt"
	"time"
)

// Why is what keeps a request, or a rate below what is allowed.
type Why string

// What keeps a request.
const (
	WhyNone       Why = ""
	WhyRate       Why = "rate"       // the bucket
	WhyWindow     Why = "window"     // a window is used up
	WhyAsked      Why = "asked"      // the CRM wants a pause
	WhyAdvertised Why = "advertised" // what the CRM says is left
	WhyRefused    Why = "refused"    // the rate that refusals taught
	WhyOutage     Why = "outage"     // the ramp after an outage
	WhyStoring    Why = "storing"    // the next grant has to be stored
)

// Waited is what a request waits for.
type Waited struct {
	Why    Why
	Window WindowLimit // which, for WhyWindow and WhyAdvertised
	Shared bool        // it is the shared quota's
}

// String completes "waits for".
func (w Waited) String() string {
	of := "the quota"
	if w.Shared {
		of = "the shared quota"
	}
	switch w.Why {
	case WhyWindow:
		return of + " of " + w.Window.String()
	case WhyAdvertised:
		if w.Window.Limit > 0 {
			return fmt.Sprintf("%s that the CRM tells of, %d", of, w.Window.Limit)
		}
		return of + " that the CRM tells of"
	case WhyAsked:
		return "a pause that the CRM wants"
	case WhyStoring:
		return "its use of " + of + " to be stored"
	}
	return of
}

const (
	// quotaHold is from how long on a wait for the quota is shown as a hold.
	quotaHold = 2 * time.Second
	// quotaCalm is how long a quota must not have held a lane for that hold to
	// be over: a window that slides lets a few requests through all the time.
	quotaCalm = time.Minute
)

// heldBack is when a quota began to hold a lane, and when it did last.
type heldBack struct{ since, last time.Time }

// waitsFor notes what the lane waits for.
func (l *Lane) waitsFor(now time.Time, w waiting) {
	l.waiting = w
	h := &l.heldBack
	if !h.since.IsZero() && now.Sub(h.last) > quotaCalm {
		l.o.Log.Info().Str("target", l.o.Target).Str("reason", string(HoldQuota)).Dur("after", h.last.Sub(h.since)).Msg("lane resumes")
		h.since = time.Time{}
	}
	if w.quota.Why != WhyWindow && w.quota.Why != WhyAdvertised || w.until.Sub(now) <= quotaHold {
		return
	}
	if h.since.IsZero() {
		h.since = now
		l.stats.Holds[HoldQuota]++
		l.o.Log.Info().Str("target", l.o.Target).Str("reason", string(HoldQuota)).Str("detail", w.what).Time("until", w.until).Msg("lane holds")
	}
	h.last = w.until
}

// quotaHold is the hold to show while a quota holds the lane, else nil.
func (l *Lane) quotaHold(now time.Time) *Hold {
	if l.waiting.quota.Why == WhyNone || !l.heldBack.last.After(now) {
		return nil
	}
	return &Hold{Reason: HoldQuota, Since: l.heldBack.since, Until: l.waiting.until, Detail: l.waiting.what}
}

// Want is [Budget.Want] of the lane's own budget.
func (l *Lane) Want() <-chan struct{} { return l.budget.Want() }

// Stored is [Budget.Stored] of the lane's own budget: the Spent of a [Status]
// is stored.
func (l *Lane) Stored(spent []Spent) { l.budget.Stored(spent) }

// ETA is [Budget.ETA] of the lane's budget and the one it shares.
func (l *Lane) ETA(now time.Time, requests int) time.Time { return l.budget.ETA(now, requests) }
