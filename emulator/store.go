package emulator

import (
	"maps"
	"reflect"
	"slices"
	"strconv"
)

// record is one contact as stored. Nested values are never changed in place.
type record map[string]any

func (r record) text(name string) string {
	s, _ := r[name].(string)
	return s
}

// schema is what a store must know about its vendor's records.
type schema interface {
	seed(id int) record             // contents of seeded contact id
	seeded(key string) []int        // seeded ids that have this index key, of any id
	keys(r record) []string         // index keys of a record
	hidden(field string) bool       // bookkeeping, not a change
	nested(field string) bool       // compared by sub-field
	blank(id int) record            // a new contact's defaults
	public(id int, r record) record // as Contact shows it
}

// store holds contacts: seeds are computed, only what differs from them is
// kept. It is guarded by CRM.mu.
type store struct {
	schema schema
	n      int // seeded ids are 1..n
	last   int // highest id ever used
	over   map[int]record
	gone   map[int]bool
	index  map[string]map[int]bool // keys of the records in over

	// The seed made last, not to be changed: one request asks for the same
	// one several times.
	seedID  int
	seedRec record
}

func newStore(s schema, n int) *store {
	return &store{
		schema: s, n: n, last: n,
		over: map[int]record{}, gone: map[int]bool{}, index: map[string]map[int]bool{},
	}
}

// get returns a copy the caller may change.
func (s *store) get(id int) (record, bool) {
	if id < 1 || s.gone[id] {
		return nil, false
	}
	diff, written := s.over[id]
	if id > s.n {
		return maps.Clone(diff), written
	}
	r := maps.Clone(s.seed(id))
	maps.Copy(r, diff)
	return r, true
}

func (s *store) seed(id int) record {
	if s.seedID != id {
		s.seedID, s.seedRec = id, s.schema.seed(id)
	}
	return s.seedRec
}

func (s *store) put(id int, r record) {
	s.unindex(id)
	for _, k := range s.schema.keys(r) {
		if s.index[k] == nil {
			s.index[k] = map[int]bool{}
		}
		s.index[k][id] = true
	}
	if id <= s.n {
		diff := record{}
		seed := s.seed(id)
		for k, v := range r {
			if old, ok := seed[k]; !ok || !reflect.DeepEqual(old, v) {
				diff[k] = v
			}
		}
		r = diff
	}
	s.over[id] = r
	s.last = max(s.last, id)
	delete(s.gone, id)
}

func (s *store) delete(id int) bool {
	r, ok := s.get(id)
	if !ok || r == nil {
		return false
	}
	s.unindex(id)
	delete(s.over, id)
	s.gone[id] = true
	return true
}

func (s *store) unindex(id int) {
	if _, written := s.over[id]; !written {
		return
	}
	r, _ := s.get(id)
	for _, k := range s.schema.keys(r) {
		delete(s.index[k], id)
		if len(s.index[k]) == 0 {
			delete(s.index, k)
		}
	}
}

// lookup returns the ids of all contacts with an index key, ascending.
func (s *store) lookup(key string) []int {
	var ids []int
	for _, id := range s.schema.seeded(key) {
		if _, written := s.over[id]; id >= 1 && id <= s.n && !written && !s.gone[id] {
			ids = append(ids, id)
		}
	}
	for id := range s.index[key] {
		ids = append(ids, id)
	}
	slices.Sort(ids)
	return ids
}

// ids returns all ids, ascending.
func (s *store) ids() []int {
	ids := make([]int, 0, s.n)
	for id := 1; id <= s.n; id++ {
		if !s.gone[id] {
			ids = append(ids, id)
		}
	}
	for id := range s.over {
		if id > s.n {
			ids = append(ids, id)
		}
	}
	slices.Sort(ids)
	return ids
}

// tx collects the writes of one request, so that a CRM that lies can drop
// them and the ledger can tell what changed.
type tx struct {
	*store
	staged  []staged
	discard bool
}

type staged struct {
	id  int
	rec record // nil: delete
}

func (t *tx) set(id int, r record) { t.staged = append(t.staged, staged{id, r}) }
func (t *tx) remove(id int)        { t.staged = append(t.staged, staged{id: id}) }

// commit stores what was staged and reports it as the part of one contact:
// id 0 means the request was about none.
func (t *tx) commit(id int) Part {
	p := Part{}
	if id > 0 {
		p.Contact = strconv.Itoa(id)
	}
	for _, w := range t.staged {
		old, _ := t.get(w.id)
		changed, values := diff(t.schema, old, w.rec)
		if len(changed) == 0 || t.discard {
			continue
		}
		if w.rec == nil {
			t.delete(w.id)
		} else {
			t.put(w.id, w.rec)
		}
		if w.id == id {
			p.Applied, p.Changed, p.Values = true, changed, values
		} else {
			p.Applied = true
			p.Also = append(p.Also, strconv.Itoa(w.id))
		}
	}
	t.staged = nil
	return p
}

// diff names the fields in which two records differ, sorted, with the new
// values. A whole record that comes or goes changes its id.
func diff(s schema, old, now record) (changed []string, values map[string]any) {
	if now == nil {
		if old == nil {
			return nil, nil
		}
		return []string{"id"}, map[string]any{"id": nil}
	}
	values = map[string]any{}
	compare(values, s, "", old, now)
	if len(values) == 0 {
		return nil, nil
	}
	return slices.Sorted(maps.Keys(values)), values
}

func compare(values map[string]any, s schema, prefix string, old, now map[string]any) {
	for k, v := range now {
		was, had := old[k]
		if prefix == "" && s.hidden(k) || had && reflect.DeepEqual(was, v) {
			continue
		}
		if sub, ok := v.(map[string]any); ok && prefix == "" && s.nested(k) {
			before, _ := was.(map[string]any)
			compare(values, s, k+".", before, sub)
			continue
		}
		values[prefix+k] = v
	}
}
