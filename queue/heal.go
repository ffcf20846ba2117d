package queue

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"time"
)

// healSpace is how much must be free, of a disk that was full, before the server is
// started again: an eighth of what is kept free, within bounds.
func (k *keeper) healSpace() int64 {
	k.mu.Lock()
	defer k.mu.Unlock()
	return min(max(k.now.MinFree/8, 1<<20), 64<<20)
}

// heal starts the server again, once there is hope, and says whether all is well
// then. A store that failed for another reason than a full disk is not used in
// between: what it confirms may be nowhere.
func (k *keeper) heal(ctx context.Context) bool {
	k.mu.Lock()
	full, free, sized := k.full, k.now.Free, k.now.Size > 0
	k.mu.Unlock()
	if full && sized && free < k.healSpace() {
		return false
	}
	began := time.Now()
	err := k.restart(ctx)
	if ctx.Err() != nil {
		return false
	}
	if err != nil {
		k.mu.Lock()
		same := k.failed == err.Error()
		k.failed, k.full = err.Error(), isFull(err.Error())
		k.mu.Unlock()
		if !same {
			k.q.log.Error().Err(err).Msg("the store cannot be started again; trying on")
		}
		return false
	}
	losses := k.marks.read().Losses
	k.mu.Lock()
	k.failed, k.full, k.trial, k.misses = "", false, nil, 0
	k.known = map[string]mark{}
	k.now.Losses = losses
	k.now.Restarts++
	k.mu.Unlock()
	k.q.log.Warn().Dur("took", time.Since(began)).Int("losses", len(losses)).Msg("the embedded server was started again on its store")
	poke(k.rub)
	return true
}

// restart ends the server, looks at all of the store, and starts it again at the
// same address. The connections of all processes come back by themselves.
func (k *keeper) restart(ctx context.Context) error {
	srv := k.srv
	srv.halt()
	select {
	case <-srv.fault: // of the server that has ended
	default:
	}
	k.mu.Lock()
	known := maps.Clone(k.known)
	k.mu.Unlock()
	if err := k.write(known, nil); err != nil {
		return err
	}
	if _, err := os.Stat(srv.store.streams()); errors.Is(err, fs.ErrNotExist) && len(srv.store.marks.read().Streams) > 0 {
		return fmt.Errorf("%s is gone: put it back or restore it from a backup; until then nothing is stored, and nothing is lost that is not lost already", srv.store.streams())
	}
	if err := srv.lockAgain(); err != nil {
		return err
	}
	limited, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	srv.store.open = nil
	if err := srv.start(limited, true); err != nil {
		srv.halt()
		return err
	}
	err := k.q.connected(limited)
	if err == nil {
		err = k.q.afterStart(limited)
	}
	if err != nil {
		srv.halt()
	}
	return err
}

// lockAgain takes the lock of a folder that was put back in another's place.
func (srv *embedded) lockAgain() error {
	srv.mu.Lock()
	held := srv.lock
	srv.mu.Unlock()
	if held != nil && held.in(filepath.Join(srv.conf.Dir, lockName)) {
		return nil
	}
	if held != nil {
		held.release()
	}
	return srv.takeLock()
}

// connected waits for the connection to come back.
func (q *Queue) connected(ctx context.Context) error {
	for n := 0; !q.nc.IsConnected(); n++ {
		if !sleep(ctx, 20*time.Millisecond) {
			return fmt.Errorf("queue: %w: the connection to the embedded server does not come back", ErrUnreachable)
		}
	}
	return nil
}
