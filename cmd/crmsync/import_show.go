package main

import (
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"time"

	"crmsync/app"
)

// keep writes the mapping in use where that is wanted.
func (c *importCmd) keep(m app.Mapping) error {
	if c.Keep == "" {
		return nil
	}
	f, err := os.OpenFile(c.Keep, os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o600)
	if err != nil {
		return fmt.Errorf("--save-mapping: %w", err)
	}
	err = m.Write(f)
	if e := f.Close(); err == nil {
		err = e
	}
	if err != nil {
		return fmt.Errorf("--save-mapping: %s: %w", c.Keep, err)
	}
	return nil
}

// underWay is one line of progress.
func underWay(r app.ImportProgress) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%d of %d rows: %s", r.Ended, r.Queued+r.Duplicates, waited(r.ImportReport))
	if r.Rate > 0 {
		fmt.Fprintf(&b, ", %.3g/s", r.Rate)
	}
	switch {
	case r.Hold != "" && !r.Until.IsZero():
		fmt.Fprintf(&b, ", holds until %s: %s", r.Until.Local().Format(time.TimeOnly), r.Hold)
	case r.Hold != "":
		fmt.Fprintf(&b, ", holds: %s", r.Hold)
	case r.ETA > 0:
		fmt.Fprintf(&b, ", %s left", about(r.ETA))
	}
	return b.String()
}

// about is a duration as people say it.
func about(d time.Duration) string {
	const day = 24 * time.Hour
	switch {
	case d >= 10*365*day:
		return "years"
	case d >= 2*day:
		return fmt.Sprintf("%d days", (d+day/2)/day)
	case d >= time.Hour:
		d = d.Round(time.Minute)
		return fmt.Sprintf("%d h %d min", d/time.Hour, d%time.Hour/time.Minute)
	case d >= 2*time.Minute:
		return fmt.Sprintf("%d min", (d+30*time.Second)/time.Minute)
	}
	return fmt.Sprintf("%d s", (d+time.Second-1)/time.Second)
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

func (c *importCmd) answer(g *Globals, rep app.ImportReport, rejected []app.RejectedRow, first app.Canary) error {
	if g.JSON {
		return g.printJSON(struct {
			app.ImportReport
			Canary       []app.CanaryRow   `json:"canary,omitempty"`
			RejectedRows []app.RejectedRow `json:"rejected_rows,omitempty"`
		}{rep, first.Rows, rejected})
	}
	w := g.std.out
	if len(rep.Unmapped) > 0 {
		g.say("columns that go nowhere: %s (--map COLUMN=FIELD)", strings.Join(rep.Unmapped, ", "))
	}
	if r := rep.Resumed; r != nil && r.Complete {
		g.say("this job was imported on %s by %s; to send the rows once more, name another job with --job", r.At.Local().Format(time.DateTime), r.By)
	}
	fmt.Fprintf(w, "job %s: %d rows, %d queued", rep.Job, rep.Rows, rep.Queued)
	if rep.Duplicates > 0 {
		fmt.Fprintf(w, ", %d queued before", rep.Duplicates)
	}
	fmt.Fprintf(w, ", %d rejected (%s)\n", rep.Rejected, rep.Took.Round(time.Millisecond))
	if rep.Parent != "" {
		fmt.Fprintf(w, "rows of job %s once more\n", rep.Parent)
	}
	if rep.Stopped {
		fmt.Fprintln(w, "stopped after the canary; the same command without --canary queues the other rows")
	}
	if c.Wait && !rep.Stopped {
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
	if r.Expired > 0 {
		parts = append(parts, fmt.Sprintf("%d so long ago that their records have expired", r.Expired))
	}
	if len(parts) == 0 {
		return "nothing yet"
	}
	return strings.Join(parts, ", ")
}
