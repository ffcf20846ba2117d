package app

import (
	"context"
	"slices"
	"time"

	"crmsync/config"
	"crmsync/contact"
	"crmsync/queue"
	"crmsync/worker"
)

// ImportProgress is a job on its way, and what its lane does.
type ImportProgress struct {
	ImportReport
	Ended int64         // rows that have their outcome
	Rate  float64       // rows that ended a second, over the last minute
	Hold  string        // why its lane sends nothing; "" where it does
	Until time.Time     // of the hold, where that is known
	ETA   time.Duration // until the last row has its outcome; 0: not known
}

// pulseEvery is how often somebody who waits is told how things stand.
const pulseEvery = 500 * time.Millisecond

// Wait follows a job until every queued row has its outcome, and tells progress
// as it goes, also while NATS cannot be reached. The report says how they ended.
func (a *App) Wait(ctx context.Context, rep ImportReport, progress func(ImportProgress)) (ImportReport, error) {
	t, err := a.target(rep.Target)
	if err != nil {
		return rep, err
	}
	if progress == nil {
		progress = func(ImportProgress) {}
	}
	ended := int64(0)
	watch := func(_ queue.Job, c queue.JobCount) (bool, error) {
		rep.counted(c)
		if rep.Done {
			return false, nil
		}
		ended = c.Ended()
		p := ImportProgress{ImportReport: rep, Ended: ended}
		if !c.First.IsZero() {
			span := min(queue.JobRateSpan, time.Since(c.First))
			p.Rate = float64(c.Recent) / max(1, span.Seconds())
		}
		if err := a.laneNow(ctx, t, c.Waiting, &p); err != nil {
			return false, err
		}
		progress(p)
		return true, nil
	}
	err = outlast(ctx, func() error { return a.q.WatchJob(ctx, rep.Target, rep.Job, pulseEvery, watch) }, func() {
		progress(ImportProgress{ImportReport: rep, Ended: ended, Hold: "NATS cannot be reached"})
	})
	return rep, err
}

// outlast does something again for as long as NATS cannot answer, until ctx ends,
// and tells of it each time: who waits through a night also waits while a server
// is restarted.
func outlast(ctx context.Context, f func() error, told func()) error {
	for {
		err := f()
		if err == nil || ctx.Err() != nil || !queue.Passing(err) {
			return err
		}
		told()
		select {
		case <-time.After(time.Second):
		case <-ctx.Done():
			return err
		}
	}
}

// counted takes over how a job stands.
func (rep *ImportReport) counted(c queue.JobCount) {
	rep.Outcomes, rep.Dead, rep.Expired = map[string]int64{}, map[string]int64{}, c.Gone
	for o, n := range c.Outcomes {
		rep.Outcomes[o.String()] = n
	}
	for r, n := range c.Dead {
		rep.Dead[r.String()] = n
	}
	rep.Done = c.Waiting == 0
}

// laneNow adds what a target's lane does, and when it will have dealt with so
// many more updates.
func (a *App) laneNow(ctx context.Context, t config.Target, waiting int64, p *ImportProgress) error {
	var live laneState
	found, err := a.q.Get(ctx, liveKey+t.Name, &live)
	if err != nil {
		return err
	}
	now, lane := time.Now(), &live.Lane
	switch {
	case !found || now.Sub(lane.At) > staleAfter || lane.State == stateReleased || lane.State == stateCutShort:
		p.Hold = "no worker runs its lane: crmsync run"
		return nil
	case lane.Hold != nil:
		p.Hold, p.Until = string(lane.Hold.Reason), lane.Hold.Until
	}
	if o := lane.Orders.Limits.Rate; o > 0 || t.Quota.Rate > 0 {
		budget := budgetOf(t, lane, now)
		e := foretell(now, t.Kind, waiting, lane, func(n int) time.Time { return budget.ETA(now, n) })
		if e != nil && e.Done.After(now) {
			p.ETA = e.Done.Sub(now)
		}
	}
	return nil
}

// budgetOf is a lane's budget as another process knows it. What refusals have taught
// the lane is told by its rate now: what a next owner would begin with is where it
// was at the last refusal.
func budgetOf(t config.Target, lane *worker.Status, now time.Time) *worker.Budget {
	q, spent := quotaOf(t.Quota).Under(lane.Orders.Limits), slices.Clone(lane.Spent)
	for i := range spent {
		spent[i].Rate = 0
	}
	if lane.Slowed == worker.WhyRefused && lane.Rate > 0 && (q.Rate == 0 || lane.Rate < q.Rate) {
		q.Rate = lane.Rate
	}
	return worker.NewBudget(q, spent, now)
}

// lastSeq is the last sequence of a target's stream.
func (a *App) lastSeq(ctx context.Context, target string, class contact.Class) (uint64, error) {
	stats, err := a.q.Stats(ctx)
	if err != nil {
		return 0, err
	}
	for _, s := range stats {
		if s.Target == target {
			return s.Class[class].Last, nil
		}
	}
	return 0, nil
}
