package app

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"crmsync/queue"
)

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
