package main

import (
	"io"
	"strings"
	"testing"
	"time"

	"crmsync/app"
)

func TestParseInstant(t *testing.T) {
	zone := time.FixedZone("", 3600)
	now := time.Date(2026, 11, 22, 1, 30, 0, 0, zone)
	for in, want := range map[string]time.Time{
		"2026-11-21T19:00:00Z": time.Date(2026, 11, 21, 19, 0, 0, 0, time.UTC),
		"2026-11-21":           time.Date(2026, 11, 21, 0, 0, 0, 0, zone),
		"90m":                  now.Add(-90 * time.Minute),
		"1h30m":                now.Add(-90 * time.Minute),
		"7d":                   time.Date(2026, 11, 15, 1, 30, 0, 0, zone),
		"0d":                   now,
	} {
		if got, err := parseInstant(in, now); err != nil || !got.Equal(want) {
			t.Errorf("%s: %v, %v, want %v", in, got, err, want)
		}
	}
	for _, in := range []string{"", "yesterday", "-2h", "0s", "2026-13-01", "d", "-1d", "99999999d", "19:00"} {
		if got, err := parseInstant(in, now); err == nil {
			t.Errorf("%q is taken for %v", in, got)
		}
	}
}

func TestChosen(t *testing.T) {
	some := app.DeadFilter{Reason: "missing"}
	for _, tt := range []struct {
		ids []uint64
		f   app.DeadFilter
		all bool
		ok  bool
	}{
		{[]uint64{1}, app.DeadFilter{}, false, true},
		{nil, some, false, true},
		{nil, app.DeadFilter{}, true, true},
		{nil, some, true, true},
		{nil, app.DeadFilter{}, false, false},
		{nil, app.DeadFilter{Newest: true, Limit: 3}, false, false},
		{[]uint64{1}, some, false, false},
		{[]uint64{1}, app.DeadFilter{}, true, false},
	} {
		if err := chosen(tt.ids, tt.f, tt.all); (err == nil) != tt.ok {
			t.Errorf("%+v: %v", tt, err)
		}
	}
}

// A filter of a variable that is not set must not choose all letters there are.
func TestEmptyFilters(t *testing.T) {
	for _, command := range []string{"ls", "groups", "edit --put=a=b", "redrive", "discard --why=x", "export"} {
		for _, flag := range []string{"target", "reason", "status", "field", "job", "contact", "match", "group", "since", "until"} {
			for _, value := range []string{"", " "} {
				args := append([]string{"dead"}, strings.Fields(command)...)
				var told strings.Builder
				got := run(append(args, "--target=office", "--"+flag+"="+value), std{out: io.Discard, err: &told})
				if got != exitUsage || !strings.Contains(told.String(), "--"+flag) {
					t.Errorf("%s --%s=%q: exit code %d, %s", command, flag, value, got, told.String())
				}
			}
		}
	}
	for _, args := range [][]string{
		{"dead", "ls", "--status=0"},
		{"dead", "ls", "--status=600"},
		{"dead", "redrive", "--cancel="},
		{"dead", "redrive", "--continue="},
		{"audit", "--target="},
		{"audit", "--action="},
	} {
		if got := run(args, std{out: io.Discard, err: io.Discard}); got != exitUsage {
			t.Errorf("%s: exit code %d", args, got)
		}
	}
}

// A question that nobody answers is not a yes.
func TestConfirm(t *testing.T) {
	for in, want := range map[string]string{
		"y\n": "", "YES\n": "", "y": "", "n\n": "not confirmed", "\n": "not confirmed", "yes please\n": "not confirmed", "": "there was no answer",
	} {
		var asked strings.Builder
		g := &Globals{std: std{in: strings.NewReader(in), err: &asked}}
		err := g.confirm("send %d?", 7)
		if want == "" && err != nil || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
			t.Errorf("%q: %v, want %q", in, err, want)
		}
		if !strings.HasPrefix(asked.String(), "send 7? [y/N]") {
			t.Errorf("asked %q", asked.String())
		}
	}
}
