package emulator

import (
	"net/http"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
)

// NewPerfex returns a Perfex with the REST API module (crm-apis A). The API
// answers under /api/, wherever a path puts that.
//
// Seeded contacts belong four to a customer, the first of each its primary.
func NewPerfex(o Options) *CRM {
	o.Mode = orElse(o.Mode, Perfex303)
	o.Token = orElse(o.Token, DefaultToken)
	o.check(Perfex208, Perfex303, PerfexDocs)
	p := &perfex{opt: o, token: o.Token}
	return newCRM(o, p, perfexSchema{})
}

// perfex is the module's state. Guarded by CRM.mu.
type perfex struct {
	opt      Options
	token    string
	revoked  string // a token that was good until RevokeTokens
	byIP     tally
	byToken  tally
	byURI    tally
	failures tally // of permission, by address
}

func (p *perfex) v2() bool   { return p.opt.Mode == Perfex208 }
func (p *perfex) docs() bool { return p.opt.Mode == PerfexDocs }

func (p *perfex) setToken(token string) { p.token, p.revoked = token, "" }
func (p *perfex) revoke()               { p.revoked, p.token = p.token, "" }

// route is the handler a path leads to.
type route struct {
	name       string // contacts, search, batch, openapi
	id, second string // contacts: the numbers of the path
	key        string // search
}

var (
	contactsPath = regexp.MustCompile(`^(?:delete/)?contacts(?:/(\d+))?(?:/(\d+))?$`)
	searchPath   = regexp.MustCompile(`^contacts/search(?:/([^/]*))?$`)
	// permittedURI are the characters CodeIgniter lets a path have.
	permittedURI = regexp.MustCompile(`^[a-zA-Z 0-9~%.:_@/-]*$`)
)

// below returns what follows the last /api/ of a path.
func below(path string) (string, bool) {
	i := strings.LastIndex(path, "/api/")
	if i < 0 {
		return "", false
	}
	return strings.TrimSuffix(path[i+len("/api/"):], "/"), true
}

func (p *perfex) route(cl *call) (rt route, ok bool) {
	rest, ok := below(cl.path)
	if !ok {
		return rt, false
	}
	if m := contactsPath.FindStringSubmatch(rest); m != nil {
		return route{name: "contacts", id: m[1], second: m[2]}, true
	}
	if m := searchPath.FindStringSubmatch(rest); m != nil {
		return route{name: "search", key: m[1]}, true
	}
	switch {
	case p.v2():
		return rt, false
	case rest == "batch":
		return route{name: "batch"}, true
	case rest == "openapi" || rest == "openapi.json":
		return route{name: "openapi"}, true
	}
	return rt, false
}

// override honours X-HTTP-Method-Override and the form field _method of a
// POST (crm-apis A1).
func override(cl *call) {
	if cl.method != http.MethodPost {
		return
	}
	m := cl.header.Get("X-HTTP-Method-Override")
	if m == "" {
		m, _ = formValues(cl)["_method"].(string)
	}
	if m != "" {
		cl.method = strings.ToUpper(m)
	}
}

func (p *perfex) classify(cl *call) {
	override(cl)
	rt, ok := p.route(cl)
	switch {
	case !ok:
		return
	case rt.name == "contacts" && cl.method == http.MethodPut:
		cl.op, cl.contacts = OpUpdate, []string{canonical(rt.id)}
	case rt.name == "contacts" && cl.method == http.MethodGet:
		cl.op = OpRead
		if rt.second != "" || p.docs() && rt.id != "" {
			cl.contacts = []string{canonical(orElse(rt.second, rt.id))}
		}
	case rt.name == "contacts" && cl.method == http.MethodDelete:
		cl.contacts = []string{canonical(rt.id)}
	case rt.name == "search" && cl.method == http.MethodGet:
		cl.op = OpRead
	case rt.name == "batch" && cl.method == http.MethodPost:
		cl.op = OpBatch
		for _, o := range batchOperations(cl.doc) {
			if id := batchID(o); id != "" {
				cl.contacts = append(cl.contacts, id)
			}
		}
	}
}

// canonical is a decimal id as the database compares it.
func canonical(id string) string {
	if t := strings.TrimLeft(id, "0"); t != "" || id == "" {
		return t
	}
	return "0"
}

// handle runs the module's checks in their order (crm-apis A6).
func (p *perfex) handle(cl *call, t *tx) reply {
	rest, _ := below(cl.path)
	if !permittedURI.MatchString(rest) {
		return page(http.StatusBadRequest, "An Error Was Encountered", "The URI you submitted has disallowed characters.")
	}
	rt, ok := p.route(cl)
	if !ok {
		return page(http.StatusNotFound, "404 Page Not Found", "The page you requested was not found.")
	}
	if refusal := p.authorize(cl); refusal != nil {
		return p.format(cl, *refusal)
	}
	rep, limited := p.limit(cl)
	if limited {
		return p.format(cl, rep)
	}
	capability, do := p.handler(cl, rt)
	if do == nil {
		return p.format(cl, jsonReply(http.StatusMethodNotAllowed, m{"status": false, "error": "Unknown method"}))
	}
	if refusal := p.permit(cl, capability); refusal != nil {
		return p.format(cl, *refusal)
	}
	headers := http.Header{}
	if refusal := p.limitAddress(cl, headers); refusal != nil {
		return p.format(cl, *refusal)
	}
	rep = do(cl, t)
	for k, v := range headers {
		rep.header[k] = v
	}
	return p.format(cl, rep)
}

// m is a JSON object of an answer.
type m = map[string]any

// handler is what serves a route and method, and the capability it needs.
func (p *perfex) handler(cl *call, rt route) (capability string, do func(*call, *tx) reply) {
	switch rt.name + " " + cl.method {
	case "contacts GET":
		return "get", func(_ *call, t *tx) reply { return p.list(cl, t, rt) }
	case "contacts PUT":
		return "put", func(_ *call, t *tx) reply { return p.put(cl, t, rt.id) }
	case "contacts POST":
		return "post", p.create
	case "contacts DELETE":
		return "delete", func(_ *call, t *tx) reply { return p.remove(t, rt.id) }
	case "search GET":
		return "search_get", func(_ *call, t *tx) reply { return p.search(cl, t, rt.key) }
	case "batch POST":
		return "", p.batch
	case "openapi GET":
		return "", p.openapi
	}
	return "", nil
}

// authorize checks the token. Its refusals are 404s, except as documented.
func (p *perfex) authorize(cl *call) *reply {
	token := cl.header.Get("authtoken")
	if token == "" && !p.v2() {
		token = orElse(cl.query.Get("authtoken"), cl.query.Get("api_key"))
	}
	if token != "" && token == p.token {
		return nil
	}
	rep := p.unknownToken(token)
	return &rep
}

func (p *perfex) unknownToken(token string) reply {
	var message any
	switch {
	case p.docs():
		return jsonReply(http.StatusUnauthorized, m{"status": false, "message": "Invalid or missing token"})
	case !p.v2():
		message = "Token is not found"
	case token == "":
		message = "Token is not defined."
	case token == p.revoked || token == p.token:
		// The signature holds but the row is gone: no message is set.
		message = nil
	case strings.Count(token, ".") != 2:
		message = "Wrong number of segments"
	default:
		message = "Signature verification failed"
	}
	return jsonReply(http.StatusNotFound, m{"status": false, "message": message})
}

func (p *perfex) refuse(cl *call, why Kind) reply {
	switch why {
	case DeadToken:
		return p.unknownToken(cl.header.Get("authtoken"))
	case Forbidden:
		if !p.v2() {
			p.failures.add(cl.ip, cl.now)
		}
		return forbidden()
	case ModuleOff:
		return jsonReply(http.StatusUnauthorized, m{"status": false, "message": "API Module is not active"})
	case Refusing:
		return p.invalid("email", "The Email field must contain a valid email address.")
	}
	return tooMany()
}

func tooMany() reply {
	return jsonReply(http.StatusTooManyRequests, m{"status": false, "message": "Rate limit exceeded"})
}

func forbidden() reply {
	// The typo is the vendor's.
	return jsonReply(http.StatusForbidden, m{"status": false, "message": "Your API token does not have the necessay permissions for the requested operation"})
}

func (p *perfex) may(capability string) bool {
	return capability == "" || p.opt.Capabilities == nil || slices.Contains(p.opt.Capabilities, capability)
}

// throttleAfter permission failures from one address in a quarter of the
// window, 3.x refuses everything from there (crm-apis A7).
const throttleAfter = 20

// permit checks the capability, and on 3.x first whether the address has
// failed that check too often.
func (p *perfex) permit(cl *call, capability string) *reply {
	window := p.opt.Limits.window() / 4
	if !p.v2() && p.failures.count(cl.ip, cl.now, window, false) >= throttleAfter {
		rep := jsonReply(http.StatusTooManyRequests, m{"status": false, "message": "Too many failed authentication attempts. Try again later."})
		return &rep
	}
	if p.may(capability) {
		return nil
	}
	rep := p.refuse(cl, Forbidden)
	return &rep
}

// limit counts the request, refused or not, and runs the two checks of 3.x
// that answer 429 without headers (crm-apis A7).
func (p *perfex) limit(cl *call) (rep reply, refused bool) {
	l := p.opt.Limits
	if p.v2() || l.PerHour == 0 && l.PerMinute == 0 {
		return rep, false
	}
	burst := p.byToken.count("", cl.now, l.window()/60, false)
	uri := p.byURI.count(cl.raw, cl.now, l.window(), l.FixedWindow)
	cl.used = p.byIP.count(cl.ip, cl.now, l.window(), l.FixedWindow)
	p.byToken.add("", cl.now)
	p.byURI.add(cl.raw, cl.now)
	p.byIP.add(cl.ip, cl.now)
	if l.PerMinute > 0 && burst >= l.PerMinute || l.PerHour > 0 && uri >= l.PerHour && !p.docs() {
		return tooMany(), true
	}
	return rep, false
}

// limitAddress is the third check: requests of the address in the window. It
// alone writes the headers, and 3.0.3 says 401 for it. With a burst limit it
// fires only when that is exceeded too, which the first check has refused
// already: there is one token.
func (p *perfex) limitAddress(cl *call, h http.Header) *reply {
	l := p.opt.Limits
	if p.v2() || l.PerHour == 0 {
		return nil
	}
	reset := p.byIP.reset(cl.now, l.window(), l.FixedWindow)
	if !l.NoHeaders {
		limitHeaders(h, l.PerHour, cl.used, reset)
	}
	if cl.used < l.PerHour || l.PerMinute > 0 && !p.docs() {
		return nil
	}
	var rep reply
	if p.docs() {
		rep = tooMany()
	} else {
		rep = jsonReply(http.StatusUnauthorized, m{"status": false, "error": "This API key has reached the time limit for this method"})
	}
	for k, v := range h {
		rep.header[k] = v
	}
	if !l.NoHeaders {
		rep.wait = reset.Truncate(time.Second).Sub(cl.now)
	}
	return &rep
}

func (p *perfex) openapi(*call, *tx) reply {
	version := "3.0.3"
	if p.docs() {
		version = "3.1.0"
	}
	return jsonReply(http.StatusOK, m{
		"openapi": "3.0.3",
		"info":    m{"title": "Perfex CRM REST API", "version": version},
		"paths":   m{"/contacts/{id}": m{"put": m{"summary": "Update a contact"}}},
	})
}

func atoi(s string) int {
	n, err := strconv.Atoi(s)
	if err != nil {
		return 0
	}
	return n
}
