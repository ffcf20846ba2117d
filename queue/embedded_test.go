package queue

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"crmsync/contact"
)

func TestOpenErrors(t *testing.T) {
	if _, err := Open(t.Context(), Options{URL: "nats://127.0.0.1:1", Timeout: 200 * time.Millisecond}); !errors.Is(err, ErrUnreachable) {
		t.Errorf("nobody there: %v", err)
	}
	for _, url := range []string{"nats://me:s3cret@127.0.0.1:1", "nats://me:s3cret@%zz:1", "nats://a:1,nats://me:s3cret@[::1"} {
		_, err := Open(t.Context(), Options{URL: url, Timeout: 200 * time.Millisecond})
		if !errors.Is(err, ErrUnreachable) || strings.Contains(err.Error(), "s3cret") {
			t.Errorf("%v", err)
		}
	}
	if _, err := Open(t.Context(), Options{Embedded: &Embedded{}}); err == nil {
		t.Error("embedded without a directory")
	}
	dir := t.TempDir()
	q := open(t, testOptions(t, dir))
	if _, err := Open(t.Context(), testOptions(t, dir)); !errors.Is(err, ErrLocked) || !strings.Contains(err.Error(), fmt.Sprint(os.Getpid())) {
		t.Errorf("second on the same store: %v", err)
	}
	if i, err := os.Stat(dir); err != nil || !i.IsDir() {
		t.Error(err)
	}
	if !strings.HasPrefix(q.URL(), "nats://127.0.0.1:") {
		t.Errorf("url %q", q.URL())
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	o := testOptions(t, t.TempDir())
	o.Embedded.Port = l.Addr().(*net.TCPAddr).Port
	if _, err := Open(t.Context(), o); err == nil || !strings.Contains(err.Error(), "choose another port") {
		t.Errorf("port taken: %v", err)
	}
	o.Embedded.Port = -2
	silent := open(t, o)
	if silent.URL() != "" {
		t.Errorf("url %q of a server that does not listen", silent.URL())
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := Open(ctx, testOptions(t, t.TempDir())); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
}

func TestDirectoryIsPrivate(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "a", "b")
	open(t, testOptions(t, dir))
	i, err := os.Stat(dir)
	if err != nil || i.Mode().Perm() != 0o700 {
		t.Errorf("%v, %v", i.Mode(), err)
	}
}

// A kill between the two files of a configuration loses the stream to a plain
// server; it must come back with its messages.
func TestRepair(t *testing.T) {
	t.Parallel()
	stream := func(dir, name string) string { return filepath.Join(dir, streamsDir, "CRM_OFFICE_LIVE", name) }
	for name, damage := range map[string]func(t *testing.T, dir string){
		"sum of an older configuration": func(t *testing.T, dir string) {
			write(t, stream(dir, metaSum), "0123456789abcdef")
		},
		"sum missing": func(t *testing.T, dir string) {
			if err := os.Remove(stream(dir, metaSum)); err != nil {
				t.Fatal(err)
			}
		},
		"sum cut off": func(t *testing.T, dir string) { write(t, stream(dir, metaSum), "") },
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			q := open(t, testOptions(t, dir))
			if err := q.Setup(t.Context(), []string{"office"}); err != nil {
				t.Fatal(err)
			}
			publish(t, q, update("office", 1, contact.Live, 1), update("office", 1, contact.Live, 2))
			if err := q.Close(); err != nil {
				t.Fatal(err)
			}
			damage(t, dir)
			q = open(t, testOptions(t, dir))
			info, err := q.info(t.Context(), "CRM_OFFICE_LIVE")
			if err != nil || info.State.Msgs != 2 {
				t.Fatalf("%v, %v", info, err)
			}
			_ = q.Close()
			open(t, testOptions(t, dir)) // and again, with nothing to repair
		})
	}
}

func TestRepairRefusesAndRemoves(t *testing.T) {
	dir := t.TempDir()
	q := open(t, testOptions(t, dir))
	if err := q.Setup(t.Context(), []string{"office"}); err != nil {
		t.Fatal(err)
	}
	publish(t, q, update("office", 1, contact.Live, 1))
	_ = q.Close()
	streams := filepath.Join(dir, streamsDir)

	// A creation that was cut off left a directory without messages.
	half := filepath.Join(streams, "CRM_NEW_LIVE")
	if err := os.MkdirAll(filepath.Join(half, "msgs"), 0o750); err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(half, metaFile), `{"name":"CRM_NE`)
	q = open(t, testOptions(t, dir))
	if _, err := os.Stat(half); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the half-made stream is still there: %v", err)
	}
	_ = q.Close()

	// A damaged configuration over messages, of which there is no copy, must not be
	// passed over.
	for _, name := range []string{configsSuffix, configsSuffix + olderSuffix} {
		if err := os.Remove(dir + name); err != nil && !errors.Is(err, os.ErrNotExist) {
			t.Fatal(err)
		}
	}
	meta := filepath.Join(streams, "CRM_OFFICE_LIVE", metaFile)
	whole, err := os.ReadFile(meta)
	if err != nil {
		t.Fatal(err)
	}
	write(t, meta, string(whole[:20]))
	if _, err := Open(t.Context(), testOptions(t, dir)); err == nil || !strings.Contains(err.Error(), meta) {
		t.Errorf("damaged configuration: %v", err)
	}
	write(t, meta, string(whole))

	// What the server cannot load for another reason must be told, too.
	write(t, meta, `{"name":"ANOTHER","subjects":["a.*"],"retention":"limits","max_consumers":-1,"max_msgs":-1,"max_bytes":-1,"max_age":0,"storage":"nonsense"}`)
	if _, err := Open(t.Context(), testOptions(t, dir)); err == nil || !strings.Contains(err.Error(), "CRM_OFFICE_LIVE") {
		t.Errorf("stream that cannot be loaded: %v", err)
	}
}

// A start is not given up for one request that was not answered, nor for ever.
func TestUntilAnswered(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	other := errors.New("refused")
	late := fmt.Errorf("list: %w", context.DeadlineExceeded)
	for _, tc := range []struct {
		name    string
		answers []error
		want    error
	}{
		{"at once", []error{nil}, nil},
		{"the third time", []error{late, late, nil}, nil},
		{"a refusal is an answer", []error{late, other, nil}, other},
	} {
		asked := 0
		err := untilAnswered(ctx, func() error { asked++; return tc.answers[asked-1] })
		if !errors.Is(err, tc.want) || (err == nil) != (tc.want == nil) {
			t.Errorf("%s: %v, want %v", tc.name, err, tc.want)
		}
	}
	err := untilAnswered(ctx, func() error { cancel(); return late })
	if !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("when the time is over: %v", err)
	}
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// TestKilledProcess starts itself as a process that publishes until it is killed:
// everything that was confirmed must be there.
func TestKilledProcess(t *testing.T) {
	t.Parallel()
	if dir := os.Getenv("QUEUE_TEST_VICTIM"); dir != "" {
		victim(t, dir)
		return
	}
	dir := t.TempDir()
	for round := range 3 {
		cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestKilledProcess$")
		cmd.Env = append(os.Environ(), "QUEUE_TEST_VICTIM="+dir)
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		var last uint64
		for n := 0; n < 200; n++ {
			if _, err := fmt.Fscan(out, &last); err != nil {
				t.Fatal(err)
			}
		}
		_ = cmd.Process.Kill()
		for { // what it said before it died counts
			var seq uint64
			if _, err := fmt.Fscan(out, &seq); err != nil {
				break
			}
			last = max(last, seq)
		}
		_ = cmd.Wait()
		q := open(t, testOptions(t, dir))
		info, err := q.info(t.Context(), "CRM_OFFICE_LIVE")
		if err != nil || info.State.LastSeq < last || info.State.Msgs != info.State.LastSeq {
			t.Fatalf("round %d: confirmed %d: %+v, %v", round, last, info, err)
		}
		// A call that the dead process sent may still be at work in the CRM:
		// its session must run out by itself.
		owners, err := q.ownerOf(t.Context())
		if err != nil || owners["office"] == "" {
			t.Errorf("round %d: the target was taken from the dead process' session: %v, %v", round, owners, err)
		}
		_ = q.Close()
	}
}

func victim(t *testing.T, dir string) {
	o := testOptions(t, dir)
	o.Lease = 3 * time.Second // the next victim waits for the end of this one's
	q := open(t, o)
	if err := q.Setup(t.Context(), []string{"office"}); err != nil {
		t.Fatal(err)
	}
	own(t, q, "office").source(t)
	for i := 0; ; i++ {
		u := update("office", i, contact.Live, i)
		u.MsgID = "" // numbers repeat from life to life
		s, err := q.Publish(t.Context(), u)
		if err != nil {
			t.Fatal(err)
		}
		fmt.Println(s.Seq)
	}
}
