package main

import (
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"
	"unicode/utf8"

	"github.com/vbauerster/mpb/v8"
	"github.com/vbauerster/mpb/v8/decor"
)

// demoView is where the demo speaks: on a terminal, lines above bars that move;
// elsewhere lines only. Its voice is calm: what happens, in one line, when it
// begins and when it is over. Safe for concurrent use.
type demoView struct {
	w     io.Writer // nil: silent
	began time.Time

	mu    sync.Mutex
	last  time.Time // when plain lines were shown
	pool  *mpb.Progress
	bars  map[string]*mpb.Bar
	texts map[string]string // beside the bars
	fancy bool
}

func (g *Globals) demoView() *demoView {
	v := &demoView{w: g.std.err, began: time.Now(), texts: map[string]string{}, fancy: !g.plain(g.std.err) && !g.JSON}
	if g.Quiet {
		v.w, v.fancy = nil, false
	}
	return v
}

// note writes a line without a time.
func (v *demoView) note(format string, a ...any) { v.line(fmt.Sprintf(format, a...)) }

// say writes a line with the time since the demo began.
func (v *demoView) say(format string, a ...any) {
	v.line(fmt.Sprintf("%5.1fs  %s", time.Since(v.began).Seconds(), fmt.Sprintf(format, a...)))
}

func (v *demoView) line(s string) {
	v.mu.Lock()
	defer v.mu.Unlock()
	switch {
	case v.w == nil:
	case v.pool != nil:
		fmt.Fprintln(v.pool, s)
	default:
		fmt.Fprintln(v.w, s)
	}
}

// show brings the bars up to date, or writes how it stands once a second.
func (v *demoView) show(lanes map[string]*demoLane) {
	if v.fancy {
		v.showBars(lanes)
		return
	}
	if time.Since(v.last) < time.Second {
		return
	}
	v.last = time.Now()
	var parts []string
	for _, target := range slices.Sorted(maps.Keys(lanes)) {
		l := lanes[target]
		parts = append(parts, fmt.Sprintf("%s %d of %d: %s", target, l.applied+l.dead, l.published, l.waits))
	}
	v.say("  %s", strings.Join(parts, " | "))
}

// demoTextWidth is the room for what a lane does, beside its bar.
const demoTextWidth = 40

func (v *demoView) showBars(lanes map[string]*demoLane) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.pool == nil {
		v.pool = mpb.New(mpb.WithOutput(v.w), mpb.WithAutoRefresh(), mpb.WithRefreshRate(demoBeat))
		v.bars = map[string]*mpb.Bar{}
		for _, target := range slices.Sorted(maps.Keys(lanes)) {
			v.bars[target] = v.bar(target, int64(lanes[target].total))
		}
	}
	for target, l := range lanes {
		v.texts[target] = l.waits
		v.bars[target].SetCurrent(int64(l.applied + l.dead))
	}
}

func (v *demoView) bar(target string, updates int64) *mpb.Bar {
	return v.pool.New(updates, mpb.BarStyle().Lbound("[").Filler("=").Tip(">").Padding(" ").Rbound("]"),
		mpb.PrependDecorators(decor.Name(target, decor.WC{W: 7, C: decor.DindentRight})),
		mpb.AppendDecorators(
			decor.CountersNoUnit("%d/%d", decor.WC{W: 10}),
			decor.Any(func(decor.Statistics) string { return v.text(target) }),
		),
	)
}

// text is what a lane does, always of the same width.
func (v *demoView) text(target string) string {
	v.mu.Lock()
	defer v.mu.Unlock()
	s := []rune("  " + v.texts[target])
	if len(s) > demoTextWidth {
		s = append(s[:demoTextWidth-1], '…')
	}
	return string(s) + strings.Repeat(" ", demoTextWidth-utf8.RuneCountInString(string(s)))
}

// close leaves the bars as they are. It may be called again.
func (v *demoView) close() {
	v.mu.Lock()
	pool := v.pool
	v.pool, v.fancy = nil, false
	v.mu.Unlock()
	if pool == nil {
		return
	}
	for _, b := range v.bars {
		b.Abort(false)
	}
	pool.Wait()
}
