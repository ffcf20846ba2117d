package queue

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"crmsync/contact"
)

func TestSetupIsIdempotent(t *testing.T) {
	q := setUp(t, "office", "a-b")
	var updates []string
	sub, err := q.nc.Subscribe("$JS.EVENT.ADVISORY.STREAM.UPDATED.*", func(m *nats.Msg) { updates = append(updates, m.Subject) })
	if err != nil {
		t.Fatal(err)
	}
	meta := func() map[string]time.Time {
		out := map[string]time.Time{}
		files, err := filepath.Glob(filepath.Join(q.srv.conf.Dir, streamsDir, "*", metaFile))
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range files {
			i, err := os.Stat(f)
			if err != nil {
				t.Fatal(err)
			}
			out[f] = i.ModTime()
		}
		return out
	}
	before := meta()
	if len(before) != 11 {
		t.Errorf("%d streams: %v", len(before), before)
	}
	for range 3 {
		if err := q.Setup(t.Context(), []string{"a-b", "office", "office"}); err != nil {
			t.Fatal(err)
		}
	}
	for f, at := range meta() {
		if !before[f].Equal(at) {
			t.Errorf("%s was written again", f)
		}
	}
	if err := sub.Unsubscribe(); err != nil || len(updates) > 0 {
		t.Errorf("advisories %v, %v", updates, err)
	}
	if err := q.Ready(t.Context()); err != nil {
		t.Error(err)
	}
}

func TestSetupCorrectsAndRefuses(t *testing.T) {
	q := open(t, testOptions(t, t.TempDir()))
	ctx := t.Context()
	if _, err := q.js.CreateStream(ctx, jetstream.StreamConfig{
		Name: "CRM_OFFICE_LIVE", Subjects: []string{"crm.update.office.live.*"}, MaxAge: time.Hour, MaxMsgs: 77, AllowDirect: true, MaxMsgSize: 1000,
	}); err != nil {
		t.Fatal(err)
	}
	if err := q.Setup(ctx, []string{"office"}); err != nil {
		t.Fatal(err)
	}
	info, err := q.info(ctx, "CRM_OFFICE_LIVE")
	if err != nil {
		t.Fatal(err)
	}
	c := info.Config
	if c.MaxAge != 0 || c.Discard != jetstream.DiscardNew || !c.AllowAtomicPublish || !c.AllowBatchPublish || c.AllowDirect || c.MaxMsgSize != maxMsgSize || c.Duplicates != dedupeWindow {
		t.Errorf("not corrected: %+v", c)
	}
	if c.MaxMsgs != 77 {
		t.Errorf("the operator's quota became %d", c.MaxMsgs)
	}
	for name, bad := range map[string]jetstream.StreamConfig{
		"retention": {Name: "CRM_X_LIVE", Subjects: []string{"crm.update.x.live.*"}, Retention: jetstream.WorkQueuePolicy},
		"storage":   {Name: "CRM_X_LIVE", Subjects: []string{"crm.update.x.live.*"}, Storage: jetstream.MemoryStorage},
		"subjects":  {Name: "CRM_X_LIVE", Subjects: []string{"crm.update.x.live.>"}},
	} {
		if _, err := q.js.CreateStream(ctx, bad); err != nil {
			t.Fatal(err)
		}
		err := q.Setup(ctx, []string{"x"})
		if err == nil || !strings.Contains(err.Error(), "CRM_X_LIVE") || !strings.Contains(err.Error(), name) || !strings.Contains(err.Error(), "nats stream") {
			t.Errorf("%s: %v", name, err)
		}
		if err := q.js.DeleteStream(ctx, "CRM_X_LIVE"); err != nil {
			t.Fatal(err)
		}
	}
	if err := q.Setup(ctx, []string{"Not A Target"}); err == nil {
		t.Error("a bad name was set up")
	}
}

// What setup --print shows is what the server takes.
func TestPlanIsWhatSetupCreates(t *testing.T) {
	plan, err := Plan([]string{"office"}, 1, 3*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	q := open(t, testOptions(t, t.TempDir()))
	for _, p := range plan {
		r, err := q.nc.Request("$JS.API.STREAM.CREATE."+p.Name, p.Config, time.Second)
		if err != nil || strings.Contains(string(r.Data), `"error"`) {
			t.Fatalf("%s: %v %s", p.Name, err, r.Data)
		}
	}
	for _, c := range mustWant(t, "office") {
		info, err := q.info(t.Context(), c.Name)
		if err != nil {
			t.Fatal(err)
		}
		if bad := incompatible(info.Config, c); bad != "" {
			t.Errorf("%s: %s", c.Name, bad)
		}
		if _, changed := corrected(info.Config, c); len(changed) > 0 {
			t.Errorf("%s would be corrected: %v", c.Name, changed)
		}
	}
	if _, err := Plan([]string{"UPPER"}, 1, 0); err == nil {
		t.Error("a bad name was planned")
	}
}

func mustWant(t *testing.T, targets ...string) []jetstream.StreamConfig {
	t.Helper()
	c, err := wanted(targets, 1, 0)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// The quotas of many targets together exceed any disk and must not be reserved.
func TestSetupOfManyTargets(t *testing.T) {
	t.Parallel()
	var targets []string
	for i := range 40 {
		targets = append(targets, fmt.Sprintf("t%d", i))
	}
	q := setUp(t, targets...)
	st, err := q.Stats(t.Context())
	if err != nil || len(st) != 40 || st[0].Class[0].MaxBytes != DefaultMaxBytes {
		t.Errorf("%d targets, %v", len(st), err)
	}
}

func TestReadyAndNotSetUp(t *testing.T) {
	t.Parallel()
	q := open(t, testOptions(t, t.TempDir()))
	if err := q.Ready(t.Context()); !errors.Is(err, ErrNotSetUp) {
		t.Errorf("ready without streams: %v", err)
	}
	if err := q.Own(t.Context(), plain("office"), nil); !errors.Is(err, ErrNotSetUp) {
		t.Errorf("own without streams: %v", err)
	}
	if _, err := q.Publish(t.Context(), update("office", 1, contact.Live, 1)); !errors.Is(err, ErrNotSetUp) {
		t.Errorf("publish without streams: %v", err)
	}
	if err := q.Batch("office", contact.Live).Flush(t.Context()); err != nil {
		t.Errorf("flush of nothing: %v", err)
	}
	b := q.Batch("office", contact.Live)
	if err := b.Add(t.Context(), update("office", 1, contact.Live, 1)); err != nil {
		t.Fatal(err)
	}
	if err := b.Flush(t.Context()); !errors.Is(err, ErrNotSetUp) {
		t.Errorf("batch without streams: %v", err)
	}
	if err := q.Setup(t.Context(), []string{"office"}); err != nil {
		t.Fatal(err)
	}
	if err := q.Ready(t.Context()); err != nil {
		t.Error(err)
	}
	p := peerOf(t, q, &link{})
	_ = q.js.DeleteStream(t.Context(), "CRM_OFFICE_BULK")
	if err := q.Ready(t.Context()); !errors.Is(err, ErrNotSetUp) {
		t.Errorf("ready without a stream: %v", err)
	}
	_ = q.Close()
	if err := p.Ready(t.Context()); !errors.Is(err, ErrUnreachable) {
		t.Errorf("ready without a server: %v", err)
	}
}

func TestState(t *testing.T) {
	q := setUp(t)
	ctx := t.Context()
	type value struct{ A int }
	var v value
	if found, err := q.Get(ctx, "live.office", &v); found || err != nil {
		t.Errorf("absent key: %v, %v", found, err)
	}
	if err := q.Put(ctx, "live.office", value{7}); err != nil {
		t.Fatal(err)
	}
	if found, err := q.Get(ctx, "live.office", &v); !found || err != nil || v.A != 7 {
		t.Errorf("key: %v, %v, %+v", found, err, v)
	}
	type seen struct{ key, raw string }
	got := make(chan seen, 10)
	done := make(chan error, 1)
	wctx, cancel := contextWithCancel(t)
	go func() {
		done <- q.Watch(wctx, "live.", func(k string, raw []byte) { got <- seen{k, string(raw)} })
	}()
	expect := func(want seen) {
		t.Helper()
		select {
		case s := <-got:
			if s != want {
				t.Errorf("saw %v, want %v", s, want)
			}
		case <-time.After(5 * time.Second):
			t.Errorf("did not see %v", want)
		}
	}
	expect(seen{"live.office", `{"A":7}`})
	if err := q.Put(ctx, "desired.office", 1); err != nil {
		t.Fatal(err)
	}
	if err := q.Put(ctx, "live.shop", 2); err != nil {
		t.Fatal(err)
	}
	expect(seen{"live.shop", `2`})
	if err := q.Delete(ctx, "live.office"); err != nil {
		t.Fatal(err)
	}
	expect(seen{"live.office", ""})
	if found, err := q.Get(ctx, "live.office", &v); found || err != nil {
		t.Errorf("deleted key: %v, %v", found, err)
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
	for _, key := range []string{"", ".", "a..b", "a b", "a.*", "a.>", "ä"} {
		if err := q.Put(ctx, key, 1); err == nil {
			t.Errorf("key %q was taken", key)
		}
	}
	if err := q.Put(ctx, "k", json.RawMessage("{")); err == nil {
		t.Error("broken JSON was taken")
	}
}
