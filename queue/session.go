package queue

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nuid"
)

// Session is a live worker process.
type Session struct {
	ID      string    `json:"id"`
	Host    string    `json:"host"`
	PID     int       `json:"pid"`
	Started time.Time `json:"started"`
	Version string    `json:"version,omitempty"`
	Targets []string  `json:"targets"` // that it takes part in
	// Groups has for those of its targets that share a budget the group's
	// name.
	Groups  map[string]string `json:"groups,omitempty"`
	Leaving bool              `json:"leaving,omitempty"` // it is about to end and takes nothing more
}

// Sessions lists the live worker processes, by host, process and id.
func (q *Queue) Sessions(ctx context.Context) ([]Session, error) {
	var out []Session
	err := q.sessions.each(ctx, ">", func(e entry) error {
		var s Session
		if err := json.Unmarshal(e.value, &s); err != nil {
			return fmt.Errorf("queue: session %s: %w", e.key, err)
		}
		out = append(out, s)
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("queue: list sessions: %w", err)
	}
	slices.SortFunc(out, func(a, b Session) int {
		if c := strings.Compare(a.Host, b.Host); c != 0 {
			return c
		}
		if a.PID != b.PID {
			return a.PID - b.PID
		}
		return strings.Compare(a.ID, b.ID)
	})
	return out, nil
}

// SessionLease is how long a session lives without renewal. It is a setting of
// the bucket, so that all processes share it; [Options.Lease] counts only where
// Setup creates the bucket.
func (q *Queue) SessionLease(ctx context.Context) (time.Duration, error) {
	info, err := q.info(ctx, q.sessions.stream())
	if err != nil {
		return 0, err
	}
	return info.Config.MaxAge, nil
}

// session is our own: a key with a lifetime that is renewed. Ownership rests on
// it: once it cannot be renewed, everything that was owned with it is lost,
// before anybody else can see it expire.
type session struct {
	q     *Queue
	id    string
	lease time.Duration
	ctx   context.Context // ends with ErrLost when the session was lost
	fail  context.CancelCauseFunc
	ended chan struct{}
	now   chan struct{} // renew at once

	abandoned atomic.Bool // a call may still be at work for a target of ours

	mu       sync.Mutex
	info     Session
	deadline time.Time
}

func (s *session) until() time.Time {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.deadline
}

// openSession registers a new session and keeps it.
func (q *Queue) openSession(ctx context.Context, targets []string, groups map[string]string) (*session, error) {
	lease, err := q.SessionLease(ctx)
	if err != nil {
		return nil, err
	}
	if lease < minLease {
		return nil, fmt.Errorf("queue: bucket %s has no lifetime of at least %s; delete it and run \"crmsync setup\"", q.sessions.name, minLease)
	}
	host, _ := os.Hostname() // for people only
	s := &session{
		q: q, id: q.nextSession(), lease: lease, ended: make(chan struct{}), now: make(chan struct{}, 1),
	}
	s.info = Session{ID: s.id, Host: host, PID: os.Getpid(), Started: time.Now().UTC(), Version: version(), Targets: targets, Groups: groups}
	began := time.Now()
	rev, err := q.sessions.put(ctx, s.id, s.value(), 0)
	if err != nil {
		s.forgo() // it may have been stored: others would wait for it to expire
		return nil, fmt.Errorf("queue: register the session: %w", err)
	}
	s.renewed(began)
	s.ctx, s.fail = context.WithCancelCause(q.life)
	q.run(func() { s.keep(rev) })
	return s, nil
}

func (q *Queue) nextSession() string {
	if q.opt.ID == "" {
		return nuid.Next()
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	q.opened++
	return fmt.Sprintf("%s-%d", q.opt.ID, q.opened)
}

func (s *session) value() []byte {
	s.mu.Lock()
	defer s.mu.Unlock()
	b, err := json.Marshal(s.info)
	if err != nil {
		panic(err) // strings, numbers and a time
	}
	return b
}

// renewed notes a renewal that was sent at an instant. The margin, an eighth of
// the lease, covers clocks that run at different speeds.
func (s *session) renewed(began time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.deadline = began.Add(s.lease - s.lease/8)
}

// keep renews the session six times in its lifetime and does nothing else.
func (s *session) keep(rev uint64) {
	defer close(s.ended)
	t := time.NewTimer(s.lease / 6)
	defer t.Stop()
	for {
		select {
		case <-t.C:
		case <-s.now:
		case <-s.ctx.Done():
			return
		}
		left := time.Until(s.until())
		if left <= 0 {
			s.fail(fmt.Errorf("%w: the session could not be renewed in time", ErrLost))
			return
		}
		ctx, cancel := context.WithTimeout(s.ctx, min(left, s.lease/3))
		began := time.Now()
		next, err := s.q.sessions.put(ctx, s.id, s.value(), int64(rev))
		wait := s.lease / 6
		switch {
		case err == nil:
			rev = next
			s.renewed(began)
		case apiErrorOf(err).ErrCode == errWrongLast:
			// Either the key expired, or an earlier renewal was stored
			// and its answer lost: nobody else writes it.
			e, err := s.q.sessions.get(ctx, s.id)
			if err == nil && e.gone {
				cancel()
				s.fail(fmt.Errorf("%w: the session expired", ErrLost))
				return
			}
			if err == nil {
				rev = e.rev
			}
			wait = 0
		default:
			wait = s.lease / 24
		}
		cancel()
		t.Reset(min(wait, max(0, time.Until(s.until()))))
	}
}

// leave tells the others that this session takes nothing more.
func (s *session) leave() {
	s.mu.Lock()
	s.info.Leaving = true
	s.mu.Unlock()
	poke(s.now)
}

// close ends the session; where it was not lost, the others see it at once,
// unless something of it was abandoned.
func (s *session) close() {
	s.fail(ErrLost)
	<-s.ended
	if s.abandoned.Load() {
		return // it expires
	}
	s.forgo()
}

// forgo removes the session's key.
func (s *session) forgo() {
	ctx, cancel := context.WithTimeout(context.Background(), min(s.lease, s.q.timeout))
	defer cancel()
	if s.q.nc.IsConnected() {
		_ = s.q.sessions.delete(ctx, s.id) // or it expires
	}
}

func version() string {
	if b, ok := debug.ReadBuildInfo(); ok {
		return b.Main.Version
	}
	return ""
}
