package main

import (
	"context"
	"fmt"
	"strings"

	"crmsync/app"
)

type checkCmd struct {
	ConfigOnly bool `name:"config-only" help:"Check configuration and secrets only; connect to nothing."`
	Health     bool `help:"Ask the worker on this machine whether it lives (http.listen); for container health checks."`
	Show       bool `help:"Print every setting in force and where it comes from."`
}

// Help is the command's manual.
func (checkCmd) Help() string {
	return `Exit code 0 means that all is well, 2 that the configuration is wrong, 4 that NATS is
not reached, 5 that a CRM refuses our credentials, 1 anything else.`
}

func (c *checkCmd) Run(ctx context.Context, g *Globals) error {
	cfg, err := app.LoadConfig(g.configPath(), g.std.env, g.overrides())
	if err != nil {
		return err
	}
	if c.Health {
		return app.CheckHealth(ctx, cfg)
	}
	if c.Show {
		if g.JSON {
			return g.printJSON(cfg.Show())
		}
		for _, s := range cfg.Show() {
			fmt.Fprintf(g.std.out, "%s = %s  (%s)\n", s.Path, s.Value, s.Source)
		}
		return nil
	}
	found := app.CheckConfig(cfg)
	code := exitUsage
	if allOK(found) && !c.ConfigOnly {
		code = exitFailure
		err := g.with(ctx, func(a *app.App) error {
			found = append(found, a.CheckQueue(ctx)...)
			return nil
		})
		if err != nil {
			return err
		}
	}
	if g.JSON {
		if err := g.printJSON(found); err != nil {
			return err
		}
	} else {
		for _, f := range found {
			mark := "ok  "
			switch {
			case !f.OK:
				mark = "FAIL"
			case f.Warn:
				mark = "WARN"
			}
			fmt.Fprintf(g.std.out, "%s  %s: %s\n", mark, f.What, f.Note)
		}
	}
	if allOK(found) {
		return nil
	}
	for _, f := range found {
		if !f.OK && strings.HasPrefix(f.Note, "held: credentials") {
			code = exitRefused
		}
	}
	return &exitError{code: code}
}

func allOK(found []app.Finding) bool {
	for _, f := range found {
		if !f.OK {
			return false
		}
	}
	return true
}
