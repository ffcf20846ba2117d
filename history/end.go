package history

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// classification: an update ends dead when it has to and only then, whatever went
// wrong around it; and what the CRM refuses for good is not sent again.
func (t *trial) classification() {
	for _, u := range t.order {
		end := u.end()
		if end.Kind == "" || u.removed {
			continue
		}
		t.checked()
		switch {
		case end.Outcome == "dead" && (u.Fate == "" || end.Reason != u.Fate) && t.stormy(u, end):
		case end.Outcome == "dead" && u.Fate == "exhausted" && end.Reason == "protocol" && t.senseless(u):
		case end.Outcome == "dead" && u.Fate == "":
			t.find(end.At, u.key, "update %d ended dead (%s, status %d), and nothing is wrong with it", u.Update, end.Reason, end.Status)
		case end.Outcome == "dead" && end.Reason != u.Fate:
			t.find(end.At, u.key, "update %d ended dead for %s, it should have been for %s", u.Update, end.Reason, u.Fate)
		case u.Fate != "" && (end.Outcome == "applied" || end.Outcome == "unchanged"):
			t.find(end.At, u.key, "update %d ended %s, it should have been dead for %s", u.Update, end.Outcome, u.Fate)
		}
	}
	refused := map[key]map[string]int{}
	for _, c := range t.inOrder {
		if c.answer == nil || !refusal(c) || c.Repair {
			continue
		}
		t.checked()
		if refused[c.key] == nil {
			refused[c.key] = map[string]int{}
		}
		what := fmt.Sprint(c.Merged, c.Fields) // maps are printed in order
		refused[c.key][what]++
		// A new owner does not know how far the one before had come.
		may := 1 + t.redrives(t.carried(c)) + max(0, t.owners(c.key.target, c.At)-1)
		if refused[c.key][what] > may && !t.within(c.key.target, c.At, stormAfter, faultStorm) {
			t.find(c.At, c.key, "call %s sends for the %dth time what the CRM has refused for good", c.Call, refused[c.key][what])
		}
	}
}

// senseless says that a call with an update was answered with what makes no sense: if
// that was its last try, its end is called by that.
func (t *trial) senseless(u *update) bool {
	return slices.ContainsFunc(t.inOrder, func(c *call) bool {
		return c.key == u.key && c.answer != nil && c.answer.Verdict == "transient" && c.answer.Status/100 == 2 &&
			slices.Contains(t.carried(c), u.Update)
	})
}

// refusal says that the CRM refused a change for good.
func refusal(c *call) bool { return c.answer.Verdict == "invalid" || c.answer.Verdict == "missing" }

// carried lists the updates that a call may have been for: those whose values it
// sends, or where no value tells, as one that another contact has, all of its
// contact.
func (t *trial) carried(c *call) []int64 {
	if out := marksOf(c.Fields); len(out) > 0 {
		return out
	}
	var out []int64
	for _, u := range t.order {
		if u.key == c.key {
			out = append(out, u.Update)
		}
	}
	return out
}

func marksOf(fields map[string]string) (out []int64) {
	for _, v := range fields {
		if n := Marked(v); n > 0 {
			out = append(out, n)
		}
	}
	return out
}

// faultStorm is what a fault is named in which a CRM refuses everybody for good.
// The first letters of it cannot be told from true ones.
const (
	faultStorm = "storm"
	stormAfter = 10 * time.Minute
	stormLeast = 25
)

// stormy says that the update died of a storm. It takes many contacts to know one:
// letters of few may be left, and more where an operator accepted it.
func (t *trial) stormy(u *update, end Event) bool {
	i := t.storm(u.key.target, end.At)
	if i < 0 {
		return false
	}
	if t.storms[i] == nil {
		t.storms[i] = map[string]bool{}
	}
	t.storms[i][u.key.contact] = true
	for i := range t.events {
		if e := &t.events[i]; e.Kind == Act && e.Name == ActAccept && e.Target == u.key.target {
			return true
		}
	}
	return len(t.storms[i]) <= 2*stormLeast
}

// storm is the index of the last storm that had begun by an instant and was not long
// over, -1 for none.
func (t *trial) storm(target string, at time.Time) int {
	for i, f := range slices.Backward(t.faults) {
		if f.name == faultStorm && f.target == target && !f.from.After(at) && (f.to.IsZero() || !at.After(f.to.Add(stormAfter))) {
			return i
		}
	}
	return -1
}

// wholeLetters: a dead letter holds the original bytes and says why, and there is
// one for each time that its update died.
func (t *trial) wholeLetters() {
	for _, u := range t.order {
		for _, d := range u.drives {
			for _, s := range d.settles {
				if s.Outcome != "dead" {
					continue
				}
				t.checked()
				switch {
				case s.Letter == 0:
					t.find(s.At, u.key, "update %d ended dead without a letter", u.Update)
				case s.Reason == "":
					t.find(s.At, u.key, "letter %d does not say why", s.Letter)
				case u.Body != "" && s.Body != u.Body && s.Of == 0:
					t.find(s.At, u.key, "letter %d does not hold the bytes of update %d", s.Letter, u.Update)
				}
			}
		}
	}
}

// redrive: what is sent again names a letter of its contact that was there before.
// Whether it put old over new, the order of the contact says.
func (t *trial) redrive() {
	for _, u := range t.order {
		for _, d := range u.drives {
			if d.of == 0 {
				continue
			}
			s := d.settles[0]
			t.checked()
			l, ok := t.letters[d.of]
			switch {
			case !ok:
				t.find(s.At, u.key, "update %d repeats letter %d, which there never was", u.Update, d.of)
			case l.n != u.Update:
				t.find(s.At, u.key, "update %d repeats letter %d, which is of update %d", u.Update, d.of, l.n)
			case !s.At.After(l.at.At):
				t.find(s.At, u.key, "update %d repeats letter %d, which was stored after it", u.Update, d.of)
			}
		}
	}
}

// liveness: once nothing goes wrong any more, all settles within its time.
func (t *trial) liveness() {
	if t.calm.IsZero() {
		return
	}
	for _, u := range t.order {
		if !u.in || u.removed {
			continue
		}
		t.checked()
		end := u.end()
		if end.Kind == "" {
			t.find(u.At, u.key, "update %d waits for ever", u.Update)
			continue
		}
		from := t.calm
		if u.At.After(from) {
			from = u.At
		}
		if d := end.At.Sub(from); t.rules.Drain > 0 && d > t.rules.Drain && end.Of == 0 {
			t.find(end.At, u.key, "update %d settled %s after the last trouble, %s is allowed", u.Update, d, t.rules.Drain)
		}
	}
}

// conservation: a ledger adds up whenever it is told, and lies between what had
// ended a moment before and what has by then.
func (t *trial) conservation() {
	type jobKey struct{ target, job string }
	rows := map[jobKey]int64{} // that were offered
	redriven := map[jobKey]bool{}
	removed := map[jobKey]int64{}
	ended := map[jobKey][]time.Time{}
	for _, u := range t.order {
		if k := (jobKey{u.key.target, u.Job}); u.Job != "" && len(u.drives) > 0 {
			ended[k] = append(ended[k], u.drives[0].settles[0].At)
			redriven[k] = redriven[k] || len(u.drives) > 1
		} else if u.removed {
			removed[k]++
		}
	}
	for _, e := range ended {
		slices.SortFunc(e, time.Time.Compare)
	}
	by := func(k jobKey, at time.Time) int64 {
		n, _ := slices.BinarySearchFunc(ended[k], at, func(a, b time.Time) int {
			if a.After(b) {
				return 1
			}
			return -1
		})
		return int64(n)
	}
	for i := range t.events {
		e := &t.events[i]
		k := jobKey{e.Target, e.Job}
		switch {
		case e.Kind == Offer && e.Job != "":
			rows[k]++
		case e.Kind == Sample:
			t.checked()
			if e.Rows != e.Waiting+e.Ended {
				t.find(e.At, key{target: e.Target}, "job %s: %d rows are not %d that wait and %d that ended", e.Job, e.Rows, e.Waiting, e.Ended)
			}
			if e.Rows > rows[k] {
				t.find(e.At, key{target: e.Target}, "job %s: %d rows of %d that were offered", e.Job, e.Rows, rows[k])
			}
			if least, most := by(k, e.At.Add(-sampleTakes)), by(k, e.At); e.Ended < least && !redriven[k] || e.Ended > most+removed[k] {
				t.find(e.At, key{target: e.Target}, "job %s: %d rows ended, by the records between %d and %d", e.Job, e.Ended, least, most)
			}
		}
	}
}

// sampleTakes is how long a ledger may take to be counted.
const sampleTakes = 5 * time.Second

// gracefulStop: a process that was asked to end begins no call later than the
// grace, and ends in time.
func (t *trial) gracefulStop() {
	type stop struct{ at, exit time.Time }
	stops := map[string]*stop{}
	for i := range t.events {
		e := &t.events[i]
		s := stops[e.Actor]
		switch {
		case e.Kind == Stop:
			t.checked()
			stops[e.Actor] = &stop{at: e.At}
		case s == nil:
		case e.Kind == Call && s.exit.IsZero() && e.At.Sub(s.at) > t.rules.Grace:
			t.find(e.At, key{e.Target, e.Contact}, "call %s began %s after %s was asked to end", e.Call, e.At.Sub(s.at), e.Actor)
		case e.Kind == Exit || e.Kind == Crash:
			if d := e.At.Sub(s.at); e.Kind == Exit && t.rules.Exit > 0 && d > t.rules.Exit {
				t.find(e.At, key{}, "%s took %s to end, %s is allowed", e.Actor, d, t.rules.Exit)
			}
			delete(stops, e.Actor)
		}
	}
}

// auditFirst: before an operator's order has an effect, it stands in the audit
// trail.
func (t *trial) auditFirst() {
	type act struct{ name, target string }
	noted := map[act][]time.Time{}
	for i := range t.events {
		e := &t.events[i]
		if e.Kind == Audit {
			noted[act{e.Name, e.Target}] = append(noted[act{e.Name, e.Target}], e.At)
		}
	}
	for i := range t.events {
		e := &t.events[i]
		var names []string
		switch {
		case e.Kind == Settle && e.Of != 0 && e.Name == recalled:
			names = []string{recalled}
		case e.Kind == Settle && e.Of != 0:
			names = []string{ActRedrive}
		case e.Kind == Settle && e.Outcome == "discarded":
			names = []string{ActDiscard, ActRedrive, recalled} // what was sent again takes its letter's place
		case e.Kind == Settle && e.Outcome == "cancelled":
			names = []string{ActCancel, ActForget}
		default:
			continue
		}
		t.checked()
		if !slices.ContainsFunc(names, func(name string) bool {
			return slices.ContainsFunc(noted[act{name, e.Target}], func(at time.Time) bool { return !at.After(e.At) })
		}) {
			t.find(e.At, key{e.Target, e.Contact}, "update %d ended %s by an order (%s) that no audit record tells of before", e.Update, e.Outcome, strings.Join(names, " or "))
		}
	}
}

// recalled names the order, and the outcome, of an update that was sent again
// because the storm was over in which it had died: no operator asked for that.
const recalled = "recall"

func updateList(ns []int64) string {
	var b strings.Builder
	for _, n := range ns {
		b.WriteString(Mark(n))
	}
	return b.String()
}
