package app

import (
	"context"

	"crmsync/queue"
)

// Job is one import as whoever publishes its rows describes it.
type Job = queue.Job

// JobColumn is a column of a job's file and the field that it became.
type JobColumn = queue.JobColumn

// SaveJob stores what is known of a job, so that others see it and can follow
// it. Who imports saves it before the first row is queued, about each second
// while it reads, and with Loaded set at the end; there should be one such
// process at a time.
func (a *App) SaveJob(ctx context.Context, j Job) error { return a.q.SaveJob(ctx, j) }
