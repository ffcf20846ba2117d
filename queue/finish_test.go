package queue

import (
	"testing"
	"time"

	"crmsync/contact"
)

// endOfRedrive has a redrive of contact 7's letter end, and takes its end from the
// owner, who then removes nothing by itself.
func endOfRedrive(t *testing.T, q *Queue, s *Source) end {
	t.Helper()
	l := dead1(t, q, s)
	redrive(t, q, l, RedriveOptions{})
	s.mu.Lock()
	s.ends = nil
	s.mu.Unlock()
	settle(t, s, contact.Applied, take(t, s, contact.Bulk, 1)...)
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.ends) != 1 {
		t.Fatalf("ends %+v", s.ends)
	}
	e := s.ends[0]
	s.ends = nil
	return e
}

// dead1 has an update of contact 7 die, and returns its letter.
func dead1(t *testing.T, q *Queue, s *Source) uint64 {
	t.Helper()
	publish(t, q, fields("office", "7", contact.Live, `{"n":1}`))
	u := take(t, s, contact.Live, 1)[0]
	settleDead(t, s, u)
	return letterOf(t, q, contact.Ref{ID: "7", Class: contact.Live, Seq: u.Seq})
}

// The record that takes a letter's place is stored once, whoever else is at work on
// the contact between any two steps.
func TestALetterIsReplacedOnce(t *testing.T) {
	discardedBy := func(t *testing.T, q *Queue, e end) {
		t.Helper()
		letter, err := q.deadLetter(t.Context(), e.letter)
		if err != nil {
			t.Fatal(err)
		}
		if err := q.discardOnce(t.Context(), e.key, discarded(&letter, "by somebody else", false, standing{})); err != nil {
			t.Fatal(err)
		}
	}
	newer := func(t *testing.T, q *Queue, s *Source) {
		t.Helper()
		publish(t, q, fields("office", "7", contact.Live, `{"n":2}`))
		settle(t, s, contact.Applied, take(t, s, contact.Live, 1)...)
	}
	cases := []struct {
		name    string
		between func(t *testing.T, q *Queue, s *Source, e end)
	}{
		{"nobody", func(*testing.T, *Queue, *Source, end) {}},
		{"the contact has gone on", func(t *testing.T, q *Queue, s *Source, _ end) { newer(t, q, s) }},
		{"somebody stored the record and died", func(t *testing.T, q *Queue, _ *Source, e end) { discardedBy(t, q, e) }},
		{"somebody stored the record and died, and the contact has gone on", func(t *testing.T, q *Queue, s *Source, e end) {
			discardedBy(t, q, e)
			newer(t, q, s)
		}},
		{"somebody removed the letter", func(t *testing.T, q *Queue, _ *Source, e end) {
			if err := q.discard(t.Context(), e.letter, "by somebody else", false); err != nil {
				t.Fatal(err)
			}
		}},
		{"somebody was quicker with all of it", func(t *testing.T, q *Queue, _ *Source, e end) {
			if err := q.finish(t.Context(), e); err != nil {
				t.Fatal(err)
			}
		}},
		{"the owner knows nothing of the contact any more", func(t *testing.T, q *Queue, s *Source, _ end) {
			s.mu.Lock()
			defer s.mu.Unlock()
			delete(s.contacts, "7")
		}},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			q := setUp(t, "office")
			s := own(t, q, "office").source(t)
			e := endOfRedrive(t, q, s)
			c.between(t, q, s, e)
			for range 2 { // it may be repeated
				if errs := s.finishAll(t.Context(), []end{e}); errs[0] != nil {
					t.Fatal(errs)
				}
			}
			if got := byOutcome(t, q); got[contact.Discarded] != 1 || got[contact.Dead] != 0 || claimedBy(t, q, "") != 0 {
				t.Errorf("records %v, %d claims", got, claimedBy(t, q, ""))
			}
			// And the contact goes on, without a fence that was lost on the way.
			newer(t, q, s)
			if f := s.Fence("7"); len(f) != 1 {
				t.Errorf("fence %v", f)
			}
		})
	}
}

// The answer to the record that takes a letter's place is lost.
func TestALetterIsReplacedOnceThoughTheAnswerIsLost(t *testing.T) {
	q := setUp(t, "office")
	l := &link{}
	s := own(t, peerOf(t, q, l), "office").source(t)
	e := endOfRedrive(t, q, s)
	ends := []end{e}
	l.freezeAt(headerLetter)
	thawWhen(t, l, func() bool { return byOutcome(t, q)[contact.Discarded] > 0 })
	if errs := s.finishAll(t.Context(), ends); errs[0] == nil || !ends[0].tried {
		t.Errorf("the answer was not lost: %+v %v", ends, errs)
	}
	eventually(t, 10*time.Second, "it is ended", func() bool { return s.finishAll(t.Context(), ends)[0] == nil })
	if got := byOutcome(t, q); got[contact.Discarded] != 1 || got[contact.Dead] != 0 || claimedBy(t, q, "") != 0 {
		t.Errorf("records %v, %d claims", got, claimedBy(t, q, ""))
	}
}

// The letters of one contact whose redrives ended together are removed one after
// another, so that none stands in another's way.
func TestLettersOfOneContactEndTogether(t *testing.T) {
	q := setUp(t, "office")
	s := own(t, q, "office").source(t)
	var sent []uint64
	for range together {
		l := dead1(t, q, s)
		sent = append(sent, l)
		redrive(t, q, l, RedriveOptions{})
	}
	settle(t, s, contact.Applied, take(t, s, contact.Bulk, together)...)
	settled(t, q, "office")
	at := map[uint64]uint64{}
	for _, r := range allRecords(t, q, Filter{Outcome: contact.Discarded}) {
		if at[r.Letter] != 0 {
			t.Errorf("letter %d is replaced by records %d and %d", r.Letter, at[r.Letter], r.Seq)
		}
		at[r.Letter] = r.Seq
	}
	for i, l := range sent {
		if at[l] == 0 || i > 0 && at[l] < at[sent[i-1]] {
			t.Errorf("letter %d is replaced by record %d, out of turn", l, at[l])
		}
	}
}
