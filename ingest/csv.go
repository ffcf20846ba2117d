package ingest

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"regexp"
	"slices"
	"strings"
	"unicode/utf8"

	"crmsync/contact"
)

// records are what a table consists of, its header first.
type records interface {
	// next returns the next record. The error is io.EOF, or it ends the file.
	next() (record, error)
}

// table makes rows of records.
type table struct {
	scan    records
	delim   string
	sparse  bool // empty cells at the end of a record are not stored
	header  int  // cells in it
	columns *columns
	o       Options
	blank   int64
	begun   bool
	remarks map[string]string // of the first row
}

// openCSV finds out what separates cells, and reads the header.
func openCSV(text *bufio.Reader, o Options) (*table, error) {
	line, err := headerLine(text)
	if err != nil {
		return nil, err
	}
	delim, explicit, err := delimiter(line, o)
	if err != nil {
		return nil, err
	}
	scan := newScanner(text, delim)
	if explicit {
		if _, err := scan.next(); err != nil { // the line that said so
			return nil, err
		}
	}
	t, err := openTable(scan, o, false)
	if err == nil {
		t.delim = string(delim)
	}
	return t, err
}

// openTable reads the header of records.
func openTable(scan records, o Options, sparse bool) (*table, error) {
	t := &table{scan: scan, o: o, sparse: sparse}
	rec, err := t.record()
	switch {
	case errors.Is(err, io.EOF):
		return nil, fmt.Errorf("%w: the file is empty", ErrNoRows)
	case err != nil:
		return nil, err
	case rec.err != nil:
		return nil, fmt.Errorf("line %d: the header has %w", rec.first, rec.err)
	}
	t.header = len(rec.cells)
	t.columns, err = mapColumns(rec.cells, o)
	var none *noID
	if errors.As(err, &none) && sparse {
		none.hint = "see that the header is the first row"
	}
	if err != nil {
		return nil, fmt.Errorf("line %d: %w", rec.first, err)
	}
	t.blank = 0
	return t, nil
}

// record is the scanner's next record that is not blank. Spreadsheets save rows
// that were once used as nothing but delimiters.
func (t *table) record() (record, error) {
	for {
		rec, err := t.scan.next()
		if err != nil || rec.err != nil || !isBlank(rec.cells) || len(rec.notes) > 0 {
			return rec, err
		}
		t.blank++
	}
}

func isBlank(cells []string) bool {
	for _, c := range cells {
		if strings.TrimSpace(c) != "" {
			return false
		}
	}
	return true
}

func (t *table) next() (Row, error) {
	rec, err := t.record()
	if err != nil {
		return Row{}, err
	}
	if !t.begun {
		t.begun, t.remarks = true, t.columns.remarks(rec.cells)
	}
	row := Row{Line: rec.first, Cells: rec.cells}
	if t.columns.guarded {
		unguard(rec.cells)
	}
	if err := t.fill(&row, rec); err != nil {
		if rec.last > rec.first {
			err = fmt.Errorf("lines %d to %d: %w", rec.first, rec.last, err)
		}
		row.Err = err
	}
	return row, nil
}

func (t *table) fill(row *Row, rec record) error {
	if rec.err != nil {
		return rec.err
	}
	for t.sparse && len(rec.cells) < t.header {
		rec.cells = append(rec.cells, "")
	}
	row.Cells = rec.cells
	if len(rec.cells) < t.header {
		return fmt.Errorf("the row has %d cells, but the header has %d columns", len(rec.cells), t.header)
	}
	// A delimiter too many at the end of each line loses nothing.
	if len(rec.cells) > t.header && !isBlank(rec.cells[t.header:]) {
		hint := "; a cell with the delimiter in it needs quotes"
		if t.sparse {
			hint = ""
		}
		return fmt.Errorf("the row has %d cells, but the header has %d columns%s", len(rec.cells), t.header, hint)
	}
	var err error
	if err = row.note(rec, t.columns.id, t.columns.idName); err != nil {
		return err
	}
	if row.ID, err = t.columns.contact(rec.cells); err != nil {
		return err
	}
	items := make([]item, 0, len(t.columns.mapped)+len(t.columns.constants))
	for _, c := range t.columns.mapped {
		if err := row.note(rec, c.index, c.name); err != nil {
			return err
		}
		v, err := t.value(row, c, rec.cells[c.index])
		if err != nil {
			return fmt.Errorf("column %s: %w", quote(c.name), err)
		}
		if v != nil {
			items = append(items, item{c.path, v})
		}
	}
	row.Fields, err = patch(items, t.columns.constants)
	return err
}

// note passes on what there is to say of a cell.
func (r *Row) note(rec record, cell int, column string) error {
	for _, n := range rec.notes {
		switch {
		case n.cell != cell:
		case n.bad != nil:
			return fmt.Errorf("column %s: %w", quote(column), n.bad)
		default:
			r.Warnings = append(r.Warnings, "column "+quote(column)+" "+n.doubt)
		}
	}
	return nil
}

// scientific is what spreadsheets make of long numbers, a phone's for one.
var scientific = regexp.MustCompile(`^[0-9](?:[.,][0-9]+)?[eE]\+[0-9]{1,3}$`)

func (t *table) value(row *Row, c *column, cell string) (json.RawMessage, error) {
	if strings.TrimSpace(cell) == "" {
		if t.o.Empty == EmptyClear {
			return json.RawMessage("null"), nil
		}
		return nil, nil
	}
	if err := checkText(cell); err != nil {
		return nil, err
	}
	if strings.IndexByte(cell, '+') > 0 && scientific.MatchString(strings.TrimSpace(cell)) {
		row.Warnings = append(row.Warnings, "column "+quote(c.name)+" looks like a long number that a spreadsheet cut short (4.47E+11)")
	}
	return convert(t.o, c.field, cell)
}

func convert(o Options, field, text string) (json.RawMessage, error) {
	if o.Convert == nil {
		return contact.JSONString(text), nil
	}
	return o.Convert(field, text)
}

// checkText refuses what no contact's field holds and what says that the
// encoding is not what it is taken for.
func checkText(s string) error {
	if !utf8.ValidString(s) {
		return errors.New("is not valid UTF-8, though most of the file is; save the file anew, or name its encoding")
	}
	for _, c := range s {
		switch {
		case c == '\n' || c == '\r' || c == '\t':
		case c < 0x20 || c >= 0x7f && c < 0xa0:
			return fmt.Errorf("holds a control character (U+%04X)", c)
		case c == utf8.RuneError:
			return errors.New("holds U+FFFD, which stands for a character lost in an earlier conversion")
		}
	}
	return nil
}

func (t *table) report(r *Report) {
	r.Delimiter, r.Blank, r.Remarks = t.delim, t.blank, t.remarks
	t.columns.report(r)
}

const delimiters = ",;\t|"

// headerLine is the text up to the end of the header, as far as it can be told
// without knowing the delimiter, still unread.
func headerLine(text *bufio.Reader) ([]byte, error) {
	for n := 4096; ; n = min(2*n, MaxRecord) {
		b, err := peek(text, n)
		if err != nil {
			return nil, err
		}
		quotes, begun := 0, false
		for i, c := range b {
			switch {
			case c == '"':
				quotes++
				begun = true
			case (c == '\n' || c == '\r') && quotes%2 == 0 && begun:
				return b[:i], nil
			case c != '\n' && c != '\r':
				begun = true
			}
		}
		if len(b) < n || n == MaxRecord {
			return b, nil
		}
	}
}

var separatorLine = regexp.MustCompile(`^[\r\n]*"?sep=([,;\t|])"?$`)

// delimiter tells what separates the cells of the header: what the caller says,
// what the file says (Excel's sep=;), what makes a column of the id, or what
// makes the most columns. The second result is that a line of the file says so.
func delimiter(line []byte, o Options) (byte, bool, error) {
	m := separatorLine.FindSubmatch(line)
	switch o.Delimiter {
	case "", "auto":
	case "comma", ",":
		return ',', m != nil, nil
	case "semicolon", ";":
		return ';', m != nil, nil
	case "tab", "\t", `\t`:
		return '\t', m != nil, nil
	case "pipe", "|":
		return '|', m != nil, nil
	default:
		return 0, false, fmt.Errorf("delimiter %q is not known; use auto, comma, semicolon, tab or pipe", o.Delimiter)
	}
	if m != nil {
		return m[1][0], true, nil
	}
	type found struct {
		delim byte
		cells int
		id    bool
	}
	best, tie := found{delim: ','}, false
	for _, d := range []byte(delimiters) {
		rec, err := newScanner(bufio.NewReader(bytes.NewReader(bytes.TrimLeft(line, "\r\n"))), d).next()
		f := found{d, len(rec.cells), idColumn(rec.cells, o) >= 0}
		if err != nil || rec.err != nil { // to be reported when the header is read
			f = found{delim: d, cells: 1 + bytes.Count(line, []byte{d})}
		}
		switch {
		case f.id != best.id && best.cells > 0:
			if f.id {
				best, tie = f, false
			}
		case f.cells > best.cells:
			best, tie = f, false
		case f.cells == best.cells && f.cells > 1:
			tie = true
		}
	}
	if tie {
		return 0, false, errors.New("line 1: several delimiters would make the same number of columns; name the delimiter")
	}
	return best.delim, false, nil
}

// patch makes a patch of a row's fields, sorted by path, and those of every row,
// checking it as a message's would be.
func patch(items, constants []item) (contact.Patch, error) {
	if len(constants) > 0 {
		items = append(items, constants...)
		slices.SortStableFunc(items, byPath)
	}
	if len(items) == 0 {
		return nil, ErrNothing
	}
	body, err := assemble(items)
	if err != nil {
		return nil, err
	}
	return contact.ParsePatch(body)
}
