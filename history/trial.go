package history

import (
	"slices"
	"time"
)

type key struct{ target, contact string }

type pathKey struct {
	key
	path string
}

// trial is a history sorted out.
type trial struct {
	events  []Event
	rules   Rules
	stored  int
	updates map[int64]*update
	order   []*update         // in the order of their numbers
	of      map[key][]*update // in the same order
	letters map[uint64]letter

	requests []*request // in the order of arrival
	byNumber map[string]map[int]*request
	writes   map[key][]*request // in the order of applying
	calls    map[string]*call
	inOrder  []*call
	callsOf  map[key][]*call
	mails    map[key][]Event
	final    map[key]Event
	taken    []overwrite
	winners  map[pathKey]*update
	storms   map[int]map[string]bool // contacts with letters of a storm, by fault
	mixed    map[key]bool            // contacts with versions on some updates only

	faults  []fault
	breaks  []Event // crashes and lost ownerships
	owns    []Event // ownerships that began
	holds   []Event // that operators ordered
	calm    time.Time
	rest    time.Time
	on      Invariant
	verdict Verdict
}

type letter struct {
	n  int64 // the update
	at Event
}

// place is where an update stands in its contact's order.
type place struct {
	class   string
	seq     uint64
	placed  time.Time
	version *int64
}

// after says whether an update at p is newer than one at q: by version where both
// have one, else by place in the stream, across classes by the broker's time, live
// being the newer at one instant.
func (p place) after(q place) bool {
	if p.version != nil && q.version != nil && *p.version != *q.version {
		return *p.version > *q.version
	}
	if p.class == q.class {
		return p.seq > q.seq
	}
	if !p.placed.Equal(q.placed) {
		return p.placed.After(q.placed)
	}
	return p.class == "live"
}

type request struct {
	Event // its arrival
	key   key
	apply *Event
	reply *Event
}

func (r *request) fault() string {
	if r.reply == nil {
		return ""
	}
	return r.reply.Fault
}

// success says that the CRM took it, whether or not anybody heard.
func (r *request) success() bool { return r.apply != nil }

type call struct {
	Event
	key    key
	answer *Event
}

type fault struct {
	name, target, actor string
	from, to            time.Time
}

func newTrial(events []Event) *trial {
	Sort(events)
	t := &trial{
		events: events, updates: map[int64]*update{}, of: map[key][]*update{}, letters: map[uint64]letter{},
		byNumber: map[string]map[int]*request{}, writes: map[key][]*request{}, calls: map[string]*call{}, callsOf: map[key][]*call{},
		mails: map[key][]Event{}, final: map[key]Event{}, winners: map[pathKey]*update{}, mixed: map[key]bool{}, storms: map[int]map[string]bool{},
	}
	for i := range events {
		t.offered(&events[i])
	}
	for i := range events {
		t.take(&events[i])
	}
	for i := range events {
		t.settled(&events[i])
	}
	t.order = make([]*update, 0, len(t.updates))
	for _, n := range sortedBy(t.updates, func(n int64) int64 { return n }) {
		u := t.updates[n]
		t.order = append(t.order, u)
		t.of[u.key] = append(t.of[u.key], u)
		if (u.place.version == nil) != (t.of[u.key][0].place.version == nil) {
			t.mixed[u.key] = true
		}
		if u.in {
			t.stored++
		}
	}
	for _, w := range t.writes {
		slices.SortStableFunc(w, func(a, b *request) int { return a.apply.Order - b.apply.Order })
	}
	return t
}

// offered takes in the offers: what refers to them may be of the same instant.
func (t *trial) offered(e *Event) {
	if e.Kind == Offer && t.updates[e.Update] == nil {
		t.updates[e.Update] = &update{
			Event: *e, key: key{e.Target, e.Contact},
			place: place{class: e.Class, version: e.Version},
		}
	}
}

func (t *trial) take(e *Event) {
	k := key{e.Target, e.Contact}
	switch e.Kind {
	case World:
		if e.Rules != nil {
			t.rules = *e.Rules
		}
	case Stored:
		if u := t.updates[e.Update]; u != nil {
			u.in, u.place.seq = true, e.Seq
		}
	case Receive:
		t.received(e)
	case Call:
		c := &call{Event: *e, key: k}
		t.calls[e.Call] = c
		t.inOrder = append(t.inOrder, c)
		t.callsOf[k] = append(t.callsOf[k], c)
	case Answer:
		if c := t.calls[e.Call]; c != nil {
			c.answer = e
		}
	case Arrive, Apply, Reply:
		t.served(e, k)
	case Mail:
		t.mails[k] = append(t.mails[k], *e)
	case Fault:
		t.faults = append(t.faults, fault{name: e.Name, target: e.Target, actor: e.Actor, from: e.At})
	case Heal:
		t.healed(e)
	case Crash:
		t.breaks = append(t.breaks, *e)
	case Own:
		t.owns = append(t.owns, *e)
	case Free:
		if e.Lost {
			t.breaks = append(t.breaks, *e)
		}
	case Calm:
		t.calm = e.At
	case Rest:
		t.rest = e.At
	case Final:
		t.final[k] = *e
	case Act:
		t.acted(e, k)
	case Audit:
		if e.Name == ActHold {
			t.holds = append(t.holds, *e)
		}
	}
}

func (t *trial) received(e *Event) {
	u := t.updates[e.Update]
	if u == nil || e.Of != 0 {
		return // a redrive is as old as its original
	}
	u.in = true
	u.place.class, u.place.seq, u.place.placed = e.Class, e.Seq, e.Placed
}

func (t *trial) served(e *Event, k key) {
	of := t.byNumber[e.Target]
	if of == nil {
		of = map[int]*request{}
		t.byNumber[e.Target] = of
	}
	r := of[e.Request]
	if r == nil {
		r = &request{}
		of[e.Request] = r
		t.requests = append(t.requests, r)
	}
	switch e.Kind {
	case Arrive:
		r.Event, r.key = *e, k
	case Apply:
		r.apply = e
		t.writes[k] = append(t.writes[k], r)
	case Reply:
		r.reply = e
	}
}

func (t *trial) healed(e *Event) {
	for i := range t.faults {
		f := &t.faults[i]
		if f.name == e.Name && f.target == e.Target && f.actor == e.Actor && f.to.IsZero() {
			f.to = e.At
			return
		}
	}
}

// acted notes the acts that end updates without an outcome.
func (t *trial) acted(e *Event, k key) {
	if e.Name != ActForget {
		return
	}
	for _, u := range t.updates {
		if u.key == k && !u.At.After(e.At) {
			u.removed = true
		}
	}
}

// Names of acts that a judge must know.
const (
	ActForget  = "forget"
	ActRedrive = "redrive"
	ActDiscard = "discard"
	ActCancel  = "cancel"
	ActAccept  = "accept"
	ActHold    = "hold"
)

// settled sorts the outcomes by update and drive.
func (t *trial) settled(e *Event) {
	if e.Kind != Settle {
		return
	}
	u := t.updates[e.Update]
	if u == nil {
		return // I2 says so
	}
	u.in = true
	if u.place.seq == 0 && e.Of == 0 {
		u.place.seq, u.place.placed = e.Seq, e.Placed
	}
	if e.Force { // it counts as new
		u.place = place{class: e.Class, seq: e.Seq, placed: e.Placed}
	}
	i := slices.IndexFunc(u.drives, func(d *drive) bool { return d.of == e.Of })
	if i < 0 {
		i = len(u.drives)
		u.drives = append(u.drives, &drive{of: e.Of})
	}
	u.drives[i].settles = append(u.drives[i].settles, *e)
	if e.Outcome == "dead" && e.Letter != 0 {
		t.letters[e.Letter] = letter{n: e.Update, at: *e}
	}
}

// winner is the update whose value the path should hold at the end: the newest of
// those that count and write it; nil for none. It is worked out once.
func (t *trial) winner(k key, path string) *update {
	at := pathKey{k, path}
	w, known := t.winners[at]
	if known {
		return w
	}
	for _, u := range t.of[k] {
		if _, ok := u.Fields[path]; ok && u.counts() && (w == nil || u.place.after(w.place)) {
			w = u
		}
	}
	t.winners[at] = w
	return w
}

// newer is an update that counts, writes the path and is newer than u; nil for
// none.
func (t *trial) newer(u *update, path string) *update {
	if w := t.winner(u.key, path); w == nil || w != u && w.place.after(u.place) {
		return w
	}
	if !t.mixed[u.key] {
		return nil
	}
	// Versions and places together are no order: the newest of all may be newer
	// than some only.
	for _, v := range t.of[u.key] {
		if _, ok := v.Fields[path]; ok && v != u && v.counts() && v.place.after(u.place) {
			return v
		}
	}
	return nil
}

// broken is how often an ownership of the target ended in disorder from one
// instant to another. A crash of a process counts for every target.
func (t *trial) broken(target string, from, to time.Time) (n int) {
	for _, b := range t.breaks {
		if (b.Target == "" || b.Target == target) && !b.At.Before(from) && !b.At.After(to) {
			n++
		}
	}
	return n
}

// owners is how many ownerships of the target had begun by an instant.
func (t *trial) owners(target string, by time.Time) (n int) {
	for _, o := range t.owns {
		if o.Target == target && !o.At.After(by) {
			n++
		}
	}
	return n
}
