package queue

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"strings"
	"testing"
	"time"

	"crmsync/contact"
)

// jobRows are the updates of a job's rows, one a contact.
func jobRows(target, job string, from, to int) []*contact.Update {
	var out []*contact.Update
	for n := from; n <= to; n++ {
		u := update(target, n, contact.Bulk, n)
		u.Job, u.Row, u.MsgID = job, int64(n), fmt.Sprintf("%s:%d", job, n)
		out = append(out, u)
	}
	return out
}

func count(t testing.TB, q *Queue, target, job string) JobCount {
	t.Helper()
	c, err := q.CountJob(t.Context(), target, job)
	if err != nil {
		t.Fatal(err)
	}
	if c.Read != c.Rejected+c.Queued || c.Queued != c.Ended()+c.Waiting+c.Gone {
		t.Errorf("%s does not add up: %+v", job, c)
	}
	return c
}

func wantCount(t testing.TB, what string, c JobCount, waiting int64, outcomes map[contact.Outcome]int64) {
	t.Helper()
	if c.Waiting != waiting || !maps.Equal(c.Outcomes, outcomes) {
		t.Errorf("%s: %d waiting, %v; want %d, %v", what, c.Waiting, c.Outcomes, waiting, outcomes)
	}
}

// purged waits until the stream has forgotten what has ended.
func purged(t *testing.T, q *Queue, upTo uint64) {
	t.Helper()
	eventually(t, 10*time.Second, "the stream is purged", func() bool {
		info, err := q.info(t.Context(), "CRM_OFFICE_BULK")
		return err == nil && info.State.FirstSeq > upTo
	})
}

type outcomesOf = map[contact.Outcome]int64

// A job's ledger adds up from the first row to the last letter, by whatever way
// its rows went, and is kept when all have ended.
func TestJobAddsUp(t *testing.T) {
	t.Parallel()
	q := setUp(t, "office")
	ctx := t.Context()
	j := Job{ID: "j/1 ü", Target: "office", Class: contact.Bulk, By: "kim", Created: time.Now()}
	if err := q.SaveJob(ctx, j); err != nil {
		t.Fatal(err)
	}
	wantCount(t, "nothing queued", count(t, q, "office", j.ID), 0, outcomesOf{})
	publish(t, q, jobRows("office", j.ID, 1, 6)...)
	publish(t, q, update("office", 1, contact.Bulk, 77)) // of no job
	wantCount(t, "not loaded", count(t, q, "office", j.ID), 6, outcomesOf{})
	j.Read, j.Queued, j.Rejected, j.Loaded = 8, 6, 2, time.Now()
	if err := q.SaveJob(ctx, j); err != nil {
		t.Fatal(err)
	}
	s := own(t, q, "office").source(t)
	us := take(t, s, contact.Bulk, 7)
	settle(t, s, contact.Applied, us[0])
	settle(t, s, contact.Dead, us[1])
	settle(t, s, contact.Dead, us[2])
	settle(t, s, contact.Cancelled, us[3])
	c := count(t, q, "office", j.ID)
	wantCount(t, "two wait", c, 2, outcomesOf{contact.Applied: 1, contact.Dead: 2, contact.Cancelled: 1})
	if c.Read != 8 || c.Dead[contact.Invalid] != 2 || c.Recent != 4 {
		t.Errorf("%+v", c)
	}
	settle(t, s, contact.Unchanged, us[4])
	settle(t, s, contact.Superseded, us[5])
	letters := allRecords(t, q, Filter{Target: "office", Outcome: contact.Dead})
	if err := q.Discard(ctx, letters[0].Seq, Actor{By: "kim"}, "no such person"); err != nil {
		t.Fatal(err)
	}
	if _, err := q.Redrive(ctx, letters[1].Seq, RedriveOptions{Actor: Actor{By: "kim"}}); err != nil {
		t.Fatal(err)
	}
	wantCount(t, "a letter under way", count(t, q, "office", j.ID), 0,
		outcomesOf{contact.Applied: 1, contact.Dead: 1, contact.Discarded: 1, contact.Cancelled: 1, contact.Unchanged: 1, contact.Superseded: 1})
	settle(t, s, contact.Applied, take(t, s, contact.Bulk, 1)...)
	want := outcomesOf{contact.Applied: 2, contact.Discarded: 1, contact.Cancelled: 1, contact.Unchanged: 1, contact.Superseded: 1}
	eventually(t, 10*time.Second, "the letter is removed", func() bool {
		n, err := q.Count(ctx, Filter{Target: "office", Outcome: contact.Dead})
		return err == nil && n == 0
	})
	wantCount(t, "sent again", count(t, q, "office", j.ID), 0, want)
	wantCount(t, "kept", count(t, q, "office", j.ID), 0, want)

	// When the records have gone, what was kept is told, and since when.
	purged(t, q, 6)
	for _, r := range allRecords(t, q, Filter{Target: "office", Job: j.ID}) {
		if err := q.erase(ctx, outcomeStream, r.Seq); err != nil {
			t.Fatal(err)
		}
	}
	c = count(t, q, "office", j.ID)
	wantCount(t, "expired", c, 0, want)
	if c.Kept.IsZero() {
		t.Error("it does not say that it was counted earlier")
	}
}

// Letters that are sent again after a job's records have expired correct what was
// kept.
func TestJobKeptIsCorrected(t *testing.T) {
	t.Parallel()
	q := setUp(t, "office")
	ctx := t.Context()
	publish(t, q, jobRows("office", "old", 1, 3)...)
	s := own(t, q, "office").source(t)
	us := take(t, s, contact.Bulk, 3)
	settle(t, s, contact.Applied, us[0])
	settle(t, s, contact.Dead, us[1])
	settle(t, s, contact.Dead, us[2])
	if err := q.SaveJob(ctx, Job{ID: "old", Target: "office", Class: contact.Bulk, Queued: 3, Loaded: time.Now()}); err != nil {
		t.Fatal(err)
	}
	wantCount(t, "at first", count(t, q, "office", "old"), 0, outcomesOf{contact.Applied: 1, contact.Dead: 2})
	for _, r := range allRecords(t, q, Filter{Target: "office", Outcome: contact.Applied}) {
		if err := q.erase(ctx, outcomeStream, r.Seq); err != nil {
			t.Fatal(err)
		}
	}
	purged(t, q, 3)
	letters := allRecords(t, q, Filter{Target: "office", Outcome: contact.Dead})
	if _, err := q.Redrive(ctx, letters[0].Seq, RedriveOptions{}); err != nil {
		t.Fatal(err)
	}
	settle(t, s, contact.Unchanged, take(t, s, contact.Bulk, 1)...)
	eventually(t, 10*time.Second, "the letter is removed", func() bool {
		n, err := q.Count(ctx, Filter{Target: "office", Outcome: contact.Dead})
		return err == nil && n == 1
	})
	wantCount(t, "corrected", count(t, q, "office", "old"), 0, outcomesOf{contact.Applied: 1, contact.Unchanged: 1, contact.Dead: 1})
}

// A job that nobody announced is met by the worker and counted from what is
// stored, with rows or without.
func TestJobOfOthers(t *testing.T) {
	q := setUp(t, "office")
	us := jobRows("office", "feed", 1, 4)
	us[2].Row, us[3].Row = 0, 0
	publish(t, q, us...)
	wantCount(t, "before any worker", count(t, q, "office", "feed"), 4, outcomesOf{})
	s := own(t, q, "office").source(t)
	got := take(t, s, contact.Bulk, 4)
	eventually(t, 10*time.Second, "the job is listed", func() bool {
		jobs, err := q.Jobs(t.Context(), "office")
		return err == nil && len(jobs) == 1 && jobs[0].Found && jobs[0].ID == "feed" && jobs[0].Class == contact.Bulk
	})
	settle(t, s, contact.Applied, got[0])
	settle(t, s, contact.Applied, got[2])
	settle(t, s, contact.Dead, got[3])
	wantCount(t, "under way", count(t, q, "office", "feed"), 1, outcomesOf{contact.Applied: 2, contact.Dead: 1})
	settle(t, s, contact.Applied, got[1])
	wantCount(t, "ended", count(t, q, "office", "feed"), 0, outcomesOf{contact.Applied: 3, contact.Dead: 1})
	if _, err := q.Job(t.Context(), "office", "another"); !errors.Is(err, ErrNotFound) {
		t.Errorf("a job that is none: %v", err)
	}
}

// Who follows a job reads each record once and sees it end; rows of contacts that
// were forgotten are gone, not waiting.
func TestWatchJob(t *testing.T) {
	t.Parallel()
	q := setUp(t, "office")
	j := Job{ID: "j", Target: "office", Class: contact.Bulk}
	publish(t, q, jobRows("office", "j", 1, 2)...)
	if err := q.SaveJob(t.Context(), j); err != nil {
		t.Fatal(err)
	}
	s := own(t, q, "office").source(t)
	us := take(t, s, contact.Bulk, 2)
	step := 0
	err := q.WatchJob(t.Context(), "office", "j", time.Millisecond, func(_ Job, c JobCount) (bool, error) {
		switch step {
		case 0:
			wantCount(t, "at once", c, 2, outcomesOf{})
			settle(t, s, contact.Applied, us[0])
			publish(t, q, jobRows("office", "j", 3, 3)...)
		case 1:
			wantCount(t, "one more", c, 2, outcomesOf{contact.Applied: 1})
			settle(t, s, contact.Dead, us[1])
			if _, err := q.Forget(t.Context(), Actor{By: "kim"}, contact.Key{Target: "office", ID: "3"}); err != nil {
				t.Error(err)
			}
			j.Queued, j.Loaded = 3, time.Now()
			if err := q.SaveJob(t.Context(), j); err != nil {
				t.Error(err)
			}
		default:
			if c.Waiting == 0 {
				wantCount(t, "at the end", c, 0, outcomesOf{contact.Applied: 1, contact.Dead: 1})
				if c.Gone != 1 {
					t.Errorf("%d gone", c.Gone)
				}
				return false, nil
			}
		}
		step++
		return true, nil
	})
	if err != nil {
		t.Fatal(err)
	}
	l, err := q.JobLedger(t.Context(), "office", "j")
	if err != nil {
		t.Fatal(err)
	}
	for row, want := range map[int64]contact.Outcome{1: contact.Applied, 2: contact.Dead, 3: contact.Pending, -1: contact.Pending, 1 << 40: contact.Pending} {
		if o, letter, known := l.Row(row); o != want || known != (want != contact.Pending) || (letter > 0) != (o == contact.Dead) {
			t.Errorf("row %d: %s, letter %d, %v", row, o, letter, known)
		}
	}
	if l.Last() != 2 || l.Count.Gone != 1 {
		t.Errorf("the last is %d; %+v", l.Last(), l.Count)
	}
}

// What is wanted of a job reaches its owner, the next owner before its first
// update, and the audit trail; a cancelled job stays so, but its letters may be
// sent again.
func TestSteerJob(t *testing.T) {
	q := setUp(t, "office")
	ctx, kim := t.Context(), Actor{By: "kim", Via: "cli"}
	publish(t, q, jobRows("office", "j", 1, 2)...)
	l := own(t, q, "office")
	s := l.source(t)
	us := take(t, s, contact.Bulk, 2)
	other := &contact.Update{Contact: us[0].Contact, Job: "k"}
	if s.Paused(us[0]) {
		t.Error("paused before anybody said so")
	}
	if o, err := q.SteerJob(ctx, kim, "office", "j", JobPaused); err != nil || o.State != JobPaused || o.By != "kim" {
		t.Fatalf("%+v, %v", o, err)
	}
	select {
	case <-s.Steered():
	case <-time.After(10 * time.Second):
		t.Fatal("the owner does not hear of it")
	}
	eventually(t, 10*time.Second, "it is paused", func() bool { return s.Paused(us[0]) })
	if s.Paused(other) {
		t.Error("another job is paused as well")
	}
	settle(t, s, contact.Dead, us[1])
	l.end(t)

	q2 := peerOf(t, q, &link{})
	l = own(t, q2, "office")
	s = l.source(t)
	if !s.Paused(us[0]) {
		t.Error("the next owner does not know that the job is paused")
	}
	if o, err := q.SteerJob(ctx, kim, "office", "j", JobCancelled); err != nil || o.State != JobCancelled {
		t.Fatalf("%+v, %v", o, err)
	}
	eventually(t, 10*time.Second, "it is cancelled", func() bool { by, ok := s.JobCancelled(us[0]); return ok && by == "kim" })
	if s.Paused(us[0]) {
		t.Error("paused as well")
	}
	if _, err := q.SteerJob(ctx, kim, "office", "j", JobRunning); !errors.Is(err, ErrJobCancelled) {
		t.Errorf("resumed: %v", err)
	}
	letters := allRecords(t, q, Filter{Target: "office", Outcome: contact.Dead})
	if _, err := q.Redrive(ctx, letters[0].Seq, RedriveOptions{}); err != nil {
		t.Fatal(err)
	}
	for _, u := range take(t, s, contact.Bulk, 2) {
		if _, ok := s.JobCancelled(u); ok != (u.RedriveOf == "") {
			t.Errorf("update %d, redrive of %q: cancelled %v", u.Seq, u.RedriveOf, ok)
		}
	}
	var acts []string
	err := q.AuditTrail(ctx, AuditFilter{Target: "office"}, func(e Entry) error {
		if strings.HasPrefix(e.Action, "job-") {
			acts = append(acts, e.By+" "+e.Action+" "+e.Detail)
		}
		return nil
	})
	if err != nil || strings.Join(acts, "; ") != "kim job-pause job j; kim job-cancel job j" {
		t.Errorf("%q, %v", acts, err)
	}
}

// Of a loaded job whose stream is long, what waits is inferred.
func TestJobInferred(t *testing.T) {
	q := setUp(t, "office")
	q.limits.infer = 2
	publish(t, q, jobRows("office", "j", 1, 5)...)
	if err := q.SaveJob(t.Context(), Job{ID: "j", Target: "office", Class: contact.Bulk, Queued: 5, Loaded: time.Now()}); err != nil {
		t.Fatal(err)
	}
	s := own(t, q, "office").source(t)
	settle(t, s, contact.Applied, take(t, s, contact.Bulk, 1)...)
	if c := count(t, q, "office", "j"); !c.Inferred || c.Waiting != 4 {
		t.Errorf("%+v", c)
	}
}

// A million rows are counted in bounded memory; the time is of reading the heads
// of the updates that wait.
func BenchmarkCountJob(b *testing.B) {
	rows := 1_000_000
	if testing.Short() {
		rows = 10_000
	}
	o := testOptions(b, memoryDir(b))
	q := open(b, o)
	if err := q.Setup(b.Context(), []string{"office"}); err != nil {
		b.Fatal(err)
	}
	batch := q.Batch("office", contact.Bulk)
	for n := range rows {
		u := &contact.Update{
			Contact: contact.Key{Target: "office", ID: fmt.Sprint(n)}, Class: contact.Bulk, Raw: []byte(`{"fields":{"n":1}}`),
			Job: "j", Row: int64(n + 1), MsgID: fmt.Sprintf("j:%d", n+1),
		}
		if err := batch.Add(b.Context(), u); err != nil {
			b.Fatal(err)
		}
	}
	if err := batch.Close(b.Context()); err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		c, err := q.CountJob(context.Background(), "office", "j")
		if err != nil || c.Waiting != int64(rows) {
			b.Fatal(c, err)
		}
	}
	b.ReportMetric(float64(rows)*float64(b.N)/b.Elapsed().Seconds(), "rows/s")
}
