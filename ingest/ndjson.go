package ingest

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"crmsync/contact"
)

// objects reads rows of JSON, one object a line: either an update with the
// contact's id beside its fields,
//
//	{"id": "7", "fields": {"firstname": "Bob"}, "version": 17, "occurred_at": "2026-11-21T19:05:00Z"}
//
// or the fields and the id side by side, none of them called fields. The former has the CRM's names; in the
// latter names are looked up like columns of a table, and texts are converted
// like cells. A line is as strict as a message's body.
type objects struct {
	r     *bufio.Reader
	o     Options
	look  resolver
	line  int64
	blank int64

	idName   string
	known    map[string]*column // by name as written; nil if it is not imported
	mapped   []*column
	unmapped []string

	constants []item
	always    contact.Patch // the constants
}

func openNDJSON(text *bufio.Reader, o Options) (*objects, error) {
	s := &objects{r: text, o: o, look: newResolver(o), known: map[string]*column{}}
	var err error
	if s.constants, err = constants(o); err == nil && len(s.constants) > 0 {
		s.always, err = patch(nil, s.constants)
	}
	return s, err
}

func (s *objects) next() (Row, error) {
	for {
		line, long, err := s.readLine()
		if err != nil {
			return Row{}, err
		}
		s.line++
		row := Row{Line: s.line}
		if long {
			row.Err = fmt.Errorf("the line has more than %d KiB", MaxRecord>>10)
			return row, nil
		}
		line = bytes.TrimSpace(line)
		if len(line) == 0 {
			s.blank++
			continue
		}
		// What is read is part of the row, and the reader's buffer is not.
		row.Err = s.fill(&row, bytes.Clone(line))
		return row, nil
	}
}

// readLine returns a line, valid until the next, or that it is too long.
func (s *objects) readLine() (line []byte, long bool, err error) {
	line, err = s.r.ReadSlice('\n')
	for errors.Is(err, bufio.ErrBufferFull) {
		long = true
		_, err = s.r.ReadSlice('\n')
	}
	if errors.Is(err, io.EOF) && (len(line) > 0 || long) {
		err = nil
	}
	if err != nil && !errors.Is(err, io.EOF) {
		err = fmt.Errorf("line %d: read the file: %w", s.line+1, err)
	}
	return line, long || len(line) > MaxRecord, err
}

func (s *objects) fill(row *Row, line []byte) error {
	members, err := contact.ParsePatch(line)
	if err != nil {
		return err
	}
	names := members.Names()
	at := idColumn(names, s.o)
	if at < 0 {
		return fmt.Errorf("no member is the contact's id; the members are %s", list(names))
	}
	if s.idName == "" {
		s.idName = names[at]
	}
	if row.ID, err = idOf(members[at].Value); err != nil {
		return fmt.Errorf("member %s: %w", quote(names[at]), err)
	}
	rest := slices.Delete(slices.Clone(members), at, at+1)
	if _, ok := rest.Get("fields"); ok {
		return s.fillUpdate(row, rest)
	}
	return s.fillFlat(row, rest)
}

func (s *objects) fillUpdate(row *Row, members contact.Patch) error {
	body, err := members.MarshalJSON()
	if err != nil {
		return err
	}
	u := contact.Decode(body, nil)
	if u.Bad != nil {
		return u.Bad
	}
	row.Fields, row.Version, row.Versioned, row.OccurredAt = u.Fields, u.Version, u.Versioned, u.OccurredAt
	for _, f := range s.always {
		if _, ok := row.Fields.Get(f.Name); ok {
			return fmt.Errorf("the field %s has a constant already", quote(f.Name))
		}
		row.Fields = row.Fields.With(f.Name, f.Value)
	}
	return nil
}

func (s *objects) fillFlat(row *Row, members contact.Patch) error {
	var items []item
	for _, m := range members {
		c := s.column(m.Name)
		if c == nil {
			continue
		}
		v, err := s.value(c.field, m.Value)
		if err != nil {
			return fmt.Errorf("member %s: %w", quote(m.Name), err)
		}
		if v != nil {
			items = append(items, item{c.path, v})
		}
	}
	slices.SortStableFunc(items, byPath)
	var err error
	row.Fields, err = patch(items, s.constants)
	return err
}

// value converts a text as a cell would be; anything else is JSON already.
func (s *objects) value(field string, v json.RawMessage) (json.RawMessage, error) {
	var text string
	if v[0] != '"' || json.Unmarshal(v, &text) != nil || text == "" {
		return v, nil
	}
	return convert(s.o, field, text)
}

// column is what a member's name stands for, nil if it is not imported.
func (s *objects) column(name string) *column {
	c, ok := s.known[name]
	if ok {
		return c
	}
	field, ignored := s.look.field(name)
	if field != "" {
		c = &column{name: name, field: field, path: strings.Split(field, ".")}
	}
	// Names are the file's, so there is no telling how many there are.
	if len(s.known) < MaxColumns {
		s.known[name] = c
		if c != nil {
			s.mapped = append(s.mapped, c)
		} else if !ignored {
			s.unmapped = append(s.unmapped, name)
		}
	}
	return c
}

// idOf is an id given as a text or a whole number.
func idOf(v json.RawMessage) (string, error) {
	id := string(v)
	if v[0] == '"' {
		if err := json.Unmarshal(v, &id); err != nil {
			return "", errors.New("the contact's id is not a text")
		}
	} else if strings.Trim(id, "0123456789") != "" {
		return "", errors.New("the contact's id is neither a text nor a whole number")
	}
	return id, checkID(id)
}

func (s *objects) report(r *Report) {
	r.IDColumn, r.Blank, r.Unmapped = s.idName, s.blank, slices.Clone(s.unmapped)
	for _, c := range s.mapped {
		r.Mapping = append(r.Mapping, Column{c.name, c.field})
	}
}
