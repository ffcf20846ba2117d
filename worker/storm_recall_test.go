package worker

import (
	"fmt"
	"sync/atomic"
	"testing"
	"time"
)

// Letters that the queue has no room for when the storm is over are recalled when
// there is some, by this lane or the next, and hold up nobody.
func TestRecallWaitsForRoom(t *testing.T) {
	for _, successor := range []bool{false, true} {
		t.Run(fmt.Sprintf("by the successor %v", successor), func(t *testing.T) {
			inBubble(t, func(w *world) {
				room := time.Now().Add(40 * time.Minute)
				w.q.room = func() bool { return time.Now().After(room) }
				w.m.plan = stormy(0, time.Minute)
				w.contacts(0, 100, "a")
				r := w.start()
				w.after(20 * time.Minute)
				st := r.status()
				dead := w.dead()
				if dead == 0 || len(st.Memory.Left) != dead || st.Hold != nil || st.Counts.Recalled != 0 || w.q.pending() != 0 {
					t.Fatalf("%d are dead, %d wait for room, hold %+v, %d are unfinished", dead, len(st.Memory.Left), st.Hold, w.q.pending())
				}
				if successor {
					w.o.Memory = roundTrip(w.t, st).Memory
					r.end()
					r = w.start()
				}
				w.contacts(1000, 10, "a")
				w.after(time.Minute)
				if w.q.pending() != 0 {
					t.Error("others wait for the recall")
				}
				w.after(time.Hour)
				if st = r.status(); len(st.Memory.Left) != 0 || w.dead() != 0 || st.Counts.Recalled != int64(dead) {
					t.Errorf("%d are dead, %d wait, %d were recalled of %d", w.dead(), len(st.Memory.Left), st.Counts.Recalled, dead)
				}
				if w.q.recalled() > 20 { // each is an entry in the audit trail
					t.Errorf("%d attempts", w.q.recalled())
				}
				r.settleAll(time.Minute)
			})
		})
	}
}

// In a new storm they wait as well: they would only join its letters.
func TestRecallWaitsForTheNextStorm(t *testing.T) {
	inBubble(t, func(w *world) {
		var room atomic.Bool
		w.q.room = room.Load
		w.m.plan = stormy(0, time.Minute)
		w.contacts(0, 100, "a")
		r := w.start()
		w.after(20 * time.Minute)
		left := len(r.status().Memory.Left)
		w.m.change(stormy(0, time.Hour))
		w.contacts(1000, 100, "a")
		w.after(5 * time.Minute)
		room.Store(true)
		before := w.q.recalled()
		w.after(30 * time.Minute)
		st := r.status()
		wantHold(w.t, st, HoldStorm)
		if len(st.Memory.Left) != left || left == 0 || w.q.recalled() != before {
			t.Errorf("%d wait, then %d; recalled %d times in the storm", left, len(st.Memory.Left), w.q.recalled()-before)
		}
		w.after(4 * time.Hour)
		r.settleAll(time.Hour)
		if n := w.dead(); n != 0 {
			t.Errorf("%d are dead", n)
		}
	})
}
