package main

import (
	"fmt"
	"io"
	"os"
	"time"

	"golang.org/x/term"
)

// progress is one line on a terminal that is written over and over; elsewhere
// it is silent.
type progress struct {
	w     io.Writer // nil: silent
	width int
	last  time.Time
	shown bool
}

func (g *Globals) progress() *progress {
	if g.Quiet || g.JSON || g.plain(g.std.err) {
		return &progress{}
	}
	p := &progress{w: g.std.err, width: 80}
	if f, ok := g.std.err.(*os.File); ok {
		if w, _, err := term.GetSize(int(f.Fd())); err == nil && w > 0 {
			p.width = w
		}
	}
	return p
}

// line shows a text, at most ten times a second.
func (p *progress) line(format string, a ...any) {
	if p.w == nil || time.Since(p.last) < 100*time.Millisecond {
		return
	}
	p.last, p.shown = time.Now(), true
	s := []rune(fmt.Sprintf(format, a...))
	if len(s) >= p.width {
		s = s[:p.width-1]
	}
	fmt.Fprintf(p.w, "\r\x1b[K%s", string(s))
}

// done clears the line.
func (p *progress) done() {
	if p.shown {
		fmt.Fprint(p.w, "\r\x1b[K")
		p.shown = false
	}
}
