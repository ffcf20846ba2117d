package queue

import (
	"context"
	"errors"
	"sync"
	"testing"
	"time"

	"crmsync/contact"
)

// notes lists what is noted as begun, by contact.
func notes(t testing.TB, q *Queue) map[string][]begunRef {
	t.Helper()
	out := map[string][]begunRef{}
	err := q.letters.each(t.Context(), begunKey+">", func(e entry) error {
		n, err := decodeBegun(e)
		if err == nil {
			out[n.Contact] = n.Updates
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func begin(t testing.TB, s *Source, u *contact.Update, want bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	if before, err := s.Begin(ctx, u); err != nil || before != want {
		t.Fatalf("begin %s %d: before %t, %v", u.Class, u.Seq, before, err)
	}
}

func TestBegunIsKnownToTheNextOwner(t *testing.T) {
	t.Parallel()
	q := setUp(t, "a")
	publish(t, q, update("a", "x~%", contact.Live, 1), update("a", "x~%", contact.Live, 2), update("a", "y", contact.Bulk, 3), update("a", "z", contact.Bulk, 4))
	l := own(t, q, "a")
	s := l.source(t)
	live, bulk := take(t, s, contact.Live, 2), take(t, s, contact.Bulk, 2)
	for _, u := range append(live, bulk...) {
		if u.Begun {
			t.Errorf("update %d is begun before anybody began it", u.Seq)
		}
	}
	begin(t, s, live[0], false)
	begin(t, s, live[0], false) // its answer was lost
	begin(t, s, bulk[0], false)
	begin(t, s, bulk[1], false)
	if err := s.TakeBack(t.Context(), bulk[1]); err != nil {
		t.Fatal(err)
	}
	if err := s.TakeBack(t.Context(), live[1]); err != nil { // which nobody began
		t.Fatal(err)
	}
	if n := notes(t, q); len(n) != 2 || len(n["x~%"]) != 1 || len(n["y"]) != 1 {
		t.Errorf("%v", n)
	}
	l.end(t)

	l = own(t, q, "a")
	s = l.source(t)
	live, bulk = take(t, s, contact.Live, 2), take(t, s, contact.Bulk, 2)
	for _, c := range []struct {
		u    *contact.Update
		want bool
	}{{live[0], true}, {live[1], false}, {bulk[0], true}, {bulk[1], false}} {
		if c.u.Begun != c.want {
			t.Errorf("%s %d is begun: %t", c.u.Class, c.u.Seq, c.u.Begun)
		}
	}
	// What the former owner began stays noted beside what this one begins.
	begin(t, s, live[1], false)
	if n := notes(t, q)["x~%"]; len(n) != 2 {
		t.Errorf("%v", n)
	}
	settle(t, s, contact.Applied, live[0])
	begin(t, s, live[1], false)
	settle(t, s, contact.Applied, live[1])
	settle(t, s, contact.Applied, bulk[0])
	eventually(t, 10*time.Second, "the notes are gone", func() bool { return len(notes(t, q)) == 0 })
	l.end(t)
}

// A note that came late, from an owner that is none any more, is found.
func TestBegunByAZombie(t *testing.T) {
	t.Parallel()
	q := setUp(t, "a")
	publish(t, q, update("a", "x", contact.Live, 1), update("a", "y", contact.Live, 2))
	s := own(t, q, "a").source(t)
	us := take(t, s, contact.Live, 2)
	for i, u := range us {
		late := &begunNote{Target: "a", Contact: u.Contact.ID, Owner: "zombie", Updates: []begunRef{begunOf(u)}}
		if i == 1 {
			late.Updates[0].Seq = 99 // another update of the contact
		}
		if err := s.writeBegun(t.Context(), late); err != nil {
			t.Fatal(err)
		}
	}
	begin(t, s, us[0], true)
	begin(t, s, us[1], false)
	if n := notes(t, q)["y"]; len(n) != 2 {
		t.Errorf("%v", n)
	}
	// What the zombie noted is not this owner's to take back.
	if err := s.TakeBack(t.Context(), us[0]); err != nil {
		t.Fatal(err)
	}
	if n := notes(t, q)["x"]; len(n) != 1 {
		t.Errorf("%v", n)
	}
}

func TestBeginNeedsTheTarget(t *testing.T) {
	t.Parallel()
	q := setUp(t, "a")
	publish(t, q, update("a", "x", contact.Live, 1))
	l := &link{}
	p := peerOf(t, q, l)
	s := own(t, p, "a").source(t)
	u := take(t, s, contact.Live, 1)[0]
	if _, err := s.Begin(t.Context(), update("a", "stranger", contact.Live, 5)); err == nil {
		t.Error("an update was begun that was not handed out")
	}
	l.sever()
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	if _, err := s.Begin(ctx, u); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("without a connection: %v", err)
	}
	s.fail(ErrLost)
	if _, err := s.Begin(t.Context(), u); !errors.Is(err, ErrLost) {
		t.Errorf("without the target: %v", err)
	}
}

// Notes and settlements of many contacts at the same time.
func TestBeginsSideBySide(t *testing.T) {
	t.Parallel()
	q := setUp(t, "a")
	const n = 50
	for i := range n {
		publish(t, q, update("a", i, contact.Live, 1), update("a", i, contact.Live, 2))
	}
	s := own(t, q, "a").source(t)
	of := map[string][]*contact.Update{}
	for _, u := range take(t, s, contact.Live, 2*n) {
		of[u.Contact.ID] = append(of[u.Contact.ID], u)
	}
	var wg sync.WaitGroup
	for _, us := range of {
		wg.Go(func() {
			for i, u := range us {
				begin(t, s, u, false)
				if i == 1 && u.Contact.ID == "7" {
					return
				}
				settle(t, s, contact.Applied, u)
			}
		})
	}
	wg.Wait()
	eventually(t, 10*time.Second, "all notes but one are gone", func() bool {
		left := notes(t, q)
		return len(left) == 1 && len(left["7"]) == 1
	})
}

func TestForgetErasesNotes(t *testing.T) {
	q := setUp(t, "a")
	publish(t, q, update("a", "x", contact.Live, 1), update("a", "y", contact.Live, 2))
	s := own(t, q, "a").source(t)
	us := take(t, s, contact.Live, 2)
	begin(t, s, us[0], false)
	begin(t, s, us[1], false)
	r, err := q.Forget(t.Context(), alice, us[0].Contact)
	if err != nil || r.Begun != 1 {
		t.Errorf("%+v, %v", r, err)
	}
	if n := notes(t, q); len(n) != 1 || len(n["y"]) != 1 {
		t.Errorf("%v", n)
	}
	// The call that was under way comes to its end, and leaves nothing.
	if err := s.TakeBack(t.Context(), us[0]); err != nil {
		t.Error(err)
	}
	publish(t, q, update("a", "x", contact.Live, 3))
	settle(t, s, contact.Applied, us[0])
	again := take(t, s, contact.Live, 1)[0]
	begin(t, s, again, false)
	settle(t, s, contact.Applied, again)
	eventually(t, 10*time.Second, "the note is gone", func() bool { return len(notes(t, q)["x"]) == 0 })
}

// A letter of which the CRM may have carried out the side effects says so, and so
// does each update that repeats it.
func TestRedriveCarriesThatItMayHaveBeenSent(t *testing.T) {
	q := setUp(t, "a")
	k := contact.Key{Target: "a", ID: "x"}
	for _, maybe := range []bool{true, false} {
		id := oldLetter(t, q, k, time.Now(), func(r *Record) { r.MaybeSent = maybe })
		redrive(t, q, id, RedriveOptions{Force: true})
	}
	s := own(t, q, "a").source(t)
	us := take(t, s, contact.Bulk, 2)
	for i, want := range []bool{true, false} {
		if us[i].Redrive.MaybeSent != want || us[i].MaybeSent() != want || us[i].Begun {
			t.Errorf("%d: %+v", i, us[i].Redrive)
		}
	}
	st := settlement(contact.Dead, us[0])
	st.Ended[0].Ending.MaybeSent = true
	if err := s.Settle(t.Context(), st); err != nil {
		t.Fatal(err)
	}
	settle(t, s, contact.Dead, us[1])
	for _, r := range allRecords(t, q, Filter{Outcome: contact.Dead}) {
		if r.RedriveOf != "" && r.MaybeSent != (r.Updates[0].Seq == us[0].Seq) {
			t.Errorf("letter %d: %t", r.Seq, r.MaybeSent)
		}
	}
}
