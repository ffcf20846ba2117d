package main

import (
	"encoding/json"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

// arrows is which of our packages each of them may import: the drawing in
// ARCHITECTURE.md as code. Tests may import more.
var arrows = map[string][]string{
	"contact":     {},
	"config":      {},
	"emulator":    {},
	"crm":         {"contact"},
	"crm/perfex":  {"crm", "contact"},
	"crm/evance":  {"crm", "contact"},
	"worker":      {"contact", "crm"},
	"queue":       {"contact"},
	"ingest":      {"contact"},
	"console":     {"contact"},
	"app":         {"config", "queue", "worker", "crm", "crm/perfex", "crm/evance", "ingest", "console", "contact"},
	"cmd/crmsync": {"app", "emulator"},
	"deploy":      {},

	"history":         {},
	"history/judge":   {"history"},
	"history/planted": {},
}

// natsImporters may import the NATS client or server.
var natsImporters = []string{"queue"}

func TestArrows(t *testing.T) {
	out, err := exec.Command("go", "list", "-json=ImportPath,Imports", "crmsync/...").Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	seen := map[string]bool{}
	for dec := json.NewDecoder(strings.NewReader(string(out))); dec.More(); {
		var p struct {
			ImportPath string
			Imports    []string
		}
		if err := dec.Decode(&p); err != nil {
			t.Fatal(err)
		}
		name := strings.TrimPrefix(p.ImportPath, "crmsync/")
		seen[name] = true
		allowed, known := arrows[name]
		if !known {
			t.Errorf("package %s is not in the drawing; add it to ARCHITECTURE.md and here", name)
			continue
		}
		for _, imp := range p.Imports {
			if own, ok := strings.CutPrefix(imp, "crmsync/"); ok && !slices.Contains(allowed, own) {
				t.Errorf("%s imports %s, which the drawing does not allow", name, own)
			}
			if strings.HasPrefix(imp, "github.com/nats-io/") && !slices.Contains(natsImporters, name) {
				t.Errorf("%s imports %s; only %v may", name, imp, natsImporters)
			}
		}
	}
	for name := range arrows {
		if !seen[name] {
			t.Errorf("the drawing has a package %s, the tree does not", name)
		}
	}
}
