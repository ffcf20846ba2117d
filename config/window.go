package config

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
	_ "time/tzdata" // a container from scratch has no zones of its own
)

// Window is a limit on the requests in a span of time.
type Window struct {
	// Limit is the number of requests, from 1.
	Limit int
	// Per is the span: 1 s to 31 days, and for a calendar window a minute, an
	// hour or a day.
	Per time.Duration
	// Calendar makes the window begin anew with each minute, hour or day of the
	// clock in Zone, in place of looking back over Per at any instant.
	Calendar bool
	// Zone is where the clock hangs; nil without Calendar, else UTC where
	// none is named.
	Zone *time.Location
}

const (
	maxLimit = 1_000_000_000
	maxPer   = 31 * day
)

// kind tells windows apart that count different requests.
func (w Window) kind() string {
	if !w.Calendar {
		return w.Per.String()
	}
	return w.Per.String() + " " + w.Zone.String()
}

// String is the window in words: "1000 per hour", "250000 per calendar day in
// Europe/Berlin".
func (w Window) String() string {
	unit := map[time.Duration]string{time.Second: "second", time.Minute: "minute", time.Hour: "hour", day: "day"}[w.Per]
	if unit == "" {
		unit = short(w.Per)
	}
	if !w.Calendar {
		return fmt.Sprintf("%d per %s", w.Limit, unit)
	}
	return fmt.Sprintf("%d per calendar %s in %s", w.Limit, unit, w.Zone)
}

// windowFields parse the fields of a window.
var windowFields = map[string]func(*Window, value) error{
	"limit":    parsed(func(w *Window) *int { return &w.Limit }, whole(1, maxLimit)),
	"per":      parsed(func(w *Window) *time.Duration { return &w.Per }, per),
	"calendar": parsed(func(w *Window) *bool { return &w.Calendar }, boolean),
	"zone":     parsed(func(w *Window) **time.Location { return &w.Zone }, text(zone)),
}

// windows reads a list of windows.
func windows(v value) ([]Window, error) {
	records := v.records
	if !v.isSeq {
		var err error
		if records, err = flowRecords(v.text); err != nil {
			return nil, err
		}
	}
	var out []Window
	var errs itemErrors
	for i, r := range records {
		w, wrong := window(r, fmt.Sprintf("[%d]", i))
		out, errs = append(out, w), append(errs, wrong...)
	}
	switch {
	case len(errs) > 0:
		return nil, errs
	case len(out) == 0:
		return nil, errors.New("is empty; leave it out for none")
	}
	return out, nil
}

func window(r record, at string) (w Window, errs itemErrors) {
	seen := map[string]bool{}
	for _, f := range r.fields {
		seen[f.name] = true
		set, ok := windowFields[f.name]
		if !ok {
			names := []string{"limit", "per", "calendar", "zone"}
			hint := didYouMean(f.name, names)
			if hint == "" {
				hint = "; known here: " + strings.Join(names, ", ")
			}
			errs = append(errs, itemError{at + "." + shortened(f.name), f.line, "is not a key" + hint})
			continue
		}
		if err := set(&w, value{text: f.text}); err != nil {
			errs = append(errs, itemError{at + "." + f.name, f.line, err.Error()})
		}
	}
	for _, name := range []string{"limit", "per"} {
		if !seen[name] {
			errs = append(errs, itemError{at + "." + name, r.line, "is missing; a window is such as {limit: 1000, per: 1h}"})
		}
	}
	if len(errs) > 0 {
		return w, errs
	}
	whole := []time.Duration{time.Minute, time.Hour, day}
	switch {
	case w.Calendar && !slices.Contains(whole, w.Per):
		errs = append(errs, itemError{at + ".per", r.line, "of a calendar window is 1m, 1h or 1d; without calendar it may be any"})
	case !w.Calendar && seen["zone"]:
		errs = append(errs, itemError{at + ".zone", r.line, "is for calendar windows; add calendar: true, or remove it"})
	case w.Calendar && !seen["zone"]:
		w.Zone = time.UTC
	}
	return w, errs
}

// per reads a span, also by its name.
func per(v value) (time.Duration, error) {
	if unit, ok := rateUnits[v.text]; ok {
		v.text = "1" + unit
	}
	return span(time.Second, maxPer)(v)
}

// zone finds a time zone by its name in the IANA database.
func zone(s string) (*time.Location, error) {
	// The empty name would be UTC and Local what this machine happens to be set to.
	if s == "" || s == "Local" {
		return nil, errors.New(quote(s) + " is not a time zone; write one such as Europe/Berlin, or UTC")
	}
	loc, err := time.LoadLocation(s)
	if err != nil {
		return nil, errors.New(quote(s) + " is not a time zone; write one such as Europe/Berlin, or UTC")
	}
	return loc, nil
}
