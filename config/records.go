package config

import (
	"errors"
	"fmt"
	"strings"

	"go.yaml.in/yaml/v3"
)

// record is one mapping of a list of such, as it was written.
type record struct {
	line   int
	fields []recordField
}

type recordField struct {
	name, text string
	line       int
}

// itemError is what is wrong with one field of one record.
type itemError struct {
	at   string // [1].per
	line int    // 0: that of the key
	msg  string
}

type itemErrors []itemError

// Error is only for those who do not look into it.
func (es itemErrors) Error() string {
	var out []string
	for _, e := range es {
		out = append(out, e.at+": "+e.msg)
	}
	return strings.Join(out, "; ")
}

// records reads a sequence of mappings of plain values.
func (d *decoder) records(n *yaml.Node, path string, depth int) ([]record, bool) {
	out := make([]record, 0, len(n.Content))
	for i, item := range n.Content {
		at := fmt.Sprintf("%s[%d]", path, i)
		line := item.Line
		if item = d.enter(item, at, depth+1); item == nil {
			return nil, false
		}
		if item.Kind != yaml.MappingNode {
			d.fail(line, at, "is "+kindOf(item)+"; write it as {name: value, name: value}")
			return nil, false
		}
		r := record{line: line}
		seen := map[string]bool{}
		for j := 0; j+1 < len(item.Content); j += 2 {
			k, v := item.Content[j], item.Content[j+1]
			if v = d.enter(v, at, depth+2); v == nil {
				return nil, false
			}
			if k.Kind != yaml.ScalarNode || v.Kind != yaml.ScalarNode || isNull(v) {
				d.fail(k.Line, at, "holds something other than plain names with plain values")
				return nil, false
			}
			if seen[k.Value] {
				d.fail(k.Line, join(at, shortened(k.Value)), "is there twice")
				return nil, false
			}
			seen[k.Value] = true
			text, ok := d.scalar(v, k.Line, at)
			if !ok {
				return nil, false
			}
			r.fields = append(r.fields, recordField{k.Value, text, k.Line})
		}
		out = append(out, r)
	}
	return out, true
}

// recordsText writes records as they could be written.
func recordsText(rs []record) string {
	var items []string
	for _, r := range rs {
		var fields []string
		for _, f := range r.fields {
			fields = append(fields, f.name+": "+f.text)
		}
		items = append(items, "{"+strings.Join(fields, ", ")+"}")
	}
	return "[" + strings.Join(items, ", ") + "]"
}

// flowRecords reads [{a: b}] from outside the file.
func flowRecords(s string) ([]record, error) {
	if !strings.HasPrefix(strings.TrimSpace(s), "[") || len(s) > MaxFileSize {
		return nil, errNoRecords
	}
	var n yaml.Node
	if yaml.Unmarshal([]byte(s), &n) != nil || len(n.Content) != 1 || n.Content[0].Kind != yaml.SequenceNode {
		return nil, errNoRecords
	}
	var d decoder
	rs, ok := d.records(n.Content[0], "", 0)
	if !ok {
		if len(d.errs) == 0 {
			return nil, errNoRecords
		}
		return nil, itemErrors{{at: d.errs[0].Path, msg: d.errs[0].Msg}}
	}
	return rs, nil
}

var errNoRecords = errors.New("is no list of windows; write [{limit: 1000, per: 1h}]")
