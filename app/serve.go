package app

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"
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
	var running sync.WaitGroup // what the page began
	o := console.Options{
		Version: a.o.Version,
		Ready:   a.Ready,
		Note:    a.notes,
		Status:  func(ctx context.Context) (any, error) { return a.Status(ctx) },
		Dead:    a.newestDead,
		Groups:  a.consoleGroups,
		Letter:  func(ctx context.Context, id uint64) (any, error) { return a.Letter(ctx, id) },
		Redrive: a.consoleRedrive(ctx, &running),
		Discard: a.consoleDiscard(ctx, &running),
		Steer:   a.steering,
		Metrics: a.Metrics(),
		Log:     a.o.Log,
	}
	if !h.Token.IsZero() {
		o.Token = h.Token.Read
	}
	addr, served, err := console.Serve(ctx, h.Listen, console.New(o), a.o.Log)
	if err != nil {
		return "", nil, err
	}
	return addr, func() error {
		err := served() // nothing new is begun after it
		running.Wait()
		return err
	}, nil
}

// notes are what should be looked at though work can be done.
func (a *App) notes(ctx context.Context) string {
	var parts []string
	if h, ok, err := a.q.Health(ctx); err == nil && ok && !h.OK() {
		parts = append(parts, h.Text)
	}
	if d := a.Durability(ctx); !d.OK() {
		parts = append(parts, "not durable: "+d.Text)
	}
	return strings.Join(parts, "; ")
}

// steering carries out what the console's buttons say.
func (a *App) steering(ctx context.Context, target string, s console.Steering) error {
	who := consoleUser(s.By)
	if s.Hold {
		return a.Hold(ctx, who, target, s.Note, s.Until)
	}
	if s.Storm == "" {
		return a.Resume(ctx, who, target)
	}
	_, err := a.ResumeStorm(ctx, who, target, AfterStorm(s.Storm))
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
// q.After.
func (a *App) newestDead(ctx context.Context, q console.DeadQuery) (any, error) {
	f, err := a.consoleFilter(ctx, q)
	if err != nil {
		return nil, err
	}
	f.Newest, f.After, f.Limit = true, q.After, q.Limit+1 // one more, to see whether there are more
	page := newest{Letters: []consoleLetter{}}
	err = a.Dead(ctx, f, func(l Letter) error {
		page.Letters = append(page.Letters, consoleLetter{Letter: l, ID: strconv.FormatUint(l.ID, 10), At: l.Ended})
		return nil
	})
	if len(page.Letters) > q.Limit {
		page.Letters = page.Letters[:q.Limit]
		page.Next = page.Letters[q.Limit-1].ID
	}
	return page, err
}

func (a *App) consoleFilter(ctx context.Context, q console.DeadQuery) (DeadFilter, error) {
	f := DeadFilter{Target: q.Target, Group: q.Group}
	if q.Reason != contact.NoReason {
		f.Reason = q.Reason.String()
	}
	if q.Target == "" {
		return f, nil
	}
	return f, a.known(ctx, q.Target)
}
