package crm

import (
	"context"
	"net/http"
	"net/url"
	"reflect"
	"testing"
	"time"
)

var noon = time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC)

func header(kv ...string) http.Header {
	out := http.Header{}
	for i := 0; i < len(kv); i += 2 {
		out.Add(kv[i], kv[i+1])
	}
	return out
}

func TestRetryAfter(t *testing.T) {
	for in, want := range map[string]time.Duration{
		"":                              0,
		"30":                            30 * time.Second,
		" 30 ":                          30 * time.Second,
		"0":                             MinWait,
		"1000000000000000000000000":     MaxWait,
		"1000000000":                    MinWait, // Unix seconds, long past
		"7200":                          MaxWait,
		"123456789":                     MaxWait, // between spans and times
		"99999999999":                   MaxWait, // beyond any Unix second
		"-5":                            0,
		"soon":                          0,
		"1.25":                          2 * time.Second, // rounds up
		"0.2":                           time.Second,
		"1.":                            0,
		".5":                            0,
		"1.5.2":                         0,
		"Sat, 21 Nov 2026 12:01:30 GMT": 90 * time.Second,
		"Sat, 21 Nov 2026 11:00:00 GMT": MinWait,
		"Sun, 22 Nov 2026 12:00:00 GMT": MaxWait,
		"2026-11-21T12:00:20Z":          20 * time.Second,
		"1795262430":                    30 * time.Second,
	} {
		h := ReadHints(header("Retry-After", in), nil, noon)
		if h.RetryAfter != want || h.Wait() != want || h.Quotas != nil {
			t.Errorf("%q: %+v, want %v", in, h, want)
		}
	}
	h := ReadHints(header("Retry-After", "Sat, 21 Nov 2026 17:01:30 GMT", "Date", "Sat, 21 Nov 2026 17:01:00 GMT"), nil, noon)
	if h.RetryAfter != 30*time.Second {
		t.Errorf("a date is held against our clock: %v", h.RetryAfter)
	}
	if noon.Unix()+30 != 1795262430 {
		t.Fatalf("the table's epochs belong to another noon: %d", noon.Unix())
	}
}

func TestAdvertised(t *testing.T) {
	one := func(a Advertised) []Advertised { return []Advertised{a} }
	sliding := []HintRule{{
		Limit: "X-Ratelimit-Limit", Remaining: "X-Ratelimit-Remaining", Reset: "X-Ratelimit-Reset", Sliding: true, Before: true,
	}}
	x := func(limit, remaining, reset string) http.Header {
		h := header()
		for k, v := range map[string]string{"Limit": limit, "Remaining": remaining, "Reset": reset} {
			if v != "" {
				h.Set("X-RateLimit-"+k, v)
			}
		}
		return h
	}
	for _, tt := range []struct {
		name  string
		in    http.Header
		rules []HintRule
		want  []Advertised
		wait  time.Duration
	}{
		{"nothing", header(), nil, nil, 0},
		{"seconds", x("100", "0", "40"), nil, one(Advertised{Limit: 100, Reset: 40 * time.Second}), 40 * time.Second},
		{"something remains", x("", "1", "40"), nil, one(Advertised{Remaining: 1, Reset: 40 * time.Second}), 0},
		{"a limit alone", x("100", "", ""), nil, one(Advertised{Limit: 100, Remaining: -1}), 0},
		{"a reset alone", x("", "", "40"), nil, nil, 0},
		{"no reset", x("5", "0", ""), nil, one(Advertised{Limit: 5}), 0},
		{"epoch seconds", x("", "0", "1795262430"), nil, one(Advertised{Reset: 30 * time.Second}), 30 * time.Second},
		{"epoch milliseconds", x("", "0", "1795262430500"), nil, one(Advertised{Reset: 30500 * time.Millisecond}), 30500 * time.Millisecond},
		{"a date", x("", "0", "Sat, 21 Nov 2026 12:00:10 GMT"), nil, one(Advertised{Reset: 10 * time.Second}), 10 * time.Second},
		{"a day away", x("", "0", "86400"), nil, one(Advertised{Reset: 24 * time.Hour}), MaxWait},
		{"half a second away", x("", "0", "1795262400500"), nil, one(Advertised{Reset: MinWait}), MinWait},
		{"a reset that is over", x("", "0", "1795262399"), nil, one(Advertised{}), 0},
		{"a reset now", x("", "0", "0"), nil, one(Advertised{}), 0},
		{"a reset next year", x("", "0", "40000000"), nil, one(Advertised{}), 0},
		{"a reset in words", x("", "0", "soon"), nil, one(Advertised{}), 0},
		{"negative", x("", "-1", "40"), nil, nil, 0},
		{"limit 0", x("0", "5", "40"), nil, one(Advertised{Remaining: 5, Reset: 40 * time.Second}), 0},
		{"limit 0 and nothing else", x("0", "", "40"), nil, nil, 0},
		{"more remains than the limit", x("10", "11", "40"), nil, nil, 0},
		{"too large to hold", x("99999999999999999999", "99999999999999999999", "40"), nil, one(Advertised{
			Limit: 1<<63 - 1, Remaining: 1<<63 - 1, Reset: 40 * time.Second,
		}), 0},
		{"dashed name", header("X-Rate-Limit-Remaining", "3", "X-Rate-Limit-Reset", "9"), nil, one(Advertised{Remaining: 3, Reset: 9 * time.Second}), 0},
		{"without X", header("RateLimit-Limit", "5", "RateLimit-Remaining", "3"), nil, one(Advertised{Limit: 5, Remaining: 3}), 0},
		{"the first spelling counts", header("X-RateLimit-Remaining", "7", "RateLimit-Remaining", "3"), nil, one(Advertised{Remaining: 7}), 0},

		{"draft 3", header("RateLimit", "limit=100, remaining=0, reset=7"), nil, one(Advertised{Limit: 100, Reset: 7 * time.Second}), 7 * time.Second},
		{"draft 3 with policy", header("RateLimit", "limit=100, remaining=50, reset=7", "RateLimit-Policy", "10;w=1, 100;w=60"), nil, one(
			Advertised{Limit: 100, Remaining: 50, Reset: 7 * time.Second, Window: time.Minute},
		), 0},
		{"draft 8", header("RateLimit", `"default";r=0;t=7`), nil, one(Advertised{Name: "default", Reset: 7 * time.Second}), 7 * time.Second},
		{"draft 8, two policies", header("RateLimit", `"burst";r=5;t=7, "day";r=100`, "RateLimit-Policy", `"burst";q=10;w=60`, "RateLimit-Policy", `"day";q=1000;w=86400`), nil, []Advertised{
			{Name: "burst", Limit: 10, Remaining: 5, Reset: 7 * time.Second, Window: time.Minute},
			{Name: "day", Limit: 1000, Remaining: 100, Window: 24 * time.Hour},
		}, 0},
		{"draft 8, nonsense", header("RateLimit", `"a";r=x;t=7, ;;, "b"`), nil, nil, 0},

		{"HubSpot", header("X-HubSpot-RateLimit-Max", "100", "X-HubSpot-RateLimit-Remaining", "98", "X-HubSpot-RateLimit-Interval-Milliseconds", "10000",
			"X-HubSpot-RateLimit-Daily", "250000", "X-HubSpot-RateLimit-Daily-Remaining", "249000"), nil, []Advertised{
			{Name: "interval", Limit: 100, Remaining: 98, Window: 10 * time.Second, Sliding: true},
			{Name: "daily", Limit: 250000, Remaining: 249000, Window: 24 * time.Hour},
		}, 0},
		{"Salesforce", header("Sforce-Limit-Info", "api-usage=18/5000"), nil, one(
			Advertised{Name: "api-usage", Limit: 5000, Remaining: 4982, Window: 24 * time.Hour, Sliding: true},
		), 0},
		{"Salesforce with an app's own", header("Sforce-Limit-Info", "api-usage=5001/5000; per-app-api-usage=17/250(appName=sample)"), nil, one(
			Advertised{Name: "api-usage", Limit: 5000, Window: 24 * time.Hour, Sliding: true},
		), 0},
		{"Salesforce, nonsense", header("Sforce-Limit-Info", "api-usage=5/0"), nil, nil, 0},

		{"a sliding window", x("1000", "999", "1795266000"), sliding, one(Advertised{Limit: 1000, Remaining: 998, Window: time.Hour, Sliding: true}), 0},
		{"the last of it", x("1000", "1", "3600"), sliding, one(Advertised{Limit: 1000, Window: time.Hour, Sliding: true}), 0},
		{"beyond it", x("1000", "0", "3600"), sliding, one(Advertised{Limit: 1000, Window: time.Hour, Sliding: true, Over: true}), 0},
		{"names of others", header("X-HubSpot-RateLimit-Daily-Remaining", "3"), sliding, nil, 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got := ReadHints(tt.in, tt.rules, noon)
			if !reflect.DeepEqual(got.Quotas, tt.want) {
				t.Errorf("%+v, want %+v", got.Quotas, tt.want)
			}
			if got.Wait() != tt.wait {
				t.Errorf("wait %v, want %v", got.Wait(), tt.wait)
			}
		})
	}
	h := ReadHints(header("Retry-After", "5", "X-RateLimit-Remaining", "0", "X-RateLimit-Reset", "40"), nil, noon)
	if h.Wait() != 5*time.Second {
		t.Errorf("Retry-After says 5 s, the wait is %v", h.Wait())
	}
}

// scripted answers with the headers of a list, one after the other.
type scripted struct {
	headers []http.Header
	n       int
}

func (s *scripted) RoundTrip(*http.Request) (*http.Response, error) {
	s.n++
	return &http.Response{StatusCode: 200, Header: s.headers[s.n-1], Body: http.NoBody}, nil
}

// What one answer of a call said stays though a later one says nothing; rules
// of the client's own replace the usual ones.
func TestMeterKeepsHints(t *testing.T) {
	for _, tt := range []struct {
		rules []HintRule
		want  []int64 // remaining after each request; -1: nothing is said
	}{
		{nil, []int64{-1, 5, 5, 3}},
		{[]HintRule{{Remaining: "X-Left"}}, []int64{-1, -1, 9, 9}},
	} {
		c, err := NewClient(Options{
			Base: &url.URL{Scheme: "http", Host: "crm.test"}, Hints: tt.rules,
			Transport: &scripted{headers: []http.Header{{}, header("RateLimit-Remaining", "5"), header("X-Left", "9"), header("RateLimit-Remaining", "3")}},
		})
		if err != nil {
			t.Fatal(err)
		}
		m := NewMeter(func(context.Context) error { return nil })
		for i, want := range tt.want {
			if _, f := c.Do(context.Background(), m, Request{Method: "GET", Path: "/a"}); f != nil {
				t.Fatal(f)
			}
			got := int64(-1)
			if h := m.Hints(); h != nil {
				got = h.Quotas[0].Remaining
			}
			if got != want {
				t.Errorf("rules %v, request %d: %d remain, want %d", tt.rules, i, got, want)
			}
		}
	}
}

func FuzzHints(f *testing.F) {
	for _, s := range []string{"", "30", "-1", "1e9", "99999999999999999999", "Sat, 21 Nov 2026 12:00:10 GMT", "1.5", `"a";r=0;t=7`, "limit=1, remaining=0, reset=2", "\x00", "api-usage=1/2"} {
		f.Add(s, s, s)
	}
	sliding := []HintRule{{Limit: "X-Ratelimit-Limit", Remaining: "X-Ratelimit-Remaining", Reset: "X-Ratelimit-Reset", Usage: "Sforce-Limit-Info", Sliding: true, Before: true}}
	f.Fuzz(func(t *testing.T, retry, field, date string) {
		h := http.Header{
			"Retry-After": {retry}, "Ratelimit": {field}, "Ratelimit-Policy": {retry}, "X-Ratelimit-Reset": {retry}, "X-Ratelimit-Remaining": {field},
			"X-Ratelimit-Limit": {date}, "Date": {date}, "Sforce-Limit-Info": {field}, "X-Hubspot-Ratelimit-Interval-Milliseconds": {retry}, "X-Hubspot-Ratelimit-Max": {field},
		}
		for _, rules := range [][]HintRule{nil, sliding} {
			got := ReadHints(h, rules, noon)
			for _, d := range []time.Duration{got.RetryAfter, got.Wait()} {
				if d != 0 && (d < MinWait || d > MaxWait) {
					t.Fatalf("%v is out of bounds: %+v", d, got)
				}
			}
			for _, q := range got.Quotas {
				if q.Remaining < -1 || q.Limit < 0 || q.Remaining < 0 && q.Limit == 0 || q.Limit > 0 && q.Remaining > q.Limit ||
					q.Reset < 0 || q.Reset > maxWindow || q.Window < 0 || q.Window > maxWindow || q.Sliding && q.Reset != 0 || q.Over && q.Remaining != 0 {
					t.Fatalf("nonsense: %+v", q)
				}
			}
		}
	})
}
