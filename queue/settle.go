package queue

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"time"

	"crmsync/contact"
)

// Settle stores the end of updates of one contact and returns once that is
// durable: nil means that the updates will not be handed out again, by anyone.
// It repeats what fails for a reason that passes until ctx ends; after the
// context's error the settlement may have been stored, and calling Settle again
// with it is safe at any time. What has been settled before is passed over.
//
// ErrLost means that the target is not ours any more and nothing more may be
// done for it. Any other error is a settlement that breaks the rules of
// [contact.Settlement]; nothing was stored then.
//
// Settlements of different contacts may be stored at the same time, and are
// stored together where they come together. Those of one contact follow one
// another.
func (s *Source) Settle(ctx context.Context, st contact.Settlement) error {
	if len(st.Ended) == 0 {
		return fmt.Errorf("queue: settlement of %s: it ends no update", st.Contact)
	}
	if err := s.lost(); err != nil {
		return err
	}
	of, err := s.begin(ctx, st.Contact)
	if err != nil || of == nil {
		if err == nil && !s.ended(st.Ended) {
			err = fmt.Errorf("queue: settlement of %s: it ends an update that was not handed out", st.Contact)
		}
		return err
	}
	defer s.end(of)
	s.mu.Lock()
	rest, err := of.remaining(st)
	before := of.fence
	s.mu.Unlock()
	if err != nil || len(rest) == 0 {
		return err
	}
	parts := settlementParts(rest)
	for i, part := range parts {
		fence := before
		if i == len(parts)-1 {
			fence = st.Fence.Clone()
		}
		if err := s.store(ctx, of, part, fence); err != nil {
			return err
		}
	}
	return nil
}

// ended says that all of these updates lie among what has ended.
func (s *Source) ended(ended []contact.Ended) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, e := range ended {
		if !s.class[e.Update.Class].floor.done(e.Update.Seq) {
			return false
		}
	}
	return true
}

// begin waits for the contact's turn. It returns nil where nothing is known of
// the contact any more.
func (s *Source) begin(ctx context.Context, k contact.Key) (*standingOf, error) {
	for {
		s.mu.Lock()
		of := s.contacts[k.ID]
		if of == nil {
			s.mu.Unlock()
			return nil, nil
		}
		if of.busy == nil {
			of.busy = make(chan struct{})
			s.mu.Unlock()
			return of, nil
		}
		busy := of.busy
		s.mu.Unlock()
		select {
		case <-busy:
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-s.ctx.Done():
			return nil, s.lost()
		}
	}
}

func (s *Source) end(of *standingOf) {
	s.mu.Lock()
	defer s.mu.Unlock()
	close(of.busy)
	of.busy = nil
}

// remaining is the settlement without what has been settled before, checked: in
// each class it must be a prefix of what was handed out.
func (of *standingOf) remaining(st contact.Settlement) ([]contact.Ended, error) {
	var rest []contact.Ended
	var n [contact.Classes]int
	for _, e := range st.Ended {
		u := e.Update
		if u == nil || u.Contact != of.key || int(u.Class) >= contact.Classes {
			return nil, fmt.Errorf("queue: settlement of %s: it holds an update of another contact", of.key)
		}
		if e.Ending.Outcome == contact.Pending {
			return nil, fmt.Errorf("queue: settlement of %s: update %d has no outcome", of.key, u.Seq)
		}
		if u.Seq <= of.covers[u.Class] {
			continue
		}
		out := of.out[u.Class]
		if n[u.Class] >= len(out) || out[n[u.Class]].seq != u.Seq {
			return nil, fmt.Errorf("queue: settlement of %s: %s update %d is not the next of those that were handed out", of.key, u.Class, u.Seq)
		}
		n[u.Class]++
		rest = append(rest, e)
	}
	return rest, nil
}

// store stores one act.
func (s *Source) store(ctx context.Context, of *standingOf, part []contact.Ended, fence contact.Fence) error {
	for n := 0; ; n++ {
		if err := s.lost(); err != nil {
			return err
		}
		err := s.reload(ctx, of)
		if err == nil {
			s.mu.Lock()
			part = slices.DeleteFunc(slices.Clone(part), func(e contact.Ended) bool {
				return e.Update.Seq <= of.covers[e.Update.Class] || // by an attempt whose answer was lost
					s.letGoLocked(of, e.Update)
			})
			s.mu.Unlock()
			if len(part) == 0 {
				return nil
			}
			s.q.unmark(of.key, fence)
			err = s.try(ctx, of, part, fence)
		}
		switch code := apiErrorOf(err).ErrCode; {
		case err == nil:
			return nil
		case errors.Is(err, ErrLost), ctx.Err() != nil:
			return err
		case code == errWrongLast && n < 3:
			if e, err := s.q.letters.get(ctx, forgetKey+personKey(of.key)); err == nil {
				s.q.sawForgotten(e) // its records may have gone with the contact
			}
			continue
		}
		if n == 5 {
			s.q.log.Warn().Err(err).Str("target", s.target).Str("contact", of.key.ID).Msg("an outcome cannot be stored; trying on")
		}
		if !sleep(ctx, pause(n)) {
			return fmt.Errorf("queue: settle %s: %w (last: %w)", of.key, ctx.Err(), err)
		}
	}
}

// letGoLocked finishes an update of a forgotten contact without a record; false
// where it is none.
func (s *Source) letGoLocked(of *standingOf, u *contact.Update) bool {
	if !s.forgotten(u) {
		return false
	}
	r := s.class[u.Class]
	i := slices.IndexFunc(of.out[u.Class], func(h handed) bool { return h.seq == u.Seq })
	if i < 0 {
		return true
	}
	r.out--
	r.outBytes -= of.out[u.Class][i].size
	of.out[u.Class] = slices.Delete(of.out[u.Class], i, i+1)
	s.finishLocked(r, u.Seq)
	poke(r.kick)
	s.unpinLocked(of)
	return true
}

// try makes one attempt. Whatever it does not know afterwards it marks unsure.
func (s *Source) try(ctx context.Context, of *standingOf, part []contact.Ended, fence contact.Fence) error {
	s.mu.Lock()
	before := standing{covers: of.covers, fence: of.fence, owner: s.owner}
	rev := of.rev
	of.unsure = true
	s.mu.Unlock()
	after := standing{covers: covering(before.covers, part), fence: fence}
	c := &commit{done: make(chan result, 1), s: s, key: of.key}
	recs := records(of.key, part, before, after)
	for i, r := range recs {
		m, err := encodeRecord(r)
		if err != nil {
			return err
		}
		if i == 0 {
			// One condition for the whole act: it is checked before
			// anything of it is stored.
			m.Header.Set(headerLast, strconv.FormatUint(rev, 10))
			m.Header.Set(headerLastOf, contactFilter(of.key))
		}
		c.msgs = append(c.msgs, m)
		c.size += m.Size()
	}
	s.inflight.Add(1)
	select {
	case s.q.commits <- c:
	case <-ctx.Done():
		s.inflight.Add(-1)
		return ctx.Err()
	case <-s.ctx.Done():
		s.inflight.Add(-1)
		return s.lost()
	}
	select {
	case r := <-c.done:
		if r.err != nil {
			return r.err
		}
		s.mu.Lock()
		defer s.mu.Unlock()
		if of.own == 0 || of.own != rev {
			of.since = r.seq - uint64(len(recs)) + 1
		}
		of.rev, of.own, of.unsure = r.seq, r.seq, false
		of.settles++
		if of.settles%trimEach == 0 {
			s.trims = append(s.trims, of.key)
			poke(s.dirty)
		}
		s.settledLocked(of, after.covers, after.fence)
		s.endedLocked(of.key, recs, r.seq)
		return nil
	case <-ctx.Done():
		c.gone.Store(true)
		return ctx.Err()
	case <-s.ctx.Done():
		return s.lost()
	}
}

// settledLocked notes that a record with this watermark and fence is stored.
func (s *Source) settledLocked(of *standingOf, covers [contact.Classes]uint64, fence contact.Fence) {
	of.covers, of.fence = covers, fence
	for c, r := range s.class {
		out := of.out[c]
		n := 0
		for n < len(out) && out[n].seq <= covers[c] {
			r.out--
			r.outBytes -= out[n].size
			s.finishLocked(r, out[n].seq)
			n++
		}
		if n == 0 {
			continue
		}
		of.out[c] = out[n:]
		if n == len(out) {
			of.out[c] = nil
		}
		poke(r.kick)
		if s.begun[of.key.ID] != nil {
			poke(s.kicked)
		}
		for range n {
			s.unpinLocked(of)
		}
	}
}

// reload reads the contact's last record where it may have changed. One that
// goes further than what we know was either stored by us, and its answer was
// lost, or by someone else: then we are not the owner, or another one was still
// at work when we took over. In both cases what we hold in memory is not to be
// trusted.
func (s *Source) reload(ctx context.Context, of *standingOf) error {
	s.mu.Lock()
	unsure := of.unsure
	s.mu.Unlock()
	if !unsure {
		return nil
	}
	rev, st, err := s.q.lastRecord(ctx, of.key)
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	of.unsure = false
	of.rev = rev
	ahead := false
	for c := range st.covers {
		ahead = ahead || st.covers[c] > of.covers[c]
	}
	switch {
	case !ahead:
		// An old record expired, was trimmed, or an operator's record was
		// added: what we know still stands.
		return nil
	case st.owner != s.owner:
		s.fail(fmt.Errorf("%w: a record of contact %s was stored by another owner", ErrLost, of.key.ID))
		return s.lost()
	}
	s.settledLocked(of, st.covers, st.fence)
	s.unclear = true // redrives may have ended with it
	poke(s.kicked)
	return nil
}

// lastRecord reads the contact's last record from the leader: its sequence, 0
// for none, and where the contact stands.
func (q *Queue) lastRecord(ctx context.Context, k contact.Key) (uint64, standing, error) {
	m, err := q.get(ctx, outcomeStream, getRequest{Last: contactFilter(k)})
	if err != nil || m == nil {
		return 0, standing{}, err
	}
	st := standing{owner: m.Header.Get(headerOwner)}
	st.covers, err = parseCovers(m.Header.Get(headerCovers))
	if err != nil {
		// Not one of ours. It takes part in the condition and says nothing.
		q.log.Error().Err(err).Str("contact", k.String()).Uint64("seq", m.Seq).Msg("an outcome record cannot be read and counts as none")
		return m.Seq, standing{}, nil
	}
	var body struct {
		Fence contact.Fence `json:"fence"`
	}
	if err := json.Unmarshal(m.Data, &body); err != nil {
		q.log.Error().Err(err).Str("contact", k.String()).Uint64("seq", m.Seq).Msg("the fence of an outcome record cannot be read")
	}
	st.fence = body.Fence
	return m.Seq, st, nil
}

// close stops reading and purges for the last time. A lost source purges
// nothing: it is not its place.
func (s *Source) close(ctx context.Context) {
	graceful := s.lost() == nil
	for i := 0; graceful && s.inflight.Load() > 0 && i < 100; i++ {
		sleep(ctx, 20*time.Millisecond) // acts whose caller did not wait for them
	}
	s.q.listen(s, false)
	s.fail(ErrLost)
	s.wg.Wait()
	if graceful {
		s.finishEnds(ctx)
		_ = s.endBegun(ctx) // or it expires
		s.purge(ctx, true)
	}
}
