package config

import (
	"errors"
	"fmt"
	"strings"
	"testing"
)

// Each fault is reported at its line and path, and with what to write instead.
func TestFaults(t *testing.T) {
	target := func(lines string) string {
		return office + "    " + strings.ReplaceAll(lines, "\n", "\n    ")
	}
	evance := func(lines string) string {
		return "targets:\n  shop:\n    kind: evance\n    url: https://shop.evance.me\n    " + strings.ReplaceAll(lines, "\n", "\n    ")
	}
	for _, tc := range []struct{ name, doc, want string }{
		// C51
		{"rate", target(`quota: {rate: 4/fortnight}`), `f:7: targets.office.quota.rate: "4/fortnight" is not a rate; write 4/s, 600/m or 1000/h`},
		{"rate negative", target(`quota: {rate: -4/s}`), `f:7: targets.office.quota.rate: "-4/s" is not a rate; write 4/s, 600/m or 1000/h`},
		{"rate NaN", target(`quota: {rate: NaN/s}`), `f:7: targets.office.quota.rate: "NaN/s" is not a rate; write 4/s, 600/m or 1000/h`},
		{"rate huge", target(`quota: {rate: 1000000000/s}`), `f:7: targets.office.quota.rate: "1000000000/s" is more than 10000/s`},
		{"burst 0", target(`quota: {burst: 0}`), `f:7: targets.office.quota.burst: 0 is not between 1 and 10000`},
		{"burst float", target(`quota: {burst: 1.5}`), `f:7: targets.office.quota.burst: "1.5" is not a whole number; write one from 1 to 10000`},
		{"burst beyond a window", target(`quota: {burst: 9, per_hour: 8}`), `f:7: targets.office.quota.burst: must be at most quota.per_hour, but 9 > 8`},
		{"window 0", target(`quota: {per_day: 0}`), `f:7: targets.office.quota.per_day: 0 is not between 1 and 1000000000`},
		{"concurrency", target(`quota: {concurrency: 65}`), `f:7: targets.office.quota.concurrency: 65 is not between 1 and 64`},
		{"reserve", target(`quota: {reserve: 91%}`), `f:7: targets.office.quota.reserve: "91%" is not between 0% and 90%`},
		{"reserve without percent", target(`quota: {reserve: 20}`), `f:7: targets.office.quota.reserve: "20" is more than everything; with a percent sign if percent is meant`},
		// windows
		{"windows text", target(`quota: {windows: 1000/h}`), `f:7: targets.office.quota.windows: is no list of windows; write [{limit: 1000, per: 1h}]`},
		{"windows empty", target(`quota: {windows: []}`), `f:7: targets.office.quota.windows: is empty; leave it out for none`},
		{"window text", target(`quota: {windows: [1000/h]}`), `f:7: targets.office.quota.windows[0]: is a single value; write it as {name: value, name: value}`},
		{"window deep", target(`quota: {windows: [{limit: [1], per: 1h}]}`), `f:7: targets.office.quota.windows[0]: holds something other than plain names with plain values`},
		{"window twice in one", target("quota:\n  windows:\n  - limit: 1\n    limit: 2"), `f:10: targets.office.quota.windows[0].limit: is there twice`},
		{"window tag", target(`quota: {windows: [{limit: !!binary aGk=, per: 1h}]}`), `f:7: targets.office.quota.windows[0]: has a YAML tag; write a plain value`},
		{
			"window fields", target("quota:\n  windows:\n  - {limit: 5, per: 1h}\n  - limit: 0\n    per: 32d\n    calender: true\n    zone: Berlin"),
			`f:10: targets.office.quota.windows[1].limit: 0 is not between 1 and 1000000000
f:11: targets.office.quota.windows[1].per: "32d" is not between 1s and 31d
f:12: targets.office.quota.windows[1].calender: is not a key; did you mean calendar?
f:13: targets.office.quota.windows[1].zone: "Berlin" is not a time zone; write one such as Europe/Berlin, or UTC`,
		},
		{"window strange field", target(`quota: {windows: [{limit: 1, per: 1h, xylophone: 1}]}`), `f:7: targets.office.quota.windows[0].xylophone: is not a key; known here: limit, per, calendar, zone`},
		{"window lacks", target(`quota: {windows: [{per: 1h}]}`), `f:7: targets.office.quota.windows[0].limit: is missing; a window is such as {limit: 1000, per: 1h}`},
		{"calendar of ten minutes", target(`quota: {windows: [{limit: 1, per: 10m, calendar: true}]}`), `f:7: targets.office.quota.windows[0].per: of a calendar window is 1m, 1h or 1d; without calendar it may be any`},
		{"zone without calendar", target(`quota: {windows: [{limit: 9, per: 1h, zone: UTC}]}`), `f:7: targets.office.quota.windows[0].zone: is for calendar windows; add calendar: true, or remove it`},
		{"zone of this machine", target(`quota: {windows: [{limit: 9, per: 1h, calendar: true, zone: Local}]}`), `f:7: targets.office.quota.windows[0].zone: "Local" is not a time zone; write one such as Europe/Berlin, or UTC`},
		{"zone outside", target(`quota: {windows: [{limit: 9, per: 1h, calendar: true, zone: ../etc/passwd}]}`), `f:7: targets.office.quota.windows[0].zone: "../etc/passwd" is not a time zone; write one such as Europe/Berlin, or UTC`},
		{"one window twice", target(`quota: {per_hour: 9, windows: [{limit: 8, per: 60m}]}`), `f:7: targets.office.quota.windows: windows[0] counts the same requests as per_hour: 8 per hour; keep the stricter one`},
		{"one calendar twice", target(`quota: {windows: [{limit: 8, per: 1h}, {limit: 7, per: 1h, calendar: true}, {limit: 9, per: 1h, calendar: true, zone: UTC}]}`), `f:7: targets.office.quota.windows: windows[2] counts the same requests as windows[1]: 9 per calendar hour in UTC; keep the stricter one`},
		{"burst beyond a further window", target(`quota: {burst: 9, windows: [{limit: 8, per: 7d}]}`), `f:7: targets.office.quota.burst: must be at most the limit of each of the windows, but 9 > 8 per 7d`},
		// shared quotas
		{"unknown group", target(`quota_group: agency`), `f:7: targets.office.quota_group: "agency" is none of quotas; there are none: write them under quotas`},
		{"unknown of some", target(`quota_group: agnecy`) + "\nquotas: {agency: {rate: 1/s}, b: {rate: 1/s}}", `f:7: targets.office.quota_group: "agnecy" is none of quotas; there is agency or b`},
		{"no limit", "quotas:\n  agency: {reserve: 10%}", `f:2: quotas.agency: limits nothing; write a rate, such as rate: 4/s, or a window, such as per_hour: 1000`},
		{"only a fault", "quotas:\n  agency: {per_hour: many}", `f:2: quotas.agency.per_hour: "many" is not a whole number; write one from 1 to 1000000000`},
		{"shared rate 0", "quotas:\n  agency: {rate: 0/s, per_hour: 1}", `f:2: quotas.agency.rate: must not be 0: leave it out for no limit on the rate; to send nothing, use crmsync hold`},
		{"shared concurrency", "quotas:\n  agency: {rate: 1/s, concurrency: 4}", `f:2: quotas.agency.concurrency: is not a key; there is targets.<name>.quota.concurrency`},
		{"shared burst", "quotas:\n  agency: {burst: 9, per_second: 4}", `f:2: quotas.agency.burst: must be at most per_second, but 9 > 4`},
		{"shared name", "quotas:\n  The Agency: {rate: 1/s}", `f:2: quotas.The Agency: is not a quota's name: 1 to 32 characters of a-z, 0-9 and dash`},
		// C52
		{"timeout without unit", target(`timeout: 15`), `f:7: targets.office.timeout: "15" has no unit; write 15s for seconds`},
		{"timeout long", target(`timeout: 121s`), `f:7: targets.office.timeout: "121s" is not between 1s and 2m`},
		{"timeout short", target(`timeout: 900ms`), `f:7: targets.office.timeout: "900ms" is not between 1s and 2m`},
		{"letters' age", "dead_letters: {max_age: 2h}", `f:1: dead_letters.max_age: "2h" is not between 24h and 3650d`},
		{"free space", "store: {min_free: 100%}", `f:1: store.min_free: "100%" is not between 0% and 90%; off for no bound`},
		{"free space too small", "store: {min_free: 12}", `f:1: store.min_free: "12" is no size of 1MiB or more, no share such as 10%, and not off`},
		{"durability", "nats: {durability: no}", `f:1: nats.durability: "no" is not known; write auto, always or relaxed`},
		{"monitor", "nats: {monitor: [nats://a:4222]}", `f:1: nats.monitor: "nats://a:4222" is not a monitoring address; write http://host:8222`},
		{"letters' size", "dead_letters: {max_size: 100kB}", `f:1: dead_letters.max_size: "100kB" is less than 1MiB`},
		{"backoff", target(`retry: {base: 10m}`), `f:7: targets.office.retry.base: must be at most retry.max, but 10m > 5m`},
		{"attempts", target(`retry: {attempts: 0}`), `f:7: targets.office.retry.attempts: 0 is not between 1 and 100`},
		// C53
		{"unknown", target(`quota: {rat: 4/s}`), `f:7: targets.office.quota.rat: is not a key; did you mean rate?`},
		{"misplaced", target(`concurrency: 4`), `f:7: targets.office.concurrency: is not a key; there is targets.<name>.quota.concurrency`},
		{"unknown top", "tagrets: {}", `f:1: tagrets: is not a key; did you mean targets?`},
		{"nothing near", "foobarbaz: 1", `f:1: foobarbaz: is not a key; known here: data, dead_letters, drain_timeout, http, log, nats, quotas, store, targets`},
		{"twice", target("timeout: 5s\ntimeout: 6s"), `f:8: targets.office.timeout: is there twice; the first is on line 7`},
		{"target twice", office + "  office: {}", `f:7: targets.office: is there twice; the first is on line 2`},
		{"dotted", target(`quota.rate: 4/s`), `f:7: targets.office.quota.rate: is not a key; write what follows the dot indented below what precedes it`},
		{"list for one", target(`timeout: [5s]`), `f:7: targets.office.timeout: is a list, where one value belongs: for one whole HTTP call`},
		{"mapping for one", "log: {level: {a: b}}", `f:1: log.level: is a mapping, where one value belongs: trace, debug, info, warn or error`},
		{"one for mapping", "log: debug", `f:1: log: is a single value; log holds keys, each on a line of its own, indented`},
		{"list for mapping", "- a", `f:1: is a list; the file holds keys, each on a line of its own, indented`},
		{"text", "hello", `f:1: is a single value; the file holds keys, each on a line of its own, indented`},
		{"tab", "log:\n\tlevel: info", `f:2: is indented with a tab; YAML takes only spaces`},
		{"unclosed", "log: {level: [", `f:1: is not valid YAML: did not find expected node content`},
		{"documents", "log: {level: warn}\n---\nlog: {level: info}", `f:2: a second document begins here; a configuration is one`},
		{"strange key", "[a]: b", `f:1: has a key that is not a plain word`},
		{"tag", "data: !!binary aGk=", `f:1: data: has a YAML tag; write a plain value`},
		{"own tag", "data: !env HOME", `f:1: data: has a YAML tag; write a plain value`},
		{"nested item", target("permissions2: x"), `f:7: targets.office.permissions2: is not a key; did you mean permissions?`},
		{"name", strings.Replace(office, "office:", "Head Office:", 1), `f:2: targets.Head Office: is not a target's name: 1 to 32 characters of a-z, 0-9 and dash`},
		{"dotted name", strings.Replace(office, "office:", "a.b:", 1), `f:2: targets.a.b: is not a target's name: 1 to 32 characters of a-z, 0-9 and dash`},
		{"bool", target(`allow_insecure: yes`), `f:7: targets.office.allow_insecure: "yes" is neither true nor false`},
		{"enum", "log: {level: loud}", `f:1: log.level: "loud" is not known; write trace, debug, info, warn or error`},
		{"bad merge", "log:\n  <<: 5", `f:2: log: merges (<<) something that holds no keys`},
		// C55
		{"substitution", "data: /srv/${NAME}/x", `f:1: data: has ${...} in it, which is not replaced here; set the variable CRMSYNC_DATA instead`},
		// C56
		{"open", "http: {listen: 0.0.0.0:8321}", `f:1: http.listen: can be reached by other machines, so callers must present a token; add http.token_file, or listen on 127.0.0.1`},
		{"open, any", "http: {listen: \":8321\"}", `f:1: http.listen: can be reached by other machines, so callers must present a token; add http.token_file, or listen on 127.0.0.1`},
		{"listen", "http: {listen: \"8321\"}", `f:1: http.listen: "8321" is not an address to listen on; write 127.0.0.1:8321, or off for none`},
		{"listen port", "http: {listen: \"127.0.0.1:99999\"}", `f:1: http.listen: "127.0.0.1:99999" has a port that is not 0 to 65535`},
		// What a target needs
		{"nothing", "targets:\n  x:\n", "f:2: targets.x.kind: is missing; write kind: perfex or kind: evance\nf:2: targets.x.url: is missing; write the CRM's address, such as https://crm.example.com"},
		{"permissions", strings.Replace(office, "    permissions: [1, 2]\n", "", 1), `f:2: targets.office.permissions: is missing: Perfex removes a contact's portal permissions at every write that does not name them, and no answer of it says what they were; write those that contacts shall have, such as [1, 2, 3], or clear for none`},
		{"permissions empty", strings.Replace(office, "[1, 2]", "[]", 1), `f:6: targets.office.permissions: is empty; write numbers from 1 to 6, such as [1, 2, 3], or clear`},
		{"permissions wrong", strings.Replace(office, "[1, 2]", "[1, 7]", 1), `f:6: targets.office.permissions: "7" is not a permission; write numbers from 1 to 6, such as [1, 2, 3], or clear`},
		{"permissions mixed", strings.Replace(office, "[1, 2]", "[clear]", 1), `f:6: targets.office.permissions: "clear" is not a permission; write numbers from 1 to 6, such as [1, 2, 3], or clear`},
		{"no token", strings.Replace(office, "    token_file: /run/secrets/perfex\n", "", 1), `f:2: targets.office.token_file: is missing: a perfex target needs its API token; write token_file: /path or token_env: NAME, or give systemd's LoadCredential=office`},
		{"two tokens", target(`token_env: HOME`), `f:7: targets.office.token_env: is the second way to name one secret; the other is at f:5`},
		{"token itself", target(`token: s3cret`), `f:7: targets.office.token: secrets are not written here; put it in a file and write token_file: /path, or token_env: NAME`},
		{"evance key", evance("client_id: a"), `f:2: targets.shop.private_key_file: is missing: it goes with client_id`},
		{"evance id", evance("private_key_file: a"), `f:2: targets.shop.client_id: is missing: it goes with private_key_file`},
		{"evance both", evance("credentials_file: c\nclient_id: i\nprivate_key_file: k"), `f:6: targets.shop.client_id: is a second way to log in beside credentials_file; remove one of them`},
		{"evance none", evance("api: 1"), `f:2: targets.shop.credentials_file: is missing: an evance target needs the credentials file of its private app; write credentials_file: /path, or client_id and private_key_file, or give systemd's LoadCredential=shop`},
		{"evance api", evance("credentials_file: c\napi: auto"), `f:6: targets.shop.api: "auto" is not known for evance; write 1 or 2`},
		{"perfex api", target(`api: 1`), `f:7: targets.office.api: "1" is not known for perfex; write auto, 2 or 3`},
		{"other kind's", target(`grant: jwt`), `f:7: targets.office.grant: is for evance only; remove it`},
		{"other kind's", evance("credentials_file: c\npermissions: clear"), `f:6: targets.shop.permissions: is for perfex only; remove it`},
		{"empty message", target(`verdicts: {token_messages: [a, ""]}`), `f:7: targets.office.verdicts.token_messages: has an empty message, which would match every answer without one`},
		{"no messages", target(`verdicts: {token_messages: []}`), `f:7: targets.office.verdicts.token_messages: is empty; leave it out for the built-in messages`},
		// NATS
		{"nats password", "nats: {url: \"nats://u:s3cret@h\"}", `f:1: nats.url: must not contain a user, password or token; use nats.creds, or nats.user and nats.password_file`},
		{"nats url", "nats: {url: \"http://h\"}", `f:1: nats.url: must begin with nats://, tls://, ws:// or wss://`},
		{"nats list", "nats: {url: \"nats://h,\"}", `f:1: nats.url: is not a NATS address; write nats://host:4222, several separated by commas`},
		{"nats port", "nats: {url: \"nats://h:0\"}", `f:1: nats.url: has a port that is not 1 to 65535`},
		{"replicas even", "nats: {url: h, replicas: 2}", `f:1: nats.replicas: 2 is an even number of servers; write 1, 3 or 5, or 0 to follow the cluster`},
		{"replicas embedded", "nats: {replicas: 3}", `f:1: nats.replicas: the embedded server is one server; write 0 or 1, or set nats.url`},
		{"half a certificate", "nats: {url: h, tlskey: k}", "f:1: nats.tlskey: nats.tlscert and nats.tlskey go together; set both or none"},
		{"inbox", "nats: {url: h, inbox_prefix: \"a.>\"}", `f:1: nats.inbox_prefix: "a.>" is not a subject; write names joined by dots, without wildcards`},
		{"context", "nats: {context: ../x}", `f:1: nats.context: "../x" is not the name of a context`},
	} {
		_, err := Parse("f", []byte(tc.doc), home)
		got := fmt.Sprint(err)
		if got != tc.want {
			t.Errorf("%s:\n got %s\nwant %s\n%s", tc.name, got, tc.want, tc.doc)
		}
	}
}

func TestAllFaultsAtOnce(t *testing.T) {
	_, err := Parse("f", []byte(`
log: {level: loud, colour: red}
targets:
  a: {kind: sugar, url: "ftp://x", quota: {rate: fast}}
  b: {kind: perfex}
drain_timeout: 5
`), append(home, "CRMSYNC_NATS_TIMEOUT=1h"), Override{Path: "http.listen", Value: "x", Flag: "--listen"})
	var errs Errors
	if !errors.As(err, &errs) {
		t.Fatalf("%T: %v", err, err)
	}
	var got []string
	for _, e := range errs {
		got = append(got, fmt.Sprintf("%s:%d:%s", e.File, e.Line, e.Path))
	}
	want := "--listen:0:http.listen env CRMSYNC_NATS_TIMEOUT:0:nats.timeout f:2:log.colour f:2:log.level f:4:targets.a.kind f:4:targets.a.quota.rate f:4:targets.a.url " +
		"f:5:targets.b.permissions f:5:targets.b.token_file f:5:targets.b.url f:6:drain_timeout"
	if strings.Join(got, " ") != want {
		t.Errorf("\n got %s\nwant %s\n%v", strings.Join(got, " "), want, err)
	}
}

func TestManyFaultsAreCut(t *testing.T) {
	_, err := Parse("f", []byte(strings.Repeat("zz: 1\n", 1000)), home)
	if n := strings.Count(err.Error(), "\n"); n != maxPrinted || !strings.HasSuffix(err.Error(), "\nand 950 more") {
		t.Errorf("%d lines, ending %q", n, err.Error()[len(err.Error())-20:])
	}
}

func TestAnchors(t *testing.T) {
	c := mustParse(t, `
x-common: &common
  kind: perfex
  permissions: &p [1, 2]
  token_file: /t
  quota: {rate: 9/s, burst: 3}
  timeout: 7s
targets:
  a: {<<: *common, url: "https://a.example.com", quota: {rate: 1/s}}
  b: {url: "https://b.example.com", <<: [{timeout: 8s}, *common], permissions: *p}
`, nil)
	a, b := c.Targets["a"], c.Targets["b"]
	if a.Quota.Rate != 1 || a.Quota.Burst != 1 || a.Timeout.Seconds() != 7 {
		t.Errorf("what is written wins over what is merged, whole: %+v", a)
	}
	if b.Quota.Rate != 9 || b.Timeout.Seconds() != 8 || len(b.Permissions.IDs) != 2 {
		t.Errorf("the first of several merged wins: %+v", b)
	}
}

func TestBombs(t *testing.T) {
	var laughs strings.Builder
	laughs.WriteString("x-0: &a0 {kind: perfex}\n")
	for i := 1; i < 12; i++ {
		fmt.Fprintf(&laughs, "x-%d: &a%d {", i, i)
		for j := range 9 {
			fmt.Fprintf(&laughs, "q%d: *a%d, ", j, i-1)
		}
		laughs.WriteString("}\n")
	}
	merges := strings.Builder{}
	merges.WriteString("x-0: &a0 {kind: perfex}\n")
	for i := 1; i < 12; i++ {
		fmt.Fprintf(&merges, "x-%d: &a%d {<<: [%s*a%d]}\n", i, i, strings.Repeat(fmt.Sprintf("*a%d, ", i-1), 8), i-1)
	}
	for name, doc := range map[string]string{
		"laughs":    laughs.String() + "targets: {t: *a11}",
		"merges":    merges.String() + "targets: {t: {<<: *a11}}",
		"itself":    "targets: &t\n  a:\n    quota: &q\n      <<: *q\n",
		"deep":      strings.Repeat("[", 5000),
		"deep maps": strings.Repeat("{a: ", 5000),
		"size":      strings.Repeat("# padding\n", 120_000),
	} {
		c, err := Parse("f", []byte(doc), home)
		if err == nil {
			t.Errorf("%s: %+v", name, c)
		}
	}
	_, err := Parse("f", []byte(merges.String()+"targets: {t: {<<: *a11}}"), home)
	if !strings.Contains(err.Error(), "beyond reason") || strings.Count(err.Error(), "beyond reason") != 1 {
		t.Errorf("merges: %.300v", err)
	}
}

// Whatever is wrong with a file, what it holds of secrets stays in it.
func TestFaultsKeepSecrets(t *testing.T) {
	const canary = "hunter2-canary"
	for _, doc := range []string{
		"targets: {a: {token: CANARY}}",
		"targets: {a: {pasword: CANARY}}",
		"targets: {a: {token: [CANARY]}}",
		"targets: {a: {url: \"https://u:CANARY@h\"}}",
		"targets: {a: {url: \"https://u:CANARY@h:x\"}}",
		"targets: {a: {url: \"ftp://CANARY\"}}",
		"nats: {url: \"nats://CANARY@h\"}",
		"nats: {url: \"nats://u:CANARY@h:%zz\"}",
		"nats: {password: CANARY}",
		"nats: {password: *CANARY}",
		"nats: {password: !CANARY x}",
		"nats: {password: \"CANARY\\q\"}",
		"nats: {password_env: \"CANARY \"}",
		"nats: {password: ${CANARY}}",
		"targets: {a: {token_file: " + strings.Repeat("CANARY", 6) + "}}",
	} {
		_, err := Parse("f", []byte(strings.ReplaceAll(doc, "CANARY", canary)), home)
		if err == nil || strings.Contains(err.Error(), canary) {
			t.Errorf("%s: %v", doc, err)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(office+shop), "targets.office.quota.rate", "4/s")
	f.Add(Example, "nats.url", "nats://h")
	f.Add([]byte(office+"    quota: {windows: [{limit: 9, per: 1h, calendar: true, zone: UTC}]}\n    quota_group: a\nquotas: {a: {rate: 1/s}}\n"), "quotas.a.windows", "[{limit: 1, per: 2h}]")
	f.Add([]byte("a: &a [*a]\n<<: *a"), "targets.x.permissions", "[1, 2")
	f.Add([]byte("nats:\n\turl: x"), "targets", "")
	f.Fuzz(func(t *testing.T, doc []byte, path, value string) {
		const canary = "XcanaryX"
		c, err := Parse("f", doc, []string{"HOME=/h", "CRMSYNC_HTTP_TOKEN=" + canary}, Override{Path: path, Value: value})
		if err != nil {
			var errs Errors
			if c != nil || !errors.As(err, &errs) || len(errs) == 0 || errs[0].Msg == "" {
				t.Fatalf("%T %v with config %v", err, err, c)
			}
			return
		}
		if s := fmt.Sprintf("%+v %#v %v", c, c.HTTP, c.Show()); strings.Contains(s, canary) {
			t.Fatal("a secret shows")
		}
		for name, q := range c.Quotas {
			if q.Burst < 1 || q.Rate == 0 && len(q.AllWindows()) == 0 {
				t.Fatalf("quota %s: %+v", name, q)
			}
		}
		for name, target := range c.Targets {
			if _, ok := c.Quotas[target.QuotaGroup]; !ok && target.QuotaGroup != "" {
				t.Fatalf("target %+v", target)
			}
			if target.Name != name || target.URL == nil || target.Quota.Burst < 1 || target.Timeout <= 0 || c.NATS.Lease > 0 && c.NATS.Lease < MinLease(target.Timeout) {
				t.Fatalf("target %+v", target)
			}
		}
	})
}
