package contact

import (
	"bytes"
	"encoding/json"
	"fmt"
	"slices"
	"sort"
	"strings"
	"unicode/utf8"
)

// Patch is an RFC 7396 merge patch of a contact: the fields to change, sorted
// by name, each once. A field that is absent is left alone, null clears. The
// zero value changes nothing. A Patch is never changed in place; its values
// may alias the message they came from.
type Patch []Field

// Field is one member of a [Patch].
type Field struct {
	Name  string
	Value json.RawMessage // one valid JSON value
}

// Get finds a field's value.
func (p Patch) Get(name string) (json.RawMessage, bool) {
	i := sort.Search(len(p), func(i int) bool { return p[i].Name >= name })
	if i < len(p) && p[i].Name == name {
		return p[i].Value, true
	}
	return nil, false
}

// Names lists the fields, in order.
func (p Patch) Names() []string {
	n := make([]string, len(p))
	for i := range p {
		n[i] = p[i].Name
	}
	return n
}

// With is the patch with one field set (or replaced).
func (p Patch) With(name string, value json.RawMessage) Patch {
	return mergeFields(p, Patch{{Name: name, Value: value}}, func(_, b Field) Field { return b })
}

// Equal compares names and values; values compare as compact JSON text, so
// white space does not count and the order of an object's members does.
func (p Patch) Equal(q Patch) bool {
	if len(p) != len(q) {
		return false
	}
	for i := range p {
		if p[i].Name != q[i].Name || !sameJSON(p[i].Value, q[i].Value) {
			return false
		}
	}
	return true
}

func sameJSON(a, b json.RawMessage) bool {
	if bytes.Equal(a, b) {
		return true
	}
	var x, y bytes.Buffer
	if json.Compact(&x, a) != nil || json.Compact(&y, b) != nil {
		return false
	}
	return bytes.Equal(x.Bytes(), y.Bytes())
}

// MarshalJSON writes a JSON object with the fields in order. A name that is not
// valid UTF-8 and a value that is not JSON are errors.
func (p Patch) MarshalJSON() ([]byte, error) {
	size := 2
	for _, f := range p {
		size += len(f.Name) + len(f.Value) + 4
	}
	return p.appendJSON(make([]byte, 0, size))
}

func (p Patch) appendJSON(b []byte) ([]byte, error) {
	b = append(b, '{')
	for i, f := range p {
		if i > 0 {
			b = append(b, ',')
		}
		if !utf8.ValidString(f.Name) {
			return nil, fmt.Errorf("patch: the name of field %d: not valid UTF-8", i+1)
		}
		b = append(appendString(b, f.Name), ':')
		if isPlainString(f.Value) {
			b = append(b, f.Value...)
			continue
		}
		var value bytes.Buffer
		if err := json.Compact(&value, f.Value); err != nil {
			return nil, fmt.Errorf("patch: the value of field %d is not JSON", i+1)
		}
		b = append(b, value.Bytes()...)
	}
	return append(b, '}'), nil
}

// UnmarshalJSON reads a JSON object, strictly: duplicate members at any depth,
// invalid UTF-8 and control characters are refused as [Decode] does.
func (p *Patch) UnmarshalJSON(b []byte) error {
	q, err := ParsePatch(bytes.Clone(b)) // the caller keeps b
	if err != nil {
		return err
	}
	*p = q
	return nil
}

// ParsePatch reads a JSON object as a patch, strictly, as [Decode] does. The
// error is a *[BadUpdate]. The patch aliases body.
func ParsePatch(body []byte) (Patch, error) {
	p, bad := parsePatch(body)
	if bad != nil {
		return nil, bad
	}
	return p, nil
}

// Rules say how one CRM treats fields when patches are folded. The CRM's
// package declares them; the zero value replaces every field whole and knows no
// side effects.
type Rules struct {
	// Deep names the fields whose objects merge member by member (one level)
	// in the CRM; every other field is replaced whole.
	Deep []string
	// SideEffects names the fields that make the CRM do something each time
	// they are sent (a mail, an invitation). An update with one is never
	// merged with others, and after an unknown outcome the field is not sent
	// again.
	SideEffects []string
}

func isObject(v json.RawMessage) bool {
	v = bytes.TrimLeft(v, " \t\r\n")
	return len(v) > 0 && v[0] == '{'
}

// Alone says that an update with this patch must be sent by itself: it has a
// side effect, or it writes something other than an object to a field that
// merges deeply (null there clears what a later object would only amend, and
// no single patch says both).
func (r Rules) Alone(p Patch) bool {
	for _, f := range p {
		if slices.Contains(r.SideEffects, f.Name) || slices.Contains(r.Deep, f.Name) && !isObject(f.Value) {
			return true
		}
	}
	return false
}

// Effects says that a patch has a field with a side effect.
func (r Rules) Effects(p Patch) bool {
	return slices.ContainsFunc(p, func(f Field) bool { return slices.Contains(r.SideEffects, f.Name) })
}

// Merge folds two patches of one contact into one: the newer wins, field by
// field; objects of Deep fields member by member. For patches that are not
// [Rules.Alone] it is associative.
func (r Rules) Merge(older, newer Patch) Patch {
	return mergeFields(older, newer, func(a, b Field) Field {
		if slices.Contains(r.Deep, b.Name) {
			if v, ok := mergeObjects(a.Value, b.Value); ok {
				b.Value = v
			}
		}
		return b
	})
}

func mergeFields(a, b Patch, both func(a, b Field) Field) Patch {
	switch {
	case len(a) == 0:
		return b
	case len(b) == 0:
		return a
	}
	out := make(Patch, 0, len(a)+len(b))
	for len(a) > 0 && len(b) > 0 {
		switch c := strings.Compare(a[0].Name, b[0].Name); {
		case c < 0:
			out, a = append(out, a[0]), a[1:]
		case c > 0:
			out, b = append(out, b[0]), b[1:]
		default:
			out = append(out, both(a[0], b[0]))
			a, b = a[1:], b[1:]
		}
	}
	out = append(out, a...)
	return append(out, b...)
}

func mergeObjects(a, b json.RawMessage) (json.RawMessage, bool) {
	p, ok := splitObject(a)
	q, ok2 := splitObject(b)
	if !ok || !ok2 {
		return nil, false
	}
	v, err := mergeFields(p, q, func(_, b Field) Field { return b }).MarshalJSON()
	return v, err == nil
}

// Paths lists what a patch touches, in order: a field's name, or for an object
// in a Deep field one path a member, as address.city. The dot is the
// separator; in names, a dot and a backslash are written behind a backslash.
func (r Rules) Paths(p Patch) []string {
	out := make([]string, 0, len(p))
	for _, f := range p {
		if m, ok := r.members(f); ok {
			for _, g := range m {
				out = append(out, escapePath(f.Name)+"."+escapePath(g.Name))
			}
			continue
		}
		out = append(out, escapePath(f.Name))
	}
	return out
}

var pathEscaper = strings.NewReplacer(`\`, `\\`, `.`, `\.`)

func escapePath(s string) string {
	if !strings.ContainsAny(s, `\.`) {
		return s
	}
	return pathEscaper.Replace(s)
}

// members splits an object in a Deep field. An empty object has none and so
// touches nothing.
func (r Rules) members(f Field) (Patch, bool) {
	if !slices.Contains(r.Deep, f.Name) || !isObject(f.Value) {
		return nil, false
	}
	return splitObject(f.Value)
}

// Without leaves out of a patch every path for which drop says true. The
// second result says whether anything was left out. An empty object in a Deep
// field has no path; it is left out where drop says true for the field.
func (r Rules) Without(p Patch, drop func(path string) bool) (Patch, bool) {
	out, cut := make(Patch, 0, len(p)), false
	for _, f := range p {
		m, deep := r.members(f)
		if !deep || len(m) == 0 {
			if drop(escapePath(f.Name)) {
				cut = true
			} else {
				out = append(out, f)
			}
			continue
		}
		kept := make(Patch, 0, len(m))
		for _, g := range m {
			if drop(escapePath(f.Name) + "." + escapePath(g.Name)) {
				cut = true
			} else {
				kept = append(kept, g)
			}
		}
		if len(kept) == len(m) {
			out = append(out, f)
		} else if len(kept) > 0 {
			v, _ := kept.MarshalJSON() // members of valid JSON
			out = append(out, Field{Name: f.Name, Value: v})
		}
	}
	if !cut {
		return p, false
	}
	return out, true
}
