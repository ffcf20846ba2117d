package worker

import (
	"cmp"
	"slices"
	"time"

	"crmsync/contact"
)

// Counts is what a lane has done since it began.
type Counts struct {
	Outcomes  map[contact.Outcome]int64 `json:"outcomes"`
	Dead      map[contact.Reason]int64  `json:"dead"`
	Answers   map[contact.Verdict]int64 `json:"answers"`
	Holds     map[HoldReason]int64      `json:"holds"`
	Calls     int64                     `json:"calls"`     // one for each change that was sent
	Requests  int64                     `json:"requests"`  // HTTP requests that these made
	Retries   int64                     `json:"retries"`   // times an update was set aside to be tried again
	Recovered int64                     `json:"recovered"` // changes that failed at first and then were taken
	Saved     int64                     `json:"saved"`     // calls that merging made needless
	Unmerged  int64                     `json:"unmerged"`  // refused changes that were taken apart
	Unknown   int64                     `json:"unknown"`   // answers that never came
	Repairs   int64                     `json:"repairs"`   // calls that put a value on top again, in case an older one came late
	Recalled  int64                     `json:"recalled"`  // dead letters of a storm that went back into the queue
}

func newCounts() Counts {
	return Counts{
		Outcomes: map[contact.Outcome]int64{}, Dead: map[contact.Reason]int64{},
		Answers: map[contact.Verdict]int64{}, Holds: map[HoldReason]int64{},
	}
}

func (c *Counts) add(e contact.Ending) {
	c.Outcomes[e.Outcome]++
	if e.Outcome == contact.Dead {
		c.Dead[e.Reason]++
	}
}

func (c *Counts) clone() Counts {
	out := *c
	out.Outcomes, out.Dead, out.Answers, out.Holds = copyMap(c.Outcomes), copyMap(c.Dead), copyMap(c.Answers), copyMap(c.Holds)
	return out
}

func copyMap[K comparable](m map[K]int64) map[K]int64 {
	out := make(map[K]int64, len(m))
	for k, v := range m {
		out[k] = v
	}
	return out
}

// Status is a lane at one instant. Its JSON is what commands and the console
// show.
type Status struct {
	Target   string    `json:"target"`
	At       time.Time `json:"at"`
	Born     time.Time `json:"born"`            // when this owner's lane began
	State    string    `json:"state"`           // loading, running, idle, held or draining
	Waiting  string    `json:"waiting"`         // what its next call waits for
	Until    time.Time `json:"until,omitzero"`  // and until when, where that is known
	Hold     *Hold     `json:"hold,omitempty"`  // why it sends nothing
	Orders   Orders    `json:"orders,omitzero"` // what the operator wants
	Live     int       `json:"live"`            // unfinished updates in memory, by class
	Bulk     int       `json:"bulk"`
	Contacts int       `json:"contacts"` // with such updates
	Ready    int       `json:"ready"`    // contacts whose turn it is
	Calling  int       `json:"calling"`
	Retrying int       `json:"retrying"`
	Paused   int       `json:"paused,omitempty"`  // contacts of which all that waits is of a paused job
	Retries  []Waiter  `json:"retries,omitempty"` // the first of those, by time

	QuotaStatus
	Shared *QuotaStatus `json:"shared,omitempty"` // of the quota in common with others
	Spent  []Spent      `json:"spent,omitempty"`  // for the next owner
	Memory Memory       `json:"memory,omitzero"`
	Counts Counts       `json:"counts"`
}

// Waiter is a contact that waits for its retry.
type Waiter struct {
	Contact  string    `json:"contact"`
	Due      time.Time `json:"due"`
	Attempts int       `json:"attempts"`
	Updates  int       `json:"updates"`
	Status   int       `json:"status,omitempty"`
	Detail   string    `json:"detail,omitempty"`
}

// maxWaiters is how many waiting contacts a status lists.
const maxWaiters = 10

func (l *Lane) snapshot(now time.Time) Status {
	s := Status{
		Target: l.o.Target, At: now, Born: l.born, State: l.state(), Waiting: l.waiting.what, Until: l.waiting.until,
		Live: l.held[contact.Live].n, Bulk: l.held[contact.Bulk].n, Contacts: len(l.slots),
		Ready: l.ready.len(), Calling: l.calling, Retrying: len(l.retries), Paused: l.parked,
		Orders: l.operator, Counts: l.stats.clone(),
	}
	s.Hold = l.shownHold(now)
	s.Memory = l.memory()
	for _, w := range l.retries {
		s.Retries = append(s.Retries, waiter(w))
	}
	slices.SortFunc(s.Retries, func(a, b Waiter) int {
		return cmp.Or(a.Due.Compare(b.Due), cmp.Compare(a.Contact, b.Contact))
	})
	if len(s.Retries) > maxWaiters {
		s.Retries = s.Retries[:maxWaiters]
	}
	s.QuotaStatus, s.Spent = l.budget.Describe(now), l.budget.Memory(now)
	if l.o.Shared != nil {
		q := l.o.Shared.Describe(now)
		s.Shared = &q
	}
	return s
}

func waiter(s *slot) Waiter {
	w := Waiter{Contact: s.key.ID, Due: s.due, Attempts: s.attempts, Updates: len(s.pending)}
	if s.take != nil {
		w.Updates += len(s.take.updates)
	}
	if n := len(s.tries); n > 0 {
		w.Status, w.Detail = s.tries[n-1].Status, s.tries[n-1].Detail
	}
	return w
}

func (l *Lane) state() string {
	switch {
	case l.draining:
		return "draining"
	case !l.open:
		return "loading"
	case l.hold != nil || l.operator.Hold || l.quotaHold(time.Now()) != nil:
		return "held"
	case len(l.slots) == l.parked:
		return "idle"
	}
	return "running"
}
