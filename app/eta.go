package app

import (
	"context"
	"math"
	"time"

	"crmsync/config"
	"crmsync/worker"
)

// ETA foretells when a target's queue will be empty, if nothing is added to it.
type ETA struct {
	Done time.Time `json:"done,omitzero"` // about then; zero: it cannot be known, and Why says why
	// From is when the next request can be sent, where that is not now, and Why
	// what it waits for.
	From     time.Time `json:"from,omitzero"`
	Why      string    `json:"why,omitempty"`
	Updates  int64     `json:"updates"`        // that wait
	Requests int64     `json:"requests"`       // that they are reckoned to take
	Rate     float64   `json:"rate,omitempty"` // requests a second that are reckoned with, pauses between them included
}

const (
	// measuredFrom is how many updates must have ended before what they took is
	// the measure for the rest.
	measuredFrom = 20
	// fromSoon is how short a wait is not worth telling.
	fromSoon = 2 * time.Second
	// farAway is beyond what is foretold.
	farAway = 10 * 365 * 24 * time.Hour
)

// foretell reckons with what one target's lane says of itself at an instant.
// allowed is when the quota will have let so many more requests through.
func foretell(now time.Time, kind string, updates int64, st *worker.Status, allowed func(requests int) time.Time) *ETA {
	if updates <= 0 {
		return nil
	}
	e := &ETA{Updates: updates, Requests: int64(math.Ceil(float64(updates) * perUpdate(kind, st.Counts)))}
	if e.Why = unknowable(st); e.Why != "" {
		return e
	}
	if st.Until.Sub(now) > fromSoon && (st.Hold != nil || st.Calling == 0) {
		e.From, e.Why = st.Until, st.Waiting
	}
	done := allowed(int(min(e.Requests, math.MaxInt32)))
	if st.Hold != nil && st.Hold.Reason == worker.HoldOperator {
		done = done.Add(max(0, st.Hold.Until.Sub(now))) // nothing is used up meanwhile: then at the latest
	}
	if busy := st.Waiting == worker.WaitConnection; busy || st.Allowed == 0 && len(st.Windows) == 0 && st.Shared == nil {
		if st.Used <= 0 {
			e.Why = "nothing limits the rate, and none has been measured yet"
			return e
		}
		// The CRM is slower than it may be asked.
		done = later(done, now.Add(time.Duration(min(float64(e.Requests)/st.Used, farAway.Seconds())*1e9)))
	}
	for _, r := range st.Retries {
		if len(st.Retries) == st.Contacts { // only these are left
			done = later(done, r.Due)
		}
	}
	if done.Sub(now) >= farAway {
		e.Why = "at this rate it takes more than ten years"
		return e
	}
	e.Done = done
	if took := done.Sub(now).Seconds(); took > 0 {
		e.Rate = float64(e.Requests) / took
	}
	return e
}

// unknowable says why nothing can be foretold, or nothing.
func unknowable(st *worker.Status) string {
	if st.Hold == nil {
		return ""
	}
	switch st.Hold.Reason {
	case worker.HoldOperator:
		if st.Hold.Until.IsZero() {
			return "held until somebody resumes it"
		}
	case worker.HoldOutage:
		return "the CRM fails; it is probed"
	case worker.HoldCredentials:
		return "the CRM refuses our credentials"
	case worker.HoldThrottled, worker.HoldQuota:
	default:
		return "held: " + string(st.Hold.Reason)
	}
	return ""
}

// perUpdate is how many requests an update takes: as measured, or else as this
// kind of CRM needs, which for Perfex is a read and a write.
func perUpdate(kind string, c worker.Counts) float64 {
	ended := int64(0)
	for _, n := range c.Outcomes {
		ended += n
	}
	if ended >= measuredFrom {
		return max(0.01, float64(c.Requests)/float64(ended))
	}
	return float64(requestsOf(kind))
}

// requestsOf is how many requests a change mostly takes.
func requestsOf(kind string) int {
	if kind == config.KindPerfex {
		return 2
	}
	return 1
}

func later(a, b time.Time) time.Time {
	if b.After(a) {
		return b
	}
	return a
}

// foresee foretells for a lane that runs here.
func (a *App) foresee(ctx context.Context, name string, st worker.Status) *ETA {
	l := a.lane(name)
	if l == nil || st.Contacts == 0 {
		return nil
	}
	n, err := a.q.Waiting(ctx, name)
	if err != nil {
		return nil // the next report has it
	}
	return a.foretellHere(l, st.At, name, n, &st)
}

func (a *App) foretellHere(l *worker.Lane, now time.Time, name string, waiting int64, st *worker.Status) *ETA {
	return foretell(now, a.cfg.Targets[name].Kind, waiting, st, func(n int) time.Time { return l.ETA(now, n) })
}
