package config

import (
	"errors"
	"slices"
	"strings"
)

// Key is something that can be configured.
type Key struct {
	// Path as in the file, with * for the name of a target or a shared quota.
	Path string
	// Env is the variable that sets it, with * for that name in capitals with
	// underscores for dashes.
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
	for _, k := range sharedKeys {
		out = append(out, publicKey(k, "quotas.*."+k.name))
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

// named are the sections whose keys stand below names that the operator
// chooses.
var named = []string{"targets", "quotas"}

// splitNamed takes the path of such a key apart: targets.office.quota.rate is
// targets, office and quota.rate.
func splitNamed(path string) (section, name, rest string, ok bool) {
	section, below, found := strings.Cut(path, ".")
	if !found || !slices.Contains(named, section) {
		return "", "", "", false
	}
	name, rest, _ = strings.Cut(below, ".")
	return section, name, rest, true
}

// schema is the tables of keys.go, looked up by pattern: a path with * for a
// chosen name.
var schema = newTree()

type tree struct {
	leaves   map[string]*leafInfo
	sections map[string]bool
	paths    []string          // patterns of leaves and sections
	byEnv    map[string]string // of keys outside named sections
	envs     []string
	below    map[string][]string // by named section: its keys' own names
}

type leafInfo struct {
	list, records bool
	doc           string
}

func newTree() *tree {
	t := &tree{
		leaves:   map[string]*leafInfo{},
		sections: map[string]bool{},
		byEnv:    map[string]string{},
		below:    map[string][]string{},
	}
	for _, k := range configKeys {
		t.leaves[k.name] = &leafInfo{k.list, k.records, k.doc}
		t.byEnv[EnvName(k.name)] = k.name
		t.envs = append(t.envs, EnvName(k.name))
	}
	addNamed(t, "targets", targetKeys)
	addNamed(t, "quotas", sharedKeys)
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

func addNamed[T any](t *tree, section string, keys []key[T]) {
	for _, k := range keys {
		t.leaves[section+".*."+k.name] = &leafInfo{k.list, k.records, k.doc}
		t.below[section] = append(t.below[section], k.name)
	}
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

// patternOf puts * in place of a chosen name.
func patternOf(path string) string {
	section, _, rest, ok := splitNamed(path)
	switch {
	case !ok:
		return path
	case rest == "":
		return section + ".*"
	}
	return section + ".*." + rest
}

// checkName refuses what is no name of a target or a shared quota.
func checkName(section, name string) error {
	if name == "" || len(name) > 32 || strings.Trim(name, "abcdefghijklmnopqrstuvwxyz0123456789-") != "" {
		return errors.New("is not a " + strings.TrimSuffix(section, "s") + "'s name: 1 to 32 characters of a-z, 0-9 and dash")
	}
	return nil
}
