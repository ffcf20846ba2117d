package queue

import (
	"context"
	"fmt"
	"strconv"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"crmsync/contact"
)

// recount finds what the operation has done so far: its claims are what waits,
// the records tell what has ended. It returns the last record that it saw.
func (r *redriver) recount(ctx context.Context) (uint64, error) {
	if err := r.takeUp(ctx); err != nil {
		return 0, err
	}
	clear(r.op.Ended)
	r.op.DeadAgain = nil
	from := r.op.First
	err := r.q.follow(ctx, outcomeStream, r.config(from), false, func(m inMsg) error {
		from = m.seq
		if e, ok := r.endOf(m); ok {
			r.count(e)
		}
		return nil
	})
	r.tally()
	return from, err
}

// takeUp goes on with letters that were claimed and of which this process does not
// know whether they were sent: somebody who stopped, or a server that did not answer,
// had a part in it.
func (r *redriver) takeUp(ctx context.Context) error {
	own, err := r.claims(ctx)
	if err != nil {
		return err
	}
	for _, c := range own {
		// One that was dealt with waits for its letter to be removed.
		if r.open[c.Letter] != nil || r.over[c.Letter] || r.running && len(r.op.IDs) == 0 && c.Letter <= r.op.Cursor {
			continue
		}
		if err := r.q.mendOne(ctx, c); err != nil {
			return fmt.Errorf("letter %d: %w", c.Letter, err)
		}
		r.open[c.Letter] = &Claim{Letter: c.Letter, Target: c.Target, Contact: c.Contact, MsgID: c.MsgID}
		r.heard, r.changed = time.Now(), true
	}
	r.tally()
	return nil
}

// tally counts what was sent: what is open and what has ended, whoever was told that
// it was stored.
func (r *redriver) tally() {
	r.op.Sent = int64(len(r.open))
	for _, n := range r.op.Ended {
		r.op.Sent += n
	}
	r.op.Chosen = r.op.Sent
	for _, n := range r.op.Skipped {
		r.op.Chosen += n
	}
}

// claims lists the letters that the operation has in hand.
func (r *redriver) claims(ctx context.Context) (own []*Claim, err error) {
	err = r.q.claims(ctx, r.op.Filter.Target, func(c *Claim) error {
		if c.Operation == r.op.ID {
			own = append(own, c)
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("queue: redrive: %w", err)
	}
	return own, nil
}

func (r *redriver) config(after uint64) jetstream.ConsumerConfig {
	return jetstream.ConsumerConfig{
		FilterSubject: Filter{Target: r.op.Filter.Target}.subject(), HeadersOnly: true,
		DeliverPolicy: jetstream.DeliverByStartSequencePolicy, OptStartSeq: after + 1,
	}
}

func (r *redriver) endOf(m inMsg) (ended, bool) {
	if m.header.Get(contact.HeaderOperation) != r.op.ID || m.header.Get(headerLetter) != "" {
		return ended{}, false
	}
	letter, err := strconv.ParseUint(m.header.Get(contact.HeaderRedriveOf), 10, 64)
	if err != nil {
		return ended{}, false
	}
	_, outcome, err := parseOutcomeSubject(m.subject)
	return ended{letter: letter, outcome: outcome, record: m.seq}, err == nil
}

func (r *redriver) count(e ended) {
	if r.missed[e.letter] { // its record was told of before it was erased
		delete(r.missed, e.letter)
		r.op.Skipped[SkipGone]--
	}
	r.close(e.letter)
	r.heard = time.Now()
	r.op.Ended[e.outcome]++
	if e.outcome == contact.Dead && len(r.op.DeadAgain) < maxAuditIDs {
		r.op.DeadAgain = append(r.op.DeadAgain, e.record)
	}
	r.tally()
	r.changed = true
}

// close notes that the update of a letter has ended.
func (r *redriver) close(letter uint64) {
	delete(r.open, letter)
	if len(r.op.IDs) > 0 || letter > r.op.Cursor {
		r.over[letter] = true
	}
}

// miss counts letters as gone whose updates ended without a record: they were
// given back, or their contact was forgotten. It looks only when nothing has been
// heard for a while; what fails then is looked for again later.
func (r *redriver) miss(ctx context.Context) {
	if len(r.open) == 0 || time.Since(r.heard) < missAfter {
		return
	}
	r.heard = time.Now()
	own, err := r.claims(ctx)
	held := map[uint64]bool{}
	for _, c := range own {
		held[c.Letter] = true
	}
	for id, c := range r.open {
		if err != nil {
			r.q.log.Debug().Err(err).Str("operation", r.op.ID).Msg("its updates could not be looked for; trying on")
			return
		}
		if held[id] {
			continue
		}
		// A claim goes after the record is stored, so the record is there or
		// never comes.
		var e *end
		if e, err = r.q.endOf(ctx, contact.Key{Target: c.Target, ID: c.Contact}, c); err == nil && e == nil {
			r.close(id)
			r.missed[id] = true
			r.op.Skipped[SkipGone]++
			r.tally()
			r.changed = true
		}
	}
}

func (r *redriver) follow(ctx context.Context, from uint64) error {
	return r.q.follow(ctx, outcomeStream, r.config(from), true, func(m inMsg) error {
		e, ok := r.endOf(m)
		if !ok {
			return nil
		}
		select {
		case r.ends <- e:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	})
}

// clear waits until the letters of all that ended are gone.
func (r *redriver) clear(ctx context.Context) error {
	left, err := r.claims(ctx)
	for n, began := 0, time.Now(); err == nil && len(left) > 0; n++ {
		if time.Since(began) > settleWait {
			for _, c := range left {
				if err := r.q.mendOne(ctx, c); err != nil {
					return err
				}
			}
		}
		if !sleep(ctx, min(20*time.Millisecond<<min(n, 4), 200*time.Millisecond)) {
			return ctx.Err()
		}
		left, err = r.stillHeld(ctx, left)
	}
	return err
}

// stillHeld is those of these claims that are there still.
func (r *redriver) stillHeld(ctx context.Context, claims []*Claim) (left []*Claim, err error) {
	for _, c := range claims {
		now, err := r.q.claimOf(ctx, contact.Key{Target: c.Target, ID: c.Contact}, c.Letter)
		if err != nil {
			return nil, err
		}
		if now != nil && now.MsgID == c.MsgID {
			left = append(left, c)
		}
	}
	return left, nil
}
