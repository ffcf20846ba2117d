package worker

import (
	"cmp"
	"slices"
	"strings"
	"time"

	"crmsync/contact"
)

// LateWrite says which paths of a contact the CRM may still write, and until when,
// since requests were given up. What it would write there is not kept: it is a
// person's.
type LateWrite struct {
	ID    string    `json:"id"`
	Paths []string  `json:"paths"`
	Until time.Time `json:"until"`
}

// maxLateKept is of how many contacts the next lane hears: it lies in a bucket that
// is written each second.
const maxLateKept = 200

// lateKept is what the next lane must know of what may come late.
func (l *Lane) lateKept(now time.Time) []LateWrite {
	var out []LateWrite
	for _, d := range l.doubts {
		w := LateWrite{ID: d.key.ID}
		for _, late := range d.late {
			if !late.supposed && !late.until.Before(now) {
				w.Until = maxTime(w.Until, late.until)
				w.Paths = append(w.Paths, late.paths...)
			}
		}
		if len(w.Paths) == 0 {
			continue
		}
		slices.Sort(w.Paths)
		w.Paths = slices.Compact(w.Paths)
		out = append(out, w)
	}
	slices.SortFunc(out, func(a, b LateWrite) int { return cmp.Or(b.Until.Compare(a.Until), strings.Compare(a.ID, b.ID)) })
	return out[:min(len(out), maxLateKept)]
}

// rememberLate takes over what may come late of the lanes before.
func (l *Lane) rememberLate(all []LateWrite) {
	for _, w := range all {
		until := minTime(w.Until, l.born.Add(l.o.Late))
		if !until.After(l.born) {
			continue
		}
		k := contact.Key{Target: l.o.Target, ID: w.ID}
		l.doubts[w.ID] = &doubt{key: k, late: []lateWrite{{paths: w.Paths, until: until}}}
		l.doubtsEnd = maxTime(l.doubtsEnd, until)
	}
}
