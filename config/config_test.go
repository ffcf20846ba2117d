package config

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var home = []string{"HOME=/home/op"}

// office is a valid target, to which a test adds lines.
const office = `targets:
  office:
    kind: perfex
    url: https://crm.example.com
    token_file: /run/secrets/perfex
    permissions: [1, 2]
`

const shop = `targets:
  shop:
    kind: evance
    url: https://shop.evance.me
    credentials_file: /run/secrets/evance.json
`

func mustParse(t *testing.T, doc string, env []string, set ...Override) *Config {
	t.Helper()
	c, err := Parse("crmsync.yaml", []byte(doc), append(slices.Clone(home), env...), set...)
	if err != nil {
		t.Fatalf("Parse: %v\n%s", err, doc)
	}
	return c
}

func TestDefaults(t *testing.T) {
	for name, doc := range map[string]string{"empty": "", "comment": "# nothing\n", "null": "~\n", "sections": "nats:\ntargets:\nhttp: {}\n", "dashes": "---\n"} {
		c := mustParse(t, doc, nil)
		if !c.NATS.Embedded() || c.NATS.Lease != 0 || c.NATS.Timeout != 5*time.Second ||
			c.Data != "/home/op/.local/state/crmsync" || c.HTTP.Listen != "127.0.0.1:8321" || !c.HTTP.Token.IsZero() ||
			c.Log != (Log{"info", "auto"}) || c.Drain != 30*time.Second || c.DeadLetters != (DeadLetters{}) || len(c.Targets) != 0 || len(c.Warnings()) != 0 {
			t.Errorf("%s: %+v %v", name, c, c.Warnings())
		}
	}
}

func TestTargetDefaults(t *testing.T) {
	p := mustParse(t, office, nil).Targets["office"]
	want := Quota{Rate: 2, Burst: 2, Concurrency: 4}
	if p.Name != "office" || p.API != "auto" || !reflect.DeepEqual(p.Quota, want) || p.Timeout != 5*time.Second ||
		p.Retry != (Retry{8, 10 * time.Second, 5 * time.Minute}) || !slices.Equal(p.Permissions.IDs, []int{1, 2}) ||
		p.URL.String() != "https://crm.example.com" || p.Token.String() != "file /run/secrets/perfex" || p.Verdicts.TokenMessages != nil {
		t.Errorf("perfex: %+v", p)
	}
	e := mustParse(t, shop, nil).Targets["shop"]
	if e.API != "1" || e.Grant != "auto" || e.Credentials.String() != "file /run/secrets/evance.json" || !e.Token.IsZero() {
		t.Errorf("evance: %+v", e)
	}
}

func TestEveryKeyArrives(t *testing.T) {
	c := mustParse(t, `
nats:
  url: "nats://a:4222, tls://b"
  context: prod
  creds: n.creds
  nkey: /n.nk
  user: u
  password_env: PW
  tlscert: ~/c.pem
  tlskey: k.pem
  tlsca: ca.pem
  tlsfirst: true
  timeout: 2s
  js_domain: hub
  inbox_prefix: _INBOX.x
  lease: 1m
  replicas: 3
  durability: relaxed
  monitor: [http://a:8222/, "https://b"]
data: store
store: {min_free: 12.5%}
http: {listen: "0.0.0.0:80", token_file: tok}
log: {level: debug, format: json}
drain_timeout: 1m30s
dead_letters: {max_age: 90d, max_size: 1.5GiB}
targets:
  office:
    kind: perfex
    url: http://10.0.0.5:8080/crm/
    allow_insecure: true
    allow_private: true
    ca_file: ca
    token_env: TOK
    api: 3
    permissions: clear
    verdicts: {token_messages: [a, "b, c"], missing_messages: d, unchanged_messages: [e]}
    timeout: 20s
    quota:
      {rate: 600/m, burst: 5, per_second: 9, per_minute: 100, per_hour: 1000, per_day: 5000, concurrency: 64, reserve: 20%, windows: [
        {limit: 30000, per: 7d}, {limit: 4000, per: day, calendar: true, zone: Europe/Berlin}, {per: 1h, limit: 900, calendar: true}]}
    quota_group: agency
    retry: {attempts: 3, base: 2s, max: 4s}
  shop: {kind: evance, url: "https://Shop.Evance.me", client_id: id, private_key_file: key, grant: jwt, api: 2, quota_group: agency}
quotas:
  agency: {rate: 4/s, burst: 6, per_hour: 800, reserve: 10%, windows: [{limit: 9, per: 1s}]}
`, []string{"PW=x", "TOK=y"})
	n, o, s := c.NATS, c.Targets["office"], c.Targets["shop"]
	n.Password = Secret{}
	if !reflect.DeepEqual(n, NATS{
		"nats://a:4222,tls://b", "prod", "n.creds", "/n.nk", "/home/op/c.pem", "k.pem", "ca.pem", true, "u",
		Secret{},
		2 * time.Second, "hub", "_INBOX.x", time.Minute, 3,
		"relaxed",
		[]string{"http://a:8222", "https://b"},
	}) {
		t.Errorf("nats: %+v", n)
	}
	got := fmt.Sprint(c.NATS.Password, c.Data, c.Store, c.HTTP, c.Log, c.Drain, c.DeadLetters, o.URL, o.AllowInsecure, o.AllowPrivate, o.CAFile, o.Token, o.API, o.Permissions,
		fmt.Sprintf("%v", plainQuota(o.Quota)), o.Quota.AllWindows(), o.QuotaGroup, c.Quotas, o.Retry, o.Timeout, s.URL, s.ClientID, s.PrivateKey, s.Grant, s.API) + fmt.Sprintf("%q", o.Verdicts)
	want := "env PWstore{0 0.125}{0.0.0.0:80 file tok}{debug json}1m30s{2160h0m0s 1610612736}http://10.0.0.5:8080/crmtruetruecaenv TOK3{[] true}" +
		"{10 5 9 100 1000 5000 64 0.2}[9 per second 100 per minute 1000 per hour 5000 per day 30000 per 7d 4000 per calendar day in Europe/Berlin 900 per calendar hour in UTC]" +
		"agency map[agency:4/s, burst 6, 800 per hour, 9 per second, 10% of it left to others]{3 2s 4s}20shttps://shop.evance.meidfile keyjwt2" + `{["a" "b, c"] ["d"] ["e"]}`
	if strings.ReplaceAll(got, " ", "") != strings.ReplaceAll(want, " ", "") {
		t.Errorf("\n got %s\nwant %s", got, want)
	}
	if v, _ := c.NATS.Password.Read(); v != "x" {
		t.Errorf("password is %q", v)
	}
}

// plainQuota is what of a quota is a number.
func plainQuota(q Quota) any {
	return struct {
		rate                                 float64
		burst, second, minute, hour, day, at int
		reserve                              float64
	}{q.Rate, q.Burst, q.PerSecond, q.PerMinute, q.PerHour, q.PerDay, q.Concurrency, q.Reserve}
}

// A target without a rate of its own takes that of the quota which it shares.
func TestSharedRate(t *testing.T) {
	quotas := "quotas: {agency: {rate: 9/s, per_hour: 5}, windows-only: {per_hour: 7}}\n"
	for group, want := range map[string]float64{"agency": 9, "windows-only": 2} {
		q := mustParse(t, office+"    quota_group: "+group+"\n"+quotas, nil).Targets["office"].Quota
		if q.Rate != want || q.Burst != int(want) {
			t.Errorf("in %s: %v", group, q)
		}
	}
	c := mustParse(t, office+"    quota: {rate: 1/s}\n    quota_group: agency\n"+quotas, nil)
	if q := c.Targets["office"].Quota; q.Rate != 1 {
		t.Errorf("with a rate of its own: %v", q)
	}
	if s := c.Quotas["agency"]; s.Burst != 5 || s.Concurrency != 0 {
		t.Errorf("shared: %v", s)
	}
	if got := source(c, "quotas.agency.per_hour"); got != "crmsync.yaml:9" {
		t.Errorf("per_hour is from %s", got)
	}
}

// Quotas need no file, as nothing does.
func TestQuotasFromElsewhere(t *testing.T) {
	c := mustParse(t, office, []string{
		"CRMSYNC_QUOTAS_BIG_AGENCY_PER_HOUR=50", "CRMSYNC_TARGETS_OFFICE_QUOTA_GROUP=big-agency",
		`CRMSYNC_TARGETS_OFFICE_QUOTA_WINDOWS=[{limit: 7, per: 1h, calendar: true, zone: Asia/Kolkata}]`,
	}, Override{Path: "quotas.big-agency.windows", Value: "[{limit: 9, per: day}]"})
	if got := c.Quotas["big-agency"].String(); got != "50 per hour, 9 per day" {
		t.Errorf("shared: %s", got)
	}
	if got := fmt.Sprint(c.Targets["office"].Quota.Windows); got != "[7 per calendar hour in Asia/Kolkata]" {
		t.Errorf("windows %s", got)
	}
	for value, want := range map[string]string{
		"1000/h":                           "is no list of windows",
		"[1, 2":                            "is no list of windows",
		"[a]":                              "windows[0]: is a single value",
		"[{limit: 1}]":                     "windows[0].per: is missing",
		"[{limit: 1, per: {}}]":            "windows[0]: holds something other than plain names",
		"[{limit: 1, per: 1h}, {per: 1h}]": "windows[1].limit: is missing",
	} {
		_, err := Parse("f", []byte(office), home, Override{Path: "targets.office.quota.windows", Value: value})
		if err == nil || !strings.Contains(err.Error(), want) || !strings.HasPrefix(err.Error(), "--set: ") {
			t.Errorf("%s: %v", value, err)
		}
	}
}

func TestPrecedence(t *testing.T) {
	doc := office + "    quota: {rate: 4/s}\nnats: {url: nats://file}\n"
	steps := []struct {
		env  []string
		set  []Override
		rate float64
		from string
		nats string
	}{
		{nil, nil, 4, "crmsync.yaml:7", "nats://file"},
		{[]string{"CRMSYNC_TARGETS_OFFICE_QUOTA_RATE=5/s", "NATS_URL=nats://cli"}, nil, 5, "env CRMSYNC_TARGETS_OFFICE_QUOTA_RATE", "nats://cli"},
		{[]string{"CRMSYNC_TARGETS_OFFICE_QUOTA_RATE=", "NATS_URL=nats://cli", "CRMSYNC_NATS_URL=nats://ours"}, nil, 4, "crmsync.yaml:7", "nats://ours"},
		{
			[]string{"CRMSYNC_TARGETS_OFFICE_QUOTA_RATE=5/s", "CRMSYNC_NATS_URL=nats://ours"},
			[]Override{{Path: "targets.office.quota.rate", Value: "6/s"}, {Path: "nats.url", Value: "nats://flag", Flag: "--server"}},
			6, "flag --set", "nats://flag",
		},
	}
	for i, s := range steps {
		c := mustParse(t, doc, s.env, s.set...)
		if c.Targets["office"].Quota.Rate != s.rate || c.NATS.URL != s.nats {
			t.Errorf("%d: rate %v, url %s", i, c.Targets["office"].Quota.Rate, c.NATS.URL)
		}
		if got := source(c, "targets.office.quota.rate"); got != s.from {
			t.Errorf("%d: rate is from %q, not %q", i, got, s.from)
		}
	}
}

func source(c *Config, path string) string {
	for _, s := range c.Show() {
		if s.Path == path {
			return s.Source
		}
	}
	return "absent"
}

func TestSetValidatesTheWhole(t *testing.T) {
	c := mustParse(t, office, nil)
	if err := c.Set("targets.office.retry.base", "10m"); err == nil || !strings.Contains(err.Error(), "--set: targets.office.retry.base: must be at most retry.max, but 10m > 5m") {
		t.Errorf("base beyond max: %v", err)
	}
	if c.Targets["office"].Retry.Base != 10*time.Second {
		t.Error("a refused Set changed the config")
	}
	if err := c.Set("targets.office.retry.max", "20m"); err != nil {
		t.Fatal(err)
	}
	if err := c.Set("targets.office.retry.base", "10m"); err != nil {
		t.Errorf("base within the max that was set before: %v", err)
	}
	if r := c.Targets["office"].Retry; r.Base != 10*time.Minute || r.Max != 20*time.Minute {
		t.Errorf("retry %+v", r)
	}
	for path, want := range map[string]string{
		"targets.office.quota.raet": "did you mean rate?",
		"targets.office.quota":      "holds keys",
		"targets.Office.quota.rate": "not a target's name",
		"targets.office.token":      "secrets are not written here",
		"bogus":                     "is not a key",
	} {
		if err := c.Set(path, "s3cret"); err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "s3cret") {
			t.Errorf("Set %s: %v", path, err)
		}
	}
}

func TestLoad(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "crmsync.yaml")
	if _, err := Load(file, home); !errors.Is(err, fs.ErrNotExist) || !strings.Contains(err.Error(), file) {
		t.Errorf("missing: %v", err)
	}
	if _, err := Load(dir, home); err == nil || !strings.Contains(err.Error(), "is a folder") {
		t.Errorf("folder: %v", err)
	}
	if c, err := Load("", home); err != nil || c.Drain != 30*time.Second {
		t.Errorf("no file: %v", err)
	}
	doc := strings.Replace(office, "/run/secrets/perfex", "perfex.token", 1)
	if err := os.WriteFile(file, []byte(doc), 0o600); err != nil {
		t.Fatal(err)
	}
	c, err := Load(file, home)
	if err != nil {
		t.Fatal(err)
	}
	if got, want := c.Targets["office"].Token.String(), "file "+filepath.Join(dir, "perfex.token"); got != want {
		t.Errorf("a relative path is taken from the file's folder: %s, not %s", got, want)
	}
	if len(c.Warnings()) != 0 {
		t.Errorf("warnings: %v", c.Warnings())
	}
	chmod(t, file, 0o664)
	c, err = Load(file, home)
	if err != nil || len(c.Warnings()) != 1 || !strings.Contains(c.Warnings()[0], "its group") {
		t.Fatalf("group-writable: %v", err)
	}
	if err := c.Set("log.level", "warn"); err != nil || len(c.Warnings()) != 1 {
		t.Errorf("Set lost the warning: %v %v", err, c.Warnings())
	}
	chmod(t, file, 0o646)
	if _, err = Load(file, home); err == nil || !strings.Contains(err.Error(), "written by everybody") {
		t.Errorf("world-writable: %v", err)
	}
	chmod(t, file, 0o600)
	if err := os.WriteFile(file, []byte("# "+strings.Repeat("x", MaxFileSize)), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err = Load(file, home); err == nil || !strings.Contains(err.Error(), "larger than 1 MiB") {
		t.Errorf("too large: %v", err)
	}
}

func chmod(t *testing.T, file string, mode os.FileMode) {
	t.Helper()
	if err := os.Chmod(file, mode); err != nil {
		t.Fatal(err)
	}
}

func TestData(t *testing.T) {
	for _, tc := range []struct {
		env  []string
		want string
	}{
		{[]string{"HOME=/h", "XDG_STATE_HOME=/s"}, "/s/crmsync"},
		{[]string{"HOME=/h", "XDG_STATE_HOME=relative"}, "/h/.local/state/crmsync"},
		{[]string{"HOME=/h", "CRMSYNC_DATA=/d"}, "/d"},
		{[]string{"NATS_URL=nats://n"}, ""},
	} {
		c, err := Parse("", nil, tc.env)
		if err != nil || c.Data != tc.want {
			t.Errorf("%v: %v, %v", tc.env, c, err)
		}
	}
	if _, err := Parse("", nil, nil); err == nil || !strings.Contains(err.Error(), "data: has no default") {
		t.Errorf("neither XDG_STATE_HOME nor HOME: %v", err)
	}
}

func TestLease(t *testing.T) {
	for _, tc := range []struct {
		doc  string
		want time.Duration
	}{
		{"", 0},
		{"nats: {url: n}", 0},
		{office, 0},
		{office + "    timeout: 1s", 0},
		{office + "    timeout: 10s", 25 * time.Second},
		{office + "    timeout: 60s\nnats: {url: n}", 86430 * time.Millisecond},
		{office + "nats: {lease: 20s}", 20 * time.Second},
	} {
		if got := mustParse(t, tc.doc, nil).NATS.Lease; got != tc.want {
			t.Errorf("%s: lease %v, not %v", tc.doc, got, tc.want)
		}
	}
	_, err := Parse("f", []byte(office+"nats:\n  lease: 7s\n"), home)
	want := "f:8: nats.lease: must be at least (targets.office.timeout + 500ms) * 10/7 = 7.86s, but is 7s; raise it, lower the timeout, or leave it out"
	if err == nil || err.Error() != want {
		t.Errorf("got  %v\nwant %s", err, want)
	}
}

func TestExample(t *testing.T) {
	c, err := Parse("example.yaml", Example, home)
	if err != nil {
		t.Fatal(err)
	}
	if len(c.Targets) != 2 || len(c.Warnings()) != 0 {
		t.Errorf("%d targets, warnings %v", len(c.Targets), c.Warnings())
	}
	// What it calls a default is one.
	bare := mustParse(t, office+strings.TrimPrefix(shop, "targets:\n"), nil)
	for _, s := range bare.Show() {
		for _, e := range c.Show() {
			written := strings.HasPrefix(e.Source, "example")
			if s.Path == e.Path && s.Source == "default" && written && s.Value != e.Value && !strings.HasPrefix(s.Path, "targets.shop.quota") {
				t.Errorf("%s: the example has %q, the default is %q", s.Path, e.Value, s.Value)
			}
		}
	}
	// Every key is in it, if only in a comment. A secret's own name is not: it
	// may only be a variable.
	for _, k := range Keys() {
		name := last(k.Path)
		if name == "token" || name == "credentials" || name == "private_key" || name == "password" {
			continue
		}
		if !strings.Contains(string(Example), " "+name+":") && !strings.Contains(string(Example), "\n"+name+":") {
			t.Errorf("%s is not in the example", k.Path)
		}
	}
}

// Commented lines are documentation that must hold, too.
func TestExampleUncommented(t *testing.T) {
	var lines []string
	for line := range strings.Lines(string(Example)) {
		rest := strings.TrimLeft(line, " ")
		if text, ok := strings.CutPrefix(rest, "# "); ok {
			key, rest, isKey := strings.Cut(strings.TrimSpace(text), ":")
			if isKey && !strings.ContainsAny(key, " .") && (rest == "" || rest[0] == ' ') && key != "or" {
				line = line[:strings.IndexByte(line, '#')] + text
			}
		}
		lines = append(lines, line)
	}
	doc := strings.Join(lines, "")
	// Not all at once: these are alternatives.
	var kept []string
	for line := range strings.Lines(doc) {
		if k := strings.TrimSpace(line); !strings.Contains(k, "_env:") && !strings.HasPrefix(k, "client_id:") && !strings.HasPrefix(k, "private_key") {
			kept = append(kept, line)
		}
	}
	c, err := Parse("example.yaml", []byte(strings.Join(kept, "")), home)
	if err != nil {
		t.Fatalf("%v\n%s", err, strings.Join(kept, ""))
	}
	if o := c.Targets["office"]; o.Quota.PerDay == 0 || len(o.Quota.AllWindows()) != 6 || c.Quotas[o.QuotaGroup].PerHour == 0 || o.Verdicts.MissingMessages == nil || c.NATS.JSDomain == "" || c.Data == "" {
		t.Errorf("the comments were not taken in: %+v", o)
	}
}
