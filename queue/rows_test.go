package queue

import (
	"fmt"
	"testing"

	"crmsync/contact"
)

// LastRow sees a row wherever it is: in its stream, or ended and gone from it.
func TestLastRow(t *testing.T) {
	q := setUp(t, "office", "shop")
	ctx := t.Context()
	row := func(target, job string, n int64, class contact.Class) *contact.Update {
		u := update(target, n, class, int(n))
		u.Job, u.Row, u.MsgID = job, n, fmt.Sprint(job, n, class)
		return u
	}
	last := func(target, job string, class contact.Class) int64 {
		t.Helper()
		n, err := q.LastRow(ctx, target, class, job)
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	if n := last("office", "j", contact.Bulk); n != 0 {
		t.Errorf("nothing is stored: %d", n)
	}
	for n := int64(1); n <= 10; n++ {
		job := "j"
		if n > 7 {
			job = "other"
		}
		if _, err := q.Publish(ctx, row("office", job, n, contact.Bulk)); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := q.Publish(ctx, row("office", "j", 9, contact.Live)); err != nil {
		t.Fatal(err)
	}
	if _, err := q.Publish(ctx, row("shop", "j", 8, contact.Bulk)); err != nil {
		t.Fatal(err)
	}
	if n := last("office", "j", contact.Bulk); n != 7 {
		t.Errorf("in the stream: %d, want 7", n)
	}
	s := own(t, q, "office").source(t)
	for _, u := range take(t, s, contact.Bulk, 10) {
		settle(t, s, contact.Applied, u)
	}
	if n := last("office", "j", contact.Bulk); n != 7 {
		t.Errorf("ended: %d, want 7", n)
	}
	if n := last("office", "j", contact.Live); n != 9 {
		t.Errorf("live: %d, want 9", n)
	}
	if _, err := q.LastRow(ctx, "Nowhere", contact.Bulk, "j"); err == nil {
		t.Error("a target that cannot be was taken")
	}
}
