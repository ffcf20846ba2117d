package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"time"

	"crmsync/app"
)

// foresee says what the import would do.
func (c *importCmd) foresee(ctx context.Context, g *Globals, im app.Import) error {
	cfg, err := app.LoadConfig(g.configPath(), g.std.env, g.overrides())
	if err != nil {
		return err
	}
	p := g.progress()
	im.Progress = func(r app.ImportReport) { p.line("%d rows read, %d would be rejected", r.Rows, r.Rejected) }
	if c.Diff > 0 {
		g.say("reading up to %s of %s from the CRM, at the target's rate", plural(c.Diff, "contact"), c.Target)
	}
	if c.ShowAll && !g.JSON {
		im.Rejected = func(r app.RejectedRow) {
			p.done()
			fmt.Fprintf(g.std.err, "line %d: %s\n", r.Line, printable(r.Reason))
		}
	}
	f, err := app.Foresee(ctx, cfg, version, im, c.Diff)
	p.done()
	if err != nil && (f.Rows == 0 || !errors.Is(err, app.ErrRefusedUs)) {
		return err
	}
	if e := c.keep(f.AsMapping()); e != nil {
		return e
	}
	switch {
	case g.JSON:
		if e := g.printJSON(f); e != nil {
			return e
		}
	default:
		showForecast(g.std.out, f)
	}
	switch {
	case err != nil:
		return &exitError{code: exitRefused, err: err}
	case f.Rejected > 0:
		return &exitError{code: exitRejects}
	}
	return nil
}

func showForecast(w io.Writer, f app.Forecast) {
	fmt.Fprintf(w, "%s: %s", f.Target, f.Format)
	if f.Delimiter != "" {
		fmt.Fprintf(w, " with %q", f.Delimiter)
	}
	if f.Sheet != "" {
		fmt.Fprintf(w, ", sheet %s", printable(f.Sheet))
	}
	if len(f.Others) > 0 {
		fmt.Fprintf(w, " (not read: %s; --sheet NAME)", printable(strings.Join(f.Others, ", ")))
	}
	if f.Encoding != "" {
		fmt.Fprintf(w, ", %s", f.Encoding)
	}
	if f.Guessed {
		fmt.Fprint(w, " (a guess; --encoding says otherwise)")
	}
	if f.Compressed {
		fmt.Fprint(w, ", compressed")
	}
	fmt.Fprintf(w, "\n  %s is the contact's id\n", printable(f.IDColumn))
	for _, m := range f.Mapping {
		fmt.Fprintf(w, "  %s -> %s\n", printable(m.Name), m.Field)
	}
	for _, field := range slices.Sorted(maps.Keys(f.Constants)) {
		fmt.Fprintf(w, "  every row sets %s\n", printable(field))
	}
	if len(f.Unmapped) > 0 {
		fmt.Fprintf(w, "  go nowhere: %s (--map COLUMN=FIELD)\n", printable(strings.Join(f.Unmapped, ", ")))
	}
	fmt.Fprintf(w, "%s: %d would be sent, %d rejected\n", plural(int(f.Rows), "row"), f.Sendable, f.Rejected)
	for _, t := range f.Problems {
		showTrouble(w, "rejected", t)
	}
	for _, t := range f.Doubts {
		showTrouble(w, "doubtful", t)
	}
	for _, n := range f.Fields {
		fmt.Fprintf(w, "  %s: set in %d", printable(n.Field), n.Set)
		if n.Clear > 0 {
			fmt.Fprintf(w, ", cleared in %d", n.Clear)
		}
		fmt.Fprintln(w)
	}
	showRepeats(w, f.Repeats)
	showDuration(w, f)
	for _, x := range f.Compared {
		showCompared(w, x)
	}
	fmt.Fprintf(w, "nothing was sent and nothing queued; the job would be %s\n", f.Job)
}

func showTrouble(w io.Writer, what string, t app.Trouble) {
	lines := make([]string, len(t.Lines))
	for i, n := range t.Lines {
		lines[i] = fmt.Sprint(n)
	}
	more := ""
	if t.Rows > int64(len(lines)) {
		more = ", ..."
	}
	fmt.Fprintf(w, "  %d %s: %s (line %s%s)\n", t.Rows, what, printable(t.Reason), strings.Join(lines, ", "), more)
}

func showRepeats(w io.Writer, r app.Repeats) {
	if r.Contacts == 0 && r.Beyond == 0 {
		return
	}
	fmt.Fprintf(w, "  %s in more than one row, %s beyond the first ones; the last one wins", plural(int(r.Contacts), "contact"), plural(int(r.Rows), "row"))
	for i, x := range r.First {
		sep := ", "
		if i == 0 {
			sep = ": "
		}
		fmt.Fprintf(w, "%s%s on lines %d and %d", sep, printable(x.Contact), x.Earlier, x.Line)
	}
	if r.Beyond > 0 {
		fmt.Fprintf(w, "; only the first %d contacts were looked for again", r.Beyond)
	}
	fmt.Fprintln(w)
}

func showDuration(w io.Writer, f app.Forecast) {
	if f.Sendable == 0 {
		return
	}
	fmt.Fprintf(w, "at most %s (%d for each row) at %s: ", plural(int(f.Requests), "request"), f.Each, f.Quota)
	if f.Ends.IsZero() {
		fmt.Fprintln(w, "nothing is ever sent; the target's quota.rate is 0")
		return
	}
	fmt.Fprintf(w, "%s if nothing else waits; begun now it ends %s\n", about(f.Takes), f.Ends.Local().Format(time.DateTime))
}

func showCompared(w io.Writer, x app.Compared) {
	fmt.Fprintf(w, "contact %s (row %d):", printable(x.Contact), x.Row)
	if x.Missing {
		fmt.Fprintln(w, " is not in the CRM")
		return
	}
	var lines []string
	for _, d := range x.Fields {
		switch d.Change {
		case "differs":
			lines = append(lines, fmt.Sprintf("  %s: %s -> %s", printable(d.Field), shownValue(d.Held), shownValue(d.Sent)))
		case "unseen":
			lines = append(lines, fmt.Sprintf("  %s: -> %s (the CRM does not show what it holds)", printable(d.Field), shownValue(d.Sent)))
		}
	}
	if len(lines) == 0 {
		fmt.Fprintln(w, " nothing would change")
		return
	}
	fmt.Fprintf(w, "\n%s\n", strings.Join(lines, "\n"))
}

// shownValue is a JSON value as it may stand on a terminal.
func shownValue(v json.RawMessage) string {
	if v == nil {
		return "nothing"
	}
	return printable(string(v))
}
