package main

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"crmsync/app"
	"crmsync/emulator"
)

var judgeEpoch = time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC)

// judgeCase is a small plan with a ledger and CRMs in which all is well, for
// tests to spoil.
type judgeCase struct {
	plan     *demoPlan
	evidence demoEvidence
	held     map[string]map[string]any // office contacts
}

// newJudgeCase: contact 1 is written twice, the first update merged with the
// second for one field; 2 is cleared; 3 is spoiled and then written; 9 is
// missing.
func newJudgeCase() *judgeCase {
	text := func(path string, n int64) demoField { return demoField{path: path, value: demoText("Ada", n)} }
	updates := []demoUpdate{
		{n: 1, contact: "1", class: "bulk", seq: 1, fields: []demoField{text("firstname", 1), text("lastname", 1)}},
		{n: 2, contact: "1", class: "live", seq: 1, fields: []demoField{text("firstname", 2)}},
		{n: 3, contact: "2", class: "bulk", seq: 2, fields: []demoField{text("lastname", 3), {path: "title", clear: true}}},
		{n: 4, contact: "3", class: "bulk", seq: 3, fate: "conflict", fields: []demoField{{path: "email", value: "x@y"}, text("firstname", 4)}},
		{n: 5, contact: "3", class: "live", seq: 2, fields: []demoField{text("firstname", 5)}},
		{n: 6, contact: "9", class: "live", seq: 3, fate: "missing", fields: []demoField{text("firstname", 6)}},
		{n: 7, contact: "1", class: "live", seq: 4, fields: []demoField{text("firstname", 7)}},
	}
	for i := range updates {
		updates[i].target = demoOffice
	}
	c := &judgeCase{
		plan: &demoPlan{updates: updates, targets: []string{demoOffice, demoShop}},
		held: map[string]map[string]any{
			"1": {"firstname": "Ada #7#", "lastname": "Ada #1#"},
			"2": {"lastname": "Ada #3#", "title": nil},
			"3": {"firstname": "Ada #5#"},
		},
	}
	c.evidence = demoEvidence{
		ledger: map[string][]emulator.Entry{demoOffice: {
			write(1, "1", map[string]any{"firstname": "Ada #2#", "lastname": "Ada #1#"}),
			write(2, "2", map[string]any{"lastname": "Ada #3#", "title": nil}),
			{N: 3, Operation: emulator.OpUpdate, Contact: "3", Status: 409, Updates: []int64{5}},
			write(4, "3", map[string]any{"firstname": "Ada #5#"}),
			{N: 5, Operation: emulator.OpUpdate, Contact: "1", Status: 503, Updates: []int64{7}},
			write(6, "1", map[string]any{"firstname": "Ada #7#"}),
		}},
		contact: func(target, id string) (map[string]any, bool) {
			f, ok := c.held[id]
			return f, ok && target == demoOffice
		},
		limits: map[string]emulator.Limits{demoOffice: {Rate: 10, Burst: 3}, demoShop: {Rate: 10, Burst: 3}},
		letters: []app.Letter{
			{ID: 1, Target: demoOffice, Contact: "3", Class: "bulk", Seq: 3, Reason: "conflict"},
			{ID: 2, Target: demoOffice, Contact: "9", Class: "live", Seq: 3, Reason: "missing"},
		},
		ended:  map[demoPlace]time.Time{},
		killed: []time.Time{judgeEpoch.Add(time.Minute)},
	}
	for _, u := range updates {
		c.evidence.ended[demoPlace{u.target, u.class, u.seq}] = judgeEpoch.Add(30 * time.Second)
	}
	for i := range c.office() {
		e := &c.office()[i]
		e.Arrived = judgeEpoch.Add(time.Duration(i) * time.Second)
		e.Answered = e.Arrived.Add(10 * time.Millisecond)
	}
	return c
}

// write is the entry of an applied update.
func write(n int, contact string, values map[string]any) emulator.Entry {
	e := emulator.Entry{
		N: n, Seq: n, Operation: emulator.OpUpdate, Contact: contact, Status: 200, Applied: true,
		Changed: slices.Sorted(maps.Keys(values)), Values: values,
	}
	for _, v := range values {
		if m, ok := markOf(v); ok {
			e.Updates = append(e.Updates, m)
		}
	}
	slices.Sort(e.Updates)
	return e
}

func (c *judgeCase) office() []emulator.Entry { return c.evidence.ledger[demoOffice] }

func (c *judgeCase) add(e emulator.Entry) {
	if e.Arrived.IsZero() {
		e.Arrived = judgeEpoch.Add(time.Hour)
		e.Answered = e.Arrived
	}
	c.evidence.ledger[demoOffice] = append(c.office(), e)
}

func TestJudgeAcceptsAGoodLedger(t *testing.T) {
	c := newJudgeCase()
	v := judgeDemo(c.plan, c.evidence)
	if len(v.Findings) > 0 {
		t.Fatalf("findings in a good ledger: %v", v.Findings)
	}
	got := v.Targets[0]
	got.Dead = nil
	want := demoTotals{
		Target: demoOffice, Published: 7, Applied: 5, Writes: 4, Saved: 1, Recovered: 1,
		Requests: 6, Peak: 1, Rate: 10, Burst: 3,
	}
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("totals\n%+v, want\n%+v", got, want)
	}
	if d := v.Targets[0].Dead; d["conflict"] != 1 || d["missing"] != 1 || len(d) != 2 {
		t.Errorf("dead %v", d)
	}
}

func TestJudgeFindsWhatIsWrong(t *testing.T) {
	for _, tc := range []struct {
		name  string
		spoil func(c *judgeCase)
		kinds string // of the findings, each once, sorted
		text  string // in one of them
	}{
		{"an update that was never written", func(c *judgeCase) {
			delete(c.office()[0].Values, "lastname")
			c.office()[0].Changed = []string{"firstname"}
			c.held["1"]["lastname"] = "Byron"
		}, "lost, wrong end", "update #1#: lastname"},
		{"the newest was never written", func(c *judgeCase) {
			c.evidence.ledger[demoOffice] = c.office()[:5]
			c.held["1"]["firstname"] = "Ada #2#"
		}, "lost, wrong end", "update #7#"},
		{"a clear that was not carried out", func(c *judgeCase) {
			c.held["2"]["title"] = "Manager"
		}, "lost, wrong end", `title holds "Manager", update #3# cleared it`},
		{"a lie: the ledger shows it, the CRM does not have it", func(c *judgeCase) {
			c.held["3"]["firstname"] = "Bob"
		}, "wrong end", `firstname holds "Bob", the newest value is "Ada #5#"`},
		{"an older value over a newer one", func(c *judgeCase) {
			c.add(write(7, "1", map[string]any{"firstname": "Ada #2#"}))
			c.held["1"]["firstname"] = "Ada #2#"
		}, "stale, wrong end", "went back from #7# to #2#"},
		{"the contact is gone", func(c *judgeCase) {
			delete(c.held, "3")
		}, "wrong end", "no such contact"},
		{"no letter for a missing contact", func(c *judgeCase) {
			c.evidence.letters = c.evidence.letters[:1]
		}, "dead", "update #6# must end as missing, but has no dead letter"},
		{"another reason than planned", func(c *judgeCase) {
			c.evidence.letters[0].Reason = "exhausted"
		}, "dead", "update #4# is dead for exhausted, the plan says for conflict"},
		{"a good update is dead", func(c *judgeCase) {
			c.evidence.letters = append(c.evidence.letters, app.Letter{ID: 3, Target: demoOffice, Contact: "2", Class: "bulk", Seq: 2, Reason: "exhausted"})
		}, "dead", "update #3# is dead (exhausted"},
		{"two letters for one update", func(c *judgeCase) {
			c.evidence.letters = append(c.evidence.letters, c.evidence.letters[1])
		}, "dead", "update #6# has a second dead letter"},
		{"a letter of nobody's update", func(c *judgeCase) {
			c.evidence.letters = append(c.evidence.letters, app.Letter{ID: 9, Target: demoOffice, Contact: "1", Class: "live", Seq: 99, Reason: "missing"})
		}, "dead", "live update 99, which the plan does not have"},
		{"a letter under the wrong contact", func(c *judgeCase) {
			c.evidence.letters[1].Contact = "8"
		}, "dead", "of contact 8, the plan has update #6# for contact 9"},
		{"part of a dead update was written", func(c *judgeCase) {
			c.add(write(7, "3", map[string]any{"firstname": "Ada #4#"}))
		}, "leak, stale", "update #4# must end as conflict, but request 7 wrote of it"},
		{"beyond the quota", func(c *judgeCase) {
			for i := range c.office() {
				c.office()[i].Arrived = judgeEpoch
			}
		}, "quota", "3 requests beyond 10/s with bursts of 3, the first of them request 4"},
		{"repeated without a reason", func(c *judgeCase) {
			c.office()[4].Status = 409
			c.add(emulator.Entry{
				N: 7, Operation: emulator.OpUpdate, Contact: "1", Status: 200, Unchanged: true, Updates: []int64{7},
				Arrived: judgeEpoch.Add(2 * time.Minute), Answered: judgeEpoch.Add(2 * time.Minute),
			})
		}, "repeat", "request 7 repeats request 6, of which the answer was known"},
		{"what belongs to the other CRM", func(c *judgeCase) {
			for i := range c.plan.updates {
				c.plan.updates[i].target = demoShop
			}
		}, "dead, lost, wrong end", "which the plan does not have"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			c := newJudgeCase()
			tc.spoil(c)
			v := judgeDemo(c.plan, c.evidence)
			var kinds, texts []string
			for _, f := range v.Findings {
				kinds, texts = append(kinds, f.Kind), append(texts, f.Text)
			}
			slices.Sort(kinds)
			if got := strings.Join(slices.Compact(kinds), ", "); got != tc.kinds {
				t.Errorf("kinds %q, want %q: %q", got, tc.kinds, texts)
			}
			if !strings.Contains(strings.Join(texts, "\n"), tc.text) {
				t.Errorf("no finding says %q: %q", tc.text, texts)
			}
		})
	}
}

// A repeat is excused where the end of what the call carried was not stored at the
// kill, or by a lost answer.
func TestJudgeExcusesRepeats(t *testing.T) {
	kill := judgeEpoch.Add(time.Minute)
	repeat := emulator.Entry{
		N: 8, Operation: emulator.OpUpdate, Contact: "1", Status: 200, Unchanged: true, Updates: []int64{7},
		Arrived: judgeEpoch.Add(2 * time.Minute), Answered: judgeEpoch.Add(2 * time.Minute),
	}
	seventh := demoPlace{demoOffice, "live", 4}
	for _, tc := range []struct {
		name  string
		spoil func(c *judgeCase, last *emulator.Entry)
		want  int // in flight
		found bool
	}{
		{"not answered at the kill", func(_ *judgeCase, last *emulator.Entry) {
			last.Arrived, last.Answered = kill.Add(-time.Millisecond), kill.Add(time.Millisecond)
		}, 1, false},
		{"never answered", func(_ *judgeCase, last *emulator.Entry) {
			last.Arrived, last.Answered = kill.Add(-time.Millisecond), time.Time{}
		}, 1, false},
		{"answered long before, its end stored by the heir", func(c *judgeCase, _ *emulator.Entry) {
			c.evidence.ended[seventh] = kill.Add(time.Second)
		}, 1, false},
		{"answered long before, its end stored before the kill", func(c *judgeCase, _ *emulator.Entry) {
			c.evidence.ended[seventh] = kill.Add(-time.Millisecond)
		}, 0, true},
		{"read by the CRM a moment after the kill", func(_ *judgeCase, last *emulator.Entry) {
			last.Arrived, last.Answered = kill.Add(arrivalGrace/2), kill.Add(arrivalGrace)
		}, 1, false},
		{"sent after the kill", func(c *judgeCase, last *emulator.Entry) {
			last.Arrived, last.Answered = kill.Add(2*arrivalGrace), kill.Add(2*arrivalGrace)
		}, 0, true},
		{"a part of a merge whose end was not stored, sent by the heir alone", func(_ *judgeCase, last *emulator.Entry) {
			last.Updates = []int64{7, 8} // no call before ended in 7
		}, 1, false},
		{"a part of one whose end was", func(c *judgeCase, last *emulator.Entry) {
			last.Updates = []int64{7, 8}
			c.evidence.ended[seventh] = kill.Add(-time.Millisecond)
		}, 1, true},
		{"its answer did not come in time", func(c *judgeCase, last *emulator.Entry) {
			last.Arrived, last.Answered = repeat.Arrived.Add(-demoTimeout), repeat.Arrived.Add(-demoTimeout/2)
			c.evidence.ended[seventh] = repeat.Arrived.Add(time.Millisecond)
		}, 0, false},
		{"it came in time, to a machine that is slow", func(c *judgeCase, last *emulator.Entry) {
			last.Arrived, last.Answered = repeat.Arrived.Add(-demoTimeout), repeat.Arrived.Add(-demoTimeout)
			c.evidence.ended[seventh] = repeat.Arrived.Add(time.Millisecond)
			c.evidence.starved = demoTimeout / 2
		}, 0, false},
		{"it came in time", func(c *judgeCase, last *emulator.Entry) {
			last.Arrived, last.Answered = repeat.Arrived.Add(-demoTimeout), repeat.Arrived.Add(-demoTimeout)
			c.evidence.ended[seventh] = repeat.Arrived.Add(time.Millisecond)
		}, 0, true},
		{"it was called again too early for that", func(c *judgeCase, last *emulator.Entry) {
			last.Arrived = repeat.Arrived.Add(-demoTimeout / 2)
			c.evidence.ended[seventh] = repeat.Arrived.Add(time.Millisecond)
		}, 0, true},
		{"its answer was lost", func(c *judgeCase, last *emulator.Entry) {
			last.Fault, last.Status = string(emulator.LostAnswer), 0
			c.evidence.ended[seventh] = kill.Add(-time.Millisecond)
		}, 0, false},
		{"nobody was killed", func(c *judgeCase, last *emulator.Entry) {
			last.Arrived, last.Answered = kill.Add(-time.Millisecond), kill.Add(time.Millisecond)
			c.evidence.killed = nil
		}, 0, true},
		{"the kill came after the repeat", func(c *judgeCase, _ *emulator.Entry) {
			c.evidence.killed = []time.Time{repeat.Arrived.Add(time.Second)}
			c.evidence.ended[seventh] = kill
		}, 0, true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			c := newJudgeCase()
			delete(c.evidence.ended, seventh)
			c.office()[4].Status = 409 // a refusal leaves nothing open
			tc.spoil(c, &c.office()[5])
			c.add(repeat)
			v := judgeDemo(c.plan, c.evidence)
			if got := v.Targets[0]; got.Repeated != 1 || got.InFlight != tc.want {
				t.Errorf("repeated %d, in flight %d; want 1 and %d", got.Repeated, got.InFlight, tc.want)
			}
			if found := len(v.Findings) > 0; found != tc.found {
				t.Errorf("findings %v, want some: %v", v.Findings, tc.found)
			}
		})
	}
}

// What had ended is written again only where something older may come late, and so
// many times only.
func TestJudgeKnowsWhatIsPutOnTop(t *testing.T) {
	kill := judgeEpoch.Add(time.Minute)
	eighth := demoPlace{demoOffice, "live", 5}
	for _, tc := range []struct {
		name  string
		spoil func(c *judgeCase, again []emulator.Entry)
		times int
		found bool
	}{
		{"after a kill", func(*judgeCase, []emulator.Entry) {}, 1, false},
		{"four times", func(*judgeCase, []emulator.Entry) {}, 4, false},
		{"five times", func(*judgeCase, []emulator.Entry) {}, 5, true},
		{"five times after two kills", func(c *judgeCase, _ []emulator.Entry) {
			c.evidence.killed = append(c.evidence.killed, kill.Add(-time.Millisecond))
		}, 5, false},
		{"nobody was killed", func(c *judgeCase, _ []emulator.Entry) { c.evidence.killed = nil }, 1, true},
		{"nobody was killed, but the server had failed", func(c *judgeCase, _ []emulator.Entry) {
			c.evidence.killed, c.office()[4].Status = nil, 503
		}, 1, false},
		{"a network ate the answer", func(c *judgeCase, _ []emulator.Entry) {
			c.evidence.killed, c.evidence.doubted = nil, c.evidence.killed
		}, 1, false},
		{"one update was open at the kill", func(c *judgeCase, _ []emulator.Entry) {
			c.evidence.ended[eighth] = kill.Add(-time.Second)
		}, 1, true},
		{"too soon", func(_ *judgeCase, again []emulator.Entry) {
			again[0].Arrived = kill.Add(2*time.Second + onTopAfter - time.Millisecond)
		}, 1, true},
		{"it had not ended", func(c *judgeCase, again []emulator.Entry) {
			c.evidence.ended[demoPlace{demoOffice, "live", 4}] = again[0].Arrived
		}, 1, true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			c := newJudgeCase()
			c.evidence.killed = []time.Time{kill}
			c.office()[4].Status = 409
			c.office()[5].Arrived, c.office()[5].Answered = kill.Add(2*time.Second), kill.Add(2*time.Second)
			c.plan.updates = append(c.plan.updates, demoUpdate{n: 8, target: demoOffice, contact: "1", class: "live", seq: 5})
			c.evidence.ended[demoPlace{demoOffice, "live", 4}] = kill.Add(3 * time.Second)
			c.evidence.ended[eighth] = kill.Add(3 * time.Second)
			var again []emulator.Entry
			for i := range tc.times {
				at := kill.Add(time.Duration(20+i) * time.Second)
				again = append(again, emulator.Entry{
					N: 8 + i, Operation: emulator.OpUpdate, Contact: "1", Status: 200, Unchanged: true, Updates: []int64{7}, Arrived: at, Answered: at,
				})
			}
			tc.spoil(c, again)
			for _, e := range again {
				c.add(e)
			}
			v := judgeDemo(c.plan, c.evidence)
			if found := len(v.Findings) > 0; found != tc.found {
				t.Errorf("findings %v, want some: %v", v.Findings, tc.found)
			}
			if got := v.Targets[0]; got.PutOnTop+got.Repeated != tc.times || got.PutOnTop > onTopMost*max(1, len(c.evidence.killed)) || tc.found && tc.times == 1 && got.PutOnTop > 0 {
				t.Errorf("%d put on top, %d repeated", got.PutOnTop, got.Repeated)
			}
		})
	}
}

func TestMarkOf(t *testing.T) {
	for in, want := range map[any]int64{
		"Ada #12#": 12, "#1#": 1, "Bjørn #7# #8#": 8, "Ada": 0, "12#": 0, "#x#": 0, "##": 0, nil: 0, 5: 0, "#5# ": 0,
	} {
		n, ok := markOf(in)
		if n != want || ok != (want > 0) {
			t.Errorf("markOf(%v) = %d, %v; want %d", in, n, ok, want)
		}
	}
}

func TestPlan(t *testing.T) {
	const updates = 4000
	p, again := newDemoPlan(7, updates, demoOffice, demoShop), newDemoPlan(7, updates, demoOffice, demoShop)
	if fmt.Sprint(p) != fmt.Sprint(again) {
		t.Error("the same seed draws another plan")
	}
	if fmt.Sprint(p.updates) == fmt.Sprint(newDemoPlan(8, updates, demoOffice, demoShop).updates) {
		t.Error("another seed draws the same plan")
	}
	fates, classes, clears, nested := map[string]int{}, map[string]int{}, 0, 0
	perContact := map[string]int{}
	seqs := map[string]uint64{}
	for i, u := range p.updates {
		if u.n != int64(i+1) {
			t.Fatalf("update %d has number %d", i+1, u.n)
		}
		stream := u.target + "/" + u.class
		if seqs[stream]++; u.seq != seqs[stream] {
			t.Fatalf("update %d is number %d of %s, want %d", u.n, u.seq, stream, seqs[stream])
		}
		if i < p.wave && u.class != "bulk" {
			t.Errorf("update %d of the first wave is %s", u.n, u.class)
		}
		fates[u.target+"/"+u.fate]++
		classes[u.class]++
		perContact[u.target+u.contact]++
		marked := false
		for _, f := range u.fields {
			n, ok := markOf(f.value)
			marked = marked || ok && n == u.n
			if f.clear {
				clears++
			}
			if strings.Contains(f.path, ".") {
				nested++
			}
		}
		if !marked {
			t.Errorf("update %d has no mark: %v", u.n, u.fields)
		}
	}
	for _, want := range []string{"office/missing", "office/conflict", "shop/missing", "shop/conflict", "shop/invalid"} {
		if fates[want] == 0 {
			t.Errorf("no update ends as %s: %v", want, fates)
		}
	}
	if bad := updates - fates["office/"] - fates["shop/"]; bad < updates/100 || bad > updates*3/100 {
		t.Errorf("%d of %d updates are to die, want about 2 %%", bad, updates)
	}
	if classes["live"] < updates/5 || clears == 0 || nested == 0 {
		t.Errorf("classes %v, %d clears, %d address parts", classes, clears, nested)
	}
	if most := slices.Max(slices.Collect(maps.Values(perContact))); most < 20 {
		t.Errorf("the busiest contact has %d updates: nothing to merge", most)
	}
}

func TestDemoBody(t *testing.T) {
	got := string(demoBody([]demoField{
		{path: "firstname", value: "Ada #1#"},
		{path: "title", clear: true},
		{path: "address.city", value: "Ipswich"},
		{path: "address.line1", clear: true},
	}))
	want := `{"fields":{"address":{"city":"Ipswich","line1":null},"firstname":"Ada #1#","title":null}}`
	if got != want {
		t.Errorf("body %s, want %s", got, want)
	}
}
