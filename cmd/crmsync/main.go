// Command crmsync applies contact updates that wait in NATS JetStream to a
// CRM: in order, once, within the CRM's limits, or as dead letters that say
// why.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strconv"
	"syscall"

	"github.com/alecthomas/kong"

	"crmsync/app"
)

// version is set by the build: -ldflags '-X main.version=v1.2.3'.
var version = "dev"

// Exit codes.
const (
	exitOK          = 0
	exitFailure     = 1
	exitUsage       = 2
	exitRejects     = 3 // finished, with rejected rows or dead letters
	exitUnreachable = 4 // NATS
	exitRefused     = 5 // a target refuses our credentials
	exitInterrupted = 130
)

// exitError ends the program with a code of its own.
type exitError struct {
	code int
	err  error // nil: everything has been said
}

func (e *exitError) Error() string {
	if e.err == nil {
		return fmt.Sprintf("exit %d", e.code)
	}
	return e.err.Error()
}

func (e *exitError) Unwrap() error { return e.err }

// std is where a command reads and writes: stdout is the answer, stderr is
// everything else.
type std struct {
	in       io.Reader
	out, err io.Writer
	env      []string
}

func main() {
	os.Exit(run(os.Args[1:], std{in: os.Stdin, out: os.Stdout, err: os.Stderr, env: os.Environ()}))
}

// run carries out one command line and returns its exit code.
func run(args []string, s std) int {
	var c cli
	code := -1
	parser, err := kong.New(&c,
		kong.Name("crmsync"),
		kong.Description("Applies contact updates that wait in NATS JetStream to a CRM: in order, once, within its limits."),
		kong.UsageOnError(),
		kong.Writers(s.out, s.err),
		kong.Exit(func(n int) { code = n }),
		kong.ConfigureHelp(kong.HelpOptions{Compact: true, NoExpandSubcommands: true}),
		helpVars,
	)
	if err != nil {
		fmt.Fprintln(s.err, "crmsync:", err)
		return exitFailure
	}
	if len(args) == 0 {
		args = []string{"--help"}
	}
	k, err := parser.Parse(args)
	if code >= 0 {
		return code // --help and the like have been served
	}
	if err != nil {
		fmt.Fprintf(s.err, "crmsync: %v\nRun `crmsync --help` for the commands, `crmsync <command> --help` for one.\n", err)
		return exitUsage
	}
	ctx, again, stop := signals()
	defer stop()
	c.Globals.std, c.Globals.again = s, again
	k.BindTo(ctx, (*context.Context)(nil))
	return c.Globals.exit(ctx, k.Run(&c.Globals))
}

// signals gives a context that the first SIGINT or SIGTERM ends, and one that
// the second ends.
func signals() (first, second context.Context, stop func()) {
	first, cancelFirst := context.WithCancel(context.Background())
	second, cancelSecond := context.WithCancel(context.Background())
	ch := make(chan os.Signal, 2)
	signal.Notify(ch, syscall.SIGINT, syscall.SIGTERM)
	done := make(chan struct{})
	go func() {
		for _, cancel := range []func(){cancelFirst, cancelSecond} {
			select {
			case <-ch:
				cancel()
			case <-done:
				return
			}
		}
	}()
	return first, second, func() {
		signal.Stop(ch)
		close(done)
		cancelFirst()
		cancelSecond()
	}
}

// exit says what is wrong and finds the exit code for it.
func (g *Globals) exit(ctx context.Context, err error) int {
	var own *exitError
	switch {
	case err == nil:
		return exitOK
	case errors.As(err, &own):
		if own.err != nil {
			g.complain(own.err)
		}
		return own.code
	case ctx.Err() != nil && errors.Is(err, context.Canceled):
		fmt.Fprintln(g.std.err, "crmsync: interrupted")
		return exitInterrupted
	}
	g.complain(err)
	switch {
	case app.IsConfigError(err):
		return exitUsage
	case errors.Is(err, app.ErrUnreachable):
		return exitUnreachable
	}
	return exitFailure
}

func (g *Globals) complain(err error) { fmt.Fprintln(g.std.err, "crmsync:", err) }

// helpVars are values that the flags' help speaks of.
var helpVars = kong.Vars{"version": version, "redrive_rate": strconv.Itoa(app.DefaultRedriveRate)}
