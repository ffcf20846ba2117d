package ingest

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"unicode"

	"crmsync/contact"
)

// idNames are the id columns that are taken unless one is named, normalized.
var idNames = []string{"id", "contactid"}

// Normalize is a column's name without what people write differently: letter
// case, blanks, underscores and dashes.
func Normalize(label string) string {
	return strings.Map(func(c rune) rune {
		switch {
		case unicode.IsSpace(c), c == '_', c == '-', c == '\u2010', c == '\u2011', c == '\u200b', c == '\ufeff':
			return -1
		}
		return unicode.ToLower(c)
	}, label)
}

// columnKey is what columns are told apart by. A name that begins with an
// underscore is another column's than the name without it.
func columnKey(name string) string {
	if private(name) {
		return "_" + Normalize(name)
	}
	return Normalize(name)
}

// private says that a column is somebody's remark about a row, such as the
// _reason of a list of rejected rows, and no field unless it is mapped.
func private(name string) bool { return strings.HasPrefix(strings.TrimSpace(name), "_") }

// IsRemark says that a column's name makes it somebody's remark about a row.
func IsRemark(name string) bool { return private(name) }

// IsID says that a column's name makes it the contact's id where none is named.
func IsID(name string) bool { return !private(name) && slices.Contains(idNames, Normalize(name)) }

// resolver says which field a column is.
type resolver struct {
	labels map[string]string // nil takes every column
	named  map[string]string // what the caller maps, normalized
}

func newResolver(o Options) resolver {
	r := resolver{named: make(map[string]string, len(o.Map))}
	if o.Labels != nil {
		r.labels = make(map[string]string, len(o.Labels))
		for label, field := range o.Labels {
			r.labels[Normalize(label)] = field
		}
	}
	for name, field := range o.Map {
		r.named[columnKey(name)] = field
	}
	return r
}

// field is the field of a column, or "" if it is not imported. Ignored is that
// the caller wants it so.
func (r resolver) field(name string) (field string, ignored bool) {
	if f, ok := r.named[columnKey(name)]; ok {
		if leftOut(f) {
			return "", true
		}
		return f, false
	}
	key := Normalize(name)
	switch {
	case private(name):
		return "", true
	case key == "":
		return "", false
	}
	if r.labels == nil {
		return strings.TrimSpace(name), false
	}
	return r.labels[key], false
}

// leftOut says that a mapping's field means none.
func leftOut(field string) bool { return field == "" || field == "-" }

// columns is the header of a table, understood.
type columns struct {
	names     []string // all
	id        int
	idName    string
	mapped    []*column // sorted by path
	unmapped  []string
	constants []item // what every row sets beside them
	guarded   bool   // the file is an export, whose cells are guarded
}

type column struct {
	index int
	name  string
	field string
	path  []string // the field, split at dots
}

// mapColumns finds out what the columns of a header are.
func mapColumns(header []string, o Options) (*columns, error) {
	names := make([]string, len(header))
	seen := map[string]int{}
	for i, name := range header {
		names[i] = strings.TrimSpace(strings.Trim(name, "\ufeff"))
		if err := checkText(name); err != nil {
			return nil, fmt.Errorf("the name of column %d %w", i+1, err)
		}
		key := columnKey(name)
		if first, ok := seen[key]; ok && key != "" {
			return nil, fmt.Errorf("columns %d and %d have the same name (%s); rename or remove one", first+1, i+1, quote(names[i]))
		}
		seen[key] = i
	}
	cs := &columns{names: names, id: idColumn(names, o), guarded: isExport(names)}
	if cs.id < 0 {
		if o.IDColumn != "" {
			return nil, fmt.Errorf("there is no column %s; the columns are %s", quote(o.IDColumn), list(names))
		}
		return nil, &noID{names, "check the delimiter"}
	}
	cs.idName = names[cs.id]
	for name, field := range o.Map {
		if _, ok := seen[columnKey(name)]; !ok && !leftOut(field) {
			return nil, fmt.Errorf("the mapping names a column %s, but the columns are %s", quote(name), list(names))
		}
	}
	r := newResolver(o)
	for i, name := range names {
		if i == cs.id {
			continue
		}
		field, ignored := r.field(name)
		if field == "" {
			if !ignored && name != "" {
				cs.unmapped = append(cs.unmapped, name)
			}
			continue
		}
		path := strings.Split(field, ".")
		if slices.Contains(path, "") {
			return nil, fmt.Errorf("column %s is for the field %s, which has a part without a name", quote(name), quote(field))
		}
		cs.mapped = append(cs.mapped, &column{i, name, field, path})
	}
	var err error
	if cs.constants, err = constants(o); err != nil {
		return nil, err
	}
	if len(cs.mapped)+len(cs.constants) == 0 {
		return nil, fmt.Errorf("no column is a field that can be imported; the columns are %s", list(names))
	}
	slices.SortStableFunc(cs.mapped, func(a, b *column) int { return slices.Compare(a.path, b.path) })
	for i := 1; i < len(cs.mapped); i++ {
		a, b := cs.mapped[i-1], cs.mapped[i]
		if within(a.path, b.path) {
			return nil, fmt.Errorf("columns %s and %s are both for the field %s; ignore one", quote(a.name), quote(b.name), quote(a.field))
		}
	}
	for _, c := range cs.mapped {
		for _, k := range cs.constants {
			if within(c.path, k.path) || within(k.path, c.path) {
				return nil, fmt.Errorf("column %s and a constant are both for the field %s; ignore the column or leave the constant out",
					quote(c.name), quote(c.field))
			}
		}
	}
	return cs, nil
}

// noID says that a header has no column of the contact's id.
type noID struct {
	names []string
	hint  string
}

// ErrNoID is wrapped where no column is the contact's id.
var ErrNoID = errors.New("no column is the contact's id")

func (e *noID) Unwrap() error { return ErrNoID }

func (e *noID) Error() string {
	return fmt.Sprintf("no column is the contact's id (id or contact id); the columns are %s; name the one it is, and %s", list(e.names), e.hint)
}

// within says that a field is the other or a member of it.
func within(outer, inner []string) bool {
	return len(outer) <= len(inner) && slices.Equal(outer, inner[:len(outer)])
}

// constants are the fields that every row sets, sorted by path.
func constants(o Options) ([]item, error) {
	var out []item
	for field, text := range o.Constants {
		path := strings.Split(field, ".")
		if slices.Contains(path, "") {
			return nil, fmt.Errorf("a constant is for the field %s, which has a part without a name", quote(field))
		}
		v := json.RawMessage("null")
		if text != "" {
			var err error
			if err = checkText(text); err == nil {
				v, err = convert(o, field, text)
			}
			if err != nil {
				return nil, fmt.Errorf("the constant for the field %s: %w", quote(field), err)
			}
		}
		if v != nil {
			out = append(out, item{path, v})
		}
	}
	slices.SortFunc(out, byPath)
	for i := 1; i < len(out); i++ {
		if within(out[i-1].path, out[i].path) {
			return nil, fmt.Errorf("two constants are for the field %s", quote(strings.Join(out[i-1].path, ".")))
		}
	}
	return out, nil
}

func byPath(a, b item) int { return slices.Compare(a.path, b.path) }

// idColumn is the index of the contact's id, or -1.
func idColumn(header []string, o Options) int {
	wanted := idNames
	if o.IDColumn != "" {
		wanted = []string{columnKey(o.IDColumn)}
	}
	for _, want := range wanted {
		for i, name := range header {
			if columnKey(name) == want {
				return i
			}
		}
	}
	return -1
}

// remarks are the cells of a row in private columns.
func (cs *columns) remarks(cells []string) map[string]string {
	var out map[string]string
	for i, name := range cs.names {
		if private(name) && i < len(cells) {
			if out == nil {
				out = map[string]string{}
			}
			out[name] = strings.TrimSpace(cells[i])
		}
	}
	return out
}

// contact is the id in a row.
func (cs *columns) contact(cells []string) (string, error) {
	id := strings.TrimSpace(cells[cs.id])
	if err := checkID(id); err != nil {
		return "", fmt.Errorf("column %s: %w", quote(cs.idName), err)
	}
	return id, nil
}

func checkID(id string) error {
	if id == "" {
		return errors.New("the contact's id is missing")
	}
	if scientific.MatchString(id) {
		return errors.New("the contact's id was cut short by a spreadsheet (4.47E+11); format the column as text")
	}
	if err := checkText(id); err != nil {
		return fmt.Errorf("the contact's id %w", err)
	}
	return contact.CheckID(id)
}

func (cs *columns) report(r *Report) {
	r.Columns, r.IDColumn, r.Unmapped = slices.Clone(cs.names), cs.idName, slices.Clone(cs.unmapped)
	inOrder := slices.Clone(cs.mapped)
	slices.SortFunc(inOrder, func(a, b *column) int { return a.index - b.index })
	for _, c := range inOrder {
		r.Mapping = append(r.Mapping, Column{c.name, c.field})
	}
}

// item is a field's value; its path has several parts if the field is a member
// of an object.
type item struct {
	path  []string
	value json.RawMessage
}

// assemble writes items, sorted by path, as a JSON object.
func assemble(items []item) ([]byte, error) {
	size := 2
	for _, it := range items {
		size += len(it.value) + 4
		for _, part := range it.path {
			size += len(part) + 4
		}
	}
	return assembleObject(make([]byte, 0, size), items, 0)
}

func assembleObject(b []byte, items []item, depth int) ([]byte, error) {
	b = append(b, '{')
	for i := 0; i < len(items); {
		if i > 0 {
			b = append(b, ',')
		}
		name := items[i].path[depth]
		if name == "" {
			return nil, fmt.Errorf("the field %s has a part without a name", quote(strings.Join(items[i].path, ".")))
		}
		end := i + 1
		for end < len(items) && items[end].path[depth] == name {
			end++
		}
		b = append(append(b, contact.JSONString(name)...), ':')
		if len(items[i].path) == depth+1 {
			if end > i+1 {
				return nil, fmt.Errorf("the field %s is there twice", quote(strings.Join(items[i].path, ".")))
			}
			b = append(b, items[i].value...)
		} else {
			var err error
			if b, err = assembleObject(b, items[i:end], depth+1); err != nil {
				return nil, err
			}
		}
		i = end
	}
	return append(b, '}'), nil
}

// quote shows a name from the file in a message.
func quote(s string) string {
	const most = 48
	if r := []rune(s); len(r) > most {
		s = string(r[:most]) + "…"
	}
	return strconv.Quote(s)
}

// list shows names from the file in a message, as many as are of use.
func list(names []string) string {
	const most = 20
	var b strings.Builder
	names = slices.DeleteFunc(slices.Clone(names), func(n string) bool { return n == "" })
	for i, name := range names {
		if i == most {
			fmt.Fprintf(&b, " and %d more", len(names)-i)
			break
		}
		if i > 0 {
			b.WriteString(", ")
		}
		b.WriteString(quote(name))
	}
	return b.String()
}
