package console

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"mime"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"
	"unicode"

	"crmsync/contact"
)

// maxOrder is the largest body of a POST, in bytes.
const maxOrder = 4 << 10

func (c *console) health(w http.ResponseWriter, _ *http.Request) {
	sendText(w, http.StatusOK, "ok")
}

// ready is open, so that a probe needs no secret; why not is for those who may
// see the status.
func (c *console) ready(w http.ResponseWriter, r *http.Request) {
	if c.o.Ready == nil {
		sendText(w, http.StatusOK, "ready")
		return
	}
	ctx, cancel := context.WithTimeout(r.Context(), CallTimeout)
	defer cancel()
	err := c.o.Ready(ctx)
	known, tokenErr := c.authorised(r)
	known = known && tokenErr == nil
	if err == nil {
		text := "ready"
		if known && c.o.Note != nil {
			if note := c.o.Note(ctx); note != "" {
				text += ", but " + note
			}
		}
		sendText(w, http.StatusOK, text)
		return
	}
	text := "not ready"
	if known {
		text += ": " + err.Error()
	}
	sendText(w, http.StatusServiceUnavailable, text)
}

func (c *console) status(w http.ResponseWriter, r *http.Request) {
	if !noQuery(w, r) {
		return
	}
	ctx, cancel := context.WithTimeout(r.Context(), CallTimeout)
	defer cancel()
	v, err := c.o.Status(ctx)
	sendJSON(w, v, err)
}

func (c *console) dead(w http.ResponseWriter, r *http.Request) {
	q, err := parseDeadQuery(r.URL.RawQuery)
	if err != nil {
		badRequest(w, err.Error())
		return
	}
	ctx, cancel := context.WithTimeout(r.Context(), CallTimeout)
	defer cancel()
	v, err := c.o.Dead(ctx, q)
	sendJSON(w, v, err)
}

func (c *console) hold(w http.ResponseWriter, r *http.Request) {
	c.steer(w, r, true)
}

func (c *console) resume(w http.ResponseWriter, r *http.Request) {
	c.steer(w, r, false)
}

func (c *console) steer(w http.ResponseWriter, r *http.Request, hold bool) {
	target := r.PathValue("target")
	if contact.CheckTarget(target) != nil {
		notFound(w)
		return
	}
	if !noQuery(w, r) {
		return
	}
	body, ok := readJSON(w, r)
	if !ok {
		return
	}
	s, err := parseSteering(body, hold, time.Now())
	if err != nil {
		badRequest(w, err.Error())
		return
	}
	s.By = "console from " + remote(r)
	ctx, cancel := context.WithTimeout(r.Context(), CallTimeout)
	defer cancel()
	if err := c.o.Steer(ctx, target, s); err != nil {
		failed(w, err)
		return
	}
	w.WriteHeader(http.StatusNoContent)
}

// readJSON reads the body of a POST; where it is not ok it has answered. Asking
// for the media type is what keeps forms of other sites out of browsers that
// tell us nothing about where a request comes from.
func readJSON(w http.ResponseWriter, r *http.Request) ([]byte, bool) {
	mt, params, err := mime.ParseMediaType(r.Header.Get("Content-Type"))
	charset, named := params["charset"]
	if err != nil || mt != "application/json" || named && !strings.EqualFold(charset, "utf-8") || r.Header.Get("Content-Encoding") != "" {
		problem{Status: http.StatusUnsupportedMediaType, Detail: "send Content-Type: application/json, in UTF-8 and not compressed"}.write(w)
		return nil, false
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxOrder))
	var tooLarge *http.MaxBytesError
	switch {
	case errors.As(err, &tooLarge):
		problem{Status: http.StatusRequestEntityTooLarge, Detail: "the body may have " + strconv.Itoa(maxOrder) + " bytes"}.write(w)
		return nil, false
	case err != nil:
		badRequest(w, "the body could not be read to its end")
		return nil, false
	}
	return body, true
}

// parseSteering reads {"until": time, "note": text} of a hold, {"note": text,
// "storm": "accept" or "recall"} of a resumption; all are optional, and nothing
// at all is {}.
func parseSteering(body []byte, hold bool, now time.Time) (Steering, error) {
	s := Steering{Hold: hold}
	if len(body) == 0 {
		return s, nil
	}
	members, err := contact.ParsePatch(body)
	if err != nil {
		return s, err
	}
	for _, m := range members {
		switch {
		case m.Name == "note":
			if err := json.Unmarshal(m.Value, &s.Note); err != nil {
				return s, errors.New("note must be a string")
			}
			if len(s.Note) > MaxNote || strings.ContainsFunc(s.Note, unprintable) {
				return s, errors.New("note may have " + strconv.Itoa(MaxNote) + " bytes of printable text")
			}
		case m.Name == "until" && hold:
			var until *time.Time
			if err := json.Unmarshal(m.Value, &until); err != nil {
				return s, errors.New("until must be a time such as 2026-11-21T19:05:00Z")
			}
			if until == nil {
				continue
			}
			if !until.After(now) {
				return s, errors.New("until is not in the future")
			}
			s.Until = until.UTC()
		case m.Name == "storm" && !hold:
			if err := json.Unmarshal(m.Value, &s.Storm); err != nil || s.Storm != "accept" && s.Storm != "recall" {
				return s, errors.New("storm must be accept or recall")
			}
		default:
			return s, errors.New("the body may have the members note, until (only for hold) and storm (only for resume)")
		}
	}
	return s, nil
}

// unprintable also covers the marks that reorder text.
func unprintable(r rune) bool { return !unicode.IsPrint(r) }

// parseDeadQuery reads target=&reason=&group=&limit=&after=, each at most once.
func parseDeadQuery(raw string) (DeadQuery, error) {
	q := DeadQuery{Limit: DefaultDead}
	values, err := url.ParseQuery(raw)
	if err != nil {
		return q, errors.New("the query is not written as name=value&name=value")
	}
	for name, vs := range values {
		if len(vs) != 1 {
			return q, errors.New(strconv.Quote(name) + " is given more than once")
		}
		v := vs[0]
		if v == "" && (name == "target" || name == "reason" || name == "group" || name == "limit" || name == "after") {
			continue
		}
		switch name {
		case "target":
			q.Target, err = v, contact.CheckTarget(v)
		case "reason":
			if q.Reason.UnmarshalText([]byte(v)) != nil {
				err = errors.New("reason is none of " + reasonList())
			}
		case "group":
			if q.Group = v; !fingerprint.MatchString(v) {
				err = errors.New("group must be a fingerprint, 12 hexadecimal digits")
			}
		case "limit":
			if q.Limit, err = strconv.Atoi(v); err != nil || q.Limit < 1 || q.Limit > MaxDead {
				err = errors.New("limit must be 1 to " + strconv.Itoa(MaxDead))
			}
		case "after":
			if q.After, err = strconv.ParseUint(v, 10, 64); err != nil {
				err = errors.New("after must be the id of a letter, a whole number")
			}
		default:
			err = errors.New("the query may have target, reason, group, limit and after")
		}
		if err != nil {
			return q, err
		}
	}
	return q, nil
}

func reasonList() string {
	var names []string
	for _, r := range contact.Reasons() {
		names = append(names, r.String())
	}
	return strings.Join(names, ", ")
}

// noQuery refuses a query where there is nothing to ask: it would do nothing.
func noQuery(w http.ResponseWriter, r *http.Request) bool {
	if r.URL.RawQuery == "" && !r.URL.ForceQuery {
		return true
	}
	badRequest(w, "there is no query here")
	return false
}

func sendJSON(w http.ResponseWriter, v any, err error) {
	if err != nil {
		failed(w, err)
		return
	}
	body, err := json.Marshal(v)
	if err != nil {
		problem{Status: http.StatusInternalServerError, Detail: err.Error()}.write(w)
		return
	}
	send(w, http.StatusOK, "application/json", body)
}

// failed answers for a function of [Options] that could not do its work.
func failed(w http.ResponseWriter, err error) {
	switch {
	case errors.Is(err, ErrUnknownTarget), errors.Is(err, ErrUnknownLetter):
		notFound(w)
	case errors.Is(err, ErrConflict), errors.Is(err, ErrTaken):
		problem{Status: http.StatusConflict, Detail: err.Error()}.write(w)
	case errors.Is(err, ErrBusy):
		w.Header().Set("Retry-After", strconv.Itoa(int(retryAfter.Seconds())))
		problem{Status: http.StatusServiceUnavailable, Detail: err.Error()}.write(w)
	case errors.Is(err, context.DeadlineExceeded):
		problem{Status: http.StatusGatewayTimeout, Detail: "no answer in time: " + err.Error()}.write(w)
	default:
		problem{Status: http.StatusServiceUnavailable, Detail: err.Error()}.write(w)
	}
}
