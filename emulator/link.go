package emulator

import (
	"context"
	"errors"
	"net"
	"net/http"
	"sync"
	"time"
)

// Link serves a handler over real HTTP without a socket, by in-memory pipes.
// It works within testing/synctest, where sockets would stop the clock: open
// and close it inside the bubble. Safe for concurrent use.
type Link struct {
	server *http.Server
	client *http.Transport
	conns  chan net.Conn
	done   chan struct{}
	once   sync.Once
	served sync.WaitGroup
}

// Serve starts a link to h. The caller closes it.
func Serve(h http.Handler) *Link {
	l := &Link{
		server: &http.Server{Handler: h, ReadHeaderTimeout: time.Minute},
		conns:  make(chan net.Conn), done: make(chan struct{}),
	}
	l.client = &http.Transport{DialContext: l.Dial, DisableCompression: true, MaxIdleConnsPerHost: 64}
	l.served.Go(func() { _ = l.server.Serve((*linkListener)(l)) }) // always ErrServerClosed
	return l
}

// Dial opens a connection to the handler, whatever the address: for the
// transport of a client under test.
func (l *Link) Dial(ctx context.Context, _, _ string) (net.Conn, error) {
	near, far := net.Pipe()
	select {
	case l.conns <- far:
		return near, nil
	case <-l.done:
		return nil, errors.New("emulator: the link is closed")
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// Client returns a client that reaches the handler under every http:// URL,
// follows no redirect and unpacks nothing.
func (l *Link) Client() *http.Client {
	return &http.Client{
		Transport:     l.client,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

// Close drops all connections and waits for the server to end. Requests that
// are being served see their context end; close the CRM to end its waits.
func (l *Link) Close() {
	l.once.Do(func() {
		close(l.done)
		l.client.CloseIdleConnections()
		_ = l.server.Close()
	})
	l.served.Wait()
}

type linkListener Link

func (l *linkListener) Accept() (net.Conn, error) {
	select {
	case c := <-l.conns:
		return c, nil
	case <-l.done:
		return nil, net.ErrClosed
	}
}

func (l *linkListener) Close() error   { return nil }
func (l *linkListener) Addr() net.Addr { return linkAddr{} }

type linkAddr struct{}

func (linkAddr) Network() string { return "pipe" }
func (linkAddr) String() string  { return "pipe" }
