package worker

import (
	"context"
	"time"
)

// promiseLongest is up to how long a call waits for a request that was promised
// to it: at any rate one comes by more often.
const promiseLongest = time.Minute

// promise keeps the next request for a call that has something to do before it
// can be sent: what is paid for and sent later would arrive together with what
// was paid for since. Each promise is ended by [Budget.redeem].
func (b *Budget) promise() {
	b.mu.Lock()
	b.owed++
	b.mu.Unlock()
}

// redeem spends a request that was promised as soon as it may be sent. It ends
// with an error where ctx does, or where there is no room for it for so long that
// the call had better come again.
func (b *Budget) redeem(ctx context.Context) error {
	defer b.ring()
	defer func() {
		b.mu.Lock()
		b.owed--
		b.mu.Unlock()
	}()
	if err := ctx.Err(); err != nil {
		return err
	}
	full := false
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	err := b.await(ctx, func(now time.Time) (bool, time.Time) {
		b.mu.Lock()
		defer b.mu.Unlock()
		if b.tryLocked(now, 0) {
			return true, now
		}
		at, _ := b.whenLocked(now, 0, 1)
		if full = at.Sub(now) > promiseLongest; full {
			stop()
		}
		return false, at
	})
	if full {
		return errNoQuota
	}
	return err
}

// spend waits until one request may be sent and spends it.
func (b *Budget) spend(ctx context.Context) error {
	return b.await(ctx, func(now time.Time) (bool, time.Time) {
		if b.try(now) {
			return true, now
		}
		at, _ := b.when(now)
		return false, at
	})
}

// await waits until take, which says when to come again, has taken something.
func (b *Budget) await(ctx context.Context, take func(now time.Time) (bool, time.Time)) error {
	for {
		changed := b.changed()
		now := time.Now()
		taken, at := take(now)
		if taken {
			return ctx.Err()
		}
		timer := time.NewTimer(max(time.Microsecond, at.Sub(now)))
		select {
		case <-timer.C:
		case <-changed:
			timer.Stop()
		case <-ctx.Done():
			timer.Stop()
			return ctx.Err()
		}
	}
}
