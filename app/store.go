package app

import (
	"context"

	"crmsync/queue"
)

type (
	// StoreHealth is how the store is.
	StoreHealth = queue.Health
	// StoreState sums it up.
	StoreState = queue.StoreState
	// StoreLoss is something that was confirmed and is missing.
	StoreLoss = queue.Loss
)

// StoreFailed is the state of a store in which nothing can be stored.
const StoreFailed = queue.StoreFailed

// Store asks how the store is; ok is false where no process looks after it.
func (a *App) Store(ctx context.Context) (h StoreHealth, ok bool, err error) { return a.q.Health(ctx) }

// AcceptLosses has it that what is missing from the store is lost: it is no alarm
// any more. The audit trail tells what it was, which is returned. Of a store that
// was opened with [Options.AcceptLoss] it is what was given up by that.
func (a *App) AcceptLosses(ctx context.Context, who Who) ([]StoreLoss, error) {
	if !a.o.AcceptLoss {
		return a.q.AcceptLosses(ctx, a.actor(who))
	}
	lost := a.q.Accepted()
	if len(lost) == 0 {
		return nil, nil
	}
	// The streams that are gone are made anew, the audit trail among them.
	if err := a.Setup(ctx); err != nil {
		return lost, err
	}
	return lost, a.q.NoteAccepted(ctx, a.actor(who))
}
