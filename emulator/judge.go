package emulator

import (
	"fmt"
	"slices"
	"time"
)

// Violation is one thing a ledger proves wrong.
type Violation struct {
	// N is the entry that broke the rule.
	N       int    `json:"n"`
	Contact string `json:"contact,omitempty"`
	Field   string `json:"field,omitempty"`
	Text    string `json:"text"`
}

func (v Violation) String() string { return fmt.Sprintf("entry %d: %s", v.N, v.Text) }

// PeakRate returns the most arrivals in any half-open window [t, t+window).
// A window that is not positive counts nothing.
func PeakRate(entries []Entry, window time.Duration) int {
	if window <= 0 {
		return 0
	}
	at := arrivals(entries)
	peak, from := 0, 0
	for i := range at {
		for at[i].Sub(at[from]) >= window {
			from++
		}
		peak = max(peak, i-from+1)
	}
	return peak
}

// MaxOver returns by how many requests the worst moment went beyond a quota:
// the greatest, over all t and w, of arrivals in [t, t+w] less burst + rate*w.
// Zero or less means the quota was kept; rate is per second.
func MaxOver(entries []Entry, rate float64, burst int) float64 {
	worst, level := -float64(burst), 0.0
	var last time.Time
	for i, t := range arrivals(entries) {
		if i > 0 {
			level = max(0, level-rate*t.Sub(last).Seconds())
		}
		last = t
		level++
		worst = max(worst, level-float64(burst))
	}
	return worst
}

// OverQuota replays the arrivals through a strict GCRA of rate requests per
// second and the given burst, which forgives each arrival up to tolerance of
// earliness, and returns how many did not conform and the first of them. An
// arrival that does not conform takes nothing from the quota. A rate that is
// not positive allows nothing.
func OverQuota(entries []Entry, rate float64, burst int, tolerance time.Duration) (n int, first Entry) {
	sorted := slices.Clone(entries)
	slices.SortStableFunc(sorted, func(a, b Entry) int { return a.Arrived.Compare(b.Arrived) })
	if rate <= 0 {
		if len(sorted) > 0 {
			first = sorted[0]
		}
		return len(sorted), first
	}
	// Counted in seconds since the first arrival; a float's error over days
	// stays below a microsecond.
	const rounding = 1e-6
	interval := 1 / rate
	slack := float64(max(burst, 1)-1)*interval + tolerance.Seconds() + rounding
	var tat float64
	for _, e := range sorted {
		now := e.Arrived.Sub(sorted[0].Arrived).Seconds()
		if tat-now > slack {
			if n == 0 {
				first = e
			}
			n++
			continue
		}
		tat = max(now, tat) + interval
	}
	return n, first
}

// Stale returns every applied write that put an older value over a newer one:
// per contact and field, in the order of applying, the greatest mark
// #<number># of the stored values must not fall. Values without a mark are
// not judged.
func Stale(entries []Entry) []Violation {
	type field struct{ contact, name string }
	type write struct {
		entry int
		part  Part
	}
	var writes []write
	for _, e := range entries {
		for _, p := range e.Parts() {
			if p.Applied {
				writes = append(writes, write{e.N, p})
			}
		}
	}
	slices.SortStableFunc(writes, func(a, b write) int { return a.part.Seq - b.part.Seq })
	var out []Violation
	top := map[field]int64{}
	for _, w := range writes {
		for _, name := range w.part.Changed {
			m := marks(nil, w.part.Values[name])
			if len(m) == 0 {
				continue
			}
			mark, f := slices.Max(m), field{w.part.Contact, name}
			if before, ok := top[f]; ok && mark < before {
				out = append(out, Violation{
					N: w.entry, Contact: f.contact, Field: name,
					Text: fmt.Sprintf("contact %s: %s went back from #%d# to #%d#", f.contact, name, before, mark),
				})
			}
			top[f] = mark
		}
	}
	return out
}

// Impatient returns the requests that arrived although an answer had told the
// caller to stay away: between grace after an answer with a readable wait and
// the end of that wait. It takes all callers for one.
func Impatient(entries []Entry, grace time.Duration) []Violation {
	byAnswer := slices.Clone(entries)
	byAnswer = slices.DeleteFunc(byAnswer, func(e Entry) bool { return e.Wait <= 0 || e.Answered.IsZero() })
	slices.SortStableFunc(byAnswer, func(a, b Entry) int { return a.Answered.Compare(b.Answered) })
	sorted := slices.Clone(entries)
	slices.SortStableFunc(sorted, func(a, b Entry) int { return a.Arrived.Compare(b.Arrived) })
	var out []Violation
	var until time.Time
	source, next := 0, 0
	for _, e := range sorted {
		for next < len(byAnswer) && byAnswer[next].Answered.Add(grace).Before(e.Arrived) {
			if end := byAnswer[next].Answered.Add(byAnswer[next].Wait); end.After(until) {
				until, source = end, byAnswer[next].N
			}
			next++
		}
		if e.Arrived.Before(until) {
			out = append(out, Violation{
				N: e.N, Contact: e.Contact,
				Text: fmt.Sprintf("arrived %v before the wait of entry %d was over", until.Sub(e.Arrived), source),
			})
		}
	}
	return out
}

// Overlaps returns the updates that arrived while another update of the same
// contact was still being served. Entries hit by a late-apply fault are left
// out: the CRM holds those longer than any caller waits.
func Overlaps(entries []Entry) []Violation {
	sorted := slices.Clone(entries)
	slices.SortStableFunc(sorted, func(a, b Entry) int { return a.Arrived.Compare(b.Arrived) })
	type span struct {
		end   time.Time
		entry int
	}
	open := map[string]span{}
	var out []Violation
	for _, e := range sorted {
		if (e.Operation != OpUpdate && e.Operation != OpBatch) || e.Fault == string(LateApply) {
			continue
		}
		seen := map[string]bool{}
		for _, p := range e.Parts() {
			if p.Contact == "" || seen[p.Contact] {
				continue
			}
			seen[p.Contact] = true
			was, busy := open[p.Contact]
			if busy && (was.end.IsZero() || e.Arrived.Before(was.end)) {
				out = append(out, Violation{
					N: e.N, Contact: p.Contact,
					Text: fmt.Sprintf("contact %s: arrived while entry %d was being served", p.Contact, was.entry),
				})
			}
			if !busy || e.Answered.IsZero() || e.Answered.After(was.end) {
				open[p.Contact] = span{e.Answered, e.N}
			}
		}
	}
	return out
}

func arrivals(entries []Entry) []time.Time {
	at := make([]time.Time, len(entries))
	for i, e := range entries {
		at[i] = e.Arrived
	}
	slices.SortFunc(at, time.Time.Compare)
	return at
}
