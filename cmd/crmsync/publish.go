package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"strings"

	"crmsync/app"
)

type publishCmd struct {
	Target  string   `arg:"" help:"Target to write to."`
	Contact string   `arg:"" help:"Contact id in that CRM."`
	Body    string   `arg:"" optional:"" help:"The update as JSON, as {\"fields\": {...}}; - reads standard input."`
	Field   []string `short:"f" placeholder:"NAME=VALUE" sep:"none" help:"Set one field to a text. Repeatable, in place of a body."`
	Clear   []string `placeholder:"NAME" sep:"none" help:"Clear one field. Repeatable."`
	Class   string   `enum:"live,bulk" default:"live" help:"live or bulk."`
	MsgID   string   `name:"msg-id" placeholder:"ID" help:"Message id: a second update with it is a duplicate and is not stored."`
}

func (c *publishCmd) Run(ctx context.Context, g *Globals) error {
	body, err := c.body(g)
	if err != nil {
		return &exitError{exitUsage, err}
	}
	return g.with(ctx, func(a *app.App) error {
		class, err := app.ParseClass(c.Class)
		if err != nil {
			return err
		}
		p, err := a.Publish(ctx, app.Message{Target: c.Target, Contact: c.Contact, Class: class, Body: body, MsgID: c.MsgID})
		if err != nil {
			if app.IsBadUpdate(err) {
				return &exitError{exitRejects, fmt.Errorf("not queued: %w", err)}
			}
			return err
		}
		if g.JSON {
			return g.printJSON(p)
		}
		if p.Duplicate {
			fmt.Fprintf(g.std.out, "%s: an update with this message id is queued already, as number %d\n", p.Subject, p.Seq)
			return nil
		}
		fmt.Fprintf(g.std.out, "%s: queued as number %d\n", p.Subject, p.Seq)
		return nil
	})
}

func (c *publishCmd) body(g *Globals) ([]byte, error) {
	named := len(c.Field) + len(c.Clear)
	switch {
	case c.Body != "" && named > 0:
		return nil, fmt.Errorf("give a body or --field and --clear, not both")
	case c.Body == "-":
		return io.ReadAll(g.std.in)
	case c.Body != "":
		return []byte(c.Body), nil
	case named == 0:
		return nil, fmt.Errorf("nothing to change: give a body, --field or --clear")
	}
	fields := map[string]any{}
	for _, f := range c.Field {
		name, value, ok := strings.Cut(f, "=")
		if !ok || name == "" {
			return nil, fmt.Errorf("--field %q: write it as NAME=VALUE", f)
		}
		if _, twice := fields[name]; twice {
			return nil, fmt.Errorf("--field %s is given twice", name)
		}
		fields[name] = value
	}
	for _, name := range c.Clear {
		if _, twice := fields[name]; twice {
			return nil, fmt.Errorf("%s is both set and cleared", name)
		}
		fields[name] = nil
	}
	return json.Marshal(map[string]any{"fields": fields})
}
