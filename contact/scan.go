package contact

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Limits of an update's JSON.
const (
	// MaxBody is the largest body of an update, in bytes.
	MaxBody = 256 << 10
	// MaxDepth is the deepest nesting of objects and arrays in it.
	MaxDepth = 16
	// MaxMembers is the most members one object may have.
	MaxMembers = 256
)

// maxPlace is how much of a member's path an error keeps, in bytes: names come
// from the message and can be as long as it.
const maxPlace = 256

func malformed(format string, a ...any) *BadUpdate {
	return &BadUpdate{Reason: Malformed, Detail: fmt.Sprintf(format, a...)}
}

// malformedAt is malformed with a place.
func malformedAt(path, format string, a ...any) *BadUpdate {
	bad := malformed(format, a...)
	bad.Field = clip(path, maxPlace)
	return bad
}

func clip(s string, n int) string {
	if len(s) <= n {
		return s
	}
	return strings.ToValidUTF8(s[:n], "") + "…"
}

// wellFormed checks what encoding/json lets pass or silently mends: trailing
// data, invalid UTF-8, size.
func wellFormed(body []byte) *BadUpdate {
	switch {
	case len(body) == 0:
		return malformed("the body is empty")
	case len(body) > MaxBody:
		return malformed("the body has %d bytes, at most %d are allowed", len(body), MaxBody)
	case !utf8.Valid(body):
		return malformed("the body is not valid UTF-8")
	}
	if !json.Valid(body) {
		var any json.RawMessage
		var syn *json.SyntaxError
		if err := json.Unmarshal(body, &any); errors.As(err, &syn) {
			return malformed("not one JSON value: error near byte %d", syn.Offset)
		}
		return malformed("not one JSON value")
	}
	return nil
}

// parsePatch reads an object strictly.
func parsePatch(body []byte) (Patch, *BadUpdate) {
	if bad := wellFormed(body); bad != nil {
		return nil, bad
	}
	return objectOf(body, "", 1, false)
}

// objectOf reads JSON that is known to be valid as an object; path is its place,
// for errors. Shallow reading leaves the members' values unchecked, for a
// caller that checks each of them itself.
func objectOf(valid []byte, path string, depth int, shallow bool) (Patch, *BadUpdate) {
	s := scanner{b: valid}
	s.space()
	if s.b[s.i] != '{' {
		return nil, malformedAt(path, "not a JSON object")
	}
	p, bad := s.members(path, depth, shallow)
	if bad == nil {
		bad = sortMembers(p, path)
	}
	return p, bad
}

// splitObject reads an object that has been checked before, or that was merged
// from such: it may have more members than one update may, and members that
// differ only in case. Of duplicates the last counts.
func splitObject(v json.RawMessage) (Patch, bool) {
	if !json.Valid(v) || !isObject(v) {
		return nil, false
	}
	s := scanner{b: v, lenient: true}
	s.space()
	p, bad := s.members("", 1, true)
	if bad != nil {
		return nil, false
	}
	slices.SortStableFunc(p, byName)
	out := p[:0]
	for i, f := range p {
		if i+1 == len(p) || p[i+1].Name != f.Name {
			out = append(out, f)
		}
	}
	return out, true
}

// scanner walks JSON that is known to be valid and refuses what the standard
// library accepts silently: duplicate members, members that differ only in
// case, lone surrogates, control characters.
type scanner struct {
	b       []byte
	i       int
	lenient bool // about members: any number, any name
}

func (s *scanner) space() {
	for s.i < len(s.b) {
		switch s.b[s.i] {
		case ' ', '\t', '\r', '\n':
			s.i++
		default:
			return
		}
	}
}

// literal skips a number, true, false or null.
func (s *scanner) literal() {
	for s.i < len(s.b) {
		switch s.b[s.i] {
		case ' ', '\t', '\r', '\n', ',', ']', '}':
			return
		}
		s.i++
	}
}

// skip passes over one value without a look at it.
func (s *scanner) skip() {
	for depth := 0; ; {
		switch s.b[s.i] {
		case '"':
			for s.i++; s.b[s.i] != '"'; s.i++ {
				if s.b[s.i] == '\\' {
					s.i++
				}
			}
			s.i++
		case '{', '[':
			depth++
			s.i++
		case '}', ']':
			depth--
			s.i++
		case ' ', '\t', '\r', '\n', ',', ':':
			s.i++
		default:
			s.literal()
		}
		if depth == 0 {
			return
		}
	}
}

// value checks one value. Its path is for errors only.
func (s *scanner) value(path string, depth int) *BadUpdate {
	switch s.b[s.i] {
	case '{', '[':
		if depth > MaxDepth {
			return malformedAt(path, "nested deeper than %d", MaxDepth)
		}
		if s.b[s.i] == '[' {
			return s.array(path, depth)
		}
		p, bad := s.members(path, depth, false)
		if bad != nil {
			return bad
		}
		return sortMembers(p, path)
	case '"':
		_, _, bad := s.raw()
		if bad != nil {
			bad.Field = clip(path, maxPlace)
		}
		return bad
	}
	s.literal()
	return nil
}

func (s *scanner) array(path string, depth int) *BadUpdate {
	s.i++ // [
	for {
		s.space()
		switch s.b[s.i] {
		case ']':
			s.i++
			return nil
		case ',':
			s.i++
		default:
			if bad := s.value(path, depth+1); bad != nil {
				return bad
			}
		}
	}
}

// members reads the members of one object, as they stand there.
func (s *scanner) members(path string, depth int, shallow bool) (Patch, *BadUpdate) {
	s.i++ // {
	var p Patch
	for {
		s.space()
		switch s.b[s.i] {
		case '}':
			s.i++
			return p, nil
		case ',':
			s.i++
			continue
		}
		name, bad := s.name(path)
		if bad != nil {
			return nil, bad
		}
		if len(p) == MaxMembers && !s.lenient {
			return nil, malformedAt(path, "an object with more than %d members", MaxMembers)
		}
		s.space()
		s.i++ // :
		s.space()
		start := s.i
		switch s.b[s.i] {
		case '{', '[':
			if shallow {
				s.skip()
			} else if bad := s.value(join(path, name), depth+1); bad != nil {
				return nil, bad
			}
		case '"':
			if shallow {
				s.skip()
			} else if _, _, bad := s.raw(); bad != nil {
				bad.Field = clip(join(path, name), maxPlace)
				return nil, bad
			}
		default:
			s.literal()
		}
		if p == nil {
			p = make(Patch, 0, 4)
		}
		p = append(p, Field{Name: name, Value: s.b[start:s.i:s.i]})
	}
}

func (s *scanner) name(path string) (out string, bad *BadUpdate) {
	if !s.lenient {
		return s.str(path)
	}
	start := s.i
	s.skip()
	if err := json.Unmarshal(s.b[start:s.i], &out); err != nil {
		return "", malformedAt(path, "a name that cannot be read")
	}
	return out, nil
}

func byName(a, b Field) int { return strings.Compare(a.Name, b.Name) }

// sortMembers sorts by name and refuses two of one name, however it is cased.
func sortMembers(p Patch, path string) *BadUpdate {
	slices.SortFunc(p, byName)
	for i := 1; i < len(p); i++ {
		if p[i].Name == p[i-1].Name {
			return malformedAt(join(path, p[i].Name), "the member stands there twice")
		}
	}
	if name, ok := caseVariant(p); ok {
		return malformedAt(join(path, name), "two members differ only in upper and lower case")
	}
	return nil
}

// fewMembers is up to where comparing each with each is cheaper than folding
// the names.
const fewMembers = 12

func caseVariant(p Patch) (string, bool) {
	if len(p) <= fewMembers {
		for i := range p {
			for j := range i {
				if strings.EqualFold(p[i].Name, p[j].Name) {
					return p[i].Name, true
				}
			}
		}
		return "", false
	}
	seen := make(map[string]struct{}, len(p))
	for i := range p {
		k := foldCase(p[i].Name)
		if _, ok := seen[k]; ok {
			return p[i].Name, true
		}
		seen[k] = struct{}{}
	}
	return "", false
}

// foldCase maps names that strings.EqualFold holds equal to one.
func foldCase(s string) string {
	return strings.Map(func(r rune) rune {
		least := r
		for f := unicode.SimpleFold(r); f != r; f = unicode.SimpleFold(f) {
			least = min(least, f)
		}
		return least
	}, s)
}

func join(path, name string) string {
	if path == "" {
		return name
	}
	return path + "." + name
}
