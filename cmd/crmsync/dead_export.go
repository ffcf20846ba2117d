package main

import (
	"context"
	"errors"
	"io"
	"os"

	"crmsync/app"
)

type deadExportCmd struct {
	ID []uint64 `arg:"" optional:"" help:"Letters to write; without any those that the filter chooses."`
	letterFilter
	CSV    bool   `name:"csv" xor:"format" help:"A table."`
	NDJSON bool   `name:"ndjson" xor:"format" help:"A JSON object a line."`
	Output string `short:"o" placeholder:"FILE" help:"Where to; a new file (default: standard output)."`
}

// Help is the command's manual.
func (deadExportCmd) Help() string {
	return `Letters of one imported CSV go out as a table in that file's own columns, all
others as NDJSON unless --csv is given. Correct the table and hand it to
crmsync dead edit --from FILE, then redrive; do not import it again. Cells that a
spreadsheet would run as formulas begin with an apostrophe, which dead edit takes
off again. Passwords are masked.`
}

func (c *deadExportCmd) Run(ctx context.Context, g *Globals) error {
	f := c.filter()
	if len(c.ID) > 0 && !f.IsZero() {
		return &exitError{exitUsage, errors.New("name letters by their ids, or choose them with a filter, not both")}
	}
	format := app.ExportAuto
	switch {
	case c.CSV:
		format = app.ExportCSV
	case c.NDJSON || g.JSON:
		format = app.ExportNDJSON
	}
	return g.with(ctx, func(a *app.App) (err error) {
		var w io.Writer = g.std.out
		if c.Output != "" {
			// It holds what contacts hold, so nobody else may read it.
			file, e := os.OpenFile(c.Output, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
			if e != nil {
				return e
			}
			defer func() { err = errors.Join(err, file.Close()) }()
			w = file
		}
		n, used, err := a.Export(ctx, g.who(), f, c.ID, format, w)
		if err != nil {
			return err
		}
		if n == 0 {
			g.say("no dead letters match")
			return nil
		}
		g.say("%d letter(s), %s", n, used)
		return nil
	})
}
