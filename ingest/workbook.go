package ingest

import (
	"archive/zip"
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"slices"
	"strconv"
	"strings"
)

// Limits on what is read of a workbook beside its rows, in bytes but for
// maxStyles. Nothing of a workbook is ever read into memory as a whole.
const (
	maxDirectory = 4 << 20   // the list of its parts
	maxSpooled   = 4 << 30   // of one that comes through a pipe
	maxPart      = 32 << 20  // of a part that says how the others are to be read
	maxToken     = 1 << 20   // of a piece of XML, such as one cell's text
	maxTexts     = 128 << 20 // what the cells of all sheets say, each text once
	maxStyles    = 100_000
)

// workbook is an Excel workbook (.xlsx, Office Open XML), as much of it as a
// table of contacts needs: the names of its sheets, the texts that cells share,
// and how numbers are shown.
type workbook struct {
	at      io.ReaderAt
	size    int64
	spooled *os.File                  // what came through a pipe; nil if it is a file anyway
	parts   map[string]*zip.File      // by name, in lower case
	related map[string][]relationship // of the workbook, by type
	main    string

	sheets   []sheetName
	texts    texts
	formats  []numberFormat // by style
	from1904 bool           // days count from 1904, as on old Macs

	sum string // of the file, once it has been read to its end
}

type sheetName struct {
	name, id string
	hidden   bool
}

// relationship is how one part of a workbook names another.
type relationship struct{ id, kind, target string }

// seekable is a file that can be read at any place.
type seekable interface {
	io.ReaderAt
	io.Seeker
}

// openWorkbook finds the parts of a workbook. What it reads is r or, where r
// can only be read from its beginning to its end, a copy of head and the rest
// that is on disk until close.
func openWorkbook(r io.Reader, head io.Reader) (*workbook, error) {
	b := &workbook{}
	if err := b.open(r, head); err != nil {
		return nil, errors.Join(err, b.close())
	}
	return b, nil
}

func (b *workbook) open(r io.Reader, head io.Reader) error {
	if f, ok := r.(seekable); ok {
		if size, err := f.Seek(0, io.SeekEnd); err == nil {
			b.at, b.size = f, size
		}
	}
	if b.at == nil {
		if err := b.spool(head); err != nil {
			return err
		}
	}
	if err := b.checkDirectory(); err != nil {
		return err
	}
	z, err := zip.NewReader(b.at, b.size)
	if err != nil {
		return fmt.Errorf("the file looks like an Excel workbook, but is damaged or was not copied to its end: %w", err)
	}
	b.parts = make(map[string]*zip.File, len(z.File))
	for _, f := range z.File {
		b.parts[partName(f.Name)] = f
	}
	if err := b.isWorkbook(z.File); err != nil {
		return err
	}
	if err := b.readMain(); err != nil {
		return err
	}
	if err := b.readStyles(); err != nil {
		return err
	}
	return b.readTexts()
}

// spool copies what comes through a pipe to a file that nobody else can read.
func (b *workbook) spool(r io.Reader) error {
	f, err := os.CreateTemp("", "crmsync-*.xlsx")
	if err != nil {
		return fmt.Errorf("a workbook is read from its end, and so needs a place on disk: %w", err)
	}
	b.spooled = f
	_ = os.Remove(f.Name()) // where an open file can be removed; else close does
	n, err := io.Copy(f, io.LimitReader(r, maxSpooled+1))
	if err == nil && n > maxSpooled {
		err = fmt.Errorf("more than %d GiB", maxSpooled>>30)
	}
	if err != nil {
		return fmt.Errorf("copy the workbook to disk: %w", err)
	}
	b.at, b.size = f, n
	return nil
}

func (b *workbook) close() error {
	if b.spooled == nil {
		return nil
	}
	err := b.spooled.Close()
	_ = os.Remove(b.spooled.Name()) // mostly it is gone
	b.spooled = nil
	return err
}

// checkDirectory refuses an archive whose list of parts would fill the memory.
func (b *workbook) checkDirectory() error {
	const endSize = 22 // and a comment of up to 64 KiB
	tail := make([]byte, min(b.size, endSize+1<<16))
	if _, err := b.at.ReadAt(tail, b.size-int64(len(tail))); err != nil && !errors.Is(err, io.EOF) {
		return fmt.Errorf("read the file: %w", err)
	}
	i := bytes.LastIndex(tail, []byte("PK\x05\x06"))
	if i < 0 || i+endSize > len(tail) {
		return errors.New("the file looks like an Excel workbook, but was not copied to its end")
	}
	begin := int64(binary.LittleEndian.Uint32(tail[i+16:]))
	if end := b.size - int64(len(tail)) + int64(i); begin == 0xffffffff || end-begin > maxDirectory {
		return errors.New("the file is an archive of very many or very large files, not an Excel workbook")
	}
	return nil
}

// isWorkbook says of an archive that is no workbook what it is.
func (b *workbook) isWorkbook(files []*zip.File) error {
	switch {
	case b.parts["xl/workbook.xml"] != nil || b.parts["_rels/.rels"] != nil && b.parts["[content_types].xml"] != nil:
		return nil
	case b.parts["xl/workbook.bin"] != nil:
		return errors.New("the file is a binary Excel workbook (.xlsb); open it and save it as .xlsx or CSV UTF-8")
	case len(files) > 0 && files[0].Name == "mimetype" && b.parts["content.xml"] != nil:
		return errors.New("the file is an OpenDocument (.ods); open it and save it as .xlsx or CSV UTF-8")
	case len(files) > 0:
		return fmt.Errorf("the file is a ZIP archive (with %s in it); unpack it first", quote(files[0].Name))
	}
	return errors.New("the file is an empty ZIP archive")
}

// partName is a part's name as it is compared: whatever packed it, and however
// another part spells it.
func partName(name string) string {
	return strings.ToLower(strings.TrimPrefix(strings.ReplaceAll(name, `\`, "/"), "/"))
}

// readMain reads the part that lists the sheets.
func (b *workbook) readMain() error {
	b.main = "xl/workbook.xml"
	top, err := b.relationships("")
	if err != nil {
		return err
	}
	if r := top["officeDocument"]; len(r) > 0 {
		b.main = r[0].target
	}
	if b.related, err = b.relationships(b.main); err != nil {
		return err
	}
	p, err := b.part(b.main, maxPart)
	if err != nil {
		return err
	}
	defer p.close()
	return p.each(func(e xml.StartElement) error {
		switch e.Name.Local {
		case "workbookPr":
			v := attribute(e, "date1904")
			b.from1904 = v == "1" || v == "true"
		case "sheet":
			if len(b.sheets) < maxStyles {
				state := attribute(e, "state")
				b.sheets = append(b.sheets, sheetName{attribute(e, "name"), reference(e), state == "hidden" || state == "veryHidden"})
			}
		}
		return nil
	})
}

// relationships are those of a part, "" for the whole, by the last word of
// their type; their targets are names of parts. A part may have none.
func (b *workbook) relationships(of string) (map[string][]relationship, error) {
	dir, base := path.Split(of)
	name := dir + "_rels/" + base + ".rels"
	if b.parts[partName(name)] == nil {
		return nil, nil
	}
	p, err := b.part(name, maxPart)
	if err != nil {
		return nil, err
	}
	defer p.close()
	out, n := map[string][]relationship{}, 0
	err = p.each(func(e xml.StartElement) error {
		if n++; e.Name.Local != "Relationship" || n > maxStyles {
			return nil
		}
		target := strings.ReplaceAll(attribute(e, "Target"), `\`, "/")
		if !strings.HasPrefix(target, "/") {
			target = dir + target
		}
		kind := path.Base(attribute(e, "Type"))
		out[kind] = append(out[kind], relationship{attribute(e, "Id"), kind, path.Clean(strings.TrimPrefix(target, "/"))})
		return nil
	})
	return out, err
}

// sheet finds the part of a sheet by its name or, where that is "", the first
// that is not hidden. The names are those of all sheets that can be read.
func (b *workbook) sheet(name string) (found sheetName, part string, names []string, err error) {
	byID := map[string]string{}
	for _, r := range b.related["worksheet"] {
		byID[r.id] = r.target
	}
	for _, s := range b.sheets {
		target, ok := byID[s.id] // else it is a chart
		if !ok {
			continue
		}
		names = append(names, s.name)
		if part == "" && (name == "" && !s.hidden || name != "" && strings.EqualFold(strings.TrimSpace(s.name), strings.TrimSpace(name))) {
			found, part = s, target
		}
	}
	switch {
	case part != "":
		return found, part, names, nil
	case len(names) == 0:
		return found, "", nil, errors.New("the workbook has no sheet with cells")
	case name == "":
		return found, "", nil, fmt.Errorf("all sheets of the workbook are hidden; name the one to read: %s", list(names))
	}
	return found, "", nil, fmt.Errorf("the workbook has no sheet %s; its sheets are %s", quote(name), list(names))
}

// hash reads the whole file once more, now that its rows have been read: what
// it says is of the bytes that are there then.
func (b *workbook) hash() error {
	h := sha256.New()
	if _, err := io.Copy(h, io.NewSectionReader(b.at, 0, b.size)); err != nil {
		return fmt.Errorf("read the file: %w", err)
	}
	b.sum = hex.EncodeToString(h.Sum(nil))
	return nil
}

func (b *workbook) describe(r *Report) { r.Size, r.SHA256 = b.size, b.sum }

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

// texts are those that cells share, by number.
type texts struct {
	all  []byte
	ends []uint32
}

func (t *texts) get(i int) (string, bool) {
	if i < 0 || i >= len(t.ends) {
		return "", false
	}
	begin := uint32(0)
	if i > 0 {
		begin = t.ends[i-1]
	}
	return string(t.all[begin:t.ends[i]]), true
}

func (b *workbook) readTexts() error {
	related := b.related["sharedStrings"]
	if len(related) == 0 {
		return nil
	}
	p, err := b.part(related[0].target, 0)
	if err != nil {
		return err
	}
	defer p.close()
	t := &b.texts
	err = p.each(func(e xml.StartElement) error {
		if e.Name.Local != "si" {
			return nil
		}
		s, err := p.text(true)
		if err != nil {
			return err
		}
		if len(t.all)+len(s)+4*len(t.ends) > maxTexts {
			return fmt.Errorf("the texts of the workbook take more than %d MiB of memory; save the sheet as CSV UTF-8, which is read row by row", maxTexts>>20)
		}
		t.all = append(t.all, s...)
		t.ends = append(t.ends, uint32(len(t.all)))
		return nil
	})
	t.all, t.ends = slices.Clip(t.all), slices.Clip(t.ends)
	return err
}
