package worker

import (
	"slices"
	"sync"
	"time"
)

// turnLapses is how long a turn is kept for a lane that does not take it.
const turnLapses = 50 * time.Millisecond

// turn is a lane's place in the line for a shared budget. One at a time, at the
// end of the line: lanes take turns however many requests each has waiting.
type turn struct {
	of  *Budget
	due time.Time // when it was told to come
}

// ride makes b spend from s, too. It is called before b is used.
func (b *Budget) ride(s *Budget) {
	if s == nil {
		return
	}
	b.shared = s
	s.mu.Lock()
	defer s.mu.Unlock()
	s.riders = append(s.riders, b)
}

// leave ends what ride began: b waits for nothing any more.
func (b *Budget) leave() {
	s := b.shared
	if s == nil {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.leaveLineLocked(b)
	s.riders = slices.DeleteFunc(s.riders, func(r *Budget) bool { return r == b })
}

// aheadLocked is how many turns come before that of a lane.
func (s *Budget) aheadLocked(of *Budget, now time.Time) int {
	s.line = slices.DeleteFunc(s.line, func(t turn) bool { return t.of != of && now.Sub(t.due) > turnLapses })
	for i, t := range s.line {
		if t.of == of {
			return i
		}
	}
	return len(s.line)
}

func (s *Budget) lineUpLocked(of *Budget, due time.Time) {
	for i := range s.line {
		if s.line[i].of == of {
			s.line[i].due = due
			return
		}
	}
	s.line = append(s.line, turn{of, due})
}

func (s *Budget) leaveLineLocked(of *Budget) {
	s.line = slices.DeleteFunc(s.line, func(t turn) bool { return t.of == of })
}

// ring wakes everybody who waits for this budget: it may allow more than it did.
func (b *Budget) ring() {
	b.mu.Lock()
	riders := slices.Clone(b.riders)
	b.mu.Unlock()
	b.bell.ring()
	for _, r := range riders {
		r.bell.ring()
	}
}

// changed is closed when the budget, or one that it shares, may allow more than
// it did.
func (b *Budget) changed() <-chan struct{} {
	b.bell.mu.Lock()
	defer b.bell.mu.Unlock()
	return b.bell.ch
}

// bell is a channel that is closed and replaced at each ring.
type bell struct {
	mu sync.Mutex
	ch chan struct{}
}

func (b *bell) ring() {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.ch != nil {
		close(b.ch)
	}
	b.ch = make(chan struct{})
}
