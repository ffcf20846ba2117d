package app

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"crmsync/config"
	"crmsync/queue"
	"crmsync/worker"
)

// What a lane was down to at its last refusal is not what its job's end is reckoned
// with, but the rate that it has climbed back to.
func TestBudgetOfClimbed(t *testing.T) {
	now := time.Now()
	target := config.Target{Quota: config.Quota{Rate: 1000, Burst: 1}}
	lane := &worker.Status{Spent: []worker.Spent{{Rate: 1.0 / 60, At: now}}}
	for rate, want := range map[float64]time.Duration{500: 20 * time.Second, 0: 10 * time.Second} {
		if lane.Rate, lane.Slowed = rate, worker.WhyRefused; rate == 0 {
			lane.Slowed = ""
		}
		if took := budgetOf(target, lane, now).ETA(now, 10_000).Sub(now); took < want || took > want+time.Second {
			t.Errorf("at %v/s 10,000 requests take %s, want %s", rate, took, want)
		}
	}
}

// Who waits for a job waits while NATS is away, and tells; any other error ends it.
func TestOutlast(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		away := fmt.Errorf("queue: job night: %w", queue.ErrUnreachable)
		answers, told := []error{away, away, away, nil}, 0
		ask := func() error {
			err := answers[0]
			answers = answers[1:]
			return err
		}
		began := time.Now()
		if err := outlast(t.Context(), ask, func() { told++ }); err != nil || told != 3 || time.Since(began) != 3*time.Second {
			t.Errorf("%v, told %d times in %s", err, told, time.Since(began))
		}
		other := errors.New("another")
		answers = []error{away, other}
		if err := outlast(t.Context(), ask, func() {}); !errors.Is(err, other) {
			t.Error(err)
		}
		ctx, stop := context.WithTimeout(t.Context(), 90*time.Second)
		defer stop()
		began = time.Now()
		if err := outlast(ctx, func() error { return away }, func() {}); !errors.Is(err, queue.ErrUnreachable) || time.Since(began) != 90*time.Second {
			t.Errorf("%v after %s", err, time.Since(began))
		}
	})
}
