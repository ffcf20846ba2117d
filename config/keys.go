package config

import (
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
)

const day = 24 * time.Hour

// configKeys are the keys outside targets, in the order they are shown.
var configKeys = slices.Concat([]key[Config]{
	{
		name: "nats.url", env: "NATS_URL", doc: "servers, separated by commas; empty starts the embedded one",
		set: parsed(func(c *Config) *string { return &c.NATS.URL }, text(natsURL)),
	},
	{
		name: "nats.context", env: "NATS_CONTEXT", doc: "a context of the nats CLI, for what is not set here",
		set: parsed(func(c *Config) *string { return &c.NATS.Context }, contextName),
	},
	{
		name: "nats.creds", env: "NATS_CREDS", doc: "credentials file",
		set: parsed(func(c *Config) *string { return &c.NATS.Creds }, path),
	},
	{
		name: "nats.nkey", env: "NATS_NKEY", doc: "file with the seed of an nkey",
		set: parsed(func(c *Config) *string { return &c.NATS.NKey }, path),
	},
	{
		name: "nats.user", env: "NATS_USER", doc: "user name",
		set: parsed(func(c *Config) *string { return &c.NATS.User }, word),
	},
}, secretKeys("nats.password", "password of nats.user", "", "NATS_PASSWORD", false,
	func(c *Config) *Secret { return &c.NATS.Password },
), []key[Config]{
	{
		name: "nats.tlscert", env: "NATS_CERT", doc: "client certificate, PEM file",
		set: parsed(func(c *Config) *string { return &c.NATS.TLSCert }, path),
	},
	{
		name: "nats.tlskey", env: "NATS_KEY", doc: "key of the client certificate, PEM file",
		set: parsed(func(c *Config) *string { return &c.NATS.TLSKey }, path),
	},
	{
		name: "nats.tlsca", env: "NATS_CA", doc: "authorities to trust, PEM file",
		set: parsed(func(c *Config) *string { return &c.NATS.TLSCA }, path),
	},
	{
		name: "nats.tlsfirst", def: "false", doc: "TLS handshake before the server's greeting",
		set: parsed(func(c *Config) *bool { return &c.NATS.TLSFirst }, boolean),
	},
	{
		name: "nats.timeout", env: "NATS_TIMEOUT", def: "5s", doc: "for connecting and for each request",
		set: parsed(func(c *Config) *time.Duration { return &c.NATS.Timeout }, span(100*time.Millisecond, 2*time.Minute)),
	},
	{
		name: "nats.js_domain", doc: "JetStream domain",
		set: parsed(func(c *Config) *string { return &c.NATS.JSDomain }, token),
	},
	{
		name: "nats.inbox_prefix", doc: "in place of _INBOX, where permissions ask for it",
		set: parsed(func(c *Config) *string { return &c.NATS.InboxPrefix }, subject),
	},
	{
		name: "nats.lease", doc: "how long a process owns its targets without renewing; by default 8s on one server and 25s on a cluster, more if a target's timeout needs it",
		set:  parsed(func(c *Config) *time.Duration { return &c.NATS.Lease }, span(2*time.Second, 10*time.Minute)),
		show: func(c *Config) string { return short(c.NATS.Lease) },
	},
	{
		name: "nats.replicas", def: "0", doc: "servers that keep each stream: 1, 3 or 5; 0 follows the size of the cluster",
		set: parsed(func(c *Config) *int { return &c.NATS.Replicas }, replicas),
	},
	{
		name: "nats.durability", def: "auto", doc: "whether the servers sync each write: auto warns unless nats.monitor proves it, always vouches for it, relaxed accepts that a power cut costs updates",
		set: parsed(func(c *Config) *string { return &c.NATS.Durability }, oneOf(DurabilityAuto, DurabilityAlways, DurabilityRelaxed)),
	},
	{
		name: "nats.monitor", list: true, doc: "the servers' monitoring addresses, of each one, which say whether it syncs each write",
		set: parsed(func(c *Config) *[]string { return &c.NATS.Monitor }, monitors),
	},
	{
		name: "data", doc: "folder of the embedded server's store; $XDG_STATE_HOME/crmsync if empty",
		set:  parsed(func(c *Config) *string { return &c.Data }, path),
		show: func(c *Config) string { return c.Data },
	},
	{
		name: "store.min_free", doc: "free space of the store's disk below which updates are not taken: a size, a share of the disk, or off; 512MiB or 10% if empty, whichever is less",
		set: parsed(func(c *Config) *Store { return &c.Store }, minFree),
	},
	{
		name: "http.listen", def: "127.0.0.1:8321", doc: "console, API, metrics and health; off for none",
		set: parsed(func(c *Config) *string { return &c.HTTP.Listen }, text(listenAddress)),
	},
}, secretKeys("http.token", "token that callers must present, needed if others can reach http.listen", "", "", false,
	func(c *Config) *Secret { return &c.HTTP.Token },
), []key[Config]{
	{
		name: "log.level", def: "info", doc: "trace, debug, info, warn or error",
		set: parsed(func(c *Config) *string { return &c.Log.Level }, oneOf("trace", "debug", "info", "warn", "error")),
	},
	{
		name: "log.format", def: "auto", doc: "json, console, or auto: console on a terminal",
		set: parsed(func(c *Config) *string { return &c.Log.Format }, oneOf("auto", "json", "console")),
	},
	{
		name: "drain_timeout", def: "30s", doc: "how long a shutdown waits for calls in flight",
		set: parsed(func(c *Config) *time.Duration { return &c.Drain }, span(time.Second, 10*time.Minute)),
	},
	{
		name: "dead_letters.max_age", doc: "older dead letters are removed, a day or more; empty keeps them for ever",
		set: parsed(func(c *Config) *time.Duration { return &c.DeadLetters.MaxAge }, span(day, 3650*day)),
	},
	{
		name: "dead_letters.max_size", doc: "beyond this size of all dead letters the oldest are removed; empty keeps them all",
		set: parsed(func(c *Config) *int64 { return &c.DeadLetters.MaxSize }, letterSize),
	},
})

// targetKeys are the keys of one target, in the order they are shown.
var targetKeys = slices.Concat([]key[Target]{
	{
		name: "kind", doc: "perfex or evance",
		set: parsed(func(t *Target) *string { return &t.Kind }, oneOf(KindPerfex, KindEvance)),
	},
	{
		name: "url", doc: "the CRM's address, without /api",
		set: parsed(func(t *Target) **url.URL { return &t.URL }, text(targetURL)),
	},
	{
		name: "allow_insecure", def: "false", doc: "permit http:// to another machine",
		set: parsed(func(t *Target) *bool { return &t.AllowInsecure }, boolean),
	},
	{
		name: "allow_private", def: "false", doc: "permit addresses of private networks",
		set: parsed(func(t *Target) *bool { return &t.AllowPrivate }, boolean),
	},
	{
		name: "ca_file", doc: "authorities to trust for this target, PEM file",
		set: parsed(func(t *Target) *string { return &t.CAFile }, path),
	},
}, secretKeys("token", "the API token", KindPerfex, "", false,
	func(t *Target) *Secret { return &t.Token },
), secretKeys("credentials", "the credentials file's JSON", KindEvance, "", true,
	func(t *Target) *Secret { return &t.Credentials },
), []key[Target]{
	{
		name: "client_id", only: KindEvance, doc: "in place of credentials, with private_key",
		set: parsed(func(t *Target) *string { return &t.ClientID }, word),
	},
}, secretKeys("private_key", "key of client_id", KindEvance, "", false,
	func(t *Target) *Secret { return &t.PrivateKey },
), []key[Target]{
	{
		name: "grant", only: KindEvance, def: "auto", doc: "how a token is obtained: client_credentials, jwt, or auto",
		set: parsed(func(t *Target) *string { return &t.Grant }, oneOf("auto", "client_credentials", "jwt")),
	},
	{
		name: "api", doc: "version to speak; perfex: 2, 3 or auto (default), evance: 1 (default) or 2",
		set:  parsed(func(t *Target) *string { return &t.API }, word),
		show: func(t *Target) string { return t.API },
	},
	{
		name: "permissions", only: KindPerfex, list: true, doc: "portal permissions 1 to 6 that every write sets, or clear; must be chosen",
		set: parsed(func(t *Target) *Permissions { return &t.Permissions }, permissions),
	},
	{
		name: "verdicts.token_messages", only: KindPerfex, list: true, doc: "messages that mean the token is refused",
		set: parsed(func(t *Target) *[]string { return &t.Verdicts.TokenMessages }, messages),
	},
	{
		name: "verdicts.missing_messages", only: KindPerfex, list: true, doc: "messages that mean there is no such contact",
		set: parsed(func(t *Target) *[]string { return &t.Verdicts.MissingMessages }, messages),
	},
	{
		name: "verdicts.unchanged_messages", only: KindPerfex, list: true, doc: "messages that mean nothing was changed",
		set: parsed(func(t *Target) *[]string { return &t.Verdicts.UnchangedMessages }, messages),
	},
	{
		name: "timeout", def: "5s", doc: "for one whole HTTP call",
		set: parsed(func(t *Target) *time.Duration { return &t.Timeout }, span(time.Second, 2*time.Minute)),
	},
}, targetQuotaKeys(), []key[Target]{
	{
		name: "retry.attempts", def: "8", doc: "calls made for an update before it is a dead letter",
		set: parsed(func(t *Target) *int { return &t.Retry.Attempts }, whole(1, 100)),
	},
	{
		name: "retry.base", def: "10s", doc: "longest wait before the second attempt; it doubles with each",
		set: parsed(func(t *Target) *time.Duration { return &t.Retry.Base }, span(10*time.Millisecond, day)),
	},
	{
		name: "retry.max", def: "5m", doc: "longest wait before another attempt",
		set: parsed(func(t *Target) *time.Duration { return &t.Retry.Max }, span(10*time.Millisecond, day)),
	},
})

func rate(v value) (float64, error) {
	r, err := ParseRate(v.text)
	if err == nil && r > MaxRate {
		err = fmt.Errorf("%s is more than %d/s", quote(v.text), MaxRate)
	}
	return r, err
}

// letterSize is at least a mebibyte: a smaller limit could not hold a few
// letters of the largest kind.
func letterSize(v value) (int64, error) {
	n, err := ParseByteSize(v.text)
	if err == nil && n < 1<<20 {
		err = errors.New(quote(v.text) + " is less than 1MiB")
	}
	return n, err
}

// minFree takes a size, a share or off.
func minFree(v value) (Store, error) {
	switch {
	case v.text == "off":
		return Store{MinFree: -1}, nil
	case strings.HasSuffix(v.text, "%"):
		share, err := ParsePercent(v.text)
		if err == nil && (share <= 0 || share > 0.9) {
			err = errors.New(quote(v.text) + " is not between 0% and 90%; off for no bound")
		}
		return Store{MinFreeShare: share}, err
	}
	n, err := ParseByteSize(v.text)
	if err != nil || n < 1<<20 {
		return Store{}, errors.New(quote(v.text) + " is no size of 1MiB or more, no share such as 10%, and not off")
	}
	return Store{MinFree: n}, nil
}

// monitors takes the addresses of NATS servers' monitoring.
func monitors(v value) ([]string, error) {
	var out []string
	for _, s := range v.list() {
		u, err := url.Parse(s)
		switch {
		case err != nil || u.Hostname() == "" || u.Scheme != "http" && u.Scheme != "https":
			return nil, errors.New(quote(s) + " is not a monitoring address; write http://host:8222")
		case u.User != nil || u.RawQuery != "" || u.Fragment != "":
			return nil, errors.New("a monitoring address has no user, query or fragment; write http://host:8222")
		}
		out = append(out, strings.TrimSuffix(s, "/"))
	}
	return out, nil
}

func reserve(v value) (float64, error) {
	r, err := ParsePercent(v.text)
	if err == nil && r > 0.9 {
		err = errors.New(quote(v.text) + " is not between 0% and 90%")
	}
	return r, err
}

func replicas(v value) (int, error) {
	n, err := whole(0, 5)(v)
	if err == nil && n != 0 && n%2 == 0 {
		err = fmt.Errorf("%d is an even number of servers; write 1, 3 or 5, or 0 to follow the cluster", n)
	}
	return n, err
}

func contextName(v value) (string, error) {
	if strings.ContainsAny(v.text, "/\\\x00") || strings.HasPrefix(v.text, ".") {
		return "", errors.New(quote(v.text) + " is not the name of a context")
	}
	return word(v)
}

func token(v value) (string, error) {
	if strings.ContainsAny(v.text, " .*>\t\r\n\x00") {
		return "", errors.New(quote(v.text) + " is not a name; without spaces, dots and wildcards")
	}
	return word(v)
}

func subject(v value) (string, error) {
	if v.text == "" {
		return "", nil
	}
	for part := range strings.SplitSeq(v.text, ".") {
		if _, err := token(value{text: part}); part == "" || err != nil {
			return "", errors.New(quote(v.text) + " is not a subject; write names joined by dots, without wildcards")
		}
	}
	return word(v)
}

func permissions(v value) (Permissions, error) {
	hint := "write numbers from 1 to 6, such as [1, 2, 3], or clear"
	items := v.list()
	if len(items) == 1 && items[0] == "clear" && !v.isSeq {
		return Permissions{Clear: true}, nil
	}
	var p Permissions
	for _, item := range items {
		n, err := strconv.Atoi(item)
		if err != nil || n < 1 || n > 6 {
			return Permissions{}, errors.New(quote(item) + " is not a permission; " + hint)
		}
		p.IDs = append(p.IDs, n)
	}
	if len(p.IDs) == 0 {
		return Permissions{}, errors.New("is empty; " + hint)
	}
	slices.Sort(p.IDs)
	p.IDs = slices.Compact(p.IDs)
	return p, nil
}

func messages(v value) ([]string, error) {
	items := v.list()
	for _, item := range items {
		if strings.TrimSpace(item) == "" {
			return nil, errors.New("has an empty message, which would match every answer without one")
		}
	}
	if len(items) == 0 {
		return nil, errors.New("is empty; leave it out for the built-in messages")
	}
	return items, nil
}
