package app

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"crmsync/contact"
	"crmsync/emulator"
	"crmsync/queue"
	"crmsync/worker"
)

// another is a second process on the same NATS.
func (h *house) another(a *App) *App {
	h.t.Helper()
	if err := h.cfg.Set("nats.url", a.URL()); err != nil {
		h.t.Fatal(err)
	}
	b, err := Open(h.t.Context(), h.cfg, Options{Version: "test", Log: zerolog.Nop()})
	if err != nil {
		h.t.Fatal(err)
	}
	h.t.Cleanup(func() {
		if err := b.Close(); err != nil {
			h.t.Error(err)
		}
	})
	return b
}

// fill queues n updates of as many contacts for each target.
func (h *house) fill(a *App, n int) {
	h.t.Helper()
	for target, row := range map[string]string{"office": "title", "shop": "company"} {
		var rows strings.Builder
		fmt.Fprintf(&rows, "id,%s\n", row)
		for i := range n {
			fmt.Fprintf(&rows, "%d,new %d\n", i+1, i)
		}
		rep, err := a.Import(h.t.Context(), Import{Target: target, Path: h.write(target+".csv", rows.String()), Class: contact.Bulk, Job: "fill"})
		if err != nil || rep.Queued != int64(n) {
			h.t.Fatalf("%s: %+v, %v", target, rep, err)
		}
	}
}

// Two targets of one quota, one of them idle half of the time, and the worker
// replaced in the middle: together they stay within rate and window and use
// them.
func TestSharedQuota(t *testing.T) {
	inSim(t, func(t *testing.T) {
		const n, rate, burst, limit, span = 22, 30.0, 4, 40, 6 * time.Second
		w := newSimWorld(t, simOptions{
			seed: 1, procs: 2, conc: 4, perfex: emulator.Perfex303, shared: "{rate: 30/s, burst: 4, windows: [{limit: 40, per: 6s}]}",
			timeout: 3 * time.Second, retry: time.Second, attempts: 8, log: zerolog.Nop(),
		})
		defer w.close()
		for _, target := range simTargets {
			for i := range n {
				w.publishOne(t.Context(), w.actor("producer"), target, fmt.Sprint(10*(i+1)), nil)
			}
		}
		ledgers := func() (all []emulator.Entry) {
			return slices.Concat(w.crms[simOffice].Ledger(), w.crms[simShop].Ledger())
		}
		began := time.Now()
		first := w.start(0)
		for len(ledgers()) < limit/2 {
			time.Sleep(5 * time.Millisecond)
		}
		w.start(1)
		first.end()
		<-first.ended
		w.untilQuiet(t.Context())
		took := time.Since(began)

		const late = 20 * time.Millisecond // what a link delays at most, not all alike
		all := ledgers()
		if over, first := emulator.OverQuota(all, rate, burst, late); over > 0 {
			t.Errorf("%d of %d requests beyond %g/s, burst %d, the first at %s", over, len(all), rate, burst, first.Arrived.Sub(began))
		}
		if peak := emulator.PeakRate(all, span-late); peak > limit {
			t.Errorf("%d requests in %s, %d are allowed", peak, span, limit)
		}
		for target, c := range w.crms {
			if got := len(c.Ledger()); got < n {
				t.Errorf("%s: %d requests", target, got)
			}
		}
		// Two thirds of what the window allows, handing over and all.
		if most := time.Duration(float64(len(all))/limit*1.5*float64(span)) + time.Second; took > most {
			t.Errorf("%d requests took %s", len(all), took)
		}
	})
}

// What is stored of a shared quota outlives its owner with what it may have used
// since, and a former owner can neither write over it nor spend on.
func TestSharedQuotaChangesHands(t *testing.T) {
	h := newHouse(t, emulator.Options{}, emulator.Options{},
		"targets.office.quota_group=agency", "targets.shop.quota_group=agency", "quotas.agency.per_hour=1000")
	a := h.open()
	defer a.Close()
	b := h.another(a)
	ctx := t.Context()
	if _, err := a.LimitShared(ctx, Who{By: "ann"}, "agency", worker.Limits{PerHour: 500}); err != nil {
		t.Fatal(err)
	}
	if shared, leave, err := a.share(ctx, "office"); err != nil {
		t.Fatal(err)
	} else if w := shared.Describe(time.Now()).Windows; len(w) != 1 || w[0].Limit != 500 {
		t.Errorf("limited to 500 per hour: %+v", w)
	} else if again, leaveAgain, err := a.share(ctx, "shop"); err != nil || again != shared {
		t.Errorf("the second member has another budget: %v", err)
	} else {
		leave()
		leaveAgain()
	}
	released := h.shared(a)
	if len(released.Spent) == 0 || released.Spent[0].Granted != 0 {
		t.Errorf("after the last has left there is a grant: %+v", released.Spent)
	}

	_, leave, err := a.share(ctx, "office")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := a.LimitShared(ctx, Who{By: "ann"}, "agency", worker.Limits{PerHour: 400, Until: time.Now().Add(-time.Second)}); err != nil {
		t.Fatal(err)
	}
	held := h.shared(a)
	if held.Spent[0].Granted < 1 || held.Writer == released.Writer {
		t.Errorf("an owner has no grant: %+v", held)
	}
	// Without a word to the first, as after a crash.
	heir, leaveHeir, err := b.share(ctx, "shop")
	if err != nil {
		t.Fatal(err)
	}
	windows := heir.Describe(time.Now()).Windows
	if len(windows) != 1 || windows[0].Limit != 1000 {
		t.Errorf("limits that have run out count: %+v", windows)
	}
	if len(windows) != 1 || windows[0].Used != held.Spent[0].Granted {
		t.Errorf("the heir counts %+v, what was granted is %d", windows, held.Spent[0].Granted)
	}
	g := a.groups["agency"]
	if err := a.storeGroup(ctx, g, g.budget.Memory(time.Now())); !errors.Is(err, queue.ErrChanged) {
		t.Errorf("a former owner stores: %v", err)
	}
	leave()
	if got := h.shared(a); got.Writer != b.groups["agency"].writer {
		t.Errorf("a former owner's parting word counts: %+v", got)
	}
	// An answer that was lost leaves the revision unknown.
	g = b.groups["agency"]
	g.rev--
	if err := b.storeGroup(ctx, g, heir.Memory(time.Now())); err != nil {
		t.Errorf("after a lost answer: %v", err)
	}
	leaveHeir()
}

func (h *house) shared(a *App) (s sharedState) {
	h.t.Helper()
	if _, err := a.q.Get(h.t.Context(), sharedKey+"agency", &s); err != nil {
		h.t.Fatal(err)
	}
	return s
}

// A budget whose group another process has taken sends nothing more.
func TestLostSharedQuotaSendsNothing(t *testing.T) {
	t.Parallel()
	for _, quota := range []string{"per_hour=40", "rate=100/s"} {
		t.Run(quota, func(t *testing.T) { testLostSharedQuota(t, quota) })
	}
}

func testLostSharedQuota(t *testing.T, quota string) {
	h := newHouse(t, emulator.Options{Contacts: 20}, emulator.Options{}, "targets.office.quota_group=agency", "quotas.agency."+quota)
	a := h.open()
	defer a.Close()
	stop := h.work(a)
	defer stop()
	if _, err := a.Publish(t.Context(), Message{Target: "office", Contact: "1", Body: []byte(`{"fields":{"title":"a"}}`)}); err != nil {
		t.Fatal(err)
	}
	h.settled(a)
	before := len(h.office.Ledger())
	if err := a.q.Put(t.Context(), sharedKey+"agency", sharedState{Writer: "somebody else"}); err != nil {
		t.Fatal(err)
	}
	if strings.HasPrefix(quota, "rate") { // it is stored now and then only
		if err := a.storeGroup(t.Context(), a.groups["agency"], nil); !errors.Is(err, queue.ErrChanged) {
			t.Error(err)
		}
	}
	h.fill(a, 20)
	for end := time.Now().Add(10 * time.Second); ; <-time.After(10 * time.Millisecond) {
		st, ok := a.lane("office").Status(t.Context())
		if strings.Contains(st.Waiting, "to be stored") {
			break
		}
		if !ok || time.Now().After(end) {
			t.Fatalf("it waits for %s after %d requests", st.Waiting, len(h.office.Ledger()))
		}
	}
	// What was granted may have been used; nothing beyond it.
	if n := len(h.office.Ledger()) - before; n > 4 {
		t.Errorf("%d requests with a quota that is somebody else's", n)
	}
}

// Orders that two operators give at once both count.
func TestOrdersAreNotLost(t *testing.T) {
	h := newHouse(t, emulator.Options{}, emulator.Options{})
	a := h.open()
	defer a.Close()
	const each = 8
	done := make(chan error)
	for i := range 4 {
		go func() {
			var err error
			for range each {
				_, e := a.Steer(context.Background(), "office", func(o *worker.Orders) {
					o.Limits.PerHour++ // as many as Steer was called
					o.Note = fmt.Sprint(i)
				})
				err = errors.Join(err, e)
			}
			done <- err
		}()
	}
	for range 4 {
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
	var stored worker.Orders
	if _, err := a.q.Get(t.Context(), ordersKey+"office", &stored); err != nil || stored.Limits.PerHour != 4*each {
		t.Errorf("of %d orders %d count: %v", 4*each, stored.Limits.PerHour, err)
	}
	o, err := a.Limit(t.Context(), Who{By: "ann"}, "office", worker.Limits{Rate: 3})
	if err != nil || o.Limits.Rate != 3 || o.Limits.PerHour != 0 || o.Limits.Since.IsZero() || o.Note == "" {
		t.Errorf("limits take the place of those before: %+v, %v", o, err)
	}
	if o, err := a.Unlimit(t.Context(), Who{By: "ann"}, "office"); err != nil || o.Limits != (worker.Limits{}) || o.Note == "" {
		t.Errorf("unlimited: %+v, %v", o, err)
	}
}
