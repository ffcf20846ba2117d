package queue

import (
	"context"
	"time"

	"crmsync/contact"
)

const (
	purgeEach = 5000 // updates
	// A purge that empties a stream has the server make new folders, which everything
	// else that is written waits for. So a steady trickle is purged rarely, and what
	// comes to rest at once.
	purgeRest = 200 * time.Millisecond
	purgeMost = time.Second
	trimEach  = 64 // settlements of one contact
	trimKeep  = 16 // records of each outcome that stay then
)

// purgeAll lets the streams forget what has ended: once nothing else has ended for
// a moment, and some time after the first of it at the latest.
func (s *Source) purgeAll() {
	rest, most := time.NewTimer(0), time.NewTimer(0)
	defer rest.Stop()
	defer most.Stop()
	for {
		select {
		case <-s.dirty:
		case <-s.ctx.Done():
			return
		}
		most.Reset(purgeMost)
		for due := false; !due; {
			rest.Reset(purgeRest)
			select {
			case <-s.dirty:
				continue
			case <-rest.C:
			case <-most.C:
			case <-s.hurry:
			case <-s.ctx.Done():
				return
			}
			due = true
		}
		s.purge(s.ctx)
		s.trim(s.ctx)
	}
}

// purge removes from the streams what has ended without a gap. A purge that
// comes late, even from a former owner, names only what a record covers.
func (s *Source) purge(ctx context.Context) {
	for _, r := range s.class {
		s.mu.Lock()
		to := r.floor.at
		due := to > r.purged
		s.mu.Unlock()
		if !due {
			continue
		}
		if err := s.q.purge(ctx, r.stream, purgeRequest{Seq: to + 1}); err != nil {
			poke(s.dirty)
			continue
		}
		s.mu.Lock()
		r.purged = max(r.purged, to)
		s.mu.Unlock()
	}
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
