package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"crmsync/app"
)

type storeCmd struct {
	Show   storeShowCmd   `cmd:"" default:"withargs" help:"How the store is."`
	Accept storeAcceptCmd `cmd:"" help:"Give up what is missing from the store."`
}

type storeShowCmd struct{}

func (c *storeShowCmd) Run(ctx context.Context, g *Globals) error {
	return g.with(ctx, func(a *app.App) error {
		h, ok, err := a.Store(ctx)
		if err != nil {
			return err
		}
		if !ok {
			return errors.New("nobody looks after the store: start `crmsync run`")
		}
		if g.JSON {
			return g.printJSON(h)
		}
		printStore(g.std.out, h, a.Durability(ctx))
		return nil
	})
}

func printStore(w io.Writer, h app.StoreHealth, d app.Durability) {
	fmt.Fprintf(w, "store: %s: %s\n", h.State, h.Text)
	for _, l := range h.Losses {
		fmt.Fprintf(w, "  missing: %s, found %s\n", l, clock(l.Found))
	}
	if text := h.Space(); text != "" {
		fmt.Fprintln(w, text)
	}
	for _, x := range []struct {
		what string
		at   time.Time
	}{
		{"a trial message was stored", h.Stored},
		{"all that was confirmed was there", h.Proved},
		{"all message files were read and whole", h.Checked},
	} {
		if !x.at.IsZero() {
			fmt.Fprintf(w, "%s at %s\n", x.what, clock(x.at))
		}
	}
	if h.Restarts > 0 {
		fmt.Fprintf(w, "the embedded server was started again %d time(s)\n", h.Restarts)
	}
	fmt.Fprintf(w, "durability: %s: %s\n", d.State, d.Text)
}

type storeAcceptCmd struct {
	Yes bool `short:"y" help:"Do not ask."`
}

// Help is the command's manual.
func (storeAcceptCmd) Help() string {
	return `Where something that was confirmed is missing from the store, the worker says so until
you restore a backup or accept it with this command; where a whole stream is missing, the
worker does not start. What was missing goes into the audit trail. Files that were damaged
are kept beside the store, in nats.damaged. The numbers of what is lost are not given out
again.`
}

func (c *storeAcceptCmd) Run(ctx context.Context, g *Globals) error {
	if g.LogLevel == "" {
		g.LogLevel = "error" // what there is to say is printed
	}
	a, err := g.open(ctx, app.Options{})
	if errors.Is(err, app.ErrUnreachable) { // nobody serves the store
		a, err = g.open(ctx, app.Options{Host: true, Port: app.NoPort})
	}
	if errors.Is(err, app.ErrDataGone) {
		if err := c.confirm(g, err.Error()); err != nil {
			return err
		}
		a, err = g.open(ctx, app.Options{Host: true, Port: app.NoPort, AcceptLoss: true})
	} else if err == nil {
		if err = c.ask(ctx, g, a); err != nil {
			return errors.Join(err, a.Close())
		}
	}
	if err != nil {
		return err
	}
	lost, err := a.AcceptLosses(ctx, g.who())
	if err == nil {
		err = c.tell(g, lost)
	}
	return errors.Join(err, a.Close())
}

// ask shows what is missing.
func (c *storeAcceptCmd) ask(ctx context.Context, g *Globals, a *app.App) error {
	h, _, err := a.Store(ctx)
	if err != nil || len(h.Losses) == 0 {
		return err
	}
	return c.confirm(g, h.Text)
}

func (c *storeAcceptCmd) confirm(g *Globals, what string) error {
	fmt.Fprintln(g.std.err, what)
	if c.Yes {
		return nil
	}
	return g.confirm("give up what is missing?")
}

func (c *storeAcceptCmd) tell(g *Globals, lost []app.StoreLoss) error {
	if g.JSON {
		return g.printJSON(lost)
	}
	if len(lost) == 0 {
		fmt.Fprintln(g.std.out, "nothing is missing")
	}
	for _, l := range lost {
		fmt.Fprintf(g.std.out, "given up: %s\n", l)
	}
	return nil
}
