package queue

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"strconv"
	"testing"
	"time"

	"crmsync/contact"
)

// TestLettersAgainstAModel publishes, lets die, edits, sends again, cancels,
// forces nothing, and changes owners at random; in the end everything was sent
// once more with a CRM that takes all. Then no write ever went over a newer one,
// each contact holds what its newest updates say, and every update has exactly
// one ending.
func TestLettersAgainstAModel(t *testing.T) {
	t.Parallel()
	seed := rand.Uint64()
	t.Log("seed", seed)
	r := rand.New(rand.NewPCG(seed, 2))
	q := setUp(t, "office")
	q.mendAfter = 0
	c := newCRM()
	sick := map[string]bool{}
	c.refuse = func(u *contact.Update) bool { return sick[u.Contact.ID] }
	type written struct {
		place contact.Place
		value map[string]string
	}
	byPlace := map[string]*written{} // contact and place of the original
	var all []*written
	owners := map[*written]string{}
	stop := c.serve(t, q, "office")
	n := 0
	for range 220 {
		id := strconv.Itoa(r.IntN(6))
		switch r.IntN(12) {
		case 0, 1, 2, 3, 4:
			n++
			w := &written{value: map[string]string{}}
			body := ""
			for _, f := range []string{"a", "b", "c"}[:1+r.IntN(3)] {
				w.value[f] = fmt.Sprintf(`"%d"`, n)
				body += fmt.Sprintf(`,%q:"%d"`, f, n)
			}
			u := fields("office", id, contact.Class(r.IntN(2)), "{"+body[1:]+"}")
			publish(t, q, u)
			w.place = contact.Place{Class: u.Class, Seq: u.Seq}
			byPlace[placeKey(id, w.place)] = w
			owners[w] = id
			all = append(all, w)
		case 5:
			c.mu.Lock()
			sick[id] = !sick[id]
			c.mu.Unlock()
		case 6, 7, 8:
			for _, l := range letters(t, q, Filter{Contact: id, Newest: r.IntN(2) == 0, Limit: 1 + r.IntN(3)}) {
				_, err := q.Redrive(t.Context(), l.Seq, RedriveOptions{Actor: alice, OriginalClass: r.IntN(3) == 0})
				if err != nil && !errors.Is(err, ErrInHand) && !errors.Is(err, ErrNotFound) {
					t.Fatal(err)
				}
			}
		case 9:
			for _, l := range letters(t, q, Filter{Contact: id, Limit: 1}) {
				rev := uint64(0)
				if l.Edit != nil {
					rev = l.Edit.Revision
				}
				n++
				_, err := q.EditLetter(t.Context(), l.Seq, alice, fmt.Appendf(nil, `{"fields":{"b":"%d"}}`, n), rev, nil)
				if errors.Is(err, ErrInHand) || errors.Is(err, ErrNotFound) {
					continue
				}
				if err != nil {
					t.Fatal(err)
				}
				byPlace[placeKey(id, l.Place())].value = map[string]string{"b": fmt.Sprintf(`"%d"`, n)}
			}
		case 10:
			o := startRedrive(t, q, RedrivePlan{Filter: Filter{Contact: id}})
			ctx, cancel := contextWithCancel(t)
			done := make(chan struct{})
			go func() { defer close(done); _, _ = q.RunRedrive(ctx, o.ID, nil, nil) }()
			if _, err := q.CancelRedrive(t.Context(), alice, o.ID); err != nil && !errors.Is(err, ErrOperationEnded) {
				t.Fatal(err)
			}
			cancel()
			<-done
		case 11:
			stop()
			stop = c.serve(t, q, "office")
		}
	}
	c.mu.Lock()
	clear(sick)
	c.mu.Unlock()
	for range 20 {
		// As the owner does each half minute.
		if err := q.mend(t.Context(), "office", time.Now()); err != nil {
			t.Fatal(err)
		}
		settled(t, q, "office")
		left := letters(t, q, Filter{})
		if len(left) == 0 {
			break
		}
		for _, l := range left {
			if _, err := q.Redrive(t.Context(), l.Seq, RedriveOptions{Actor: alice}); err != nil && !errors.Is(err, ErrInHand) && !errors.Is(err, ErrNotFound) {
				t.Fatal(err)
			}
		}
	}
	settled(t, q, "office")
	stop()
	for _, s := range c.stale {
		t.Error("stale: ", s)
	}
	times := endings(t, q)
	want := map[string]map[string]string{}
	newest := map[string]contact.Mark{}
	for _, w := range all {
		id := owners[w]
		m := contact.Mark{Class: w.place.Class, Seq: w.place.Seq, Stored: times[placeKey(id, w.place)]}
		if want[id] == nil {
			want[id] = map[string]string{}
		}
		for f, v := range w.value {
			if at := id + " " + f; newest[at] == (contact.Mark{}) || m.After(newest[at]) {
				newest[at], want[id][f] = m, v
			}
		}
	}
	for id, w := range want {
		if got := c.get("office", id); fmt.Sprint(got) != fmt.Sprint(w) {
			t.Errorf("contact %s holds %v, want %v", id, got, w)
		}
	}
}

func placeKey(id string, p contact.Place) string { return fmt.Sprint(id, " ", p.Class, " ", p.Seq) }

// endings checks that every update has one ending, and every letter that was sent
// again a redrive that ended, and returns when the updates were stored.
func endings(t *testing.T, q *Queue) map[string]int64 {
	t.Helper()
	stored := map[string]int64{}
	redriven := map[uint64]int{}
	var discarded []uint64
	for _, r := range allRecords(t, q, Filter{Target: "office"}) {
		if r.Outcome == contact.Discarded {
			discarded = append(discarded, r.Letter)
		}
		if r.RedriveOf != "" {
			redriven[number(r.RedriveOf)]++
		}
		for _, u := range r.Updates {
			k := placeKey(r.Contact, contact.Place{Class: u.Class, Seq: u.Seq})
			if _, twice := stored[k]; twice {
				t.Errorf("update %s ended twice", k)
			}
			stored[k] = u.Stored.UnixNano()
		}
	}
	for _, id := range discarded {
		if redriven[id] == 0 {
			t.Errorf("letter %d went without a redrive that ended", id)
		}
	}
	info, err := q.info(t.Context(), streamName("office", contact.Live))
	if err != nil {
		t.Fatal(err)
	}
	bulk, err := q.info(t.Context(), streamName("office", contact.Bulk))
	if err != nil {
		t.Fatal(err)
	}
	if n := info.State.LastSeq + bulk.State.LastSeq; n != uint64(len(stored)) {
		t.Errorf("%d updates ended, %d were stored", len(stored), n)
	}
	return stored
}
