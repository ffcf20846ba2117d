package console

import (
	"context"
	"errors"
	"fmt"
	stdlog "log"
	"net"
	"net/http"
	"time"

	"github.com/rs/zerolog"
	"golang.org/x/net/netutil"
)

// Limits of the server.
const (
	headerTimeout = 5 * time.Second // from the first byte to the end of the headers
	readTimeout   = 30 * time.Second
	writeTimeout  = 60 * time.Second
	idleTimeout   = 2 * time.Minute
	graceTimeout  = 5 * time.Second // how long a stop waits for requests
	maxHeader     = 16 << 10
	maxConns      = 1000
)

// Serve listens on an address (host:port; port 0 lets the system choose) and
// serves h until ctx ends. Then it takes no more requests, lets those under way
// end for at most 5 s, and cuts the rest. It returns the address as it is. wait
// returns when nothing is served any more, with why it ended unless that was
// ctx; it must be called, once or often.
func Serve(ctx context.Context, listen string, h http.Handler, log zerolog.Logger) (addr string, wait func() error, err error) {
	l, err := net.Listen("tcp", listen)
	if err != nil {
		return "", nil, fmt.Errorf("console: %w; choose another http.listen, or stop what listens there", err)
	}
	return l.Addr().String(), serveOn(ctx, l, h, log), nil
}

func serveOn(ctx context.Context, l net.Listener, h http.Handler, log zerolog.Logger) (wait func() error) {
	srv := &http.Server{
		Handler:                      h,
		ReadHeaderTimeout:            headerTimeout,
		ReadTimeout:                  readTimeout,
		WriteTimeout:                 writeTimeout,
		IdleTimeout:                  idleTimeout,
		MaxHeaderBytes:               maxHeader,
		DisableGeneralOptionsHandler: true, // OPTIONS * is answered like any other
		ErrorLog:                     stdlog.New(netLog{log}, "", 0),
	}
	ended := make(chan struct{})
	served := make(chan error, 1)
	go func() { served <- srv.Serve(netutil.LimitListener(l, maxConns)) }()
	var result error
	go func() {
		defer close(ended)
		select {
		case err := <-served:
			result = fmt.Errorf("console: %w", err)
			_ = srv.Close()
		case <-ctx.Done():
			grace, cancel := context.WithTimeout(context.WithoutCancel(ctx), graceTimeout)
			defer cancel()
			if err := srv.Shutdown(grace); err != nil {
				_ = srv.Close() // nothing to save: what is served only reads or has stored
			}
			if err := <-served; !errors.Is(err, http.ErrServerClosed) {
				result = fmt.Errorf("console: %w", err)
			}
		}
	}()
	return func() error {
		<-ended
		return result
	}
}

// netLog takes what net/http has to say past our own log. It can quote what a
// caller sent, so it is for those who look for it.
type netLog struct{ log zerolog.Logger }

func (n netLog) Write(b []byte) (int, error) {
	n.log.Debug().Str("from", "net/http").Msg(string(b))
	return len(b), nil
}
