package queue

import (
	"context"
	"fmt"
)

// RemoveJob takes a job off the list of jobs, with its order and the count that was
// kept of it; the audit trail tells of it before. Nothing else ever does. The error
// wraps [ErrNotFound] where there is no such job, and [ErrJobOpen] where some of
// its rows wait, have not been read yet, or have a record, dead letters among
// them: whoever has the job's name later must not be taken for it.
func (q *Queue) RemoveJob(ctx context.Context, who Actor, target, id string) error {
	j, err := q.Job(ctx, target, id)
	if err != nil {
		return err
	}
	m, err := q.get(ctx, outcomeStream, getRequest{Last: Filter{Target: target, Job: id}.subject()})
	if err == nil && m != nil {
		err = fmt.Errorf("%w: records of its rows are stored", ErrJobOpen)
	}
	if err != nil {
		return fmt.Errorf("queue: remove job %s: %w", id, err)
	}
	c, err := q.CountJob(ctx, target, id)
	if err == nil && c.Waiting > 0 {
		err = fmt.Errorf("queue: remove job %s: %w: %d of its rows wait", id, ErrJobOpen, c.Waiting)
	}
	if err != nil {
		return err
	}
	o, err := q.JobOrder(ctx, target, id)
	if err != nil {
		return err
	}
	if !j.Found && j.Loaded.IsZero() && o.State != JobCancelled {
		return fmt.Errorf("queue: remove job %s: %w: its import stopped before the end of the file, and can be taken up again", id, ErrJobOpen)
	}
	if err := q.Audit(ctx, Entry{Actor: who, Action: "job-remove", Target: target, Detail: "job " + id}); err != nil {
		return err
	}
	for _, key := range []string{keyJobOrder, keyJobEnd, keyJob} {
		if err := q.Delete(ctx, key+jobKey(target, id)); err != nil {
			return err
		}
	}
	return nil
}
