package perfex

import (
	"bytes"
	"encoding/json"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"crmsync/contact"
	"crmsync/crm"
)

const (
	fieldEmail       = "email"
	fieldPassword    = "password"
	fieldPrimary     = "is_primary"
	fieldPermissions = "permissions"
	fieldCustom      = "custom_fields"
	fieldCustomer    = "customer_id"
	fieldMail        = "send_set_password_email"
)

// column is a text column of tblcontacts (crm-apis A4).
type column struct {
	max      int  // characters; MySQL cuts off silently what is longer
	nullable bool // else null is stored as ""
}

var columns = map[string]column{
	"firstname":   {max: 191},
	"lastname":    {max: 191},
	fieldEmail:    {max: 100},
	"phonenumber": {max: 100},
	"title":       {max: 100, nullable: true},
	"direction":   {max: 3, nullable: true},
}

// maxPassword is the longest password sent, in bytes.
const maxPassword = 1024

// flags are set by being present and cleared by being absent (crm-apis A4);
// all but is_primary are sent as their own name.
var flags = []string{
	fieldPrimary,
	"invoice_emails", "estimate_emails", "credit_note_emails", "contract_emails",
	"task_emails", "project_emails", "ticket_emails",
}

// readOnly are columns that the module would write (it protects none) and that
// are not the producer's to set, with what to do instead.
var readOnly = map[string]string{
	"id":                     "the contact is named by the update's subject",
	"userid":                 "it would move the contact to another customer",
	"datecreated":            "the CRM sets it",
	"last_ip":                "the CRM sets it",
	"last_login":             "the CRM sets it",
	"last_password_change":   "the CRM sets it",
	"new_pass_key":           "the CRM sets it",
	"new_pass_key_requested": "the CRM sets it",
	"email_verified_at":      "the CRM sets it",
	"email_verification_key": "the CRM sets it", "email_verification_sent_at": "the CRM sets it",
	"profile_image":         "the CRM sets it",
	"customfields":          "write custom_fields",
	"donotsendwelcomeemail": "it has no effect on an update",
}

// wish is what a change asks for, checked and typed.
type wish struct {
	columns        map[string]*string // nil: clear
	flags          map[string]bool
	active         *bool
	password       string // "": leave alone
	permissions    []int
	setPermissions bool
	custom         json.RawMessage // nil: leave alone
	customer       string          // "": not said
	mail           bool
}

// Check refuses what Perfex would refuse, cut off or silently turn into
// something else, before a request is spent: ids, field names, types, lengths,
// choices and read-only fields. It looks at the contact's id and the fields
// only. It is nil where the update can be sent.
func (c *Client) Check(u *contact.Update) *contact.BadUpdate {
	if bad := crm.CheckID(u.Contact.ID); bad != nil {
		return bad
	}
	_, bad := parse(u.Fields)
	return bad
}

func parse(p contact.Patch) (*wish, *contact.BadUpdate) {
	w := &wish{columns: map[string]*string{}, flags: map[string]bool{}}
	for _, f := range p {
		if bad := w.field(f.Name, f.Value); bad != nil {
			return nil, bad
		}
	}
	return w, nil
}

func (w *wish) field(name string, v json.RawMessage) *contact.BadUpdate {
	var bad *contact.BadUpdate
	if col, ok := columns[name]; ok {
		w.columns[name], bad = col.parse(name, v)
		return bad
	}
	if slices.Contains(flags, name) {
		w.flags[name], bad = flag(name, v, name, "on")
		return bad
	}
	switch name {
	case "active":
		if isNull(v) {
			return crm.Invalid(name, "it cannot be cleared; write true or false")
		}
		on, bad := flag(name, v)
		w.active = &on
		return bad
	case fieldPassword:
		return w.setPassword(v)
	case fieldPermissions:
		w.setPermissions = true
		w.permissions, bad = permissionList(v)
		return bad
	case fieldCustom:
		w.custom, bad = customFields(v)
		return bad
	case fieldCustomer:
		s, ok := plain(v)
		if !ok || crm.CheckID(s) != nil {
			return crm.Invalid(name, "not a customer's id; write a whole number from 1")
		}
		w.customer = s
		return nil
	case fieldMail:
		w.mail, bad = flag(name, v, "on", name)
		return bad
	}
	return unknown(name)
}

func unknown(name string) *contact.BadUpdate {
	if why, ok := readOnly[name]; ok {
		return crm.Invalid(name, "not a field that an update may set: %s", why)
	}
	lower := strings.ToLower(strings.NewReplacer("-", "_", " ", "_").Replace(name))
	for _, known := range fieldNames() {
		if lower == known || strings.ReplaceAll(lower, "_", "") == strings.ReplaceAll(known, "_", "") {
			return crm.Invalid(crm.Detail([]byte(name)), "unknown field; write it as %s", known)
		}
	}
	return crm.Invalid(crm.Detail([]byte(name)), "unknown field of a Perfex contact")
}

// fieldNames lists every field that an update may have.
func fieldNames() []string {
	out := slices.Concat(flags, []string{"active", fieldPassword, fieldPermissions, fieldCustom, fieldCustomer, fieldMail})
	for name := range columns {
		out = append(out, name)
	}
	slices.Sort(out)
	return out
}

func isNull(v json.RawMessage) bool { return string(bytes.TrimSpace(v)) == "null" }

// text decodes JSON into to and says whether it fitted.
func text(v json.RawMessage, to any) bool { return len(v) > 0 && json.Unmarshal(v, to) == nil }

// plain reads a string or a whole number as text.
func plain(v json.RawMessage) (string, bool) {
	var s string
	if isNull(v) {
		return "", false
	}
	if text(v, &s) {
		return s, true
	}
	var n json.Number
	if text(v, &n) {
		return n.String(), true
	}
	return "", false
}

func (col column) parse(name string, v json.RawMessage) (*string, *contact.BadUpdate) {
	if isNull(v) {
		switch {
		case name == fieldEmail:
			return nil, crm.Invalid(name, "it cannot be cleared: Perfex needs an e-mail address with each update")
		case col.nullable:
			return nil, nil
		}
		return new(string), nil
	}
	s, ok := contact.PlainString(v)
	if !ok && !text(v, &s) {
		return nil, crm.Invalid(name, "not a string")
	}
	if n := utf8.RuneCountInString(s); n > col.max {
		return nil, crm.Invalid(name, "%d characters, at most %d fit; Perfex would cut off the rest", n, col.max)
	}
	switch name {
	case fieldEmail:
		if strings.TrimSpace(s) != s || s == "" {
			return nil, crm.Invalid(name, "empty, or with white space at its ends")
		}
	case "direction":
		if s != "" && s != "ltr" && s != "rtl" {
			return nil, crm.Invalid(name, "write ltr or rtl")
		}
	}
	return &s, nil
}

// flag reads a yes or no: a JSON boolean, 0 or 1, their strings, or one of the
// words by which the API itself says yes. null clears.
func flag(name string, v json.RawMessage, words ...string) (bool, *contact.BadUpdate) {
	switch s := string(bytes.TrimSpace(v)); s {
	case "true", "1":
		return true, nil
	case "false", "0", "null":
		return false, nil
	}
	var s string
	if text(v, &s) {
		switch {
		case s == "1" || slices.Contains(words, s):
			return true, nil
		case s == "0":
			return false, nil
		}
	}
	return false, crm.Invalid(name, "write true or false")
}

func (w *wish) setPassword(v json.RawMessage) *contact.BadUpdate {
	var s string
	switch {
	case isNull(v) || !text(v, &s):
		return crm.Invalid(fieldPassword, "not a string; a password can be replaced but not cleared")
	case s == "":
		return crm.Invalid(fieldPassword, "empty; Perfex would ignore it. Leave the field out")
	case len(s) > maxPassword:
		return crm.Invalid(fieldPassword, "%d bytes, at most %d are sent", len(s), maxPassword)
	}
	w.password = s
	return nil
}

func permissionList(v json.RawMessage) ([]int, *contact.BadUpdate) {
	var list []json.RawMessage
	if !isNull(v) && !text(v, &list) {
		return nil, crm.Invalid(fieldPermissions, "not a list of ids, as [1, 2, 3]")
	}
	var out []int
	for _, x := range list {
		s, _ := plain(x)
		n, err := strconv.Atoi(s)
		if err != nil || n < 1 || n > 6 || strconv.Itoa(n) != s {
			return nil, crm.Invalid(fieldPermissions, "an id that is not 1 to 6")
		}
		out = append(out, n)
	}
	slices.Sort(out)
	return slices.Compact(out), nil
}

// customFields reads {"contacts": {"<id>": value}} or the inner object alone,
// and returns it in the form that the CRM's core reads (crm-apis A4).
func customFields(v json.RawMessage) (json.RawMessage, *contact.BadUpdate) {
	p, err := contact.ParsePatch(v)
	if err != nil || len(p) == 0 {
		return nil, crm.Invalid(fieldCustom, `not an object, as {"contacts": {"12": "value"}}`)
	}
	if inner, ok := p.Get("contacts"); ok {
		if p, err = contact.ParsePatch(inner); err != nil || len(p) == 0 {
			return nil, crm.Invalid(fieldCustom+".contacts", `not an object, as {"12": "value"}`)
		}
	}
	var b bytes.Buffer
	b.WriteString(`{"contacts":{`)
	for i, f := range p {
		if bad := crm.CheckID(f.Name); bad != nil {
			return nil, crm.Invalid(fieldCustom, "a member that is not the id of a custom field")
		}
		if i > 0 {
			b.WriteByte(',')
		}
		b.WriteString(`"` + f.Name + `":`)
		if !customValue(&b, f.Value) {
			return nil, crm.Invalid(fieldCustom+"."+f.Name, "not a string, a number or a list of strings")
		}
	}
	b.WriteString(`}}`)
	return b.Bytes(), nil
}

func customValue(b *bytes.Buffer, v json.RawMessage) bool {
	if isNull(v) {
		b.WriteString(`""`)
		return true
	}
	if s, ok := plain(v); ok {
		b.Write(encodeText(s))
		return true
	}
	var list []string
	if !text(v, &list) || list == nil {
		return false
	}
	b.WriteByte('[')
	for i, s := range list {
		if i > 0 {
			b.WriteByte(',')
		}
		b.Write(encodeText(s))
	}
	b.WriteByte(']')
	return true
}
