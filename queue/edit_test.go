package queue

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"crmsync/contact"
)

func TestEdits(t *testing.T) {
	t.Parallel()
	q := setUp(t, "office")
	l := dead(t, q, fields("office", "7", contact.Live, `{"a":"1"}`))[0]
	bob := Actor{By: "bob"}
	one, err := q.EditLetter(t.Context(), l.Seq, alice, []byte(`{"fields":{"a":"2"}}`), 0, nil)
	if err != nil {
		t.Fatal(err)
	}
	// Two operators: the second has not seen the first one's edit.
	if _, err := q.EditLetter(t.Context(), l.Seq, bob, []byte(`{"fields":{"a":"3"}}`), 0, nil); !errors.Is(err, ErrChanged) {
		t.Errorf("the second edit: %v", err)
	}
	if _, err := q.EditLetter(t.Context(), l.Seq, bob, []byte(`{"fields":{"a":"3"}}`), one.Revision, nil); err != nil {
		t.Error(err)
	}
	for _, c := range []struct {
		body  string
		check func(*contact.Update) error
	}{{`{`, nil}, {`{"fields":{"a":"3"}}`, func(*contact.Update) error { return &contact.BadUpdate{Reason: contact.Invalid, Detail: "no"} }}} {
		if _, err := q.EditLetter(t.Context(), l.Seq, bob, []byte(c.body), one.Revision, c.check); !errors.Is(err, ErrUnsendable) {
			t.Errorf("%s: %v", c.body, err)
		}
	}
	got := letters(t, q, Filter{})[0]
	if string(got.Edit.Body) != `{"fields":{"a":"3"}}` || got.Edit.By != "bob" || string(got.Original) != `{"fields":{"a":"1"}}` || got.Edit.At.IsZero() {
		t.Fatalf("letter %+v", got)
	}
	if a := audited(t, q, AuditFilter{Action: "edit", Target: "office"}); len(a) != 2+1 || a[0].By != alice.By || a[1].By != "bob" {
		t.Errorf("audit %+v", a)
	}
	redrive(t, q, l.Seq, RedriveOptions{})
	if _, err := q.EditLetter(t.Context(), l.Seq, bob, []byte(`{"fields":{"a":"4"}}`), got.Edit.Revision, nil); !errors.Is(err, ErrInHand) {
		t.Errorf("edit of a letter in hand: %v", err)
	}
	crm := newCRM()
	crm.serve(t, q, "office")
	settled(t, q, "office")
	if crm.get("office", "7")["a"] != `"3"` {
		t.Errorf("the CRM holds %v", crm.get("office", "7"))
	}
	recs := allRecords(t, q, Filter{Target: "office"})
	if recs[0].Redrive.Edited != "bob" || recs[0].Redrive.By != alice.By {
		t.Errorf("record %+v", recs[0].Redrive)
	}
	if string(recs[1].Original) != `{"fields":{"a":"1"}}` {
		t.Errorf("what it was before the edit is not kept: %+v", recs[1])
	}
	left := 0
	if err := q.letters.each(t.Context(), ">", func(entry) error { left++; return nil }); err != nil || left != 0 {
		t.Errorf("%d keys are left, %v", left, err)
	}
}

func TestCancelledRedriveIsAPlainLetterAgain(t *testing.T) {
	t.Parallel()
	q := setUp(t, "office")
	l := dead(t, q, fields("office", "7", contact.Live, `{"a":"1"}`))[0]
	op, err := q.StartRedrive(t.Context(), alice, RedrivePlan{})
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := contextWithCancel(t)
	ran := make(chan error, 1)
	go func() {
		_, err := q.RunRedrive(ctx, op.ID, nil, nil)
		ran <- err
	}()
	eventually(t, 5*time.Second, "it is sent", func() bool { return letters(t, q, Filter{})[0].State == LetterRedriven })
	other := peerOf(t, q, &link{})
	if o, err := other.CancelRedrive(t.Context(), alice, op.ID); err != nil || o.State != OperationCancelled {
		t.Fatal(o, err)
	}
	if err := <-ran; err != nil {
		t.Error(err)
	}
	stop()
	crm := newCRM()
	crm.serve(t, q, "office")
	settled(t, q, "office")
	got := letters(t, q, Filter{})
	if len(got) != 1 || got[0].Seq != l.Seq || got[0].State != LetterDead || crm.applied != 0 {
		t.Errorf("letters %+v, %d applied", got, crm.applied)
	}
	if _, err := q.CancelRedrive(t.Context(), alice, op.ID); err != nil {
		t.Error("cancelled twice: ", err)
	}
	if _, err := q.ResumeRedrive(t.Context(), alice, op.ID); !errors.Is(err, ErrOperationEnded) {
		t.Errorf("resumed: %v", err)
	}
	// It can be sent again.
	redrive(t, q, l.Seq, RedriveOptions{})
	settled(t, q, "office")
	if crm.applied != 1 {
		t.Errorf("%d applied", crm.applied)
	}
}

func TestDiscard(t *testing.T) {
	t.Parallel()
	q := setUp(t, "office")
	ls := dead(t, q, fields("office", "7", contact.Live, `{"a":"1"}`), fields("office", "8", contact.Live, `{"a":"1"}`))
	if _, err := q.EditLetter(t.Context(), ls[0].Seq, alice, []byte(`{"fields":{"a":"2"}}`), 0, nil); err != nil {
		t.Fatal(err)
	}
	if err := q.Discard(t.Context(), ls[0].Seq, alice, "not wanted"); err != nil {
		t.Fatal(err)
	}
	redrive(t, q, ls[1].Seq, RedriveOptions{})
	if err := q.Discard(t.Context(), ls[1].Seq, alice, "not wanted"); !errors.Is(err, ErrInHand) || !strings.Contains(err.Error(), "sent again by alice@host") {
		t.Errorf("a letter in hand: %v", err)
	}
	r := allRecords(t, q, Filter{Outcome: contact.Discarded})
	if len(r) != 1 || r[0].Detail != "by alice@host: not wanted" || r[0].Letter != ls[0].Seq || r[0].Original != nil {
		t.Errorf("records %+v", r)
	}
	n := 0
	if err := q.letters.each(context.Background(), ">", func(e entry) error { n++; return nil }); err != nil || n != 1 {
		t.Errorf("%d keys, %v", n, err) // the other letter's claim
	}
}
