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

// maxWindow bounds the span of a quota that a CRM may tell of.
const maxWindow = 31 * 24 * time.Hour

// Hints is what the headers of an answer say about the quota. The zero value
// says nothing.
type Hints struct {
	// RetryAfter is how long the CRM asks us to stay away, within [MinWait,
	// MaxWait]; 0 where it said nothing that can be read.
	RetryAfter time.Duration
	// Quotas are the quotas that the CRM told of, each once.
	Quotas []Advertised
	// Began is when the request that was answered began; zero where unknown.
	// Requests that began later may not be in the numbers.
	Began time.Time
}

// Advertised is one quota as an answer tells of it. Numbers that contradict
// each other are not said.
type Advertised struct {
	// Name tells the quotas of one CRM apart; "" where it has one.
	Name string
	// Limit is how many requests a window allows; 0 where not said.
	Limit int64
	// Remaining is how many are left once the request that was answered is
	// counted; -1 where not said.
	Remaining int64
	// Reset is when Remaining is renewed, from the answer on, at least
	// [MinWait]; 0 where not said, and where the window slides.
	Reset time.Duration
	// Window is the span that Limit is for; 0 where not said.
	Window time.Duration
	// Sliding says that requests leave the window one by one, each a Window
	// after it was made.
	Sliding bool
	// Over says that nothing was left even before the request that was
	// answered. Where it was served all the same, the CRM does not enforce
	// this quota.
	Over bool
}

// Wait is how long to send nothing: RetryAfter, else the longest Reset of the
// quotas of which nothing remains, else 0. It is at most [MaxWait].
func (h Hints) Wait() time.Duration {
	if h.RetryAfter > 0 {
		return h.RetryAfter
	}
	var longest time.Duration
	for _, q := range h.Quotas {
		if q.Remaining == 0 {
			longest = max(longest, q.Reset)
		}
	}
	return min(longest, MaxWait)
}

// HintRule says in which headers a CRM tells of one quota. Header names are in
// canonical form; "" is none.
type HintRule struct {
	Name                    string // of the quota: [Advertised].Name
	Limit, Remaining, Reset string // headers with one number each
	Usage                   string // a header with "name=used/limit"
	Millis                  string // a header with the window in milliseconds
	// Window is the documented span of the quota; 0 where it is not.
	Window time.Duration
	// Sliding says that the window slides. Where Window is 0, what Reset says
	// is its length: a CRM whose window slides has no other meaning for it.
	Sliding bool
	// Before says that Remaining does not count the request that is answered.
	Before bool
}

// DefaultHintRules are the headers that are read of every CRM: the usual three
// in their usual spellings, and those of vendors whose names nobody else uses
// (crm-apis C: HubSpot, Salesforce). The RateLimit and RateLimit-Policy fields
// of the IETF drafts are read beside them.
var DefaultHintRules = []HintRule{
	{Limit: "X-Ratelimit-Limit", Remaining: "X-Ratelimit-Remaining", Reset: "X-Ratelimit-Reset"},
	{Limit: "X-Rate-Limit-Limit", Remaining: "X-Rate-Limit-Remaining", Reset: "X-Rate-Limit-Reset"},
	{Limit: "Ratelimit-Limit", Remaining: "Ratelimit-Remaining", Reset: "Ratelimit-Reset"},
	{
		Name: "interval", Limit: "X-Hubspot-Ratelimit-Max", Remaining: "X-Hubspot-Ratelimit-Remaining",
		Millis: "X-Hubspot-Ratelimit-Interval-Milliseconds", Sliding: true,
	},
	{Name: "daily", Limit: "X-Hubspot-Ratelimit-Daily", Remaining: "X-Hubspot-Ratelimit-Daily-Remaining", Window: 24 * time.Hour},
	{Name: "api-usage", Usage: "Sforce-Limit-Info", Window: 24 * time.Hour, Sliding: true},
}

// ReadHints reads Retry-After and, by the rules (nil means
// [DefaultHintRules]), what the answer tells of quotas. Times are taken as
// seconds, Unix seconds, Unix milliseconds or a date, whichever the value can
// be. Absolute ones are held against the answer's own Date where it has one,
// since clocks differ. Garbage, a limit of 0, more remaining than the limit,
// and a reset that is over count as not said.
func ReadHints(h http.Header, rules []HintRule, now time.Time) Hints {
	if d, err := http.ParseTime(h.Get("Date")); err == nil {
		now = d
	}
	var out Hints
	if v := strings.TrimSpace(h.Get("Retry-After")); v != "" {
		out.RetryAfter = clamp(until(v, now))
	}
	if rules == nil {
		rules = DefaultHintRules
	}
	for i := range rules {
		out.add(rules[i].read(h, now))
	}
	out.structured(h)
	return out
}

// add keeps a quota that says something, unless one of its name has been read.
func (h *Hints) add(a Advertised) {
	if a.Limit > 0 && a.Remaining > a.Limit {
		a.Limit, a.Remaining = 0, -1
	}
	if a.Remaining < 0 && a.Limit == 0 {
		return
	}
	for _, q := range h.Quotas {
		if q.Name == a.Name {
			return
		}
	}
	h.Quotas = append(h.Quotas, a)
}

func (r *HintRule) read(h http.Header, now time.Time) Advertised {
	a := Advertised{Name: r.Name, Remaining: -1, Window: r.Window, Sliding: r.Sliding}
	get := func(name string) string {
		if v := h[name]; name != "" && len(v) > 0 {
			return strings.TrimSpace(v[0])
		}
		return ""
	}
	if n, ok := digits(get(r.Limit)); ok {
		a.Limit = n
	}
	if n, ok := digits(get(r.Remaining)); ok {
		a.Remaining = n
	}
	a.usage(get(r.Usage))
	if n, ok := digits(get(r.Millis)); ok && n > 0 && n <= int64(maxWindow/time.Millisecond) {
		a.Window = time.Duration(n) * time.Millisecond
	}
	if d := until(get(r.Reset), now); d > 0 && d <= maxWindow {
		a.Reset = max(d, MinWait)
	}
	if r.Sliding {
		if a.Window == 0 {
			a.Window = a.Reset
		}
		a.Reset = 0
	}
	if r.Before && a.Remaining >= 0 {
		a.Over = a.Remaining == 0
		a.Remaining = max(0, a.Remaining-1)
	}
	return a
}

// usage reads "api-usage=18/5000", alone or first of a list.
func (a *Advertised) usage(v string) {
	v, _, _ = strings.Cut(v, ",")
	v, _, _ = strings.Cut(v, ";")
	_, pair, _ := strings.Cut(v, "=")
	n, m, _ := strings.Cut(pair, "/")
	used, ok := digits(strings.TrimSpace(n))
	limit, ok2 := digits(strings.TrimSpace(m))
	if ok && ok2 && limit > 0 {
		a.Limit, a.Remaining = limit, max(0, limit-used)
	}
}

// structured reads the RateLimit fields of the IETF drafts: one quota without
// a name in the older form ("limit=10, remaining=0, reset=7"), any number with
// names in the newer ("\"burst\";r=0;t=7, \"daily\";r=9"), whose limits and
// windows stand in RateLimit-Policy ("\"burst\";q=100;w=60"; the older form of
// that is "100;w=60").
func (h *Hints) structured(header http.Header) {
	field := strings.Join(header.Values("Ratelimit"), ",")
	if field == "" {
		return
	}
	policies := map[string]map[string]string{}
	for _, item := range strings.Split(strings.Join(header.Values("Ratelimit-Policy"), ","), ",") {
		name, members := members(item)
		policies[name] = members
	}
	whole := map[string]string{}
	for _, item := range strings.Split(field, ",") {
		name, m := members(item)
		if name == "" { // the older form has one member in each item
			for k, v := range m {
				whole[k] = v
			}
			continue
		}
		h.member(name, m, policies[name])
	}
	if len(whole) > 0 {
		policy := policies[""]
		for name, m := range policies { // "100;w=60" names its limit
			if name == whole["limit"] {
				policy = m
			}
		}
		h.member("", whole, policy)
	}
}

func (h *Hints) member(name string, m, policy map[string]string) {
	a := Advertised{Name: name, Remaining: -1}
	number := func(in map[string]string, names ...string) int64 {
		for _, k := range names {
			if n, ok := digits(in[k]); ok {
				return n
			}
		}
		return -1
	}
	a.Remaining = number(m, "r", "remaining")
	a.Limit = max(0, number(m, "limit"), number(policy, "q"))
	if n := number(m, "t", "reset"); n > 0 && n <= int64(maxWindow/time.Second) {
		a.Reset = time.Duration(n) * time.Second
	}
	if n := number(policy, "w"); n > 0 && n <= int64(maxWindow/time.Second) {
		a.Window = time.Duration(n) * time.Second
	}
	h.add(a)
}

// members splits one item into its name, which is a token or a quoted string
// without a value, and its parameters.
func members(item string) (name string, params map[string]string) {
	params = map[string]string{}
	for i, part := range strings.Split(item, ";") {
		key, value, has := strings.Cut(strings.TrimSpace(part), "=")
		key = strings.TrimSpace(key)
		if i == 0 && !has {
			name = strings.Trim(key, `"`)
			continue
		}
		params[strings.ToLower(key)] = strings.TrimSpace(value)
	}
	return name, params
}

// Numbers from here on are points in time, not spans: nobody asks us to wait
// 30 years, and these are Unix seconds of 2001 and Unix milliseconds of 2001.
const (
	leastUnix      = 1_000_000_000
	leastUnixMilli = 1_000_000_000_000
)

// over is the wait until a point in time that has passed: as good as none, and
// not garbage.
const over = -1

// until reads a span or a point in time as a wait from now; 0 for garbage, over
// for one that has passed.
func until(v string, now time.Time) time.Duration {
	if v == "" {
		return 0
	}
	since := func(t time.Time) time.Duration {
		if d := t.Sub(now); d > 0 {
			return d
		}
		return over
	}
	if n, ok := digits(v); ok {
		switch {
		case n >= leastUnixMilli:
			return since(time.UnixMilli(n))
		case n >= leastUnix && n < 10*leastUnix:
			return since(time.Unix(n, 0))
		case n == 0:
			return over
		}
		return time.Duration(min(n, int64(100*maxWindow/time.Second))) * time.Second
	}
	if whole, fraction, ok := strings.Cut(v, "."); ok {
		n, a := digits(whole)
		_, b := digits(fraction)
		if a && b { // 1.25: round up, an early request is a wasted one
			return time.Duration(min(n, int64(maxWindow/time.Second))+1) * time.Second
		}
		return 0
	}
	if t, err := http.ParseTime(v); err == nil {
		return since(t)
	}
	if t, err := time.Parse(time.RFC3339, v); err == nil {
		return since(t)
	}
	return 0
}

// clamp puts a wait within its bounds; 0 stays 0.
func clamp(d time.Duration) time.Duration {
	if d == 0 {
		return 0
	}
	return min(max(d, MinWait), MaxWait)
}

// digits reads a number written in digits only; one too large to hold is the
// largest there is.
func digits(s string) (int64, bool) {
	if s == "" || strings.Trim(s, "0123456789") != "" {
		return 0, false
	}
	n, _ := strconv.ParseInt(s, 10, 64) // on overflow the largest int64
	return n, true
}
