package crm

import (
	"bytes"
	"compress/gzip"
	"context"
	"crypto/tls"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

func parse(t testing.TB, s string) *url.URL {
	t.Helper()
	u, err := url.Parse(s)
	if err != nil {
		t.Fatal(err)
	}
	return u
}

func newClient(t testing.TB, o Options) *Client {
	t.Helper()
	c, err := NewClient(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.CloseIdle)
	return c
}

func free(context.Context) error { return nil }

func do(c *Client, r Request) (*Reply, *Fault) {
	if r.Method == "" {
		r.Method = "PUT"
	}
	if r.Path == "" {
		r.Path = "/api/contacts/1"
	}
	return c.Do(context.Background(), NewMeter(free), r)
}

func TestNewClientRefuses(t *testing.T) {
	for _, s := range []string{
		"", "ftp://crm.example", "//crm.example", "http://", "https://user:pass@crm.example", "https://crm.example?x=1",
		"https://crm.example/#f", "https://crm.example/a/../b", "https://crm.example//a", "https://crm.example/a%2Fb", "https://crm.example/a b",
	} {
		if _, err := NewClient(Options{Base: parse(t, s)}); err == nil || strings.Contains(err.Error(), "pass") {
			t.Errorf("%q: %v", s, err)
		}
	}
	if _, err := NewClient(Options{}); err == nil {
		t.Error("no url: no error")
	}
	empty := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(empty, []byte("nothing"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, ca := range []string{empty, empty + ".missing"} {
		if _, err := NewClient(Options{Base: parse(t, "https://crm.example"), CAFile: ca}); err == nil {
			t.Errorf("ca_file %s: no error", filepath.Base(ca))
		}
	}
}

func TestRequestAsSent(t *testing.T) {
	var got *http.Request
	var body string
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		b, _ := io.ReadAll(r.Body)
		got, body = r, string(b)
		w.Header().Set("Set-Cookie", "session=1")
		io.WriteString(w, "\xEF\xBB\xBF{\"a\":1}")
	}))
	defer s.Close()
	c := newClient(t, Options{Base: parse(t, s.URL+"/sub/crm/"), UserAgent: "crmsync/1.2"})
	for range 2 { // the second would show a cookie
		r, f := do(c, Request{Body: []byte(`{"x":1}`), Header: http.Header{"Authtoken": {"tok"}, "Content-Type": {"application/json"}}})
		if f != nil {
			t.Fatal(f)
		}
		if obj, ok := r.Object(); !ok || string(obj["a"]) != "1" {
			t.Errorf("object %v %v", obj, ok)
		}
	}
	want := http.Header{
		"User-Agent": {"crmsync/1.2"}, "Accept": {"application/json"}, "Authtoken": {"tok"},
		"Content-Type": {"application/json"}, "Content-Length": {"7"},
	}
	if got.URL.Path != "/sub/crm/api/contacts/1" || got.Method != "PUT" || body != `{"x":1}` || fmt.Sprint(got.Header) != fmt.Sprint(want) {
		t.Errorf("%s %s %v %q", got.Method, got.URL, got.Header, body)
	}
	if _, f := do(c, Request{Method: "GET"}); f != nil {
		t.Fatal(f)
	}
	delete(want, "Authtoken")
	delete(want, "Content-Type")
	delete(want, "Content-Length")
	if fmt.Sprint(got.Header) != fmt.Sprint(want) || len(got.TransferEncoding) > 0 || body != "" {
		t.Errorf("a GET has %v %v %q", got.Header, got.TransferEncoding, body)
	}
}

func TestPathsAreNotBent(t *testing.T) {
	var n atomic.Int64
	s := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { n.Add(1) }))
	defer s.Close()
	c := newClient(t, Options{Base: parse(t, s.URL)})
	m := NewMeter(free)
	for _, p := range []string{"a", "//a", "/a/", "/a/../b", "/./a", "/a%2Fb", "/a b", "/a?b", "/a#b", "/é", "/a\x00", `/a\b`} {
		if _, f := c.Do(context.Background(), m, Request{Method: "PUT", Path: p}); f == nil || f.Kind != FaultBlocked || f.Sent {
			t.Errorf("%q: %v", p, f)
		}
	}
	if n.Load() != 0 || m.Requests() != 0 {
		t.Errorf("%d requests arrived, %d were paid", n.Load(), m.Requests())
	}
}

func TestOriginIsTheOnlyHost(t *testing.T) {
	c := newClient(t, Options{Base: parse(t, "https://crm.example"), Transport: roundTrip(func(*http.Request) (*http.Response, error) {
		t.Error("a request left")
		return nil, io.EOF
	})})
	for _, s := range []string{"http://crm.example/", "https://crm.example:444/", "https://evil.example/", "https://crm.example.evil/"} {
		if _, err := c.transport.RoundTrip(&http.Request{Method: "GET", URL: parse(t, s), Header: http.Header{}}); err == nil {
			t.Errorf("%s: sent", s)
		}
	}
	if _, err := c.transport.RoundTrip(&http.Request{Method: "GET", URL: parse(t, "https://crm.example/"), Host: "evil.example"}); err == nil {
		t.Error("another Host header was sent")
	}
}

type roundTrip func(*http.Request) (*http.Response, error)

func (f roundTrip) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

func TestRedirectsAreNotFollowed(t *testing.T) {
	var trapped atomic.Int64
	trap := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { trapped.Add(1) }))
	defer trap.Close()
	for _, code := range []int{300, 301, 302, 303, 305, 307, 308} {
		s := httptest.NewServer(http.RedirectHandler(trap.URL+"/elsewhere", code))
		c := newClient(t, Options{Base: parse(t, s.URL)})
		r, f := do(c, Request{Body: []byte("x"), Header: http.Header{"Authtoken": {"tok"}}})
		if f != nil || r.Status != code {
			t.Errorf("%d: %+v %v", code, r, f)
		}
		c.CloseIdle()
		s.Close()
	}
	if trapped.Load() != 0 {
		t.Errorf("%d requests followed a redirect", trapped.Load())
	}
}

func TestProxyOfTheEnvironmentIsIgnored(t *testing.T) {
	proxied, _ := newWire(t, func(int64, net.Conn) {})
	t.Setenv("HTTP_PROXY", "http://"+proxied.Addr().String())
	t.Setenv("http_proxy", "http://"+proxied.Addr().String())
	c := newClient(t, Options{Base: parse(t, "http://crm.invalid"), Timeout: 2 * time.Second})
	if c.transport.(*origin).next.(*http.Transport).Proxy != nil {
		t.Error("the transport looks for a proxy")
	}
	if _, f := do(c, Request{}); f == nil || f.Sent {
		t.Errorf("%v", f)
	}
	if proxied.conns.Load() != 0 {
		t.Error("the proxy was used")
	}
	via := newClient(t, Options{Base: parse(t, "http://crm.invalid"), Proxy: parse(t, "http://"+proxied.Addr().String())})
	_, _ = do(via, Request{})
	if proxied.conns.Load() != 1 {
		t.Error("the configured proxy was not used")
	}
}

func TestBodiesAreBounded(t *testing.T) {
	var bomb bytes.Buffer
	z := gzip.NewWriter(&bomb)
	for range 4 {
		z.Write(make([]byte, 16*MaxBody))
	}
	z.Close()
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/exact":
			w.Write(bytes.Repeat([]byte(" "), MaxBody))
		case "/over":
			w.Write(bytes.Repeat([]byte(" "), MaxBody+1))
		case "/endless":
			for {
				if _, err := w.Write(make([]byte, 1<<15)); err != nil {
					return
				}
			}
		case "/bomb":
			w.Header().Set("Content-Encoding", "gzip")
			w.Write(bomb.Bytes())
		}
	}))
	defer s.Close()
	c := newClient(t, Options{Base: parse(t, s.URL)})
	for path, cut := range map[string]bool{"/exact": false, "/over": true, "/endless": true, "/bomb": false} {
		r, f := do(c, Request{Path: path})
		if f != nil || r.Cut != cut || len(r.Body) > MaxBody {
			t.Errorf("%s: %v, %d bytes, cut %v", path, f, len(r.Body), r.Cut)
		}
		if _, ok := r.Object(); ok {
			t.Errorf("%s: an object", path)
		}
	}
	if r, _ := do(c, Request{Path: "/bomb"}); !bytes.HasPrefix(r.Body, []byte{0x1f, 0x8b}) {
		t.Error("the bomb was unpacked")
	}
}

func TestTLS(t *testing.T) {
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, r.Proto) }))
	s.EnableHTTP2 = true
	s.StartTLS()
	defer s.Close()
	ca := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(ca, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw}), 0o600); err != nil {
		t.Fatal(err)
	}
	c := newClient(t, Options{Base: parse(t, s.URL), CAFile: ca})
	r, f := do(c, Request{})
	if f != nil || string(r.Body) != "HTTP/1.1" {
		t.Errorf("%v %q: want HTTP/1.1 even where the server offers more", f, r.Body)
	}
	for name, config := range map[string]*tls.Config{
		"only TLS 1.1":              {MaxVersion: tls.VersionTLS11, MinVersion: tls.VersionTLS10},
		"wants a certificate":       {ClientAuth: tls.RequireAnyClientCert},
		"wants a certificate (1.2)": {ClientAuth: tls.RequireAnyClientCert, MaxVersion: tls.VersionTLS12},
	} {
		s := httptest.NewUnstartedServer(http.NotFoundHandler())
		s.TLS = config
		s.Config.ErrorLog = discard()
		s.StartTLS()
		_, f := do(newClient(t, Options{Base: parse(t, s.URL), CAFile: ca}), Request{Body: []byte("{}")})
		// A TLS 1.3 server says no after the handshake; whether its alert or
		// the broken connection is noticed first is up to the network.
		late := strings.HasSuffix(name, "certificate") && f != nil && f.Kind == FaultReset
		if f == nil || !late && (f.Kind != FaultTLS || f.Sent) {
			t.Errorf("%s: %+v", name, f)
		}
		s.Close()
	}
}

func TestTimeouts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		server := func(answer string) func(context.Context, string, string) (net.Conn, error) {
			return func(ctx context.Context, _, _ string) (net.Conn, error) {
				if answer == "never" {
					<-ctx.Done()
					return nil, ctx.Err()
				}
				ours, theirs := net.Pipe()
				go func() {
					defer theirs.Close()
					readRequest(theirs)
					if answer == "slow" {
						io.WriteString(theirs, "HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n")
						for {
							if _, err := theirs.Write([]byte("a")); err != nil {
								return
							}
							time.Sleep(time.Second)
						}
					}
					_, _ = theirs.Read(make([]byte, 1)) // until the client gives up
				}()
				return ours, nil
			}
		}
		for _, tt := range []struct {
			answer string
			sent   bool
			cut    bool
		}{{"never", false, false}, {"silent", true, false}, {"slow", true, true}} {
			tr := &http.Transport{DialContext: server(tt.answer)}
			c := newClient(t, Options{Base: parse(t, "http://crm.example"), Transport: tr})
			start := time.Now()
			r, f := do(c, Request{Body: []byte("{}")})
			if took := time.Since(start); took != DefaultTimeout {
				t.Errorf("%s: took %v", tt.answer, took)
			}
			switch {
			case tt.cut:
				if f != nil || !r.Cut {
					t.Errorf("%s: %+v %v", tt.answer, r, f)
				}
			case f == nil || f.Kind != FaultTimeout || f.Sent != tt.sent:
				t.Errorf("%s: %+v", tt.answer, f)
			}
			start = time.Now()
			_, _ = do(c, Request{Timeout: time.Second})
			if took := time.Since(start); took != time.Second {
				t.Errorf("%s: a shorter time-out took %v", tt.answer, took)
			}
			ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
			_, f = c.Do(ctx, NewMeter(free), Request{Method: "PUT", Path: "/a"})
			if tt.cut {
				f = nil
			} else if f == nil || f.Kind != FaultStopped || f.Sent != tt.sent || f.Answer(true).Incident {
				t.Errorf("%s: a stop is %+v", tt.answer, f)
			}
			cancel()
			tr.CloseIdleConnections()
			time.Sleep(2 * time.Second) // the slow server notices at its next byte
		}
	})
}

func TestMeter(t *testing.T) {
	spent := 0
	broke := errors.New("broke")
	var fail error
	m := NewMeter(func(context.Context) error { spent++; return fail })
	ctx, cancel := context.WithCancel(context.Background())
	for want := range 3 {
		if err := m.Pay(ctx); err != nil || spent != want || m.Requests() != want+1 {
			t.Fatalf("payment %d: %v, spent %d, counted %d", want, err, spent, m.Requests())
		}
	}
	fail = broke
	if err := m.Pay(ctx); !errors.Is(err, broke) || m.Requests() != 3 {
		t.Errorf("%v, counted %d", err, m.Requests())
	}
	cancel()
	if err := m.Pay(ctx); !errors.Is(err, context.Canceled) || spent != 3 {
		t.Errorf("%v, spent %d", err, spent)
	}
	m = NewMeter(func(context.Context) error { return broke })
	if m.Lapse(); !errors.Is(m.Pay(context.Background()), broke) || m.Requests() != 0 {
		t.Error("a lapsed first request was free")
	}
	if err := NewMeter(free).Pay(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("the first payment after a stop: %v", err)
	}
}

func TestCheckToken(t *testing.T) {
	for token, ok := range map[string]bool{
		"abc.DEF-1_~!": true, "": false, " a": false, "a b": false, "a\r\nX: y": false, "a\x00": false, "é": false, "a\x7f": false,
	} {
		if err := CheckToken(token); (err == nil) != ok || err != nil && token != "" && strings.Contains(err.Error(), token) {
			t.Errorf("%q: %v", token, err)
		}
	}
}
