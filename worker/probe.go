package worker

import (
	"context"
	"time"

	"crmsync/contact"
	"crmsync/crm"
)

// Prober is a Sender that can find out whether its CRM works for us without
// writing anything: by reading one contact.
type Prober interface {
	// Probe makes one request about a contact. Any answer that the CRM gave
	// in order, even that the contact does not exist, has a verdict that
	// Answers.
	Probe(ctx context.Context, spend crm.Spend, k contact.Key) crm.Answer
}

// Probe intervals.
const (
	probeCredentials = 30 * time.Second // a token the CRM does not know
	probeForbidden   = 5 * time.Minute  // a missing permission: Perfex counts these and blocks the address
	probeOutageFirst = time.Second
	probeOutageMax   = 30 * time.Second
	probeStormFirst  = 2 * time.Second
	probeStormMax    = 5 * time.Minute
	// flapWithin is how soon after its end the same hold counts as the same
	// incident, whose probes go on where they were.
	flapWithin = 2 * time.Minute
)

// readsFirst says that the next probe is a read. A missing permission and a
// storm show in writes only; there the probe is one change, alone.
func (l *Lane) readsFirst() bool {
	h := l.hold
	if h == nil || h.trial || l.prober == nil {
		return false
	}
	return h.Reason == HoldOutage || h.Reason == HoldCredentials && h.Every != probeForbidden
}

// readProbe asks about a contact that waits, any: the CRM may break on one of them,
// and for as long as that was asked about nobody would see that it works for the
// others.
func (l *Lane) readProbe(work context.Context, now time.Time) {
	if !l.budget.try(now) { // a call in flight was quicker
		return
	}
	var key contact.Key
	if s := l.ready.any(l.rng.IntN); s != nil {
		key = s.key
	} else {
		key = l.repairs[0].key // nothing else is there
	}
	l.reading, l.readOf = true, key.ID
	l.calling++
	l.hold.tried(now)
	go l.guarded(key, now, nil, func(r *result) {
		r.ans = l.prober.Probe(work, l.spending(r), key)
	})
}

// probed says what the answer to a read leads to: another try later, or one
// change alone.
func (l *Lane) probed(work context.Context, r result) {
	now, a := r.ended, r.ans
	l.calling--
	l.reading = false
	if r.cut != nil || work.Err() != nil {
		l.stats.Requests += int64(a.Requests)
		return
	}
	l.note(contact.Key{}, r)
	h := l.hold
	if h == nil || !h.Probes() {
		return // it ended while the read was on its way
	}
	switch {
	case a.Requests == 0 && a.Verdict.Permanent():
		h.trial = true // nothing can be read about this contact: one change must do
	case a.Verdict.Success() || a.Verdict.Permanent():
		h.trial, h.NextProbe = true, now.Add(a.Wait)
	case a.Verdict == contact.VerdictThrottled:
		l.throttledBy(r)
	case a.Verdict == contact.VerdictUnauthorized || a.Verdict == contact.VerdictForbidden:
		l.refusedUs(now, a)
	default:
		l.nextProbe(now, a)
	}
}

// nextProbe sets the time of the next probe after one has failed.
func (l *Lane) nextProbe(now time.Time, a crm.Answer) {
	h := l.hold
	if h == nil || !h.Probes() || h.NextProbe.After(now) {
		return
	}
	h.trial = false
	every := h.Every
	switch h.Reason {
	case HoldOutage:
		every = l.jitter(stepped(probeOutageFirst, probeOutageMax, h.Tried))
	case HoldStorm:
		every = l.jitter(stepped(probeStormFirst, probeStormMax, h.Tried))
	}
	h.NextProbe = now.Add(max(every, a.Wait))
}
