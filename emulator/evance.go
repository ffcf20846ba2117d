package emulator

import (
	"net/http"
	"regexp"
	"strconv"
	"strings"
	"time"
)

// NewEvance returns an Evance (crm-apis B): the token endpoint, API v1 under
// /api and v2 under /api/v2. All seeded contacts are users; those with an id
// divisible by 3 have no address.
func NewEvance(o Options) *CRM {
	o.Account = orElse(o.Account, DefaultAccount)
	o.ClientID = orElse(o.ClientID, DefaultClientID)
	o.PrivateKey = orElse(o.PrivateKey, DefaultPrivateKey)
	if o.TokenLife == 0 {
		o.TokenLife = time.Hour
	}
	if o.Roles == nil {
		o.Roles = map[string]Role{"customer": {Name: "Customer"}, "trade-account": {Name: "Trade account", Approval: true}}
	}
	o.check("", EvanceV1, EvanceV2)
	ev := &evance{opt: o, key: o.PrivateKey, issued: newIssuer(o.Seed)}
	return newCRM(o, ev, evanceSchema{})
}

// evance is the account's state. Guarded by CRM.mu.
type evance struct {
	opt    Options
	key    string // the private key in force
	issued *issuer
	byIP   tally
}

func (ev *evance) setToken(key string) { ev.key = key }
func (ev *evance) revoke()             { ev.issued.revoke() }

// evanceRoute is the handler a path leads to.
type evanceRoute struct {
	token bool
	v2    bool
	list  bool   // contacts.json
	find  bool   // contacts/search.json, v1 only
	id    string // contacts/{id}.json
}

var (
	tokenPath  = regexp.MustCompile(`/admin/oauth/token(?:\.json)?$`)
	evancePath = regexp.MustCompile(`^(v2/)?contacts(?:/([^/]+))?\.json$`)
)

func (ev *evance) route(path string) (rt evanceRoute, ok bool) {
	if tokenPath.MatchString(path) {
		return evanceRoute{token: true}, true
	}
	rest, ok := below(path)
	if !ok {
		return rt, false
	}
	found := evancePath.FindStringSubmatch(rest)
	if found == nil {
		return rt, false
	}
	rt.v2, rt.id = found[1] != "", found[2]
	switch {
	case ev.opt.Mode == EvanceV1 && rt.v2, ev.opt.Mode == EvanceV2 && !rt.v2:
		return rt, false
	case rt.id == "":
		rt.list = true
	case rt.id == "search" && !rt.v2:
		rt.find = true
	}
	return rt, true
}

func (ev *evance) classify(cl *call) {
	rt, ok := ev.route(cl.path)
	switch {
	case !ok:
	case rt.token:
		cl.op = OpToken
	case rt.find || rt.list:
		if cl.method == http.MethodGet {
			cl.op = OpRead
		}
	default:
		cl.contacts = []string{canonical(rt.id)}
		switch {
		case isUpdate(cl, rt):
			cl.op = OpUpdate
		case cl.method == http.MethodGet:
			cl.op = OpRead
		}
	}
}

// isUpdate: one copy of the vendor's page has POST where the other has PUT.
func isUpdate(cl *call, rt evanceRoute) bool {
	return cl.method == http.MethodPut || cl.method == http.MethodPost && !rt.v2
}

func (ev *evance) handle(cl *call, t *tx) reply {
	rt, ok := ev.route(cl.path)
	if !ok {
		return errorPage(http.StatusNotFound)
	}
	if rt.token {
		return ev.grant(cl)
	}
	scope, refusal := ev.authorize(cl)
	if refusal != nil {
		return *refusal
	}
	headers := http.Header{}
	if refusal := ev.limit(cl, headers); refusal != nil {
		return *refusal
	}
	if cl.method != http.MethodGet && !mayWrite(scope) {
		return ev.refuse(cl, Forbidden)
	}
	rep := ev.dispatch(cl, t, rt)
	for k, v := range headers {
		rep.header[k] = v
	}
	return rep
}

func (ev *evance) dispatch(cl *call, t *tx, rt evanceRoute) reply {
	switch {
	case rt.find && cl.method == http.MethodGet:
		return ev.search(cl, t)
	case rt.list && rt.v2 && cl.method == http.MethodGet:
		return ev.list(cl, t)
	case rt.list && cl.method == http.MethodPost:
		return ev.create(cl, t, rt)
	case rt.list || rt.find:
		return methodNotAllowed()
	}
	id, err := strconv.Atoi(rt.id)
	if err != nil {
		return evanceError(http.StatusBadRequest, "parameters", problem{"id", "A valid contact id must be supplied"})
	}
	rec, ok := t.get(id)
	if !ok {
		return evanceError(http.StatusNotFound, "parameters", problem{"id", "Contact not found"})
	}
	switch {
	case cl.method == http.MethodGet:
		return ev.show(rt, rec)
	case isUpdate(cl, rt):
		return ev.update(cl, t, rt, id, rec)
	case cl.method == http.MethodDelete:
		t.remove(id)
		rep := reply{status: http.StatusNoContent, header: http.Header{}}
		rep.parts = []Part{t.commit(id)}
		return rep
	}
	return methodNotAllowed()
}

func methodNotAllowed() reply {
	return evanceError(http.StatusMethodNotAllowed, "parameters", problem{"method", "Method not allowed"})
}

// problem is one entry of an error answer.
type problem struct{ name, message string }

// evanceError is the error shape of v2, used for v1 too, whose own is not
// documented (crm-apis B5).
func evanceError(status int, context string, problems ...problem) reply {
	list := make([]m, len(problems))
	for i, p := range problems {
		list[i] = m{"name": p.name, "message": p.message, "ref": "contacts/" + p.name}
	}
	return jsonReply(status, m{"success": false, "status": status, "context": context, "errors": list})
}

func (ev *evance) refuse(_ *call, why Kind) reply {
	switch why {
	case DeadToken:
		return unauthorized("The access token provided is invalid")
	case TooMany:
		return evanceError(http.StatusTooManyRequests, "parameters", problem{"rate", "Too many requests"})
	case Refusing:
		return evanceError(http.StatusBadRequest, "data", problem{"email", "The e-mail address is not valid"})
	}
	return evanceError(http.StatusForbidden, "parameters", problem{"scope", "The request requires higher privileges than provided by the access token"})
}

func unauthorized(text string) reply {
	rep := jsonReply(http.StatusUnauthorized, m{"success": false, "status": http.StatusUnauthorized, "error": "invalid_token", "error_description": text})
	rep.header.Set("Www-Authenticate", `Bearer error="invalid_token"`)
	return rep
}

// limit is PerHour as an account's window; Evance publishes none (crm-apis B6).
func (ev *evance) limit(cl *call, h http.Header) *reply {
	l := ev.opt.Limits
	if l.PerHour == 0 {
		return nil
	}
	used := ev.byIP.count("", cl.now, l.window(), l.FixedWindow)
	reset := ev.byIP.reset(cl.now, l.window(), l.FixedWindow)
	ev.byIP.add("", cl.now)
	if !l.NoHeaders {
		limitHeaders(h, l.PerHour, used, reset)
	}
	if used < l.PerHour {
		return nil
	}
	rep := ev.refuse(cl, TooMany)
	for k, v := range h {
		rep.header[k] = v
	}
	rep.wait = setRetryAfter(rep.header, l.RetryAfter, reset.Sub(cl.now), cl.now)
	return &rep
}

func mayWrite(scope string) bool {
	if scope == "" {
		return true
	}
	for s := range strings.FieldsSeq(scope) {
		if s == "contacts" {
			return true
		}
	}
	return false
}
