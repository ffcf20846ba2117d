package queue

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/synadia-io/orbit.go/natscontext"
)

func (q *Queue) connect() error {
	o := q.opt
	opts := append(q.connOptions(), o.natsExtra...)
	var err error
	domain, prefix := o.Domain, ""
	switch {
	case q.srv != nil:
		q.nc, err = nats.Connect("", append(opts, nats.InProcessServer(q.srv))...)
	case o.Dial != nil:
		q.nc, err = nats.Connect("", append(opts, nats.InProcessServer(dialer(o.Dial)))...)
	case o.Context != "":
		var set natscontext.Settings
		if o.URL != "" {
			opts = append(opts, func(no *nats.Options) error { no.Url = o.URL; no.Servers = nil; return nil })
		}
		q.nc, set, err = natscontext.Connect(o.Context, opts...)
		if domain == "" {
			domain, prefix = set.JSDomain, set.JSAPIPrefix
		}
	default:
		url := o.URL
		if url == "" {
			url = nats.DefaultURL
		}
		q.nc, err = nats.Connect(url, opts...)
	}
	if err != nil {
		return fmt.Errorf("queue: %w: %w%s", ErrUnreachable, withoutUser(err, o.URL), connectHint(o, err))
	}
	switch {
	case domain != "":
		q.api = "$JS." + domain + ".API."
		q.js, err = jetstream.NewWithDomain(q.nc, domain)
	case prefix != "":
		q.api = prefix + "."
		q.js, err = jetstream.NewWithAPIPrefix(q.nc, prefix)
	default:
		q.api = jetstream.DefaultAPIPrefix
		q.js, err = jetstream.New(q.nc)
	}
	if err != nil {
		q.nc.Close()
		return fmt.Errorf("queue: JetStream: %w", err)
	}
	return nil
}

// dialer is a function as the client library wants it.
type dialer func() (net.Conn, error)

func (d dialer) InProcessConn() (net.Conn, error) { return d() }

// withoutUser takes what stands before the @ of a URL out of an error's text: it
// may be a password.
func withoutUser(err error, urls string) error {
	text := err.Error()
	for url := range strings.SplitSeq(urls, ",") {
		if i := strings.LastIndex(url, "@"); i > 0 {
			user := url[:i]
			if _, rest, ok := strings.Cut(user, "://"); ok {
				user = rest
			}
			text = strings.ReplaceAll(text, user, "redacted")
		}
	}
	if text == err.Error() {
		return err
	}
	return errors.New(text)
}

func connectHint(o Options, err error) string {
	switch {
	case errors.Is(err, nats.ErrAuthorization), errors.Is(err, nats.ErrAuthExpired):
		return "; check --creds, --nkey or --user"
	case errors.Is(err, nats.ErrNoServers) && o.Context == "":
		return "; check --server or NATS_URL, or start without it to run the embedded server"
	}
	return ""
}

func (q *Queue) connOptions() []nats.Option {
	o := q.opt
	opts := []nats.Option{
		nats.Name(o.Name),
		nats.Timeout(q.timeout),
		nats.MaxReconnects(-1),
		nats.ReconnectWait(250 * time.Millisecond),
		nats.ReconnectJitter(250*time.Millisecond, 750*time.Millisecond),
		// What was written while the connection was gone must fail, not
		// arrive late: by then the target may have another owner.
		nats.ReconnectBufSize(-1),
		nats.PingInterval(5 * time.Second),
		nats.MaxPingsOutstanding(2),
		nats.DisconnectErrHandler(func(_ *nats.Conn, err error) {
			if !q.isClosed() {
				q.log.Warn().Err(err).Msg("NATS connection lost")
			}
		}),
		nats.ReconnectHandler(func(nc *nats.Conn) {
			q.log.Info().Str("server", nc.ConnectedUrlRedacted()).Msg("NATS connection is back")
			q.complain(nil)
			q.restartReaders()
		}),
		nats.ErrorHandler(func(_ *nats.Conn, _ *nats.Subscription, err error) { q.complain(err) }),
	}
	if o.Dial != nil { // there is no crowd to be spread
		opts = append(opts, nats.ReconnectJitter(0, 0))
	}
	if o.InboxPrefix != "" {
		opts = append(opts, nats.CustomInboxPrefix(o.InboxPrefix))
	}
	if o.Creds != "" {
		opts = append(opts, nats.UserCredentials(o.Creds))
	}
	if o.NKey != "" {
		opts = append(opts, func(no *nats.Options) error {
			k, err := nats.NkeyOptionFromSeed(o.NKey)
			if err != nil {
				return fmt.Errorf("NKey file %s: %w", o.NKey, err)
			}
			return k(no)
		})
	}
	if o.User != "" {
		opts = append(opts, nats.UserInfo(o.User, o.Password))
	}
	if o.TLSCert != "" || o.TLSKey != "" {
		opts = append(opts, nats.ClientCert(o.TLSCert, o.TLSKey))
	}
	if o.TLSCA != "" {
		opts = append(opts, nats.RootCAs(o.TLSCA))
	}
	if o.TLSFirst {
		opts = append(opts, nats.TLSHandshakeFirst())
	}
	return opts
}

// Servers is how many NATS servers there are, as far as the one says to which we are
// connected.
func (q *Queue) Servers() int {
	if q.srv != nil {
		return 1
	}
	return max(1, len(q.nc.Servers()))
}

func (q *Queue) isClosed() bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.closed
}

// complain keeps the server's last complaint for Ready and logs it once.
func (q *Queue) complain(err error) {
	if errors.Is(err, nats.ErrSlowConsumer) {
		return // readers bound what they ask for, and check for gaps
	}
	q.mu.Lock()
	known := err == nil || q.trouble != nil && q.trouble.Error() == err.Error()
	q.trouble = err
	q.mu.Unlock()
	if !known {
		q.log.Error().Err(err).Msg("NATS refused an operation; check the permissions of this user")
	}
}

func (q *Queue) complaint() error {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.trouble
}

// untilReconnect is a context that ends also when the connection was renewed:
// what waits for a message then waits in vain, its consumer may be gone.
func (q *Queue) untilReconnect(ctx context.Context) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancel(ctx)
	q.mu.Lock()
	key := q.breakKey
	q.breakKey++
	q.breaks[key] = cancel
	q.mu.Unlock()
	return ctx, func() {
		q.mu.Lock()
		delete(q.breaks, key)
		q.mu.Unlock()
		cancel()
	}
}

func (q *Queue) restartReaders() {
	q.mu.Lock()
	defer q.mu.Unlock()
	for _, cancel := range q.breaks {
		cancel()
	}
}
