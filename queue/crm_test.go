package queue

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"strconv"
	"sync"
	"testing"
	"time"

	"crmsync/contact"
)

var alice = Actor{By: "alice@host", Via: "cli"}

// crm is a CRM and a lane in one: it takes what a source hands out, one update
// after another, and holds what was applied.
type crm struct {
	// refuse says that an update is dead; nil refuses none.
	refuse func(*contact.Update) bool
	// before is called before an update is judged.
	before func(*contact.Update)

	mu      sync.Mutex
	holds   map[contact.Key]map[string]string // field to value
	applied int
	ended   int
	trail   []string // contact, field=value for each write
	last    map[string]*contact.Update
	stale   []string // writes over something newer
}

func newCRM() *crm {
	return &crm{holds: map[contact.Key]map[string]string{}, last: map[string]*contact.Update{}}
}

// work serves a source until it is lost or ctx ends.
func (c *crm) work(ctx context.Context, s *Source) {
	var wg sync.WaitGroup
	for class := range contact.Class(contact.Classes) {
		wg.Go(func() {
			for {
				d, err := s.Next(ctx, class)
				if err != nil {
					return
				}
				if d.Update == nil {
					continue
				}
				if c.one(ctx, s, d.Update) != nil {
					return // released or lost
				}
			}
		})
	}
	wg.Wait()
}

func (c *crm) one(ctx context.Context, s *Source, u *contact.Update) error {
	if c.before != nil {
		c.before(u)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	fence := s.Fence(u.Contact.ID)
	e := contact.Ending{Outcome: contact.Applied, Call: "call", Merged: 1, Status: 200, Attempts: 1, Ended: time.Now()}
	for _, f := range u.Fields {
		e.Fields = append(e.Fields, f.Name)
	}
	after := fence
	var wrote contact.Patch
	switch {
	case s.Cancelled(u):
		e.Outcome = contact.Cancelled
	case u.Bad != nil:
		e.Outcome, e.Reason, e.Detail = contact.Dead, u.Bad.Reason, u.Bad.Error()
	case c.refuse != nil && c.refuse(u):
		e.Outcome, e.Reason, e.Status, e.Field, e.Detail = contact.Dead, contact.Conflict, 422, "email", "taken by contact "+u.Contact.ID
	default:
		f := contact.Fold(contact.Rules{}, fence, []*contact.Update{u})
		after = f.Fence
		if !f.Used[0] {
			e.Outcome = contact.Superseded
			break
		}
		wrote = f.Fields
		c.write(u.Contact, wrote)
	}
	err := s.Settle(ctx, contact.Settlement{Contact: u.Contact, Ended: []contact.Ended{{Update: u, Ending: e}}, Fence: after.Clone()})
	if err == nil {
		c.ended++
		if e.Outcome == contact.Applied {
			c.recorded(u, wrote)
		}
	}
	return err
}

// recorded notes writes whose end is stored. What a former owner wrote and did
// not record may be written again out of turn: this lane knows no horizon.
func (c *crm) recorded(u *contact.Update, p contact.Patch) {
	for _, f := range p {
		at := u.Contact.ID + " " + f.Name
		if was := c.last[at]; was != nil && was.Mark() != u.Mark() && !u.Mark().After(was.Mark()) {
			c.stale = append(c.stale, fmt.Sprintf("%s: %+v over %+v", at, u.Mark(), was.Mark()))
		}
		c.last[at] = u
	}
}

func (c *crm) write(k contact.Key, p contact.Patch) {
	if c.holds[k] == nil {
		c.holds[k] = map[string]string{}
	}
	for _, f := range p {
		c.holds[k][f.Name] = string(f.Value)
		c.trail = append(c.trail, k.ID+" "+f.Name+"="+string(f.Value))
	}
	c.applied++
}

func (c *crm) get(target, id string) map[string]string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return maps.Clone(c.holds[contact.Key{Target: target, ID: id}])
}

// serve owns targets and has the CRM work.
func (c *crm) serve(t testing.TB, q *Queue, targets ...string) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- q.Own(ctx, plain(targets...), func(ctx context.Context, s *Source) { c.work(ctx, s) }) }()
	var once sync.Once
	stop = func() {
		once.Do(func() {
			cancel()
			select {
			case err := <-done:
				if err != nil && !errors.Is(err, context.Canceled) { // it had not begun
					t.Error(err)
				}
			case <-time.After(20 * time.Second):
				t.Error("Own did not return")
			}
		})
	}
	t.Cleanup(stop)
	return stop
}

// fields is an update that sets these fields.
func fields(target, id string, class contact.Class, body string) *contact.Update {
	u := contact.Decode([]byte(`{"fields":`+body+`}`), nil)
	if u.Bad != nil {
		panic(u.Bad)
	}
	u.Contact, u.Class = contact.Key{Target: target, ID: id}, class
	return u
}

// dead publishes updates and lets all of them die; it returns their letters.
func dead(t testing.TB, q *Queue, us ...*contact.Update) []Letter {
	t.Helper()
	publish(t, q, us...)
	c := newCRM()
	want := map[string]int{}
	for _, u := range us {
		want[fmt.Sprintf("%s %d", u.Contact, u.Seq)]++
	}
	c.refuse = func(*contact.Update) bool { return true }
	stop := c.serve(t, q, targetsOf(us)...)
	var out []Letter
	eventually(t, 20*time.Second, "all are dead", func() bool {
		c.mu.Lock()
		ended := c.ended
		c.mu.Unlock()
		if ended < len(us) {
			return false
		}
		out = out[:0]
		for _, l := range letters(t, q, Filter{}) {
			if want[fmt.Sprintf("%s/%s %d", l.Target, l.Contact, l.Updates[0].Seq)] > 0 {
				out = append(out, l)
			}
		}
		return len(out) == len(us)
	})
	stop()
	return out
}

func targetsOf(us []*contact.Update) []string {
	seen := map[string]bool{}
	var out []string
	for _, u := range us {
		if !seen[u.Contact.Target] {
			seen[u.Contact.Target] = true
			out = append(out, u.Contact.Target)
		}
	}
	return out
}

func letters(t testing.TB, q *Queue, f Filter) []Letter {
	t.Helper()
	var out []Letter
	if err := q.Letters(t.Context(), f, func(l Letter) error { out = append(out, l); return nil }); err != nil {
		t.Fatal(err)
	}
	return out
}

func ids(ls []Letter) []uint64 {
	var out []uint64
	for _, l := range ls {
		out = append(out, l.Seq)
	}
	return out
}

func redrive(t testing.TB, q *Queue, id uint64, o RedriveOptions) Redriven {
	t.Helper()
	o.Actor = alice
	r, err := q.Redrive(t.Context(), id, o)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// settled waits until no letter is in hand and nothing waits.
func settled(t testing.TB, q *Queue, targets ...string) {
	t.Helper()
	var left []string
	defer func() {
		if t.Failed() && len(left) > 0 {
			t.Log("left: ", left)
		}
	}()
	eventually(t, 3*tendEach, "nothing waits and no letter is in hand", func() bool {
		left = left[:0]
		for _, target := range targets {
			if err := q.claims(t.Context(), target, func(c *Claim) error { left = append(left, fmt.Sprintf("claim %+v", c)); return nil }); err != nil {
				t.Fatal(err)
			}
			for c := range contact.Class(contact.Classes) {
				info, err := q.info(t.Context(), streamName(target, c))
				if err != nil {
					t.Fatal(err)
				}
				if st := info.State; st.Msgs > 0 {
					left = append(left, fmt.Sprintf("%s %d to %d, %d", c, st.FirstSeq, st.LastSeq, st.Msgs))
				}
			}
		}
		return len(left) == 0
	})
}

// oldLetter stores the record of a dead letter whose update was stored then.
func oldLetter(t testing.TB, q *Queue, k contact.Key, stored time.Time, change func(*Record)) uint64 {
	t.Helper()
	r := &Record{
		Target: k.Target, Contact: k.ID, Outcome: contact.Dead, Reason: contact.Refused, Status: 422, Detail: "no",
		Updates: []Covered{{Class: contact.Live, Seq: 1, Stored: stored}}, Original: []byte(`{"fields":{"a":"old"}}`),
	}
	if change != nil {
		change(r)
	}
	m, err := encodeRecord(r)
	if err != nil {
		t.Fatal(err)
	}
	a, err := q.publish(t.Context(), m)
	if err != nil {
		t.Fatal(err)
	}
	return a.Seq
}

func audited(t testing.TB, q *Queue, f AuditFilter) []Entry {
	t.Helper()
	var out []Entry
	if err := q.AuditTrail(t.Context(), f, func(e Entry) error { out = append(out, e); return nil }); err != nil {
		t.Fatal(err)
	}
	return out
}

func quoted(s any) string {
	b, err := json.Marshal(s)
	if err != nil {
		panic(err)
	}
	return string(b)
}

func number(s string) uint64 {
	n, err := strconv.ParseUint(s, 10, 64)
	if err != nil {
		panic(err)
	}
	return n
}
