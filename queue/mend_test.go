package queue

import (
	"fmt"
	"testing"
	"time"

	"crmsync/contact"
)

// Whoever comes next ends what was cut short between any two steps.
func TestRedrivesThatWereCutShort(t *testing.T) {
	t.Parallel()
	cases := []struct {
		name string
		upTo func(t *testing.T, q *Queue, letter *Record, c *Claim)
		want contact.Outcome // of the letter's update in the end; Pending: it is a plain letter again
	}{
		{"claimed and not published", func(*testing.T, *Queue, *Record, *Claim) {}, contact.Applied},
		{"published and not ended", func(t *testing.T, q *Queue, letter *Record, c *Claim) {
			if _, err := q.send(t.Context(), letter, c, time.Now()); err != nil {
				t.Fatal(err)
			}
		}, contact.Applied},
		{"ended and not removed", func(t *testing.T, q *Queue, letter *Record, c *Claim) {
			if _, err := q.send(t.Context(), letter, c, time.Now()); err != nil {
				t.Fatal(err)
			}
			s := own(t, q, "office")
			src := s.source(t)
			settle(t, src, contact.Applied, take(t, src, contact.Bulk, 1)...)
			src.mu.Lock()
			src.ends = nil // as if the process had stopped here
			src.mu.Unlock()
			s.end(t)
		}, contact.Applied},
		{"the discarded record is stored and the letter not erased", func(t *testing.T, q *Queue, letter *Record, c *Claim) {
			if _, err := q.send(t.Context(), letter, c, time.Now()); err != nil {
				t.Fatal(err)
			}
			s := own(t, q, "office")
			src := s.source(t)
			settle(t, src, contact.Applied, take(t, src, contact.Bulk, 1)...)
			src.mu.Lock()
			src.ends = nil
			src.mu.Unlock()
			s.end(t)
			r := *letter
			r.Outcome, r.Letter, r.Original, r.OriginalHeader = contact.Discarded, letter.Seq, nil, nil
			if err := q.discardOnce(t.Context(), contact.Key{Target: "office", ID: "7"}, &r); err != nil {
				t.Fatal(err)
			}
		}, contact.Applied},
		{"the letter is erased and the claim stays", func(t *testing.T, q *Queue, letter *Record, c *Claim) {
			if err := q.discard(t.Context(), letter.Seq, "x", false); err != nil {
				t.Fatal(err)
			}
		}, contact.Discarded},
		{"a discard that was claimed", func(t *testing.T, q *Queue, letter *Record, c *Claim) {
			if err := q.drop(t.Context(), c); err != nil {
				t.Fatal(err)
			}
			c.Discard = "not wanted"
			if err := q.take(t.Context(), c); err != nil {
				t.Fatal(err)
			}
		}, contact.Discarded},
		{"a discard whose letter is gone and whose claim stays", func(t *testing.T, q *Queue, letter *Record, c *Claim) {
			if err := q.drop(t.Context(), c); err != nil {
				t.Fatal(err)
			}
			if _, err := q.EditLetter(t.Context(), letter.Seq, alice, []byte(`{"fields":{"a":"2"}}`), 0, nil); err != nil {
				t.Fatal(err)
			}
			c.Discard = "not wanted"
			if err := q.take(t.Context(), c); err != nil {
				t.Fatal(err)
			}
			if err := q.discard(t.Context(), letter.Seq, "not wanted", false); err != nil {
				t.Fatal(err)
			}
		}, contact.Discarded},
		{"claimed by an operation that was cancelled", func(t *testing.T, q *Queue, letter *Record, c *Claim) {
			q.ended[c.Operation] = true
		}, contact.Pending},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			q := setUp(t, "office")
			l := dead(t, q, fields("office", "7", contact.Live, `{"a":"1"}`))[0]
			claim, err := q.prepare(t.Context(), &l.Record, RedriveOptions{Actor: alice, operation: "op1"})
			if err != nil {
				t.Fatal(err)
			}
			if err := q.take(t.Context(), claim); err != nil {
				t.Fatal(err)
			}
			c.upTo(t, q, &l.Record, claim)
			// Too early nothing is touched: its maker may be at work.
			if err := q.mend(t.Context(), "office", time.Now()); err != nil {
				t.Fatal(err)
			}
			if there, err := q.claimOf(t.Context(), contact.Key{Target: "office", ID: "7"}, l.Seq); err != nil || there == nil {
				t.Fatalf("claim %v %v", there, err)
			}
			crm := newCRM()
			crm.serve(t, q, "office")
			for range 2 { // twice: it may be repeated
				if err := q.mend(t.Context(), "office", time.Now().Add(mendAfter+time.Second)); err != nil {
					t.Fatal(err)
				}
				settled(t, q, "office")
			}
			got := map[contact.Outcome]int{}
			for _, r := range allRecords(t, q, Filter{Target: "office"}) {
				got[r.Outcome]++
			}
			want := map[contact.Outcome]int{contact.Applied: 1, contact.Discarded: 1}
			switch c.want {
			case contact.Discarded:
				want = map[contact.Outcome]int{contact.Discarded: 1}
			case contact.Pending:
				want = map[contact.Outcome]int{contact.Dead: 1}
			}
			if fmt.Sprint(got) != fmt.Sprint(want) {
				t.Errorf("records %v, want %v", got, want)
			}
			if there, err := q.claimOf(t.Context(), contact.Key{Target: "office", ID: "7"}, l.Seq); err != nil || there != nil {
				t.Errorf("claim %v %v", there, err)
			}
			if e, err := q.Edited(t.Context(), &l.Record); err != nil || e != nil {
				t.Errorf("edit %v %v", e, err)
			}
			if n := crm.applied; n > 1 {
				t.Errorf("applied %d times", n)
			}
		})
	}
}

func TestTheOwnerMendsWhenItStarts(t *testing.T) {
	t.Parallel()
	q := setUp(t, "office")
	l := dead(t, q, fields("office", "7", contact.Live, `{"a":"1"}`))[0]
	claim, err := q.prepare(t.Context(), &l.Record, RedriveOptions{Actor: alice})
	if err != nil {
		t.Fatal(err)
	}
	if err := q.take(t.Context(), claim); err != nil {
		t.Fatal(err)
	}
	q.mendAfter = 0
	crm := newCRM()
	crm.serve(t, q, "office")
	settled(t, q, "office")
	if crm.get("office", "7")["a"] != `"1"` || len(letters(t, q, Filter{})) != 0 {
		t.Error("the letter was not sent")
	}
}
