package worker

import (
	"container/heap"
	"slices"
	"time"

	"crmsync/contact"
)

type slotState uint8

const (
	slotIdle     slotState = iota // nothing pending
	slotReady                     // in the FIFO of its class
	slotCalling                   // a call is in flight for it
	slotWaiting                   // for its retry time
	slotSettling                  // its outcome is being stored
	slotPaused                    // all it could send is paused
)

// slot is a contact's place in its lane while it has pending updates.
type slot struct {
	key     contact.Key
	fence   contact.Fence // what has settled, as of the last settlement
	pending []*contact.Update
	sent    int   // so many of pending have been in a call that did not decide
	take    *take // what is being sent, or was and is not decided
	state   slotState
	lives   int    // live updates among pending and take
	call    uint64 // number of the call in flight, or of the last one

	attempts  int               // calls that count against what is being sent
	failures  int               // failed calls in a row, counted or not: the backoff's step
	excused   int               // incidents that only this contact saw
	exhausted int               // parts of its take that were given up in a row
	tries     []contact.Attempt // the last maxTries calls
	lastFail  time.Time
	maybeSent bool                     // an attempt's answer is not known: side effects are not repeated
	carried   map[*contact.Update]bool // by such an attempt: only the CRM can decide about these
	undo      <-chan struct{}          // closed once the note of the last call has been taken back; nil: none is

	due       time.Time // slotWaiting: when
	notBefore time.Time // the CRM wants nothing for it earlier, not even a probe
	heapIndex int       // in the retry heap, -1 outside
	ticket    [contact.Classes]uint64
}

// class is the FIFO that a slot belongs to: live as soon as one of its updates
// is.
func (s *slot) class() contact.Class {
	if s.lives > 0 {
		return contact.Live
	}
	return contact.Bulk
}

// maybe says that the side effects of what is being sent may have been asked for
// before.
func (s *slot) maybe() bool {
	return s.maybeSent || slices.ContainsFunc(s.take.alive, (*contact.Update).MaybeSent)
}

// reached says that an update may be at the CRM, so that only the CRM can decide
// about it.
func (s *slot) reached(u *contact.Update) bool { return u.Begun || s.carried[u] }

// startAfresh forgets the failures, since the CRM has decided about a part:
// what is left of the take is another.
func (s *slot) startAfresh() { s.attempts, s.failures, s.excused, s.exhausted = 0, 0, 0, 0 }

// insert adds an update to the pending ones: in each class they are in stream
// order, across classes by when they were stored, whatever order they arrive
// in. So a new owner takes together what its predecessor took together. It goes
// behind what has been sent already: that must go out together again. A redrive
// stands where it was stored itself, since settlements follow that order; how old
// it is counts where updates are folded.
func (s *slot) insert(u *contact.Update) {
	i := len(s.pending)
	for i > s.sent && u.Class != s.pending[i-1].Class {
		c := u.Stored.Compare(s.pending[i-1].Stored)
		if c > 0 || c == 0 && u.Class == contact.Live { // as contact.Mark.After has it
			break
		}
		i--
	}
	s.pending = slices.Insert(s.pending, i, u)
}

// readyQueue is the FIFOs of ready slots, live and bulk.
type readyQueue struct {
	fifo    [contact.Classes]fifo
	n       [contact.Classes]int // slots that wait; entries may be stale
	tickets uint64
	live    int // live slots taken since the last bulk one, while bulk waited
}

type entry struct {
	slot   *slot
	ticket uint64
}

// fifo is a queue over a slice; entries whose slot has left are skipped.
type fifo struct {
	list []entry
	head int
}

func (f *fifo) push(e entry) { f.list = append(f.list, e) }

func (f *fifo) pop() (entry, bool) {
	if f.head == len(f.list) {
		return entry{}, false
	}
	e := f.list[f.head]
	f.list[f.head] = entry{}
	f.head++
	if f.head > 1024 && f.head*2 > len(f.list) {
		f.list = append(f.list[:0:0], f.list[f.head:]...)
		f.head = 0
	}
	if f.head == len(f.list) {
		f.list, f.head = f.list[:0], 0
	}
	return e, true
}

func (f *fifo) clear() {
	clear(f.list)
	f.list, f.head = f.list[:0], 0
}

func (q *readyQueue) push(s *slot, c contact.Class) {
	if s.ticket[c] != 0 {
		return
	}
	if c == contact.Live && s.ticket[contact.Bulk] != 0 {
		q.leave(s, contact.Bulk) // its entry goes stale
	}
	q.tickets++
	s.ticket[c] = q.tickets
	q.n[c]++
	q.fifo[c].push(entry{slot: s, ticket: q.tickets})
}

func (q *readyQueue) leave(s *slot, c contact.Class) {
	if s.ticket[c] != 0 {
		s.ticket[c] = 0
		if q.n[c]--; q.n[c] == 0 {
			q.fifo[c].clear() // what is left is stale
		}
	}
}

func (q *readyQueue) len() int { return q.n[contact.Live] + q.n[contact.Bulk] }

// any is a ready slot from anywhere in its FIFO; pick draws a number below its
// argument. nil where none is ready.
func (q *readyQueue) any(pick func(int) int) *slot {
	classes := [contact.Classes]contact.Class{contact.Live, contact.Bulk}
	if pick(2) == 1 {
		slices.Reverse(classes[:])
	}
	for _, c := range classes {
		f := &q.fifo[c]
		if q.n[c] == 0 {
			continue
		}
		waiting := f.list[f.head:]
		first := pick(len(waiting))
		for i := range waiting {
			if e := waiting[(first+i)%len(waiting)]; e.slot.ticket[c] == e.ticket {
				return e.slot
			}
		}
	}
	return nil
}

// pop takes the next slot: live before bulk, but of every bulkEvery slots that
// are taken while bulk waits, one is bulk.
func (q *readyQueue) pop(bulkEvery int) *slot {
	c := contact.Live
	switch {
	case q.len() == 0:
		return nil
	case q.n[contact.Live] == 0:
		c = contact.Bulk
	case q.n[contact.Bulk] > 0 && q.live >= bulkEvery-1:
		c = contact.Bulk
	}
	if c == contact.Bulk {
		q.live = 0
	} else if q.n[contact.Bulk] > 0 {
		q.live++
	}
	for {
		e, ok := q.fifo[c].pop()
		if !ok {
			return nil
		}
		if e.slot.ticket[c] == e.ticket {
			q.leave(e.slot, c)
			return e.slot
		}
	}
}

// makeReady puts a slot into the FIFO of its class.
func (l *Lane) makeReady(s *slot) {
	l.unpark(s)
	if s.heapIndex >= 0 {
		heap.Remove(&l.retries, s.heapIndex)
	}
	s.state = slotReady
	l.ready.push(s, s.class())
}

// leaveTurn takes a slot out of whatever it waits in.
func (l *Lane) leaveTurn(s *slot) {
	l.unpark(s)
	if s.heapIndex >= 0 {
		heap.Remove(&l.retries, s.heapIndex)
	}
	for c := range contact.Class(contact.Classes) {
		l.ready.leave(s, c)
	}
}

// retryHeap orders waiting slots by their time.
type retryHeap []*slot

func (h retryHeap) Len() int           { return len(h) }
func (h retryHeap) Less(i, j int) bool { return h[i].due.Before(h[j].due) }
func (h retryHeap) Swap(i, j int) {
	h[i], h[j] = h[j], h[i]
	h[i].heapIndex, h[j].heapIndex = i, j
}

func (h *retryHeap) Push(x any) {
	s := x.(*slot)
	s.heapIndex = len(*h)
	*h = append(*h, s)
}

func (h *retryHeap) Pop() any {
	old := *h
	s := old[len(old)-1]
	old[len(old)-1] = nil
	*h = old[:len(old)-1]
	s.heapIndex = -1
	return s
}
