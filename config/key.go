package config

import (
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
)

// key is one line of the tables in keys.go: all there is to know about one
// thing that can be configured. T is what it is set on, Config or Target.
type key[T any] struct {
	name string // its path, for a target's key below targets.<name>
	def  string // the default, written as an operator would
	doc  string
	only string // the kind of target it is for; "" for all
	env  string // a variable of the nats CLI that sets it too
	list bool   // a sequence is welcome
	// records makes it a sequence of mappings, and nothing else.
	records bool
	// secret is the stem that _file and _env are appended to. Of the keys with one
	// stem the one from the highest layer wins.
	secret string
	set    func(*T, value) error
	show   func(*T) string // nil: as it was written
}

// value is what a key is set to.
type value struct {
	text  string
	items []string // if it was written as a sequence
	isSeq bool
	// records are the items of a sequence of mappings.
	records []record
	from    origin
	vars    environ
	dir     string // relative paths are taken from here
}

// layer is where a value comes from; higher wins.
type layer int

const (
	layerDefault layer = iota
	layerFile
	layerNATSEnv
	layerEnv
	layerFlag
)

type origin struct {
	layer layer
	name  string // file, variable or flag
	line  int
}

func (o origin) String() string {
	switch {
	case o.layer == layerDefault:
		return "default"
	case o.layer == layerFlag:
		return "flag " + o.name
	case o.line > 0:
		return o.name + ":" + strconv.Itoa(o.line)
	}
	return o.place()
}

// place is what an [Error] calls its File.
func (o origin) place() string {
	if o.layer == layerEnv || o.layer == layerNATSEnv {
		return "env " + o.name
	}
	return o.name
}

// list is the value's items: of a sequence, or of a text from outside the file,
// where [a, b] and a, b mean the same.
func (v value) list() []string {
	if v.isSeq {
		return v.items
	}
	if v.from.layer <= layerFile {
		return []string{v.text}
	}
	if items, ok := flowSequence(v.text); ok {
		return items
	}
	var out []string
	for item := range strings.SplitSeq(v.text, ",") {
		out = append(out, strings.TrimSpace(item))
	}
	return out
}

// parsed makes the setter of a field from a parser of its value.
func parsed[T, V any](field func(*T) *V, parse func(value) (V, error)) func(*T, value) error {
	return func(t *T, v value) error {
		got, err := parse(v)
		if err == nil {
			*field(t) = got
		}
		return err
	}
}

// text parses a value by its text alone.
func text[V any](parse func(string) (V, error)) func(value) (V, error) {
	return func(v value) (V, error) { return parse(v.text) }
}

// word takes any single line.
func word(v value) (string, error) {
	if strings.ContainsFunc(v.text, func(c rune) bool { return c < ' ' || c == 0x7f }) {
		return "", errors.New("must be a single line without control characters")
	}
	return v.text, nil
}

func oneOf(choices ...string) func(value) (string, error) {
	return func(v value) (string, error) {
		if slices.Contains(choices, v.text) {
			return v.text, nil
		}
		return "", fmt.Errorf("%s is not known; write %s", quote(v.text), orList(choices))
	}
}

func orList(words []string) string {
	if len(words) == 1 {
		return words[0]
	}
	last := len(words) - 1
	return strings.Join(words[:last], ", ") + " or " + words[last]
}

func boolean(v value) (bool, error) {
	switch v.text {
	case "true":
		return true, nil
	case "false":
		return false, nil
	}
	return false, errors.New(quote(v.text) + " is neither true nor false")
}

func whole(low, high int) func(value) (int, error) {
	return func(v value) (int, error) {
		n, err := strconv.Atoi(v.text)
		if err != nil || strings.HasPrefix(v.text, "+") {
			return 0, fmt.Errorf("%s is not a whole number; write one from %d to %d", quote(v.text), low, high)
		}
		if n < low || n > high {
			return 0, fmt.Errorf("%d is not between %d and %d", n, low, high)
		}
		return n, nil
	}
}

func span(low, high time.Duration) func(value) (time.Duration, error) {
	return func(v value) (time.Duration, error) {
		d, err := ParseDuration(v.text)
		if err == nil && (d < low || d > high) {
			err = fmt.Errorf("%s is not between %s and %s", quote(v.text), short(low), short(high))
		}
		return d, err
	}
}

// short writes a duration without the zeros of its String.
func short(d time.Duration) string {
	if d > day && d%day == 0 {
		return strconv.Itoa(int(d/day)) + "d"
	}
	s := d.String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}

// path takes the name of a file or folder. One written in the configuration file
// is taken from that file's folder: the working directory of a service is
// nobody's choice.
func path(v value) (string, error) {
	p, err := word(v)
	if err != nil || p == "" {
		return p, err
	}
	if rest, ok := strings.CutPrefix(p, "~/"); ok {
		home, ok := v.vars.lookup("HOME")
		if !ok || home == "" {
			return "", errors.New("begins with ~/, but HOME is not set")
		}
		return filepath.Join(home, rest), nil
	}
	if v.dir != "" && !filepath.IsAbs(p) {
		return filepath.Join(v.dir, p), nil
	}
	return p, nil
}

// secretKeys are the keys by which a secret is referred to: <stem>_file,
// <stem>_env, and the variable of <stem> itself, which holds the secret.
func secretKeys[T any](stem, doc, only, env string, lines bool, field func(*T) *Secret) []key[T] {
	fromFile := func(v value) (Secret, error) {
		p, err := path(v)
		switch {
		case err != nil:
			return Secret{}, err
		case p == "":
			return Secret{}, errors.New("is empty; write the path of a file that holds the secret")
		case len(v.text) > 64 && !strings.ContainsRune(v.text, '/'):
			return Secret{}, errors.New("looks like the secret itself; write it to a file and its path here")
		}
		return fileSecret(p, lines), nil
	}
	fromEnv := func(v value) (Secret, error) {
		if !isVariable(v.text) || len(v.text) > 64 {
			return Secret{}, errors.New("is not the name of a variable: letters, digits and underscores")
		}
		return envSecret(v.text, v.vars, lines), nil
	}
	inline := func(v value) (Secret, error) {
		if v.from.layer != layerEnv && v.from.layer != layerNATSEnv {
			return Secret{}, fmt.Errorf("secrets are not written here; put it in a file and write %s_file: /path, or %s_env: NAME", last(stem), last(stem))
		}
		return envSecret(v.from.name, v.vars, lines), nil
	}
	return []key[T]{
		{name: stem, secret: stem, only: only, env: env, set: parsed(field, inline), doc: doc + ": by this variable only, never in a file or flag"},
		{name: stem + "_file", secret: stem, only: only, set: parsed(field, fromFile), doc: doc + ": the file it is in, read again when it changes"},
		{name: stem + "_env", secret: stem, only: only, set: parsed(field, fromEnv), doc: doc + ": the variable it is in"},
	}
}

func last(path string) string { return path[strings.LastIndexByte(path, '.')+1:] }

func isVariable(s string) bool {
	for i, c := range []byte(s) {
		digit := c >= '0' && c <= '9'
		if c != '_' && (c|0x20 < 'a' || c|0x20 > 'z') && (!digit || i == 0) {
			return false
		}
	}
	return s != ""
}
