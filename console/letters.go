package console

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"regexp"
	"strconv"
	"strings"

	"crmsync/contact"
)

// Errors that a function of [Options] returns, wrapped or not, about letters.
var (
	// ErrUnknownLetter is for a letter that does not exist. The caller gets a
	// 404.
	ErrUnknownLetter = errors.New("no such letter")
	// ErrTaken is for letters that somebody else is at work on. The caller
	// gets a 409.
	ErrTaken = errors.New("somebody else is at work on it")
)

// MaxLetters is how many letters a [LetterOrder] may name; a group may have any
// number.
const MaxLetters = 100

// LetterOrder is what an operator wants done with dead letters: those named, or
// those of a group.
type LetterOrder struct {
	IDs    []uint64 // 1 to [MaxLetters], or none where Group is set
	Target string   // the group's
	Group  string   // a fingerprint: 12 hexadecimal digits
	Plan   bool     // redrive: only say what would happen
	Force  bool     // redrive: overwrite what is newer
	Why    string   // discard: printable, at most [MaxNote]; never empty
	By     string   // who wants it, as far as it is known
}

var fingerprint = regexp.MustCompile(`^[0-9a-f]{12}$`)

// letterRoutes are the rows of the table that are about dead letters.
func (c *console) letterRoutes() []route {
	var table []route
	if c.o.Groups != nil {
		table = append(table, route{"GET", "/api/v1/dead/groups", closed, c.groups})
	}
	if c.o.Letter != nil {
		table = append(table, route{"GET", "/api/v1/dead/letters/{id}", closed, c.letter})
	}
	if c.o.Redrive != nil {
		table = append(table, route{"POST", "/api/v1/dead/redrive", closed, c.order(false, c.o.Redrive)})
	}
	if c.o.Discard != nil {
		table = append(table, route{"POST", "/api/v1/dead/discard", closed, c.order(true, c.o.Discard)})
	}
	return table
}

func (c *console) groups(w http.ResponseWriter, r *http.Request) {
	q, err := parseDeadQuery(r.URL.RawQuery)
	if err == nil && q.After != 0 {
		err = errors.New("groups have no pages")
	}
	if err != nil {
		badRequest(w, err.Error())
		return
	}
	ctx, cancel := context.WithTimeout(r.Context(), CallTimeout)
	defer cancel()
	v, err := c.o.Groups(ctx, q)
	sendJSON(w, v, err)
}

func (c *console) letter(w http.ResponseWriter, r *http.Request) {
	id, err := strconv.ParseUint(r.PathValue("id"), 10, 64)
	if err != nil || id == 0 {
		notFound(w)
		return
	}
	if !noQuery(w, r) {
		return
	}
	ctx, cancel := context.WithTimeout(r.Context(), CallTimeout)
	defer cancel()
	v, err := c.o.Letter(ctx, id)
	sendJSON(w, v, err)
}

// order serves one of the POSTs that act upon letters.
func (c *console) order(discard bool, act func(context.Context, LetterOrder) (any, error)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if !noQuery(w, r) {
			return
		}
		body, ok := readJSON(w, r)
		if !ok {
			return
		}
		o, err := parseLetterOrder(body, discard)
		if err != nil {
			badRequest(w, err.Error())
			return
		}
		o.By = "console from " + remote(r)
		ctx, cancel := context.WithTimeout(r.Context(), CallTimeout)
		defer cancel()
		v, err := act(ctx, o)
		sendJSON(w, v, err)
	}
}

// parseLetterOrder reads {"ids": ["17"]} or {"target": name, "group":
// fingerprint}, for a redrive with plan and force, for a discard with why.
func parseLetterOrder(body []byte, discard bool) (LetterOrder, error) {
	var o LetterOrder
	members, err := contact.ParsePatch(body)
	if err != nil {
		return o, err
	}
	for _, m := range members {
		ok := true
		switch {
		case m.Name == "ids":
			o.IDs, ok = letterIDs(m.Value)
		case m.Name == "target":
			ok = json.Unmarshal(m.Value, &o.Target) == nil && contact.CheckTarget(o.Target) == nil
		case m.Name == "group":
			ok = json.Unmarshal(m.Value, &o.Group) == nil && fingerprint.MatchString(o.Group)
		case m.Name == "plan" && !discard:
			ok = truth(m.Value, &o.Plan)
		case m.Name == "force" && !discard:
			ok = truth(m.Value, &o.Force)
		case m.Name == "why" && discard:
			ok = json.Unmarshal(m.Value, &o.Why) == nil && len(o.Why) <= MaxNote && !strings.ContainsFunc(o.Why, unprintable)
		default:
			return o, errors.New("the body may have the members ids or target and group, for a redrive plan and force, for a discard why")
		}
		if !ok {
			return o, errors.New(m.Name + " is not what it should be: " + letterMembers[m.Name])
		}
	}
	switch {
	case len(o.IDs) > 0 == (o.Group != ""):
		return o, errors.New("name either letters (ids) or a group with its target")
	case (o.Group != "") != (o.Target != ""):
		return o, errors.New("a group belongs to a target: name both")
	case discard && strings.TrimSpace(o.Why) == "":
		return o, errors.New("say why the letters are discarded")
	}
	return o, nil
}

var letterMembers = map[string]string{
	"ids":    "a list of 1 to " + strconv.Itoa(MaxLetters) + " ids of letters, each as a string",
	"target": "the name of a target",
	"group":  "a fingerprint, 12 hexadecimal digits",
	"plan":   "true or false",
	"force":  "true or false",
	"why":    "printable text of at most " + strconv.Itoa(MaxNote) + " bytes",
}

// truth reads true or false; null, which would leave the default unseen, is
// neither.
func truth(v json.RawMessage, to *bool) bool {
	*to = string(v) == "true"
	return *to || string(v) == "false"
}

// letterIDs reads ids, each once.
func letterIDs(v json.RawMessage) ([]uint64, bool) {
	var list []string
	if json.Unmarshal(v, &list) != nil || len(list) == 0 || len(list) > MaxLetters {
		return nil, false
	}
	seen := map[uint64]bool{}
	var ids []uint64
	for _, s := range list {
		id, err := strconv.ParseUint(s, 10, 64)
		if err != nil || id == 0 || strconv.FormatUint(id, 10) != s || seen[id] {
			return nil, false
		}
		seen[id] = true
		ids = append(ids, id)
	}
	return ids, true
}
