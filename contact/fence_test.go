package contact

import (
	"encoding/json"
	"maps"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"
)

func TestMarkOrder(t *testing.T) {
	plain := func(c Class, seq uint64, stored int64) Mark { return Mark{Class: c, Seq: seq, Stored: stored} }
	version := func(m Mark, v int64) Mark { m.Version, m.Versioned = v, true; return m }
	for name, c := range map[string]struct{ newer, older Mark }{
		"sequence":                       {plain(Live, 2, 10), plain(Live, 1, 10)},
		"sequence, not time, in a class": {plain(Bulk, 2, 5), plain(Bulk, 1, 10)},
		"time across classes":            {plain(Bulk, 1, 11), plain(Live, 9, 10)},
		"live at the same instant":       {plain(Live, 1, 10), plain(Bulk, 9, 10)},
		"version before sequence":        {version(plain(Live, 1, 1), 6), version(plain(Live, 2, 2), 5)},
		"version before time":            {version(plain(Bulk, 1, 1), 6), version(plain(Live, 2, 2), 5)},
		"one version: sequence":          {version(plain(Live, 2, 1), 5), version(plain(Live, 1, 1), 5)},
		"one version: time":              {version(plain(Bulk, 1, 3), 5), version(plain(Live, 2, 2), 5)},
		"only one has a version":         {plain(Live, 2, 2), version(plain(Live, 1, 1), 99)},
		"the other has a version":        {version(plain(Live, 2, 2), 0), plain(Live, 1, 1)},
		"version where not versioned":    {plain(Live, 2, 2), Mark{Class: Live, Seq: 1, Stored: 1, Version: 7}},
	} {
		if !c.newer.After(c.older) || c.older.After(c.newer) {
			t.Errorf("%s: %v, %v", name, c.newer.After(c.older), c.older.After(c.newer))
		}
		if c.newer.After(c.newer) {
			t.Errorf("%s: after itself", name)
		}
	}
}

func TestMarkOrderIsStrictAndTransitiveWhereAlike(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m := history(3).Draw(t, "marks")
		versioned := rapid.Bool().Draw(t, "all versioned")
		for i := range m {
			if m[i].Versioned = versioned; !versioned {
				m[i].Version = 0
			}
		}
		if m[0].After(m[1]) == m[1].After(m[0]) {
			t.Fatal("neither or both are newer")
		}
		if m[0].After(m[1]) && m[1].After(m[2]) && !m[0].After(m[2]) {
			t.Fatal("not transitive")
		}
	})
}

func TestMarkJSON(t *testing.T) {
	for want, m := range map[string]Mark{
		"[0,0,0]":                     {},
		"[1,7,-5]":                    {Class: Bulk, Seq: 7, Stored: -5},
		"[0,1,2,0]":                   {Seq: 1, Stored: 2, Versioned: true},
		"[1,1,2,-3]":                  {Class: Bulk, Seq: 1, Stored: 2, Version: -3, Versioned: true},
		"[0,5,9,6,null,[1,3,4]]":      Mark{Class: Bulk, Seq: 3, Stored: 4}.with(Mark{Seq: 5, Stored: 9, Version: 6, Versioned: true}),
		"[0,5,9,6,[1,3,14],[1,3,14]]": Mark{Class: Bulk, Seq: 3, Stored: 14}.with(Mark{Seq: 5, Stored: 9, Version: 6, Versioned: true}),
		"[0,5,9,6,[0,6,10],null]":     Mark{Seq: 6, Stored: 10, Version: 5, Versioned: true}.with(Mark{Seq: 5, Stored: 9, Version: 6, Versioned: true}),
		"[0,18446744073709551615,9223372036854775807,9223372036854775807]": {Seq: 1<<64 - 1, Stored: 1<<63 - 1, Version: 1<<63 - 1, Versioned: true},
	} {
		b, err := json.Marshal(m)
		if err != nil || string(b) != want {
			t.Errorf("%+v: %s, %v; want %s", m, b, err, want)
		}
		var back Mark
		if err := json.Unmarshal(b, &back); err != nil || back != m {
			t.Errorf("%s: %+v, %v", b, back, err)
		}
	}
	var spaced Mark
	if err := json.Unmarshal([]byte("[ 1 , 2,\n3 , -4 ]"), &spaced); err != nil || spaced != (Mark{Class: Bulk, Seq: 2, Stored: 3, Version: -4, Versioned: true}) {
		t.Errorf("with white space: %+v, %v", spaced, err)
	}
	for _, text := range []string{
		`null`, `{}`, `[]`, `[0,1]`, `[0,1,2,3,4]`, `[0,1,2,3,null]`, `[0,1,2,3,null,null,null]`, `[2,1,1]`, `[-1,1,1]`, `[256,1,1]`, `["0",1,1]`, `["live",1,1]`,
		`[0,-1,1]`, `[0,1.5,1]`, `[0,1e3,1]`, `[0,18446744073709551616,1]`, `[0,1,1.0]`, `[0,1,"1"]`, `[0,null,1]`, `[0,1,null]`, `[0,1,1,null]`, `[0,1,1,1.5]`,
		` [ 0 , 1 , 1 , 1.0 ] `, `[0,1,1,]`, `[0,1,1,1,[0,1],null]`, `[0,1,1,1,null,[2,1,1]]`, `[0,1,1,1,0,null]`, `[0,1,1,1,null,{}]`,
	} {
		m := Mark{Seq: 42}
		if err := json.Unmarshal([]byte(text), &m); err == nil || m != (Mark{Seq: 42}) {
			t.Errorf("%s: %+v, %v", text, m, err)
		}
	}
}

func TestFenceJSON(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		f := Fence{}
		for _, m := range history(6).Draw(t, "marks") {
			f.Add([]string{rapid.SampledFrom([]string{"a", "addr.city", `x\.y`}).Draw(t, "path")}, m)
		}
		b, err := json.Marshal(f)
		if err != nil {
			t.Fatal(err)
		}
		var back Fence
		if err := json.Unmarshal(b, &back); err != nil || !maps.Equal(f, back) {
			t.Fatalf("%s: %v, %v", b, back, err)
		}
	})
}

// write is one update that wrote one path.
type write struct {
	path string
	mark Mark
}

// overlap says that writing one path overwrites something of the other.
func overlap(p, q string) bool {
	field := func(s string) string {
		if i := separator(s); i >= 0 {
			return s[:i]
		}
		return s
	}
	return p == q || p == field(q) || q == field(p)
}

// blockedBy is the definition: some update that wrote there is not older.
func blockedBy(done []write, path string, m Mark) bool {
	return slices.ContainsFunc(done, func(w write) bool { return overlap(w.path, path) && !m.After(w.mark) })
}

// An older update never passes and a newer one is never blocked, whatever the
// order in which those before it settled, with versions, without, or mixed.
func TestFenceBlocksExactlyTheOlder(t *testing.T) {
	paths := rapid.SampledFrom([]string{"a", "addr", "addr.city", "addr.zip", `addr\.city`, "addr2", `addr\\.city`, "addr."})
	rapid.Check(t, func(t *rapid.T) {
		marks := history(rapid.IntRange(1, 8).Draw(t, "n")).Draw(t, "marks")
		f, done := Fence{}, []write(nil)
		for _, m := range marks {
			path := paths.Draw(t, "path")
			if got, want := f.Blocks(path, m), blockedBy(done, path, m); got != want {
				t.Fatalf("%+v at %q: blocked %v, want %v; after %+v", m, path, got, want, done)
			}
			// An older one may have been written all the same: before its
			// newer one settled, by a hand, by a former release.
			if !f.Blocks(path, m) || rapid.Bool().Draw(t, "written all the same") {
				f.Add([]string{path}, m)
				done = append(done, write{path, m})
			}
		}
	})
}

// Whatever settled before it, with whatever version, nothing stands in the way
// of a forced redrive; and it stands only in the way of what is older than it.
func TestForceOverridesPlaceAndVersion(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		marks := history(rapid.IntRange(1, 8).Draw(t, "n")).Draw(t, "marks")
		forced := updateAt(Mark{Class: Bulk}, parsed(`{"a":1}`))
		if rapid.Bool().Draw(t, "versioned") {
			forced.Versioned, forced.Version = true, rapid.Int64Range(0, 5).Draw(t, "version")
		}
		var at Mark
		highest := int64(0)
		for _, m := range marks {
			at.Seq, at.Stored, highest = max(at.Seq, m.Seq), max(at.Stored, m.Stored), max(highest, m.Version)
		}
		forced.Seq, forced.Stored = at.Seq+1, time.Unix(0, at.Stored+1)
		original := rapid.SampledFrom(marks).Draw(t, "original")
		forced.Redrive = &Redrive{Force: true, Order: Place{Class: original.Class, Seq: original.Seq, Stored: time.Unix(0, original.Stored)}}
		f := Fence{}
		for _, m := range marks {
			f.Add([]string{"a"}, m)
		}
		out := Fold(testRules, f, []*Update{forced})
		if !out.Used[0] || patchText(t, out.Fields) != `{"a":1}` {
			t.Fatalf("%+v forced over %+v writes %s", forced.Mark(), f, patchText(t, out.Fields))
		}
		for _, m := range marks {
			if !out.Fence.Blocks("a", m) {
				t.Fatalf("%+v passes %+v", m, out.Fence)
			}
		}
		next := Mark{Class: Live, Seq: at.Seq + 2, Stored: at.Stored + 2, Version: highest + 1, Versioned: rapid.Bool().Draw(t, "next")}
		if out.Fence.Blocks("a", next) {
			t.Fatalf("%+v is blocked by %+v", next, out.Fence)
		}
	})
}

func TestFenceCases(t *testing.T) {
	live := func(seq uint64, stored, version int64) Mark {
		return Mark{Class: Live, Seq: seq, Stored: stored, Version: version, Versioned: version > 0}
	}
	bulk := func(seq uint64, stored, version int64) Mark {
		return Mark{Class: Bulk, Seq: seq, Stored: stored, Version: version, Versioned: version > 0}
	}
	for name, c := range map[string]struct {
		done    []Mark
		m       Mark
		blocked bool
	}{
		"nothing settled":                            {nil, live(1, 1, 0), false},
		"itself":                                     {[]Mark{live(1, 1, 0)}, live(1, 1, 0), true},
		"itself with a version":                      {[]Mark{live(1, 1, 5)}, live(1, 1, 5), true},
		"bulk behind live":                           {[]Mark{live(9, 10, 0)}, bulk(1, 5, 0), true},
		"a version older than a forgotten one":       {[]Mark{live(1, 1, 5), live(2, 2, 0)}, live(3, 3, 4), true},
		"a version newer, but stored before plain":   {[]Mark{live(1, 50, 5), bulk(1, 100, 0)}, live(2, 60, 6), true},
		"a version newer, stored after plain":        {[]Mark{live(1, 50, 5), bulk(1, 100, 0)}, live(2, 101, 6), false},
		"plain between versions out of order":        {[]Mark{live(1, 100, 4), bulk(1, 50, 5)}, bulk(2, 70, 0), true},
		"one version, after a lower one's place":     {[]Mark{live(1, 100, 4), bulk(1, 50, 5)}, bulk(2, 70, 5), false},
		"the clock stepped back within live":         {[]Mark{live(1, 10, 0), live(2, 5, 0)}, bulk(1, 7, 0), true},
		"the clock stepped back, bulk newer":         {[]Mark{live(1, 10, 0), live(2, 5, 0)}, bulk(1, 11, 0), false},
		"the clock stepped back, live goes on":       {[]Mark{live(1, 10, 0), live(2, 5, 0)}, live(3, 6, 0), false},
		"an older one noted late moves nothing back": {[]Mark{live(5, 50, 0), bulk(1, 10, 0)}, live(4, 40, 0), true},
	} {
		f := Fence{}
		for _, m := range c.done {
			f.Add([]string{"a", "b"}, m)
		}
		if f.Blocks("a", c.m) != c.blocked || f.Blocks("b", c.m) != c.blocked || f.Blocks("c", c.m) {
			t.Errorf("%s: blocked %v %v %v, want %v; %+v", name, f.Blocks("a", c.m), f.Blocks("b", c.m), f.Blocks("c", c.m), c.blocked, f)
		}
	}
}

func TestFenceKeep(t *testing.T) {
	p := parsed(`{"a":1,"addr":{"city":1,"zip":2},"b":3}`)
	older, newer := Mark{Class: Bulk, Seq: 1, Stored: 1}, Mark{Seq: 1, Stored: 2}
	f := Fence{}
	f.Add([]string{"a", "addr.city"}, newer)
	got, cut := f.Keep(testRules, p, older)
	if patchText(t, got) != `{"addr":{"zip":2},"b":3}` || !cut {
		t.Errorf("%s %v", patchText(t, got), cut)
	}
	got, cut = f.Keep(testRules, p, Mark{Seq: 2, Stored: 3})
	if !got.Equal(p) || cut {
		t.Errorf("%s %v", patchText(t, got), cut)
	}
	if got, cut = Fence(nil).Keep(testRules, p, older); !got.Equal(p) || cut {
		t.Errorf("no fence: %s %v", patchText(t, got), cut)
	}
	if got, _ = f.Keep(testRules, parsed(`{"addr":null,"x.y":{}}`), older); patchText(t, got) != `{"x.y":{}}` {
		t.Errorf("a field behind its newer member: %s", patchText(t, got))
	}
	if got, _ = f.Keep(testRules, parsed(`{"addr":{}}`), older); len(got) != 0 {
		t.Errorf("an empty object behind its newer member: %s", patchText(t, got))
	}
	f = Fence{}
	f.Add([]string{"addr"}, newer)
	if got, _ = f.Keep(testRules, p, older); patchText(t, got) != `{"a":1,"b":3}` {
		t.Errorf("members behind their newer field: %s", patchText(t, got))
	}
}

func TestFenceClone(t *testing.T) {
	f := Fence{"a": {Seq: 1}}
	g := f.Clone()
	g.Add([]string{"a", "b"}, Mark{Seq: 2})
	if len(f) != 1 || f["a"].Seq != 1 {
		t.Errorf("the clone shares: %v", f)
	}
	if n := Fence(nil).Clone(); n == nil {
		t.Error("a clone of nothing is nil")
	}
}
