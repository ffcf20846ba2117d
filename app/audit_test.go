package app

import (
	"errors"
	"fmt"
	"io"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"crmsync/console"
	"crmsync/contact"
	"crmsync/emulator"
	"crmsync/queue"
)

func TestDiscard(t *testing.T) {
	t.Parallel()
	h, a, end := dying(t)
	defer end()
	missing := h.letters(a, DeadFilter{Reason: "missing"})
	d, err := a.Discard(t.Context(), ann, DeadFilter{Reason: "missing", Target: "office"}, nil, "test data", nil)
	if err != nil || d != (Discarded{Chosen: 2, Discarded: 2}) {
		t.Errorf("%+v, %v", d, err)
	}
	told := 0
	d, err = a.Discard(t.Context(), ann, DeadFilter{}, []uint64{missing["99"].ID}, "left", func(Discarded) { told++ })
	if err != nil || d.Discarded != 1 || told != 1 {
		t.Errorf("%+v, %v, told %d", d, err, told)
	}
	if _, err := a.Discard(t.Context(), ann, DeadFilter{}, []uint64{missing["99"].ID}, "left", nil); !errors.Is(err, console.ErrUnknownLetter) {
		t.Errorf("again: %v", err)
	}
	if d, err = a.Discard(t.Context(), ann, DeadFilter{Reason: "missing"}, nil, "none", nil); err != nil || d != (Discarded{}) {
		t.Errorf("none left: %+v, %v", d, err)
	}
	if n := len(h.letters(a, DeadFilter{})); n != 2 {
		t.Errorf("%d letters are left", n)
	}
	w, err := a.Why(t.Context(), "office", "78")
	if err != nil || len(w.Events) != 1 || w.Events[0].Record.Outcome != contact.Discarded || !strings.Contains(w.Events[0].Record.Detail, "by ann: test data") {
		t.Errorf("%+v, %v", w, err)
	}
	trail, err := a.Audit(t.Context(), AuditFilter{Action: "discard"})
	if err != nil || len(trail) != 2 || trail[0].Count != 2 || trail[0].Detail != "test data" || trail[0].Filter == nil ||
		trail[1].Contact != "99" || trail[1].Target != "shop" || trail[1].By != "ann" || trail[1].Via != "cli" {
		t.Errorf("%+v, %v", trail, err)
	}
}

func TestAuditKeepsTheNewest(t *testing.T) {
	h := newHouse(t, emulator.Options{}, emulator.Options{})
	a := h.open()
	defer a.Close()
	for i := range 7 {
		if err := a.Hold(t.Context(), ann, "office", fmt.Sprint(i), time.Time{}); err != nil {
			t.Fatal(err)
		}
	}
	for limit, want := range map[int]string{0: "0123456", 3: "456", 9: "0123456"} {
		list, err := a.Audit(t.Context(), AuditFilter{Action: "hold", Target: "office", Limit: limit})
		got := ""
		for _, e := range list {
			got += e.Detail
		}
		if err != nil || got != want {
			t.Errorf("limit %d: %s, %v", limit, got, err)
		}
	}
	until := time.Date(2099, 1, 2, 3, 4, 5, 0, time.UTC)
	if err := a.Hold(t.Context(), ann, "office", "later", until); err != nil {
		t.Fatal(err)
	}
	if list, err := a.Audit(t.Context(), AuditFilter{Limit: 1}); err != nil || list[0].Detail != "until 2099-01-02T03:04:05Z: later" {
		t.Errorf("%+v, %v", list, err)
	}
}

func TestActor(t *testing.T) {
	for want, set := range map[string][]string{
		"ann":                nil,
		"ann as ops":         {"nats.user=ops", "nats.url=nats://h"},
		"ann with ops.creds": {"nats.creds=/etc/ops.creds", "nats.url=nats://h"},
		"ann with ops.nk":    {"nats.nkey=/etc/ops.nk", "nats.url=nats://h"},
	} {
		a := &App{cfg: newHouse(t, emulator.Options{}, emulator.Options{}, set...).cfg}
		if got := a.actor(ann); got.By != want || got.Via != "cli" {
			t.Errorf("%+v, want %s", got, want)
		}
	}
	if who := consoleUser(""); who.By != "console" || who.Via != "api" {
		t.Errorf("%+v", who)
	}
}

func TestLimitsOfLettersAreAnnounced(t *testing.T) {
	h := newHouse(t, emulator.Options{}, emulator.Options{})
	a := h.open()
	defer a.Close()
	now := time.Now()
	put := func(st queue.RetentionStatus) *Kept {
		t.Helper()
		if err := a.q.Put(t.Context(), "letters.retention", st); err != nil {
			t.Fatal(err)
		}
		s, err := a.Status(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		return s.Kept
	}
	limit := queue.Retention{MaxAge: 90 * 24 * time.Hour}
	if k := put(queue.RetentionStatus{Retention: limit, Looked: now, Letters: 3, Removed: 2}); k == nil || k.Text != "" || k.Removed != 2 {
		t.Errorf("far from it: %+v", k)
	}
	if k := put(queue.RetentionStatus{Looked: now}); k != nil {
		t.Errorf("no limit: %+v", k)
	}
	if k := put(queue.RetentionStatus{Retention: limit, Looked: now.Add(-time.Hour)}); k != nil {
		t.Errorf("a limit of former times: %+v", k)
	}
	bites := time.Date(2099, 1, 2, 3, 4, 5, 0, time.UTC)
	k := put(queue.RetentionStatus{Retention: limit, Looked: now, Announced: now, Bites: bites, Removed: 7})
	if k == nil || !strings.Contains(k.Text, "older than 2160h0m0s") || !strings.Contains(k.Text, "the first go 2099-01-02T03:04:05Z") {
		t.Errorf("near: %+v", k)
	}
	text := scrape(t, a)
	for _, want := range []string{"crmsync_dead_letters_removed_total 7\n", "crmsync_dead_letters_removal_timestamp_seconds 4.07"} {
		if !strings.Contains(text, want) {
			t.Errorf("the metrics lack %q", want)
		}
	}
}

func scrape(t *testing.T, a *App) string {
	t.Helper()
	w := httptest.NewRecorder()
	a.Metrics().ServeHTTP(w, httptest.NewRequest("GET", "/metrics", nil))
	return w.Body.String()
}

// Acts upon letters by their ids are found by the target that all of them are of.
func TestAuditOfIDs(t *testing.T) {
	t.Parallel()
	h, a, end := dying(t)
	defer end()
	all := h.letters(a, DeadFilter{})
	for _, ids := range [][]uint64{{all["77"].ID}, {all["77"].ID, all["78"].ID}, {all["77"].ID, all["99"].ID}} {
		if _, _, err := a.Export(t.Context(), ann, DeadFilter{}, ids, ExportNDJSON, io.Discard); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := a.Discard(t.Context(), ann, DeadFilter{}, []uint64{all["77"].ID, all["78"].ID}, "left", nil); err != nil {
		t.Fatal(err)
	}
	got, err := a.Audit(t.Context(), AuditFilter{Target: "office"})
	if err != nil || len(got) != 3 || got[0].Contact != "77" || got[1].Contact != "" || got[2].Action != "discard" || len(got[2].IDs) != 2 {
		t.Errorf("%+v, %v", got, err)
	}
}
