package worker

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"crmsync/contact"
)

// Redrives are as old as their originals and stand where they were stored. In
// whatever order the classes arrive and wherever a take ends, what is taken is in
// each class what comes next, as a settlement must be, and the fold of all takes
// leaves each field with the value of its newest update.
func TestSlotWithRedrives(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		updates := redriveHistory(t)
		var by [contact.Classes][]*contact.Update
		for _, u := range updates {
			by[u.Class] = append(by[u.Class], u)
		}
		s := &slot{fence: contact.Fence{}, heapIndex: -1}
		l := &Lane{o: Options{Rules: testRules}}
		arrived, settled := [contact.Classes]int{}, [contact.Classes]int{}
		holds := map[string]string{}
		for settled[0]+settled[1] < len(updates) {
			c := contact.Class(rapid.IntRange(0, contact.Classes-1).Draw(t, "class"))
			for range rapid.IntRange(0, 3).Draw(t, "arrive") {
				if arrived[c] < len(by[c]) {
					s.insert(by[c][arrived[c]])
					arrived[c]++
				}
			}
			if len(s.pending) == 0 || !rapid.Bool().Draw(t, "take") {
				continue
			}
			tk := l.newTake(s)
			for _, u := range tk.updates {
				if want := by[u.Class][settled[u.Class]]; u != want {
					t.Fatalf("%s update %d is taken before %d", u.Class, u.Seq, want.Seq)
				}
				settled[u.Class]++
			}
			for _, f := range tk.fold.Fields {
				holds[f.Name] = string(f.Value)
			}
			s.fence = tk.fold.Fence
		}
		newest := map[string]*contact.Update{}
		for _, u := range updates {
			for _, f := range u.Fields {
				if was := newest[f.Name]; was == nil || u.Mark().After(was.Mark()) {
					newest[f.Name] = u
				}
			}
		}
		for name, u := range newest {
			v, _ := u.Fields.Get(name)
			if holds[name] != string(v) {
				t.Fatalf("%s holds %s, its newest update %+v says %s", name, holds[name], u.Mark(), v)
			}
		}
	})
}

// redriveHistory is updates of one contact in the order in which they were
// stored, some of which repeat an earlier place that is not among them.
func redriveHistory(t *rapid.T) []*contact.Update {
	var seq [contact.Classes]uint64
	var lost []contact.Place // of letters
	var out []*contact.Update
	for i := range rapid.IntRange(1, 12).Draw(t, "updates") {
		c := contact.Class(rapid.IntRange(0, contact.Classes-1).Draw(t, "class"))
		seq[c]++
		u := &contact.Update{Class: c, Seq: seq[c], Stored: time.Unix(int64(100+i), 0)}
		names := rapid.SliceOfNDistinct(rapid.SampledFrom([]string{"a", "b", "c", "mail"}), 1, 3, rapid.ID).Draw(t, "names")
		slices.Sort(names)
		for _, n := range names {
			u.Fields = u.Fields.With(n, fmt.Appendf(nil, "%d", i))
		}
		if len(lost) > 0 && rapid.Bool().Draw(t, "redrive") {
			at := rapid.IntRange(0, len(lost)-1).Draw(t, "letter")
			u.RedriveOf, u.Redrive = "1", &contact.Redrive{Order: lost[at], Force: rapid.IntRange(0, 4).Draw(t, "force") == 0}
			lost = slices.Delete(lost, at, at+1)
		} else if rapid.IntRange(0, 2).Draw(t, "dies") == 0 {
			lost = append(lost, contact.Place{Class: c, Seq: u.Seq, Stored: u.Stored})
			continue
		}
		out = append(out, u)
	}
	return out
}
