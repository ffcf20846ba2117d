package crm

import (
	"net/http"
	"testing"
	"time"
)

var noon = time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC)

func TestReadHints(t *testing.T) {
	h := func(kv ...string) http.Header {
		out := http.Header{}
		for i := 0; i < len(kv); i += 2 {
			out.Set(kv[i], kv[i+1])
		}
		return out
	}
	for _, tt := range []struct {
		name string
		in   http.Header
		want Hints
		wait time.Duration
	}{
		{"nothing", h(), Hints{Remaining: -1}, 0},
		{"seconds", h("Retry-After", "30"), Hints{30 * time.Second, -1, 0}, 30 * time.Second},
		{"spaces", h("Retry-After", " 30 "), Hints{30 * time.Second, -1, 0}, 30 * time.Second},
		{"zero is the least wait", h("Retry-After", "0"), Hints{MinWait, -1, 0}, MinWait},
		{"huge is the longest wait", h("Retry-After", "1000000000000000000000000"), Hints{MaxWait, -1, 0}, MaxWait},
		{"1e9", h("Retry-After", "1000000000"), Hints{MinWait, -1, 0}, MinWait}, // Unix seconds, long past
		{"two hours", h("Retry-After", "7200"), Hints{MaxWait, -1, 0}, MaxWait},
		{"between spans and times", h("Retry-After", "123456789"), Hints{MaxWait, -1, 0}, MaxWait},
		{"beyond any Unix second", h("Retry-After", "99999999999"), Hints{MaxWait, -1, 0}, MaxWait},
		{"negative is garbage", h("Retry-After", "-5"), Hints{Remaining: -1}, 0},
		{"words", h("Retry-After", "soon"), Hints{Remaining: -1}, 0},
		{"fraction rounds up", h("Retry-After", "1.25"), Hints{2 * time.Second, -1, 0}, 2 * time.Second},
		{"half a number", h("Retry-After", "1."), Hints{Remaining: -1}, 0},
		{"date", h("Retry-After", "Sat, 21 Nov 2026 12:01:30 GMT"), Hints{90 * time.Second, -1, 0}, 90 * time.Second},
		{"past date", h("Retry-After", "Sat, 21 Nov 2026 11:00:00 GMT"), Hints{MinWait, -1, 0}, MinWait},
		{"far date", h("Retry-After", "Sun, 22 Nov 2026 12:00:00 GMT"), Hints{MaxWait, -1, 0}, MaxWait},
		{
			"date against the server's clock", h("Retry-After", "Sat, 21 Nov 2026 17:01:30 GMT", "Date", "Sat, 21 Nov 2026 17:01:00 GMT"),
			Hints{30 * time.Second, -1, 0},
			30 * time.Second,
		},
		{"ISO date", h("Retry-After", "2026-11-21T12:00:20Z"), Hints{20 * time.Second, -1, 0}, 20 * time.Second},
		{"remaining, reset in seconds", h("X-RateLimit-Remaining", "0", "X-RateLimit-Reset", "40"), Hints{0, 0, 40 * time.Second}, 40 * time.Second},
		{"something remains", h("X-RateLimit-Remaining", "1", "X-RateLimit-Reset", "40"), Hints{0, 1, 40 * time.Second}, 0},
		{"reset alone", h("X-RateLimit-Reset", "40"), Hints{0, -1, 40 * time.Second}, 0},
		{"nothing remains, no reset", h("X-RateLimit-Remaining", "0"), Hints{0, 0, 0}, 0},
		{"epoch seconds", h("X-RateLimit-Remaining", "0", "X-RateLimit-Reset", "1795262430"), Hints{0, 0, 30 * time.Second}, 30 * time.Second},
		{"epoch milliseconds", h("X-RateLimit-Remaining", "0", "X-RateLimit-Reset", "1795262430500"), Hints{0, 0, 30500 * time.Millisecond}, 30500 * time.Millisecond},
		{"reset as a date", h("RateLimit-Remaining", "0", "RateLimit-Reset", "Sat, 21 Nov 2026 12:00:10 GMT"), Hints{0, 0, 10 * time.Second}, 10 * time.Second},
		{"draft 3", h("RateLimit", "limit=100, remaining=0, reset=7"), Hints{0, 0, 7 * time.Second}, 7 * time.Second},
		{"draft 8", h("RateLimit", `"default";r=0;t=7`), Hints{0, 0, 7 * time.Second}, 7 * time.Second},
		{"draft 8, some left", h("RateLimit", `"default";r=5;t=7`), Hints{0, 5, 7 * time.Second}, 0},
		{"Retry-After wins", h("Retry-After", "5", "X-RateLimit-Remaining", "0", "X-RateLimit-Reset", "40"), Hints{5 * time.Second, 0, 40 * time.Second}, 5 * time.Second},
		{"negative remaining is garbage", h("X-RateLimit-Remaining", "-1", "X-RateLimit-Reset", "40"), Hints{0, -1, 40 * time.Second}, 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got := ReadHints(tt.in, noon)
			if got != tt.want {
				t.Errorf("hints %+v, want %+v", got, tt.want)
			}
			if got.Wait() != tt.wait {
				t.Errorf("wait %v, want %v", got.Wait(), tt.wait)
			}
		})
	}
	if noon.Unix()+30 != 1795262430 {
		t.Fatalf("the table's epochs belong to another noon: %d", noon.Unix())
	}
}

func FuzzHints(f *testing.F) {
	for _, s := range []string{"", "30", "-1", "1e9", "99999999999999999999", "Sat, 21 Nov 2026 12:00:10 GMT", "1.5", "r=0;t=7", "\x00"} {
		f.Add(s, s, s)
	}
	f.Fuzz(func(t *testing.T, retry, field, date string) {
		h := http.Header{"Retry-After": {retry}, "Ratelimit": {field}, "X-Ratelimit-Reset": {retry}, "X-Ratelimit-Remaining": {field}, "Date": {date}}
		got := ReadHints(h, noon)
		for _, d := range []time.Duration{got.RetryAfter, got.Reset, got.Wait()} {
			if d != 0 && (d < MinWait || d > MaxWait) {
				t.Fatalf("%v is out of bounds: %+v", d, got)
			}
		}
		if got.Remaining < -1 {
			t.Fatalf("remaining %d", got.Remaining)
		}
	})
}
