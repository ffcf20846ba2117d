package emulator

import (
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
)

// search is v1's: q in name, company and e-mail; email, reference and
// leaveDate exactly.
func (ev *evance) search(cl *call, t *tx) reply {
	contacts := []m{}
	q := cl.query
	for _, id := range candidates(t, q) {
		r, ok := t.get(id)
		if !ok || !contains(r, q.Get("q")) || !exactly(r, q, "email", "reference", "leaveDate") {
			continue
		}
		contacts = append(contacts, shown(r, false))
	}
	return jsonReply(http.StatusOK, m{"contacts": contacts})
}

// candidates are the contacts that can match: those with the e-mail, if that
// is asked for, or all.
func candidates(t *tx, q url.Values) []int {
	if q.Has("email") {
		return t.lookup("email:" + fold(q.Get("email")))
	}
	return t.ids()
}

func contains(r record, part string) bool {
	part = strings.ToLower(strings.Trim(part, "*"))
	return strings.Contains(strings.ToLower(r.text("firstname")+" "+r.text("lastname")+"\n"+r.text("company")+"\n"+r.text("email")), part)
}

func exactly(r record, q url.Values, names ...string) bool {
	for _, name := range names {
		if q.Has(name) && fold(r.text(name)) != fold(q.Get(name)) {
			return false
		}
	}
	return true
}

// Page sizes of v2's list.
const (
	defaultPage = 20
	maxPage     = 100
)

// list is v2's, by pages, with the filters a sync needs (crm-apis B7).
func (ev *evance) list(cl *call, t *tx) reply {
	keep, problems := filters(cl.query)
	if len(problems) > 0 {
		return evanceError(http.StatusBadRequest, "parameters", problems...)
	}
	var ids []int
	for _, id := range candidates(t, cl.query) {
		if r, ok := t.get(id); ok && keep(id, r) {
			ids = append(ids, id)
		}
	}
	limit := atoi(cl.query.Get("limit"))
	if limit <= 0 {
		limit = defaultPage
	}
	limit = min(limit, maxPage)
	at := max(atoi(cl.query.Get("page")), 1)
	pages := (len(ids) + limit - 1) / limit
	data := []m{}
	for _, id := range ids[min((at-1)*limit, len(ids)):min(at*limit, len(ids))] {
		r, _ := t.get(id)
		data = append(data, shown(r, true))
	}
	link := func(page int) any {
		if page < 1 || page > max(pages, 1) {
			return nil
		}
		q := url.Values{}
		for k, v := range cl.query {
			q[k] = v
		}
		q.Set("page", strconv.Itoa(page))
		return cl.path + "?" + q.Encode()
	}
	return jsonReply(http.StatusOK, m{
		"success": true, "status": http.StatusOK, "data": data,
		"pagination": m{"limit": limit, "page": at, "total": len(ids), "totalPages": pages},
		"links":      m{"self": link(at), "previous": link(at - 1), "next": link(at + 1)},
	})
}

// filters compiles the query. min and max include their bound, after and
// before do not.
func filters(q url.Values) (keep func(int, record) bool, problems []problem) {
	var all []func(int, record) bool
	for name, values := range q {
		value := values[len(values)-1]
		field, op, _ := strings.Cut(name, ":")
		switch {
		case field == "quickfind":
			all = append(all, func(_ int, r record) bool { return contains(r, value) })
		case name == "email" || name == "reference":
			all = append(all, func(_ int, r record) bool { return exactly(r, q, name) })
		case op == "in":
			in := strings.Split(value, ",")
			all = append(all, func(id int, r record) bool {
				if field == "id" {
					return slices.Contains(in, strconv.Itoa(id))
				}
				return slices.Contains(in, r.text(field))
			})
		case field == "id" && op != "":
			bound, err := strconv.Atoi(value)
			if err != nil {
				problems = append(problems, problem{name, "The value must be an integer"})
			}
			all = append(all, func(id int, _ record) bool { return within(op, id-bound) })
		case field == "createdOn" || field == "modifiedOn":
			bound, err := time.Parse(time.RFC3339, strings.ReplaceAll(value, " ", "+"))
			if err != nil {
				problems = append(problems, problem{name, "The value must be an ISO 8601 date"})
			}
			stored := map[string]string{"createdOn": "created", "modifiedOn": "modifiedOn"}[field]
			all = append(all, func(_ int, r record) bool {
				at, err := time.Parse(time.RFC3339, r.text(stored))
				return err == nil && within(op, at.Compare(bound))
			})
		}
	}
	return func(id int, r record) bool {
		for _, f := range all {
			if !f(id, r) {
				return false
			}
		}
		return true
	}, problems
}

func within(op string, order int) bool {
	switch op {
	case "min":
		return order >= 0
	case "max":
		return order <= 0
	case "after":
		return order > 0
	case "before":
		return order < 0
	}
	return order == 0
}
