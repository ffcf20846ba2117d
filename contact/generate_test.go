package contact

import (
	"encoding/json"
	"strings"

	"pgregory.net/rapid"
)

// testRules has one field that merges deeply and one side effect.
var testRules = Rules{Deep: []string{"addr", "x.y"}, SideEffects: []string{"mail"}}

// anyText is text that an update may hold.
func anyText() *rapid.Generator[string] {
	return rapid.StringOfN(rapid.SampledFrom([]rune("ab\"\\<&> \t\n\ré\u0085\u2028😀")), 0, 6, -1)
}

func anyValue(depth int) *rapid.Generator[json.RawMessage] {
	return rapid.Custom(func(t *rapid.T) json.RawMessage {
		kind := rapid.IntRange(0, 7).Draw(t, "kind")
		if depth == 0 {
			kind %= 6
		}
		switch kind {
		case 0:
			return json.RawMessage("null")
		case 1:
			return json.RawMessage("true")
		case 2:
			return json.RawMessage("-1.50e3")
		case 6:
			list := rapid.SliceOfN(anyValue(depth-1), 0, 3).Draw(t, "list")
			text := make([]string, len(list))
			for i, v := range list {
				text[i] = string(v)
			}
			return json.RawMessage("[" + strings.Join(text, " , ") + "]")
		case 7:
			return objectText(t, anyMembers(depth-1, anyText()).Draw(t, "object"))
		}
		b := JSONString(anyText().Draw(t, "text"))
		return b
	})
}

// anyMembers has members that differ in more than case.
func anyMembers(depth int, names *rapid.Generator[string]) *rapid.Generator[Patch] {
	return rapid.Custom(func(t *rapid.T) Patch {
		var p Patch
		for _, name := range rapid.SliceOfNDistinct(names, 0, 4, foldCase).Draw(t, "names") {
			p = p.With(name, anyValue(depth).Draw(t, "value"))
		}
		return p
	})
}

// objectText spells an object, its members in any order.
func objectText(t *rapid.T, p Patch) json.RawMessage {
	var b strings.Builder
	b.WriteString("{")
	for i, f := range rapid.Permutation(p).Draw(t, "order") {
		if i > 0 {
			b.WriteString(" ,")
		}
		name := JSONString(f.Name)
		b.Write(name)
		b.WriteString(": ")
		b.Write(f.Value)
	}
	b.WriteString("}")
	return json.RawMessage(b.String())
}

func anyPatch() *rapid.Generator[Patch] {
	return anyMembers(3, anyText().Filter(func(s string) bool { return s != "" }))
}

// foldPatch is a patch over few names, so that patches meet; together says that
// it may be merged with others.
func foldPatch(together bool) *rapid.Generator[Patch] {
	plain := rapid.SampledFrom([]string{"a", "b", `a\`, "addr.city", "x"})
	part := rapid.SampledFrom([]string{"city", "zip", "a.b", `c\`, "City", ""})
	deep := rapid.SampledFrom(testRules.Deep)
	return rapid.Custom(func(t *rapid.T) Patch {
		var p Patch
		for _, name := range rapid.SliceOfNDistinct(plain, 0, 3, rapid.ID).Draw(t, "plain") {
			p = p.With(name, anyValue(1).Draw(t, "value"))
		}
		for _, name := range rapid.SliceOfNDistinct(deep, 0, 2, rapid.ID).Draw(t, "deep") {
			if !together && rapid.Bool().Draw(t, "whole") {
				p = p.With(name, json.RawMessage("null"))
				continue
			}
			p = p.With(name, objectText(t, anyMembers(1, part).Draw(t, "parts")))
		}
		return p
	})
}

// history is marks as a broker gives them: in each class sequences and times
// rise together. It comes in any order.
func history(n int) *rapid.Generator[[]Mark] {
	return rapid.Custom(func(t *rapid.T) []Mark {
		var seq [Classes]uint64
		stored := int64(1000)
		marks := make([]Mark, n)
		for i := range marks {
			c := rapid.SampledFrom([]Class{Live, Bulk}).Draw(t, "class")
			seq[c] += rapid.Uint64Range(1, 3).Draw(t, "gap")
			stored += rapid.Int64Range(0, 2).Draw(t, "time")
			marks[i] = Mark{Class: c, Seq: seq[c], Stored: stored}
			if rapid.Bool().Draw(t, "versioned") {
				marks[i].Versioned, marks[i].Version = true, rapid.Int64Range(0, 4).Draw(t, "version")
			}
		}
		return rapid.Permutation(marks).Draw(t, "order")
	})
}
