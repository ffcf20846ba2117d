package app

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/rs/zerolog"

	"crmsync/emulator"
)

// monitored is a NATS server of its own, with monitoring.
func monitored(t *testing.T, always bool) (url, monitor string) {
	t.Helper()
	s, err := server.NewServer(&server.Options{
		Host: "127.0.0.1", Port: -1, HTTPHost: "127.0.0.1", HTTPPort: -1, JetStream: true, StoreDir: t.TempDir(), SyncAlways: always, NoSigs: true, NoLog: true,
	})
	if err != nil {
		t.Fatal(err)
	}
	s.Start()
	t.Cleanup(func() { s.Shutdown(); s.WaitForShutdown() })
	if !s.ReadyForConnections(10 * time.Second) {
		t.Fatal("not ready")
	}
	return s.ClientURL(), "http://" + s.MonitorAddr().String()
}

// Servers of the operator's own are believed to be durable when they say so, or
// when the operator does.
func TestDurability(t *testing.T) {
	url, always := monitored(t, true)
	_, now := monitored(t, false)
	web := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/varz" {
			http.Redirect(w, r, always+"/varz", http.StatusFound)
			return
		}
		_, _ = w.Write([]byte("<html>"))
	}))
	defer web.Close()
	for name, c := range map[string]struct {
		set         []string
		state, text string
	}{
		"nothing is known":   {nil, DurabilityUnproven, "sync_interval: always"},
		"it syncs":           {[]string{"nats.monitor=" + always}, DurabilityProven, "1 NATS server(s) sync each write"},
		"it does not":        {[]string{"nats.monitor=" + now}, DurabilityUnproven, now + " does not sync each write"},
		"one of two does":    {[]string{"nats.monitor=[" + always + ", " + now + "]"}, DurabilityUnproven, "does not sync each write"},
		"nobody there":       {[]string{"nats.monitor=http://127.0.0.1:1"}, DurabilityUnproven, "http://127.0.0.1:1 does not say"},
		"another web server": {[]string{"nats.monitor=" + web.URL}, DurabilityUnproven, "does not say"},
		"a redirect":         {[]string{"nats.monitor=" + web.URL + "/x"}, DurabilityUnproven, "it answers 302"},
		"vouched for":        {[]string{"nats.durability=always"}, DurabilityVouched, "vouches"},
		"relaxed":            {[]string{"nats.durability=relaxed", "nats.monitor=" + now}, DurabilityRelaxed, "as nats.durability accepts"},
	} {
		t.Run(name, func(t *testing.T) {
			cfg, err := LoadConfig("", nil, append(c.set, "nats.url="+url, "data="+t.TempDir()))
			if err != nil {
				t.Fatal(err)
			}
			a, err := Open(t.Context(), cfg, Options{Log: zerolog.Nop()})
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = a.Close() }()
			if d := a.Durability(t.Context()); d.State != c.state || !strings.Contains(d.Text, c.text) || d.OK() != (c.state != DurabilityUnproven) {
				t.Errorf("%+v", d)
			}
			if err := a.Setup(t.Context()); err != nil {
				t.Fatal(err)
			}
			found := fmt.Sprint(a.CheckQueue(t.Context()))
			if warned := strings.Contains(found, "{durability true true "); warned != (c.state == DurabilityUnproven) {
				t.Errorf("check says %s", found)
			}
			if told := a.notes(t.Context()) != ""; told != (c.state == DurabilityUnproven) {
				t.Errorf("readiness says %q", a.notes(t.Context()))
			}
		})
	}
}

// A worker on the server of another crmsync knows that this one syncs each write.
func TestDurabilityOfAHostedServer(t *testing.T) {
	host := newHouse(t, emulator.Options{}, emulator.Options{}).open()
	defer func() { _ = host.Close() }()
	cfg, err := LoadConfig("", nil, []string{"nats.url=" + host.URL(), "data=" + t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	a, err := Open(t.Context(), cfg, Options{Log: zerolog.Nop()})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = a.Close() }()
	if d := a.Durability(t.Context()); d.State != DurabilityProven {
		t.Errorf("%+v", d)
	}
}
