package config

import (
	"slices"
	"strings"
)

// Setting is one key as it is in force.
type Setting struct {
	// Path of the key, such as targets.office.quota.rate.
	Path string `json:"path"`
	// Value as one would write it; of a secret, where it is and never what.
	Value string `json:"value"`
	// Source is where it comes from: "flag --set", "env NAME", "file:line" or
	// "default".
	Source string `json:"source"`
}

// Show lists what is in force and where it comes from, in the order of the
// example and targets by name. Keys that are not set and have no default are
// left out.
func (c *Config) Show() []Setting { return slices.Clone(c.shown) }

// showing is what the key says of itself, if it does.
func showing[T any](k key[T], t *T) string {
	if k.show == nil {
		return ""
	}
	return k.show(t)
}

func (b *builder) show(path, def, secret, effective string) {
	v, ok := b.values[path]
	s := Setting{Path: path, Value: v.text, Source: v.from.String()}
	if !ok {
		s.Value = def
	}
	if effective != "" {
		s.Value = effective
	}
	if secret != "" {
		stem := strings.TrimSuffix(strings.TrimSuffix(path, "_file"), "_env")
		if !ok || b.secrets[stem].from != v.from {
			return // another key names the secret
		}
		if path == stem {
			s.Value = "(secret)"
		}
	}
	if s.Value != "" || ok {
		b.c.shown = append(b.c.shown, s)
	}
}

// CheckSecrets reads every secret once and reports those that cannot be read,
// each at the line that names it, as an [Errors]; nil if all can. It is for the
// start and for a check by hand: Load does not need the secrets, so that commands
// that send nothing work without them.
func (c *Config) CheckSecrets() error {
	var errs Errors
	check := func(path string, s Secret) {
		if s.IsZero() {
			return
		}
		if _, err := s.Read(); err != nil {
			e := Error{Path: path, Msg: err.Error(), cause: err}
			if v, ok := c.named[path]; ok {
				e.File, e.Line = v.name, v.line
			}
			errs = append(errs, e)
		}
	}
	check("nats.password", c.NATS.Password)
	check("http.token", c.HTTP.Token)
	for name, t := range c.Targets {
		check("targets."+name+".token", t.Token)
		check("targets."+name+".credentials", t.Credentials)
		check("targets."+name+".private_key", t.PrivateKey)
	}
	if len(errs) > 0 {
		return errs.sorted()
	}
	return nil
}
