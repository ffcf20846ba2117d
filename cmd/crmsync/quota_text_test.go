package main

import (
	"strings"
	"testing"
	"time"

	"crmsync/app"
)

func TestClockTime(t *testing.T) {
	now := time.Date(2026, 11, 22, 23, 30, 0, 0, time.Local) // a Sunday
	for in, want := range map[time.Duration]string{
		0:                     "23:30:00",
		-23 * time.Hour:       "00:30:00",
		31 * time.Minute:      "00:01 (Mon)",
		5 * time.Hour:         "04:30 (Mon)",
		-24 * time.Hour:       "23:30 (Sat)",
		6 * 24 * time.Hour:    "23:30 (Sat)",
		7 * 24 * time.Hour:    "29 Nov 2026 23:30",
		-7 * 24 * time.Hour:   "15 Nov 2026 23:30",
		365 * 24 * time.Hour:  "22 Nov 2027 23:30",
		-730 * 24 * time.Hour: "22 Nov 2024 23:30",
	} {
		if got := clockTime(now.Add(in), now); got != want {
			t.Errorf("%s from now: %s, want %s", in, got, want)
		}
	}
}

func TestETAText(t *testing.T) {
	now := time.Date(2026, 11, 21, 23, 0, 0, 0, time.Local) // a Saturday
	for want, e := range map[string]app.ETA{
		"is done about 04:12 (Sun): 12345 update(s), 24690 request(s) at 3.9/s":                                           {Done: now.Add(5*time.Hour + 12*time.Minute), Updates: 12345, Requests: 24690, Rate: 3.9},
		"is done about 23:00:01: 1 update(s), 1 request(s)":                                                               {Done: now.Add(600 * time.Millisecond), Updates: 1, Requests: 1, Rate: 1.7},
		"is done about 08:00 (Sun): 9 update(s), 9 request(s) at 0.5/s; it goes on at 06:00 (Sun): the quota of 10 a day": {Done: now.Add(9 * time.Hour), From: now.Add(7 * time.Hour), Why: "the quota of 10 a day", Updates: 9, Requests: 9, Rate: 0.5},
		"has 7 update(s) to do, nobody knows until when: the CRM fails; it is probed":                                     {Updates: 7, Requests: 7, Why: "the CRM fails; it is probed"},
	} {
		if got := etaText(&e, now); got != want {
			t.Errorf("\n got %s\nwant %s", got, want)
		}
	}
}

func TestQuotaText(t *testing.T) {
	now := time.Date(2026, 11, 22, 12, 0, 0, 0, time.Local)
	in := func(d time.Duration) time.Time { return now.Add(d) }
	for name, c := range map[string]struct {
		q    app.QuotaStatus
		want []string
	}{
		"free":    {app.QuotaStatus{Used: 12.34}, []string{"x quota: 12.3/s used of no limit"}},
		"learned": {app.QuotaStatus{Used: 1, Rate: 1.5, Slowed: app.SlowedByRefusals}, []string{"x quota: 1/s used of 1.5/s now, since it refuses more"}},
		"slowed": {
			app.QuotaStatus{Used: 1, Rate: 1.5, Allowed: 4, Burst: 8, Reserve: 0.2, Slowed: app.SlowedByOutage},
			[]string{"x quota: 1/s used of 1.5/s now, rising after an outage; 4/s allowed, burst 8, 20% left to others"},
		},
		"told": {
			app.QuotaStatus{
				Rate: 2, Allowed: 4, Burst: 1, Slowed: app.SlowedByAdvertised, Asked: in(30 * time.Second),
				Windows: []app.WindowStatus{
					{Span: time.Hour, Used: 7, Limit: 10, Left: 3, Resets: in(time.Minute)},
					{Span: 24 * time.Hour, Calendar: true, Zone: "Europe/Berlin", Limit: 9, Left: 9},
					{Span: 10 * time.Minute, Limit: 5, Left: 5},
					{Span: 7 * 24 * time.Hour, Limit: 5, Left: 5},
					{Span: 90 * time.Minute, Limit: 5, Left: 5},
					{Span: time.Minute, Calendar: true, Limit: 5, Left: 5},
				},
				Advertised: []app.AdvertisedStatus{
					{Limit: 100, Left: 40, Window: time.Minute, Resets: in(40 * time.Second), At: in(-5 * time.Second)},
					{Left: 3, At: now, Unenforced: true},
				},
			},
			[]string{
				"x quota: 0/s used of 2/s now, to make do with what the CRM says is left; 4/s allowed, burst 1",
				"  per hour: 7 of 10 used, 3 left, more from 12:01:00",
				"  per calendar day in Europe/Berlin: 0 of 9 used, 9 left",
				"  per 10m: 0 of 5 used, 5 left",
				"  per 7 days: 0 of 5 used, 5 left",
				"  per 1h30m: 0 of 5 used, 5 left",
				"  per calendar minute in UTC: 0 of 5 used, 5 left",
				"  the CRM says (11:59:55): 40 left of 100 per minute, until 12:00:40",
				"  the CRM says (12:00:00): 3 left; not heeded, since it serves more than that",
				"  the CRM wants nothing before 12:00:30",
			},
		},
	} {
		var b strings.Builder
		printBudget(&b, "x", &c.q, now)
		if want := strings.Join(c.want, "\n") + "\n"; b.String() != want {
			t.Errorf("%s:\n got %s\nwant %s", name, b.String(), want)
		}
	}
}

func TestRateOf(t *testing.T) {
	for want, q := range map[string]app.QuotaStatus{
		"3/s, no limit":   {Used: 3},
		"3 of 4/s":        {Used: 3, Rate: 4, Allowed: 4},
		"1 of 2.5 (4)/s":  {Used: 1, Rate: 2.5, Allowed: 4},
		"1 of 2.5/s":      {Used: 1, Rate: 2.5},
		"0.25 of 0.278/s": {Used: 0.25, Rate: 0.2778, Allowed: 0.2778},
	} {
		if got := rateOf(&q); got != want {
			t.Errorf("%+v: %s, want %s", q, got, want)
		}
	}
}
