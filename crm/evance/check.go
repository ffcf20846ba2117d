package evance

import (
	"bytes"
	"encoding/json"
	"maps"
	"regexp"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"crmsync/contact"
	"crmsync/crm"
)

const (
	maxCompany  = 200  // characters (crm-apis B3)
	maxPassword = 1024 // bytes
)

var (
	contactTypes = []string{"user", "guest", "branch", "recipient"}
	roleStates   = []string{"active", "pending"}
	reference    = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9_.-]{0,99}$`)
	tagHTML      = regexp.MustCompile(`<[A-Za-z/!?]`)
)

// Check refuses what Evance would refuse or silently pass over, before a
// request is spent: ids, field names of this version of the API, types,
// lengths, choices, roles, tags, address parts and read-only fields. It looks
// at the contact's id and the fields only. It is nil where the update can be
// sent.
func (c *Client) Check(u *contact.Update) *contact.BadUpdate {
	if bad := crm.CheckID(u.Contact.ID); bad != nil {
		return bad
	}
	return c.v.check(u.Fields)
}

func (v *version) check(p contact.Patch) *contact.BadUpdate {
	for _, f := range p {
		k, ok := v.fields[f.Name]
		if !ok {
			return v.unknown(f.Name)
		}
		if bad := v.value(f.Name, k, f.Value); bad != nil {
			return bad
		}
	}
	return nil
}

func (v *version) unknown(name string) *contact.BadUpdate {
	if why, ok := v.readOnly[name]; ok {
		return crm.Invalid(name, "not a field that an update may set: %s", why)
	}
	if right, ok := v.other[name]; ok {
		if why, ok := v.readOnly[right]; ok {
			return crm.Invalid(name, "not a field that an update may set: %s", why)
		}
		return crm.Invalid(name, "version %s of the API calls it %s", v.name, right)
	}
	shown := crm.Detail([]byte(name))
	for _, known := range slices.Sorted(maps.Keys(v.fields)) {
		if squash(known) == squash(name) {
			return crm.Invalid(shown, "unknown field; write it as %s", known)
		}
	}
	return crm.Invalid(shown, "unknown field of a contact in version %s of the Evance API", v.name)
}

func squash(s string) string {
	return strings.ToLower(strings.NewReplacer("_", "", "-", "", " ", "").Replace(s))
}

func isNull(v json.RawMessage) bool { return string(bytes.TrimSpace(v)) == "null" }

// str reads a JSON string; null is none.
func str(v json.RawMessage) (string, bool) {
	var s *string
	if len(v) == 0 || json.Unmarshal(v, &s) != nil || s == nil {
		return "", false
	}
	return *s, true
}

func (v *version) value(name string, k kind, raw json.RawMessage) *contact.BadUpdate {
	s, isText := str(raw)
	switch k {
	case kindText, kindCompany, kindProse:
		switch {
		case !isText && !isNull(raw):
			return crm.Invalid(name, "not a string or null")
		case k == kindCompany && utf8.RuneCountInString(s) > maxCompany:
			return crm.Invalid(name, "%d characters, at most %d are allowed", utf8.RuneCountInString(s), maxCompany)
		case k == kindCompany && strings.Contains(s, "<"), k == kindProse && tagHTML.MatchString(s):
			return crm.Invalid(name, "HTML is not allowed")
		}
	case kindNeeded:
		if !isText || s == "" {
			return crm.Invalid(name, "not a string, or empty; it cannot be cleared")
		}
	case kindType:
		if !isText || !slices.Contains(contactTypes, s) {
			return crm.Invalid(name, "write one of %s", strings.Join(contactTypes, ", "))
		}
	case kindBool:
		if t := string(bytes.TrimSpace(raw)); t != "true" && t != "false" {
			return crm.Invalid(name, "write true or false")
		}
	case kindPassword:
		if !isText || s == "" || len(s) > maxPassword {
			return crm.Invalid(name, "not a string of 1 to %d bytes; it can be replaced but not cleared", maxPassword)
		}
	case kindAddress:
		return v.checkAddress(raw)
	case kindRoles:
		_, bad := parseRoles(raw)
		return bad
	case kindTags:
		_, bad := parseTags(raw)
		return bad
	}
	return nil
}

func (v *version) checkAddress(raw json.RawMessage) *contact.BadUpdate {
	p, err := contact.ParsePatch(raw)
	if err != nil {
		return crm.Invalid(fieldAddress, "not an object; clear its members one by one")
	}
	if len(p) == 0 {
		return crm.Invalid(fieldAddress, "there is nothing to change in it")
	}
	for _, f := range p {
		path := fieldAddress + "." + f.Name
		s, isText := str(f.Value)
		if right, ok := v.other[f.Name]; ok && !v.address[f.Name] && v.address[right] {
			return crm.Invalid(path, "version %s of the API calls it %s", v.name, right)
		}
		switch {
		case !v.address[f.Name]:
			if why, ok := addressReadOnly[f.Name]; ok {
				return crm.Invalid(path, "not a part that an update may set: %s", why)
			}
			return crm.Invalid(crm.Detail([]byte(path)), "unknown part of an address")
		case f.Name == "countryCode":
			if !isText || len(s) != 2 || s[0] < 'A' || s[0] > 'Z' || s[1] < 'A' || s[1] > 'Z' {
				return crm.Invalid(path, "not a country code of two capital letters (ISO 3166 alpha-2)")
			}
		case !isText && !isNull(f.Value):
			return crm.Invalid(path, "not a string or null")
		}
	}
	return nil
}

// role is one access role as an update grants it.
type role struct {
	reference string
	expires   string // "": not said
	status    string // "": by the role's own rules
}

// parseRoles reads the list that an update holds: names and objects.
func parseRoles(raw json.RawMessage) ([]role, *contact.BadUpdate) {
	var list []json.RawMessage
	if isNull(raw) || json.Unmarshal(raw, &list) != nil {
		return nil, crm.Invalid(fieldRoles, `not a list, as ["customer", {"reference": "trade-account", "status": "active"}]; `+
			"it replaces all roles, and a list without any drops them")
	}
	out := make([]role, 0, len(list))
	for _, x := range list {
		r, bad := parseRole(x)
		if bad != nil {
			return nil, bad
		}
		for _, o := range out {
			if o.reference == r.reference {
				return nil, crm.Invalid(fieldRoles, "the same role twice")
			}
		}
		out = append(out, r)
	}
	return out, nil
}

func parseRole(x json.RawMessage) (r role, bad *contact.BadUpdate) {
	if s, ok := str(x); ok {
		r.reference = s
	} else {
		p, err := contact.ParsePatch(x)
		if err != nil {
			return r, crm.Invalid(fieldRoles, "a role that is neither a name nor an object")
		}
		for _, f := range p {
			s, isText := str(f.Value)
			switch f.Name {
			case "reference":
				r.reference = s
			case "expires":
				if _, err := time.Parse(time.RFC3339, s); err != nil && !isNull(f.Value) {
					return r, crm.Invalid(fieldRoles+".expires", "not a date and time with a zone, as 2018-01-01T00:00:00+00:00")
				}
				r.expires = s
			case "status":
				if !isText || !slices.Contains(roleStates, s) {
					return r, crm.Invalid(fieldRoles+".status", "write one of %s", strings.Join(roleStates, ", "))
				}
				r.status = s
			default:
				return r, crm.Invalid(fieldRoles, "a role has reference, expires and status only")
			}
		}
	}
	if !reference.MatchString(r.reference) {
		return r, crm.Invalid(fieldRoles, "a role without the reference of an existing one")
	}
	return r, nil
}

// parseTags reads {"contact": ["A", "B"]}.
func parseTags(raw json.RawMessage) ([]string, *contact.BadUpdate) {
	p, err := contact.ParsePatch(raw)
	list, ok := p.Get("contact")
	if err != nil || !ok || len(p) != 1 {
		return nil, crm.Invalid(fieldTags, `not an object with the one member contact, as {"contact": ["Engineers"]}`)
	}
	var tags []*string
	if isNull(list) || json.Unmarshal(list, &tags) != nil {
		return nil, crm.Invalid(fieldTags+".contact", "not a list of strings")
	}
	out := make([]string, 0, len(tags))
	for _, t := range tags {
		if t == nil || strings.TrimSpace(*t) == "" {
			return nil, crm.Invalid(fieldTags+".contact", "a tag that is empty or not a string")
		}
		out = append(out, *t)
	}
	return out, nil
}
