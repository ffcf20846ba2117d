package app

import (
	"fmt"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"crmsync/contact"
	"crmsync/emulator"
	"crmsync/worker"
)

// Limits end by themselves, and what the configuration says counts again: also
// where that is to send nothing.
func TestLimitsEnd(t *testing.T) {
	h := newHouse(t, emulator.Options{}, emulator.Options{}, "targets.office.quota.rate=0/s")
	a := h.open()
	defer a.Close()
	soon, ago := time.Now().Add(time.Hour), time.Now().Add(-time.Second)
	for _, c := range []struct {
		target string
		until  time.Time
		hold   bool
		rate   float64
	}{
		{"office", time.Time{}, false, 3},
		{"office", soon, false, 3},
		{"office", ago, true, 0},
		{"shop", time.Time{}, false, 3},
		{"shop", soon, false, 3},
		{"shop", ago, false, 0},
	} {
		a.orders[c.target] = worker.Orders{Limits: worker.Limits{Rate: 3, Until: c.until}}
		if got := a.ordersOf(c.target); got.Hold != c.hold || got.Limits.Rate != c.rate {
			t.Errorf("%s until %s: %+v", c.target, c.until, got)
		}
	}
	// A limit that is no rate leaves a target without one held.
	a.orders["office"] = worker.Orders{Limits: worker.Limits{Concurrency: 2}}
	if got := a.ordersOf("office"); !got.Hold || got.Limits.Concurrency != 2 {
		t.Errorf("%+v", got)
	}
}

// A running lane takes limits at once and returns from them when they run out.
func TestLaneReturnsFromLimits(t *testing.T) {
	t.Parallel() // it mostly waits
	h := newHouse(t, emulator.Options{Contacts: 10}, emulator.Options{})
	a := h.open()
	defer a.Close()
	defer h.work(a)()
	allowed := func(want float64, within time.Duration) {
		t.Helper()
		var last worker.Status
		for end := time.Now().Add(within); time.Now().Before(end); <-time.After(10 * time.Millisecond) {
			if l := a.lane("office"); l != nil {
				if st, ok := l.Status(t.Context()); ok && st.Allowed == want {
					return
				} else if ok {
					last = st
				}
			}
		}
		t.Fatalf("allowed is %v, want %v: %+v", last.Allowed, want, last.Orders)
	}
	allowed(2000, 10*time.Second)
	until := time.Now().Add(1500 * time.Millisecond)
	if _, err := a.Limit(t.Context(), Who{By: "ann"}, "office", worker.Limits{Rate: 5, Until: until}); err != nil {
		t.Fatal(err)
	}
	allowed(5, time.Second)
	st, err := a.Status(t.Context())
	if err != nil || st.Targets[0].Orders.Limits.By != "ann" {
		t.Errorf("status: %+v, %v", st.Targets[0].Orders, err)
	}
	allowed(2000, 5*time.Second)
	if now := time.Now(); now.Before(until) {
		t.Errorf("returned %s early", until.Sub(now))
	}
	st, err = a.Status(t.Context())
	if err != nil || st.Targets[0].Orders.Limits != (worker.Limits{}) {
		t.Errorf("status after they ran out: %+v, %v", st.Targets[0].Orders, err)
	}
	// What has run out is gone when the next orders are given.
	o, err := a.Steer(t.Context(), "office", func(o *worker.Orders) { o.Note = "x" })
	if err != nil || o.Limits != (worker.Limits{}) {
		t.Errorf("orders: %+v, %v", o, err)
	}
}

func TestForetell(t *testing.T) {
	now := time.Date(2026, 11, 22, 3, 0, 0, 0, time.UTC)
	in := func(d time.Duration) time.Time { return now.Add(d) }
	// The quota lets a request through each second.
	everySecond := func(n int) time.Time { return in(time.Duration(n) * time.Second) }
	ended := worker.Counts{Outcomes: map[contact.Outcome]int64{contact.Applied: 30, contact.Unchanged: 10}, Requests: 60}
	few := worker.Counts{Outcomes: map[contact.Outcome]int64{contact.Applied: measuredFrom - 1}, Requests: 1000}
	skipped := worker.Counts{Outcomes: map[contact.Outcome]int64{contact.Superseded: 1000}}
	limited := worker.QuotaStatus{Rate: 1, Allowed: 1, Used: 0.25}
	hold := func(r worker.HoldReason, until time.Time) *worker.Hold { return &worker.Hold{Reason: r, Until: until} }
	for _, c := range []struct {
		name    string
		kind    string
		updates int64
		lane    worker.Status
		allowed func(int) time.Time
		want    *ETA
	}{
		{"nothing waits", "evance", 0, worker.Status{QuotaStatus: limited}, everySecond, nil},
		{"one request each", "evance", 10, worker.Status{QuotaStatus: limited}, everySecond, &ETA{Done: in(10 * time.Second), Updates: 10, Requests: 10, Rate: 1}},
		{"two each", "perfex", 10, worker.Status{QuotaStatus: limited}, everySecond, &ETA{Done: in(20 * time.Second), Updates: 10, Requests: 20, Rate: 1}},
		{"too few to measure", "perfex", 10, worker.Status{QuotaStatus: limited, Counts: few}, everySecond, &ETA{Done: in(20 * time.Second), Updates: 10, Requests: 20, Rate: 1}},
		{"as measured", "perfex", 10, worker.Status{QuotaStatus: limited, Counts: ended}, everySecond, &ETA{Done: in(15 * time.Second), Updates: 10, Requests: 15, Rate: 1}},
		{"next to nothing each", "perfex", 10, worker.Status{QuotaStatus: limited, Counts: skipped}, everySecond, &ETA{Done: in(time.Second), Updates: 10, Requests: 1, Rate: 1}},
		{
			"the CRM is slow", "evance", 10,
			worker.Status{QuotaStatus: limited, Calling: 4, Waiting: worker.WaitConnection},
			everySecond,
			&ETA{Done: in(40 * time.Second), Updates: 10, Requests: 10, Rate: 0.25},
		},
		{
			"no limit", "evance", 10,
			worker.Status{QuotaStatus: worker.QuotaStatus{Used: 5}},
			func(int) time.Time { return now },
			&ETA{Done: in(2 * time.Second), Updates: 10, Requests: 10, Rate: 5},
		},
		{
			"no limit, nothing measured", "evance", 10,
			worker.Status{},
			func(int) time.Time { return now },
			&ETA{Why: "nothing limits the rate, and none has been measured yet", Updates: 10, Requests: 10},
		},
		{
			"only the shared one limits", "evance", 10,
			worker.Status{Shared: &limited},
			everySecond,
			&ETA{Done: in(10 * time.Second), Updates: 10, Requests: 10, Rate: 1},
		},
		{
			"window spent", "evance", 10,
			worker.Status{QuotaStatus: limited, Waiting: "the quota of 9 a day", Until: in(3 * time.Hour), Hold: hold(worker.HoldQuota, in(3*time.Hour))},
			func(n int) time.Time { return in(3*time.Hour + time.Duration(n)*time.Second) },
			&ETA{Done: in(3*time.Hour + 10*time.Second), From: in(3 * time.Hour), Why: "the quota of 9 a day", Updates: 10, Requests: 10, Rate: 10. / 10810},
		},
		{
			"a pause between requests is no hold", "evance", 10,
			worker.Status{QuotaStatus: limited, Waiting: "the quota", Until: in(time.Second)},
			everySecond,
			&ETA{Done: in(10 * time.Second), Updates: 10, Requests: 10, Rate: 1},
		},
		{
			"held by an operator", "evance", 10,
			worker.Status{QuotaStatus: limited, Hold: hold(worker.HoldOperator, time.Time{})},
			everySecond,
			&ETA{Why: "held until somebody resumes it", Updates: 10, Requests: 10},
		},
		{
			"held for an hour", "evance", 10,
			worker.Status{QuotaStatus: limited, Waiting: "the operator", Until: in(time.Hour), Hold: hold(worker.HoldOperator, in(time.Hour))},
			everySecond,
			&ETA{Done: in(time.Hour + 10*time.Second), From: in(time.Hour), Why: "the operator", Updates: 10, Requests: 10, Rate: 10. / 3610},
		},
		{"outage", "evance", 10, worker.Status{Hold: hold(worker.HoldOutage, time.Time{})}, everySecond, &ETA{Why: "the CRM fails; it is probed", Updates: 10, Requests: 10}},
		{"credentials", "evance", 10, worker.Status{Hold: hold(worker.HoldCredentials, time.Time{})}, everySecond, &ETA{Why: "the CRM refuses our credentials", Updates: 10, Requests: 10}},
		{"a reason to come", "evance", 10, worker.Status{Hold: hold("storm", time.Time{})}, everySecond, &ETA{Why: "held: storm", Updates: 10, Requests: 10}},
		{
			"only retries are left", "evance", 2,
			worker.Status{QuotaStatus: limited, Contacts: 2, Retries: []worker.Waiter{{Due: in(time.Minute)}, {Due: in(5 * time.Minute)}}},
			everySecond,
			&ETA{Done: in(5 * time.Minute), Updates: 2, Requests: 2, Rate: 2. / 300},
		},
		{
			"retries among others", "evance", 2,
			worker.Status{QuotaStatus: limited, Contacts: 2, Retries: []worker.Waiter{{Due: in(time.Minute)}}},
			everySecond,
			&ETA{Done: in(2 * time.Second), Updates: 2, Requests: 2, Rate: 1},
		},
		{
			"for ever", "evance", 10,
			worker.Status{QuotaStatus: limited},
			func(int) time.Time { return now.AddDate(100, 0, 0) },
			&ETA{Why: "at this rate it takes more than ten years", Updates: 10, Requests: 10},
		},
	} {
		got := foretell(now, c.kind, c.updates, &c.lane, c.allowed)
		if got == nil || c.want == nil {
			if got != c.want {
				t.Errorf("%s: %+v, want %+v", c.name, got, c.want)
			}
			continue
		}
		if *got != *c.want {
			t.Errorf("%s:\n got %+v\nwant %+v", c.name, *got, *c.want)
		}
	}
}

// What is foretold comes true, and other processes are told of it.
func TestETAComesTrue(t *testing.T) {
	inSim(t, func(t *testing.T) {
		const n = 60
		w := newSimWorld(t, simOptions{
			seed: 1, procs: 1, rate: 4, burst: 1, conc: 4, perfex: emulator.Perfex303,
			timeout: 3 * time.Second, retry: time.Second, attempts: 8, log: zerolog.Nop(),
		})
		defer w.close()
		for i := range n {
			w.publishOne(t.Context(), w.actor("producer"), simOffice, fmt.Sprint(10*(i+1)), nil)
		}
		look := func() (eta *ETA, waiting int64) {
			st, err := w.control.Status(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			return st.Targets[0].ETA, st.Targets[0].Queue["live"].Waiting + st.Targets[0].Queue["bulk"].Waiting
		}
		if e, _ := look(); e == nil || e.Updates != n || e.Why != "nobody runs it" {
			t.Fatalf("before it runs: %+v", e)
		}
		w.start(0)
		var done time.Time
		for e, waiting := look(); waiting > 0; e, waiting = look() {
			if done.IsZero() && e != nil && !e.Done.IsZero() {
				done = e.Done
				if e.Rate < 3.6 || e.Rate > 4.4 || e.Requests != 2*e.Updates {
					t.Errorf("foretold %+v", e)
				}
			}
			time.Sleep(100 * time.Millisecond)
		}
		if off := time.Since(done); done.IsZero() || off < -time.Second || off > 2*time.Second {
			t.Errorf("it ended %s after the time foretold", off)
		}
		time.Sleep(2 * time.Second)
		if e, _ := look(); e != nil {
			t.Errorf("when nothing waits: %+v", e)
		}
	})
}
