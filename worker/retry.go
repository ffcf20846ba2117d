package worker

import (
	"container/heap"
	"time"

	"github.com/cenkalti/backoff/v4"

	"crmsync/contact"
)

// stepped is the n-th (from 0) of a series of waits that doubles from first up
// to most, without jitter.
func stepped(first, most time.Duration, n int) time.Duration {
	b := backoff.ExponentialBackOff{
		InitialInterval: first, MaxInterval: most, Multiplier: 2, Stop: backoff.Stop, Clock: backoff.SystemClock,
	}
	b.Reset()
	d := b.NextBackOff()
	for range min(n, 64) {
		d = b.NextBackOff()
	}
	return min(d, most)
}

// jitter spreads a wait over (0.05 to 1 times d): full jitter, short of none at
// all. Its randomness is the lane's own, so that a seed repeats it.
func (l *Lane) jitter(d time.Duration) time.Duration {
	return time.Duration((0.05 + 0.95*l.rng.Float64()) * float64(d))
}

// retryLater lets a slot wait for its next attempt: the backoff, or longer
// where the CRM said so. What arrives for it meanwhile is merged.
func (l *Lane) retryLater(s *slot, now time.Time, atLeast time.Duration) {
	step := max(0, max(s.failures, s.attempts)-1)
	if l.hold != nil && l.hold.Reason == HoldOutage {
		step = 0 // the hold keeps it, and the ramp after it
	}
	wait := max(atLeast, l.jitter(stepped(l.o.Retry.Base, l.o.Retry.Max, step)))
	l.putBack(s)
	s.due = now.Add(wait)
	s.notBefore = now.Add(atLeast)
	l.waitForDue(s)
	l.stats.Retries++
}

func (l *Lane) waitForDue(s *slot) {
	s.state = slotWaiting
	heap.Push(&l.retries, s)
}

// carries notes what a call whose answer is not known had with it. What was
// cancelled before it had no part in it.
func (s *slot) carries(t *take) {
	if s.carried == nil {
		s.carried = map[*contact.Update]bool{}
	}
	for i, u := range t.updates {
		if t.end[i].Outcome != contact.Cancelled {
			s.carried[u] = true
		}
	}
}

// requeue puts a slot back whose call did not count.
func (l *Lane) requeue(s *slot) {
	l.putBack(s)
	l.makeReady(s)
}

// putBack returns a take of which nothing is decided to the slot's pending
// updates, so that it is merged anew, as late as possible.
func (l *Lane) putBack(s *slot) {
	if s.take != nil && s.take.untouched() {
		s.pending = append(s.take.updates, s.pending...)
		if s.call > 0 { // a call has carried them
			s.sent = len(s.take.updates)
		}
		if s.maybeSent && s.state == slotCalling {
			s.carries(s.take)
		}
		s.take = nil
	}
}
