package evance

import (
	"context"
	"io"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"testing"
	"testing/synctest"

	"go.uber.org/goleak"

	"crmsync/contact"
	"crmsync/crm"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	canaryKey    = "ca11ab1e5ec2e7ca11ab1e5ec2e7ca11ab1e5ec2e7ca11ab1e5ec2e7ca11ab1e"
	canaryClient = "c0ffee00c0ffee00c0ffee00c0ffee00.2.app.evance.me"
)

func credentials() (Credentials, error) {
	return Credentials{Account: "demo.evance.me", ClientID: canaryClient, PrivateKey: canaryKey}, nil
}

// shop answers requests by function and keeps what was asked.
type shop struct {
	token  func(form url.Values, path string) *http.Response
	handle func(r *http.Request) *http.Response

	mu     sync.Mutex
	paths  []string
	bodies []string
}

func (s *shop) RoundTrip(r *http.Request) (*http.Response, error) {
	b := ""
	if r.Body != nil {
		raw, _ := io.ReadAll(r.Body)
		b = string(raw)
	}
	s.mu.Lock()
	s.paths = append(s.paths, r.Method+" "+r.URL.Path)
	s.bodies = append(s.bodies, b)
	s.mu.Unlock()
	var out *http.Response
	if strings.Contains(r.URL.Path, "/oauth/") {
		form, _ := url.ParseQuery(b)
		if s.token == nil {
			out = answer(200, `{"access_token":"token-one","expires_in":3600,"token_type":"Bearer"}`)
		} else {
			out = s.token(form, r.URL.Path)
		}
	} else {
		out = s.handle(r)
	}
	if out == nil {
		return nil, io.ErrUnexpectedEOF
	}
	out.Body = io.NopCloser(strings.NewReader(out.Status))
	return out, nil
}

func (s *shop) count(prefix string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := 0
	for _, p := range s.paths {
		if strings.HasPrefix(p, prefix) {
			n++
		}
	}
	return n
}

// answer keeps the body in Status until it is sent.
func answer(status int, body string, header ...string) *http.Response {
	h := http.Header{}
	for i := 0; i < len(header); i += 2 {
		h.Set(header[i], header[i+1])
	}
	return &http.Response{StatusCode: status, Header: h, Status: body}
}

func ok1() *http.Response { return answer(200, `{"contact":{"id":"7","firstname":"Bob"}}`) }

func optionsFor(rt http.RoundTripper) Options {
	return Options{Base: &url.URL{Scheme: "https", Host: "shop.test"}, Credentials: credentials, Transport: rt}
}

func open(t testing.TB, rt http.RoundTripper, change ...func(*Options)) *Client {
	t.Helper()
	o := optionsFor(rt)
	for _, f := range change {
		f(&o)
	}
	c, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func api2(o *Options) { o.API = API2 }

func free(context.Context) error { return nil }

func fieldsOf(t testing.TB, s string) contact.Patch {
	t.Helper()
	p, err := contact.ParsePatch([]byte(s))
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func send(t testing.TB, c *Client, fields string) crm.Answer {
	t.Helper()
	return c.Send(context.Background(), free, []contact.Change{{Contact: contact.Key{ID: "7"}, Fields: fieldsOf(t, fields)}})[0]
}

func bubble(t *testing.T, f func(t *testing.T)) { t.Helper(); synctest.Test(t, f) }
