package main

import (
	"context"
	"fmt"

	"crmsync/app"
)

type deadDiscardCmd struct {
	ID []uint64 `arg:"" optional:"" help:"Letters to discard."`
	letterFilter
	All bool   `help:"All letters there are."`
	Why string `required:"" placeholder:"TEXT" help:"Why; it stays on record."`
	Yes bool   `short:"y" help:"Do not ask before many are discarded."`
}

// Help is the command's manual.
func (deadDiscardCmd) Help() string {
	return `What a discarded letter held is gone. That it was there, who discarded it and why
stays among the outcomes for 30 days and in crmsync audit.`
}

// askAbove is how many letters may be acted upon without asking.
const askAbove = 100

func (c *deadDiscardCmd) Run(ctx context.Context, g *Globals) error {
	f := c.filter()
	if err := chosen(c.ID, f, c.All); err != nil {
		return err
	}
	return g.with(ctx, func(a *app.App) error {
		if len(c.ID) == 0 {
			n, err := a.CountDead(ctx, f)
			if err != nil {
				return err
			}
			if n == 0 {
				g.say("no dead letters match")
			} else if n > askAbove && !c.Yes {
				if err := g.confirm("discard %d letters?", n); err != nil {
					return err
				}
			}
		}
		p := g.progress()
		sum, err := a.Discard(ctx, g.who(), f, c.ID, c.Why, func(d app.Discarded) { p.line("%d discarded", d.Discarded) })
		p.done()
		if err != nil {
			if sum.Discarded > 0 {
				err = fmt.Errorf("%w\n%d letters were discarded before that; the same command again goes on", err, sum.Discarded)
			}
			return err
		}
		if g.JSON {
			return g.printJSON(sum)
		}
		if sum.Chosen > 0 {
			fmt.Fprintf(g.std.out, "%d letter(s) discarded\n", sum.Discarded)
		}
		if sum.InHand > 0 {
			g.say("%d are being sent or discarded by somebody else", sum.InHand)
		}
		if sum.Gone > 0 {
			g.say("%d were gone already", sum.Gone)
		}
		if len(c.ID) > 0 && sum.Discarded < int64(len(c.ID)) {
			return &exitError{code: exitFailure}
		}
		return nil
	})
}
