package worker

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"crmsync/contact"
	"crmsync/crm"
)

// A window that is used up is shown as a hold, with which and until when; the
// lane's own pace is not.
func TestQuotaHold(t *testing.T) {
	inBubble(t, func(w *world) {
		w.o.Quota = Quota{Rate: 10, Concurrency: 2, Windows: []WindowLimit{{Span: time.Hour, Limit: 50}}}
		for i := range 60 {
			w.q.publish(fmt.Sprintf("c%d", i), contact.Live, "a")
		}
		born := time.Now()
		r := w.start()
		time.Sleep(time.Second)
		if st := r.status(); st.Hold != nil || st.Waiting != "the quota" || st.Used < 8 || st.Used > 11 {
			t.Errorf("at its own pace: %+v", st)
		}
		time.Sleep(9 * time.Second)
		st := r.status()
		if st.Hold == nil || st.Hold.Reason != HoldQuota || st.State != "held" || st.Hold.Detail != "the quota of 50 in 1h0m0s" {
			t.Fatalf("status %+v, hold %+v", st, st.Hold)
		}
		if at := st.Hold.Until.Sub(born); at < time.Hour || at > time.Hour+15*time.Second || !st.Windows[0].Resets.Equal(st.Hold.Until) {
			t.Errorf("until %v, resets %v", at, st.Windows[0].Resets.Sub(born))
		}
		if st.Counts.Holds[HoldQuota] != 1 || st.Windows[0].Left != 0 || st.Windows[0].Used != 50 {
			t.Errorf("counts %+v, windows %+v", st.Counts.Holds, st.Windows)
		}
		eta := r.l.ETA(time.Now(), 10)
		r.wait(time.Hour)
		if late := time.Since(eta); late < -2*time.Second || late > 3*time.Minute {
			t.Errorf("done %v after the ETA", late)
		}
		if st := r.status(); st.Hold != nil || st.State != "idle" {
			t.Errorf("status %+v", st)
		}
		r.end()
	})
}

// What answers say reaches the budget: a lane slows before the first refusal.
func TestLaneHearsTheCRM(t *testing.T) {
	inBubble(t, func(w *world) {
		w.o.Quota = Quota{Rate: 50, Burst: 2, Concurrency: 4}
		var mu sync.Mutex
		left := int64(100)
		reset := time.Now().Add(10 * time.Minute)
		w.m.plan = func(*crmCall) fate {
			mu.Lock()
			defer mu.Unlock()
			f := fine
			if left--; left < 0 {
				f = fails(contact.VerdictThrottled, 429)
			}
			f.answer.Hints = &crm.Hints{Began: time.Now(), Quotas: []crm.Advertised{{Limit: 100, Remaining: max(0, left), Reset: time.Until(reset)}}}
			return f
		}
		for i := range 150 {
			w.q.publish(fmt.Sprintf("c%d", i), contact.Live, "a")
		}
		r := w.start()
		time.Sleep(5 * time.Minute)
		st := r.status()
		if st.Rate > 0.2 || st.Slowed != WhyAdvertised || len(st.Advertised) != 1 || st.Advertised[0].Left < 40 || st.Advertised[0].Left > 55 {
			t.Errorf("half way: %+v", st.QuotaStatus)
		}
		time.Sleep(5*time.Minute - time.Second)
		if n := r.status().Counts.Answers[contact.VerdictThrottled]; n > 0 {
			t.Errorf("%d refused", n)
		}
		mu.Lock()
		left, reset = 1000, time.Now().Add(time.Hour)
		mu.Unlock()
		r.settleAll(time.Hour)
	})
}

// Another client eats the quota, so that many calls are refused: nothing is
// dead-lettered, no attempt is counted.
func TestQuotaEatenByOthers(t *testing.T) {
	inBubble(t, func(w *world) {
		w.o.Quota = Quota{Rate: 20, Burst: 2, Concurrency: 4}
		rng := rand.New(rand.NewPCG(7, 7))
		var mu sync.Mutex
		server := &hiddenBucket{rate: 10, burst: 5}
		w.m.plan = func(*crmCall) fate {
			mu.Lock()
			defer mu.Unlock()
			if !server.take(time.Now()) {
				return fails(contact.VerdictThrottled, 429)
			}
			return fine
		}
		ctx, stop := context.WithCancel(w.t.Context())
		var other sync.WaitGroup
		defer other.Wait()
		defer stop()
		other.Go(func() {
			for sleep(ctx, time.Duration(rng.ExpFloat64()*float64(150*time.Millisecond))) {
				mu.Lock()
				server.take(time.Now())
				mu.Unlock()
			}
		})
		var all []*stored
		for i := range 3000 {
			all = append(all, w.q.publish(fmt.Sprintf("c%d", i), contact.Live, "a"))
		}
		r := w.start()
		r.wait(2 * time.Hour)
		st := r.status()
		r.end()
		if st.Counts.Outcomes[contact.Applied] != 3000 || st.Counts.Answers[contact.VerdictThrottled] == 0 || st.Counts.Answers[contact.VerdictThrottled] > 300 {
			t.Errorf("counts %+v", st.Counts)
		}
		for _, u := range all {
			if u.ending.Attempts != 1 {
				t.Fatalf("a refusal cost an attempt: %+v", u.ending)
			}
		}
	})
}
