package app

import (
	"context"
	"errors"
	"fmt"
	"time"

	"crmsync/console"
	"crmsync/contact"
	"crmsync/queue"
)

// Operation is a redrive of letters: who wants which, and how far it is.
type Operation = queue.Operation

// States of an [Operation] that commands tell apart.
const (
	OperationDone      = queue.OperationDone
	OperationCancelled = queue.OperationCancelled
	OperationStopped   = queue.OperationStopped
)

// Redrive says which dead letters to send again, and how.
type Redrive struct {
	Filter DeadFilter // which; its order and page do not count
	IDs    []uint64   // or these
	Force  bool       // overwrite what is newer in the CRM
	Rate   float64    // letters a second at most; 0: DefaultRedriveRate
	Canary int        // so many first; stop if one of them dies again
}

func (r Redrive) plan() (queue.RedrivePlan, error) {
	f, err := r.Filter.filter()
	f.After, f.Newest = 0, false
	return queue.RedrivePlan{Filter: f, IDs: r.IDs, Force: r.Force, Rate: r.Rate, Canary: r.Canary}, err
}

// checkTargets refuses letters of targets that are no longer there: they would
// wait for ever.
func (a *App) checkTargets(ctx context.Context, r Redrive) error {
	targets := map[string]bool{}
	if r.Filter.Target != "" {
		targets[r.Filter.Target] = true
	}
	for _, id := range r.IDs {
		l, err := a.letter(ctx, id)
		if err != nil {
			return err
		}
		targets[l.Target] = true
	}
	for _, name := range sortedKeys(targets) {
		if err := a.known(ctx, name); err != nil {
			return err
		}
		if len(a.cfg.Targets) == 0 {
			continue
		}
		if _, err := a.target(name); err != nil {
			return fmt.Errorf("%w: its letters cannot be sent", err)
		}
	}
	return nil
}

// StartRedrive notes a redrive, which [App.RunRedrive] carries out. The error
// wraps [console.ErrUnknownLetter] or [console.ErrUnknownTarget] where what is
// named does not exist.
func (a *App) StartRedrive(ctx context.Context, who Who, r Redrive) (Operation, error) {
	if err := a.checkTargets(ctx, r); err != nil {
		return Operation{}, err
	}
	p, err := r.plan()
	if err != nil {
		return Operation{}, err
	}
	return a.q.StartRedrive(ctx, a.actor(who), p)
}

// RunRedrive carries an operation out, or goes on with it, until all that it
// sent has ended. Progress goes to tell about once a second. When ctx ends it
// stays as it is and can be continued by whoever calls this again.
func (a *App) RunRedrive(ctx context.Context, id string, tell func(Operation)) (Operation, error) {
	check, done := a.checker()
	defer done()
	o, err := a.q.RunRedrive(ctx, id, check, tell)
	return o, a.operationError(id, err)
}

// ContinueRedrive is [App.RunRedrive] by somebody who goes on with what may be
// another's: the audit trail says so first, and what is sent is in that name.
func (a *App) ContinueRedrive(ctx context.Context, who Who, id string, tell func(Operation)) (Operation, error) {
	o, err := a.q.ContinueRedrive(ctx, a.actor(who), id)
	if err != nil || o.State.Final() {
		return o, a.operationError(id, err)
	}
	return a.RunRedrive(ctx, id, tell)
}

// checker makes what refuses an update that its target's CRM can never take, or
// whose target the configuration does not have. Where it has none at all, only
// the worker can judge. It is safe for concurrent use.
func (a *App) checker() (check func(*contact.Update) error, done func()) {
	clients, broken := map[string]client{}, map[string]error{}
	for _, name := range a.targetNames() {
		clients[name], broken[name] = a.clientOf(name)
	}
	check = func(u *contact.Update) error {
		if len(a.cfg.Targets) == 0 {
			return nil
		}
		name := u.Contact.Target
		if _, err := a.target(name); err != nil {
			return fmt.Errorf("%w: %w", queue.ErrNotSetUp, err)
		}
		if err := broken[name]; err != nil {
			return fmt.Errorf("%w: target %s: %w", queue.ErrNotSetUp, name, err)
		}
		if bad := clients[name].Check(u); bad != nil {
			return bad
		}
		return nil
	}
	return check, func() {
		for name, c := range clients {
			if broken[name] == nil {
				c.CloseIdle()
			}
		}
	}
}

// CancelRedrive ends an operation: what was not sent to the CRM is dead again.
func (a *App) CancelRedrive(ctx context.Context, who Who, id string) (Operation, error) {
	o, err := a.q.CancelRedrive(ctx, a.actor(who), id)
	return o, a.operationError(id, err)
}

// Operations lists the redrives that are under way or have ended within 30 days,
// the newest first.
func (a *App) Operations(ctx context.Context) ([]Operation, error) {
	list, err := a.q.Operations(ctx)
	if list == nil {
		list = []Operation{}
	}
	return list, err
}

func (a *App) operationError(id string, err error) error {
	if errors.Is(err, queue.ErrNotFound) {
		return fmt.Errorf("there is no redrive %q; `crmsync dead redrive --ls` lists them", id)
	}
	return err
}

// Pace is how fast letters of a target can be sent again, as far as its lane
// says.
type Pace struct {
	PerSecond float64       `json:"per_second,omitempty"` // letters; 0: not known
	Took      time.Duration `json:"took,omitempty"`       // for all of them at that pace; 0: not known
	Owner     string        `json:"owner,omitempty"`      // host/pid of who runs the lane; "": nobody
	Held      string        `json:"held,omitempty"`       // why it sends nothing now
}

// Pace estimates how long n letters take: their rate, or what the lane's quota
// leaves where that is less.
func (a *App) Pace(ctx context.Context, target string, n int64, rate float64) (Pace, error) {
	if rate == 0 {
		rate = DefaultRedriveRate
	}
	p := Pace{PerSecond: rate}
	st, err := a.Status(ctx)
	if err != nil {
		return p, err
	}
	for _, t := range st.Targets {
		if t.Target != target {
			continue
		}
		p.Owner = t.Owner
		if t.Lane == nil {
			break
		}
		if h := t.Lane.Hold; h != nil {
			p.Held = string(h.Reason)
		}
		each := 1.0 // requests for a letter
		if c := t.Lane.Counts; c.Calls > 0 {
			each = max(1, float64(c.Requests)/float64(c.Calls))
		}
		if can := t.Lane.Rate / each; can > 0 && can < rate {
			p.PerSecond = can
		}
	}
	if p.PerSecond > 0 {
		p.Took = time.Duration(float64(n) / p.PerSecond * float64(time.Second))
	}
	return p, nil
}

// isTaken is the console's error where somebody else is at work.
func isTaken(err error) error {
	if errors.Is(err, queue.ErrInHand) || errors.Is(err, queue.ErrChanged) {
		return fmt.Errorf("%w: %w", console.ErrTaken, err)
	}
	if errors.Is(err, queue.ErrNoSpace) {
		return fmt.Errorf("%w: %w", console.ErrBusy, err)
	}
	return err
}

// DefaultRedriveRate is how many letters a second are sent at most where nothing
// else is said.
const DefaultRedriveRate = queue.DefaultRedriveRate

// OutcomeDead is the outcome of an update that is dead again.
const OutcomeDead = contact.Dead

// OutcomeText lists how many updates ended how, in a fixed order.
func OutcomeText(n map[contact.Outcome]int64) []string {
	var out []string
	for _, o := range contact.Outcomes() {
		if n[o] > 0 {
			out = append(out, fmt.Sprintf("%d %s", n[o], o))
		}
	}
	return out
}
