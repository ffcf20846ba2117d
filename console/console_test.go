package console

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/rs/zerolog"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const secret = "a-token-of-some-length"

// recorder is a console whose functions note what they are asked.
type recorder struct {
	queries []DeadQuery
	letters []LetterOrder
	orders  map[string]Steering
	err     error
	ready   error
	token   string
	log     bytes.Buffer
}

func (r *recorder) options() Options {
	r.orders = map[string]Steering{}
	return Options{
		Version: "v1",
		Ready:   func(context.Context) error { return r.ready },
		Status: func(context.Context) (any, error) {
			return map[string]any{"version": "v1", "targets": []int{}}, r.err
		},
		Dead: func(_ context.Context, q DeadQuery) (any, error) {
			r.queries = append(r.queries, q)
			return map[string]any{"letters": []int{}}, r.err
		},
		Groups: func(_ context.Context, q DeadQuery) (any, error) {
			r.queries = append(r.queries, q)
			return map[string]any{"groups": []int{}}, r.err
		},
		Letter:  func(_ context.Context, id uint64) (any, error) { return map[string]any{"id": id}, r.err },
		Redrive: r.order,
		Discard: r.order,
		Steer: func(_ context.Context, target string, s Steering) error {
			if r.err != nil {
				return r.err
			}
			r.orders[target] = s
			return nil
		},
		Metrics: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { sendText(w, http.StatusOK, "crmsync_up 1") }),
		Log:     zerolog.New(&r.log),
	}
}

// guarded is the same with a token.
func (r *recorder) guarded() Options {
	r.token = secret
	o := r.options()
	o.Token = func() (string, error) { return r.token, nil }
	return o
}

// request is a caller on this machine, as a browser or a command makes it.
func request(method, path, body string, header ...string) *http.Request {
	req := httptest.NewRequest(method, path, strings.NewReader(body))
	req.Host, req.RemoteAddr = "127.0.0.1:8321", "127.0.0.1:50000"
	if method == http.MethodPost {
		req.Header.Set("Content-Type", "application/json")
	}
	for i := 0; i+1 < len(header); i += 2 {
		req.Header.Add(header[i], header[i+1])
	}
	return req
}

func do(h http.Handler, req *http.Request) *httptest.ResponseRecorder {
	w := httptest.NewRecorder()
	h.ServeHTTP(w, req)
	return w
}

// get is do for a route's example path.
func example(rt route) string {
	return strings.NewReplacer("{target}", "office", "{id}", "17", "{$}", "").Replace(rt.path)
}

// isProblem checks that an answer is a problem with the status it says.
func isProblem(t *testing.T, w *httptest.ResponseRecorder, status int) problem {
	t.Helper()
	var p problem
	if w.Code != status || w.Header().Get("Content-Type") != "application/problem+json" {
		t.Fatalf("%d %s %q, want a problem with %d", w.Code, w.Header(), w.Body, status)
	}
	if err := json.Unmarshal(w.Body.Bytes(), &p); err != nil || p.Status != status || p.Title != http.StatusText(status) {
		t.Fatalf("problem %q: %v", w.Body, err)
	}
	return p
}

// The table, row by row: nothing but the probes and the page's files is open.
func TestRoutesAndToken(t *testing.T) {
	r := &recorder{}
	c := &console{o: r.guarded()}
	table := c.routes()
	h := New(c.o)
	var opened, shut []string
	for _, rt := range table {
		path := example(rt)
		for name, header := range map[string][]string{
			"none":         nil,
			"empty":        {"Authorization", ""},
			"scheme only":  {"Authorization", "Bearer "},
			"wrong":        {"Authorization", "Bearer wrong"},
			"prefix":       {"Authorization", "Bearer " + secret[:len(secret)-1]},
			"longer":       {"Authorization", "Bearer " + secret + "x"},
			"other scheme": {"Authorization", "Basic " + secret},
			"no scheme":    {"Authorization", secret},
			"two":          {"Authorization", "Bearer " + secret, "Authorization", "Bearer " + secret},
			"forwarded":    {"X-Forwarded-For", "127.0.0.1"},
		} {
			w := do(h, request(rt.method, path, exampleBody(rt), header...))
			if rt.access == open {
				if w.Code != http.StatusOK || w.Header().Get("Server") != "" {
					t.Errorf("%s %s, token %s: %d %s", rt.method, path, name, w.Code, w.Header())
				}
				continue
			}
			if w.Header().Get("Server") != "" {
				t.Errorf("%s %s, token %s: tells the version", rt.method, path, name)
			}
			if w.Header().Get("WWW-Authenticate") == "" {
				t.Errorf("%s %s, token %s: no challenge", rt.method, path, name)
			}
			isProblem(t, w, http.StatusUnauthorized)
		}
		for _, scheme := range []string{"Bearer ", "bearer "} {
			w := do(h, request(rt.method, path, exampleBody(rt), "Authorization", scheme+secret))
			if w.Code/100 != 2 || (w.Header().Get("Server") == "crmsync/v1") != (rt.access == closed) {
				t.Errorf("%s %s with the token: %d %s %s", rt.method, path, w.Code, w.Header(), w.Body)
			}
		}
		if rt.access == open {
			opened = append(opened, path)
		} else {
			shut = append(shut, path)
		}
	}
	slices.Sort(opened)
	slices.Sort(shut)
	wantOpen := []string{"/", "/card.js", "/console.css", "/console.js", "/dom.js", "/format.js", "/healthz", "/icon.svg", "/letters.js", "/quota.js", "/readyz"}
	wantShut := []string{
		"/api/v1/dead", "/api/v1/dead/discard", "/api/v1/dead/groups", "/api/v1/dead/letters/17", "/api/v1/dead/redrive", "/api/v1/status",
		"/api/v1/targets/office/hold", "/api/v1/targets/office/resume", "/metrics",
	}
	if !slices.Equal(opened, wantOpen) || !slices.Equal(shut, wantShut) {
		t.Errorf("open %q\nclosed %q", opened, shut)
	}
	if strings.Contains(r.log.String(), secret) || strings.Count(r.log.String(), "\n") != 1 {
		t.Errorf("log of refused callers: %s", &r.log)
	}
	r.log.Reset()
	isProblem(t, do(New(c.o), request("GET", "/api/v1/status", "")), http.StatusUnauthorized)
	if r.log.Len() > 0 {
		t.Errorf("log of a caller who knows no better: %s", &r.log)
	}
}

func TestTokenIsReadEachTime(t *testing.T) {
	r := &recorder{}
	o := r.guarded()
	h := New(o)
	old := func() *http.Request { return request("GET", "/api/v1/status", "", "Authorization", "Bearer "+secret) }
	if w := do(h, old()); w.Code != http.StatusOK {
		t.Fatal(w.Code)
	}
	r.token = "another"
	isProblem(t, do(h, old()), http.StatusUnauthorized)
	r.token = ""
	isProblem(t, do(h, old()), http.StatusServiceUnavailable)
	isProblem(t, do(h, request("GET", "/api/v1/status", "", "Authorization", "Bearer ")), http.StatusServiceUnavailable)

	o.Token = func() (string, error) { return secret, errors.New("file /canary: gone") }
	p := isProblem(t, do(New(o), old()), http.StatusServiceUnavailable)
	if strings.Contains(p.Detail, "canary") {
		t.Errorf("tells a stranger %q", p.Detail)
	}
	if w := do(New(o), request("GET", "/healthz", "")); w.Code != http.StatusOK {
		t.Errorf("health without a readable token: %d", w.Code)
	}
}

// Without a token the machine itself is served, by its own names.
func TestLoopbackOnly(t *testing.T) {
	r := &recorder{}
	h := New(r.options())
	for host, ok := range map[string]bool{
		"127.0.0.1:8321": true, "127.0.0.1": true, "localhost:8321": true, "LocalHost.": true, "[::1]:8321": true,
		"[::1]": true, "127.8.8.8:1": true, "[::ffff:127.0.0.1]:1": true,
		"": false, "evil.example": false, "evil.example:8321": false, "localhost.evil.example": false,
		"127.0.0.1.evil.example": false, "10.0.0.1:8321": false, "0.0.0.0:8321": false, "[::]:8321": false,
		"localhost:8321:1": false, "xlocalhost": false, "127.0.0.1@evil.example": false,
	} {
		for _, rt := range (&console{o: r.options()}).routes() {
			req := request(rt.method, example(rt), exampleBody(rt))
			req.Host = host
			w := do(h, req)
			if ok && w.Code/100 != 2 {
				t.Errorf("%s, host %q: %d", example(rt), host, w.Code)
			} else if !ok {
				isProblem(t, w, http.StatusMisdirectedRequest)
			}
		}
	}
	for addr, ok := range map[string]bool{
		"127.0.0.1:1": true, "[::1]:1": true, "[::ffff:127.0.0.1]:1": true,
		"192.0.2.1:1": false, "[2001:db8::1]:1": false, "": false, "x": false,
	} {
		req := request("GET", "/api/v1/status", "", "X-Forwarded-For", "127.0.0.1", "X-Real-IP", "127.0.0.1", "Forwarded", "for=127.0.0.1")
		req.RemoteAddr = addr
		w := do(h, req)
		if ok && w.Code != http.StatusOK {
			t.Errorf("from %q: %d", addr, w.Code)
		} else if !ok {
			isProblem(t, w, http.StatusForbidden)
		}
	}
	// With a token neither counts.
	req := request("GET", "/api/v1/status", "", "Authorization", "Bearer "+secret)
	req.Host, req.RemoteAddr = "crmsync.example.com", "192.0.2.1:1"
	if w := do(New(r.guarded()), req); w.Code != http.StatusOK {
		t.Errorf("with a token: %d", w.Code)
	}
}

// Every answer carries the headers, and every method but a route's own is refused.
func TestHeadersAndMethods(t *testing.T) {
	r := &recorder{}
	h := New(r.guarded())
	auth := []string{"Authorization", "Bearer " + secret}
	check := func(w *httptest.ResponseRecorder, what string) {
		t.Helper()
		for name, want := range map[string]string{
			"Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self'; " +
				"base-uri 'none'; form-action 'self'; frame-ancestors 'none'",
			"X-Content-Type-Options": "nosniff", "Referrer-Policy": "no-referrer", "Cache-Control": "no-store",
			"Cross-Origin-Opener-Policy": "same-origin", "Cross-Origin-Resource-Policy": "same-origin",
			"Strict-Transport-Security": "", "Access-Control-Allow-Origin": "", "Set-Cookie": "",
		} {
			if got := w.Header().Get(name); got != want {
				t.Errorf("%s: %s: %q", what, name, got)
			}
		}
	}
	for _, rt := range (&console{o: r.options()}).routes() {
		for _, method := range []string{"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "CONNECT", "BREW"} {
			w := do(h, request(method, example(rt), exampleBody(rt), auth...))
			check(w, method+" "+rt.path)
			switch {
			case method == rt.method || method == "HEAD" && rt.method == "GET":
				if w.Code/100 != 2 {
					t.Errorf("%s %s: %d", method, rt.path, w.Code)
				}
			default:
				isProblem(t, w, http.StatusMethodNotAllowed)
				if got, want := w.Header().Get("Allow"), map[string]string{"GET": "GET, HEAD", "POST": "POST"}[rt.method]; got != want {
					t.Errorf("%s %s allows %q", method, rt.path, got)
				}
			}
		}
		check(do(h, request(rt.method, example(rt), exampleBody(rt))), rt.path+" without token")
	}
	check(do(h, request("GET", "/nowhere", "")), "404")
}

func TestPathsHaveOneForm(t *testing.T) {
	r := &recorder{}
	h := New(r.options())
	for _, path := range []string{
		"//healthz", "/healthz/", "/./healthz", "/x/../healthz", "/%2e%2e/healthz", "/api/%2e%2e/metrics", "/API/v1/status",
		"/healthz;x", "/healthz%00", "/api/v1", "/api/v1/", "/index.html", "/page/index.html", "/console.go", "/debug/pprof/",
		"/api/v1/targets/office", "/api/v1/targets//hold", "/api/v1/targets/Office/hold", "/api/v1/targets/a%2Fb/hold",
		"/api/v1/targets/../hold", "/api/v1/targets/office/hold/", "/api/v1/targets/%3Cscript%3E/hold",
	} {
		method := "GET"
		if strings.Contains(path, "hold") {
			method = "POST"
		}
		w := do(h, request(method, path, "{}"))
		isProblem(t, w, http.StatusNotFound)
		if w.Header().Get("Location") != "" {
			t.Errorf("%s redirects", path)
		}
	}
	star := request("OPTIONS", "/", "")
	star.URL.Path, star.RequestURI = "*", "*"
	isProblem(t, do(h, star), http.StatusNotFound)
	if len(r.orders) > 0 {
		t.Errorf("steered %v", r.orders)
	}
}

// What is not handed in is not there, and a console with nothing still lives.
func TestNothingHandedIn(t *testing.T) {
	h := New(Options{})
	for _, path := range []string{"/healthz", "/readyz", "/"} {
		if w := do(h, request("GET", path, "")); w.Code != http.StatusOK {
			t.Errorf("%s: %d", path, w.Code)
		}
	}
	for _, path := range []string{"/metrics", "/api/v1/status", "/api/v1/dead"} {
		isProblem(t, do(h, request("GET", path, "")), http.StatusNotFound)
	}
	isProblem(t, do(h, request("POST", "/api/v1/targets/a/hold", "{}")), http.StatusNotFound)
}

func TestReady(t *testing.T) {
	r := &recorder{}
	o, guarded := r.options(), r.guarded()
	plain := func(h http.Handler, header ...string) string {
		w := do(h, request("GET", "/readyz", "", header...))
		return fmt.Sprint(w.Code, " ", w.Body)
	}
	if got := plain(New(o)); got != "200 ready\n" {
		t.Error(got)
	}
	o.Note = func(context.Context) string { return "not durable" }
	guarded.Note = o.Note
	if got := plain(New(o)); got != "200 ready, but not durable\n" {
		t.Error(got)
	}
	if got := plain(New(guarded)); got != "200 ready\n" {
		t.Error(got)
	}
	o.Note = nil
	r.ready = errors.New("NATS is gone")
	const why, bare = "503 not ready: NATS is gone\n", "503 not ready\n"
	if got := plain(New(o)); got != why {
		t.Error(got)
	}
	if got := plain(New(guarded)); got != bare {
		t.Error(got)
	}
	if got := plain(New(guarded), "Authorization", "Bearer wrong"); got != bare {
		t.Error(got)
	}
	if got := plain(New(guarded), "Authorization", "Bearer "+secret); got != why {
		t.Error(got)
	}
	guarded.Token = func() (string, error) { return secret, errors.New("unreadable") }
	if got := plain(New(guarded), "Authorization", "Bearer "+secret); got != bare {
		t.Error(got)
	}
	o.Ready = func(ctx context.Context) error {
		if _, ok := ctx.Deadline(); !ok {
			return errors.New("no deadline")
		}
		return nil
	}
	if got := plain(New(o)); got != "200 ready\n" {
		t.Error(got)
	}
}

func TestPanicIsContained(t *testing.T) {
	r := &recorder{}
	o := r.options()
	o.Status = func(context.Context) (any, error) { panic("canary in a panic") }
	w := do(New(o), request("GET", "/api/v1/status", ""))
	isProblem(t, w, http.StatusInternalServerError)
	if s := r.log.String(); strings.Contains(s, "canary") || !strings.Contains(s, "contained") || !strings.Contains(s, `"panic":"string"`) {
		t.Errorf("log %s", s)
	}
	o.Status = func(context.Context) (any, error) { panic(http.ErrAbortHandler) }
	defer func() {
		if recover() != http.ErrAbortHandler {
			t.Error("an abort must reach the server")
		}
	}()
	do(New(o), request("GET", "/api/v1/status", ""))
}

func TestRefusalsAreCounted(t *testing.T) {
	var f refusals
	at := time.Unix(1000, 0)
	var got []int
	for _, after := range []time.Duration{0, 1, 2, refusedEvery - 1, refusedEvery, refusedEvery + 1, 3 * refusedEvery} {
		got = append(got, f.count(at.Add(after)))
	}
	if want := []int{1, 0, 0, 0, 4, 0, 2}; !slices.Equal(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
}
