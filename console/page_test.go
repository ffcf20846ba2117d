package console

import (
	"io/fs"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// sources are the page's files by name.
func sources(t *testing.T) map[string]string {
	t.Helper()
	out := map[string]string{}
	entries, err := fs.ReadDir(pageFS, "page")
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		out[e.Name()] = string(embedded(e.Name()))
	}
	return out
}

// Every file is served as what it is, and every file is served.
func TestPageFiles(t *testing.T) {
	h := New(Options{})
	types := map[string]string{
		"html": "text/html; charset=utf-8", "css": "text/css; charset=utf-8",
		"js": "text/javascript; charset=utf-8", "svg": "image/svg+xml",
	}
	for name, body := range sources(t) {
		path := "/" + strings.TrimPrefix(name, "index.html")
		w := do(h, request("GET", path, ""))
		_, ext, _ := strings.Cut(name, ".")
		if w.Code != http.StatusOK || w.Body.String() != body || w.Header().Get("Content-Type") != types[ext] {
			t.Errorf("%s: %d %s", path, w.Code, w.Header())
		}
	}
}

// Whatever the page names, it gets from us, relative to where it is.
func TestPageReferences(t *testing.T) {
	files := sources(t)
	refs := regexp.MustCompile(`(?:src|href)="([^"]*)"|from "\./([^"]*)"|ask\([\x60"]([^\x60"?]*)`)
	var paths []string
	for _, rt := range (&console{o: (&recorder{}).options()}).routes() {
		paths = append(paths, strings.TrimPrefix(example(rt), "/"))
	}
	n := 0
	for name, body := range files {
		for _, m := range refs.FindAllStringSubmatch(body, -1) {
			n++
			ref := regexp.MustCompile(`\$\{[^}]*\}`).ReplaceAllString(m[1]+m[2]+m[3], "office")
			ref = strings.Replace(ref, "letters/office", "letters/17", 1)
			if !slices.Contains(paths, ref) {
				t.Errorf("%s: %q is no route", name, ref)
			}
		}
	}
	if n < 12 {
		t.Errorf("found only %d references", n)
	}
}

// What would let a string become markup or code, or is stopped by the policy.
var unsafe = map[string]*regexp.Regexp{
	".html": regexp.MustCompile(`(?i)<script[^>]*>\s*[^<\s]|<style|\sstyle=|\son[a-z]+=|javascript:|https?://|<iframe|<base`),
	".js": regexp.MustCompile(`innerHTML|outerHTML|insertAdjacentHTML|document\.write|createContextualFragment|DOMParser|srcdoc|` +
		`setHTML|\beval\b|new Function|setTimeout\("|localStorage|sessionStorage|indexedDB|document\.cookie|` +
		`location\.|\.href\b|\.src\b|setAttribute\("(on|style|href|src)|javascript:|import\(`),
	".css": regexp.MustCompile(`(?i)url\(|@import|expression\(`),
	".svg": regexp.MustCompile(`(?i)<script|\son[a-z]+=|style|href`),
}

func TestPageTakesOnlyText(t *testing.T) {
	for name, body := range sources(t) {
		re := unsafe[name[strings.LastIndexByte(name, '.'):]]
		if found := re.FindString(body); found != "" {
			t.Errorf("%s: %q", name, found)
		}
		if len(strings.Split(body, "\n")) > 400 {
			t.Errorf("%s is longer than 400 lines", name)
		}
	}
	for ext, bad := range map[string]string{
		".html": `<p onclick="x()">`, ".js": `node.innerHTML = x`, ".css": `background: url(x)`, ".svg": `<svg onload="x">`,
	} {
		if !unsafe[ext].MatchString(bad) {
			t.Errorf("the check lets %s pass", bad)
		}
	}
}

// Ids that the script looks up exist, and ids are unique.
func TestPageIDs(t *testing.T) {
	files := sources(t)
	var ids []string
	for _, m := range regexp.MustCompile(`\sid="([^"]+)"`).FindAllStringSubmatch(files["index.html"], -1) {
		if slices.Contains(ids, m[1]) {
			t.Errorf("two of %s", m[1])
		}
		ids = append(ids, m[1])
	}
	for _, m := range regexp.MustCompile(`\$\("([^"]+)"\)`).FindAllStringSubmatch(files["console.js"]+files["letters.js"], -1) {
		if !slices.Contains(ids, m[1]) {
			t.Errorf("no element %s", m[1])
		}
	}
}
