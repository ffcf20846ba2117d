package app

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/rs/zerolog"

	"crmsync/config"
	"crmsync/contact"
	"crmsync/crm"
	"crmsync/queue"
	"crmsync/worker"
)

// Keys of the state that processes share.
const (
	ordersKey = queue.KeyDesired // + target: worker.Orders
	liveKey   = queue.KeyLive    // + target: laneState
)

const (
	// reportEvery is how often a lane's state is looked at, and stored where
	// it has changed.
	reportEvery = time.Second
	// reportAtLeast is how often it is stored all the same.
	reportAtLeast = 10 * time.Second
)

// States of a lane that has ended, as it leaves them behind.
const (
	stateReleased = "released"
	stateCutShort = "cut short" // calls of it may still be at work in the CRM
)

// laneState is what the owner of a target tells the others.
type laneState struct {
	Owner string        `json:"owner"` // host/pid
	Lane  worker.Status `json:"lane"`
	ETA   *ETA          `json:"eta,omitempty"`
}

// Work runs the lanes of whatever targets are ours until ctx ends; then it
// finishes the calls in flight, stores how they ended, releases the targets and
// returns. When work ends, it cuts the calls short. ctx must end when work
// does.
func (a *App) Work(ctx, work context.Context) error {
	if len(a.cfg.Targets) == 0 {
		return errors.New("the configuration has no targets: add one under targets (see config/example.yaml)")
	}
	if err := a.cfg.CheckSecrets(); err != nil {
		return err
	}
	clients := map[string]client{}
	for name, t := range a.cfg.Targets {
		c, err := dialClient(t, a.o.Version, a.o.seams.crm)
		if err != nil {
			return fmt.Errorf("target %s: %w", name, err)
		}
		if a.o.seams.sender != nil {
			c = a.o.seams.sender(name, c)
		}
		defer c.CloseIdle()
		clients[name] = c
	}
	if err := a.Setup(ctx); err != nil {
		return err
	}
	if err := a.checkLease(ctx); err != nil {
		return err
	}
	if d := a.Durability(ctx); !d.OK() {
		a.o.Log.Warn().Str("durability", d.State).Msg(d.Text)
	}
	watching, stop := context.WithCancel(ctx)
	var watcher sync.WaitGroup
	defer watcher.Wait()
	defer stop()
	watcher.Go(func() { a.watchOrders(watching) })
	watcher.Go(func() { a.keepLetters(watching) })
	return a.q.Own(ctx, a.owned(), func(ctx context.Context, s *queue.Source) {
		a.runLane(ctx, work, s, clients[s.Target()])
	})
}

// checkLease refuses a target whose calls could never start: its time-out does
// not fit into the lease that the processes share, which whoever came first set.
func (a *App) checkLease(ctx context.Context) error {
	lease, err := a.q.SessionLease(ctx)
	if err != nil {
		return err
	}
	for _, name := range a.targetNames() {
		if least := config.MinLease(a.cfg.Targets[name].Timeout); least > lease {
			return fmt.Errorf("targets.%s.timeout needs a lease of at least %s, but the workers on this NATS share one of %s: "+
				"lower the time-out, or stop all workers, delete the bucket crm_sessions and start again with nats.lease", name, least, lease)
		}
	}
	return nil
}

func (a *App) runLane(ctx, work context.Context, s *queue.Source, c client) {
	name := s.Target()
	t := a.cfg.Targets[name]
	log := a.o.Log.With().Str("target", name).Logger()
	// Of the former owner's state no more is read than is needed: it may be of
	// another version.
	var before struct {
		Lane struct {
			State  string          `json:"state"`
			Spent  []worker.Spent  `json:"spent"`
			Memory json.RawMessage `json:"memory"`
		} `json:"lane"`
	}
	_, rev, err := a.q.GetAt(ctx, liveKey+name, &before)
	if err == nil {
		err = a.readOrders(ctx, name)
	}
	if err != nil {
		if ctx.Err() == nil {
			log.Error().Err(err).Msg("cannot read what the quota has been used for and what the operator wants; not starting the lane")
		}
		return
	}
	shared, leave, err := a.share(ctx, name)
	if err != nil {
		if ctx.Err() == nil {
			log.Error().Err(err).Msg("cannot read what the shared quota has been used for; not starting the lane")
		}
		return
	}
	defer leave()
	quota := quotaOf(t.Quota)
	quota.Durable = true // see report
	c.Within(s.Lease)
	source := worker.Source(s)
	if a.o.seams.source != nil {
		source = a.o.seams.source(name, s)
	}
	lane := worker.New(worker.Options{
		Target: name, Source: source, Effects: s, Sender: c, Rules: c.Rules(), Check: c.Check,
		Timeout: t.Timeout, Quota: quota, Requests: requestsOf(t.Kind), Shared: shared,
		Retry:         worker.Retry{Attempts: t.Retry.Attempts, Base: t.Retry.Base, Max: t.Retry.Max},
		Spent:         before.Lane.Spent,
		Memory:        remembered(before.Lane.Memory, log),
		Inherited:     before.Lane.State != "" && before.Lane.State != stateReleased,
		Orders:        a.ordersOf(name),
		SecretChanged: secretChanged(t),
		Cancelled:     cancelled(s),
		Paused:        s.Paused,
		OnAnswer:      func(ans crm.Answer, took time.Duration) { a.meters.answer(name, ans, took) },
		OnSettled:     func(e contact.Ended) { a.meters.settled(name, e) },
		Log:           a.o.Log,
		Seed:          a.o.seams.seed,
	})
	a.enter(name, lane)
	aside, stop := context.WithCancel(ctx)
	var wg sync.WaitGroup
	told := &bulletin{
		q: a.q, key: liveKey + name, rev: rev, lease: s.Lease, log: log,
		eta: func(ctx context.Context, st worker.Status) *ETA { return a.foresee(ctx, name, st) },
	}
	wg.Go(func() { a.report(aside, told, lane) })
	wg.Go(func() { a.keepSteering(aside, name, lane) })
	wg.Go(func() { a.answer(aside, name, lane, c) })
	wg.Go(func() { sweep(aside, s, lane) })
	err = lane.Run(ctx, work)
	stop()
	wg.Wait()
	a.leave(name)
	if err == nil || work.Err() != nil {
		// What the quota was used for, and why we held, must outlive us.
		state := stateReleased
		if work.Err() != nil {
			state = stateCutShort
		}
		told.put(context.WithoutCancel(work), worker.Status{
			Target: name, At: time.Now(), State: state, Spent: lane.Spent(), Memory: lane.Memory(),
		})
	}
	switch {
	case err == nil: // the queue says that the target was released
	case work.Err() != nil:
		s.Abandon()
		log.Warn().Msg("calls in flight were cut short; whoever owns the target next repeats what they carried")
	default:
		log.Warn().Err(err).Msg("lane ended")
	}
}

// remembered is what the lane before knew. Memory that cannot be read is lost:
// what it held for will show again.
func remembered(raw json.RawMessage, log zerolog.Logger) (m worker.Memory) {
	if len(raw) == 0 {
		return m
	}
	if err := json.Unmarshal(raw, &m); err != nil {
		log.Warn().Err(err).Msg("what the lane before held for cannot be read, it may be of another version; beginning without it")
		return worker.Memory{}
	}
	return m
}

// readOrders looks up the operator's orders where the watch has not brought
// them yet: a held target must not be called before they come.
func (a *App) readOrders(ctx context.Context, name string) error {
	var o worker.Orders
	if _, err := a.q.Get(ctx, ordersKey+name, &o); err != nil {
		return err
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if _, seen := a.orders[name]; !seen {
		a.orders[name] = o
	}
	return nil
}

func (a *App) enter(name string, l *worker.Lane) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.lanes[name] = l
}

func (a *App) leave(name string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	delete(a.lanes, name)
}

func (a *App) lane(name string) *worker.Lane {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.lanes[name]
}

// report stores the lane's state for the other processes and for whoever runs
// the lane next.
func (a *App) report(ctx context.Context, told *bulletin, l *worker.Lane) {
	tick := time.NewTicker(reportEvery)
	defer tick.Stop()
	var last []byte
	var stored time.Time
	for {
		st, ok := l.Status(ctx)
		if !ok {
			return
		}
		if now := time.Now(); now.Sub(stored) >= reportAtLeast || !bytes.Equal(digest(st), last) {
			if told.put(ctx, st) {
				l.Stored(st.Spent)
				last, stored = digest(st), now
			}
		}
		select {
		case <-tick.C:
		case <-l.Changed():
		case <-l.Want():
		case <-ctx.Done():
			return
		}
	}
}

// digest is what of a status counts as a change: all but the time of asking.
func digest(st worker.Status) []byte {
	st.At, st.Until = time.Time{}, time.Time{}
	st.Spent = slices.Clone(st.Spent)
	for i := range st.Spent {
		st.Spent[i].At = time.Time{}
	}
	b, _ := json.Marshal(st) // plain data
	return b
}

// bulletin is where a lane's state is stored. Only who owns the target writes
// there: one that was stopped for longer than its lease does not write over what
// its successor knows.
type bulletin struct {
	q     *queue.Queue
	key   string
	rev   uint64           // of the state that ours follows
	lease func() time.Time // until when the target is ours
	eta   func(context.Context, worker.Status) *ETA
	log   zerolog.Logger
}

// put stores the state and says whether it is stored.
func (b *bulletin) put(ctx context.Context, st worker.Status) bool {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	for range 2 {
		if !time.Now().Before(b.lease()) {
			return false
		}
		rev, err := b.q.PutAt(ctx, b.key, laneState{Owner: owner(), Lane: st, ETA: b.eta(ctx, st)}, b.rev)
		if err == nil {
			b.rev = rev
			return true
		}
		if errors.Is(err, queue.ErrChanged) { // by the owner before us, or by us unknown to us
			if _, b.rev, err = b.q.GetAt(ctx, b.key, &struct{}{}); err == nil {
				continue
			}
		}
		if ctx.Err() == nil {
			b.log.Debug().Err(err).Msg("lane state not stored")
		}
		return false
	}
	return false
}

// cancelled says of the updates of a source why they are not to be sent.
func cancelled(s *queue.Source) func(*contact.Update) string {
	return func(u *contact.Update) string {
		if s.Cancelled(u) {
			return "its redrive was cancelled, or its contact forgotten, before it was sent"
		}
		if by, ok := s.JobCancelled(u); ok {
			return "its job was cancelled by " + orSomebody(by) + " before it was sent"
		}
		return ""
	}
}

// sweep has the lane look again at what waits whenever something was cancelled,
// paused or resumed, until ctx ends.
func sweep(ctx context.Context, s *queue.Source, l *worker.Lane) {
	for {
		select {
		case <-s.Steered():
			l.Sweep()
		case <-ctx.Done():
			return
		}
	}
}

func owner() string {
	host, err := os.Hostname()
	if err != nil {
		host = "unknown"
	}
	return fmt.Sprintf("%s/%d", host, os.Getpid())
}

// watchOrders passes the operator's orders to the lanes, until ctx ends.
func (a *App) watchOrders(ctx context.Context) {
	for ctx.Err() == nil {
		err := a.q.Watch(ctx, ordersKey, func(key string, raw []byte) {
			name := strings.TrimPrefix(key, ordersKey)
			var o worker.Orders
			if len(raw) > 0 {
				if err := json.Unmarshal(raw, &o); err != nil {
					a.o.Log.Error().Err(err).Str("key", key).Msg("orders cannot be read, the former stay")
					return
				}
			}
			a.mu.Lock()
			a.orders[name] = o
			l := a.lanes[name]
			a.mu.Unlock()
			if l != nil {
				a.steer(ctx, name, l)
			}
		})
		if err == nil || ctx.Err() != nil {
			return
		}
		a.o.Log.Warn().Err(err).Msg("lost sight of the operator's orders, looking again")
		select {
		case <-time.After(time.Second):
		case <-ctx.Done():
		}
	}
}

// steer gives a lane the newest orders. Two callers may overtake each other on
// the way; whoever finds that the orders have changed meanwhile gives them
// again, so the newest is the last to arrive.
func (a *App) steer(ctx context.Context, name string, l *worker.Lane) {
	for {
		o := a.ordersOf(name)
		if !l.Steer(ctx, o) || a.ordersOf(name) == o {
			return
		}
	}
}
