package main

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

	"crmsync/app"
)

// mounted mounts a small file system for a store; the test is skipped where that is
// not allowed.
func mounted(t *testing.T, megabytes int) string {
	t.Helper()
	skipShort(t)
	dir := t.TempDir()
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, fmt.Sprintf("size=%dm", megabytes)); err != nil {
		t.Skipf("no file system can be mounted here: %v", err)
	}
	t.Cleanup(func() { _ = syscall.Unmount(dir, syscall.MNT_DETACH) })
	return dir
}

// TestFaultDiskFull fills the disk of the store under a worker that hosts the server,
// and frees it again.
func TestFaultDiskFull(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute+time.Duration(*faultRounds)*20*time.Second)
	defer cancel()
	n := roundsOf(1, 0.05)
	disk := mounted(t, 48)
	w := newFaultWorld(t, "disk full and free again", 600*n, demoOffice, demoShop)
	w.row.rounds = n
	w.within(ctx, "--data", filepath.Join(disk, "data"), "--set", "store.min_free=1MiB")
	wait := w.publishing(ctx, time.Duration(n)*6*time.Second)
	for range n {
		w.must(pause(ctx, time.Second+time.Duration(w.rng.IntN(1000))*time.Millisecond))
		at := w.crash() // sessions may be lost
		ballast := filepath.Join(disk, "ballast")
		w.fill(ballast)
		began := time.Now()
		w.insist(ctx, 20*time.Second, func() error {
			if h, ok, err := w.app.Store(ctx); err == nil && ok && h.OK() {
				return errors.New("the store says that all is well")
			}
			return nil
		})
		noticed := time.Since(began)
		w.must(pause(ctx, time.Duration(w.rng.IntN(3000))*time.Millisecond))
		w.must(os.Remove(ballast))
		began = time.Now()
		w.insist(ctx, time.Minute, func() error {
			h, ok, err := w.app.Store(ctx)
			if err == nil && (!ok || !h.OK()) {
				err = fmt.Errorf("the store is %s: %s", h.State, h.Text)
			}
			return err
		})
		w.row.note = fmt.Sprintf("noticed within %s, healed within %s", noticed.Round(10*time.Millisecond), time.Since(began).Round(10*time.Millisecond))
		w.heir(ctx, at)
		w.crash()
	}
	wait()
	w.until(ctx, "all has ended", time.Minute, allEnded)
	w.must(w.stop(ctx))
	w.judgeWithin(ctx)
}

// fill writes a file until the disk is full.
func (w *faultWorld) fill(path string) {
	w.t.Helper()
	f, err := os.Create(path)
	w.must(err)
	chunk := make([]byte, 32<<10)
	for {
		if _, err := f.Write(chunk); err != nil {
			break
		}
	}
	w.must(f.Close())
}

// cutDisk is a file system in a file for a store, whose power can be cut: what was
// not synced is gone then. A skipped test says why.
type cutDisk struct {
	w     *faultWorld
	image string
	dir   string
	cuts  int
}

func sh(c ...string) error {
	out, err := exec.Command(c[0], c[1:]...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("%v: %w: %s", c, err, out)
	}
	return nil
}

func newCutDisk(t *testing.T) *cutDisk {
	t.Helper()
	skipShort(t)
	d := &cutDisk{image: filepath.Join(t.TempDir(), "image"), dir: t.TempDir()}
	for _, c := range [][]string{{"truncate", "-s", "128M", d.image}, {"mkfs.ext4", "-q", d.image}, {"mount", "-o", "loop", d.image, d.dir}} {
		if err := sh(c...); err != nil {
			t.Skipf("no file system can be made in a file here: %v", err)
		}
	}
	t.Cleanup(func() { _ = sh("umount", "-l", d.dir) })
	return d
}

// cut stops the file system where it is, its journal unwritten, then kills who uses
// it, and mounts what would be found on the disk.
func (d *cutDisk) cut(kill func()) {
	t := d.w.t
	t.Helper()
	f, err := os.Open(d.dir)
	if err != nil {
		t.Fatal(err)
	}
	const goingDown, noFlush = 0x8004587d, 2 // FS_IOC_GOINGDOWN
	flags := uint32(noFlush)
	_, _, errno := syscall.Syscall(syscall.SYS_IOCTL, f.Fd(), goingDown, uintptr(unsafe.Pointer(&flags)))
	_ = f.Close()
	if errno != 0 {
		t.Skipf("the file system cannot be cut off here: %v", errno)
	}
	kill()
	d.cuts++
	next := fmt.Sprint(d.image, "-", d.cuts)
	for _, c := range [][]string{{"umount", "-l", d.dir}, {"cp", "--sparse=always", d.image, next}, {"rm", d.image}, {"mount", "-o", "loop", next, d.dir}} {
		if err := sh(c...); err != nil {
			t.Fatal(err)
		}
	}
	d.image = next
}

// TestFaultPowerCut cuts the power of the disk at random moments: everything that was
// confirmed before is there after it.
func TestFaultPowerCut(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute+time.Duration(*faultRounds)*20*time.Second)
	defer cancel()
	n := roundsOf(2, 0.2)
	d := newCutDisk(t)
	w := newFaultWorld(t, "power cut of the store's disk", 150*n, demoOffice, demoShop)
	w.row.rounds = n
	d.w = w
	w.within(ctx, "--data", filepath.Join(d.dir, "data"), "--set", "store.min_free=off")
	wait := w.publishing(ctx, time.Duration(n)*2*time.Second)
	for range n {
		w.must(pause(ctx, time.Second+time.Duration(w.rng.IntN(1500))*time.Millisecond))
		w.calls(300 * time.Millisecond)
		var at time.Time
		before := w.crash() // between the cut and the kill nothing can be confirmed
		d.cut(func() { at = w.killed() })
		w.must(w.work())
		w.heir(ctx, at)
		if h, ok, err := w.app.Store(ctx); err != nil || !ok || len(h.Losses) > 0 {
			t.Errorf("after the cut at %s: %+v, %v", before, h, err)
		}
	}
	wait()
	w.until(ctx, "all has ended", time.Minute, allEnded)
	w.must(w.stop(ctx))
	w.judgeWithin(ctx)
}

// TestFaultDescriptors leaves a worker that hosts the server no file descriptor more
// than it has: it does not spin, and goes on within ten seconds once it may have some.
func TestFaultDescriptors(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute+time.Duration(*faultRounds)*20*time.Second)
	defer cancel()
	if *faultRounds == 0 {
		t.Skip("in the long form only: -faults")
	}
	n := roundsOf(1, 0.05)
	w := newFaultWorld(t, "no file descriptor left", 400*n, demoOffice, demoShop)
	w.row.rounds = n
	w.within(ctx)
	wait := w.publishing(ctx, time.Duration(n)*5*time.Second)
	for range n {
		worker := w.current()
		w.must(pause(ctx, time.Second))
		at := w.crash()
		few := min(64, openFiles(worker.pid)-2)
		w.must(limitDescriptors(worker.pid, uint64(few)))
		before, began := w.cpu(worker.pid), time.Now()
		w.must(pause(ctx, 4*time.Second))
		used := w.cpu(worker.pid) - before
		share := used.Seconds() / time.Since(began).Seconds()
		if share > 0.5 {
			t.Errorf("it used %.0f %% of a core", 100*share)
		}
		w.must(limitDescriptors(worker.pid, 65536))
		w.must(w.alive())
		freed := time.Now()
		w.insist(ctx, 30*time.Second, func() error {
			h, ok, err := w.app.Store(ctx)
			if err == nil && (!ok || h.State == app.StoreFailed) {
				err = fmt.Errorf("the store is %s: %s", h.State, h.Text)
			}
			return err
		})
		w.row.note = fmt.Sprintf("at most %d, CPU %.0f %%, healed within %s", few, 100*share, time.Since(freed).Round(10*time.Millisecond))
		w.heir(ctx, at)
		w.crash()
	}
	wait()
	if w.logged("too many open files") == 0 {
		t.Error("the worker had file descriptors enough: there is nothing to see")
	}
	w.until(ctx, "all has ended", time.Minute, allEnded)
	w.must(w.stop(ctx))
	w.judgeWithin(ctx)
}

func limitDescriptors(pid int, n uint64) error {
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil { // the worker has inherited ours
		return err
	}
	limit.Cur = min(n, limit.Max)
	_, _, errno := syscall.RawSyscall6(syscall.SYS_PRLIMIT64, uintptr(pid), syscall.RLIMIT_NOFILE, uintptr(unsafe.Pointer(&limit)), 0, 0, 0)
	if errno != 0 {
		return errno
	}
	return nil
}

func openFiles(pid int) int {
	all, _ := os.ReadDir(fmt.Sprintf("/proc/%d/fd", pid))
	return len(all)
}

// cpu is what a process has used.
func (w *faultWorld) cpu(pid int) time.Duration {
	w.t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	w.must(err)
	f := strings.Fields(string(b)[strings.LastIndexByte(string(b), ')')+1:])
	var user, system int64
	_, err = fmt.Sscan(f[11]+" "+f[12], &user, &system)
	w.must(err)
	return time.Duration(user+system) * 10 * time.Millisecond
}
