package app

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"crmsync/contact"
	"crmsync/queue"
)

// CanaryRow is a row that was sent before the others, and how it ended.
type CanaryRow struct {
	Line    int64    `json:"line"`
	Row     int64    `json:"row"`
	Contact string   `json:"contact"`
	Outcome string   `json:"outcome"`          // "": none yet
	Reason  string   `json:"reason,omitempty"` // where it is dead
	Status  int      `json:"status,omitempty"` // HTTP
	Detail  string   `json:"detail,omitempty"`
	Fields  []string `json:"fields,omitempty"` // the names of what was set
}

// Canary is how the rows that went first have ended.
type Canary struct {
	Job  string      `json:"job"`
	Rows []CanaryRow `json:"rows"`
	More bool        `json:"more"` // the file has more rows
}

// Well says that the CRM holds what every row wanted, or something newer.
func (c Canary) Well() bool {
	for _, r := range c.Rows {
		switch r.Outcome {
		case contact.Applied.String(), contact.Unchanged.String(), contact.Superseded.String():
		default:
			return false
		}
	}
	return true
}

// canary stores the first rows, waits until each has its outcome, and asks
// whether to go on. It does so again when a job is taken up again, without
// sending anything twice.
func (in *intake) canary(ctx context.Context, more bool) (bool, error) {
	im := in.o.im
	if err := in.batch.Flush(ctx); err != nil {
		return false, err
	}
	in.count()
	if im.Progress != nil {
		im.Progress(*in.rep)
	}
	rows, err := in.endings(ctx)
	if err != nil {
		return false, fmt.Errorf("waiting for the first %d rows of job %s: %w", len(in.first), in.o.job, err)
	}
	im.Canary = 0 // done
	return im.Confirm(Canary{Job: in.o.job, Rows: rows, More: more})
}

// errAllEnded ends the following of a job.
var errAllEnded = errors.New("every row has its outcome")

// endings waits until the first rows have ended.
func (in *intake) endings(ctx context.Context) ([]CanaryRow, error) {
	rows, at := in.first, map[int64]int{}
	for i, r := range rows {
		at[r.Row] = i
	}
	var mu sync.Mutex
	report := *in.rep
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	var watching sync.WaitGroup
	defer watching.Wait()
	defer stop()
	if in.o.im.Waiting != nil {
		watching.Go(func() {
			in.pulse(ctx, func() ImportProgress {
				mu.Lock()
				defer mu.Unlock()
				return ImportProgress{ImportReport: report, Ended: ended(rows)}
			})
		})
	}
	err := in.a.q.FollowJob(ctx, in.rep.Target, in.o.job, func(r queue.Record) error {
		mu.Lock()
		defer mu.Unlock()
		for _, u := range r.Updates {
			if i, ok := at[u.Row]; ok && u.Class == in.rep.class {
				rows[i].Outcome, rows[i].Reason, rows[i].Status = r.Outcome.String(), "", r.Status
				rows[i].Detail, rows[i].Fields = r.Detail, r.Fields
				if r.Reason != contact.NoReason {
					rows[i].Reason = r.Reason.String()
				}
			}
		}
		if ended(rows) == int64(len(rows)) {
			return errAllEnded
		}
		return nil
	})
	if errors.Is(err, errAllEnded) {
		err = nil
	}
	return rows, err
}

// pulse tells how the canary's rows stand until ctx ends.
func (in *intake) pulse(ctx context.Context, now func() ImportProgress) {
	tick := time.NewTicker(pulseEvery)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
		p := now()
		// Where the lane's state cannot be read, that the rows wait is all that
		// is told.
		_ = in.a.laneNow(ctx, in.o.target, int64(len(in.first))-p.Ended, &p)
		in.o.im.Waiting(p)
	}
}

func ended(rows []CanaryRow) (n int64) {
	for _, r := range rows {
		if r.Outcome != "" {
			n++
		}
	}
	return n
}
