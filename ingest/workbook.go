package ingest

import (
	"archive/zip"
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
