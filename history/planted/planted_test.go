package main

import (
	"go/parser"
	"go/token"
	"slices"
	"strings"
	"testing"
)

// Every plant fits the sources as they are, and what comes of it is Go.
func TestPlantsFit(t *testing.T) {
	root, err := moduleRoot()
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, p := range plants {
		t.Run(p.name, func(t *testing.T) {
			files, err := p.changed(root)
			if err != nil {
				t.Fatal(err)
			}
			for name, text := range files {
				if _, err := parser.ParseFile(token.NewFileSet(), name, text, parser.SkipObjectResolution); err != nil {
					t.Error(err)
				}
			}
		})
		if p.what == "" || slices.Contains(names, p.name) {
			t.Errorf("%s: it says nothing, or twice", p.name)
		}
		names = append(names, p.name)
	}
	if len(plants) < 15 {
		t.Errorf("%d plants are few", len(plants))
	}
}

// What a suite prints is read rightly.
func TestCauses(t *testing.T) {
	out := `=== RUN   TestSimulation
=== RUN   TestSimulation/1
    sim_test.go:134: seed 1: 2 processes
=== RUN   TestSimulation/17
    sim_test.go:134: seed 17: 1 processes
        holds   I3 convergence           280
        BROKEN  I4 order of a contact    2 of 4561: request 7 put x over y
        BROKEN  I10 classification       2 of 4818: call 9
`
	if got := seedOf([]byte(out)); got != "17" {
		t.Errorf("seed %q", got)
	}
	if got := strings.Join(causes([]byte(out)), "; "); got != "I4 order of a contact; I10 classification" {
		t.Errorf("causes %q", got)
	}
	if got := causes([]byte("=== RUN   TestSimulation/3\npanic: deadlock: all goroutines\n")); got[0] != "panic: deadlock: all goroutines" {
		t.Errorf("causes of a panic: %q", got)
	}
	if got := causes([]byte("    sim_test.go:9: it does not come to rest: 3 wait\n")); got[0] != "it does not come to rest: 3 wait" {
		t.Errorf("causes of another failure: %q", got)
	}
}

func TestChoose(t *testing.T) {
	if p, err := choose("no-audit, slot-gate-off"); err != nil || len(p) != 2 || p[1].name != "slot-gate-off" {
		t.Errorf("%v, %v", p, err)
	}
	if _, err := choose("nonsense"); err == nil || !strings.Contains(err.Error(), "nonsense") {
		t.Errorf("an unknown name: %v", err)
	}
}
