package queue

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/rs/zerolog"

	"crmsync/contact"
)

// Errors that callers tell apart.
var (
	// ErrUnreachable is wrapped by errors that say that no NATS server
	// answered or that it refused us.
	ErrUnreachable = errors.New("NATS cannot be reached")
	// ErrUnled is wrapped where no server of a cluster answers for a stream: its
	// servers are gone, or are choosing a leader.
	ErrUnled = errors.New("no server of the cluster leads it at the moment")
	// ErrLocked is wrapped where another process uses the embedded server's
	// directory.
	ErrLocked = errors.New("the store is in use by another process")
	// ErrNotSetUp is wrapped where a stream that must exist does not.
	ErrNotSetUp = errors.New("not set up")
	// ErrFull is wrapped where a stream's quota is reached: nothing was
	// stored, and it may be tried again once updates have ended.
	ErrFull = errors.New("the queue is full")
	// ErrLost says that the target has another owner, or may have one: what
	// is known about it in memory is worthless and must be dropped.
	ErrLost = errors.New("the target is no longer ours")
	// ErrNotFound is wrapped where a record does not exist.
	ErrNotFound = errors.New("not found")
	// ErrChanged is wrapped where a key of the shared state, or the edit of a
	// letter, has been written since it was read: read it again.
	ErrChanged = errors.New("somebody else has changed it meanwhile")
	// ErrClosed says that the queue was closed.
	ErrClosed = errors.New("the queue is closed")
)

// Defaults of [Options].
const (
	DefaultTimeout      = 5 * time.Second
	DefaultLease        = 8 * time.Second  // one server
	DefaultLeaseCluster = 25 * time.Second // an election takes 4 to 9 s
	minLease            = time.Second
)

// Options say where the streams are. The zero value is the NATS default URL.
// The fields up to Domain have the meaning of the flags of the nats command.
type Options struct {
	URL      string // a list separated by commas; "" with Embedded nil: nats://127.0.0.1:4222
	Context  string // a named context of the nats command; other fields win over it
	Creds    string // credentials file
	NKey     string // NKey seed file
	User     string
	Password string
	TLSCert  string
	TLSKey   string
	TLSCA    string
	TLSFirst bool
	Timeout  time.Duration // of one request; 0: DefaultTimeout
	Domain   string        // JetStream domain
	// InboxPrefix replaces _INBOX, for servers whose permissions keep inboxes
	// apart.
	InboxPrefix string
	Embedded    *Embedded     // run a server in this process; nil: connect to one
	Name        string        // how the connection is called in NATS' own reports
	Replicas    int           // of streams that Setup creates; 0: 3 in a cluster that has so many servers, else 1
	Lease       time.Duration // lifetime of a session without renewal, used where Setup creates its bucket; 0: DefaultLease or DefaultLeaseCluster
	Log         zerolog.Logger
	// Dial, where it is set, makes the connections in place of URL: for a server
	// in this process that does not listen; see [Queue.Dial].
	Dial func() (net.Conn, error)
	// ID names the process's sessions, with a number behind it: no other process
	// that lives may have the same. It is of A-Za-z0-9_-; "" is a random name for
	// each.
	ID string
	// SessionsInMemory and InMemory have Setup keep the sessions, or everything, in
	// the server's memory. They are for tests in virtual time: a file store lets
	// keys expire by a clock of its own, and how long its writes take decides what
	// runs next. Nothing of that survives the server.
	SessionsInMemory bool
	InMemory         bool
	natsExtra        []nats.Option // tests cut and delay the connection with it
}

// Queue is a connection to the streams. [Open] makes one.
type Queue struct {
	opt     Options
	log     zerolog.Logger
	nc      *nats.Conn
	js      jetstream.JetStream
	api     string // prefix of JetStream's API subjects, with the last dot
	srv     *embedded
	timeout time.Duration
	limits  limits

	sessions bucket
	owners   bucket
	state    bucket
	letters  bucket

	life    context.Context // ends with Close
	stop    context.CancelFunc
	wg      sync.WaitGroup // goroutines started by this package
	engines sync.Once      // committers and loaders
	commits chan *commit
	loads   [contact.Classes]chan *load

	keeper   atomic.Pointer[keeper] // where this process looks after the store
	goneSome atomic.Bool            // gone is not empty
	jobsSome atomic.Bool            // jobs is not empty
	tally    tally
	// mendAfter is the constant; tests do not wait.
	mendAfter time.Duration
	// peersWait is the constant; tests do not wait.
	peersWait time.Duration

	mu       sync.Mutex
	targets  map[string]bool // set up or owned here; what Ready looks for
	trouble  error           // the server's last asynchronous complaint
	owning   bool
	closed   bool
	ended    map[string]bool // operations that were cancelled
	jobs     map[string]JobOrder
	sources  map[*Source]bool // that want to hear of orders
	session  string           // ours, while targets are owned
	opened   int              // sessions
	gone     map[contact.Key][contact.Classes]uint64
	breaks   map[int]context.CancelFunc // to call when the connection is new
	breakKey int
	roomErr  error // what was last said of the disk's space
	roomAt   time.Time
}

// Open connects, and starts the embedded server before where one is asked for.
// It creates nothing in JetStream; see [Queue.Setup]. The error wraps
// [ErrUnreachable], [ErrLocked] or [ErrDataGone] where they apply. Once it is open the
// connection is kept up for ever: while it is gone, calls fail or wait as they
// document.
func Open(ctx context.Context, o Options) (*Queue, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if o.Timeout <= 0 {
		o.Timeout = DefaultTimeout
	}
	q := &Queue{
		opt: o, log: o.Log, timeout: o.Timeout, limits: limits{window: Window, bytes: WindowBytes, span: Span, idle: maxIdle, infer: inferAbove},
		commits:   make(chan *commit, 4*maxBatch),
		mendAfter: mendAfter, peersWait: peersWait, targets: map[string]bool{}, ended: map[string]bool{}, jobs: map[string]JobOrder{}, sources: map[*Source]bool{}, gone: map[contact.Key][contact.Classes]uint64{}, breaks: map[int]context.CancelFunc{},
	}
	for c := range q.loads {
		q.loads[c] = make(chan *load, 2*prefetch)
	}
	q.life, q.stop = context.WithCancel(context.Background())
	if o.Embedded != nil {
		srv, err := startEmbedded(ctx, *o.Embedded, o.Log)
		if err != nil {
			q.stop()
			return nil, err
		}
		q.srv = srv
	}
	if err := q.connect(); err != nil {
		q.stop()
		if q.srv != nil {
			q.srv.shutdown()
		}
		return nil, err
	}
	q.sessions = bucket{q: q, name: sessionBucket}
	q.owners = bucket{q: q, name: ownerBucket}
	q.state = bucket{q: q, name: stateBucket}
	q.letters = bucket{q: q, name: letterBucket}
	if q.srv != nil {
		if err := q.afterStart(ctx); err != nil {
			_ = q.Close()
			return nil, err
		}
		q.keep()
	}
	return q, nil
}

// Close ends the connection and the embedded server, and waits for everything
// the queue started. [Queue.Own] must have returned, or it ends as if its
// sessions had been lost. It is safe to call it twice.
func (q *Queue) Close() error {
	q.mu.Lock()
	if q.closed {
		q.mu.Unlock()
		return nil
	}
	q.closed = true
	q.mu.Unlock()
	q.stop()
	q.wg.Wait()
	q.nc.Close()
	if q.srv == nil {
		return nil
	}
	q.srv.halt()
	err := q.srv.store.stopped()
	q.srv.shutdown()
	return err
}

// URL is where other processes reach the same streams; "" where the embedded
// server does not listen.
func (q *Queue) URL() string {
	if q.srv != nil {
		return q.srv.address()
	}
	return q.nc.ConnectedUrlRedacted()
}

// Dial makes a connection to the embedded server within this process, for another
// queue's [Options].Dial.
func (q *Queue) Dial() (net.Conn, error) {
	if q.srv == nil {
		return nil, errors.New("queue: no server is embedded here")
	}
	return q.srv.InProcessConn()
}

// Ready says whether work can be done: the connection is up, the streams of the
// targets that were set up or are owned here exist, the server has not refused
// us a permission, a message can be stored, and nothing that was confirmed is
// missing. nil is yes; an error says what is missing.
func (q *Queue) Ready(ctx context.Context) error {
	if k := q.keeper.Load(); k != nil {
		if h := k.health(); h.State == StoreFailed || h.State == StoreLost {
			return fmt.Errorf("queue: the store: %s", h.Text)
		}
	}
	err := q.ready(ctx)
	if !q.nc.IsConnected() { // before, or since: then what failed says little
		return fmt.Errorf("queue: %w: the connection is %s", ErrUnreachable, q.nc.Status())
	}
	if errors.Is(err, nats.ErrReconnectBufExceeded) || errors.Is(err, nats.ErrConnectionClosed) {
		return fmt.Errorf("queue: %w: the connection was interrupted", ErrUnreachable)
	}
	return err
}

func (q *Queue) ready(ctx context.Context) error {
	if !q.nc.IsConnected() {
		return nats.ErrConnectionClosed
	}
	if err := q.complaint(); err != nil {
		return fmt.Errorf("queue: the server refused an operation: %w", err)
	}
	q.mu.Lock()
	names := []string{outcomeStream, canaryStream}
	for t := range q.targets {
		for c := range contact.Class(contact.Classes) {
			names = append(names, streamName(t, c))
		}
	}
	q.mu.Unlock()
	for _, name := range names {
		if _, err := q.info(ctx, name); err != nil {
			return err
		}
	}
	m := nats.NewMsg(canarySubject)
	if _, err := q.publish(ctx, m); err != nil {
		return fmt.Errorf("queue: a trial message could not be stored: %w", err)
	}
	return nil
}

// info reads a stream's state from its leader.
func (q *Queue) info(ctx context.Context, stream string) (*jetstream.StreamInfo, error) {
	limited, cancel := context.WithTimeout(ctx, q.timeout)
	defer cancel()
	s, err := q.js.Stream(limited, stream)
	switch {
	case err == nil:
		return s.CachedInfo(), nil
	case errors.Is(err, jetstream.ErrStreamNotFound):
		return nil, fmt.Errorf("queue: stream %s does not exist: %w; run \"crmsync setup\"", stream, ErrNotSetUp)
	case limited.Err() != nil && ctx.Err() == nil:
		return nil, fmt.Errorf("queue: stream %s: %w: no answer within %s", stream, ErrUnreachable, q.timeout)
	}
	return nil, fmt.Errorf("queue: stream %s: %w", stream, err)
}

func (q *Queue) know(targets ...string) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for _, t := range targets {
		q.targets[t] = true
	}
}

// run starts a goroutine that Close waits for.
func (q *Queue) run(f func()) { q.wg.Go(f) }

// sleep waits; false where the context ended first.
func sleep(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// pause is the wait before the n-th repetition of something that failed for a
// reason that passes: 50 ms doubling to 2 s.
func pause(n int) time.Duration {
	return min(50*time.Millisecond<<min(n, 6), 2*time.Second)
}
