// Package evance applies contact changes to Evance, an e-commerce platform
// with a CRM (crm-apis B), through version 1 or 2 of its API: one PUT a change,
// with an access token that is fetched, shared and renewed here.
package evance

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"slices"
	"time"

	"crmsync/contact"
	"crmsync/crm"
)

// MaxRequests is the most HTTP requests that one change can cost in a Send:
// write and read back, each of them twice where the token was refused, and
// before each a token, for which two spellings of the endpoint and two grants
// may have to be tried. Nearly every change costs one, and once an hour two.
const MaxRequests = 4 + 3*maxAsks

// Versions of the API.
const (
	API1 = "1"
	API2 = "2"
)

// Grants, the ways to a token.
const (
	GrantAuto              = "auto"
	GrantClientCredentials = "client_credentials"
	GrantJWT               = "jwt"
)

const readBackTimeout = 5 * time.Second

// Options configure a [Client]. Base and Credentials are required.
type Options struct {
	// Base is the shop's address, https://{account}.evance.me.
	Base *url.URL
	// API is 1 or 2; "" means 1. The versions differ in field names.
	API string
	// Credentials returns what the credentials file holds. It is called for
	// each token, so that a replaced file is used at the next one; its error
	// must not hold a value of the file.
	Credentials func() (Credentials, error)
	// Grant is auto, client_credentials or jwt; "" means auto: jwt, which does
	// not send the key, and client_credentials where the shop refuses that.
	Grant string
	// Timeout bounds each request; 0 means crm.DefaultTimeout.
	Timeout time.Duration
	// CAFile, Proxy, AllowPrivate, Dial, Transport and UserAgent are those of
	// crm.Options.
	CAFile       string
	Proxy        *url.URL
	AllowPrivate bool
	Dial         func(ctx context.Context, network, address string) (net.Conn, error)
	Transport    http.RoundTripper
	UserAgent    string
}

// Client applies changes to one Evance account. It is safe for concurrent use;
// changes of one contact must not run side by side.
type Client struct {
	http   *crm.Client
	v      version
	tokens *tokens
}

// New checks the options and returns a client. It makes no request.
func New(o Options) (*Client, error) {
	if o.Credentials == nil {
		return nil, errors.New("evance: no credentials; set credentials_file in the config")
	}
	if o.API == "" {
		o.API = API1
	}
	if o.API != API1 && o.API != API2 {
		return nil, fmt.Errorf("evance: api %q; use 1 or 2", o.API)
	}
	if o.Grant == "" {
		o.Grant = GrantAuto
	}
	if !slices.Contains([]string{GrantAuto, GrantClientCredentials, GrantJWT}, o.Grant) {
		return nil, fmt.Errorf("evance: grant %q; use auto, client_credentials or jwt", o.Grant)
	}
	h, err := crm.NewClient(crm.Options{
		Base: o.Base, Timeout: o.Timeout, UserAgent: o.UserAgent,
		CAFile: o.CAFile, Proxy: o.Proxy, AllowPrivate: o.AllowPrivate, Dial: o.Dial, Transport: o.Transport,
	})
	if err != nil {
		return nil, fmt.Errorf("evance: %w", err)
	}
	v := v1
	if o.API == API2 {
		v = v2
	}
	return &Client{http: h, v: v, tokens: newTokens(h, o.Credentials, o.Grant)}, nil
}

// Rules say how updates of Evance contacts fold: the address is amended member
// by member, as Evance amends it; access roles and tags are replaced whole; a
// password (API 2) goes out in a call of its own. It is a value, not an event:
// after an unknown outcome it is written again.
func (c *Client) Rules() contact.Rules {
	r := contact.Rules{Deep: []string{fieldAddress}}
	if _, ok := c.v.fields[fieldPassword]; ok {
		r.SideEffects = []string{fieldPassword}
	}
	return r
}

// Within has no request sent that may not end before an instant; see
// [crm.Client.Within].
func (c *Client) Within(lease func() time.Time) { c.http.Within(lease) }

// CloseIdle closes the connections that no request uses.
func (c *Client) CloseIdle() { c.http.CloseIdle() }

// Send applies changes one after the other and answers each. The first
// request is taken as paid for; spend is asked for every other, token fetches
// included. Where ctx ends in the middle, what was sent without an answer is
// Unknown and what was not sent is Transient.
func (c *Client) Send(ctx context.Context, spend crm.Spend, changes []contact.Change) []crm.Answer {
	return crm.EachChange(spend, changes, func(m *crm.Meter, change *contact.Change) crm.Answer {
		return c.send(ctx, m, change)
	})
}
