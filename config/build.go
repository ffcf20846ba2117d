package config

import (
	"errors"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// layers is all that was said about the configuration, before it is laid on top
// of each other.
type layers struct {
	name    string
	file    fileLayer
	env     environ
	set     []Override
	warning string
}

// builder makes a Config of layers.
type builder struct {
	layers  *layers
	values  map[string]value             // the winners, by full path
	names   map[string]map[string]origin // by named section and name
	c       *Config
	errs    Errors
	failed  map[string]bool  // paths already reported
	secrets map[string]value // what names each secret, by stem
}

// build lays the layers over each other, sets every key and then checks what
// concerns several of them.
func (l *layers) build() (*Config, Errors) {
	b := &builder{
		layers: l, values: map[string]value{}, names: map[string]map[string]origin{},
		failed: map[string]bool{}, secrets: map[string]value{},
		c: &Config{Targets: map[string]Target{}, Quotas: map[string]Quota{}, layers: l},
	}
	for _, section := range named {
		b.names[section] = map[string]origin{}
	}
	if l.warning != "" {
		b.warn(l.warning)
	}
	b.gather()
	for _, k := range configKeys {
		apply(b, b.c, k, k.name)
	}
	shared := slices.Sorted(maps.Keys(b.names["quotas"]))
	for _, name := range shared {
		var q Quota
		path := "quotas." + name + "."
		for _, k := range sharedKeys {
			apply(b, &q, k, path+k.name)
		}
		b.checkShared(&q, path)
		b.c.Quotas[name] = q
	}
	names := slices.Sorted(maps.Keys(b.names["targets"]))
	for _, name := range names {
		t := Target{Name: name}
		path := "targets." + name + "."
		for _, k := range targetKeys {
			if k.only != "" && t.Kind != "" && k.only != t.Kind {
				b.refuse(path+k.name, fmt.Sprintf("is for %s only; remove it", k.only))
				continue
			}
			apply(b, &t, k, path+k.name)
		}
		b.checkTarget(&t)
		b.c.Targets[name] = t
	}
	b.checkConfig()
	if len(b.errs) > 0 {
		return nil, b.errs
	}
	b.c.named = make(map[string]origin, len(b.secrets))
	for stem, v := range b.secrets {
		b.c.named[stem] = v.from
	}
	for _, k := range configKeys {
		b.show(k.name, k.def, k.secret, showing(k, b.c))
	}
	for _, name := range names {
		t := b.c.Targets[name]
		for _, k := range targetKeys {
			if k.only == "" || k.only == t.Kind {
				b.show("targets."+name+"."+k.name, k.def, k.secret, showing(k, &t))
			}
		}
	}
	for _, name := range shared {
		q := b.c.Quotas[name]
		for _, k := range sharedKeys {
			b.show("quotas."+name+"."+k.name, k.def, k.secret, showing(k, &q))
		}
	}
	return b.c, nil
}

// gather finds the winning value of each path.
func (b *builder) gather() {
	l := b.layers
	for path, v := range l.file.values {
		b.put(path, v)
	}
	for section, lines := range l.file.names {
		for name, line := range lines {
			b.names[section][name] = origin{layer: layerFile, name: l.name, line: line}
		}
	}
	env, errs, warnings := l.env.fromEnv(l.file.names)
	b.errs = append(b.errs, errs...)
	b.c.warnings = append(b.c.warnings, warnings...)
	for _, path := range slices.Sorted(maps.Keys(env)) {
		b.put(path, env[path])
	}
	for _, o := range l.set {
		from := origin{layer: layerFlag, name: o.Flag}
		if from.name == "" {
			from.name = "--set"
		}
		pattern := patternOf(o.Path)
		var err error
		if section, name, _, ok := splitNamed(o.Path); ok {
			err = checkName(section, name)
		}
		switch {
		case err != nil:
			b.fail(from, shortened(o.Path), err.Error())
		case schema.sections[pattern]:
			b.fail(from, o.Path, "holds keys and has no value itself; set one of them")
		case schema.leaves[pattern] == nil:
			b.fail(from, shortened(o.Path), "is not a key"+schema.hint(o.Path))
		default:
			b.put(o.Path, value{text: o.Value, from: from})
		}
	}
}

func (b *builder) put(path string, v value) {
	v.vars = b.layers.env
	b.values[path] = v
	if section, name, _, ok := splitNamed(path); ok {
		if _, ok := b.names[section][name]; !ok {
			b.names[section][name] = v.from
		}
	}
}

// apply sets a key from its value or its default.
func apply[T any](b *builder, t *T, k key[T], path string) {
	v, ok := b.values[path]
	if !ok {
		if k.def == "" {
			return
		}
		v = value{text: k.def, vars: b.layers.env}
	}
	group := strings.TrimSuffix(path, k.name) + k.secret
	if k.secret != "" {
		if other, ok := b.secrets[group]; ok && other.from.layer > v.from.layer {
			return
		} else if ok && other.from.layer == v.from.layer {
			b.fail(v.from, path, "is the second way to name one secret; the other is at "+other.from.String())
			return
		}
	}
	err := k.set(t, v)
	var items itemErrors
	if errors.As(err, &items) {
		b.failItems(v.from, path, items)
	} else if err != nil {
		b.fail(v.from, path, err.Error())
	} else if k.secret != "" {
		b.secrets[group] = v
	}
}

func (b *builder) fail(from origin, path, msg string) {
	b.failed[path] = true
	b.errs = append(b.errs, Error{File: from.place(), Line: from.line, Path: path, Msg: msg})
}

// failItems reports what is wrong with items of a list, each at its line.
func (b *builder) failItems(from origin, path string, items itemErrors) {
	b.failed[path] = true
	for _, e := range items {
		at := from
		if e.line > 0 && at.layer == layerFile {
			at.line = e.line
		}
		b.fail(at, path+e.at, e.msg)
	}
}

func (b *builder) warn(msg string) { b.c.warnings = append(b.c.warnings, msg) }

// refuse reports a key if it is set at all.
func (b *builder) refuse(path, msg string) {
	if v, ok := b.values[path]; ok {
		b.fail(v.from, path, msg)
	}
}

// blame reports what is wrong with a key at the place where it is set, or else
// where its target or shared quota begins. What follows from another fault is not reported.
func (b *builder) blame(path, msg string) {
	if b.failed[path] {
		return
	}
	from := origin{name: b.layers.name}
	if v, ok := b.values[path]; ok {
		from = v.from
	} else if section, name, _, ok := splitNamed(path); ok {
		from = b.names[section][name]
	}
	b.fail(from, path, msg)
}

// has reports whether any of the keys that name a secret is set, rightly or not.
func (b *builder) has(stem string) bool {
	for _, p := range []string{stem, stem + "_file", stem + "_env"} {
		if _, ok := b.values[p]; ok {
			return true
		}
	}
	return false
}

// checkConfig checks and fills in what concerns several keys.
func (b *builder) checkConfig() {
	c := b.c
	if listensToOthers(c.HTTP.Listen) && !b.has("http.token") {
		b.blame("http.listen", "can be reached by other machines, so callers must present a token; add http.token_file, or listen on 127.0.0.1")
	}
	if (c.NATS.TLSCert == "") != (c.NATS.TLSKey == "") {
		p := "nats.tlscert"
		if c.NATS.TLSCert == "" {
			p = "nats.tlskey"
		}
		b.blame(p, "nats.tlscert and nats.tlskey go together; set both or none")
	}
	if c.NATS.User == "" && b.has("nats.password") && !c.NATS.Embedded() {
		b.warn("nats.password is set, but nats.user is not: it is not used")
	}
	if c.NATS.Embedded() {
		for _, p := range []string{"nats.creds", "nats.nkey", "nats.user", "nats.tlscert", "nats.tlsca"} {
			if _, ok := b.values[p]; ok {
				b.warn(p + " is set, but neither nats.url nor nats.context: the embedded server takes no notice of it")
			}
		}
		if c.NATS.Replicas > 1 {
			b.blame("nats.replicas", "the embedded server is one server; write 0 or 1, or set nats.url")
		}
	}
	b.checkLease()
	b.checkMembers()
	if c.Data == "" {
		if dir, ok := stateDir(b.layers.env); ok {
			c.Data = dir
		} else if c.NATS.Embedded() {
			b.blame("data", "has no default here: neither XDG_STATE_HOME nor HOME is set; name a folder")
		}
	}
}

// checkLease holds the lease against the time-outs: a call that is started must
// be over, at the CRM too, before another process may think itself the owner.
func (b *builder) checkLease() {
	c := b.c
	longest, at := time.Duration(0), ""
	for name, t := range c.Targets {
		if t.Timeout > longest || (t.Timeout == longest && name < at) {
			longest, at = t.Timeout, name
		}
	}
	if _, ok := b.values["nats.lease"]; !ok {
		if least := MinLease(longest); least > defaultLeaseServer {
			c.NATS.Lease = max(longLease, least)
		}
		return
	}
	if least := MinLease(longest); least > c.NATS.Lease && longest > 0 {
		b.blame("nats.lease", fmt.Sprintf("must be at least (targets.%s.timeout + 500ms) * 10/7 = %s, but is %s; raise it, lower the timeout, or leave it out",
			at, short(least), short(c.NATS.Lease)))
	}
}

func stateDir(env environ) (string, bool) {
	// The XDG specification says to ignore relative paths.
	if dir, ok := env.lookup("XDG_STATE_HOME"); ok && filepath.IsAbs(dir) {
		return filepath.Join(dir, "crmsync"), true
	}
	if home, ok := env.lookup("HOME"); ok && filepath.IsAbs(home) {
		return filepath.Join(home, ".local", "state", "crmsync"), true
	}
	return "", false
}
