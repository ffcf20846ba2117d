package crm

import (
	"errors"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
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

// What a stopped process had on its way to the connection does not go out when it
// goes on after the request's time.
func TestNothingIsWrittenLate(t *testing.T) {
	ours, theirs := net.Pipe()
	defer ours.Close()
	defer theirs.Close()
	read := make(chan int, 1)
	go func() {
		n, _ := theirs.Read(make([]byte, 10))
		read <- n
	}()
	c := &countedConn{Conn: ours}
	late := time.Now()
	c.until.Store(&late)
	if n, err := c.Write([]byte("PUT")); n != 0 || !errors.Is(err, os.ErrDeadlineExceeded) || c.written.Load() != 0 {
		t.Errorf("wrote %d, %v", n, err)
	}
	soon := time.Now().Add(time.Minute)
	c.until.Store(&soon)
	if n, err := c.Write([]byte("GET")); n != 3 || err != nil || <-read != 3 {
		t.Errorf("wrote %d, %v", n, err)
	}
}

// Each request sets the time of the connection that it gets, also of one that was
// used before.
func TestConnectionsKnowTheRequestsTime(t *testing.T) {
	srv := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	defer srv.Close()
	c := newClient(t, Options{Base: parse(t, srv.URL), Timeout: 300 * time.Millisecond})
	for n := range 4 {
		if _, f := do(c, Request{Method: "GET"}); f != nil {
			t.Fatalf("request %d: %v", n+1, f)
		}
		<-time.After(200 * time.Millisecond) // the time of the one before is soon over
	}
}
