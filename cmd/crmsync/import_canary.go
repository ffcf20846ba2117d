package main

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"os"
	"strings"

	"golang.org/x/term"

	"crmsync/app"
)

// confirm shows how the first rows ended and asks whether the others go too.
func (c *importCmd) confirm(ctx context.Context, g *Globals, y app.Canary) (bool, error) {
	if !g.JSON {
		showCanary(g.std.out, y)
	}
	switch {
	case !y.More:
		return false, nil
	case c.Yes:
		return y.Well(), nil
	}
	fmt.Fprint(g.std.err, "Queue the other rows too? [y/N] ")
	said := make(chan string, 1)
	go func() { // nothing ends a read from a terminal
		line, _ := bufio.NewReader(g.std.in).ReadString('\n')
		said <- line
	}()
	select {
	case line := <-said:
		if f, ok := g.std.in.(*os.File); !ok || !term.IsTerminal(int(f.Fd())) {
			fmt.Fprintln(g.std.err) // nobody pressed enter
		}
		answer := strings.ToLower(strings.TrimSpace(line))
		return answer == "y" || answer == "yes", nil
	case <-ctx.Done():
		fmt.Fprintln(g.std.err)
		return false, ctx.Err()
	}
}

func showCanary(w io.Writer, y app.Canary) {
	fmt.Fprintf(w, "canary: %s of job %s\n", plural(len(y.Rows), "row"), y.Job)
	for _, r := range y.Rows {
		fmt.Fprintf(w, "  line %d, contact %s: %s", r.Line, printable(r.Contact), r.Outcome)
		if r.Reason != "" {
			fmt.Fprintf(w, " (%s)", r.Reason)
		}
		if len(r.Fields) > 0 {
			fmt.Fprintf(w, " [%s]", printable(strings.Join(r.Fields, ", ")))
		}
		if r.Detail != "" {
			fmt.Fprintf(w, ": %s", printable(r.Detail))
		}
		fmt.Fprintln(w)
	}
}
