package ingest

import (
	"bufio"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
)

// part is a part of a workbook being read.
type part struct {
	*xml.Decoder
	name  string
	file  io.ReadCloser
	bound *bounded
}

// part opens a part; most bounds its size, unpacked, unless it is 0.
func (b *workbook) part(name string, most int64) (*part, error) {
	f := b.parts[partName(name)]
	if f == nil {
		return nil, fmt.Errorf("the workbook is damaged: it has no part %s", quote(name))
	}
	if f.Flags&1 != 0 {
		return nil, errors.New("the workbook is locked with a password; save it without one")
	}
	r, err := f.Open()
	if err != nil {
		return nil, fmt.Errorf("the workbook is damaged: part %s: %w", quote(name), err)
	}
	p := &part{name: name, file: r, bound: &bounded{r: r, packed: int64(f.CompressedSize64), most: most}}
	p.Decoder = xml.NewDecoder(bufio.NewReaderSize(p.bound, 32<<10))
	return p, nil
}

func (p *part) close() { _ = p.file.Close() } // only read

// next is the next piece of XML.
func (p *part) next() (xml.Token, error) {
	p.bound.n = 0
	t, err := p.Token()
	switch {
	case err == nil || errors.Is(err, io.EOF):
		return t, err
	case p.bound.err != nil:
		return nil, p.bound.err
	}
	return nil, fmt.Errorf("the workbook is damaged: part %s: %w", quote(p.name), err)
}

// each calls f for every element.
func (p *part) each(f func(xml.StartElement) error) error {
	for {
		t, err := p.next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if e, ok := t.(xml.StartElement); ok && err == nil {
			err = f(e)
		}
		if err != nil {
			return err
		}
	}
}

// text is what stands in an element that has just begun, to its end. rich is
// that it is split into runs, each with its own text, and perhaps with a reading
// aid beside it.
func (p *part) text(rich bool) (string, error) {
	var out []byte
	depth, in, aside := 1, !rich, 0
	for {
		t, err := p.next()
		if err != nil {
			return "", p.ended(err)
		}
		switch e := t.(type) {
		case xml.CharData:
			if in && aside == 0 && len(out) <= MaxCell {
				out = append(out, e...)
			}
		case xml.StartElement:
			depth++
			if aside > 0 || e.Name.Local == "rPh" {
				aside++
			}
			in = !rich || e.Name.Local == "t"
		case xml.EndElement:
			if depth--; depth == 0 {
				return unescape(string(out)), nil
			}
			if aside > 0 {
				aside--
			}
			in = !rich
		}
	}
}

// ended is an error where io.EOF comes too early.
func (p *part) ended(err error) error {
	if errors.Is(err, io.EOF) {
		return fmt.Errorf("the workbook is damaged: part %s ends in the middle", quote(p.name))
	}
	return err
}

// unescape undoes what Excel makes of characters that XML cannot hold, and makes
// LF of all line ends: _x000D_ is a carriage return.
func unescape(s string) string {
	if strings.Contains(s, "_x") {
		var b strings.Builder
		for {
			i := strings.Index(s, "_x")
			if i < 0 {
				break
			}
			b.WriteString(s[:i])
			s = s[i:]
			if c, ok := escaped(s); ok {
				b.WriteRune(c)
				s = s[7:]
			} else {
				b.WriteString(s[:2])
				s = s[2:]
			}
		}
		b.WriteString(s)
		s = b.String()
	}
	if strings.IndexByte(s, '\r') >= 0 {
		s = strings.ReplaceAll(strings.ReplaceAll(s, "\r\n", "\n"), "\r", "\n")
	}
	return s
}

// escaped is the character that a text begins with as _x000D_.
func escaped(s string) (rune, bool) {
	if len(s) < 7 || s[6] != '_' {
		return 0, false
	}
	n, err := strconv.ParseUint(s[2:6], 16, 16)
	return rune(n), err == nil && (n < 0xd800 || n >= 0xe000)
}

func attribute(e xml.StartElement, name string) string {
	for _, a := range e.Attr {
		if a.Name.Local == name && a.Name.Space == "" {
			return a.Value
		}
	}
	return ""
}

// reference is the relationship that an element names.
func reference(e xml.StartElement) string {
	for _, a := range e.Attr {
		if a.Name.Local == "id" && a.Name.Space != "" {
			return a.Value
		}
	}
	return ""
}

// bounded reads a part while that stays within reason, as [unpacker] does, and
// bounds what is read for one piece of XML: n counts since the last.
type bounded struct {
	r            io.Reader
	n            int
	total        int64
	packed, most int64
	err          error
}

func (b *bounded) Read(p []byte) (int, error) {
	n, err := b.r.Read(p)
	b.n += n
	b.total += int64(n)
	switch {
	case b.n > maxToken:
		b.err = fmt.Errorf("a piece of more than %d KiB, which no cell can be", maxToken>>10)
	case b.total > unpackFree && b.total/unpackRatio > b.packed:
		b.err = fmt.Errorf("the workbook grows more than %d-fold when it is unpacked; save it anew, or as CSV UTF-8", unpackRatio)
	case b.most > 0 && b.total > b.most:
		b.err = fmt.Errorf("a part of the workbook has more than %d MiB, beside its rows; save the sheet as CSV UTF-8", b.most>>20)
	default:
		return n, err
	}
	return 0, b.err
}

// skip reads to the end of an element that has just begun.
func (p *part) skip() error {
	for depth := 1; depth > 0; {
		t, err := p.next()
		if err != nil {
			return p.ended(err)
		}
		switch t.(type) {
		case xml.StartElement:
			depth++
		case xml.EndElement:
			depth--
		}
	}
	return nil
}
