package deploy

import (
	"go/ast"
	"go/token"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"

	"crmsync/contact"
	"crmsync/queue"
	"crmsync/worker"
)

type alerts struct {
	Groups []struct {
		Name  string `yaml:"name"`
		Rules []struct {
			Alert       string            `yaml:"alert"`
			Expr        string            `yaml:"expr"`
			For         string            `yaml:"for"`
			Labels      map[string]string `yaml:"labels"`
			Annotations map[string]string `yaml:"annotations"`
		} `yaml:"rules"`
	} `yaml:"groups"`
}

func allSource(t *testing.T, dir string) string {
	t.Helper()
	names, err := filepath.Glob(filepath.Join(top, dir, "*.go"))
	if err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	for _, name := range names {
		if !strings.HasSuffix(name, "_test.go") {
			b.WriteString(read(t, name))
		}
	}
	return b.String()
}

// metrics are the names that the source gives to metrics.
func metrics(t *testing.T) map[string]bool {
	t.Helper()
	out := map[string]bool{}
	name := regexp.MustCompile(`^crmsync_[a-z_]+$`)
	for _, f := range parse(t, "app") {
		ast.Inspect(f, func(n ast.Node) bool {
			if lit, ok := n.(*ast.BasicLit); ok && lit.Kind == token.STRING {
				if s, err := strconv.Unquote(lit.Value); err == nil && name.MatchString(s) {
					out[s] = true
				}
			}
			return true
		})
	}
	return out
}

var (
	metricName = regexp.MustCompile(`\bcrmsync_[a-z_]+`)
	matcher    = regexp.MustCompile(`(\w+)="([^"]*)"`)
	labelUse   = regexp.MustCompile(`\$labels\.(\w+)`)
)

func TestAlerts(t *testing.T) {
	var a alerts
	dec := yaml.NewDecoder(strings.NewReader(read(t, "prometheus/alerts.yml")))
	dec.KnownFields(true)
	if err := dec.Decode(&a); err != nil {
		t.Fatal(err)
	}
	known := metrics(t)
	if !known["crmsync_build_info"] {
		t.Fatalf("metrics in the source: %v", known)
	}
	values := map[string][]string{
		"class": {contact.Live.String(), contact.Bulk.String()},
	}
	for _, s := range queue.StoreStates() {
		values["state"] = append(values["state"], string(s))
	}
	for _, r := range worker.HoldReasons() {
		values["reason"] = append(values["reason"], string(r))
	}
	line := newCommandLine(t)
	var names []string
	mentions := 0
	for _, r := range a.Groups[0].Rules {
		names = append(names, r.Alert)
		used := metricName.FindAllString(r.Expr, -1)
		for _, m := range used {
			if !known[m] {
				t.Errorf("%s: crmsync has no metric %s", r.Alert, m)
			}
		}
		for _, m := range matcher.FindAllStringSubmatch(r.Expr, -1) {
			if !slices.Contains(values[m[1]], m[2]) {
				t.Errorf("%s: %s is never %q", r.Alert, m[1], m[2])
			}
		}
		text := r.Annotations["summary"] + r.Annotations["description"]
		for _, m := range labelUse.FindAllStringSubmatch(text, -1) {
			if !strings.Contains(r.Expr, m[1]) {
				t.Errorf("%s: says {{ $labels.%s }}, which its expression drops", r.Alert, m[1])
			}
		}
		if len(used) == 0 || r.Annotations["summary"] == "" || r.Annotations["description"] == "" ||
			!slices.Contains([]string{"info", "warning", "critical"}, r.Labels["severity"]) {
			t.Errorf("%s is not whole: %+v", r.Alert, r)
		}
		mentions += line.checkMentions(t, r.Alert, text)
	}
	slices.Sort(names)
	if len(names) < 8 || len(slices.Compact(names)) != len(a.Groups[0].Rules) || mentions < 6 {
		t.Errorf("alerts %q with %d commands", names, mentions)
	}
}

// Prometheus' own tool tries the alerts on made-up series, where it is there.
func TestAlertsByPromtool(t *testing.T) {
	tool, err := exec.LookPath("promtool")
	if err != nil {
		t.Skip("promtool is not installed")
	}
	if out, err := exec.Command(tool, "test", "rules", "prometheus/alerts_test.yml").CombinedOutput(); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}
