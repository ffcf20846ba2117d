package queue

import (
	"context"
	"fmt"
	"maps"
	"time"

	"crmsync/contact"
)

// kept is the count that was stored when the job had ended, where no record has
// been stored since.
func (c *counting) kept(ctx context.Context) (JobCount, bool, error) {
	if !c.ended || c.job.Loaded.IsZero() {
		return JobCount{}, false, nil
	}
	m, err := c.q.get(ctx, outcomeStream, getRequest{Last: c.filter().subject()})
	if err != nil {
		return JobCount{}, false, fmt.Errorf("queue: job %s: %w", c.id, err)
	}
	if m == nil || m.Seq != c.end.UpTo || c.end.Queued != c.job.Queued {
		return JobCount{}, false, nil
	}
	out := c.end
	out.Kept, out.Recent = time.Time{}, 0
	return out, true, nil
}

// finished keeps the count of a job that has ended, or finds the one that was
// kept where that knows more.
func (c *counting) finished(ctx context.Context, out JobCount) (JobCount, error) {
	if c.ended && c.end.Gone < out.Gone {
		return c.later.apply(c.end, out), nil
	}
	if c.ended && c.end.UpTo == out.UpTo && c.end.Queued == out.Queued {
		return out, nil
	}
	end := out
	end.Recent, end.Kept = 0, time.Now().UTC()
	if err := c.q.Put(ctx, keyJobEnd+jobKey(c.target, c.id), end); err != nil {
		return out, err
	}
	c.end, c.ended = end, true
	c.later = jobDelta{upTo: end.UpTo}
	return out, nil
}

// jobDelta is what became of the letters of a job after it was counted.
type jobDelta struct {
	upTo  uint64
	again map[uint64]bool
	ends  []jobEnding
}

func (d *jobDelta) add(r jobEnding) {
	if d.upTo == 0 || r.seq <= d.upTo || r.again == 0 && r.letter == 0 {
		return
	}
	if r.letter == 0 && r.outcome != contact.Cancelled {
		if d.again == nil {
			d.again = map[uint64]bool{}
		}
		d.again[r.again] = true
	}
	d.ends = append(d.ends, r)
}

// apply corrects a count by what became of letters since. Letters do not expire:
// of those the new count knows all.
func (d *jobDelta) apply(kept, now JobCount) JobCount {
	out := kept
	out.UpTo, out.Recent, out.Last, out.Dead = now.UpTo, now.Recent, now.Last, now.Dead
	out.Outcomes = maps.Clone(kept.Outcomes)
	for _, r := range d.ends {
		if r.letter > 0 && d.again[r.letter] || r.letter == 0 && r.outcome == contact.Cancelled {
			continue
		}
		out.Outcomes[r.outcome]++
	}
	delete(out.Outcomes, contact.Dead)
	if n := now.Outcomes[contact.Dead]; n > 0 {
		out.Outcomes[contact.Dead] = n
	}
	out.Gone = max(0, out.Queued-out.Ended())
	return out
}
