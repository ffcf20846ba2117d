package config

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
)

// What an honest file never needs: the bounds on a document that refers to
// itself over and over.
const (
	maxNodes = 100_000
	maxDepth = 32
)

// fileLayer is what a configuration file says.
type fileLayer struct {
	values map[string]value          // by full path
	names  map[string]map[string]int // by named section: line of each name
}

// decode flattens a YAML document into values by path. It works on nodes rather
// than into structs so that every fault is found, and each with its line.
func decode(name string, doc []byte) (fileLayer, Errors) {
	d := &decoder{
		name: name,
		out:  fileLayer{values: map[string]value{}, names: map[string]map[string]int{}},
	}
	for _, section := range named {
		d.out.names[section] = map[string]int{}
	}
	if name != "" {
		d.dir = filepath.Dir(name)
	}
	if len(doc) > MaxFileSize {
		d.fail(0, "", fmt.Sprintf("is larger than %d MiB, too large for a configuration", MaxFileSize>>20))
		return d.out, d.errs
	}
	root, err := d.parse(doc)
	if err != nil {
		d.syntax(doc, err)
		return d.out, d.errs
	}
	if root != nil {
		d.section(root, "", 0)
	}
	return d.out, d.errs
}

type decoder struct {
	name  string
	dir   string
	out   fileLayer
	errs  Errors
	nodes int
	over  bool // the bounds were broken, and it has been said
}

func (d *decoder) fail(line int, path, msg string) {
	d.errs = append(d.errs, Error{File: d.name, Line: line, Path: path, Msg: msg})
}

// parse returns the document's root, or nil if there is nothing in it.
func (d *decoder) parse(doc []byte) (*yaml.Node, error) {
	dec := yaml.NewDecoder(bytes.NewReader(doc))
	var root, next yaml.Node
	err := dec.Decode(&root)
	if errors.Is(err, io.EOF) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	if err := dec.Decode(&next); !errors.Is(err, io.EOF) {
		if err != nil {
			return nil, err
		}
		d.fail(next.Line, "", "a second document begins here; a configuration is one")
	}
	if root.Kind != yaml.DocumentNode || len(root.Content) == 0 {
		return nil, nil
	}
	return root.Content[0], nil
}

var (
	yamlLine = regexp.MustCompile(`^yaml: (?:line (\d+): )?(.*)`)
	quoted   = regexp.MustCompile(`'.*'`)
)

// syntax reports what the YAML parser could not read. Its message may quote the
// file, and the file may contain what it should not: quotations are cut out.
func (d *decoder) syntax(doc []byte, err error) {
	line, msg := 0, err.Error()
	if m := yamlLine.FindStringSubmatch(strings.ReplaceAll(msg, "\n", " ")); m != nil {
		line, _ = strconv.Atoi(m[1])
		msg = m[2]
	}
	if n := tabbedLine(doc); n > 0 && (line == 0 || n <= line+1) {
		d.fail(n, "", "is indented with a tab; YAML takes only spaces")
		return
	}
	d.fail(line, "", "is not valid YAML: "+quoted.ReplaceAllString(msg, "'…'"))
}

// tabbedLine is the first line with a tab in its indentation, or 0.
func tabbedLine(doc []byte) int {
	n := 0
	for line := range bytes.Lines(doc) {
		n++
		rest := bytes.TrimLeft(line, " ")
		if len(rest) > 0 && rest[0] == '\t' && len(bytes.TrimSpace(rest)) > 0 {
			return n
		}
	}
	return 0
}

// enter counts a node and resolves an alias; nil means that the document asks
// for too much.
func (d *decoder) enter(n *yaml.Node, path string, depth int) *yaml.Node {
	d.nodes++
	if d.nodes > maxNodes || depth > maxDepth {
		if !d.over {
			d.over = true
			d.fail(n.Line, path, "refers to itself or is nested beyond reason")
		}
		return nil
	}
	if n.Kind == yaml.AliasNode {
		return d.enter(n.Alias, path, depth+1)
	}
	return n
}

// section reads a mapping that holds keys.
func (d *decoder) section(n *yaml.Node, path string, depth int) {
	line := n.Line
	if n = d.enter(n, path, depth); n == nil || isNull(n) {
		return
	}
	if n.Kind != yaml.MappingNode {
		what := "the file"
		if path != "" {
			what = last(path)
		}
		d.fail(line, path, fmt.Sprintf("is %s; %s holds keys, each on a line of its own, indented", kindOf(n), what))
		return
	}
	d.mapping(n, path, depth, map[string]bool{})
}

// mapping reads the keys of n that are not taken yet, then those it merges.
func (d *decoder) mapping(n *yaml.Node, path string, depth int, taken map[string]bool) {
	own := map[string]int{}
	var merges []*yaml.Node
	for i := 0; i+1 < len(n.Content); i += 2 {
		k, v := n.Content[i], n.Content[i+1]
		if k.Kind != yaml.ScalarNode {
			d.fail(k.Line, path, "has a key that is not a plain word")
			continue
		}
		if k.Tag == "!!merge" {
			merges = append(merges, v)
			continue
		}
		if first, ok := own[k.Value]; ok {
			d.fail(k.Line, join(path, shortened(k.Value)), fmt.Sprintf("is there twice; the first is on line %d", first))
			continue
		}
		own[k.Value] = k.Line
		if !taken[k.Value] {
			taken[k.Value] = true
			d.entry(k, v, path, depth)
		}
	}
	for _, m := range merges {
		d.merge(m, path, depth+1, taken)
	}
}

// merge reads what stands behind <<: one mapping or several, the first winning.
func (d *decoder) merge(n *yaml.Node, path string, depth int, taken map[string]bool) {
	line := n.Line
	if n = d.enter(n, path, depth); n == nil {
		return
	}
	switch n.Kind {
	case yaml.MappingNode:
		d.mapping(n, path, depth, taken)
	case yaml.SequenceNode:
		for _, one := range n.Content {
			d.merge(one, path, depth+1, taken)
		}
	default:
		d.fail(line, path, "merges (<<) something that holds no keys")
	}
}

// entry reads one key of the mapping at section.
func (d *decoder) entry(k, v *yaml.Node, section string, depth int) {
	path := join(section, k.Value)
	pattern := patternOf(path)
	isName := slices.Contains(named, section)
	switch {
	case strings.Contains(k.Value, ".") && !isName:
		d.fail(k.Line, join(section, shortened(k.Value)), "is not a key; write what follows the dot indented below what precedes it")
	case isName:
		if err := checkName(section, k.Value); err != nil {
			d.fail(k.Line, join(section, shortened(k.Value)), err.Error())
			return
		}
		if _, ok := d.out.names[section][k.Value]; !ok {
			d.out.names[section][k.Value] = k.Line
		}
		d.section(v, path, depth+1)
	case schema.sections[pattern]:
		d.section(v, path, depth+1)
	case schema.leaves[pattern] != nil:
		d.leaf(k, v, path, depth+1)
	case strings.HasPrefix(path, "x-"):
		// A place for anchors, as in compose files.
	default:
		d.fail(k.Line, shortened(path), "is not a key"+schema.hint(path))
	}
}

// leaf reads the value of a key.
func (d *decoder) leaf(k, n *yaml.Node, path string, depth int) {
	if n = d.enter(n, path, depth); n == nil || isNull(n) {
		return
	}
	info := schema.leaves[patternOf(path)]
	v := value{from: origin{layer: layerFile, name: d.name, line: k.Line}, dir: d.dir}
	switch {
	case info.records && n.Kind == yaml.SequenceNode:
		ok := true
		if v.records, ok = d.records(n, path, depth); !ok {
			return
		}
		v.isSeq, v.text = true, recordsText(v.records)
	case n.Kind == yaml.ScalarNode:
		text, ok := d.scalar(n, k.Line, path)
		if !ok {
			return
		}
		v.text = text
	case n.Kind == yaml.SequenceNode && info.list:
		v.isSeq = true
		for _, item := range n.Content {
			if item = d.enter(item, path, depth+1); item == nil {
				return
			}
			if item.Kind != yaml.ScalarNode || isNull(item) {
				d.fail(item.Line, path, "has an item that is not a plain value")
				return
			}
			text, ok := d.scalar(item, item.Line, path)
			if !ok {
				return
			}
			v.items = append(v.items, text)
		}
		v.text = "[" + strings.Join(v.items, ", ") + "]"
	default:
		d.fail(k.Line, path, "is "+kindOf(n)+", where one value belongs: "+info.doc)
		return
	}
	d.out.values[path] = v
}

var substitution = regexp.MustCompile(`\$\{[A-Za-z_][A-Za-z0-9_]*[^}]*\}`)

func (d *decoder) scalar(n *yaml.Node, line int, path string) (string, bool) {
	switch n.ShortTag() {
	case "!!str", "!!int", "!!float", "!!bool", "!!timestamp", "!!merge":
	default:
		d.fail(line, path, "has a YAML tag; write a plain value")
		return "", false
	}
	if substitution.MatchString(n.Value) {
		d.fail(line, path, "has ${...} in it, which is not replaced here; set the variable "+EnvName(path)+" instead")
		return "", false
	}
	return n.Value, true
}

// flowSequence reads [a, b] as a list.
func flowSequence(s string) ([]string, bool) {
	if !strings.HasPrefix(strings.TrimSpace(s), "[") || len(s) > MaxFileSize {
		return nil, false
	}
	var n yaml.Node
	if yaml.Unmarshal([]byte(s), &n) != nil || len(n.Content) != 1 || n.Content[0].Kind != yaml.SequenceNode {
		return nil, false
	}
	var out []string
	for _, item := range n.Content[0].Content {
		if item.Kind != yaml.ScalarNode {
			return nil, false
		}
		out = append(out, item.Value)
	}
	return out, true
}

func isNull(n *yaml.Node) bool { return n.Kind == yaml.ScalarNode && n.ShortTag() == "!!null" }

func kindOf(n *yaml.Node) string {
	switch n.Kind {
	case yaml.MappingNode:
		return "a mapping"
	case yaml.SequenceNode:
		return "a list"
	}
	return "a single value"
}

func join(path, name string) string {
	if path == "" {
		return name
	}
	return path + "." + name
}

// shortened keeps a key that nobody knows from filling the screen.
func shortened(s string) string {
	if q := quote(s); len(q) != len(s)+2 {
		return q
	}
	return s
}
