package perfex

import (
	"encoding/json"
	"maps"
	"net/http"
	"slices"
	"strings"
	"time"

	"crmsync/contact"
	"crmsync/crm"
)

// Messages are the words by which the module's answers are told apart where
// its statuses are not enough (crm-apis A6). They match in any letter case,
// anywhere in the answer's message or error. Forks and translations differ; a
// list that is not empty replaces the default.
type Messages struct {
	Token     []string // the token is refused, whatever the status says
	Missing   []string // the contact does not exist
	Unchanged []string // no row was changed, or the database refused
	Quota     []string // a 401 that is the hourly limit
}

// DefaultMessages are those of the module's own code and documentation.
var DefaultMessages = Messages{
	Token: []string{
		"Token is not", "Token Time", "Signature verification failed", "Wrong number of segments",
		"API Module is not active", "invalid api key",
	},
	Missing:   []string{"No data were found", "Doesn't Not Exist", "Contact not found"},
	Unchanged: []string{"Client Update Fail"},
	Quota:     []string{"has reached the time limit"},
}

func (m Messages) orDefault() Messages {
	pick := func(own, fallback []string) []string {
		if len(own) == 0 {
			own = fallback
		}
		out := make([]string, 0, len(own))
		for _, s := range own {
			if s = strings.ToLower(strings.TrimSpace(s)); s != "" {
				out = append(out, s)
			}
		}
		return out
	}
	d := DefaultMessages
	return Messages{
		Token: pick(m.Token, d.Token), Missing: pick(m.Missing, d.Missing),
		Unchanged: pick(m.Unchanged, d.Unchanged), Quota: pick(m.Quota, d.Quota),
	}
}

// hintRules: the headers are written once the limit by address was checked.
// Remaining does not count the request itself, and Reset is always a whole
// window away, since the window slides (crm-apis A7).
var hintRules = []crm.HintRule{{
	Limit: "X-Ratelimit-Limit", Remaining: "X-Ratelimit-Remaining", Reset: "X-Ratelimit-Reset", Sliding: true, Before: true,
}}

// maxQuotaWait bounds the wait after the hourly limit. The window slides: it
// frees requests all the time, and the Reset that the module names is always a
// whole window away (crm-apis A7). One refused probe in five minutes costs
// about one request in a hundred.
const maxQuotaWait = 5 * time.Minute

// phase is what a request was for.
type phase uint8

const (
	reading phase = iota
	writing
)

// doubt says why an answer to a write does not settle it.
type doubt uint8

const (
	certain  doubt = iota
	broken         // an answer that cannot be read, or a gateway's: it may have been carried out
	pending        // no answer in time: it may still be carried out
	noChange       // "no row changed", which is also said of a failed statement
)

// said is what a body says, in any of the module's forms.
type said struct {
	json           bool
	status         string // true, false, or "" where it says neither
	message        string
	code           string // error, where it is a string
	field, problem string // the first of the errors by field
}

func read(r *crm.Reply) said {
	obj, ok := r.Object()
	if !ok {
		return said{}
	}
	s := said{json: true}
	switch v, _ := plain(obj["status"]); {
	case string(obj["status"]) == "true" || v == "1" || v == "true":
		s.status = "true"
	case string(obj["status"]) == "false" || v == "0" || v == "false":
		s.status = "false"
	}
	s.message, _ = plain(obj["message"])
	s.code, _ = plain(obj["error"])
	for _, v := range []json.RawMessage{obj["error"], obj["errors"]} {
		var problems map[string]json.RawMessage
		if !text(v, &problems) || len(problems) == 0 || s.field != "" {
			continue
		}
		s.field = slices.Min(slices.Collect(maps.Keys(problems)))
		s.problem, _ = plain(problems[s.field])
		var list []string
		if text(problems[s.field], &list) {
			s.problem = strings.Join(list, "; ")
		}
	}
	return s
}

func (s said) matches(list []string) bool {
	all := strings.ToLower(s.message + "\n" + s.code)
	return slices.ContainsFunc(list, func(m string) bool { return strings.Contains(all, m) })
}

func (s said) detail(r *crm.Reply, secrets []string) string {
	for _, t := range []string{s.problem, s.message, s.code} {
		if t != "" {
			return crm.Detail([]byte(t), secrets...)
		}
	}
	if len(r.Body) == 0 {
		return "an empty answer"
	}
	return crm.Detail(r.Body, secrets...)
}

// verdict reads an answer: the body and the status together (crm-apis A6).
func (k *call) verdict(r *crm.Reply, p phase) (crm.Answer, doubt) {
	a, s := crm.Fallback(r), read(r)
	if own := a.Detail; own != "" {
		a.Detail = own // a redirect: its body is of no interest
	} else {
		a.Detail = s.detail(r, k.secrets)
	}
	set := func(v contact.Verdict, why contact.Reason, incident bool) {
		a.Verdict, a.Reason, a.Incident = v, why, incident
	}
	switch {
	case r.Status >= 200 && r.Status < 300:
		return k.ok(a, s, p)
	case r.Status == http.StatusUnauthorized:
		if s.json && s.code != "" && !s.matches(k.messages.Token) && (s.message == "" || s.matches(k.messages.Quota)) {
			set(contact.VerdictThrottled, contact.NoReason, false)
			a.Wait = quotaWait(r.Hints)
		}
	case r.Status == http.StatusForbidden && !s.json && p == writing:
		// The read before had the same token and passed: this is a firewall
		// before the CRM that dislikes what is written, not a permission.
		set(contact.VerdictInvalid, contact.Refused, false)
	case r.Status == http.StatusNotFound:
		return k.notFound(a, s, p)
	case r.Status == http.StatusNotAcceptable:
		set(contact.VerdictInvalid, contact.Invalid, false)
	case r.Status == http.StatusConflict, r.Status == http.StatusUnprocessableEntity, r.Status == http.StatusBadRequest:
		k.refused(&a, s, r.Status)
	case r.Status == http.StatusTooManyRequests && strings.Contains(strings.ToLower(s.message), "authentication attempts"):
		a.Wait = max(a.Wait, maxQuotaWait) // counted over 15 minutes (crm-apis A7)
	case r.Status == http.StatusTooManyRequests && len(r.Hints.Quotas) > 0:
		// As documented; the burst limit says 429 without these headers.
		a.Wait = quotaWait(r.Hints)
	case p == writing && crm.Lost(r.Status):
		if r.Status == http.StatusBadGateway {
			return a, broken
		}
		return a, pending
	}
	return a, certain
}

func quotaWait(h crm.Hints) time.Duration {
	if h.RetryAfter > 0 {
		return h.RetryAfter
	}
	for _, q := range h.Quotas {
		if q.Window > 0 {
			return min(q.Window, maxQuotaWait)
		}
	}
	return maxQuotaWait
}

// ok reads a 2xx: only the module's own "status": true is a success.
func (k *call) ok(a crm.Answer, s said, p phase) (crm.Answer, doubt) {
	a.Verdict, a.Reason = contact.VerdictTransient, contact.Protocol
	// The hourly window's Remaining is not what limits where a burst limit is
	// set (crm-apis A7): a success asks for no pause.
	a.Wait = 0
	switch {
	case s.json && s.status == "true" && p == writing:
		a.Verdict, a.Reason, a.Detail = contact.VerdictApplied, contact.NoReason, ""
		return a, certain
	case s.json && s.status == "false" && s.matches(k.messages.Token):
		a.Verdict, a.Reason, a.Incident = contact.VerdictUnauthorized, contact.NoReason, true
		return a, certain
	case s.json && s.status == "false" && s.matches(k.messages.Missing):
		a.Verdict, a.Reason = contact.VerdictMissing, contact.Missing
		return a, certain
	case s.json && s.status == "false" && s.matches(k.messages.Unchanged) && p == writing:
		return a, noChange
	case s.json && s.status == "false" && s.field != "":
		k.refused(&a, s, http.StatusUnprocessableEntity)
		return a, certain
	}
	return a, broken
}

func (k *call) notFound(a crm.Answer, s said, p phase) (crm.Answer, doubt) {
	switch {
	case !s.json: // Transient and an incident already
		a.Detail = "404 without the API's own words; check the url in the config, and that the REST API module is installed"
	case s.matches(k.messages.Token):
		a.Verdict = contact.VerdictUnauthorized
	case s.matches(k.messages.Unchanged) && p == writing:
		a.Verdict, a.Incident = contact.VerdictTransient, false
		return a, noChange
	case s.matches(k.messages.Missing) || s.code == "not_found":
		a.Verdict, a.Reason, a.Incident = contact.VerdictMissing, contact.Missing, false
	case strings.Contains(s.message, "Invalid Client ID"):
		a.Verdict, a.Reason, a.Incident = contact.VerdictInvalid, contact.Refused, false
	default: // every other 404 is about the token, even one without words
		a.Verdict = contact.VerdictUnauthorized
	}
	return a, certain
}

// refused reads a validation failure: 409 with an object, 400 and 422 as
// documented. A 409 without an object is the module's way to say that the
// contact does not exist.
func (k *call) refused(a *crm.Answer, s said, status int) {
	a.Verdict, a.Reason, a.Incident = contact.VerdictInvalid, contact.Invalid, false
	switch {
	case s.field != "":
		a.Field = crm.Detail([]byte(s.field), k.secrets...)
		if s.field == fieldEmail && taken(s.problem) {
			a.Reason = contact.Conflict
		}
	case status == http.StatusConflict && s.json && s.code == "":
		a.Verdict, a.Reason = contact.VerdictMissing, contact.Missing
	case !s.json:
		a.Reason = contact.Refused
	}
}

// taken tells the one e-mail problem that is left once an address is there
// and fits: that it is another contact's. The text is translated, so the
// exceptions are named, not the rule.
func taken(problem string) bool {
	p := strings.ToLower(problem)
	return !strings.Contains(p, "required") && !strings.Contains(p, "exceed") && !strings.Contains(p, "valid")
}
