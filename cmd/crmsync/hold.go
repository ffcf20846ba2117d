package main

import (
	"context"
	"fmt"
	"time"

	"crmsync/app"
)

type holdCmd struct {
	Target string        `arg:"" help:"Target to hold."`
	For    time.Duration `placeholder:"DURATION" help:"Resume by itself after so long (default: until crmsync resume)."`
	Note   string        `placeholder:"TEXT" help:"Why; status shows it."`
}

func (c *holdCmd) Run(ctx context.Context, g *Globals) error {
	return g.with(ctx, func(a *app.App) error {
		var until time.Time
		if c.For > 0 {
			until = time.Now().Add(c.For)
		}
		if err := a.Hold(ctx, g.who(), c.Target, c.Note, until); err != nil {
			return err
		}
		return g.steered(c.Target, "held", until)
	})
}

type resumeCmd struct {
	Target string `arg:"" help:"Target to resume."`
	Accept bool   `xor:"storm" help:"End a storm: the contacts really are wrong, their dead letters stay."`
	Recall bool   `xor:"storm" help:"End a storm: it was the CRM, and is over; put its dead letters back into the queue."`
}

func (c *resumeCmd) Run(ctx context.Context, g *Globals) error {
	return g.with(ctx, func(a *app.App) error {
		if c.Accept || c.Recall {
			return c.afterStorm(ctx, g, a)
		}
		if err := a.Resume(ctx, g.who(), c.Target); err != nil {
			return err
		}
		return g.steered(c.Target, "resumed", time.Time{})
	})
}

func (c *resumeCmd) afterStorm(ctx context.Context, g *Globals, a *app.App) error {
	how, what := app.AcceptRefusals, "resumed; %d dead letter(s) stay"
	if c.Recall {
		how, what = app.RecallLetters, "resumed; %d dead letter(s) go back into the queue"
	}
	h, err := a.ResumeStorm(ctx, g.who(), c.Target, how)
	if err != nil {
		return err
	}
	if !g.JSON {
		fmt.Fprintf(g.std.out, "%s: "+what+"\n", c.Target, len(h.Letters))
		return nil
	}
	return g.printJSON(struct {
		Target  string `json:"target"`
		Now     string `json:"now"`
		Storm   string `json:"storm"`
		Letters int    `json:"letters"`
	}{c.Target, "resumed", string(how), len(h.Letters)})
}

func (g *Globals) steered(target, what string, until time.Time) error {
	if g.JSON {
		return g.printJSON(struct {
			Target string    `json:"target"`
			Now    string    `json:"now"`
			Until  time.Time `json:"until,omitzero"`
		}{target, what, until})
	}
	if until.IsZero() {
		fmt.Fprintf(g.std.out, "%s: %s\n", target, what)
		return nil
	}
	fmt.Fprintf(g.std.out, "%s: %s until %s\n", target, what, until.Local().Format(time.DateTime))
	return nil
}
