package ingest

import (
	"archive/zip"
	"bufio"
	"errors"
	"fmt"
	"io"
	"strings"
	"unicode/utf16"
	"unicode/utf8"
)

// What a sheet holds at most, so that spreadsheets open it.
const (
	maxSheetRows = 1 << 20
	maxSheetCell = 32_767 // UTF-16 code units
)

// ErrSheetFull says that a workbook cannot hold what is to be written.
var ErrSheetFull = errors.New("no Excel workbook holds that; write CSV")

// WorkbookWriter writes a workbook with one sheet, row by row, in constant memory.
// Every cell is text, and formatted as text, so that nothing becomes a number, a
// date or a formula, even where somebody types into it. It is not safe for
// concurrent use.
type WorkbookWriter struct {
	zip  *zip.Writer
	out  *bufio.Writer // the sheet
	rows int
}

// NewWorkbookWriter begins a workbook on w; sheet is the name of its sheet.
func NewWorkbookWriter(w io.Writer, sheet string) (*WorkbookWriter, error) {
	const (
		head   = `<?xml version="1.0" encoding="UTF-8" standalone="yes"?>` + "\n"
		office = "http://schemas.openxmlformats.org/officeDocument/2006/relationships"
		main   = "http://schemas.openxmlformats.org/spreadsheetml/2006/main"
		kind   = "application/vnd.openxmlformats-officedocument.spreadsheetml."
		rel    = "http://schemas.openxmlformats.org/package/2006/relationships"
	)
	x := &WorkbookWriter{zip: zip.NewWriter(w)}
	for _, p := range []struct{ name, text string }{
		{"[Content_Types].xml", `<Types xmlns="http://schemas.openxmlformats.org/package/2006/content-types">` +
			`<Default Extension="rels" ContentType="application/vnd.openxmlformats-package.relationships+xml"/>` +
			`<Override PartName="/xl/workbook.xml" ContentType="` + kind + `sheet.main+xml"/>` +
			`<Override PartName="/xl/worksheets/sheet1.xml" ContentType="` + kind + `worksheet+xml"/>` +
			`<Override PartName="/xl/styles.xml" ContentType="` + kind + `styles+xml"/></Types>`},
		{"_rels/.rels", `<Relationships xmlns="` + rel + `"><Relationship Id="rId1" Type="` + office + `/officeDocument" Target="xl/workbook.xml"/></Relationships>`},
		{"xl/workbook.xml", `<workbook xmlns="` + main + `" xmlns:r="` + office + `"><sheets><sheet name="` + xmlEscape(sheet) + `" sheetId="1" r:id="rId1"/></sheets></workbook>`},
		{"xl/_rels/workbook.xml.rels", `<Relationships xmlns="` + rel + `"><Relationship Id="rId1" Type="` + office + `/worksheet" Target="worksheets/sheet1.xml"/>` +
			`<Relationship Id="rId2" Type="` + office + `/styles" Target="styles.xml"/></Relationships>`},
		{"xl/styles.xml", `<styleSheet xmlns="` + main + `"><fonts count="1"><font/></fonts><fills count="2"><fill><patternFill patternType="none"/></fill><fill><patternFill patternType="gray125"/></fill></fills>` +
			`<borders count="1"><border/></borders><cellStyleXfs count="1"><xf/></cellStyleXfs><cellXfs count="2"><xf/><xf numFmtId="49" applyNumberFormat="1"/></cellXfs><cellStyles count="1"><cellStyle name="Normal" xfId="0" builtinId="0"/></cellStyles></styleSheet>`},
	} {
		f, err := x.zip.Create(p.name)
		if err == nil {
			_, err = io.WriteString(f, head+p.text)
		}
		if err != nil {
			return nil, err
		}
	}
	f, err := x.zip.Create("xl/worksheets/sheet1.xml")
	if err != nil {
		return nil, err
	}
	x.out = bufio.NewWriter(f)
	// Columns are formatted as a whole, for rows that somebody adds.
	_, err = x.out.WriteString(head + `<worksheet xmlns="` + main + `"><cols><col min="1" max="16384" width="16" style="1"/></cols><sheetData>`)
	return x, err
}

// Write writes one row; the error wraps [ErrSheetFull] where a sheet has no
// room for it.
func (x *WorkbookWriter) Write(cells []string) error {
	x.rows++
	if x.rows > maxSheetRows {
		return fmt.Errorf("more than %d rows: %w", maxSheetRows, ErrSheetFull)
	}
	fmt.Fprintf(x.out, `<row r="%d">`, x.rows)
	for i, c := range cells {
		if len(c) > maxSheetCell && len(utf16.Encode([]rune(c))) > maxSheetCell {
			return fmt.Errorf("row %d: a cell of more than %d characters: %w", x.rows, maxSheetCell, ErrSheetFull)
		}
		if c == "" {
			continue
		}
		fmt.Fprintf(x.out, `<c r="%s%d" s="1" t="inlineStr"><is><t xml:space="preserve">%s</t></is></c>`, columnName(i), x.rows, xmlEscape(c))
	}
	_, err := x.out.WriteString("</row>")
	return err
}

// Close ends the workbook; it does not close what it was written to.
func (x *WorkbookWriter) Close() error {
	_, err := x.out.WriteString("</sheetData></worksheet>")
	return errors.Join(err, x.out.Flush(), x.zip.Close())
}

// columnName is A for 0, AA for 26.
func columnName(i int) string {
	name := ""
	for i++; i > 0; i = (i - 1) / 26 {
		name = string(rune('A'+(i-1)%26)) + name
	}
	return name
}

// xmlEscape is a text in XML; what XML cannot hold, and what reads as if it stood
// for that, becomes what [unescape] undoes.
func xmlEscape(s string) string {
	var b strings.Builder
	for i, c := range s {
		switch {
		case c == '&':
			b.WriteString("&amp;")
		case c == '<':
			b.WriteString("&lt;")
		case c == '>':
			b.WriteString("&gt;")
		case c == '"':
			b.WriteString("&quot;")
		case c == '\n' || c == '\t':
			b.WriteRune(c)
		case c < 0x20 || c == 0xfffe || c == 0xffff:
			fmt.Fprintf(&b, "_x%04X_", c)
		case c == '_' && len(s) >= i+7 && s[i+1] == 'x' && s[i+6] == '_':
			b.WriteString("_x005F_")
		case c == utf8.RuneError: // a byte that is no text too
			b.WriteString("\ufffd")
		default:
			b.WriteRune(c)
		}
	}
	return b.String()
}
