// Command planted asks whether the simulations would notice. It plants one mistake
// after the other in a copy of the sources, runs the simulation of whole workers
// until that finds a broken promise, and the lane's own where it does not; then it
// says for each mistake which seed found it, how, and in what time.
//
// The sources themselves stay as they are: the compiler is shown the changed files
// in their place (go build -overlay).
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"
)

func main() {
	only := flag.String("only", "", "names of mistakes, with commas between; all where empty")
	limit := flag.Duration("limit", 5*time.Minute, "how long each suite looks for one")
	at := flag.Int("parallel", runtime.NumCPU(), "how many are looked for at once")
	list := flag.Bool("list", false, "only say which there are")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	code, err := run(ctx, os.Stdout, options{only: *only, limit: *limit, parallel: *at, list: *list})
	if err != nil {
		fmt.Fprintln(os.Stderr, "planted:", err)
		code = 2
	}
	os.Exit(code)
}

type options struct {
	only     string
	limit    time.Duration
	parallel int
	list     bool
}

// run ends with 1 where a mistake was not found, or where one was that nobody
// planted.
func run(ctx context.Context, out io.Writer, o options) (code int, err error) {
	chosen, err := choose(o.only)
	if err != nil {
		return 2, err
	}
	if o.list {
		for _, p := range chosen {
			fmt.Fprintf(out, "%-24s %s\n", p.name, p.what)
		}
		return 0, nil
	}
	root, err := moduleRoot()
	if err != nil {
		return 2, err
	}
	dir, err := os.MkdirTemp("", "planted")
	if err != nil {
		return 2, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()

	fmt.Fprintf(out, "%-24s %-10s %-8s %6s %6s  %s\n", "MISTAKE", "", "SUITE", "SEED", "TIME", "BY")
	g := garden{root: root, dir: dir, limit: o.limit}
	found := 0
	all := chosen
	if o.only == "" {
		all = append([]plant{{name: "(none)"}}, chosen...) // what it finds then proves nothing
	}
	results := g.each(ctx, all, max(1, o.parallel))
	for r := range results {
		if r.err != nil {
			return 2, fmt.Errorf("%s: %w", r.plant.name, r.err)
		}
		fmt.Fprintln(out, r)
		switch {
		case len(r.plant.edits) == 0 && r.found:
			code = 1 // what is found later may not be what was planted
		case len(r.plant.edits) == 0:
		case r.found:
			found++
		default:
			code = 1
		}
	}
	if ctx.Err() != nil {
		return 2, ctx.Err()
	}
	fmt.Fprintf(out, "%d of %d found\n", found, len(chosen))
	return code, nil
}

func choose(names string) ([]plant, error) {
	if names == "" {
		return plants, nil
	}
	var out []plant
	for _, name := range strings.Split(names, ",") {
		i := slices.IndexFunc(plants, func(p plant) bool { return p.name == strings.TrimSpace(name) })
		if i < 0 {
			return nil, fmt.Errorf("no mistake %q; -list says which there are", name)
		}
		out = append(out, plants[i])
	}
	return out, nil
}

func moduleRoot() (string, error) {
	out, err := exec.Command("go", "env", "GOMOD").Output()
	if err != nil {
		return "", fmt.Errorf("go env GOMOD: %w", err)
	}
	mod := strings.TrimSpace(string(out))
	if filepath.Base(mod) != "go.mod" {
		return "", errors.New("run it inside the module")
	}
	return filepath.Dir(mod), nil
}

// each looks for plants, so many at once, and tells of them in their order.
func (g *garden) each(ctx context.Context, all []plant, parallel int) <-chan result {
	done := make([]chan result, len(all))
	next := make(chan int, len(all))
	for i := range all {
		done[i] = make(chan result, 1)
		next <- i
	}
	close(next)
	var looking sync.WaitGroup
	for range parallel {
		looking.Go(func() {
			for i := range next {
				done[i] <- g.look(ctx, all[i])
			}
		})
	}
	out := make(chan result)
	go func() {
		defer close(out)
		for i := range done {
			out <- <-done[i]
		}
		looking.Wait()
	}()
	return out
}
