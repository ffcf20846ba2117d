package worker

import (
	"context"
	"encoding/json"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"crmsync/contact"
	"crmsync/crm"
)

// crmModel is a CRM: contacts with fields, and a plan of what goes wrong. It
// writes down every request and checks what a lane owes every CRM.
type crmModel struct {
	t testing.TB
	q *queueModel

	mu       sync.Mutex
	contacts map[string]*crmContact
	requests []time.Time // every one that arrived
	calls    []crmCall
	plan     func(c *crmCall) fate
	over     []overwrite
	excused  func(o overwrite) bool // nil: none is
	mails    map[int]int            // by update: how often its side effect happened
	lates    sync.WaitGroup         // changes that are still to take effect
	unsure   map[string]bool        // id.path: nobody can say what it holds at the end
}

type crmContact struct {
	fields  map[string]string // by path
	calling bool
	calls   int
}

type crmCall struct {
	at, end time.Time
	n       int // calls of this contact before this one
	change  contact.Change
	verdict contact.Verdict
	wait    time.Duration
	cut     bool // the second request was not allowed
}

// overwrite is an older value put over a newer one.
type overwrite struct {
	at       time.Time
	id, path string
	old, by  int
	late     bool
	mended   time.Time // when something at least as new as old was there again
}

// fate is what becomes of a call.
type fate struct {
	answer    crm.Answer    // where its verdict is a success, the change is judged by its values
	apply     bool          // the change takes effect whatever is answered
	late      time.Duration // and so long after that
	before    time.Duration
	latency   time.Duration
	readFirst bool // a second request, which waits for the quota
	panics    bool
}

var fine = fate{answer: crm.Answer{Verdict: contact.VerdictApplied, Status: 200, Wrote: true}, latency: 50 * time.Millisecond}

func newCRMModel(t testing.TB, q *queueModel) *crmModel {
	return &crmModel{t: t, q: q, contacts: map[string]*crmContact{}, mails: map[int]int{}, unsure: map[string]bool{}, plan: func(*crmCall) fate { return fine }}
}

// fails is a fate with a failing answer.
func fails(v contact.Verdict, status int) fate {
	f := fine
	f.answer = crm.Answer{Verdict: v, Status: status}
	return f
}

func (m *crmModel) Send(ctx context.Context, spend crm.Spend, changes []contact.Change) []crm.Answer {
	change := changes[0]
	m.mu.Lock()
	c := m.contacts[change.Contact.ID]
	if c == nil {
		c = &crmContact{fields: map[string]string{}}
		m.contacts[change.Contact.ID] = c
	}
	if c.calling {
		m.t.Errorf("%s: two calls at once", change.Contact)
	}
	c.calling = true
	call := crmCall{at: time.Now(), change: change, n: c.calls}
	c.calls++
	f := m.plan(&call)
	i := len(m.calls)
	m.calls = append(m.calls, call)
	m.requests = append(m.requests, call.at)
	m.mu.Unlock()
	if f.panics {
		defer m.finished(i, c, crm.Answer{})
		panic("a bug in the client")
	}
	a := m.carryOut(ctx, spend, c, change, f)
	m.finished(i, c, a)
	return []crm.Answer{a}
}

// mailsOf is how often an update's side effect happened.
func (m *crmModel) mailsOf(r *stored) int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.mails[r.n]
}

// change replaces the plan while lanes run.
func (m *crmModel) change(plan func(*crmCall) fate) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.plan = plan
}

const cutShort = "stopped before the write"

func (m *crmModel) finished(i int, c *crmContact, a crm.Answer) {
	m.mu.Lock()
	defer m.mu.Unlock()
	c.calling = false
	call := &m.calls[i]
	call.end, call.verdict, call.wait, call.cut = time.Now(), a.Verdict, a.Wait, a.Detail == cutShort
}

func (m *crmModel) carryOut(ctx context.Context, spend crm.Spend, c *crmContact, change contact.Change, f fate) crm.Answer {
	requests := 1
	if f.late > 0 {
		m.lates.Go(func() {
			time.Sleep(f.before + f.latency + f.late)
			m.mu.Lock()
			defer m.mu.Unlock()
			if a := m.judge(c, change, f.answer); a.Verdict == f.answer.Verdict {
				m.apply(change, true)
			}
		})
	}
	if !pause(ctx, f.before) {
		return crm.Answer{Verdict: contact.VerdictUnknown, Requests: requests}
	}
	if f.readFirst {
		if err := spend(ctx); err != nil {
			return crm.Answer{Verdict: contact.VerdictTransient, Detail: cutShort, Requests: requests}
		}
		m.mu.Lock()
		m.requests = append(m.requests, time.Now())
		m.mu.Unlock()
		requests++
	}
	if !pause(ctx, f.latency) {
		return crm.Answer{Verdict: contact.VerdictUnknown, Requests: requests}
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	a := f.answer
	if a.Verdict.Success() {
		a = m.judge(c, change, a)
	}
	if a.Verdict.Success() || f.apply && f.late == 0 && m.judge(c, change, a).Verdict == a.Verdict {
		m.apply(change, false)
	}
	a.Requests = requests
	return a
}

func pause(ctx context.Context, d time.Duration) bool {
	if d <= 0 {
		return true
	}
	select {
	case <-time.After(d):
		return true
	case <-ctx.Done():
		return false
	}
}

// judge says what this CRM thinks of the values themselves.
func (m *crmModel) judge(c *crmContact, change contact.Change, a crm.Answer) crm.Answer {
	same := true
	for path, v := range flat(change.Fields) {
		switch {
		case strings.HasSuffix(v, "#bad"):
			return crm.Answer{Verdict: contact.VerdictInvalid, Reason: contact.Invalid, Status: 422}
		case strings.HasSuffix(v, "#taken"):
			return crm.Answer{Verdict: contact.VerdictInvalid, Reason: contact.Conflict, Status: 409}
		case strings.HasSuffix(v, "#gone"):
			return crm.Answer{Verdict: contact.VerdictMissing, Reason: contact.Missing, Status: 404}
		}
		same = same && c.fields[path] == v
	}
	if same && a.Verdict.Success() {
		a.Verdict = contact.VerdictUnchanged
	}
	return a
}

func (m *crmModel) apply(change contact.Change, late bool) {
	c := m.contacts[change.Contact.ID]
	for path, v := range flat(change.Fields) {
		by := number(v)
		if path == "mail" {
			if !change.MaybeSent {
				m.mails[by]++
			}
			continue
		}
		if was, ok := c.fields[path]; ok && was != v {
			old := number(was)
			if m.q.mark(old).After(m.q.mark(by)) {
				m.over = append(m.over, overwrite{at: time.Now(), id: change.Contact.ID, path: path, old: old, by: by, late: late})
			}
		}
		for i := range m.over {
			if o := &m.over[i]; o.mended.IsZero() && o.id == change.Contact.ID && o.path == path && !m.q.mark(o.old).After(m.q.mark(by)) {
				o.mended = time.Now()
			}
		}
		c.fields[path] = v
	}
}

// flat is a patch by path.
func flat(p contact.Patch) map[string]string {
	out := map[string]string{}
	for _, f := range p {
		var s string
		if json.Unmarshal(f.Value, &s) == nil {
			out[f.Name] = s
			continue
		}
		var o map[string]string
		if json.Unmarshal(f.Value, &o) == nil {
			for k, v := range o {
				out[f.Name+"."+k] = v
			}
		}
	}
	return out
}

// field is what the CRM holds: the number of the update that wrote it, or -1.
func (m *crmModel) field(id, path string) int {
	m.mu.Lock()
	defer m.mu.Unlock()
	if c := m.contacts[id]; c != nil {
		if v, ok := c.fields[path]; ok {
			return number(v)
		}
	}
	return -1
}

func (m *crmModel) callsOf(id string) (out []crmCall) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, c := range m.calls {
		if id == "" || c.change.Contact.ID == id {
			out = append(out, c)
		}
	}
	return out
}

// check is what holds at the end of every test: no older value was put over a
// newer one, and each contact is as the newest update that counts left it.
func (m *crmModel) check() {
	m.lates.Wait()
	m.mu.Lock()
	defer m.mu.Unlock()
	m.q.mu.Lock()
	defer m.q.mu.Unlock()
	dead := func(n int) bool {
		e := m.q.byNumber[n].ending
		return e != nil && e.Outcome == contact.Dead
	}
	for _, o := range m.over {
		if !dead(o.old) && (m.excused == nil || !m.excused(o)) && !(o.late && !o.mended.IsZero()) {
			m.t.Errorf("%s.%s: update %d overwrote the newer %d at %s", o.id, o.path, o.by, o.old, o.at.Format(time.StampMilli))
			m.history(o)
		}
	}
	for _, id := range slices.Sorted(maps.Keys(m.q.contacts)) {
		m.checkContact(id, dead)
	}
}

// history prints what led to an older value over a newer one.
func (m *crmModel) history(o overwrite) {
	for _, n := range []int{o.old, o.by} {
		u := m.q.byNumber[n]
		m.t.Logf("  update %d: %s, version %v %d, stored %s, ended %+v", n, u.update.Class, u.update.Versioned, u.update.Version,
			u.update.Stored.Format(time.StampMilli), u.ending)
	}
	var last []crmCall
	for _, c := range m.calls {
		if c.change.Contact.ID == o.id && !c.at.After(o.at) {
			last = append(last, c)
		}
	}
	for _, c := range last[max(0, len(last)-16):] {
		m.t.Logf("  %s to %s: %v of %d updates: %s", c.at.Format(time.StampMilli), c.end.Format(time.StampMilli),
			flat(c.change.Fields), c.change.Updates, c.verdict)
	}
}

func (m *crmModel) checkContact(id string, dead func(int) bool) {
	want := map[string]*stored{}
	for _, r := range m.q.contacts[id].all {
		if r.ending == nil || r.ending.Outcome == contact.Dead || r.ending.Outcome == contact.Cancelled {
			continue
		}
		for path := range flat(r.update.Fields) {
			if w := want[path]; w == nil || r.mark.After(w.mark) {
				want[path] = r
			}
		}
	}
	for _, r := range m.q.contacts[id].all {
		if r.ending == nil {
			for path := range flat(r.update.Fields) {
				delete(want, path) // not over yet
			}
		}
	}
	delete(want, "mail")
	for path, w := range want {
		got := -1
		if c := m.contacts[id]; c != nil && c.fields[path] != "" {
			got = number(c.fields[path])
		}
		if got != w.n && (got < 0 || !dead(got)) && !m.unsure[id+"."+path] {
			m.t.Errorf("%s.%s: the CRM holds update %d, but %d (%s) is the newest that counts", id, path, got, w.n, w.ending.Outcome)
		}
	}
}

// senderFunc is a CRM client that answers without looking.
type senderFunc func() []crm.Answer

func (f senderFunc) Send(context.Context, crm.Spend, []contact.Change) []crm.Answer { return f() }
