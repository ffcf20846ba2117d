package queue

import (
	"errors"
	"testing"

	"crmsync/contact"
)

// Letters are recalled in their class and as old as they were, once; what is no
// letter any more is passed over.
func TestRecall(t *testing.T) {
	q := setUp(t, "office")
	l := own(t, q, "office")
	s := l.source(t)
	for i, class := range []contact.Class{contact.Live, contact.Bulk, contact.Live, contact.Live} {
		publish(t, q, update("office", 7+i/3, class, i))
	}
	live, bulk := take(t, s, contact.Live, 3), take(t, s, contact.Bulk, 1)
	var refs []contact.Ref
	for _, u := range []*contact.Update{live[0], bulk[0], live[1]} { // contact 7
		settleDead(t, s, u)
		refs = append(refs, contact.Ref{ID: u.Contact.ID, Class: u.Class, Seq: u.Seq})
	}
	settle(t, s, contact.Applied, live[2]) // contact 8
	refs = append(refs, contact.Ref{ID: "8", Class: contact.Live, Seq: live[2].Seq})
	gone := letterOf(t, q, refs[2])
	if err := q.Discard(t.Context(), gone, Actor{By: "ann"}, "not wanted"); err != nil {
		t.Fatal(err)
	}
	for range 2 { // the second finds nothing to do
		if err := s.Recall(t.Context(), refs); err != nil {
			t.Fatal(err)
		}
	}
	again := append(take(t, s, contact.Live, 1), take(t, s, contact.Bulk, 1)...)
	for i, u := range again {
		was := []*contact.Update{live[0], bulk[0]}[i]
		if u.Class != was.Class || u.Mark() != was.Mark() || u.Redrive == nil || u.Redrive.By != stormBrake.By || string(u.Raw) != string(was.Raw) {
			t.Errorf("recalled %+v of %+v", u, was)
		}
	}
	if n, err := q.Stats(t.Context()); err != nil || n[0].Class[contact.Live].Messages+n[0].Class[contact.Bulk].Messages > 6 {
		t.Errorf("%+v %v: a letter was recalled twice", n, err)
	}
	var trail []Entry
	if err := q.AuditTrail(t.Context(), AuditFilter{}, func(e Entry) error { trail = append(trail, e); return nil }); err != nil {
		t.Fatal(err)
	}
	recalls := 0
	for _, e := range trail {
		if e.Action == "recall" {
			recalls++
			if e.Count != 2 || len(e.IDs) != 2 || e.By != stormBrake.By {
				t.Errorf("audit %+v", e)
			}
		}
	}
	if recalls == 0 {
		t.Errorf("the audit trail does not tell of the recall: %+v", trail)
	}
	l.end(t)
	if err := s.Recall(t.Context(), refs[:1]); !errors.Is(err, ErrLost) {
		t.Errorf("recall by one that does not own the target: %v", err)
	}
}

func letterOf(t *testing.T, q *Queue, ref contact.Ref) (id uint64) {
	t.Helper()
	err := q.Records(t.Context(), Filter{Contact: ref.ID, Outcome: contact.Dead}, func(r Record) error {
		if r.Updates[0].Class == ref.Class && r.Updates[0].Seq == ref.Seq {
			id = r.Seq
		}
		return nil
	})
	if err != nil || id == 0 {
		t.Fatalf("no letter of %+v: %v", ref, err)
	}
	return id
}

func settleDead(t *testing.T, s *Source, u *contact.Update) {
	t.Helper()
	st := settlement(contact.Dead, u)
	st.Ended[0].Ending.Reason = contact.Invalid
	if err := s.Settle(t.Context(), st); err != nil {
		t.Fatal(err)
	}
}
