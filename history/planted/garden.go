package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"
)

// garden is where mistakes are planted and looked for.
type garden struct {
	root  string // of the module
	dir   string // for what it makes
	limit time.Duration
}

// suite is a test that may find a mistake: it goes on until something breaks a
// promise.
type suite struct {
	name, pkg string
	flags     []string
}

var suites = []suite{
	{"workers", "app", []string{"-test.run=^TestSimulation$", "-test.v", "-sim.stop", "-sim.seeds=100000"}},
	{"lane", "worker", []string{"-test.run=^TestSimulation$", "-test.v", "-test.failfast", "-sim.seeds=100000"}},
	{"plans", "worker", []string{"-test.run=^TestPlans$", "-rapid.checks=100000000", "-rapid.nofailfile"}},
	{"queue", "queue", []string{"-test.run=^TestSimulation$", "-test.v", "-test.failfast", "-sim.seeds=100000"}},
	// What no simulation met is left to the tests of each part.
	{"tests", "worker", []string{"-test.short", "-test.failfast", "-test.skip=^(TestSimulation|TestPlans)$"}},
	{"tests", "queue", []string{"-test.short", "-test.failfast", "-test.skip=^TestSimulation$"}},
}

// result is what came of looking for one plant.
type result struct {
	plant plant
	found bool
	suite string
	seed  string
	took  time.Duration
	by    []string // the promises that were broken, or what else happened
	err   error
}

func (r result) String() string {
	word := "NOT FOUND"
	switch {
	case r.found:
		word = "found"
	case len(r.plant.edits) == 0:
		word = "clean"
	}
	return fmt.Sprintf("%-24s %-10s %-8s %6s %6s  %s", r.plant.name, word, r.suite, r.seed, r.took.Round(time.Second), strings.Join(r.by, ", "))
}

// look runs the suites over sources with the mistake until one finds it.
func (g *garden) look(ctx context.Context, p plant) result {
	r := result{plant: p}
	dir := filepath.Join(g.dir, p.name)
	if r.err = os.MkdirAll(dir, 0o700); r.err != nil {
		return r
	}
	overlay, err := p.sow(g.root, dir)
	if err != nil {
		r.err = err
		return r
	}
	for _, s := range suites {
		bin := filepath.Join(dir, s.pkg+".test")
		if _, err := os.Stat(bin); err != nil { // not built for a suite before
			build := exec.CommandContext(ctx, "go", "test", "-c", "-vet=off", "-overlay", overlay, "-o", bin, "./"+s.pkg)
			build.Dir = g.root
			if out, err := build.CombinedOutput(); err != nil {
				r.err = fmt.Errorf("%w\n%s", err, out)
				return r
			}
		}
		began := time.Now()
		out, err := g.try(ctx, s, bin)
		r.took = time.Since(began)
		if ctx.Err() != nil {
			r.err = ctx.Err()
			return r
		}
		if err != nil {
			r.found, r.suite, r.seed, r.by = true, s.name, seedOf(out), causes(out)
			return r
		}
	}
	return r
}

// try runs one suite for as long as it may; an error means that it failed.
func (g *garden) try(ctx context.Context, s suite, bin string) ([]byte, error) {
	limited, cancel := context.WithTimeout(ctx, g.limit)
	defer cancel()
	test := exec.CommandContext(limited, bin, append(s.flags, "-test.timeout=0")...)
	test.Dir = filepath.Join(g.root, s.pkg)
	// One thread, so that the seed repeats what was found.
	test.Env = append(os.Environ(), "GOMAXPROCS=1", "GODEBUG=asyncpreemptoff=1")
	test.WaitDelay = 5 * time.Second
	var out bytes.Buffer
	test.Stdout, test.Stderr = &out, &out
	err := test.Run()
	if limited.Err() != nil {
		return out.Bytes(), nil // it was still looking
	}
	return out.Bytes(), err
}

// sow writes the changed files to dir and a file there that has the compiler read
// them instead of the originals.
func (p plant) sow(root, dir string) (overlay string, err error) {
	files, err := p.changed(root)
	if err != nil {
		return "", err
	}
	replace := map[string]string{}
	for name, text := range files {
		to := filepath.Join(dir, strings.ReplaceAll(name, "/", "_"))
		if err := os.WriteFile(to, []byte(text), 0o600); err != nil {
			return "", err
		}
		replace[filepath.Join(root, name)] = to
	}
	b, err := json.Marshal(map[string]any{"Replace": replace})
	if err != nil {
		return "", err
	}
	overlay = filepath.Join(dir, "overlay.json")
	return overlay, os.WriteFile(overlay, b, 0o600)
}

// changed are the files with the mistake, by name.
func (p plant) changed(root string) (map[string]string, error) {
	files := map[string]string{}
	for _, e := range p.edits {
		text, ok := files[e.file]
		if !ok {
			b, err := os.ReadFile(filepath.Join(root, e.file))
			if err != nil {
				return nil, err
			}
			text = string(b)
		}
		if n := strings.Count(text, e.old); n != 1 {
			return nil, fmt.Errorf("%s has %d places that read %q, not one: the code has changed, and the plant has to follow it", e.file, n, e.old)
		}
		if e.old == e.new {
			return nil, errors.New("it changes nothing")
		}
		files[e.file] = strings.Replace(text, e.old, e.new, 1)
	}
	return files, nil
}

var (
	drawn   = regexp.MustCompile(`-rapid\.seed=(\d+)`)
	ranSeed = regexp.MustCompile(`(?m)^\s*=== RUN\s+TestSimulation/\D*(\d+)`)
	broken  = regexp.MustCompile(`(?m)^\s*BROKEN\s+(\S+ \S+(?: \S+)*?)  `)
	failure = regexp.MustCompile(`(?m)^\s+\w+_test\.go:\d+: (.*)$`)
)

// seedOf is the seed that failed: the one that rapid names, or the last that began.
func seedOf(out []byte) string {
	if m := drawn.FindSubmatch(out); m != nil {
		return string(m[1])
	}
	all := ranSeed.FindAllSubmatch(out, -1)
	if len(all) == 0 {
		return ""
	}
	return string(all[len(all)-1][1])
}

// causes are the promises that the output says were broken; where it names none,
// the first lines that tell of something else.
func causes(out []byte) []string {
	var by []string
	for _, m := range broken.FindAllSubmatch(out, -1) {
		if s := strings.TrimSpace(string(m[1])); !slices.Contains(by, s) {
			by = append(by, s)
		}
	}
	if len(by) > 0 {
		return by
	}
	for line := range strings.Lines(string(out)) {
		if strings.HasPrefix(line, "panic: ") || strings.HasPrefix(line, "fatal error: ") {
			return []string{clip(line)}
		}
	}
	for _, m := range failure.FindAllSubmatch(out, -1) {
		if text := string(m[1]); !strings.HasPrefix(text, "seed ") {
			return []string{clip(text)}
		}
	}
	return []string{"it failed"}
}

func clip(s string) string {
	s = strings.TrimSpace(s)
	if r := []rune(s); len(r) > 100 {
		return string(r[:100]) + "…"
	}
	return s
}
