package evance

import (
	"bytes"
	"encoding/json"
	"net/http"
	"strings"

	"crmsync/contact"
	"crmsync/crm"
)

// doubt says why an answer to a write does not settle it.
type doubt uint8

const (
	certain doubt = iota
	broken        // an answer that cannot be read, or a gateway's: it may have been carried out
	pending       // no answer in time: it may still be carried out
)

// said is what a body says (crm-apis B4, B5). Version 1 documents no errors;
// its bodies are searched for the same members.
type said struct {
	json    bool
	vendor  bool // it has members that only Evance's answers have
	failed  bool // success is false
	status  int  // its own status, 0 where absent
	context string
	field   string
	message string
	obj     map[string]json.RawMessage
}

func read(r *crm.Reply) said {
	obj, ok := r.Object()
	if !ok {
		return said{}
	}
	s := said{json: true, obj: obj, failed: string(obj["success"]) == "false"}
	_ = json.Unmarshal(obj["status"], &s.status) // anything but a number counts as absent
	s.context, _ = str(obj["context"])
	var problems []struct{ Name, Message string }
	if json.Unmarshal(obj["errors"], &problems) == nil && len(problems) > 0 {
		s.field, s.message = problems[0].Name, problems[0].Message
	}
	for _, name := range []string{"message", "error_description", "error"} {
		if t, ok := str(obj[name]); ok && s.message == "" {
			s.message = t
		}
	}
	for _, name := range []string{"success", "errors", "context"} {
		_, has := obj[name]
		s.vendor = s.vendor || has
	}
	return s
}

// verdict reads the answer to a request for a contact.
func (k *call) verdict(r *crm.Reply, write bool) (crm.Answer, doubt) {
	a, s := crm.Fallback(r), read(r)
	explain := func() {
		if a.Detail == "" && !a.Verdict.Success() {
			a.Detail = k.say(r, s)
		}
	}
	status := r.Status
	if status >= 200 && status < 300 {
		if d, done := k.ok(&a, s, r, write); done {
			explain()
			return a, d
		}
		status = s.status // a failure inside a success
	}
	explain()
	k.failure(&a, s, status)
	if a.Verdict == contact.VerdictTransient && write && crm.Lost(status) {
		if status == http.StatusBadGateway {
			return a, broken
		}
		return a, pending
	}
	return a, certain
}

func (k *call) say(r *crm.Reply, s said) string {
	switch {
	case s.message != "":
		return crm.Detail([]byte(s.message), k.secrets...)
	case len(bytes.TrimSpace(r.Body)) == 0:
		return "an empty answer"
	}
	return crm.Detail(r.Body, k.secrets...)
}

// ok reads a 2xx. A success holds the contact in its wrapper, or is a 204.
func (k *call) ok(a *crm.Answer, s said, r *crm.Reply, write bool) (d doubt, done bool) {
	inner := map[string]json.RawMessage{}
	wrapped := json.Unmarshal(s.obj[k.v.wrapper], &inner) == nil && len(inner) > 0
	switch {
	case r.Status == http.StatusNoContent && write, r.Status != http.StatusAccepted && wrapped && !s.failed &&
		(s.status == 0 || s.status >= 200 && s.status < 300) && k.same(inner["id"]):
		*a = crm.Answer{Verdict: contact.VerdictApplied, Status: r.Status, Wait: a.Wait}
		return certain, true
	case s.failed && s.status >= 300:
		return certain, false
	}
	a.Verdict, a.Reason, a.Incident = contact.VerdictTransient, contact.Protocol, false
	return broken, true
}

// same says that an answer is about our contact: version 1 writes ids as
// strings, version 2 as either. One without an id is believed.
func (k *call) same(id json.RawMessage) bool {
	return len(id) == 0 || strings.Trim(string(id), `"`) == k.id
}

// failure reads everything that is not a success.
func (k *call) failure(a *crm.Answer, s said, status int) {
	f := crm.ByStatus(status)
	if status != a.Status { // inside a 2xx
		a.Verdict, a.Reason, a.Incident = f.Verdict, f.Reason, f.Incident
	}
	a.Field = crm.Detail([]byte(s.field), k.secrets...)
	switch status {
	case http.StatusNotFound:
		switch {
		case s.vendor && s.context == "data": // something that the update names, a role perhaps
			a.Verdict, a.Reason, a.Incident = contact.VerdictInvalid, contact.Invalid, false
			return
		case s.vendor, s.json && s.message != "" && k.v.name == API1: // version 1 documents no errors
			a.Verdict, a.Reason, a.Incident = contact.VerdictMissing, contact.Missing, false
			a.Field = ""
			return
		}
		a.Detail = "404 without the API's own words; check the url and api in the config"
	case http.StatusBadRequest, http.StatusUnprocessableEntity, http.StatusConflict:
		if !s.json {
			return
		}
		a.Verdict, a.Reason, a.Incident = contact.VerdictInvalid, contact.Invalid, false
		if taken(s, status) {
			a.Reason = contact.Conflict
		}
	}
}

// taken recognises a value that another contact has. Evance documents that a
// duplicate e-mail is an error, not how it says so (crm-apis B5).
func taken(s said, status int) bool {
	if status == http.StatusConflict {
		return true
	}
	words := strings.ToLower(s.message)
	unique := s.field == fieldEmail || s.field == "username" || s.field == "reference" ||
		s.field == "" && strings.Contains(words, "email")
	for _, w := range []string{"already", "in use", "taken", "unique", "duplicate", "exists"} {
		if unique && strings.Contains(words, w) {
			return true
		}
	}
	return false
}
