package main

import (
	"cmp"
	"context"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"crmsync/app"
	"crmsync/emulator"
)

// demoWatch follows the lanes and the ledgers and says what changes.
type demoWatch struct {
	run   *demoRun
	held  *sync.Map     // targets that are held
	busy  *atomic.Int32 // targets of which something was applied
	lanes map[string]*demoLane
	dead  map[string]bool // reasons that were announced
	lost  bool            // the lost answers are accounted for
	taken bool            // all targets have their second owner
}

// demoLane is what is shown of a target.
type demoLane struct {
	target    string
	total     int // of the plan
	published int
	applied   int // or overwritten, as the ledger shows
	dead      int
	waits     string
	hold      string // reason of the hold that was announced

	planned map[string][]demoUpdate // by contact, those not yet applied
	seen    int                     // ledger entries that will not change
}

func newDemoWatch(d *demoRun) demoWatch {
	w := demoWatch{run: d, held: &sync.Map{}, busy: &atomic.Int32{}, lanes: map[string]*demoLane{}, dead: map[string]bool{}}
	for _, target := range d.plan.targets {
		w.lanes[target] = &demoLane{
			target: target, total: d.plan.total(target), waits: "waits for a worker",
			planned: map[string][]demoUpdate{},
		}
	}
	for _, u := range d.plan.updates {
		if u.fate == "" {
			l := w.lanes[u.target]
			l.planned[u.contact] = append(l.planned[u.contact], u)
		}
	}
	return w
}

func (w *demoWatch) isHeld(target string) bool {
	_, held := w.held.Load(target)
	return held
}

// atWork says that every target has got something.
func (w *demoWatch) atWork() bool { return int(w.busy.Load()) == len(w.lanes) }

// observe shows how it stands until everything has ended.
func (d *demoRun) observe(ctx context.Context) error {
	for {
		st, err := d.world.app.Status(ctx)
		if err != nil {
			return err
		}
		over := d.watch.look(st)
		d.view.show(d.watch.lanes)
		if over {
			d.view.say("everything that was published has ended")
			return nil
		}
		if err := d.world.alive(); err != nil {
			return err
		}
		if err := pause(ctx, demoBeat); err != nil {
			return err
		}
	}
}

// look takes in a status and says whether everything has ended.
func (w *demoWatch) look(st app.Status) (over bool) {
	d := w.run
	d.mu.Lock()
	over = d.sent && d.staged
	killed, deadPID := d.killed, d.deadPID
	for target, n := range d.published {
		w.lanes[target].published = n
	}
	d.mu.Unlock()
	owned, busy := 0, int32(0)
	for _, t := range st.Targets {
		l := w.lanes[t.Target]
		l.dead = int(total(t.Dead))
		w.letters(t)
		l.read(d.world.crms[l.target].LedgerSince(l.seen))
		switch {
		case t.Lane == nil:
			l.waits = "waits for a worker"
		case !killed.IsZero() && strings.HasSuffix(t.Owner, fmt.Sprint("/", deadPID)):
			l.waits, l.hold = "waits for the old lease to end", ""
		default:
			owned++
			l.waits = l.waitsNow(t)
			w.announce(l, t)
		}
		if w.held.Delete(l.target); l.hold != "" {
			w.held.Store(l.target, true)
		}
		if l.applied > 0 {
			busy++
		}
		over = over && t.Queue["live"].Waiting == 0 && t.Queue["bulk"].Waiting == 0
	}
	w.busy.Store(busy)
	if !killed.IsZero() && !w.taken && owned == len(w.lanes) {
		w.taken = true
		d.takeover = time.Since(killed)
		d.view.say("worker %d owns both targets, %.1fs after the kill; it goes on with what had no outcome", d.world.current().pid, d.takeover.Seconds())
	}
	w.lostAnswers()
	return over && w.taken
}

// waitsNow says in a few words what keeps the lane from its next call.
func (l *demoLane) waitsNow(t app.TargetStatus) string {
	h, what := t.Lane.Hold, t.Lane.Waiting
	switch {
	case l.applied+l.dead == l.total:
		return "done"
	case t.Lane.State == "loading":
		return "loads what waited"
	case h != nil && h.Probes():
		return fmt.Sprintf("held (%s), probing", h.Reason)
	case h != nil:
		return fmt.Sprintf("held (%s)", h.Reason)
	case t.Lane.Calling > 0 && what == "updates":
		what = "answers"
	}
	return "waits for " + what
}

// announce says when a lane's hold begins and ends.
func (w *demoWatch) announce(l *demoLane, t app.TargetStatus) {
	h := t.Lane.Hold
	switch {
	case h != nil && string(h.Reason) != l.hold:
		l.hold = string(h.Reason)
		switch l.hold {
		case "throttled":
			w.run.view.say("%s answers %d, come back in %.0f s: its lane waits that long, no attempt is spent", l.target, h.Status, h.Until.Sub(h.Since).Seconds())
		case "outage":
			w.run.view.say("%s answers %d to everybody: its lane holds and probes, nothing is lost", l.target, h.Status)
		default:
			w.run.view.say("%s holds: %s, HTTP %d %s", l.target, l.hold, h.Status, h.Detail)
		}
	case h == nil && l.hold != "":
		why := map[string]string{"throttled": "the time it was told is over", "outage": "a probe was answered"}[l.hold]
		w.run.view.say("%s goes on: %s", l.target, cmp.Or(why, "the hold is over"))
		l.hold = ""
	}
}

// demoWhy explains a reason code to somebody who sees it for the first time.
var demoWhy = map[string]string{
	"missing":  "there is no such contact",
	"conflict": "the e-mail address is another contact's",
	"invalid":  "the update breaks a rule of the CRM",
}

// letters says when the first dead letter of a reason appears.
func (w *demoWatch) letters(t app.TargetStatus) {
	for reason := range t.Dead {
		if !w.dead[reason] {
			w.dead[reason] = true
			w.run.view.say("first dead letter for %s, at %s: %s; the others go on", reason, t.Target, cmp.Or(demoWhy[reason], "not planned"))
		}
	}
}

// read takes in new ledger entries. What it does is right also for an entry
// that it sees twice.
func (l *demoLane) read(entries []emulator.Entry) {
	stable := true
	for _, e := range entries {
		if e.Answered.IsZero() {
			stable = false
		}
		if stable {
			l.seen = e.N
		}
		if e.Operation != emulator.OpUpdate || !e.Applied && !e.Unchanged || len(e.Updates) == 0 {
			continue
		}
		newest, waiting := e.Updates[len(e.Updates)-1], l.planned[e.Contact]
		for len(waiting) > 0 && waiting[0].n <= newest {
			waiting = waiting[1:]
			l.applied++
		}
		l.planned[e.Contact] = waiting
	}
}

// lostAnswers says when the worker knows how the calls with a lost answer ended.
func (w *demoWatch) lostAnswers() {
	if w.lost {
		return
	}
	again, back := 0, 0
	for _, target := range w.run.plan.targets {
		open := map[string]bool{}
		for _, e := range w.run.world.crms[target].Ledger() {
			switch {
			case e.Fault == string(emulator.LostAnswer):
				open[e.Contact] = true
			case open[e.Contact] && e.Status > 0 && e.Status < 300:
				delete(open, e.Contact)
				if e.Operation == emulator.OpRead {
					back++
				} else {
					again++
				}
			}
		}
	}
	if again+back < demoLost*len(w.lanes) {
		return
	}
	w.lost = true
	w.run.view.say("all %d lost answers are accounted for: %s read back, %s sent again", again+back, plural(back, "contact"), plural(again, "update"))
}
