package history

import (
	"fmt"
	"slices"
	"sort"
	"strings"
	"time"
)

// Invariant names a promise.
type Invariant string

// The promises, in the order in which they are reported.
const (
	NoLoss         Invariant = "I1 no loss"
	NoInvention    Invariant = "I2 no invention"
	Convergence    Invariant = "I3 convergence"
	ContactOrder   Invariant = "I4 order of a contact"
	BoundedRepeats Invariant = "I5 bounded repeats"
	Exclusivity    Invariant = "I6 exclusivity"
	LosslessMerge  Invariant = "I7 lossless merge"
	Rate           Invariant = "I8 rate"
	RetryManners   Invariant = "I9 retry discipline"
	Classification Invariant = "I10 classification"
	WholeLetters   Invariant = "I11 whole dead letters"
	Redrive        Invariant = "I12 redrive"
	Liveness       Invariant = "I14 liveness"
	Conservation   Invariant = "I16 conservation"
	GracefulStop   Invariant = "I19 graceful stop"
	AuditFirst     Invariant = "I21 audit first"
)

var invariants = []struct {
	name  Invariant
	check func(*trial)
}{
	{NoLoss, (*trial).noLoss},
	{NoInvention, (*trial).noInvention},
	{Convergence, (*trial).convergence},
	{ContactOrder, (*trial).contactOrder},
	{BoundedRepeats, (*trial).boundedRepeats},
	{Exclusivity, (*trial).exclusivity},
	{LosslessMerge, (*trial).losslessMerge},
	{Rate, (*trial).rate},
	{RetryManners, (*trial).retryManners},
	{Classification, (*trial).classification},
	{WholeLetters, (*trial).wholeLetters},
	{Redrive, (*trial).redrive},
	{Liveness, (*trial).liveness},
	{Conservation, (*trial).conservation},
	{GracefulStop, (*trial).gracefulStop},
	{AuditFirst, (*trial).auditFirst},
}

// Violation is one thing that a history proves wrong.
type Violation struct {
	Invariant Invariant `json:"invariant"`
	At        time.Time `json:"at"`
	Target    string    `json:"target,omitempty"`
	Contact   string    `json:"contact,omitempty"`
	Text      string    `json:"text"`
}

// Verdict is what a history says of one promise.
type Verdict struct {
	Invariant Invariant `json:"invariant"`
	// Checked is how many things were held against it: a history in which none
	// was proves nothing.
	Checked    int         `json:"checked"`
	Violations []Violation `json:"violations,omitempty"`
}

// Report is what a history says of all promises.
type Report struct {
	Events   int       `json:"events"`
	Updates  int       `json:"updates"` // that were stored
	Requests int       `json:"requests"`
	Span     string    `json:"span"`
	Verdicts []Verdict `json:"verdicts"`

	events []Event
}

// Check holds a history against the promises. It sorts the events.
func Check(events []Event) Report {
	t := newTrial(events)
	r := Report{Events: len(events), Updates: t.stored, Requests: len(t.requests), events: t.events}
	if n := len(t.events); n > 0 {
		r.Span = t.events[n-1].At.Sub(t.events[0].At).Round(time.Millisecond).String()
	}
	for _, i := range invariants {
		t.on, t.verdict = i.name, Verdict{Invariant: i.name}
		i.check(t)
		r.Verdicts = append(r.Verdicts, t.verdict)
	}
	return r
}

// Violations are all of them, in the order of the promises.
func (r Report) Violations() []Violation {
	var out []Violation
	for _, v := range r.Verdicts {
		out = append(out, v.Violations...)
	}
	return out
}

// Broken are the promises that are.
func (r Report) Broken() []Invariant {
	var out []Invariant
	for _, v := range r.Verdicts {
		if len(v.Violations) > 0 {
			out = append(out, v.Invariant)
		}
	}
	return out
}

// around is how many events are told on each side of a violation.
const around = 10

// Around are the events about a violation: those of its contact, or of its
// target where it has none, before and after it.
func (r Report) Around(v Violation) []Event {
	var own []Event
	for i := range r.events {
		if e := &r.events[i]; e.Target == v.Target && (v.Contact == "" || e.Contact == v.Contact) && e.Kind != World {
			own = append(own, *e)
		}
	}
	i := sort.Search(len(own), func(i int) bool { return own[i].At.After(v.At) })
	return own[max(0, i-around):min(len(own), i+around)]
}

// String is one page: a line for each promise, and the events around the first
// violation of each that is broken.
func (r Report) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%d events over %s: %d updates stored, %d requests\n", r.Events, r.Span, r.Updates, r.Requests)
	for _, v := range r.Verdicts {
		switch {
		case len(v.Violations) > 0:
			fmt.Fprintf(&b, "BROKEN  %-24s %d of %d: %s\n", v.Invariant, len(v.Violations), v.Checked, v.Violations[0].Text)
		case v.Checked == 0:
			fmt.Fprintf(&b, "-       %-24s nothing to check\n", v.Invariant)
		default:
			fmt.Fprintf(&b, "holds   %-24s %d\n", v.Invariant, v.Checked)
		}
	}
	for _, v := range r.Verdicts {
		if len(v.Violations) == 0 {
			continue
		}
		first := v.Violations[0]
		fmt.Fprintf(&b, "\n%s, at %s: %s\n", v.Invariant, clock(first.At), first.Text)
		for _, e := range r.Around(first) {
			mark := ' '
			if e.At.Equal(first.At) {
				mark = '>'
			}
			fmt.Fprintf(&b, "%c %s\n", mark, e)
		}
	}
	return b.String()
}

func clock(t time.Time) string { return t.UTC().Format("15:04:05.000000") }

// String is the event on one line.
func (e Event) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s %-8s", clock(e.At), e.Kind)
	put := func(name string, v any, there bool) {
		if there {
			fmt.Fprintf(&b, " %s=%v", name, v)
		}
	}
	put("actor", e.Actor, e.Actor != "")
	put("name", e.Name, e.Name != "")
	put("target", e.Target, e.Target != "")
	put("contact", e.Contact, e.Contact != "")
	put("update", e.Update, e.Update != 0)
	put("class", e.Class, e.Class != "")
	put("seq", e.Seq, e.Seq != 0)
	put("request", e.Request, e.Request != 0)
	put("order", e.Order, e.Order != 0)
	put("call", e.Call, e.Call != "")
	put("updates", e.Updates, len(e.Updates) > 0)
	put("outcome", e.Outcome, e.Outcome != "")
	put("reason", e.Reason, e.Reason != "")
	put("verdict", e.Verdict, e.Verdict != "")
	put("status", e.Status, e.Status != 0)
	put("wait", e.Wait, e.Wait != 0)
	put("fault", e.Fault, e.Fault != "")
	put("record", e.Record, e.Record != 0)
	put("of", e.Of, e.Of != 0)
	put("lost", e.Lost, e.Lost)
	put("cut", e.Cut, e.Cut)
	if len(e.Fields) > 0 {
		b.WriteString(" {")
		for i, p := range sortedBy(e.Fields, func(p string) string { return p }) {
			if i > 0 {
				b.WriteString(", ")
			}
			fmt.Fprintf(&b, "%s: %q", p, e.Fields[p])
		}
		b.WriteByte('}')
	}
	return b.String()
}

// maxViolations is how many of one promise are kept.
const maxViolations = 100

// find notes that the promise at hand is broken.
func (t *trial) find(at time.Time, k key, format string, a ...any) {
	if len(t.verdict.Violations) >= maxViolations {
		return
	}
	t.verdict.Violations = append(t.verdict.Violations, Violation{
		Invariant: t.on, At: at, Target: k.target, Contact: k.contact, Text: fmt.Sprintf(format, a...),
	})
}

// checked counts one thing that was held against the promise at hand.
func (t *trial) checked() { t.verdict.Checked++ }

// troubled says whether something went wrong at a target between two instants, or an
// operator held it.
func (t *trial) troubled(target string, from, to time.Time) bool {
	for _, f := range t.faults {
		if (f.target == "" || f.target == target) && !f.from.After(to) && (f.to.IsZero() || !f.to.Before(from)) {
			return true
		}
	}
	return slices.ContainsFunc(t.holds, func(h Event) bool {
		return h.Target == target && !h.At.After(to) && h.At.After(from.Add(-longHold))
	})
}

// longHold is how long an operator's hold may have lasted.
const longHold = 10 * time.Minute

// within says whether an instant lies in a fault of one of these names on a
// target, or up to after later; no names mean any.
func (t *trial) within(target string, at time.Time, after time.Duration, names ...string) bool {
	for _, f := range t.faults {
		if f.target != "" && f.target != target || at.Before(f.from) || !f.to.IsZero() && at.After(f.to.Add(after)) {
			continue
		}
		if len(names) == 0 || slices.Contains(names, f.name) {
			return true
		}
	}
	return false
}
