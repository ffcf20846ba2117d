package deploy

import (
	"encoding/json"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"go.yaml.in/yaml/v3"

	"crmsync/config"
	"crmsync/emulator"
)

// compose is what we use of a compose file, and with it all that it may have.
type compose struct {
	Name     string              `yaml:"name"`
	Hardened yaml.Node           `yaml:"x-hardened"`
	Crmsync  yaml.Node           `yaml:"x-crmsync"`
	Services map[string]*service `yaml:"services"`
	Volumes  map[string]struct{} `yaml:"volumes"`
	Secrets  map[string]struct {
		File string `yaml:"file"`
	} `yaml:"secrets"`
}

type service struct {
	Image string `yaml:"image"`
	Build *struct {
		Context    string `yaml:"context"`
		Dockerfile string `yaml:"dockerfile"`
	} `yaml:"build"`
	User        string            `yaml:"user"`
	Restart     string            `yaml:"restart"`
	ReadOnly    bool              `yaml:"read_only"`
	CapDrop     []string          `yaml:"cap_drop"`
	CapAdd      []string          `yaml:"cap_add"`
	SecurityOpt []string          `yaml:"security_opt"`
	PidsLimit   int               `yaml:"pids_limit"`
	Logging     yaml.Node         `yaml:"logging"`
	NetworkMode string            `yaml:"network_mode"`
	Profiles    []string          `yaml:"profiles"`
	Entrypoint  []string          `yaml:"entrypoint"`
	Command     []string          `yaml:"command"`
	Environment map[string]string `yaml:"environment"`
	DependsOn   map[string]struct {
		Condition string `yaml:"condition"`
		Required  *bool  `yaml:"required"`
	} `yaml:"depends_on"`
	Ports       []string      `yaml:"ports"`
	Volumes     []string      `yaml:"volumes"`
	Secrets     []string      `yaml:"secrets"`
	Grace       time.Duration `yaml:"stop_grace_period"`
	Healthcheck *struct {
		Disable     bool          `yaml:"disable"`
		Test        []string      `yaml:"test"`
		Interval    time.Duration `yaml:"interval"`
		Timeout     time.Duration `yaml:"timeout"`
		Retries     int           `yaml:"retries"`
		StartPeriod time.Duration `yaml:"start_period"`
	} `yaml:"healthcheck"`
}

// ours says that a service runs crmsync.
func (s *service) ours() bool { return s.Build != nil }

func readCompose(t *testing.T) compose {
	t.Helper()
	var c compose
	dec := yaml.NewDecoder(strings.NewReader(read(t, top+"/docker-compose.yml")))
	dec.KnownFields(true)
	if err := dec.Decode(&c); err != nil {
		t.Fatal(err)
	}
	if want := []string{"crmsync", "evance", "nats", "nats-data", "perfex"}; !slices.Equal(sorted(c.Services), want) {
		t.Fatalf("services %q", sorted(c.Services))
	}
	return c
}

func sorted[V any](m map[string]V) []string {
	var out []string
	for k := range m {
		out = append(out, k)
	}
	slices.Sort(out)
	return out
}

// load is the configuration as the crmsync service has it.
func load(t *testing.T, s *service) *config.Config {
	t.Helper()
	var env []string
	for k, v := range s.Environment {
		env = append(env, k+"="+v)
	}
	c, err := config.Load("crmsync.yaml", env)
	if err != nil {
		t.Fatal(err)
	}
	if w := c.Warnings(); len(w) > 0 {
		t.Errorf("warnings: %q", w)
	}
	return c
}

func readNATS(t *testing.T) *server.Options {
	t.Helper()
	o, err := server.ProcessConfigFile("nats/nats.conf")
	if err != nil {
		t.Fatal(err)
	}
	return o
}

func TestComposeIsLocked(t *testing.T) {
	for name, s := range readCompose(t).Services {
		if !s.ReadOnly || !slices.Equal(s.CapDrop, []string{"ALL"}) || !slices.Equal(s.SecurityOpt, []string{"no-new-privileges:true"}) {
			t.Errorf("%s is not locked down: %+v", name, s)
		}
		switch root := strings.HasPrefix(s.User, "0"); {
		case s.User == "":
			t.Errorf("%s runs as whoever its image says", name)
		case root && (s.NetworkMode != "none" || s.Restart != "no" || !slices.Equal(s.CapAdd, []string{"CHOWN"}) || s.Entrypoint[0] != "chown"):
			t.Errorf("%s may do more as root than to give a volume away", name)
		case !root && (len(s.CapAdd) > 0 || s.User != "65532:65532"):
			t.Errorf("%s: user %s, capabilities %q", name, s.User, s.CapAdd)
		}
		for _, p := range s.Ports {
			if !strings.HasPrefix(p, "127.0.0.1:") {
				t.Errorf("%s: port %s is open to other machines", name, p)
			}
		}
	}
}

func TestComposeImages(t *testing.T) {
	nats := "nats:" + required(t, "github.com/nats-io/nats-server/v2") + "-alpine"
	for name, s := range readCompose(t).Services {
		if !s.ours() {
			if s.Image != nats {
				t.Errorf("%s: image %s, the tests run with %s", name, s.Image, nats)
			}
			continue
		}
		if s.Image != "crmsync:local" || s.Build.Context != "." {
			t.Errorf("%s: image %s of %s", name, s.Image, s.Build.Context)
		}
		if _, err := os.Stat(filepath.Join(top, s.Build.Dockerfile)); err != nil {
			t.Error(err)
		}
	}
}

func TestComposeCommands(t *testing.T) {
	line := newCommandLine(t)
	n := 0
	for name, s := range readCompose(t).Services {
		if !s.ours() {
			continue
		}
		n++
		line.check(t, name, s.Command)
		for env := range s.Environment {
			line.checkEnv(t, name, env)
		}
	}
	if n != 3 {
		t.Errorf("%d services run crmsync", n)
	}
}

// Whatever is mounted is there, or is a secret that is made on the spot.
func TestComposeMounts(t *testing.T) {
	c := readCompose(t)
	used := map[string]bool{}
	for name, s := range c.Services {
		for _, v := range s.Volumes {
			from, rest, _ := strings.Cut(v, ":")
			if _, named := c.Volumes[from]; named {
				used[from] = true
				continue
			}
			if _, err := os.Stat(filepath.Join(top, from)); err != nil {
				t.Errorf("%s: %v", name, err)
			}
			if !strings.HasPrefix(from, "./") || !strings.HasSuffix(rest, ":ro") {
				t.Errorf("%s: %s is not a read-only mount of a file of ours", name, v)
			}
		}
		for _, secret := range s.Secrets {
			if _, ok := c.Secrets[secret]; !ok {
				t.Errorf("%s: no secret %s", name, secret)
			}
			used[secret] = true
		}
	}
	for name := range c.Volumes {
		if !used[name] {
			t.Errorf("volume %s is not used", name)
		}
	}
	text := read(t, top+"/docker-compose.yml")
	for name, secret := range c.Secrets {
		if !used[name] {
			t.Errorf("secret %s is not used", name)
		}
		if file, ok := strings.CutPrefix(secret.File, "./deploy/secrets/"); ok {
			if !strings.Contains(text, "> deploy/secrets/"+file+"\n") {
				t.Errorf("the file does not say how to make %s", secret.File)
			}
		} else if _, err := os.Stat(filepath.Join(top, secret.File)); err != nil {
			t.Error(err)
		}
	}
	if ignored := read(t, "secrets/.gitignore"); !strings.Contains(ignored, "\n*\n") {
		t.Errorf("secrets could be committed: %q", ignored)
	}
}

// The configuration, NATS and the emulators agree on who listens where.
func TestComposeWiring(t *testing.T) {
	c := readCompose(t)
	s := c.Services["crmsync"]
	cfg := load(t, s)
	if s.Environment["CRMSYNC_CONFIG"] != "/etc/crmsync/crmsync.yaml" ||
		!slices.Contains(s.Volumes, "./deploy/crmsync.yaml:/etc/crmsync/crmsync.yaml:ro") ||
		!slices.Contains(s.Command, "/etc/crmsync/crmsync.yaml") {
		t.Error("the configuration is not where it is looked for")
	}

	nats := readNATS(t)
	u, err := url.Parse(cfg.NATS.URL)
	if err != nil || u.Port() != strconv.Itoa(nats.Port) || c.Services[u.Hostname()] != c.Services["nats"] {
		t.Errorf("crmsync asks for NATS at %s, which listens on %d", cfg.NATS.URL, nats.Port)
	}

	_, port, err := net.SplitHostPort(cfg.HTTP.Listen)
	if err != nil {
		t.Fatal(err)
	}
	if _, def, _ := net.SplitHostPort(defaultOf(t, "http.listen")); port != def || !slices.Equal(s.Ports, []string{"127.0.0.1:" + def + ":" + def}) {
		t.Errorf("console at %s, published %q, by default at %s", cfg.HTTP.Listen, s.Ports, def)
	}

	secret := func(where, is string) {
		if name, ok := strings.CutPrefix(is, "file /run/secrets/"); !ok || !slices.Contains(s.Secrets, name) {
			t.Errorf("%s: secret in %s, mounted are %q", where, is, s.Secrets)
		}
	}
	secret("http.token", cfg.HTTP.Token.String())
	kinds := map[string]bool{}
	for name, target := range cfg.Targets {
		kinds[target.Kind] = true
		crm := c.Services[target.URL.Hostname()]
		if crm == nil || crm.Command[0] != "emulate" || crm.Command[1] != target.Kind ||
			!strings.Contains(strings.Join(crm.Command, " "), "--listen 0.0.0.0:"+target.URL.Port()) {
			t.Errorf("%s: nobody emulates %s at %s", name, target.Kind, target.URL)
		}
		if d, ok := s.DependsOn[target.URL.Hostname()]; !ok || d.Required == nil || *d.Required {
			t.Errorf("crmsync must start after %s, and without it", target.URL.Hostname())
		}
		if target.Kind == config.KindPerfex {
			secret(name, target.Token.String())
		} else {
			secret(name, target.Credentials.String())
		}
	}
	if len(kinds) != 2 {
		t.Errorf("the sample shows %v only", sorted(kinds))
	}
	if s.Grace < cfg.Drain+10*time.Second {
		t.Errorf("killed after %s, it drains for %s", s.Grace, cfg.Drain)
	}
}

// Who waits for another's health waits for something that is checked.
func TestComposeHealth(t *testing.T) {
	c := readCompose(t)
	for name, s := range c.Services {
		for on, d := range s.DependsOn {
			dep := c.Services[on]
			switch {
			case dep == nil:
				t.Errorf("%s depends on %s, which is not there", name, on)
			case d.Condition == "service_healthy" && (dep.Healthcheck == nil || len(dep.Healthcheck.Test) == 0 || dep.Healthcheck.Interval <= 0):
				t.Errorf("%s waits for the health of %s, which nobody checks", name, on)
			case d.Condition != "service_healthy" && d.Condition != "service_started" && d.Condition != "service_completed_successfully":
				t.Errorf("%s: condition %q", name, d.Condition)
			}
		}
		// The image's own check asks a worker.
		if s.ours() && s.Command[0] != "run" && (s.Healthcheck == nil || !s.Healthcheck.Disable) {
			t.Errorf("%s has the worker's health check", name)
		}
	}
	if d := c.Services["crmsync"].DependsOn["nats"]; d.Condition != "service_healthy" {
		t.Errorf("crmsync waits for NATS to be %s", d.Condition)
	}
	probe := c.Services["nats"].Healthcheck.Test
	if want := "http://127.0.0.1:" + strconv.Itoa(readNATS(t).HTTPPort) + "/healthz"; !strings.HasPrefix(probe[len(probe)-1], want) {
		t.Errorf("health of NATS is asked at %s", probe[len(probe)-1])
	}
}

// The server keeps what it has accepted, on the volume.
func TestNATSConfig(t *testing.T) {
	o := readNATS(t)
	if !o.JetStream || !o.SyncAlways {
		t.Errorf("JetStream %v, sync always %v", o.JetStream, o.SyncAlways)
	}
	if want := "nats-data:" + o.StoreDir; !slices.Contains(readCompose(t).Services["nats"].Volumes, want) {
		t.Errorf("the store is in %s, which is no volume", o.StoreDir)
	}
	s := readCompose(t).Services["nats"]
	if !slices.Equal(s.Command, []string{"--config", "/etc/nats/nats.conf"}) || !slices.Contains(s.Volumes, "./deploy/nats/nats.conf:/etc/nats/nats.conf:ro") {
		t.Errorf("%q does not read %q", s.Command, s.Volumes)
	}
	if init := readCompose(t).Services["nats-data"]; init.Entrypoint[1] != s.User || init.Entrypoint[2] != o.StoreDir || !slices.Contains(init.Volumes, "nats-data:"+o.StoreDir) {
		t.Errorf("%q does not give %s to %s", init.Entrypoint, o.StoreDir, s.User)
	}
}

// The emulators take the secrets that stand in for real ones.
func TestEmulatedSecrets(t *testing.T) {
	if got := strings.TrimSpace(read(t, "emulated/perfex")); got != emulator.DefaultToken {
		t.Errorf("perfex: %q", got)
	}
	var got map[string]string
	if err := json.Unmarshal([]byte(read(t, "emulated/evance.json")), &got); err != nil {
		t.Fatal(err)
	}
	for key, want := range map[string]string{
		"account": emulator.DefaultAccount, "client_id": emulator.DefaultClientID,
		"private_key": emulator.DefaultPrivateKey, "algorithm": "HS256",
	} {
		if got[key] != want {
			t.Errorf("evance: %s is %q", key, got[key])
		}
	}
}
