package contact

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"strconv"
	"strings"
)

// Mark is an update's place in the order of its contact's updates. In a
// [Fence] it stands for every update that wrote a path; what that needs beyond
// the exported fields is kept in the others. Marks compare with ==.
type Mark struct {
	Class     Class
	Seq       uint64 // place in the stream of its class
	Stored    int64  // broker's time, Unix nanoseconds; compares across classes only
	Version   int64  // the source's counter, where Versioned
	Versioned bool

	// In a fence, where versioned and unversioned updates (or versions out of
	// order) wrote one path, a single place cannot say what is older than all
	// of them. The exported fields are then those of the highest version.
	last  place // latest place of any writer, where later than the mark's own
	plain place // latest place of a writer without a version, where Versioned
}

// place is where the broker put an update; the zero value is no place, which
// everything is after.
type place struct {
	class  Class
	seq    uint64
	stored int64
	set    bool
}

func (m Mark) place() place { return place{class: m.Class, seq: m.Seq, stored: m.Stored, set: true} }

func (m Mark) at(p place) Mark {
	m.Class, m.Seq, m.Stored = p.class, p.seq, p.stored
	return m
}

func (p place) after(q place) bool {
	switch {
	case !q.set:
		return true
	case p.class == q.class:
		return p.seq > q.seq
	case p.stored != q.stored:
		return p.stored > q.stored
	}
	return p.class < q.class // same instant: live counts as the newer
}

// join is the earliest place that nothing can be after without being after
// both. Within a class the stored time may step back with the broker's clock,
// so the later time is kept whichever sequence it belongs to.
func (p place) join(q place) place {
	switch {
	case !p.set:
		return q
	case !q.set:
		return p
	case p.class == q.class:
		p.seq, p.stored = max(p.seq, q.seq), max(p.stored, q.stored)
		return p
	case q.after(p):
		return q
	}
	return p
}

// After says whether an update at m is newer than one at n: by version where
// both have one, else by place in the stream where they share a class, else by
// the time the broker stored them. Where n comes from a [Fence], m is newer
// only if it is newer than every update n stands for. It is not transitive when
// versioned and unversioned updates of one contact are mixed; a fold therefore
// goes through them in order, never in groups.
func (m Mark) After(n Mark) bool {
	p := m.place()
	if m.Versioned && n.Versioned {
		if m.Version < n.Version || m.Version == n.Version && !p.after(n.place()) {
			return false
		}
		return p.after(n.plain)
	}
	return p.after(n.place()) && p.after(n.last)
}

// with is the mark that stands for all that n stands for and for one more
// update, at m.
func (n Mark) with(m Mark) Mark {
	p := m.place()
	switch {
	case !n.Versioned && !m.Versioned:
		return n.at(n.place().join(p))
	case !n.Versioned:
		m.plain, m.last = n.place(), n.place()
	case !m.Versioned:
		m = n
		m.plain, m.last = n.plain.join(p), n.last.join(p)
	case m.Version > n.Version:
		m.plain, m.last = n.plain, n.last.join(n.place())
	case m.Version == n.Version:
		m = n.at(n.place().join(p))
	default:
		m = n
		m.last = n.last.join(p)
	}
	if own := m.place(); own.join(m.last) == own {
		m.last = place{} // says nothing that the mark's own place does not
	}
	return m
}

// MarshalJSON writes a mark as [class, seq, stored, version?]. A fence's mark
// that stands for writers with and without a version, or for versions out of
// order, has two more members, each a place [class, seq, stored] or null.
func (m Mark) MarshalJSON() ([]byte, error) {
	b := m.place().append(make([]byte, 0, 64))
	b = b[:len(b)-1] // the array goes on
	if m.Versioned {
		b = append(b, ',')
		b = strconv.AppendInt(b, m.Version, 10)
		if m.last.set || m.plain.set {
			b = m.last.append(append(b, ','))
			b = m.plain.append(append(b, ','))
		}
	}
	return append(b, ']'), nil
}

func (p place) append(b []byte) []byte {
	if !p.set {
		return append(b, "null"...)
	}
	b = append(b, '[')
	b = strconv.AppendUint(b, uint64(p.class), 10)
	b = strconv.AppendUint(append(b, ','), p.seq, 10)
	b = strconv.AppendInt(append(b, ','), p.stored, 10)
	return append(b, ']')
}

// UnmarshalJSON reads what MarshalJSON wrote.
func (m *Mark) UnmarshalJSON(b []byte) error {
	part, err := list(b)
	if err != nil {
		return err
	}
	if n := len(part); n != 3 && n != 4 && n != 6 {
		return fmt.Errorf("mark: %d members, not 3, 4 or 6", n)
	}
	p, err := parsePlace(part[:3])
	if err != nil {
		return err
	}
	out := Mark{}.at(p)
	if len(part) > 3 {
		out.Versioned = true
		if out.Version, err = strconv.ParseInt(string(part[3]), 10, 64); err != nil {
			return errors.New("mark: the version is not a whole number")
		}
	}
	if len(part) > 4 {
		if err := out.last.unmarshal(part[4]); err != nil {
			return err
		}
		if err := out.plain.unmarshal(part[5]); err != nil {
			return err
		}
	}
	*m = out
	return nil
}

// list splits a JSON array. One of plain numbers, as nearly every mark is, is
// split by hand: a fence is read for each contact that is taken up.
func list(b []byte) (part []json.RawMessage, err error) {
	if n := len(b); n > 2 && b[0] == '[' && b[n-1] == ']' && bytes.IndexFunc(b[1:n-1], notInNumbers) < 0 {
		part = make([]json.RawMessage, 0, 4)
		for rest, more := b[1:n-1], true; more; {
			var one []byte
			one, rest, more = bytes.Cut(rest, []byte{','})
			part = append(part, one)
		}
		return part, nil
	}
	if err := json.Unmarshal(b, &part); err != nil {
		return nil, fmt.Errorf("mark: %w", err)
	}
	return part, nil
}

func notInNumbers(r rune) bool { return r != ',' && r != '-' && (r < '0' || r > '9') }

func (p *place) unmarshal(b []byte) error {
	if string(b) == "null" {
		return nil
	}
	part, err := list(b)
	if err != nil {
		return err
	}
	if len(part) != 3 {
		return fmt.Errorf("mark: place of %d members, not 3", len(part))
	}
	*p, err = parsePlace(part)
	return err
}

func parsePlace(part []json.RawMessage) (p place, err error) {
	class, err := strconv.ParseUint(string(part[0]), 10, 8)
	if err != nil || class >= Classes {
		return p, errors.New("mark: the class is not known")
	}
	p.class, p.set = Class(class), true
	if p.seq, err = strconv.ParseUint(string(part[1]), 10, 64); err != nil {
		return p, errors.New("mark: the sequence is not a whole number")
	}
	if p.stored, err = strconv.ParseInt(string(part[2]), 10, 64); err != nil {
		return p, errors.New("mark: the stored time is not a whole number")
	}
	return p, nil
}

// Fence remembers, for each path of one contact (see [Rules.Paths]), the
// updates that settled with it, summed up in one mark. An update that is older
// than any of them and settles later, as bulk does behind live traffic, leaves
// the path out; one that is newer than all of them writes it. The zero value
// fences nothing. It is not safe for concurrent writing.
type Fence map[string]Mark

// Blocks says whether an update at m may no longer write the path. A whole
// field is blocked by its newer members, a member by its newer field.
func (f Fence) Blocks(path string, m Mark) bool {
	if i := separator(path); i >= 0 {
		return f.blocks(path, m) || f.blocks(path[:i], m)
	}
	return f.blocks(path, m) || f.membersBlock(path, m)
}

func (f Fence) blocks(path string, m Mark) bool {
	n, ok := f[path]
	return ok && !m.After(n)
}

// membersBlock says whether a member of a field is newer than m.
func (f Fence) membersBlock(field string, m Mark) bool {
	for p, n := range f {
		if len(p) > len(field) && p[len(field)] == '.' && strings.HasPrefix(p, field) && !m.After(n) {
			return true
		}
	}
	return false
}

// separator finds the dot between a path's field and member, or -1.
func separator(path string) int {
	for i := 0; i < len(path); i++ {
		switch path[i] {
		case '\\':
			i++
		case '.':
			return i
		}
	}
	return -1
}

// Keep is what of a patch an update at m may still write. The second result
// says whether anything was left out.
func (f Fence) Keep(r Rules, p Patch, m Mark) (Patch, bool) {
	if len(f) == 0 {
		return p, false
	}
	return r.Without(p, func(path string) bool { return f.Blocks(path, m) })
}

// Add notes that an update at m wrote these paths. A fence never moves back:
// what it blocked before, it blocks afterwards.
func (f Fence) Add(paths []string, m Mark) {
	for _, p := range paths {
		f.note(p, m)
	}
}

func (f Fence) note(path string, m Mark) {
	if n, ok := f[path]; ok {
		m = n.with(m)
	}
	f[path] = m
}

// Clone copies the fence; never nil.
func (f Fence) Clone() Fence {
	if f == nil {
		return Fence{}
	}
	return maps.Clone(f)
}
