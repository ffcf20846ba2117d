package config

import (
	"strings"
	"testing"
)

// C50: one row for each way an address can lead astray.
func TestTargetURL(t *testing.T) {
	const insecure, private = "    allow_insecure: true\n", "    allow_private: true\n"
	for _, tc := range []struct{ url, extra, want string }{
		{"https://crm.example.com", "", "https://crm.example.com"},
		{"https://crm.example.com/", "", "https://crm.example.com"},
		{"https://CRM.Example.com:8443/Sub/path//", "", "https://crm.example.com:8443/Sub/path"},
		{"https://xn--bcher-kva.example", "", "https://xn--bcher-kva.example"},
		{"https://8.8.8.8", "", "https://8.8.8.8"},
		{"https://[2001:4860:4860::8888]:1", "", "https://[2001:4860:4860::8888]:1"},
		{"https://apiary.example.com/apis/x", "", "https://apiary.example.com/apis/x"},
		{"http://localhost:8080", "", "http://localhost:8080"},
		{"http://127.0.0.1", "", "http://127.0.0.1"},
		{"http://127.9.9.9", "", "http://127.9.9.9"},
		{"http://[::1]:1", "", "http://[::1]:1"},
		{"http://[::ffff:127.0.0.1]", "", "http://[::ffff:127.0.0.1]"},
		{"http://crm.example.com", insecure, "http://crm.example.com"},
		{"https://10.1.2.3", private, "https://10.1.2.3"},

		{"http://crm.example.com", "", "!in the clear"},
		{"http://crm.example.com", private, "!in the clear"},
		{"http://foo.localhost", "", "!in the clear"},
		{"http://localhost.example.com", "", "!in the clear"},
		{"https://10.1.2.3", "", "!private network"},
		{"https://10.1.2.3", insecure, "!private network"},
		{"http://10.1.2.3", private, "!in the clear"},
		{"https://192.168.0.1", "", "!private network"},
		{"https://172.16.0.1", "", "!private network"},
		{"https://[fd00::1]", "", "!private network"},
		{"https://[::ffff:10.0.0.1]", "", "!private network"},
		{"https://169.254.169.254", private, "!link-local"},
		{"https://[::ffff:169.254.169.254]", private, "!link-local"},
		{"https://[fe80::1]", private, "!link-local"},
		{"http://[::1%25eth0]", "", "!network interface"},
		{"https://[fe80::1%25eth0]", "", "!network interface"},
		{"https://0.0.0.0", "", "!no machine"},
		{"https://[::]", "", "!no machine"},
		{"https://224.0.0.1", "", "!multicast"},
		{"https://255.255.255.255", "", "!multicast"},
		{"https://user:pass@crm.example.com", "", "!user or password"},
		{"https://user@crm.example.com", "", "!user or password"},
		{"https://@crm.example.com", "", "!user or password"},
		{"https://crm.example.com?x=1", "", "!query"},
		{"https://crm.example.com/?", "", "!query"},
		{"https://crm.example.com#x", "", "!fragment"},
		{"https://crm.example.com/#", "", "!fragment"},
		{"file:///etc/passwd", "", "!https://"},
		{"ftp://crm.example.com", "", "!https://"},
		{"crm.example.com", "", "!https://"},
		{"//crm.example.com", "", "!https://"},
		{"https:crm.example.com", "", "!not a web address"},
		{"https://", "", "!no host"},
		{"https://:443", "", "!no host"},
		{"https:///path", "", "!no host"},
		{"https://crm.example.com:0", "", "!port"},
		{"https://crm.example.com:65536", "", "!port"},
		{"https://crm.example.com:", "", "!no port"},
		{"https://crm.example.com:x", "", "!not a web address"},
		{"https://bücher.example", "", "!xn--"},
		{"https://crm..example.com", "", "!domain name"},
		{"https://-crm.example.com", "", "!domain name"},
		{"https://crm example.com", "", "!not a web address"},
		{"https://crm.example.com%2Fx", "", "!not a web address"},
		{"https://" + strings.Repeat("a.", 127) + "com", "", "!domain name"},
		{"https://2130706433", "", "!is a number"},
		{"https://0x7f.1", "", "!is a number"},
		{"https://127.1", "", "!is a number"},
		{"https://0177.0.0.1", "", "!is a number"},
		{"https://1.2.3.4.5", "", "!is a number"},
		{"https://crm.example.com/a/../b", "", "!unusual"},
		{"https://crm.example.com/.well-known", "", "!unusual"},
		{"https://crm.example.com//a", "", "!unusual"},
		{"https://crm.example.com//a//b", "", "!unusual"},
		{"https://crm.example.com/%2e%2e", "", "!unusual"},
		{"https://crm.example.com/a;b", "", "!unusual"},
		{"https://crm.example.com/a b", "", "!unusual"},
		{"https://crm.example.com/api", "", `!without /api, which is added to it; write "https://crm.example.com"`},
		{"https://crm.example.com/sub/api/", "", `!without /api, which is added to it; write "https://crm.example.com/sub"`},
		{"https://crm.example.com/api/v2", "", `!write "https://crm.example.com"`},
	} {
		doc := strings.Replace(office, "https://crm.example.com", `"`+tc.url+`"`, 1) + tc.extra
		c, err := Parse("f", []byte(doc), home)
		if want, bad := strings.CutPrefix(tc.want, "!"); bad {
			if err == nil || !strings.Contains(err.Error(), want) || !strings.HasPrefix(err.Error(), "f:4: targets.office.url: ") || strings.Contains(err.Error(), "\n") {
				t.Errorf("%s: %v, not %s", tc.url, err, want)
			}
		} else if err != nil || c.Targets["office"].URL.String() != want {
			t.Errorf("%s: %v, %v", tc.url, c, err)
		}
	}
}

func TestListen(t *testing.T) {
	for listen, others := range map[string]bool{
		"127.0.0.1:8321": false, "localhost:1": false, "[::1]:0": false, "off": false, "none": false,
		":8321": true, "0.0.0.0:1": true, "[::]:1": true, "192.168.1.1:1": true, "host:1": true, "localhost.x:1": true,
	} {
		doc := `http: {listen: "` + listen + `"}`
		c, err := Parse("f", []byte(doc), home)
		if (err != nil) != others {
			t.Errorf("%s without token: %v", listen, err)
		}
		if err == nil && (listen == "off" || listen == "none") != (c.HTTP.Listen == "") {
			t.Errorf("%s became %q", listen, c.HTTP.Listen)
		}
		if _, err = Parse("f", []byte(doc), append([]string{"CRMSYNC_HTTP_TOKEN=t"}, home...)); err != nil {
			t.Errorf("%s with token: %v", listen, err)
		}
	}
}

func FuzzTargetURL(f *testing.F) {
	for _, s := range []string{"https://crm.example.com/x", "http://[::1%25a]:1/", "https://a@b/?#", "https://0x7f.1", "https:///api"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		u, err := targetURL(s)
		if err != nil {
			return
		}
		if u.User != nil || u.RawQuery != "" || u.Fragment != "" || u.Opaque != "" || u.Hostname() == "" ||
			strings.HasSuffix(u.Path, "/") || strings.Contains(u.Path, "..") || strings.Contains(u.Path+"/", "/api/") {
			t.Fatalf("%q gave %#v", s, u)
		}
		again, err := targetURL(u.String())
		if err != nil || again.String() != u.String() {
			t.Fatalf("%q gave %s, which gives %v, %v", s, u, again, err)
		}
	})
}
