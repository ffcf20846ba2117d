// Package perfex applies contact changes to Perfex CRM through its REST API
// module (crm-apis A, generations 2.0.x to 3.1.x). The module's PUT clears
// whatever flag it is not sent and answers with statuses that do not mean what
// they say, so each change is read, compared, written whole and, where the
// answer is lost or ambiguous, read again.
package perfex

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"crmsync/contact"
	"crmsync/crm"
)

// MaxRequests is the most HTTP requests that one change costs in a Send: read,
// write, read back.
const MaxRequests = 3

// Generations of the module's API.
const (
	APIAuto = "auto"
	API2    = "2"
	API3    = "3"
)

// readBackTimeout bounds the read after a lost answer: the call has lasted a
// whole time-out by then.
const readBackTimeout = 5 * time.Second

// Options configure a [Client]. Base, Token and a policy for permissions
// (Permissions or ClearPermissions) are required.
type Options struct {
	// Base is the CRM's address without /api.
	Base *url.URL
	// Token returns the authtoken. It is called for every request, so that a
	// rotated one is used at once; its error must not hold the token.
	Token func() (string, error)
	// API is auto, 2 or 3; "" means auto. Requests are the same for all
	// generations and answers are told apart by their bodies; the value is
	// only what [Client.Version] says without asking.
	API string
	// Permissions are the portal permissions (1 invoices, 2 estimates, 3
	// contracts, 4 proposals, 5 support, 6 projects) that every write sets,
	// since a write without them removes all and no answer shows them
	// (crm-apis A4, A8). An update's own permissions override them.
	Permissions []int
	// ClearPermissions says that writes may remove them.
	ClearPermissions bool
	// Timeout bounds each request; 0 means crm.DefaultTimeout.
	Timeout time.Duration
	// Messages override the words by which answers are recognised.
	Messages Messages
	// CAFile, Proxy, AllowPrivate, Dial, Transport and UserAgent are those of
	// crm.Options.
	CAFile       string
	Proxy        *url.URL
	AllowPrivate bool
	Dial         func(ctx context.Context, network, address string) (net.Conn, error)
	Transport    http.RoundTripper
	UserAgent    string
}

// Client applies changes to one Perfex installation. It is safe for concurrent
// use; changes of one contact must not run side by side.
type Client struct {
	http        *crm.Client
	token       func() (string, error)
	api         string
	permissions []int
	messages    Messages
}

// New checks the options and returns a client. It makes no request.
func New(o Options) (*Client, error) {
	if o.Token == nil {
		return nil, errors.New("perfex: no token; set token_file or token_env in the config")
	}
	if o.API == "" {
		o.API = APIAuto
	}
	if !slices.Contains([]string{APIAuto, API2, API3}, o.API) {
		return nil, fmt.Errorf("perfex: api %q; use auto, 2 or 3", o.API)
	}
	if len(o.Permissions) == 0 && !o.ClearPermissions {
		return nil, errors.New("perfex: say what becomes of a contact's portal permissions: " +
			"a write removes them unless it sends them, and they cannot be read; " +
			"set permissions: [1, 2, 3, 4, 5, 6] (those to keep) or permissions: clear in the config")
	}
	if len(o.Permissions) > 0 && o.ClearPermissions {
		return nil, errors.New("perfex: permissions are either a list or clear, not both")
	}
	for _, p := range o.Permissions {
		if p < 1 || p > 6 {
			return nil, fmt.Errorf("perfex: permission %d; the ids are 1 to 6", p)
		}
	}
	if o.Base != nil && strings.HasSuffix(strings.TrimRight(o.Base.Path, "/"), "/api") {
		return nil, errors.New("perfex: write the url without /api")
	}
	h, err := crm.NewClient(crm.Options{
		Base: o.Base, Timeout: o.Timeout, UserAgent: o.UserAgent,
		CAFile: o.CAFile, Proxy: o.Proxy, AllowPrivate: o.AllowPrivate, Dial: o.Dial, Transport: o.Transport,
		Hints: hintRules,
	})
	if err != nil {
		return nil, fmt.Errorf("perfex: %w", err)
	}
	perms := slices.Clone(o.Permissions)
	slices.Sort(perms)
	return &Client{
		http: h, token: o.Token, api: o.API,
		permissions: slices.Compact(perms), messages: o.Messages.orDefault(),
	}, nil
}

// Rules say how updates of Perfex contacts fold: every field is replaced
// whole; a set-password mail and a password go out in a call of their own. A
// mail is never asked for twice. A password is a value like any other: after
// an unknown outcome it is written again, unless the hash that the CRM shows
// proves that it is set.
func (c *Client) Rules() contact.Rules {
	return contact.Rules{SideEffects: []string{fieldMail, fieldPassword}}
}

// Within has no request sent that may not end before an instant; see
// [crm.Client.Within].
func (c *Client) Within(lease func() time.Time) { c.http.Within(lease) }

// CloseIdle closes the connections that no request uses.
func (c *Client) CloseIdle() { c.http.CloseIdle() }

// Send applies changes one after the other and answers each. The first
// request is taken as paid for; spend is asked for every other, at most
// MaxRequests a change. Where ctx ends in the middle, what was sent without an
// answer is Unknown and what was not sent is Transient.
func (c *Client) Send(ctx context.Context, spend crm.Spend, changes []contact.Change) []crm.Answer {
	return crm.EachChange(spend, changes, func(m *crm.Meter, change *contact.Change) crm.Answer {
		return c.send(ctx, m, change)
	})
}

// Version asks the CRM which version of the API module it runs: its number for
// 3.x, "2" where the module is too old to say (crm-apis A1). A configured API
// other than auto is returned without a request. It is for people and checks;
// Send does not depend on it. The answer's verdict is Applied where the
// question was answered.
func (c *Client) Version(ctx context.Context, spend crm.Spend) (string, crm.Answer) {
	if c.api != APIAuto {
		return c.api, crm.Answer{Verdict: contact.VerdictApplied}
	}
	k := &call{Client: c, meter: crm.NewMeter(spend)}
	r, f := k.do(ctx, http.MethodGet, "/api/openapi", nil, 0)
	if f != nil {
		a := f.Answer(false)
		a.Requests = k.meter.Requests()
		return "", a
	}
	done := crm.Answer{Verdict: contact.VerdictApplied, Status: r.Status, Requests: 1}
	obj, ok := r.Object()
	var info struct{ Version string }
	switch {
	case ok && r.Status == http.StatusOK && text(obj["info"], &info) && info.Version != "":
		return crm.Detail([]byte(info.Version), k.secrets...), done
	case !ok && r.Status == http.StatusNotFound:
		// 2.x has no such page: the framework answers with its HTML 404.
		return API2, done
	}
	a, _ := k.verdict(r, reading)
	a.Requests = 1
	return "", a
}
