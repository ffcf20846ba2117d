package queue

import (
	"errors"
	"fmt"
	"net"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/rs/zerolog"

	"crmsync/contact"
)

// member is one server of a cluster whose routes lead to these ports.
func member(t *testing.T, name string, port int, routes []int) *server.Server {
	t.Helper()
	o := &server.Options{
		ServerName: name, Host: "127.0.0.1", Port: -1, JetStream: true, StoreDir: t.TempDir(), SyncAlways: true, NoSigs: true, NoLog: true,
		Cluster: server.ClusterOpts{Name: "three", Host: "127.0.0.1", Port: port}, MaxPayload: 1 << 20,
	}
	for _, r := range routes {
		o.Routes = append(o.Routes, &url.URL{Scheme: "nats", Host: fmt.Sprint("127.0.0.1:", r)})
	}
	s, err := server.NewServer(o)
	if err != nil {
		t.Fatal(err)
	}
	s.Start()
	t.Cleanup(func() { s.Shutdown(); s.WaitForShutdown() })
	if !s.ReadyForConnections(20 * time.Second) {
		t.Fatal("not ready")
	}
	return s
}

func ports(t *testing.T, n int) (out []int) {
	t.Helper()
	for range n {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		out = append(out, l.Addr().(*net.TCPAddr).Port)
	}
	return out
}

// Who comes while a cluster of three is still being started keeps the streams on
// three servers all the same.
func TestReplicasOfAClusterThatStarts(t *testing.T) {
	t.Parallel()
	for name, replicas := range map[string]int{"nobody said how many": 0, "the operator did": 3} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			clusterStarts(t, replicas)
		})
	}
}

func clusterStarts(t *testing.T, replicas int) {
	p := ports(t, 3)
	first := member(t, "n0", p[0], p)
	q := open(t, Options{URL: first.ClientURL(), Name: "test", Timeout: 2 * time.Second, Replicas: replicas, Log: zerolog.Nop()})
	q.peersWait = time.Minute
	done := make(chan error, 1)
	go func() { done <- q.Setup(t.Context(), []string{"office"}) }()
	select {
	case err := <-done:
		t.Fatalf("set up on one server of three: %v", err)
	case <-time.After(time.Second):
	}
	member(t, "n1", p[1], p)
	member(t, "n2", p[2], p)
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	for _, c := range mustWant(t, "office") {
		info, err := q.info(t.Context(), c.Name)
		if err != nil || info.Config.Replicas != 3 {
			t.Errorf("%s: %+v, %v", c.Name, info, err)
		}
	}
	if n, clustered, err := q.Replicas(t.Context()); n != 3 || !clustered || err != nil {
		t.Errorf("%d replicas, clustered %t, %v", n, clustered, err)
	}
	if lease, err := q.SessionLease(t.Context()); lease != DefaultLeaseCluster || err != nil {
		t.Errorf("lease %s, %v", lease, err)
	}
}

// A cluster that stays too small keeps the streams on one server, unless the operator
// wants them on three.
func TestReplicasOfTwoServers(t *testing.T) {
	t.Parallel()
	p := ports(t, 2)
	first := member(t, "n0", p[0], p)
	member(t, "n1", p[1], p)
	o := Options{URL: first.ClientURL(), Name: "test", Timeout: 5 * time.Second, Replicas: 3, Log: zerolog.Nop()}
	q := open(t, o)
	awaitMeta(t, q)
	q.peersWait = time.Second
	if err := q.Setup(t.Context(), []string{"office"}); !isFewPeers(err) {
		t.Errorf("three wanted of two: %v", err)
	}
	o.Replicas = 0
	q = open(t, o)
	q.peersWait = time.Second
	if err := q.Setup(t.Context(), []string{"office"}); err != nil {
		t.Fatal(err)
	}
	if n, clustered, err := q.Replicas(t.Context()); n != 1 || !clustered || err != nil {
		t.Errorf("%d replicas, clustered %t, %v", n, clustered, err)
	}
}

// awaitMeta waits until a cluster can answer for its streams.
func awaitMeta(t *testing.T, q *Queue) {
	t.Helper()
	for end := time.Now().Add(30 * time.Second); ; <-time.After(50 * time.Millisecond) {
		_, _, err := q.Replicas(t.Context())
		if err == nil {
			return
		}
		if time.Now().After(end) {
			t.Fatal(err)
		}
	}
}

// A server of a cluster lists the streams that nobody leads with nothing in them, or
// not at all: that is no loss, and no target is said not to exist.
func TestStreamsThatNobodyLeads(t *testing.T) {
	t.Parallel()
	p := ports(t, 3)
	servers := map[string]*server.Server{}
	for i := range p {
		name := fmt.Sprint("n", i)
		servers[name] = member(t, name, p[i], p)
	}
	q := open(t, Options{URL: servers["n0"].ClientURL(), Name: "test", Timeout: 5 * time.Second, Replicas: 1, Log: zerolog.Nop()})
	awaitMeta(t, q)
	targets := []string{"a", "b", "c", "d"}
	if err := q.Setup(t.Context(), targets); err != nil {
		t.Fatal(err)
	}
	led, away := "", "" // a target, and who leads its stream
	for _, target := range targets {
		publish(t, q, update(target, 1, contact.Live, 1))
		info, err := q.info(t.Context(), streamName(target, contact.Live))
		if err != nil {
			t.Fatal(err)
		}
		if info.Cluster.Leader != "n0" {
			led, away = target, info.Cluster.Leader
		}
	}
	if led == "" {
		t.Fatal("one server leads all streams")
	}
	if all, err := q.Stats(t.Context()); err != nil || len(all) != len(targets) {
		t.Errorf("%d targets, %v", len(all), err)
	}
	k := &keeper{q: q, known: map[string]mark{}, holes: map[string]knownHoles{}}
	k.prove(t.Context())
	if len(k.known) < 2*len(targets) {
		t.Fatalf("known %v", k.known)
	}
	servers[away].Shutdown()
	servers[away].WaitForShutdown()
	name := streamName(led, contact.Live)
	eventually(t, 30*time.Second, "it is noticed", func() bool {
		_, err := q.Stats(t.Context())
		return errors.Is(err, ErrUnled) && strings.Contains(err.Error(), name)
	})
	for range 2 {
		k.prove(t.Context())
	}
	if h := k.health(); len(h.Losses) > 0 {
		t.Errorf("lost %v", h.Losses)
	}
	if m := k.known[name]; m.Last != 1 {
		t.Errorf("known of %s: %+v", name, m)
	}
}
