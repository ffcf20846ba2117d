package emulator

import (
	"net/http"
	"strconv"
	"time"
)

// bucket is a strict token bucket over arrivals.
type bucket struct {
	tokens float64
	filled time.Time
}

// take takes a token at now, or says how long until there is one.
func (b *bucket) take(l Limits, now time.Time) (wait time.Duration, ok bool) {
	size := float64(max(l.Burst, 1))
	if b.filled.IsZero() {
		b.tokens = size
	} else if gone := now.Sub(b.filled).Seconds(); gone > 0 {
		b.tokens = min(size, b.tokens+gone*l.Rate)
	}
	if now.After(b.filled) {
		b.filled = now
	}
	// A caller exactly on the rate must not fail for a rounding error.
	const rounding = 1e-9
	if b.tokens >= 1-rounding {
		b.tokens = max(0, b.tokens-1)
		return 0, true
	}
	return time.Duration((1 - b.tokens) / l.Rate * float64(time.Second)), false
}

// tally counts events by key within a window of time.
type tally struct {
	events []event // oldest first
	counts map[string]int
	start  time.Time // of the current fixed window
}

type event struct {
	at  time.Time
	key string
}

func (t *tally) add(key string, now time.Time) {
	if t.counts == nil {
		t.counts = map[string]int{}
	}
	t.events = append(t.events, event{now, key})
	t.counts[key]++
}

// count returns how many events of key lie in the window that ends now.
func (t *tally) count(key string, now time.Time, window time.Duration, fixed bool) int {
	if fixed {
		if t.start.IsZero() || now.Sub(t.start) >= window {
			t.start, t.events, t.counts = now, nil, nil
		}
		return t.counts[key]
	}
	i := 0
	for ; i < len(t.events) && now.Sub(t.events[i].at) >= window; i++ {
		k := t.events[i].key
		if t.counts[k]--; t.counts[k] == 0 {
			delete(t.counts, k)
		}
	}
	if t.events = t.events[i:]; len(t.events) == 0 {
		t.events = nil
	}
	return t.counts[key]
}

// reset is when a window that is spent at now is open again, as the vendor
// tells it: a sliding window always claims its whole length.
func (t *tally) reset(now time.Time, window time.Duration, fixed bool) time.Time {
	if fixed && !t.start.IsZero() {
		return t.start.Add(window)
	}
	return now.Add(window)
}

// setRetryAfter writes wait in the given form and returns the wait a reader of
// the header understands.
func setRetryAfter(h http.Header, form RetryAfter, wait time.Duration, now time.Time) time.Duration {
	seconds := (wait + time.Second - 1) / time.Second
	switch form {
	case RetrySeconds:
		h.Set("Retry-After", strconv.Itoa(int(seconds)))
		return seconds * time.Second
	case RetryDate:
		// A date has whole seconds: the end of the wait rounded up.
		at := now.Add(wait + time.Second - 1).Truncate(time.Second)
		h.Set("Retry-After", at.UTC().Format(http.TimeFormat))
		return at.Sub(now)
	case RetryGarbage:
		h.Set("Retry-After", "in a while")
	}
	return 0
}

// limitHeaders writes the X-RateLimit headers of Perfex (crm-apis A7).
func limitHeaders(h http.Header, limit, used int, reset time.Time) {
	h.Set("X-RateLimit-Limit", strconv.Itoa(limit))
	h.Set("X-RateLimit-Remaining", strconv.Itoa(max(0, limit-used)))
	h.Set("X-RateLimit-Reset", strconv.FormatInt(reset.Unix(), 10))
}
