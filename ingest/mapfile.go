package ingest

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"maps"
	"strings"

	"go.yaml.in/yaml/v3"
)

// Mapping says how the columns of a kind of file become fields; people keep it
// in a file of its own for the next time.
type Mapping struct {
	ID        string            `yaml:"id,omitempty"`        // column of the contact's id; "": to be found
	Columns   map[string]string `yaml:"columns,omitempty"`   // as [Options].Map
	Constants map[string]string `yaml:"constants,omitempty"` // as [Options].Constants
	Empty     string            `yaml:"empty,omitempty"`     // as [Options].Empty
}

// maxMapping is the largest mapping that is read, in bytes.
const maxMapping = 1 << 20

// ReadMapping reads a mapping as [Mapping.Write] writes it. What it does not know
// is an error.
func ReadMapping(r io.Reader) (Mapping, error) {
	var m Mapping
	b, err := io.ReadAll(io.LimitReader(r, maxMapping+1))
	switch {
	case err != nil:
		return m, err
	case len(b) > maxMapping:
		return m, fmt.Errorf("it has more than %d KiB: it is no mapping", maxMapping>>10)
	}
	d := yaml.NewDecoder(bytes.NewReader(b))
	d.KnownFields(true)
	if err := d.Decode(&m); err != nil && !errors.Is(err, io.EOF) {
		return m, explainYAML(err)
	}
	switch m.Empty {
	case "", EmptyIgnore, EmptyClear:
	default:
		return m, fmt.Errorf("empty: %q is not a meaning of empty cells; use ignore or clear", m.Empty)
	}
	seen := map[string]string{}
	for name := range m.Columns {
		if other, ok := seen[columnKey(name)]; ok {
			return m, fmt.Errorf("columns: %s and %s are the same column", quote(min(name, other)), quote(max(name, other)))
		}
		seen[columnKey(name)] = name
	}
	return m, nil
}

// explainYAML says on one line what is wrong with a mapping.
func explainYAML(err error) error {
	var types *yaml.TypeError
	if !errors.As(err, &types) {
		return errors.New(strings.TrimPrefix(err.Error(), "yaml: "))
	}
	text := strings.Join(types.Errors, "; ")
	return errors.New(strings.ReplaceAll(text, " not found in type ingest.Mapping", " is not known; a mapping has id, columns, constants and empty"))
}

// Write writes the mapping for [ReadMapping] and for people.
func (m Mapping) Write(w io.Writer) error {
	e := yaml.NewEncoder(w)
	e.SetIndent(2)
	if err := e.Encode(m); err != nil {
		return err
	}
	return e.Close()
}

// AsMapping is the mapping that was in use: what was given and what was found.
// Columns that went nowhere are in it, left out.
func (r Report) AsMapping(o Options) Mapping {
	m := Mapping{ID: r.IDColumn, Columns: map[string]string{}, Constants: o.Constants, Empty: o.Empty}
	for _, c := range r.Mapping {
		m.Columns[c.Name] = c.Field
	}
	for _, name := range r.Unmapped {
		m.Columns[name] = ""
	}
	for name, field := range o.Map {
		if leftOut(field) {
			m.Columns[name] = ""
		}
	}
	return m
}

// With is the mapping where what over says goes before it.
func (m Mapping) With(over Mapping) Mapping {
	out := Mapping{ID: m.ID, Empty: m.Empty, Columns: map[string]string{}, Constants: maps.Clone(over.Constants)}
	if over.ID != "" {
		out.ID = over.ID
	}
	if over.Empty != "" {
		out.Empty = over.Empty
	}
	said := map[string]bool{}
	for name, field := range over.Columns {
		said[columnKey(name)] = true
		out.Columns[name] = field
	}
	for name, field := range m.Columns {
		if !said[columnKey(name)] {
			out.Columns[name] = field
		}
	}
	for field, text := range m.Constants {
		if _, ok := over.Constants[field]; !ok {
			if out.Constants == nil {
				out.Constants = map[string]string{}
			}
			out.Constants[field] = text
		}
	}
	return out
}
