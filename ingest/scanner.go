package ingest

import (
	"bufio"
	"errors"
	"fmt"
	"io"
)

// scanner splits CSV into records. It does what encoding/csv cannot: it bounds
// cells and records, so that a quote that is never closed does not take the rest
// of the file into memory; it goes on after a bad row; and it knows the line of
// the file on which a record and an open quote began.
//
// It is lenient where that loses nothing: a quote inside a cell that does not
// begin with one is a character, blanks around a quoted cell do not count, and
// lines may end in LF, CRLF or CR. Inside quotes each of these becomes LF.
//
// It does not look for a better reading after a quote that swallowed lines:
// taking what may be the inside of somebody's note for rows would write it to
// contacts.
type scanner struct {
	r     *bufio.Reader
	delim byte

	line      int64 // of the next byte, from 1
	state     scanState
	quoteLine int64 // where the quote of the cell was opened
	cell      int   // where the cell begins in buf
	buf       []byte
	ends      []int
	fault     error
	cells     []string
}

// record is one row of a table, mostly one line of the file. Its cells are valid
// until the next.
type record struct {
	first, last int64 // lines
	cells       []string
	notes       []note // of a sheet's cells
	err         error  // why it is no good; the records after it may be
}

type scanState uint8

const (
	cellBegins scanState = iota // nothing but blanks so far
	inCell
	inQuotes
	afterQuote // the quote before may be the first of two
	afterCell  // blanks follow the closing quote
	skipping   // to the end of a line that is no good
)

func newScanner(r *bufio.Reader, delim byte) *scanner {
	return &scanner{r: r, delim: delim, line: 1}
}

// next returns the next record; a blank line is one with a single empty cell.
// The error is io.EOF, or it ends the file.
func (s *scanner) next() (record, error) {
	rec := record{first: s.line}
	s.state, s.cell, s.buf, s.ends, s.fault = cellBegins, 0, s.buf[:0], s.ends[:0], nil
	for size := 1; ; size++ {
		size += s.run()
		c, newline, err := s.read()
		switch {
		case err == nil && newline && s.state != inQuotes:
			rec.last = s.line - 1
			return s.finish(rec), nil
		case err == nil:
		case !errors.Is(err, io.EOF):
			return rec, fmt.Errorf("line %d: read the file: %w", s.line, err)
		case size == 1:
			return rec, io.EOF
		case s.state == inQuotes:
			return rec, fmt.Errorf("line %d: a quote is opened here that is not closed to the end of the file; close or remove it", s.quoteLine)
		default:
			rec.last = s.line
			return s.finish(rec), nil
		}
		if s.state == skipping {
			continue
		}
		s.step(c)
		if len(s.buf)-s.cell <= MaxCell && size <= MaxRecord && len(s.ends) < MaxColumns {
			continue
		}
		if s.state == inQuotes {
			return rec, fmt.Errorf("line %d: a quote is opened here that is not closed within %d KiB of the cell and %d KiB of the row; close or remove it",
				s.quoteLine, MaxCell>>10, MaxRecord>>10)
		}
		switch {
		case len(s.buf)-s.cell > MaxCell:
			s.skip(fmt.Errorf("a cell of more than %d KiB", MaxCell>>10))
		case len(s.ends) >= MaxColumns:
			s.skip(fmt.Errorf("more than %d cells", MaxColumns))
		default:
			s.skip(fmt.Errorf("more than %d KiB in a row", MaxRecord>>10))
		}
	}
}

// run takes what is buffered of the inside of a cell, or of a line that is
// skipped, at once, and returns how many bytes that was.
func (s *scanner) run() int {
	if s.state != inCell && s.state != inQuotes && s.state != skipping {
		return 0
	}
	b, _ := s.r.Peek(s.r.Buffered()) // what is buffered is there
	if room := MaxCell - (len(s.buf) - s.cell); s.state != skipping && len(b) > room {
		b = b[:room]
	}
	n := 0
	for n < len(b) && b[n] != '\n' && b[n] != '\r' && (s.state == skipping || b[n] != '"' && (b[n] != s.delim || s.state == inQuotes)) {
		n++
	}
	if s.state != skipping {
		s.buf = append(s.buf, b[:n]...)
	}
	_, _ = s.r.Discard(n)
	return n
}

// step takes one byte that does not end the record.
func (s *scanner) step(c byte) {
	blank := c == ' ' || c == '\t'
	switch {
	case s.state == inQuotes && c == '"':
		s.state = afterQuote
	case s.state == inQuotes:
		s.buf = append(s.buf, c)
	case c == s.delim:
		s.endCell()
	case s.state == cellBegins && c == '"':
		s.buf = s.buf[:s.cell]
		s.state, s.quoteLine = inQuotes, s.line
	case s.state == cellBegins || s.state == inCell:
		s.buf = append(s.buf, c)
		if !blank {
			s.state = inCell
		}
	case s.state == afterQuote && c == '"':
		s.buf = append(s.buf, c)
		s.state = inQuotes
	case blank:
		s.state = afterCell
	default:
		s.skip(fmt.Errorf("text after the closing quote on line %d; double the quotes inside a cell", s.line))
	}
}

func (s *scanner) skip(why error) {
	s.fault, s.state = why, skipping
	s.buf, s.ends = s.buf[:0], s.ends[:0]
}

func (s *scanner) endCell() {
	s.ends = append(s.ends, len(s.buf))
	s.cell, s.state = len(s.buf), cellBegins
}

// finish makes the cells of one string: one allocation for a row however many
// cells it has.
func (s *scanner) finish(rec record) record {
	if rec.err = s.fault; rec.err != nil {
		return rec
	}
	s.endCell()
	text, begin := string(s.buf), 0
	s.cells = s.cells[:0]
	for _, end := range s.ends {
		s.cells = append(s.cells, text[begin:end])
		begin = end
	}
	rec.cells = s.cells
	return rec
}

// read returns the next byte, with every kind of line end as LF.
func (s *scanner) read() (c byte, newline bool, err error) {
	c, err = s.r.ReadByte()
	if err != nil || (c != '\n' && c != '\r') {
		return c, false, err
	}
	if c == '\r' {
		// An error here comes again with the next read.
		if next, err := s.r.ReadByte(); err == nil && next != '\n' {
			_ = s.r.UnreadByte()
		}
	}
	s.line++
	return '\n', true, nil
}
