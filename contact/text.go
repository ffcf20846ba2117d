package contact

import (
	"bytes"
	"encoding/json"
	"unicode/utf8"
)

// JSONString is a text as a JSON string, without the escapes that are for HTML:
// what is sent is what was given.
func JSONString(s string) json.RawMessage {
	return appendString(make([]byte, 0, len(s)+2), s)
}

func appendString(b []byte, s string) []byte {
	for i := range len(s) {
		if c := s[i]; c < 0x20 || c == '"' || c == '\\' || c >= utf8.RuneSelf {
			return appendEscaped(b, s)
		}
	}
	b = append(b, '"')
	b = append(b, s...)
	return append(b, '"')
}

func appendEscaped(b []byte, s string) []byte {
	var out bytes.Buffer
	e := json.NewEncoder(&out)
	e.SetEscapeHTML(false)
	_ = e.Encode(s) // a string always encodes
	return append(b, bytes.TrimSuffix(out.Bytes(), []byte("\n"))...)
}

// PlainString is the text of a JSON string that has no escapes; false for any
// other value, which may be a string all the same.
func PlainString(v json.RawMessage) (string, bool) {
	if !isPlainString(v) || !utf8.Valid(v) {
		return "", false
	}
	return string(v[1 : len(v)-1]), true
}

func isPlainString(v []byte) bool {
	if len(v) < 2 || v[0] != '"' || v[len(v)-1] != '"' {
		return false
	}
	for _, c := range v[1 : len(v)-1] {
		if c < 0x20 || c == '"' || c == '\\' {
			return false
		}
	}
	return true
}

// text is the string that a JSON value is, read strictly; false where it is
// something else.
func text(valid json.RawMessage, path string) (string, bool, *BadUpdate) {
	if valid[0] != '"' {
		return "", false, nil
	}
	s := scanner{b: valid}
	out, bad := s.str(path)
	return out, bad == nil, bad
}

// str reads one string, unescaped.
func (s *scanner) str(path string) (string, *BadUpdate) {
	raw, escaped, bad := s.raw()
	if bad != nil {
		bad.Field = clip(path, maxPlace)
		return "", bad
	}
	if !escaped {
		return string(raw[1 : len(raw)-1]), nil
	}
	var out string
	if err := json.Unmarshal(raw, &out); err != nil {
		return "", malformedAt(path, "a string that cannot be read")
	}
	return out, nil
}

// raw reads one string as it stands there. What is wrong with it has no place
// yet.
func (s *scanner) raw() (raw []byte, escaped bool, bad *BadUpdate) {
	start := s.i
	for s.i++; s.b[s.i] != '"'; {
		c := s.b[s.i]
		if c == 0x7F { // the others below 0x20 are not JSON
			return nil, false, controlCharacter()
		}
		if c != '\\' {
			s.i++
			continue
		}
		escaped = true
		if bad := s.escape(); bad != nil {
			return nil, true, bad
		}
	}
	s.i++ // "
	return s.b[start:s.i], escaped, nil
}

// escape passes over one escape sequence, or two that are one character.
func (s *scanner) escape() *BadUpdate {
	switch s.b[s.i+1] {
	case 'b', 'f':
		return controlCharacter()
	case 'u':
	default:
		s.i += 2
		return nil
	}
	r := s.hex4(s.i + 2)
	s.i += 6
	switch {
	case r >= 0xDC00 && r <= 0xDFFF:
		return malformed("half a surrogate pair in a string")
	case r >= 0xD800 && r <= 0xDBFF:
		if s.b[s.i] != '\\' || s.b[s.i+1] != 'u' || s.hex4(s.i+2) < 0xDC00 || s.hex4(s.i+2) > 0xDFFF {
			return malformed("half a surrogate pair in a string")
		}
		s.i += 6
	case r < 0x20 && r != '\t' && r != '\n' && r != '\r', r == 0x7F:
		return controlCharacter()
	}
	return nil
}

func controlCharacter() *BadUpdate { return malformed("a control character in a string") }

func (s *scanner) hex4(at int) rune {
	var r rune
	for _, c := range s.b[at : at+4] {
		switch {
		case c >= '0' && c <= '9':
			r = r<<4 | rune(c-'0')
		case c >= 'a' && c <= 'f':
			r = r<<4 | rune(c-'a'+10)
		default:
			r = r<<4 | rune(c-'A'+10)
		}
	}
	return r
}
