package crm

import (
	"net/http"
	"net/http/httptest"
	"sync/atomic"
	"testing"
	"time"
)

// A request whose time-out would outlast the lease is not sent, whenever the lease
// was looked at before; one that fits is.
func TestWithin(t *testing.T) {
	var seen atomic.Int32
	srv := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { seen.Add(1) }))
	defer srv.Close()
	c := newClient(t, Options{Base: parse(t, srv.URL), Timeout: 2 * time.Second})
	for _, tc := range []struct {
		name  string
		lease func() time.Time
		sent  bool
	}{
		{"none", nil, true},
		{"long enough", func() time.Time { return time.Now().Add(3 * time.Second) }, true},
		{"too short", func() time.Time { return time.Now().Add(time.Second) }, false},
		{"over", func() time.Time { return time.Now().Add(-time.Second) }, false},
		{"lost", func() time.Time { return time.Time{} }, false},
		{"none any more", nil, true},
	} {
		seen.Store(0)
		c.Within(tc.lease)
		_, f := do(c, Request{})
		if got := seen.Load() == 1; got != tc.sent || tc.sent == (f != nil) {
			t.Errorf("%s: sent %t, %v", tc.name, got, f)
		}
		if f != nil && (f.Kind != FaultStopped || f.Sent || f.Answer(true).Incident) {
			t.Errorf("%s: %+v", tc.name, f)
		}
	}
}
