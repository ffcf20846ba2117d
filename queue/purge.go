package queue

import (
	"context"
	"time"

	"crmsync/contact"
)

const (
	purgeEach = 5000 // updates
	// A purge that empties a stream has the server make new folders, and any purge has
	// it write down all subjects that are left: 33 MB for a million. What else is
	// written waits for that. So a steady trickle is purged rarely, what comes to rest
	// at once, and a stream less often the more is in it.
	purgeRest = 200 * time.Millisecond
	purgeMost = time.Second
	spareEach = 30 * time.Microsecond // for each subject that is left
	spareMost = 30 * time.Second
	trimEach  = 64 // settlements of one contact
	trimKeep  = 16 // records of each outcome that stay then
)

// purgeAll lets the streams forget what has ended: once nothing else has ended for
// a moment, and some time after the first of it at the latest.
func (s *Source) purgeAll() {
	rest, most, later := time.NewTimer(0), time.NewTimer(0), time.NewTimer(0)
	defer rest.Stop()
	defer most.Stop()
	defer later.Stop()
	for {
		select {
		case <-s.dirty:
			s.gatherEnds(rest, most)
		case <-later.C:
		case <-s.ctx.Done():
			return
		}
		if wait := s.purge(s.ctx, false); wait > 0 {
			later.Reset(wait)
		}
		s.trim(s.ctx)
	}
}

// gatherEnds waits while updates end, for so long as a purge may be put off.
func (s *Source) gatherEnds(rest, most *time.Timer) {
	most.Reset(purgeMost)
	for {
		rest.Reset(purgeRest)
		select {
		case <-s.dirty:
		case <-rest.C:
			return
		case <-most.C:
			return
		case <-s.hurry:
			return
		case <-s.ctx.Done():
			return
		}
	}
}

// purge removes from the streams what has ended without a gap. A purge that
// comes late, even from a former owner, names only what a record covers. Unless all
// is to go it spares a full stream that was purged lately, and says for how long yet.
func (s *Source) purge(ctx context.Context, all bool) (wait time.Duration) {
	for _, r := range s.class {
		s.mu.Lock()
		to := r.floor.at
		due, spared := to > r.purged, time.Until(r.spared)
		s.mu.Unlock()
		if !due {
			continue
		}
		if spared > 0 && !all {
			if wait == 0 || spared < wait {
				wait = spared
			}
			continue
		}
		if err := s.q.purge(ctx, r.stream, purgeRequest{Seq: to + 1}); err != nil {
			poke(s.dirty)
			continue
		}
		spared = 0
		if info, err := s.q.info(ctx, r.stream); err == nil {
			spared = min(time.Duration(info.State.NumSubjects)*spareEach, spareMost)
		}
		s.mu.Lock()
		r.purged, r.spared = max(r.purged, to), time.Now().Add(spared)
		s.mu.Unlock()
	}
	return wait
}

// trim removes older records of contacts that settle often: of each outcome the
// newest stay, and so the contact's newest. Dead letters and records of jobs are
// not touched.
func (s *Source) trim(ctx context.Context) {
	s.mu.Lock()
	keys := s.trims
	s.trims = nil
	s.mu.Unlock()
	for _, k := range keys {
		if s.q.anyClaim(ctx, k) {
			continue // a record may be all that says how a redrive ended
		}
		for _, o := range []contact.Outcome{contact.Applied, contact.Unchanged, contact.Superseded, contact.Cancelled} {
			_ = s.q.purge(ctx, outcomeStream, purgeRequest{Filter: outcomeSubject(k, o, ""), Keep: trimKeep}) // done again 64 settlements later
		}
	}
}

type purgeRequest struct {
	Seq    uint64 `json:"seq,omitempty"`
	Filter string `json:"filter,omitempty"`
	Keep   uint64 `json:"keep,omitempty"`
}

func (q *Queue) purge(ctx context.Context, stream string, r purgeRequest) error {
	return q.ask(ctx, "STREAM.PURGE."+stream, r, nil)
}
