package worker

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"crmsync/contact"
	"crmsync/crm"
)

// TestPlans runs short plans of a few updates, answers and takeovers against the
// models. Where a promise breaks, rapid looks for the shortest plan that breaks
// it: what TestSimulation finds among thousands of steps can be read here.
func TestPlans(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		p := drawPlan(rt)
		var wrong []string
		synctest.Test(t, func(t *testing.T) { wrong = p.run(t) })
		if len(wrong) > 0 {
			rt.Fatalf("%s\n%s", p, strings.Join(wrong, "\n"))
		}
	})
}

// plan is what happens, step by step, and how the CRM answers, call by call.
type plan struct {
	steps   []planStep
	answers []string // of the calls in their order; fine after the last
	conc    int
	window  int
	reading time.Duration // what handing out an update takes
}

// planStep is one thing that happens, after a wait.
type planStep struct {
	after   time.Duration
	kind    string
	id      string
	class   contact.Class
	version int64 // 0: none
	fields  []string
}

var planSteps = []string{"publish", "publish", "publish", "publish", "crash", "end", "kill", "hold", "resume", "freeze"}

var planAnswers = map[string]fate{
	"fine":        fine,
	"500":         fails(contact.VerdictTransient, 500),
	"down":        {answer: crm.Answer{Verdict: contact.VerdictTransient, Incident: true}, latency: 50 * time.Millisecond},
	"refused":     {answer: crm.Answer{Verdict: contact.VerdictInvalid, Reason: contact.Invalid, Status: 409, Field: "a"}, latency: 50 * time.Millisecond},
	"throttled":   {answer: crm.Answer{Verdict: contact.VerdictThrottled, Status: 429, Wait: 7 * time.Second}, latency: 50 * time.Millisecond},
	"lost before": fails(contact.VerdictUnknown, 0),
	"lost after":  {answer: crm.Answer{Verdict: contact.VerdictUnknown}, apply: true, latency: 50 * time.Millisecond},
	"late":        {answer: crm.Answer{Verdict: contact.VerdictUnknown}, apply: true, late: 40 * time.Second, latency: 50 * time.Millisecond},
	"slow":        {answer: fine.answer, latency: 9 * time.Second},
	"read first":  {answer: fine.answer, latency: 50 * time.Millisecond, before: 50 * time.Millisecond, readFirst: true},
}

func drawPlan(t *rapid.T) *plan {
	names := []string{"fine"} // first: what a plan shrinks to
	for name := range planAnswers {
		if name != "fine" {
			names = append(names, name)
		}
	}
	slices.Sort(names[1:])
	p := &plan{conc: rapid.IntRange(1, 3).Draw(t, "calls at once"), window: rapid.SampledFrom([]int{0, 2, 5}).Draw(t, "window")}
	p.reading = rapid.SampledFrom([]time.Duration{0, 10 * time.Millisecond, 700 * time.Millisecond}).Draw(t, "reading")
	step := rapid.Custom(func(t *rapid.T) planStep {
		s := planStep{
			after: time.Duration(rapid.IntRange(0, 40).Draw(t, "after")) * 500 * time.Millisecond,
			kind:  rapid.SampledFrom(planSteps).Draw(t, "kind"),
		}
		if s.kind != "publish" {
			return s
		}
		s.id = rapid.SampledFrom([]string{"c1", "c2", "c7"}).Draw(t, "contact")
		s.class = contact.Class(rapid.IntRange(0, contact.Classes-1).Draw(t, "class"))
		if s.id == "c7" {
			s.version = rapid.Int64Range(1, 9).Draw(t, "version")
		}
		s.fields = rapid.SliceOfNDistinct(rapid.SampledFrom([]string{"a", "b", "addr.x", "addr.y"}), 1, 3, rapid.ID).Draw(t, "fields")
		if rapid.IntRange(0, 9).Draw(t, "bad") == 9 {
			s.fields[0] += "=bad"
		}
		return s
	})
	p.steps = rapid.SliceOfN(step, 1, 25).Draw(t, "steps")
	p.answers = rapid.SliceOfN(rapid.SampledFrom(names), 0, 25).Draw(t, "answers")
	return p
}

func (p *plan) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%d calls at once, window %d, handing out takes %s, answers %s\n", p.conc, p.window, p.reading, strings.Join(p.answers, ", "))
	for _, s := range p.steps {
		fmt.Fprintf(&b, "  after %-6s %-8s", s.after, s.kind)
		if s.kind == "publish" {
			fmt.Fprintf(&b, " %s %s %v", s.id, s.class, s.fields)
		}
		if s.version > 0 {
			fmt.Fprintf(&b, " version %d", s.version)
		}
		b.WriteString("\n")
	}
	return b.String()
}

// run does what the plan says, lets all end well, and lists what was wrong. It
// runs in a bubble.
func (p *plan) run(t *testing.T) []string {
	rec := &recorder{TB: t}
	w := newWorld(rec)
	w.o.Quota = Quota{Rate: 5, Burst: 2, Concurrency: p.conc}
	w.o.Window = p.window
	w.q.window, w.q.reading = w.o.withDefaults().Window, p.reading
	w.q.lease = time.Minute
	calls, refused := 0, 0
	w.m.plan = func(c *crmCall) fate {
		if calls++; calls > len(p.answers) {
			return fine
		}
		a := p.answers[calls-1]
		if a == "refused" {
			if refused++; !c.change.Repair || refused >= maxRefused {
				return fine // a value that is refused once and not another time is too odd
			}
		}
		return planAnswers[a]
	}
	// What a lane would put right it does not hand on.
	w.m.excused = func(o overwrite) bool {
		if !o.late || len(w.lanes) < 2 {
			return false
		}
		w.m.unsure[o.id+"."+o.path] = true
		return true
	}
	lane := w.start()
	for _, s := range p.steps {
		time.Sleep(s.after)
		lane = p.step(w, lane, s)
	}
	lane.l.Steer(t.Context(), Orders{Since: time.Now()})
	for end := time.Now().Add(24 * time.Hour); w.q.pending() > 0; time.Sleep(time.Minute) {
		if time.Now().After(end) {
			rec.Errorf("a day later %d updates are pending: %+v", w.q.pending(), lane.status())
			break
		}
	}
	time.Sleep(2 * DefaultLate)
	lane.end()
	w.killAll()
	synctest.Wait()
	w.m.check()
	p.outcomes(w, rec)
	return rec.lines()
}

func (p *plan) step(w *world, lane *running, s planStep) *running {
	switch s.kind {
	case "publish":
		u := contact.Update{Contact: contact.Key{Target: "shop", ID: s.id}, Class: s.class, Version: s.version, Versioned: s.version > 0}
		w.q.publishUpdate(u, s.fields...)
	case "hold":
		lane.l.Steer(w.t.Context(), Orders{Hold: true, Since: time.Now(), By: "plan"})
	case "resume":
		lane.l.Steer(w.t.Context(), Orders{Since: time.Now()})
	case "freeze":
		lane.s.freeze(30 * time.Second)
		time.Sleep(5 * time.Second)
		lane.s.thaw()
	case "crash", "end", "kill":
		if st, ok := lane.l.Status(w.t.Context()); ok {
			w.o.Memory = st.Memory
		}
		switch s.kind {
		case "crash":
			lane.s.lose()
			time.Sleep(time.Second)
			lane.stop()
			<-lane.done
		case "kill":
			lane.kill()
			<-lane.done
		default:
			lane.end()
		}
		w.o.Inherited = s.kind != "end"
		w.o.Spent = lane.l.Spent()
		return w.start()
	}
	return lane
}

// outcomes: each update has one, and is dead only for a reason that there was.
func (p *plan) outcomes(w *world, rec *recorder) {
	failing := 0
	for _, a := range p.answers {
		if v := planAnswers[a].answer.Verdict; v == contact.VerdictTransient || v == contact.VerdictUnknown {
			failing++
		}
	}
	for _, u := range w.q.byNumber {
		if u.ending == nil {
			rec.Errorf("update %d of %s has no outcome", u.n, u.update.Contact)
			continue
		}
		if u.ending.Outcome != contact.Dead {
			continue
		}
		bad := slices.ContainsFunc(slices.Collect(maps.Values(flat(u.update.Fields))), func(v string) bool { return strings.HasSuffix(v, "#bad") })
		exhausted := u.ending.Reason == contact.Exhausted && failing >= w.o.withDefaults().Retry.Attempts
		if (u.ending.Reason != contact.Invalid || !bad) && !exhausted {
			rec.Errorf("update %d of %s is dead: %s after %+v", u.n, u.update.Contact, u.ending.Reason, u.ending.Tries)
		}
	}
}

// recorder is a test that only takes down what is wrong: a plan that fails is tried
// again with less in it.
type recorder struct {
	testing.TB
	mu  sync.Mutex
	all []string
}

func (r *recorder) Errorf(format string, args ...any) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.all = append(r.all, fmt.Sprintf(format, args...))
}

func (r *recorder) Logf(format string, args ...any) { r.Errorf(format, args...) }

func (r *recorder) lines() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.all
}
