package worker

import (
	"sort"
	"time"
)

// recentSpan is over how many seconds the rate in use is measured.
const recentSpan = 10

// recent is when the last requests were made. Times are those since the
// budget's birth.
type recent struct {
	at      [256]time.Duration // by number of the request
	seconds [recentSpan + 1]int
	newest  int64
}

func (r *recent) advance(now time.Duration) {
	t := int64(now / time.Second)
	for i := r.newest + 1; i <= t && i <= r.newest+recentSpan+1; i++ {
		r.seconds[i%(recentSpan+1)] = 0
	}
	r.newest = max(r.newest, t)
}

// spend notes request number n, counted from 1.
func (r *recent) spend(now time.Duration, n int64) {
	r.advance(now)
	r.seconds[r.newest%(recentSpan+1)]++
	r.at[n%int64(len(r.at))] = now
}

// rate is the requests a second over the last ten seconds, or since birth.
func (r *recent) rate(now time.Duration) float64 {
	r.advance(now)
	n := 0
	for _, k := range r.seconds {
		n += k
	}
	over := now % time.Second // of the second that has begun
	if full := min(r.newest, recentSpan); full > 0 {
		over += time.Duration(full) * time.Second
	}
	return float64(n) / max(over, time.Second).Seconds()
}

// since is how many of the requests, of which total have been made, were made
// after an instant. It is false where that lies too far back to say.
func (r *recent) since(then time.Duration, total int64) (n int, ok bool) {
	kept := int(min(total, int64(len(r.at))))
	n = sort.Search(kept, func(i int) bool { return r.at[(total-int64(i))%int64(len(r.at))] <= then })
	return n, n < kept || int64(kept) == total
}
