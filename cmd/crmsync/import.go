package main

import (
	"context"
	"errors"
	"fmt"

	"crmsync/app"
)

type importCmd struct {
	Target   string            `arg:"" help:"Target to write to; the configuration must have it."`
	File     string            `arg:"" help:"CSV, NDJSON (both also compressed, .gz) or Excel workbook (.xlsx); - reads standard input."`
	IDColumn string            `name:"id-column" placeholder:"COLUMN" help:"Column with the contact id (default: id, contact id, ...)."`
	Map      map[string]string `placeholder:"COLUMN=FIELD" mapsep:"none" help:"Which field a column is; an empty FIELD leaves it out. Repeatable."`
	Constant map[string]string `placeholder:"FIELD=TEXT" mapsep:"none" help:"Set a field in every row; an empty TEXT clears it. Repeatable."`
	Mapping  string            `placeholder:"FILE" help:"Read the id column, columns, constants and empty from a file."`
	Keep     string            `name:"save-mapping" placeholder:"FILE" help:"Write the mapping in use to a file, for --mapping."`
	Empty    string            `placeholder:"WHAT" help:"What an empty cell does to its field: ignore (the default) or clear."`
	Format   string            `enum:"auto,csv,ndjson,xlsx" default:"auto" help:"auto, csv, ndjson or xlsx."`
	Sheet    string            `placeholder:"NAME" help:"Sheet of a workbook (default: the first that is not hidden)."`
	Encoding string            `default:"auto" placeholder:"NAME" help:"auto, utf-8, utf-16le, utf-16be or windows-1252."`
	Comma    string            `name:"delimiter" default:"auto" placeholder:"CHAR" help:"auto, comma, semicolon, tab or pipe."`
	Job      string            `placeholder:"NAME" help:"Name of the job (default: made from the file, so that the same file again is the same job)."`
	Parent   string            `placeholder:"JOB" help:"The job whose rows these are again (default: what a _job column says)."`
	Class    string            `enum:"live,bulk" default:"bulk" help:"live or bulk."`
	DryRun   bool              `name:"dry-run" help:"Say what the import would do and how long it would take. Talks to nobody."`
	Diff     int               `placeholder:"N" help:"With --dry-run: read the first N contacts from the CRM and show what would change."`
	Canary   int               `placeholder:"N" help:"Send N rows first, show how they end, and ask before the others."`
	Yes      bool              `short:"y" help:"With --canary: do not ask; go on if the CRM took all N rows, else stop."`
	Wait     bool              `short:"w" help:"Wait until every row has its outcome."`
	ShowAll  bool              `name:"show-all" help:"Print every rejected row, not only the first 20."`
}

// Help is the command's manual.
func (importCmd) Help() string {
	return `Each row becomes an update. A row that cannot be one is reported with its line and
left out; the others go on. The same file again is the same job and adds only
what is missing, whatever interrupted it. Exit code 3 means that rows were
rejected, that the canary stopped the import, or with --wait that some rows became
dead letters (crmsync dead ls --job JOB).`
}

// rejectsShown is how many rejected rows are printed without --show-all.
const rejectsShown = 20

func (c *importCmd) Run(ctx context.Context, g *Globals) error {
	im, err := c.order(g)
	if err != nil {
		return err
	}
	switch {
	case c.Diff != 0 && !c.DryRun:
		return usageError("--diff needs --dry-run")
	case c.Diff < 0 || c.Diff > app.CompareMost:
		return usageError(fmt.Sprintf("--diff: read 1 to %d contacts", app.CompareMost))
	case c.Canary < 0:
		return usageError("--canary: send 1 row or more")
	case c.Yes && c.Canary == 0:
		return usageError("--yes is the answer to what --canary asks")
	case c.Canary > 0 && c.File == "-" && !c.Yes:
		return usageError("--canary asks on standard input, which is the file: add --yes")
	case c.DryRun:
		return hinted(c.foresee(ctx, g, im))
	}
	return g.with(ctx, func(a *app.App) error { return hinted(c.run(ctx, g, a, im)) })
}

// hinted adds the flags that help.
func hinted(err error) error {
	if errors.Is(err, app.ErrNoID) {
		return fmt.Errorf("%w (--id-column COLUMN, --delimiter CHAR, --sheet NAME)", err)
	}
	return err
}

func usageError(text string) error { return &exitError{code: exitUsage, err: errors.New(text)} }

// order is what the flags say.
func (c *importCmd) order(g *Globals) (app.Import, error) {
	im := app.Import{
		Target: c.Target, Path: c.File, Stdin: g.std.in, Job: c.Job, Parent: c.Parent, Format: c.Format,
		ID: c.IDColumn, Map: c.Map, Constants: c.Constant, Empty: c.Empty,
		Sheet: c.Sheet, Charset: c.Encoding, Comma: c.Comma, By: g.whoami(), Canary: c.Canary,
	}
	var err error
	if im.Class, err = app.ParseClass(c.Class); err == nil && c.Mapping != "" {
		err = im.UseMapping(c.Mapping)
	}
	if err == nil && im.Empty != "" && im.Empty != "ignore" && im.Empty != "clear" {
		err = usageError(fmt.Sprintf("--empty: %q is not a meaning of empty cells; use ignore or clear", im.Empty))
	}
	return im, err
}

func (c *importCmd) run(ctx context.Context, g *Globals, a *app.App, im app.Import) error {
	p := g.progress()
	rejected := []app.RejectedRow{}
	im.Progress = func(r app.ImportReport) {
		p.line("%d rows read, %d queued, %d rejected", r.Rows, r.Queued+r.Duplicates, r.Rejected)
	}
	im.Rejected = func(r app.RejectedRow) {
		if c.ShowAll || len(rejected) < rejectsShown {
			rejected = append(rejected, r)
		}
	}
	im.Waiting = func(r app.ImportProgress) { p.line("%s", underWay(r)) }
	var first app.Canary
	im.Confirm = func(y app.Canary) (bool, error) {
		p.done()
		first = y
		return c.confirm(ctx, g, y)
	}
	rep, err := a.Import(ctx, im)
	p.done()
	c.showRejected(g, rep, rejected)
	if err != nil {
		if rep.Queued+rep.Duplicates > 0 {
			return fmt.Errorf("%w\n%d rows were queued before that (job %s); importing the same file again adds only what is missing", err, rep.Queued+rep.Duplicates, rep.Job)
		}
		return err
	}
	if err := c.keep(rep.AsMapping()); err != nil {
		return err
	}
	if c.Wait && !rep.Stopped {
		rep, err = a.Wait(ctx, rep, func(r app.ImportProgress) { p.line("%s", underWay(r)) })
		p.done()
		if err != nil {
			g.say("the job goes on without us: crmsync jobs show %s", rep.Job)
			return err
		}
	}
	if err := c.answer(g, rep, rejected, first); err != nil {
		return err
	}
	if rep.Rejected > 0 || rep.Stopped || rep.Outcomes["dead"] > 0 {
		return &exitError{code: exitRejects}
	}
	return nil
}
