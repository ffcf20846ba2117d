package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"
	"unicode"

	"crmsync/app"
)

type deadCmd struct {
	Ls      deadLsCmd      `cmd:"" help:"List dead letters, newest first."`
	Show    deadShowCmd    `cmd:"" help:"Show one dead letter with its original message."`
	Groups  deadGroupsCmd  `cmd:"" help:"Sum them up by cause, with what may help."`
	Edit    deadEditCmd    `cmd:"" help:"Change what a redrive will send; nothing is sent yet."`
	Redrive deadRedriveCmd `cmd:"" help:"Send them again."`
	Discard deadDiscardCmd `cmd:"" help:"Give them up."`
	Export  deadExportCmd  `cmd:"" help:"Write them as CSV or NDJSON."`
}

// letterFilter are the flags that choose dead letters, the same everywhere. One
// that is given with nothing in it is refused: an unset variable of a script must
// not choose all letters there are.
type letterFilter struct {
	Target  word    `group:"Filter" placeholder:"NAME" help:"Only of this target."`
	Reason  word    `group:"Filter" placeholder:"CODE" help:"Only for this reason."`
	Status  code    `group:"Filter" placeholder:"HTTP" help:"Only with this HTTP status."`
	Field   word    `group:"Filter" placeholder:"NAME" help:"Only those where the CRM refused this field."`
	Job     word    `group:"Filter" placeholder:"NAME" help:"Only of this job."`
	Contact word    `group:"Filter" placeholder:"ID" help:"Only of this contact (with --target)."`
	Match   word    `group:"Filter" placeholder:"TEXT" help:"Only with this text in the detail, the contact's id or a field's name, in any letter case."`
	Group   word    `group:"Filter" placeholder:"FINGERPRINT" help:"Only of this group (dead groups)."`
	Since   instant `group:"Filter" placeholder:"TIME" help:"Only from then on: 2026-11-21T19:00:00Z, 2026-11-21, or 2h for two hours ago."`
	Until   instant `group:"Filter" placeholder:"TIME" help:"Only before then."`
}

func (f letterFilter) filter() app.DeadFilter {
	return app.DeadFilter{
		Target: string(f.Target), Reason: string(f.Reason), Status: int(f.Status), Field: string(f.Field), Job: string(f.Job), Contact: string(f.Contact),
		Match: string(f.Match), Group: string(f.Group), Since: f.Since.Time, Until: f.Until.Time,
	}
}

// word is a text on the command line that is not empty.
type word string

// UnmarshalText refuses what is empty.
func (w *word) UnmarshalText(b []byte) error {
	if len(bytes.TrimSpace(b)) == 0 {
		return errors.New("it is empty, which would choose everything; leave it out if that is meant")
	}
	*w = word(b)
	return nil
}

// code is an HTTP status on the command line.
type code int

// UnmarshalText reads 100 to 599.
func (c *code) UnmarshalText(b []byte) error {
	n, err := strconv.Atoi(string(b))
	if err != nil || n < 100 || n > 599 {
		return fmt.Errorf("%q is no HTTP status: write 100 to 599", b)
	}
	*c = code(n)
	return nil
}

// instant is a time on the command line: of the clock, a day, or so long ago.
type instant struct{ time.Time }

// UnmarshalText reads 2026-11-21T19:00:00Z, 2026-11-21 (where the day begins
// here) or 90m, 2h, 7d ago.
func (i *instant) UnmarshalText(b []byte) error {
	t, err := parseInstant(string(b), time.Now())
	i.Time = t
	return err
}

func parseInstant(s string, now time.Time) (time.Time, error) {
	if t, err := time.Parse(time.RFC3339, s); err == nil {
		return t, nil
	}
	if t, err := time.ParseInLocation(time.DateOnly, s, now.Location()); err == nil {
		return t, nil
	}
	if days, ok := strings.CutSuffix(s, "d"); ok {
		if n, err := strconv.ParseUint(days, 10, 16); err == nil {
			return now.AddDate(0, 0, -int(n)), nil
		}
	}
	if d, err := time.ParseDuration(s); err == nil && d > 0 {
		return now.Add(-d), nil
	}
	return time.Time{}, fmt.Errorf("%q is no time: write 2026-11-21T19:00:00Z, 2026-11-21, or 2h for two hours ago", s)
}

type deadLsCmd struct {
	letterFilter
	Oldest bool   `help:"Oldest first."`
	After  uint64 `placeholder:"ID" help:"Continue behind this dead letter."`
	Limit  int    `default:"100" help:"At most so many; 0 for all."`
}

func (c *deadLsCmd) Run(ctx context.Context, g *Globals) error {
	return g.with(ctx, func(a *app.App) error {
		letters := []app.Letter{}
		f := c.filter()
		f.Newest, f.After, f.Limit = !c.Oldest, c.After, c.Limit
		err := a.Dead(ctx, f, func(l app.Letter) error { letters = append(letters, l); return nil })
		if err != nil {
			return err
		}
		if len(letters) == 0 {
			g.say("no dead letters match")
		}
		if g.JSON {
			return g.printJSON(letters)
		}
		if len(letters) == 0 {
			return nil
		}
		tw := tabwriter.NewWriter(g.std.out, 0, 0, 2, ' ', 0)
		fmt.Fprintln(tw, "ID\tENDED\tTARGET\tCONTACT\tREASON\tHTTP\tATTEMPTS\tFIELDS\tSTATE\tDETAIL")
		for _, l := range letters {
			fmt.Fprintf(tw, "%d\t%s\t%s\t%s\t%s\t%s\t%d\t%s\t%s\t%s\n", l.ID, clock(l.Ended), l.Target,
				printable(l.Contact), l.Reason, httpStatus(l.Status), l.Attempts, printable(strings.Join(l.Fields, ",")), letterState(l), printable(l.Detail))
		}
		tw.Flush()
		if c.Limit > 0 && len(letters) == c.Limit {
			g.say("there may be more: --after %d, or --limit 0 for all", letters[len(letters)-1].ID)
		}
		return nil
	})
}

// letterState is what happens to a letter, in a word.
func letterState(l app.Letter) string {
	if l.State == "dead" && l.Edited != "" {
		return "edited"
	}
	return l.State
}

func httpStatus(n int) string {
	if n == 0 {
		return "-"
	}
	return strconv.Itoa(n)
}

func clock(t time.Time) string {
	if t.IsZero() {
		return "-"
	}
	return t.Local().Format(time.DateTime)
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
