package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/rs/zerolog"
	"golang.org/x/term"

	"crmsync/app"
)

// cli is the whole command line. One command, one file.
type cli struct {
	Globals

	Demo    demoCmd    `cmd:"" help:"See it work: embedded NATS, emulated CRMs, a bad day; about 20 s, nothing leaves this machine."`
	Run     runCmd     `cmd:"" help:"Run the worker, and NATS with it where no server is named."`
	Import  importCmd  `cmd:"" help:"Queue the rows of a CSV or NDJSON file."`
	Publish publishCmd `cmd:"" help:"Queue one update."`
	Status  statusCmd  `cmd:"" help:"What each target does, and what it waits for."`
	Jobs    jobsCmd    `cmd:"" help:"How imports stand; pause, cancel and export them."`
	Dead    deadCmd    `cmd:"" help:"Updates that could not be applied: why, and what to do about them."`
	Why     whyCmd     `cmd:"" help:"A contact's whole story, and what it waits for."`
	Forget  forgetCmd  `cmd:"" help:"Remove a person from queue, dead letters and outcomes."`
	Audit   auditCmd   `cmd:"" help:"Who did what, and when."`
	Hold    holdCmd    `cmd:"" help:"Make a target's lane send nothing."`
	Resume  resumeCmd  `cmd:"" help:"End a hold; a lane that holds by itself tries at once."`
	Rate    rateCmd    `cmd:"" help:"Show a target's quota, or change it while it runs."`
	Check   checkCmd   `cmd:"" help:"Check configuration, secrets, NATS and lanes."`
	Store   storeCmd   `cmd:"" help:"How the store is; give up what is missing from it."`
	Setup   setupCmd   `cmd:"" help:"Create the streams and buckets, or print them."`
	Emulate emulateCmd `cmd:"" help:"Serve an emulated CRM for tests."`
	Schema  schemaCmd  `cmd:"" help:"Print the JSON Schema of an update."`
	Version versionCmd `cmd:"" help:"Print the version."`
}

// Globals are the flags that every command has. The NATS ones are named as
// the nats command names them; their environment variables (NATS_URL,
// NATS_CREDS and so on) are read with the configuration.
type Globals struct {
	Config   string        `short:"c" placeholder:"FILE" env:"CRMSYNC_CONFIG" help:"Configuration file (default: crmsync.yaml here, then in the user's configuration folder)."`
	Set      []string      `placeholder:"KEY=VALUE" sep:"none" help:"Override one configuration key, such as targets.office.quota.rate=2/s. Repeatable."`
	Data     string        `placeholder:"DIR" help:"Folder of the embedded server's store."`
	Server   string        `short:"s" placeholder:"URL" group:"NATS" help:"NATS servers, separated by commas (NATS_URL)."`
	Context  string        `placeholder:"NAME" group:"NATS" help:"Context of the nats command (NATS_CONTEXT)."`
	Creds    string        `placeholder:"FILE" group:"NATS" help:"Credentials file (NATS_CREDS)."`
	Nkey     string        `placeholder:"FILE" group:"NATS" help:"NKey seed file (NATS_NKEY)."`
	User     string        `placeholder:"NAME" group:"NATS" help:"User (NATS_USER); the password is taken from NATS_PASSWORD."`
	TLSCert  string        `name:"tlscert" placeholder:"FILE" group:"NATS" help:"TLS certificate (NATS_CERT)."`
	TLSKey   string        `name:"tlskey" placeholder:"FILE" group:"NATS" help:"TLS key (NATS_KEY)."`
	TLSCA    string        `name:"tlsca" placeholder:"FILE" group:"NATS" help:"TLS authorities (NATS_CA)."`
	TLSFirst bool          `name:"tlsfirst" group:"NATS" help:"TLS handshake before the server's greeting."`
	Timeout  time.Duration `placeholder:"DURATION" group:"NATS" help:"Time-out of NATS requests (NATS_TIMEOUT)."`
	JSDomain string        `name:"js-domain" placeholder:"NAME" group:"NATS" help:"JetStream domain."`
	JSON     bool          `name:"json" help:"Answer in JSON."`
	Quiet    bool          `short:"q" help:"No progress, warnings only."`
	LogLevel string        `placeholder:"LEVEL" help:"trace, debug, info, warn or error."`

	std   std             `kong:"-"`
	again context.Context `kong:"-"` // ends with the second signal
}

// overrides are the flags that stand for configuration keys.
func (g *Globals) overrides() []string {
	out := append([]string(nil), g.Set...)
	for _, f := range []struct{ key, value string }{
		{"data", g.Data},
		{"nats.url", g.Server},
		{"nats.context", g.Context},
		{"nats.creds", g.Creds},
		{"nats.nkey", g.Nkey},
		{"nats.user", g.User},
		{"nats.tlscert", g.TLSCert},
		{"nats.tlskey", g.TLSKey},
		{"nats.tlsca", g.TLSCA},
		{"nats.js_domain", g.JSDomain},
		{"log.level", g.LogLevel},
	} {
		if f.value != "" {
			out = append(out, f.key+"="+f.value)
		}
	}
	if g.TLSFirst {
		out = append(out, "nats.tlsfirst=true")
	}
	if g.Timeout > 0 {
		out = append(out, "nats.timeout="+g.Timeout.String())
	}
	return out
}

// configPath is the file to read: the one that was named, or the first that is
// there, or none.
func (g *Globals) configPath() string {
	if g.Config != "" {
		return g.Config
	}
	places := []string{"crmsync.yaml"}
	if dir, err := os.UserConfigDir(); err == nil {
		places = append(places, filepath.Join(dir, "crmsync", "crmsync.yaml"))
	}
	for _, p := range places {
		if _, err := os.Stat(p); err == nil {
			return p
		}
	}
	return ""
}

// open reads the configuration and connects.
func (g *Globals) open(ctx context.Context, o app.Options) (*app.App, error) {
	cfg, err := app.LoadConfig(g.configPath(), g.std.env, g.overrides())
	if err != nil {
		return nil, err
	}
	o.Version = version
	o.Log = g.logger(cfg.Log.Level, cfg.Log.Format)
	for _, w := range cfg.Warnings() {
		o.Log.Warn().Msg(w)
	}
	return app.Open(ctx, cfg, o)
}

// with runs f on an open connection. Commands that are not the worker log
// warnings only: what they have to say, they print.
func (g *Globals) with(ctx context.Context, f func(*app.App) error) error {
	if g.LogLevel == "" {
		g.LogLevel = "warn"
	}
	a, err := g.open(ctx, app.Options{})
	if err != nil {
		return err
	}
	err = f(a)
	if e := a.Close(); err == nil {
		err = e
	}
	return err
}

// logger writes to stderr: JSON, or coloured lines on a terminal.
func (g *Globals) logger(level, format string) zerolog.Logger {
	var w io.Writer = g.std.err
	if format == "console" || format == "auto" && isTerminal(g.std.err) {
		w = zerolog.ConsoleWriter{Out: g.std.err, TimeFormat: time.TimeOnly, NoColor: g.plain(g.std.err)}
	}
	l, err := zerolog.ParseLevel(level)
	if err != nil {
		l = zerolog.InfoLevel
	}
	if g.Quiet {
		l = max(l, zerolog.WarnLevel)
	}
	logger := zerolog.New(w).Level(l).With().Timestamp().Logger()
	log.SetFlags(0)
	log.SetOutput(stray{logger})
	return logger
}

// stray takes what libraries write to the standard logger. net/http writes
// bytes there that it received unasked: they are cut off.
type stray struct{ log zerolog.Logger }

func (s stray) Write(b []byte) (int, error) {
	text, _, _ := strings.Cut(strings.TrimSpace(string(b)), " starting with ")
	s.log.Warn().Str("text", printable(text)).Msg("a library has something to say")
	return len(b), nil
}

func isTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}

// plain says that nothing but text may be written: no colours, no cursor.
func (g *Globals) plain(w io.Writer) bool {
	return !isTerminal(w) || g.getenv("NO_COLOR") != "" || g.getenv("TERM") == "dumb"
}

func (g *Globals) getenv(name string) string {
	for i := len(g.std.env) - 1; i >= 0; i-- {
		if v, ok := strings.CutPrefix(g.std.env[i], name+"="); ok {
			return v
		}
	}
	return ""
}

// printJSON writes the answer as one indented JSON value.
func (g *Globals) printJSON(v any) error {
	e := json.NewEncoder(g.std.out)
	e.SetIndent("", "  ")
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		return fmt.Errorf("write the answer: %w", err)
	}
	return nil
}

func (g *Globals) say(format string, a ...any) {
	if !g.Quiet {
		fmt.Fprintf(g.std.err, format+"\n", a...)
	}
}

// whoami names the person for the record: the OS user.
func (g *Globals) whoami() string {
	for _, name := range []string{"SUDO_USER", "USER", "LOGNAME"} {
		if v := g.getenv(name); v != "" {
			return v
		}
	}
	return fmt.Sprintf("uid %d", os.Getuid())
}
