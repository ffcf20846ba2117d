package queue

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"
)

// Loss is something that was confirmed and is not there any more. An update is
// counted where no outcome record tells of its end; one that had ended is not
// missed.
type Loss struct {
	Stream string `json:"stream"`
	// From and To are the first and the last sequence, both included; 0 where
	// the stream's last one is not known.
	From uint64 `json:"from"`
	To   uint64 `json:"to"`
	// Why is damaged (their bytes are no message any more), missing (they are
	// in no file), regressed (the stream ends before them) or gone (the stream
	// is not there).
	Why     string    `json:"why"`
	Contact string    `json:"contact,omitempty"` // whose it was, where that can still be read
	Found   time.Time `json:"found"`
}

func (l Loss) String() string {
	s := fmt.Sprintf("%s: %s %s", l.Stream, span{l.From, l.To}, l.Why)
	if l.Contact != "" {
		s += " (contact " + l.Contact + ")"
	}
	return s
}

// Why a [Loss] is one.
const (
	lossDamaged   = "damaged"
	lossMissing   = "missing"
	lossRegressed = "regressed"
	lossGone      = "gone"
	// lossUnproven: nothing is known to be missing; nothing proves that it is not.
	lossUnproven = "unproven"
)

// mark is how far a stream had got at an instant.
type mark struct {
	First uint64 `json:"first"`
	Last  uint64 `json:"last"`
	// Gaps are the sequences between that held nothing; known of streams of
	// updates only, in which there should be none.
	Gaps spans `json:"gaps,omitempty"`
	// Gone says that its loss was accepted: until there is such a stream again
	// nobody is told.
	Gone bool `json:"gone,omitempty"`
}

// marks is what is known of a store apart from it: the high-water mark of each
// stream, and what was found missing and has not been accepted.
type marks struct {
	// At is when it was so: what was confirmed before is provable.
	At time.Time `json:"at"`
	// Clean says that the server stopped in order after that, so that the marks
	// are exact.
	Clean   bool            `json:"clean,omitempty"`
	Streams map[string]mark `json:"streams"`
	Losses  []Loss          `json:"losses,omitempty"`
}

// marksFile keeps marks on disk, beside the store and not in it. Its methods are
// safe for concurrent use.
type marksFile struct {
	path string

	mu    sync.Mutex
	now   marks
	saved []byte
}

// readMarks reads the marks of a store; the file before the last one serves where
// that is damaged, since marks only say what was at least there. An error says that
// both are.
func readMarks(path string) (*marksFile, error) {
	m, newest, err := readSealed[marks](path)
	if !newest {
		m.Clean = false
	}
	if m.Streams == nil {
		m.Streams = map[string]mark{}
	}
	return &marksFile{path: path, now: m}, err
}

// read returns a copy.
func (f *marksFile) read() marks {
	f.mu.Lock()
	defer f.mu.Unlock()
	m := f.now
	m.Streams, m.Losses = maps.Clone(m.Streams), slices.Clone(m.Losses)
	return m
}

// change changes the marks and stores them durably, unless nothing but the time is
// new and they were stored a while ago only.
func (f *marksFile) change(edit func(*marks)) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	edit(&f.now)
	at := f.now.At
	f.now.At = time.Time{}
	same, err := json.Marshal(f.now)
	f.now.At = at
	if err != nil {
		return fmt.Errorf("queue: marks: %w", err)
	}
	if string(same) == string(f.saved) {
		return nil
	}
	if err := writeSealed(f.path, f.now); err != nil {
		return fmt.Errorf("queue: marks: %w", err)
	}
	f.saved = same
	return nil
}
