// Package ingest turns what people and programs have, files first of all, into
// updates, row by row: a sheet of an Excel workbook, a CSV file as a spreadsheet
// saves it, in whatever encoding and with whatever delimiter, or one JSON object a
// line.
//
// One bad row is a rejected row with a reason, and the rest goes on. What makes
// the meaning of everything after it doubtful (a quote that is never closed, a
// file that is no text) ends the file, naming the line. Memory is bounded
// however large the file. Reasons name lines and columns, never what a cell
// holds.
//
// The package knows no CRM: which column is which field, and how a cell becomes
// a field's value, is for the caller to say.
package ingest

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"

	"crmsync/contact"
)

// Limits on what is read, in bytes, and on columns.
const (
	MaxCell    = 64 << 10
	MaxRecord  = 256 << 10
	MaxColumns = 1024
)

// Formats.
const (
	FormatAuto   = "auto"
	FormatCSV    = "csv"
	FormatNDJSON = "ndjson"
	FormatXLSX   = "xlsx" // an Excel workbook
)

// What an empty CSV cell means.
const (
	EmptyIgnore = "ignore" // the field is left alone
	EmptyClear  = "clear"  // the field is cleared
)

// ErrNoRows is the error of [Open] for a file without data.
var ErrNoRows = errors.New("no rows")

// ErrNothing is the Err of a row that names a contact but changes nothing.
var ErrNothing = errors.New("the row changes nothing: no mapped column has a value")

// Options say how a file is read. The zero value detects what can be detected
// and takes every column for a field of the same name.
type Options struct {
	// Format is a Format constant; empty means auto.
	Format string
	// Labels maps what people call a column to a field: keys are compared as
	// [Normalize] makes them. Columns that neither Labels nor Map know are not
	// imported, but listed in the Report. Nil takes every column for a field. A
	// field with dots in it, address.city, is a member of an object.
	Labels map[string]string
	// Columns whose names begin with an underscore are remarks about a row, and
	// taken only where IDColumn or Map names them.
	//
	// IDColumn is the column of the contact's id; empty takes the first there is
	// of id, contact id.
	IDColumn string
	// Map maps columns to fields and goes before Labels; "" or "-" ignores the
	// column. A field for a column that the file does not have is an error of
	// Open.
	Map map[string]string
	// Constants are fields that every row sets, to a text that is converted as a
	// cell is; "" clears. One for a field that a column is for too is an error.
	Constants map[string]string
	// Empty is an Empty constant; empty means EmptyIgnore. It is for CSV: JSON
	// can say null.
	Empty string
	// Encoding is auto or empty, utf-8, utf-16le, utf-16be, windows-1252,
	// iso-8859-1 or iso-8859-15.
	Encoding string
	// Delimiter is auto or empty, or one of , ; | and tab, by character or name.
	Delimiter string
	// Sheet is the sheet of a workbook, by name; empty takes the first that is not
	// hidden. One for a file that is no workbook is an error of Open.
	Sheet string
	// Convert makes a field's value of a cell's text, which is never empty. An
	// error rejects the row and must not quote the text. A nil result leaves
	// the field alone. Nil makes JSON strings.
	Convert func(field, text string) (json.RawMessage, error)
}

// Row is one row of data.
type Row struct {
	// Line is the line of the file on which the row begins, from 1; of a sheet, the
	// number that stands beside the row.
	Line int64
	// N is the number of the row, from 1, counting rows of data alone.
	N int64
	// ID is the contact's id.
	ID string
	// Fields is what to change.
	Fields contact.Patch
	// Version counts if Versioned. Only JSON has it.
	Version   int64
	Versioned bool
	// OccurredAt is zero unless given. Only JSON has it.
	OccurredAt time.Time
	// Cells are those of a table as they stand there, in the columns' order;
	// valid until Next is called again. Nil for JSON.
	Cells []string
	// Warnings are doubts about the row that do not keep it from being used.
	Warnings []string
	// Err is why the row is rejected; Fields are then nil. The rows after it are
	// not affected.
	Err error
}

// Reader reads rows. It is not safe for concurrent use.
type Reader interface {
	// Next returns the next row. The error is io.EOF after the last; any other
	// ends the file early, and Next goes on returning it. A rejected row is not
	// an error of Next but has one.
	Next() (Row, error)
	// Report says what was read so far.
	Report() Report
	// Close gives up what the Reader itself holds; the file it leaves open.
	Close() error
}

// Report is what is known of a file.
type Report struct {
	Format     string
	Encoding   string // as read; with a byte order mark or guess it is a name all the same; "" of a workbook
	Guessed    bool   // Encoding is a guess that may be wrong
	Compressed bool
	Delimiter  string // of CSV
	// Sheet is the sheet of a workbook that is read, OtherSheets are those that
	// are not.
	Sheet       string
	OtherSheets []string
	IDColumn    string
	// Columns are the names of all columns, in the file's order; nil for JSON.
	Columns []string
	// Mapping are the columns that are imported, in the file's order.
	Mapping []Column
	// Unmapped are the names of columns that are not, in the file's order.
	Unmapped []string
	// Remarks are the cells that the first row has in columns whose names begin
	// with an underscore, by name; nil for JSON.
	Remarks map[string]string
	// Rows, Rejected and Blank count rows so far; Rejected are among Rows, Blank
	// are not.
	Rows, Rejected, Blank int64
	// Size and SHA256 (hexadecimal) are of the bytes read so far, as they are on
	// disk: after io.EOF, of the file. Of a workbook they are the whole file's, and
	// SHA256 is empty until io.EOF.
	Size   int64
	SHA256 string
}

// Column is a column that is imported.
type Column struct {
	Name  string // as the file has it
	Field string
}

// source reads rows of one format. Its rows carry no number yet.
type source interface {
	next() (Row, error)
	report(*Report)
}

// Open looks at the beginning of r, finds out what it is and gets ready to read
// its rows. It reads ahead as far as the first row, so that a file without any is
// an error here (wrapping [ErrNoRows]), as is one that cannot be read at all.
//
// A workbook is read from its end: r should be a file. Of what can be read only
// from its beginning to its end, a copy is kept on disk until Close.
func Open(r io.Reader, o Options) (Reader, error) {
	if err := o.check(); err != nil {
		return nil, err
	}
	begin := bufio.NewReader(r)
	head, err := peek(begin, len(zipMagic))
	if err != nil {
		return nil, err
	}
	f := &file{}
	if string(head) == zipMagic {
		err = f.openWorkbook(r, begin, o)
	} else {
		err = f.openText(begin, o)
	}
	if err == nil {
		err = f.first()
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

func (f *file) openText(r io.Reader, o Options) error {
	switch {
	case o.Format == FormatXLSX:
		return errors.New("the file is no Excel workbook (.xlsx)")
	case o.Sheet != "":
		return fmt.Errorf("a sheet %s is asked for, but the file is no Excel workbook (.xlsx)", quote(o.Sheet))
	}
	in, err := openInput(r, o.Encoding)
	if err != nil {
		return err
	}
	f.in = in
	switch o.Format {
	case "", FormatAuto:
		o.Format, err = detectFormat(in.text)
	}
	if err == nil && o.Format == FormatNDJSON {
		f.rows, err = openNDJSON(in.text, o)
	} else if err == nil {
		f.rows, err = openCSV(in.text, o)
	}
	f.format = o.Format
	return err
}

func (f *file) openWorkbook(r, begin io.Reader, o Options) error {
	if o.Format == FormatCSV || o.Format == FormatNDJSON {
		return fmt.Errorf("the file is not %s, but an Excel workbook or another ZIP archive", o.Format)
	}
	if o.Encoding != "" && o.Encoding != "auto" || o.Delimiter != "" && o.Delimiter != "auto" {
		return errors.New("the file is an Excel workbook or another ZIP archive, which has no encoding and no delimiter to be told")
	}
	b, err := openWorkbook(r, begin)
	if err != nil {
		return err
	}
	f.in, f.book, f.format = b, b, FormatXLSX
	f.rows, err = openSheet(b, o)
	return err
}

// first reads the first row.
func (f *file) first() error {
	f.ahead, f.err = f.rows.next()
	if errors.Is(f.err, io.EOF) {
		return fmt.Errorf("%w: the file has a header, but nothing below it", ErrNoRows)
	}
	return f.err
}

func (o Options) check() error {
	switch o.Format {
	case "", FormatAuto, FormatCSV, FormatNDJSON, FormatXLSX:
	default:
		return fmt.Errorf("format %q is not known; use auto, csv, ndjson or xlsx", o.Format)
	}
	switch o.Empty {
	case "", EmptyIgnore, EmptyClear:
	default:
		return fmt.Errorf("%q is not a meaning of empty cells; use ignore or clear", o.Empty)
	}
	return nil
}

// origin says of a file what its rows do not.
type origin interface{ describe(*Report) }

// file counts the rows of a source.
type file struct {
	in     origin
	book   *workbook // nil of any other file
	format string
	rows   source
	ahead  Row // read by Open
	err    error
	n, bad int64
}

func (f *file) Next() (Row, error) {
	if f.err != nil {
		return Row{}, f.err
	}
	row := f.ahead
	if f.n > 0 {
		if row, f.err = f.rows.next(); f.err != nil {
			return Row{}, f.err
		}
	}
	f.n++
	row.N = f.n
	if row.Err != nil {
		f.bad++
		row.Fields = nil
	}
	f.ahead = Row{}
	return row, nil
}

func (f *file) Report() Report {
	r := Report{Format: f.format, Rows: f.n, Rejected: f.bad}
	f.in.describe(&r)
	f.rows.report(&r)
	return r
}

func (f *file) Close() error {
	if f.book == nil {
		return nil
	}
	return f.book.close()
}

// detectFormat tells JSON from CSV by the first character that is not blank.
func detectFormat(text *bufio.Reader) (string, error) {
	for n := 1; n <= MaxRecord; n++ {
		b, err := text.Peek(n)
		if len(b) < n {
			if err == nil || errors.Is(err, io.EOF) {
				err = fmt.Errorf("%w: the file is empty", ErrNoRows)
			}
			return "", err
		}
		switch b[n-1] {
		case ' ', '\t', '\r', '\n':
		case '{':
			return FormatNDJSON, nil
		case '[':
			return "", errors.New("the file is a JSON array; write one object a line, as jq -c '.[]' does")
		default:
			return FormatCSV, nil
		}
	}
	return "", errors.New("the file begins with nothing but blanks")
}
