package main

import (
	"flag"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"testing"
	"text/tabwriter"
	"time"
)

// faultRounds makes the fault tests as long as one has time for.
var faultRounds = flag.Int("faults", 0, "rounds of each fault, for the long form; 0: the short one")

// roundsOf is how many rounds a fault has: few in the short form; in the long form a
// share of what was asked for.
func roundsOf(short int, share float64) int {
	if *faultRounds == 0 {
		return short
	}
	return max(short, int(float64(*faultRounds)*share))
}

// faultRow is what came of a fault.
type faultRow struct {
	fault                                  string
	rounds                                 int
	published, lost, stale, repeated, open int
	onTop                                  int             // writes that put on top again what had ended
	takeovers                              []time.Duration // from the fault until all went on
	gaps                                   []time.Duration // in which nothing could be published
	note                                   string
}

func (r *faultRow) add(t demoTotals) {
	r.published += t.Published
	r.lost += t.Lost
	r.stale += t.Stale
	r.repeated += t.Repeated
	r.onTop += t.PutOnTop
	r.open += t.InFlight
}

// faultTable is what all faults came to.
type faultTable struct {
	mu   sync.Mutex
	rows []faultRow
}

var faults faultTable

func (f *faultTable) note(t *testing.T, r faultRow) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if t.Failed() {
		r.note = strings.TrimSpace("FAILED " + r.note)
	}
	f.rows = append(f.rows, r)
	var b strings.Builder
	printFaults(&b, []faultRow{r})
	t.Logf("\n%s", b.String())
}

// tell prints the table of the long form.
func (f *faultTable) tell(w io.Writer) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if *faultRounds > 0 && len(f.rows) > 0 {
		printFaults(w, f.rows)
	}
}

func printFaults(w io.Writer, rows []faultRow) {
	tw := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(tw, "FAULT\tROUNDS\tUPDATES\tLOST\tSTALE\tREPEATED\tOPEN\tON TOP\tTAKEOVER p50\tmax\tGAP p50\tmax\tNOTE")
	for _, r := range rows {
		fmt.Fprintf(tw, "%s\t%d\t%d\t%d\t%d\t%d\t%d\t%d\t%s\t%s\t%s\t%s\t%s\n", r.fault, r.rounds, r.published, r.lost, r.stale, r.repeated, r.open, r.onTop,
			quantile(r.takeovers, 0.5), quantile(r.takeovers, 1), quantile(r.gaps, 0.5), quantile(r.gaps, 1), r.note)
	}
	_ = tw.Flush()
}

func quantile(d []time.Duration, q float64) string {
	if len(d) == 0 {
		return "-"
	}
	s := slices.Sorted(slices.Values(d))
	return s[int(q*float64(len(s)-1)+0.5)].Round(10 * time.Millisecond).String()
}
