package main

import (
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"time"

	"crmsync/emulator"
)

// gates stand between one worker and the CRMs: they see what this worker sends, and
// can keep it from arriving.
type gates struct {
	w      *faultWorld
	target map[string]*gate
	args   []string // for the worker
}

type gate struct {
	target string
	crm    *emulator.CRM

	mu    sync.Mutex
	shut  chan struct{} // not nil: nothing is answered before it is closed
	reset bool          // connections are reset, in the middle of the request
	began []time.Time   // calls
	ate   int           // requests that were not answered
	broke int           // connections that were reset
}

// gates makes gates for a worker that is to be started.
func (w *faultWorld) gates() *gates {
	w.t.Helper()
	g := &gates{w: w, target: map[string]*gate{}}
	for _, target := range w.targets {
		gt := &gate{target: target, crm: w.crms[target]}
		srv := httptest.NewServer(gt)
		w.onClose(func() error {
			gt.open()
			srv.CloseClientConnections()
			srv.Close()
			return nil
		})
		g.target[target] = gt
		g.args = append(g.args, "--set", fmt.Sprintf("targets.%s.url=%s", target, srv.URL))
	}
	return g
}

// begins says whether a request is the first of its call.
func (g *gate) begins(r *http.Request) bool {
	if demoKind(g.target) == "perfex" {
		return r.Method == http.MethodGet // it is read, then written
	}
	return r.Method == http.MethodPut
}

func (g *gate) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	g.mu.Lock()
	if g.begins(r) && strings.Contains(r.URL.Path, "contacts/") {
		g.began = append(g.began, time.Now())
	}
	shut, reset := g.shut, g.reset
	g.mu.Unlock()
	if reset {
		if c, _, err := http.NewResponseController(w).Hijack(); err == nil {
			if tcp, ok := c.(*net.TCPConn); ok {
				_ = tcp.SetLinger(0) // a reset, not an end
			}
			_ = c.Close()
			g.mu.Lock()
			g.broke++
			g.mu.Unlock()
			return
		}
	}
	if shut != nil {
		g.mu.Lock()
		g.ate++
		g.mu.Unlock()
		select {
		case <-shut:
		case <-r.Context().Done():
		}
		panic(http.ErrAbortHandler)
	}
	g.crm.ServeHTTP(w, r)
}

// close has nothing answered, as if a network ate all packets.
func (g *gate) close() {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.shut == nil {
		g.shut = make(chan struct{})
	}
}

// breakUp resets connections.
func (g *gate) breakUp() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.reset = true
}

// open lets everything through.
func (g *gate) open() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.reset = false
	if g.shut != nil {
		close(g.shut)
		g.shut = nil
	}
}

// harm is how many connections were reset, and requests not answered.
func (g *gate) harm() (broke, ate int) {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.broke, g.ate
}

// since lists the calls that began behind an instant.
func (g *gate) since(t time.Time) []time.Time {
	g.mu.Lock()
	defer g.mu.Unlock()
	return slices.DeleteFunc(slices.Clone(g.began), func(at time.Time) bool { return !at.After(t) })
}

// starved measures for how long this machine keeps a process waiting that wants to
// run; what a promise says in milliseconds is meant beside that.
type starved struct {
	quit, done chan struct{}
	once       sync.Once
	most       time.Duration // read when done
}

func measureStarving() *starved {
	s := &starved{quit: make(chan struct{}), done: make(chan struct{})}
	go func() {
		defer close(s.done)
		for {
			began := time.Now()
			select {
			case <-time.After(5 * time.Millisecond):
				s.most = max(s.most, time.Since(began)-5*time.Millisecond)
			case <-s.quit:
				return
			}
		}
	}()
	return s
}

// stop ends the measuring; it may be called again.
func (s *starved) stop() time.Duration {
	s.once.Do(func() { close(s.quit) })
	<-s.done
	return s.most
}
