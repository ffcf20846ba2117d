package history

import (
	"fmt"
	"slices"
	"time"
)

// contactOrder: in the order in which the CRM took them, no path goes back to an
// older update's value. A request that the CRM carried out after its sender had
// given it up may do that, if the newer value is put on top again in time; an owner
// that comes in between does not know of what had settled before.
func (t *trial) contactOrder() {
	for _, o := range t.overwrites() {
		t.checked()
		if o.was == nil || o.late && (o.repaired || o.handedOver) {
			continue
		}
		text := fmt.Sprintf("request %d put %s of update %d over that of the newer update %d", o.by.Request, o.path, o.u.Update, o.was.Update)
		if o.late {
			text += ", carried out late, and it was not put right in time"
		}
		t.find(o.by.apply.At, o.u.key, "%s", text)
	}
}

// overwrite is a value that the CRM took at a path.
type overwrite struct {
	path                       string
	by                         *request
	u                          *update
	was                        *update // the newer one that it was put over; nil: there was none
	late, repaired, handedOver bool
}

// overwrites lists every value that was taken. It is worked out once.
func (t *trial) overwrites() []overwrite {
	if t.taken != nil {
		return t.taken
	}
	t.taken = []overwrite{}
	for k, writes := range t.writes {
		top := map[string]*update{}
		for i, w := range writes {
			for path, value := range w.apply.Fields {
				u := t.updates[Marked(value)]
				if u == nil || u.key != k {
					delete(top, path) // cleared, and that says not by whom
					continue
				}
				o := overwrite{path: path, by: w, u: u}
				if was := top[path]; was == nil || u == was || !was.counts() || !was.place.after(u.place) {
					top[path] = u
				} else {
					o.was, o.late = was, t.late(w)
					o.repaired = o.late && t.repaired(writes[i+1:], w.apply.At, path, was)
					o.handedOver = t.owners(k.target, w.apply.At.Add(t.rules.Repaired)) > t.owners(k.target, w.At)
				}
				t.taken = append(t.taken, o)
			}
		}
	}
	return t.taken
}

// faultLate is what a fault is named by which a CRM carries a request out long after
// it came, whether or not anybody still waits for the answer.
const faultLate = "late-apply"

// late says that the request was carried out when its sender could no longer know:
// the CRM held it back, the sender had given it up, or its ownership had broken.
func (t *trial) late(w *request) bool {
	return w.fault() == faultLate || waitedFor(w, t.callsOf[w.key]).Before(w.apply.At) ||
		t.broken(w.key.target, w.At.Add(-time.Minute), w.apply.At) > 0
}

// repaired says whether one of the writes puts the path back to an update at
// least as new, in time; while something goes wrong that has no bound.
func (t *trial) repaired(writes []*request, at time.Time, path string, was *update) bool {
	troubled := t.troubled(was.key.target, at, at.Add(t.rules.Repaired))
	for _, w := range writes {
		if !troubled && w.apply.At.Sub(at) > t.rules.Repaired {
			return false
		}
		value, wrote := w.apply.Fields[path]
		if wrote && value == "" {
			return true
		}
		if u := t.updates[Marked(value)]; u != nil && (u == was || u.place.after(was.place)) {
			return true
		}
	}
	return false
}

// boundedRepeats: the CRM takes what an update writes once, and once more at most
// for each time that the answer was lost, an ownership broke, a letter was sent
// again or a value was put on top again. A mail is asked for once.
func (t *trial) boundedRepeats() {
	lost, repairs := t.excuses()
	for k, writes := range t.writes {
		seen := map[string]bool{}
		repeats := 0
		for _, w := range writes {
			if len(w.Updates) == 0 {
				continue
			}
			t.checked()
			what := updateList(w.Updates) + fmt.Sprint(w.apply.Fields) // maps are printed in order
			if len(w.apply.Fields) > 0 && !seen[what] {
				seen[what] = true
				continue
			}
			repeats++
			broken := t.broken(k.target, time.Time{}, w.apply.At)
			if may := lost[k] + repairs[k] + t.redrives(w.Updates) + broken; repeats > may {
				t.find(w.apply.At, k, "request %d wrote updates %v again, the contact's repeat %d; %d answers were lost, %d ownerships broke",
					w.Request, w.Updates, repeats, lost[k], broken)
			}
		}
	}
	for k, mails := range t.mails {
		asked := 0
		for _, u := range t.of[k] {
			if u.in && slices.ContainsFunc(sideEffects, func(f string) bool { _, ok := u.Fields[f]; return ok }) {
				asked += max(1, len(u.drives))
			}
		}
		t.checked()
		if len(mails) > asked {
			t.find(mails[len(mails)-1].At, k, "%d mails were sent, %d updates asked for one", len(mails), asked)
		}
	}
}

// sideEffects are fields that have the CRM do something beside storing.
var sideEffects = []string{"send_set_password_email", "invitation"}

// excuses counts by contact the writes of whose end nobody heard, and the calls
// that were made to put a value on top again.
func (t *trial) excuses() (lost, repairs map[key]int) {
	lost, repairs = map[key]int{}, map[key]int{}
	for _, r := range t.requests {
		if r.success() && (r.reply == nil || r.reply.Status < 200 || r.reply.Status > 299) {
			lost[r.key]++
		}
	}
	for _, c := range t.inOrder {
		if c.Repair {
			repairs[c.key]++
		} else if a := c.answer; a == nil || a.Verdict == "unknown" || a.Cut {
			lost[c.key]++
		}
	}
	return lost, repairs
}

func (t *trial) redrives(updates []int64) (n int) {
	for _, u := range updates {
		if v := t.updates[u]; v != nil {
			n += max(0, len(v.drives)-1)
		}
	}
	return n
}

// exclusivity: the CRM never has two writes of one contact at once, as far as their
// sender can know: what it still works on when the sender has given up does not
// count, nor does the write of an owner whose ownership had broken when the other
// came. And whoever owned a target sends nothing once another has begun to.
func (t *trial) exclusivity() {
	owner := map[string]*Event{}
	for i := range t.events {
		e := &t.events[i]
		switch e.Kind {
		case Own:
			owner[e.Target] = e
		case Call, Further:
			t.checked()
			if o := owner[e.Target]; o != nil && o.Actor != e.Actor {
				t.find(e.At, key{e.Target, e.Contact}, "%s sends for call %s, though %s has owned %s for %s", e.Actor, e.Call, o.Actor, e.Target, e.At.Sub(o.At))
			}
		}
	}
	open := map[key]*request{}
	until := map[key]time.Time{}
	for _, r := range t.requests {
		if r.Operation != "update" || r.key.contact == "" || r.fault() == faultLate {
			continue
		}
		t.checked()
		if was := open[r.key]; was != nil && until[r.key].After(r.At) && t.broken(r.key.target, was.At.Add(-time.Minute), r.At) == 0 {
			t.find(r.At, r.key, "request %d arrived while request %d was being served", r.Request, was.Request)
		}
		if end := waitedFor(r, t.callsOf[r.key]); open[r.key] == nil || end.After(until[r.key]) {
			open[r.key], until[r.key] = r, end
		}
	}
}

// waitedFor is until when the sender of a request waited for its answer.
func waitedFor(r *request, calls []*call) time.Time {
	end := r.At
	if r.reply != nil {
		end = r.reply.At
	}
	i, found := slices.BinarySearchFunc(calls, r.At, func(c *call, at time.Time) int { return c.At.Compare(at) })
	if !found {
		i--
	}
	if i >= 0 && calls[i].answer != nil && calls[i].answer.At.Before(end) {
		return calls[i].answer.At
	}
	return end
}
