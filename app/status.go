package app

import (
	"context"
	"errors"
	"fmt"
	"time"

	"crmsync/console"
	"crmsync/contact"
	"crmsync/queue"
	"crmsync/worker"
)

// Status is the whole installation at one instant, as commands and the console
// show it.
type Status struct {
	Version  string         `json:"version"`
	At       time.Time      `json:"at"`
	NATS     NATSStatus     `json:"nats"`
	Sessions []string       `json:"sessions"` // worker processes: host/pid
	Targets  []TargetStatus `json:"targets"`
	Kept     *Kept          `json:"dead_letters,omitempty"` // nil: no limit is set for dead letters
	Store    *StoreHealth   `json:"store,omitempty"`        // nil: nobody looks after it
}

// NATSStatus is where the queue is.
type NATSStatus struct {
	URL      string `json:"url"`
	Embedded bool   `json:"embedded"` // this process serves it
	// Durability says whether what it confirms survives a power cut.
	Durability Durability `json:"durability"`
}

// TargetStatus is one target: its lane, its queue and its dead letters.
type TargetStatus struct {
	Target string                  `json:"target"`
	Kind   string                  `json:"kind,omitempty"` // where this configuration knows it
	Owner  string                  `json:"owner,omitempty"`
	Lane   *worker.Status          `json:"lane,omitempty"` // nil: nobody runs it
	Queue  map[string]ClassBacklog `json:"queue"`          // by class
	Dead   map[string]int64        `json:"dead,omitempty"` // dead letters by reason
	Orders worker.Orders           `json:"orders,omitzero"`
	ETA    *ETA                    `json:"eta,omitempty"` // nil: nothing waits
	// Group is the quota that it shares, and SharedLimits what an operator has
	// set in place of that.
	Group        string         `json:"quota_group,omitempty"`
	SharedLimits *worker.Limits `json:"shared_limits,omitempty"`
}

// ClassBacklog is what waits in one class's stream. It counts whole streams:
// an update that has ended behind one that has not is in it still.
type ClassBacklog struct {
	Waiting int64     `json:"waiting"`
	Bytes   int64     `json:"bytes"`
	Oldest  time.Time `json:"oldest,omitzero"`
}

// staleAfter is when a lane's stored state no longer counts as live.
const staleAfter = 3 * reportAtLeast

// Status asks the queue and the lanes' owners how things are.
func (a *App) Status(ctx context.Context) (Status, error) {
	now := time.Now()
	out := Status{
		Version: a.o.Version, At: now,
		NATS: NATSStatus{URL: a.q.URL(), Embedded: a.o.Host && a.cfg.NATS.Embedded(), Durability: a.Durability(ctx)},
	}
	if h, ok, err := a.q.Health(ctx); err == nil && ok {
		out.Store = &h
	}
	sessions, err := a.q.Sessions(ctx)
	if err != nil {
		return out, err
	}
	owners := map[string]string{}
	out.Sessions = []string{}
	for _, s := range sessions {
		owners[s.ID] = fmt.Sprintf("%s/%d", s.Host, s.PID)
		out.Sessions = append(out.Sessions, owners[s.ID])
	}
	stats, err := a.q.Stats(ctx)
	if err != nil {
		return out, err
	}
	dead, err := a.q.Dead(ctx)
	if err != nil {
		return out, err
	}
	if out.Kept, err = a.kept(ctx, now); err != nil {
		return out, err
	}
	for _, s := range stats {
		t := TargetStatus{Target: s.Target, Kind: a.cfg.Targets[s.Target].Kind, Queue: map[string]ClassBacklog{}}
		for c := range contact.Class(contact.Classes) {
			q := s.Class[c]
			t.Queue[c.String()] = ClassBacklog{Waiting: int64(q.Messages), Bytes: int64(q.Bytes), Oldest: q.Oldest}
		}
		for reason, n := range dead[s.Target] {
			if t.Dead == nil {
				t.Dead = map[string]int64{}
			}
			t.Dead[reason.String()] = n
		}
		if err := a.addLane(ctx, &t, owners[s.Session], now); err != nil {
			return out, err
		}
		out.Targets = append(out.Targets, t)
	}
	return out, nil
}

// addLane tells what the lane of the target's owner says of itself. The owner
// is host/pid, or "" where no live process owns the target.
func (a *App) addLane(ctx context.Context, t *TargetStatus, owner string, now time.Time) error {
	if _, err := a.q.Get(ctx, ordersKey+t.Target, &t.Orders); err != nil {
		return err
	}
	t.Orders = inForce(t.Orders, now)
	if err := a.addShared(ctx, t, now); err != nil {
		return err
	}
	waiting := int64(0)
	for _, q := range t.Queue {
		waiting += q.Waiting
	}
	defer func() {
		if t.Lane == nil {
			if waiting > 0 {
				t.ETA = &ETA{Updates: waiting, Why: "nobody runs it"}
			}
			return
		}
		t.Lane.Spent = nil // for the next owner, not for people: Windows says it shorter
		if o := t.Orders; o.Hold && t.Lane.Hold == nil {
			// The lane obeys at once; what it last reported may be a second old.
			t.Lane.State, t.Lane.Waiting, t.Lane.Until = "held", "the operator", o.Until
			t.Lane.Hold = &worker.Hold{Reason: worker.HoldOperator, Since: o.Since, Until: o.Until, Detail: o.Note}
			if t.ETA != nil && o.Until.IsZero() {
				t.ETA.Done, t.ETA.Why = time.Time{}, unknowable(t.Lane)
			}
		}
	}()
	if owner == "" {
		return nil
	}
	t.Owner = owner
	if l := a.lane(t.Target); l != nil {
		asking, cancel := context.WithTimeout(ctx, time.Second)
		defer cancel()
		if st, ok := l.Status(asking); ok {
			t.Lane, t.ETA = &st, a.foretellHere(l, now, t.Target, waiting, &st)
			return nil
		}
	}
	var live laneState
	found, err := a.q.Get(ctx, liveKey+t.Target, &live)
	if err != nil {
		return err
	}
	if found && live.Owner == owner && now.Sub(live.Lane.At) < staleAfter {
		t.Lane = &live.Lane
		if waiting > 0 {
			t.ETA = live.ETA
		}
	}
	return nil
}

// addShared tells what an operator has set for the quota that a target shares.
func (a *App) addShared(ctx context.Context, t *TargetStatus, now time.Time) error {
	t.Group = a.cfg.Targets[t.Target].QuotaGroup
	if t.Group == "" {
		return nil
	}
	var o worker.Orders
	if _, err := a.q.Get(ctx, ordersKey+sharedName(t.Group), &o); err != nil {
		return err
	}
	if l := inForce(o, now).Limits; l != (worker.Limits{}) {
		t.SharedLimits = &l
	}
	return nil
}

// Ready says whether work can be done: NATS is there and the targets' streams
// are. A CRM that is down or throttles us does not make the process unready.
func (a *App) Ready(ctx context.Context) error { return a.q.Ready(ctx) }

// Steer changes the operator's orders for a target: change gets those in force,
// and again where somebody else has given orders meanwhile.
func (a *App) Steer(ctx context.Context, target string, change func(*worker.Orders)) (worker.Orders, error) {
	if err := a.known(ctx, target); err != nil {
		return worker.Orders{}, err
	}
	return a.order(ctx, target, change)
}

func (a *App) order(ctx context.Context, name string, change func(*worker.Orders)) (worker.Orders, error) {
	for {
		var o worker.Orders
		_, rev, err := a.q.GetAt(ctx, ordersKey+name, &o)
		if err != nil {
			return o, err
		}
		o = inForce(o, time.Now())
		change(&o)
		if _, err = a.q.PutAt(ctx, ordersKey+name, o, rev); !errors.Is(err, queue.ErrChanged) {
			return o, err
		}
	}
}

// Hold makes a target's lane send nothing until the instant, or until Resume
// where it is zero.
func (a *App) Hold(ctx context.Context, who Who, target, note string, until time.Time) error {
	by, err := a.noteOrder(ctx, who, "hold", target, holdText(note, until))
	if err != nil {
		return err
	}
	_, err = a.Steer(ctx, target, func(o *worker.Orders) {
		o.Hold, o.Until, o.By, o.Note, o.Since = true, until, by, note, time.Now()
	})
	return err
}

// Resume ends an operator's hold, and lets a lane that holds by itself probe at
// once.
func (a *App) Resume(ctx context.Context, who Who, target string) error {
	by, err := a.noteOrder(ctx, who, "resume", target, "")
	if err != nil {
		return err
	}
	_, err = a.Steer(ctx, target, func(o *worker.Orders) {
		o.Hold, o.Until, o.By, o.Note, o.Since = false, time.Time{}, by, "", time.Now()
	})
	return err
}

// AfterStorm is what an operator says of a lane that holds for a storm.
type AfterStorm string

const (
	// AcceptRefusals: the contacts really are wrong. Their letters stay, and
	// refusals of this cause are no storm for an hour.
	AcceptRefusals AfterStorm = "accept"
	// RecallLetters: it was an incident, and is over. The letters go back into
	// the queue.
	RecallLetters AfterStorm = "recall"
)

// ErrNoStorm says that a lane does not hold for a storm.
var ErrNoStorm = errors.New("it does not hold for a storm")

// ResumeStorm ends a storm's hold, and an operator's with it. The error wraps
// [ErrNoStorm] where there is none. It returns the hold that it ended.
func (a *App) ResumeStorm(ctx context.Context, who Who, target string, how AfterStorm) (*worker.Hold, error) {
	if err := a.known(ctx, target); err != nil {
		return nil, err
	}
	h, err := a.storm(ctx, target)
	if err != nil {
		return nil, err
	}
	by, err := a.noteOrder(ctx, who, "resume", target, string(how)+" "+h.Cause.Fingerprint())
	if err != nil {
		return nil, err
	}
	_, err = a.Steer(ctx, target, func(o *worker.Orders) {
		now := time.Now()
		o.Hold, o.Until, o.By, o.Note, o.Since = false, time.Time{}, by, "", now
		o.Storm, o.Recall = h.Since, how == RecallLetters
		if !o.Recall {
			o.Accepted, o.AcceptedAt = h.Cause.Fingerprint(), now
		}
	})
	return h, err
}

// storm is the storm that a target's lane holds for, also behind another hold.
func (a *App) storm(ctx context.Context, target string) (*worker.Hold, error) {
	st, err := a.Status(ctx)
	if err != nil {
		return nil, err
	}
	held := "nothing"
	for _, t := range st.Targets {
		if t.Target != target || t.Lane == nil {
			continue
		}
		for _, h := range []*worker.Hold{t.Lane.Memory.Hold, t.Lane.Memory.Storm} {
			if h != nil && h.Reason == worker.HoldStorm && h.Cause != nil {
				return h, nil
			}
		}
		if t.Lane.Hold != nil {
			held = string(t.Lane.Hold.Reason)
		}
	}
	return nil, fmt.Errorf("%s: %w; it holds for %s (see crmsync status)", target, ErrNoStorm, held)
}

// known refuses a target that neither the configuration nor the queue has.
func (a *App) known(ctx context.Context, target string) error {
	if err := contact.CheckTarget(target); err != nil {
		return err
	}
	if _, ok := a.cfg.Targets[target]; ok {
		return nil
	}
	stats, err := a.q.Stats(ctx)
	if err != nil {
		return err
	}
	var names []string
	for _, s := range stats {
		if s.Target == target {
			return nil
		}
		names = append(names, s.Target)
	}
	return fmt.Errorf("%q: %w; the queue has %s", target, console.ErrUnknownTarget, list(names))
}
