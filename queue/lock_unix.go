//go:build unix

package queue

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"syscall"
)

// lockFile keeps other processes out of a store. It holds the process id and,
// a line each, the sessions that this process has opened.
type lockFile struct {
	mu     sync.Mutex
	f      *os.File
	former []string // sessions of the process that held it before
}

func lockStore(path string) (*lockFile, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	pid, _ := readLock(f)
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		_ = f.Close()
		if errors.Is(err, syscall.EWOULDBLOCK) {
			return nil, fmt.Errorf("%w (pid %s); use its server with --server, or another --data directory", ErrLocked, pid)
		}
		return nil, err
	}
	_, former := readLock(f)
	l := &lockFile{f: f, former: former}
	return l, l.write(append([]string{fmt.Sprint(os.Getpid())}, former...))
}

func readLock(f *os.File) (pid string, sessions []string) {
	if _, err := f.Seek(0, 0); err != nil {
		return "unknown", nil
	}
	s := bufio.NewScanner(f)
	for s.Scan() {
		if pid == "" {
			pid = s.Text()
		} else if s.Text() != "" {
			sessions = append(sessions, s.Text())
		}
	}
	if pid == "" {
		pid = "unknown"
	}
	return pid, sessions
}

func (l *lockFile) write(lines []string) error {
	if err := l.f.Truncate(0); err != nil {
		return err
	}
	_, err := l.f.WriteAt([]byte(strings.Join(lines, "\n")+"\n"), 0)
	return err
}

// note writes down a session of this process before it is opened.
func (l *lockFile) note(session string) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.write([]string{fmt.Sprint(os.Getpid()), session})
}

func (l *lockFile) release() {
	_ = l.f.Close() // which unlocks it
}
