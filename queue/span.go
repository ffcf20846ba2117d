package queue

import (
	"fmt"
	"slices"
	"strings"
)

// span is sequences of a stream, both ends included.
type span struct {
	From uint64 `json:"from"`
	To   uint64 `json:"to"`
}

// spans are disjoint, rising, and none touches the next.
type spans []span

// add adds sequences; in the common case they follow the last.
func (s spans) add(from, to uint64) spans {
	if from > to {
		return s
	}
	if n := len(s); n == 0 || s[n-1].To+1 < from {
		return append(s, span{from, to})
	} else if from >= s[n-1].From {
		s[n-1].To = max(s[n-1].To, to)
		return s
	}
	i, _ := slices.BinarySearchFunc(s, from, func(p span, from uint64) int {
		if p.To+1 < from {
			return -1
		}
		return 1
	})
	j := i
	for j < len(s) && s[j].From <= to+1 {
		from, to = min(from, s[j].From), max(to, s[j].To)
		j++
	}
	return slices.Replace(s, i, j, span{from, to})
}

// union has the sequences of both.
func (s spans) union(o spans) spans {
	out := slices.Clone(s)
	for _, p := range o {
		out = out.add(p.From, p.To)
	}
	return out
}

// minus is s without the sequences of o.
func (s spans) minus(o spans) spans {
	var out spans
	for _, p := range s {
		i, _ := slices.BinarySearchFunc(o, p.From, func(q span, from uint64) int {
			if q.To < from {
				return -1
			}
			return 1
		})
		at := p.From
		for ; i < len(o) && o[i].From <= p.To && at <= p.To; i++ {
			if o[i].From > at {
				out = out.add(at, o[i].From-1)
			}
			at = max(at, o[i].To+1)
		}
		out = out.add(at, p.To)
	}
	return out
}

// within is what of s lies between two sequences, both included.
func (s spans) within(from, to uint64) spans {
	var out spans
	for _, p := range s {
		out = out.add(max(p.From, from), min(p.To, to))
	}
	return out
}

func (s spans) has(seq uint64) bool {
	_, ok := slices.BinarySearchFunc(s, seq, func(p span, seq uint64) int {
		switch {
		case p.To < seq:
			return -1
		case p.From > seq:
			return 1
		}
		return 0
	})
	return ok
}

func (s spans) count() (n uint64) {
	for _, p := range s {
		n += p.To - p.From + 1
	}
	return n
}

// last is the greatest sequence, 0 for none.
func (s spans) last() uint64 {
	if len(s) == 0 {
		return 0
	}
	return s[len(s)-1].To
}

func (p span) String() string {
	if p.From == p.To {
		return fmt.Sprint(p.From)
	}
	return fmt.Sprintf("%d to %d", p.From, p.To)
}

// String names all sequences.
func (s spans) String() string {
	parts := make([]string, len(s))
	for i, p := range s {
		parts[i] = p.String()
	}
	return strings.Join(parts, ", ")
}
