package main

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// A make target that runs no test would pass for ever.
func TestMakefileNamesTestsThatExist(t *testing.T) {
	text, err := os.ReadFile("../../Makefile")
	if err != nil {
		t.Fatal(err)
	}
	runs := regexp.MustCompile(`-run '\^(Test\w+)(\$\$)?' (\./\S+)`).FindAllStringSubmatch(string(text), -1)
	if len(runs) < 3 {
		t.Fatalf("%d targets run tests by name: %q", len(runs), runs)
	}
	for _, r := range runs {
		name, whole, dir := r[1], r[2] != "", filepath.Join("../..", r[3])
		files, err := filepath.Glob(filepath.Join(dir, "*_test.go"))
		if err != nil {
			t.Fatal(err)
		}
		want, found := "func "+name, false
		if whole {
			want += "("
		}
		for _, f := range files {
			b, err := os.ReadFile(f)
			if err != nil {
				t.Fatal(err)
			}
			found = found || strings.Contains(string(b), want)
		}
		if !found {
			t.Errorf("the Makefile runs %s in %s, which has no such test", name, r[3])
		}
	}
}
