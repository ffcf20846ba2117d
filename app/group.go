package app

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"time"

	"crmsync/queue"
	"crmsync/worker"
)

// sharedKey + a group's name is where a sharedState is stored.
const sharedKey = queue.KeyShared

// sharedState is what a shared quota has been used for. Only the process that
// owns the group writes it, by compare-and-set: one that owned it before cannot
// write back what it knows.
type sharedState struct {
	Owner  string         `json:"owner"`  // host/pid
	Writer string         `json:"writer"` // one budget of one process
	At     time.Time      `json:"at"`
	Spent  []worker.Spent `json:"spent"`
}

// group is a shared quota. While lanes of its members run here there is a
// budget, and a goroutine that stores what it was used for.
type group struct {
	name string

	turn    chan struct{} // holds one while somebody joins or leaves
	members int
	budget  *worker.Budget
	writer  string
	rev     uint64
	stop    context.CancelFunc
	done    chan struct{}
}

// share joins a target's lane to the quota that it shares with others: nil where
// it shares none. leave must be called once the lane has ended. The target must
// be ours, and its group with it.
func (a *App) share(ctx context.Context, target string) (b *worker.Budget, leave func(), err error) {
	name := a.cfg.Targets[target].QuotaGroup
	if name == "" {
		return nil, func() {}, nil
	}
	a.mu.Lock()
	g := a.groups[name]
	if g == nil {
		g = &group{name: name, turn: make(chan struct{}, 1)}
		a.groups[name] = g
	}
	a.mu.Unlock()
	select {
	case g.turn <- struct{}{}:
	case <-ctx.Done():
		return nil, nil, ctx.Err()
	}
	defer func() { <-g.turn }()
	if g.members == 0 {
		if err := a.openGroup(ctx, g); err != nil {
			return nil, nil, fmt.Errorf("shared quota %s: %w", name, err)
		}
	}
	g.members++
	return g.budget, func() {
		g.turn <- struct{}{}
		defer func() { <-g.turn }()
		if g.members--; g.members == 0 {
			a.closeGroup(context.WithoutCancel(ctx), g)
		}
	}, nil
}

// openGroup makes the budget from what the owner before us has stored, and
// stores at once what we may use.
func (a *App) openGroup(ctx context.Context, g *group) error {
	var before sharedState
	_, rev, err := a.q.GetAt(ctx, sharedKey+g.name, &before)
	if err != nil {
		return err
	}
	if err := a.readOrders(ctx, sharedName(g.name)); err != nil {
		return err
	}
	limits := a.sharedLimits(g.name)
	g.budget, g.writer, g.rev = worker.NewBudget(a.sharedQuota(g.name, limits), before.Spent, time.Now()), rand.Text(), rev
	if err := a.storeGroup(ctx, g, g.budget.Memory(time.Now())); err != nil {
		return err
	}
	ctx, g.stop = context.WithCancel(context.WithoutCancel(ctx))
	g.done = make(chan struct{})
	go a.keepGroup(ctx, g, g.budget, limits, g.done)
	return nil
}

// sharedQuota is a shared quota under an operator's limits.
func (a *App) sharedQuota(name string, l worker.Limits) worker.Quota {
	q := quotaOf(a.cfg.Quotas[name]).Under(l)
	q.Durable = true
	return q
}

// keepGroup stores what the budget was used for, whenever it asks for it, and
// sets the operator's limits when they change or run out.
func (a *App) keepGroup(ctx context.Context, g *group, b *worker.Budget, limits worker.Limits, done chan<- struct{}) {
	defer close(done)
	look := time.NewTicker(reportEvery)
	defer look.Stop()
	tick := time.NewTicker(reportAtLeast)
	defer tick.Stop()
	again := time.NewTimer(0) // after a failure
	again.Stop()
	failed := false
	for {
		select {
		case <-look.C:
			if now := a.sharedLimits(g.name); now != limits {
				limits = now
				b.Set(time.Now(), a.sharedQuota(g.name, now))
			}
			continue
		case <-b.Want():
		case <-tick.C:
		case <-again.C:
		case <-ctx.Done():
			return
		}
		err := a.storeGroup(ctx, g, b.Memory(time.Now()))
		switch {
		case err == nil:
			failed = false
		case ctx.Err() != nil:
			return
		case errors.Is(err, queue.ErrChanged):
			a.o.Log.Warn().Str("quota", g.name).Msg("another process has taken over the shared quota; nothing is sent for it from here")
			return
		default:
			if !failed {
				a.o.Log.Warn().Err(err).Str("quota", g.name).Msg("use of the shared quota cannot be stored; trying on")
			}
			failed = true
			again.Reset(reportEvery / 4)
		}
	}
}

// storeGroup stores what must be known to whoever owns the group next, and lets
// the budget use what that grants. Where somebody else has stored what he knows,
// the group is his, and the budget ends.
func (a *App) storeGroup(ctx context.Context, g *group, memory []worker.Spent) error {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	state := sharedState{Owner: owner(), Writer: g.writer, At: time.Now(), Spent: memory}
	rev, err := a.q.PutAt(ctx, sharedKey+g.name, state, g.rev)
	if errors.Is(err, queue.ErrChanged) {
		var there sharedState
		_, at, readErr := a.q.GetAt(ctx, sharedKey+g.name, &there)
		if readErr != nil {
			return readErr // whose it is will show
		}
		if there.Writer == g.writer { // it was stored and the answer lost
			rev, err = a.q.PutAt(ctx, sharedKey+g.name, state, at)
		}
	}
	if errors.Is(err, queue.ErrChanged) {
		g.budget.Release(time.Now())
	}
	if err != nil {
		return err
	}
	g.rev = rev
	g.budget.Stored(memory)
	return nil
}

// closeGroup ends the budget and stores its exact use. Where that fails, the
// next owner counts as used what was granted.
func (a *App) closeGroup(ctx context.Context, g *group) {
	g.stop()
	<-g.done
	memory := g.budget.Release(time.Now())
	var err error
	for range 3 {
		if err = a.storeGroup(ctx, g, memory); err == nil || errors.Is(err, queue.ErrChanged) {
			break
		}
	}
	if err != nil {
		a.o.Log.Debug().Err(err).Str("quota", g.name).Msg("last use of the shared quota not stored")
	}
	g.budget = nil
}
