package queue

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"reflect"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"crmsync/contact"
)

func TestPublish(t *testing.T) {
	t.Parallel()
	q := setUp(t, "office")
	ctx := t.Context()
	u := update("office", "bob@x.io", contact.Bulk, 1)
	u.Job, u.Row, u.RedriveOf, u.TraceParent = "j 1", 12, "77", "00-abc-def-01"
	first, err := q.Publish(ctx, u)
	if err != nil || first.Seq != 1 || first.Duplicate {
		t.Fatalf("%+v, %v", first, err)
	}
	if again, err := q.Publish(ctx, u); err != nil || again.Seq != 1 || !again.Duplicate {
		t.Errorf("again: %+v, %v", again, err)
	}
	raw := &contact.Update{
		Contact: contact.Key{Target: "office", ID: "7"}, MsgID: "new", RedriveOf: "5", Raw: []byte(`{"data":{"fields":{"a":1}}}`),
		Header: map[string][]string{"ce-id": {"x"}, "Nats-Msg-Id": {"old"}, "nats-expected-stream": {"OTHER"}, "Crmsync-Job": {"old"}, "traceparent": {"old"}},
	}
	if _, err := q.Publish(ctx, raw); err != nil {
		t.Fatal(err)
	}
	s := own(t, q, "office").source(t)
	got := take(t, s, contact.Bulk, 1)[0]
	if got.Contact.ID != "bob@x.io" || got.Job != "j 1" || got.Row != 12 || got.RedriveOf != "77" || got.TraceParent != "00-abc-def-01" || got.MsgID != u.MsgID || got.Bad != nil || got.Stored.IsZero() {
		t.Errorf("bulk: %+v", got)
	}
	got = take(t, s, contact.Live, 1)[0]
	if string(got.Raw) != string(raw.Raw) || got.Header["ce-id"][0] != "x" || got.MsgID != "new" || got.Job != "" || got.TraceParent != "" || got.RedriveOf != "5" {
		t.Errorf("raw: %+v", got)
	}
	for name, bad := range map[string]func(u *contact.Update){
		"target":  func(u *contact.Update) { u.Contact.Target = "A" },
		"id":      func(u *contact.Update) { u.Contact.ID = "" },
		"header":  func(u *contact.Update) { u.Job = "a\r\nNats-Rollup: all" },
		"size":    func(u *contact.Update) { u.Fields, u.Raw = nil, make([]byte, contact.MaxBody+1) },
		"stream?": func(u *contact.Update) { u.Contact.Target = "nobody" },
	} {
		u := update("office", 1, contact.Live, 9)
		bad(u)
		if _, err := q.Publish(ctx, u); err == nil {
			t.Errorf("%s was taken", name)
		} else if (name == "stream?") != errors.Is(err, ErrNotSetUp) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// contents are the message ids in a stream, in order.
func contents(t *testing.T, q *Queue, stream string) []string {
	t.Helper()
	var out []string
	err := q.follow(t.Context(), stream, jetstream.ConsumerConfig{DeliverPolicy: jetstream.DeliverAllPolicy}, false, func(m inMsg) error {
		out = append(out, m.header.Get(contact.HeaderMsgID))
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func checkOrder(t *testing.T, q *Queue, stream string, want int) {
	t.Helper()
	got := contents(t, q, stream)
	if len(got) != want {
		t.Errorf("%d messages, want %d", len(got), want)
	}
	for i, id := range got {
		if !strings.HasSuffix(id, fmt.Sprintf("-%d", i)) {
			t.Fatalf("message %d is %s", i, id)
		}
	}
}

func TestBatch(t *testing.T) {
	t.Parallel()
	q := setUp(t, "office")
	ctx := t.Context()
	b := q.Batch("office", contact.Bulk)
	for i := range 8500 {
		if err := b.Add(ctx, update("office", i%13, contact.Bulk, i)); err != nil {
			t.Fatal(err)
		}
	}
	if s, d := b.Stored(); s < 4000 || s > 8000 || s%partSize != 0 || d != 0 { // the second part may be under way
		t.Errorf("before flush %d, %d", s, d)
	}
	if err := b.Close(ctx); err != nil {
		t.Fatal(err)
	}
	if s, d := b.Stored(); s != 8500 || d != 0 {
		t.Errorf("%d, %d", s, d)
	}
	checkOrder(t, q, "CRM_OFFICE_BULK", 8500)
	if err := b.Add(ctx, update("office", 1, contact.Bulk, 1)); !errors.Is(err, ErrClosed) {
		t.Errorf("add after close: %v", err)
	}

	// The same again, with new ones between and after, and one twice.
	b = q.Batch("office", contact.Bulk)
	for i := 8000; i < 8600; i++ {
		if err := b.Add(ctx, update("office", i%13, contact.Bulk, i)); err != nil {
			t.Fatal(err)
		}
	}
	if err := b.Add(ctx, update("office", 8599%13, contact.Bulk, 8599)); err != nil {
		t.Fatal(err)
	}
	if err := b.Flush(ctx); err != nil {
		t.Fatal(err)
	}
	if s, d := b.Stored(); s != 100 || d != 501 {
		t.Errorf("again: %d stored, %d duplicates", s, d)
	}
	checkOrder(t, q, "CRM_OFFICE_BULK", 8600)

	u := update("office", 1, contact.Bulk, 1)
	u.MsgID = ""
	if err := b.Add(ctx, u); err == nil {
		t.Error("no message id, and taken")
	}
	if err := b.Add(ctx, update("office", 1, contact.Live, 1)); err == nil {
		t.Error("another class, and taken")
	}
}

func TestBatchWaitsWhileFull(t *testing.T) {
	t.Parallel()
	q := open(t, testOptions(t, t.TempDir()))
	if _, err := q.js.CreateStream(t.Context(), jetstream.StreamConfig{
		Name: "CRM_OFFICE_BULK", Subjects: []string{"crm.update.office.bulk.*"}, MaxMsgs: 70, Discard: jetstream.DiscardNew, AllowAtomicPublish: true,
	}); err != nil {
		t.Fatal(err)
	}
	if err := q.Setup(t.Context(), []string{"office"}); err != nil {
		t.Fatal(err)
	}
	var told []error
	full := make(chan struct{}, 100)
	b := q.Batch("office", contact.Bulk, OnFull(func(err error) { told = append(told, err); full <- struct{}{} }))
	for i := range 99 {
		if err := b.Add(t.Context(), update("office", i, contact.Bulk, i)); err != nil {
			t.Fatal(err)
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
	defer cancel()
	if err := b.Flush(ctx); !errors.Is(err, ErrFull) || !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("flush into a full stream: %v", err)
	}
	if s, _ := b.Stored(); s < 60 || s > 70 {
		t.Errorf("%d stored while 70 have room", s)
	}
	if _, err := q.Publish(t.Context(), update("office", 1, contact.Bulk, 5000)); err != nil && !errors.Is(err, ErrFull) {
		t.Errorf("publish into a full stream: %v", err)
	}
	go func() {
		<-full
		_ = q.purge(context.Background(), "CRM_OFFICE_BULK", purgeRequest{Seq: 40})
	}()
	if err := b.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	if s, d := b.Stored(); s != 99 || d != 0 {
		t.Errorf("%d stored, %d duplicates", s, d)
	}
	if len(told) < 2 || !errors.Is(told[0], ErrFull) || told[len(told)-1] != nil {
		t.Errorf("told %v", told)
	}
}

// However often the connection fails, with and without losing the answer of a
// batch that was stored, each update is stored once and in order.
func TestBatchSurvivesTheConnection(t *testing.T) {
	t.Parallel()
	q := setUp(t, "office")
	l := &link{}
	p := peerOf(t, q, l)
	p.timeout = 150 * time.Millisecond
	var wg sync.WaitGroup
	wg.Go(func() {
		tick := time.NewTicker(5 * time.Millisecond)
		defer tick.Stop()
		for range 4 {
			for !p.nc.IsConnected() {
				<-tick.C
			}
			for range 4 { // a few batches come through
				<-tick.C
			}
			l.freeze() // answers are lost from here
			for range 8 {
				<-tick.C
			}
			l.sever()
			l.thaw()
			l.mend()
		}
	})
	b := p.Batch("office", contact.Live)
	const total = 8_000
	for i := range total {
		if err := b.Add(t.Context(), update("office", i%101, contact.Live, i)); err != nil {
			t.Fatal(err)
		}
	}
	if err := b.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	wg.Wait()
	checkOrder(t, q, "CRM_OFFICE_LIVE", total)
	if s, d := b.Stored(); s != total || d != 0 {
		t.Errorf("%d stored, %d duplicates", s, d)
	}
	if p.nc.Stats().Reconnects < 2 {
		t.Error("the connection was not disturbed")
	}
}

// The answer of a batch is lost and, before it can be asked for, everything was
// settled and purged and the message ids are forgotten: the records tell.
// What is stored aside when a batch is given up does not go on by itself, and is
// stored once when it is taken up.
func TestBatchInterrupted(t *testing.T) {
	q := setUp(t, "office")
	b := q.Batch("office", contact.Bulk)
	ctx, cancel := context.WithCancel(t.Context())
	add := func(ctx context.Context, from, to int) (err error) {
		for i := from; i < to && err == nil; i++ {
			err = b.Add(ctx, update("office", i%13, contact.Bulk, i))
		}
		return err
	}
	if err := add(ctx, 0, 1500); err != nil {
		t.Fatal(err)
	}
	cancel()
	for i := 1500; i < 3500; i++ { // Add says that it is over, and has taken each all the same
		if err := b.Add(ctx, update("office", i%13, contact.Bulk, i)); err != nil && !errors.Is(err, context.Canceled) {
			t.Fatal(err)
		}
	}
	if err := b.Flush(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("flushed with a context that has ended: %v", err)
	}
	if s, _ := b.Stored(); s > 1000 {
		t.Errorf("%d were stored after the end", s)
	}
	if err := b.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	if s, d := b.Stored(); s+d != 3500 {
		t.Errorf("stored %d, duplicates %d", s, d)
	}
	checkOrder(t, q, "CRM_OFFICE_BULK", 3500)
}

func TestBatchLearnsFromRecords(t *testing.T) {
	dir := t.TempDir()
	q := open(t, testOptions(t, dir))
	if err := q.Setup(t.Context(), []string{"office"}); err != nil {
		t.Fatal(err)
	}
	b := q.Batch("office", contact.Live)
	for i := range 3 {
		if err := b.Add(t.Context(), update("office", i, contact.Live, i)); err != nil {
			t.Fatal(err)
		}
	}
	info, err := q.info(t.Context(), "CRM_OFFICE_LIVE")
	if err != nil {
		t.Fatal(err)
	}
	b.last, b.known = info.State.LastSeq, true
	b.hand()
	msgs := b.next()
	if _, err := q.atomic(t.Context(), msgs); err != nil { // stored; its answer does not reach the batch
		t.Fatal(err)
	}
	if s := *b; true { // found late, by the server's refusal
		if n, err := s.oneByOne(t.Context(), msgs); err != nil || n != 3 || s.stored != 3 || s.duplicates != 0 || s.last != 3 {
			t.Errorf("%d, %v: stored %d, duplicates %d, last %d", n, err, s.stored, s.duplicates, s.last)
		}
	}
	l := own(t, q, "office")
	s := l.source(t)
	for _, u := range take(t, s, contact.Live, 3) {
		settle(t, s, contact.Applied, u)
	}
	l.end(t)
	n, err := b.learn(t.Context(), msgs, errors.New("lost"))
	if err != nil || n != 3 {
		t.Errorf("learned %d, %v", n, err)
	}
}

func TestBatchLargeBodies(t *testing.T) {
	t.Parallel()
	q := setUp(t, "office")
	b := q.Batch("office", contact.Live)
	big := strings.Repeat("x", 200<<10)
	for i := range 60 {
		u := update("office", i, contact.Live, i)
		u.Fields, u.Raw = nil, []byte(`{"fields":{"a":"`+big+`"}}`)
		if err := b.Add(t.Context(), u); err != nil {
			t.Fatal(err)
		}
	}
	if err := b.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	checkOrder(t, q, "CRM_OFFICE_LIVE", 60)
	// The largest dead letter can be stored and read.
	s := own(t, q, "office").source(t)
	u := take(t, s, contact.Live, 1)[0]
	settle(t, s, contact.Dead, u)
	got := allRecords(t, q, Filter{Outcome: contact.Dead})
	if len(got) != 1 || len(got[0].Original) != len(u.Raw) || got[0].Update().Bad != nil {
		t.Errorf("dead letter: %d", len(got))
	}
	if r, err := q.Record(t.Context(), got[0].Seq); err != nil || len(r.Original) != len(u.Raw) {
		t.Errorf("record: %v", err)
	}
}

// What a lane holds of an update's headers, and what its dead letter gets back.
func TestLean(t *testing.T) {
	own := map[string][]string{
		"Nats-Msg-Id": {"j:7"}, "Crmsync-Job": {"j"}, "Crmsync-Row": {"7"}, "traceparent": {"00-a-b-01"}, "Crmsync-Redrive-Of": {"3"},
	}
	with := func(more map[string][]string) map[string][]string {
		h := maps.Clone(own)
		maps.Copy(h, more)
		return h
	}
	for name, c := range map[string]struct {
		header map[string][]string
		kept   bool
	}{
		"own":            {own, false},
		"of a batch":     {with(map[string][]string{"Nats-Batch-Id": {"x"}, "Nats-Batch-Sequence": {"1"}, "Nats-Batch-Commit": {"1"}}), false},
		"foreign":        {with(map[string][]string{"X-Source": {"shop"}}), true},
		"another form":   {with(map[string][]string{"Crmsync-Row": {"07"}}), true},
		"twice":          {with(map[string][]string{"Crmsync-Job": {"j", "k"}}), true},
		"other spelling": {map[string][]string{"nats-msg-id": {"j:7"}}, true},
		"none":           {nil, false},
	} {
		u := contact.Decode([]byte(`{"fields":{"a":1}}`), c.header)
		lean(u)
		if (u.Header != nil) != c.kept {
			t.Errorf("%s: kept %v", name, u.Header)
		}
		if !c.kept && c.header != nil && !reflect.DeepEqual(ownHeaders(u), own) {
			t.Errorf("%s: got back %v", name, ownHeaders(u))
		}
	}
}

// The server is started again in the middle of batches: what is published in bulk is
// stored in its order, each once.
func TestBatchOverRestarts(t *testing.T) {
	t.Parallel()
	_, q := quietStore(t)
	p := peerOf(t, q, &link{})
	const n = 3000
	done := make(chan error, 1)
	restarted := make(chan struct{})
	go func() {
		b := p.Batch("office", contact.Bulk)
		for i := range n {
			if i == n/2 {
				<-restarted
			}
			if err := b.Add(t.Context(), update("office", i, contact.Bulk, i)); err != nil {
				done <- err
				return
			}
		}
		done <- b.Close(t.Context())
	}()
	k := q.keeper.Load()
	for r := 1; ; r++ {
		select {
		case err := <-done:
			if err != nil {
				t.Fatal(err)
			}
			t.Logf("%d restarts", k.health().Restarts)
			eventually(t, 30*time.Second, "it is ready", func() bool { return p.Ready(t.Context()) == nil })
			info, err := p.info(t.Context(), streamName("office", contact.Bulk))
			if err != nil || info.State.Msgs != n || info.State.LastSeq != n || k.health().Restarts == 0 {
				t.Errorf("%+v after %d restarts, %v", info, k.health().Restarts, err)
			}
			for i, u := range everything(t, own(t, p, "office").source(t)) {
				if u.Contact.ID != fmt.Sprint(i) {
					t.Fatalf("update %d is of contact %s", i, u.Contact.ID)
				}
			}
			return
		case <-time.After(time.Duration(20+r*7%60) * time.Millisecond):
			if !k.down() {
				k.fail("a test", false)
			}
			if r == 2 {
				close(restarted)
			}
		}
	}
}

// A server that could not keep the beginning of a batch, on a full disk or since it
// was started again, says so at its end: nothing is stored, and all of it is sent again.
func TestIncompleteBatchIsTriedAgain(t *testing.T) {
	q := setUp(t, "office")
	m, err := message(update("office", 1, contact.Bulk, 1))
	if err != nil {
		t.Fatal(err)
	}
	m.Header.Set(headerBatchID, "half")
	m.Header.Set(headerBatchSeq, "2")
	m.Header.Set(headerBatchCommit, "1")
	_, err = q.publish(t.Context(), m)
	if e := apiErrorOf(err); e.ErrCode != errBatchGone || !refused(err) || permanent(err) {
		t.Errorf("%v: refused %t, permanent %t", err, refused(err), permanent(err))
	}
}
