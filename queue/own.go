package queue

import (
	"context"
	"encoding/json"
	"errors"
	"maps"
	"sync"
	"time"

	"crmsync/contact"
)

const (
	balanceEach = 150 * time.Millisecond
	claimers    = 16                     // claims at the same time
	afterFailed = 500 * time.Millisecond // before a target whose lane ended by itself is taken again
)

// Target is a target that a process takes part in owning.
type Target struct {
	Name string
	// Group names targets that only one process at a time may run the lanes
	// of, since they spend one budget; "" is none. It is written as a
	// target's name is.
	Group string
}

// OwnOptions say what a process takes part in owning.
type OwnOptions struct {
	Targets []Target // of one name the first counts
}

// Own takes part in the distribution of targets among all processes that do, and
// calls lane for each that becomes ours, in a goroutine of its own. Lanes of one
// group run in one process at a time: the one that owns the group. The lane's
// context ends when the target is to be released, because another process shall
// have it or because ctx ended, or when it was lost; [context.Cause] then wraps
// ErrLost. In the first case the lane should finish the calls that are under way
// and settle them before it returns: the target is ours until then. After it
// returned the streams are purged and the target is released.
//
// A session that was lost is replaced by a new one and the targets are taken
// again, so Own returns only when ctx ended and all lanes have returned, with
// nil, or at once with an error where it cannot begin. It may run once at a time.
func (q *Queue) Own(ctx context.Context, opt OwnOptions, lane func(ctx context.Context, s *Source)) error {
	targets, groups, err := opt.check()
	if err != nil {
		return err
	}
	for _, t := range targets {
		for c := range contact.Class(contact.Classes) {
			if _, err := q.info(ctx, streamName(t, c)); err != nil {
				return err
			}
		}
	}
	for _, err := range []error{q.sessions.setUp(ctx), q.owners.setUp(ctx), q.letters.setUp(ctx)} {
		if err != nil {
			return err
		}
	}
	q.mu.Lock()
	if q.owning || q.closed {
		q.mu.Unlock()
		return errors.New("queue: this queue owns targets already, or is closed")
	}
	q.owning = true
	q.mu.Unlock()
	defer func() {
		q.mu.Lock()
		q.owning = false
		q.mu.Unlock()
	}()
	q.know(targets...)
	q.keep()
	q.engines.Do(func() {
		for range committers {
			q.run(q.committer)
		}
		for range liveLoaders {
			q.run(q.liveLoader)
		}
		for range loaders {
			q.run(q.loader)
		}
	})
	o := &ownership{
		q: q, targets: targets, groups: groups, groupOf: groupOf(groups), lane: lane,
		kick: make(chan struct{}, 1), slots: make(chan struct{}, claimers),
		live: map[string]*peer{}, owners: map[string]claim{}, held: map[string]*holding{}, heldGroups: map[string]*groupHolding{},
		notBefore: map[string]time.Time{},
	}
	return o.run(ctx)
}

// ownership is one call of Own.
type ownership struct {
	q       *Queue
	targets []string            // sorted
	groups  map[string][]string // members of each group, sorted
	groupOf map[string]string   // by target
	lane    func(context.Context, *Source)
	kick    chan struct{} // there is something to decide
	slots   chan struct{} // held by claims that are under way
	wg      sync.WaitGroup

	mu                         sync.Mutex
	live                       map[string]*peer    // by session
	owners                     map[string]claim    // by key
	held                       map[string]*holding // by target, from the claim to the release
	heldGroups                 map[string]*groupHolding
	notBefore                  map[string]time.Time
	sessionsKnown, ownersKnown bool

	told string // run's own
}

type peer struct {
	Session
	serves  map[string]bool
	shares  map[string]int // members that it knows of each group
	seen    time.Time      // last renewal
	checked time.Time
}

// Keys of the bucket of owners.
const (
	ownKey   = "own."   // + target
	groupKey = "group." // + group
)

// claim is the value of such a key.
type claim struct {
	Session string `json:"session"` // "" once released
	rev     uint64
}

type holding struct {
	sess    *session
	release context.CancelFunc // asks the lane to end; nil before it runs
}

// run opens sessions, one after another, until ctx ends and nothing is held.
func (o *ownership) run(ctx context.Context) error {
	watching, stop := context.WithCancel(o.q.life)
	defer o.wg.Wait()
	defer stop()
	o.wg.Go(func() { _ = o.q.letters.watch(watching, opKey+">", nil, o.q.sawOperation) })
	o.wg.Go(func() { _ = o.q.letters.watch(watching, forgetKey+">", nil, o.q.sawForgotten) })
	o.wg.Go(func() { _ = o.q.state.watch(watching, keyJobOrder+">", nil, o.q.sawJobOrder) })
	o.wg.Go(func() { _ = o.q.sessions.watch(watching, ">", func() { o.known(&o.sessionsKnown) }, o.sawSession) })
	o.wg.Go(func() { _ = o.q.owners.watch(watching, ">", func() { o.known(&o.ownersKnown) }, o.sawOwner) })
	for n := 0; ctx.Err() == nil && o.q.life.Err() == nil; n++ {
		sess, err := o.q.openSession(ctx, o.targets, o.groupOf)
		if err != nil {
			if n == 0 && errors.Is(err, ErrNotSetUp) {
				return err
			}
			o.tell("session cannot be opened", err)
			sleep(ctx, pause(n))
			continue
		}
		n = 0
		o.tell("", nil)
		o.q.become(sess.id)
		o.serve(ctx, sess)
		o.q.become("")
		sess.close()
		o.mu.Lock()
		delete(o.live, sess.id)
		o.mu.Unlock()
	}
	for !o.idle() { // lanes of a session that was lost
		<-o.kick
	}
	return nil
}

// become notes our session.
func (q *Queue) become(session string) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.session = session
}

func (o *ownership) tell(msg string, err error) {
	if msg != "" && msg != o.told {
		o.q.log.Warn().Err(err).Msg(msg + "; trying on")
	}
	o.told = msg
}

func (o *ownership) idle() bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return len(o.held) == 0
}

// serve balances until the session is lost, or until ctx ended and everything
// is released.
func (o *ownership) serve(ctx context.Context, sess *session) {
	t := time.NewTicker(balanceEach)
	defer t.Stop()
	done := ctx.Done()
	for {
		o.balance(ctx, sess)
		if ctx.Err() != nil && o.idle() && !o.holdsGroup(sess) {
			return
		}
		select {
		case <-t.C:
		case <-o.kick:
		case <-done:
			done = nil
			sess.leave()
		case <-sess.ctx.Done():
			if o.q.life.Err() == nil {
				o.q.log.Warn().AnErr("cause", context.Cause(sess.ctx)).Str("session", sess.id).Msg("session lost")
			}
			return
		}
	}
}

func (o *ownership) known(all *bool) {
	o.mu.Lock()
	*all = true
	o.mu.Unlock()
	poke(o.kick)
}

func (o *ownership) sawSession(e entry) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if e.gone {
		delete(o.live, e.key)
		poke(o.kick)
		return
	}
	p := &peer{seen: time.Now()}
	if err := json.Unmarshal(e.value, &p.Session); err != nil {
		return // a session of a version that we do not understand takes nothing from us
	}
	if old := o.live[e.key]; old == nil || old.Leaving != p.Leaving {
		poke(o.kick)
	}
	p.serves = make(map[string]bool, len(p.Targets))
	for _, t := range p.Targets {
		p.serves[t] = true
	}
	p.shares = map[string]int{}
	for _, g := range p.Groups {
		p.shares[g]++
	}
	o.live[e.key] = p
}

func (o *ownership) sawOwner(e entry) {
	o.mu.Lock()
	defer o.mu.Unlock()
	c := claim{rev: e.rev}
	if !e.gone {
		if err := json.Unmarshal(e.value, &c); err != nil {
			c.Session = "?" // not live, so it can be claimed
		}
	}
	if e.gone && e.rev == 0 {
		delete(o.owners, e.key)
	} else {
		o.owners[e.key] = c
	}
	poke(o.kick)
}

// balance compares who owns each target with who should, releases what another
// should have and claims what is ours and free.
func (o *ownership) balance(ctx context.Context, sess *session) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if !o.sessionsKnown || !o.ownersKnown {
		return
	}
	now := time.Now()
	o.suspect(now, sess)
	leaving := ctx.Err() != nil
	for g := range o.groups {
		o.balanceGroup(g, sess, leaving, now)
	}
	for _, t := range o.targets {
		want := o.rightful(t, sess, leaving)
		if h := o.held[t]; h != nil {
			if h.sess == sess && h.release != nil && want != sess.id && (want != "" || leaving) {
				h.release()
			}
			continue
		}
		cur := o.owners[ownKey+t]
		if want != sess.id && !leaving && o.left(cur, sess) && !now.Before(o.notBefore[t]) {
			h := &holding{sess: sess}
			o.held[t] = h
			o.wg.Go(func() { o.giveBack(t, h, cur) })
			continue
		}
		if want != sess.id || now.Before(o.notBefore[t]) || !o.mayRun(t, sess) {
			continue
		}
		if o.livesElsewhere(cur, sess) {
			continue
		}
		select {
		case o.slots <- struct{}{}:
		default:
			return
		}
		h := &holding{sess: sess}
		o.held[t] = h
		o.wg.Go(func() { o.hold(t, h, cur) })
	}
}

// left says whether a claim is still our session's though nothing of it runs any
// more: to give it back failed, or it was stored and the answer lost. Nobody else
// could have it for as long as the session lives. What was abandoned stays: a call
// of it may still be at work.
func (o *ownership) left(c claim, sess *session) bool {
	return c.Session == sess.id && !sess.abandoned.Load()
}

// livesElsewhere says whether another session that we know to live has made the
// claim.
func (o *ownership) livesElsewhere(c claim, sess *session) bool {
	return c.Session != "" && c.Session != sess.id && o.live[c.Session] != nil
}

// suspect looks after sessions that missed two renewals: their keys expire
// without a message.
func (o *ownership) suspect(now time.Time, sess *session) {
	for id, p := range o.live {
		if id == sess.id || now.Sub(p.seen) < sess.lease/3 || now.Sub(p.checked) < balanceEach {
			continue
		}
		p.checked = now
		o.wg.Go(func() {
			e, err := o.q.sessions.get(sess.ctx, id)
			if err != nil || !e.gone {
				return
			}
			o.mu.Lock()
			defer o.mu.Unlock()
			if o.live[id] == p {
				delete(o.live, id)
				poke(o.kick)
			}
		})
	}
}

// owner reads the session that owns each target now, from the bucket.
func (q *Queue) ownerOf(ctx context.Context) (map[string]string, error) {
	live := map[string]bool{}
	sessions, err := q.Sessions(ctx)
	if err != nil {
		return nil, err
	}
	for _, s := range sessions {
		live[s.ID] = true
	}
	out := map[string]string{}
	err = q.owners.each(ctx, ownKey+">", func(e entry) error {
		var c claim
		if json.Unmarshal(e.value, &c) == nil && live[c.Session] {
			out[e.key[len(ownKey):]] = c.Session
		}
		return nil
	})
	maps.DeleteFunc(out, func(_, s string) bool { return s == "" })
	return out, err
}
