package queue

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"crmsync/contact"
)

// Letters calls yield for each dead letter that the filter chooses, as it stands
// at that moment, oldest first or with Newest newest first. A page of the newest
// costs the same however many there are. Where reason, status, field or
// fingerprint choose, the headers of those that are passed over are read as well,
// about 100,000 a second, and where match does, the letters themselves.
func (q *Queue) Letters(ctx context.Context, f Filter, yield func(Letter) error) error {
	f.Outcome = contact.Dead
	stand := q.standing
	if f.Limit <= 0 || f.Limit > maxLookUps {
		var err error
		if stand, err = q.standings(ctx, f.Target); err != nil {
			return fmt.Errorf("queue: list letters: %w", err)
		}
	}
	each := func(r Record) error {
		l, err := stand(ctx, r)
		if err != nil {
			return err
		}
		return yield(l)
	}
	if f.needsBodies() {
		return q.Records(ctx, f, each)
	}
	limit, n := f.Limit, 0
	f.Limit = 0 // only what is still there counts
	return q.choose(ctx, f, func(h letterHead) error {
		r, err := q.deadLetter(ctx, h.id)
		if errors.Is(err, ErrNotFound) {
			return nil // it went meanwhile
		}
		if err == nil {
			err = each(r)
		}
		if n++; err == nil && limit > 0 && n >= limit {
			return errEnough
		}
		return err
	})
}

// maxLookUps is up to how many letters of a page are looked up one by one; for
// more, all marks of the target are read at once.
const maxLookUps = 100

// standing is a letter as it stands.
func (q *Queue) standing(ctx context.Context, r Record) (Letter, error) {
	l := Letter{Record: r}
	c, err := q.claimOf(ctx, contact.Key{Target: r.Target, ID: r.Contact}, r.Seq)
	if err != nil {
		return Letter{}, err
	}
	l.hold(c)
	l.Edit, err = q.Edited(ctx, &r)
	return l, err
}

// standings is standing for many letters of a target, "" for all.
func (q *Queue) standings(ctx context.Context, target string) (func(context.Context, Record) (Letter, error), error) {
	claims := map[uint64]*Claim{}
	edited := map[uint64]bool{}
	if err := q.claims(ctx, target, func(c *Claim) error { claims[c.Letter] = c; return nil }); err != nil {
		return nil, err
	}
	if err := q.editedLetters(ctx, target, edited); err != nil {
		return nil, err
	}
	return func(ctx context.Context, r Record) (l Letter, err error) {
		l.Record = r
		l.hold(claims[r.Seq])
		if edited[r.Seq] {
			l.Edit, err = q.Edited(ctx, &r)
		}
		return l, err
	}, nil
}

// Letter reads one dead letter as it stands; the error wraps ErrNotFound where
// there is none.
func (q *Queue) Letter(ctx context.Context, id uint64) (Letter, error) {
	r, err := q.deadLetter(ctx, id)
	if err != nil {
		return Letter{}, err
	}
	return q.standing(ctx, r)
}

func (l *Letter) hold(c *Claim) {
	if l.Claim = c; c == nil {
		return
	}
	l.State = LetterRedriven
	if c.Discard != "" {
		l.State = LetterLeaving
	}
}

func (q *Queue) editedLetters(ctx context.Context, target string, into map[uint64]bool) error {
	match := editKey + ">"
	if target != "" {
		match = editKey + target + ".>"
	}
	cfg := jetstream.ConsumerConfig{DeliverPolicy: jetstream.DeliverLastPerSubjectPolicy, FilterSubject: q.letters.subject(match), HeadersOnly: true}
	return q.follow(ctx, q.letters.stream(), cfg, false, func(m inMsg) error {
		if id, ok := lastNumber(m.subject); ok && m.header.Get(kvOperation) == "" {
			into[id] = true
		}
		return nil
	})
}

// needsHeads says that what the server chooses must be looked at.
func (f Filter) needsHeads() bool {
	return f.Reason != contact.NoReason || f.Status != 0 || f.Field != "" || f.Fingerprint != "" || f.Match != ""
}

// needsBodies says that headers do not suffice to choose.
func (f Filter) needsBodies() bool { return f.Match != "" }

// choose calls yield for each dead letter that the filter chooses, by its
// headers where they suffice.
func (q *Queue) choose(ctx context.Context, f Filter, yield func(letterHead) error) error {
	if f.needsBodies() || !f.letters() {
		return q.Records(ctx, f, func(r Record) error {
			return yield(letterHead{id: r.Seq, at: r.Time, key: contact.Key{Target: r.Target, ID: r.Contact}, cause: r.Cause(), print: r.Cause().Fingerprint()})
		})
	}
	cfg, err := f.config()
	if err != nil {
		return err
	}
	cfg.HeadersOnly = true
	n := 0
	each := func(h letterHead) error {
		if err := yield(h); err != nil {
			return err
		}
		if n++; f.Limit > 0 && n >= f.Limit {
			return errEnough
		}
		return nil
	}
	read := func(m inMsg) (letterHead, bool, error) {
		h, err := q.head(ctx, m)
		return h, err == nil && f.admitsHead(&h), err
	}
	if f.Newest {
		err = backwards(ctx, q, f, true, read, each)
	} else {
		err = q.follow(ctx, outcomeStream, cfg, false, func(m inMsg) error {
			if !f.Until.IsZero() && !m.time.Before(f.Until) {
				return errEnough
			}
			h, ok, err := read(m)
			if err != nil || !ok {
				return err
			}
			return each(h)
		})
	}
	if errors.Is(err, errEnough) {
		return nil
	}
	return err
}

// head reads a letter's headers, and the letter itself where a version stored it
// that did not keep them.
func (q *Queue) head(ctx context.Context, m inMsg) (letterHead, error) {
	h, err := headOf(m)
	if err != nil || !h.legacy {
		return h, err
	}
	r, err := q.Record(ctx, m.seq)
	if errors.Is(err, ErrNotFound) {
		return h, nil
	}
	h.cause = r.Cause()
	h.print = h.cause.Fingerprint()
	return h, err
}

func (f Filter) admitsHead(h *letterHead) bool {
	return (f.Reason == contact.NoReason || h.cause.Reason == f.Reason) && (f.Status == 0 || h.cause.Status == f.Status) &&
		(f.Field == "" || h.cause.Field == f.Field) && (f.Fingerprint == "" || h.print == f.Fingerprint) &&
		!h.at.Before(f.Since) && (f.Until.IsZero() || h.at.Before(f.Until))
}

// Bounds of one step backwards: a reading goes forward only, so the stream is
// read in pieces from its end.
const (
	pieceKeep = 256 // of what was chosen in a piece
	pieceFull = 32  // the same with bodies
	firstSpan = 512 // sequences
)

// backwards calls each for what read admits among the messages that the filter's
// subject chooses, newest first. Little is held at a time; pieces grow while
// there is little in them, so that all is read about once where nothing is
// chosen.
func backwards[T any](ctx context.Context, q *Queue, f Filter, headersOnly bool, read func(inMsg) (T, bool, error), each func(T) error) error {
	first, hi, err := q.bounds(ctx, f)
	if err != nil {
		return err
	}
	keep := pieceFull
	if headersOnly {
		keep = pieceKeep
	}
	cfg := jetstream.ConsumerConfig{FilterSubject: f.subject(), HeadersOnly: headersOnly, DeliverPolicy: jetstream.DeliverByStartSequencePolicy}
	for span := uint64(firstSpan); hi >= first; {
		cfg.OptStartSeq = first
		if hi-first >= span {
			cfg.OptStartSeq = hi - span + 1
		}
		p := piece[T]{hi: hi, keep: keep}
		err := q.follow(ctx, outcomeStream, cfg, false, func(m inMsg) error { return p.add(m, read) })
		if err != nil && !errors.Is(err, errEnough) {
			return err
		}
		held := p.held[max(0, len(p.held)-keep):]
		for _, h := range slices.Backward(held) {
			if err := each(h.value); err != nil {
				return err
			}
		}
		switch {
		case p.cut || len(held) < len(p.held):
			hi = held[0].seq - 1
			span = max(span/4, firstSpan)
			continue
		case len(held) < keep/2:
			span *= 2
		}
		hi = cfg.OptStartSeq - 1
	}
	return nil
}

// piece is what was chosen between a start and hi: the last of it, at least keep
// where there is as much.
type piece[T any] struct {
	hi   uint64
	keep int
	held []chosenAt[T]
	cut  bool // there was more
}

type chosenAt[T any] struct {
	seq   uint64
	value T
}

func (p *piece[T]) add(m inMsg, read func(inMsg) (T, bool, error)) error {
	if m.seq > p.hi {
		return errEnough
	}
	v, ok, err := read(m)
	if err != nil || !ok {
		return err
	}
	if len(p.held) == 2*p.keep {
		p.cut = true
		p.held = slices.Delete(p.held, 0, p.keep)
	}
	p.held = append(p.held, chosenAt[T]{m.seq, v})
	return nil
}

// bounds are the first and the last sequence that a filter can choose.
func (q *Queue) bounds(ctx context.Context, f Filter) (first, last uint64, err error) {
	info, err := q.info(ctx, outcomeStream)
	if err != nil {
		return 0, 0, err
	}
	first, last = max(info.State.FirstSeq, 1), info.State.LastSeq
	if f.After > 0 {
		last = min(last, f.After-1)
	}
	if !f.Until.IsZero() {
		if last, err = q.beforeTime(ctx, f.Until, last); err != nil {
			return 0, 0, err
		}
	}
	if !f.Since.IsZero() {
		before, err := q.beforeTime(ctx, f.Since, last)
		if err != nil {
			return 0, 0, err
		}
		first = max(first, before+1)
	}
	return first, last, nil
}

// beforeTime is the last sequence up to hi of what was stored before an instant,
// or 0.
func (q *Queue) beforeTime(ctx context.Context, at time.Time, hi uint64) (uint64, error) {
	last := hi
	cfg := jetstream.ConsumerConfig{DeliverPolicy: jetstream.DeliverByStartTimePolicy, OptStartTime: &at, HeadersOnly: true}
	err := q.follow(ctx, outcomeStream, cfg, false, func(m inMsg) error {
		last = min(hi, m.seq-1)
		return errEnough
	})
	if err != nil && !errors.Is(err, errEnough) {
		return 0, err
	}
	return last, nil
}
