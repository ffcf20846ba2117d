package queue

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/rs/zerolog"
)

// Embedded says how to run a NATS server inside this process. It stores each
// write durably before it confirms it; there is no setting that weakens that.
//
// Beside the folder, under its name with an ending, are the high-water marks of its
// streams, copies of their configurations, and what was damaged.
type Embedded struct {
	Dir  string // holds the data; created with mode 0700
	Host string // "": 127.0.0.1. Whoever reaches it can do everything
	Port int    // 0: 4222; -1: any free one; -2: do not listen

	// MinFree is the free space of the disk, in bytes, below which updates are
	// not taken any more; 0: the smaller of [DefaultMinFree] and a tenth of the
	// disk; below 0: there is no such bound. MinFreeShare is the same as a share
	// of the disk, and counts where MinFree is 0.
	MinFree      int64
	MinFreeShare float64
	// AcceptLoss opens a store of which streams are gone, and forgets the losses
	// that are noted.
	AcceptLoss bool
	// Look is how often the store is looked at; 0: each second.
	Look time.Duration
}

// DefaultMinFree is the free space below which updates are not taken, in bytes, on
// a disk of which it is less than a tenth.
const DefaultMinFree = 512 << 20

type embedded struct {
	conf  Embedded
	log   zerolog.Logger
	store *store
	fault chan string // the server says that it cannot write any more

	mu     sync.Mutex
	server *server.Server // nil while it is down
	lock   *lockFile
	port   int // it listens on
	url    string
	place  os.FileInfo     // the streams' folder, as it was when the server started
	loaded map[string]bool // streams the server had after its start
}

const (
	streamsDir = "jetstream/$G/streams"
	lockName   = "crmsync.lock"
)

func startEmbedded(ctx context.Context, e Embedded, log zerolog.Logger) (*embedded, error) {
	if e.Dir == "" {
		return nil, errors.New("queue: the embedded server needs a directory for its data")
	}
	e.Dir = filepath.Clean(e.Dir)
	if err := os.MkdirAll(e.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("queue: data directory: %w", err)
	}
	srv := &embedded{conf: e, log: log, fault: make(chan string, 1), port: e.Port}
	if err := srv.takeLock(); err != nil {
		return nil, err
	}
	var err error
	if srv.store, err = openStore(e.Dir, e.AcceptLoss, log); err == nil {
		err = srv.start(ctx, false)
	}
	if err != nil {
		srv.shutdown()
		return nil, err
	}
	return srv, nil
}

func (srv *embedded) takeLock() error {
	lock, err := lockStore(filepath.Join(srv.conf.Dir, lockName))
	if err != nil {
		return fmt.Errorf("queue: %s: %w", srv.conf.Dir, err)
	}
	srv.mu.Lock()
	defer srv.mu.Unlock()
	srv.lock = lock
	return nil
}

// start examines the store and starts the server on it. whole has all of it read.
func (srv *embedded) start(ctx context.Context, whole bool) error {
	if err := srv.store.examine(whole); err != nil {
		return err
	}
	e := srv.conf
	e.Port = srv.port
	o, err := serverOptions(e)
	if err != nil {
		return err
	}
	s, err := server.NewServer(o)
	if err != nil {
		return fmt.Errorf("queue: embedded server: %w", err)
	}
	fatal := make(chan string, 1)
	s.SetLoggerV2(serverLog{log: srv.log, fatal: fatal, fault: srv.fault}, false, false, false)
	srv.mu.Lock()
	srv.server = s
	srv.mu.Unlock()
	go s.Start()
	if err := awaitServer(ctx, s, fatal); err != nil {
		return err
	}
	place, err := os.Stat(srv.store.streams())
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("queue: embedded server: %w", err)
	}
	srv.mu.Lock()
	defer srv.mu.Unlock()
	srv.place, srv.loaded = place, nil
	if !o.DontListen {
		srv.url = s.ClientURL()
		if a, ok := s.Addr().(*net.TCPAddr); ok {
			srv.port = a.Port
		}
	}
	return nil
}

func awaitServer(ctx context.Context, s *server.Server, fatal <-chan string) error {
	wait := 30 * time.Second
	if d, ok := ctx.Deadline(); ok {
		wait = min(wait, time.Until(d))
	}
	for end := time.Now().Add(wait); !s.ReadyForConnections(100 * time.Millisecond); {
		select {
		case msg := <-fatal:
			return fmt.Errorf("queue: embedded server: %s", msg)
		default:
		}
		if err := ctx.Err(); err != nil {
			return fmt.Errorf("queue: embedded server: %w", err)
		}
		if time.Now().After(end) {
			return fmt.Errorf("queue: embedded server is not ready after %s", wait)
		}
	}
	return nil
}

func serverOptions(e Embedded) (*server.Options, error) {
	o := &server.Options{
		ServerName: "crmsync", JetStream: true, StoreDir: e.Dir, SyncAlways: true,
		// Quotas are promises to producers, not reservations: the sum of all
		// may exceed the disk.
		JetStreamMaxMemory: 1 << 30, JetStreamMaxStore: 1 << 50,
		NoSigs: true, MaxPayload: 1 << 20, MaxControlLine: 4 << 10,
		JetStreamLimits: server.JSLimitOpts{DefaultMaxConsumers: -1},
	}
	if e.Port == -2 {
		o.DontListen = true
		return o, nil
	}
	o.Host, o.Port = e.Host, e.Port
	if o.Host == "" {
		o.Host = "127.0.0.1"
	}
	if o.Port == 0 {
		o.Port = 4222
	}
	if o.Port > 0 {
		l, err := net.Listen("tcp", net.JoinHostPort(o.Host, strconv.Itoa(o.Port)))
		if err != nil {
			return nil, fmt.Errorf("queue: embedded server: %w; is another NATS server running? Use it with --server nats://%s:%d, or choose another port", err, o.Host, o.Port)
		}
		if err := l.Close(); err != nil {
			return nil, fmt.Errorf("queue: embedded server: %w", err)
		}
	}
	return o, nil
}

// InProcessConn connects to the server that runs now, for the client library.
func (srv *embedded) InProcessConn() (net.Conn, error) {
	srv.mu.Lock()
	s := srv.server
	srv.mu.Unlock()
	if s == nil {
		return nil, errors.New("the embedded server is down")
	}
	return s.InProcessConn()
}

// halt ends the server and keeps the store.
func (srv *embedded) halt() {
	srv.mu.Lock()
	s := srv.server
	srv.server = nil
	srv.mu.Unlock()
	if s != nil {
		s.Shutdown()
		s.WaitForShutdown()
	}
}

func (srv *embedded) shutdown() {
	srv.halt()
	srv.mu.Lock()
	defer srv.mu.Unlock()
	if srv.lock != nil {
		srv.lock.release()
		srv.lock = nil
	}
}

func (srv *embedded) address() string {
	srv.mu.Lock()
	defer srv.mu.Unlock()
	return srv.url
}

// intact is an error where the folder of the streams is not the one any more into
// which the server writes: what it confirms then is nowhere.
func (srv *embedded) intact() error {
	now, err := os.Stat(srv.store.streams())
	srv.mu.Lock()
	defer srv.mu.Unlock()
	switch was := srv.place; {
	case was == nil && err == nil: // the first stream has been made
		srv.place = now
		return nil
	case was == nil:
		return nil
	case err != nil:
		return fmt.Errorf("the store's folder cannot be seen any more: %w", err)
	case !os.SameFile(was, now):
		return fmt.Errorf("%s is another folder than before", srv.store.streams())
	}
	return nil
}

// unloaded refuses to create a stream over data that the server did not load:
// the new stream would vanish again at the next start, with all it had taken.
func (srv *embedded) unloaded(stream string) error {
	srv.mu.Lock()
	loaded := srv.loaded[stream]
	srv.mu.Unlock()
	if loaded {
		return nil
	}
	dir := filepath.Join(srv.store.streams(), stream)
	if _, err := os.Stat(dir); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return fmt.Errorf("queue: %s exists but the server could not load it; move it away or restore it from a backup, then start again", dir)
}

// afterStart checks that every stream on disk was loaded. What a former process
// of this store still owned stays its own until its session expires: the process
// is dead, but a call that it sent may still be at work in the CRM.
func (q *Queue) afterStart(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	var states map[string]streamState
	err := untilAnswered(ctx, func() (err error) {
		states, _, err = q.streamStates(ctx)
		return err
	})
	if err != nil {
		return fmt.Errorf("%w: the embedded server has started and does not answer; start again", err)
	}
	loaded := map[string]bool{}
	for name := range states {
		loaded[name] = true
	}
	q.srv.mu.Lock()
	q.srv.loaded = loaded
	q.srv.mu.Unlock()
	names, err := streamDirs(q.srv.store.streams())
	if err != nil {
		return err
	}
	for _, name := range names {
		if err := q.srv.unloaded(name); err != nil {
			return err
		}
	}
	return q.confirm(ctx, states)
}

// untilAnswered asks again where no answer came in time: a request that reaches a
// server in the moment of its start may be dropped without a word.
func untilAnswered(ctx context.Context, ask func() error) error {
	for {
		err := ask()
		if !errors.Is(err, context.DeadlineExceeded) || ctx.Err() != nil {
			return err
		}
	}
}

// serverLog passes the server's warnings and errors on, and tells when the server
// gives up a stream because it could not be written: it then takes nothing more for
// it until it is started again, whatever becomes of the cause.
type serverLog struct {
	log          zerolog.Logger
	fatal, fault chan string
}

func (l serverLog) Noticef(string, ...any) {}
func (l serverLog) Debugf(string, ...any)  {}
func (l serverLog) Tracef(string, ...any)  {}

func (l serverLog) Warnf(format string, a ...any) {
	text := fmt.Sprintf(format, a...)
	l.log.Warn().Str("component", "nats-server").Msg(text)
	if strings.Contains(text, "disabling JetStream") {
		tell(l.fault, text)
	}
}

func (l serverLog) Errorf(format string, a ...any) {
	text := fmt.Sprintf(format, a...)
	l.log.Error().Str("component", "nats-server").Msg(text)
	if strings.Contains(strings.ToLower(text), "critical write error") || strings.Contains(text, "disabling JetStream") || strings.Contains(text, "will be DISABLED") {
		tell(l.fault, text)
	}
}

func (l serverLog) Fatalf(format string, a ...any) { tell(l.fatal, fmt.Sprintf(format, a...)) }

// tell leaves a text where nobody has left one.
func tell(c chan string, text string) {
	select {
	case c <- text:
	default:
	}
}
