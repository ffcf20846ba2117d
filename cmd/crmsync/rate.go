package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"crmsync/app"
)

type rateCmd struct {
	Target      string        `arg:"" help:"Target whose quota to show or to change; with --shared, a shared quota."`
	Rate        string        `arg:"" optional:"" help:"Requests of all workers together: 4/s, 30/m, 1000/h."`
	For         time.Duration `placeholder:"DURATION" help:"Return to the configured quota by itself after so long (default: at --reset)."`
	PerSecond   *int          `placeholder:"N" help:"Most requests in a rolling second."`
	PerMinute   *int          `placeholder:"N" help:"Most requests in a rolling minute."`
	PerHour     *int          `placeholder:"N" help:"Most requests in a rolling hour."`
	PerDay      *int          `placeholder:"N" help:"Most requests in a rolling day."`
	Burst       *int          `placeholder:"N" help:"Most requests at once after a rest."`
	Concurrency *int          `placeholder:"N" help:"Most calls under way at once."`
	Shared      bool          `help:"Change a quota that several targets share (quotas in the configuration)."`
	Reset       bool          `help:"Return to the configured quota."`
	Note        string        `placeholder:"TEXT" help:"Why; status shows it."`
}

// Help is the command's manual.
func (rateCmd) Help() string {
	return `Without a rate or a limit it shows the quota and what has been used of it. Each change takes
the place of the one before: what it does not name is as configured. It counts at once,
for whichever worker runs the target, and outlives restarts and takeovers.`
}

func (c *rateCmd) Run(ctx context.Context, g *Globals) error {
	limits, err := c.limits(time.Now())
	if err != nil {
		return &exitError{exitUsage, err}
	}
	return g.with(ctx, func(a *app.App) error {
		limit, unlimit := a.Limit, a.Unlimit
		if c.Shared {
			limit, unlimit = a.LimitShared, a.UnlimitShared
		}
		switch {
		case c.Reset:
			o, err := unlimit(ctx, g.who(), c.Target)
			if err != nil {
				return err
			}
			return g.limited(c.Target, o.Limits)
		case c.changes():
			o, err := limit(ctx, g.who(), c.Target, limits)
			if err != nil {
				return err
			}
			return g.limited(c.Target, o.Limits)
		}
		st, err := (&statusCmd{Target: c.Target}).ask(ctx, a)
		if err != nil {
			return err
		}
		return g.showQuota(st.Targets[0], st.At)
	})
}

// changes says whether a limit is given.
func (c *rateCmd) changes() bool {
	return c.Rate != "" || cmp.Or(c.PerSecond, c.PerMinute, c.PerHour, c.PerDay, c.Burst, c.Concurrency) != nil
}

// limits reads the command line.
func (c *rateCmd) limits(now time.Time) (l app.Limits, err error) {
	if c.Reset && (c.changes() || c.For != 0) {
		return l, errors.New("--reset goes with no limit: it returns to the configured quota")
	}
	if !c.Reset && !c.changes() && (c.For != 0 || c.Note != "") {
		return l, errors.New("there is nothing to change: give a rate, such as 2/s, or a limit, such as --per-hour 500")
	}
	if c.Shared && c.Concurrency != nil {
		return l, errors.New("--concurrency is a target's own: leave out --shared")
	}
	if c.Shared && !c.Reset && !c.changes() {
		return l, errors.New("--shared goes with a change; crmsync rate TARGET shows what the target shares, too")
	}
	if c.Rate != "" {
		if l.Rate, err = app.ParseRate(c.Rate); err != nil {
			return l, err
		}
		if l.Rate == 0 {
			return l, fmt.Errorf("a rate of 0 would send nothing: use crmsync hold %s", c.Target)
		}
	}
	for _, f := range []struct {
		name string
		from *int
		to   *int
		most int
	}{
		{"per-second", c.PerSecond, &l.PerSecond, 1e9},
		{"per-minute", c.PerMinute, &l.PerMinute, 1e9},
		{"per-hour", c.PerHour, &l.PerHour, 1e9},
		{"per-day", c.PerDay, &l.PerDay, 1e9},
		{"burst", c.Burst, &l.Burst, 10_000},
		{"concurrency", c.Concurrency, &l.Concurrency, 64},
	} {
		switch {
		case f.from == nil:
		case *f.from == 0:
			return l, fmt.Errorf("--%s 0 would send nothing: use crmsync hold %s", f.name, c.Target)
		case *f.from < 0 || *f.from > f.most:
			return l, fmt.Errorf("--%s %d is not between 1 and %d", f.name, *f.from, f.most)
		default:
			*f.to = *f.from
		}
	}
	if c.For < 0 {
		return l, fmt.Errorf("--for %s is in the past", c.For)
	}
	if c.For > 0 {
		l.Until = now.Add(c.For)
	}
	l.Note = c.Note
	return l, nil
}

// limited answers a change.
func (g *Globals) limited(target string, l app.Limits) error {
	if g.JSON {
		return g.printJSON(struct {
			Target string     `json:"target"`
			Limits app.Limits `json:"limits"`
		}{target, l})
	}
	fmt.Fprintf(g.std.out, "%s: %s\n", target, cmp.Or(limitsText(l), "the configured quota"))
	return nil
}

// limitsText is what an operator has set, in words; "" for nothing.
func limitsText(l app.Limits) string {
	var parts []string
	if l.Rate > 0 {
		parts = append(parts, app.FormatRate(l.Rate))
	}
	for _, f := range []struct {
		n    int
		text string
	}{
		{l.Burst, "burst %d"},
		{l.Concurrency, "%d calls at once"},
		{l.PerSecond, "%d per second"},
		{l.PerMinute, "%d per minute"},
		{l.PerHour, "%d per hour"},
		{l.PerDay, "%d per day"},
	} {
		if f.n > 0 {
			parts = append(parts, fmt.Sprintf(f.text, f.n))
		}
	}
	if len(parts) == 0 {
		return ""
	}
	s := strings.Join(parts, ", ")
	if !l.Until.IsZero() {
		s += " until " + l.Until.Local().Format(time.DateTime)
	}
	return s
}

// showQuota answers how a target's quota is.
func (g *Globals) showQuota(t app.TargetStatus, now time.Time) error {
	if g.JSON {
		out := struct {
			Target string           `json:"target"`
			Limits *app.Limits      `json:"limits,omitempty"`
			Group  string           `json:"quota_group,omitempty"`
			Their  *app.Limits      `json:"shared_limits,omitempty"`
			Quota  *app.QuotaStatus `json:"quota,omitempty"`  // absent: nobody runs it
			Shared *app.QuotaStatus `json:"shared,omitempty"` // the one in common with others
			ETA    *app.ETA         `json:"eta,omitempty"`
		}{Target: t.Target, ETA: t.ETA, Group: t.Group, Their: t.SharedLimits}
		if t.Orders.Limits != (app.Limits{}) {
			out.Limits = &t.Orders.Limits
		}
		if t.Lane != nil {
			out.Quota, out.Shared = &t.Lane.QuotaStatus, t.Lane.Shared
		}
		return g.printJSON(out)
	}
	printQuota(g.std.out, t, now)
	return nil
}
