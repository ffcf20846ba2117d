package config

import (
	"errors"
	"slices"
	"strings"
)

// Key is something that can be configured.
type Key struct {
	// Path as in the file, with * for the name of a target.
	Path string
	// Env is the variable that sets it, with * for the name of a target in
	// capitals with underscores for dashes.
	Env string
	// NATSEnv is the variable of the nats CLI that sets it too; mostly empty.
	NATSEnv string
	// Default as it would be written; empty if there is none or it depends.
	Default string
	// Kind is the kind of target it is for; empty for all.
	Kind string
	// Doc says what it is.
	Doc string
}

// Keys lists everything that can be configured, in the order of the example.
func Keys() []Key {
	var out []Key
	for _, k := range configKeys {
		out = append(out, publicKey(k, k.name))
	}
	for _, k := range targetKeys {
		out = append(out, publicKey(k, "targets.*."+k.name))
	}
	return out
}

func publicKey[T any](k key[T], path string) Key {
	return Key{Path: path, Env: EnvName(path), NATSEnv: k.env, Default: k.def, Kind: k.only, Doc: k.doc}
}

// EnvName is the variable that sets the key at path: CRMSYNC_ and the path in
// capitals with underscores for dots and dashes.
func EnvName(path string) string {
	return envPrefix + envName(path)
}

func envName(path string) string {
	return strings.ToUpper(strings.NewReplacer(".", "_", "-", "_").Replace(path))
}

// schema is the tables of keys.go, looked up by pattern: a path with * for the
// target's name.
var schema = newTree()

type tree struct {
	leaves   map[string]*leafInfo
	sections map[string]bool
	paths    []string          // patterns of leaves and sections
	byEnv    map[string]string // of keys outside targets
	envs     []string
}

type leafInfo struct {
	list bool
	doc  string
}

func newTree() *tree {
	t := &tree{
		leaves:   map[string]*leafInfo{},
		sections: map[string]bool{"targets": true, "targets.*": true},
		byEnv:    map[string]string{},
	}
	for _, k := range configKeys {
		t.leaves[k.name] = &leafInfo{k.list, k.doc}
		t.byEnv[EnvName(k.name)] = k.name
		t.envs = append(t.envs, EnvName(k.name))
	}
	for _, k := range targetKeys {
		t.leaves["targets.*."+k.name] = &leafInfo{k.list, k.doc}
	}
	for path := range t.leaves {
		for i := strings.LastIndexByte(path, '.'); i >= 0; i = strings.LastIndexByte(path[:i], '.') {
			t.sections[path[:i]] = true
		}
		t.paths = append(t.paths, path)
	}
	for path := range t.sections {
		t.paths = append(t.paths, path)
	}
	slices.Sort(t.paths)
	return t
}

// hint says which key an unknown one was probably meant to be: one of the same
// section by a similar name, or one elsewhere by the very name.
func (t *tree) hint(path string) string {
	pattern := patternOf(path)
	section, name := "", pattern
	if i := strings.LastIndexByte(pattern, '.'); i >= 0 {
		section, name = pattern[:i+1], pattern[i+1:]
	}
	var beside, elsewhere []string
	for _, p := range t.paths {
		if rest, ok := strings.CutPrefix(p, section); ok && !strings.Contains(rest, ".") {
			beside = append(beside, rest)
		}
		if last(p) == name {
			elsewhere = append(elsewhere, strings.ReplaceAll(p, "*", "<name>"))
		}
	}
	if s := didYouMean(name, beside); s != "" {
		return s
	}
	if len(elsewhere) > 0 {
		return "; there is " + orList(elsewhere[:min(3, len(elsewhere))])
	}
	return "; known here: " + strings.Join(slices.DeleteFunc(beside, func(s string) bool { return s == "*" }), ", ")
}

// patternOf puts * in place of a target's name.
func patternOf(path string) string {
	rest, ok := strings.CutPrefix(path, "targets.")
	if !ok {
		return path
	}
	if _, below, ok := strings.Cut(rest, "."); ok {
		return "targets.*." + below
	}
	return "targets.*"
}

func checkTargetName(name string) error {
	if name == "" || len(name) > 32 || strings.Trim(name, "abcdefghijklmnopqrstuvwxyz0123456789-") != "" {
		return errors.New("is not a target's name: 1 to 32 characters of a-z, 0-9 and dash")
	}
	return nil
}
