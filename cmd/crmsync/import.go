package main

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"crmsync/app"
)

type importCmd struct {
	Target   string            `arg:"" help:"Target to write to; the configuration must have it."`
	File     string            `arg:"" help:"CSV or NDJSON file; - reads standard input."`
	IDColumn string            `name:"id-column" placeholder:"COLUMN" help:"Column with the contact id (default: id, contact id, ...)."`
	Map      map[string]string `placeholder:"COLUMN=FIELD" help:"Which field a column is; an empty FIELD leaves it out. Repeatable."`
	Empty    string            `enum:"ignore,clear" default:"ignore" help:"What an empty cell does to its field: ignore or clear."`
	Format   string            `enum:"auto,csv,ndjson" default:"auto" help:"auto, csv or ndjson."`
	Encoding string            `default:"auto" placeholder:"NAME" help:"auto, utf-8, utf-16le, utf-16be or windows-1252."`
	Comma    string            `name:"delimiter" default:"auto" placeholder:"CHAR" help:"auto, comma, semicolon, tab or pipe."`
	Job      string            `placeholder:"NAME" help:"Name of the job (default: made from the file, so that the same file again is the same job)."`
	Class    string            `enum:"live,bulk" default:"bulk" help:"live or bulk."`
	Wait     bool              `short:"w" help:"Wait until every row has its outcome."`
	ShowAll  bool              `name:"show-all" help:"Print every rejected row, not only the first 20."`
}

// Help is the command's manual.
func (importCmd) Help() string {
	return `Each row becomes an update. A row that cannot be one is reported with its line and
left out; the others go on. Exit code 3 means that rows were rejected, or with
--wait that some became dead letters (crmsync dead ls --job JOB).`
}

// rejectsShown is how many rejected rows are printed without --show-all.
const rejectsShown = 20

func (c *importCmd) Run(ctx context.Context, g *Globals) error {
	return g.with(ctx, func(a *app.App) error {
		class, err := app.ParseClass(c.Class)
		if err != nil {
			return err
		}
		p := g.progress()
		rejected := []app.RejectedRow{}
		rep, err := a.Import(ctx, app.Import{
			Target: c.Target, Path: c.File, Stdin: g.std.in, Class: class, Job: c.Job, Format: c.Format,
			ID: c.IDColumn, Map: c.Map, Empty: c.Empty, Charset: c.Encoding, Comma: c.Comma,
			Progress: func(r app.ImportReport) {
				p.line("%d rows read, %d queued, %d rejected", r.Rows, r.Queued+r.Duplicates, r.Rejected)
			},
			Rejected: func(r app.RejectedRow) {
				if c.ShowAll || len(rejected) < rejectsShown {
					rejected = append(rejected, r)
				}
			},
		})
		p.done()
		c.showRejected(g, rep, rejected)
		if err != nil {
			if rep.Queued+rep.Duplicates > 0 {
				return fmt.Errorf("%w\n%d rows were queued before that (job %s); importing the same file again within ten minutes adds only what is missing", err, rep.Queued+rep.Duplicates, rep.Job)
			}
			return err
		}
		if c.Wait {
			rep, err = a.Wait(ctx, rep, func(r app.ImportReport) { p.line("%s", waited(r)) })
			p.done()
			if err != nil {
				g.say("the job goes on without us: crmsync status, crmsync dead ls --job %s", rep.Job)
				return err
			}
		}
		if err := c.answer(g, rep, rejected); err != nil {
			return err
		}
		if rep.Rejected > 0 || rep.Outcomes["dead"] > 0 {
			return &exitError{code: exitRejects}
		}
		return nil
	})
}

func (c *importCmd) showRejected(g *Globals, rep app.ImportReport, rows []app.RejectedRow) {
	if g.JSON {
		return
	}
	for _, r := range rows {
		fmt.Fprintf(g.std.err, "line %d: %s\n", r.Line, r.Reason)
	}
	if more := rep.Rejected - int64(len(rows)); more > 0 {
		fmt.Fprintf(g.std.err, "and %d more rows (--show-all prints them)\n", more)
	}
}

func (c *importCmd) answer(g *Globals, rep app.ImportReport, rejected []app.RejectedRow) error {
	if g.JSON {
		return g.printJSON(struct {
			app.ImportReport
			RejectedRows []app.RejectedRow `json:"rejected_rows,omitempty"`
		}{rep, rejected})
	}
	w := g.std.out
	if len(rep.Unmapped) > 0 {
		g.say("columns that go nowhere: %s (--map COLUMN=FIELD)", strings.Join(rep.Unmapped, ", "))
	}
	fmt.Fprintf(w, "job %s: %d rows, %d queued", rep.Job, rep.Rows, rep.Queued)
	if rep.Duplicates > 0 {
		fmt.Fprintf(w, ", %d queued before", rep.Duplicates)
	}
	fmt.Fprintf(w, ", %d rejected (%s)\n", rep.Rejected, rep.Took.Round(time.Millisecond))
	if c.Wait {
		fmt.Fprintf(w, "ended: %s\n", waited(rep))
		if rep.Outcomes["dead"] > 0 {
			fmt.Fprintf(w, "dead letters: crmsync dead ls --job %s\n", rep.Job)
		}
	}
	return nil
}

// waited says how rows ended, in a fixed order.
func waited(r app.ImportReport) string {
	var parts []string
	for _, o := range []string{"applied", "unchanged", "superseded", "dead", "discarded", "cancelled"} {
		if n := r.Outcomes[o]; n > 0 {
			part := fmt.Sprintf("%d %s", n, o)
			if o == "dead" {
				var why []string
				for _, reason := range slices.Sorted(maps.Keys(r.Dead)) {
					why = append(why, fmt.Sprintf("%d %s", r.Dead[reason], reason))
				}
				part += " (" + strings.Join(why, ", ") + ")"
			}
			parts = append(parts, part)
		}
	}
	if len(parts) == 0 {
		return "nothing yet"
	}
	return strings.Join(parts, ", ")
}
