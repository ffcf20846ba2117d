package main

import (
	"context"
	"fmt"
	"strings"
	"text/tabwriter"

	"crmsync/app"
)

type auditCmd struct {
	Target word    `placeholder:"NAME" help:"Only about this target."`
	Action word    `placeholder:"WORD" help:"Only this act: hold, resume, redrive, edit, discard, export, forget, ..."`
	Since  instant `placeholder:"TIME" help:"Only from then on: 2026-11-21T19:00:00Z, 2026-11-21, or 2h for two hours ago."`
	Until  instant `placeholder:"TIME" help:"Only before then."`
	Limit  int     `default:"100" help:"The newest so many; 0 for all."`
}

// Help is the command's manual.
func (auditCmd) Help() string {
	return `Every operator's act is noted before its effect. The trail names contacts and
fields, never a value, and nothing removes it. What was about no
single target has a - for it, and no --target finds it.`
}

func (c *auditCmd) Run(ctx context.Context, g *Globals) error {
	return g.with(ctx, func(a *app.App) error {
		list, err := a.Audit(ctx, app.AuditFilter{Target: string(c.Target), Action: string(c.Action), Since: c.Since.Time, Until: c.Until.Time, Limit: c.Limit})
		if err != nil {
			return err
		}
		if len(list) == 0 {
			g.say("nothing is noted that matches")
		}
		if g.JSON {
			return g.printJSON(list)
		}
		if len(list) == 0 {
			return nil
		}
		tw := tabwriter.NewWriter(g.std.out, 0, 0, 2, ' ', 0)
		fmt.Fprintln(tw, "AT\tBY\tVIA\tACTION\tTARGET\tWHAT")
		for _, e := range list {
			fmt.Fprintf(tw, "%s\t%s\t%s\t%s\t%s\t%s\n", clock(e.At), printable(e.By), e.Via, e.Action, dash(e.Target), printable(auditWhat(e)))
		}
		return tw.Flush()
	})
}

func dash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}

// auditWhat says what an act was about, in a line.
func auditWhat(e app.AuditEntry) string {
	var parts []string
	if e.Contact != "" {
		parts = append(parts, "contact "+e.Contact)
	}
	switch {
	case len(e.IDs) == 1:
		parts = append(parts, fmt.Sprintf("letter %d", e.IDs[0]))
	case e.Count > 0 && e.Action != "forget": // which counts a person
		parts = append(parts, fmt.Sprintf("%d letter(s)", e.Count))
	}
	if e.Filter != nil {
		parts = append(parts, app.FilterText(*e.Filter))
	}
	if e.Detail != "" {
		parts = append(parts, e.Detail)
	}
	return strings.Join(parts, "; ")
}
