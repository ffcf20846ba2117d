package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"crmsync/app"
)

type jobsCmd struct {
	Ls     jobsLsCmd     `cmd:"" help:"List jobs, the newest first."`
	Show   jobsShowCmd   `cmd:"" help:"How one job stands, and why rows are dead."`
	Pause  jobsPauseCmd  `cmd:"" help:"Send none of a job's waiting rows until it is resumed."`
	Resume jobsResumeCmd `cmd:"" help:"Go on with a paused job."`
	Cancel jobsCancelCmd `cmd:"" help:"End a job's rows that have not been sent, for good."`
	Prune  jobsPruneCmd  `cmd:"" help:"Take the jobs off the list of which nothing is stored any more."`
	Export jobsExportCmd `cmd:"" help:"Write a job's rows that ended in some way as a table, to be mended and imported again."`
}

// jobArg names a job.
type jobArg struct {
	Job    string `arg:"" help:"Its name, as jobs ls shows it."`
	Target string `placeholder:"NAME" help:"Its target, where several have a job of that name, or nobody announced it."`
}

type jobsLsCmd struct {
	Target string `placeholder:"NAME" help:"Only of this target."`
	Limit  int    `default:"20" help:"At most so many; 0 for all."`
}

func (c *jobsLsCmd) Run(ctx context.Context, g *Globals) error {
	return g.with(ctx, func(a *app.App) error {
		jobs, err := a.Jobs(ctx, c.Target, c.Limit)
		if err != nil {
			return err
		}
		if g.JSON {
			return g.printJSON(jobs)
		}
		if len(jobs) == 0 {
			g.say("no jobs: crmsync import makes one")
			return nil
		}
		now := time.Now()
		tw := tabwriter.NewWriter(g.std.out, 0, 0, 2, ' ', 0)
		fmt.Fprintln(tw, "JOB\tTARGET\tSTATE\tROWS\tAPPLIED\tOTHER\tDEAD\tREJECTED\tWAITING\tRATE\tENDS\tAGE\tBY")
		for _, j := range jobs {
			n := j.Counts
			applied, dead := outcome(n, "applied"), outcome(n, "dead")
			fmt.Fprintf(tw, "%s\t%s\t%s\t%d\t%d\t%d\t%d\t%d\t%d\t%s\t%s\t%s\t%s\n", printable(j.Job.ID), j.Job.Target, j.State,
				n.Read, applied, n.Ended()-applied-dead+n.Gone, dead, n.Rejected, n.Waiting,
				jobRate(j), jobEnds(j, now), age(now.Sub(j.Job.Created)), printable(j.Job.By))
		}
		tw.Flush()
		if c.Limit > 0 && len(jobs) == c.Limit {
			g.say("there may be more: --limit 0 for all")
		}
		return nil
	})
}

func outcome(c app.JobCount, name string) (n int64) {
	for o, k := range c.Outcomes {
		if o.String() == name {
			n += k
		}
	}
	return n
}

func jobRate(j app.JobStatus) string {
	if j.Rate == 0 {
		return "-"
	}
	return fmt.Sprintf("%.3g/s", j.Rate)
}

func jobEnds(j app.JobStatus, now time.Time) string {
	if j.ETA.IsZero() {
		return "-"
	}
	return in(j.ETA.Sub(now))
}

// age is how long ago something was, as people say it.
func age(d time.Duration) string {
	if d < 0 {
		d = 0
	}
	return about(d)
}

type jobsShowCmd struct {
	jobArg
	Watch bool          `short:"w" help:"Show it again and again until every row has its outcome."`
	Every time.Duration `default:"1s" help:"How often, with --watch."`
}

func (c *jobsShowCmd) Run(ctx context.Context, g *Globals) error {
	return g.with(ctx, func(a *app.App) error {
		if !c.Watch {
			st, err := a.JobStatus(ctx, c.Target, c.Job)
			if err != nil {
				return err
			}
			return showJob(g, st)
		}
		return a.WatchJob(ctx, c.Target, c.Job, max(c.Every, 100*time.Millisecond), func(st app.JobStatus) (bool, error) {
			if !g.JSON && !g.plain(g.std.out) {
				fmt.Fprint(g.std.out, "\x1b[H\x1b[2J")
			}
			return !st.Ended(), showJob(g, st)
		})
	})
}

func showJob(g *Globals, st app.JobStatus) error {
	if g.JSON {
		return g.printJSON(st)
	}
	printJob(g.std.out, st, time.Now())
	return nil
}

func printJob(w io.Writer, st app.JobStatus, now time.Time) {
	j, n := st.Job, st.Counts
	fmt.Fprintf(w, "job %s of %s: %s", printable(j.ID), j.Target, st.State)
	if o := st.Order; o.By != "" && !o.At.IsZero() {
		fmt.Fprintf(w, ", %s by %s at %s", o.State, printable(o.By), o.At.Local().Format(time.DateTime))
	}
	fmt.Fprintln(w)
	if j.Found {
		fmt.Fprintln(w, "  nobody announced it: it is counted from what is stored of it")
	}
	if j.File != "" {
		fmt.Fprintf(w, "  file      %s\n", printable(j.File))
	}
	if j.Parent != "" {
		fmt.Fprintf(w, "  rows of   job %s once more\n", printable(j.Parent))
	}
	fmt.Fprintf(w, "  begun     %s", j.Created.Local().Format(time.DateTime))
	if j.By != "" {
		fmt.Fprintf(w, " by %s", printable(j.By))
	}
	if !n.Last.IsZero() {
		fmt.Fprintf(w, "; last outcome %s", n.Last.Local().Format(time.DateTime))
	}
	fmt.Fprintln(w)
	fmt.Fprintf(w, "  rows      %d: %s\n", n.Read, strings.Join(ledger(n), ", "))
	if n.Inferred {
		fmt.Fprintln(w, "            (what waits is what has not ended; so long a queue is not looked through)")
	}
	if !n.Kept.IsZero() {
		fmt.Fprintf(w, "            (counted %s; records live 30 days)\n", n.Kept.Local().Format(time.DateTime))
	}
	printPace(w, st, now)
	for _, c := range st.Causes {
		what := c.Cause.Reason.String()
		if c.Cause.Status != 0 {
			what += fmt.Sprintf(", HTTP %d", c.Cause.Status)
		}
		if c.Cause.Field != "" {
			what += ", field " + c.Cause.Field
		}
		if c.Cause.Message != "" {
			what += ": " + c.Cause.Message
		}
		if c.Other {
			what = "other causes"
		}
		fmt.Fprintf(w, "  dead      %d × %s\n", c.Count, printable(what))
	}
	if len(st.Causes) > 0 {
		fmt.Fprintf(w, "            crmsync jobs export %s --only dead -o wrong.csv\n", printable(j.ID))
	}
	if st.State == app.JobInterrupted {
		fmt.Fprintln(w, "  its import stopped before the end of the file: import the same file again, it adds what is missing")
	}
}

// ledger is a count in words, in a fixed order. Its numbers add up to the rows.
func ledger(n app.JobCount) []string {
	var out []string
	for _, o := range []string{"applied", "unchanged", "superseded", "dead", "discarded", "cancelled"} {
		if k := outcome(n, o); k > 0 {
			out = append(out, fmt.Sprintf("%d %s", k, o))
		}
	}
	for _, x := range []struct {
		n    int64
		what string
	}{{n.Rejected, "rejected"}, {n.Waiting, "waiting"}, {n.Gone, "of which nothing is stored any more"}} {
		if x.n > 0 {
			out = append(out, fmt.Sprintf("%d %s", x.n, x.what))
		}
	}
	if len(out) == 0 {
		return []string{"none yet"}
	}
	return out
}

func printPace(w io.Writer, st app.JobStatus, now time.Time) {
	if st.Counts.Waiting == 0 {
		return
	}
	var parts []string
	if st.Rate > 0 {
		parts = append(parts, fmt.Sprintf("%.3g rows/s in the last minute", st.Rate))
	}
	if st.Hold != "" {
		hold := "its lane holds: " + st.Hold
		if !st.Until.IsZero() {
			hold += " until " + st.Until.Local().Format(time.TimeOnly)
		}
		parts = append(parts, hold)
	}
	if !st.ETA.IsZero() {
		parts = append(parts, fmt.Sprintf("at this quota it ends %s (%s)", st.ETA.Local().Format(time.DateTime), in(st.ETA.Sub(now))))
	}
	if len(parts) > 0 {
		fmt.Fprintf(w, "  pace      %s\n", strings.Join(parts, "; "))
	}
}

type (
	jobsPauseCmd  struct{ jobArg }
	jobsResumeCmd struct{ jobArg }
	jobsCancelCmd struct{ jobArg }
)

func (c *jobsPauseCmd) Run(ctx context.Context, g *Globals) error {
	return c.steer(ctx, g, (*app.App).PauseJob)
}

func (c *jobsResumeCmd) Run(ctx context.Context, g *Globals) error {
	return c.steer(ctx, g, (*app.App).ResumeJob)
}

func (c *jobsCancelCmd) Run(ctx context.Context, g *Globals) error {
	return c.steer(ctx, g, (*app.App).CancelJob)
}

func (c *jobArg) steer(ctx context.Context, g *Globals, f func(*app.App, context.Context, string, string, string) (app.JobStatus, error)) error {
	return g.with(ctx, func(a *app.App) error {
		st, err := f(a, ctx, c.Target, c.Job, g.whoami())
		if err != nil {
			return err
		}
		if g.JSON {
			return g.printJSON(st)
		}
		fmt.Fprintf(g.std.out, "job %s: %s; %s\n", printable(st.Job.ID), st.State, strings.Join(ledger(st.Counts), ", "))
		return nil
	})
}

type jobsPruneCmd struct {
	Target string `placeholder:"NAME" help:"Only of this target."`
}

// Help is the command's manual.
func (jobsPruneCmd) Help() string {
	return `Takes the jobs off the list of which nothing is stored any more: the records of their
rows have expired (30 days), and no row waits or is a dead letter. Nothing else
takes a job off the list, however old it is. The file of such a job is afterwards a
new one: imported again, it is sent again.`
}

func (c *jobsPruneCmd) Run(ctx context.Context, g *Globals) error {
	return g.with(ctx, func(a *app.App) error {
		jobs, err := a.PruneJobs(ctx, c.Target, g.whoami())
		if g.JSON {
			return errors.Join(err, g.printJSON(jobs))
		}
		for _, j := range jobs {
			fmt.Fprintf(g.std.out, "%s  %s  %s\n", printable(j.ID), j.Target, j.Created.Local().Format(time.DateOnly))
		}
		g.say("%s taken off the list", plural(len(jobs), "job"))
		return err
	})
}

// shellWords are words as a shell reads them.
func shellWords(words []string) string {
	out := make([]string, len(words))
	for i, w := range words {
		if out[i] = w; w == "" || strings.Trim(w, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_./=@%+:,-") != "" {
			out[i] = "'" + strings.ReplaceAll(w, "'", `'\''`) + "'"
		}
	}
	return printable(strings.Join(out, " "))
}

type jobsExportCmd struct {
	jobArg
	Only []string `default:"dead" sep:"," placeholder:"HOW" help:"Rows that ended so: dead, rejected, cancelled, discarded, applied, unchanged, superseded; or waiting. Separated by commas."`
	Out  string   `short:"o" default:"-" placeholder:"FILE" help:"File to write, as CSV or, where its name ends in .xlsx, as an Excel workbook; - is standard output."`
	File string   `placeholder:"FILE" help:"The file that was imported, where it is no longer where it was."`
}

// Help is the command's manual.
func (jobsExportCmd) Help() string {
	return `The columns, their order and the delimiter are those of the file that was imported;
the cells too where that file is still there unchanged. Without it, dead rows are
put together from their dead letters, and hold the columns that were imported.
Behind them stand _job, _row, _reason and _message, which an import does not
apply. A cell that a spreadsheet would take for a formula gets an apostrophe,
which an import of such a file takes off again. CSV is UTF-8; in a workbook every
cell is text, so that no phone number is made a sum.`
}

func (c *jobsExportCmd) Run(ctx context.Context, g *Globals) error {
	for _, o := range c.Only {
		if !slices.Contains(app.Exportable, o) {
			return usageError(fmt.Sprintf("--only: %q is no way to end; use %s", o, strings.Join(app.Exportable, ", ")))
		}
	}
	return g.with(ctx, func(a *app.App) error {
		rep, err := a.ExportJob(ctx, app.Export{Target: c.Target, Job: c.Job, Only: c.Only, Out: c.Out, Stdout: g.std.out, File: c.File})
		if err != nil {
			return err
		}
		if g.JSON && c.Out != "-" {
			return g.printJSON(rep)
		}
		from := "their dead letters"
		if rep.FromFile {
			from = "the file that was imported"
		}
		g.say("%d rows, from %s", rep.Rows, from)
		if rep.Rows > 0 && c.Out != "-" {
			g.say("mend them, then: crmsync import %s", shellWords(append([]string{rep.Target, c.Out}, rep.Again...)))
		}
		return nil
	})
}
