package main

import (
	"cmp"
	"fmt"
	"io"
	"strings"
	"time"

	"crmsync/app"
)

// printQuota writes the lines on a target's quota.
func printQuota(w io.Writer, t app.TargetStatus, now time.Time) {
	printLimits(w, t.Target, "", t.Orders.Limits, now)
	if t.SharedLimits != nil {
		printLimits(w, t.Group, " --shared", *t.SharedLimits, now)
	}
	if t.Lane == nil {
		fmt.Fprintf(w, "%s is run by nobody: its use is not known\n", t.Target)
	} else {
		printBudget(w, t.Target, &t.Lane.QuotaStatus, now)
		if t.Lane.Shared != nil {
			printBudget(w, cmp.Or(t.Group, t.Target+"'s shared"), t.Lane.Shared, now)
		}
	}
	if t.ETA != nil {
		fmt.Fprintf(w, "%s %s\n", t.Target, etaText(t.ETA, now))
	}
}

// printLimits writes the line on what an operator has set; flag is what resetting
// it needs.
func printLimits(w io.Writer, name, flag string, l app.Limits, now time.Time) {
	if limitsText(l) == "" {
		return
	}
	fmt.Fprintf(w, "%s is limited to %s by %s since %s", name, limitsText(l), cmp.Or(l.By, "an operator"), clockTime(l.Since, now))
	if l.Note != "" {
		fmt.Fprintf(w, ": %s", l.Note)
	}
	fmt.Fprintf(w, " (crmsync rate %s%s --reset)\n", name, flag)
}

// printBudget writes the lines on one budget.
func printBudget(w io.Writer, name string, q *app.QuotaStatus, now time.Time) {
	fmt.Fprintf(w, "%s quota: %s used", name, perSecond(q.Used))
	switch {
	case q.Allowed == 0 && q.Rate == 0:
		fmt.Fprint(w, " of no limit")
	case q.Slowed != "":
		fmt.Fprintf(w, " of %s now, %s", perSecond(q.Rate), slowed(q.Slowed))
		if q.Allowed > 0 {
			fmt.Fprintf(w, "; %s allowed", perSecond(q.Allowed))
		}
	default:
		fmt.Fprintf(w, " of %s allowed", perSecond(q.Allowed))
	}
	if q.Allowed > 0 {
		fmt.Fprintf(w, ", burst %d", q.Burst)
	}
	if q.Reserve > 0 {
		fmt.Fprintf(w, ", %.3g%% left to others", q.Reserve*100)
	}
	fmt.Fprintln(w)
	for _, x := range q.Windows {
		fmt.Fprintf(w, "  per %s: %d of %d used, %d left%s\n", windowName(x), x.Used, x.Limit, x.Left, clockAfter(", more from ", x.Resets, now))
	}
	for _, a := range q.Advertised {
		fmt.Fprintf(w, "  the CRM says%s: %d left", clockAfter(" (", a.At, now)+")", a.Left)
		if a.Limit > 0 {
			fmt.Fprintf(w, " of %d", a.Limit)
		}
		if a.Window > 0 {
			fmt.Fprintf(w, " per %s", spanName(a.Window))
		}
		fmt.Fprintln(w, clockAfter(", until ", a.Resets, now)+unenforced(a))
	}
	if !q.Asked.IsZero() {
		fmt.Fprintf(w, "  the CRM wants nothing before %s\n", clockTime(q.Asked, now))
	}
}

func unenforced(a app.AdvertisedStatus) string {
	if a.Unenforced {
		return "; not heeded, since it serves more than that"
	}
	return ""
}

func slowed(why app.Slowed) string {
	switch why {
	case app.SlowedByRefusals:
		return "since it refuses more"
	case app.SlowedByOutage:
		return "rising after an outage"
	case app.SlowedByAdvertised:
		return "to make do with what the CRM says is left"
	}
	return "for now"
}

// windowName is hour, 10m, calendar day in Europe/Berlin.
func windowName(w app.WindowStatus) string {
	if w.Calendar {
		return "calendar " + spanName(w.Span) + " in " + cmp.Or(w.Zone, "UTC")
	}
	return spanName(w.Span)
}

func spanName(d time.Duration) string {
	if name := map[time.Duration]string{time.Second: "second", time.Minute: "minute", time.Hour: "hour", 24 * time.Hour: "day"}[d]; name != "" {
		return name
	}
	s := d.String()
	if d >= 48*time.Hour && d%(24*time.Hour) == 0 {
		return fmt.Sprintf("%d days", d/(24*time.Hour))
	}
	s = strings.TrimSuffix(s, "0s")
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return cmp.Or(s, "0s")
}

func perSecond(r float64) string { return fmt.Sprintf("%.3g/s", r) }

// clockAfter is a clock time behind some words, or nothing where there is none.
func clockAfter(words string, t, now time.Time) string {
	if t.IsZero() {
		return ""
	}
	return words + clockTime(t, now)
}

// clockTime is the local time of day, with the day where it is not today.
func clockTime(t, now time.Time) string {
	t, now = t.Local(), now.Local()
	days := func(t time.Time) int64 {
		y, m, d := t.Date()
		return time.Date(y, m, d, 0, 0, 0, 0, time.UTC).Unix() / 86400
	}
	switch n := days(t) - days(now); {
	case n == 0:
		return t.Format(time.TimeOnly)
	case n > -7 && n < 7:
		return t.Format("15:04 (Mon)")
	}
	return t.Format("2 Jan 2006 15:04")
}

// etaText is when a queue will be empty, as a clock time, and what it rests on.
func etaText(e *app.ETA, now time.Time) string {
	work := fmt.Sprintf("%d update(s)", e.Updates)
	if e.Done.IsZero() {
		return fmt.Sprintf("has %s to do, nobody knows until when: %s", work, e.Why)
	}
	s := fmt.Sprintf("is done about %s: %s, %d request(s)", clockTime(e.Done.Round(time.Second), now), work, e.Requests)
	if e.Rate > 0 && e.Done.Sub(now) > time.Second {
		s += " at " + perSecond(e.Rate)
	}
	if !e.From.IsZero() {
		s += fmt.Sprintf("; it goes on at %s: %s", clockTime(e.From, now), e.Why)
	}
	return s
}
