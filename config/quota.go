package config

import (
	"fmt"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Quota is the limit of a target, or of several that share it, for all processes
// together.
type Quota struct {
	// Rate is in requests per second, 0 to MaxRate. For a target 0 sends
	// nothing; for a shared quota it is no limit.
	Rate float64
	// Burst is how many requests may go at once after a rest; at least 1.
	Burst int
	// PerSecond, PerMinute, PerHour and PerDay are rolling windows; 0 for none.
	PerSecond, PerMinute, PerHour, PerDay int
	// Windows are further ones.
	Windows []Window
	// Concurrency is how many calls may be under way; 1 to 64.
	Concurrency int
	// Reserve is the share of rate and windows left to others; 0 to 0.9.
	Reserve float64
}

// MaxRate is the highest rate in requests per second.
const MaxRate = 10_000

// perWindows are the short forms of rolling windows, the shortest first.
var perWindows = []struct {
	name string
	span time.Duration
	of   func(*Quota) *int
}{
	{"per_second", time.Second, func(q *Quota) *int { return &q.PerSecond }},
	{"per_minute", time.Minute, func(q *Quota) *int { return &q.PerMinute }},
	{"per_hour", time.Hour, func(q *Quota) *int { return &q.PerHour }},
	{"per_day", day, func(q *Quota) *int { return &q.PerDay }},
}

// AllWindows are the windows of both forms, the short ones first.
func (q Quota) AllWindows() []Window {
	var out []Window
	for _, w := range perWindows {
		if n := *w.of(&q); n > 0 {
			out = append(out, Window{Limit: n, Per: w.span})
		}
	}
	return append(out, q.Windows...)
}

// String is the quota in words, for a check by hand: "4/s, burst 8, 1000 per
// hour".
func (q Quota) String() string {
	var parts []string
	if q.Rate > 0 {
		parts = append(parts, FormatRate(q.Rate)+", burst "+strconv.Itoa(q.Burst))
	}
	for _, w := range q.AllWindows() {
		parts = append(parts, w.String())
	}
	if q.Reserve > 0 {
		parts = append(parts, fmt.Sprintf("%.3g%% of it left to others", q.Reserve*100))
	}
	return strings.Join(parts, ", ")
}

// quotaKeys are the keys of a quota below a prefix.
func quotaKeys[T any](prefix string, field func(*T) *Quota) []key[T] {
	number := func(f func(*Quota) *int) func(*T) *int {
		return func(t *T) *int { return f(field(t)) }
	}
	out := []key[T]{
		{
			name: prefix + "rate", doc: "requests of all processes together: 4/s, 600/m, 1000/h; 0/s sends nothing",
			set: parsed(func(t *T) *float64 { return &field(t).Rate }, rate),
		},
		{
			name: prefix + "burst", doc: "requests at once after a rest; a second's worth if empty",
			set: parsed(number(func(q *Quota) *int { return &q.Burst }), whole(1, MaxRate)),
			show: func(t *T) string {
				if field(t).Burst == 0 {
					return ""
				}
				return strconv.Itoa(field(t).Burst)
			},
		},
	}
	for _, w := range perWindows {
		out = append(out, key[T]{
			name: prefix + w.name, doc: "most requests in a rolling " + strings.TrimPrefix(w.name, "per_"),
			set: parsed(number(w.of), whole(1, maxLimit)),
		})
	}
	return append(out,
		key[T]{
			name: prefix + "windows", records: true, doc: "further windows, such as [{limit: 1000, per: 1h, calendar: true, zone: Europe/Berlin}]",
			set: parsed(func(t *T) *[]Window { return &field(t).Windows }, windows),
		},
		key[T]{
			name: prefix + "reserve", def: "0%", doc: "share left to the people who use the same CRM",
			set: parsed(func(t *T) *float64 { return &field(t).Reserve }, reserve),
		},
	)
}

// targetQuotaKeys are those of a target's own quota.
func targetQuotaKeys() []key[Target] {
	out := quotaKeys("quota.", func(t *Target) *Quota { return &t.Quota })
	out[0].def = "2/s"
	out[0].show = func(t *Target) string { return FormatRate(t.Quota.Rate) }
	return append(out,
		key[Target]{
			name: "quota.concurrency", def: "4", doc: "calls under way at once",
			set: parsed(func(t *Target) *int { return &t.Quota.Concurrency }, whole(1, 64)),
		},
		key[Target]{
			name: "quota_group", doc: "one of quotas, which this target's requests count against too",
			set: parsed(func(t *Target) *string { return &t.QuotaGroup }, word),
		},
	)
}

// sharedKeys are the keys of one shared quota.
var sharedKeys = quotaKeys("", func(q *Quota) *Quota { return q })

// checkQuota fills in what a quota leaves open and checks what concerns several
// of its keys; path ends with a dot.
func (b *builder) checkQuota(q *Quota, path string) {
	b.checkWindows(q, path)
	all := q.AllWindows()
	if q.Burst == 0 && !b.failed[path+"burst"] {
		q.Burst = max(1, int(math.Ceil(q.Rate)))
		for _, w := range all {
			q.Burst = min(q.Burst, w.Limit)
		}
	}
	if _, ok := b.values[path+"burst"]; !ok {
		return
	}
	prefix := "" // how a key is called beside the burst
	if strings.HasSuffix(path, ".quota.") {
		prefix = "quota."
	}
	for _, w := range perWindows {
		if n := *w.of(q); n > 0 && q.Burst > n {
			b.blame(path+"burst", fmt.Sprintf("must be at most %s, but %d > %d", prefix+w.name, q.Burst, n))
		}
	}
	for _, w := range q.Windows {
		if q.Burst > w.Limit {
			b.blame(path+"burst", fmt.Sprintf("must be at most the limit of each of the windows, but %d > %s", q.Burst, w))
		}
	}
}

// checkWindows refuses two windows that are one.
func (b *builder) checkWindows(q *Quota, path string) {
	seen := map[string]string{}
	for _, w := range perWindows {
		if *w.of(q) > 0 {
			seen[Window{Per: w.span}.kind()] = w.name
		}
	}
	for i, w := range q.Windows {
		name := fmt.Sprintf("windows[%d]", i)
		if other := seen[w.kind()]; other != "" {
			b.blame(path+"windows", fmt.Sprintf("%s counts the same requests as %s: %s; keep the stricter one", name, other, w))
			return
		}
		seen[w.kind()] = name
	}
}

// checkTargetQuota checks what only a target's own quota has.
func (b *builder) checkTargetQuota(t *Target, path string) {
	if t.QuotaGroup != "" && !b.failed[path+"quota_group"] {
		shared, ok := b.c.Quotas[t.QuotaGroup]
		if !ok {
			names := slices.Sorted(maps.Keys(b.c.Quotas))
			hint := "; there are none: write them under quotas"
			if len(names) > 0 {
				hint = "; there is " + orList(names)
			}
			b.blame(path+"quota_group", fmt.Sprintf("%s is none of quotas%s", quote(t.QuotaGroup), hint))
		}
		if _, own := b.values[path+"quota.rate"]; !own && shared.Rate > 0 {
			t.Quota.Rate = shared.Rate // no rate of its own: what it shares is all there is
		}
	}
	b.checkQuota(&t.Quota, path+"quota.")
	if t.Quota.Rate == 0 && !b.failed[path+"quota.rate"] {
		b.warn(path + "quota.rate is 0: nothing is sent to this target")
	}
}

// checkShared checks one shared quota.
func (b *builder) checkShared(q *Quota, path string) {
	if _, ok := b.values[path+"rate"]; ok && q.Rate == 0 && !b.failed[path+"rate"] {
		b.blame(path+"rate", "must not be 0: leave it out for no limit on the rate; to send nothing, use crmsync hold")
	}
	b.checkQuota(q, path)
	limited := q.Rate > 0 || len(q.AllWindows()) > 0
	for _, k := range sharedKeys {
		limited = limited || b.failed[path+k.name]
	}
	if !limited {
		b.blame(strings.TrimSuffix(path, "."), "limits nothing; write a rate, such as rate: 4/s, or a window, such as per_hour: 1000")
	}
}

// checkMembers warns of shared quotas that nobody shares.
func (b *builder) checkMembers() {
	used := map[string]bool{}
	for _, t := range b.c.Targets {
		used[t.QuotaGroup] = true
	}
	for _, name := range slices.Sorted(maps.Keys(b.c.Quotas)) {
		if !used[name] {
			b.warn("quotas." + name + " is used by no target; write quota_group: " + name + " in those that share it")
		}
	}
}
