package main

import (
	"context"
	"flag"
	"fmt"
	"net"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
)

// natsd is a NATS server as a process of its own: what an operator runs who has
// servers already.
func natsd() {
	f := flag.NewFlagSet("natsd", flag.ExitOnError)
	o := &server.Options{Host: "127.0.0.1", JetStream: true, SyncAlways: true, MaxPayload: 1 << 20, JetStreamMaxMemory: 1 << 28, JetStreamMaxStore: 1 << 40}
	f.StringVar(&o.ServerName, "name", "", "")
	f.IntVar(&o.Port, "port", 0, "")
	f.StringVar(&o.StoreDir, "store", "", "")
	cluster := f.Int("cluster", 0, "port of the cluster, 0 for none")
	routes := f.String("routes", "", "")
	_ = f.Parse(os.Args[1:]) // it ends the process
	if *cluster > 0 {
		o.Cluster = server.ClusterOpts{Name: "three", Host: "127.0.0.1", Port: *cluster}
		for r := range strings.SplitSeq(*routes, ",") {
			u, err := url.Parse(r)
			if err != nil {
				fmt.Fprintln(os.Stderr, err)
				os.Exit(2)
			}
			o.Routes = append(o.Routes, u)
		}
	}
	s, err := server.NewServer(o)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(2)
	}
	s.ConfigureLogger()
	s.Start() // which handles signals
	s.WaitForShutdown()
}

// natsServers are NATS servers in processes of their own.
type natsServers struct {
	t       *testing.T
	program string
	args    [][]string
	names   []string
	ports   []int
	running []*demoWorker
	dir     string
	starts  int
}

// newServers starts n servers, one alone or a cluster.
func newServers(t *testing.T, n int) *natsServers {
	t.Helper()
	s := &natsServers{t: t, dir: t.TempDir()}
	var err error
	if s.program, err = exec.LookPath("natsd"); err != nil {
		t.Fatal(err)
	}
	var routes []string
	var cluster []int
	for range n {
		cluster = append(cluster, freePort(t))
		routes = append(routes, fmt.Sprintf("nats://127.0.0.1:%d", cluster[len(cluster)-1]))
	}
	for i := range n {
		s.names, s.ports = append(s.names, fmt.Sprint("n", i)), append(s.ports, freePort(t))
		args := []string{"-name", s.names[i], "-port", fmt.Sprint(s.ports[i]), "-store", filepath.Join(s.dir, s.names[i])}
		if n > 1 {
			args = append(args, "-cluster", fmt.Sprint(cluster[i]), "-routes", strings.Join(routes, ","))
		}
		s.args, s.running = append(s.args, args), append(s.running, nil)
	}
	t.Cleanup(func() {
		for i := range s.running {
			s.kill(i)
		}
	})
	for i := range n {
		s.start(i)
	}
	return s
}

func (s *natsServers) url() string {
	var urls []string
	for _, p := range s.ports {
		urls = append(urls, fmt.Sprintf("nats://127.0.0.1:%d", p))
	}
	return strings.Join(urls, ",")
}

func (s *natsServers) start(i int) {
	s.t.Helper()
	s.starts++
	d, err := startDemoWorker(s.program, filepath.Join(s.dir, fmt.Sprintf("%s-%d.log", s.names[i], s.starts)), s.args[i]...)
	if err != nil {
		s.t.Fatal(err)
	}
	s.running[i] = d
	for end := time.Now().Add(20 * time.Second); ; poll() {
		c, err := net.DialTimeout("tcp", fmt.Sprintf("127.0.0.1:%d", s.ports[i]), time.Second)
		if err == nil {
			_ = c.Close()
			return
		}
		if time.Now().After(end) {
			s.t.Fatalf("server %s does not listen: %v%s", s.names[i], err, d.lastWords())
		}
	}
}

func (s *natsServers) kill(i int) {
	if d := s.running[i]; d != nil {
		d.kill()
		s.running[i] = nil
	}
}

// end has a server stop in order, and waits for it.
func (s *natsServers) end(i int) {
	s.t.Helper()
	d := s.running[i]
	if err := d.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		s.t.Fatal(err)
	}
	select {
	case <-d.ended:
	case <-time.After(30 * time.Second):
		s.t.Fatalf("server %s does not end%s", s.names[i], d.lastWords())
	}
	s.running[i] = nil
}

// leader is which server leads a stream, -1 for none.
func (s *natsServers) leader(ctx context.Context, w *faultWorld, stream string) int {
	name := w.leaderOf(ctx, stream)
	for i, n := range s.names {
		if n == name {
			return i
		}
	}
	return -1
}
