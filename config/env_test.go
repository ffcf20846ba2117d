package config

import (
	"strings"
	"testing"
)

// knownNames are names of both kinds.
func knownNames(names []string) map[string]map[string]int {
	out := map[string]map[string]int{"targets": {}, "quotas": {}}
	for _, n := range names {
		out["targets"][n], out["quotas"][n] = 1, 1
	}
	return out
}

func TestEnvPath(t *testing.T) {
	for _, tc := range []struct {
		name  string
		known []string
		want  string
	}{
		{"CRMSYNC_HTTP_LISTEN", nil, "http.listen"},
		{"CRMSYNC_DRAIN_TIMEOUT", nil, "drain_timeout"},
		{"CRMSYNC_NATS_JS_DOMAIN", nil, "nats.js_domain"},
		{"CRMSYNC_TARGETS_OFFICE_QUOTA_RATE", nil, "targets.office.quota.rate"},
		{"CRMSYNC_TARGETS_HEAD_OFFICE_URL", nil, "targets.head-office.url"},
		{"CRMSYNC_TARGETS_OFFICE_TOKEN_FILE", nil, "targets.office.token_file"},
		{"CRMSYNC_TARGETS_OFFICE_TOKEN", nil, "targets.office.token"},
		{"CRMSYNC_TARGETS_OFFICE_PRIVATE_KEY_FILE", nil, "targets.office.private_key_file"},
		{"CRMSYNC_TARGETS_A_VERDICTS_TOKEN_MESSAGES", nil, "targets.a.verdicts.token_messages"},
		// A target there is goes before one there would be.
		{"CRMSYNC_TARGETS_CA_FILE_URL", []string{"ca-file"}, "targets.ca-file.url"},
		{"CRMSYNC_TARGETS_A_PRIVATE_KEY_FILE", []string{"a"}, "targets.a.private_key_file"},
		{"CRMSYNC_TARGETS_OFFICE_RAET", []string{"office"}, ""},
		{"CRMSYNC_TARGETS__URL", nil, ""},
		{"CRMSYNC_TARGETS_URL", nil, ""},
		{"CRMSYNC_TARGETS_" + strings.Repeat("A", 33) + "_URL", nil, ""},
		{"CRMSYNC_NATS", nil, ""},
		{"CRMSYNC_QUOTAS_AGENCY_PER_HOUR", nil, "quotas.agency.per_hour"},
		{"CRMSYNC_QUOTAS_A_B_WINDOWS", nil, "quotas.a-b.windows"},
		{"CRMSYNC_QUOTAS_AGENCY_CONCURRENCY", nil, ""},
		{"CRMSYNC_TARGETS_OFFICE_QUOTA_GROUP", nil, "targets.office.quota_group"},
	} {
		if got, _ := envPath(tc.name, knownNames(tc.known)); got != tc.want {
			t.Errorf("%s with %v: %q, not %q", tc.name, tc.known, got, tc.want)
		}
	}
	// Each key's name leads back to it.
	for _, k := range Keys() {
		path := strings.Replace(k.Path, "*", "my-crm-2", 1)
		if got, ok := envPath(EnvName(path), knownNames([]string{"my-crm-2"})); !ok || got != path {
			t.Errorf("%s: %s leads to %q", path, EnvName(path), got)
		}
	}
}

// A container needs no file at all.
func TestEnvironmentAlone(t *testing.T) {
	c, err := Parse("", nil, []string{
		"HOME=/h", "CRMSYNC_TARGETS_HEAD_OFFICE_KIND=perfex", "CRMSYNC_TARGETS_HEAD_OFFICE_URL=https://crm.example.com",
		"CRMSYNC_TARGETS_HEAD_OFFICE_TOKEN=tok", "CRMSYNC_TARGETS_HEAD_OFFICE_PERMISSIONS=3, 1,1",
		`CRMSYNC_TARGETS_HEAD_OFFICE_VERDICTS_TOKEN_MESSAGES=["no, token", other]`,
		"NATS_URL=nats://n:4222", "NATS_CREDS=/c", "NATS_NKEY=/n", "NATS_USER=u", "NATS_PASSWORD=p", "NATS_CERT=/a", "NATS_KEY=/b", "NATS_CA=/d", "NATS_TIMEOUT=9s", "NATS_CONTEXT=x",
	})
	if err != nil {
		t.Fatal(err)
	}
	o, n := c.Targets["head-office"], c.NATS
	if tok, err := o.Token.Read(); tok != "tok" || err != nil || len(o.Permissions.IDs) != 2 || o.Permissions.IDs[0] != 1 ||
		len(o.Verdicts.TokenMessages) != 2 || o.Verdicts.TokenMessages[0] != "no, token" {
		t.Errorf("%+v, %v", o, err)
	}
	if n.URL != "nats://n:4222" || n.Creds != "/c" || n.NKey != "/n" || n.User != "u" || n.TLSCert != "/a" || n.TLSKey != "/b" || n.TLSCA != "/d" ||
		n.Timeout.Seconds() != 9 || n.Context != "x" || n.Password.String() != "env NATS_PASSWORD" {
		t.Errorf("%+v", n)
	}
}

func TestEnvironmentUnknown(t *testing.T) {
	for _, tc := range []struct{ env, err, warning string }{
		{"CRMSYNC_TARGETS_OFFICE_QUOTA_RAET=4/s", "env CRMSYNC_TARGETS_OFFICE_QUOTA_RAET: is the variable of no key; did you mean CRMSYNC_TARGETS_OFFICE_QUOTA_RATE?", ""},
		{"CRMSYNC_NATS_ULR=x", "env CRMSYNC_NATS_ULR: is the variable of no key; did you mean CRMSYNC_NATS_URL?", ""},
		{"CRMSYNC_DRIAN_TIMEOUT=5s", "", "env CRMSYNC_DRIAN_TIMEOUT: sets nothing; did you mean CRMSYNC_DRAIN_TIMEOUT?"},
		{"CRMSYNC_QUOTAS_AGENCY_PER_HUOR=4", "env CRMSYNC_QUOTAS_AGENCY_PER_HUOR: is the variable of no key", ""},
		{"CRMSYNC_CONFIG=/etc/x", "", ""},
		{"CRMSYNC_OFFICE_SECRET=x", "", ""},
		{"CRMSYNC_NATS_ULR=", "", ""},
		{"OTHER_NATS_ULR=x", "", ""},
		// Kubernetes sets these for services named crmsync and crmsync-nats.
		{"CRMSYNC_SERVICE_HOST=10.0.0.1", "", ""},
		{"CRMSYNC_SERVICE_PORT_HTTP=8321", "", ""},
		{"CRMSYNC_PORT=tcp://10.0.0.1:8321", "", ""},
		{"CRMSYNC_PORT_8321_TCP_ADDR=10.0.0.1", "", ""},
		{"CRMSYNC_NATS_SERVICE_HOST=10.0.0.1", "", ""},
		{"CRMSYNC_NATS_PORT_4222_TCP=tcp://10.0.0.1:4222", "", ""},
		{"CRMSYNC_LOG_LEVEL=loud", `env CRMSYNC_LOG_LEVEL: log.level: "loud" is not known; write trace, debug, info, warn or error`, ""},
	} {
		c, err := Parse("f", []byte(office), append([]string{tc.env}, home...))
		switch {
		case tc.err != "":
			if err == nil || err.Error() != tc.err {
				t.Errorf("%s:\n got %v\nwant %s", tc.env, err, tc.err)
			}
		case err != nil:
			t.Errorf("%s: %v", tc.env, err)
		case strings.Join(c.Warnings(), "\n") != tc.warning:
			t.Errorf("%s: warnings %q", tc.env, c.Warnings())
		}
	}
}

func TestWarnings(t *testing.T) {
	for doc, want := range map[string]string{
		office + "quotas: {a: {rate: 1/s}}": "quotas.a is used by no target; write quota_group: a in those that share it",
		office + "    quota: {rate: 0/s}":   "targets.office.quota.rate is 0: nothing is sent to this target",
		"nats: {creds: c}":                  "nats.creds is set, but neither nats.url nor nats.context: the embedded server takes no notice of it",
		"nats: {url: h, password_env: P}":   "nats.password is set, but nats.user is not: it is not used",
	} {
		if got := mustParse(t, doc, []string{"P=x"}).Warnings(); len(got) != 1 || got[0] != want {
			t.Errorf("%s: %q", doc, got)
		}
	}
}

func TestShow(t *testing.T) {
	c := mustParse(t, office+"    quota: {rate: 5/s}\nnats: {lease: 90s}\n", nil, Override{Path: "log.level", Value: "warn"}, Override{Path: "http.listen", Value: "off", Flag: "--listen"})
	got := map[string]string{}
	for _, s := range c.Show() {
		got[s.Path] = s.Value + " | " + s.Source
	}
	for path, want := range map[string]string{
		"nats.lease":                    "1m30s | crmsync.yaml:8",
		"nats.timeout":                  "5s | default",
		"data":                          "/home/op/.local/state/crmsync | default",
		"log.level":                     "warn | flag --set",
		"http.listen":                   "off | flag --listen",
		"targets.office.api":            "auto | default",
		"targets.office.quota.burst":    "5 | default",
		"targets.office.quota.rate":     "5/s | crmsync.yaml:7",
		"targets.office.token_file":     "/run/secrets/perfex | crmsync.yaml:5",
		"targets.office.permissions":    "[1, 2] | crmsync.yaml:6",
		"targets.office.retry.base":     "10s | default",
		"targets.office.quota.per_hour": "",
		"targets.office.grant":          "",
		"nats.creds":                    "",
	} {
		if got[path] != want {
			t.Errorf("%s: %q, not %q", path, got[path], want)
		}
	}
}

func TestParseOverride(t *testing.T) {
	if o, err := ParseOverride("data=/a=b"); err != nil || o != (Override{Path: "data", Value: "/a=b"}) {
		t.Errorf("%+v, %v", o, err)
	}
	for _, s := range []string{"", "data", "=x"} {
		if _, err := ParseOverride(s); err == nil {
			t.Errorf("%q is taken", s)
		}
	}
}
