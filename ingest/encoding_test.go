package ingest

import (
	"bytes"
	"compress/gzip"
	"io"
	"runtime"
	"slices"
	"strings"
	"testing"

	"golang.org/x/text/encoding"
	"golang.org/x/text/encoding/charmap"
	"golang.org/x/text/encoding/unicode"
	"pgregory.net/rapid"

	"crmsync/contact"
)

var encodings = map[string]encoding.Encoding{
	"utf-16le":     unicode.UTF16(unicode.LittleEndian, unicode.IgnoreBOM),
	"utf-16be":     unicode.UTF16(unicode.BigEndian, unicode.IgnoreBOM),
	"windows-1252": charmap.Windows1252,
	"iso-8859-1":   charmap.ISO8859_1,
	"iso-8859-15":  charmap.ISO8859_15,
	"utf-8":        encoding.Nop,
}

func encode(t interface{ Fatal(...any) }, name, s string) string {
	b, err := encodings[name].NewEncoder().String(s)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// C32: what a file is encoded in is found out, or said.
func TestEncodings(t *testing.T) {
	const text, want = "id;name\n7;Zoë “Müller”\n8;Ann\n", "1@2 7 {\"name\":\"Zoë “Müller”\"}\n2@3 8 {\"name\":\"Ann\"}\n"
	utf16le, utf16be, win := encode(t, "utf-16le", text), encode(t, "utf-16be", text), encode(t, "windows-1252", text)
	ascii := strings.Repeat("7;x\n", 50_000)
	for _, tc := range []struct {
		name, text, given, want, encoding string
		guessed                           bool
	}{
		{"UTF-8", text, "", want, "utf-8", false},
		{"UTF-8 said", text, "UTF-8", want, "utf-8", false},
		{"UTF-8 with BOM", "\ufeff" + text, "auto", want, "utf-8", false},
		{"UTF-16LE with BOM", "\xff\xfe" + utf16le, "", want, "utf-16le", false},
		{"UTF-16BE with BOM", "\xfe\xff" + utf16be, "", want, "utf-16be", false},
		{"UTF-16LE", utf16le, "", want, "utf-16le", false},
		{"UTF-16BE", utf16be, "", want, "utf-16be", false},
		{"UTF-16 said", "\xfe\xff" + utf16be, "utf-16", want, "utf-16be", false},
		{"Windows-1252", win, "", want, "windows-1252", true},
		{"Windows-1252 said", win, "cp1252", want, "windows-1252", false},
		{"Latin-9", encode(t, "iso-8859-15", "id;p\n7;5 €\n"), "iso-8859-15", "1@2 7 {\"p\":\"5 €\"}\n", "iso-8859-15", false},
		{"Latin-1", encode(t, "iso-8859-1", "id;p\n7;é\n"), "latin1", "1@2 7 {\"p\":\"é\"}\n", "iso-8859-1", false},
		{"said, but the mark says else", "\ufeff" + text, "windows-1252", "open: the encoding is given as windows-1252, but the file is utf-8; leave it to be detected", "", false},
		{"unknown", text, "ebcdic", "open: encoding \"ebcdic\" is not known; use auto, utf-8, utf-16le, utf-16be, windows-1252, iso-8859-1 or iso-8859-15", "", false},
		{"UTF-8, one row not", text + "9;M\xfcller\n", "", want + "3@4 ! column \"name\": is not valid UTF-8, though most of the file is; save the file anew, or name its encoding\n", "utf-8", false},
		{"half a surrogate", "\xff\xfe" + encode(t, "utf-16le", "id;a\n7;") + "\x00\xd8" + encode(t, "utf-16le", "\n"), "", "1@2 ! column \"a\": holds U+FFFD, which stands for a character lost in an earlier conversion\n", "utf-16le", false},
		{"late Windows-1252", "id;name\n" + ascii + "8;M\xfcller\n", "", "50001@50002 8 {\"name\":\"Müller\"}\n", "windows-1252", true},
		{"late UTF-8", "id;name\n" + ascii + "8;Müller\n", "", "50001@50002 8 {\"name\":\"Müller\"}\n", "utf-8", false},
		{"NDJSON in UTF-16", "\xff\xfe" + encode(t, "utf-16le", "{\"id\":1,\"a\":\"ö\"}\n"), "", "1@1 1 {\"a\":\"ö\"}\n", "utf-16le", false},
	} {
		got, rep := read(tc.text, Options{Encoding: tc.given})
		if strings.HasPrefix(tc.name, "late") {
			got = got[strings.LastIndexByte(got[:len(got)-1], '\n')+1:]
		}
		if got != tc.want || rep.Encoding != tc.encoding || rep.Guessed != tc.guessed {
			t.Errorf("%s: %s %v\n got %.300s\nwant %s", tc.name, rep.Encoding, rep.Guessed, got, tc.want)
		}
	}
}

// The window in which the encoding is decided may cut a character in two.
func TestGuessAtTheWindowsEdge(t *testing.T) {
	for pad := range 4 {
		body := "id;name\n7;é" + strings.Repeat("x", pad) + "\n" + strings.Repeat("8;é€😀\n", 10_000)
		got, rep := read(body, Options{})
		if rep.Encoding != "utf-8" || rep.Rejected != 0 || !strings.HasSuffix(got, "{\"name\":\"é€😀\"}\n") {
			t.Errorf("pad %d: %s, %d rejected", pad, rep.Encoding, rep.Rejected)
		}
	}
}

// C41: what is no table is refused with advice.
func TestBinary(t *testing.T) {
	var twice bytes.Buffer
	w := gzip.NewWriter(&twice)
	w2 := gzip.NewWriter(w)
	_, _ = io.WriteString(w2, "id,a\n7,1\n")
	_, _ = w2.Close(), w.Close()
	for text, want := range map[string]string{
		"PK\x03\x04....":                  "looks like an Excel workbook, but was not copied to its end",
		"\xd0\xcf\x11\xe0\xa1\xb1":        "old Excel workbook",
		"%PDF-1.7":                        "PDF",
		"\x89PNG\r\n":                     "picture",
		"<!DOCTYPE html><html>":           "web page",
		"<html>":                          "web page",
		"<?xml version=\"1.0\"?>":         "XML",
		"\xff\xfe\x00\x00i\x00\x00\x00":   "UTF-32",
		"id,a\n7,\x00\n":                  "zero bytes",
		"\x00\x01\x02\x03\x04\x05":        "zero bytes",
		"\ufeffid\x00,a\n":                "zero bytes",
		"\x1f\x8b\x08\x00rubbish here...": "",
		"\x1f\x8bx":                       "looks compressed (gzip), but cannot be unpacked",
		"\x28\xb5\x2f\xfd..":              "zstd",
		twice.String():                    "compressed twice",
	} {
		got, _ := read(text, Options{})
		if !strings.HasPrefix(got, "open: ") || !strings.Contains(got, want) {
			t.Errorf("%.20q: %s", text, got)
		}
	}
	// Names that begin like a picture to those who compare carelessly.
	if got, _ := read("id;\xc4\xdc\xd6\n7;1\n", Options{}); got != "1@2 7 {\"ÄÜÖ\":\"1\"}\n" {
		t.Errorf("umlauts: %s", got)
	}
	if got, _ := read("\xc4\xdc\xd6;id\n1;7\n", Options{}); got != "1@2 7 {\"ÄÜÖ\":\"1\"}\n" {
		t.Errorf("umlauts first: %s", got)
	}
}

func TestGzipBomb(t *testing.T) {
	var z bytes.Buffer
	w, _ := gzip.NewWriterLevel(&z, gzip.BestCompression)
	_, _ = io.WriteString(w, "id,a\n")
	row := "7," + strings.Repeat("1", 16<<10-3) + "\n"
	for range (unpackFree + unpackFree/8) / len(row) {
		_, _ = io.WriteString(w, row)
	}
	_ = w.Close()
	r, err := Open(&z, Options{})
	for err == nil {
		_, err = r.Next()
	}
	if !strings.Contains(err.Error(), "grows more than 200-fold") {
		t.Error(err)
	}
	if n := r.Report().Rows; n < int64(unpackFree/len(row)-64) || n > int64(unpackFree/len(row)+64) {
		t.Errorf("stopped after %d rows", n)
	}
}

// What is written as CSV, in whatever way, is read as it was.
func TestRoundTrip(t *testing.T) {
	names := []string{"utf-16be", "utf-16le", "utf-8", "windows-1252"}
	letters := []rune("aB1 ,;|\t\"'\n=@éÜß€“")
	cell := rapid.StringOfN(rapid.SampledFrom(letters), 0, 12, -1)
	rapid.Check(t, func(t *rapid.T) {
		name := rapid.SampledFrom(names).Draw(t, "encoding")
		delim := rapid.SampledFrom([]string{",", ";", "\t", "|"}).Draw(t, "delimiter")
		newline := rapid.SampledFrom([]string{"\n", "\r\n", "\r"}).Draw(t, "newline")
		mark := rapid.Bool().Draw(t, "mark") || strings.HasPrefix(name, "utf-16")
		rows := rapid.SliceOfN(rapid.SliceOfN(cell, 3, 3), 1, 8).Draw(t, "rows")
		var b strings.Builder
		write := func(cells []string) {
			for i, c := range cells {
				if i > 0 {
					b.WriteString(delim)
				}
				if strings.ContainsAny(c, "\"\n ,;|\t") || rapid.Bool().Draw(t, "quoted") {
					c = `"` + strings.ReplaceAll(strings.ReplaceAll(c, `"`, `""`), "\n", newline) + `"`
				}
				b.WriteString(c)
			}
			b.WriteString(newline)
		}
		write([]string{"id", "a", "b", "c"})
		var want, lines []string
		line := 2
		for _, cells := range rows {
			write(append([]string{"x"}, cells...))
			want = append(want, strings.Join(cells, "\x1f"))
			lines = append(lines, string(rune(line)))
			line += 1 + strings.Count(strings.Join(cells, ""), "\n")
		}
		text := encode(t, name, b.String())
		if mark {
			text = map[string]string{"utf-8": "\ufeff", "utf-16le": "\xff\xfe", "utf-16be": "\xfe\xff"}[name] + text
		}
		// A guess can only be right where there is something to go by.
		given := "auto"
		if name == "windows-1252" {
			given = name
		}
		r, err := Open(strings.NewReader(text), Options{Encoding: given, Empty: EmptyClear})
		if err != nil {
			t.Fatalf("%q: %v", text, err)
		}
		var got, at []string
		for {
			row, err := r.Next()
			if err == io.EOF {
				break
			}
			if err != nil || row.Err != nil || row.ID != "x" {
				t.Fatalf("%q: %+v, %v", text, row, err)
			}
			var cells []string
			for i, f := range []string{"a", "b", "c"} {
				v, _ := row.Fields.Get(f)
				if string(v) == "null" && strings.TrimSpace(rows[len(got)][i]) == "" {
					cells = append(cells, rows[len(got)][i])
				} else {
					cells = append(cells, string(v))
				}
			}
			for i, c := range cells {
				if c != rows[len(got)][i] && c != string(contact.JSONString(rows[len(got)][i])) {
					t.Fatalf("%q: row %d cell %d is %s, not %q", text, len(got)+1, i, c, rows[len(got)][i])
				}
			}
			got = append(got, want[len(got)])
			at = append(at, string(rune(row.Line)))
		}
		if !slices.Equal(got, want) || !slices.Equal(at, lines) {
			t.Fatalf("%q: %q at %q, not %q at %q", text, got, at, want, lines)
		}
		if rep := r.Report(); rep.Delimiter != delim || rep.Encoding != name {
			t.Fatalf("%q: %+v", text, rep)
		}
	})
}

func FuzzOpen(f *testing.F) {
	for _, s := range []string{
		"id,name\n7,\"a\"\"b\n\"\r\n8\n", "sep=;\nid;a\n7;1\n", "\xff\xfei\x00d\x00,\x00a\x00\n\x007\x00,\x00b\x00", "id\ta\n7\t\xe9\n",
		"{\"id\":1,\"fields\":{\"a\":1}}\n{\"id\":2,\"a.b\":{}}\n", "id,a\n7,\"x", "\x1f\x8b\x08\x00", "id|a|a.b\n1|2|3", "id,4\n4E+11,4E+11\n",
	} {
		f.Add([]byte(s), false, "")
		f.Add([]byte(s), true, "windows-1252")
	}
	f.Fuzz(func(t *testing.T, data []byte, clear bool, enc string) {
		o := Options{Encoding: enc}
		if clear {
			o.Empty = EmptyClear
		}
		r, err := Open(bytes.NewReader(data), o)
		if err != nil {
			return
		}
		line, n := int64(0), int64(0)
		for {
			row, err := r.Next()
			if err != nil {
				if rep := r.Report(); rep.Rows != n || err == io.EOF && !rep.Compressed && rep.Size != int64(len(data)) {
					t.Fatalf("%+v after %d rows, %v", rep, n, err)
				}
				return
			}
			n++
			if row.N != n || row.Line <= line {
				t.Fatalf("row %d at line %d follows line %d", row.N, row.Line, line)
			}
			line = row.Line
			if (row.Err == nil) != (len(row.Fields) > 0) && !(row.Err == nil && row.Versioned) {
				t.Fatalf("%+v", row)
			}
			if row.Err == nil && checkID(row.ID) != nil {
				t.Fatalf("id %q", row.ID)
			}
		}
	})
}

// endless is rows of CSV up to a number of bytes.
type endless struct {
	left int
	row  []byte
	at   int
}

func (e *endless) Read(p []byte) (int, error) {
	if e.left <= 0 {
		return 0, io.EOF
	}
	n := copy(p, e.row[e.at:])
	e.at = (e.at + n) % len(e.row)
	e.left -= n
	return n, nil
}

// C42: memory does not grow with the file.
func TestConstantMemory(t *testing.T) {
	if testing.Short() {
		t.Skip("50 MB take a few seconds")
	}
	heap := func() uint64 {
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	for name, row := range map[string]string{
		"rows":      "7,Robert,robert@example.com,\"12 High Street\nIpswich\"," + strings.Repeat("z", 4000) + "\n",
		"one line":  strings.Repeat("x", 1<<16),
		"bad quote": "7,\"a\"b" + strings.Repeat("z", 4000) + "\n",
	} {
		size := 8 << 20
		if name == "rows" {
			size = 50 << 20
		}
		before, most := heap(), uint64(0)
		r, err := Open(io.MultiReader(strings.NewReader("id,name,email,address,notes\n"), &endless{left: size, row: []byte(row)}), Options{})
		n := 0
		for err == nil {
			if _, err = r.Next(); n%2_000 == 0 {
				most = max(most, heap())
			}
			n++
		}
		most = max(most, heap())
		if err != io.EOF || r.Report().Size < int64(size) {
			t.Errorf("%s: %v", name, err)
		}
		if most > before+4<<20 {
			t.Errorf("%s: the heap grew by %d KiB", name, (most-before)>>10)
		}
	}
}

func BenchmarkCSV(b *testing.B) {
	row := []byte("7,Robert,robert@example.com,\"12 High Street, Ipswich\",0123456\n")
	b.ReportAllocs()
	b.SetBytes(int64(len(row)))
	r, err := Open(io.MultiReader(strings.NewReader("id,name,email,address,phone\n"), &endless{left: (b.N + 1) * len(row), row: row}), Options{})
	for range b.N {
		if err == nil {
			_, err = r.Next()
		}
	}
	if err != nil {
		b.Fatal(err)
	}
}
