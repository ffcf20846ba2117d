package config

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"regexp"
	"strconv"
	"strings"
)

var (
	hostName  = regexp.MustCompile(`^[A-Za-z0-9_]([A-Za-z0-9_-]*[A-Za-z0-9_])?(\.[A-Za-z0-9_]([A-Za-z0-9_-]*[A-Za-z0-9_])?)*\.?$`)
	numberish = regexp.MustCompile(`(^|\.)(0[xX][0-9a-fA-F]*|[0-9]+)\.?$`)
	plainPath = regexp.MustCompile(`^(/[A-Za-z0-9_~-][A-Za-z0-9._~-]*)*/*$`)
)

// targetURL reads a CRM's address. What it refuses is each a way to send a token
// or a contact where they do not belong. The scheme and private networks are
// checked by reachable, since other keys have a say in it. Errors do not quote
// the address: people put passwords there.
func targetURL(s string) (*url.URL, error) {
	u, err := url.Parse(s)
	switch {
	case err != nil || u.Opaque != "":
		return nil, errors.New("is not a web address; write https://crm.example.com")
	case u.Scheme != "https" && u.Scheme != "http":
		return nil, errors.New("must begin with https://")
	case u.User != nil:
		return nil, errors.New("must not contain a user or password; secrets belong in token_file or credentials_file")
	case u.RawQuery != "" || u.ForceQuery || strings.Contains(s, "?"):
		return nil, errors.New("must not contain a query (?)")
	case strings.Contains(s, "#"):
		return nil, errors.New("must not contain a fragment (#)")
	}
	if err := checkHost(u); err != nil {
		return nil, err
	}
	if u.RawPath != "" || strings.Contains(s, "%") || !plainPath.MatchString(u.Path) {
		return nil, errors.New("has a path with unusual characters; write it as plain segments, such as https://example.com/crm")
	}
	path := strings.TrimRight(u.Path, "/")
	if i := strings.Index(path+"/", "/api/"); i >= 0 {
		return nil, fmt.Errorf("must be written without /api, which is added to it; write %s", quote(u.Scheme+"://"+u.Host+path[:i]))
	}
	return &url.URL{Scheme: u.Scheme, Host: strings.ToLower(u.Host), Path: path}, nil
}

func checkHost(u *url.URL) error {
	host := u.Hostname()
	if host == "" {
		return errors.New("has no host; write https://crm.example.com")
	}
	if strings.HasSuffix(u.Host, ":") {
		return errors.New("has a colon but no port")
	}
	if err := checkPort(u.Port()); err != nil {
		return err
	}
	if addr, err := netip.ParseAddr(host); err == nil {
		addr, zone := addr.Unmap(), addr.Zone()
		switch {
		case zone != "":
			return errors.New("must not name a network interface (%)")
		case addr.IsUnspecified():
			return errors.New("is the address of no machine")
		case addr.IsMulticast() || addr == netip.AddrFrom4([4]byte{255, 255, 255, 255}):
			return errors.New("is a multicast address, not a CRM")
		case addr.IsLinkLocalUnicast():
			return errors.New("is a link-local address, where clouds keep their credentials, not a CRM")
		}
		return nil
	}
	for _, c := range host {
		if c >= 0x80 {
			return errors.New("has letters outside ASCII in the host, which can look like others; write it in its xn-- form")
		}
	}
	if len(host) > 253 || !hostName.MatchString(host) {
		return errors.New("has a host that is not a domain name")
	}
	// Resolvers differ on 0x7f.1 and 2130706433; some make them loopback.
	if numberish.MatchString(host) {
		return errors.New("has a host that is a number but not an IP address; write it as 192.0.2.1")
	}
	return nil
}

// reachable says why the address of a target that passed targetURL may not be
// used as the rest of it is configured.
func reachable(t *Target) error {
	host := t.URL.Hostname()
	if isLoopback(host) {
		return nil
	}
	if addr, err := netip.ParseAddr(host); err == nil && addr.Unmap().IsPrivate() && !t.AllowPrivate {
		return errors.New("is an address in a private network; if that is meant, add allow_private: true")
	}
	if t.URL.Scheme != "https" && !t.AllowInsecure {
		return errors.New("sends secrets in the clear; write https://, or add allow_insecure: true if the network is trusted")
	}
	return nil
}

func isLoopback(host string) bool {
	if addr, err := netip.ParseAddr(host); err == nil {
		return addr.Unmap().IsLoopback()
	}
	return strings.EqualFold(strings.TrimSuffix(host, "."), "localhost")
}

// listenAddress reads host:port; off, none and nothing mean no listener. Port 0
// lets the system choose.
func listenAddress(s string) (string, error) {
	if s == "" || s == "off" || s == "none" {
		return "", nil
	}
	host, port, err := net.SplitHostPort(s)
	if err != nil {
		return "", errors.New(quote(s) + " is not an address to listen on; write 127.0.0.1:8321, or off for none")
	}
	if _, err := strconv.ParseUint(port, 10, 16); err != nil {
		return "", errors.New(quote(s) + " has a port that is not 0 to 65535")
	}
	if _, err := netip.ParseAddr(host); err != nil && host != "" && !hostName.MatchString(host) {
		return "", errors.New(quote(s) + " has a host that is neither a name nor an IP address")
	}
	return s, nil
}

// listensToOthers reports whether an address that passed listenAddress can be
// reached from another machine.
func listensToOthers(listen string) bool {
	if listen == "" {
		return false
	}
	host, _, err := net.SplitHostPort(listen)
	return err != nil || !isLoopback(host)
}

// natsURL reads a comma-separated list of servers. Errors do not quote it:
// people put passwords there.
func natsURL(s string) (string, error) {
	if s == "" {
		return "", nil
	}
	var out []string
	for one := range strings.SplitSeq(s, ",") {
		one = strings.TrimSpace(one)
		full := one
		if !strings.Contains(full, "://") {
			full = "nats://" + full
		}
		u, err := url.Parse(full)
		switch {
		case err != nil || u.Hostname() == "" || (u.Path != "" && u.Path != "/") || strings.ContainsAny(full, "?#"):
			return "", errors.New("is not a NATS address; write nats://host:4222, several separated by commas")
		case u.User != nil:
			return "", errors.New("must not contain a user, password or token; use nats.creds, or nats.user and nats.password_file")
		case u.Scheme != "nats" && u.Scheme != "tls" && u.Scheme != "ws" && u.Scheme != "wss":
			return "", errors.New("must begin with nats://, tls://, ws:// or wss://")
		}
		if err := checkPort(u.Port()); err != nil {
			return "", err
		}
		out = append(out, one)
	}
	return strings.Join(out, ","), nil
}

func checkPort(port string) error {
	if n, err := strconv.ParseUint(port, 10, 16); port != "" && (err != nil || n == 0) {
		return errors.New("has a port that is not 1 to 65535")
	}
	return nil
}
