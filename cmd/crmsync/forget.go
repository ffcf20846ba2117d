package main

import (
	"context"
	"errors"
	"fmt"

	"crmsync/app"
)

type forgetCmd struct {
	Target  string `arg:"" help:"Target of the contact."`
	Contact string `arg:"" help:"Contact id in that CRM."`
	Yes     bool   `short:"y" help:"Do not ask for the contact's id again."`
}

// Help is the command's manual.
func (forgetCmd) Help() string {
	return `Removes a person from the queue, the dead letters and the outcomes, and prints what
was removed where. It survives a restart, and no redrive undoes it. An update that is
published afterwards is new data and is applied. Not touched are the CRM, exported
files, backups of the store, logs, and the audit trail, which notes the contact's id.`
}

func (c *forgetCmd) Run(ctx context.Context, g *Globals) error {
	return g.with(ctx, func(a *app.App) error {
		if !c.Yes {
			said, err := g.answer("this cannot be undone; write the contact's id again:")
			if err != nil {
				return err
			}
			if said != c.Contact {
				return &exitError{exitFailure, errors.New("that is another id: nothing was done")}
			}
		}
		r, err := a.Forget(ctx, g.who(), c.Target, c.Contact)
		if err != nil {
			return err
		}
		if g.JSON {
			return g.printJSON(r)
		}
		w := g.std.out
		fmt.Fprintf(w, "contact %s of %s was forgotten at %s\n", printable(r.Contact), r.Target, clock(r.At))
		for _, x := range []struct {
			n    int64
			what string
		}{
			{r.Updates, "updates in the queue"},
			{r.Letters, "dead letters"},
			{r.Edits, "edited letters"},
			{r.Outcomes, "outcome records"},
			{r.Claims, "marks of redrives"},
			{r.Begun, "notes of side effects"},
			{r.Operations, "redrives that named the contact"},
		} {
			fmt.Fprintf(w, "  %6d  %s\n", x.n, x.what)
		}
		return nil
	})
}
