package queue

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"crmsync/contact"
)

// Retention bounds the dead letters; zero members bound nothing.
type Retention struct {
	MaxAge     time.Duration `json:"max_age,omitempty"` // since a letter was stored
	MaxBytes   int64         `json:"max_bytes,omitempty"`
	MaxLetters int64         `json:"max_letters,omitempty"`
}

// RetentionNotice is how long a limit is announced before anything is removed
// because of it.
const RetentionNotice = time.Hour

// RetentionStatus is how the letters stand against their limits.
type RetentionStatus struct {
	Retention
	Looked  time.Time `json:"looked"`
	Letters int64     `json:"letters"`
	Bytes   int64     `json:"bytes,omitempty"` // counted where MaxBytes is set
	Oldest  time.Time `json:"oldest,omitzero"`
	// Announced is since when a limit is nearer than a fifth; zero where none
	// is. Nothing is removed within RetentionNotice of it.
	Announced time.Time `json:"announced,omitzero"`
	// Bites is when letters will be removed first, as far as it can be said.
	Bites time.Time `json:"bites,omitzero"`
	// Removed is how many letters were removed since the limits were first
	// set.
	Removed int64 `json:"removed"`
}

const retentionKey = "letters.retention"

// RetentionStatus is the last look's; found is false where nobody has looked.
func (q *Queue) RetentionStatus(ctx context.Context) (st RetentionStatus, found bool, err error) {
	found, err = q.Get(ctx, retentionKey, &st)
	return st, found, err
}

// KeepLetters looks each minute how the dead letters stand against their limits,
// until ctx ends; it returns nil then. All worker processes run it and one of
// them, the one with the smallest session, does the work. It announces a limit
// from 80 % on, in the log and in [Queue.RetentionStatus], with the time at which
// it will bite; the oldest letters beyond it are then discarded, after an entry
// in the audit trail, and counted. told, which may be nil, hears of each look.
func (q *Queue) KeepLetters(ctx context.Context, r Retention, told func(RetentionStatus)) error {
	if r == (Retention{}) {
		<-ctx.Done()
		return nil
	}
	failed := ""
	for wait := time.Duration(0); sleep(ctx, wait); wait = time.Minute {
		if !q.first(ctx) {
			continue
		}
		st, err := q.look(ctx, r, time.Now())
		if err != nil && ctx.Err() == nil && err.Error() != failed {
			failed = err.Error()
			q.log.Warn().Err(err).Msg("the limits of dead letters cannot be kept; trying on")
		}
		if err == nil && told != nil {
			failed = ""
			told(st)
		}
	}
	return nil
}

// first says that our session is the smallest.
func (q *Queue) first(ctx context.Context) bool {
	q.mu.Lock()
	own := q.session
	q.mu.Unlock()
	if own == "" {
		return false
	}
	all, err := q.Sessions(ctx)
	if err != nil {
		return false
	}
	for _, s := range all {
		if s.ID < own {
			return false
		}
	}
	return true
}

// look measures, announces and removes.
func (q *Queue) look(ctx context.Context, r Retention, now time.Time) (RetentionStatus, error) {
	was, _, err := q.RetentionStatus(ctx)
	if err != nil {
		return was, err
	}
	st := RetentionStatus{Retention: r, Looked: now.UTC(), Removed: was.Removed}
	if was.Retention == r {
		st.Announced = was.Announced
	}
	if err := q.measure(ctx, &st); err != nil {
		return st, err
	}
	near, bites := st.near(was, now)
	switch {
	case !near:
		st.Announced = time.Time{}
	case st.Announced.IsZero():
		st.Announced = now.UTC()
		q.log.Warn().Int64("letters", st.Letters).Time("oldest", st.Oldest).Time("bites", st.biting(bites)).
			Msg("dead letters come near their limit: the oldest will be discarded")
	}
	if near {
		st.Bites = st.biting(bites)
	}
	if near && !now.Before(st.Announced.Add(RetentionNotice)) {
		n, err := q.trimLetters(ctx, &st, now)
		st.Removed += n
		if err != nil {
			return st, errors.Join(err, q.Put(ctx, retentionKey, st))
		}
	}
	return st, q.Put(ctx, retentionKey, st)
}

// biting is when letters go: not before the notice has passed.
func (st *RetentionStatus) biting(reached time.Time) time.Time {
	if notice := st.Announced.Add(RetentionNotice); reached.Before(notice) {
		return notice
	}
	return reached
}

// measure counts the letters.
func (q *Queue) measure(ctx context.Context, st *RetentionStatus) error {
	if st.MaxBytes > 0 {
		return q.choose(ctx, Filter{Outcome: contact.Dead}, func(h letterHead) error {
			st.count(h)
			return nil
		})
	}
	n, err := q.Count(ctx, Filter{Outcome: contact.Dead})
	if err != nil || n == 0 {
		return err
	}
	st.Letters = n
	m, err := q.get(ctx, outcomeStream, getRequest{Seq: 1, Next: Filter{Outcome: contact.Dead}.subject()})
	if err != nil {
		return fmt.Errorf("queue: read the oldest letter: %w", err)
	}
	if m != nil {
		st.Oldest = m.Time
	}
	return nil
}

func (st *RetentionStatus) count(h letterHead) {
	if st.Letters == 0 {
		st.Oldest = h.at
	}
	st.Letters++
	st.Bytes += h.size
}

// near says whether a limit is nearer than a fifth, and when the first of those
// will be reached, as far as the last look lets us say.
func (st *RetentionStatus) near(was RetentionStatus, now time.Time) (near bool, reached time.Time) {
	note := func(at time.Time) {
		near = true
		if reached.IsZero() || !at.IsZero() && at.Before(reached) {
			reached = at
		}
	}
	if st.MaxAge > 0 && st.Letters > 0 && now.Sub(st.Oldest) >= st.MaxAge/5*4 {
		note(st.Oldest.Add(st.MaxAge))
	}
	for _, l := range [...]struct{ have, had, limit int64 }{{st.Bytes, was.Bytes, st.MaxBytes}, {st.Letters, was.Letters, st.MaxLetters}} {
		if l.limit <= 0 || l.have < l.limit/5*4 {
			continue
		}
		var at time.Time
		switch grown, took := l.have-l.had, now.Sub(was.Looked); {
		case l.have > l.limit:
			at = now
		case was.Retention == st.Retention && grown > 0 && took > 0:
			at = now.Add(time.Duration(float64(l.limit-l.have) / float64(grown) * float64(took)))
		}
		note(at)
	}
	return near, reached
}

const retentionPage = 1000

// trimLetters discards the oldest letters beyond the limits and says how many.
// What is in other hands is passed over and counts as gone: it is on its way to
// the CRM, and others shall not go in its place.
func (q *Queue) trimLetters(ctx context.Context, st *RetentionStatus, now time.Time) (removed int64, err error) {
	held := map[uint64]bool{}
	if err := q.claims(ctx, "", func(c *Claim) error { held[c.Letter] = true; return nil }); err != nil {
		return 0, fmt.Errorf("queue: limits of dead letters: %w", err)
	}
	for after := uint64(0); ; {
		var p trimPage
		err := q.choose(ctx, Filter{Outcome: contact.Dead, After: after, Limit: retentionPage}, func(h letterHead) error {
			over := st.MaxAge > 0 && now.Sub(h.at) > st.MaxAge || st.MaxLetters > 0 && st.Letters > st.MaxLetters || st.MaxBytes > 0 && st.Bytes > st.MaxBytes
			if !over {
				return errEnough
			}
			after = h.id
			st.Letters--
			st.Bytes -= h.size
			p.add(h, held[h.id])
			return nil
		})
		if err != nil || p.seen == 0 {
			return removed, err
		}
		n, err := q.discardAll(ctx, p, "retention: "+st.String())
		removed += n
		if err != nil {
			return removed, err
		}
	}
}

// trimPage is letters that are to go.
type trimPage struct {
	seen   int // with those in other hands
	ids    []uint64
	target string // of all of them, or ""
}

func (p *trimPage) add(h letterHead, held bool) {
	p.seen++
	switch {
	case held:
		return
	case len(p.ids) == 0:
		p.target = h.key.Target
	case p.target != h.key.Target:
		p.target = ""
	}
	p.ids = append(p.ids, h.id)
}

// discardAll discards a page of letters and says how many it did.
func (q *Queue) discardAll(ctx context.Context, p trimPage, reason string) (n int64, err error) {
	if len(p.ids) == 0 {
		return 0, nil
	}
	who := Actor{By: "retention", Via: "worker"}
	err = q.Audit(ctx, Entry{Actor: who, Action: "discard", Target: p.target, Count: int64(len(p.ids)), IDs: p.ids, Detail: reason})
	if err != nil {
		return 0, err
	}
	for _, id := range p.ids {
		switch err := q.Discard(ctx, id, who, reason); {
		case err == nil:
			n++
		case errors.Is(err, ErrNotFound), errors.Is(err, ErrInHand):
		default:
			return n, err
		}
	}
	return n, nil
}

// String names the limits that are set.
func (r Retention) String() string {
	out := ""
	add := func(set bool, s string) {
		if set && out != "" {
			out += ", "
		}
		if set {
			out += s
		}
	}
	add(r.MaxAge > 0, "older than "+r.MaxAge.String())
	add(r.MaxBytes > 0, "beyond "+strconv.FormatInt(r.MaxBytes, 10)+" bytes")
	add(r.MaxLetters > 0, "beyond "+strconv.FormatInt(r.MaxLetters, 10)+" letters")
	return out
}
