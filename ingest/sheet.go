package ingest

import (
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
)

// sheetRows reads the rows of one sheet of a workbook as records. A record's
// line is the number that the spreadsheet shows beside the row; rows without
// cells are not stored in a workbook, and so are none. Hidden rows are rows.
//
// Numbers become what a person sees in the cell as far as that is a matter of
// digits: a phone number is not 4.42E+11, a postal code keeps its zeros where
// the cell's format shows them, and a date is one (2026-11-21).
type sheetRows struct {
	book  *workbook
	part  *part
	line  int64
	cells []string
	notes []note
	ended bool
}

// note is what there is to say of one cell of a record.
type note struct {
	cell  int
	bad   error  // why its value is of no use
	doubt string // or what is doubtful
}

var (
	errFormula   = errors.New("holds a formula whose result is not stored; open the workbook in a spreadsheet and save it")
	errErrorCell = errors.New("holds an error where a formula has no result, such as #N/A")
	errNoText    = errors.New("names a text that the workbook does not have; the file is damaged")
	errNoNumber  = errors.New("holds a number that cannot be read")
)

const longNumber = "is a number of more than 15 digits, of which a spreadsheet keeps 15; format the column as text"

func newSheetRows(b *workbook, name string) (*sheetRows, error) {
	p, err := b.part(name, 0)
	if err != nil {
		return nil, err
	}
	s := &sheetRows{book: b, part: p}
	for {
		t, err := p.next()
		if err != nil {
			p.close()
			return nil, p.ended(err)
		}
		if e, ok := t.(xml.StartElement); ok && e.Name.Local == "sheetData" {
			return s, nil
		}
	}
}

// next is as [scanner.next].
func (s *sheetRows) next() (record, error) {
	if s.ended {
		return record{}, io.EOF
	}
	for {
		t, err := s.part.next()
		if err != nil {
			return record{}, s.place(s.part.ended(err))
		}
		switch e := t.(type) {
		case xml.StartElement:
			if e.Name.Local != "row" {
				continue
			}
			rec, err := s.row(e)
			return rec, s.place(err)
		case xml.EndElement:
			if e.Name.Local == "sheetData" {
				return record{}, s.end()
			}
		}
	}
}

// end reads what stands behind the rows, so that the check sum of the part is
// looked at.
func (s *sheetRows) end() error {
	s.ended = true
	defer s.part.close()
	for {
		if _, err := s.part.next(); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			return err
		}
	}
	if err := s.book.hash(); err != nil {
		return err
	}
	return io.EOF
}

func (s *sheetRows) place(err error) error {
	if err == nil || errors.Is(err, io.EOF) {
		return err
	}
	return fmt.Errorf("behind line %d of the sheet: %w", s.line, err)
}

func (s *sheetRows) row(e xml.StartElement) (record, error) {
	line := s.line + 1
	if r := attribute(e, "r"); r != "" {
		n, err := strconv.ParseInt(r, 10, 64)
		if err != nil || n < line {
			return record{}, fmt.Errorf("the workbook is damaged: a row with the number %s", quote(r))
		}
		line = n
	}
	s.line = line
	clear(s.cells)
	s.cells, s.notes = s.cells[:0], s.notes[:0]
	rec := record{first: line, last: line}
	next, size := 0, 0
	for {
		t, err := s.part.next()
		if err != nil {
			return rec, s.part.ended(err)
		}
		switch e := t.(type) {
		case xml.EndElement:
			if e.Name.Local == "row" {
				rec.cells, rec.notes = s.cells, s.notes
				return rec, nil
			}
		case xml.StartElement:
			if e.Name.Local != "c" {
				continue
			}
			at := columnOf(attribute(e, "r"), next)
			next = at + 1
			text, n, err := s.cell(e)
			if err != nil {
				return rec, err
			}
			size += len(text)
			switch {
			case text == "" && n.bad == nil:
			case at < len(s.cells):
				rec.err = errors.New("cells out of their order; the file is damaged")
			case at >= MaxColumns:
				rec.err = fmt.Errorf("more than %d cells", MaxColumns)
			case len(text) > MaxCell:
				rec.err = fmt.Errorf("a cell of more than %d KiB", MaxCell>>10)
			case size > MaxRecord:
				rec.err = fmt.Errorf("more than %d KiB in a row", MaxRecord>>10)
			default:
				for len(s.cells) < at {
					s.cells = append(s.cells, "")
				}
				s.cells = append(s.cells, text)
				if n.cell = at; n.bad != nil || n.doubt != "" {
					s.notes = append(s.notes, n)
				}
			}
		}
	}
}

// columnOf is the column of a cell such as AB12, from 0; next where the cell
// does not say.
func columnOf(ref string, next int) int {
	n := 0
	for _, c := range strings.ToUpper(ref) {
		if c < 'A' || c > 'Z' {
			break
		}
		if n = n*26 + int(c-'A') + 1; n > 1<<20 {
			break
		}
	}
	if n == 0 {
		return next
	}
	return n - 1
}

// cell is the text of a cell that has just begun.
func (s *sheetRows) cell(e xml.StartElement) (text string, n note, err error) {
	value, inline, formula := "", "", false
	for {
		t, err := s.part.next()
		if err != nil {
			return "", n, s.part.ended(err)
		}
		if _, ok := t.(xml.EndElement); ok {
			break
		}
		child, ok := t.(xml.StartElement)
		if !ok {
			continue
		}
		switch child.Name.Local {
		case "v":
			value, err = s.part.text(false)
		case "is":
			inline, err = s.part.text(true)
		case "f":
			formula = true
			err = s.part.skip()
		default:
			err = s.part.skip()
		}
		if err != nil {
			return "", n, err
		}
	}
	kind := attribute(e, "t")
	if kind != "str" {
		value = strings.TrimSpace(value)
	}
	switch {
	case kind == "inlineStr":
		return inline, n, nil
	case kind == "str":
		return value, n, nil
	case value == "" && formula:
		n.bad = errFormula
		return "", n, nil
	case value == "":
		return "", n, nil
	case kind == "s":
		i, err := strconv.Atoi(value)
		text, ok := s.book.texts.get(i)
		if err != nil || !ok {
			n.bad = errNoText
		}
		return text, n, nil
	case kind == "b":
		return strconv.FormatBool(value != "0" && value != "false"), n, nil
	case kind == "e":
		n.bad = errErrorCell
		return "", n, nil
	case kind == "d":
		return isoDate(value), n, nil
	}
	style, _ := strconv.Atoi(attribute(e, "s")) // none is the first
	text, n.doubt, n.bad = s.book.number(value, style)
	return text, n, nil
}

// sheets are the rows of a workbook's sheet, as a source.
type sheetTable struct {
	*table
	name   string
	others []string
}

func openSheet(b *workbook, o Options) (*sheetTable, error) {
	found, part, names, err := b.sheet(o.Sheet)
	if err != nil {
		return nil, err
	}
	rows, err := newSheetRows(b, part)
	if err == nil {
		var t *table
		if t, err = openTable(rows, o, true); err == nil {
			others := slices.DeleteFunc(names, func(n string) bool { return n == found.name })
			return &sheetTable{table: t, name: found.name, others: others}, nil
		}
	}
	if len(names) > 1 && o.Sheet == "" {
		return nil, fmt.Errorf("sheet %s: %w; the sheets are %s, and another can be named", quote(found.name), err, list(names))
	}
	return nil, fmt.Errorf("sheet %s: %w", quote(found.name), err)
}

func (t *sheetTable) report(r *Report) {
	t.table.report(r)
	r.Sheet, r.OtherSheets = t.name, slices.Clone(t.others)
}
