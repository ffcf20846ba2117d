package queue

import (
	"context"
	"errors"
	"slices"
	"testing"
	"time"

	"crmsync/contact"
)

// A settlement whose answer is lost is stored once, whether the caller waits or
// comes again.
func TestSettleAfterALostAnswer(t *testing.T) {
	t.Parallel()
	q := setUp(t, "office")
	for i := range 40 {
		publish(t, q, update("office", i%4, contact.Live, i))
	}
	slow := &link{}
	p := peerOf(t, q, slow)
	p.timeout = 200 * time.Millisecond
	s := own(t, p, "office").source(t)
	us := take(t, s, contact.Live, 40)
	for i, u := range us {
		if i%5 == 0 {
			slow.freeze()
			ctx, cancel := context.WithTimeout(t.Context(), 60*time.Millisecond)
			if err := s.Settle(ctx, settlement(contact.Applied, u)); !errors.Is(err, context.DeadlineExceeded) {
				t.Fatalf("settle without an answer: %v", err)
			}
			cancel()
			if i%10 == 0 {
				slow.thaw()
			} else {
				time.AfterFunc(300*time.Millisecond, slow.thaw) // after the request gave up
			}
		}
		settle(t, s, contact.Applied, u)
	}
	if got := allRecords(t, q, Filter{}); len(got) != 40 {
		t.Errorf("%d records for 40 settlements", len(got))
	}
	eventually(t, 2*time.Second, "purged", func() bool {
		info, err := q.info(t.Context(), "CRM_OFFICE_LIVE")
		return err == nil && info.State.Msgs == 0
	})
}

// Records that expire, are trimmed or added by an operator between two
// settlements of a contact change its revision and nothing else.
func TestRevisionChangesUnderTheOwner(t *testing.T) {
	q := setUp(t, "office")
	s := own(t, q, "office").source(t)
	step := func(o contact.Outcome, n int) {
		t.Helper()
		publish(t, q, update("office", 1, contact.Live, n))
		settle(t, s, o, take(t, s, contact.Live, 1)...)
	}
	step(contact.Applied, 1)
	if err := q.purge(t.Context(), outcomeStream, purgeRequest{Filter: "crm.outcome.office.>"}); err != nil {
		t.Fatal(err)
	}
	step(contact.Dead, 2)
	letter := allRecords(t, q, Filter{Outcome: contact.Dead})[0]
	if letter.Covers[contact.Live] != 2 {
		t.Errorf("covers %v", letter.Covers)
	}
	if err := q.Discard(t.Context(), letter.Seq, Actor{By: "op"}, "not wanted"); err != nil {
		t.Fatal(err)
	}
	if err := q.Discard(t.Context(), letter.Seq, Actor{By: "op"}, "not wanted"); !errors.Is(err, ErrNotFound) {
		t.Errorf("discarded twice: %v", err)
	}
	step(contact.Applied, 3)
	got := allRecords(t, q, Filter{})
	if len(got) != 2 || got[0].Outcome != contact.Discarded || got[0].Covers[contact.Live] != 2 || got[0].Updates[0].Seq != 2 || got[0].Original != nil || got[1].Covers[contact.Live] != 3 {
		t.Errorf("records %+v", got)
	}
	if err := q.Discard(t.Context(), got[1].Seq, Actor{}, ""); !errors.Is(err, ErrNotFound) {
		t.Errorf("discarded what is not dead: %v", err)
	}
}

func TestHotContactIsTrimmed(t *testing.T) {
	t.Parallel()
	q := setUp(t, "office")
	s := own(t, q, "office").source(t)
	for i := range 2 * trimEach {
		u := update("office", 1, contact.Live, i)
		if i%8 == 0 {
			u.Job = "j"
		}
		publish(t, q, u)
		o := contact.Applied
		if i%9 == 0 {
			o = contact.Dead
		}
		settle(t, s, o, take(t, s, contact.Live, 1)...)
	}
	var newest uint64
	eventually(t, 3*time.Second, "older records are gone", func() bool {
		n, dead, jobs := 0, 0, 0
		for _, r := range allRecords(t, q, Filter{}) {
			newest = max(newest, r.Covers[contact.Live])
			switch {
			case r.Outcome == contact.Dead:
				dead++
			case r.Job != "":
				jobs++
			default:
				n++
			}
		}
		if dead != 15 || jobs != 14 {
			t.Fatalf("%d dead letters of 15, %d records of the job of 14", dead, jobs)
		}
		return n == trimKeep
	})
	if newest != 2*trimEach {
		t.Errorf("the newest record covers %d", newest)
	}
}

// After settlements that were stored together each contact's revision is its
// own: no settlement has to be tried twice.
func TestRevisionsAfterAGroup(t *testing.T) {
	q := setUp(t, "office")
	s := own(t, q, "office").source(t)
	for i := range 60 {
		publish(t, q, update("office", i%20, contact.Live, i))
	}
	us := take(t, s, contact.Live, 60)
	var group []*commit
	acts := map[*commit]contact.Key{}
	for i := range 20 { // three updates of one contact: two records
		st := settlement(contact.Applied, us[i], us[i+20], us[i+40])
		st.Ended[1].Ending.Outcome = contact.Dead
		c := &commit{s: s, key: st.Contact, done: make(chan result, 1)}
		for _, r := range records(st.Contact, st.Ended, standing{owner: s.owner}, standing{covers: covering([2]uint64{}, st.Ended)}) {
			m, err := encodeRecord(r)
			if err != nil {
				t.Fatal(err)
			}
			c.msgs = append(c.msgs, m)
		}
		s.inflight.Add(1)
		group, acts[c] = append(group, c), st.Contact
	}
	q.commitAll(slices.Clone(group))
	for _, c := range group {
		r := <-c.done
		rev, _, err := q.lastRecord(t.Context(), acts[c])
		if r.err != nil || err != nil || r.seq != rev {
			t.Errorf("%s: revision %d is told, %d is stored; %v, %v", acts[c], r.seq, rev, r.err, err)
		}
	}
}

// Two acts of one contact with the same condition, as a caller leaves them that
// gave up and came again: only one may be stored, also when they are ready at the
// same time.
func TestActsOfOneContactDoNotShareABatch(t *testing.T) {
	q := setUp(t, "office")
	publish(t, q, update("office", 1, contact.Live, 1), update("office", 2, contact.Live, 2))
	s := own(t, q, "office").source(t)
	us := take(t, s, contact.Live, 2)
	free := &Queue{commits: make(chan *commit, 10)} // its committers do not run
	act := func(u *contact.Update) *commit {
		st := settlement(contact.Applied, u)
		c := &commit{s: s, key: st.Contact, done: make(chan result, 1)}
		for _, r := range records(st.Contact, st.Ended, standing{owner: s.owner}, standing{covers: [2]uint64{u.Seq, 0}}) {
			m, err := encodeRecord(r)
			if err != nil {
				t.Fatal(err)
			}
			m.Header.Set(headerLast, "0")
			m.Header.Set(headerLastOf, contactFilter(st.Contact))
			c.msgs = append(c.msgs, m)
		}
		s.inflight.Add(1)
		return c
	}
	first, other, again := act(us[0]), act(us[1]), act(us[0])
	free.commits <- other
	free.commits <- again
	group, held := free.gather(first)
	if !slices.Equal(group, []*commit{first, other}) || held != again {
		t.Errorf("%d acts share a batch", len(group))
	}
	q.commitAll(group)
	q.commitAll([]*commit{again})
	if r := <-again.done; apiErrorOf(r.err).ErrCode != errWrongLast {
		t.Errorf("the second act: %+v", r)
	}
	if got := allRecords(t, q, Filter{}); len(got) != 2 {
		t.Errorf("%d records", len(got))
	}
	given := act(us[1])
	given.gone.Store(true)
	q.commitAll([]*commit{given})
	if r := <-given.done; r.err == nil {
		t.Error("stored though nobody waits")
	}
}
