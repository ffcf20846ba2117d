package deploy

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/rs/zerolog"

	"crmsync/contact"
	"crmsync/queue"
)

// guarded is a NATS server with the users of nats/permissions.conf.
type guarded struct {
	url string

	mu  sync.Mutex
	log bytes.Buffer // what our users are refused
}

// Write takes what our packages log.
func (g *guarded) Write(b []byte) (int, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.log.Write(b)
}

func newGuarded(t *testing.T) *guarded {
	t.Helper()
	for _, role := range []string{"WORKER", "OPERATOR", "PUBLISHER"} {
		t.Setenv("CRMSYNC_"+role+"_PASSWORD", strings.ToLower(role)+"-secret")
	}
	dir := t.TempDir()
	file, err := filepath.Abs("nats/permissions.conf")
	if err != nil {
		t.Fatal(err)
	}
	included, err := filepath.Rel(dir, file)
	if err != nil {
		t.Fatal(err)
	}
	conf := filepath.Join(dir, "nats.conf")
	text := fmt.Sprintf("listen: 127.0.0.1:-1\njetstream { store_dir: %q, sync_interval: always }\ninclude %q\n", filepath.Join(dir, "store"), included)
	if err := os.WriteFile(conf, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	o, err := server.ProcessConfigFile(conf)
	if err != nil {
		t.Fatal(err)
	}
	o.NoLog, o.NoSigs = true, true
	s, err := server.NewServer(o)
	if err != nil {
		t.Fatal(err)
	}
	s.Start()
	t.Cleanup(func() { s.Shutdown(); s.WaitForShutdown() })
	if !s.ReadyForConnections(10 * time.Second) {
		t.Fatal("the server does not start")
	}
	return &guarded{url: s.ClientURL()}
}

// as opens the queue as one of the users.
func (g *guarded) as(t *testing.T, role string) *queue.Queue {
	t.Helper()
	q, err := queue.Open(t.Context(), queue.Options{
		URL: g.url, User: role, Password: role + "-secret", InboxPrefix: "_INBOX_" + role, Timeout: 3 * time.Second, Lease: time.Minute, Log: zerolog.New(g),
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = q.Close() })
	return q
}

// clean says that nobody was refused anything.
func (g *guarded) clean(t *testing.T, who string) {
	t.Helper()
	g.mu.Lock()
	defer g.mu.Unlock()
	if s := g.log.String(); strings.Contains(s, "Permissions Violation") {
		t.Errorf("%s was refused: %s", who, s)
	}
}

// Each user can do its work. The contacts that begin with "bad" are refused by the
// CRM until they are mended.
func TestUsersCanDoTheirWork(t *testing.T) {
	g := newGuarded(t)
	w := g.as(t, "worker")
	ctx := t.Context()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	// One stream was made by hand, and is corrected.
	made, err := nats.Connect(g.url, nats.UserInfo("worker", "worker-secret"), nats.CustomInboxPrefix("_INBOX_worker"))
	must(err)
	defer made.Close()
	config := `{"name":"CRM_OFFICE_BULK","subjects":["crm.update.office.bulk.*"],"storage":"file","retention":"limits","discard":"new"}`
	_, err = made.Request("$JS.API.STREAM.CREATE.CRM_OFFICE_BULK", []byte(config), 3*time.Second)
	must(err)
	must(w.Setup(ctx, []string{"office"}))
	must(w.Ready(ctx))
	l := newLane(t, w)

	// A publisher is any client: no prefix, no flag.
	pub, err := nats.Connect(g.url, nats.UserInfo("publisher", "publisher-secret"))
	must(err)
	defer pub.Close()
	for _, id := range []string{"1", "bad1", "bad2", "bad3", "bad4", "bad5", "bad6", "bad7"} {
		m, err := pub.Request(contact.Subject(contact.Key{Target: "office", ID: id}, contact.Live), []byte(`{"fields":{"title":"Boss"}}`), 3*time.Second)
		must(err)
		if !strings.Contains(string(m.Data), `"seq"`) {
			t.Fatalf("the publisher is answered %s", m.Data)
		}
	}
	l.settled(t, 8)
	if err := pub.LastError(); err != nil {
		t.Error(err)
	}
	g.clean(t, "the worker or the publisher")

	q := g.as(t, "operator")
	who := queue.Actor{By: "ann", Via: "cli"}
	must(q.Ready(ctx))
	letters := map[string]uint64{}
	must(q.Letters(ctx, queue.Filter{Target: "office"}, func(l queue.Letter) error { letters[l.Contact] = l.Seq; return nil }))
	if len(letters) != 7 {
		t.Fatalf("letters %v", letters)
	}
	_, err = q.Groups(ctx, queue.Filter{})
	must(err)
	stats, err := q.Stats(ctx)
	if err != nil || len(stats) != 1 || stats[0].Session == "" {
		t.Fatalf("%+v %v", stats, err)
	}
	_, err = q.Sessions(ctx)
	must(err)
	must(q.Put(ctx, queue.KeyDesired+"office", map[string]bool{"hold": true}))
	answer, ok, err := q.Ask(ctx, "office", []byte("?"))
	if err != nil || !ok || string(answer) != "!" {
		t.Fatalf("asked: %q %v %v", answer, ok, err)
	}
	if _, ok, err := q.Health(ctx); err != nil || !ok {
		t.Fatalf("how the store is: %v %v", ok, err)
	}
	op1, err := nats.Connect(g.url, nats.UserInfo("operator", "operator-secret"), nats.CustomInboxPrefix("_INBOX_operator"))
	must(err)
	defer op1.Close()
	m, err := op1.Request("crm.store.accept.peer", []byte("[]"), 3*time.Second)
	if err != nil || string(m.Data) != "{}" {
		t.Fatalf("what is missing is accepted: %v %v", m, err)
	}
	l.mend()
	_, err = q.EditLetter(ctx, letters["bad1"], who, []byte(`{"fields":{"title":"Chief"}}`), 0, nil)
	must(err)
	_, err = q.Redrive(ctx, letters["bad1"], queue.RedriveOptions{Actor: who})
	must(err)
	must(q.Discard(ctx, letters["bad2"], who, "not wanted"))
	receipt, err := q.Forget(ctx, who, contact.Key{Target: "office", ID: "bad3"})
	if err != nil || receipt.Letters != 1 {
		t.Fatalf("%+v %v", receipt, err)
	}
	// The worker's console does such things as well.
	_, err = w.Stats(ctx)
	must(err)
	_, err = w.Redrive(ctx, letters["bad6"], queue.RedriveOptions{Actor: who})
	must(err)
	_, err = w.Forget(ctx, who, contact.Key{Target: "office", ID: "bad7"})
	must(err)
	if _, ok, err = w.Ask(ctx, "office", []byte("?")); err != nil || !ok {
		t.Fatalf("asked by the worker: %v %v", ok, err)
	}
	op, err := q.StartRedrive(ctx, who, queue.RedrivePlan{Filter: queue.Filter{Target: "office"}, Rate: 1000})
	must(err)
	if op, err = q.RunRedrive(ctx, op.ID, nil, nil); err != nil || op.State != queue.OperationDone || op.Sent < 2 {
		t.Fatalf("%+v %v", op, err)
	}
	b := q.Batch("office", contact.Bulk)
	for i := range 30 {
		u := contact.Decode([]byte(`{"fields":{"title":"Row"}}`), nil)
		u.Contact, u.Class, u.Job, u.Row, u.MsgID = contact.Key{Target: "office", ID: fmt.Sprint(100 + i)}, contact.Bulk, "import", int64(i+1), fmt.Sprint("import-", i+1)
		must(b.Add(ctx, u))
	}
	must(b.Flush(ctx))
	l.settled(t, 8+4+30)
	_, err = q.Story(ctx, contact.Key{Target: "office", ID: "bad1"})
	must(err)
	entries := 0
	must(q.AuditTrail(ctx, queue.AuditFilter{}, func(queue.Entry) error { entries++; return nil }))
	if entries < 4 {
		t.Errorf("%d entries in the audit trail", entries)
	}
	n, err := q.Count(ctx, queue.Filter{Target: "office", Outcome: contact.Dead})
	if err != nil || n != 0 {
		t.Errorf("%d letters are left, %v", n, err)
	}
	l.stop(t)
	g.clean(t, "the worker or the operator")
}

// lane settles all that comes.
type lane struct {
	cancel context.CancelFunc
	done   chan error

	mu     sync.Mutex
	n      int
	mended bool
}

func newLane(t *testing.T, q *queue.Queue) *lane {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	l := &lane{cancel: cancel, done: make(chan error, 2)}
	t.Cleanup(cancel)
	go func() {
		l.done <- q.Answer(ctx, "office", func(context.Context, []byte) []byte { return []byte("!") })
	}()
	go func() {
		l.done <- q.Own(ctx, queue.OwnOptions{Targets: []queue.Target{{Name: "office"}}}, func(ctx context.Context, s *queue.Source) {
			var wg sync.WaitGroup
			for class := range contact.Class(contact.Classes) {
				wg.Go(func() {
					for {
						d, err := s.Next(ctx, class)
						if err != nil || d.Update != nil && s.Settle(ctx, l.judge(d.Update)) != nil {
							return
						}
					}
				})
			}
			wg.Wait()
		})
	}()
	return l
}

func (l *lane) judge(u *contact.Update) contact.Settlement {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.n++
	e := contact.Ending{Outcome: contact.Applied, Call: "c", Status: 200, Merged: 1, Fields: []string{"title"}, Ended: time.Now()}
	if strings.HasPrefix(u.Contact.ID, "bad") && !l.mended {
		e.Outcome, e.Reason, e.Status = contact.Dead, contact.Refused, 422
	}
	return contact.Settlement{Contact: u.Contact, Ended: []contact.Ended{{Update: u, Ending: e}}, Fence: contact.Fence{}}
}

func (l *lane) mend() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.mended = true
}

// settled waits until so many updates were judged.
func (l *lane) settled(t *testing.T, n int) {
	t.Helper()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for end := time.Now().Add(20 * time.Second); ; <-tick.C {
		l.mu.Lock()
		got := l.n
		l.mu.Unlock()
		if got >= n {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("%d updates of %d", got, n)
		}
	}
}

func (l *lane) stop(t *testing.T) {
	t.Helper()
	l.cancel()
	for range 2 {
		if err := <-l.done; err != nil {
			t.Error(err)
		}
	}
}

// And nobody can do another's.
func TestUsersCannotDoMore(t *testing.T) {
	g := newGuarded(t)
	if err := g.as(t, "worker").Setup(t.Context(), []string{"office"}); err != nil {
		t.Fatal(err)
	}
	api := "$JS.API."
	for role, c := range map[string]struct{ publish, subscribe []string }{
		"publisher": {
			publish: []string{
				"crm.outcome.office.7.applied.-", "crm.outcome.office.7.discarded.-", "crm.audit.office.hold", "crm.ask.office", "crm.forget.office", "crm.store.accept.peer",
				"$KV.crm_state.desired.office", "$KV.crm_letters.edit.office.7.1", "$KV.crm_owners.own.office",
				api + "INFO", api + "STREAM.NAMES", api + "STREAM.INFO.CRM_OUTCOMES", api + "STREAM.MSG.GET.CRM_OUTCOMES", api + "STREAM.PURGE.CRM_OFFICE_LIVE",
				api + "CONSUMER.CREATE.CRM_OUTCOMES.x", api + "DIRECT.GET.CRM_OUTCOMES", "$SYS.REQ.SERVER.PING", "anything",
			},
			subscribe: []string{"crm.update.>", "crm.outcome.>", "crm.audit.>", "crm.ask.office", "_INBOX_worker.>", "_INBOX_operator.>", "$KV.>", ">"},
		},
		"operator": {
			publish: []string{
				api + "INFO", api + "STREAM.NAMES", "crm.outcome.office.7.applied.-", "crm.outcome.office.7.dead.-", "$KV.crm_owners.own.office", "$KV.crm_sessions.me",
				api + "STREAM.CREATE.MINE", api + "STREAM.UPDATE.CRM_OFFICE_LIVE", api + "STREAM.DELETE.CRM_OUTCOMES", api + "STREAM.PURGE.CRM_OFFICE_LIVE",
				api + "STREAM.PURGE.CRM_OUTCOMES", api + "STREAM.MSG.DELETE.CRM_AUDIT", api + "STREAM.SNAPSHOT.CRM_OUTCOMES", "$SYS.REQ.SERVER.PING", "anything",
			},
			subscribe: []string{"crm.update.>", "crm.ask.office", "crm.forget.office", "crm.store.peer", "crm.store.accept.peer", "_INBOX.>", "_INBOX_worker.>", "$KV.>", ">"},
		},
		"worker": {
			publish: []string{
				api + "STREAM.DELETE.CRM_OUTCOMES", api + "STREAM.PURGE.CRM_OUTCOMES", api + "STREAM.PURGE.CRM_AUDIT", api + "STREAM.MSG.DELETE.CRM_AUDIT",
				api + "STREAM.SNAPSHOT.CRM_OUTCOMES", api + "STREAM.RESTORE.CRM_OUTCOMES", "$SYS.REQ.SERVER.PING", "anything",
			},
			subscribe: []string{"crm.update.>", "_INBOX.>", "_INBOX_operator.>", "$KV.>", ">"},
		},
	} {
		t.Run(role, func(t *testing.T) {
			for _, s := range c.publish {
				if err := g.tries(t, role, func(nc *nats.Conn) error { return nc.Publish(s, nil) }); err == nil || !strings.Contains(err.Error(), "Permissions Violation for Publish to \""+s) {
					t.Errorf("it can publish to %s: %v", s, err)
				}
			}
			for _, s := range c.subscribe {
				if err := g.tries(t, role, func(nc *nats.Conn) error { _, err := nc.SubscribeSync(s); return err }); err == nil || !strings.Contains(err.Error(), "Permissions Violation for Subscription to \""+s) {
					t.Errorf("it can listen to %s: %v", s, err)
				}
			}
		})
	}
	for _, o := range []nats.Option{nats.UserInfo("worker", "guess"), nats.UserInfo("nobody", ""), nats.Name("no user")} {
		if nc, err := nats.Connect(g.url, o); err == nil {
			nc.Close()
			t.Error("somebody is let in without a password")
		}
	}
}

// tries does something as a plain client and says what the server says.
func (g *guarded) tries(t *testing.T, role string, f func(*nats.Conn) error) error {
	t.Helper()
	nc, err := nats.Connect(g.url, nats.UserInfo(role, role+"-secret"), nats.NoReconnect(), nats.ErrorHandler(func(*nats.Conn, *nats.Subscription, error) {}))
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	if err := f(nc); err != nil {
		return err
	}
	if err := nc.FlushTimeout(3 * time.Second); err != nil {
		return err
	}
	return nc.LastError()
}

// Without its passwords a server with these users does not start.
func TestUsersHavePasswords(t *testing.T) {
	t.Setenv("CRMSYNC_WORKER_PASSWORD", "")
	if err := os.Unsetenv("CRMSYNC_WORKER_PASSWORD"); err != nil {
		t.Fatal(err)
	}
	if _, err := server.ProcessConfigFile("nats/permissions.conf"); err == nil || !strings.Contains(err.Error(), "CRMSYNC_WORKER_PASSWORD") {
		t.Errorf("%v", err)
	}
}
