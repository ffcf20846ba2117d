package app

import (
	"context"

	"crmsync/queue"
)

// Records calls yield for each outcome record that is stored behind a place among
// all records, 0 for the beginning, in the order in which they were stored. An
// error of yield ends it and is returned.
func (a *App) Records(ctx context.Context, after uint64, yield func(StoryRecord) error) error {
	return a.q.Records(ctx, queue.Filter{After: after}, yield)
}
