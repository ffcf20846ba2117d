package queue

import (
	"context"
	"errors"
	"slices"
	"strconv"
	"strings"
	"time"

	"crmsync/contact"
)

// tendEach is how often the owner looks for what others have left undone.
const tendEach = 30 * time.Second

// tend looks after the target's letters while it is ours: it removes those whose
// redrives ended, and finishes redrives, discards and forgettings that were cut
// short.
func (s *Source) tend() {
	t := time.NewTimer(0)
	defer t.Stop()
	told := false
	for n := 0; ; {
		select {
		case <-s.kicked:
			sleep(s.ctx, finishWait) // what ends together is removed together
		case <-t.C:
			s.mu.Lock()
			s.unclear = true
			s.mu.Unlock()
			t.Reset(tendEach)
		case <-s.ctx.Done():
			return
		}
		err := s.finishEnds(s.ctx)
		if err == nil {
			err = s.endBegun(s.ctx)
		}
		if err == nil {
			err = s.mendAll(s.ctx)
		}
		switch {
		case err == nil:
			n, told = 0, false
			continue
		case s.ctx.Err() != nil:
			return
		case n == 5 && !told:
			s.q.log.Warn().Err(err).Str("target", s.target).Msg("letters cannot be looked after; trying on")
			told = true
		}
		n++
		sleep(s.ctx, pause(n))
		poke(s.kicked)
	}
}

// mendAll does what is done from time to time.
func (s *Source) mendAll(ctx context.Context) error {
	s.mu.Lock()
	due := s.unclear
	s.unclear = false
	s.mu.Unlock()
	if !due {
		return nil
	}
	err := s.q.finishForgets(ctx, s.target, time.Now())
	if err == nil {
		err = s.q.mend(ctx, s.target, time.Now())
	}
	if err != nil {
		s.mu.Lock()
		s.unclear = true
		s.mu.Unlock()
	}
	return err
}

// endedLocked notes the ends of redrives among the records of an act, of which
// the last has this sequence.
func (s *Source) endedLocked(k contact.Key, recs []*Record, last uint64) {
	first := last - uint64(len(recs)) + 1
	for i, r := range recs {
		letter, err := strconv.ParseUint(r.RedriveOf, 10, 64)
		if err != nil || len(r.Updates) != 1 {
			continue // no redrive, or one that somebody made by hand
		}
		s.ends = append(s.ends, end{letter: letter, key: k, msgID: r.Updates[0].MsgID, outcome: r.Outcome, record: first + uint64(i)})
		poke(s.kicked)
	}
}

const (
	finishMost = 200 // letters are removed together at most
	finishWait = 200 * time.Millisecond
)

// finishEnds removes the letters of redrives that have ended.
func (s *Source) finishEnds(ctx context.Context) error {
	for {
		s.mu.Lock()
		n := min(len(s.ends), finishMost)
		some := s.ends[:n:n]
		s.ends = s.ends[n:]
		s.mu.Unlock()
		if n == 0 {
			return nil
		}
		slices.SortStableFunc(some, func(a, b end) int { return strings.Compare(a.key.ID, b.key.ID) }) // whatever ended first
		errs := s.finishAll(ctx, some)
		if err := errors.Join(errs...); err != nil {
			s.mu.Lock()
			for i, e := range some {
				if errs[i] != nil {
					s.ends = append(s.ends, e)
				}
			}
			s.mu.Unlock()
			return err
		}
	}
}

// anyClaim says whether letters of a contact are in somebody's hands, or may be.
func (q *Queue) anyClaim(ctx context.Context, k contact.Key) bool {
	found := false
	err := q.scan(ctx, q.letters.stream(), q.letters.subject(claimKey+personKey(k)+".*"), 0, func(m *stored) error {
		if found = m.Header.Get(kvOperation) == ""; found {
			return errEnough
		}
		return nil
	})
	return found || err != nil
}
