package worker

import (
	"context"
	"sync"
	"time"

	"crmsync/contact"
)

type arrival struct {
	class    contact.Class
	delivery contact.Delivery
}

// window bounds the unfinished updates of a class in memory. It admits one
// more while both count and bytes are below their limits, whatever that one's
// size: admission depends only on what is unfinished before it, so a new owner
// gets at least as far as its predecessor did.
type window struct {
	mu        sync.Mutex
	n, bytes  int
	maxN      int
	maxBytes  int
	roomAgain chan struct{} // closed and replaced when room appears
}

func newWindow(n, bytes int) *window {
	return &window{maxN: n, maxBytes: bytes, roomAgain: make(chan struct{})}
}

func (w *window) fullLocked() bool { return w.n >= w.maxN || w.bytes >= w.maxBytes }

// wait returns when one more update may be taken.
func (w *window) wait(ctx context.Context) error {
	for {
		w.mu.Lock()
		full, again := w.fullLocked(), w.roomAgain
		w.mu.Unlock()
		if !full {
			return ctx.Err()
		}
		select {
		case <-again:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func (w *window) add(bytes int) {
	w.mu.Lock()
	w.n++
	w.bytes += bytes
	w.mu.Unlock()
}

func (w *window) release(n, bytes int) {
	w.mu.Lock()
	was := w.fullLocked()
	w.n -= n
	w.bytes -= bytes
	if was && !w.fullLocked() {
		close(w.roomAgain)
		w.roomAgain = make(chan struct{})
	}
	w.mu.Unlock()
}

// read hands the deliveries of one class to the lane, as the window allows.
func (l *Lane) read(ctx context.Context, c contact.Class) error {
	for {
		if err := l.windows[c].wait(ctx); err != nil {
			return err
		}
		d, err := l.o.Source.Next(ctx, c)
		if err != nil {
			return err
		}
		if u := d.Update; u != nil {
			if u.Bad == nil && l.o.Check != nil {
				u.Bad = l.o.Check(u)
			}
			l.windows[c].add(weight(u))
		}
		select {
		case l.arrivals <- arrival{class: c, delivery: d}:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// weight is what an update counts towards the window's bytes.
func weight(u *contact.Update) int { return len(u.Raw) }

// arrive puts a delivery into its contact's slot.
func (l *Lane) arrive(a arrival) {
	u := a.delivery.Update
	if u == nil {
		l.caughtUp[a.class] = true
		l.openGate()
		return
	}
	l.held[a.class].n++
	l.held[a.class].bytes += weight(u)
	s := l.slots[u.Contact.ID]
	if s == nil {
		s = &slot{key: u.Contact, fence: l.o.Source.Fence(u.Contact.ID), heapIndex: -1}
		l.slots[u.Contact.ID] = s
	}
	if l.o.Inherited && !l.open && u.Bad == nil {
		l.mayComeLate(u.Contact, u.Fields, time.Now(), true) // by the owner before
	}
	s.insert(u)
	if u.Class == contact.Live {
		s.lives++
	}
	switch s.state {
	case slotIdle, slotPaused:
		l.turn(s)
	case slotReady:
		l.makeReady(s) // it may have become live
	}
	l.openGate()
}

// openGate lets calls start once each class has handed out everything that
// waited when the ownership began, or has filled its window: then each first
// merge holds all that a former owner's last merge may have held.
func (l *Lane) openGate() {
	if l.open {
		return
	}
	for c := range l.windows {
		h := l.held[c]
		if !l.caughtUp[c] && h.n < l.o.Window && h.bytes < l.o.WindowBytes {
			return
		}
	}
	l.open = true
	l.o.Log.Info().Str("target", l.o.Target).Int("live", l.held[contact.Live].n).
		Int("bulk", l.held[contact.Bulk].n).Msg("lane loaded, calls may start")
}
