package history

import (
	"slices"
	"time"
)

// rate: the requests of all processes together stay within each limit, and none
// arrives while an answer has asked for patience.
func (t *trial) rate() {
	byTarget := map[string][]*request{}
	for _, r := range t.requests {
		byTarget[r.Target] = append(byTarget[r.Target], r)
	}
	for target, rs := range byTarget {
		l := t.rules.Targets[target]
		if l.Rate > 0 {
			t.bucket(rs, l)
		}
		for _, w := range l.Windows {
			t.window(rs, w)
		}
		t.patience(rs)
	}
}

// earliness is how much too early a request may seem for the arithmetic's sake.
const earliness = time.Microsecond

// bucket replays the arrivals through a token bucket.
func (t *trial) bucket(rs []*request, l Limits) {
	gap := time.Duration(float64(time.Second) / l.Rate)
	slack := time.Duration(max(l.Burst, 1)-1)*gap + earliness
	var due time.Time
	for _, r := range rs {
		if t.heldBack(r) {
			continue
		}
		t.checked()
		if early := due.Sub(r.At); early > slack {
			t.find(r.At, key{target: r.Target}, "request %d came %s too early for %g a second with a burst of %d", r.Request, early-slack, l.Rate, l.Burst)
			continue // it takes nothing from the quota
		}
		if r.At.After(due) {
			due = r.At
		}
		due = due.Add(gap)
	}
}

// FaultHeld and FaultStopped are what faults are named in which a network, or a
// process that was stopped, keeps back what was sent and lets it go all at once.
const (
	FaultHeld    = "crm held"
	FaultStopped = "stop"
)

// heldBack says that a request came with others that the network let go.
func (t *trial) heldBack(r *request) bool {
	return slices.ContainsFunc(t.faults, func(f fault) bool {
		return (f.name == FaultHeld || f.name == FaultStopped) && !f.to.IsZero() && !r.At.Before(f.to) && r.At.Sub(f.to) <= t.rules.Grace
	})
}

func (t *trial) window(rs []*request, w Window) {
	from := 0
	for i, r := range rs {
		for r.At.Sub(rs[from].At) >= w.Span {
			from++
		}
		t.checked()
		if n := i - from + 1; n > w.Limit {
			t.find(r.At, key{target: r.Target}, "request %d is the %dth within %s, where %d are allowed", r.Request, n, w.Span, w.Limit)
		}
	}
}

// patience: what the CRM asked for is kept by every process. An owner that was
// killed at that moment may not have told the next.
func (t *trial) patience(rs []*request) {
	asked := slices.Clone(rs)
	asked = slices.DeleteFunc(asked, func(r *request) bool { return r.reply == nil || r.reply.Wait <= 0 })
	slices.SortStableFunc(asked, func(a, b *request) int { return a.reply.At.Compare(b.reply.At) })
	var until time.Time
	var source *request
	next := 0
	for _, r := range rs {
		for ; next < len(asked) && asked[next].reply.At.Add(t.rules.Grace).Before(r.At); next++ {
			a := asked[next]
			if end := a.reply.At.Add(a.reply.Wait); end.After(until) && t.broken(a.Target, a.At, a.reply.At.Add(handover)) == 0 {
				until, source = end, a
			}
		}
		if source == nil {
			continue
		}
		t.checked()
		if r.At.Before(until) {
			t.find(r.At, key{target: r.Target}, "request %d arrived %s before the wait was over that request %d was told", r.Request, until.Sub(r.At), source.Request)
		}
	}
}

// handover is how long after an answer an owner may die before the others can know
// what it said.
const handover = 2 * time.Second

// again says whether a call is another try of one before: it writes all that that
// one did, with the same values or newer ones, and not all of them have ended. What
// has ended and is sent again later begins afresh.
func (t *trial) again(c, before *call) bool {
	open := false
	for path, was := range before.Fields {
		value, ok := c.Fields[path]
		if !ok || Marked(value) == 0 && Marked(was) != 0 {
			return false // what clears it may be older
		}
		u, v := t.updates[Marked(value)], t.updates[Marked(was)]
		if v == nil {
			continue
		}
		if u != nil && u != v && !u.place.after(v.place) {
			return false
		}
		open = open || v.openAt(c.At)
	}
	return open
}

// retryManners: who failed waits, and no longer tries than it may.
func (t *trial) retryManners() {
	last := map[key]*call{}
	for _, c := range t.inOrder {
		l := t.rules.Targets[c.key.target]
		was := last[c.key]
		last[c.key] = c
		if was == nil || was.Actor != c.Actor || was.answer == nil || was.answer.Cut || c.Repair || was.Repair || !t.again(c, was) {
			continue // another change
		}
		var least time.Duration
		switch was.answer.Verdict {
		case "transient", "unknown":
			least = max(l.Backoff, was.answer.Wait)
		default:
			continue
		}
		t.checked()
		if d := c.At.Sub(was.answer.At); d < least-time.Millisecond {
			t.find(c.At, c.key, "call %s began %s after the answer to call %s (%s), which asks for %s", c.Call, d, was.Call, was.answer.Verdict, least)
		}
	}
	for _, u := range t.order {
		for _, d := range u.drives {
			for _, s := range d.settles {
				most := t.rules.Targets[u.key.target].Attempts
				if most == 0 || s.Outcome != "dead" {
					continue
				}
				t.checked()
				if s.Attempts > most {
					t.find(s.At, u.key, "update %d ended after %d attempts that count, %d are allowed", u.Update, s.Attempts, most)
				}
			}
		}
	}
}
