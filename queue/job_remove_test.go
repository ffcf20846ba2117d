package queue

import (
	"errors"
	"strings"
	"testing"
	"time"

	"crmsync/contact"
)

// A job is removed only when nothing is to come of it; whoever has its name later
// is not what it was.
func TestRemoveJob(t *testing.T) {
	t.Parallel()
	q := setUp(t, "office")
	ctx, kim := t.Context(), Actor{By: "kim", Via: "cli"}
	if err := q.RemoveJob(ctx, kim, "office", "j"); !errors.Is(err, ErrNotFound) {
		t.Errorf("one that never was: %v", err)
	}
	refused := func(why string) {
		t.Helper()
		if err := q.RemoveJob(ctx, kim, "office", "j"); !errors.Is(err, ErrJobOpen) || !strings.Contains(err.Error(), why) {
			t.Errorf("%s: %v", why, err)
		}
	}
	j := Job{ID: "j", Target: "office", Class: contact.Bulk, Queued: 2}
	if err := q.SaveJob(ctx, j); err != nil {
		t.Fatal(err)
	}
	refused("can be taken up again")
	publish(t, q, jobRows("office", "j", 1, 2)...)
	j.Loaded = time.Now()
	if err := q.SaveJob(ctx, j); err != nil {
		t.Fatal(err)
	}
	refused("2 of its rows wait")
	s := own(t, q, "office").source(t)
	us := take(t, s, contact.Bulk, 2)
	if _, err := q.SteerJob(ctx, kim, "office", "j", JobCancelled); err != nil {
		t.Fatal(err)
	}
	settle(t, s, contact.Cancelled, us[0])
	settle(t, s, contact.Dead, us[1])
	refused("records of its rows are stored")
	count(t, q, "office", "j") // which keeps it
	for _, r := range allRecords(t, q, Filter{Target: "office", Job: "j"}) {
		refused("records of its rows are stored")
		if err := q.erase(ctx, outcomeStream, r.Seq); err != nil {
			t.Fatal(err)
		}
	}
	purged(t, q, 2)
	if err := q.RemoveJob(ctx, kim, "office", "j"); err != nil {
		t.Fatal(err)
	}
	if jobs, err := q.Jobs(ctx, "office"); err != nil || len(jobs) != 0 {
		t.Errorf("%+v, %v", jobs, err)
	}
	if o, err := q.JobOrder(ctx, "office", "j"); err != nil || o.State != JobRunning {
		t.Errorf("%+v, %v", o, err)
	}
	eventually(t, 10*time.Second, "its owner forgets that it was cancelled", func() bool { _, ok := s.JobCancelled(us[0]); return !ok })
}
