package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"crmsync/app"
)

// errNotConfirmed ends a command that was not allowed to go on: nothing was
// done.
var errNotConfirmed = &exitError{exitFailure, errors.New("not confirmed: nothing was done")}

// answer asks a question on stderr and reads one line of stdin.
func (g *Globals) answer(format string, a ...any) (string, error) {
	fmt.Fprintf(g.std.err, format+" ", a...)
	line, err := bufio.NewReader(g.std.in).ReadString('\n')
	if !isTerminalIn(g.std.in) {
		fmt.Fprintln(g.std.err) // nobody typed the line's end
	}
	if err != nil && (line == "" || !errors.Is(err, io.EOF)) {
		return "", &exitError{exitUsage, errors.New("there was no answer; with --yes it is not asked")}
	}
	return strings.TrimSpace(line), nil
}

// confirm asks for a yes.
func (g *Globals) confirm(format string, a ...any) error {
	said, err := g.answer(format+" [y/N]", a...)
	if err != nil {
		return err
	}
	switch strings.ToLower(said) {
	case "y", "yes":
		return nil
	}
	return errNotConfirmed
}

func isTerminalIn(r io.Reader) bool {
	f, ok := r.(*os.File)
	return ok && isTerminal(f)
}

// who is the person for the record: the OS user at this host.
func (g *Globals) who() app.Who {
	by := g.whoami()
	if host, err := os.Hostname(); err == nil {
		by += "@" + host
	}
	return app.Who{By: by, Via: "cli"}
}

// chosen refuses a command that would act upon every letter there is without
// having been told so.
func chosen(ids []uint64, f app.DeadFilter, all bool) error {
	switch {
	case len(ids) > 0 && (all || !f.IsZero()):
		return &exitError{exitUsage, errors.New("name letters by their ids, or choose them with a filter, not both")}
	case len(ids) == 0 && f.IsZero() && !all:
		return &exitError{exitUsage, errors.New("name letters by their ids, choose them with a filter such as --group, or say --all")}
	}
	return nil
}
