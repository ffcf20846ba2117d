// Package config reads what the operator wrote, fills in the defaults, refuses
// what cannot work, and shows what is in force and where it came from.
//
// Three layers are laid over each other, per key: what flags say wins over the
// environment, that over the YAML file, and that over the default. All of it
// is validated together, and every fault is reported at once with its key path
// and line, so that a file is put right in one go.
//
// Secrets are only ever references (see [Secret]): a Config can be printed,
// logged or shown on a page without giving one away.
package config

import (
	_ "embed"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/url"
	"os"
	"strings"
	"time"
)

// Example is a configuration file with every key, its default and what it is
// for, in YAML. It loads as it stands, given its secrets' references resolve
// lazily.
//
//go:embed example.yaml
var Example []byte

// MaxFileSize is the size in bytes beyond which a configuration file is refused
// unread.
const MaxFileSize = 1 << 20

// MinLease is the shortest lease under which calls of that time-out can always
// start: of a lease up to a sixth has gone since the last renewal and an eighth
// is kept for clocks that run apart, and a call must end half a second before
// the rest does.
func MinLease(timeout time.Duration) time.Duration {
	return ((timeout + 500*time.Millisecond) * 10 / 7).Round(10 * time.Millisecond)
}

// The lease when the operator gives none and a target's time-out is too long for
// the queue's own default (8 s on one server, 25 s on a cluster).
const (
	defaultLeaseServer = 8 * time.Second
	longLease          = 25 * time.Second
)

// Config is the whole configuration, validated. Only [Load] and [Parse] make a
// usable one. It is not safe to call Set while others read.
type Config struct {
	// NATS says where the queue is.
	NATS NATS
	// Data is the folder of the embedded server's store: absolute, or relative
	// to the working directory.
	Data string
	// Store says how the embedded server's store is kept.
	Store Store
	// HTTP says where console, API, metrics and health are served.
	HTTP HTTP
	// Log says what is logged and how.
	Log Log
	// Drain is how long a shutdown waits for calls in flight; 1 s to 10 min.
	Drain time.Duration
	// DeadLetters says how long dead letters are kept.
	DeadLetters DeadLetters
	// Targets are the CRM installations by name.
	Targets map[string]Target
	// Quotas are those that several targets share, by name, each beside its
	// targets' own. Their Concurrency is 0: that is a target's own matter. A
	// Rate of 0 is no limit on the rate.
	Quotas map[string]Quota

	layers   *layers
	shown    []Setting
	named    map[string]origin // where each secret is named, by stem
	warnings []string
}

// NATS says how to reach the NATS servers, in the words of the nats CLI. With
// neither URL nor Context the embedded server is meant.
type NATS struct {
	// URL is one server URL or several, separated by commas. It never contains
	// a user, password or token.
	URL string
	// Context is the name of a nats CLI context, which fills in what the other
	// fields leave empty.
	Context string
	// Creds, NKey, TLSCert, TLSKey and TLSCA are paths of files, empty if unused.
	Creds, NKey, TLSCert, TLSKey, TLSCA string
	// TLSFirst makes the TLS handshake before the server's greeting.
	TLSFirst bool
	// User goes with Password.
	User string
	// Password is the password of User.
	Password Secret
	// Timeout bounds connecting and each request; 100 ms to 2 min.
	Timeout time.Duration
	// JSDomain is the JetStream domain, empty for the server's own.
	JSDomain string
	// InboxPrefix replaces _INBOX, for servers whose permissions separate inboxes.
	InboxPrefix string
	// Lease is how long a process owns its targets without renewing: 2 s to
	// 10 min and at least MinLease of every target's time-out, or 0 for the
	// queue's default.
	Lease time.Duration
	// Replicas is how many servers keep each stream: 1, 3 or 5, or 0 to follow
	// the size of the cluster.
	Replicas int
	// Durability is DurabilityAuto, DurabilityAlways or DurabilityRelaxed.
	Durability string
	// Monitor are the addresses, http or https, at which the servers say how
	// they are; without a slash at the end.
	Monitor []string
}

// What is known of whether the servers sync each write before they confirm it.
const (
	DurabilityAuto    = "auto"    // nothing; NATS.Monitor may prove it
	DurabilityAlways  = "always"  // the operator vouches for it
	DurabilityRelaxed = "relaxed" // they need not, and the operator knows what that means
)

// Store says how the embedded server's store is kept.
type Store struct {
	// MinFree is the free space of its disk, in bytes, below which updates are
	// not taken; below 0 there is no such bound. MinFreeShare is the same as a
	// share of the disk. With both 0 it is the queue's default.
	MinFree      int64
	MinFreeShare float64
}

// Embedded reports whether the process is to start its own NATS server.
func (n NATS) Embedded() bool { return n.URL == "" && n.Context == "" }

// HTTP says where the console, the API, the metrics and the health checks are
// served.
type HTTP struct {
	// Listen is host:port, or empty for no listener at all. An address that
	// others can reach is refused without a Token.
	Listen string
	// Token is what callers must present; zero for none.
	Token Secret
}

// Log says what is logged and how.
type Log struct {
	// Level is trace, debug, info, warn or error.
	Level string
	// Format is json, console, or auto: console on a terminal, else json.
	Format string
}

// DeadLetters limits what is kept of dead letters. The zero value keeps all for
// ever: nothing is removed that nobody asked to have removed.
type DeadLetters struct {
	// MaxAge is how old a letter may become, a day to ten years; 0 for no limit.
	MaxAge time.Duration
	// MaxSize is how many bytes all letters may take, at least 1 MiB; 0 for no
	// limit.
	MaxSize int64
}

// Kinds of targets.
const (
	KindPerfex = "perfex"
	KindEvance = "evance"
)

// Target is one CRM installation to write to.
type Target struct {
	// Name is 1 to 32 characters a-z, 0-9 and dash.
	Name string
	// Kind is KindPerfex or KindEvance.
	Kind string
	// URL is the CRM's address without /api and without a trailing slash.
	URL *url.URL
	// AllowInsecure permits plain http to another machine.
	AllowInsecure bool
	// AllowPrivate permits addresses of private networks.
	AllowPrivate bool
	// CAFile is a PEM file of the authorities to trust instead of the system's;
	// empty for those of the system.
	CAFile string

	// Token is Perfex's authtoken.
	Token Secret
	// Credentials is Evance's credentials file (JSON: account, client_id,
	// private_key, algorithm); zero if ClientID and PrivateKey are given.
	Credentials Secret
	// ClientID goes with PrivateKey, in place of Credentials.
	ClientID string
	// PrivateKey is the key of ClientID: the 64 hexadecimal digits as they are.
	PrivateKey Secret
	// Grant is how an Evance access token is obtained: auto,
	// client_credentials or jwt.
	Grant string

	// API is the version to speak. Perfex: auto, 2 or 3. Evance: 1 or 2.
	API string
	// Permissions is what each Perfex write says about the portal permissions,
	// which a write without them would remove.
	Permissions Permissions
	// Verdicts are the Perfex messages to go by where an installation's differ.
	Verdicts Verdicts

	// Timeout bounds one whole HTTP call; 1 s to 2 min.
	Timeout time.Duration
	// Quota is the limit all processes together stay within.
	Quota Quota
	// QuotaGroup names the one of Config.Quotas that this target's requests
	// count against too; empty for none.
	QuotaGroup string
	// Retry says when a failed update is tried again.
	Retry Retry
}

// Permissions is what a Perfex contact's portal permissions are set to by every
// write. They are in no answer of the API and a write without them removes them
// (crm-apis A4, A8), so there is nothing to preserve them from: a target must
// say what it wants.
type Permissions struct {
	// IDs are distinct numbers 1 to 6, rising; empty if Clear.
	IDs []int
	// Clear says that contacts are to have none.
	Clear bool
}

// Verdicts are message texts by which a Perfex answer is read, in place of the
// usual ones; installations are translated and forked. Nil leaves a list as it
// is built in.
type Verdicts struct {
	// TokenMessages say that the token is refused.
	TokenMessages []string
	// MissingMessages say that the contact does not exist.
	MissingMessages []string
	// UnchangedMessages say that nothing was changed.
	UnchangedMessages []string
}

// Retry says when an update that failed for a reason of its own is tried again.
type Retry struct {
	// Attempts is how many calls are made for an update; 1 to 100.
	Attempts int
	// Base and Max bound the waits between them, Base <= Max; 10 ms to 24 h.
	Base, Max time.Duration
}

// Load reads the file at path, or none if path is empty, and lays the
// environment (as [os.Environ] has it) and the overrides over it. The error is
// an [Errors] holding everything that is wrong; with it comes no Config. A
// missing file satisfies errors.Is(err, [fs.ErrNotExist]).
func Load(path string, env []string, overrides ...Override) (*Config, error) {
	if path == "" {
		return Parse("", nil, env, overrides...)
	}
	data, warning, err := readFile(path)
	if err != nil {
		return nil, Errors{{File: path, Msg: err.Error(), cause: err}}
	}
	c, err := Parse(path, data, env, overrides...)
	if c != nil && warning != "" {
		c.warnings = append([]string{warning}, c.warnings...)
		c.layers.warning = warning
	}
	return c, err
}

// Parse is Load for a file already read. The name stands in error messages, and
// relative paths in the file are taken from its folder.
func Parse(name string, yaml []byte, env []string, overrides ...Override) (*Config, error) {
	l := &layers{name: name, env: newEnviron(env), set: overrides}
	var errs Errors
	l.file, errs = decode(name, yaml)
	c, more := l.build()
	if errs = append(errs, more...); len(errs) > 0 {
		return nil, errs.sorted()
	}
	return c, nil
}

// Override is one key set by a flag.
type Override struct {
	// Path is the key, such as targets.office.quota.rate.
	Path string
	// Value is written as in the file; a list as [a, b] or a, b.
	Value string
	// Flag is the flag's name for messages; empty means --set.
	Flag string
}

// ParseOverride reads path=value, the argument of --set.
func ParseOverride(s string) (Override, error) {
	path, value, ok := strings.Cut(s, "=")
	if !ok || path == "" {
		return Override{}, errors.New("--set needs path=value, such as targets.office.quota.rate=2/s")
	}
	return Override{Path: path, Value: value}, nil
}

// Set overrides one key as a flag would and validates the whole again. If it
// then does not hold, the error is an [Errors] and c stays as it was.
func (c *Config) Set(path, value string) error {
	l := *c.layers
	l.set = append(append([]Override(nil), l.set...), Override{Path: path, Value: value})
	changed, errs := l.build()
	if len(errs) > 0 {
		return errs.sorted()
	}
	*c = *changed
	return nil
}

// Warnings are things that work but that the operator should know about, one
// sentence each.
func (c *Config) Warnings() []string { return append([]string(nil), c.warnings...) }

// readFile reads a configuration file. Whoever can write it decides where tokens
// are sent, so a file that anybody can write is refused; a group that can write
// it is only warned of, being how some systems set up every user's own group.
func readFile(path string) (data []byte, warning string, err error) {
	info, err := os.Stat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, "", fmt.Errorf("%w; create it, or name another, or none to run with the defaults", fs.ErrNotExist)
	case err != nil:
		return nil, "", reason(err)
	case info.IsDir():
		return nil, "", errors.New("is a folder, not a configuration file")
	case info.Mode().IsRegular() && info.Mode().Perm()&0o002 != 0:
		return nil, "", errors.New("can be written by everybody, who could so send the tokens elsewhere; run: chmod o-w " + path)
	case info.Mode().IsRegular() && info.Mode().Perm()&0o020 != 0:
		warning = path + ": can be written by its group; if that is not wanted, run: chmod g-w " + path
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, "", reason(err)
	}
	defer f.Close()
	data, err = io.ReadAll(io.LimitReader(f, MaxFileSize+1))
	if err != nil {
		return nil, "", reason(err)
	}
	return data, warning, nil
}

// reason drops operation and path from an error about a file, for messages that
// have named it already, or must not.
func reason(err error) error {
	var pe *fs.PathError
	if errors.As(err, &pe) {
		return pe.Err
	}
	return err
}
