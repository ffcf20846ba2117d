package crm

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"crmsync/contact"
)

// wire is a server made of one function per connection, below HTTP.
type wire struct {
	net.Listener
	conns atomic.Int64
	wg    sync.WaitGroup
}

func newWire(t testing.TB, serve func(n int64, c net.Conn)) (*wire, *url.URL) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	w := &wire{Listener: l}
	w.wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			n := w.conns.Add(1)
			w.wg.Go(func() { defer c.Close(); serve(n, c) })
		}
	})
	t.Cleanup(func() { l.Close(); w.wg.Wait() })
	return w, parse(t, "http://"+l.Addr().String())
}

func readRequest(c net.Conn) *http.Request {
	r, err := http.ReadRequest(bufio.NewReader(c))
	if err != nil {
		return nil
	}
	_, _ = io.Copy(io.Discard, r.Body)
	return r
}

// What stands on the wire after a request was read, and what it makes.
func TestAnswersBelowHTTP(t *testing.T) {
	for _, tt := range []struct {
		name, answer string
		kind         FaultKind
		cut          bool // an answer with half a body
	}{
		{"closed", "", FaultReset, false},
		{"half a status line", "HTTP/1.1 2", FaultProtocol, false},
		{"garbage", "\x00\xff\xfe nonsense\r\n\r\n", FaultProtocol, false},
		{"status of letters", "HTTP/1.1 abc OK\r\n\r\n", FaultProtocol, false},
		{"carriage return in a header", "HTTP/1.1 200 OK\r\nA: b\rC: d\r\nContent-Length: 0\r\n\r\n", FaultProtocol, false},
		{"two lengths", "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab", FaultProtocol, false},
		{"huge header", "HTTP/1.1 200 OK\r\nA: " + strings.Repeat("b", MaxHeader*2) + "\r\n\r\n", FaultProtocol, false},
		{"bad chunk", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", 0, true},
		{"short body", "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabc", 0, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, u := newWire(t, func(_ int64, c net.Conn) { readRequest(c); io.WriteString(c, tt.answer) })
			r, f := do(newClient(t, Options{Base: u}), Request{Body: []byte("{}")})
			if tt.cut {
				if f != nil || !r.Cut || r.Status != 200 {
					t.Fatalf("%+v %v", r, f)
				}
				return
			}
			if f == nil || f.Kind != tt.kind || !f.Sent {
				t.Fatalf("%+v, want %v", f, tt.kind)
			}
			if a := f.Answer(true); a.Verdict != contact.VerdictUnknown || a.Incident {
				t.Errorf("a write: %+v", a)
			}
			if a := f.Answer(false); a.Verdict != contact.VerdictTransient || a.Incident {
				t.Errorf("a read: %+v", a)
			}
			if len(f.Detail) > MaxDetail || strings.Contains(f.Detail, "api/contacts") {
				t.Errorf("detail %q", f.Detail)
			}
		})
	}
}

// A reused connection that dies is the case in which net/http sends a request
// again by itself, unseen and unpaid: it must not, neither writes nor reads.
func TestNoRequestIsSentTwice(t *testing.T) {
	for _, method := range []string{"PUT", "GET", "POST", "DELETE"} {
		for _, body := range []string{"{}", ""} {
			var requests atomic.Int64
			w, u := newWire(t, func(n int64, c net.Conn) {
				b := bufio.NewReader(c)
				for i := 0; ; i++ {
					r, err := http.ReadRequest(b)
					if err != nil {
						return
					}
					_, _ = io.Copy(io.Discard, r.Body)
					requests.Add(1)
					if i == 1 {
						return // the second one on this connection is lost
					}
					io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")
				}
			})
			c := newClient(t, Options{Base: u})
			if _, f := do(c, Request{Method: method, Body: []byte(body)}); f != nil {
				t.Fatal(f)
			}
			_, f := do(c, Request{Method: method, Body: []byte(body)})
			if f == nil || !f.Sent || requests.Load() != 2 || w.conns.Load() != 1 {
				t.Errorf("%s %q: %v, %d requests on %d connections", method, body, f, requests.Load(), w.conns.Load())
			}
		}
	}
}

// An idle connection that died before any byte of the request is replaced
// without a fault: nothing reached the CRM.
func TestDeadIdleConnectionIsReplaced(t *testing.T) {
	calls := 0
	dead := &countedConn{}
	c := newClient(t, Options{Base: parse(t, "http://crm.example"), Transport: roundTrip(func(r *http.Request) (*http.Response, error) {
		calls++
		hooks(r).GetConn("")
		hooks(r).GotConn(gotReused(dead))
		if calls < 3 {
			return nil, errors.New("http: server closed idle connection")
		}
		return &http.Response{StatusCode: 200, Body: http.NoBody, Header: http.Header{}}, nil
	})})
	m := NewMeter(func(context.Context) error { t.Error("paid twice"); return nil })
	r, f := c.Do(context.Background(), m, Request{Method: "PUT", Path: "/a", Body: []byte("{}")})
	if f != nil || r.Status != 200 || calls != 3 || m.Requests() != 1 {
		t.Errorf("%+v %v, %d attempts, %d paid", r, f, calls, m.Requests())
	}
	calls = 0
	c.transport.(*origin).next = roundTrip(func(r *http.Request) (*http.Response, error) {
		calls++
		hooks(r).GetConn("")
		hooks(r).GotConn(gotReused(dead))
		dead.written.Add(1)
		return nil, errors.New("http: server closed idle connection")
	})
	if _, f := do(c, Request{}); f == nil || !f.Sent || f.Kind != FaultReset || calls != 1 {
		t.Errorf("one byte was written: %+v after %d attempts", f, calls)
	}
}

func TestNothingSent(t *testing.T) {
	closed, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	refuse := closed.Addr().String()
	closed.Close()
	secure := httptest.NewUnstartedServer(http.NotFoundHandler())
	secure.Config.ErrorLog = discard()
	secure.StartTLS()
	defer secure.Close()
	_, plain := newWire(t, func(_ int64, c net.Conn) { io.WriteString(c, "SSH-2.0-nothing\r\n") })
	for _, tt := range []struct {
		name, base string
		kind       FaultKind
	}{
		{"no such name", "http://crm.invalid", FaultDNS},
		{"refused", "http://" + refuse, FaultConnect},
		{"unknown authority", secure.URL, FaultTLS},
		{"no TLS there", "https://" + plain.Host, FaultTLS},
		{"metadata", "http://169.254.169.254", FaultBlocked},
		{"metadata, mapped", "http://[::ffff:169.254.169.254]", FaultBlocked},
		{"unspecified", "http://0.0.0.0:" + plain.Port(), FaultBlocked},
		{"this host", "http://0.1.2.3", FaultBlocked},
		{"multicast", "http://224.0.0.1", FaultBlocked},
		{"broadcast", "http://255.255.255.255", FaultBlocked},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c := newClient(t, Options{Base: parse(t, tt.base), Timeout: 5 * time.Second})
			_, f := do(c, Request{Body: []byte("{}")})
			if f == nil || f.Kind != tt.kind || f.Sent {
				t.Fatalf("%+v, want %v", f, tt.kind)
			}
			if a := f.Answer(true); a.Verdict != contact.VerdictTransient || !a.Incident || a.Detail == "" {
				t.Errorf("%+v", a)
			}
		})
	}
}

// On the resolved address, so whatever the name and the family.
func TestCheckAddress(t *testing.T) {
	for _, addr := range []string{
		"169.254.169.254:80", "[::ffff:169.254.169.254]:80", "[64:ff9b::a9fe:a9fe]:80", "[fd00:ec2::254]:80", "[fe80::1%eth0]:80",
		"0.0.0.0:80", "0.1.2.3:80", "[::]:80", "224.0.0.1:80", "[ff02::1]:80", "255.255.255.255:80", "", "crm.example:80",
	} {
		for _, private := range []bool{false, true} {
			if err := checkAddress(addr, private); !errors.Is(err, errAddress) {
				t.Errorf("%s, private %v: %v", addr, private, err)
			}
		}
	}
	for _, addr := range []string{"127.0.0.1:80", "[::1]:80", "10.1.2.3:443", "192.168.1.1:80", "100.64.1.1:80", "[fd12::1]:80", "[::ffff:10.1.2.3]:443", "[64:ff9b::a01:203]:80"} {
		if err := checkAddress(addr, true); err != nil {
			t.Errorf("%s, allowed: %v", addr, err)
		}
		if err := checkAddress(addr, false); !errors.Is(err, errPrivate) {
			t.Errorf("%s, not allowed: %v", addr, err)
		}
	}
	for _, addr := range []string{"93.184.216.34:443", "[2606:2800::1]:443", "[64:ff9b::5db8:d822]:443"} {
		if err := checkAddress(addr, false); err != nil {
			t.Errorf("%s: %v", addr, err)
		}
	}
}

// What is written as a private address was meant; a name that leads to one was
// perhaps not.
func TestPrivateByName(t *testing.T) {
	for host, want := range map[string]bool{
		"localhost": true, "127.0.0.1": true, "10.0.0.8": true, "::1": true, "fd12::1": true,
		"crm.example": false, "93.184.216.34": false, "169.254.169.254": false,
	} {
		if got := namesPrivate(host); got != want {
			t.Errorf("%s: %v", host, got)
		}
	}
}

// What a process that was stopped had in hand is not sent when it wakes: the
// request's time is looked at right before each write.
func TestNothingIsWrittenTooLate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		near, far := net.Pipe()
		defer near.Close()
		got := make(chan int, 1)
		go func() { n, _ := io.Copy(io.Discard, far); got <- int(n) }()
		c := &countedConn{Conn: near}
		until := time.Now().Add(5 * time.Second)
		c.until.Store(&until)
		if _, err := c.Write([]byte("GET")); err != nil {
			t.Fatal(err)
		}
		time.Sleep(5 * time.Second)
		n, err := c.Write([]byte(" / HTTP/1.1"))
		if n != 0 || !errors.Is(err, os.ErrDeadlineExceeded) || c.written.Load() != 3 {
			t.Errorf("%d bytes were written, %v", n, err)
		}
		_ = c.Close()
		if n := <-got; n != 3 {
			t.Errorf("%d bytes arrived", n)
		}
	})
}

// Each request sets its own time, on a connection that is used again too.
func TestConnectionsKnowTheRequestsTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var conns []*countedConn
		near, far := net.Pipe()
		served := make(chan struct{})
		go func() {
			defer close(served)
			r := bufio.NewReader(far)
			for {
				if _, err := http.ReadRequest(r); err != nil {
					return
				}
				_, _ = io.WriteString(far, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
			}
		}()
		c := newClient(t, Options{Base: parse(t, "http://crm.example"), Timeout: 7 * time.Second, Dial: func(context.Context, string, string) (net.Conn, error) { return near, nil }})
		dial := c.transport.(*origin).next.(*http.Transport).DialContext
		c.transport.(*origin).next.(*http.Transport).DialContext = func(ctx context.Context, n, a string) (net.Conn, error) {
			conn, err := dial(ctx, n, a)
			conns = append(conns, conn.(*countedConn))
			return conn, err
		}
		for range 3 {
			began := time.Now()
			if _, f := do(c, Request{}); f != nil {
				t.Fatal(f)
			}
			if len(conns) != 1 {
				t.Fatalf("%d connections", len(conns))
			}
			if d := conns[0].until.Load().Sub(began); d != 7*time.Second {
				t.Errorf("the request had %s", d)
			}
			time.Sleep(time.Second)
		}
		c.CloseIdle()
		_ = far.Close()
		<-served
	})
}
