package queue

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

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
		if left, err := s.Recall(t.Context(), refs); err != nil || len(left) != 0 {
			t.Fatal(left, err)
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
	if _, err := s.Recall(t.Context(), refs[:1]); !errors.Is(err, ErrLost) {
		t.Errorf("recall by one that does not own the target: %v", err)
	}
}

// The lane sends nothing while it recalls, so a full stream does not drain by
// waiting: what has no room stays a letter.
func TestRecallDoesNotWaitForRoom(t *testing.T) {
	t.Parallel()
	q := open(t, testOptions(t, t.TempDir()))
	if _, err := q.js.CreateStream(t.Context(), jetstream.StreamConfig{
		Name: "CRM_OFFICE_LIVE", Subjects: []string{"crm.update.office.live.*"}, MaxMsgs: 3, Discard: jetstream.DiscardNew, AllowAtomicPublish: true,
	}); err != nil {
		t.Fatal(err)
	}
	if err := q.Setup(t.Context(), []string{"office"}); err != nil {
		t.Fatal(err)
	}
	s := own(t, q, "office").source(t)
	publish(t, q, update("office", 7, contact.Live, 1), update("office", 8, contact.Bulk, 1))
	died := append(take(t, s, contact.Live, 1), take(t, s, contact.Bulk, 1)...)
	var refs []contact.Ref
	for _, u := range died {
		settleDead(t, s, u)
		refs = append(refs, contact.Ref{ID: u.Contact.ID, Class: u.Class, Seq: u.Seq})
	}
	settledStreams(t, q, "office")
	for i := range 3 {
		publish(t, q, update("office", 20+i, contact.Live, i))
	}
	waiting := take(t, s, contact.Live, 3)
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	left, err := s.Recall(ctx, refs)
	if err != nil || !slices.Equal(left, refs[:1]) {
		t.Fatalf("left %v, %v", left, err)
	}
	if l, err := q.Letter(t.Context(), letterOf(t, q, refs[0])); err != nil || l.State != LetterDead {
		t.Errorf("what was left is %s, %v", l.State, err)
	}
	if u := take(t, s, contact.Bulk, 1)[0]; u.Contact.ID != "8" {
		t.Errorf("recalled %+v", u)
	}
	for _, u := range waiting {
		settle(t, s, contact.Applied, u)
	}
	eventually(t, 10*time.Second, "there is room", func() bool {
		info, err := q.info(t.Context(), streamName("office", contact.Live))
		return err == nil && info.State.Msgs == 0
	})
	if left, err = s.Recall(ctx, left); err != nil || len(left) != 0 {
		t.Errorf("left %v, %v", left, err)
	}
	if u := take(t, s, contact.Live, 1)[0]; u.Contact.ID != "7" {
		t.Errorf("recalled %+v", u)
	}
}

// What says nothing of the connection holds up the other letters no more than a
// full stream does; without the audit trail nothing is sent.
func TestRecallPassesOverWhatCannotBeRead(t *testing.T) {
	t.Parallel()
	q := setUp(t, "office")
	s := own(t, q, "office").source(t)
	publish(t, q, update("office", 7, contact.Live, 1), update("office", 8, contact.Live, 1))
	var refs []contact.Ref
	for _, u := range take(t, s, contact.Live, 2) {
		settleDead(t, s, u)
		refs = append(refs, contact.Ref{ID: u.Contact.ID, Class: u.Class, Seq: u.Seq})
	}
	m, err := encodeRecord(&Record{Target: "office", Contact: "7", Outcome: contact.Dead, Reason: contact.Refused})
	if err != nil {
		t.Fatal(err)
	}
	m.Data = []byte("{")
	if _, err := q.publish(t.Context(), m); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	if left, err := s.Recall(ctx, refs[:1]); err != nil || len(left) != 0 {
		t.Fatalf("left %v, %v", left, err)
	}
	trail, err := q.js.Stream(t.Context(), auditStream)
	if err != nil {
		t.Fatal(err)
	}
	if err := q.js.DeleteStream(t.Context(), auditStream); err != nil {
		t.Fatal(err)
	}
	if left, err := s.Recall(ctx, refs[1:]); err != nil || !slices.Equal(left, refs[1:]) {
		t.Fatalf("without an audit trail: left %v, %v", left, err)
	}
	if _, err := q.js.CreateStream(t.Context(), trail.CachedInfo().Config); err != nil {
		t.Fatal(err)
	}
	if left, err := s.Recall(ctx, refs); err != nil || len(left) != 0 {
		t.Fatalf("left %v, %v", left, err)
	}
	found := map[string]bool{}
	for _, u := range take(t, s, contact.Live, 2) {
		found[u.Contact.ID] = true
	}
	if !found["7"] || !found["8"] {
		t.Errorf("recalled %v", found)
	}
}

func TestWhichErrorsOfARecallPass(t *testing.T) {
	for _, c := range []struct {
		err  error
		pass bool
	}{
		{fmt.Errorf("x: %w", ErrUnreachable), true},
		{fmt.Errorf("x: %w", errRenewed), true},
		{nats.ErrNoResponders, true},
		{context.DeadlineExceeded, true},
		{&apiError{Code: 503, ErrCode: 10008}, true}, // the server is starting
		{&apiError{Code: 503, ErrCode: errStorage}, false},
		{&apiError{Code: 503, ErrCode: errResources}, false},
		{&apiError{Code: 503, ErrCode: errStoreFailed, Description: "maximum messages exceeded"}, false},
		{&apiError{Code: 503, ErrCode: errStoreFailed, Description: "no space left on device"}, false},
		{&apiError{Code: 400, ErrCode: errWrongLast}, false},
		{ErrNotSetUp, false},
		{errors.New("unexpected end of JSON input"), false},
	} {
		if got := passing(c.err); got != c.pass {
			t.Errorf("%v: %v", c.err, got)
		}
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
