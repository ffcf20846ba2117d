package worker

import (
	"fmt"
	"sync"
	"testing"
	"time"

	"crmsync/contact"
)

// record is what owners of a target leave to each other of its quota.
type record struct {
	mu    sync.Mutex
	spent []Spent
}

func (k *record) set(s []Spent) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.spent = s
}

func (k *record) get() []Spent {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.spent
}

// keep stores what a lane has spent whenever it wants, as its process does; the
// store takes a moment. It ends with the lane, or at once when told so.
func (k *record) keep(r *running, crashed <-chan struct{}) {
	for {
		select {
		case <-r.l.Want():
		case <-r.done:
			return
		case <-crashed:
			return
		}
		st, ok := r.l.Status(r.w.t.Context())
		if !ok {
			return
		}
		select {
		case <-time.After(20 * time.Millisecond):
		case <-crashed:
			return
		}
		k.set(st.Spent)
		r.l.Stored(st.Spent)
	}
}

// A thousand requests an hour, for the better part of a day, by one owner after
// the other, who hand over in order or crash: in no hour of any kind is there
// one more, and they are used.
func TestThousandAnHourByManyOwners(t *testing.T) {
	for _, c := range []struct {
		name  string
		crash int // each so many-th owner crashes; 0: none
		least int // requests in ten hours
	}{
		{"in order", 0, 9_950},
		{"each third crashes", 3, 9_900},
		{"all crash", 1, 9_750},
	} {
		t.Run(c.name, func(t *testing.T) {
			inBubble(t, func(w *world) {
				w.o.Quota = Quota{Burst: 1, Concurrency: 4, Durable: true, Windows: []WindowLimit{{Span: time.Hour, Limit: 1000}}}
				for i := range 12_000 {
					w.q.publish(fmt.Sprintf("c%d", i), contact.Bulk, "a")
				}
				var k record
				born := time.Now()
				for n := 1; time.Since(born) < 10*time.Hour; n++ {
					w.o.Spent = k.get()
					r := w.start()
					crashed := make(chan struct{})
					var wg sync.WaitGroup
					wg.Go(func() { k.keep(r, crashed) })
					time.Sleep(time.Duration(7+n%5*6) * time.Minute)
					if c.crash > 0 && n%c.crash == 0 {
						close(crashed)
						r.s.lose()
						r.stop()
						<-r.done
						wg.Wait()
						time.Sleep(8 * time.Second) // its lease
						continue
					}
					r.end()
					wg.Wait()
					k.set(r.l.Spent())
					time.Sleep(200 * time.Millisecond)
				}
				all := w.m.requests
				if most := fullest(all, time.Hour); most > 1000 {
					t.Errorf("%d requests within an hour", most)
				}
				used := 0
				for _, at := range all {
					if at.Sub(born) < 10*time.Hour {
						used++
					}
				}
				t.Logf("%d requests in ten hours", used)
				if used < c.least {
					t.Errorf("%d requests in ten hours, want %d", used, c.least)
				}
			})
		})
	}
}
