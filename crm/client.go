package crm

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"strings"
	"sync/atomic"
	"time"
)

// Limits of an exchange with a CRM.
const (
	// DefaultTimeout bounds one request from dialling to the last byte of the
	// answer where the options say nothing.
	DefaultTimeout = 15 * time.Second
	// ConnectTimeout bounds name resolution and connecting together.
	ConnectTimeout = 3 * time.Second
	// TLSTimeout bounds the TLS handshake.
	TLSTimeout = 5 * time.Second
	// MaxBody is how much of an answer is read, in bytes. The rest is left on
	// the connection, which is closed.
	MaxBody = 64 << 10
	// MaxHeader is the largest header of an answer, in bytes.
	MaxHeader = 64 << 10

	// Apache closes an idle connection after 5 s by default. Ours is closed
	// before that: a request that meets the server's close is a lost answer.
	// At the rates of these APIs the extra handshake costs nothing.
	idleTimeout = 4 * time.Second
	maxIdle     = 64
)

// Options configure a [Client]. Base is required.
type Options struct {
	// Base is the address of the CRM, http or https, maybe below a sub-path.
	Base *url.URL
	// Timeout bounds each request; 0 means DefaultTimeout.
	Timeout time.Duration
	// UserAgent is sent with each request; "" means crmsync.
	UserAgent string
	// CAFile names a PEM file of certificates to trust beside the system's.
	CAFile string
	// Proxy is used for every request; nil means none. The environment's
	// proxy settings are never looked at.
	Proxy *url.URL
	// AllowPrivate lets the name of Base lead to addresses of private networks
	// or of this machine. A Base that is written as such an address needs no
	// leave.
	AllowPrivate bool
	// Hints are the headers in which this CRM tells of its quota; nil means
	// [DefaultHintRules].
	Hints []HintRule
	// Dial makes the connections, for tests; no address is checked then.
	Dial func(ctx context.Context, network, address string) (net.Conn, error)
	// Transport replaces the network, for tests.
	Transport http.RoundTripper
}

// Client exchanges requests with one CRM. It sends to Base's scheme and host
// only, follows no redirect, keeps no cookie, unpacks nothing, reads no more
// than its limits and never sends a request twice by itself: what reaches the
// CRM has been paid for. It is safe for concurrent use.
type Client struct {
	base      url.URL
	timeout   time.Duration
	agent     string
	hints     []HintRule
	transport http.RoundTripper
	lease     atomic.Pointer[func() time.Time]
}

// Within has no request sent unless its time-out ends before an instant that lease
// tells, by the monotonic clock: until then this process alone works for the CRM. A
// process that was stopped, for however long and wherever it was, then sends nothing
// when it goes on. Safe for concurrent use; nil is no bound.
func (c *Client) Within(lease func() time.Time) {
	if lease == nil {
		c.lease.Store(nil)
		return
	}
	c.lease.Store(&lease)
}

// NewClient checks the options and returns a client. It makes no connection.
func NewClient(o Options) (*Client, error) {
	if err := checkBase(o.Base); err != nil {
		return nil, err
	}
	c := &Client{base: *o.Base, timeout: o.Timeout, agent: o.UserAgent, hints: o.Hints}
	c.base.Path = strings.TrimRight(c.base.Path, "/")
	c.base.RawPath = ""
	if c.timeout <= 0 {
		c.timeout = DefaultTimeout
	}
	if c.agent == "" {
		c.agent = "crmsync"
	}
	next := o.Transport
	if next == nil {
		t, err := network(o)
		if err != nil {
			return nil, err
		}
		next = t
	}
	c.transport = &origin{scheme: c.base.Scheme, host: c.base.Host, next: next}
	return c, nil
}

func checkBase(u *url.URL) error {
	switch {
	case u == nil:
		return errors.New("crm: no url; set url in the config")
	case u.Scheme != "http" && u.Scheme != "https" || u.Host == "":
		return errors.New("crm: the url needs http or https and a host")
	case u.User != nil || u.RawQuery != "" || u.Fragment != "":
		return errors.New("crm: the url must not hold a user, a query or a fragment")
	case !plainPath(strings.TrimRight(u.EscapedPath(), "/")):
		return errors.New("crm: the path of the url is not plain; use letters, digits, dot, dash and underscore")
	}
	return nil
}

// plainPath says that a path has the segments one sees: nothing escaped, no
// empty segment, no dots that lead elsewhere.
func plainPath(p string) bool {
	if p == "" {
		return true
	}
	if p[0] != '/' {
		return false
	}
	for _, seg := range strings.Split(p[1:], "/") {
		if seg == "" || seg == "." || seg == ".." {
			return false
		}
		for _, c := range []byte(seg) {
			switch {
			case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9':
			case c == '.' || c == '-' || c == '_' || c == '~':
			default:
				return false
			}
		}
	}
	return true
}

// network is the transport of the real world.
func network(o Options) (*http.Transport, error) {
	trust := &tls.Config{MinVersion: tls.VersionTLS12}
	if o.CAFile != "" {
		pem, err := os.ReadFile(o.CAFile)
		if err != nil {
			return nil, fmt.Errorf("crm: ca_file: %w", err)
		}
		pool, err := x509.SystemCertPool()
		if err != nil {
			pool = x509.NewCertPool()
		}
		if !pool.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("crm: ca_file %s holds no PEM certificate", o.CAFile)
		}
		trust.RootCAs = pool
	}
	dial := o.Dial
	if dial == nil {
		dial = dialer(o.AllowPrivate || o.Proxy != nil || namesPrivate(o.Base.Hostname()))
	}
	t := &http.Transport{
		DialContext:            counting(dial),
		TLSClientConfig:        trust,
		TLSHandshakeTimeout:    TLSTimeout,
		DisableCompression:     true, // 260 KB of gzip can be 256 MB of answer
		MaxIdleConnsPerHost:    maxIdle,
		IdleConnTimeout:        idleTimeout,
		MaxResponseHeaderBytes: MaxHeader,
		// HTTP/2 stays off: a stream that the server refuses is sent again by
		// the transport, unseen and unpaid, and one slow answer would not free
		// its connection. These servers answer a handful of requests a second.
		Protocols: new(http.Protocols),
	}
	t.Protocols.SetHTTP1(true)
	if o.Proxy != nil {
		t.Proxy = http.ProxyURL(o.Proxy)
	}
	return t, nil
}

// origin refuses to send anything anywhere but to the configured CRM.
type origin struct {
	scheme, host string
	next         http.RoundTripper
}

func (o *origin) RoundTrip(r *http.Request) (*http.Response, error) {
	if r.URL.Scheme != o.scheme || r.URL.Host != o.host || r.Host != "" && r.Host != o.host {
		return nil, fmt.Errorf("refused to send a request to another host than %s", o.host)
	}
	return o.next.RoundTrip(r)
}

// CloseIdle closes the connections that no request uses.
func (c *Client) CloseIdle() {
	if t, ok := c.transport.(*origin).next.(interface{ CloseIdleConnections() }); ok {
		t.CloseIdleConnections()
	}
}

// Request is one HTTP request to the CRM.
type Request struct {
	Method string
	// Path begins with a slash and stands below Base. Its segments must be
	// plain (letters, digits, dot, dash, underscore): it is built of constants
	// and of ids that passed [CheckID], nothing is escaped.
	Path   string
	Query  url.Values  // escaped here; nil for none
	Header http.Header // beside User-Agent and Accept
	Body   []byte
	// Timeout, where not 0, replaces the client's if it is shorter.
	Timeout time.Duration
	// Secrets are redacted from the text of a fault.
	Secrets []string
}

// Reply is an answer that came, whatever it says.
type Reply struct {
	Status int
	Header http.Header
	Body   []byte // at most MaxBody
	// Cut says that Body is not the whole: over the limit, or lost on the way.
	Cut   bool
	Hints Hints
}

var byteOrderMark = []byte("\xEF\xBB\xBF")

// Object reads the body as one JSON object. PHP files saved with a byte order
// mark put it before every answer; it is passed over.
func (r *Reply) Object() (map[string]json.RawMessage, bool) {
	if r.Cut {
		return nil, false
	}
	var m map[string]json.RawMessage
	if json.Unmarshal(bytes.TrimPrefix(r.Body, byteOrderMark), &m) != nil {
		return nil, false
	}
	return m, m != nil
}

// Do pays for one request, makes it and reads the answer. A fault means that
// no answer came; it says whether the request may have been carried out.
func (c *Client) Do(ctx context.Context, m *Meter, r Request) (*Reply, *Fault) {
	if !plainPath(r.Path) {
		return nil, &Fault{Kind: FaultBlocked, Detail: "refused to send a request with such a path"}
	}
	if err := m.Pay(ctx); err != nil {
		return nil, &Fault{Kind: FaultStopped, Detail: "stopped before the request was sent", err: err}
	}
	timeout := c.timeout
	if r.Timeout > 0 {
		timeout = min(timeout, r.Timeout)
	}
	began := time.Now()
	bounded, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	if deadline, _ := bounded.Deadline(); c.lease.Load() != nil && (*c.lease.Load())().Before(deadline) {
		return nil, &Fault{Kind: FaultStopped, Detail: "not sent: this process may not work for the CRM any more when the request ends"}
	}
	for {
		reply, f := c.exchange(bounded, ctx, r)
		if f == nil || !f.stale || bounded.Err() != nil {
			m.hear(reply, began)
			return reply, f
		}
		// An idle connection died before one byte of the request was on it:
		// nothing reached the CRM and nothing more is owed. Each turn uses one
		// such connection up.
	}
}

// exchange makes one attempt. outer is the caller's context, which tells a
// stop from a time-out of ours.
func (c *Client) exchange(ctx, outer context.Context, r Request) (*Reply, *Fault) {
	var t trace
	req := c.request(t.watch(ctx), r)
	resp, err := c.transport.RoundTrip(req)
	if err != nil {
		return nil, t.fault(ctx, outer, err, c.base.Host, r.Secrets)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, MaxBody+1))
	reply := &Reply{Status: resp.StatusCode, Header: resp.Header, Body: body, Cut: err != nil}
	if len(body) > MaxBody {
		reply.Body, reply.Cut = body[:MaxBody], true
	}
	reply.Hints = ReadHints(resp.Header, c.hints, time.Now())
	return reply, nil
}

func (c *Client) request(ctx context.Context, r Request) *http.Request {
	u := c.base
	u.Path += r.Path
	u.RawQuery = r.Query.Encode()
	req := (&http.Request{
		Method: r.Method, URL: &u, Host: u.Host,
		Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
		Header: http.Header{"User-Agent": {c.agent}, "Accept": {"application/json"}},
		// The transport repeats a request on a fresh connection when a reused
		// one fails, if it can read the body again or there is none. A body
		// that can be read once, even an empty one, keeps it from that: each
		// request is on the wire once, and paid for. (An Idempotency-Key would
		// invite the repetition; none is ever set.)
		Body:          io.NopCloser(onlyReader{bytes.NewReader(r.Body)}),
		ContentLength: int64(len(r.Body)),
	}).WithContext(ctx)
	if len(r.Body) == 0 && r.Method != http.MethodGet {
		req.Body = http.NoBody
	}
	for k, v := range r.Header {
		req.Header[http.CanonicalHeaderKey(k)] = v
	}
	return req
}

// onlyReader hides every other method of a reader.
type onlyReader struct{ io.Reader }

// CheckToken says whether a token can stand in a header: one or more visible
// ASCII characters. The error does not hold it.
func CheckToken(token string) error {
	if token == "" {
		return errors.New("the token is empty")
	}
	for _, c := range []byte(token) {
		if c <= ' ' || c > '~' {
			return errors.New("the token holds characters that no header can carry")
		}
	}
	return nil
}
