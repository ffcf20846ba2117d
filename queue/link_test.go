package queue

import (
	"bytes"
	"net"
	"sync"
)

// link is the connection of one process to the server, which a test can cut or
// freeze.
type link struct {
	mu    sync.Mutex
	conns map[net.Conn]bool
	cut   bool
	froze chan struct{} // not nil: what is written and read waits until it is closed
	at    []byte        // not nil: freeze when this is written
}

// Dial makes a connection that the link controls.
func (l *link) Dial(network, address string) (net.Conn, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.cut {
		return nil, net.ErrClosed
	}
	c, err := net.Dial(network, address)
	if err != nil {
		return nil, err
	}
	if l.conns == nil {
		l.conns = map[net.Conn]bool{}
	}
	l.conns[c] = true
	return &linked{Conn: c, l: l}, nil
}

// sever resets the connection and lets none through until mend.
func (l *link) sever() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.cut = true
	for c := range l.conns {
		_ = c.Close()
	}
	l.conns = nil
}

func (l *link) mend() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.cut = false
}

// freeze holds back what the server sends, as a network that loses answers does;
// what was frozen arrives at thaw.
func (l *link) freeze() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.freezeLocked()
}

func (l *link) freezeLocked() { l.froze, l.at = make(chan struct{}), nil }

// freezeAt has the link freeze at the moment at which something is written.
func (l *link) freezeAt(what string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.at = []byte(what)
}

func (l *link) frozen() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.froze != nil
}

func (l *link) thaw() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.froze != nil {
		close(l.froze)
		l.froze = nil
	}
}

type linked struct {
	net.Conn
	l *link
}

// Write freezes the link where it was asked for.
func (c *linked) Write(b []byte) (int, error) {
	c.l.mu.Lock()
	if c.l.at != nil && bytes.Contains(b, c.l.at) {
		c.l.freezeLocked()
	}
	c.l.mu.Unlock()
	return c.Conn.Write(b)
}

// Read waits while the link is frozen.
func (c *linked) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	c.l.mu.Lock()
	froze := c.l.froze
	c.l.mu.Unlock()
	if froze != nil {
		<-froze
	}
	return n, err
}

// pipe is a process' connection inside the simulation.
type pipe struct {
	srv interface{ InProcessConn() (net.Conn, error) }
	l   *link
}

func (p pipe) InProcessConn() (net.Conn, error) {
	p.l.mu.Lock()
	defer p.l.mu.Unlock()
	if p.l.cut {
		return nil, net.ErrClosed
	}
	c, err := p.srv.InProcessConn()
	if err != nil {
		return nil, err
	}
	if p.l.conns == nil {
		p.l.conns = map[net.Conn]bool{}
	}
	p.l.conns[c] = true
	return &linked{Conn: c, l: p.l}, nil
}
