package deploy

import (
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"unicode"

	"go.uber.org/goleak"

	"crmsync/config"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// top is the folder of docker-compose.yml.
const top = ".."

func read(t *testing.T, path string) string {
	t.Helper()
	body, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(body)
}

// parse reads the Go files of a folder, without its tests.
func parse(t *testing.T, dir string) []*ast.File {
	t.Helper()
	names, err := filepath.Glob(filepath.Join(top, dir, "*.go"))
	if err != nil || len(names) == 0 {
		t.Fatalf("no Go files in %s: %v", dir, err)
	}
	var out []*ast.File
	for _, name := range names {
		if strings.HasSuffix(name, "_test.go") {
			continue
		}
		f, err := parser.ParseFile(token.NewFileSet(), name, nil, parser.SkipObjectResolution)
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, f)
	}
	return out
}

// commandLine is what the command's source declares: flags and variables by
// struct, and which struct is which command.
type commandLine struct {
	commands map[string]string          // word: struct
	below    map[string]string          // struct and word: struct, of commands below commands
	flags    map[string]map[string]bool // struct: flags
	envs     []string
}

func newCommandLine(t *testing.T) commandLine {
	t.Helper()
	c := commandLine{commands: map[string]string{}, below: map[string]string{}, flags: map[string]map[string]bool{}}
	for _, f := range parse(t, "cmd/crmsync") {
		ast.Inspect(f, func(n ast.Node) bool {
			spec, ok := n.(*ast.TypeSpec)
			if !ok {
				return true
			}
			st, ok := spec.Type.(*ast.StructType)
			if !ok {
				return true
			}
			c.add(t, spec.Name.Name, st)
			return false
		})
	}
	if len(c.commands) < 5 || !c.flags["Globals"]["config"] {
		t.Fatalf("the command line is not declared as expected: %v", c)
	}
	return c
}

func (c *commandLine) add(t *testing.T, name string, st *ast.StructType) {
	c.flags[name] = map[string]bool{}
	for _, field := range st.Fields.List {
		var tag reflect.StructTag
		if field.Tag != nil {
			text, err := strconv.Unquote(field.Tag.Value)
			if err != nil {
				t.Fatal(err)
			}
			tag = reflect.StructTag(text)
		}
		if env := tag.Get("env"); env != "" {
			c.envs = append(c.envs, env)
		}
		for _, id := range field.Names {
			word := tag.Get("name")
			if word == "" {
				word = kebab(id.Name)
			}
			if _, ok := tag.Lookup("cmd"); ok {
				if typ, ok := field.Type.(*ast.Ident); ok && name == "cli" {
					c.commands[word] = typ.Name
				} else if ok {
					c.below[name+" "+word] = typ.Name
					c.below[name] = "more"
				}
			} else if _, ok := tag.Lookup("arg"); !ok {
				c.flags[name][word] = true
			}
		}
	}
}

// kebab is kong's name of a field: PerHour is per-hour.
func kebab(s string) string {
	var b strings.Builder
	for i, r := range s {
		if unicode.IsUpper(r) && i > 0 {
			b.WriteByte('-')
		}
		b.WriteRune(unicode.ToLower(r))
	}
	return b.String()
}

// check holds one command line, without the program's name, against the source.
func (c commandLine) check(t *testing.T, where string, args []string) {
	t.Helper()
	if len(args) == 0 || c.commands[args[0]] == "" {
		t.Errorf("%s: %q is no command", where, args)
		return
	}
	command, rest := c.commands[args[0]], args[1:]
	if c.below[command] != "" {
		if len(rest) == 0 || c.below[command+" "+rest[0]] == "" {
			t.Errorf("%s: %q is only the beginning of a command", where, args)
			return
		}
		command, rest = c.below[command+" "+rest[0]], rest[1:]
	}
	for _, arg := range rest {
		flag, ok := strings.CutPrefix(arg, "--")
		flag, _, _ = strings.Cut(flag, "=")
		if ok && !c.flags[command][flag] && !c.flags["Globals"][flag] {
			t.Errorf("%s: %s has no flag --%s", where, args[0], flag)
		}
	}
}

var mention = regexp.MustCompile("`crmsync ([a-z]+)((?: [^`]*)?)`")

// checkMentions does the same for what a text says in backquotes.
func (c commandLine) checkMentions(t *testing.T, where, text string) int {
	t.Helper()
	found := mention.FindAllStringSubmatch(text, -1)
	for _, m := range found {
		c.check(t, where, append([]string{m[1]}, strings.Fields(m[2])...))
	}
	return len(found)
}

// checkEnv says whether crmsync knows a variable.
func (c commandLine) checkEnv(t *testing.T, where, name string) {
	t.Helper()
	known := slices.Clone(c.envs)
	for _, k := range config.Keys() {
		known = append(known, k.Env, k.NATSEnv)
	}
	if name == "" || !slices.Contains(known, name) {
		t.Errorf("%s: %q is no variable of crmsync", where, name)
	}
}

// defaultOf is a key's default.
func defaultOf(t *testing.T, path string) string {
	t.Helper()
	for _, k := range config.Keys() {
		if k.Path == path {
			return k.Default
		}
	}
	t.Fatalf("no key %s", path)
	return ""
}

// required is the version of a module in go.mod, as major.minor; "go" is Go's.
func required(t *testing.T, module string) string {
	t.Helper()
	m := regexp.MustCompile(`(?m)^\s*` + regexp.QuoteMeta(module) + ` v?(\d+\.\d+)`).FindStringSubmatch(read(t, top+"/go.mod"))
	if m == nil {
		t.Fatalf("go.mod does not name %s", module)
	}
	return m[1]
}

// The console's page names commands, too.
func TestPageCommands(t *testing.T) {
	line := newCommandLine(t)
	n := 0
	for _, name := range []string{"index.html", "console.js", "card.js", "letters.js"} {
		for _, m := range regexp.MustCompile(`crmsync ((?:status|dead|run|hold|resume|jobs|why)(?: ls| show)?)\b`).FindAllStringSubmatch(read(t, top+"/console/page/"+name), -1) {
			line.check(t, name, strings.Fields(m[1]))
			n++
		}
	}
	if n < 3 {
		t.Errorf("found %d commands", n)
	}
}
