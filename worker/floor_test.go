package worker

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"crmsync/contact"
)

// liveLatency sends live updates at a quarter of the quota beside a bulk job and
// returns the 99th percentile of the time from being stored to being settled, and
// how many bulk updates ended meanwhile.
func liveLatency(t *testing.T, rows int) (p99 time.Duration, bulk int) {
	inBubble(t, func(w *world) {
		w.o.Quota = Quota{Rate: 20, Burst: 1, Concurrency: 4}
		var took []time.Duration
		began := time.Now()
		w.o.OnSettled = func(e contact.Ended) {
			if e.Update.Class == contact.Bulk {
				if time.Since(began) > time.Minute {
					bulk++
				}
				return
			}
			took = append(took, time.Since(e.Update.Stored))
		}
		for n := range rows {
			w.q.publishUpdate(ofJob("night", fmt.Sprint("row", n), contact.Bulk), "a")
		}
		r := w.start()
		time.Sleep(time.Minute)
		rng := rand.New(rand.NewPCG(1, 2))
		for n := range 2000 {
			w.q.publish(fmt.Sprint("live", n), contact.Live, "a")
			time.Sleep(time.Duration(rng.ExpFloat64() * float64(200*time.Millisecond)))
		}
		r.end()
		slices.Sort(took)
		p99 = took[len(took)*99/100]
	})
	return p99, bulk
}

// A large job costs live updates no more than the wait for the next token.
func TestLiveBesideBulk(t *testing.T) {
	idle, _ := liveLatency(t, 0)
	busy, bulk := liveLatency(t, 8000)
	t.Logf("p99 of live: %v alone, %v beside a job of which %d rows ended", idle, busy, bulk)
	if busy > 2*idle {
		t.Errorf("p99 of live is %v beside bulk, %v without", busy, idle)
	}
	if bulk < 4000 {
		t.Errorf("%d rows ended in what live left of 400 s at 20/s", bulk)
	}
}

// However much live there is, one call in ten is bulk.
func TestBulkKeepsItsFloor(t *testing.T) {
	inBubble(t, func(w *world) {
		bulk := 0
		w.o.OnSettled = func(e contact.Ended) {
			if e.Update.Class == contact.Bulk {
				bulk++
			}
		}
		paused := pausing(w)
		paused.add("paused") // takes no turn of the others
		for n := range 1500 {
			w.q.publishUpdate(ofJob("paused", fmt.Sprint("p", n), contact.Bulk), "a")
			w.q.publish(fmt.Sprint("live", n), contact.Live, "a")
			w.q.publishUpdate(ofJob("night", fmt.Sprint("row", n), contact.Bulk), "a")
		}
		r := w.start()
		time.Sleep(100*time.Second + time.Millisecond)
		r.end()
		if calls := len(w.m.callsOf("")); bulk < calls/10-1 || bulk > calls/10+1 {
			t.Errorf("%d of %d calls were bulk", bulk, calls)
		}
	})
}
