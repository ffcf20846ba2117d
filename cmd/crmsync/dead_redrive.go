package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"text/tabwriter"

	"crmsync/app"
)

type deadRedriveCmd struct {
	ID []uint64 `arg:"" optional:"" help:"Letters to send again."`
	letterFilter
	All      bool    `help:"All letters there are."`
	Plan     bool    `help:"Only say what it would come to."`
	Canary   int     `placeholder:"N" help:"So many first; if one of them dies again, stop."`
	Rate     float64 `placeholder:"N" help:"At most so many letters a second (default: ${redrive_rate}, as far as the lane takes them)."`
	Force    bool    `help:"Also overwrite what is newer in the CRM; it is noted."`
	Yes      bool    `short:"y" help:"Do not ask before many are sent."`
	Ls       bool    `help:"List redrives."`
	Cancel   word    `placeholder:"OPERATION" help:"End one: what was not sent to the CRM is dead again."`
	Continue word    `placeholder:"OPERATION" help:"Go on with one that was interrupted."`
}

// Help is the command's manual.
func (deadRedriveCmd) Help() string {
	return `Each letter becomes a new update, behind live traffic and inside the quota; it counts
as old as the original, so that what is newer in the CRM stays. Twice or by two
operators at once, it is sent once. The command waits for the ends; interrupted, it
says how to go on or to cancel. Exit code 3 means that letters are dead again, or that none of those that a filter
chose could be sent.`
}

func (c *deadRedriveCmd) Run(ctx context.Context, g *Globals) error {
	if err := c.sensible(); err != nil {
		return err
	}
	return g.with(ctx, func(a *app.App) error {
		switch {
		case c.Ls:
			return g.listOperations(ctx, a)
		case c.Cancel != "":
			o, err := a.CancelRedrive(ctx, g.who(), string(c.Cancel))
			if err != nil {
				return err
			}
			if g.JSON {
				return g.printJSON(o)
			}
			fmt.Fprintf(g.std.out, "redrive %s: %s after %d of %d\n", o.ID, o.State, o.Sent, o.Total)
			return nil
		case c.Continue != "":
			return g.runRedrive(ctx, string(c.Continue), func(tell func(app.Operation)) (app.Operation, error) {
				return a.ContinueRedrive(ctx, g.who(), string(c.Continue), tell)
			})
		}
		return c.start(ctx, g, a)
	})
}

func (c *deadRedriveCmd) sensible() error {
	other := 0
	for _, set := range []bool{c.Ls, c.Cancel != "", c.Continue != ""} {
		if set {
			other++
		}
	}
	letters := len(c.ID) > 0 || c.All || !c.filter().IsZero()
	switch {
	case other > 1 || other == 1 && letters:
		return &exitError{exitUsage, errors.New("--ls, --cancel and --continue go alone")}
	case other == 1:
		return nil
	case c.Rate < 0 || c.Canary < 0:
		return &exitError{exitUsage, errors.New("--rate and --canary are not negative")}
	}
	return chosen(c.ID, c.filter(), c.All)
}

func (c *deadRedriveCmd) start(ctx context.Context, g *Globals, a *app.App) error {
	r := app.Redrive{Filter: c.filter(), IDs: c.ID, Force: c.Force, Rate: c.Rate, Canary: c.Canary}
	n := int64(len(c.ID))
	if n == 0 {
		var err error
		if n, err = a.CountDead(ctx, r.Filter); err != nil {
			return err
		}
		if n == 0 && r.Filter.Target == "" {
			g.say("no dead letters match")
			return nil
		}
	}
	if c.Plan || n > askAbove && !c.Yes {
		f, err := a.Foresee(ctx, r)
		if err != nil {
			return err
		}
		if c.Plan && g.JSON {
			return g.printJSON(f)
		}
		w := g.std.err
		if c.Plan {
			w = g.std.out
		}
		for line := range strings.Lines(f.Text()) {
			fmt.Fprintln(w, printable(strings.TrimSuffix(line, "\n")))
		}
		if c.Plan {
			return nil
		}
		if err := g.confirm("send %d letters again?", f.Sendable); err != nil {
			return err
		}
	}
	o, err := a.StartRedrive(ctx, g.who(), r)
	if err != nil {
		return err
	}
	if o.Total == 0 {
		g.say("no dead letters match")
	}
	return g.runRedrive(ctx, o.ID, func(tell func(app.Operation)) (app.Operation, error) { return a.RunRedrive(ctx, o.ID, tell) })
}

// runRedrive carries an operation out and tells how it ended.
func (g *Globals) runRedrive(ctx context.Context, id string, run func(tell func(app.Operation)) (app.Operation, error)) error {
	p := g.progress()
	o, err := run(func(o app.Operation) {
		p.line("redrive %s: %d of %d sent, %s", o.ID, o.Sent, o.Total, endedText(o))
	})
	p.done()
	if err != nil {
		if ctx.Err() != nil {
			g.say("the redrive has sent %d of %d letters; those go on by themselves\n"+
				"go on with the rest: crmsync dead redrive --continue %s\nor give it up:       crmsync dead redrive --cancel %s", o.Sent, o.Total, id, id)
		}
		return err
	}
	dead := o.Ended[app.OutcomeDead]
	if g.JSON {
		if err := g.printJSON(o); err != nil {
			return err
		}
	} else {
		fmt.Fprintf(g.std.out, "redrive %s: %s, %d of %d sent: %s\n", o.ID, o.State, o.Sent, o.Total, endedText(o))
	}
	for _, s := range slices.Sorted(maps.Keys(o.Skipped)) {
		g.say("%d not sent: %s", o.Skipped[s], app.SkipText(s))
	}
	if dead > 0 {
		g.say("dead again: letter %s%s", numbers(o.DeadAgain[:min(5, len(o.DeadAgain))]), more(int(dead)-5))
	}
	return redriveExit(o)
}

// redriveExit is the command's error for what became of a redrive.
func redriveExit(o app.Operation) error {
	switch {
	case o.State == app.OperationCancelled:
		return &exitError{exitFailure, fmt.Errorf("redrive %s was cancelled %s", o.ID, o.Why)}
	case o.State == app.OperationStopped:
		return &exitError{exitRejects, fmt.Errorf("redrive %s stopped: %s", o.ID, o.Why)}
	case o.Ended[app.OutcomeDead] > 0:
		return &exitError{code: exitRejects}
	case o.Sent == 0 && len(o.Skipped) > 0 && len(o.IDs) == 0:
		return &exitError{code: exitRejects}
	case len(o.IDs) > 0 && len(o.Skipped) > 0:
		return &exitError{code: exitFailure} // it was named, and not sent
	}
	return nil
}

func more(n int) string {
	if n <= 0 {
		return ""
	}
	return fmt.Sprintf(" and %d more", n)
}

// endedText says how updates of an operation ended, in a fixed order.
func endedText(o app.Operation) string {
	parts := app.OutcomeText(o.Ended)
	if n := o.Unfinished(); n > 0 {
		parts = append(parts, fmt.Sprintf("%d under way", n))
	}
	if len(parts) == 0 {
		return "nothing"
	}
	return strings.Join(parts, ", ")
}

func (g *Globals) listOperations(ctx context.Context, a *app.App) error {
	list, err := a.Operations(ctx)
	if err != nil {
		return err
	}
	if g.JSON {
		return g.printJSON(list)
	}
	if len(list) == 0 {
		g.say("no redrive is under way, and none ended in the last 30 days")
		return nil
	}
	tw := tabwriter.NewWriter(g.std.out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(tw, "OPERATION\tSTARTED\tBY\tSTATE\tSENT\tOF\tENDED\tWHICH")
	for _, o := range list {
		which := app.FilterText(o.Filter)
		if len(o.IDs) > 0 {
			which = fmt.Sprintf("%d named letters", len(o.IDs))
		}
		fmt.Fprintf(tw, "%s\t%s\t%s\t%s\t%d\t%d\t%s\t%s\n", o.ID, clock(o.Started), printable(o.By), o.State, o.Sent, o.Total, endedText(o), printable(which))
	}
	return tw.Flush()
}
