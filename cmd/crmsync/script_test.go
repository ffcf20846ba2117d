package main

import (
	"errors"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
)

// scriptPatience is how long a transcript waits for what must happen.
const scriptPatience = 15 * time.Second

// TestScript runs the transcripts in testdata/script. They know, beside
// testscript's own commands:
//
//	exits CODE COMMAND...        the command ends with the exit code
//	await FILE REGEXP [NAME]     waits until the file has a line that matches,
//	                             and sets $NAME to its first group
//	eventually REGEXP COMMAND... runs the command until it prints a match
//	get URL REGEXP               what is served there matches
//	put URL FILE                 puts a file
//
// Processes in the background run under sh, which sends their output to a file.
func TestScript(t *testing.T) {
	t.Parallel()
	testscript.Run(t, testscript.Params{
		Dir: filepath.Join("testdata", "script"),
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"exits": scriptExits, "await": scriptAwait, "eventually": scriptEventually, "get": scriptGet, "put": scriptPut,
		},
		Setup: func(e *testscript.Env) error {
			e.Setenv("XDG_STATE_HOME", filepath.Join(e.WorkDir, "state"))
			e.Setenv("USER", "kim")
			return nil
		},
		RequireUniqueNames: true,
	})
}

// giveUp ends a transcript that has waited in vain; what processes in the
// background have said goes with it.
func giveUp(ts *testscript.TestScript, format string, a ...any) {
	names, _ := filepath.Glob(ts.MkAbs("*.err"))
	for _, name := range names {
		ts.Logf("%s:\n%s", filepath.Base(name), ts.ReadFile(name))
	}
	ts.Fatalf(format, a...)
}

// usage ends a transcript that calls a command of ours wrongly.
func usage(ts *testscript.TestScript, neg, wrong bool, text string) {
	if neg || wrong {
		ts.Fatalf("usage: %s", text)
	}
}

func scriptExits(ts *testscript.TestScript, neg bool, args []string) {
	usage(ts, neg, len(args) < 2, "exits CODE COMMAND...")
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	got := 0
	err = ts.Exec(args[1], args[2:]...)
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		got = exit.ExitCode()
	} else {
		ts.Check(err)
	}
	if got != want {
		ts.Fatalf("exit code %d, want %d", got, want)
	}
}

func scriptAwait(ts *testscript.TestScript, neg bool, args []string) {
	usage(ts, neg, len(args) < 2 || len(args) > 3, "await FILE REGEXP [NAME]")
	re, err := regexp.Compile("(?m)" + args[1])
	ts.Check(err)
	name := ts.MkAbs(args[0])
	var text []byte
	for end := time.Now().Add(scriptPatience); time.Now().Before(end); poll() {
		text, _ = os.ReadFile(name) // it may not be there yet
		if m := re.FindSubmatch(text); m != nil {
			if len(args) == 3 {
				ts.Setenv(args[2], string(m[1]))
			}
			return
		}
	}
	giveUp(ts, "%s does not come to match %q; it holds:\n%s", args[0], args[1], text)
}

func scriptEventually(ts *testscript.TestScript, neg bool, args []string) {
	usage(ts, neg, len(args) < 2, "eventually REGEXP COMMAND...")
	re, err := regexp.Compile("(?m)" + args[0])
	ts.Check(err)
	for end := time.Now().Add(scriptPatience); ; poll() {
		err := ts.Exec(args[1], args[2:]...)
		out := ts.ReadFile("stdout")
		switch {
		case err == nil && re.MatchString(out):
			return
		case time.Now().After(end):
			giveUp(ts, "%s does not come to print %q (%v); it printed:\n%s%s", strings.Join(args[1:], " "), args[0], err, out, ts.ReadFile("stderr"))
		}
	}
}

func scriptGet(ts *testscript.TestScript, neg bool, args []string) {
	usage(ts, neg, len(args) != 2, "get URL REGEXP")
	re, err := regexp.Compile("(?m)" + args[1])
	ts.Check(err)
	if text := scriptDo(ts, http.MethodGet, args[0], nil); !re.MatchString(text) {
		ts.Fatalf("%s does not match %q; it is:\n%s", args[0], args[1], text)
	}
}

func scriptPut(ts *testscript.TestScript, neg bool, args []string) {
	usage(ts, neg, len(args) != 2, "put URL FILE")
	scriptDo(ts, http.MethodPut, args[0], strings.NewReader(ts.ReadFile(args[1])))
}

func scriptDo(ts *testscript.TestScript, method, url string, body io.Reader) string {
	req, err := http.NewRequest(method, url, body)
	ts.Check(err)
	c := http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: 10 * time.Second}
	r, err := c.Do(req)
	ts.Check(err)
	defer r.Body.Close()
	text, err := io.ReadAll(r.Body)
	ts.Check(err)
	if r.StatusCode >= 300 {
		ts.Fatalf("%s %s: %s: %s", method, url, r.Status, text)
	}
	return string(text)
}

// poll is the pause between two looks at something outside this process.
func poll() { <-time.After(25 * time.Millisecond) }

// commandLine finds the crmsync commands of a transcript.
var commandLine = regexp.MustCompile(`(?m)^[^#\n]*?\bcrmsync ([^\n]*)$`)

// scriptCommands are the arguments of every crmsync command that a transcript
// runs.
func scriptCommands(t *testing.T) [][]string {
	t.Helper()
	names, err := filepath.Glob(filepath.Join("testdata", "script", "*.txtar"))
	if err != nil || len(names) == 0 {
		t.Fatalf("no transcripts: %v", err)
	}
	var out [][]string
	for _, name := range names {
		b, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		script, _, _ := strings.Cut("\n"+string(b), "\n-- ")
		for _, m := range commandLine.FindAllStringSubmatch(script, -1) {
			line, _, _ := strings.Cut(m[1], ">") // a redirection
			out = append(out, words(line))
		}
	}
	return out
}

// words splits a command line as a shell does, as far as documentation needs
// it: blanks, both quotes, and a comment or & at the end.
func words(line string) []string {
	var out []string
	var word strings.Builder
	open, quote := false, rune(0)
	end := func() {
		if open {
			out = append(out, word.String())
		}
		word.Reset()
		open = false
	}
	for _, r := range line {
		switch {
		case quote != 0 && r == quote:
			quote = 0
		case quote == 0 && (r == '\'' || r == '"'):
			quote, open = r, true
		case quote == 0 && (r == ' ' || r == '\t'):
			end()
		case quote == 0 && (r == '#' && !open || r == '&'):
			end()
			return out
		default:
			word.WriteRune(r)
			open = true
		}
	}
	end()
	return out
}

func TestWords(t *testing.T) {
	for line, want := range map[string][]string{
		`run --config crmsync.yaml &crm&`:                    {"run", "--config", "crmsync.yaml"},
		`publish office 7 '{"fields": {"a": "b"}}'  # first`: {"publish", "office", "7", `{"fields": {"a": "b"}}`},
		`dead ls --contact ''`:                               {"dead", "ls", "--contact", ""},
		`import shop "a file#1.csv"`:                         {"import", "shop", "a file#1.csv"},
	} {
		if got := words(line); !slices.Equal(got, want) {
			t.Errorf("words(%s) = %q, want %q", line, got, want)
		}
	}
}

// TestEveryCommandHasATranscript looks for each command of the command line.
func TestEveryCommandHasATranscript(t *testing.T) {
	ran := map[string]bool{}
	for _, c := range scriptCommands(t) {
		for i := range c {
			ran[strings.Join(c[:i+1], " ")] = true
		}
	}
	for _, name := range commandNames(t) {
		if !ran[name] {
			t.Errorf("no transcript runs crmsync %s", name)
		}
	}
}
