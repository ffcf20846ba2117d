package worker

import (
	"container/heap"
	"context"
	"fmt"
	"math"
	"time"

	"crmsync/contact"
	"crmsync/crm"
)

// maxSettling bounds the settlements in flight, and so their goroutines.
const maxSettling = 1024

// leaseRecheck is how soon a lane looks again at a lease that was too short.
const leaseRecheck = 50 * time.Millisecond

// WaitConnection is what a lane waits for ([Status].Waiting) that has as many
// calls in flight as it may.
const WaitConnection = "a free connection"

// idleWait is how long a lane with nothing to wait for sleeps.
const idleWait = time.Hour

// waiting is what a lane waits for, and until when if that is known.
type waiting struct {
	what  string
	until time.Time
	quota Waited // where it is the quota
}

// dispatch starts every call that may start now, and notes what it then waits
// for.
func (l *Lane) dispatch(work context.Context) {
	for {
		now := time.Now()
		l.ripen(work, now)
		w := l.obstacle(now)
		if w.what != "" {
			l.waitsFor(now, w)
			return
		}
		l.start(work, now)
	}
}

// ripen makes slots ready whose retry time has come, and ends what is over.
func (l *Lane) ripen(work context.Context, now time.Time) {
	for len(l.retries) > 0 && !l.retries[0].due.After(now) {
		l.turn(heap.Pop(&l.retries).(*slot))
	}
	if l.operator.Hold && !l.operator.Until.IsZero() && !l.operator.Until.After(now) {
		o := l.operator
		o.Hold = false
		l.obey(o)
	}
	l.recall(work, now)
	l.recallLeft(work, now)
	if l.hold != nil && l.hold.Reason == HoldThrottled && !l.hold.Until.After(now) {
		l.endHold(now, "the time it asked for is over")
	}
	l.repairsDue(now)
	if l.hold != nil && l.hold.Reason == HoldCredentials && l.probing == nil && !l.reading && l.o.SecretChanged != nil && l.o.SecretChanged() {
		l.hold.NextProbe = now
	}
}

// obstacle says what stands between the lane and its next call; "" is nothing.
func (l *Lane) obstacle(now time.Time) waiting {
	switch {
	case l.draining:
		return waiting{what: "calls in flight to end"}
	case !l.open:
		return waiting{what: "everything that waited to be loaded"}
	case l.operator.Hold:
		return waiting{what: "the operator", until: l.operator.Until}
	}
	if l.storms.over {
		return waiting{what: "the storm's dead letters to be recalled"}
	}
	if l.hold != nil && l.hold.Probes() {
		if l.probing != nil || l.reading {
			return waiting{what: "the answer to a probe"}
		}
		if l.hold.NextProbe.After(now) {
			return waiting{what: "the next probe", until: l.nextLook(now, l.hold.NextProbe)}
		}
		if at := l.promote(now); at.After(now) {
			return waiting{what: "the next probe", until: l.nextLook(now, at)}
		}
	}
	if l.ready.len() == 0 && (len(l.repairs) == 0 || !l.mayRepair(now)) {
		if len(l.retries) > 0 {
			return waiting{what: "the next retry", until: l.retries[0].due}
		}
		if l.parked > 0 {
			return waiting{what: "a paused job to be resumed"}
		}
		return waiting{what: "updates"}
	}
	if l.calling >= l.concurrency {
		return waiting{what: WaitConnection}
	}
	if l.settling >= maxSettling {
		return waiting{what: "outcomes to be stored"}
	}
	if !l.outlasts() {
		return waiting{what: "its lease to be renewed", until: now.Add(leaseRecheck)}
	}
	if at, why := l.budget.whenRoom(now, l.o.Requests); at.After(now) {
		return waiting{what: why.String(), until: at, quota: why}
	}
	return waiting{}
}

// outlasts says that the lease outlasts a call that starts now.
func (l *Lane) outlasts() bool { return time.Until(l.o.Source.Lease()) >= l.o.Timeout+l.o.Margin }

// nextLook is when a lane in a hold wakes: at the probe, or earlier to see
// whether the secret has changed.
func (l *Lane) nextLook(now, probe time.Time) time.Time {
	if l.hold.Reason == HoldCredentials && l.o.SecretChanged != nil {
		if soon := now.Add(time.Second); soon.Before(probe) {
			return soon
		}
	}
	return probe
}

// promote makes a slot ready for a probe where only waiting ones are left. It
// says when one may be, where the CRM has asked for patience with each.
func (l *Lane) promote(now time.Time) time.Time {
	if l.ready.len() > 0 || len(l.retries) == 0 {
		return now
	}
	first := l.retries[0]
	for _, s := range l.retries[1:] {
		if s.notBefore.Before(first.notBefore) || s.notBefore.Equal(first.notBefore) && s.due.Before(first.due) {
			first = s
		}
	}
	if !first.notBefore.After(now) {
		l.makeReady(first)
	}
	return first.notBefore
}

// start takes the next ready slot, merges what has gathered in it, and calls.
// What needs no call is settled at once.
func (l *Lane) start(work context.Context, now time.Time) {
	if l.readsFirst() {
		l.readProbe(work, now)
		return
	}
	if len(l.repairs) > 0 && l.mayRepair(now) {
		l.repair(work, now)
		return
	}
	s := l.next()
	if s.take == nil {
		s.take = l.newTake(s)
	}
	if s.take == nil {
		l.park(s)
		return
	}
	if !s.take.next(l.o.Rules) {
		l.settle(work, s, now)
		return
	}
	effect, undo := l.effectOf(s), s.undo
	var promised *place
	if effect != nil {
		promised = l.budget.promise()
	} else if !l.budget.try(now) { // a call in flight was quicker
		l.requeue(s)
		return
	}
	s.state = slotCalling
	l.calling++
	l.callNo++
	s.call = l.callNo
	if l.hold != nil && l.hold.Probes() {
		l.probing = s
		if !l.hold.trial {
			l.hold.tried(now)
		}
	}
	l.stats.Calls++
	change := contact.Change{
		Contact: s.key, Fields: s.take.fields, Updates: len(s.take.alive), MaybeSent: s.maybe(),
	}
	go l.guarded(s.key, now, s, func(r *result) {
		if r.effect = effect; effect != nil {
			if !l.begin(work, r, undo, promised) {
				return
			}
			change.MaybeSent = change.MaybeSent || r.begun
		}
		l.send(work, r, change)
	})
}

// send makes the call for one change, unless our ownership ran down while the
// process was stopped.
func (l *Lane) send(work context.Context, r *result, change contact.Change) {
	if time.Until(l.o.Source.Lease()) < l.o.Timeout {
		r.cut = errLease
		r.ans = crm.Answer{Verdict: contact.VerdictTransient, Detail: errLease.Error()}
		return
	}
	answers := l.o.Sender.Send(work, l.spending(r), []contact.Change{change})
	if len(answers) != 1 {
		r.ans = crm.Answer{Verdict: contact.VerdictUnknown, Reason: contact.Protocol, Detail: "the CRM client gave no answer"}
		return
	}
	r.ans = answers[0]
}

// next takes the slot whose turn it is. Where the lane holds for a storm it is
// any: the one that ends the storm may stand far behind. Where a read was answered
// in a hold it is the contact that was read.
func (l *Lane) next() *slot {
	h := l.hold
	if h != nil && h.trial {
		if s := l.slots[l.readOf]; s != nil && s.state == slotReady {
			l.leaveTurn(s)
			return s
		}
	}
	if h != nil && h.Reason == HoldStorm {
		s := l.ready.any(l.rng.IntN)
		if s != nil {
			l.leaveTurn(s)
		}
		return s
	}
	return l.ready.pop(l.o.BulkEvery)
}

// guarded makes a call and reports how it ended. A panic on the way ends this
// call only.
func (l *Lane) guarded(k contact.Key, began time.Time, s *slot, call func(*result)) {
	r := result{slot: s, began: began}
	defer func() {
		if p := recover(); p != nil {
			r.ans = crm.Answer{Verdict: contact.VerdictUnknown, Reason: contact.Protocol, Detail: "panic in the CRM client"}
			l.o.Log.Error().Str("target", l.o.Target).Str("contact", k.ID).
				Str("panic", fmt.Sprintf("%T", p)).Stack().Msg("panic in a call, contained")
		}
		r.ended = time.Now()
		l.results <- r
	}()
	call(&r)
}

// Spend waits until one request that is none of the lane's own calls may be
// sent, and counts it. It ends with an error where ctx does or where the lease
// could end before the request. Safe for concurrent use.
func (l *Lane) Spend(ctx context.Context) error {
	var r result
	return l.spending(&r)(ctx)
}

// spending pays for the further requests of a call.
func (l *Lane) spending(r *result) crm.Spend {
	return func(ctx context.Context) error {
		// What was read before a write must not grow old, nor a write go out
		// into a hold that has begun: a call does not wait for its quota for
		// longer than for an answer. One that is too large for a window must.
		wait := time.Duration(math.MaxInt64)
		if l.o.Requests > 1 && l.budget.fits(l.o.Requests) {
			wait = l.o.Timeout
			if at, _ := l.budget.when(time.Now()); time.Until(at) > wait {
				r.cut = errNoQuota
				return errNoQuota
			}
		}
		if err := l.pay(ctx, wait); err != nil {
			r.cut = err
			return err
		}
		if !l.outlasts() {
			r.cut = errLease
			return errLease
		}
		return nil
	}
}

// pay spends one request, and waits at most so long until it may. A lane that
// stops ends the calls in flight, but not by waiting for a quota that may take an
// hour: it spends what there is.
func (l *Lane) pay(ctx context.Context, wait time.Duration) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if l.budget.try(time.Now()) { // nobody waits, and there is room
		return nil
	}
	ctx, stop := context.WithTimeout(ctx, wait)
	defer stop()
	defer context.AfterFunc(l.stopping, stop)()
	return l.budget.spend(ctx)
}
