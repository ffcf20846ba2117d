package main

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"crmsync/app"
)

type whyCmd struct {
	Target  string `arg:"" help:"Target of the contact."`
	Contact string `arg:"" help:"Contact id in that CRM."`
}

// Help is the command's manual.
func (whyCmd) Help() string {
	return `Tells everything that is stored about a contact, in the order of time: updates that
came, calls and what they brought, how each ended, dead letters and redrives; and
what it is waiting for. Names of fields only, no values.`
}

func (c *whyCmd) Run(ctx context.Context, g *Globals) error {
	return g.with(ctx, func(a *app.App) error {
		y, err := a.Why(ctx, c.Target, c.Contact)
		if err != nil {
			return err
		}
		if g.JSON {
			return g.printJSON(y)
		}
		w := g.std.out
		if len(y.Events) == 0 {
			g.say("nothing is known of contact %s of %s: no update waits, and none ended in the last 30 days", printable(c.Contact), c.Target)
			return nil
		}
		for _, l := range storyLines(y.Events, y.Now.Tries) {
			fmt.Fprintf(w, "%s  %-9s  %s\n", clock(l.at), l.what, printable(l.text))
		}
		switch {
		case y.Pending == 0:
			fmt.Fprintln(w, "now: nothing waits")
		default:
			fmt.Fprintf(w, "now: %d update(s) wait for %s", y.Pending, printable(y.Waits))
			if !y.Until.IsZero() {
				fmt.Fprintf(w, ", until %s", clock(y.Until))
			}
			fmt.Fprintln(w)
			if n := y.Now; n.Attempts > 0 {
				fmt.Fprintf(w, "     %d attempt(s) counted so far\n", n.Attempts)
			}
		}
		return nil
	})
}

// storyLine is one line of a contact's story.
type storyLine struct {
	at         time.Time
	what, text string
}

// storyLines unfolds what is stored: a record tells of the coming of its updates
// and of the calls as well. tries are the calls that have ended nothing yet.
func storyLines(events []app.StoryEvent, tries []app.StoryCall) []storyLine {
	var out []storyLine
	add := func(at time.Time, what, format string, a ...any) {
		out = append(out, storyLine{at, what, fmt.Sprintf(format, a...)})
	}
	calls := map[string]bool{} // several records may tell of one attempt
	for _, e := range events {
		switch {
		case e.Update != nil && !e.Update.Ended:
			u := e.Update
			text := fmt.Sprintf("%s %d%s: %s", u.Class, u.Seq, jobText(u.Job, u.Row), strings.Join(u.Fields, ", "))
			if u.RedriveOf != "" {
				text += "; repeats letter " + u.RedriveOf
			}
			if u.Bad != "" {
				text += "; " + u.Bad
			}
			add(e.At, "received", "%s; waits", text)
			if !u.Begun.IsZero() {
				add(u.Begun, "begun", "%s %d: about to be sent; its side effects are asked for once", u.Class, u.Seq)
			}
		case e.Record != nil:
			recordLines(e, calls, add)
		case e.Claim != nil && e.Claim.Discard != "":
			add(e.At, "discard", "letter %d by %s: %s", e.Claim.Letter, e.Claim.By, e.Claim.Discard)
		case e.Claim != nil:
			add(e.At, "redrive", "letter %d by %s, not ended yet", e.Claim.Letter, e.Claim.By)
		case e.Edit != nil:
			add(e.At, "edit", "letter %d by %s", e.Edit.Letter, e.Edit.By)
		case e.Forgot != nil:
			add(e.At, "forgotten", "everything there was until then")
		}
	}
	for _, t := range tries {
		if !calls[t.At.String()] {
			add(t.At, "call", "%s", callText(t))
		}
	}
	slices.SortStableFunc(out, func(a, b storyLine) int { return a.at.Compare(b.at) })
	return out
}

// recordLines tells of the coming of a record's updates, of the calls that were
// made for them, unless another record has told of those, and of their end. A
// discarded record stands for the letter, which is gone.
func recordLines(e app.StoryEvent, told map[string]bool, add func(at time.Time, what, format string, a ...any)) {
	r := e.Record
	died := e.At
	for _, u := range r.Updates {
		if !u.Stored.IsZero() {
			add(u.Stored, "received", "%s %d%s", u.Class, u.Seq, jobText(r.Job, u.Row))
			died = u.Stored
		}
	}
	for _, t := range r.Tries {
		if key := t.At.String(); !told[key] {
			told[key] = true
			add(t.At, "call", "%s", callText(t))
		}
		died = t.At
	}
	if r.Letter != 0 && r.Reason.String() != "" {
		add(died, "dead", "letter %d, %s", r.Letter, r.Reason)
	}
	what, text := endText(r)
	add(e.At, what, "%s", text)
}

func jobText(job string, row int64) string {
	if job == "" {
		return ""
	}
	return fmt.Sprintf(" (job %s row %d)", job, row)
}

func callText(t app.StoryCall) string {
	text := t.Verdict.String()
	if t.Status != 0 {
		text += fmt.Sprintf(", HTTP %d", t.Status)
	}
	if t.Detail != "" {
		text += ": " + t.Detail
	}
	return text
}

// endText says how the updates of a record ended.
func endText(r *app.StoryRecord) (what, text string) {
	var seqs []string
	for _, u := range r.Updates {
		seqs = append(seqs, fmt.Sprintf("%s %d", u.Class, u.Seq))
	}
	what = r.Outcome.String()
	if r.Letter != 0 {
		return what, fmt.Sprintf("letter %d: %s", r.Letter, r.Detail)
	}
	parts := []string{strings.Join(seqs, ", ")}
	if len(r.Fields) > 0 {
		parts = append(parts, strings.Join(r.Fields, ", "))
	}
	if r.Outcome == app.OutcomeDead {
		parts = append(parts, fmt.Sprintf("letter %d, %s", r.Seq, r.Reason))
	}
	if r.Status != 0 {
		parts = append(parts, fmt.Sprintf("HTTP %d", r.Status))
	}
	if r.Merged > 1 {
		parts = append(parts, fmt.Sprintf("one call for %d updates", r.Merged))
	}
	if r.RedriveOf != "" {
		text := "repeated letter " + r.RedriveOf
		if r.Redrive != nil && r.Redrive.By != "" {
			text += " for " + r.Redrive.By
		}
		parts = append(parts, text)
	}
	if r.Resolved != "" {
		parts = append(parts, "an answer was lost: "+string(r.Resolved))
	}
	if r.Detail != "" {
		parts = append(parts, r.Detail)
	}
	return what, strings.Join(parts, "; ")
}
