package queue

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"crmsync/contact"
)

// needle is a value that must be nowhere once its contact was forgotten.
const needle = "Needle-5c1d"

// found says where a text lies in any stream but the audit trail.
func found(t testing.TB, q *Queue, text string) []string {
	t.Helper()
	var out []string
	ctx := t.Context()
	names := q.js.StreamNames(ctx)
	for name := range names.Name() {
		if name == auditStream {
			continue
		}
		err := q.scan(ctx, name, ">", 0, func(m *stored) error {
			if bytes.Contains(m.Data, []byte(text)) || strings.Contains(m.Subject, text) || bytes.Contains(m.Hdrs, []byte(text)) {
				out = append(out, m.Subject)
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := names.Err(); err != nil {
		t.Fatal(err)
	}
	return out
}

// person makes a contact with something in every place: letters, one of them
// edited and one sent again, records and a waiting update.
func person(t testing.TB, q *Queue, id string) []Letter {
	t.Helper()
	value := fmt.Sprintf(`{"name":%q}`, needle)
	ls := dead(t, q, fields("office", id, contact.Live, value), fields("office", id, contact.Bulk, value), fields("office", id, contact.Live, value))
	if _, err := q.EditLetter(t.Context(), ls[0].Seq, alice, []byte(`{"fields":{"name":"`+needle+`2"}}`), 0, nil); err != nil {
		t.Fatal(err)
	}
	c := newCRM()
	stop := c.serve(t, q, "office")
	publish(t, q, fields("office", id, contact.Live, `{"other":1}`))
	eventually(t, 10*time.Second, "a record", func() bool {
		return len(allRecords(t, q, Filter{Target: "office", Contact: id, Outcome: contact.Applied})) > 0
	})
	settledStreams(t, q, "office")
	stop()
	redrive(t, q, ls[1].Seq, RedriveOptions{Body: []byte(`{"fields":` + value + `}`)})
	publish(t, q, fields("office", id, contact.Live, value))
	if _, err := q.StartRedrive(t.Context(), alice, RedrivePlan{Filter: Filter{Target: "office", Contact: id}}); err != nil {
		t.Fatal(err)
	}
	if _, err := q.StartRedrive(t.Context(), alice, RedrivePlan{Filter: Filter{Contact: id}}); err != nil { // wherever it is
		t.Fatal(err)
	}
	return ls
}

func TestForgetRemovesAPersonFromEverywhere(t *testing.T) {
	t.Parallel()
	q := setUp(t, "office")
	other := dead(t, q, fields("office", "8", contact.Live, `{"name":"stays"}`))
	ls := person(t, q, "7@x.io")
	if len(found(t, q, needle)) == 0 {
		t.Fatal("there is nothing to forget")
	}
	k := contact.Key{Target: "office", ID: "7@x.io"}
	got, err := q.Forget(t.Context(), alice, k)
	if err != nil {
		t.Fatal(err)
	}
	got.At = time.Time{}
	want := Receipt{Target: "office", Contact: k.ID, Updates: 2, Letters: 3, Outcomes: 1, Edits: 1, Claims: 1, Operations: 2}
	if got != want {
		t.Errorf("receipt %+v\nwant %+v", got, want)
	}
	for _, text := range []string{needle, "7%40x%2Eio"} {
		if left := found(t, q, text); len(left) > 0 {
			t.Errorf("%s is left in %v", text, left)
		}
	}
	// The tombstone alone names the contact.
	if left := found(t, q, "7@x.io"); len(left) != 1 || !strings.Contains(left[0], ".forget.") {
		t.Errorf("the contact is named in %v", left)
	}
	if got := letters(t, q, Filter{}); len(got) != 1 || got[0].Seq != other[0].Seq {
		t.Errorf("letters of others: %+v", got)
	}
	for _, l := range ls {
		if _, err := q.Redrive(t.Context(), l.Seq, RedriveOptions{Actor: alice, Force: true}); !errors.Is(err, ErrNotFound) {
			t.Errorf("redrive of what was forgotten: %v", err)
		}
	}
	story, err := q.Story(t.Context(), k)
	if err != nil || len(story) != 1 || story[0].Kind != EventForgotten || story[0].Forgot.Letters != 3 {
		t.Errorf("story %+v %v", story, err)
	}
	if a := audited(t, q, AuditFilter{Action: "forget"}); len(a) != 1 || a[0].Contact != k.ID || a[0].By != alice.By {
		t.Errorf("audit %+v", a)
	}
}

// Cut short after any step, the next owner ends it, and nothing of the contact is
// sent meanwhile.
func TestForgetSurvivesBeingCutShort(t *testing.T) {
	t.Parallel()
	for _, step := range []string{"tombstone", "updates"} {
		t.Run(step, func(t *testing.T) {
			q := setUp(t, "office")
			person(t, q, "7")
			before, err := q.info(t.Context(), streamName("office", contact.Live))
			if err != nil {
				t.Fatal(err)
			}
			bulk, err := q.info(t.Context(), streamName("office", contact.Bulk))
			if err != nil {
				t.Fatal(err)
			}
			ts := &tombstone{Target: "office", Contact: "7", Receipt: Receipt{Target: "office", Contact: "7", At: time.Now()}}
			ts.Upto[contact.Live], ts.Upto[contact.Bulk] = before.State.LastSeq, bulk.State.LastSeq
			if err := q.bury(t.Context(), ts); err != nil {
				t.Fatal(err)
			}
			if step == "updates" {
				for c := range contact.Class(contact.Classes) {
					if err := q.purge(t.Context(), streamName("office", c), purgeRequest{Filter: updateFilter("office", c)}); err != nil {
						t.Fatal(err)
					}
				}
			}
			c := newCRM()
			other := peerOf(t, q, &link{}) // another process, much later
			other.mendAfter = 0
			c.serve(t, other, "office")
			eventually(t, 10*time.Second, "it is forgotten", func() bool {
				r, err := q.Forgotten(t.Context(), ts.key())
				return err == nil && r.Letters == 3 && len(found(t, q, needle)) == 0
			})
			if c.applied != 0 {
				t.Errorf("what was forgotten was sent: %v", c.trail)
			}
			settled(t, q, "office")
		})
	}
}

func TestForgetWhileTheOwnerIsAtWork(t *testing.T) {
	t.Parallel()
	q := setUp(t, "office")
	l := own(t, q, "office")
	s := l.source(t)
	k := contact.Key{Target: "office", ID: "7"}
	publish(t, q, fields("office", "7", contact.Live, `{"name":"`+needle+`"}`), fields("office", "7", contact.Live, `{"name":"`+needle+`"}`),
		fields("office", "8", contact.Live, `{"a":1}`), fields("office", "7", contact.Bulk, `{"name":"`+needle+`"}`))
	live := take(t, s, contact.Live, 3) // one of them in a call, as it were
	bulk := take(t, s, contact.Bulk, 1)
	other := peerOf(t, q, &link{})
	got, err := other.Forget(t.Context(), alice, k)
	if err != nil || got.Updates != 3 {
		t.Fatalf("%+v %v", got, err)
	}
	for _, u := range []*contact.Update{live[0], live[1], bulk[0]} {
		if !s.Cancelled(u) {
			t.Errorf("%s update %d may be sent", u.Class, u.Seq)
		}
	}
	if s.Cancelled(live[2]) {
		t.Error("another contact's update is cancelled")
	}
	// Somebody has the contact's id from now on.
	publish(t, q, fields("office", "7", contact.Live, `{"name":"new"}`))
	fresh := take(t, s, contact.Live, 1)[0]
	if s.Cancelled(fresh) {
		t.Error("new data is cancelled")
	}
	// The call that was under way ends after all, and what follows with it.
	settle(t, s, contact.Applied, live[0])
	settle(t, s, contact.Dead, live[1], fresh)
	settle(t, s, contact.Cancelled, bulk[0])
	settle(t, s, contact.Applied, live[2])
	recs := allRecords(t, q, Filter{Target: "office", Contact: "7"})
	if len(recs) != 1 || len(recs[0].Updates) != 1 || recs[0].Updates[0].Seq != fresh.Seq {
		t.Errorf("records %+v", recs)
	}
	for _, m := range recs[0].Fence {
		if m.Seq <= live[1].Seq && m.Class == contact.Live {
			t.Errorf("the fence remembers %+v", recs[0].Fence)
		}
	}
	settledStreams(t, q, "office")
	if left := found(t, q, needle); len(left) > 0 {
		t.Errorf("left in %v", left)
	}
}

// settledStreams waits until nothing waits.
func settledStreams(t testing.TB, q *Queue, target string) {
	t.Helper()
	for c := range contact.Class(contact.Classes) {
		eventually(t, 10*time.Second, "the stream is empty", func() bool {
			info, err := q.info(t.Context(), streamName(target, c))
			return err == nil && info.State.Msgs == 0
		})
	}
}

// A redrive that had its letter in hand when the contact was forgotten changes
// nothing, forced or not.
func TestNoRedriveBringsBackWhatWasForgotten(t *testing.T) {
	t.Parallel()
	for _, force := range []bool{false, true} {
		for _, owned := range []bool{false, true} {
			t.Run(fmt.Sprintf("force %v, owned %v", force, owned), func(t *testing.T) {
				q := setUp(t, "office")
				l := dead(t, q, fields("office", "7", contact.Live, `{"name":"`+needle+`"}`))[0]
				claim, err := q.prepare(t.Context(), &l.Record, RedriveOptions{Actor: alice, Force: force})
				if err != nil {
					t.Fatal(err)
				}
				if err := q.take(t.Context(), claim); err != nil {
					t.Fatal(err)
				}
				c := newCRM()
				if owned {
					c.serve(t, q, "office")
				}
				if _, err := q.Forget(t.Context(), alice, contact.Key{Target: "office", ID: "7"}); err != nil {
					t.Fatal(err)
				}
				if _, err := q.send(t.Context(), &l.Record, claim, time.Now()); err != nil {
					t.Fatal(err)
				}
				if !owned {
					c.serve(t, q, "office")
				}
				publish(t, q, fields("office", "7", contact.Bulk, `{"name":"new"}`)) // comes behind it
				eventually(t, 10*time.Second, "the new person's data", func() bool { return c.get("office", "7")["name"] == `"new"` })
				settled(t, q, "office")
				if c.applied != 1 {
					t.Errorf("written: %v", c.trail)
				}
				if left := found(t, q, needle); len(left) > 0 {
					t.Errorf("left in %v", left)
				}
			})
		}
	}
}

// An owner that was cut off when the contact was forgotten finds the contact's
// records gone when it stores an ending.
func TestForgetBehindTheOwnersBack(t *testing.T) {
	q := setUp(t, "office")
	wire := &link{}
	far := peerOf(t, q, wire)
	l := own(t, far, "office")
	s := l.source(t)
	publish(t, q, fields("office", "7", contact.Live, `{"a":1}`), fields("office", "7", contact.Live, `{"name":"`+needle+`"}`))
	us := take(t, s, contact.Live, 2)
	settle(t, s, contact.Applied, us[0])
	// As if no word of it had come.
	if _, err := q.Forget(t.Context(), alice, contact.Key{Target: "office", ID: "7"}); err != nil {
		t.Fatal(err)
	}
	far.mu.Lock()
	clear(far.gone)
	far.mu.Unlock()
	settle(t, s, contact.Dead, us[1])
	if recs := allRecords(t, q, Filter{Target: "office", Contact: "7"}); len(recs) != 0 {
		t.Errorf("records %+v", recs)
	}
}

func TestForgetNeedsATarget(t *testing.T) {
	q := setUp(t, "office")
	for _, k := range []contact.Key{{Target: "gone", ID: "7"}, {Target: "a.b", ID: "7"}, {Target: "office", ID: ""}} {
		if _, err := q.Forget(t.Context(), alice, k); err == nil {
			t.Errorf("%v was forgotten", k)
		}
	}
	r, err := q.Forget(t.Context(), alice, contact.Key{Target: "office", ID: "nobody"})
	if err != nil || r.Updates+r.Letters+r.Outcomes != 0 {
		t.Errorf("%+v %v", r, err)
	}
	if r, err := q.Forgotten(t.Context(), contact.Key{Target: "office", ID: "other"}); r != nil || err != nil {
		t.Errorf("%+v %v", r, err)
	}
}

// Two forget one contact at the same time, and the one that looked first stores
// last: what the other covered stays covered, and it is done when that is.
func TestConcurrentForgetsCoverWhatEitherDoes(t *testing.T) {
	t.Parallel()
	q := setUp(t, "office")
	k := contact.Key{Target: "office", ID: "7"}
	of := func(live, bulk uint64) *tombstone {
		return &tombstone{Target: k.Target, Contact: k.ID, Upto: [contact.Classes]uint64{contact.Live: live, contact.Bulk: bulk}, Receipt: Receipt{Target: k.Target, Contact: k.ID}}
	}
	bury := func(s *tombstone, live, bulk uint64, done bool, updates int64) {
		t.Helper()
		if err := q.bury(t.Context(), s); err != nil {
			t.Fatal(err)
		}
		got, err := q.tombstone(t.Context(), forgetKey+personKey(k))
		if err != nil || got.Upto != of(live, bulk).Upto || got.Done != done || got.Receipt.Updates != updates || s.Upto != got.Upto {
			t.Fatalf("stored %+v, ours %+v, %v", got, s, err)
		}
	}
	late, early := of(10, 5), of(4, 9)
	bury(late, 10, 5, false, 0)
	bury(early, 10, 9, false, 0)
	late.Done, late.Receipt.Updates = true, 2
	bury(late, 10, 9, false, 2) // of its own, not of the other's
	early.Done, early.Receipt.Updates = true, 3
	bury(early, 10, 9, true, 5)
	later := of(20, 9)
	bury(later, 20, 9, false, 0) // a receipt of its own
	earlier := of(1, 1)
	earlier.Receipt.Updates = 1
	bury(earlier, 20, 9, false, 1)
}

func TestManyForgetAtOnce(t *testing.T) {
	t.Parallel()
	q := setUp(t, "office")
	k := contact.Key{Target: "office", ID: "7"}
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for i := range 5 {
				if _, err := q.Publish(t.Context(), fields("office", "7", contact.Live, `{"name":"`+needle+`"}`)); err != nil {
					t.Error(err)
				}
				if _, err := q.Forget(t.Context(), alice, k); err != nil {
					t.Error(i, err)
				}
			}
		})
	}
	wg.Wait()
	got, err := q.tombstone(t.Context(), forgetKey+personKey(k))
	if err != nil || got.Upto[contact.Live] != 20 {
		t.Errorf("%+v %v", got, err)
	}
	if left := found(t, q, needle); len(left) > 0 {
		t.Errorf("left in %v", left)
	}
}
