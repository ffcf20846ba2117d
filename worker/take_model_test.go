package worker

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"crmsync/contact"
)

// TestTakeModel sends takes to a CRM that judges each value by itself, and
// holds the result against brute force: an update is dead if the CRM was given
// a value of it that it refuses, and the rest is as if those had never been.
func TestTakeModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		l := &Lane{o: Options{Rules: testRules}}
		s := &slot{key: contact.Key{Target: "shop", ID: "c1"}}
		var all []*contact.Update
		versioned := rapid.Bool().Draw(t, "versioned")
		at := time.Unix(1000, 0)
		var seq [contact.Classes]uint64
		for n := range rapid.IntRange(1, 10).Draw(t, "n") {
			u := drawUpdate(t, n)
			u.Versioned, u.Version = versioned, rapid.Int64Range(0, 5).Draw(t, "version")
			at = at.Add(time.Second)
			seq[u.Class]++
			u.Seq, u.Stored = seq[u.Class], at
			all = append(all, u)
		}
		s.pending = interleave(t, all)

		crmHas := map[string]*contact.Update{}
		end := map[*contact.Update]contact.Ending{}
		calls := 0
		for len(s.pending) > 0 {
			tk := l.newTake(s)
			for tk.next(l.o.Rules) {
				if calls++; calls > 200 {
					t.Fatal("it does not end")
				}
				answer(t, tk, crmHas, all)
			}
			for i, e := range tk.endings(l.o.Rules, at) {
				if e.Update != tk.updates[i] || e.Ending.Outcome == contact.Pending {
					t.Fatalf("ending %d is %+v", i, e)
				}
				end[e.Update] = e.Ending
			}
			s.fence = tk.fence
		}
		checkTake(t, all, end, crmHas)
	})
}

func drawUpdate(t *rapid.T, n int) *contact.Update {
	u := &contact.Update{Class: contact.Class(rapid.IntRange(0, 1).Draw(t, "class"))}
	var doc []string
	addr := []string{}
	for _, f := range []string{"a", "b", "c", "addr.x", "addr.y"} {
		k := rapid.IntRange(0, 7).Draw(t, f)
		if k < 4 {
			continue
		}
		v := fmt.Sprintf(`"c1#%d#%s"`, n, map[bool]string{true: "bad"}[k == 7])
		if m, ok := strings.CutPrefix(f, "addr."); ok {
			addr = append(addr, fmt.Sprintf(`"%s":%s`, m, v))
		} else {
			doc = append(doc, fmt.Sprintf(`"%s":%s`, f, v))
		}
	}
	if len(addr) > 0 {
		doc = append(doc, `"addr":{`+strings.Join(addr, ",")+`}`)
	}
	if rapid.IntRange(0, 9).Draw(t, "mail") == 0 {
		doc = append(doc, fmt.Sprintf(`"mail":"c1#%d#"`, n))
	}
	u.Fields, _ = contact.ParsePatch([]byte("{" + strings.Join(doc, ",") + "}"))
	if len(doc) == 0 {
		u.Bad = &contact.BadUpdate{Reason: contact.Malformed}
	}
	return u
}

// answer carries out one call.
func answer(t *rapid.T, tk *take, crmHas map[string]*contact.Update, all []*contact.Update) {
	values := flat(tk.fields)
	for _, v := range values {
		if strings.HasSuffix(v, "#bad") {
			tk.refuse(testRules, tk.fence, contact.Ending{Outcome: contact.Dead, Reason: contact.Invalid})
			return
		}
	}
	if _, mail := values["mail"]; mail && tk.carried() != 1 {
		t.Fatalf("a side effect in a call of %d updates", tk.carried())
	}
	for path, v := range values {
		crmHas[path] = all[number(v)]
	}
	tk.accept(testRules, contact.Ending{Outcome: contact.Applied, Status: 200})
}

func checkTake(t *rapid.T, all []*contact.Update, end map[*contact.Update]contact.Ending, crmHas map[string]*contact.Update) {
	want := map[string]*contact.Update{}
	for _, u := range all {
		e, ok := end[u]
		if !ok {
			t.Fatalf("no outcome for %d", u.Seq)
		}
		bad := u.Bad != nil
		for path, v := range flat(u.Fields) {
			bad = bad || strings.HasSuffix(v, "#bad")
			if w := want[path]; e.Outcome != contact.Dead && (w == nil || u.Mark().After(w.Mark())) {
				want[path] = u
			}
		}
		if e.Outcome == contact.Dead && !bad {
			t.Fatalf("a good update is dead: %+v", e)
		}
	}
	for path, u := range want {
		got := crmHas[path]
		if got != u && (got == nil || end[got].Outcome != contact.Dead) && path != "mail" {
			t.Fatalf("%s: not the newest update that counts", path)
		}
	}
	for path, u := range crmHas {
		if o := end[u].Outcome; want[path] == u && o != contact.Applied {
			t.Fatalf("%s stands in the CRM, its update is %s", path, o)
		}
	}
}

// interleave draws an order of arrival that keeps each class's own.
func interleave(t *rapid.T, all []*contact.Update) []*contact.Update {
	var streams [contact.Classes][]*contact.Update
	for _, u := range all {
		streams[u.Class] = append(streams[u.Class], u)
	}
	var out []*contact.Update
	for len(out) < len(all) {
		c := rapid.IntRange(0, 1).Draw(t, "next")
		if len(streams[c]) == 0 {
			c = 1 - c
		}
		out = append(out, streams[c][0])
		streams[c] = streams[c][1:]
	}
	return out
}
