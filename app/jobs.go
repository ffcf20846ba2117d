package app

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"crmsync/contact"
	"crmsync/queue"
)

// Job is one import as whoever publishes its rows describes it.
type Job = queue.Job

// JobColumn is a column of a job's file and the field that it became.
type JobColumn = queue.JobColumn

// JobCount is how a job stands; see [queue.JobCount].
type JobCount = queue.JobCount

// States of jobs, as [JobStatus] tells them.
const (
	JobImporting   = "importing"   // its file is being read
	JobInterrupted = "interrupted" // its import stopped before the end of the file
	JobRunning     = "running"
	JobPaused      = "paused"
	JobCancelling  = "cancelling" // cancelled, and rows wait to be ended so
	JobCancelled   = "cancelled"
	JobDone        = "done" // every row has its outcome
)

// ErrUnknownJob says that there is no job of that name.
var ErrUnknownJob = errors.New("there is no such job")

// importerSilence is how long an importer may save nothing before it counts as
// gone.
const importerSilence = 15 * time.Second

// JobStatus is a job at one instant.
type JobStatus struct {
	Job    Job            `json:"job"`
	State  string         `json:"state"`
	Order  queue.JobOrder `json:"order"` // what an operator wants of it
	Counts JobCount       `json:"counts"`
	Rate   float64        `json:"rate"` // rows that ended a second, over the last minute
	// Hold is why its lane sends nothing, "" where it does; Until is that
	// hold's end, where it is known.
	Hold  string    `json:"hold,omitempty"`
	Until time.Time `json:"until,omitzero"`
	// ETA is when the last row will have its outcome at the target's quota;
	// zero where that cannot be said.
	ETA time.Time `json:"eta,omitzero"`
	// Causes are those of its dead letters, the most frequent first; only
	// where one job is asked for.
	Causes []queue.Group `json:"causes,omitempty"`
}

// SaveJob stores what is known of a job, so that others see it and can follow
// it. Who imports saves it before the first row is queued, about each second
// while it reads, and with Loaded set at the end; there should be one such
// process at a time.
func (a *App) SaveJob(ctx context.Context, j Job) error { return a.q.SaveJob(ctx, j) }

// Jobs lists the newest jobs, limit of them or, where it is 0, all; target "" is
// every target's. Each is counted, which takes a moment for one that is large
// and under way.
func (a *App) Jobs(ctx context.Context, target string, limit int) ([]JobStatus, error) {
	if target != "" {
		if err := a.known(ctx, target); err != nil {
			return nil, err
		}
	}
	jobs, err := a.q.Jobs(ctx, target)
	if err != nil {
		return nil, err
	}
	if limit > 0 && len(jobs) > limit {
		jobs = jobs[:limit]
	}
	out := make([]JobStatus, 0, len(jobs))
	for _, j := range jobs {
		c, err := a.q.CountJob(ctx, j.Target, j.ID)
		if err != nil {
			return nil, err
		}
		st, err := a.jobStatus(ctx, j, c)
		if err != nil {
			return nil, err
		}
		out = append(out, st)
	}
	return out, nil
}

// findJob finds a job by its name; target "" finds it in any target, if it is in
// one only. One that nobody has announced is found where the target is named and
// something is stored of it.
func (a *App) findJob(ctx context.Context, target, id string) (Job, error) {
	if target != "" {
		if err := a.known(ctx, target); err != nil {
			return Job{}, err
		}
		j, err := a.q.Job(ctx, target, id)
		if !errors.Is(err, queue.ErrNotFound) {
			return j, err
		}
		c, err := a.q.CountJob(ctx, target, id)
		if err != nil {
			return Job{}, err
		}
		if c.Queued == 0 {
			return Job{}, fmt.Errorf("job %q of %s: %w; `crmsync jobs ls` lists them", id, target, ErrUnknownJob)
		}
		return Job{ID: id, Target: target, Class: contact.Bulk, Found: true}, nil
	}
	jobs, err := a.q.Jobs(ctx, "")
	if err != nil {
		return Job{}, err
	}
	jobs = slices.DeleteFunc(jobs, func(j Job) bool { return j.ID != id })
	switch len(jobs) {
	case 0:
		return Job{}, fmt.Errorf("job %q: %w; `crmsync jobs ls` lists them", id, ErrUnknownJob)
	case 1:
		return jobs[0], nil
	}
	var names []string
	for _, j := range jobs {
		names = append(names, j.Target)
	}
	slices.Sort(names)
	return Job{}, fmt.Errorf("job %q is of several targets, %s: say which with --target", id, list(names))
}

// JobStatus tells how one job stands; target "" looks in all.
func (a *App) JobStatus(ctx context.Context, target, id string) (JobStatus, error) {
	j, err := a.findJob(ctx, target, id)
	if err != nil {
		return JobStatus{}, err
	}
	c, err := a.q.CountJob(ctx, j.Target, j.ID)
	if err != nil {
		return JobStatus{}, err
	}
	return a.jobInFull(ctx, j, c)
}

// WatchJob calls yield with how a job stands at once and after each time every,
// until yield returns false or an error, or ctx ends. While NATS cannot be reached it
// waits.
func (a *App) WatchJob(ctx context.Context, target, id string, every time.Duration, yield func(JobStatus) (bool, error)) error {
	j, err := a.findJob(ctx, target, id)
	if err != nil {
		return err
	}
	watch := func(now Job, c JobCount) (bool, error) {
		st, err := a.jobInFull(ctx, now, c)
		if err != nil {
			return false, err
		}
		return yield(st)
	}
	return outlast(ctx, func() error { return a.q.WatchJob(ctx, j.Target, j.ID, every, watch) }, func() {})
}

// Ended says that nothing more will happen to a job by itself.
func (s *JobStatus) Ended() bool { return s.State == JobDone || s.State == JobCancelled }

func (a *App) jobInFull(ctx context.Context, j Job, c JobCount) (JobStatus, error) {
	st, err := a.jobStatus(ctx, j, c)
	if err != nil || c.Outcomes[contact.Dead] == 0 {
		return st, err
	}
	st.Causes, err = a.q.Groups(ctx, queue.Filter{Target: j.Target, Job: j.ID})
	return st, err
}

func (a *App) jobStatus(ctx context.Context, j Job, c JobCount) (JobStatus, error) {
	o, err := a.q.JobOrder(ctx, j.Target, j.ID)
	if err != nil {
		return JobStatus{}, err
	}
	now := time.Now()
	st := JobStatus{Job: j, Order: o, Counts: c, State: jobState(j, o, c, now)}
	if c.Recent > 0 && !c.First.IsZero() {
		span := min(queue.JobRateSpan, now.Sub(c.First))
		st.Rate = float64(c.Recent) / max(1, span.Seconds())
	}
	if c.Waiting == 0 || st.State == JobPaused || st.State == JobCancelling {
		return st, nil
	}
	return st, a.foreseeJob(ctx, &st, now)
}

func jobState(j Job, o queue.JobOrder, c JobCount, now time.Time) string {
	open := !j.Found && j.Loaded.IsZero()
	switch {
	case o.State == queue.JobCancelled && c.Waiting > 0:
		return JobCancelling
	case o.State == queue.JobCancelled:
		return JobCancelled
	case c.Waiting == 0 && !open:
		return JobDone
	case o.State == queue.JobPaused:
		return JobPaused
	case open && now.Sub(j.Saved) < importerSilence:
		return JobImporting
	case open:
		return JobInterrupted
	}
	return JobRunning
}

// foreseeJob adds what the job's lane does and when the job will have ended. Before
// its rows go those that stand before them in their stream.
func (a *App) foreseeJob(ctx context.Context, st *JobStatus, now time.Time) error {
	t, ok := a.cfg.Targets[st.Job.Target]
	if !ok {
		return nil // what its quota is, the configuration of its worker knows
	}
	stats, err := a.q.Stats(ctx)
	if err != nil {
		return err
	}
	ahead := st.Counts.Waiting
	for _, s := range stats {
		if c := s.Class[st.Job.Class]; s.Target == t.Name {
			n := c.Messages
			if last := st.Job.Last; last >= c.First && last > 0 {
				n = min(n, last-c.First+1)
			}
			ahead = max(ahead, int64(n))
		}
	}
	var p ImportProgress
	if err := a.laneNow(ctx, t, ahead, &p); err != nil {
		return err
	}
	st.Hold, st.Until = p.Hold, p.Until
	if p.ETA > 0 {
		st.ETA = now.Add(p.ETA)
	}
	return nil
}

// PauseJob has none of a job's waiting rows sent until it is resumed. What is
// paused keeps its place; live updates are not affected.
func (a *App) PauseJob(ctx context.Context, target, id, by string) (JobStatus, error) {
	return a.steerJob(ctx, target, id, by, queue.JobPaused)
}

// ResumeJob undoes PauseJob.
func (a *App) ResumeJob(ctx context.Context, target, id, by string) (JobStatus, error) {
	return a.steerJob(ctx, target, id, by, queue.JobRunning)
}

// CancelJob ends all of a job's rows that have not been sent, for good; the
// error wraps [queue.ErrJobCancelled] where it is resumed later.
func (a *App) CancelJob(ctx context.Context, target, id, by string) (JobStatus, error) {
	return a.steerJob(ctx, target, id, by, queue.JobCancelled)
}

// PruneJobs takes the jobs off the list of whose rows nothing is stored any more and
// nothing is to come; target "" is every target's. It returns them.
func (a *App) PruneJobs(ctx context.Context, target, by string) ([]Job, error) {
	if target != "" {
		if err := a.known(ctx, target); err != nil {
			return nil, err
		}
	}
	jobs, err := a.q.Jobs(ctx, target)
	if err != nil {
		return nil, err
	}
	out := []Job{}
	for _, j := range jobs {
		err := a.q.RemoveJob(ctx, queue.Actor{By: by, Via: "cli"}, j.Target, j.ID)
		switch {
		case err == nil:
			out = append(out, j)
		case !errors.Is(err, queue.ErrJobOpen) && !errors.Is(err, queue.ErrNotFound):
			return out, err
		}
	}
	return out, nil
}

func (a *App) steerJob(ctx context.Context, target, id, by string, to queue.JobState) (JobStatus, error) {
	j, err := a.findJob(ctx, target, id)
	if err != nil {
		return JobStatus{}, err
	}
	if to == queue.JobPaused && j.Class == contact.Live {
		return JobStatus{}, fmt.Errorf("job %q was imported as live, which is never paused: cancel it, or hold %s", id, j.Target)
	}
	if _, err := a.q.SteerJob(ctx, queue.Actor{By: by, Via: "cli"}, j.Target, j.ID, to); err != nil {
		return JobStatus{}, err
	}
	return a.JobStatus(ctx, j.Target, j.ID)
}
