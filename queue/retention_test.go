package queue

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"crmsync/contact"
)

func TestRetentionIsAnnouncedBeforeItBites(t *testing.T) {
	q := setUp(t, "office")
	var ids []uint64
	for i := range 10 {
		ids = append(ids, oldLetter(t, q, contact.Key{Target: "office", ID: fmt.Sprint(i)}, time.Now(), nil))
	}
	look := func(r Retention, now time.Time) RetentionStatus {
		t.Helper()
		st, err := q.look(t.Context(), r, now)
		if err != nil {
			t.Fatal(err)
		}
		stored, found, err := q.RetentionStatus(t.Context())
		if err != nil || !found || quoted(stored) != quoted(st) {
			t.Errorf("stored %+v, %v, want %+v", stored, err, st)
		}
		return st
	}
	now := time.Now()
	if st := look(Retention{MaxLetters: 100, MaxAge: time.Hour}, now); !st.Announced.IsZero() || !st.Bites.IsZero() || st.Letters != 10 || st.Oldest.IsZero() || st.Removed != 0 {
		t.Errorf("far from the limits: %+v", st)
	}
	// At 80 % of an age it is said when the oldest will go.
	age := Retention{MaxAge: 10 * time.Hour}
	st := look(age, now.Add(8*time.Hour+time.Minute))
	if st.Announced.IsZero() || !st.Bites.Equal(st.Oldest.Add(10*time.Hour)) {
		t.Errorf("near the age: %+v", st)
	}
	// A limit that is exceeded when it is set does not bite before the notice
	// has passed, and another limit is announced anew.
	size := Retention{MaxLetters: 6}
	if st = look(size, now); st.Letters != 10 || st.Removed != 0 || !st.Bites.Equal(st.Announced.Add(RetentionNotice)) || !st.Announced.Equal(now) {
		t.Errorf("a new limit: %+v", st)
	}
	if st = look(size, now.Add(RetentionNotice-time.Second)); st.Removed != 0 || !st.Announced.Equal(now) {
		t.Errorf("within the notice: %+v", st)
	}
	redrive(t, q, ids[1], RedriveOptions{}) // in other hands
	st = look(size, now.Add(RetentionNotice))
	if st.Removed != 3 || st.Letters != 6 {
		t.Fatalf("after the notice: %+v", st)
	}
	left := map[uint64]bool{}
	for _, l := range letters(t, q, Filter{}) {
		left[l.Seq] = true
	}
	if left[ids[0]] || !left[ids[1]] || left[ids[2]] || !left[ids[9]] {
		t.Errorf("left %v of %v", left, ids)
	}
	recs := allRecords(t, q, Filter{Outcome: contact.Discarded})
	if int64(len(recs)) != st.Removed || recs[0].Detail != "by retention: retention: beyond 6 letters" {
		t.Errorf("records %+v", recs)
	}
	if a := audited(t, q, AuditFilter{Action: "discard"}); len(a) != 1 || a[0].By != "retention" || a[0].Count != st.Removed || slices.Contains(a[0].IDs, ids[1]) || a[0].Target != "office" {
		t.Errorf("audit %+v", a)
	}
	// What is in other hands all the time is no act of each minute.
	for i := range 3 {
		if st = look(Retention{MaxAge: time.Hour}, now.Add(time.Hour+time.Duration(i)*time.Minute)); st.Removed != 3 {
			t.Errorf("within the notice: %+v", st)
		}
	}
	for _, l := range letters(t, q, Filter{}) {
		if l.State == LetterDead {
			redrive(t, q, l.Seq, RedriveOptions{})
		}
	}
	for i := range 3 {
		if st = look(Retention{MaxAge: time.Hour}, now.Add(time.Duration(3+i)*time.Hour)); st.Removed != 3 {
			t.Errorf("in other hands: %+v", st)
		}
	}
	if a := audited(t, q, AuditFilter{Action: "discard"}); len(a) != 1 {
		t.Errorf("audit %+v", a)
	}
	for _, c := range claimsOf(t, q) {
		if err := q.drop(t.Context(), c); err != nil {
			t.Fatal(err)
		}
	}
	before := st.Removed
	if st = look(age, now.Add(9*time.Hour)); st.Removed != before {
		t.Errorf("counted again: %+v", st)
	}
	if st = look(age, now.Add(24*time.Hour)); st.Letters > 1 || st.Removed < 8 {
		t.Errorf("all are too old: %+v", st)
	}
}

func claimsOf(t testing.TB, q *Queue) (out []*Claim) {
	t.Helper()
	if err := q.claims(t.Context(), "", func(c *Claim) error { out = append(out, c); return nil }); err != nil {
		t.Fatal(err)
	}
	return out
}

func TestRetentionBySize(t *testing.T) {
	q := setUp(t, "office")
	for i := range 5 {
		oldLetter(t, q, contact.Key{Target: "office", ID: fmt.Sprint(i)}, time.Now(), func(r *Record) { r.Original = make([]byte, 10_000) })
	}
	now := time.Now()
	r := Retention{MaxBytes: 60_000}
	st, err := q.look(t.Context(), r, now)
	if err != nil || st.Bytes < 50_000 || st.Bytes > 80_000 || st.Announced.IsZero() {
		t.Fatalf("%+v %v", st, err)
	}
	if st, err = q.look(t.Context(), r, now.Add(RetentionNotice)); err != nil || st.Bytes > 60_000 || st.Removed < 1 {
		t.Errorf("%+v %v", st, err)
	}
	// Growth says when the limit will be reached.
	near := RetentionStatus{Retention: Retention{MaxLetters: 100}, Letters: 90}
	was := RetentionStatus{Retention: near.Retention, Letters: 80, Looked: now.Add(-time.Minute)}
	if ok, at := near.near(was, now); !ok || !at.Equal(now.Add(time.Minute)) {
		t.Errorf("%v %v", ok, at)
	}
	if s := (Retention{MaxAge: time.Hour, MaxBytes: 5, MaxLetters: 7}).String(); s != "older than 1h0m0s, beyond 5 bytes, beyond 7 letters" {
		t.Error(s)
	}
}

// Of several processes one looks.
func TestOneProcessKeepsTheLetters(t *testing.T) {
	q := setUp(t, "office")
	other := peerOf(t, q, &link{})
	own(t, q, "office")
	own(t, other, "office")
	eventually(t, 10*time.Second, "both have a session", func() bool { s, err := q.Sessions(t.Context()); return err == nil && len(s) == 2 })
	if q.first(t.Context()) == other.first(t.Context()) {
		t.Error("both look, or none")
	}
	idle := peerOf(t, q, &link{})
	if idle.first(t.Context()) {
		t.Error("a process that owns nothing looks")
	}
	ctx, stop := context.WithCancel(t.Context())
	told := make(chan RetentionStatus, 4)
	done := make(chan error, 2)
	for _, p := range []*Queue{q, other} {
		go func() { done <- p.KeepLetters(ctx, Retention{MaxLetters: 5}, func(st RetentionStatus) { told <- st }) }()
	}
	if st := <-told; st.MaxLetters != 5 {
		t.Errorf("%+v", st)
	}
	stop()
	for range 2 {
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
	if len(told) != 0 {
		t.Error("two looked")
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if err := q.KeepLetters(ended, Retention{}, nil); err != nil {
		t.Error(err)
	}
}

func TestForesee(t *testing.T) {
	t.Parallel()
	q := setUp(t, "office")
	ls := dead(t, q, fields("office", "1", contact.Live, `{"a":1}`), fields("office", "2", contact.Live, `{"a":1,"b":1}`), fields("office", "3", contact.Live, `{"a":1}`), fields("office", "4", contact.Live, `{"a":1}`))
	c := newCRM()
	c.serve(t, q, "office")
	publish(t, q, fields("office", "1", contact.Live, `{"a":2}`), fields("office", "2", contact.Live, `{"a":2}`))
	settled(t, q, "office")
	bad := oldLetter(t, q, contact.Key{Target: "office", ID: "5"}, time.Now(), func(r *Record) { r.Original = []byte("{") })
	old := oldLetter(t, q, contact.Key{Target: "office", ID: "6"}, time.Now().Add(-RedriveLimit-time.Hour), nil)
	gone := oldLetter(t, q, contact.Key{Target: "gone", ID: "6"}, time.Now(), nil)
	rules := func(target string) (contact.Rules, bool) { return contact.Rules{}, target == "office" }
	check := func(u *contact.Update) error {
		if u.Contact.ID == "4" {
			return &contact.BadUpdate{Reason: contact.Invalid, Detail: "no"}
		}
		return nil
	}
	got, err := q.Foresee(t.Context(), RedrivePlan{}, rules, check)
	if err != nil {
		t.Fatal(err)
	}
	if got.Total != 7 || got.Sendable != 3 || got.Superseded != 1 || got.Partly != 1 || len(got.Groups) == 0 ||
		got.Skipped[SkipUnsendable] != 2 || got.Skipped[SkipTooOld] != 1 || got.Skipped[SkipNoTarget] != 1 {
		t.Errorf("%+v", got)
	}
	for kind, id := range map[string]uint64{"superseded": ls[0].Seq, "partly": ls[1].Seq, "too-old": old, "no-target": gone} {
		if e := got.Examples[kind]; len(e) != 1 || e[0] != id {
			t.Errorf("%s: %v, want %d", kind, e, id)
		}
	}
	// Nothing was sent.
	for _, l := range letters(t, q, Filter{}) {
		if l.State != LetterDead {
			t.Errorf("letter %d is %s", l.Seq, l.State)
		}
	}
	if got, err = q.Foresee(t.Context(), RedrivePlan{Force: true, IDs: []uint64{ls[0].Seq, ls[1].Seq, bad, old, 99999}}, rules, nil); err != nil ||
		got.Sendable != 3 || got.Superseded+got.Partly != 0 || got.Skipped[SkipGone] != 1 || got.Skipped[SkipUnsendable] != 1 || got.Groups != nil {
		t.Errorf("forced: %+v %v", got, err)
	}
	// A target that the caller does not know is told alike before and after.
	unknown := func(*contact.Update) error { return fmt.Errorf("no such target: %w", ErrNotSetUp) }
	p := RedrivePlan{IDs: []uint64{ls[0].Seq}}
	if got, err = q.Foresee(t.Context(), p, rules, unknown); err != nil || got.Skipped[SkipNoTarget] != 1 {
		t.Errorf("planned: %+v %v", got, err)
	}
	o := startRedrive(t, q, p)
	if o, err = q.RunRedrive(t.Context(), o.ID, unknown, nil); err != nil || o.Skipped[SkipNoTarget] != 1 || o.State != OperationDone {
		t.Errorf("run: %+v %v", o, err)
	}
	stop := errors.New("stop")
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(stop)
	if _, err := q.Foresee(ctx, RedrivePlan{}, rules, nil); err == nil {
		t.Error("it went on")
	}
}
