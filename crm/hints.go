package crm

import (
	"net/http"
	"strconv"
	"strings"
	"time"
)

// Bounds of every wait that a CRM may impose.
const (
	MinWait = time.Second
	MaxWait = time.Hour
)

// Hints is what the headers of an answer say about the quota.
type Hints struct {
	// RetryAfter is how long the CRM asks us to stay away, within [MinWait,
	// MaxWait]; 0 where it said nothing that can be read.
	RetryAfter time.Duration
	// Remaining is how many requests are left; -1 where not said.
	Remaining int64
	// Reset is when that number is renewed, from now, within [MinWait,
	// MaxWait]; 0 where not said.
	Reset time.Duration
}

// Wait is how long to send nothing: RetryAfter, else Reset once nothing
// remains, else 0.
func (h Hints) Wait() time.Duration {
	switch {
	case h.RetryAfter > 0:
		return h.RetryAfter
	case h.Remaining == 0:
		return h.Reset
	}
	return 0
}

// ReadHints reads Retry-After, X-RateLimit-Remaining and -Reset, their names
// without the X-, and the RateLimit field in both of its drafts. Times are
// taken as seconds, Unix seconds, Unix milliseconds or a date, whichever the
// value can be. Absolute ones are held against the answer's own Date where it
// has one, since clocks differ. Garbage counts as not said.
func ReadHints(h http.Header, now time.Time) Hints {
	if d, err := http.ParseTime(h.Get("Date")); err == nil {
		now = d
	}
	out := Hints{Remaining: -1}
	if v := strings.TrimSpace(h.Get("Retry-After")); v != "" {
		out.RetryAfter = until(v, now)
	}
	remaining, reset := structured(h.Get("RateLimit"))
	for _, prefix := range []string{"X-RateLimit-", "X-Rate-Limit-", "RateLimit-"} {
		remaining = first(remaining, h.Get(prefix+"Remaining"))
		reset = first(reset, h.Get(prefix+"Reset"))
	}
	if n, ok := digits(remaining); ok {
		out.Remaining = n
	}
	if reset != "" {
		out.Reset = until(reset, now)
	}
	return out
}

func first(a, b string) string {
	if a != "" {
		return a
	}
	return strings.TrimSpace(b)
}

// structured finds the remaining requests and the reset in a RateLimit field:
// "limit=10, remaining=0, reset=7" or "\"default\";r=0;t=7".
func structured(field string) (remaining, reset string) {
	for _, part := range strings.FieldsFunc(field, func(r rune) bool { return r == ',' || r == ';' }) {
		name, value, _ := strings.Cut(strings.TrimSpace(part), "=")
		switch strings.ToLower(name) {
		case "r", "remaining":
			remaining = first(remaining, value)
		case "t", "reset":
			reset = first(reset, value)
		}
	}
	return remaining, reset
}

// Numbers from here on are points in time, not spans: nobody asks us to wait
// 30 years, and these are Unix seconds of 2001 and Unix milliseconds of 2001.
const (
	leastUnix      = 1_000_000_000
	leastUnixMilli = 1_000_000_000_000
)

// until reads a span or a point in time as a wait from now; 0 for garbage.
func until(v string, now time.Time) time.Duration {
	if n, ok := digits(v); ok {
		switch {
		case n >= leastUnixMilli:
			return clamp(time.UnixMilli(n).Sub(now))
		case n >= leastUnix && n < 10*leastUnix:
			return clamp(time.Unix(n, 0).Sub(now))
		case n > int64(MaxWait/time.Second):
			return MaxWait
		}
		return clamp(time.Duration(n) * time.Second)
	}
	if whole, fraction, ok := strings.Cut(v, "."); ok {
		_, a := digits(whole)
		_, b := digits(fraction)
		if a && b { // 1.25: round up, an early request is a wasted one
			if d := until(whole, now); d > 0 {
				return min(d+time.Second, MaxWait)
			}
		}
		return 0
	}
	if t, err := http.ParseTime(v); err == nil {
		return clamp(t.Sub(now))
	}
	if t, err := time.Parse(time.RFC3339, v); err == nil {
		return clamp(t.Sub(now))
	}
	return 0
}

func clamp(d time.Duration) time.Duration { return min(max(d, MinWait), MaxWait) }

// digits reads a number written in digits only; one too large to hold is the
// largest there is.
func digits(s string) (int64, bool) {
	if s == "" || strings.Trim(s, "0123456789") != "" {
		return 0, false
	}
	n, _ := strconv.ParseInt(s, 10, 64) // on overflow the largest int64
	return n, true
}
