package app

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"

	"crmsync/contact"
	"crmsync/emulator"
	"crmsync/queue"
	"crmsync/worker"
)

// crowd is a shop in which the updates of n contacts have died because the
// contacts were not there; then all but one in a hundred were made. Values carry
// marks, #1# in the letters and more in whatever is newer, by which the emulator
// tells what went back.
type crowd struct {
	*house
	a    *App
	n    int
	mark int64 // of the last live update
}

const (
	crowdFirst = 1000 // the first contact whose update died
	bystanders = 100  // contacts that only live traffic writes to
)

// newCrowd also has newer updates applied: in every tenth contact to one field
// of two, in every twentieth to both.
func newCrowd(tb testing.TB, n int) (*crowd, func()) {
	tb.Helper()
	h := newHouse(tb, emulator.Options{}, emulator.Options{Contacts: bystanders}, "targets.shop.quota.rate=9000/s", "targets.shop.quota.concurrency=16")
	c := &crowd{house: h, a: h.open(), n: n, mark: 1000}
	stop := h.work(c.a)
	// That all these contacts are missing is no storm: it is what is wanted.
	missing := contact.Cause{Reason: contact.Missing, Status: 404}
	if _, err := c.a.Steer(tb.Context(), "shop", func(o *worker.Orders) { o.Accepted, o.AcceptedAt = missing.Fingerprint(), time.Now() }); err != nil {
		tb.Fatal(err)
	}
	c.publish(n, func(i int) string { return `{"fields":{"phone":"#1#","company":"#1#"}}` }, 1)
	h.settled(c.a)
	for i := range n {
		if i%100 != 99 {
			h.shop.Put(c.id(i), map[string]any{"email": "c" + c.id(i) + "@example.com", "type": "user", "firstname": "A", "lastname": "B"})
		}
	}
	c.publish(n, func(i int) string {
		switch {
		case i%20 == 0:
			return `{"fields":{"phone":"#2#","company":"#2#"}}`
		case i%10 == 0:
			return `{"fields":{"phone":"#2#"}}`
		}
		return ""
	}, 2)
	h.settled(c.a)
	return c, func() { stop(); c.a.Close() }
}

func (c *crowd) id(i int) string { return strconv.Itoa(crowdFirst + i) }

func (c *crowd) publish(n int, body func(i int) string, mark int) {
	c.t.Helper()
	var msgs []Message
	for i := range n {
		if b := body(i); b != "" {
			msgs = append(msgs, Message{Target: "shop", Contact: c.id(i), Class: contact.Live, Body: []byte(b), MsgID: fmt.Sprintf("%d-%d", i, mark)})
		}
	}
	if err := c.a.PublishAll(c.t.Context(), msgs); err != nil {
		c.t.Fatal(err)
	}
}

// traffic publishes live updates until ctx ends: a hundred a second to the
// bystanders, each with a mark of its own, and as many to contacts of the crowd.
// It returns when each of the former was published, by mark.
func (c *crowd) traffic(ctx context.Context) (map[int64]time.Time, error) {
	sent := map[int64]time.Time{}
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		c.mark++
		other := int(c.mark*7919) % c.n
		if other%100 == 99 { // there is no such contact
			other--
		}
		sent[c.mark] = time.Now()
		for id, fields := range map[string]string{strconv.FormatInt(1+c.mark%bystanders, 10): `"phone":"#%d#"`, c.id(other): `"company":"#%d#"`} {
			_, err := c.a.Publish(c.t.Context(), Message{Target: "shop", Contact: id, Body: fmt.Appendf(nil, `{"fields":{`+fields+`}}`, c.mark)})
			if err != nil {
				return sent, err
			}
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return sent, nil
		}
	}
}

// arrival is a live update that the CRM has answered.
type arrival struct {
	sent time.Time
	took time.Duration
}

// beside runs the traffic while f is at work, and says how long it took until the
// CRM had answered each of its updates.
func (c *crowd) beside(f func()) []arrival {
	ctx, stop := context.WithCancel(c.t.Context())
	before := len(c.shop.Ledger())
	var sent map[int64]time.Time
	var wg sync.WaitGroup
	wg.Go(func() {
		var err error
		if sent, err = c.traffic(ctx); err != nil {
			c.t.Error(err)
		}
	})
	f()
	stop()
	wg.Wait()
	c.settled(c.a)
	var took []arrival
	for _, e := range c.shop.LedgerSince(before) {
		id, _ := strconv.Atoi(e.Contact)
		for _, m := range e.Updates {
			if at, ok := sent[m]; ok && id <= bystanders && e.Operation == emulator.OpUpdate {
				took = append(took, arrival{at, e.Answered.Sub(at)})
				delete(sent, m)
			}
		}
	}
	return took
}

// check holds the ledger and the letters against what must be.
func (c *crowd) check(o Operation) {
	c.t.Helper()
	wrong, both := c.n/100, (c.n+19)/20
	if o.State != OperationDone || o.Sent != int64(c.n) || o.Ended[contact.Dead] != int64(wrong) || o.Unfinished() != 0 {
		c.t.Errorf("the operation: %s %s, %d sent, %v", o.State, o.Why, o.Sent, o.Ended)
	}
	// Traffic that came before a letter's turn may have made it superseded as well.
	if o.Ended[contact.Superseded] < int64(both) {
		c.t.Errorf("%d superseded, at least %d have nothing to write", o.Ended[contact.Superseded], both)
	}
	if v := emulator.Stale(c.shop.Ledger()); len(v) > 0 {
		c.t.Errorf("%d stale writes: %v", len(v), v[0])
	}
	left := c.letters(c.a, DeadFilter{Target: "shop", Reason: "missing"})
	for i := 99; i < c.n; i += 100 {
		l := left[c.id(i)]
		if l.ID == 0 || l.RedriveOf == "" && l.Seq == 0 {
			c.t.Errorf("contact %s has no letter", c.id(i))
		}
	}
	again := 0
	if err := c.a.Dead(c.t.Context(), DeadFilter{Target: "shop"}, func(l Letter) error {
		if l.RedriveOf != "" {
			again++
			if l.Root != l.RedriveOf || l.Class != "bulk" || l.State != "dead" {
				c.t.Errorf("letter %d: %+v", l.ID, l)
			}
			if old, _ := strconv.ParseUint(l.RedriveOf, 10, 64); old == 0 || old >= l.ID {
				c.t.Errorf("letter %d repeats %s", l.ID, l.RedriveOf)
			} else if _, err := c.a.Letter(c.t.Context(), old); err == nil {
				c.t.Errorf("letter %d stands beside letter %d, which repeated it", old, l.ID)
			}
		}
		return nil
	}); err != nil {
		c.t.Fatal(err)
	}
	if again != wrong {
		c.t.Errorf("%d letters are dead again, want %d", again, wrong)
	}
}

func TestRedriveBesideLiveTraffic(t *testing.T) {
	t.Parallel()
	const n = 200
	c, end := newCrowd(t, n)
	defer end()
	f, err := c.a.Foresee(t.Context(), Redrive{Filter: DeadFilter{Target: "shop"}})
	if err != nil || f.Total != int64(n) || f.Superseded != int64((n+19)/20) || f.Partly != int64(n/10-(n+19)/20) || f.Pace == nil || f.Pace.Owner == "" {
		t.Errorf("foreseen: %+v, %v", f, err)
	}
	var o Operation
	told := 0
	c.beside(func() {
		if o, err = c.a.StartRedrive(t.Context(), ann, Redrive{Filter: DeadFilter{Target: "shop"}, Canary: 5}); err != nil {
			t.Error(err)
			return
		}
		if o, err = c.a.RunRedrive(t.Context(), o.ID, func(Operation) { told++ }); err != nil {
			t.Error(err)
		}
	})
	if told == 0 {
		t.Error("no progress was told")
	}
	c.check(o)
	// The operation that has ended is listed and cannot be cancelled.
	list, err := c.a.Operations(t.Context())
	if err != nil || len(list) != 1 || list[0].ID != o.ID || list[0].By != "ann" {
		t.Errorf("%+v, %v", list, err)
	}
	if _, err := c.a.CancelRedrive(t.Context(), ann, o.ID); err == nil {
		t.Error("what has ended was cancelled")
	}
}

// What was interrupted goes on where it was, or is given up; then the letters
// that were not sent are dead as before.
func TestInterruptedRedrive(t *testing.T) {
	t.Parallel()
	c, end := newCrowd(t, 100)
	defer end()
	ctx, stop := context.WithCancel(t.Context())
	o, err := c.a.StartRedrive(ctx, ann, Redrive{Filter: DeadFilter{Target: "shop"}, Rate: 40})
	if err != nil {
		t.Fatal(err)
	}
	o, err = c.a.RunRedrive(ctx, o.ID, func(o Operation) {
		if o.Sent > 0 {
			stop()
		}
	})
	if err == nil || o.Sent == 0 || o.Sent == 100 {
		t.Fatalf("interrupted after %d: %v", o.Sent, err)
	}
	if o, err = c.a.CancelRedrive(t.Context(), ann, o.ID); err != nil || o.State != OperationCancelled {
		t.Fatalf("%+v, %v", o, err)
	}
	if o, err = c.a.RunRedrive(t.Context(), o.ID, nil); err != nil || o.State != OperationCancelled {
		t.Errorf("a cancelled one goes on: %+v, %v", o, err)
	}
	c.settled(c.a)
	if n := len(c.letters(c.a, DeadFilter{Target: "shop"})); n < 50 {
		t.Errorf("%d letters are left", n)
	}
	o, err = c.a.StartRedrive(t.Context(), ann, Redrive{Filter: DeadFilter{Target: "shop"}})
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop = context.WithCancel(t.Context())
	stop()
	if _, err := c.a.RunRedrive(ctx, o.ID, nil); err == nil {
		t.Error("it ran without a context")
	}
	bob := Who{By: "bob", Via: "cli"}
	if o, err = c.a.ContinueRedrive(t.Context(), bob, o.ID, nil); err != nil || o.State != OperationDone || o.By != "ann" || o.Acting == nil || o.Acting.By != "bob" {
		t.Errorf("continued: %+v, %v", o, err)
	}
	trail, err := c.a.Audit(t.Context(), AuditFilter{Action: "redrive-continue", Target: "shop"})
	if err != nil || len(trail) != 1 || trail[0].By != "bob" || trail[0].Via != "cli" || trail[0].Detail != "operation "+o.ID {
		t.Errorf("%+v, %v", trail, err)
	}
	w, err := c.a.Why(t.Context(), "shop", fmt.Sprint(crowdFirst+99))
	if err != nil || !slices.ContainsFunc(w.Events, func(e StoryEvent) bool {
		return e.Record != nil && e.Record.Redrive != nil && e.Record.Redrive.Operation == o.ID && e.Record.Redrive.By == "bob"
	}) {
		t.Errorf("nobody sent it in the name of who went on: %+v, %v", w.Events, err)
	}
	if o, err = c.a.ContinueRedrive(t.Context(), bob, o.ID, nil); err != nil || o.State != OperationDone {
		t.Errorf("continued again: %+v, %v", o, err)
	}
	if trail, err = c.a.Audit(t.Context(), AuditFilter{Action: "redrive-continue"}); err != nil || len(trail) != 1 {
		t.Errorf("what has ended is not continued: %+v, %v", trail, err)
	}
	if _, err := c.a.RunRedrive(t.Context(), "nonsense", nil); err == nil {
		t.Error("an operation that never was")
	}
}

// BenchmarkRedriveBesideLive compares how long live updates take until the CRM has
// answered, with and without a redrive of 2,500 letters, or CRMSYNC_BENCH_LETTERS,
// beside them: of a CRM that answers at once, where all that counts is our own, and
// of one that takes 50 ms, as one does that is reached over the internet. The redrive
// is paused and resumed by turns, since other work on the machine comes and goes.
func BenchmarkRedriveBesideLive(b *testing.B) {
	if testing.Short() {
		b.Skip("takes minutes")
	}
	n := 2500
	if letters, err := strconv.Atoi(os.Getenv("CRMSYNC_BENCH_LETTERS")); err == nil {
		n = letters
	}
	for _, crm := range []time.Duration{0, 50 * time.Millisecond} {
		b.Run("crm="+crm.String(), func(b *testing.B) {
			for b.Loop() {
				benchmarkRedriveBesideLive(b, n, crm)
			}
		})
	}
}

func benchmarkRedriveBesideLive(b *testing.B, n int, crm time.Duration) {
	c, end := newCrowd(b, n)
	defer end()
	if crm > 0 {
		c.shop.SetFaults(emulator.Faults{{Kind: emulator.Latency, Min: crm}})
	}
	var o Operation
	var alone, beside []time.Duration
	var turns []turn
	arrivals := c.beside(func() { o, turns = c.byTurns() })
	for _, a := range arrivals {
		for _, t := range turns {
			switch {
			case a.sent.Before(t.from) || !a.sent.Before(t.to):
			case t.redrives:
				beside = append(beside, a.took)
			default:
				alone = append(alone, a.took)
			}
		}
	}
	var running time.Duration
	for _, t := range turns {
		if t.redrives {
			running += t.to.Sub(t.from) + settling
		}
	}
	c.check(o)
	p50, p99 := quantile(0.5), quantile(0.99)
	b.ReportMetric(p50(alone), "ms-live-p50-alone")
	b.ReportMetric(p50(beside), "ms-live-p50-beside")
	b.ReportMetric(p99(alone), "ms-live-p99-alone")
	b.ReportMetric(p99(beside), "ms-live-p99-beside")
	b.ReportMetric(p99(beside)/p99(alone), "p99-ratio")
	b.ReportMetric(float64(o.Sent)/running.Seconds(), "letters/s")
	b.ReportMetric(float64(len(emulator.Stale(c.shop.Ledger()))), "stale")
}

// turn is a time in which a redrive was at work, or was not.
type turn struct {
	from, to time.Time
	redrives bool
}

// settling is how much of the beginning of a turn belongs to neither.
const settling = 500 * time.Millisecond

// byTurns redrives all there is, five seconds at a time with a rest behind each.
func (c *crowd) byTurns() (o Operation, turns []turn) {
	ctx := c.t.Context()
	o, err := c.a.StartRedrive(ctx, ann, Redrive{Filter: DeadFilter{Target: "shop"}})
	if err != nil {
		c.t.Error(err)
		return o, nil
	}
	id, done := o.ID, make(chan struct{})
	go func() {
		defer close(done)
		if o, err = c.a.RunRedrive(ctx, id, nil); err != nil {
			c.t.Error(err)
		}
	}()
	for redrives := true; ; redrives = !redrives {
		t := turn{from: time.Now().Add(settling), redrives: redrives}
		long := 5 * time.Second
		if !redrives {
			long = 2 * time.Second
		}
		over := false
		select {
		case <-done:
			over = true
		case <-time.After(long):
		}
		t.to = time.Now()
		turns = append(turns, t)
		if over {
			return o, turns
		}
		steer := c.a.q.ResumeRedrive
		if redrives {
			steer = c.a.q.PauseRedrive
		}
		if _, err := steer(ctx, c.a.actor(ann), id); err != nil && !errors.Is(err, queue.ErrOperationEnded) {
			c.t.Error(err)
		}
	}
}

// quantile is what a share of the times does not exceed, in milliseconds.
func quantile(share float64) func([]time.Duration) float64 {
	return func(d []time.Duration) float64 {
		if len(d) == 0 {
			return 0
		}
		slices.Sort(d)
		return float64(d[int(float64(len(d)-1)*share)].Microseconds()) / 1000
	}
}
