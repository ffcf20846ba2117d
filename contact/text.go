package contact

import "encoding/json"

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
	start := s.i
	escaped := false
	for s.i++; s.b[s.i] != '"'; {
		c := s.b[s.i]
		if c == 0x7F { // the others below 0x20 are not JSON
			return "", controlCharacter(path)
		}
		if c != '\\' {
			s.i++
			continue
		}
		escaped = true
		if bad := s.escape(path); bad != nil {
			return "", bad
		}
	}
	s.i++ // "
	raw := s.b[start:s.i]
	if !escaped {
		return string(raw[1 : len(raw)-1]), nil
	}
	var out string
	if err := json.Unmarshal(raw, &out); err != nil {
		return "", malformedAt(path, "a string that cannot be read")
	}
	return out, nil
}

// escape passes over one escape sequence, or two that are one character.
func (s *scanner) escape(path string) *BadUpdate {
	switch s.b[s.i+1] {
	case 'b', 'f':
		return controlCharacter(path)
	case 'u':
	default:
		s.i += 2
		return nil
	}
	r := s.hex4(s.i + 2)
	s.i += 6
	switch {
	case r >= 0xDC00 && r <= 0xDFFF:
		return malformedAt(path, "half a surrogate pair in a string")
	case r >= 0xD800 && r <= 0xDBFF:
		if s.b[s.i] != '\\' || s.b[s.i+1] != 'u' || s.hex4(s.i+2) < 0xDC00 || s.hex4(s.i+2) > 0xDFFF {
			return malformedAt(path, "half a surrogate pair in a string")
		}
		s.i += 6
	case r < 0x20 && r != '\t' && r != '\n' && r != '\r', r == 0x7F:
		return controlCharacter(path)
	}
	return nil
}

func controlCharacter(path string) *BadUpdate {
	return malformedAt(path, "a control character in a string")
}

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
