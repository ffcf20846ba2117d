package ingest

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"strings"
	"unicode/utf8"

	"golang.org/x/text/encoding"
	"golang.org/x/text/encoding/charmap"
	"golang.org/x/text/encoding/unicode"
	"golang.org/x/text/transform"
)

// Names of encodings in a Report.
const (
	utf8Name    = "utf-8"
	utf16leName = "utf-16le"
	utf16beName = "utf-16be"
	win1252Name = "windows-1252"
)

// input is a file from its raw bytes to text in UTF-8 (or in what claims to be).
type input struct {
	raw        *meter
	compressed bool
	name       string   // of the encoding, if settled
	guess      *guesser // otherwise
	text       *bufio.Reader
}

func (in *input) encoding() string {
	if in.guess != nil {
		return in.guess.name()
	}
	return in.name
}

func (in *input) guessed() bool { return in.guess != nil && in.guess.name() != utf8Name }

func (in *input) describe(r *Report) {
	r.Encoding, r.Guessed, r.Compressed = in.encoding(), in.guessed(), in.compressed
	r.Size, r.SHA256 = in.raw.sum()
}

// sniffed is how much of a file is looked at to tell what it is.
const sniffed = 512

// openInput settles how the bytes of r become text. A file that is no text is an
// error that says what to do instead.
func openInput(r io.Reader, name string) (*input, error) {
	in := &input{raw: &meter{r: r, hash: sha256.New()}}
	raw := bufio.NewReaderSize(in.raw, 64<<10)
	head, err := peek(raw, sniffed)
	if err != nil {
		return nil, err
	}
	if bytes.HasPrefix(head, []byte("\x1f\x8b")) {
		in.compressed = true
		z, err := gzip.NewReader(raw)
		if err != nil {
			return nil, fmt.Errorf("the file looks compressed (gzip), but cannot be unpacked: %w", err)
		}
		raw = bufio.NewReaderSize(&unpacker{z: z, raw: in.raw}, 64<<10)
		if head, err = peek(raw, sniffed); err != nil {
			return nil, err
		}
	}
	if len(head) == 0 {
		return nil, fmt.Errorf("%w: the file is empty", ErrNoRows)
	}
	if err := refuseBinary(head); err != nil {
		return nil, err
	}
	text, err := in.decoder(raw, head, strings.ToLower(name))
	if err != nil {
		return nil, err
	}
	// A reader may be asked for a whole record at once.
	in.text = bufio.NewReaderSize(text, MaxRecord+4096)
	return in, nil
}

// peek is Peek where the end of the file is not an error.
func peek(r *bufio.Reader, n int) ([]byte, error) {
	b, err := r.Peek(n)
	if err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, bufio.ErrBufferFull) {
		return nil, fmt.Errorf("read the file: %w", err)
	}
	return b, nil
}

// decoder returns the text of raw, whose first bytes are head.
func (in *input) decoder(raw *bufio.Reader, head []byte, name string) (io.Reader, error) {
	mark, size := byteOrderMark(head)
	if _, err := raw.Discard(size); err != nil {
		return nil, err
	}
	if mark == "" {
		mark = zeroPattern(head)
	}
	switch name {
	case "", "auto":
		name = mark
	case "utf8":
		name = utf8Name
	case "utf-16", "utf16":
		if name = mark; mark != utf16leName && mark != utf16beName {
			name = utf16leName
		}
	}
	if mark != "" && name != mark {
		return nil, fmt.Errorf("the encoding is given as %s, but the file is %s; leave it to be detected", name, mark)
	}
	in.name = name
	var e encoding.Encoding
	switch name {
	case "":
		in.guess = &guesser{raw: raw}
		return in.guess, nil
	case utf8Name:
		return raw, nil
	case utf16leName:
		e = unicode.UTF16(unicode.LittleEndian, unicode.IgnoreBOM)
	case utf16beName:
		e = unicode.UTF16(unicode.BigEndian, unicode.IgnoreBOM)
	case win1252Name, "cp1252", "win1252":
		in.name, e = win1252Name, charmap.Windows1252
	case "iso-8859-1", "latin1":
		in.name, e = "iso-8859-1", charmap.ISO8859_1
	case "iso-8859-15", "latin9":
		in.name, e = "iso-8859-15", charmap.ISO8859_15
	default:
		return nil, fmt.Errorf("encoding %q is not known; use auto, utf-8, utf-16le, utf-16be, windows-1252, iso-8859-1 or iso-8859-15", name)
	}
	return transform.NewReader(raw, e.NewDecoder()), nil
}

func byteOrderMark(b []byte) (name string, size int) {
	switch {
	case bytes.HasPrefix(b, []byte("\xef\xbb\xbf")):
		return utf8Name, 3
	case bytes.HasPrefix(b, []byte("\xff\xfe")):
		return utf16leName, 2
	case bytes.HasPrefix(b, []byte("\xfe\xff")):
		return utf16beName, 2
	}
	return "", 0
}

// zeroPattern recognises UTF-16 without a byte order mark: of text that is
// mostly Latin every other byte is zero.
func zeroPattern(b []byte) string {
	var zeros [2]int
	for i, c := range b {
		if c == 0 {
			zeros[i%2]++
		}
	}
	half := len(b) / 2
	switch {
	case len(b) >= 4 && zeros[1] > half*2/3 && zeros[0] == 0:
		return utf16leName
	case len(b) >= 4 && zeros[0] > half*2/3 && zeros[1] == 0:
		return utf16beName
	}
	return ""
}

// zipMagic begins a workbook, as any ZIP archive.
const zipMagic = "PK\x03\x04"

// magics are the first bytes of files that people take for tables.
var magics = []struct{ prefix, advice string }{
	{zipMagic, "is a compressed Excel workbook or ZIP archive; unpack it first"}, // behind gzip
	{"PK\x05\x06", "is an empty ZIP archive"},
	{"\xd0\xcf\x11\xe0", "is an old Excel workbook (.xls), or one with a password; open it and save it as .xlsx without one, or as CSV UTF-8"},
	{"%PDF", "is a PDF; export the data as CSV"},
	{"{\\rtf", "is a word processor's document (RTF); export the data as CSV"},
	{"BZh", "is compressed (bzip2); unpack it first"},
	{"\xfd7zXZ", "is compressed (xz); unpack it first"},
	{"7z\xbc\xaf", "is compressed (7-Zip); unpack it first"},
	{"\x28\xb5\x2f\xfd", "is compressed (zstd); unpack it first"},
	{"\x1f\x8b", "is compressed twice; unpack it first"},
	{"\x89PNG", "is a picture"},
	{"\xff\xd8\xff", "is a picture"},
	{"GIF8", "is a picture"},
	{"\x7fELF", "is a program"},
	{"SQLite format 3", "is a database; export the table as CSV"},
	{"<!DOCTYPE", "is a web page; perhaps the download asked for a login"},
	{"<!doctype", "is a web page; perhaps the download asked for a login"},
	{"<html", "is a web page; perhaps the download asked for a login"},
	{"<HTML", "is a web page; perhaps the download asked for a login"},
	{"<?xml", "is XML; export the data as CSV"},
	{"\xff\xfe\x00\x00", "is UTF-32; save it as CSV UTF-8"},
	{"\x00\x00\xfe\xff", "is UTF-32; save it as CSV UTF-8"},
}

func refuseBinary(head []byte) error {
	for _, m := range magics {
		if bytes.HasPrefix(head, []byte(m.prefix)) {
			return errors.New("the file " + m.advice)
		}
	}
	if mark, _ := byteOrderMark(head); mark == "" || mark == utf8Name {
		if bytes.IndexByte(head, 0) >= 0 && zeroPattern(head) == "" {
			return errors.New("the file is not text: there are zero bytes in it")
		}
	}
	return nil
}

// meter counts and hashes what is read through it.
type meter struct {
	r    io.Reader
	hash hash.Hash
	n    int64
}

func (m *meter) Read(p []byte) (int, error) {
	n, err := m.r.Read(p)
	m.n += int64(n)
	m.hash.Write(p[:n])
	return n, err
}

func (m *meter) sum() (int64, string) { return m.n, hex.EncodeToString(m.hash.Sum(nil)) }

// Bounds on what a compressed file may grow to: honest tables shrink to a tenth,
// seldom to a hundredth; a bomb shrinks to a thousandth.
const (
	unpackFree  = 16 << 20
	unpackRatio = 200
)

// unpacker reads a gzip file while it stays within reason.
type unpacker struct {
	z   *gzip.Reader
	raw *meter
	n   int64
}

func (u *unpacker) Read(p []byte) (int, error) {
	n, err := u.z.Read(p)
	u.n += int64(n)
	if u.n > unpackFree && u.n/unpackRatio > u.raw.n {
		return 0, fmt.Errorf("the compressed file grows more than %d-fold; unpack it first if it is what it should be", unpackRatio)
	}
	if err != nil && !errors.Is(err, io.EOF) {
		err = fmt.Errorf("the compressed file is damaged: %w", err)
	}
	return n, err
}

// guesser reads text of unknown encoding. As long as it is ASCII nothing needs to
// be known; the first other byte decides, with what follows it, between UTF-8
// and Windows-1252. So a file whose first foreign name is in row 90,000 is read
// right, in one pass.
type guesser struct {
	raw  *bufio.Reader
	text io.Reader // once decided
	utf8 bool
}

const guessWindow = 32 << 10

func (g *guesser) name() string {
	if g.text == nil || g.utf8 {
		return utf8Name
	}
	return win1252Name
}

func (g *guesser) Read(p []byte) (int, error) {
	if g.text != nil {
		return g.text.Read(p)
	}
	if _, err := g.raw.Peek(1); err != nil {
		return 0, err
	}
	b, _ := g.raw.Peek(min(g.raw.Buffered(), len(p)))
	ascii := 0
	for ascii < len(b) && b[ascii] < utf8.RuneSelf {
		ascii++
	}
	if ascii > 0 {
		copy(p, b[:ascii])
		return g.raw.Discard(ascii)
	}
	if len(p) == 0 {
		return 0, nil
	}
	window, err := peek(g.raw, guessWindow)
	if err != nil {
		return 0, err
	}
	if g.utf8 = looksUTF8(window); g.utf8 {
		g.text = g.raw
	} else {
		g.text = transform.NewReader(g.raw, charmap.Windows1252.NewDecoder())
	}
	return g.text.Read(p)
}

// looksUTF8 reports whether most of what is not ASCII in b is UTF-8. A file that
// is mixed is read as what most of it is; the rows that are not are rejected.
func looksUTF8(b []byte) bool {
	good, bad := 0, 0
	for len(b) > 0 {
		r, size := utf8.DecodeRune(b)
		switch {
		case r == utf8.RuneError && size == 1 && !utf8.FullRune(b): // cut off by the window
		case r == utf8.RuneError && size == 1:
			bad++
		case size > 1:
			good++
		}
		b = b[size:]
	}
	return good >= bad
}
