package main

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"crmsync/app"
)

type statusCmd struct {
	Target string        `arg:"" optional:"" help:"Only this target."`
	Watch  bool          `short:"w" help:"Show it again and again, until interrupted."`
	Every  time.Duration `default:"1s" help:"How often, with --watch."`
}

func (c *statusCmd) Run(ctx context.Context, g *Globals) error {
	return g.with(ctx, func(a *app.App) error {
		for {
			st, err := c.ask(ctx, a)
			if err != nil {
				return err
			}
			if err := c.show(g, st); err != nil {
				return err
			}
			if !c.Watch {
				return nil
			}
			select {
			case <-time.After(max(c.Every, 100*time.Millisecond)):
			case <-ctx.Done():
				return nil
			}
		}
	})
}

func (c *statusCmd) ask(ctx context.Context, a *app.App) (app.Status, error) {
	st, err := a.Status(ctx)
	if err != nil || c.Target == "" {
		return st, err
	}
	var names []string
	for _, t := range st.Targets {
		if t.Target == c.Target {
			st.Targets = []app.TargetStatus{t}
			return st, nil
		}
		names = append(names, t.Target)
	}
	return st, fmt.Errorf("the queue has no target %q; it has %s", c.Target, cmp.Or(strings.Join(names, ", "), "none: run `crmsync setup --apply`"))
}

func (c *statusCmd) show(g *Globals, st app.Status) error {
	if g.JSON {
		return g.printJSON(st)
	}
	if c.Watch && !g.plain(g.std.out) {
		fmt.Fprint(g.std.out, "\x1b[H\x1b[2J")
	}
	printStatus(g.std.out, st)
	return nil
}

func printStatus(w io.Writer, st app.Status) {
	fmt.Fprintf(w, "NATS %s · %d worker(s)%s\n", st.NATS.URL, len(st.Sessions), listed(st.Sessions))
	if st.Store != nil && !st.Store.OK() {
		fmt.Fprintf(w, "store %s: %s\n", st.Store.State, st.Store.Text)
	}
	if d := st.NATS.Durability; !d.OK() {
		fmt.Fprintf(w, "not durable: %s\n", d.Text)
	}
	if len(st.Targets) == 0 {
		fmt.Fprintln(w, "no targets yet: start `crmsync run` with a configuration that has some")
		return
	}
	tw := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(tw, "TARGET\tSTATE\tLIVE\tBULK\tCALLS\tRETRYING\tDEAD\tRATE\tWAITS FOR")
	for _, t := range st.Targets {
		state, calls, retrying, rate, waits := "not run", "-", "-", "-", "a worker: crmsync run"
		if l := t.Lane; l != nil {
			state, calls, retrying = l.State, fmt.Sprint(l.Calling), fmt.Sprint(l.Retrying)
			waits, rate = waitsFor(t, st.At), rateOf(&l.QuotaStatus)
		} else if t.Owner != "" {
			state, waits = "starting", "its worker "+t.Owner+" to report"
		}
		fmt.Fprintf(tw, "%s\t%s\t%d\t%d\t%s\t%s\t%d\t%s\t%s\n", t.Target, state,
			t.Queue["live"].Waiting, t.Queue["bulk"].Waiting, calls, retrying, total(t.Dead), rate, waits)
	}
	tw.Flush()
	for _, t := range st.Targets {
		details(w, t, st.At)
		if len(st.Targets) == 1 || len(st.Targets) <= wholeQuotas && quotaTells(t) {
			fmt.Fprintln(w)
			printQuota(w, t, st.At)
		} else if t.ETA != nil {
			fmt.Fprintf(w, "\n%s %s\n", t.Target, etaText(t.ETA, st.At))
		}
	}
	if st.Kept != nil && st.Kept.Text != "" {
		fmt.Fprintf(w, "\n%s\n", st.Kept.Text)
	}
}

func listed(names []string) string {
	if len(names) == 0 {
		return ""
	}
	return ": " + strings.Join(names, ", ")
}

// wholeQuotas is for how many targets at most a status tells all of their quotas.
const wholeQuotas = 12

// quotaTells says whether there is more to a target's quota than its rate.
func quotaTells(t app.TargetStatus) bool {
	if t.ETA != nil || t.SharedLimits != nil || limitsText(t.Orders.Limits) != "" {
		return true
	}
	l := t.Lane
	return l != nil && (l.Shared != nil || len(l.Windows)+len(l.Advertised) > 0 || !l.Asked.IsZero())
}

// rateOf is the rate used, of that in force, of that allowed where it is less.
func rateOf(q *app.QuotaStatus) string {
	switch {
	case q.Rate == 0 && q.Allowed == 0:
		return perSecond(q.Used) + ", no limit"
	case q.Allowed > 0 && q.Rate < q.Allowed*0.995:
		return fmt.Sprintf("%.3g of %.3g (%.3g)/s", q.Used, q.Rate, q.Allowed)
	}
	return fmt.Sprintf("%.3g of %.3g/s", q.Used, q.Rate)
}

func total(m map[string]int64) (n int64) {
	for _, v := range m {
		n += v
	}
	return n
}

// waitsFor says what a lane waits for, and until when.
func waitsFor(t app.TargetStatus, now time.Time) string {
	l := t.Lane
	s := l.Waiting
	if l.Calling > 0 && (s == "updates" || s == "") {
		s = "answers"
	}
	if l.Hold != nil {
		s = string(l.Hold.Reason) + ": " + s
	}
	if !l.Until.IsZero() {
		s += fmt.Sprintf(" until %s (%s)", l.Until.Local().Format(time.TimeOnly), in(l.Until.Sub(now)))
	}
	return s
}

func in(d time.Duration) string {
	switch {
	case d <= 0:
		return "now"
	case d < time.Second:
		return "in under 1s"
	}
	return "in " + d.Round(time.Second).String()
}

// details are the lines below the table: a hold with its evidence, dead letters
// by reason, the contacts that wait for a retry.
func details(w io.Writer, t app.TargetStatus, now time.Time) {
	if l := t.Lane; l != nil && len(l.Memory.Left) > 0 {
		fmt.Fprintf(w, "\n%s: %d dead letter(s) of a storm are recalled when the queue has room for them\n", t.Target, len(l.Memory.Left))
	}
	if l := t.Lane; l != nil && l.Hold != nil {
		fmt.Fprintf(w, "\n%s holds: %s, since %s", t.Target, l.Hold.Reason, l.Hold.Since.Local().Format(time.TimeOnly))
		if l.Hold.Status != 0 {
			fmt.Fprintf(w, ", HTTP %d", l.Hold.Status)
		}
		if l.Hold.Detail != "" {
			fmt.Fprintf(w, ": %s", l.Hold.Detail)
		}
		if !l.Hold.NextProbe.IsZero() {
			fmt.Fprintf(w, "; next probe %s, %d so far", in(l.Hold.NextProbe.Sub(now)), l.Hold.Tried)
		}
		fmt.Fprintln(w)
		evidence(w, t)
	}
	if len(t.Dead) > 0 {
		var parts []string
		for _, r := range slices.Sorted(maps.Keys(t.Dead)) {
			parts = append(parts, fmt.Sprintf("%d %s", t.Dead[r], r))
		}
		fmt.Fprintf(w, "\n%s has dead letters: %s (crmsync dead ls --target %s)\n", t.Target, strings.Join(parts, ", "), t.Target)
	}
	if t.Lane == nil || len(t.Lane.Retries) == 0 {
		return
	}
	fmt.Fprintf(w, "\n%s retries:\n", t.Target)
	for _, r := range t.Lane.Retries {
		fmt.Fprintf(w, "  contact %s %s, after %d attempt(s)", printable(r.Contact), in(r.Due.Sub(now)), r.Attempts)
		if r.Status != 0 {
			fmt.Fprintf(w, ", HTTP %d", r.Status)
		}
		if r.Detail != "" {
			fmt.Fprintf(w, ": %s", r.Detail)
		}
		fmt.Fprintln(w)
	}
}
