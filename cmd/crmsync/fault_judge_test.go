package main

import (
	"context"
	"slices"
	"strings"
	"time"

	"crmsync/app"
	"crmsync/contact"
	"crmsync/emulator"
)

// wasOpen fails a test whose crashes all came when no call was under way: it shows
// nothing.
func (w *faultWorld) wasOpen() {
	w.t.Helper()
	if w.open == 0 && w.row.open == 0 {
		w.t.Errorf("no call was open at any of %d crashes", len(w.crashes))
	}
}

// listen follows the records: in the end the older ones of a busy contact are gone.
func (w *faultWorld) listen() {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		for pause(ctx, time.Second) == nil {
			_ = w.follow(ctx) // again in a second
		}
	}()
	w.quit = func() { cancel(); <-done }
}

// follow reads what records there are, behind those that were read.
func (w *faultWorld) follow(ctx context.Context) error {
	w.lock.Lock()
	after := w.seen
	w.lock.Unlock()
	return w.app.Records(ctx, after, func(r app.StoryRecord) error {
		w.lock.Lock()
		defer w.lock.Unlock()
		w.seen = max(w.seen, r.Seq)
		for _, u := range r.Updates {
			at := demoPlace{r.Target, u.Class.String(), u.Seq}
			if before, ok := w.ended[at]; ok && before.record != r.Seq {
				w.t.Errorf("%s update %d of %s ended twice: %s by record %d, and %s by record %d",
					at.class, at.seq, at.target, before.outcome, before.record, r.Outcome, r.Seq)
			}
			w.ended[at] = endedAs{outcome: r.Outcome.String(), contact: r.Contact, record: r.Seq, at: r.Time}
		}
		return nil
	})
}

// spare has the contacts of updates that are told to be lost not judged, and says how
// many these updates are.
func (w *faultWorld) spare(losses []app.StoreLoss) (n int) {
	for _, u := range w.plan.updates {
		stream := strings.ToUpper("CRM_" + u.target + "_" + u.class)
		if slices.ContainsFunc(losses, func(l app.StoreLoss) bool { return l.Stream == stream && l.From <= u.seq && u.seq <= l.To }) {
			w.spared[u.target+"/"+u.contact] = true
			n++
		}
	}
	return n
}

// judge holds all that happened against the plan, and notes it in the table.
func (w *faultWorld) judge(ctx context.Context) {
	w.t.Helper()
	w.must(w.follow(ctx))
	e, err := w.evidence(ctx)
	w.must(err)
	w.lock.Lock()
	e.killed, e.doubted, e.starved = w.crashes, w.doubted, w.hunger.stop()
	for at, end := range w.ended {
		e.ended[at] = end.at
	}
	w.lock.Unlock()
	v := judgeDemo(w.plan, e)
	v.Findings = slices.DeleteFunc(v.Findings, func(f demoFinding) bool { return w.spared[f.Target+"/"+f.Contact] })
	lost := map[string]int{}
	for _, f := range v.Findings {
		if f.Kind == findLost {
			lost[f.Target]++
		}
	}
	for i, f := range v.Findings {
		if i == 20 {
			w.t.Errorf("and %d more findings", len(v.Findings)-i)
			break
		}
		w.t.Errorf("%s: %s contact %s: %s", f.Kind, f.Target, f.Contact, f.Text)
	}
	for _, t := range v.Targets {
		if t.Applied == 0 {
			w.t.Errorf("%s: nothing was applied", t.Target)
		}
		t.Lost = lost[t.Target]
		w.row.add(t)
		w.t.Logf("%s: %d published, %d applied, %d overwritten, dead %v, %d requests, %d repeated, %d put on top again, %d calls open at a crash",
			t.Target, t.Published, t.Applied, t.Overwritten, t.Dead, t.Requests, t.Repeated, t.PutOnTop, t.InFlight)
		if t.Repeated > t.InFlight+t.GivenUp {
			w.t.Errorf("%s: %d calls were repeated, %d were open at a crash, and of %d no answer came in time", t.Target, t.Repeated, t.InFlight, t.GivenUp)
		}
	}
	for target, entries := range e.ledger {
		for i, o := range emulator.Overlaps(entries) {
			if i < 5 && len(e.killed) == 0 {
				w.t.Errorf("%s: %s", target, o.Text)
			}
		}
	}
	w.outcomes()
	if w.mail != nil {
		w.mails(len(e.killed))
	}
	w.noted = true
	faults.note(w.t, w.row)
}

// outcomes checks that the records give every update exactly one outcome, the
// planned one.
func (w *faultWorld) outcomes() {
	w.t.Helper()
	w.lock.Lock()
	defer w.lock.Unlock()
	planned, open := map[demoPlace]demoUpdate{}, 0
	for _, u := range w.plan.updates {
		at := demoPlace{u.target, u.class, u.seq}
		planned[at] = u
		if _, ok := w.ended[at]; !ok && !w.spared[u.target+"/"+u.contact] {
			open++
		}
	}
	for at, end := range w.ended {
		u, ok := planned[at]
		if !ok || u.contact != end.contact {
			w.t.Errorf("record %d is of update %v of contact %s, which the plan does not have", end.record, at, end.contact)
		}
		if dead := end.outcome == contact.Dead.String(); dead != (u.fate != "") && !w.spared[u.target+"/"+u.contact] {
			w.t.Errorf("update #%d# ended %s, the plan says %q", u.n, end.outcome, u.fate)
		}
	}
	if open > 0 {
		w.t.Errorf("%d of %d updates have no outcome", open, len(planned))
	}
}
