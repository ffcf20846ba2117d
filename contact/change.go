package contact

import (
	"encoding/json"
	"maps"
	"slices"
)

// Change is what one call carries for one contact: its pending updates merged.
type Change struct {
	Contact Key
	Fields  Patch
	// Updates is how many updates were folded into it; 0 for a repair.
	Updates int
	// Repair says that all of it has been written before and is put on top
	// again, since an older request may have come late.
	Repair bool
	// MaybeSent says that an earlier attempt of this change, or of a part of
	// it, may have reached the CRM and its answer is not known. Side effects
	// must not be repeated then.
	MaybeSent bool
}

// Folded is the result of [Fold].
type Folded struct {
	Fields Patch
	// Used says for each update whether any of its fields is in Fields; one
	// that is not was overwritten by newer ones: it is superseded. A bad
	// update is never used.
	Used []bool
	// Winner is, for each path of Fields, the index of the update that wrote
	// it. An empty object in a Deep field has no path and no winner.
	Winner map[string]int
	// Fence is the fence as it stands once Fields have been applied.
	Fence Fence
}

// Part is what of Fields keep says true for, which is asked each path and its
// winner.
func (f Folded) Part(r Rules, keep func(path string, winner int) bool) Patch {
	p, _ := r.Without(f.Fields, func(path string) bool {
		w, ok := f.Winner[path]
		return !ok || !keep(path, w)
	})
	return p
}

// Fold merges updates of one contact, given in the order in which they were
// handed out, over what has settled before (the fence, which is not changed).
// An update writes only paths that no newer update has written. Bad updates
// are passed over. An update that is [Rules.Alone] must be folded by itself: no
// patch can say both what it does and what another adds.
//
// The cost is linear in the paths of the updates and of the fence.
func Fold(r Rules, settled Fence, updates []*Update) Folded {
	f := folding{
		rules: r, fence: settled.Clone(),
		split: map[string]bool{}, fields: map[string]*folded{},
	}
	for p := range f.fence {
		f.noteSplit(p)
	}
	for i, u := range updates {
		if u.Bad == nil {
			f.add(i, u)
		}
	}
	out := Folded{Used: make([]bool, len(updates)), Winner: make(map[string]int, len(f.fields)), Fence: f.fence}
	for _, name := range slices.Sorted(maps.Keys(f.fields)) {
		c := f.fields[name]
		out.Fields = append(out.Fields, Field{Name: name, Value: c.patchValue()})
		for _, i := range c.by {
			out.Used[i] = true
		}
		for sub, m := range c.members {
			out.Used[m.by] = true
			out.Winner[escapePath(name)+"."+escapePath(sub)] = m.by
		}
		if c.members == nil {
			out.Winner[escapePath(name)] = c.by[0]
		}
	}
	return out
}

// folding is the state of one Fold.
type folding struct {
	rules  Rules
	fence  Fence
	split  map[string]bool // fields of which the fence names members
	fields map[string]*folded
}

// folded is one field as the updates so far leave it.
type folded struct {
	value   json.RawMessage   // as one update wrote it; nil once several have
	by      []int             // who wrote it whole, or as an empty object
	members map[string]member // of a Deep field's object
}

type member struct {
	value json.RawMessage
	by    int
}

func (f *folding) noteSplit(path string) {
	if i := separator(path); i >= 0 {
		f.split[path[:i]] = true
	}
}

func (f *folding) add(i int, u *Update) {
	m := u.Mark()
	for _, x := range u.Fields {
		path := escapePath(x.Name)
		if members, deep := f.rules.members(x); deep {
			f.addObject(i, m, x, path, members)
			continue
		}
		if f.blocked(path, m) {
			continue
		}
		f.fence.note(path, m)
		f.fields[x.Name] = &folded{value: x.Value, by: []int{i}}
	}
}

func (f *folding) addObject(i int, m Mark, x Field, path string, members Patch) {
	if len(members) == 0 {
		// It writes no path and so is noted nowhere, but it must not bring
		// back an object that a newer update took away.
		if !f.blocked(path, m) {
			c, _ := f.object(x.Name, x.Value)
			c.by = append(c.by, i)
		}
		return
	}
	kept := members[:0:0]
	paths := make([]string, 0, len(members))
	for _, g := range members {
		p := path + "." + escapePath(g.Name)
		if f.fence.blocks(p, m) || f.fence.blocks(path, m) {
			continue
		}
		kept, paths = append(kept, g), append(paths, p)
	}
	if len(kept) == 0 {
		return
	}
	c, fresh := f.object(x.Name, x.Value)
	if fresh && len(kept) < len(members) {
		c.value = nil
	}
	for j, g := range kept {
		c.members[g.Name] = member{value: g.Value, by: i}
		f.fence.note(paths[j], m)
	}
	f.split[path] = true
}

// object is the field as an object to add to; fresh where this value is the
// first of it.
func (f *folding) object(name string, value json.RawMessage) (c *folded, fresh bool) {
	if c = f.fields[name]; c != nil && c.members != nil {
		c.value = nil
		return c, false
	}
	c = &folded{value: value, members: map[string]member{}}
	f.fields[name] = c
	return c, true
}

// blocked says whether a whole field may not be written.
func (f *folding) blocked(path string, m Mark) bool {
	if f.fence.blocks(path, m) {
		return true
	}
	if !f.split[path] {
		return false
	}
	return f.fence.membersBlock(path, m)
}

func (c *folded) patchValue() json.RawMessage {
	if c.value != nil {
		return c.value
	}
	p := make(Patch, 0, len(c.members))
	for _, name := range slices.Sorted(maps.Keys(c.members)) {
		p = append(p, Field{Name: name, Value: c.members[name].value})
	}
	v, _ := p.MarshalJSON() // members of valid JSON
	return v
}
