package config

import (
	"regexp"
	"slices"
	"strings"
)

const envPrefix = "CRMSYNC_"

// environ is a process environment as [os.Environ] gives it. It is a function so
// that package fmt, which follows pointers when it is given a wrong verb, finds
// no secrets behind a Config.
type environ func() map[string]string

func newEnviron(env []string) environ {
	vars := make(map[string]string, len(env))
	for _, kv := range env {
		if name, v, ok := strings.Cut(kv, "="); ok {
			vars[name] = v
		}
	}
	return func() map[string]string { return vars }
}

func (e environ) lookup(name string) (string, bool) {
	v, ok := e()[name]
	return v, ok
}

// serviceLink matches the variables that Kubernetes sets in every pod for a
// service named crmsync or crmsync-something.
var serviceLink = regexp.MustCompile(`(^|_)(SERVICE_HOST|SERVICE_PORT(_[A-Z0-9_]+)?|PORT(_[0-9]+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)?)$`)

// fromEnv reads the variables that set keys: the nats CLI's, then ours, which
// win. An empty variable counts as unset, as shells and compose files cannot
// leave one out. The names in known, by section, are those there are already; a
// variable of another makes a target or a shared quota.
func (e environ) fromEnv(known map[string]map[string]int) (map[string]value, Errors, []string) {
	vars, out := e(), map[string]value{}
	for _, k := range configKeys {
		if text := vars[k.env]; k.env != "" && text != "" {
			out[k.name] = value{text: text, from: origin{layer: layerNATSEnv, name: k.env}}
		}
	}
	var errs Errors
	var warnings []string
	names := make([]string, 0, len(vars))
	for name := range vars {
		if strings.HasPrefix(name, envPrefix) && vars[name] != "" && name != envPrefix+"CONFIG" {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	for _, name := range names {
		if path, ok := envPath(name, known); ok {
			out[path] = value{text: vars[name], from: origin{layer: layerEnv, name: name}}
			continue
		}
		if serviceLink.MatchString(strings.TrimPrefix(name, envPrefix)) {
			continue
		}
		near := suggest(name, schema.envs)
		if section, rest, ok := envSection(name); ok {
			near = nearNamed(section, rest, known[section])
		}
		hint := ""
		if near != "" {
			hint = "; did you mean " + near + "?"
		}
		if ourSection.MatchString(name) {
			errs = append(errs, Error{File: "env " + name, Msg: "is the variable of no key" + hint})
		} else if near != "" {
			// It may be a secret's that a token_env names, or a script's own.
			warnings = append(warnings, "env "+name+": sets nothing"+hint)
		}
	}
	return out, errs, warnings
}

// ourSection matches variables that can only be meant for a key.
var ourSection = regexp.MustCompile("^" + envPrefix + "(NATS|HTTP|LOG|TARGETS|QUOTAS)_")

// envSection splits the variable of a key in a named section.
func envSection(name string) (section, rest string, ok bool) {
	for _, section := range named {
		if rest, ok := strings.CutPrefix(name, envPrefix+strings.ToUpper(section)+"_"); ok {
			return section, rest, true
		}
	}
	return "", "", false
}

// envPath is the path of the key that a variable sets. Dashes and the dots
// between the parts of a path are all underscores in it, so a name that there
// is already goes before one that the variable would make, and the longest key
// before the others.
func envPath(name string, known map[string]map[string]int) (string, bool) {
	section, rest, ok := envSection(name)
	if !ok {
		path, ok := schema.byEnv[name]
		return path, ok
	}
	best, bestLen, bestKnown := "", 0, false
	for _, k := range schema.below[section] {
		suffix := "_" + envName(k)
		head, ok := strings.CutSuffix(rest, suffix)
		chosen := strings.ToLower(strings.ReplaceAll(head, "_", "-"))
		if !ok || checkName(section, chosen) != nil {
			continue
		}
		_, isKnown := known[section][chosen]
		if (isKnown && !bestKnown) || (isKnown == bestKnown && len(suffix) > bestLen) {
			best, bestLen, bestKnown = section+"."+chosen+"."+k, len(suffix), isKnown
		}
	}
	return best, best != ""
}

// nearNamed is the variable that CRMSYNC_<SECTION>_<rest> was probably meant to
// be, or "".
func nearNamed(section, rest string, known map[string]int) string {
	var candidates []string
	for name := range known {
		for _, k := range schema.below[section] {
			candidates = append(candidates, envName(name+"."+k))
		}
	}
	slices.Sort(candidates)
	if s := suggest(rest, candidates); s != "" {
		return envPrefix + strings.ToUpper(section) + "_" + s
	}
	return ""
}
