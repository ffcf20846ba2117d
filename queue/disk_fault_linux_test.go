package queue

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"github.com/nats-io/nats.go"
	"github.com/rs/zerolog"

	"crmsync/contact"
)

// smallDisk is a file system of its own, that can be made larger; the test is
// skipped where mounting is not allowed.
func smallDisk(t *testing.T, megabytes int) (dir string, resize func(megabytes int)) {
	t.Helper()
	dir = t.TempDir()
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, fmt.Sprintf("size=%dm", megabytes)); err != nil {
		t.Skipf("no file system can be mounted here: %v", err)
	}
	t.Cleanup(func() { _ = syscall.Unmount(dir, syscall.MNT_DETACH) })
	return dir, func(megabytes int) {
		t.Helper()
		if err := syscall.Mount("tmpfs", dir, "tmpfs", syscall.MS_REMOUNT, fmt.Sprintf("size=%dm", megabytes)); err != nil {
			t.Fatal(err)
		}
	}
}

// fill publishes as any NATS client does until nothing is confirmed any more, and
// returns how many were. Each body is as large as given.
func fill(t *testing.T, q *Queue, bytes int) (confirmed uint64) {
	t.Helper()
	body := fmt.Appendf(nil, `{"fields":{"n":"%s"}}`, strings.Repeat("x", bytes))
	misses := 0
	for end := time.Now().Add(time.Minute); misses < 3; {
		if time.Now().After(end) {
			t.Fatal("the disk does not get full")
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		a, err := q.publish(ctx, &nats.Msg{Subject: contact.Subject(contact.Key{Target: "office", ID: "1"}, contact.Live), Data: body})
		cancel()
		if err != nil {
			misses++
			continue
		}
		misses, confirmed = 0, a.Seq
	}
	return confirmed
}

// A disk that somebody else's messages fill: not ready within seconds, and working
// again by itself once there is space, with everything that was confirmed.
func TestDiskFull(t *testing.T) {
	t.Parallel()
	disk, resize := smallDisk(t, 24)
	o := testOptions(t, filepath.Join(disk, "nats"))
	o.Log, o.Timeout, o.Lease = o.Log.Level(zerolog.PanicLevel), time.Second, 2*time.Second
	q := open(t, o)
	if err := q.Setup(t.Context(), []string{"office"}); err != nil {
		t.Fatal(err)
	}
	p := peerOf(t, q, &link{})
	confirmed := fill(t, p, 20<<10)
	eventually(t, 15*time.Second, "it is not ready", func() bool { return q.Ready(t.Context()) != nil })
	if h := q.keeper.Load().health(); h.OK() {
		t.Errorf("%+v", h)
	}
	resize(64)
	began := time.Now()
	eventually(t, time.Minute, "it is ready again", func() bool { return q.Ready(t.Context()) == nil })
	t.Logf("%d messages confirmed; ready again after %s", confirmed, time.Since(began).Round(time.Millisecond))
	eventually(t, 20*time.Second, "the other process is connected again", func() bool { return p.Ready(t.Context()) == nil })
	publish(t, p, update("office", 2, contact.Live, 2))
	s := own(t, p, "office").source(t)
	got := everything(t, s)
	if uint64(len(got)) < confirmed+1 {
		t.Errorf("%d updates of %d", len(got), confirmed+1)
	}
	for i, u := range got {
		if u.Seq != uint64(i+1) {
			t.Fatalf("update %d is number %d", i+1, u.Seq)
		}
	}
	settle(t, s, contact.Applied, got[:len(got)-1]...)
}

// Below the bound nothing is taken, from any process of ours, and what is stored is
// worked on.
func TestNearlyFull(t *testing.T) {
	t.Parallel()
	disk, resize := smallDisk(t, 64)
	o := testOptions(t, filepath.Join(disk, "nats"))
	o.Log, o.Embedded.MinFree = o.Log.Level(zerolog.PanicLevel), 32<<20
	q := open(t, o)
	if err := q.Setup(t.Context(), []string{"office"}); err != nil {
		t.Fatal(err)
	}
	p := peerOf(t, q, &link{})
	publish(t, p, update("office", 1, contact.Live, 1), update("office", 2, contact.Live, 2))
	knows := func(full bool) {
		t.Helper()
		eventually(t, 20*time.Second, "both processes know", func() bool {
			return (q.hasRoom(t.Context()) != nil) == full && (p.hasRoom(t.Context()) != nil) == full
		})
	}
	resize(24)
	knows(true)
	for _, q := range []*Queue{q, p} {
		if _, err := q.Publish(t.Context(), update("office", 3, contact.Live, 3)); !errors.Is(err, ErrNoSpace) || !strings.Contains(err.Error(), "free some space") {
			t.Errorf("published: %v", err)
		}
		b := q.Batch("office", contact.Live)
		if err := b.Add(t.Context(), update("office", 4, contact.Live, 4)); err != nil {
			t.Fatal(err)
		}
		if err := b.Close(t.Context()); !errors.Is(err, ErrNoSpace) {
			t.Errorf("published in bulk: %v", err)
		}
	}
	s := own(t, p, "office").source(t)
	settle(t, s, contact.Applied, take(t, s, contact.Live, 2)[:1]...)
	if err := q.Ready(t.Context()); err != nil {
		t.Errorf("ready: %v", err)
	}
	if h, ok, err := p.Health(t.Context()); err != nil || !ok || h.State != StoreFull || h.Free == 0 || h.MinFree != 32<<20 {
		t.Errorf("%+v, %v, %v", h, ok, err)
	}
	resize(64)
	knows(false)
	publish(t, p, update("office", 3, contact.Live, 3))
}

// brokenDisk is a file system of its own in a file. fail has every write from then
// on fail with an input/output error, and loses what was not synced, as a power cut
// does; mend mounts it again.
func brokenDisk(t *testing.T) (dir string, fail, mend func()) {
	t.Helper()
	image, dir := filepath.Join(t.TempDir(), "image"), t.TempDir()
	run := func(c ...string) error {
		out, err := exec.Command(c[0], c[1:]...).CombinedOutput()
		if err != nil {
			return fmt.Errorf("%v: %w: %s", c, err, out)
		}
		return nil
	}
	for _, c := range [][]string{
		{"truncate", "-s", "100M", image},
		{"mkfs.ext4", "-q", image},
		{"mount", "-o", "loop", image, dir},
	} {
		if err := run(c...); err != nil {
			t.Skipf("no file system can be made in a file here: %v", err)
		}
	}
	t.Cleanup(func() { _ = run("umount", "-l", dir) })
	fail = func() {
		t.Helper()
		d, err := os.Open(dir)
		if err != nil {
			t.Fatal(err)
		}
		defer d.Close()
		// FS_IOC_GOINGDOWN without writing the journal.
		const goingDown, noFlush = 0x8004587d, 2
		flags := uint32(noFlush)
		if _, _, errno := syscall.Syscall(syscall.SYS_IOCTL, d.Fd(), goingDown, uintptr(unsafe.Pointer(&flags))); errno != 0 {
			t.Skipf("the file system cannot be made to fail here: %v", errno)
		}
	}
	mend = func() {
		t.Helper()
		// Who has a file open there keeps the broken one alive: a copy takes its place.
		for _, c := range [][]string{{"umount", "-l", dir}, {"cp", "--sparse=always", image, image + "2"}, {"mount", "-o", "loop", image + "2", dir}} {
			if err := run(c...); err != nil {
				t.Fatal(err)
			}
		}
	}
	return dir, fail, mend
}

// A disk that fails to write, and loses what was not synced: nothing is confirmed on
// it any more; when it can be used again everything that was confirmed is there.
func TestWriteError(t *testing.T) {
	t.Parallel()
	disk, fail, mend := brokenDisk(t)
	o := testOptions(t, filepath.Join(disk, "nats"))
	o.Log, o.Timeout, o.Lease = o.Log.Level(zerolog.PanicLevel), time.Second, 2*time.Second
	q := open(t, o)
	if err := q.Setup(t.Context(), []string{"office"}); err != nil {
		t.Fatal(err)
	}
	p := peerOf(t, q, &link{})
	for i := range 50 {
		publish(t, p, update("office", i, contact.Live, i))
	}
	fail()
	if confirmed := fill(t, p, 100); confirmed > 0 {
		t.Errorf("update %d was confirmed by a disk that does not write", confirmed)
	}
	eventually(t, 15*time.Second, "it is not ready", func() bool { return q.Ready(t.Context()) != nil })
	t.Logf("%s", q.keeper.Load().health().Text)
	mend()
	began := time.Now()
	eventually(t, time.Minute, "it is ready again", func() bool { return q.Ready(t.Context()) == nil })
	t.Logf("ready again after %s", time.Since(began).Round(time.Millisecond))
	eventually(t, 20*time.Second, "the other process is connected again", func() bool { return p.Ready(t.Context()) == nil })
	if got := everything(t, own(t, p, "office").source(t)); len(got) < 50 {
		t.Errorf("%d updates of 50", len(got))
	}
	if h := q.keeper.Load().health(); len(h.Losses) > 0 || h.Restarts == 0 {
		t.Errorf("%+v", h)
	}
}
