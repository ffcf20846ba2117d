package app

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/rs/zerolog"
	"go.uber.org/goleak"

	"crmsync/config"
	"crmsync/contact"
	"crmsync/emulator"
	"crmsync/worker"
)

var ann = Who{By: "ann", Via: "cli"}

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// house is both emulated CRMs and a configuration that points at them.
type house struct {
	t      testing.TB
	dir    string
	office *emulator.CRM
	shop   *emulator.CRM
	cfg    *config.Config
}

func newHouse(t testing.TB, office, shop emulator.Options, set ...string) *house {
	t.Helper()
	h := &house{t: t, dir: t.TempDir(), office: emulator.NewPerfex(office), shop: emulator.NewEvance(shop)}
	urls := map[string]string{}
	for name, c := range map[string]*emulator.CRM{"office": h.office, "shop": h.shop} {
		srv := httptest.NewServer(c)
		t.Cleanup(func() { c.Close(); srv.Close() })
		urls[name] = srv.URL
	}
	h.write("perfex.token", emulator.DefaultToken)
	cred, err := json.Marshal(map[string]string{
		"account": emulator.DefaultAccount, "client_id": emulator.DefaultClientID,
		"private_key": emulator.DefaultPrivateKey, "algorithm": "HS256",
	})
	if err != nil {
		t.Fatal(err)
	}
	h.write("evance.json", string(cred))
	yaml := fmt.Sprintf(`
data: %s
http: {listen: off}
targets:
  office:
    kind: perfex
    url: %s
    token_file: perfex.token
    permissions: [1, 2]
    timeout: 2s
    quota: {rate: 2000/s, burst: 100, concurrency: 8}
    retry: {attempts: 4, base: 50ms, max: 200ms}
  shop:
    kind: evance
    url: %s
    credentials_file: evance.json
    timeout: 2s
    quota: {rate: 2000/s, burst: 100, concurrency: 8}
    retry: {attempts: 4, base: 50ms, max: 200ms}
`, filepath.Join(h.dir, "data"), urls["office"], urls["shop"])
	path := h.write("crmsync.yaml", yaml)
	if h.cfg, err = LoadConfig(path, nil, set); err != nil {
		t.Fatal(err)
	}
	return h
}

func (h *house) write(name, text string) string {
	h.t.Helper()
	path := filepath.Join(h.dir, name)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		h.t.Fatal(err)
	}
	return path
}

// open starts the queue in this process.
func (h *house) open() *App {
	h.t.Helper()
	a, err := Open(h.t.Context(), h.cfg, Options{Version: "test", Host: true, Port: AnyPort, Log: zerolog.New(zerolog.NewTestWriter(h.t)).Level(zerolog.WarnLevel)})
	if err != nil {
		h.t.Fatal(err)
	}
	if err := a.Setup(h.t.Context()); err != nil {
		h.t.Fatal(err)
	}
	return a
}

// work runs a's lanes until the returned function is called.
func (h *house) work(a *App) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- a.Work(ctx, context.Background()) }()
	return func() {
		cancel()
		if err := <-done; err != nil {
			h.t.Errorf("work: %v", err)
		}
	}
}

// settled waits until nothing is queued any more, and says how things are.
func (h *house) settled(a *App) Status {
	h.t.Helper()
	ctx, cancel := context.WithTimeout(h.t.Context(), time.Minute)
	defer cancel()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		st, err := a.Status(ctx)
		if err != nil {
			h.t.Fatal(err)
		}
		left := int64(0)
		for _, t := range st.Targets {
			left += t.Queue["live"].Waiting + t.Queue["bulk"].Waiting
		}
		if left == 0 {
			return st
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			b, _ := json.MarshalIndent(st, "", " ")
			h.t.Fatalf("not settled: %s", b)
		}
	}
}

// obeyed waits until the target's lane has been told to hold.
func (h *house) obeyed(a *App, target string) {
	h.t.Helper()
	for obeys := false; !obeys; {
		s, ok := a.lane(target).Status(h.t.Context())
		if !ok {
			h.t.Fatal("the lane has ended")
		}
		obeys = s.Orders.Hold
	}
}

func TestUpdatesReachBothCRMs(t *testing.T) {
	t.Parallel()
	h := newHouse(t, emulator.Options{Contacts: 10}, emulator.Options{Contacts: 10})
	a := h.open()
	defer a.Close()
	for _, m := range []Message{
		{Target: "office", Contact: "3", Body: []byte(`{"fields":{"phonenumber":"+44 1","title":"Boss"}}`)},
		{Target: "office", Contact: "3", Body: []byte(`{"fields":{"title":null}}`)},
		{Target: "shop", Contact: "4", Body: []byte(`{"fields":{"phone":"+44 2","address":{"city":"Ipswich"}}}`)},
		{Target: "shop", Contact: "4", Body: []byte(`{"fields":{"address":{"zip":"IP4 1LN"}}}`)},
		{Target: "office", Contact: "77", Body: []byte(`{"fields":{"title":"Nobody"}}`)},
	} {
		if _, err := a.Publish(t.Context(), m); err != nil {
			t.Fatal(err)
		}
	}
	stop := h.work(a)
	st := h.settled(a)
	stop()

	got, _ := h.office.Contact("3")
	if got["phonenumber"] != "+44 1" || got["title"] != nil && got["title"] != "" {
		t.Errorf("office contact 3: phonenumber %v, title %v", got["phonenumber"], got["title"])
	}
	shop, _ := h.shop.Contact("4")
	addr, _ := shop["address"].(map[string]any)
	if shop["phone"] != "+44 2" || addr["city"] != "Ipswich" || addr["zip"] != "IP4 1LN" {
		t.Errorf("shop contact 4: %v", shop)
	}
	for _, c := range st.Targets {
		if want := map[string]int64{"office": 1}[c.Target]; total(c.Dead) != want {
			t.Errorf("%s: dead letters %v, want %d", c.Target, c.Dead, want)
		}
	}
	writes := 0
	for _, e := range h.shop.Ledger() {
		if e.Operation == emulator.OpUpdate {
			writes++
		}
	}
	if writes != 1 {
		t.Errorf("shop saw %d writes for two updates that waited together, want 1", writes)
	}
	var letters []Letter
	if err := a.Dead(t.Context(), DeadFilter{Target: "office"}, func(l Letter) error { letters = append(letters, l); return nil }); err != nil {
		t.Fatal(err)
	}
	if len(letters) != 1 || letters[0].Contact != "77" || letters[0].Reason != "missing" {
		t.Errorf("dead letters: %+v", letters)
	}
	full, err := a.Letter(t.Context(), letters[0].ID)
	if err != nil || !strings.Contains(string(full.Body), "Nobody") {
		t.Errorf("letter: %+v, %v", full, err)
	}
}

func total(m map[string]int64) (n int64) {
	for _, v := range m {
		n += v
	}
	return n
}

func TestPublishRefusesWhatTheCRMCannotTake(t *testing.T) {
	h := newHouse(t, emulator.Options{Contacts: 1}, emulator.Options{Contacts: 1})
	a := h.open()
	defer a.Close()
	for _, c := range []struct{ target, contact, body, want string }{
		{"office", "1", `{"fields":{"id":"2"}}`, "id"},
		{"office", "1", `{"felds":{}}`, "felds"},
		{"office", "x", `{"fields":{"title":"a"}}`, "id"},
		{"office", "", `{"fields":{"title":"a"}}`, "empty"},
		{"nowhere", "1", `{"fields":{"title":"a"}}`, "nowhere"},
		{"shop", "1", `{"fields":{"type":"alien"}}`, "type"},
	} {
		_, err := a.Publish(t.Context(), Message{Target: c.target, Contact: c.contact, Body: []byte(c.body)})
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("publish %s %s %s: error %v, want one about %q", c.target, c.contact, c.body, err, c.want)
		}
	}
	st, err := a.Status(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, target := range st.Targets {
		if n := target.Queue["live"].Waiting; n != 0 {
			t.Errorf("%s: %d updates were stored", target.Target, n)
		}
	}
}

func TestHoldShowsAtOnceAndSendsNothing(t *testing.T) {
	t.Parallel()
	h := newHouse(t, emulator.Options{Contacts: 2}, emulator.Options{})
	a := h.open()
	defer a.Close()
	stop := h.work(a)
	defer stop()
	if _, err := a.Publish(t.Context(), Message{Target: "office", Contact: "1", Body: []byte(`{"fields":{"title":"a"}}`)}); err != nil {
		t.Fatal(err)
	}
	h.settled(a)
	before := len(h.office.Ledger())
	if err := a.Hold(t.Context(), ann, "office", "month end", time.Time{}); err != nil {
		t.Fatal(err)
	}
	st, err := a.Status(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	l := st.Targets[0].Lane
	if l == nil || l.State != "held" || l.Hold == nil || l.Hold.Reason != "operator" || l.Hold.Detail != "month end" || st.Targets[0].Orders.By != "ann" {
		t.Errorf("status after hold: %+v", st.Targets[0])
	}
	h.obeyed(a, "office")
	if _, err := a.Publish(t.Context(), Message{Target: "office", Contact: "2", Body: []byte(`{"fields":{"title":"b"}}`)}); err != nil {
		t.Fatal(err)
	}
	// The other target goes on meanwhile, which also gives this one time to
	// do wrong.
	if _, err := a.Publish(t.Context(), Message{Target: "shop", Contact: "7", Body: []byte(`{"fields":{"phone":"1"}}`)}); err != nil {
		t.Fatal(err)
	}
	for st.Targets[1].Dead["missing"] == 0 {
		if st, err = a.Status(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if n := len(h.office.Ledger()); n != before {
		t.Errorf("%d requests during the hold", n-before)
	}
	if err := a.Resume(t.Context(), ann, "office"); err != nil {
		t.Fatal(err)
	}
	h.settled(a)
	if c, _ := h.office.Contact("2"); c["title"] != "b" {
		t.Errorf("after resume: title %v", c["title"])
	}
	if err := a.Hold(t.Context(), ann, "nowhere", "", time.Time{}); err == nil || !strings.Contains(err.Error(), `"office"`) {
		t.Errorf("hold of an unknown target: %v", err)
	}
}

// A rate of nothing sends nothing, also when an operator's hold has run out.
func TestNoRateHoldsForEver(t *testing.T) {
	h := newHouse(t, emulator.Options{Contacts: 1}, emulator.Options{}, "targets.office.quota.rate=0/s")
	a := h.open()
	defer a.Close()
	for _, o := range []worker.Orders{{}, {Hold: true, Until: time.Now().Add(time.Minute)}} {
		a.orders["office"] = o
		if got := a.ordersOf("office"); !got.Hold || !got.Until.IsZero() {
			t.Errorf("orders %+v become %+v", o, got)
		}
	}
	a.orders["office"] = worker.Orders{Limits: worker.Limits{Rate: 3}}
	if got := a.ordersOf("office"); got.Hold || got.Limits.Rate != 3 {
		t.Errorf("an ordered rate becomes %+v", got)
	}
}

// The same job again, into the other class: what ended then does not count now.
func TestWaitCountsThisImportOnly(t *testing.T) {
	t.Parallel()
	h := newHouse(t, emulator.Options{Contacts: 5}, emulator.Options{})
	a := h.open()
	defer a.Close()
	stop := h.work(a)
	defer stop()
	im := Import{Target: "office", Path: h.write("c.csv", "id,title\n1,a\n2,b\n3,c\n"), Class: contact.Bulk, Job: "night"}
	run := func(within time.Duration) ImportReport {
		rep, err := a.Import(t.Context(), im)
		if err != nil || rep.Queued != 3 {
			t.Fatalf("%+v, %v", rep, err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), within)
		defer cancel()
		rep, _ = a.Wait(ctx, rep, nil)
		return rep
	}
	if rep := run(time.Minute); !rep.Done || rep.Outcomes["applied"] != 3 {
		t.Errorf("first: %+v", rep)
	}
	if err := a.Hold(t.Context(), ann, "office", "", time.Time{}); err != nil {
		t.Fatal(err)
	}
	h.obeyed(a, "office")
	im.Class = contact.Live
	if _, err := a.Import(t.Context(), im); !errors.Is(err, ErrOtherFile) {
		t.Errorf("the job's name for other rows: %v", err)
	}
	im.Job = "day"
	if rep := run(500 * time.Millisecond); rep.Done || len(rep.Outcomes) != 0 {
		t.Errorf("while the lane holds: %+v", rep)
	}
}

func TestCheckNamesTargetsWithoutStreams(t *testing.T) {
	h := newHouse(t, emulator.Options{}, emulator.Options{})
	a, err := Open(t.Context(), h.cfg, Options{Host: true, Port: AnyPort, Log: zerolog.Nop()})
	if err != nil {
		t.Fatal(err)
	}
	defer a.Close()
	if err := a.q.Setup(t.Context(), []string{"office"}); err != nil {
		t.Fatal(err)
	}
	found := map[string]bool{}
	for _, f := range a.CheckQueue(t.Context()) {
		found[f.What] = f.OK
	}
	if ok, there := found["streams shop"]; !there || ok {
		t.Errorf("findings %v", found)
	}
	if _, there := found["streams office"]; there {
		t.Errorf("findings %v", found)
	}
}
