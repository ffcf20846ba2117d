package queue

import (
	"context"
	"strings"
	"testing"
	"time"
)

func TestAsk(t *testing.T) {
	q := setUp(t, "office")
	far := peerOf(t, q, &link{})
	if _, ok, err := far.Ask(t.Context(), "office", []byte("?")); ok || err != nil {
		t.Errorf("nobody answers, and yet %v %v", ok, err)
	}
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() {
		done <- q.Answer(ctx, "office", func(_ context.Context, question []byte) []byte {
			return []byte(strings.ToUpper(string(question)))
		})
	}()
	eventually(t, 5*time.Second, "an answer", func() bool {
		a, ok, err := far.Ask(t.Context(), "office", []byte("who"))
		return ok && err == nil && string(a) == "WHO"
	})
	if _, ok, err := far.Ask(t.Context(), "shop", []byte("who")); ok || err != nil {
		t.Errorf("another target: %v %v", ok, err)
	}
	stop()
	if err := <-done; err != nil {
		t.Error(err)
	}
	if _, _, err := far.Ask(t.Context(), "a.b", nil); err == nil {
		t.Error("a target that cannot be was asked")
	}
	if err := q.Answer(t.Context(), "*", nil); err == nil {
		t.Error("an answer for all targets")
	}
}

func TestAskWaitsNoLongerThanTwoSeconds(t *testing.T) {
	bubble(t, func(t *testing.T) {
		q := setUpSilent(t, testLease, "office")
		ctx, stop := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() {
			done <- q.Answer(ctx, "office", func(ctx context.Context, _ []byte) []byte { <-ctx.Done(); return nil })
		}()
		began := time.Now()
		var err error
		for ok := false; !ok && err == nil; { // until somebody listens
			_, ok, err = q.Ask(t.Context(), "office", nil)
		}
		if err == nil || time.Since(began) < askWait || time.Since(began) > askWait+time.Second {
			t.Errorf("%v after %s", err, time.Since(began))
		}
		stop()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

func TestAuditTrail(t *testing.T) {
	q := setUp(t, "office")
	many := make([]uint64, 150)
	for _, e := range []Entry{
		{Actor: alice, Action: "hold", Target: "office", Detail: "for the night"},
		{Actor: Actor{By: "bob"}, Action: "redrive", Count: 150, IDs: many, Filter: &Filter{Match: "bob@x.io", Target: "office"}},
		{Actor: alice, Action: "resume", Target: "office", ID: 99, At: time.Unix(1, 0)},
	} {
		if err := q.Audit(t.Context(), e); err != nil {
			t.Fatal(err)
		}
	}
	all := audited(t, q, AuditFilter{})
	if len(all) != 3 || all[0].ID != 1 || all[2].ID != 3 || time.Since(all[2].At) > time.Minute || all[0].Detail != "for the night" || all[0].Via != "cli" {
		t.Errorf("%+v", all)
	}
	if e := all[1]; len(e.IDs) != 100 || e.Filter.Match == "bob@x.io" || e.Filter.Target != "office" {
		t.Errorf("%+v", e)
	}
	for _, c := range []struct {
		f    AuditFilter
		want int
	}{
		{AuditFilter{Target: "office"}, 2},
		{AuditFilter{Action: "redrive"}, 1},
		{AuditFilter{Since: all[1].At}, 2},
		{AuditFilter{Until: all[1].At}, 1},
		{AuditFilter{After: 2}, 1},
		{AuditFilter{After: 1, Since: time.Now()}, 0},
		{AuditFilter{Limit: 2}, 2},
	} {
		if got := audited(t, q, c.f); len(got) != c.want {
			t.Errorf("%+v: %d entries, want %d", c.f, len(got), c.want)
		}
	}
	for _, e := range []Entry{{Action: "Bad Word"}, {Action: "x", Target: "a.b"}} {
		if err := q.Audit(t.Context(), e); err == nil {
			t.Errorf("%+v was stored", e)
		}
	}
	// Nobody takes anything out of it.
	if err := q.remove(t.Context(), auditStream, 1); err == nil {
		t.Error("an entry was deleted")
	}
	if err := q.purge(t.Context(), auditStream, purgeRequest{}); err == nil {
		t.Error("the trail was purged")
	}
}
