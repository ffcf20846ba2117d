package console

import (
	"crypto/sha256"
	"crypto/subtle"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"path"
	"runtime/debug"
	"strings"
	"sync"
	"time"

	"github.com/rs/zerolog"
)

// csp lets the page use its own files and nothing else: no inline script or
// style, no other host, no frame.
const csp = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self'; " +
	"base-uri 'none'; form-action 'self'; frame-ancestors 'none'"

// headers are on every answer, errors too.
func headers(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("Content-Security-Policy", csp)
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("Referrer-Policy", "no-referrer")
		h.Set("Cross-Origin-Opener-Policy", "same-origin")
		h.Set("Cross-Origin-Resource-Policy", "same-origin")
		h.Set("Cache-Control", "no-store")
		if r.TLS != nil {
			h.Set("Strict-Transport-Security", "max-age=31536000")
		}
		next.ServeHTTP(w, r)
	})
}

// contain lets a panic end its own request only. Its value may hold anything,
// so only its type is told.
func (c *console) contain(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		defer func() {
			p := recover()
			if p == nil {
				return
			}
			if p == http.ErrAbortHandler {
				panic(p)
			}
			c.o.Log.Error().Str("panic", fmt.Sprintf("%T", p)).Bytes("stack", debug.Stack()).Msg("panic in the console, contained")
			problem{Status: http.StatusInternalServerError, Detail: "the console failed; its log says where"}.write(w)
		}()
		next.ServeHTTP(w, r)
	})
}

// plainPath refuses paths that are not written in their one plain form, where
// the mux would redirect, and so anything that could be read in two ways.
func plainPath(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if p := r.URL.Path; path.Clean(p) != p || !strings.HasPrefix(p, "/") {
			notFound(w)
			return
		}
		next.ServeHTTP(w, r)
	})
}

// loopbackOnly keeps strangers out where there is no token: other machines, and
// pages of other sites that had their name resolve to this machine (DNS
// rebinding), whose browser still says the name in Host.
func (c *console) loopbackOnly(next http.Handler) http.Handler {
	if c.o.Token != nil {
		return next
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case !isLoopback(remote(r)):
			c.refused.note(r)
			problem{Status: http.StatusForbidden, Detail: "without http.token_file only this machine is served"}.write(w)
		case !isLoopback(hostname(r.Host)):
			c.refused.note(r)
			problem{
				Status: http.StatusMisdirectedRequest,
				Detail: "without http.token_file the address must be localhost, 127.0.0.1 or [::1]",
			}.write(w)
		default:
			next.ServeHTTP(w, r)
		}
	})
}

// admit guards one route.
func (c *console) admit(rt route) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if rt.access == closed {
			if !c.known(w, r) {
				return
			}
			w.Header().Set("Server", strings.TrimSuffix("crmsync/"+c.o.Version, "/"))
		}
		rt.serve(w, r)
	})
}

// known says whether the caller may see and steer; if not, it has answered.
func (c *console) known(w http.ResponseWriter, r *http.Request) bool {
	ok, err := c.authorised(r)
	switch {
	case err != nil:
		problem{
			Status: http.StatusServiceUnavailable,
			Detail: "the console's own token cannot be read, so nobody is served; see http.token_file in the configuration",
		}.write(w)
		return false
	case !ok:
		if r.Header.Get("Authorization") != "" { // the page asks once without, to see
			c.refused.note(r)
		}
		w.Header().Set("WWW-Authenticate", `Bearer realm="crmsync"`)
		problem{Status: http.StatusUnauthorized, Detail: "present the token of http.token_file as Authorization: Bearer"}.write(w)
		return false
	}
	return true
}

// authorised compares what the caller presents with the token, in a time that
// depends on neither. Without a token everybody who came this far is.
func (c *console) authorised(r *http.Request) (bool, error) {
	if c.o.Token == nil {
		return true, nil
	}
	want, err := c.o.Token()
	if err != nil {
		return false, err
	}
	if want == "" {
		return false, errors.New("the token is empty")
	}
	values := r.Header.Values("Authorization")
	if len(values) != 1 {
		return false, nil
	}
	scheme, got, _ := strings.Cut(values[0], " ")
	a, b := sha256.Sum256([]byte(want)), sha256.Sum256([]byte(got))
	same := subtle.ConstantTimeCompare(a[:], b[:]) == 1
	return same && strings.EqualFold(scheme, "Bearer"), nil
}

// hostname is a Host header without its port and brackets.
func hostname(host string) string {
	if h, _, err := net.SplitHostPort(host); err == nil {
		return h
	}
	return strings.TrimSuffix(strings.TrimPrefix(host, "["), "]")
}

// remote is the caller's address without the port. Headers such as
// X-Forwarded-For are for anybody to write and count for nothing.
func remote(r *http.Request) string {
	host, _, err := net.SplitHostPort(r.RemoteAddr)
	if err != nil {
		return r.RemoteAddr
	}
	return host
}

func isLoopback(host string) bool {
	if addr, err := netip.ParseAddr(host); err == nil {
		return addr.IsLoopback()
	}
	return strings.EqualFold(strings.TrimSuffix(host, "."), "localhost")
}

// refusedEvery is how often refused callers are logged, at most.
const refusedEvery = time.Minute

// refusals counts refused callers, so that a flood of them is a few lines. Safe
// for concurrent use.
type refusals struct {
	log zerolog.Logger

	mu   sync.Mutex
	n    int
	next time.Time
}

func (f *refusals) note(r *http.Request) {
	n := f.count(time.Now())
	if n > 0 {
		f.log.Warn().Int("refused", n).Str("caller", remote(r)).Msg("console refuses callers")
	}
}

// count is how many to report now, or 0.
func (f *refusals) count(now time.Time) int {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.n++
	if now.Before(f.next) {
		return 0
	}
	n := f.n
	f.n, f.next = 0, now.Add(refusedEvery)
	return n
}
