package emulator

import (
	"maps"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"
)

// put is the contact update (crm-apis A6): body, id, existence, validation,
// then the write, which says 404 when no row changed.
func (p *perfex) put(cl *call, t *tx, id string) reply {
	fields, ok := phpBody(cl.body)
	if !ok && p.docs() {
		fields = formValues(cl)
		ok = len(fields) > 0
	}
	if !ok {
		return notAcceptable()
	}
	if !p.v2() {
		emptyNulls(fields)
	}
	n := atoi(id)
	if canonical(id) == "" || canonical(id) == "0" {
		return jsonReply(http.StatusNotFound, m{"status": false, "message": "Invalid Client ID"})
	}
	rec, ok := t.get(n)
	if !ok {
		return p.missing()
	}
	if problem := p.validEmail(t, rec, fields["email"]); problem != "" {
		return p.invalid("email", problem)
	}
	if !p.v2() {
		maps.DeleteFunc(fields, func(k string, _ any) bool { return !writable(k) })
	}
	w := p.write(cl, t, n, rec, fields)
	part := t.commit(n)
	part.Unchanged = !w.failed && !w.changed
	rep := p.answer(w)
	rep.parts, rep.mails = []Part{part}, w.mails
	return rep
}

// emptyNulls is what 3.x does to a null on its way through the POST array.
func emptyNulls(fields map[string]any) {
	for k, v := range fields {
		if v == nil {
			fields[k] = ""
		}
	}
}

func notAcceptable() reply {
	return jsonReply(http.StatusNotAcceptable, m{"status": false, "message": "Data Not Acceptable OR Not Provided"})
}

func (p *perfex) missing() reply {
	if p.docs() {
		return jsonReply(http.StatusNotFound, m{"status": false, "message": "Contact not found"})
	}
	return jsonReply(http.StatusConflict, m{"status": false, "message": "Contact ID Doesn't Not Exist."})
}

func (p *perfex) invalid(field, problem string) reply {
	if !p.docs() {
		return jsonReply(http.StatusConflict, m{"status": false, "error": m{field: problem}, "message": "<p>" + problem + "</p>\n"})
	}
	status, kind := http.StatusUnprocessableEntity, "validation_failed"
	if strings.HasSuffix(problem, "field is required.") {
		status, kind = http.StatusBadRequest, "missing_field"
	}
	return jsonReply(status, m{"status": false, "error": kind, "message": problem, "errors": m{field: problem}})
}

// validEmail is the one validation of a PUT. Whether an address is one's own
// is compared with regard to case, whether it is taken without: changing only
// the case of one's own address is refused.
func (p *perfex) validEmail(t *tx, rec record, v any) (problem string) {
	email, _ := scalar(v)
	switch {
	case strings.TrimSpace(email) == "":
		return "The Email field is required."
	case utf8.RuneCountInString(email) > 255:
		return "The Email field cannot exceed 255 characters in length."
	case email != rec.text("email") && len(t.lookup("email:"+fold(email))) > 0:
		return "This Email is already exists"
	}
	return ""
}

// writable says whether 3.x lets a field of a PUT through.
func writable(field string) bool {
	_, ok := perfexColumns[field]
	return ok || field == permissionsField || field == customField || field == "send_set_password_email" ||
		field == "donotsendwelcomeemail"
}

// written is what a write came to.
type written struct {
	failed  bool // the statement did
	changed bool
	mailed  bool // or would have been, were the contact active
	mails   []Mail
}

// write applies fields to a contact the way the core does: flags,
// permissions and the primary mark by presence, all else by column.
func (p *perfex) write(cl *call, t *tx, id int, rec record, fields map[string]any) written {
	var w written
	next := rec.clone()
	present := func(k string) bool { v, ok := fields[k]; return ok && v != nil }
	if w.mailed = present("send_set_password_email"); w.mailed && rec.text("active") == "1" {
		to, _ := scalar(fields["email"])
		w.mails = []Mail{{Kind: "set-password", To: to, Contact: strconv.Itoa(id)}}
	}
	for _, f := range append([]string{"is_primary"}, perfexFlags...) {
		next[f] = "0"
		if present(f) {
			next[f] = "1"
		}
	}
	if pw, _ := scalar(fields["password"]); pw != "" {
		next["password"] = fakeHash(pw, cl.entry.N)
		next["last_password_change"] = cl.now.UTC().Format(time.DateTime)
	}
	newID, ok := p.writeColumns(t, id, next, fields)
	if !ok {
		w.failed = true
		return w
	}
	changed, _ := diff(t.schema, rec, next)
	rowChanged := len(changed) > 0
	next[permissionsField] = permissionList(fields[permissionsField])
	next[customField] = customValues(rec[customField], fields[customField])
	changed, _ = diff(t.schema, rec, next)
	if w.changed = len(changed) > 0; !w.changed {
		return w
	}
	if newID != id {
		t.remove(id)
	}
	t.set(newID, next)
	if rowChanged && next.text("is_primary") == "1" {
		demoteOthers(t, newID, id, next.text("userid"))
	}
	return w
}

// writeColumns puts the plain columns of fields into next. ok is false when
// the one UPDATE statement would fail and with it everything.
func (p *perfex) writeColumns(t *tx, id int, next record, fields map[string]any) (newID int, ok bool) {
	newID = id
	for _, name := range slices.Sorted(maps.Keys(fields)) {
		switch name {
		case permissionsField, customField, "send_set_password_email", "donotsendwelcomeemail", "is_primary", "password":
			continue
		}
		if slices.Contains(perfexFlags, name) {
			continue
		}
		col, known := perfexColumns[name]
		if !known {
			return id, false
		}
		v, ok := col.store(fields[name], p.opt.ThreeByteUTF8)
		if !ok {
			return id, false
		}
		if next[name] = v; name != "id" {
			continue
		}
		newID = atoi(next.text("id"))
		if _, taken := t.get(newID); newID < 1 || taken && newID != id {
			return id, false // the primary key is taken
		}
	}
	return newID, true
}

// demoteOthers clears the primary mark of a customer's other contacts.
func demoteOthers(t *tx, id, was int, customer string) {
	for _, other := range t.lookup("customer:" + customer) {
		if other == id || other == was {
			continue
		}
		if r, ok := t.get(other); ok && r.text("is_primary") != "0" {
			r["is_primary"] = "0"
			t.set(other, r)
		}
	}
}

// permissionList reads the permissions of a payload; anything that is no list
// of ids clears them all.
func permissionList(v any) []string {
	ids := []string{}
	var items []any
	switch v := v.(type) {
	case []any:
		items = v
	case map[string]any:
		items = slices.Collect(maps.Values(v))
	}
	for _, x := range items {
		if s, ok := scalar(x); ok && s != "" {
			ids = append(ids, s)
		}
	}
	slices.Sort(ids)
	return slices.Compact(ids)
}

// customValues merges {"contacts":{"<id>":"value"}} into the stored values.
func customValues(stored, sent any) map[string]string {
	old, _ := stored.(map[string]string)
	next := maps.Clone(old)
	outer, _ := sent.(map[string]any)
	inner, _ := outer["contacts"].(map[string]any)
	for id, v := range inner {
		s, ok := scalar(v)
		if _, known := customFields[id]; !known || !ok {
			continue
		}
		if next == nil {
			next = map[string]string{}
		}
		if s == "" {
			delete(next, id)
		} else {
			next[id] = s
		}
	}
	return next
}

// answer is what a PUT says: success only if something changed.
func (p *perfex) answer(w written) reply {
	switch {
	case w.changed && w.mailed:
		return jsonReply(http.StatusOK, m{"status": true, "message": "Profile updated and email to set password is successfully sent to contact"})
	case w.changed || p.docs() && !w.failed:
		return jsonReply(http.StatusOK, m{"status": true, "message": "Contact Updated Successfully"})
	}
	return jsonReply(http.StatusNotFound, m{"status": false, "message": "Client Update Fail."})
}

// create adds a contact. Unless told otherwise it mails a welcome.
func (p *perfex) create(cl *call, t *tx) reply {
	fields := formValues(cl)
	if fields == nil {
		fields, _ = phpBody(cl.body)
	}
	if len(fields) == 0 {
		return notAcceptable()
	}
	for _, f := range []struct{ name, label string }{
		{"firstname", "First Name"}, {"lastname", "Last Name"}, {"customer_id", "Customer ID"}, {"password", "Password"},
	} {
		if s, _ := scalar(fields[f.name]); strings.TrimSpace(s) == "" {
			return p.invalid(f.name, "The "+f.label+" field is required.")
		}
	}
	if problem := p.validEmail(t, record{}, fields["email"]); problem != "" {
		return p.invalid("email", problem)
	}
	id := t.last + 1
	fields["userid"] = fields["customer_id"]
	_, quiet := fields["donotsendwelcomeemail"]
	maps.DeleteFunc(fields, func(k string, _ any) bool { return !writable(k) || k == "id" })
	rec := t.schema.blank(id)
	rec["datecreated"] = cl.now.UTC().Format(time.DateTime)
	w := p.write(cl, t, id, rec, fields)
	if w.failed {
		return jsonReply(http.StatusNotFound, m{"status": false, "message": "Contact add fail."})
	}
	answer := m{"status": true, "message": "Contact added successfully."}
	if !p.v2() {
		answer["record_id"] = id
	}
	status := http.StatusOK
	if p.docs() {
		status = http.StatusCreated
	}
	rep := jsonReply(status, answer)
	rep.parts = []Part{t.commit(id)}
	if email, _ := scalar(fields["email"]); !quiet {
		rep.mails = []Mail{{Kind: "welcome", To: email, Contact: strconv.Itoa(id)}}
	}
	return rep
}

func (p *perfex) remove(t *tx, id string) reply {
	n := atoi(id)
	if _, ok := t.get(n); !ok {
		return jsonReply(http.StatusNotFound, m{"status": false, "message": "Contact Delete Fail."})
	}
	t.remove(n)
	rep := jsonReply(http.StatusOK, m{"status": true, "message": "Contact Deleted Successfully"})
	rep.parts = []Part{t.commit(n)}
	return rep
}
