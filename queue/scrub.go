package queue

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"time"
)

// scrubRate is how fast message files are read, in bytes a second: slow enough for
// nobody to notice, and a backlog of gigabytes is read within a minute all the same.
const scrubRate = 64 << 20

// scrubAll reads all message files once a minute, or when told to: a bit that turned
// over is found before the message is needed, not when.
func (k *keeper) scrubAll(ctx context.Context) {
	t := time.NewTimer(scrubEach / 4) // a start does not read all
	defer t.Stop()
	for {
		select {
		case <-t.C:
		case <-k.rub:
		case <-ctx.Done():
			return
		}
		began := time.Now()
		if !k.down() {
			bad, err := k.scrub(ctx)
			switch {
			case ctx.Err() != nil:
				return
			case err != nil:
				k.q.log.Warn().Err(err).Msg("message files could not be read; trying on")
			case bad != "":
				k.fail(bad, false)
			default:
				k.mu.Lock()
				k.now.Checked = began.UTC()
				k.mu.Unlock()
			}
		}
		t.Reset(max(scrubEach-time.Since(began), time.Second))
	}
}

// scrub reads the message files of all streams and says what is wrong with one.
func (k *keeper) scrub(ctx context.Context) (bad string, err error) {
	names, err := streamDirs(k.srv.store.streams())
	if err != nil {
		return "", err
	}
	for _, name := range names {
		if !ours(name) {
			continue
		}
		bad, err := k.scrubStream(ctx, name)
		if bad == "" || err != nil {
			if err != nil {
				return "", err
			}
			continue
		}
		// Files change while they are read; what is damaged stays so.
		if !sleep(ctx, time.Second) {
			return "", ctx.Err()
		}
		if again, err := k.scrubStream(ctx, name); err != nil || again == bad {
			return again, err
		}
	}
	return "", nil
}

// scrubStream says what is wrong with the message files of a stream, "" for nothing.
func (k *keeper) scrubStream(ctx context.Context, name string) (string, error) {
	before, err := k.q.info(ctx, name)
	if errors.Is(err, ErrNotSetUp) {
		return "", nil // it has just been removed, or is being made
	}
	if err != nil {
		return "", err
	}
	path := k.srv.store.path(name)
	d, err := readStream(path, name, func(n int) { sleep(ctx, time.Duration(n)*time.Second/scrubRate) })
	switch {
	case ctx.Err() != nil:
		return "", ctx.Err()
	case errors.Is(err, fs.ErrNotExist):
		return "", nil
	case err != nil:
		return "", err
	case d.opaque:
		return "", nil
	}
	for i, b := range d.blocks {
		for _, dmg := range b.damaged {
			if i == len(d.blocks)-1 && !dmg.whole && dmg.to == len(b.raw) {
				continue // a record that is being written
			}
			return fmt.Sprintf("message block %d of stream %s is damaged at byte %d", b.index, name, dmg.from), nil
		}
	}
	return k.absent(ctx, d, before.State.LastSeq)
}

// absent says which messages the server has and no file holds.
func (k *keeper) absent(ctx context.Context, d *diskStream, upto uint64) (string, error) {
	after, err := k.q.info(ctx, d.name)
	if errors.Is(err, ErrNotSetUp) {
		return "", nil
	}
	if err != nil {
		return "", err
	}
	want := spans{}.add(after.State.FirstSeq, upto).minus(d.live)
	if want.count() <= uint64(after.State.NumDeleted) {
		return "", nil
	}
	holes, err := k.q.holesOf(ctx, d.name)
	if err != nil {
		return "", err
	}
	if want = want.minus(holes); len(want) > 0 {
		return fmt.Sprintf("messages %s of stream %s are in no file", want, d.name), nil
	}
	return "", nil
}
