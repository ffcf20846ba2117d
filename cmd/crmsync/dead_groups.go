package main

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"text/tabwriter"

	"crmsync/app"
)

type deadGroupsCmd struct {
	letterFilter
	Ask bool `help:"Ask the CRM about one letter of each group where it may know more: who has an address, whose id it is. That makes at most one request a group, inside the target's quota."`
}

// Help is the command's manual.
func (deadGroupsCmd) Help() string {
	return `Letters of one target with the same reason, HTTP status, field and message, but for
what differs from contact to contact, are one group. Its fingerprint chooses them
elsewhere: crmsync dead redrive --group FINGERPRINT.`
}

func (c *deadGroupsCmd) Run(ctx context.Context, g *Globals) error {
	return g.with(ctx, func(a *app.App) error {
		groups, err := a.Groups(ctx, c.filter())
		if err != nil {
			return err
		}
		if len(groups) == 0 {
			g.say("no dead letters match")
		}
		requests := 0
		for i := range groups {
			if !c.Ask || len(groups[i].Samples) == 0 {
				continue
			}
			if err := a.AskGroup(ctx, &groups[i]); err != nil {
				g.say("group %s: %v", groups[i].Fingerprint, err)
			}
			requests += groups[i].Requests
		}
		if g.JSON {
			return g.printJSON(groups)
		}
		if len(groups) == 0 {
			return nil
		}
		if err := g.printGroups(groups); err != nil {
			return err
		}
		if c.Ask {
			g.say("that made %d request(s)", requests)
		}
		return nil
	})
}

func (g *Globals) printGroups(groups []app.LetterGroup) error {
	tw := tabwriter.NewWriter(g.std.out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(tw, "GROUP\tLETTERS\tTARGET\tREASON\tHTTP\tFIELD\tLAST\tMESSAGE")
	for _, x := range groups {
		fmt.Fprintf(tw, "%s\t%d\t%s\t%s\t%s\t%s\t%s\t%s\n", dash(x.Fingerprint), x.Count, x.Target, dash(x.Reason), httpStatus(x.Status),
			dash(printable(x.Field)), clock(x.Last), printable(x.Message))
	}
	if err := tw.Flush(); err != nil {
		return err
	}
	for _, x := range groups {
		if x.Fingerprint == "" {
			continue
		}
		fmt.Fprintf(g.std.out, "\n%s  since %s; %s; letters %s\n", x.Fingerprint, clock(x.First), x.Trend, numbers(x.Samples))
		if x.Suggestion != "" {
			fmt.Fprintf(g.std.out, "  %s\n", x.Suggestion)
		}
		if x.Asked != "" {
			fmt.Fprintf(g.std.out, "  asked: %s\n", printable(x.Asked))
		}
	}
	return nil
}

func numbers(ids []uint64) string {
	out := make([]string, len(ids))
	for i, id := range ids {
		out[i] = strconv.FormatUint(id, 10)
	}
	return strings.Join(out, ", ")
}
