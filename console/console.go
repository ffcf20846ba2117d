// Package console is for the operator who watches crmsync and steers it: one
// page, the HTTP API behind it, and the endpoints that machines ask (health,
// readiness, metrics). It shows what it is handed as functions and knows
// neither the queue nor the lanes.
//
// Who may ask for what stands in one place, the table of [New]. Without a token
// it serves the machine it runs on and nobody else; with one, every caller must
// present it, except for the two probes and the page's own files, which are the
// same for everybody and hold no data.
package console

import (
	"context"
	"errors"
	"net/http"
	"time"

	"github.com/rs/zerolog"

	"crmsync/contact"
)

// ErrUnknownTarget is what a [Options.Steer] or [Options.Dead] returns, wrapped
// or not, for a target that does not exist. The caller gets a 404.
var ErrUnknownTarget = errors.New("no such target")

// ErrConflict is what a [Options.Steer] returns, wrapped in what to do, where
// the target is not in the state that the order is for.
var ErrConflict = errors.New("the target is not in that state")

// ErrBusy is what a function of [Options] returns, wrapped in why, where nothing can
// be taken at the moment. The caller gets a 503 with a Retry-After.
var ErrBusy = errors.New("try again later")

// retryAfter is when.
const retryAfter = 30 * time.Second

// Options is what the console shows and steers. The functions are called
// concurrently, with a context that ends with the request or after
// [CallTimeout]. A nil function takes its route away (404), except for Ready.
type Options struct {
	// Version is crmsync's own. It goes, as the header Server, to callers who
	// may see the status and to nobody else.
	Version string
	// Ready says whether the process can do its work; nil is ready, as is a
	// nil function. The error's text goes to callers who may see the status,
	// to others only the fact.
	Ready func(ctx context.Context) error
	// Note says what should be looked at though the process is ready, to callers
	// who may see the status; "" and a nil function are nothing.
	Note func(ctx context.Context) string
	// Status is what /api/v1/status answers, as JSON.
	Status func(ctx context.Context) (any, error)
	// Dead lists dead letters, newest first, as an object with the members
	// letters (an array) and next (the After of the next page as a string,
	// absent on the last). The page shows of a letter: id (a string), target,
	// contact, at, reason, status, attempts, detail, fields, job, row. It must
	// never hold a value of a contact.
	Dead func(ctx context.Context, q DeadQuery) (any, error)
	// Groups sums up the letters that q chooses by cause, as an object with the
	// member groups (an array). The page shows of a group: fingerprint, target,
	// reason, status, field, message, count, last, suggestion. No value either.
	Groups func(ctx context.Context, q DeadQuery) (any, error)
	// Letter is one letter whole, values included, for whoever may see it.
	Letter func(ctx context.Context, id uint64) (any, error)
	// Redrive sends letters again, or says what that would do; Discard gives
	// them up. Both answer once the order stands.
	Redrive func(ctx context.Context, o LetterOrder) (any, error)
	Discard func(ctx context.Context, o LetterOrder) (any, error)
	// Steer stores what an operator wants of a target; nil once it is stored.
	Steer func(ctx context.Context, target string, s Steering) error
	// Metrics answers /metrics.
	Metrics http.Handler
	// Token is what callers must present as a bearer; it is asked at each
	// request, so that a new one counts at once. An error or an empty token
	// refuses everybody. nil means that there is none: then only callers on
	// this machine that name it by a loopback host are served.
	Token func() (string, error)
	// Log hears of refused callers and of panics. The zero value discards.
	Log zerolog.Logger
}

// CallTimeout bounds each function of [Options].
const CallTimeout = 10 * time.Second

// Limits of a [DeadQuery].
const (
	// DefaultDead is its Limit where the caller names none.
	DefaultDead = 50
	// MaxDead is the highest Limit.
	MaxDead = 500
)

// DeadQuery says which dead letters are meant. The zero value of a field, other
// than Limit, means all.
type DeadQuery struct {
	Target string         // a target's name, valid but not known to exist
	Reason contact.Reason // why they are dead
	Group  string         // the fingerprint of their cause
	Limit  int            // most letters to return; 1 to [MaxDead]
	After  uint64         // the letters that follow this one in the list
}

// MaxNote is the longest note of a [Steering], in bytes of UTF-8.
const MaxNote = 200

// Steering is what an operator wants of a target.
type Steering struct {
	Hold  bool      // else resume
	Until time.Time // the hold ends then, in the future; zero: when somebody resumes
	Note  string    // for the other operators: printable, at most [MaxNote]
	Storm string    // resume: accept or recall ends a storm in that way; "" only tries
	By    string    // who wants it, as far as it is known: console from the caller's address
}

// access is who may use a route.
type access uint8

const (
	closed access = iota // the zero value: the token's bearer, or this machine where there is none
	open                 // with a token set, everybody
)

// route is one row of the table.
type route struct {
	method string // GET, which allows HEAD, or POST
	path   string // as [http.ServeMux] writes it
	access access
	serve  http.HandlerFunc
}

// console is the handler's state.
type console struct {
	o       Options
	refused refusals
}

// New makes the handler of the console. It starts nothing and keeps nothing
// between requests.
func New(o Options) http.Handler {
	c := &console{o: o}
	c.refused.log = o.Log
	return c.handler(c.routes())
}

// routes is the table of all that is served.
func (c *console) routes() []route {
	table := []route{
		{"GET", "/healthz", open, c.health},
		{"GET", "/readyz", open, c.ready},
	}
	for _, f := range pageFiles {
		table = append(table, route{"GET", f.path, open, f.serve})
	}
	if c.o.Metrics != nil {
		table = append(table, route{"GET", "/metrics", closed, c.o.Metrics.ServeHTTP})
	}
	if c.o.Status != nil {
		table = append(table, route{"GET", "/api/v1/status", closed, c.status})
	}
	if c.o.Dead != nil {
		table = append(table, route{"GET", "/api/v1/dead", closed, c.dead})
	}
	table = append(table, c.letterRoutes()...)
	if c.o.Steer != nil {
		table = append(table,
			route{"POST", "/api/v1/targets/{target}/hold", closed, c.hold},
			route{"POST", "/api/v1/targets/{target}/resume", closed, c.resume})
	}
	return table
}

// handler serves the table. What every request must pass stands outermost, so
// that no route can be forgotten; who may use a route is checked on the route
// that was matched, never on the path.
func (c *console) handler(table []route) http.Handler {
	mux := http.NewServeMux()
	byPath := map[string]string{} // path: method
	for _, r := range table {
		mux.Handle(r.method+" "+r.path, c.admit(r))
		byPath[r.path] = r.method
	}
	for path, method := range byPath {
		mux.HandleFunc(path, func(w http.ResponseWriter, _ *http.Request) { wrongMethod(w, method) })
	}
	mux.HandleFunc("/", func(w http.ResponseWriter, _ *http.Request) { notFound(w) })

	cross := http.NewCrossOriginProtection()
	cross.SetDenyHandler(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		problem{Status: http.StatusForbidden, Detail: "the request was made by a page of another site"}.write(w)
	}))
	return c.contain(headers(plainPath(c.loopbackOnly(cross.Handler(mux)))))
}
