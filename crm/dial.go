package crm

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"sync/atomic"
	"syscall"
	"time"
)

// errPrivate is the refusal of a name that leads into a private network.
var errPrivate = errors.New("refused to connect to an address of a private network; set allow_private for this target if the CRM is there")

// errAddress is the refusal of an address that no CRM lives at.
var errAddress = errors.New("refused to connect to a link-local, multicast or unspecified address")

// dialer connects and refuses, on the resolved address, what a CRM's name must
// never lead to: the metadata services of clouds above all.
//
// Addresses of private networks and of this machine are refused too, unless
// private allows them: a public name that resolves to one is either a mistake
// or an attack.
func dialer(private bool) func(ctx context.Context, netw, addr string) (net.Conn, error) {
	d := &net.Dialer{
		Timeout: ConnectTimeout,
		ControlContext: func(_ context.Context, _, addr string, _ syscall.RawConn) error {
			return checkAddress(addr, private)
		},
	}
	return d.DialContext
}

// counting wraps what a dialer connects.
func counting(dial func(ctx context.Context, netw, addr string) (net.Conn, error)) func(ctx context.Context, netw, addr string) (net.Conn, error) {
	return func(ctx context.Context, netw, addr string) (net.Conn, error) {
		c, err := dial(ctx, netw, addr)
		if err != nil {
			return nil, err
		}
		return &countedConn{Conn: c}, nil
	}
}

var (
	nat64 = netip.MustParsePrefix("64:ff9b::/96")
	// carrier-grade NAT: private to a provider
	sharedSpace = netip.MustParsePrefix("100.64.0.0/10")
	thisHost    = netip.MustParsePrefix("0.0.0.0/8")
	awsV6       = netip.MustParseAddr("fd00:ec2::254") // the metadata service's unique local address
)

func checkAddress(addr string, private bool) error {
	ap, err := netip.ParseAddrPort(addr)
	if err != nil {
		return fmt.Errorf("%w: %q is not an address", errAddress, addr)
	}
	a := ap.Addr().WithZone("").Unmap()
	if nat64.Contains(a) {
		b := a.As16()
		a = netip.AddrFrom4([4]byte(b[12:]))
	}
	if a.IsUnspecified() || a.IsMulticast() || a.IsLinkLocalUnicast() || thisHost.Contains(a) ||
		a == awsV6 || a == netip.AddrFrom4([4]byte{255, 255, 255, 255}) {
		return fmt.Errorf("%w (%s)", errAddress, a)
	}
	if !private && isPrivate(a) {
		return fmt.Errorf("%w (%s)", errPrivate, a)
	}
	return nil
}

func isPrivate(a netip.Addr) bool {
	return a.IsPrivate() || a.IsLoopback() || sharedSpace.Contains(a)
}

// namesPrivate says that a host is written as such an address, or as localhost:
// then whoever wrote the configuration meant it.
func namesPrivate(host string) bool {
	if host == "localhost" {
		return true
	}
	a, err := netip.ParseAddr(host)
	return err == nil && isPrivate(a.Unmap())
}

// countedConn knows how many bytes were handed to the network, which decides
// whether a failed request can have reached the CRM; and it hands none over for a
// request whose time is over. A process that was stopped in between would
// otherwise, when it wakes, send what nobody owes the CRM any more: timers do not
// run before whatever was running goes on.
type countedConn struct {
	net.Conn
	written atomic.Int64
	until   atomic.Pointer[time.Time] // of the request at hand; nil: none
}

// errTooLate is the refusal to write for a request whose time is over.
var errTooLate = fmt.Errorf("the request's time was over before it was sent: %w", os.ErrDeadlineExceeded)

func (c *countedConn) Write(b []byte) (int, error) {
	if t := c.until.Load(); t != nil && !time.Now().Before(*t) {
		return 0, errTooLate
	}
	n, err := c.Conn.Write(b)
	c.written.Add(int64(n))
	return n, err
}

// counted finds the counter below a connection, TLS or not.
func counted(c net.Conn) *countedConn {
	if t, ok := c.(interface{ NetConn() net.Conn }); ok {
		c = t.NetConn()
	}
	cc, _ := c.(*countedConn)
	return cc
}
