package worker

import (
	"fmt"
	"reflect"
	"sync/atomic"
	"testing"
	"time"

	"crmsync/contact"
)

func TestQuotaUnderLimits(t *testing.T) {
	hour := WindowLimit{Span: time.Hour, Limit: 1000}
	calendar := WindowLimit{Span: time.Hour, Limit: 900, Calendar: true}
	configured := Quota{Rate: 10, Burst: 20, Concurrency: 4, Reserve: 0.1, Windows: []WindowLimit{hour, calendar}}
	with := func(change func(*Quota)) Quota {
		q := configured
		q.Windows = []WindowLimit{hour, calendar}
		change(&q)
		return q
	}
	for _, c := range []struct {
		limits Limits
		want   Quota
	}{
		{Limits{By: "ann", Note: "x"}, configured},
		{Limits{Rate: 2}, with(func(q *Quota) { q.Rate, q.Burst = 2, 2 })},
		{Limits{Rate: 0.5}, with(func(q *Quota) { q.Rate, q.Burst = 0.5, 1 })},
		{Limits{Rate: 100}, with(func(q *Quota) { q.Rate = 100 })},
		{Limits{Rate: 2, Burst: 9}, with(func(q *Quota) { q.Rate, q.Burst = 2, 9 })},
		{Limits{Burst: 3, Concurrency: 1}, with(func(q *Quota) { q.Burst, q.Concurrency = 3, 1 })},
		{Limits{PerHour: 5}, with(func(q *Quota) { q.Windows[0].Limit = 5 })},
		{
			Limits{PerSecond: 1, PerMinute: 2, PerDay: 3},
			with(func(q *Quota) {
				q.Windows = append(q.Windows, WindowLimit{Span: time.Second, Limit: 1},
					WindowLimit{Span: time.Minute, Limit: 2}, WindowLimit{Span: 24 * time.Hour, Limit: 3})
			}),
		},
	} {
		if got := configured.Under(c.limits); !reflect.DeepEqual(got, c.want) {
			t.Errorf("%+v makes %+v, want %+v", c.limits, got, c.want)
		}
	}
	if configured.Windows[0] != hour {
		t.Error("the configured windows were changed")
	}
}

// A lane keeps to what an operator sets while it runs, and returns to what is
// configured.
func TestLaneObeysLimits(t *testing.T) {
	inBubble(t, func(w *world) {
		w.o.Quota = Quota{Rate: 100, Burst: 1, Concurrency: 8}
		for i := range 4000 {
			w.q.publish(fmt.Sprintf("c%d", i), contact.Bulk, "a")
		}
		var slow atomic.Bool
		slow.Store(true)
		w.m.plan = func(*crmCall) fate {
			f := fine
			if slow.Load() {
				f.latency = time.Second
			}
			return f
		}
		r := w.start()
		r.l.Steer(w.t.Context(), Orders{Limits: Limits{Concurrency: 2, By: "ann"}})
		time.Sleep(10 * time.Second)
		if st := r.status(); st.Calling != 2 || st.Waiting != "a free connection" || st.Orders.Limits.By != "ann" {
			t.Errorf("with two connections: %d calls, waits for %s", st.Calling, st.Waiting)
		}
		slow.Store(false)
		time.Sleep(2 * time.Second)
		n := len(w.m.callsOf(""))
		r.l.Steer(w.t.Context(), Orders{Limits: Limits{PerMinute: 30}})
		time.Sleep(5 * time.Minute)
		// What was sent before counts too; then there are 30 in each minute.
		if got := len(w.m.callsOf("")) - n; got < 115 || got > 150 {
			t.Errorf("%d calls in five minutes at 30 a minute", got)
		}
		n = len(w.m.callsOf(""))
		r.l.Steer(w.t.Context(), Orders{})
		time.Sleep(10 * time.Second)
		if got := len(w.m.callsOf("")) - n; got < 900 {
			t.Errorf("%d calls in ten seconds at 100/s", got)
		}
	})
}
