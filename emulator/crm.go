// Package emulator is for being Perfex or Evance, on a good day or a bad one,
// and for keeping a ledger of all that arrived. It is the judge of tests, of
// the demo and of anyone who wants to try a worker without a CRM: it imports
// nothing of the worker it judges.
//
// [NewPerfex] and [NewEvance] make a [CRM], which is an [http.Handler] that
// answers as faithfully as is known, traps included; [CRM.SetFaults] plans a
// bad day; [CRM.Ledger] says what happened; [Stale], [OverQuota] and their
// kin judge it; [NewControl] offers the same to other processes.
//
// All methods of a CRM may be called concurrently. Time is read with time.Now
// only, so that it runs within testing/synctest; make the CRM inside the
// bubble that uses it.
package emulator

import (
	"bytes"
	"encoding/json"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"sync"
	"time"
)

// maxBody bounds a request's body, as a web server would.
const maxBody = 8 << 20

// CRM is one emulated installation.
type CRM struct {
	opt  Options
	api  vendor
	done chan struct{}
	stop sync.Once

	mu      sync.Mutex // guards all below and the entries
	store   *store
	log     []*Entry
	mails   []Mail
	plan    Faults
	planned time.Time
	rng     *rand.Rand
	bucket  bucket
	applies int
}

// vendor answers as one CRM does. Its state is guarded by CRM.mu.
type vendor interface {
	// classify fills in the operation and the contacts of a call.
	classify(cl *call)
	// handle answers; what it commits to t is stored.
	handle(cl *call, t *tx) reply
	// refuse answers the vendor's way for one of the refusing faults.
	refuse(cl *call, why Kind) reply
	// setToken replaces the accepted token; revoke makes the current ones
	// worthless.
	setToken(token string)
	revoke()
}

// call is one request, read.
type call struct {
	entry    *Entry
	method   string
	path     string // of the URL, decoded
	raw      string // of the URL, as sent
	query    url.Values
	header   http.Header
	host     string
	ip       string
	body     []byte
	doc      any // body decoded as JSON, nil if it is not JSON
	now      time.Time
	op       Operation
	contacts []string
	used     int // requests of this address in the window, before this one
}

// reply is an answer not yet sent.
type reply struct {
	status int
	header http.Header
	body   []byte
	wait   time.Duration // told to the caller in a form it can read
	parts  []Part
	mails  []Mail
}

func newCRM(o Options, api vendor, s schema) *CRM {
	return &CRM{
		opt: o, api: api, done: make(chan struct{}),
		store: newStore(s, o.Contacts), planned: time.Now(),
		rng: rand.New(rand.NewPCG(o.Seed, 0x6661756c7473)),
	}
}

// Options returns the options in force, defaults filled in: what a client
// needs to be let in.
func (c *CRM) Options() Options { return c.opt }

// SetToken replaces what is accepted: Perfex's authtoken, Evance's private
// key. Tokens that Evance gave out before stay good.
func (c *CRM) SetToken(token string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.api.setToken(token)
}

// RevokeTokens makes every token worthless: Perfex's until SetToken, Evance's
// access tokens until a new one is fetched.
func (c *CRM) RevokeTokens() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.api.revoke()
}

// Close ends all waits of requests being served; late ones that have not been
// applied never are. It lets a server that holds them shut down.
func (c *CRM) Close() { c.stop.Do(func() { close(c.done) }) }

// Contact returns a contact as stored: for Perfex the columns (text or nil)
// with permissions ([]string) and custom_fields (map[string]string), for
// Evance the fields under their v1 names. Nested values are shared and must
// not be changed.
func (c *CRM) Contact(id string) (map[string]any, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	n, err := strconv.Atoi(id)
	r, ok := c.store.get(n)
	if err != nil || !ok {
		return nil, false
	}
	return c.store.schema.public(n, r), true
}

// Contacts returns the ids of all contacts in numeric order.
func (c *CRM) Contacts() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	ids := c.store.ids()
	out := make([]string, len(ids))
	for i, id := range ids {
		out[i] = strconv.Itoa(id)
	}
	return out
}

// Put sets fields of a contact behind the API's back, creating it if need be.
// Values are stored as given: use those that Contact returns. It panics if id
// is no positive integer.
func (c *CRM) Put(id string, fields map[string]any) {
	n, err := strconv.Atoi(id)
	if err != nil || n < 1 {
		panic("emulator: a contact's id is a positive integer, not " + strconv.Quote(id))
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	r, ok := c.store.get(n)
	if !ok {
		r = c.store.schema.blank(n)
	}
	for k, v := range fields {
		r[k] = v
	}
	c.store.put(n, r)
}

// Delete removes a contact behind the API's back and says whether it existed.
func (c *CRM) Delete(id string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	n, err := strconv.Atoi(id)
	return err == nil && c.store.delete(n)
}

// ServeHTTP answers one request and enters it in the ledger. It panics with
// http.ErrAbortHandler to drop the connection when a fault says so.
func (c *CRM) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	e := c.arrive(r)
	cl, err := read(r, e)
	if err != nil {
		c.leave(e, 0)
		panic(http.ErrAbortHandler)
	}
	c.serve(w, r, cl)
}

// arrive enters a request in the ledger.
func (c *CRM) arrive(r *http.Request) *Entry {
	c.mu.Lock()
	defer c.mu.Unlock()
	e := &Entry{
		N: len(c.log) + 1, Arrived: time.Now(), Method: r.Method, Path: r.URL.Path, Operation: OpOther,
	}
	c.log = append(c.log, e)
	return e
}

// leave closes an entry. Status 0 means that no answer reached the caller.
func (c *CRM) leave(e *Entry, status int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	e.Answered, e.Status = time.Now(), status
}

func read(r *http.Request, e *Entry) (*call, error) {
	cl := &call{
		entry: e, method: r.Method, path: r.URL.Path, raw: r.URL.EscapedPath(),
		header: r.Header, host: r.Host, ip: r.RemoteAddr, now: e.Arrived, op: OpOther,
	}
	cl.query, _ = url.ParseQuery(r.URL.RawQuery)
	if host, _, err := net.SplitHostPort(r.RemoteAddr); err == nil {
		cl.ip = host
	}
	if r.Body == nil {
		return cl, nil
	}
	body, err := io.ReadAll(io.LimitReader(r.Body, maxBody+1))
	cl.body = body
	if d := json.NewDecoder(bytes.NewReader(body)); err == nil && len(body) <= maxBody {
		d.UseNumber()
		if d.Decode(&cl.doc) != nil {
			cl.doc = nil
		}
	}
	return cl, err
}

// pause waits without holding anything; false means the CRM was closed.
func (c *CRM) pause(d time.Duration) bool {
	if d <= 0 {
		return true
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-c.done:
		return false
	}
}
