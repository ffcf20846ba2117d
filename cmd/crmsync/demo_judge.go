package main

import (
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"crmsync/app"
	"crmsync/emulator"
)

// demoEvidence is what the judge looks at beside the plan: what the CRMs wrote
// down and what they hold, the dead letters, when the end of each update was
// stored, and when a worker was killed or cut off.
type demoEvidence struct {
	ledger  map[string][]emulator.Entry
	contact func(target, id string) (map[string]any, bool)
	limits  map[string]emulator.Limits
	letters []app.Letter
	ended   map[demoPlace]time.Time // when the outcome was stored
	killed  []time.Time
	doubted []time.Time // other moments at which answers were lost on their way
	// starved is for how long the machine has kept a process waiting that wanted
	// to run: an answer can come too late for that alone.
	starved time.Duration
}

// demoPlace is where an update was stored.
type demoPlace struct {
	target, class string
	seq           uint64
}

// demoFinding is one thing that is not as the plan says.
type demoFinding struct {
	Target  string `json:"target"`
	Contact string `json:"contact,omitempty"`
	Kind    string `json:"kind"`
	Text    string `json:"text"`
}

// Kinds of findings.
const (
	findLost   = "lost"      // neither applied, nor overwritten by a newer one, nor dead
	findStale  = "stale"     // an older value over a newer one
	findFinal  = "wrong end" // the CRM does not hold the newest value
	findDead   = "dead"      // a dead letter that should not be, or is not
	findLeak   = "leak"      // a value of a dead update in the CRM
	findQuota  = "quota"     // more requests than allowed
	findRepeat = "repeat"    // a call that was made again without need
)

// demoTotals is one target's part of the verdict.
type demoTotals struct {
	Target      string         `json:"target"`
	Published   int            `json:"published"`
	Applied     int            `json:"applied"`     // written as they are
	Overwritten int            `json:"overwritten"` // by a newer update, without a call of their own
	Dead        map[string]int `json:"dead"`        // by reason
	Writes      int            `json:"writes"`      // calls that changed the CRM
	Saved       int            `json:"calls_saved"` // by merging
	Recovered   int            `json:"retried_then_applied"`
	Requests    int            `json:"requests"`
	Peak        int            `json:"peak_per_second"`
	Rate        float64        `json:"rate_allowed"`
	Burst       int            `json:"burst_allowed"`
	OverQuota   int            `json:"over_quota"`
	Repeated    int            `json:"repeated"`
	GivenUp     int            `json:"given_up"`   // of these: the answer before did not come in time, or was lost
	PutOnTop    int            `json:"put_on_top"` // written again, in case something older came late
	InFlight    int            `json:"in_flight_at_kill"`
	Lost        int            `json:"lost"`
	Stale       int            `json:"stale"`
}

// demoVerdict is the end of a demo.
type demoVerdict struct {
	Targets  []demoTotals  `json:"targets"`
	Findings []demoFinding `json:"findings"` // none: all is as the plan says
}

// judgeDemo holds the evidence against the plan. It does not ask the worker.
func judgeDemo(p *demoPlan, e demoEvidence) demoVerdict {
	v := demoVerdict{Findings: []demoFinding{}}
	for _, target := range p.targets {
		j := &demoJudge{
			ended: map[int64]time.Time{}, target: target, entries: e.ledger[target], evidence: e, v: &v,
			t: demoTotals{Target: target, Dead: map[string]int{}, Rate: e.limits[target].Rate, Burst: e.limits[target].Burst},
		}
		for _, u := range p.updates {
			if u.target == target {
				j.updates = append(j.updates, u)
				if at, ok := e.ended[demoPlace{u.target, u.class, u.seq}]; ok {
					j.ended[u.n] = at
				}
			}
		}
		j.read()
		j.letters()
		j.fates()
		j.ends()
		j.stale()
		j.quota()
		j.repeats()
		j.count()
		v.Targets = append(v.Targets, j.t)
	}
	return v
}

type demoJudge struct {
	target   string
	updates  []demoUpdate
	entries  []emulator.Entry
	evidence demoEvidence
	v        *demoVerdict
	t        demoTotals

	ended map[int64]time.Time // updates: when the outcome was stored
	onTop map[string]int      // contacts: writes that put on top again what had ended
	// unanswered are, by contact, calls whose answer was lost or came too late.
	unanswered map[string][]time.Time
	wrote      map[int64]int    // marks: the entry that stored one
	top        map[string]int64 // contact/path: the greatest mark stored
	dead       map[int64]bool   // updates with a dead letter
	lost       map[int64]bool
}

func (j *demoJudge) find(kind, contact, format string, a ...any) {
	j.v.Findings = append(j.v.Findings, demoFinding{
		Target: j.target, Contact: contact, Kind: kind, Text: fmt.Sprintf(format, a...),
	})
}

// read goes through the ledger once.
func (j *demoJudge) read() {
	j.wrote, j.top = map[int64]int{}, map[string]int64{}
	for _, e := range j.entries {
		for _, part := range e.Parts() {
			if !part.Applied {
				continue
			}
			for _, path := range part.Changed {
				n, ok := markOf(part.Values[path])
				if !ok {
					continue
				}
				j.wrote[n] = e.N
				key := part.Contact + "/" + path
				j.top[key] = max(j.top[key], n)
			}
		}
	}
}

// markOf reads the number of a text that ends in #number#.
func markOf(v any) (int64, bool) {
	s, _ := v.(string)
	s, closed := strings.CutSuffix(s, "#")
	i := strings.LastIndexByte(s, '#')
	if !closed || i < 0 {
		return 0, false
	}
	n, err := strconv.ParseInt(s[i+1:], 10, 64)
	return n, err == nil
}

// letters compares the dead letters with the plan's, by their place in the
// stream.
func (j *demoJudge) letters() {
	j.dead = map[int64]bool{}
	at := map[string]*demoUpdate{}
	for i := range j.updates {
		u := &j.updates[i]
		at[fmt.Sprint(u.class, u.seq)] = u
	}
	for _, l := range j.evidence.letters {
		if l.Target != j.target {
			continue
		}
		j.t.Dead[l.Reason]++
		u := at[fmt.Sprint(l.Class, l.Seq)]
		switch {
		case u == nil:
			j.find(findDead, l.Contact, "dead letter %d is of %s update %d, which the plan does not have", l.ID, l.Class, l.Seq)
			continue
		case j.dead[u.n]:
			j.find(findDead, l.Contact, "update #%d# has a second dead letter, %d", u.n, l.ID)
		case u.contact != l.Contact:
			j.find(findDead, l.Contact, "dead letter %d is of contact %s, the plan has update #%d# for contact %s", l.ID, l.Contact, u.n, u.contact)
		case u.fate == "":
			j.find(findDead, l.Contact, "update #%d# is dead (%s: %s), the plan says it can be applied", u.n, l.Reason, l.Detail)
		case u.fate != l.Reason:
			j.find(findDead, l.Contact, "update #%d# is dead for %s, the plan says for %s", u.n, l.Reason, u.fate)
		}
		j.dead[u.n] = true
	}
}

// fates holds every update against what became of it.
func (j *demoJudge) fates() {
	j.lost = map[int64]bool{}
	newest := j.newest()
	for _, u := range j.updates {
		j.t.Published++
		entry, written := j.wrote[u.n]
		switch {
		case u.fate != "" && written:
			j.find(findLeak, u.contact, "update #%d# must end as %s, but request %d wrote of it", u.n, u.fate, entry)
			continue
		case u.fate != "" && !j.dead[u.n]:
			j.find(findDead, u.contact, "update #%d# must end as %s, but has no dead letter", u.n, u.fate)
			j.lost[u.n] = true
			continue
		case u.fate != "" || j.dead[u.n]:
			continue
		case written:
			j.t.Applied++
		default:
			j.t.Overwritten++
		}
		for _, f := range u.fields {
			if !j.reached(u, f.path, newest[u.contact+"/"+f.path]) {
				j.lost[u.n] = true
				j.find(findLost, u.contact, "update #%d#: %s was never written, by it or by a newer one", u.n, f.path)
				break
			}
		}
	}
	j.t.Lost = len(j.lost)
}

// demoNewest is the newest valid value of one field of one contact.
type demoNewest struct {
	n     int64
	field demoField
}

func (j *demoJudge) newest() map[string]demoNewest {
	out := map[string]demoNewest{}
	for _, u := range j.updates {
		if u.fate != "" {
			continue
		}
		for _, f := range u.fields {
			out[u.contact+"/"+f.path] = demoNewest{u.n, f}
		}
	}
	return out
}

// reached says whether the ledger shows a field's value, or a newer one. A
// cleared field shows in what the CRM holds at the end only.
func (j *demoJudge) reached(u demoUpdate, path string, newest demoNewest) bool {
	if j.top[u.contact+"/"+path] >= u.n {
		return true
	}
	c, ok := j.evidence.contact(j.target, u.contact)
	return ok && newest.field.clear && empty(at(c, path))
}

// ends holds what the CRM has against the newest valid values.
func (j *demoJudge) ends() {
	newest := j.newest()
	keys := make([]string, 0, len(newest))
	for k := range newest {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	for _, key := range keys {
		id, path, _ := strings.Cut(key, "/")
		want := newest[key]
		c, ok := j.evidence.contact(j.target, id)
		switch have := at(c, path); {
		case !ok:
			j.find(findFinal, id, "the CRM has no such contact")
		case want.field.clear && !empty(have):
			j.find(findFinal, id, "%s holds %q, update #%d# cleared it", path, have, want.n)
		case !want.field.clear && have != any(want.field.value):
			j.find(findFinal, id, "%s holds %q, the newest value is %q", path, have, want.field.value)
		}
	}
}

// at is the value at a path, nil where there is none.
func at(c map[string]any, path string) any {
	outer, inner, nested := strings.Cut(path, ".")
	if !nested {
		return c[path]
	}
	m, _ := c[outer].(map[string]any)
	return m[inner]
}

func empty(v any) bool { return v == nil || v == "" }

func (j *demoJudge) stale() {
	for _, v := range emulator.Stale(j.entries) {
		j.t.Stale++
		j.find(findStale, v.Contact, "request %d: %s", v.N, v.Text)
	}
}

func (j *demoJudge) quota() {
	j.t.Requests = len(j.entries)
	j.t.Peak = emulator.PeakRate(j.entries, time.Second)
	n, first := emulator.OverQuota(j.entries, j.t.Rate, j.t.Burst, 0)
	if j.t.OverQuota = n; n > 0 {
		j.find(findQuota, first.Contact, "%d requests beyond %g/s with bursts of %d, the first of them request %d", n, j.t.Rate, j.t.Burst, first.N)
	}
}

// count sums up what the calls came to.
func (j *demoJudge) count() {
	failing := map[string]bool{} // contacts whose last request failed for a reason that passes
	for _, e := range j.entries {
		if e.Operation != emulator.OpUpdate && e.Operation != emulator.OpRead {
			continue
		}
		switch {
		case e.Status == 0 || e.Status == http.StatusTooManyRequests || e.Status >= http.StatusInternalServerError:
			failing[e.Contact] = true
		case e.Status < http.StatusMultipleChoices && failing[e.Contact]:
			j.t.Recovered++
			delete(failing, e.Contact)
		}
		if e.Operation == emulator.OpUpdate && e.Applied {
			j.t.Writes++
		}
	}
	j.t.Saved = max(0, j.t.Applied+j.t.Overwritten-j.t.Writes)
}
