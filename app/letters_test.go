package app

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"time"

	"crmsync/config"
	"crmsync/console"
	"crmsync/contact"
	"crmsync/emulator"
	"crmsync/queue"
)

// raw publishes bytes as they are, as any NATS client can.
func (h *house) raw(a *App, target, id, body string) {
	h.t.Helper()
	u := &contact.Update{Contact: contact.Key{Target: target, ID: id}, Raw: []byte(body)}
	if _, err := a.q.Publish(h.t.Context(), u); err != nil {
		h.t.Fatal(err)
	}
}

// letters are the dead letters that a filter chooses, by contact.
func (h *house) letters(a *App, f DeadFilter) map[string]Letter {
	h.t.Helper()
	out := map[string]Letter{}
	if err := a.Dead(h.t.Context(), f, func(l Letter) error { out[l.Contact] = l; return nil }); err != nil {
		h.t.Fatal(err)
	}
	return out
}

// redrive carries a redrive out to its end.
func (h *house) redrive(a *App, r Redrive) Operation {
	h.t.Helper()
	ctx, cancel := context.WithTimeout(h.t.Context(), time.Minute)
	defer cancel()
	o, err := a.StartRedrive(ctx, ann, r)
	if err != nil {
		h.t.Fatal(err)
	}
	if o, err = a.RunRedrive(ctx, o.ID, nil); err != nil {
		h.t.Fatal(err)
	}
	return o
}

// dying is a house in which these contacts' updates have died: 1 of an address
// that is taken, 77 and 78 because they do not exist, bytes that are no update at 5.
func dying(t *testing.T) (*house, *App, func()) {
	t.Helper()
	h := newHouse(t, emulator.Options{Contacts: 10}, emulator.Options{Contacts: 10})
	a := h.open()
	h.raw(a, "office", "1", `{"fields":{"email":"contact2@example.com","password":"hunter2","title":"Boss"}}`)
	h.raw(a, "office", "77", `{"fields":{"title":"Nobody"}}`)
	h.raw(a, "office", "78", `{"fields":{"title":"No one"},"version":4}`)
	h.raw(a, "office", "5", `{"password": "hunter2", not JSON`)
	h.raw(a, "shop", "99", `{"fields":{"address":{"city":"Ely"},"phone":"1"}}`)
	stop := h.work(a)
	h.settled(a)
	return h, a, func() { stop(); a.Close() }
}

func TestLettersByEveryFilter(t *testing.T) {
	t.Parallel()
	h, a, end := dying(t)
	defer end()
	all := h.letters(a, DeadFilter{})
	if len(all) != 5 {
		t.Fatalf("letters %+v", all)
	}
	for name, tt := range map[string]struct {
		f    DeadFilter
		want string
	}{
		"target":   {DeadFilter{Target: "shop"}, "99"},
		"reason":   {DeadFilter{Reason: "missing", Target: "office"}, "77 78"},
		"status":   {DeadFilter{Status: 409}, "1"},
		"field":    {DeadFilter{Field: "email"}, "1"},
		"set":      {DeadFilter{Field: "title"}, ""},
		"path":     {DeadFilter{Match: "address.city"}, "99"},
		"contact":  {DeadFilter{Target: "office", Contact: "78"}, "78"},
		"match":    {DeadFilter{Match: "ALREADY"}, "1"},
		"group":    {DeadFilter{Group: all["77"].Group, Target: "office"}, "77 78"},
		"since":    {DeadFilter{Since: time.Now().Add(time.Hour)}, ""},
		"until":    {DeadFilter{Until: time.Now().Add(-time.Hour)}, ""},
		"after":    {DeadFilter{Target: "office", Reason: "missing", After: min(all["77"].ID, all["78"].ID)}, ""},
		"together": {DeadFilter{Target: "office", Reason: "missing", Match: "no data", Status: 404, Contact: "77"}, "77"},
	} {
		got := strings.Join(sortedKeys(h.letters(a, tt.f)), " ")
		if name == "after" {
			if len(h.letters(a, tt.f)) != 1 {
				t.Errorf("%s: %q", name, got)
			}
			continue
		}
		if got != tt.want {
			t.Errorf("%s: %q, want %q", name, got, tt.want)
		}
		if n, err := a.CountDead(t.Context(), tt.f); err != nil || int(n) != len(strings.Fields(tt.want)) {
			t.Errorf("%s: count %d, %v", name, n, err)
		}
	}
	var ids []uint64
	if err := a.Dead(t.Context(), DeadFilter{Newest: true, Limit: 3}, func(l Letter) error { ids = append(ids, l.ID); return nil }); err != nil {
		t.Fatal(err)
	}
	if len(ids) != 3 || ids[0] < ids[1] || ids[1] < ids[2] {
		t.Errorf("the newest three: %v", ids)
	}
	for _, f := range []DeadFilter{{Reason: "nonsense"}, {Group: "xyz"}, {Target: "No"}} {
		if err := a.Dead(t.Context(), f, func(Letter) error { return nil }); err == nil {
			t.Errorf("%+v is taken", f)
		}
	}
	if !(DeadFilter{Newest: true, After: 3, Limit: 4}).IsZero() || (DeadFilter{Status: 1}).IsZero() {
		t.Error("what chooses nothing is not told from what does")
	}
}

func TestGroups(t *testing.T) {
	t.Parallel()
	_, a, end := dying(t)
	defer end()
	groups, err := a.Groups(t.Context(), DeadFilter{Target: "office"})
	if err != nil || len(groups) != 3 {
		t.Fatalf("%+v, %v", groups, err)
	}
	g := groups[0]
	if g.Count != 2 || g.Reason != "missing" || g.Status != 404 || len(g.Samples) != 2 || g.LastHour != 2 || g.Trend != "new: 2 in the last hour" ||
		!strings.Contains(g.Suggestion, "customers") || g.First.IsZero() || g.Last.Before(g.First) {
		t.Errorf("%+v", g)
	}
	for _, g := range groups {
		if g.Suggestion == "" {
			t.Errorf("%s: nothing is suggested", g.Reason)
		}
	}
}

func TestTrend(t *testing.T) {
	for _, tt := range []struct {
		last, before int64
		want         string
	}{{0, 0, "quiet"}, {0, 3, "ended"}, {2, 0, "new"}, {3, 2, "rising"}, {1, 2, "falling"}, {2, 2, "steady"}} {
		if got := trend(tt.last, tt.before); !strings.HasPrefix(got, tt.want) {
			t.Errorf("%d after %d: %q", tt.last, tt.before, got)
		}
	}
}

// Bytes that are no update can be shown, exported and discarded, and sent again
// only with a body.
func TestMalformedLetter(t *testing.T) {
	t.Parallel()
	h, a, end := dying(t)
	defer end()
	id := h.letters(a, DeadFilter{Reason: "malformed"})["5"].ID
	l, err := a.Letter(t.Context(), id)
	if err != nil || l.Body != nil || !strings.Contains(string(l.Bytes), "not JSON") || strings.Contains(string(l.Bytes), "hunter2") {
		t.Errorf("shown: %s, %v", l.Bytes, err)
	}
	var out bytes.Buffer
	if n, format, err := a.Export(t.Context(), ann, DeadFilter{Reason: "malformed"}, nil, ExportAuto, &out); err != nil || n != 1 || format != ExportNDJSON ||
		!strings.Contains(out.String(), `"bytes":"`) || strings.Contains(out.String(), "hunter2") {
		t.Errorf("exported: %s, %v", &out, err)
	}
	out.Reset()
	if n, _, err := a.Export(t.Context(), ann, DeadFilter{}, []uint64{id}, ExportCSV, &out); err != nil || n != 1 || !strings.Contains(out.String(), ",5,malformed,") {
		t.Errorf("exported as a table: %s, %v", &out, err)
	}
	if f, err := a.Foresee(t.Context(), Redrive{IDs: []uint64{id}}); err != nil || f.Sendable != 0 || f.Skipped[queue.SkipUnsendable] != 1 {
		t.Errorf("foreseen: %+v, %v", f, err)
	}
	if o := h.redrive(a, Redrive{IDs: []uint64{id}}); o.Sent != 0 || o.Skipped[queue.SkipUnsendable] != 1 {
		t.Errorf("sent unedited: %+v", o)
	}
	if _, err := a.LookAt(t.Context(), id); err == nil || !strings.Contains(err.Error(), "no update") {
		t.Errorf("compared: %v", err)
	}
	if _, err := a.PlanEdit(t.Context(), id, &Edits{Set: []Setting{{"title", "x"}}}); err == nil {
		t.Error("edited by field")
	}
	p, err := a.PlanEdit(t.Context(), id, &Edits{Body: []byte(`{"fields":{"title":"Right"}}`)})
	if err == nil {
		err = a.Edit(t.Context(), ann, p)
	}
	if err != nil {
		t.Fatal(err)
	}
	if o := h.redrive(a, Redrive{IDs: []uint64{id}}); o.Ended[contact.Applied] != 1 {
		t.Errorf("sent edited: %+v", o)
	}
	if c, _ := h.office.Contact("5"); c["title"] != "Right" {
		t.Errorf("contact 5: %v", c["title"])
	}
}

// Of two operators who edit the same letter the second is told.
func TestTwoEditors(t *testing.T) {
	t.Parallel()
	h, a, end := dying(t)
	defer end()
	id := h.letters(a, DeadFilter{Reason: "conflict"})["1"].ID
	plan := func(email string) EditPlan {
		p, err := a.PlanEdit(t.Context(), id, &Edits{Set: []Setting{{"email", email}}})
		if err != nil || len(p.Changes) != 1 {
			t.Fatalf("%+v, %v", p, err)
		}
		return p
	}
	first, second := plan("a@example.com"), plan("b@example.com")
	if err := a.Edit(t.Context(), ann, first); err != nil {
		t.Fatal(err)
	}
	if err := a.Edit(t.Context(), ann, second); !errors.Is(err, queue.ErrChanged) || !errors.Is(isTaken(err), console.ErrTaken) {
		t.Errorf("the second edit: %v", err)
	}
	if err := a.Edit(t.Context(), ann, plan("c@example.com")); err != nil {
		t.Errorf("an edit of the edit: %v", err)
	}
	l, err := a.Letter(t.Context(), id)
	if err != nil || l.Edit == nil || l.Edit.By != "ann" || !strings.Contains(string(l.Edit.Body), "c@example.com") || strings.Contains(string(l.Edit.Body), "hunter2") {
		t.Fatalf("%+v, %v", l.Edit, err)
	}
	if len(l.Edit.Changes) != 1 || l.Edit.Changes[0].Field != "email" || !strings.Contains(string(l.Body), "contact2@") {
		t.Errorf("against the original: %+v, %s", l.Edit.Changes, l.Body)
	}
	if o := h.redrive(a, Redrive{IDs: []uint64{id}}); o.Ended[contact.Applied] != 1 {
		t.Fatalf("%+v", o)
	}
	if c, _ := h.office.Contact("1"); c["email"] != "c@example.com" || c["title"] != "Boss" {
		t.Errorf("contact 1: %v %v", c["email"], c["title"])
	}
}

func TestRedriveOfAGoneTarget(t *testing.T) {
	t.Parallel()
	h, a, end := dying(t)
	defer end()
	id := h.letters(a, DeadFilter{Target: "shop"})["99"].ID
	less := *h.cfg
	less.Targets = map[string]config.Target{"office": h.cfg.Targets["office"]}
	b := &App{cfg: &less, o: a.o, q: a.q}
	for _, r := range []Redrive{{Filter: DeadFilter{Target: "shop"}}, {IDs: []uint64{id}}} {
		if _, err := b.StartRedrive(t.Context(), ann, r); err == nil || !strings.Contains(err.Error(), `"shop"`) || !strings.Contains(err.Error(), `it has "office"`) {
			t.Errorf("%+v: %v", r, err)
		}
		if _, err := b.Foresee(t.Context(), r); err == nil {
			t.Errorf("%+v is foreseen", r)
		}
	}
	// A filter without a target leaves those out that cannot be sent.
	if f, err := b.Foresee(t.Context(), Redrive{Filter: DeadFilter{Reason: "missing"}}); err != nil || f.Sendable != 2 || f.Skipped[queue.SkipNoTarget] != 1 {
		t.Errorf("%+v, %v", f, err)
	}
	if _, err := b.StartRedrive(t.Context(), ann, Redrive{Filter: DeadFilter{Target: "nowhere"}}); !errors.Is(err, console.ErrUnknownTarget) {
		t.Errorf("a target that never was: %v", err)
	}
	if _, err := b.StartRedrive(t.Context(), ann, Redrive{IDs: []uint64{99999}}); !errors.Is(err, console.ErrUnknownLetter) {
		t.Errorf("a letter that never was: %v", err)
	}
}

// A look at the CRM is made by the owner, and only while the lane may send.
func TestLook(t *testing.T) {
	t.Parallel()
	h, a, end := dying(t)
	defer end()
	conflict, missing := h.letters(a, DeadFilter{Reason: "conflict"})["1"].ID, h.letters(a, DeadFilter{Reason: "missing"})
	before := len(h.office.Ledger())
	look, err := a.LookAt(t.Context(), conflict)
	if err != nil || look.Requests != 1 || len(h.office.Ledger())-before != 1 {
		t.Fatalf("%+v, %v", look, err)
	}
	b, err := json.Marshal(look)
	if err != nil {
		t.Fatal(err)
	}
	if s := string(b); strings.Contains(s, "hunter2") || !strings.Contains(s, `"contact1@example.com"`) || !strings.Contains(s, `"contact2@example.com"`) {
		t.Errorf("%s", s)
	}
	if look, err = a.Explain(t.Context(), conflict); err != nil || look.Said != "e-mail taken by contact 2" {
		t.Errorf("%+v, %v", look, err)
	}
	if look, err = a.LookAt(t.Context(), missing["77"].ID); err != nil || !look.Missing {
		t.Errorf("%+v, %v", look, err)
	}
	if look, err = a.LookAt(t.Context(), missing["99"].ID); err != nil || !look.Missing {
		t.Errorf("%+v, %v", look, err)
	}
	if err := a.Hold(t.Context(), ann, "office", "", time.Time{}); err != nil {
		t.Fatal(err)
	}
	h.obeyed(a, "office")
	before = len(h.office.Ledger())
	if _, err = a.LookAt(t.Context(), conflict); err == nil || !strings.Contains(err.Error(), "holds (operator)") || len(h.office.Ledger()) != before {
		t.Errorf("while it holds: %v, %d requests", err, len(h.office.Ledger())-before)
	}
	if _, err := a.LookAt(t.Context(), 99999); !errors.Is(err, console.ErrUnknownLetter) {
		t.Errorf("no letter: %v", err)
	}
}

func TestLookWithoutAnOwner(t *testing.T) {
	t.Parallel()
	h, a, end := dying(t)
	id := h.letters(a, DeadFilter{Reason: "conflict"})["1"].ID
	end()
	b := h.open() // no lane runs in it
	defer b.Close()
	if _, err := b.LookAt(t.Context(), id); err == nil || !strings.Contains(err.Error(), "nobody runs the lane of office") {
		t.Errorf("%v", err)
	}
	p, err := b.Pace(t.Context(), "office", 10, 2)
	if err != nil || p.Owner != "" || p.Took != 5*time.Second || !strings.Contains(p.text(), "nobody runs the lane") {
		t.Errorf("%+v, %v", p, err)
	}
}

func TestWhyAndForget(t *testing.T) {
	t.Parallel()
	h, a, end := dying(t)
	defer end()
	if err := a.Hold(t.Context(), ann, "office", "month end", time.Time{}); err != nil {
		t.Fatal(err)
	}
	h.obeyed(a, "office")
	h.raw(a, "office", "77", `{"fields":{"title":"Later"}}`)
	w, err := a.Why(t.Context(), "office", "77")
	if err != nil || w.Pending != 1 || len(w.Events) != 2 || !strings.Contains(w.Waits, "operator") || w.Owner == "" {
		t.Errorf("%+v, %v", w, err)
	}
	if w, err = a.Why(t.Context(), "office", "1"); err != nil || w.Pending != 0 || w.Waits != "" || len(w.Events) != 1 {
		t.Errorf("%+v, %v", w, err)
	}
	if _, err := a.Why(t.Context(), "nowhere", "1"); !errors.Is(err, console.ErrUnknownTarget) {
		t.Errorf("an unknown target: %v", err)
	}
	r, err := a.Forget(t.Context(), ann, "office", "77")
	if err != nil || r.Letters != 1 || r.Updates < 1 {
		t.Errorf("%+v, %v", r, err)
	}
	if w, err = a.Why(t.Context(), "office", "77"); err != nil || w.Pending != 0 || len(w.Events) != 1 || w.Events[0].Forgot == nil {
		t.Errorf("afterwards: %+v, %v", w, err)
	}
	if _, err := a.Forget(t.Context(), ann, "nowhere", "77"); !errors.Is(err, console.ErrUnknownTarget) {
		t.Errorf("an unknown target: %v", err)
	}
}

// A contact that waits for its retry says so, by the owner's word.
func TestWhyOfARetry(t *testing.T) {
	h := newHouse(t, emulator.Options{Contacts: 3}, emulator.Options{}, "targets.office.retry.base=1h", "targets.office.retry.max=1h")
	a := h.open()
	defer a.Close()
	h.office.SetFaults(emulator.Faults{{Kind: emulator.Outage, Status: 500, Contact: "2"}})
	h.raw(a, "office", "2", `{"fields":{"title":"x"}}`)
	h.raw(a, "office", "3", `{"fields":{"title":"y"}}`)
	stop := h.work(a)
	defer stop()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	for {
		w, err := a.Why(ctx, "office", "2")
		if err != nil {
			t.Fatalf("%+v, %v", w, err)
		}
		if w.Now.State == "waiting" {
			if w.Now.Attempts != 1 || w.Now.Updates != 1 || w.Until.IsZero() || !strings.Contains(w.Waits, "next attempt") {
				t.Errorf("%+v", w)
			}
			return
		}
	}
}
