package contact

import (
	"maps"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// updateAt is an update with this mark.
func updateAt(m Mark, fields Patch) *Update {
	return &Update{Class: m.Class, Seq: m.Seq, Stored: time.Unix(0, m.Stored), Version: m.Version, Versioned: m.Versioned, Fields: fields}
}

// modelled is what [Fold] should come to.
type modelled struct {
	doc    document
	used   []bool
	winner map[string]int
	done   []write // all that ever wrote, before or in the fold
}

// modelFold is Fold said plainly: in order, path by path, a write happens unless
// some write that happened there is not older.
func modelFold(settled []write, updates []*Update) modelled {
	out := modelled{doc: document{}, used: make([]bool, len(updates)), winner: map[string]int{}, done: slices.Clone(settled)}
	empty := map[string][]int{}
	for i, u := range updates {
		if u.Bad != nil {
			continue
		}
		m := u.Mark()
		before := slices.Clone(out.done) // an update does not stand in its own way
		for _, f := range u.Fields {
			one := Patch{f}
			if len(testRules.Paths(one)) == 0 {
				if !blockedBy(before, escapePath(f.Name), m) {
					out.doc.apply(testRules, one)
					empty[f.Name] = append(empty[f.Name], i)
				}
				continue
			}
			kept, _ := testRules.Without(one, func(p string) bool { return blockedBy(before, p, m) })
			out.doc.apply(testRules, kept)
			for _, p := range testRules.Paths(kept) {
				out.winner[p] = i
				out.done = append(out.done, write{p, m})
			}
		}
	}
	for _, i := range out.winner {
		out.used[i] = true
	}
	for _, list := range empty {
		for _, i := range list {
			out.used[i] = true
		}
	}
	return out
}

func TestFoldEqualsTheModel(t *testing.T) {
	paths := []string{"a", "b", `a\\`, `addr\.city`, "x", "addr", "addr.city", "addr.zip", `addr.a\.b`, `x\.y`, `x\.y.city`, "addr."}
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.IntRange(1, 6).Draw(t, "updates")
		before := rapid.IntRange(0, 4).Draw(t, "settled")
		marks := history(n+before).Draw(t, "marks")
		var settled []write
		fence := Fence{}
		for _, m := range marks[:before] {
			for _, p := range rapid.SliceOfNDistinct(rapid.SampledFrom(paths), 0, 3, rapid.ID).Draw(t, "paths") {
				settled = append(settled, write{p, m})
				fence.Add([]string{p}, m)
			}
		}
		updates := make([]*Update, n)
		for i := range updates {
			updates[i] = updateAt(marks[before+i], foldPatch(n > 1).Draw(t, "fields"))
			if rapid.IntRange(0, 9).Draw(t, "bad") == 0 {
				updates[i].Bad = &BadUpdate{Reason: Malformed}
			}
		}
		untouched := maps.Clone(fence)

		got := Fold(testRules, fence, updates)
		want := modelFold(settled, updates)

		if !slices.IsSortedFunc(got.Fields, byName) {
			t.Fatalf("not sorted: %v", got.Fields.Names())
		}
		folded := document{}
		folded.apply(testRules, got.Fields)
		if folded.String() != want.doc.String() {
			t.Fatalf("fields %s, want %s", folded, want.doc)
		}
		if !slices.Equal(got.Used, want.used) || !maps.Equal(got.Winner, want.winner) {
			t.Fatalf("used %v, want %v; winner %v, want %v; fields %s", got.Used, want.used, got.Winner, want.winner, want.doc)
		}
		if !slices.Equal(slices.Sorted(maps.Keys(got.Winner)), slices.Sorted(slices.Values(testRules.Paths(got.Fields)))) {
			t.Fatalf("winners of %v, paths %q", got.Winner, testRules.Paths(got.Fields))
		}
		if !maps.Equal(fence, untouched) {
			t.Fatal("the settled fence was changed")
		}
		// The new fence blocks what all writes together block.
		probe := history(1).Draw(t, "probe")[0]
		probe.Seq, probe.Stored = rapid.Uint64Range(0, 12).Draw(t, "seq"), rapid.Int64Range(999, 1020).Draw(t, "stored")
		for _, m := range append(marks, consistent(probe, marks)...) {
			for _, p := range paths {
				if b, want := got.Fence.Blocks(p, m), blockedBy(want.done, p, m); b != want {
					t.Fatalf("fence at %q for %+v: %v, want %v", p, m, b, want)
				}
			}
		}
	})
}

// What is sent of a fold in parts comes to what is sent of it whole, in any
// order of the parts, and no part holds what is another's.
func TestPartsMakeTheWhole(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		marks := history(rapid.IntRange(1, 6).Draw(t, "n")).Draw(t, "marks")
		updates := make([]*Update, len(marks))
		for i, m := range marks {
			updates[i] = updateAt(m, foldPatch(true).Filter(func(p Patch) bool { return !hasEmptyObject(p) }).Draw(t, "fields"))
		}
		got := Fold(testRules, nil, updates)
		whole, parts := document{}, document{}
		whole.apply(testRules, got.Fields)
		for _, i := range rapid.Permutation(indexes(len(updates))).Draw(t, "order") {
			part := got.Part(testRules, func(_ string, w int) bool { return w == i })
			for _, p := range testRules.Paths(part) {
				if got.Winner[p] != i {
					t.Fatalf("%q of %d is in the part of %d", p, got.Winner[p], i)
				}
			}
			if len(part) > 0 != got.Used[i] {
				t.Fatalf("part of %d: %s, used %v", i, patchText(t, part), got.Used[i])
			}
			parts.apply(testRules, part)
		}
		if whole.String() != parts.String() {
			t.Fatalf("whole %s, parts %s", whole, parts)
		}
		if all := got.Part(testRules, func(string, int) bool { return true }); !all.Equal(got.Fields) {
			t.Fatalf("all of it: %s, not %s", patchText(t, all), patchText(t, got.Fields))
		}
	})
}

func indexes(n int) []int {
	out := make([]int, n)
	for i := range out {
		out[i] = i
	}
	return out
}

func TestPart(t *testing.T) {
	updates := []*Update{
		updateAt(Mark{Seq: 1}, parsed(`{"a":1,"b":1,"addr":{"c":1,"z":1},"x.y":{}}`)),
		updateAt(Mark{Seq: 2}, parsed(`{"b":2,"addr":{"z":2}}`)),
	}
	f := Fold(testRules, nil, updates)
	if want := (map[string]int{"a": 0, "b": 1, "addr.c": 0, "addr.z": 1}); !maps.Equal(f.Winner, want) {
		t.Errorf("winners %v, want %v", f.Winner, want)
	}
	for want, keep := range map[string]func(string, int) bool{
		`{"a":1,"addr":{"c":1}}`: func(_ string, w int) bool { return w == 0 },
		`{"addr":{"z":2},"b":2}`: func(_ string, w int) bool { return w == 1 },
		`{"addr":{"c":1}}`:       func(p string, _ int) bool { return p == "addr.c" },
		`{}`:                     func(string, int) bool { return false },
	} {
		if got := patchText(t, f.Part(testRules, keep)); got != want {
			t.Errorf("%s, want %s", got, want)
		}
	}
	if len(f.Fields) != 4 {
		t.Errorf("Part changed the fold: %s", patchText(t, f.Fields))
	}
}

// consistent is the probe if a broker could have stored it beside the marks.
func consistent(probe Mark, marks []Mark) []Mark {
	for _, m := range marks {
		if m.Class == probe.Class && (m.Seq < probe.Seq) != (m.Stored < probe.Stored) {
			return nil
		}
	}
	return []Mark{probe}
}

// Folding together comes to the same as folding one by one, each over the fence
// of those before.
func TestFoldTogetherEqualsOneByOne(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		marks := history(rapid.IntRange(1, 8).Draw(t, "n")).Draw(t, "marks")
		updates := make([]*Update, len(marks))
		oneByOne, fence := document{}, Fence(nil)
		for i, m := range marks {
			updates[i] = updateAt(m, foldPatch(true).Draw(t, "fields"))
			one := Fold(testRules, fence, updates[i:i+1])
			oneByOne.apply(testRules, one.Fields)
			fence = one.Fence
		}
		got := Fold(testRules, nil, updates)
		together := document{}
		together.apply(testRules, got.Fields)
		if together.String() != oneByOne.String() || !maps.Equal(got.Fence, fence) {
			t.Fatalf("%s, %v; one by one %s, %v", together, got.Fence, oneByOne, fence)
		}
	})
}

// P2 where all updates are alike (all with versions, or none): whatever the
// order in which they are handed out and however they are cut into folds, the
// contact ends as its newest updates say.
func TestFoldConverges(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		marks := history(rapid.IntRange(1, 8).Draw(t, "n")).Draw(t, "marks")
		versioned := rapid.Bool().Draw(t, "versioned")
		updates := make([]*Update, len(marks))
		for i, m := range marks {
			m.Versioned = versioned
			updates[i] = updateAt(m, foldPatch(true).Filter(func(p Patch) bool { return !hasEmptyObject(p) }).Draw(t, "fields"))
		}
		crm, fence := document{}, Fence(nil)
		for rest := updates; len(rest) > 0; {
			n := rapid.IntRange(1, len(rest)).Draw(t, "take")
			f := Fold(testRules, fence, rest[:n])
			crm.apply(testRules, f.Fields)
			fence, rest = f.Fence, rest[n:]
		}
		inOrder := slices.SortedFunc(slices.Values(updates), func(a, b *Update) int {
			if a.Mark().After(b.Mark()) {
				return 1
			}
			return -1
		})
		want := document{}
		for _, u := range inOrder {
			want.apply(testRules, u.Fields)
		}
		if crm.String() != want.String() {
			t.Fatalf("%s, want %s", crm, want)
		}
	})
}

func hasEmptyObject(p Patch) bool {
	return slices.ContainsFunc(p, func(f Field) bool { return len(testRules.Paths(Patch{f})) == 0 })
}

func TestFoldCases(t *testing.T) {
	live := func(seq uint64, version int64, fields string) *Update {
		return updateAt(Mark{Seq: seq, Stored: int64(seq), Version: version, Versioned: version > 0}, parsed(fields))
	}
	bulk := func(seq uint64, stored int64, fields string) *Update {
		return updateAt(Mark{Class: Bulk, Seq: seq, Stored: stored}, parsed(fields))
	}
	bad := live(9, 0, `{"a":9}`)
	bad.Bad = &BadUpdate{Reason: Malformed}
	at := func(seq uint64) Mark { return Mark{Seq: seq, Stored: int64(seq)} }
	for name, c := range map[string]struct {
		settled Fence
		updates []*Update
		fields  string
		used    []bool
	}{
		"nothing":                  {nil, nil, `{}`, []bool{}},
		"only a bad one":           {nil, []*Update{bad}, `{}`, []bool{false}},
		"a bad one between":        {nil, []*Update{live(1, 0, `{"a":1}`), bad, live(2, 0, `{"b":2}`)}, `{"a":1,"b":2}`, []bool{true, false, true}},
		"later wins":               {nil, []*Update{live(1, 0, `{"a":1}`), live(2, 0, `{"a":2}`)}, `{"a":2}`, []bool{false, true}},
		"in part":                  {nil, []*Update{live(1, 0, `{"a":1,"b":1}`), live(2, 0, `{"a":2}`)}, `{"a":2,"b":1}`, []bool{true, true}},
		"null is a value":          {nil, []*Update{live(1, 0, `{"a":1}`), live(2, 0, `{"a":null}`)}, `{"a":null}`, []bool{false, true}},
		"lower version":            {nil, []*Update{live(1, 6, `{"a":6}`), live(2, 5, `{"a":5,"b":5}`)}, `{"a":6,"b":5}`, []bool{true, true}},
		"lower version, all":       {nil, []*Update{live(1, 6, `{"a":6}`), live(2, 5, `{"a":5}`)}, `{"a":6}`, []bool{true, false}},
		"bulk handed out late":     {nil, []*Update{live(5, 0, `{"a":1}`), bulk(1, 2, `{"a":0,"b":0}`)}, `{"a":1,"b":0}`, []bool{true, true}},
		"settled before":           {Fence{"a": at(5)}, []*Update{bulk(1, 2, `{"a":0,"b":0}`)}, `{"b":0}`, []bool{true}},
		"settled before, all":      {Fence{"a": at(5)}, []*Update{bulk(1, 2, `{"a":0}`)}, `{}`, []bool{false}},
		"settled itself":           {Fence{"a": at(5)}, []*Update{live(5, 0, `{"a":0}`)}, `{}`, []bool{false}},
		"members":                  {nil, []*Update{live(1, 0, `{"addr":{"z":1,"c":1}}`), live(2, 0, `{"addr":{"c":2}}`)}, `{"addr":{"c":2,"z":1}}`, []bool{true, true}},
		"members, all":             {nil, []*Update{live(1, 0, `{"addr":{"c":1}}`), live(2, 0, `{"addr":{"c":2}}`)}, `{"addr":{"c":2}}`, []bool{false, true}},
		"one object as written":    {nil, []*Update{live(1, 0, `{"addr":{"z":1,"c":{"y":1,"x":1}}}`)}, `{"addr":{"z":1,"c":{"y":1,"x":1}}}`, []bool{true}},
		"a whole replaced":         {nil, []*Update{live(1, 0, `{"tags":{"c":1}}`), live(2, 0, `{"tags":{"d":2}}`)}, `{"tags":{"d":2}}`, []bool{false, true}},
		"member behind its field":  {Fence{"addr": at(5)}, []*Update{bulk(1, 2, `{"addr":{"c":1}}`)}, `{}`, []bool{false}},
		"field behind its member":  {Fence{"addr.c": at(5)}, []*Update{bulk(1, 2, `{"addr":null}`)}, `{}`, []bool{false}},
		"field in the same fold":   {nil, []*Update{live(5, 0, `{"addr":{"c":1}}`), bulk(1, 2, `{"addr":null}`)}, `{"addr":{"c":1}}`, []bool{true, false}},
		"cleared members":          {nil, []*Update{live(1, 0, `{"addr":{"c":1}}`), live(2, 0, `{"addr":null}`)}, `{"addr":null}`, []bool{false, true}},
		"empty object":             {nil, []*Update{live(1, 0, `{"addr":{}}`)}, `{"addr":{}}`, []bool{true}},
		"empty object and members": {nil, []*Update{live(1, 0, `{"addr":{}}`), live(2, 0, `{"addr":{"c":1}}`), live(3, 0, `{"addr":{}}`)}, `{"addr":{"c":1}}`, []bool{true, true, true}},
		"empty object behind":      {Fence{"addr": at(5)}, []*Update{bulk(1, 2, `{"addr":{}}`)}, `{}`, []bool{false}},
		"a longer name is another": {Fence{`addr\.c`: at(5), "address.c": at(5)}, []*Update{bulk(1, 2, `{"addr":null}`)}, `{"addr":null}`, []bool{true}},
	} {
		t.Run(name, func(t *testing.T) {
			got := Fold(testRules, c.settled, c.updates)
			if text := patchText(t, got.Fields); text != c.fields || !slices.Equal(got.Used, c.used) {
				t.Errorf("%s %v, want %s %v", text, got.Used, c.fields, c.used)
			}
			if got.Fence == nil {
				t.Error("the fence is nil")
			}
		})
	}
}

func TestFoldFence(t *testing.T) {
	settled := Fence{"a": {Seq: 5, Stored: 5}, "z": {Seq: 1, Stored: 1}}
	older := updateAt(Mark{Class: Bulk, Seq: 1, Stored: 2}, parsed(`{"a":0,"b":0,"addr":{"c":1}}`))
	got := Fold(testRules, settled, []*Update{older})
	want := Fence{"a": settled["a"], "z": settled["z"], "b": older.Mark(), "addr.c": older.Mark()}
	if !maps.Equal(got.Fence, want) {
		t.Errorf("%v, want %v", got.Fence, want)
	}
}
