package worker

import (
	"math"
	"slices"
	"time"
)

// Limits are what an operator sets in place of a target's configured quota. What
// is 0 stays as it is configured; the reserve always does.
type Limits struct {
	Rate        float64 `json:"rate,omitempty"`        // requests a second
	Burst       int     `json:"burst,omitempty"`       // 0 with a Rate: as configured, but no more than a second's worth
	Concurrency int     `json:"concurrency,omitempty"` // calls at once
	PerSecond   int     `json:"per_second,omitempty"`  // rolling windows
	PerMinute   int     `json:"per_minute,omitempty"`
	PerHour     int     `json:"per_hour,omitempty"`
	PerDay      int     `json:"per_day,omitempty"`

	Until time.Time `json:"until,omitzero"` // whoever runs the lane takes them back then; zero: never
	By    string    `json:"by,omitempty"`
	Note  string    `json:"note,omitempty"`
	Since time.Time `json:"since,omitzero"`
}

// Under is the quota with an operator's limits in its place.
func (q Quota) Under(l Limits) Quota {
	if l.Rate > 0 {
		q.Rate = l.Rate
		q.Burst = min(q.Burst, max(1, int(math.Ceil(l.Rate))))
	}
	if l.Burst > 0 {
		q.Burst = l.Burst
	}
	if l.Concurrency > 0 {
		q.Concurrency = l.Concurrency
	}
	q.Windows = slices.Clone(q.Windows)
	for _, w := range []WindowLimit{
		{Span: time.Second, Limit: l.PerSecond},
		{Span: time.Minute, Limit: l.PerMinute},
		{Span: time.Hour, Limit: l.PerHour},
		{Span: 24 * time.Hour, Limit: l.PerDay},
	} {
		if w.Limit <= 0 {
			continue
		}
		if i := slices.IndexFunc(q.Windows, w.same); i >= 0 {
			q.Windows[i] = w
		} else {
			q.Windows = append(q.Windows, w)
		}
	}
	return q
}
