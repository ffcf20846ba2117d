package queue

import (
	"context"
	"errors"
	"slices"
	"testing"
	"time"

	"crmsync/contact"
)

func seqs(us []*contact.Update) []uint64 {
	var out []uint64
	for _, u := range us {
		out = append(out, u.Seq)
	}
	return out
}

func TestDeliverAndSettle(t *testing.T) {
	t.Parallel()
	q := setUp(t, "office")
	publish(t, q, update("office", 1, contact.Live, 1), update("office", 2, contact.Live, 2), update("office", 1, contact.Live, 3), update("office", 1, contact.Bulk, 4))
	l := own(t, q, "office")
	s := l.source(t)
	if s.Target() != "office" || !s.Lease().After(time.Now()) {
		t.Errorf("target %q, lease %v", s.Target(), s.Lease())
	}
	live := take(t, s, contact.Live, 3)
	if !slices.Equal(seqs(live), []uint64{1, 2, 3}) {
		t.Fatalf("live: %v", seqs(live))
	}
	if d := next(t, s, contact.Live, time.Second); d == nil || d.Update != nil {
		t.Fatalf("want the word that live caught up, got %+v", d)
	}
	if d := next(t, s, contact.Live, 100*time.Millisecond); d != nil {
		t.Fatalf("caught up twice, or an update too many: %+v", d)
	}
	bulk := take(t, s, contact.Bulk, 1)
	settle(t, s, contact.Applied, live[0], live[2], bulk[0])
	settle(t, s, contact.Dead, live[1])

	got := allRecords(t, q, Filter{})
	if len(got) != 2 {
		t.Fatalf("%d records", len(got))
	}
	a := got[0]
	if a.Outcome != contact.Applied || a.Contact != "1" || a.Covers != [2]uint64{3, 1} || len(a.Updates) != 3 || a.Original != nil || a.Fence["n"].Seq != 1 {
		t.Errorf("applied: %+v", a)
	}
	d := got[1]
	if d.Outcome != contact.Dead || d.Reason != contact.Invalid || string(d.Original) != `{"fields":{"n":2}}` || d.OriginalHeader["Nats-Msg-Id"][0] != "office-2-live-2" {
		t.Errorf("dead: %+v", d)
	}
	eventually(t, 2*time.Second, "the streams are purged", func() bool {
		st, err := q.Stats(t.Context())
		return err == nil && len(st) == 1 && st[0].Class[0].Messages+st[0].Class[1].Messages == 0 && st[0].Session != ""
	})
	// Later updates of the same contact know what was written.
	publish(t, q, update("office", 1, contact.Live, 5))
	if d := next(t, s, contact.Live, 5*time.Second); d == nil || d.Update.Seq != 4 || s.Fence("1")["n"].Seq == 0 || s.Fence("77") != nil {
		t.Errorf("next: %+v, fence %v", d, s.Fence("1"))
	}
}

func TestNextKeepsWhatItsCallerDidNotWaitFor(t *testing.T) {
	q := setUp(t, "office")
	s := own(t, q, "office").source(t)
	if d := next(t, s, contact.Live, 5*time.Second); d == nil || d.Update != nil {
		t.Fatalf("an empty stream has not caught up: %+v", d)
	}
	done, cancel := context.WithCancel(t.Context())
	cancel()
	publish(t, q, update("office", 1, contact.Live, 1))
	for range 50 {
		if _, err := s.Next(done, contact.Live); err == nil {
			break
		} else if !errors.Is(err, context.Canceled) {
			t.Fatal(err)
		}
	}
	publish(t, q, update("office", 1, contact.Live, 2))
	us := take(t, s, contact.Live, 1)
	if us[0].Seq == 1 {
		us = take(t, s, contact.Live, 1)
	}
	if us[0].Seq != 2 {
		t.Errorf("got %v", seqs(us))
	}
}

func TestSettleRefusesWhatBreaksTheRules(t *testing.T) {
	q := setUp(t, "office")
	publish(t, q, update("office", 1, contact.Live, 1), update("office", 1, contact.Live, 2), update("office", 2, contact.Live, 3))
	s := own(t, q, "office").source(t)
	us := take(t, s, contact.Live, 2)
	other := update("office", 2, contact.Live, 3)
	other.Seq = 3 // stored, and not handed out
	pending := settlement(contact.Pending, us[0])
	foreign := settlement(contact.Applied, us[0])
	foreign.Ended[0].Update = other
	for name, st := range map[string]contact.Settlement{
		"not a prefix":    settlement(contact.Applied, us[1]),
		"out of order":    settlement(contact.Applied, us[1], us[0]),
		"twice":           settlement(contact.Applied, us[0], us[0]),
		"not handed out":  settlement(contact.Applied, other),
		"no outcome":      pending,
		"other contact":   foreign,
		"nothing":         {Contact: us[0].Contact},
		"unknown contact": settlement(contact.Applied, &contact.Update{Contact: contact.Key{Target: "office", ID: "9"}, Seq: 77}),
	} {
		if err := s.Settle(t.Context(), st); err == nil || errors.Is(err, ErrLost) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if got := allRecords(t, q, Filter{}); len(got) != 0 {
		t.Errorf("stored: %+v", got)
	}
	settle(t, s, contact.Applied, us...)
	settle(t, s, contact.Applied, us...) // again: nothing
	settle(t, s, contact.Dead, us[1])
	if got := allRecords(t, q, Filter{}); len(got) != 1 {
		t.Errorf("%d records after settling twice", len(got))
	}
}

func TestTakeoverHandsOutExactlyTheUnfinished(t *testing.T) {
	q := setUp(t, "office")
	for i := range 60 {
		publish(t, q, update("office", i%7, contact.Class(i%2), i))
	}
	first := own(t, q, "office")
	s := first.source(t)
	us := everything(t, s)
	if len(us) != 60 {
		t.Fatalf("%d updates", len(us))
	}
	finished := map[string]bool{}
	for _, u := range us { // contacts 2 and 5 stay unfinished, except for their first
		if u.Contact.ID != "2" && u.Contact.ID != "5" || u.Class == contact.Live && u.Seq <= 3 {
			settle(t, s, contact.Applied, u)
			finished[u.MsgID] = true
		}
	}
	first.end(t)
	if err := s.Settle(t.Context(), settlement(contact.Applied, us[0])); !errors.Is(err, ErrLost) {
		t.Errorf("settle after release: %v", err)
	}
	if _, err := s.Next(t.Context(), contact.Live); !errors.Is(err, ErrLost) {
		t.Errorf("next after release: %v", err)
	}
	if !s.Lease().IsZero() {
		t.Errorf("lease after release: %v", s.Lease())
	}

	s = own(t, q, "office").source(t)
	again := everything(t, s)
	seen := map[string]bool{}
	for _, u := range again {
		if finished[u.MsgID] || seen[u.MsgID] {
			t.Errorf("%s again", u.MsgID)
		}
		seen[u.MsgID] = true
	}
	if len(seen)+len(finished) != 60 {
		t.Errorf("%d finished, %d handed out again, of 60", len(finished), len(seen))
	}
}

func TestFloorNeverPassesTheUnfinished(t *testing.T) {
	t.Parallel()
	q := setUp(t, "office")
	for i := range 20 {
		publish(t, q, update("office", i, contact.Live, i))
	}
	s := own(t, q, "office").source(t)
	us := take(t, s, contact.Live, 20)
	for _, u := range us {
		if u.Seq != 4 {
			settle(t, s, contact.Applied, u)
		}
	}
	first := func() uint64 {
		st, err := q.Stats(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		return st[0].Class[contact.Live].First
	}
	eventually(t, 2*time.Second, "purged up to the unfinished", func() bool { return first() == 4 })
	s.purge(t.Context(), true)
	if f := first(); f != 4 {
		t.Fatalf("first is %d, want 4", f)
	}
	settle(t, s, contact.Applied, us[3])
	eventually(t, 2*time.Second, "purged", func() bool { return first() == 21 })
}

// A purge of a full stream is dear: it is spared, the longer the more is in it, and
// purged then without anything else that ends.
func TestFullStreamIsSpared(t *testing.T) {
	t.Parallel()
	q := setUp(t, "office")
	const n = 600
	for i := range n {
		publish(t, q, update("office", i, contact.Live, i))
	}
	s := own(t, q, "office").source(t)
	r := s.class[contact.Live]
	spare := func(d time.Duration) {
		s.mu.Lock()
		defer s.mu.Unlock()
		r.spared = time.Now().Add(d)
	}
	purged := func() uint64 {
		s.mu.Lock()
		defer s.mu.Unlock()
		return r.purged
	}
	spare(time.Hour)
	us := take(t, s, contact.Live, 3)
	settle(t, s, contact.Applied, us[0])
	if wait := s.purge(t.Context(), false); wait < time.Minute || purged() != 0 {
		t.Errorf("it is spared for %s, and purged up to %d", wait, purged())
	}
	began := time.Now()
	spare(0)
	if wait := s.purge(t.Context(), false); wait != 0 || purged() != 1 {
		t.Errorf("it is spared for %s, and purged up to %d", wait, purged())
	}
	s.mu.Lock()
	spared := r.spared.Sub(began)
	s.mu.Unlock()
	if spared < (n-1)*spareEach {
		t.Errorf("it is spared for %s", spared)
	}
	spare(400 * time.Millisecond)
	settle(t, s, contact.Applied, us[1])
	settle(t, s, contact.Applied, us[2])
	eventually(t, 10*time.Second, "purged", func() bool { return purged() == 3 })
}

func TestGapsAreFinished(t *testing.T) {
	q := setUp(t, "office")
	for i := range 10 {
		publish(t, q, update("office", i, contact.Live, i))
	}
	for _, seq := range []uint64{1, 4, 5, 10} {
		if err := q.ask(t.Context(), "STREAM.MSG.DELETE.CRM_OFFICE_LIVE", removeRequest{Seq: seq}, nil); err != nil {
			t.Fatal(err)
		}
	}
	s := own(t, q, "office").source(t)
	us := everything(t, s) // the last update was deleted: it must catch up nevertheless
	if !slices.Equal(seqs(us), []uint64{2, 3, 6, 7, 8, 9}) {
		t.Fatalf("got %v", seqs(us))
	}
	for _, u := range us {
		settle(t, s, contact.Applied, u)
	}
	s.mu.Lock()
	at := s.class[contact.Live].floor.at
	s.mu.Unlock()
	if at != 9 {
		t.Errorf("floor at %d, want 9", at)
	}
}

func TestMalformedSubjectIsDeadLetteredInItsPlace(t *testing.T) {
	q := setUp(t, "office")
	long := make([]byte, 900)
	for i := range long {
		long[i] = '@'
	}
	raw := []string{"bob@x", "a%2", "%41", "\xff\xfe", string(long)}
	for _, token := range raw {
		if _, err := q.js.Publish(t.Context(), "crm.update.office.live."+token, []byte(`{"fields":{"a":1}}`)); err != nil {
			t.Fatal(err)
		}
	}
	s := own(t, q, "office").source(t)
	us := take(t, s, contact.Live, len(raw))
	for i, u := range us {
		if u.Bad == nil || u.Bad.Reason != contact.Malformed || u.Contact.ID != raw[i] || u.Fields != nil {
			t.Errorf("%q: %+v", raw[i], u)
		}
		settle(t, s, contact.Dead, u)
		got := allRecords(t, q, Filter{Target: "office", Contact: raw[i]})
		if len(got) != 1 {
			t.Fatalf("%q: %d records", raw[i], len(got))
		}
		if got[0].Contact != raw[i] || string(got[0].Original) != `{"fields":{"a":1}}` {
			t.Errorf("%q: %+v", raw[i], got[0])
		}
	}
}

func TestOneSettlementManyRecords(t *testing.T) {
	q := setUp(t, "office")
	var want []*contact.Update
	for i := range 6 {
		u := update("office", 1, contact.Live, i)
		u.Job = []string{"", "j1", "j1", "", "-", ""}[i]
		want = append(want, u)
	}
	publish(t, q, want...)
	l := own(t, q, "office")
	s := l.source(t)
	us := take(t, s, contact.Live, 6)
	st := settlement(contact.Applied, us...)
	for i, o := range []contact.Outcome{contact.Applied, contact.Applied, contact.Superseded, contact.Dead, contact.Applied, contact.Dead} {
		st.Ended[i].Ending.Outcome = o
	}
	if err := s.Settle(t.Context(), st); err != nil {
		t.Fatal(err)
	}
	got := allRecords(t, q, Filter{})
	if len(got) != 6 {
		t.Fatalf("%d records", len(got))
	}
	covered := map[uint64]int{}
	for i, r := range got {
		for _, u := range r.Updates {
			covered[u.Seq]++
		}
		last := i == len(got)-1
		if (r.Covers[contact.Live] == 6) != last || (len(r.Fence) > 0) != last {
			t.Errorf("record %d: covers %v, fence %v", i, r.Covers, r.Fence)
		}
		if (r.Original != nil) != (r.Outcome == contact.Dead) {
			t.Errorf("record %d: %s with original %q", i, r.Outcome, r.Original)
		}
	}
	for seq := uint64(1); seq <= 6; seq++ {
		if covered[seq] != 1 {
			t.Errorf("update %d has %d outcomes", seq, covered[seq])
		}
	}
	if got[5].Outcome != contact.Dead {
		t.Errorf("the last record is %s: it would expire with the watermark", got[5].Outcome)
	}
	// The next settlement must know the right revision after several records.
	publish(t, q, update("office", 1, contact.Live, 7))
	settle(t, s, contact.Applied, take(t, s, contact.Live, 1)...)
	if got := allRecords(t, q, Filter{Target: "office", Job: "j1"}); len(got) != 2 {
		t.Errorf("%d records of the job", len(got))
	}
	if got := allRecords(t, q, Filter{Job: "-"}); len(got) != 1 || got[0].Job != "-" {
		t.Errorf("job named with a dash: %+v", got)
	}
}
