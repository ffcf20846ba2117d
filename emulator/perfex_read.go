package emulator

import (
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"strings"
)

func noData() reply {
	return jsonReply(http.StatusNotFound, m{"status": false, "message": "No data were found"})
}

// asRead is a contact as a GET shows it: text or null, the hash of the
// password, the custom fields by label, and no permissions (crm-apis A8).
func asRead(r record) m {
	out := m{}
	for name := range perfexColumns {
		out[name] = r[name]
	}
	values, _ := r[customField].(map[string]string)
	fields := []m{}
	for _, id := range slices.Sorted(maps.Keys(values)) {
		fields = append(fields, m{"label": customFields[id], "value": values[id]})
	}
	out["customfields"] = fields
	return out
}

// list answers the GETs of /contacts: the first number is a customer, the
// second a contact, except as documented.
func (p *perfex) list(cl *call, t *tx, rt route) reply {
	switch {
	case rt.second != "":
		if r, ok := t.get(atoi(rt.second)); ok {
			return jsonReply(http.StatusOK, asRead(r))
		}
		return noData()
	case p.docs() && rt.id != "":
		if r, ok := t.get(atoi(rt.id)); ok {
			return jsonReply(http.StatusOK, asRead(r))
		}
		return noData()
	case p.docs():
		return p.paged(cl, slices.Values(t.ids()), t)
	case rt.id == "":
		return noData()
	}
	// Primary first, then by id.
	ids := t.lookup("customer:" + canonical(rt.id))
	slices.SortStableFunc(ids, func(a, b int) int {
		x, _ := t.get(a)
		y, _ := t.get(b)
		return atoi(y.text("is_primary")) - atoi(x.text("is_primary"))
	})
	return p.paged(cl, slices.Values(slices.DeleteFunc(ids, func(id int) bool {
		r, ok := t.get(id)
		return !ok || r.text("active") != "1"
	})), t)
}

// paged answers a bare array or, on 3.x when paging is asked for, a page.
func (p *perfex) paged(cl *call, ids func(func(int) bool), t *tx) reply {
	all := slices.Collect(ids)
	if len(all) == 0 {
		return noData()
	}
	paging := cl.query.Has("page") || cl.query.Has("per_page")
	if p.v2() || !paging {
		return jsonReply(http.StatusOK, readAll(t, all))
	}
	size := atoi(cl.query.Get("per_page"))
	if size == 0 {
		size = 25
	}
	size = min(max(size, 1), 100)
	last := (len(all) + size - 1) / size
	at := min(max(atoi(cl.query.Get("page")), 1), last)
	rows := all[(at-1)*size : min(at*size, len(all))]
	return jsonReply(http.StatusOK, m{"data": readAll(t, rows), "meta": m{
		"page": at, "per_page": size, "total": len(all), "total_pages": last,
		"has_more": at < last, "current_page": at, "last_page": last,
	}})
}

func readAll(t *tx, ids []int) []m {
	rows := make([]m, len(ids))
	for i, id := range ids {
		r, _ := t.get(id)
		rows[i] = asRead(r)
	}
	return rows
}

func company(customer string) string { return "Company " + customer }

// search finds a substring in company, name, e-mail and custom fields. An
// empty one finds everything on 2.x and is refused on 3.x.
func (p *perfex) search(cl *call, t *tx, key string) reply {
	if key == "" && !p.v2() {
		key = cl.query.Get("q")
	}
	if key == "" && !p.v2() {
		return jsonReply(http.StatusBadRequest, m{"status": false, "message": "Search term is required. Send it as q or as part of the path."})
	}
	key = strings.ToLower(key)
	var rows []m
	for _, id := range t.ids() {
		r, ok := t.get(id)
		if !ok || !strings.Contains(haystack(r), key) {
			continue
		}
		row := asRead(r)
		row["company"], row["client_id"] = company(r.text("userid")), r.text("userid")
		rows = append(rows, row)
	}
	if len(rows) == 0 {
		return noData()
	}
	return jsonReply(http.StatusOK, rows)
}

func haystack(r record) string {
	values, _ := r[customField].(map[string]string)
	parts := []string{company(r.text("userid")), r.text("firstname") + " " + r.text("lastname"), r.text("email")}
	for _, id := range slices.Sorted(maps.Keys(values)) {
		parts = append(parts, values[id])
	}
	return strings.ToLower(strings.Join(parts, "\n"))
}

// format gives an answer the form the Accept header or the query asks for:
// JSON unless HTML or XML is preferred, JSONP with a callback (crm-apis A3).
func (p *perfex) format(cl *call, rep reply) reply {
	if !strings.HasPrefix(rep.header.Get("Content-Type"), "application/json") {
		return rep
	}
	doc, ok := decodeJSON(rep.body)
	if !ok {
		return rep
	}
	form := cl.query.Get("format")
	accept := strings.TrimSpace(strings.SplitN(cl.header.Get("Accept"), ",", 2)[0])
	switch {
	case form == "html" || form == "" && accept == "text/html":
		rep.body = []byte("<table>" + rowsOf(doc, "<tr><td>%s</td><td>%s</td></tr>") + "</table>")
		rep.header.Set("Content-Type", "text/html; charset=utf-8")
	case form == "xml" || form == "" && accept == "application/xml":
		rep.body = []byte(`<?xml version="1.0" encoding="utf-8"?>` + "\n<xml>" + rowsOf(doc, "<%[1]s>%[2]s</%[1]s>") + "</xml>")
		rep.header.Set("Content-Type", "application/xml; charset=utf-8")
	case cl.query.Get("callback") != "":
		rep.body = []byte(cl.query.Get("callback") + "(" + string(rep.body) + ");")
		rep.header.Set("Content-Type", "application/javascript; charset=utf-8")
	}
	return rep
}

var escapeMarkup = strings.NewReplacer("&", "&amp;", "<", "&lt;", ">", "&gt;")

// rowsOf writes each field of an object, or each item of a list, by a pattern
// of name and text.
func rowsOf(doc any, pattern string) string {
	var b strings.Builder
	switch doc := doc.(type) {
	case map[string]any:
		for _, k := range slices.Sorted(maps.Keys(doc)) {
			fmt.Fprintf(&b, pattern, k, cell(doc[k], pattern))
		}
	case []any:
		for i, v := range doc {
			fmt.Fprintf(&b, pattern, "item"+strconv.Itoa(i), cell(v, pattern))
		}
	}
	return b.String()
}

func cell(v any, pattern string) string {
	if s, ok := scalar(v); ok {
		return escapeMarkup.Replace(s)
	}
	return rowsOf(v, pattern)
}
