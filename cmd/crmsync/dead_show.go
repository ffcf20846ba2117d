package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"crmsync/app"
)

type deadShowCmd struct {
	ID   uint64 `arg:"" help:"Its id, as dead ls shows it."`
	Diff bool   `help:"Read the contact from the CRM and set what would be sent beside it, and ask why it was refused. That makes one or two requests, inside the target's quota."`
}

// shown is a letter with what a look at the CRM added.
type shown struct {
	app.FullLetter
	Now *app.Look `json:"now,omitempty"`
	Why *app.Look `json:"why,omitempty"`
}

func (c *deadShowCmd) Run(ctx context.Context, g *Globals) error {
	return g.with(ctx, func(a *app.App) error {
		l, err := a.Letter(ctx, c.ID)
		if err != nil {
			return err
		}
		s := shown{FullLetter: l}
		var lookErr error // the letter is shown all the same
		if c.Diff {
			lookErr = s.look(ctx, a)
		}
		if g.JSON {
			return errors.Join(g.printJSON(s), lookErr)
		}
		if err := g.printLetter(l); err != nil {
			return err
		}
		g.printLook(s)
		return lookErr
	})
}

// look asks the CRM, through the target's owner.
func (s *shown) look(ctx context.Context, a *app.App) error {
	now, err := a.LookAt(ctx, s.ID)
	if err != nil {
		return err
	}
	s.Now = &now
	why, err := a.Explain(ctx, s.ID)
	if err != nil {
		return err
	}
	if why.Requests > 0 {
		s.Why = &why
	}
	return nil
}

func (g *Globals) printLetter(l app.FullLetter) error {
	w := g.std.out
	fmt.Fprintf(w, "dead letter %d: contact %s of %s, %s\n", l.ID, printable(l.Contact), l.Target, l.Reason)
	if l.Detail != "" {
		fmt.Fprintf(w, "  why       %s\n", printable(l.Detail))
	}
	fmt.Fprintf(w, "  ended     %s, after %d attempt(s)\n", clock(l.Ended), l.Attempts)
	fmt.Fprintf(w, "  update    number %d of class %s\n", l.Seq, l.Class)
	fmt.Fprintf(w, "  group     %s\n", l.Group)
	if l.Job != "" {
		fmt.Fprintf(w, "  job       %s, row %d\n", printable(l.Job), l.Row)
	}
	if l.RedriveOf != "" {
		fmt.Fprintf(w, "  repeats   letter %s", printable(l.RedriveOf))
		if l.Root != "" && l.Root != l.RedriveOf {
			fmt.Fprintf(w, ", the first was %s", printable(l.Root))
		}
		fmt.Fprintln(w)
	}
	switch l.State {
	case "redriven":
		fmt.Fprintf(w, "  state     sent again by %s at %s, not ended yet\n", printable(l.By), clock(l.Since))
	case "leaving":
		fmt.Fprintf(w, "  state     being discarded by %s since %s\n", printable(l.By), clock(l.Since))
	}
	if l.MaybeSent {
		fmt.Fprintln(w, "  mind      its mail or password may have reached the CRM before; a redrive does not ask for the mail again")
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
	} else if err := g.printBody("body", l.Body); err != nil {
		return err
	}
	if e := l.Edit; e != nil {
		fmt.Fprintf(w, "  edited    by %s at %s; a redrive sends this:\n", printable(e.By), clock(e.At))
		g.printChanges("            ", e.Changes)
		return g.printBody("edit", e.Body)
	}
	return nil
}

func (g *Globals) printBody(name string, body json.RawMessage) error {
	text, err := json.MarshalIndent(body, "  ", "  ")
	if err != nil {
		return err
	}
	fmt.Fprintf(g.std.out, "  %-8s  %s\n", name, text)
	return nil
}

// printLook shows what the CRM holds beside what would be sent.
func (g *Globals) printLook(s shown) {
	if s.Now == nil {
		return
	}
	w := g.std.out
	if s.Now.Missing {
		fmt.Fprintln(w, "  now       the CRM has no such contact")
	}
	for _, d := range s.Now.Differences {
		switch d.Seen {
		case "same":
			fmt.Fprintf(w, "  now         %s: %s\n", printable(d.Field), printable(string(d.Sent)))
		case "differs":
			fmt.Fprintf(w, "  now       - %s: %s\n", printable(d.Field), printable(string(d.Held)))
			fmt.Fprintf(w, "            + %s: %s\n", printable(d.Field), printable(string(d.Sent)))
		default:
			fmt.Fprintf(w, "  now       ? %s: the CRM does not show it\n", printable(d.Field))
		}
	}
	n := s.Now.Requests
	if s.Why != nil {
		n += s.Why.Requests
		if s.Why.Said != "" {
			fmt.Fprintf(w, "  found     %s\n", printable(s.Why.Said))
		}
	}
	g.say("that made %d request(s)", n)
}
