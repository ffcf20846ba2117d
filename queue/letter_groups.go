package queue

import (
	"context"
	"slices"
	"time"

	"crmsync/contact"
)

// Group is dead letters of one target that died of the same thing.
type Group struct {
	Target string `json:"target"`
	// Cause is what they share; its message is cut at 240 bytes.
	Cause       contact.Cause `json:"cause"`
	Fingerprint string        `json:"fingerprint"`
	Count       int64         `json:"count"`
	First       time.Time     `json:"first,omitzero"` // when the oldest was stored
	Last        time.Time     `json:"last,omitzero"`
	LastHour    int64         `json:"last_hour"`   // stored in the last hour
	HourBefore  int64         `json:"hour_before"` // and in the one before
	Samples     []uint64      `json:"samples"`     // ids of the newest, newest first, at most 3
	// Other says that it sums up the causes beyond [MaxGroups]; cause and
	// fingerprint are empty.
	Other bool `json:"other,omitempty"`
}

// MaxGroups is how many causes are told apart; later ones are summed up in one
// group for each target.
const MaxGroups = 1000

const samples = 3

// Groups puts the dead letters that the filter chooses into groups by their
// cause, the largest first. It reads headers only, unless field or match choose,
// about 100,000 letters a second, and holds no more than the groups.
func (q *Queue) Groups(ctx context.Context, f Filter) ([]Group, error) {
	return q.groups(ctx, f, time.Now())
}

func (q *Queue) groups(ctx context.Context, f Filter, now time.Time) ([]Group, error) {
	type key struct{ target, print string }
	groups := map[key]*Group{}
	f.Outcome, f.Newest = contact.Dead, false
	err := q.choose(ctx, f, func(h letterHead) error {
		k := key{h.key.Target, h.print}
		g := groups[k]
		if g == nil && len(groups) >= MaxGroups {
			k.print = ""
			g = groups[k]
		}
		if g == nil {
			g = &Group{Target: k.target, Fingerprint: k.print, First: h.at, Other: k.print == ""}
			if !g.Other {
				g.Cause = h.cause
			}
			groups[k] = g
		}
		g.add(h, now)
		return nil
	})
	out := make([]Group, 0, len(groups))
	for _, g := range groups {
		slices.Reverse(g.Samples)
		out = append(out, *g)
	}
	slices.SortFunc(out, func(a, b Group) int {
		if a.Count != b.Count {
			return int(b.Count - a.Count)
		}
		return int(int64(a.Samples[0]) - int64(b.Samples[0]))
	})
	return out, err
}

func (g *Group) add(h letterHead, now time.Time) {
	g.Count++
	g.Last = h.at
	switch age := now.Sub(h.at); {
	case age < time.Hour:
		g.LastHour++
	case age < 2*time.Hour:
		g.HourBefore++
	}
	if len(g.Samples) == samples {
		copy(g.Samples, g.Samples[1:])
		g.Samples = g.Samples[:samples-1]
	}
	g.Samples = append(g.Samples, h.id)
}
