package worker

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"crmsync/contact"
)

var errLost = errors.New("the target has another owner")

// queueModel is what a queue promises a lane: two streams in order, outcomes
// and fences that last, one owner at a time. It checks what a lane promises in
// turn.
type queueModel struct {
	t testing.TB

	mu       sync.Mutex
	streams  [contact.Classes][]*stored
	contacts map[string]*storedContact
	byNumber []*stored // self-describing values name an index of it
	open     int       // without outcome
	settled  int       // settlements
	news     chan struct{}
	now      *session
	lease    time.Duration
	delay    time.Duration // what storing takes
	reading  time.Duration // what handing out an update takes
	down     bool          // nothing is stored, settlements wait
	room     func() bool   // for what is recalled; nil: there is
	recalls  int           // that were tried
	cut      int           // settlements that the end of an ownership cut off
	window   int           // of the lanes, where it is checked
}

// stored is one update in its stream.
type stored struct {
	n       int
	update  contact.Update
	fields  []string // as they were given
	again   *stored  // the update that repeats it
	mark    contact.Mark
	ending  *contact.Ending
	settled int      // ordinal of its settlement
	begun   *session // who noted that it was about to be sent
}

type storedContact struct {
	fence    contact.Fence
	all      []*stored
	out      [contact.Classes][]*stored // handed out to the present owner and not settled
	settling bool
}

func newQueueModel(t testing.TB) *queueModel {
	return &queueModel{t: t, contacts: map[string]*storedContact{}, news: make(chan struct{}), lease: time.Hour}
}

func (q *queueModel) contact(id string) *storedContact {
	c := q.contacts[id]
	if c == nil {
		c = &storedContact{}
		q.contacts[id] = c
	}
	return c
}

// publish stores an update. Each field's value is made to name the update:
// "name" and "name=suffix" are fields, "addr.city" is a member.
func (q *queueModel) publish(id string, class contact.Class, fields ...string) *stored {
	return q.publishUpdate(contact.Update{Contact: contact.Key{Target: "shop", ID: id}, Class: class}, fields...)
}

func (q *queueModel) publishVersion(id string, class contact.Class, version int64, fields ...string) *stored {
	return q.publishUpdate(contact.Update{
		Contact: contact.Key{Target: "shop", ID: id}, Class: class, Version: version, Versioned: true,
	}, fields...)
}

func (q *queueModel) publishUpdate(u contact.Update, fields ...string) *stored {
	q.mu.Lock()
	n := len(q.byNumber)
	q.mu.Unlock()
	doc, addr := map[string]any{}, map[string]any{}
	for _, f := range fields {
		name, suffix, _ := strings.Cut(f, "=")
		value := fmt.Sprintf("%s#%d#%s", u.Contact.ID, n, suffix)
		if member, ok := strings.CutPrefix(name, "addr."); ok {
			addr[member], doc["addr"] = value, addr
		} else {
			doc[name] = value
		}
	}
	if len(fields) == 0 {
		u.Bad = &contact.BadUpdate{Reason: contact.Malformed, Detail: "no fields"}
	}
	raw, _ := json.Marshal(doc)
	r := q.publishRaw(u, raw)
	r.fields = fields
	return r
}

func (q *queueModel) publishRaw(u contact.Update, raw []byte) *stored {
	q.mu.Lock()
	defer q.mu.Unlock()
	u.Fields, _ = contact.ParsePatch(raw)
	u.Raw = raw
	u.Seq, u.Stored = uint64(len(q.streams[u.Class])+1), time.Now()
	r := &stored{n: len(q.byNumber), update: u, mark: u.Mark()}
	q.byNumber = append(q.byNumber, r)
	q.streams[u.Class] = append(q.streams[u.Class], r)
	c := q.contact(u.Contact.ID)
	c.all = append(c.all, r)
	q.open++
	close(q.news)
	q.news = make(chan struct{})
	return r
}

// number reads the update's number out of a value.
func number(value string) int {
	p := strings.Split(value, "#")
	if len(p) != 3 {
		return -1
	}
	n, err := strconv.Atoi(p[1])
	if err != nil {
		return -1
	}
	return n
}

// recalled is how often letters were recalled.
func (q *queueModel) recalled() int {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.recalls
}

func (q *queueModel) pending() int {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.open
}

func (q *queueModel) mark(n int) contact.Mark {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.byNumber[n].mark
}

// outcome is how an update ended; Pending where it has not.
func (q *queueModel) outcome(r *stored) contact.Ending {
	q.mu.Lock()
	defer q.mu.Unlock()
	if r.ending == nil {
		return contact.Ending{}
	}
	return *r.ending
}

// outNow is how many updates of a class are handed out and not settled.
func (q *queueModel) outNow(class contact.Class) int {
	n := 0
	for _, c := range q.contacts {
		n += len(c.out[class])
	}
	return n
}

// session is one ownership of the target.
type session struct {
	q       *queueModel
	pos     [contact.Classes]int
	horizon [contact.Classes]int
	told    [contact.Classes]bool
	handed  [contact.Classes]int
	lost    chan struct{}
	frozen  time.Time // where set, the lease ends then
}

func (q *queueModel) claim() *session {
	q.mu.Lock()
	defer q.mu.Unlock()
	s := &session{q: q, lost: make(chan struct{})}
	for c := range s.horizon {
		s.horizon[c] = len(q.streams[c])
	}
	for _, c := range q.contacts {
		c.out = [contact.Classes][]*stored{}
		c.settling = false
	}
	q.now = s
	return s
}

// lose ends the ownership as a crash or a lapsed lease does.
func (s *session) lose() { close(s.lost) }

func (s *session) isLost() bool {
	select {
	case <-s.lost:
		return true
	default:
		return false
	}
}

func (s *session) Lease() time.Time {
	s.q.mu.Lock()
	defer s.q.mu.Unlock()
	if s.isLost() {
		return time.Now().Add(-time.Second)
	}
	if !s.frozen.IsZero() {
		return s.frozen
	}
	return time.Now().Add(s.q.lease)
}

// freeze stops the lease's renewal: it ends after d.
func (s *session) freeze(d time.Duration) {
	s.q.mu.Lock()
	s.frozen = time.Now().Add(d)
	s.q.mu.Unlock()
}

// handedOut is how many updates of a class were handed out in all.
func (s *session) handedOut(c contact.Class) int {
	s.q.mu.Lock()
	defer s.q.mu.Unlock()
	return s.handed[c]
}

func (s *session) thaw() {
	s.q.mu.Lock()
	s.frozen = time.Time{}
	s.q.mu.Unlock()
}

func (s *session) Next(ctx context.Context, c contact.Class) (contact.Delivery, error) {
	for {
		if s.isLost() {
			return contact.Delivery{}, errLost
		}
		if !pause(ctx, s.q.reading) {
			return contact.Delivery{}, ctx.Err()
		}
		d, news, ok := s.take(c)
		if ok {
			return d, nil
		}
		select {
		case <-news:
		case <-s.lost:
		case <-ctx.Done():
			return contact.Delivery{}, ctx.Err()
		}
	}
}

func (s *session) take(class contact.Class) (contact.Delivery, chan struct{}, bool) {
	q := s.q
	q.mu.Lock()
	defer q.mu.Unlock()
	for ; s.pos[class] < len(q.streams[class]); s.pos[class]++ {
		if s.pos[class] >= s.horizon[class] && !s.told[class] {
			break
		}
		r := q.streams[class][s.pos[class]]
		if r.ending != nil {
			continue
		}
		s.pos[class]++
		s.handed[class]++
		u := r.update
		u.Begun = r.begun != nil
		c := q.contact(u.Contact.ID)
		c.out[class] = append(c.out[class], r)
		return contact.Delivery{Update: &u}, nil, true
	}
	if !s.told[class] {
		s.told[class] = true
		return contact.Delivery{}, nil, true
	}
	return contact.Delivery{}, q.news, false
}

func (s *session) Fence(id string) contact.Fence {
	s.q.mu.Lock()
	defer s.q.mu.Unlock()
	return s.q.contact(id).fence.Clone()
}

func (s *session) Recall(ctx context.Context, letters []contact.Ref) ([]contact.Ref, error) {
	select {
	case <-time.After(time.Second):
	case <-ctx.Done():
		return nil, ctx.Err()
	case <-s.lost:
		return nil, errLost
	}
	s.q.mu.Lock()
	s.q.recalls++
	s.q.mu.Unlock()
	var left []contact.Ref
	for _, ref := range letters {
		if s.q.room != nil && !s.q.room() {
			left = append(left, ref)
			continue
		}
		s.q.mu.Lock()
		r := s.q.streams[ref.Class][ref.Seq-1]
		ok := r.update.Contact.ID == ref.ID && r.ending != nil && r.ending.Outcome == contact.Dead && r.again == nil
		s.q.mu.Unlock()
		if ok {
			u := contact.Update{
				Contact: r.update.Contact, Class: r.update.Class, RedriveOf: fmt.Sprint(r.n), Version: r.update.Version, Versioned: r.update.Versioned,
				Redrive: &contact.Redrive{Order: r.update.Place(), MaybeSent: r.ending.MaybeSent},
			}
			if r.fields == nil {
				r.again = s.q.publishRaw(u, r.update.Raw)
				continue
			}
			r.again = s.q.publishUpdate(u, r.fields...)
		}
	}
	return left, nil
}

func (s *session) Begin(ctx context.Context, u *contact.Update) (before bool, err error) {
	return s.note(ctx, u, func(r *stored) bool {
		if r.begun != nil && r.begun != s {
			return true
		}
		r.begun = s
		return false
	})
}

func (s *session) TakeBack(ctx context.Context, u *contact.Update) error {
	_, err := s.note(ctx, u, func(r *stored) bool {
		if r.begun == s {
			r.begun = nil
		}
		return false
	})
	return err
}

// note stores something about an update as Settle does.
func (s *session) note(ctx context.Context, u *contact.Update, f func(*stored) bool) (bool, error) {
	q := s.q
	for {
		q.mu.Lock()
		delay, down := q.delay, q.down
		q.mu.Unlock()
		if down {
			delay = time.Second
		}
		select {
		case <-time.After(max(delay, time.Nanosecond)):
		case <-s.lost:
			return false, errLost
		case <-ctx.Done():
			return false, ctx.Err()
		}
		q.mu.Lock()
		if !q.down {
			defer q.mu.Unlock()
			break
		}
		q.mu.Unlock()
	}
	if s.isLost() || q.now != s {
		return false, errLost
	}
	return f(q.streams[u.Class][u.Seq-1]), nil
}

func (s *session) Settle(ctx context.Context, st contact.Settlement) error {
	q := s.q
	q.mu.Lock()
	c := q.contact(st.Contact.ID)
	if c.settling && q.now == s {
		q.t.Errorf("%s: two settlements at once", st.Contact)
	}
	c.settling = true
	delay := q.delay
	q.mu.Unlock()
	for {
		select {
		case <-time.After(max(delay, time.Nanosecond)):
		case <-s.lost:
			q.mu.Lock()
			q.cut++
			q.mu.Unlock()
			return errLost
		case <-ctx.Done():
			return ctx.Err()
		}
		q.mu.Lock()
		if !q.down {
			defer q.mu.Unlock()
			break
		}
		delay = time.Second
		q.mu.Unlock()
	}
	if s.isLost() || q.now != s {
		return errLost
	}
	c.settling = false
	q.settled++
	for i := range st.Ended {
		q.settleOne(c, st, &st.Ended[i])
	}
	c.fence = st.Fence.Clone()
	return nil
}

// settleOne stores one ending, and checks that it is the first of its update
// and next in its class.
func (q *queueModel) settleOne(c *storedContact, st contact.Settlement, e *contact.Ended) {
	u := e.Update
	if u.Contact != st.Contact {
		q.t.Errorf("a settlement of %s ends an update of %s", st.Contact, u.Contact)
		return
	}
	out := c.out[u.Class]
	if len(out) == 0 || out[0].update.Seq != u.Seq {
		q.t.Errorf("%s %s %d: settled out of turn", st.Contact, u.Class, u.Seq)
		i := slices.IndexFunc(out, func(r *stored) bool { return r.update.Seq == u.Seq })
		if i < 0 {
			return
		}
		out[0], out[i] = out[i], out[0]
	}
	r := out[0]
	c.out[u.Class] = out[1:]
	if r.ending != nil {
		q.t.Errorf("%s %s %d: a second outcome %s after %s", st.Contact, u.Class, u.Seq, e.Ending.Outcome, r.ending.Outcome)
	}
	if e.Ending.Outcome == contact.Pending || (e.Ending.Outcome == contact.Dead) != (e.Ending.Reason != contact.NoReason) {
		q.t.Errorf("%s %s %d: outcome %s with reason %q", st.Contact, u.Class, u.Seq, e.Ending.Outcome, e.Ending.Reason)
	}
	ending := e.Ending
	r.ending, r.settled = &ending, q.settled
	q.open--
}
