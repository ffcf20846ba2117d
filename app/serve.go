package app

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"time"

	"crmsync/console"
	"crmsync/contact"
)

// Serve answers on the configured address: health, readiness, metrics, API and
// page, until ctx ends. It returns the address once it listens; wait returns
// when it has stopped. With no address configured it does nothing.
func (a *App) Serve(ctx context.Context) (addr string, wait func() error, err error) {
	h := a.cfg.HTTP
	if h.Listen == "" {
		return "", func() error { return nil }, nil
	}
	o := console.Options{
		Version: a.o.Version,
		Ready:   a.Ready,
		Status:  func(ctx context.Context) (any, error) { return a.Status(ctx) },
		Dead:    a.newestDead,
		Steer:   a.steering,
		Metrics: a.Metrics(),
		Log:     a.o.Log,
	}
	if !h.Token.IsZero() {
		o.Token = h.Token.Read
	}
	return console.Serve(ctx, h.Listen, console.New(o), a.o.Log)
}

// steering carries out what the console's buttons say.
func (a *App) steering(ctx context.Context, target string, s console.Steering) error {
	by := "console"
	if s.By != "" {
		by = s.By
	}
	if s.Hold {
		return a.Hold(ctx, target, by, s.Note, s.Until)
	}
	if s.Storm == "" {
		return a.Resume(ctx, target, by)
	}
	_, err := a.ResumeStorm(ctx, target, by, AfterStorm(s.Storm))
	if errors.Is(err, ErrNoStorm) {
		return fmt.Errorf("%w: %w", console.ErrConflict, err)
	}
	return err
}

// newest is a page of dead letters, newest first.
type newest struct {
	Letters []consoleLetter `json:"letters"`
	Next    string          `json:"next,omitempty"`
}

// consoleLetter is a letter in the console's own words.
type consoleLetter struct {
	Letter
	ID string    `json:"id"` // a string: JavaScript's numbers are too short
	At time.Time `json:"at"`
}

// newestDead lists the newest dead letters, behind (that is, older than)
// q.After. Most pages ask for the newest few, so it looks at the last hour
// first, and further back only where that does not fill the page.
func (a *App) newestDead(ctx context.Context, q console.DeadQuery) (any, error) {
	if q.Target != "" {
		if err := a.known(ctx, q.Target); err != nil {
			return nil, err
		}
	}
	f := DeadFilter{Target: q.Target}
	if q.Reason != contact.NoReason {
		f.Reason = q.Reason.String()
	}
	for _, back := range []time.Duration{time.Hour, 24 * time.Hour, 30 * 24 * time.Hour, 0} {
		f.Since = time.Time{}
		if back > 0 {
			f.Since = time.Now().Add(-back)
		}
		page, more, err := a.lastDead(ctx, f, q.After, q.Limit)
		if err != nil {
			return nil, err
		}
		if !more && back > 0 {
			continue
		}
		if more {
			page.Next = page.Letters[len(page.Letters)-1].ID
		}
		return page, nil
	}
	return newest{Letters: []consoleLetter{}}, nil
}

// lastDead reads the last letters that a filter chooses, of those before an id
// where that is not 0, and whether there are older ones.
func (a *App) lastDead(ctx context.Context, f DeadFilter, before uint64, limit int) (newest, bool, error) {
	var last []Letter
	more := false
	err := a.Dead(ctx, f, func(l Letter) error {
		if before != 0 && l.ID >= before {
			return nil
		}
		last = append(last, l)
		if len(last) > limit {
			last, more = last[1:], true
		}
		return nil
	})
	page := newest{Letters: make([]consoleLetter, 0, len(last))}
	for _, l := range slices.Backward(last) {
		page.Letters = append(page.Letters, consoleLetter{Letter: l, ID: strconv.FormatUint(l.ID, 10), At: l.Ended})
	}
	return page, more, err
}
