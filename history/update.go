package history

import (
	"slices"
	"time"
)

// update is what became of one.
type update struct {
	Event            // its offer
	key     key      //
	place   place    // in the order of its contact
	in      bool     // it was acknowledged, or is there all the same
	drives  []*drive // how it ended, each time it was sent
	removed bool     // with its contact, by an operator
}

// drive is one way through the queue: the first, or a redrive of a letter.
type drive struct {
	of      uint64
	settles []Event
}

// end is how the update ended at last; the zero event where it has not. A letter that
// was discarded ended so, unless it was sent again.
func (u *update) end() (last Event) {
	var discards []Event
	for _, d := range u.drives {
		for _, s := range d.settles {
			if s.Outcome == "discarded" {
				discards = append(discards, s)
			} else if s.Record >= last.Record {
				last = s
			}
		}
	}
	for _, s := range discards {
		if last.Outcome == "dead" && (s.Letter == last.Letter || s.Letter == 0) {
			return s
		}
	}
	return last
}

// openAt says that the update had not ended by then, not even for a time.
func (u *update) openAt(at time.Time) bool {
	return !slices.ContainsFunc(u.drives, func(d *drive) bool {
		return slices.ContainsFunc(d.settles, func(s Event) bool { return s.Outcome != "discarded" && !s.At.After(at) })
	})
}

// counts says that the update's values are to stand in the CRM, as far as nothing
// newer wrote the same.
func (u *update) counts() bool {
	switch u.end().Outcome {
	case "applied", "unchanged", "superseded":
		return true
	}
	return false
}
