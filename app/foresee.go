package app

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"crmsync/contact"
	"crmsync/queue"
)

// Foresight is what a redrive would come to now.
type Foresight struct {
	queue.Foresight
	Pace *Pace `json:"pace,omitempty"` // where the letters are of one target; else nil
}

// Foresee says what a redrive would come to, and sends nothing.
func (a *App) Foresee(ctx context.Context, r Redrive) (Foresight, error) {
	if err := a.checkTargets(ctx, r); err != nil {
		return Foresight{}, err
	}
	p, err := r.plan()
	if err != nil {
		return Foresight{}, err
	}
	check, done := a.checker()
	defer done()
	known := a.knownRules()
	f, err := a.q.Foresee(ctx, p, func(target string) (contact.Rules, bool) {
		x, ok := known[target]
		return x, ok || len(a.cfg.Targets) == 0
	}, check)
	out := Foresight{Foresight: f}
	if err != nil {
		return out, err
	}
	target := r.Filter.Target
	if target == "" && len(r.IDs) > 0 {
		l, err := a.letter(ctx, r.IDs[0])
		if err != nil {
			return out, err
		}
		target = l.Target
	}
	if target == "" && len(f.Groups) > 0 {
		target = f.Groups[0].Target
		for _, g := range f.Groups {
			if g.Target != target {
				return out, nil // several targets go side by side, each at its pace
			}
		}
	}
	if target == "" {
		return out, nil
	}
	pace, err := a.Pace(ctx, target, f.Sendable, r.Rate)
	out.Pace = &pace
	return out, err
}

// knownRules are how updates fold, by configured target.
func (a *App) knownRules() map[string]contact.Rules {
	out := map[string]contact.Rules{}
	for name := range a.cfg.Targets {
		if c, err := a.clientOf(name); err == nil {
			out[name] = c.Rules()
			c.CloseIdle()
		}
	}
	return out
}

// Text says in lines what a redrive would come to.
func (f Foresight) Text() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%d letter(s), %d would be sent\n", f.Total, f.Sendable)
	line := func(n int64, what, example string) {
		if n == 0 {
			return
		}
		fmt.Fprintf(&b, "  %d %s", n, what)
		if ids := f.Examples[example]; len(ids) > 0 {
			fmt.Fprintf(&b, " (letter %s)", strings.Trim(strings.Join(strings.Fields(fmt.Sprint(ids)), ", "), "[]"))
		}
		b.WriteByte('\n')
	}
	line(f.Superseded, "of them would write nothing: newer updates have written all their fields (--force overrides)", "superseded")
	line(f.Partly, "of them would leave out fields that newer updates have written", "partly")
	for _, s := range slices.Sorted(maps.Keys(f.Skipped)) {
		line(f.Skipped[s], "would not be sent: "+SkipText(s), string(s))
	}
	for _, g := range f.Groups {
		name := g.Cause.Reason.String()
		if g.Cause.Message != "" {
			name += ": " + g.Cause.Message
		}
		fmt.Fprintf(&b, "  %7d  %s  %s\n", g.Count, g.Target, name)
	}
	b.WriteString(f.Pace.text())
	return b.String()
}

func (p *Pace) text() string {
	switch {
	case p == nil:
		return ""
	case p.Owner == "":
		return "nobody runs the lane at the moment: they wait until crmsync run does\n"
	case p.Held != "":
		return fmt.Sprintf("the lane holds at the moment (%s): they wait until it goes on\n", p.Held)
	case p.Took > 0:
		return fmt.Sprintf("at %.3g a second they take about %s, more beside live traffic\n", p.PerSecond, roughly(p.Took))
	}
	return ""
}

// roughly is a span to the second, or to the minute where it is long.
func roughly(d time.Duration) time.Duration {
	if d > time.Hour {
		return d.Round(time.Minute)
	}
	return max(time.Second, d.Round(time.Second))
}

// SkipText says why letters of a redrive are not sent.
func SkipText(s queue.Skip) string {
	switch s {
	case queue.SkipGone:
		return "removed meanwhile"
	case queue.SkipInHand:
		return "somebody else sends or discards them"
	case queue.SkipTooOld:
		return "too old to be proven not stale (--force)"
	case queue.SkipUnsendable:
		return "no update, or one that the CRM can never take: edit or discard them"
	case queue.SkipNoTarget:
		return "their target is not there any more"
	}
	return string(s)
}
