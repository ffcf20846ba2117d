package app

import (
	"errors"
	"math/rand/v2"
	"net"
	"sync"
	"time"
)

var errCut = errors.New("the link is cut")

// simLink is one process' way to something else, inside a simulation: it can be
// cut, and held, which keeps back what is on its way in both directions. Whatever
// goes over it takes a moment, another one each time: what happens at different
// instants happens in one order, run after run.
type simLink struct {
	seed uint64

	mu    sync.Mutex
	n     uint64 // connections so far
	conns map[net.Conn]bool
	cut   bool
	held  chan struct{} // nil where nothing is held; closed when it no longer is
}

// through makes a connection of dial's go over the link.
func (l *simLink) through(dial func() (net.Conn, error)) (net.Conn, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	// NATS clients shake hands with a lock held, and a wait for a lock would stop
	// the clock of the bubble: a link that is held makes no connections, and holds
	// none that is young.
	if l.cut || l.held != nil {
		return nil, errCut
	}
	far, err := dial()
	if err != nil {
		return nil, err
	}
	near, inner := net.Pipe()
	if l.conns == nil {
		l.conns = map[net.Conn]bool{}
	}
	l.conns[inner], l.conns[far] = true, true
	l.n++
	closed := make(chan struct{})
	var once sync.Once
	end := func() {
		once.Do(func() {
			close(closed)
			_ = inner.Close()
			_ = far.Close()
			l.mu.Lock()
			delete(l.conns, inner)
			delete(l.conns, far)
			l.mu.Unlock()
		})
	}
	born := time.Now()
	for i, way := range [2]struct{ from, to net.Conn }{{inner, far}, {far, inner}} {
		w := &simWay{l: l, born: born, closed: closed, seed: l.seed ^ (2*l.n+uint64(i))<<32, kick: make(chan struct{}, 1)}
		go func() { w.read(way.from); end() }()
		go func() { w.deliver(way.to); end() }()
	}
	return near, nil
}

// sever cuts all connections and lets none through until mend: whoever is at the
// other end sees that they are closed.
func (l *simLink) sever() {
	l.mu.Lock()
	l.cut = true
	conns := l.conns
	l.conns = nil
	l.mu.Unlock()
	for c := range conns {
		_ = c.Close()
	}
	l.release()
}

func (l *simLink) mend() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.cut = false
}

func (l *simLink) hold() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.held == nil {
		l.held = make(chan struct{})
	}
}

func (l *simLink) release() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.held != nil {
		close(l.held)
		l.held = nil
	}
}

// simWay is one direction of a connection. Nobody who writes ever waits for it.
type simWay struct {
	l      *simLink
	born   time.Time
	closed chan struct{}
	seed   uint64
	kick   chan struct{}

	mu    sync.Mutex
	queue []byte
	over  bool // nothing more comes
}

const (
	simLatency = 100 * time.Microsecond
	simYoung   = 50 * simLatency
)

func (w *simWay) read(from net.Conn) {
	b := make([]byte, 32<<10)
	for {
		n, err := from.Read(b)
		w.mu.Lock()
		w.queue = append(w.queue, b[:n]...)
		w.over = err != nil
		w.mu.Unlock()
		select {
		case w.kick <- struct{}{}:
		default:
		}
		if err != nil {
			<-w.closed // once the rest is delivered
			return
		}
	}
}

func (w *simWay) deliver(to net.Conn) {
	for {
		select {
		case <-w.kick:
		case <-w.closed:
			return
		}
		time.Sleep(w.latency())
		w.wait()
		w.mu.Lock()
		b, over := w.queue, w.over
		w.queue = nil
		w.mu.Unlock()
		if len(b) > 0 {
			if _, err := to.Write(b); err != nil {
				return
			}
		}
		if over {
			return
		}
	}
}

// latency depends on the instant alone, not on how much came before: whether two
// writes of one instant come one by one or together is for the scheduler to say.
func (w *simWay) latency() time.Duration {
	r := rand.New(rand.NewPCG(w.seed, uint64(time.Now().UnixNano())))
	return simLatency/2 + time.Duration(r.Int64N(int64(simLatency)))
}

// wait returns once nothing is held, or the connection is closed.
func (w *simWay) wait() {
	if time.Since(w.born) < simYoung {
		return
	}
	for {
		w.l.mu.Lock()
		held := w.l.held
		w.l.mu.Unlock()
		if held == nil {
			return
		}
		select {
		case <-held:
		case <-w.closed:
			return
		}
	}
}
