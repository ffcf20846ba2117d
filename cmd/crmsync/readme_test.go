package main

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/alecthomas/kong"
)

// commandNames are the commands of the command line, as "dead ls".
func commandNames(t *testing.T) []string {
	t.Helper()
	parser, err := kong.New(&cli{}, helpVars)
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, leaf := range parser.Model.Leaves(true) {
		var path []string
		for n := leaf; n != nil && n.Type == kong.CommandNode; n = n.Parent {
			path = append([]string{n.Name}, path...)
		}
		out = append(out, strings.Join(path, " "))
	}
	return out
}

var (
	shellBlock = regexp.MustCompile("(?ms)^[ \t]*```(?:console|sh|shell|bash)[^\n]*\n(.*?)^[ \t]*```")
	ourCommand = regexp.MustCompile(`^\s*\$?\s*(?:go run \./cmd/crmsync|(?:\./|bin/)?crmsync)\s+(\S.*)$`)
)

// shownCommands are the arguments of the crmsync commands in a document's
// shell blocks.
func shownCommands(doc string) [][]string {
	var out [][]string
	for _, block := range shellBlock.FindAllStringSubmatch(doc, -1) {
		text := strings.ReplaceAll(block[1], "\\\n", " ")
		for line := range strings.SplitSeq(text, "\n") {
			if m := ourCommand.FindStringSubmatch(line); m != nil {
				out = append(out, words(m[1]))
			}
		}
	}
	return out
}

var (
	anAddress = regexp.MustCompile(`^[\w.-]+:\d+$`)
	aServer   = regexp.MustCompile(`^(nats://\S+|\$NATS_URL)$`)
	aLetter   = regexp.MustCompile(`^(\d+|\$ID)$`)
)

// alike puts names in the place of what a transcript cannot know beforehand:
// addresses, servers, the number of a dead letter.
func alike(command []string) []string {
	out := slices.Clone(command)
	for i, w := range out {
		switch {
		case anAddress.MatchString(w):
			out[i] = "ADDRESS"
		case aServer.MatchString(w):
			out[i] = "SERVER"
		case i == 2 && out[0] == "dead" && aLetter.MatchString(w):
			out[i] = "ID"
		}
	}
	return out
}

// within says whether the words occur in another command in their order: a
// transcript may add flags, such as that of a free port.
func within(shown, ran []string) bool {
	i := 0
	for _, w := range ran {
		if i < len(shown) && shown[i] == w {
			i++
		}
	}
	return i == len(shown)
}

func TestReadmeCommands(t *testing.T) {
	doc, err := os.ReadFile(filepath.Join("..", "..", "README.md"))
	if errors.Is(err, fs.ErrNotExist) {
		t.Skip("there is no README.md")
	}
	if err != nil {
		t.Fatal(err)
	}
	shown := shownCommands(string(doc))
	if len(shown) == 0 {
		t.Error("README.md shows no command")
	}
	ran := scriptCommands(t)
	for _, s := range shown {
		found := false
		for _, r := range ran {
			found = found || within(alike(s), alike(r))
		}
		if !found {
			t.Errorf("README.md shows `crmsync %s`, which no transcript in testdata/script runs", strings.Join(s, " "))
		}
	}
}

func TestShownCommands(t *testing.T) {
	doc := "# x\n```console\n$ go run ./cmd/crmsync demo\n  1.0s crmsync demo: text\n$ crmsync publish office 7 \\\n    -f title=Boss\n```\n" +
		"`crmsync nope`\n```yaml\ncrmsync no\n```\n```sh\nbin/crmsync status &  # all\n```\n"
	got := shownCommands(doc)
	want := [][]string{{"demo"}, {"publish", "office", "7", "-f", "title=Boss"}, {"status"}}
	if len(got) != len(want) {
		t.Fatalf("commands %q, want %q", got, want)
	}
	for i := range want {
		if strings.Join(got[i], "|") != strings.Join(want[i], "|") {
			t.Errorf("command %q, want %q", got[i], want[i])
		}
	}
	if !within([]string{"run", "--config", "a"}, []string{"run", "--port", "-1", "--config", "a"}) ||
		within([]string{"status", "office"}, []string{"status"}) || within([]string{"b", "a"}, []string{"a", "b"}) {
		t.Error("within does not look for the words in their order")
	}
}
