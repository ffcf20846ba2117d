package ingest

import (
	"archive/zip"
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"runtime"
	"slices"
	"strings"
	"testing"
)

// parts are those of a workbook, by name.
type parts map[string]string

const (
	openXML = `xmlns="http://schemas.openxmlformats.org/spreadsheetml/2006/main" xmlns:r="http://schemas.openxmlformats.org/officeDocument/2006/relationships"`
	relType = "http://schemas.openxmlformats.org/officeDocument/2006/relationships/"
)

// workbookWith is a workbook as Excel writes it, with one sheet of these rows,
// and parts instead of its own or beside them; one that is "" is left out.
func workbookWith(rows string, with parts) string {
	all := parts{
		"[Content_Types].xml": `<Types/>`,
		"_rels/.rels":         `<Relationships><Relationship Id="rId1" Type="` + relType + `officeDocument" Target="xl/workbook.xml"/></Relationships>`,
		"xl/workbook.xml":     `<?xml version="1.0"?><workbook ` + openXML + `><workbookPr/><sheets><sheet name="Kontakte" sheetId="1" r:id="rId1"/></sheets></workbook>`,
		"xl/_rels/workbook.xml.rels": `<Relationships><Relationship Id="rId1" Type="` + relType + `worksheet" Target="worksheets/sheet1.xml"/>` +
			`<Relationship Id="rId2" Type="` + relType + `sharedStrings" Target="/xl/sharedStrings.xml"/>` +
			`<Relationship Id="rId3" Type="` + relType + `styles" Target="styles.xml"/></Relationships>`,
		"xl/worksheets/sheet1.xml": sheetOf(rows),
		"xl/sharedStrings.xml": `<sst ` + openXML + `><si><t>id</t></si><si><t>a</t></si><si><t xml:space="preserve"> Jörg &amp; Co </t></si>` +
			`<si><r><rPr><b/></rPr><t>Mül</t></r><r><t>ler</t></r><rPh sb="0" eb="1"><t>aside</t></rPh></si><si><t>a_x000D_` + "\n" + `b_x005F_x000D_c</t></si><si><t>b</t></si></sst>`,
		"xl/styles.xml": `<styleSheet ` + openXML + `><numFmts count="9"><numFmt numFmtId="164" formatCode="00000"/><numFmt numFmtId="165" formatCode="yyyy\-mm\-dd\ hh:mm"/>` +
			`<numFmt numFmtId="166" formatCode="&quot;+&quot;00\ 00\ 0##"/><numFmt numFmtId="167" formatCode="[Red]0.00&quot;days&quot;"/>` +
			`<numFmt numFmtId="168" formatCode="[h]:mm:ss"/><numFmt numFmtId="169" formatCode="\(0\)000;\-0"/><numFmt numFmtId="170" formatCode="General"/>` +
			`</numFmts><cellStyleXfs><xf numFmtId="14"/></cellStyleXfs><cellXfs><xf numFmtId="0"/><xf numFmtId="14"/><xf numFmtId="164"/><xf numFmtId="165"/><xf numFmtId="166"/>` +
			`<xf numFmtId="167"/><xf numFmtId="168"/><xf numFmtId="169"/><xf numFmtId="170"/><xf numFmtId="21"/><xf numFmtId="49"/><xf numFmtId="10"/></cellXfs>` +
			`<cellStyles/><dxfs><xf numFmtId="14"/></dxfs></styleSheet>`,
	}
	for name, text := range with {
		all[name] = text
	}
	return zipped(all)
}

func zipped(all parts) string {
	var b bytes.Buffer
	z := zip.NewWriter(&b)
	for name, text := range all {
		if text == "" {
			continue
		}
		w, err := z.Create(name)
		if err == nil {
			_, err = io.WriteString(w, text)
		}
		if err != nil {
			panic(err)
		}
	}
	if err := z.Close(); err != nil {
		panic(err)
	}
	return b.String()
}

func sheetOf(rows string) string {
	return `<?xml version="1.0" encoding="UTF-8" standalone="yes"?><worksheet ` + openXML + `><dimension ref="A1"/><sheetData>` + rows + `</sheetData><pageMargins left="0.7"/></worksheet>`
}

const headerRow = `<row r="1"><c r="A1" t="s"><v>0</v></c><c r="B1" t="s"><v>1</v></c></row>`

// What a cell of a workbook becomes: what a person sees in it.
func TestCells(t *testing.T) {
	for _, tc := range []struct{ name, cell, want string }{
		{"shared text", `<c r="B2" t="s"><v>2</v></c>`, `" Jörg & Co "`},
		{"rich text, and a reading aid", `<c r="B2" t="s"><v>3</v></c>`, `"Müller"`},
		{"line ends and what looks like one", `<c r="B2" t="s"><v>4</v></c>`, `"a\nb_x000D_c"`},
		{"no such text", `<c r="B2" t="s"><v>99</v></c>`, `! column "a": names a text that the workbook does not have; the file is damaged`},
		{"no text", `<c r="B2" t="s"><v>x</v></c>`, `! column "a": names a text that the workbook does not have; the file is damaged`},
		{"inline text", `<c r="B2" t="inlineStr"><is><t>Ann</t></is></c>`, `"Ann"`},
		{"inline rich text", `<c r="B2" t="inlineStr"><is><r><t>An</t></r><r><t>n</t></r></is></c>`, `"Ann"`},
		{"result of a formula", `<c r="B2" t="str"><f>A1&amp;"x"</f><v>idx</v></c>`, `"idx"`},
		{"number of a formula", `<c r="B2"><f>1+1</f><v>2</v></c>`, `"2"`},
		{"formula without a result", `<c r="B2"><f>1+1</f></c>`, `! column "a": holds a formula whose result is not stored; open the workbook in a spreadsheet and save it`},
		{"error", `<c r="B2" t="e"><f>1/0</f><v>#DIV/0!</v></c>`, `! column "a": holds an error where a formula has no result, such as #N/A`},
		{"yes", `<c r="B2" t="b"><v>1</v></c>`, `"true"`},
		{"no", `<c r="B2" t="b"><v>0</v></c>`, `"false"`},
		{"number", `<c r="B2"><v>37</v></c>`, `"37"`},
		{"whole number with a point", `<c r="B2" t="n"><v>37.0</v></c>`, `"37"`},
		{"phone", `<c r="B2"><v>4.42071234567E+11</v></c>`, `"442071234567"`},
		{"phone in a format", `<c r="B2" s="4"><v>4930123</v></c>`, `"+49 30 123"`},
		{"longer than its format", `<c r="B2" s="4"><v>4930123456789</v></c>`, `"+49301234 56 789"`},
		{"shorter than its format", `<c r="B2" s="4"><v>5</v></c>`, `"+00 00 05"`},
		{"two sections", `<c r="B2" s="7"><v>30123</v></c>`, `"(30)123"`},
		{"negative in a format", `<c r="B2" s="7"><v>-3</v></c>`, `"-3"`},
		{"postal code", `<c r="B2" s="2"><v>1067</v></c>`, `"01067"`},
		{"nothing in a format", `<c r="B2" s="2"><v>0</v></c>`, `"00000"`},
		{"too long", `<c r="B2"><v>4.42071234567891E+17</v></c>`, `"442071234567891000" ~ column "a" is a number of more than 15 digits, of which a spreadsheet keeps 15; format the column as text`},
		{"too long, in full", `<c r="B2"><v>442071234567891234</v></c>`, `"442071234567891234" ~ column "a" is a number of more than 15 digits, of which a spreadsheet keeps 15; format the column as text`},
		{"fraction", `<c r="B2"><v>0.10000000000000001</v></c>`, `"0.1"`},
		{"sum", `<c r="B2"><v>0.30000000000000004</v></c>`, `"0.3"`},
		{"small", `<c r="B2"><v>1.5E-7</v></c>`, `"0.00000015"`},
		{"negative", `<c r="B2"><v>-12.50</v></c>`, `"-12.5"`},
		{"percent", `<c r="B2" s="11"><v>0.5</v></c>`, `"0.5"`},
		{"text format", `<c r="B2" s="10"><v>37</v></c>`, `"37"`},
		{"colour and a quoted word are no date", `<c r="B2" s="5"><v>3.5</v></c>`, `"3.5"`},
		{"general, spelled out", `<c r="B2" s="8"><v>3.5</v></c>`, `"3.5"`},
		{"unknown style", `<c r="B2" s="4711"><v>3</v></c>`, `"3"`},
		{"date", `<c r="B2" s="1"><v>46347</v></c>`, `"2026-11-21"`},
		{"date and time", `<c r="B2" s="3"><v>46347.795138888891</v></c>`, `"2026-11-21 19:05:00"`},
		{"time", `<c r="B2" s="9"><v>0.795138888888889</v></c>`, `"19:05:00"`},
		{"hours", `<c r="B2" s="6"><v>1.5</v></c>`, `"36:00:00"`},
		{"early date", `<c r="B2" s="1"><v>1</v></c>`, `"1900-01-01"`},
		{"no date", `<c r="B2" s="1"><v>-1</v></c>`, `"-1"`},
		{"date as text", `<c r="B2" t="d"><v>2026-11-21T00:00:00</v></c>`, `"2026-11-21"`},
		{"no number", `<c r="B2"><v>twelve</v></c>`, `! column "a": holds a number that cannot be read`},
		{"no finite number", `<c r="B2"><v>NaN</v></c>`, `! column "a": holds a number that cannot be read`},
		{"hexadecimal", `<c r="B2"><v>0x10</v></c>`, `! column "a": holds a number that cannot be read`},
		{"control character", `<c r="B2" t="inlineStr"><is><t>a_x0007_b</t></is></c>`, `! column "a": holds a control character (U+0007)`},
		{"empty", `<c r="B2" s="1"/>`, `! the row changes nothing: no mapped column has a value`},
		{"elsewhere", `<c r="D2"><v>1</v></c>`, `! the row has 4 cells, but the header has 2 columns`},
		{"no place", `<c><v>1</v></c>`, `"1"`},
		{"far away", `<c r="XFD2"><v>1</v></c>`, `! more than 1024 cells`},
		{"twice", `<c r="B2"><v>1</v></c><c r="B2"><v>2</v></c>`, `! cells out of their order; the file is damaged`},
		{"large", `<c r="B2" t="inlineStr"><is><t>` + strings.Repeat("x", MaxCell+1) + `</t></is></c>`, `! a cell of more than 64 KiB`},
		{"things of later versions", `<c r="B2"><v>1</v><extLst><ext><v>2</v></ext></extLst></c>`, `"1"`},
	} {
		got, _ := read(workbookWith(headerRow+`<row r="2"><c r="A2"><v>7</v></c>`+tc.cell+`</row>`, nil), Options{})
		want := `1@2 7 {"a":` + tc.want + "}\n"
		if text, doubt, ok := strings.Cut(tc.want, " ~ "); ok {
			want = `1@2 7 {"a":` + text + "} ~ " + doubt + "\n"
		}
		if strings.HasPrefix(tc.want, "! ") {
			want = "1@2 " + tc.want + "\n"
		}
		if got != want {
			t.Errorf("%s:\n got %s\nwant %s", tc.name, got, want)
		}
	}
}

// Which sheet of which file is read, and what is no such file.
func TestWorkbook(t *testing.T) {
	row := func(n int, id, a string) string {
		return fmt.Sprintf(`<row r="%d"><c r="A%d" t="inlineStr"><is><t>%s</t></is></c><c r="B%d"><v>%s</v></c></row>`, n, n, id, n, a)
	}
	one := headerRow + row(2, "7", "1")
	several := parts{
		"xl/workbook.xml": `<x:workbook xmlns:x="urn:x" xmlns:r="urn:r"><x:workbookPr date1904="1"/><x:sheets><x:sheet name="Chart" r:id="c"/><x:sheet name="Notes" state="hidden" r:id="h"/>` +
			`<x:sheet name="Kontakte" r:id="rId1"/><x:sheet name="Other One" r:id="o"/></x:sheets></x:workbook>`,
		"xl/_rels/workbook.xml.rels": `<Relationships><Relationship Id="c" Type="` + relType + `chartsheet" Target="chart.xml"/><Relationship Id="h" Type="` + relType + `worksheet" Target="worksheets\hidden.xml"/>` +
			`<Relationship Id="rId1" Type="` + relType + `worksheet" Target="worksheets/Sheet1.xml"/><Relationship Id="o" Type="` + relType + `worksheet" Target="/xl/worksheets/other.xml"/>` +
			`<Relationship Id="s" Type="` + relType + `sharedStrings" Target="sharedStrings.xml"/><Relationship Id="y" Type="` + relType + `styles" Target="styles.xml"/></Relationships>`,
		"xl/worksheets/hidden.xml": sheetOf(headerRow + row(2, "8", "2")),
		"xl/worksheets/other.xml":  sheetOf(headerRow + `<row r="2"><c r="A2"><v>9</v></c><c r="B2" s="1"><v>44885</v></c></row>`),
	}
	for _, tc := range []struct {
		name, text string
		o          Options
		want       string
	}{
		{"plain", workbookWith(one, nil), Options{}, "1@2 7 {\"a\":\"1\"}\n"},
		{
			"rows without cells, and between", workbookWith(`<row r="3" spans="1:2"/>`+
				`<row r="4"><c r="A4" t="s"><v>0</v></c><c r="B4" t="s"><v>1</v></c></row>`+row(5, "7", "1")+`<row r="8"><c r="A8" s="1"/></row>`+row(9, "8", "2")+`<row r="20"/>`, nil),
			Options{},
			"1@5 7 {\"a\":\"1\"}\n2@9 8 {\"a\":\"2\"}\n",
		},
		{"no numbers of rows", workbookWith(`<row><c t="s"><v>0</v></c><c t="s"><v>1</v></c></row><row><c><v>7</v></c><c><v>1</v></c></row>`, nil), Options{}, "1@2 7 {\"a\":\"1\"}\n"},
		{"short row", workbookWith(headerRow[:len(headerRow)-6]+`<c r="C1" t="s"><v>5</v></c></row>`+row(2, "7", "1"), nil), Options{Empty: EmptyClear}, "1@2 7 {\"a\":\"1\",\"b\":null}\n"},
		{
			"nothing but texts", workbookWith(headerRow+row(2, "x", "1"), parts{"xl/styles.xml": "", "xl/_rels/workbook.xml.rels": `<Relationships><Relationship Id="rId1" Type="` + relType + `worksheet" Target="worksheets/sheet1.xml"/><Relationship Id="s" Type="` + relType + `sharedStrings" Target="sharedStrings.xml"/></Relationships>`}),
			Options{},
			"1@2 x {\"a\":\"1\"}\n",
		},
		{"first that is seen", workbookWith(one, several), Options{}, "1@2 7 {\"a\":\"1\"}\n"},
		{"hidden, by name", workbookWith(one, several), Options{Sheet: "notes"}, "1@2 8 {\"a\":\"2\"}\n"},
		{"by name, days from 1904", workbookWith(one, several), Options{Sheet: "Other One "}, "1@2 9 {\"a\":\"2026-11-21\"}\n"},
		{"no such sheet", workbookWith(one, several), Options{Sheet: "Chart"}, `open: the workbook has no sheet "Chart"; its sheets are "Notes", "Kontakte", "Other One"`},
		{"not a table", workbookWith(row(1, "x", "1")+row(2, "y", "1"), several), Options{}, `open: sheet "Kontakte": line 1: no column is the contact's id (id or contact id); the columns are "x", "1"; name the one it is, and see that the header is the first row; the sheets are "Notes", "Kontakte", "Other One", and another can be named`},
		{"no rows", workbookWith(headerRow, nil), Options{}, "open: no rows: the file has a header, but nothing below it"},
		{"nothing", workbookWith("", nil), Options{}, `open: sheet "Kontakte": no rows: the file is empty`},
		{"csv wanted", workbookWith(one, nil), Options{Format: FormatCSV}, "open: the file is not csv, but an Excel workbook or another ZIP archive"},
		{"workbook wanted", "id,a\n7,1\n", Options{Format: FormatXLSX}, "open: the file is no Excel workbook (.xlsx)"},
		{"encoding", workbookWith(one, nil), Options{Encoding: "utf-8"}, "open: the file is an Excel workbook or another ZIP archive, which has no encoding and no delimiter to be told"},
		{"sheet of no workbook", "id,a\n7,1\n", Options{Sheet: "x"}, `open: a sheet "x" is asked for, but the file is no Excel workbook (.xlsx)`},
		{
			"error in the id", workbookWith(headerRow+`<row r="2"><c r="A2" t="e"><v>#N/A</v></c><c r="B2"><v>1</v></c></row>`+row(3, "8", "2"), nil),
			Options{},
			"1@2 ! column \"id\": holds an error where a formula has no result, such as #N/A\n2@3 8 {\"a\":\"2\"}\n",
		},
		{"export of a former import", workbookWith(strings.Replace(headerRow, "</row>", `<c r="C1" t="inlineStr"><is><t>_row</t></is></c><c r="D1" t="inlineStr"><is><t>_reason</t></is></c></row>`, 1)+
			`<row r="2"><c r="A2"><v>7</v></c><c r="B2" t="inlineStr"><is><t>'=x</t></is></c></row>`, nil), Options{}, "1@2 7 {\"a\":\"=x\"}\n"},
		{"damaged row", workbookWith(headerRow+`<row r="2"><c r="A2"><v>7</v></row>`, nil), Options{}, `open: behind line 2 of the sheet: the workbook is damaged: part "xl/worksheets/sheet1.xml": XML syntax error on line 1: element <c> closed by </row>`},
		{
			"ends early", workbookWith("", parts{"xl/worksheets/sheet1.xml": strings.Split(sheetOf(one+row(3, "8", "2")), `<row r="3"`)[0]}),
			Options{},
			"1@2 7 {\"a\":\"1\"}\nend: behind line 2 of the sheet: the workbook is damaged: part \"xl/worksheets/sheet1.xml\": XML syntax error on line 1: unexpected EOF\n",
		},
		{"rows out of order", workbookWith(one+row(2, "8", "2"), nil), Options{}, "1@2 7 {\"a\":\"1\"}\nend: behind line 2 of the sheet: the workbook is damaged: a row with the number \"2\"\n"},
		{"no sheet part", workbookWith("", parts{"xl/worksheets/sheet1.xml": ""}), Options{}, `open: sheet "Kontakte": the workbook is damaged: it has no part "xl/worksheets/sheet1.xml"`},
		{"no workbook part", workbookWith("", parts{"xl/workbook.xml": ""}), Options{}, `open: the workbook is damaged: it has no part "xl/workbook.xml"`},
		{"cell without end", workbookWith(headerRow+`<row r="2"><c r="A2" t="inlineStr"><is><t>`+strings.Repeat("x", 3<<20)+`</t></is></c></row>`, nil), Options{}, "open: behind line 2 of the sheet: a piece of more than 1024 KiB, which no cell can be"},
		{
			"entities", workbookWith("", parts{"xl/worksheets/sheet1.xml": `<!DOCTYPE x [<!ENTITY a "aaaa">]>` + sheetOf(headerRow+`<row r="2"><c r="A2"><v>7</v></c><c r="B2" t="str"><v>&a;</v></c></row>`)}),
			Options{},
			`open: behind line 2 of the sheet: the workbook is damaged: part "xl/worksheets/sheet1.xml": XML syntax error on line 1: invalid character entity &a;`,
		},
		{"part of a file", workbookWith(one, nil)[:900], Options{}, "open: the file looks like an Excel workbook, but was not copied to its end"},
		{"binary workbook", zipped(parts{"xl/workbook.bin": "x"}), Options{}, "open: the file is a binary Excel workbook (.xlsb); open it and save it as .xlsx or CSV UTF-8"},
		{"archive", zipped(parts{"contacts.csv": "id,a\n"}), Options{}, `open: the file is a ZIP archive (with "contacts.csv" in it); unpack it first`},
	} {
		if got, _ := read(tc.text, tc.o); got != tc.want {
			t.Errorf("%s:\n got %s\nwant %s", tc.name, got, tc.want)
		}
	}
}

// A workbook tells what it is, and comes through a pipe as well.
func TestWorkbookReport(t *testing.T) {
	text := workbookWith(headerRow+`<row r="2"><c r="A2"><v>7</v></c><c r="B2"><v>1</v></c></row>`, nil)
	for name, r := range map[string]io.Reader{"file": strings.NewReader(text), "pipe": io.MultiReader(strings.NewReader(text[:7]), strings.NewReader(text[7:]))} {
		f, err := Open(r, Options{})
		if err != nil {
			t.Fatal(name, err)
		}
		row, err := f.Next()
		if err != nil || row.ID != "7" || fmt.Sprint(row.Cells) != "[7 1]" {
			t.Errorf("%s: %+v, %v", name, row, err)
		}
		if _, err := f.Next(); err != io.EOF {
			t.Error(name, err)
		}
		rep := f.Report()
		if rep.Format != FormatXLSX || rep.Sheet != "Kontakte" || rep.Encoding != "" || rep.Delimiter != "" || rep.Size != int64(len(text)) || rep.SHA256 != fmt.Sprintf("%x", sha256.Sum256([]byte(text))) {
			t.Errorf("%s: %+v", name, rep)
		}
		if err := f.Close(); err != nil {
			t.Error(name, err)
		}
	}
}

// A workbook that grows beyond reason ends where that shows, in bounded memory.
func TestWorkbookBomb(t *testing.T) {
	if testing.Short() || raced {
		t.Skip("reads many megabytes of XML, byte by byte")
	}
	t.Parallel()
	blank := strings.Repeat(" ", 1<<20)
	for name, tc := range map[string]struct {
		part  string
		piece string
		head  string
		want  string
	}{
		"sheet": {"xl/worksheets/sheet1.xml", "<x></x>" + blank[:1000], `<worksheet><sheetData>`, "-fold when it is unpacked"},
		"texts": {"xl/sharedStrings.xml", "<si><t>" + blank[:500] + "</t></si>", `<sst>`, "-fold when it is unpacked"},
	} {
		var b bytes.Buffer
		z := zip.NewWriter(&b)
		have := workbookWith(headerRow, parts{tc.part: ""})
		old, err := zip.NewReader(strings.NewReader(have), int64(len(have)))
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range old.File {
			if err := z.Copy(f); err != nil {
				t.Fatal(err)
			}
		}
		w, err := z.Create(tc.part)
		if err != nil {
			t.Fatal(err)
		}
		_, _ = io.WriteString(w, tc.head)
		for n := 0; n < 20<<20; n += len(tc.piece) {
			_, _ = io.WriteString(w, tc.piece)
		}
		if err := z.Close(); err != nil {
			t.Fatal(err)
		}
		var before, after runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&before)
		got, _ := read(b.String(), Options{})
		runtime.GC()
		runtime.ReadMemStats(&after)
		if !strings.Contains(got, tc.want) {
			t.Errorf("%s: %s", name, got)
		}
		if after.HeapAlloc > before.HeapAlloc+8<<20 {
			t.Errorf("%s: %d MiB more are in use", name, (after.HeapAlloc-before.HeapAlloc)>>20)
		}
	}
}

// What bounds a part that is unpacked: its ratio, its size, and a piece of it.
func TestBounded(t *testing.T) {
	for _, tc := range []struct {
		b    bounded
		want string
		at   int64
	}{
		{bounded{packed: 1000}, "-fold", unpackFree},
		{bounded{packed: unpackFree}, "", 0},
		{bounded{packed: unpackFree, most: maxPart}, "more than 32 MiB", maxPart},
	} {
		tc.b.r = strings.NewReader(strings.Repeat(" ", maxPart+1<<20))
		var err error
		for buf := make([]byte, 64<<10); err == nil; tc.b.n = 0 {
			_, err = tc.b.Read(buf)
		}
		if tc.want == "" && err != io.EOF || !strings.Contains(err.Error(), tc.want) || tc.at > 0 && (tc.b.total <= tc.at || tc.b.total > tc.at+64<<10) {
			t.Errorf("%d packed, at most %d: %v after %d", tc.b.packed, tc.b.most, err, tc.b.total)
		}
	}
	b := bounded{r: strings.NewReader(strings.Repeat(" ", 2*maxToken)), packed: maxToken}
	if n, err := io.Copy(io.Discard, &b); err == nil || n > maxToken || b.err == nil {
		t.Errorf("%d bytes of one piece, %v", n, err)
	}
}

// A workbook that was written is read again as it was.
func TestWorkbookWriter(t *testing.T) {
	var b bytes.Buffer
	x, err := NewWorkbookWriter(&b, `a "b" <c> & d`)
	if err != nil {
		t.Fatal(err)
	}
	long := strings.Repeat("ü", maxSheetCell)
	want := [][]string{{"id", "a", "", "z"}, {"007", "=1+1", "", "  x\ty\n"}, {"1E5", "_x0041_ <&>\"'", "a\u0007b", long}, {"9", "\u0007", "_x", "_x005F_"}}
	want[0] = append(want[0], make([]string, 26)...)
	want[0][29] = "AD"
	for _, cells := range want {
		if err := x.Write(cells); err != nil {
			t.Fatal(err)
		}
	}
	if err := x.Write([]string{long + "x"}); !errors.Is(err, ErrSheetFull) {
		t.Error(err)
	}
	if err := x.Close(); err != nil {
		t.Fatal(err)
	}
	f, err := Open(bytes.NewReader(b.Bytes()), Options{})
	if err != nil {
		t.Fatal(err)
	}
	for _, cells := range want[1:] {
		row, err := f.Next()
		if got := row.Cells[:min(4, len(row.Cells))]; err != nil || !slices.Equal(got, cells) {
			t.Errorf("%.80q is read as %.80q, %v", cells, got, err)
		}
	}
	if r := f.Report(); r.Sheet != `a "b" <c> & d` || r.Columns[29] != "AD" {
		t.Errorf("%+v", r)
	}
}

// FuzzSheet reads what may be the rows of a sheet, and a format: whatever they
// are, rows come in order and cells within bounds.
func FuzzSheet(f *testing.F) {
	f.Add(headerRow+`<row r="2"><c r="A2"><v>7</v></c><c r="B2" s="1"><v>46347.5</v></c></row>`, "yyyy", "a_x000D_b")
	f.Add(headerRow+`<row r="2"><c r="A2" t="str"><f>x</f><v>7</v></c><c r="B2" s="1"><v>1E+20</v></c></row>`, `[h]:mm;"x"0\`, "_x")
	f.Add(headerRow+`<row><c><v>7</v></c><c t="inlineStr"><is><r><t>x</t></r></is></c></row><row r="9"/>`, `"+"0#?_-*x`, "_xD800_")
	f.Add(headerRow+`<row r="2"><c r="A2"><v>7</v></c><c r="B2" s="1"><v>123456</v></c></row>`, `#-(0) 0`, "")
	f.Fuzz(func(t *testing.T, rows, format, text string) {
		styles := `<styleSheet><numFmts><numFmt numFmtId="164" formatCode="` + xmlText(format) + `"/></numFmts><cellXfs><xf numFmtId="0"/><xf numFmtId="164"/></cellXfs></styleSheet>`
		shared := `<sst><si><t>id</t></si><si><t>a</t></si><si><t>` + xmlText(text) + `</t></si></sst>`
		r, err := Open(strings.NewReader(workbookWith(rows, parts{"xl/styles.xml": styles, "xl/sharedStrings.xml": shared})), Options{})
		if err != nil {
			return
		}
		line := int64(0)
		for {
			row, err := r.Next()
			if err != nil {
				return
			}
			if row.Line <= line || len(row.Cells) > MaxColumns || row.Err == nil && row.ID == "" {
				t.Fatalf("%+v behind line %d", row, line)
			}
			line = row.Line
		}
	})
}

func xmlText(s string) string {
	return strings.NewReplacer("&", "&amp;", "<", "&lt;", `"`, "&quot;").Replace(strings.ToValidUTF8(s, ""))
}

// BenchmarkSheet reads a workbook of 20,000 rows.
func BenchmarkSheet(b *testing.B) {
	var rows strings.Builder
	rows.WriteString(headerRow)
	const n = 20_000
	for i := 2; i < n+2; i++ {
		fmt.Fprintf(&rows, `<row r="%d" spans="1:3"><c r="A%d"><v>%d</v></c><c r="B%d" s="4"><v>%d</v></c><c r="C%d" t="s"><v>2</v></c></row>`, i, i, i, i, 4930000000+i, i)
	}
	text := workbookWith(strings.Replace(rows.String(), "</row>", `<c r="C1" t="s"><v>5</v></c></row>`, 1), nil)
	b.ReportAllocs()
	for b.Loop() {
		if _, rep := read(text, Options{}); rep.Rows != n || rep.Rejected > 0 {
			b.Fatalf("%+v", rep)
		}
	}
	b.ReportMetric(float64(n)*float64(b.N)/b.Elapsed().Seconds(), "rows/s")
}
