package main

import (
	"fmt"
	"io"
	"slices"
	"strconv"
)

// demoReport is the answer of the demo.
type demoReport struct {
	Seed     uint64  `json:"seed"`
	Took     float64 `json:"seconds"`
	Takeover float64 `json:"takeover_seconds"` // from the kill until both targets had an owner
	demoVerdict
}

// findingsShown is how many findings are printed; --json has all.
const findingsShown = 20

func (r *demoReport) print(w io.Writer, d *demoRun) {
	fmt.Fprintln(w)
	row := func(name string, value func(t demoTotals) string) {
		fmt.Fprintf(w, "%-30s", name)
		for _, t := range r.Targets {
			fmt.Fprintf(w, "%14s", value(t))
		}
		fmt.Fprintln(w)
	}
	number := func(name string, value func(t demoTotals) int) {
		row(name, func(t demoTotals) string { return strconv.Itoa(value(t)) })
	}
	row("", func(t demoTotals) string { return t.Target })
	number("published", func(t demoTotals) int { return t.Published })
	number("applied", func(t demoTotals) int { return t.Applied })
	number("overwritten by a newer update", func(t demoTotals) int { return t.Overwritten })
	for _, reason := range r.reasons() {
		number("dead: "+reason, func(t demoTotals) int { return t.Dead[reason] })
	}
	number("calls that changed the CRM", func(t demoTotals) int { return t.Writes })
	number("calls saved by merging", func(t demoTotals) int { return t.Saved })
	number("failed at first, then done", func(t demoTotals) int { return t.Recovered })
	number("requests, all told", func(t demoTotals) int { return t.Requests })
	row("most in one second", func(t demoTotals) string { return strconv.Itoa(t.Peak) })
	row("allowed", func(t demoTotals) string { return fmt.Sprintf("%g/s +%d", t.Rate, t.Burst) })
	number("beyond what is allowed", func(t demoTotals) int { return t.OverQuota })
	row("calls repeated after the kill", func(t demoTotals) string { return strconv.Itoa(t.Repeated) })
	number("lost", func(t demoTotals) int { return t.Lost })
	number("stale", func(t demoTotals) int { return t.Stale })
	fmt.Fprintln(w)
	r.conclude(w, d)
}

func (r *demoReport) reasons() []string {
	var out []string
	for _, t := range r.Targets {
		for reason := range t.Dead {
			if !slices.Contains(out, reason) {
				out = append(out, reason)
			}
		}
	}
	slices.Sort(out)
	return out
}

func (r *demoReport) conclude(w io.Writer, d *demoRun) {
	lost, stale := 0, 0
	for _, t := range r.Targets {
		lost, stale = lost+t.Lost, stale+t.Stale
	}
	fmt.Fprintf(w, "lost %d, stale %d: counted from what the CRMs wrote down and from the plan, not by the worker.\n", lost, stale)
	if len(r.Findings) == 0 {
		fmt.Fprintf(w, "Every update ended as planned, in %.0f s. `crmsync demo --seed %d --updates %d` repeats these updates.\n",
			r.Took, r.Seed, len(d.plan.updates))
		return
	}
	fmt.Fprintf(w, "\nNot as planned (seed %d, %d updates):\n", r.Seed, len(d.plan.updates))
	for i, f := range r.Findings {
		if i == findingsShown {
			fmt.Fprintf(w, "  and %d more (--json has them all)\n", len(r.Findings)-i)
			break
		}
		fmt.Fprintf(w, "  %s: %s contact %s: %s\n", f.Kind, f.Target, f.Contact, f.Text)
	}
}
