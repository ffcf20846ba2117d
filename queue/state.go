package queue

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"strings"
)

var keyPattern = regexp.MustCompile(`^[A-Za-z0-9_=-]+(\.[A-Za-z0-9_=-]+)*$`)

// Keys of the state that processes share, each followed by a target's name; what
// an operator wants may be of more than targets.
const (
	KeyDesired = "desired." // what the operator wants: hold, limits
	KeyLive    = "live."    // what the lane does, waits for and has spent
)

// KeyShared is the key, followed by a group's name, of what a quota that
// several targets share has been used for.
const KeyShared = "shared."

func checkKey(key string) error {
	if !keyPattern.MatchString(key) || len(key) > 256 {
		return fmt.Errorf("queue: key %q: use words of letters, digits, _, = and - with dots between", key)
	}
	return nil
}

// Put stores a value, as JSON, under a key of the shared state.
func (q *Queue) Put(ctx context.Context, key string, v any) error {
	if err := checkKey(key); err != nil {
		return err
	}
	b, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("queue: state %s: %w", key, err)
	}
	if _, err := q.state.put(ctx, key, b, anyRevision); err != nil {
		return fmt.Errorf("queue: store state %s: %w", key, err)
	}
	return nil
}

// Get reads a key of the shared state into v. found is false where there is
// none; v is not touched then.
func (q *Queue) Get(ctx context.Context, key string, v any) (found bool, err error) {
	found, _, err = q.GetAt(ctx, key, v)
	return found, err
}

// GetAt is [Queue.Get] with the key's revision, for [Queue.PutAt]: 0 where it was
// never written.
func (q *Queue) GetAt(ctx context.Context, key string, v any) (found bool, rev uint64, err error) {
	if err := checkKey(key); err != nil {
		return false, 0, err
	}
	e, err := q.state.get(ctx, key)
	if err != nil {
		return false, 0, fmt.Errorf("queue: read state %s: %w", key, err)
	}
	if e.gone {
		return false, e.rev, nil
	}
	if err := json.Unmarshal(e.value, v); err != nil {
		return false, e.rev, fmt.Errorf("queue: state %s: %w", key, err)
	}
	return true, e.rev, nil
}

// PutAt is [Queue.Put] on the condition that the key's revision is still the one
// given. It returns the new one; the error wraps [ErrChanged] where somebody
// else has written the key meanwhile. After any other error the value may have
// been stored.
func (q *Queue) PutAt(ctx context.Context, key string, v any, rev uint64) (uint64, error) {
	if err := checkKey(key); err != nil {
		return 0, err
	}
	b, err := json.Marshal(v)
	if err != nil {
		return 0, fmt.Errorf("queue: state %s: %w", key, err)
	}
	next, err := q.state.put(ctx, key, b, int64(rev))
	if apiErrorOf(err).ErrCode == errWrongLast {
		return 0, fmt.Errorf("queue: store state %s: %w", key, ErrChanged)
	}
	if err != nil {
		return 0, fmt.Errorf("queue: store state %s: %w", key, err)
	}
	return next, nil
}

// Delete removes a key of the shared state; it is no error where there is none.
func (q *Queue) Delete(ctx context.Context, key string) error {
	if err := checkKey(key); err != nil {
		return err
	}
	if err := q.state.delete(ctx, key); err != nil {
		return fmt.Errorf("queue: delete state %s: %w", key, err)
	}
	return nil
}

// Watch calls f, from one goroutine at a time, for every key of the shared state
// that begins with prefix, and then for each change, with nil for a key that was
// deleted, until the context ends; it returns nil then. An interruption is
// mended by reading everything again. The prefix is whole words: "live." or
// "desired.office", or "" for all.
func (q *Queue) Watch(ctx context.Context, prefix string, f func(key string, raw []byte)) error {
	match := ">"
	if prefix != "" {
		word, all := strings.CutSuffix(prefix, ".")
		if err := checkKey(word); err != nil {
			return err
		}
		match = word
		if all {
			match = prefix + ">"
		}
	}
	err := q.state.watch(ctx, match, nil, func(e entry) {
		if e.gone {
			f(e.key, nil)
			return
		}
		f(e.key, e.value)
	})
	if ctx.Err() != nil && errors.Is(err, ctx.Err()) {
		return nil
	}
	return err
}
