package deploy

import (
	"encoding/json"
	"net"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
)

// instructions are a Dockerfile's, continuation lines joined.
func instructions(t *testing.T) (out [][2]string) {
	t.Helper()
	text := strings.ReplaceAll(read(t, "Dockerfile"), "\\\n", " ")
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		word, rest, _ := strings.Cut(line, " ")
		out = append(out, [2]string{word, rest})
	}
	return out
}

// the value of the only instruction of a kind.
func only(t *testing.T, ins [][2]string, word string) string {
	t.Helper()
	var found []string
	for _, i := range ins {
		if i[0] == word {
			found = append(found, i[1])
		}
	}
	if len(found) != 1 {
		t.Fatalf("%s: %q", word, found)
	}
	return found[0]
}

func list(t *testing.T, text string) []string {
	t.Helper()
	var out []string
	if err := json.Unmarshal([]byte(text), &out); err != nil {
		t.Fatalf("%s: %v", text, err)
	}
	return out
}

func TestDockerfile(t *testing.T) {
	ins := instructions(t)
	var from []string
	for _, i := range ins {
		if i[0] == "FROM" {
			from = append(from, i[1])
		}
	}
	if want := []string{"golang:" + required(t, "go") + "-bookworm AS build", "scratch"}; !slices.Equal(from, want) {
		t.Errorf("from %q, want %q", from, want)
	}
	if user := only(t, ins, "USER"); user != "65532:65532" || user != readCompose(t).Services["crmsync"].User {
		t.Errorf("user %s", user)
	}
	if _, port, _ := net.SplitHostPort(defaultOf(t, "http.listen")); only(t, ins, "EXPOSE") != port {
		t.Errorf("exposes %s, listens on %s", only(t, ins, "EXPOSE"), port)
	}

	line := newCommandLine(t)
	if entry := list(t, only(t, ins, "ENTRYPOINT")); !slices.Equal(entry, []string{"/crmsync"}) {
		t.Errorf("entry point %q", entry)
	}
	line.check(t, "CMD", list(t, only(t, ins, "CMD")))
	_, probe, _ := strings.Cut(only(t, ins, "HEALTHCHECK"), " CMD ")
	check := list(t, probe)
	if check[0] != "/crmsync" {
		t.Errorf("health check %q", check)
	}
	line.check(t, "HEALTHCHECK", check[1:])

	name, value, _ := strings.Cut(only(t, ins, "ENV"), "=")
	line.checkEnv(t, "ENV", name)
	if name != "CRMSYNC_DATA" || value != only(t, ins, "VOLUME") {
		t.Errorf("%s=%s is not the volume %s", name, value, only(t, ins, "VOLUME"))
	}
	var copied []string
	for _, i := range ins {
		if i[0] == "COPY" {
			copied = append(copied, i[1])
		}
	}
	if want := "--from=build --chown=65532:65532 /out/data " + value; !slices.Contains(copied, want) {
		t.Errorf("nobody gives %s to the user: %q", value, copied)
	}
	if !slices.ContainsFunc(copied, func(c string) bool { return strings.HasSuffix(c, " /etc/ssl/certs/ca-certificates.crt") }) {
		t.Error("without authorities no CRM can be reached")
	}
	build := read(t, "Dockerfile")
	main := read(t, top+"/cmd/crmsync/main.go")
	if !strings.Contains(build, "CGO_ENABLED=0") || !strings.Contains(build, "-X main.version=") || !regexp.MustCompile(`(?m)^var version = `).MatchString(main) {
		t.Error("not a static binary that knows its version")
	}
	if ignored := read(t, "Dockerfile.dockerignore"); !strings.Contains(ignored, "\ndeploy/secrets\n") || !strings.Contains(ignored, "\n.git\n") {
		t.Errorf("the build sees too much: without %q only", ignored)
	}
}

// unit reads a systemd unit: all values of each key.
func unit(t *testing.T) map[string][]string {
	t.Helper()
	out := map[string][]string{}
	for l := range strings.Lines(read(t, "systemd/crmsync.service")) {
		l = strings.TrimSpace(l)
		if l == "" || l[0] == '#' || l[0] == '[' {
			continue
		}
		key, value, ok := strings.Cut(l, "=")
		if !ok {
			t.Errorf("not key=value: %q", l)
		}
		out[key] = append(out[key], value)
	}
	return out
}

func TestSystemdUnit(t *testing.T) {
	u := unit(t)
	line := newCommandLine(t)
	args := strings.Fields(u["ExecStart"][0])
	line.check(t, "ExecStart", args[1:])
	if args[0] != "/usr/local/bin/crmsync" || len(u["ExecStart"]) != 1 {
		t.Errorf("ExecStart %q", u["ExecStart"])
	}
	for _, e := range u["Environment"] {
		name, _, _ := strings.Cut(e, "=")
		line.checkEnv(t, "Environment", name)
	}
	if !slices.Contains(u["Environment"], "CRMSYNC_DATA=%S/"+u["StateDirectory"][0]) {
		t.Errorf("the store is not in the state directory: %q", u["Environment"])
	}
	drain, err := time.ParseDuration(defaultOf(t, "drain_timeout"))
	if err != nil {
		t.Fatal(err)
	}
	if stop, err := time.ParseDuration(u["TimeoutStopSec"][0]); err != nil || stop < drain+10*time.Second {
		t.Errorf("killed after %s, it drains for %s", u["TimeoutStopSec"], drain)
	}
	exits := regexp.MustCompile(`(?s)exitUsage\s*=\s*(\d+)`).FindStringSubmatch(allSource(t, "cmd/crmsync"))
	if exits != nil && exits[1] != u["RestartPreventExitStatus"][0] {
		t.Errorf("a wrong configuration exits with %s, not restarted is %s", exits[1], u["RestartPreventExitStatus"])
	}
	for key, want := range map[string]string{
		"Type": "exec", "DynamicUser": "yes", "NoNewPrivileges": "yes", "ProtectSystem": "strict", "ProtectHome": "yes",
		"PrivateTmp": "yes", "PrivateDevices": "yes", "CapabilityBoundingSet": "", "MemoryDenyWriteExecute": "yes",
		"RestrictAddressFamilies": "AF_INET AF_INET6 AF_UNIX", "RestrictNamespaces": "yes", "LimitCORE": "0", "UMask": "0077",
		"StateDirectoryMode": "0700", "SystemCallArchitectures": "native", "Restart": "on-failure",
	} {
		if !slices.Equal(u[key], []string{want}) {
			t.Errorf("%s=%q, want %q", key, u[key], want)
		}
	}
}
