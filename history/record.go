package history

import (
	"bufio"
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"
	"time"
)

// Recorder takes events down. The zero value is ready. Safe for concurrent use.
type Recorder struct {
	mu     sync.Mutex
	events []Event
}

// Note takes an event down; one without a time happens now.
func (r *Recorder) Note(e Event) {
	if e.At.IsZero() {
		e.At = time.Now()
	}
	r.mu.Lock()
	r.events = append(r.events, e)
	r.mu.Unlock()
}

// Events are all that was taken down, in the order of their times.
func (r *Recorder) Events() []Event {
	r.mu.Lock()
	out := slices.Clone(r.events)
	r.mu.Unlock()
	Sort(out)
	return out
}

// Sort puts events into the order of their times; those of one instant stay as
// they are.
func Sort(events []Event) {
	slices.SortStableFunc(events, func(a, b Event) int { return a.At.Compare(b.At) })
}

// Write writes events as JSON lines.
func Write(w io.Writer, events []Event) error {
	b := bufio.NewWriter(w)
	enc := json.NewEncoder(b)
	enc.SetEscapeHTML(false)
	for i := range events {
		if err := enc.Encode(&events[i]); err != nil {
			return fmt.Errorf("history: event %d: %w", i+1, err)
		}
	}
	return b.Flush()
}

// maxLine bounds a line of a history, in bytes.
const maxLine = 1 << 20

// Read reads JSON lines and sorts them. Empty lines and those that begin with // are
// passed over. An error names the line.
func Read(r io.Reader) ([]Event, error) {
	s := bufio.NewScanner(r)
	s.Buffer(nil, maxLine)
	var out []Event
	n := 0
	for s.Scan() {
		n++
		line := bytes.TrimSpace(s.Bytes())
		if len(line) == 0 || bytes.HasPrefix(line, []byte("//")) {
			continue
		}
		dec := json.NewDecoder(bytes.NewReader(line))
		dec.DisallowUnknownFields()
		var e Event
		if err := dec.Decode(&e); err != nil {
			return nil, fmt.Errorf("history: line %d: %w", n, err)
		}
		if dec.More() {
			return nil, fmt.Errorf("history: line %d: more than one event", n)
		}
		if !slices.Contains(kinds, e.Kind) {
			return nil, fmt.Errorf("history: line %d: kind %q is not known", n, e.Kind)
		}
		out = append(out, e)
	}
	if err := s.Err(); err != nil {
		if errors.Is(err, bufio.ErrTooLong) {
			err = fmt.Errorf("longer than %d bytes", maxLine)
		}
		return nil, fmt.Errorf("history: line %d: %w", n+1, err)
	}
	Sort(out)
	return out, nil
}

var kinds = []Kind{
	World, Offer, Stored, Receive, Call, Further, Answer, Arrive, Apply, Reply, Mail, Settle, Own, Free,
	Stop, Exit, Crash, Fault, Heal, Act, Audit, Sample, Calm, Rest, Final,
}

func sortedBy[K comparable, V any, O cmp.Ordered](m map[K]V, by func(K) O) []K {
	out := make([]K, 0, len(m))
	for k := range m {
		out = append(out, k)
	}
	slices.SortFunc(out, func(a, b K) int { return cmp.Compare(by(a), by(b)) })
	return out
}
