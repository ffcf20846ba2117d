package emulator

import (
	"slices"
	"strconv"
	"time"
)

// Operation is what a request was for.
type Operation string

// The operations a ledger tells apart. Other covers lists, creates, deletes
// and everything that does not exist.
const (
	OpUpdate Operation = "update"
	OpRead   Operation = "read"
	OpToken  Operation = "token"
	OpBatch  Operation = "batch"
	OpOther  Operation = "other"
)

var operations = []Operation{OpUpdate, OpRead, OpToken, OpBatch, OpOther}

// Entry is one request that reached the CRM, whatever became of it.
type Entry struct {
	// N counts arrivals from 1.
	N int `json:"n"`
	// Arrived is when the request's head was read; Answered when its answer
	// was complete or withheld, zero while it is still being served.
	Arrived  time.Time `json:"arrived"`
	Answered time.Time `json:"answered,omitzero"`
	Method   string    `json:"method"`
	Path     string    `json:"path"`
	// Contact is the contact the request is about, or empty.
	Contact   string    `json:"contact,omitempty"`
	Operation Operation `json:"operation"`
	// Status is what the caller was answered; 0 means no answer reached it.
	Status int `json:"status"`
	// Applied says that a stored value changed; Unchanged that the request
	// was accepted but stored what was there already. Neither means refused.
	Applied   bool `json:"applied"`
	Unchanged bool `json:"unchanged,omitempty"`
	// Seq is the place in the order of applying, from 1, over the whole CRM;
	// it differs from N when requests overtake each other. 0: not applied.
	Seq int `json:"seq,omitempty"`
	// Changed are the paths of the fields whose stored value changed, sorted;
	// Values are their new values.
	Changed []string       `json:"changed,omitempty"`
	Values  map[string]any `json:"values,omitempty"`
	// Also are other contacts this request changed (Perfex demotes the former
	// primary contact of the customer).
	Also []string `json:"also,omitempty"`
	// Updates are the numbers of all marks of the form #<number># in the
	// strings of the body, ascending, each once.
	Updates []int64 `json:"updates,omitempty"`
	// Batch are the parts of a batch, in order; Contact, Applied, Changed and
	// Values of the entry itself are then empty, except that Applied says
	// whether any part was.
	Batch []Part `json:"batch,omitempty"`
	// Fault names the kind of the planned fault that hit, or is empty.
	Fault string `json:"fault,omitempty"`
	// Wait is the time the answer told the caller to stay away in a form it
	// can read, or 0.
	Wait time.Duration `json:"wait,omitempty"`
}

// Part is what a request did to one contact. The fields mean what they mean
// in an Entry.
type Part struct {
	Contact   string         `json:"contact"`
	Applied   bool           `json:"applied"`
	Unchanged bool           `json:"unchanged,omitempty"`
	Seq       int            `json:"seq,omitempty"`
	Changed   []string       `json:"changed,omitempty"`
	Values    map[string]any `json:"values,omitempty"`
	Also      []string       `json:"also,omitempty"`
}

// Parts returns what the request did contact by contact: the parts of a
// batch, or the one part of anything else.
func (e Entry) Parts() []Part {
	if e.Operation == OpBatch {
		return e.Batch
	}
	return []Part{{e.Contact, e.Applied, e.Unchanged, e.Seq, e.Changed, e.Values, e.Also}}
}

// Mail is a message the CRM would have sent.
type Mail struct {
	Sent time.Time `json:"sent"`
	// Kind is "set-password", "welcome" or "invitation".
	Kind    string `json:"kind"`
	To      string `json:"to"`
	Contact string `json:"contact"`
	// Entry is the number of the request that caused it.
	Entry int `json:"entry"`
}

// Ledger returns a copy of all entries in order of arrival.
func (c *CRM) Ledger() []Entry { return c.LedgerSince(0) }

// LedgerSince returns a copy of the entries after number n: pass the N of the
// last entry seen. Maps and slices inside are shared and must not be changed.
func (c *CRM) LedgerSince(n int) []Entry {
	c.mu.Lock()
	defer c.mu.Unlock()
	n = min(max(n, 0), len(c.log))
	out := make([]Entry, 0, len(c.log)-n)
	for _, e := range c.log[n:] {
		out = append(out, *e)
	}
	return out
}

// Mails returns every mail the CRM would have sent, in order.
func (c *CRM) Mails() []Mail {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.mails)
}

// note puts what a reply did into its entry. c.mu is held.
func (c *CRM) noteLocked(e *Entry, parts []Part) {
	for i := range parts {
		if parts[i].Applied {
			c.applies++
			parts[i].Seq = c.applies
		}
	}
	if e.Operation == OpBatch {
		e.Batch = parts
		for _, p := range parts {
			e.Applied = e.Applied || p.Applied
		}
		return
	}
	for _, p := range parts {
		e.Contact, e.Applied, e.Unchanged, e.Seq = p.Contact, p.Applied, p.Unchanged, p.Seq
		e.Changed, e.Values, e.Also = p.Changed, p.Values, p.Also
	}
}

// marks appends the numbers of all marks #<number># in the strings of a
// decoded JSON value.
func marks(into []int64, v any) []int64 {
	switch v := v.(type) {
	case string:
		return textMarks(into, v)
	case []any:
		for _, x := range v {
			into = marks(into, x)
		}
	case []string:
		for _, x := range v {
			into = textMarks(into, x)
		}
	case map[string]any:
		for _, x := range v {
			into = marks(into, x)
		}
	}
	return into
}

func textMarks(into []int64, s string) []int64 {
	for i := 0; i < len(s); i++ {
		if s[i] != '#' {
			continue
		}
		j := i + 1
		for j < len(s) && '0' <= s[j] && s[j] <= '9' {
			j++
		}
		if j == len(s) {
			return into
		}
		if s[j] != '#' || j == i+1 {
			i = j - 1
			continue
		}
		if n, err := strconv.ParseInt(s[i+1:j], 10, 64); err == nil {
			into = append(into, n)
		}
		i = j
	}
	return into
}

// sortedMarks returns the marks of v ascending, each once.
func sortedMarks(v any) []int64 {
	m := marks(nil, v)
	slices.Sort(m)
	return slices.Compact(m)
}
