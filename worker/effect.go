package worker

import (
	"context"
	"time"

	"crmsync/contact"
)

// takeBackWait is how long a call that came to nothing waits for its note to be
// removed. Where it stays, the lane itself still knows better.
const takeBackWait = 2 * time.Second

// effectOf is the update with a side effect that the slot's call is the first to
// carry; nil where there is none, or where the side effect will not be asked for.
func (l *Lane) effectOf(s *slot) *contact.Update {
	if l.o.Effects == nil || s.maybe() || !l.o.Rules.Effects(s.take.fields) {
		return nil
	}
	return s.take.alive[0] // it goes alone
}

// begin notes that an update is begun, and pays for its first request. It is
// false where the call cannot be made.
func (l *Lane) begin(work context.Context, r *result, undo <-chan struct{}, promised *place) bool {
	r.ans.Verdict = contact.VerdictTransient // until something is sent
	if undo != nil {
		<-undo
	}
	paying, stop := context.WithCancel(work)
	defer stop()
	defer context.AfterFunc(l.stopping, stop)()
	if r.begun, r.cut = l.o.Effects.Begin(work, r.effect); r.cut != nil {
		stop()
	}
	if err := l.budget.redeem(paying, promised); r.cut == nil {
		r.cut = err
	}
	if r.cut == nil && !l.outlasts() {
		r.cut = errLease
	}
	if r.cut == nil {
		r.ans.Verdict = contact.VerdictUnknown
	}
	return r.cut == nil
}

// takeBack removes the note of an update that certainly has not reached the CRM,
// or that it has refused: whoever sends it next does so as if for the first time.
func (l *Lane) takeBack(work context.Context, s *slot, r result) {
	if v := r.ans.Verdict; r.effect == nil || r.begun || v == contact.VerdictUnknown || v.Success() {
		return
	}
	l.undoing++
	done := make(chan struct{})
	s.undo = done
	go func() {
		ctx, stop := context.WithTimeout(context.WithoutCancel(work), takeBackWait)
		defer stop()
		if err := l.o.Effects.TakeBack(ctx, r.effect); err != nil {
			l.o.Log.Debug().Err(err).Str("target", l.o.Target).Str("contact", r.effect.Contact.ID).
				Msg("the note of a call that came to nothing stays")
		}
		close(done)
		l.undone <- struct{}{}
	}()
}
