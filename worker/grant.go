package worker

import (
	"math"
	"slices"
	"time"
)

// Spent is what of a window has been used, to be kept across restarts and
// takeovers. One with a Span of 0 is of the budget as a whole.
type Spent struct {
	Span     time.Duration `json:"span"`
	Calendar bool          `json:"calendar,omitempty"`
	Zone     string        `json:"zone,omitempty"`
	// Count are the requests of a rolling window, oldest first, each of one
	// part of Width; Tick is the number of the newest part since the Unix epoch.
	// A window of the calendar has one count, of the period that ends at End;
	// Late of these came so shortly before it that they may count in the next.
	Width time.Duration `json:"width,omitempty"`
	Tick  int64         `json:"tick,omitempty"`
	Count []int         `json:"count,omitempty"`
	End   time.Time     `json:"end,omitzero"`
	Late  int           `json:"late,omitempty"`

	// Of the whole: requests since the owner's budget was made; how many more
	// it may have made by the time this is read; until when the CRM wanted
	// nothing; the rate that its refusals taught and the time of writing.
	Total   int64     `json:"total,omitempty"`
	Granted int       `json:"granted,omitempty"`
	Asked   time.Time `json:"asked,omitzero"`
	Rate    float64   `json:"rate,omitempty"`
	At      time.Time `json:"at,omitzero"`
}

// partEnd is when the i-th part of a rolling window's record ended, in
// nanoseconds of the Unix epoch.
func (s *Spent) partEnd(i int) int64 {
	width := int64(s.Width)
	if width <= 0 { // records of old have sixty parts
		width = (int64(s.Span) + 59) / 60
	}
	return (s.Tick - int64(len(s.Count)-1-i) + 1) * width
}

const (
	// grantSpan is the least span whose count must outlive its owner: no
	// takeover after a crash is quicker.
	grantSpan = 5 * time.Second
	// grantTime and grantShare size a grant: what is used in such a time, but
	// no more than such a share of a limit, since a crash wastes it.
	grantTime  = 2 * time.Second
	grantShare = 0.05
	// learnedFor is how long a learned rate is worth handing on.
	learnedFor = 10 * time.Minute
)

// grant is the promise that keeps a takeover from doubling what windows allow:
// requests are made only up to a ceiling that has been stored, so that whoever
// finds that record knows all that can have been made.
type grant struct {
	on       bool
	ceiling  int64 // of total
	size     int   // of the last grant
	released bool
	former   []tally // that limit no more
	want     chan struct{}
}

func (g *grant) short(total int64) bool { return g.released || g.on && total >= g.ceiling }

func (g *grant) spend(total int64) {
	if g.on && g.ceiling-total < int64(g.size+1)/2 {
		g.ask()
	}
}

func (g *grant) ask() {
	select {
	case g.want <- struct{}{}:
	default: // it is asked for
	}
}

// idle keeps the longest window of those that limit no more.
func (g *grant) idle(now time.Time, former []tally) {
	g.former = nil
	for _, w := range former {
		if r, ok := w.(*rolling); ok && r.used(now) > 0 && (g.former == nil || r.Span > g.former[0].of().Span) {
			g.former = []tally{r}
		}
	}
}

// longest is the record of the rolling window that reaches back furthest.
func (b *Budget) longest(now time.Time) (Spent, bool) {
	var best tally
	for _, w := range append(slices.Clone(b.windows), b.grant.former...) {
		if _, ok := w.(*rolling); ok && (best == nil || w.of().Span > best.of().Span) {
			best = w
		}
	}
	if best == nil {
		return Spent{}, false
	}
	return best.save(now), true
}

// longSpan is the least limit of the windows that must outlive us; 0: none.
func (b *Budget) longSpan() (least int) {
	for _, w := range b.windows {
		if w.of().Span > grantSpan && (least == 0 || w.allowed() < least) {
			least = w.allowed()
		}
	}
	return least
}

// Want is signalled when what was granted is more than half used, and while
// nothing may be sent for want of a grant: somebody should store [Budget.Memory]
// and say so with [Budget.Stored]. Without [Quota].Durable it never is.
func (b *Budget) Want() <-chan struct{} { return b.grant.want }

// Memory is what must be known to whoever spends this quota next. Where the
// quota is durable it holds a grant, a number of requests that may be made
// before the next record is stored; it counts from when [Budget.Stored] is told
// so. Records are stored one after the other, in the order they were taken.
func (b *Budget) Memory(now time.Time) []Spent {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.grant.on && !b.grant.released {
		b.grant.size = b.grantLocked(now)
		b.grant.ceiling = min(b.grant.ceiling, b.total+int64(b.grant.size))
	}
	return b.memoryLocked(now)
}

// Release ends the budget: nothing can be spent any more, and what it returns
// is exact.
func (b *Budget) Release(now time.Time) []Spent {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.grant.released, b.grant.size = true, 0
	return b.memoryLocked(now)
}

func (b *Budget) memoryLocked(now time.Time) []Spent {
	whole := Spent{Total: b.total, At: now.Round(0)}
	if b.asked.After(now) {
		whole.Asked = b.asked.Round(0)
	}
	if b.learned.top > 0 {
		whole.Rate = b.learned.top
	}
	if b.grant.on {
		whole.Granted = b.grant.size
	}
	out := []Spent{whole}
	for _, w := range append(slices.Clone(b.windows), b.grant.former...) {
		if w.of().Span > grantSpan || !b.grant.on || b.grant.released {
			out = append(out, w.save(now))
		}
	}
	return out
}

// grantLocked sizes a grant: what two seconds use, at least a burst, and not so
// much that a crash would cost the smallest window dearly.
func (b *Budget) grantLocked(now time.Time) int {
	use := b.recent.rate(now.Sub(b.born))
	if r, _ := b.inForceLocked(now); b.total < int64(b.quota.Burst) && !math.IsInf(r, 1) {
		use = r // nothing is measured yet
	}
	n := max(int(math.Ceil(use*grantTime.Seconds())), b.quota.Burst, 2)
	return max(1, min(n, int(float64(b.longSpan())*grantShare)))
}

// Stored says that a record of [Budget.Memory] is stored, and lets its grant be
// used.
func (b *Budget) Stored(memory []Spent) {
	if len(memory) == 0 || memory[0].Span != 0 {
		return
	}
	b.mu.Lock()
	b.grant.ceiling = memory[0].Total + int64(memory[0].Granted)
	b.mu.Unlock()
	b.ring()
}

// restoreLocked takes over what former owners have counted. What was granted
// and not counted may have been made a moment ago.
func (b *Budget) restoreLocked(now time.Time, spent []Spent) {
	granted := 0
	for _, s := range spent {
		if s.Span != 0 {
			continue
		}
		granted += max(0, s.Granted)
		if wait := s.Asked.Sub(now); wait > 0 {
			b.asked = now.Add(min(wait, time.Hour))
		}
		if s.Rate > 0 && now.Sub(s.At) < learnedFor {
			b.learned.takeOver(now, max(s.Rate, rateLeast))
		}
	}
	for _, w := range b.windows {
		for _, s := range recordsOf(w.of(), spent) {
			w.restore(s, now)
		}
		if granted > 0 {
			w.add(now, granted)
		}
	}
}

// recordsOf is what is known of a window: its own record, else that of the
// rolling window that reaches back furthest.
func recordsOf(l WindowLimit, spent []Spent) (out []Spent) {
	longest := -1
	for i, s := range spent {
		if s.Span == l.Span && s.Calendar == l.Calendar && s.Zone == l.zone() {
			out = append(out, s)
		}
		if s.Span > 0 && !s.Calendar && (longest < 0 || s.Span > spent[longest].Span) {
			longest = i
		}
	}
	if len(out) == 0 && longest >= 0 {
		out = append(out, spent[longest])
	}
	return out
}
