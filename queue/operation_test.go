package queue

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"crmsync/contact"
)

func manyDead(t testing.TB, q *Queue, n int) []Letter {
	t.Helper()
	var us []*contact.Update
	for i := range n {
		us = append(us, update("office", i, contact.Live, i))
	}
	return dead(t, q, us...)
}

func startRedrive(t testing.TB, q *Queue, p RedrivePlan) Operation {
	t.Helper()
	o, err := q.StartRedrive(t.Context(), alice, p)
	if err != nil {
		t.Fatal(err)
	}
	return o
}

func TestOperationSendsAllAndCountsHowTheyEnded(t *testing.T) {
	t.Parallel()
	q := setUp(t, "office")
	ls := manyDead(t, q, 60)
	bad := oldLetter(t, q, contact.Key{Target: "office", ID: "bad"}, time.Now(), func(r *Record) { r.Original = []byte("{") })
	old := oldLetter(t, q, contact.Key{Target: "office", ID: "old"}, time.Now().Add(-40*24*time.Hour), nil)
	gone := oldLetter(t, q, contact.Key{Target: "gone", ID: "1"}, time.Now(), nil)
	redrive(t, q, ls[3].Seq, RedriveOptions{})
	o := startRedrive(t, q, RedrivePlan{Rate: 1000})
	if o.Total != 63 {
		t.Errorf("total %d", o.Total)
	}
	c := newCRM()
	c.refuse = func(u *contact.Update) bool { return u.Contact.ID == "5" }
	c.serve(t, q, "office")
	told := 0
	// Letters that die while it runs are not its own: it would never end.
	got, err := q.RunRedrive(t.Context(), o.ID, nil, func(Operation) { told++ })
	if err != nil {
		t.Fatal(err)
	}
	if got.State != OperationDone || got.Sent != 59 || got.Ended[contact.Applied] != 58 || got.Ended[contact.Dead] != 1 || got.Unfinished() != 0 || told == 0 {
		t.Errorf("operation %+v", got)
	}
	if s := got.Skipped; s[SkipInHand]+s[SkipGone] != 1 || s[SkipUnsendable] != 1 || s[SkipTooOld] != 1 || s[SkipNoTarget] != 1 {
		t.Errorf("skipped %v", s)
	}
	left := ids(letters(t, q, Filter{}))
	if len(got.DeadAgain) != 1 || !slices.Contains(left, got.DeadAgain[0]) || !slices.Equal(left[:3], []uint64{bad, old, gone}) || len(left) != 4 {
		t.Errorf("left %v, dead again %v", left, got.DeadAgain)
	}
	if again, err := q.Operation(t.Context(), o.ID); err != nil || again.State != OperationDone || again.Sent != 59 || again.Updated.IsZero() {
		t.Errorf("stored %+v %v", again, err)
	}
	if all, err := q.Operations(t.Context()); err != nil || len(all) != 1 || all[0].By != alice.By {
		t.Errorf("operations %+v %v", all, err)
	}
	if a := audited(t, q, AuditFilter{Action: "redrive"}); len(a) != 2 || a[1].Count != 63 || a[1].Filter == nil || a[1].Detail != "operation "+o.ID {
		t.Errorf("audit %+v", a)
	}
	if again, err := q.RunRedrive(t.Context(), o.ID, nil, nil); err != nil || again.State != OperationDone {
		t.Errorf("run again: %+v %v", again, err)
	}
	if _, err := q.RunRedrive(t.Context(), "nothing", nil, nil); !errors.Is(err, ErrNotFound) {
		t.Error(err)
	}
}

func TestOperationBySelection(t *testing.T) {
	t.Parallel()
	q := setUp(t, "office")
	ls := manyDead(t, q, 20)
	c := newCRM()
	c.serve(t, q, "office")
	o := startRedrive(t, q, RedrivePlan{IDs: []uint64{ls[4].Seq, ls[2].Seq, 999999}, Force: true})
	got, err := q.RunRedrive(t.Context(), o.ID, nil, nil)
	if err != nil || got.Sent != 2 || got.Skipped[SkipGone] != 1 || got.State != OperationDone {
		t.Fatalf("%+v %v", got, err)
	}
	if a := audited(t, q, AuditFilter{}); len(a) != 1 || len(a[0].IDs) != 3 || a[0].Filter != nil || a[0].Detail != "operation "+o.ID+", forced" {
		t.Errorf("audit %+v", a)
	}
	o = startRedrive(t, q, RedrivePlan{Filter: Filter{Target: "office", Limit: 5}})
	if got, err = q.RunRedrive(t.Context(), o.ID, nil, nil); err != nil || got.Sent != 5 || o.Total != 5 {
		t.Fatalf("%+v %v", got, err)
	}
	o = startRedrive(t, q, RedrivePlan{Filter: Filter{Contact: ls[19].Contact}})
	if got, err = q.RunRedrive(t.Context(), o.ID, nil, nil); err != nil || got.Sent != 1 {
		t.Fatalf("%+v %v", got, err)
	}
	if n := len(letters(t, q, Filter{})); n != 20-2-5-1 {
		t.Errorf("%d letters are left", n)
	}
	if _, err := q.StartRedrive(t.Context(), alice, RedrivePlan{Rate: -1}); err == nil {
		t.Error("a negative rate")
	}
}

// The text by which letters were chosen may be a contact's value.
func TestOperationThatEndedKeepsNoText(t *testing.T) {
	t.Parallel()
	q := setUp(t, "office")
	dead(t, q, fields("office", "1", contact.Live, `{"a":1}`), fields("office", "2", contact.Live, `{"a":1}`))
	newCRM().serve(t, q, "office")
	p := RedrivePlan{Filter: Filter{Target: "office", Match: "by contact 1"}}
	done, cancelled := startRedrive(t, q, p), startRedrive(t, q, p)
	if got, err := q.Operation(t.Context(), done.ID); err != nil || got.Filter.Match != p.Filter.Match {
		t.Errorf("before it ended: %+v %v", got, err)
	}
	if got, err := q.CancelRedrive(t.Context(), alice, cancelled.ID); err != nil || got.Filter.Match != maskedMatch {
		t.Errorf("cancelled: %+v %v", got, err)
	}
	if got, err := q.RunRedrive(t.Context(), done.ID, nil, nil); err != nil || got.Sent != 1 || got.Filter.Match != maskedMatch {
		t.Errorf("done: %+v %v", got, err)
	}
	settled(t, q, "office")
	all, err := q.Operations(t.Context())
	if err != nil || len(all) != 2 || all[0].Filter.Match != maskedMatch || all[1].Filter.Match != maskedMatch {
		t.Errorf("%+v %v", all, err)
	}
}

// Who looks for what was done to a target finds acts by selection as well.
func TestAuditOfASelectionNamesItsTarget(t *testing.T) {
	q := setUp(t, "office", "lab")
	one := oldLetter(t, q, contact.Key{Target: "office", ID: "1"}, time.Now(), nil)
	two := oldLetter(t, q, contact.Key{Target: "office", ID: "2"}, time.Now(), nil)
	far := oldLetter(t, q, contact.Key{Target: "lab", ID: "2"}, time.Now(), nil)
	for _, c := range []struct {
		ids  []uint64
		want string
	}{{[]uint64{99999, one, two}, "office"}, {[]uint64{one, far}, ""}, {[]uint64{99999}, ""}} {
		o := startRedrive(t, q, RedrivePlan{IDs: c.ids})
		if _, err := q.CancelRedrive(t.Context(), alice, o.ID); err != nil {
			t.Fatal(err)
		}
		found := 0
		for _, e := range audited(t, q, AuditFilter{Target: c.want}) {
			if strings.HasPrefix(e.Detail, "operation "+o.ID) && e.Target == c.want {
				found++
			}
		}
		if found != 2 || o.Target != c.want {
			t.Errorf("%v: target %q, %d entries", c.ids, o.Target, found)
		}
	}
	o := startRedrive(t, q, RedrivePlan{Filter: Filter{Target: "lab"}})
	if a := audited(t, q, AuditFilter{Target: "lab"}); o.Target != "lab" || len(a) != 1 {
		t.Errorf("%+v, audit %+v", o, a)
	}
}

func TestCanariesThatDieStopTheOperation(t *testing.T) {
	t.Parallel()
	q := setUp(t, "office")
	manyDead(t, q, 30)
	c := newCRM()
	c.refuse = func(u *contact.Update) bool { return u.Contact.ID == "2" }
	c.serve(t, q, "office")
	o := startRedrive(t, q, RedrivePlan{Canary: 5})
	got, err := q.RunRedrive(t.Context(), o.ID, nil, nil)
	if err != nil || got.State != OperationStopped || got.Sent > 5 || got.Ended[contact.Dead] != 1 || got.Unfinished() != 0 {
		t.Fatalf("%+v %v", got, err)
	}
	if want := fmt.Sprintf("1 of the first %d died again; see letter %d", got.Sent, got.DeadAgain[0]); got.Why != want {
		t.Errorf("why %q, want %q", got.Why, want)
	}
	if n := len(letters(t, q, Filter{})); n != 30-int(got.Sent)+1 || claimedBy(t, q, "") != 0 {
		t.Errorf("it has stopped, and %d letters stand, %d of them in hand", n, claimedBy(t, q, ""))
	}
	c.mu.Lock()
	c.refuse = nil
	c.mu.Unlock()
	o = startRedrive(t, q, RedrivePlan{Canary: 5})
	got, err = q.RunRedrive(t.Context(), o.ID, nil, nil)
	if err != nil || got.State != OperationDone || got.Unfinished() != 0 || len(letters(t, q, Filter{})) != 0 {
		t.Fatalf("%+v %v", got, err)
	}
}

func TestCanariesGoFirst(t *testing.T) {
	t.Parallel()
	q := setUp(t, "office")
	manyDead(t, q, 10)
	o := startRedrive(t, q, RedrivePlan{Canary: 3})
	ctx, stop := contextWithCancel(t)
	done := make(chan struct{})
	go func() { defer close(done); _, _ = q.RunRedrive(ctx, o.ID, nil, nil) }()
	eventually(t, 10*time.Second, "the canaries are sent", func() bool { got, err := q.Operation(t.Context(), o.ID); return err == nil && got.Sent == 3 })
	info, err := q.info(t.Context(), streamName("office", contact.Bulk))
	if err != nil || info.State.Msgs != 3 {
		t.Errorf("%d updates, %v", info.State.Msgs, err)
	}
	stop()
	<-done
}

// A process that carries an operation out is stopped, and another goes on: every
// letter is sent once, and the counts are right.
func TestOperationGoesOnAfterItsProcessWasKilled(t *testing.T) {
	for _, window := range []int{10, 3 * fewMessages} { // one by one, and as batches
		t.Run(fmt.Sprint(window), func(t *testing.T) {
			t.Parallel()
			killsOfAnOperation(t, RedrivePlan{Window: window, Rate: 100_000})
		})
	}
}

func killsOfAnOperation(t *testing.T, p RedrivePlan) {
	q := setUp(t, "office")
	manyDead(t, q, 120)
	c := newCRM()
	c.refuse = func(u *contact.Update) bool { return u.Contact.ID == "99" }
	c.serve(t, q, "office")
	o := startRedrive(t, q, p)
	for n := 1; ; n++ {
		ctx, stop := contextWithCancel(t)
		worker := peerOf(t, q, &link{})
		go func() {
			eventually(t, 10*time.Second, "some more are sent", func() bool {
				c.mu.Lock()
				defer c.mu.Unlock()
				return c.applied >= min(n*30, 119)
			})
			_ = worker.Close() // as a kill: nothing is saved any more
			stop()
		}()
		got, err := worker.RunRedrive(ctx, o.ID, nil, nil)
		if err == nil && got.State == OperationDone || n > 10 {
			break
		}
	}
	got, err := q.RunRedrive(t.Context(), o.ID, nil, nil)
	if err != nil || got.State != OperationDone || got.Sent != 120 || got.Ended[contact.Applied] != 119 || got.Ended[contact.Dead] != 1 || len(got.Skipped) != 0 {
		t.Fatalf("%+v %v", got, err)
	}
	settled(t, q, "office")
	if c.applied != 119 || len(letters(t, q, Filter{})) != 1 {
		t.Errorf("%d applied, %d left", c.applied, len(letters(t, q, Filter{})))
	}
}

func TestTheLaterRunnerOfAnOperationGoesOn(t *testing.T) {
	t.Parallel()
	q := setUp(t, "office")
	manyDead(t, q, 5)
	o := startRedrive(t, q, RedrivePlan{Rate: 0.5}) // nobody serves the target
	first := make(chan error, 1)
	go func() {
		_, err := q.RunRedrive(t.Context(), o.ID, nil, nil)
		first <- err
	}()
	eventually(t, 10*time.Second, "it runs", func() bool { got, err := q.Operation(t.Context(), o.ID); return err == nil && got.Sent > 0 })
	ctx, stop := contextWithCancel(t)
	second := make(chan error, 1)
	go func() {
		_, err := peerOf(t, q, &link{}).RunRedrive(ctx, o.ID, nil, nil)
		second <- err
	}()
	if err := <-first; !errors.Is(err, ErrLost) {
		t.Errorf("the first: %v", err)
	}
	stop()
	if err := <-second; !errors.Is(err, context.Canceled) {
		t.Errorf("the second: %v", err)
	}
}

func TestPausedOperationSendsNothing(t *testing.T) {
	t.Parallel()
	q := setUp(t, "office")
	manyDead(t, q, 40)
	c := newCRM()
	c.serve(t, q, "office")
	o := startRedrive(t, q, RedrivePlan{Window: 2})
	if _, err := q.PauseRedrive(t.Context(), alice, o.ID); err != nil {
		t.Fatal(err)
	}
	done := make(chan Operation, 1)
	go func() {
		got, err := q.RunRedrive(t.Context(), o.ID, nil, nil)
		if err != nil {
			t.Error(err)
		}
		done <- got
	}()
	eventually(t, 10*time.Second, "it runs", func() bool { got, err := q.Operation(t.Context(), o.ID); return err == nil && got.Runner != "" })
	if got, err := q.Operation(t.Context(), o.ID); err != nil || got.Sent != 0 || got.State != OperationPaused || got.Why != "by "+alice.By {
		t.Errorf("%+v %v", got, err)
	}
	if _, err := q.ResumeRedrive(t.Context(), alice, o.ID); err != nil {
		t.Fatal(err)
	}
	if got := <-done; got.State != OperationDone || got.Sent != 40 || got.Why != "" {
		t.Errorf("%+v", got)
	}
	if a := audited(t, q, AuditFilter{Action: "redrive-pause"}); len(a) != 1 {
		t.Errorf("audit %+v", a)
	}
}

// Its rate holds in virtual time: n letters take n-1 turns.
func TestOperationKeepsItsRate(t *testing.T) {
	bubble(t, func(t *testing.T) {
		q := setUpSilent(t, testLease, "office")
		for i := range 11 {
			oldLetter(t, q, contact.Key{Target: "office", ID: fmt.Sprint(i)}, time.Now(), nil)
		}
		c := newCRM()
		var at []time.Time
		c.before = func(u *contact.Update) {
			c.mu.Lock()
			defer c.mu.Unlock()
			at = append(at, u.Stored)
		}
		stop := c.serve(t, q, "office")
		o := startRedrive(t, q, RedrivePlan{Rate: 2})
		got, err := q.RunRedrive(t.Context(), o.ID, nil, nil)
		if err != nil || got.Sent != 11 {
			t.Fatalf("%+v %v", got, err)
		}
		stop()
		if took := at[10].Sub(at[0]); took < 4900*time.Millisecond || took > 5500*time.Millisecond {
			t.Errorf("11 letters took %s at 2 a second", took)
		}
	})
}

// An update that is forgotten while it waits ends without a record; one that only
// waits is not given up.
func TestOperationEndsThoughAContactIsForgotten(t *testing.T) {
	bubble(t, func(t *testing.T) {
		q := setUpSilent(t, testLease, "office")
		o := startRedrive(t, q, RedrivePlan{IDs: ids(manyDead(t, q, 3))})
		done := make(chan Operation, 1)
		go func() {
			got, err := q.RunRedrive(t.Context(), o.ID, nil, nil)
			if err != nil {
				t.Error(err)
			}
			done <- got
		}()
		time.Sleep(2 * time.Second)
		if _, err := q.Forget(t.Context(), alice, contact.Key{Target: "office", ID: "1"}); err != nil {
			t.Fatal(err)
		}
		time.Sleep(3 * missAfter)
		got, err := q.Operation(t.Context(), o.ID)
		if err != nil || got.State != OperationRunning || got.Sent != 2 || got.Skipped[SkipGone] != 1 || got.Unfinished() != 2 {
			t.Errorf("while two wait: %+v %v", got, err)
		}
		stop := newCRM().serve(t, q, "office")
		if got = <-done; got.State != OperationDone || got.Ended[contact.Applied] != 2 || got.Sent != 2 || got.Skipped[SkipGone] != 1 || got.Unfinished() != 0 {
			t.Errorf("in the end: %+v", got)
		}
		stop()
	})
}
