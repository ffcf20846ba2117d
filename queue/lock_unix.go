//go:build unix

package queue

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"syscall"
)

// lockFile keeps other processes out of a store. It holds the process id.
type lockFile struct {
	f *os.File
}

func lockStore(path string) (*lockFile, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	pid := holder(f)
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		_ = f.Close()
		if errors.Is(err, syscall.EWOULDBLOCK) {
			return nil, fmt.Errorf("%w (pid %s); use its server with --server, or another --data directory", ErrLocked, pid)
		}
		return nil, err
	}
	l := &lockFile{f: f}
	if err := f.Truncate(0); err != nil {
		l.release()
		return nil, err
	}
	if _, err := f.WriteAt([]byte(fmt.Sprintln(os.Getpid())), 0); err != nil {
		l.release()
		return nil, err
	}
	return l, nil
}

// in says whether the lock is still the one of its folder.
func (l *lockFile) in(path string) bool {
	held, err := l.f.Stat()
	if err != nil {
		return false
	}
	there, err := os.Stat(path)
	return err == nil && os.SameFile(held, there)
}

// holder reads who holds the lock, for people.
func holder(f *os.File) string {
	b, err := io.ReadAll(io.LimitReader(f, 32))
	pid := strings.TrimSpace(string(b))
	if err != nil || pid == "" {
		return "unknown"
	}
	return pid
}

func (l *lockFile) release() {
	_ = l.f.Close() // which unlocks it
}
