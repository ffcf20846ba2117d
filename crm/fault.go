package crm

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http/httptrace"
	"os"
	"sync"
	"time"

	"crmsync/contact"
)

// FaultKind is where an exchange broke.
type FaultKind uint8

// The kinds of faults.
const (
	FaultProtocol    FaultKind = iota // the answer is not HTTP, or beyond its limits
	FaultStopped                      // the caller gave up, or the quota did not let it through
	FaultDNS                          // the name does not resolve
	FaultConnect                      // no connection
	FaultTLS                          // no agreement on TLS, or a certificate refused
	FaultTimeout                      // no answer in time
	FaultReset                        // the connection broke
	FaultBlocked                      // we refuse to send there
	FaultCredentials                  // our own credentials cannot be read
)

var faultNames = [...]string{"protocol", "stopped", "dns", "connect", "tls", "timeout", "reset", "blocked", "credentials"}

// String is the kind's name.
func (k FaultKind) String() string {
	if int(k) < len(faultNames) {
		return faultNames[k]
	}
	return fmt.Sprintf("fault(%d)", uint8(k))
}

// Fault is an exchange without an answer.
type Fault struct {
	Kind FaultKind
	// Sent says that the request may have reached the CRM. False is certain.
	Sent bool
	// Detail is one redacted line for people.
	Detail string

	stale bool // an idle connection was found dead; try another
	err   error
}

// Error is the detail.
func (f *Fault) Error() string { return f.Detail }

// Unwrap is the cause, whose own text may hold the request's URL.
func (f *Fault) Unwrap() error { return f.err }

// Answer is what the fault means for a request. What was not sent failed
// because of the target. A write that was sent and not answered is Unknown, a
// read is Transient; neither accuses the target by itself, for one odd contact
// can make its server hang or crash.
func (f *Fault) Answer(write bool) Answer {
	a := Answer{Verdict: contact.VerdictTransient, Detail: f.Detail}
	switch {
	case f.Kind == FaultCredentials:
		a.Verdict, a.Incident = contact.VerdictUnauthorized, true
	case !f.Sent:
		a.Incident = f.Kind != FaultStopped
	case write:
		a.Verdict = contact.VerdictUnknown
	}
	if f.Kind == FaultProtocol && f.Sent {
		a.Reason = contact.Protocol
	}
	return a
}

// NoCredentials is the fault of credentials that cannot be read or sent. The
// error's text must not hold them; secrets are redacted from it all the same.
func NoCredentials(err error, secrets ...string) *Fault {
	return &Fault{Kind: FaultCredentials, Detail: Detail([]byte(err.Error()), secrets...), err: err}
}

// trace watches one exchange. Its hooks run in the transport's goroutines,
// some of them after the exchange has returned.
type trace struct {
	mu       sync.Mutex
	stage    FaultKind // where a failure without a connection belongs
	traced   bool      // the transport reports at all
	got      bool      // a connection was handed over
	reused   bool
	wrote    bool // the header was begun
	answered bool // a byte of the answer was seen
	conn     *countedConn
	before   int64 // bytes the connection had carried
	until    *time.Time
}

func (t *trace) set(f func()) {
	t.mu.Lock()
	defer t.mu.Unlock()
	f()
}

func (t *trace) watch(ctx context.Context) context.Context {
	t.stage = FaultConnect
	if d, ok := ctx.Deadline(); ok {
		t.until = &d
	}
	return httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{
		GetConn:  func(string) { t.set(func() { t.traced = true }) },
		DNSStart: func(httptrace.DNSStartInfo) { t.set(func() { t.stage = FaultDNS }) },
		DNSDone: func(i httptrace.DNSDoneInfo) {
			if i.Err == nil {
				t.set(func() { t.stage = FaultConnect })
			}
		},
		TLSHandshakeStart: func() { t.set(func() { t.stage = FaultTLS }) },
		GotConn: func(i httptrace.GotConnInfo) {
			t.set(func() {
				t.got, t.reused = true, i.Reused
				if t.conn = counted(i.Conn); t.conn != nil {
					t.before = t.conn.written.Load()
					t.conn.until.Store(t.until)
				}
			})
		},
		WroteHeaderField:     func(string, []string) { t.set(func() { t.wrote = true }) },
		GotFirstResponseByte: func() { t.set(func() { t.answered = true }) },
	})
}

// fault reads a transport's error.
func (t *trace) fault(ctx, outer context.Context, err error, host string, secrets []string) *Fault {
	t.mu.Lock()
	defer t.mu.Unlock()
	f := &Fault{err: err}
	say := func(what string) { f.Detail = Detail([]byte(what), secrets...) }
	var op *net.OpError
	switch {
	case outer.Err() != nil:
		f.Kind, f.Sent = FaultStopped, t.got || !t.traced
		say("stopped while waiting for " + host)
	case ctx.Err() != nil || isTimeout(err) && t.got:
		f.Kind, f.Sent = FaultTimeout, t.got || !t.traced
		if f.Sent {
			say("no answer from " + host + " in time")
		} else {
			say("no connection to " + host + " in time (" + t.stage.String() + ")")
		}
	case errors.Is(err, errAddress):
		f.Kind = FaultBlocked
		say(cause(err) + "; check the url in the config")
	case t.traced && !t.got:
		f.Kind = dialKind(err, t.stage)
		say(f.Kind.String() + ": " + host + ": " + cause(err) + hint[f.Kind])
	case errors.As(err, &op) && op.Op == "remote error" && !t.answered:
		// A TLS 1.3 server refuses a missing client certificate only after
		// the handshake. It has not looked at the request.
		f.Kind = FaultTLS
		say("tls: " + host + ": " + cause(err) + hint[FaultTLS])
	default:
		f.Kind = FaultProtocol
		if broken(err) {
			f.Kind = FaultReset
		}
		f.Sent = t.sent()
		f.stale = !f.Sent && t.reused
		say(f.Kind.String() + ": " + host + ": " + cause(err))
	}
	return f
}

// sent says whether any byte of the request can have left; the caller holds mu.
func (t *trace) sent() bool {
	switch {
	case !t.traced:
		return true
	case t.conn != nil:
		return t.conn.written.Load() != t.before
	}
	return t.wrote
}

var hint = map[FaultKind]string{
	FaultDNS:     "; check the url in the config",
	FaultConnect: "; is the server up?",
	FaultTLS:     "; check the server's certificate, or ca_file in the config",
}

func dialKind(err error, stage FaultKind) FaultKind {
	var dns *net.DNSError
	var cert *tls.CertificateVerificationError
	var record tls.RecordHeaderError
	var invalid x509.CertificateInvalidError
	switch {
	case errors.As(err, &dns):
		return FaultDNS
	case errors.As(err, &cert), errors.As(err, &record), errors.As(err, &invalid):
		return FaultTLS
	case isTimeout(err):
		return FaultTimeout
	}
	return stage
}

func isTimeout(err error) bool {
	var t interface{ Timeout() bool }
	return errors.Is(err, os.ErrDeadlineExceeded) || errors.Is(err, context.DeadlineExceeded) ||
		errors.As(err, &t) && t.Timeout()
}

// broken says that the connection ended where an answer was due.
func broken(err error) bool {
	var op *net.OpError
	return errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, net.ErrClosed) ||
		errors.Is(err, io.ErrClosedPipe) || errors.As(err, &op) || err.Error() == "http: server closed idle connection"
}

// cause is the innermost text of a network error: the outer ones repeat
// addresses and ports of ours.
func cause(err error) string {
	var dns *net.DNSError
	if errors.As(err, &dns) {
		return dns.Err
	}
	for {
		var op *net.OpError
		if !errors.As(err, &op) || op.Err == nil {
			break
		}
		err = op.Err
	}
	var sys *os.SyscallError
	if errors.As(err, &sys) {
		return sys.Err.Error()
	}
	return err.Error()
}
