package main

import (
	"errors"
	"io"
	"strings"
	"testing"
	"time"

	"crmsync/app"
	"crmsync/contact"
	"crmsync/queue"
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

// Who sends nothing of what a filter chose is told by the exit code, too.
func TestRedriveExit(t *testing.T) {
	op := func(sent int64, ids []uint64, skipped int64, dead int64, state string) app.Operation {
		var o app.Operation
		o.Sent, o.IDs, o.State = sent, ids, app.OperationDone
		switch state {
		case "cancelled":
			o.State = app.OperationCancelled
		case "stopped":
			o.State = app.OperationStopped
		}
		if skipped > 0 {
			o.Skipped = map[queue.Skip]int64{queue.SkipTooOld: skipped}
		}
		o.Ended = map[contact.Outcome]int64{contact.Dead: dead, contact.Applied: sent - dead}
		return o
	}
	for name, tt := range map[string]struct {
		o    app.Operation
		want int
	}{
		"all sent":         {op(3, nil, 0, 0, ""), exitOK},
		"some sent":        {op(3, nil, 2, 0, ""), exitOK},
		"none sent":        {op(0, nil, 2, 0, ""), exitRejects},
		"none there":       {op(0, nil, 0, 0, ""), exitOK},
		"named, not sent":  {op(0, []uint64{1}, 1, 0, ""), exitFailure},
		"named, some sent": {op(1, []uint64{1, 2}, 1, 0, ""), exitFailure},
		"dead again":       {op(3, nil, 0, 1, ""), exitRejects},
		"cancelled":        {op(3, nil, 0, 0, "cancelled"), exitFailure},
		"stopped":          {op(3, nil, 0, 1, "stopped"), exitRejects},
	} {
		got := exitOK
		var exit *exitError
		if errors.As(redriveExit(tt.o), &exit) {
			got = exit.code
		}
		if got != tt.want {
			t.Errorf("%s: %d, want %d", name, got, tt.want)
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
