package main

import (
	"context"
	"errors"
	"fmt"

	"crmsync/app"
)

type setupCmd struct {
	Print bool `xor:"how" help:"Print the definitions as the nats command takes them; change nothing."`
	Apply bool `xor:"how" help:"Create what is missing and change what differs."`
}

// Help is the command's manual.
func (setupCmd) Help() string {
	return `crmsync run does this by itself where it is permitted to. Use it where the worker's
NATS user may not create streams.`
}

func (c *setupCmd) Run(ctx context.Context, g *Globals) error {
	if !c.Print && !c.Apply {
		return &exitError{exitUsage, errors.New("say --print or --apply")}
	}
	if c.Print {
		cfg, err := app.LoadConfig(g.configPath(), g.std.env, g.overrides())
		if err != nil {
			return err
		}
		plan, err := app.Plan(cfg)
		if err != nil {
			return err
		}
		fmt.Fprintf(g.std.out, "%s\n", plan)
		return nil
	}
	return g.with(ctx, func(a *app.App) error {
		if err := a.Setup(ctx); err != nil {
			return err
		}
		fmt.Fprintln(g.std.out, "streams and buckets are in place")
		return nil
	})
}
