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
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/rs/zerolog"
)

// Embedded says how to run a NATS server inside this process. It stores each
// write durably before it confirms it; there is no setting that weakens that.
type Embedded struct {
	Dir  string // holds the data; created with mode 0700
	Host string // "": 127.0.0.1. Whoever reaches it can do everything
	Port int    // 0: 4222; -1: any free one; -2: do not listen
}

type embedded struct {
	server *server.Server
	lock   *lockFile
	dir    string
	url    string
	loaded map[string]bool // streams the server had after its start
}

const streamsDir = "jetstream/$G/streams"

func startEmbedded(ctx context.Context, e Embedded, log zerolog.Logger) (*embedded, error) {
	if e.Dir == "" {
		return nil, errors.New("queue: the embedded server needs a directory for its data")
	}
	if err := os.MkdirAll(e.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("queue: data directory: %w", err)
	}
	lock, err := lockStore(filepath.Join(e.Dir, "crmsync.lock"))
	if err != nil {
		return nil, fmt.Errorf("queue: %s: %w", e.Dir, err)
	}
	srv := &embedded{lock: lock, dir: e.Dir}
	if err := srv.start(ctx, e, log); err != nil {
		srv.shutdown()
		return nil, err
	}
	return srv, nil
}

func (srv *embedded) start(ctx context.Context, e Embedded, log zerolog.Logger) error {
	mended, err := repair(filepath.Join(e.Dir, streamsDir))
	if err != nil {
		return err
	}
	for _, name := range mended {
		log.Warn().Str("path", name).Msg("checksum of the store repaired after an unclean stop")
	}
	o, err := serverOptions(e)
	if err != nil {
		return err
	}
	srv.server, err = server.NewServer(o)
	if err != nil {
		return fmt.Errorf("queue: embedded server: %w", err)
	}
	fatal := make(chan string, 1)
	srv.server.SetLoggerV2(serverLog{log: log, fatal: fatal}, false, false, false)
	go srv.server.Start()
	wait := 30 * time.Second
	if d, ok := ctx.Deadline(); ok {
		wait = min(wait, time.Until(d))
	}
	for end := time.Now().Add(wait); !srv.server.ReadyForConnections(100 * time.Millisecond); {
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
	if !o.DontListen {
		srv.url = srv.server.ClientURL()
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

func (srv *embedded) shutdown() {
	if srv.server != nil {
		srv.server.Shutdown()
		srv.server.WaitForShutdown()
	}
	srv.lock.release()
}

// unloaded refuses to create a stream over data that the server did not load:
// the new stream would vanish again at the next start, with all it had taken.
func (srv *embedded) unloaded(stream string) error {
	if srv.loaded[stream] {
		return nil
	}
	dir := filepath.Join(srv.dir, streamsDir, stream)
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
	q.srv.loaded = map[string]bool{}
	names := q.js.StreamNames(ctx)
	for n := range names.Name() {
		q.srv.loaded[n] = true
	}
	if err := names.Err(); err != nil {
		return fmt.Errorf("queue: list streams: %w", err)
	}
	dirs, err := os.ReadDir(filepath.Join(q.srv.dir, streamsDir))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("queue: %w", err)
	}
	for _, d := range dirs {
		if !d.IsDir() || strings.HasPrefix(d.Name(), ".") {
			continue
		}
		if err := q.srv.unloaded(d.Name()); err != nil {
			return err
		}
	}
	return nil
}

// serverLog passes the server's warnings and errors on.
type serverLog struct {
	log   zerolog.Logger
	fatal chan string
}

func (l serverLog) Noticef(string, ...any) {}
func (l serverLog) Debugf(string, ...any)  {}
func (l serverLog) Tracef(string, ...any)  {}

func (l serverLog) Warnf(format string, a ...any) {
	l.log.Warn().Str("component", "nats-server").Msgf(format, a...)
}

func (l serverLog) Errorf(format string, a ...any) {
	l.log.Error().Str("component", "nats-server").Msgf(format, a...)
}

func (l serverLog) Fatalf(format string, a ...any) {
	select {
	case l.fatal <- fmt.Sprintf(format, a...):
	default:
	}
}
