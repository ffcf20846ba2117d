package main

import (
	"fmt"
	"io"
	"time"

	"crmsync/app"
)

// evidence is what a person needs to judge a hold: the last answers, and of a
// storm what can be done.
func evidence(w io.Writer, t app.TargetStatus) {
	h := t.Lane.Hold
	if h.Reason == "storm" {
		fmt.Fprintf(w, "  %d contacts were refused for the same cause with no success between, %d dead letter(s) can be recalled\n",
			h.Contacts, len(h.Letters))
	}
	if len(h.Evidence) > 0 {
		fmt.Fprintln(w, "  last answers:")
	}
	for _, e := range h.Evidence {
		about := "a read"
		if e.Contact != "" {
			about = "contact " + printable(e.Contact)
		}
		fmt.Fprintf(w, "    %s %s: %s", e.At.Local().Format(time.TimeOnly), about, e.Verdict)
		if e.Status != 0 {
			fmt.Fprintf(w, ", HTTP %d", e.Status)
		}
		if e.Detail != "" {
			fmt.Fprintf(w, ": %s", e.Detail)
		}
		fmt.Fprintln(w)
	}
	if h.Reason == "storm" {
		fmt.Fprintf(w, "  it was the CRM: crmsync resume %s --recall; the contacts are wrong: crmsync resume %[1]s --accept\n", t.Target)
	}
}
