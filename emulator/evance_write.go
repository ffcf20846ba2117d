package emulator

import (
	"maps"
	"net/http"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"
)

const maxCompany = 200

var (
	markup      = regexp.MustCompile(`<[a-zA-Z/!]`)
	countryCode = regexp.MustCompile(`^[A-Z]{2}$`)
)

// contactTypes are those a caller may set (crm-apis B3).
var contactTypes = []string{"user", "guest", "branch", "recipient"}

// payload unwraps a body into fields under their v1 names.
func payload(cl *call, rt evanceRoute) (fields map[string]any, refusal *reply) {
	wrapper := "contact"
	if rt.v2 {
		wrapper = "data"
	}
	doc, ok := decodeJSON(cl.body)
	outer, _ := doc.(map[string]any)
	inner, _ := outer[wrapper].(map[string]any)
	if !ok || inner == nil {
		rep := evanceError(http.StatusBadRequest, "data", problem{wrapper, "The body must be a JSON object with the property " + wrapper})
		return nil, &rep
	}
	if rt.v2 {
		rename(inner, true)
		if a, ok := inner["address"].(map[string]any); ok {
			rename(a, true)
		}
	}
	return inner, nil
}

func (ev *evance) update(cl *call, t *tx, rt evanceRoute, id int, rec record) reply {
	fields, refusal := payload(cl, rt)
	if refusal != nil {
		return *refusal
	}
	next := rec.clone()
	if problems := ev.merge(cl, t, id, next, fields); len(problems) > 0 {
		return evanceError(http.StatusUnprocessableEntity, "data", problems...)
	}
	return ev.save(cl, t, rt, id, rec, next, fields)
}

func (ev *evance) create(cl *call, t *tx, rt evanceRoute) reply {
	fields, refusal := payload(cl, rt)
	if refusal != nil {
		return *refusal
	}
	id := t.last + 1
	rec := t.schema.blank(id)
	next := rec.clone()
	next["created"] = atom(cl.now)
	if problems := ev.merge(cl, t, id, next, fields); len(problems) > 0 {
		return evanceError(http.StatusUnprocessableEntity, "data", problems...)
	}
	return ev.save(cl, t, rt, id, nil, next, fields)
}

// save stores what changed and answers with the whole contact.
func (ev *evance) save(cl *call, t *tx, rt evanceRoute, id int, rec, next record, fields map[string]any) reply {
	changed, _ := diff(t.schema, rec, next)
	if len(changed) > 0 {
		next["modifiedOn"] = atom(cl.now)
		t.set(id, next)
	}
	part := t.commit(id)
	part.Unchanged = len(changed) == 0
	rep := ev.show(rt, next)
	rep.parts = []Part{part}
	if on, _ := fields[inviteField].(bool); on {
		rep.mails = []Mail{{Kind: "invitation", To: next.text("email"), Contact: strconv.Itoa(id)}}
	}
	return rep
}

// inviteField asks for an invitation by mail. That there is such a property is
// documented, its name is not (crm-apis B3): this one is the emulator's own.
const inviteField = "sendInvitation"

func (ev *evance) show(rt evanceRoute, rec record) reply {
	if rt.v2 {
		return jsonReply(http.StatusOK, m{"success": true, "status": http.StatusOK, "data": shown(rec, true)})
	}
	return jsonReply(http.StatusOK, m{"contact": shown(rec, false)})
}

// merge puts fields into next, leaving alone what is absent, and says what is
// wrong with the outcome. Read-only and unknown fields are passed over.
func (ev *evance) merge(cl *call, t *tx, id int, next record, fields map[string]any) (problems []problem) {
	fail := func(name, message string) { problems = append(problems, problem{name, message}) }
	was := next.text("type")
	if v, sent := fields["type"]; sent {
		kind, _ := v.(string)
		if !slices.Contains(contactTypes, kind) && kind != was {
			fail("type", "The type must be one of "+strings.Join(contactTypes, ", "))
		} else {
			next["type"] = kind
		}
	}
	for _, name := range slices.Sorted(maps.Keys(fields)) {
		v := fields[name]
		nullable, isText := evanceTexts[name]
		switch {
		case name == "password":
			if s, ok := v.(string); ok && s != "" {
				next["hasPassword"] = true
				next["password"] = fakeHash(s, cl.entry.N)
			}
		case slices.Contains(evanceBools, name):
			if b, ok := v.(bool); ok {
				next[name] = b
			} else {
				fail(name, "The value must be a boolean")
			}
		case !isText, next.text("type") == "branch" && (name == "firstname" || name == "lastname"):
		default:
			s, ok := v.(string)
			switch {
			case ok:
				next[name] = s
			case v == nil && nullable:
				next[name] = nil
			default:
				fail(name, "The value must be a string")
			}
		}
	}
	if v, sent := fields["address"]; sent {
		problems = append(problems, mergeAddress(id, next, v)...)
	}
	if v, sent := fields["accessRoles"]; sent {
		problems = append(problems, ev.replaceRoles(next, v)...)
	}
	if v, sent := fields["tags"]; sent {
		problems = append(problems, replaceTags(next, v)...)
	}
	return append(problems, check(t, id, next)...)
}

// check holds a contact against the rules of its type.
func check(t *tx, id int, r record) (problems []problem) {
	fail := func(name, message string) { problems = append(problems, problem{name, message}) }
	kind := r.text("type")
	if kind == "user" || kind == "guest" {
		for _, name := range []string{"firstname", "lastname"} {
			if strings.TrimSpace(r.text(name)) == "" {
				fail(name, "The value is required for a "+kind)
			}
		}
	}
	if kind == "branch" && strings.TrimSpace(r.text("company")) == "" {
		fail("company", "The value is required for a branch")
	}
	if utf8.RuneCountInString(r.text("company")) > maxCompany {
		fail("company", "The value may not be longer than 200 characters")
	}
	for _, name := range []string{"company", "biography"} {
		if markup.MatchString(r.text(name)) {
			fail(name, "The value may not contain HTML")
		}
	}
	email := r.text("email")
	if email == "" {
		if kind == "user" || kind == "recipient" {
			fail("email", "The value is required for a "+kind)
		}
		return problems
	}
	for _, other := range t.lookup("email:" + fold(email)) {
		o, ok := t.get(other)
		if taken := o.text("type"); ok && other != id && clash(kind, taken) {
			fail("email", "The email address is already in use by another "+taken)
			break
		}
	}
	return problems
}

// clash says whether a contact of one type may not have the e-mail of another:
// users and branches are unique among themselves, recipients among themselves
// and against users, guests may be anyone.
func clash(kind, taken string) bool {
	switch kind {
	case "user", "branch":
		return kind == taken
	case "recipient":
		return taken == "recipient" || taken == "user"
	}
	return false
}

// mergeAddress modifies the primary address or, if there is none, adds one,
// which takes name and company from the contact where they are not given.
func mergeAddress(id int, next record, v any) (problems []problem) {
	sent, ok := v.(map[string]any)
	if !ok {
		return []problem{{"address", "The value must be an object"}}
	}
	old, _ := next["address"].(map[string]any)
	a := maps.Clone(old)
	if a == nil {
		a = map[string]any{"id": strconv.Itoa(500 + id), "country": "", "isPrimary": true}
		for _, name := range addressTexts {
			a[name] = ""
		}
		a["latitude"], a["longitude"] = nil, nil
		for _, name := range []string{"firstname", "lastname", "company"} {
			a[name] = next[name]
		}
	}
	for _, name := range addressTexts {
		x, given := sent[name]
		if !given {
			continue
		}
		s, isText := x.(string)
		switch {
		case name == "countryCode" && !countryCode.MatchString(s):
			problems = append(problems, problem{"address.countryCode", "The value must be an ISO 3166 alpha-2 code"})
		case isText || x == nil:
			a[name] = x
		default:
			problems = append(problems, problem{"address." + name, "The value must be a string"})
		}
	}
	if code, _ := a["countryCode"].(string); code != "" {
		a["country"] = orElse(countries[code], code)
	}
	next["address"] = a
	return problems
}

// replaceRoles replaces all grants. A plain name is granted by the rules of
// the role, again if it was granted before: it may go back to pending.
func (ev *evance) replaceRoles(next record, v any) (problems []problem) {
	sent, ok := v.([]any)
	if !ok {
		return []problem{{"accessRoles", "The value must be an array"}}
	}
	roles := map[string]any{}
	for _, x := range sent {
		var ref, status string
		var expires any
		switch x := x.(type) {
		case string:
			ref = x
		case map[string]any:
			ref, _ = x["reference"].(string)
			status, _ = x["status"].(string)
			if expires = x["expires"]; expires != nil {
				if s, _ := expires.(string); !isAtom(s) {
					problems = append(problems, problem{"accessRoles", "The expiry must be a date in ATOM format"})
				}
			}
		}
		role, known := ev.opt.Roles[ref]
		if !known {
			problems = append(problems, problem{"accessRoles", "The access role does not exist: " + ref})
			continue
		}
		if status != "active" {
			if status = "active"; role.Approval {
				status = "pending"
			}
		}
		roles[ref] = map[string]any{"name": role.Name, "status": status, "expires": expires}
	}
	if len(problems) == 0 && !reflect.DeepEqual(next["accessRoles"], roles) {
		next["accessRoles"] = roles
	}
	return problems
}

func isAtom(s string) bool {
	_, err := time.Parse(time.RFC3339, s)
	return err == nil
}

// replaceTags replaces the set of contact tags.
func replaceTags(next record, v any) (problems []problem) {
	outer, _ := v.(map[string]any)
	sent, ok := outer["contact"].([]any)
	if !ok {
		return []problem{{"tags", "The value must be an object with the array contact"}}
	}
	tags := []string{}
	for _, x := range sent {
		s, ok := x.(string)
		if !ok || s == "" {
			return []problem{{"tags", "A tag must be a text"}}
		}
		if !slices.Contains(tags, s) {
			tags = append(tags, s)
		}
	}
	next["tags"] = map[string]any{"contact": tags}
	return nil
}
