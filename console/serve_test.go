package console

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rs/zerolog"
)

// pipes is a listener in memory, so that a server runs in virtual time.
type pipes struct {
	conns chan net.Conn
	once  sync.Once
	done  chan struct{}
}

func newPipes() *pipes { return &pipes{conns: make(chan net.Conn), done: make(chan struct{})} }

func (p *pipes) Accept() (net.Conn, error) {
	select {
	case c := <-p.conns:
		return c, nil
	case <-p.done:
		return nil, net.ErrClosed
	}
}

func (p *pipes) Close() error { p.once.Do(func() { close(p.done) }); return nil }

func (p *pipes) Addr() net.Addr { return &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 8321} }

func (p *pipes) dial() net.Conn {
	mine, theirs := net.Pipe()
	p.conns <- theirs
	return mine
}

func TestServe(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	addr, wait, err := Serve(ctx, "127.0.0.1:0", New((&recorder{}).options()), zerolog.Nop())
	if err != nil {
		t.Fatal(err)
	}
	client := &http.Client{Transport: &http.Transport{}}
	defer client.CloseIdleConnections()
	for path, want := range map[string]int{"/healthz": 200, "/api/v1/status": 200, "//healthz": 404} {
		resp, err := client.Get("http://" + addr + path)
		if err != nil {
			t.Fatal(err)
		}
		_, _ = io.Copy(io.Discard, resp.Body)
		_ = resp.Body.Close()
		if resp.StatusCode != want {
			t.Errorf("%s: %d", path, resp.StatusCode)
		}
	}
	_, _, err = Serve(ctx, addr, http.NotFoundHandler(), zerolog.Nop())
	if err == nil || !strings.Contains(err.Error(), addr) || !strings.Contains(err.Error(), "http.listen") {
		t.Errorf("a second on the same address: %v", err)
	}
	cancel()
	if err := errors.Join(wait(), wait()); err != nil {
		t.Errorf("wait: %v", err)
	}
	if _, err := client.Get("http://" + addr + "/healthz"); err == nil {
		t.Error("it still answers")
	}
}

// Callers that take their time are cut, each at its limit.
func TestServeTimeouts(t *testing.T) {
	slow := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		_, _ = w.Write(bytes.Repeat([]byte("x"), 1<<20))
	})
	const get = "GET / HTTP/1.1\r\nHost: x\r\n\r\n"
	for name, tc := range map[string]struct {
		send  string
		every string // sent again each second
		read  bool
		limit time.Duration
	}{
		"never speaks":    {"", "", true, headerTimeout},
		"header in drops": {"GET / HTTP/1.1\r\nHost: x\r\n", "X: y\r\n", true, headerTimeout},
		"body in drops":   {"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 9999\r\n\r\n", "x", true, readTimeout},
		"does not listen": {get, "", false, writeTimeout},
		"stays idle":      {get, "", true, idleTimeout},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ctx, cancel := context.WithCancel(t.Context())
				p := newPipes()
				wait := serveOn(ctx, p, slow, zerolog.Nop())
				conn := p.dial()
				began := time.Now()
				cut := make(chan struct{})
				go func() {
					defer close(cut)
					_, err := io.WriteString(conn, tc.send)
					for err == nil && tc.every != "" {
						time.Sleep(time.Second)
						_, err = io.WriteString(conn, tc.every)
					}
					for err == nil && !tc.read { // wait for the end without reading
						time.Sleep(time.Second)
						_, err = conn.Write(nil)
					}
				}()
				if tc.read {
					_, _ = io.Copy(io.Discard, conn)
				}
				<-cut
				if took := time.Since(began); took < tc.limit-time.Second || took > tc.limit+2*time.Second {
					t.Errorf("cut after %s, want %s", took, tc.limit)
				}
				_ = conn.Close()
				cancel()
				if err := wait(); err != nil {
					t.Error(err)
				}
			})
		})
	}
}

func TestServeLimitsConnections(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		p := newPipes()
		wait := serveOn(ctx, p, http.NotFoundHandler(), zerolog.Nop())
		conns := make([]net.Conn, maxConns)
		for i := range conns {
			conns[i] = p.dial()
		}
		synctest.Wait()
		mine, theirs := net.Pipe()
		select {
		case p.conns <- theirs:
			t.Error("one connection too many was taken")
		default:
		}
		_ = conns[0].Close() // makes room
		p.conns <- theirs
		for _, c := range append(conns, mine) {
			_ = c.Close()
		}
		cancel()
		if err := wait(); err != nil {
			t.Error(err)
		}
	})
}

// OPTIONS * is not answered for us by net/http, without our headers.
func TestServeOptions(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		p := newPipes()
		wait := serveOn(ctx, p, http.NotFoundHandler(), zerolog.Nop())
		conn := p.dial()
		go func() { _, _ = io.WriteString(conn, "OPTIONS * HTTP/1.1\r\nHost: x\r\n\r\n") }()
		if resp, err := http.ReadResponse(bufio.NewReader(conn), nil); err != nil || resp.StatusCode != http.StatusNotFound {
			t.Errorf("%v %v", resp, err)
		}
		_ = conn.Close()
		cancel()
		if err := wait(); err != nil {
			t.Error(err)
		}
	})
}

func TestServeLimitsHeaders(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		p := newPipes()
		wait := serveOn(ctx, p, http.NotFoundHandler(), zerolog.Nop())
		for size, want := range map[int]int{maxHeader / 2: 404, 2 * maxHeader: 431} {
			conn := p.dial()
			go func() {
				_, _ = fmt.Fprintf(conn, "GET / HTTP/1.1\r\nHost: x\r\nX: %s\r\n\r\n", strings.Repeat("x", size))
			}()
			resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
			if err != nil || resp.StatusCode != want {
				t.Errorf("%d bytes of headers: %v %v", size, resp, err)
			}
			_ = conn.Close()
		}
		cancel()
		if err := wait(); err != nil {
			t.Error(err)
		}
	})
}

// A stop lets requests end, for as long as it has patience.
func TestServeStops(t *testing.T) {
	for name, tc := range map[string]struct{ work, ends time.Duration }{
		"quick": {2 * time.Second, 2 * time.Second},
		"stuck": {time.Hour, graceTimeout},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ctx, cancel := context.WithCancel(t.Context())
				p := newPipes()
				started := make(chan struct{})
				wait := serveOn(ctx, p, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					close(started)
					select {
					case <-time.After(tc.work):
					case <-r.Context().Done():
					}
					w.WriteHeader(http.StatusNoContent)
				}), zerolog.Nop())
				conn := p.dial()
				answered := make(chan bool)
				go func() {
					_, _ = io.WriteString(conn, "GET / HTTP/1.1\r\nHost: x\r\n\r\n")
					resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
					answered <- err == nil && resp.StatusCode == http.StatusNoContent
				}()
				<-started
				began := time.Now()
				cancel()
				if err := wait(); err != nil {
					t.Error(err)
				}
				if took := time.Since(began); took < tc.ends-time.Second || took > tc.ends+time.Second {
					t.Errorf("stopped after %s, want about %s", took, tc.ends)
				}
				if ok := <-answered; ok != (tc.work < graceTimeout) {
					t.Errorf("answered: %v", ok)
				}
				if took := time.Since(began); took > tc.ends+time.Second {
					t.Errorf("the connection outlived wait: %s", took)
				}
				_ = conn.Close()
			})
		})
	}
}

func TestServeTellsWhyItEnded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPipes()
		wait := serveOn(t.Context(), p, http.NotFoundHandler(), zerolog.Nop())
		_ = p.Close() // from under it
		if err := wait(); !errors.Is(err, net.ErrClosed) {
			t.Errorf("wait: %v", err)
		}
	})
}

// What net/http says by itself comes out as a line of our log.
func TestServeLog(t *testing.T) {
	var b bytes.Buffer
	n, err := netLog{zerolog.New(&b)}.Write([]byte("http: something\nelse\n"))
	if n != 21 || err != nil || strings.Count(b.String(), "\n") != 1 || !strings.Contains(b.String(), `"level":"debug"`) {
		t.Errorf("%d %v %s", n, err, &b)
	}
}
