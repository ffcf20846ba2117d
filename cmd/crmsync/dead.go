package main

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"
	"unicode"

	"crmsync/app"
)

type deadCmd struct {
	Ls   deadLsCmd   `cmd:"" help:"List dead letters, oldest first."`
	Show deadShowCmd `cmd:"" help:"Show one dead letter with its original message."`
}

type deadLsCmd struct {
	Target  string    `placeholder:"NAME" help:"Only of this target."`
	Reason  string    `placeholder:"CODE" help:"Only for this reason."`
	Contact string    `placeholder:"ID" help:"Only of this contact (with --target)."`
	Job     string    `placeholder:"NAME" help:"Only of this job."`
	Since   time.Time `placeholder:"TIME" help:"Only from then on, as 2026-11-21T19:00:00Z."`
	Until   time.Time `placeholder:"TIME" help:"Only before then."`
	After   uint64    `placeholder:"ID" help:"Continue behind this dead letter."`
	Limit   int       `default:"100" help:"At most so many; 0 for all."`
}

func (c *deadLsCmd) Run(ctx context.Context, g *Globals) error {
	return g.with(ctx, func(a *app.App) error {
		letters := []app.Letter{}
		err := a.Dead(ctx, app.DeadFilter{
			Target: c.Target, Reason: c.Reason, Contact: c.Contact, Job: c.Job,
			Since: c.Since, Until: c.Until, After: c.After, Limit: c.Limit,
		}, func(l app.Letter) error { letters = append(letters, l); return nil })
		if err != nil {
			return err
		}
		if g.JSON {
			return g.printJSON(letters)
		}
		if len(letters) == 0 {
			g.say("no dead letters match")
			return nil
		}
		tw := tabwriter.NewWriter(g.std.out, 0, 0, 2, ' ', 0)
		fmt.Fprintln(tw, "ID\tENDED\tTARGET\tCONTACT\tREASON\tHTTP\tATTEMPTS\tFIELDS\tDETAIL")
		for _, l := range letters {
			status := "-"
			if l.Status != 0 {
				status = strconv.Itoa(l.Status)
			}
			fmt.Fprintf(tw, "%d\t%s\t%s\t%s\t%s\t%s\t%d\t%s\t%s\n", l.ID, l.Ended.Local().Format(time.DateTime), l.Target,
				printable(l.Contact), l.Reason, status, l.Attempts, printable(strings.Join(l.Fields, ",")), printable(l.Detail))
		}
		tw.Flush()
		if c.Limit > 0 && len(letters) == c.Limit {
			g.say("there may be more: --after %d, or --limit 0 for all", letters[len(letters)-1].ID)
		}
		return nil
	})
}

type deadShowCmd struct {
	ID uint64 `arg:"" help:"Its id, as dead ls shows it."`
}

func (c *deadShowCmd) Run(ctx context.Context, g *Globals) error {
	return g.with(ctx, func(a *app.App) error {
		l, err := a.Letter(ctx, c.ID)
		if err != nil {
			return err
		}
		if g.JSON {
			return g.printJSON(l)
		}
		w := g.std.out
		fmt.Fprintf(w, "dead letter %d: contact %s of %s, %s\n", l.ID, printable(l.Contact), l.Target, l.Reason)
		if l.Detail != "" {
			fmt.Fprintf(w, "  why       %s\n", printable(l.Detail))
		}
		fmt.Fprintf(w, "  ended     %s, after %d attempt(s)\n", l.Ended.Local().Format(time.DateTime), l.Attempts)
		fmt.Fprintf(w, "  update    number %d of class %s\n", l.Seq, l.Class)
		if l.Job != "" {
			fmt.Fprintf(w, "  job       %s, row %d\n", printable(l.Job), l.Row)
		}
		for _, t := range l.Tries {
			fmt.Fprintf(w, "  attempt   %s  %s", t.At.Local().Format(time.TimeOnly), t.Verdict)
			if t.Status != 0 {
				fmt.Fprintf(w, ", HTTP %d", t.Status)
			}
			if t.Detail != "" {
				fmt.Fprintf(w, ": %s", printable(t.Detail))
			}
			fmt.Fprintln(w)
		}
		for _, k := range slices.Sorted(maps.Keys(l.Header)) {
			for _, v := range l.Header[k] {
				fmt.Fprintf(w, "  header    %s: %s\n", printable(k), printable(v))
			}
		}
		if l.Body == nil {
			fmt.Fprintf(w, "  bytes     %q\n", l.Bytes)
			return nil
		}
		body, err := json.MarshalIndent(l.Body, "  ", "  ")
		if err != nil {
			return err
		}
		fmt.Fprintf(w, "  body      %s\n", body)
		return nil
	})
}

// printable keeps what came from outside from steering the terminal or forging
// a line: control and invisible direction characters are escaped.
func printable(s string) string {
	bad := func(r rune) bool { return !unicode.IsPrint(r) }
	if strings.IndexFunc(s, bad) < 0 {
		return s
	}
	q := strconv.Quote(s)
	return q[1 : len(q)-1]
}
