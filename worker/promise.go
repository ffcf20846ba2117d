package worker

import (
	"context"
	"math"
	"slices"
	"time"
)

// promiseLongest is up to how long a call waits for a request that was promised
// to it: at any rate one comes by more often.
const promiseLongest = time.Minute

// place is a request that is promised to a call: what comes behind it waits until it
// has had its own.
type place struct{ _ byte }

// promise keeps the next request for a call that has something to do before it
// can be sent: what is paid for and sent later would arrive together with what
// was paid for since. Each promise is ended by [Budget.redeem].
func (b *Budget) promise() *place {
	p := &place{}
	b.mu.Lock()
	b.places = append(b.places, p)
	b.mu.Unlock()
	return p
}

// redeem spends a request that was promised as soon as it may be sent. It ends
// with an error where ctx does, or where there is no room for it for so long that
// the call had better come again.
func (b *Budget) redeem(ctx context.Context, p *place) error {
	return b.redeemWithin(ctx, p, promiseLongest)
}

// spend waits until one request may be sent and spends it. Those that wait have
// their turns in the order in which they came, and before a call that is not
// begun: what a call has read must not grow old.
func (b *Budget) spend(ctx context.Context) error {
	return b.redeemWithin(ctx, b.promise(), math.MaxInt64)
}

func (b *Budget) redeemWithin(ctx context.Context, p *place, longest time.Duration) error {
	defer b.ring()
	defer func() {
		b.mu.Lock()
		b.places = slices.DeleteFunc(b.places, func(q *place) bool { return q == p })
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
		ahead := slices.Index(b.places, p)
		if b.tryLocked(now, ahead) {
			b.places = slices.Delete(b.places, ahead, ahead+1) // those behind it must not wait for it twice
			return true, now
		}
		at, _ := b.whenLocked(now, ahead, 1)
		if full = at.Sub(now) > longest; full {
			stop()
		}
		return false, at
	})
	if full {
		return errNoQuota
	}
	return err
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
