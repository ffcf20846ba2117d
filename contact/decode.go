package contact

import (
	"encoding/json"
	"fmt"
	"math"
	"mime"
	"strconv"
	"strings"
	"time"
)

// Headers of an update's message, as NATS writes them.
const (
	HeaderMsgID       = "Nats-Msg-Id"
	HeaderTraceParent = "traceparent"
	HeaderJob         = "Crmsync-Job"
	HeaderRow         = "Crmsync-Row"
	HeaderRedriveOf   = "Crmsync-Redrive-Of"
	HeaderRedriveRoot = "Crmsync-Redrive-Root"
	HeaderRedriveBy   = "Crmsync-Redrive-By"
	HeaderOperation   = "Crmsync-Redrive"
	HeaderOrder       = "Crmsync-Order"
	HeaderForce       = "Crmsync-Force"
	HeaderEdited      = "Crmsync-Edited"
	HeaderMaybeSent   = "Crmsync-Maybe-Sent"
	headerContentType = "Content-Type"
)

// Decode reads a message's body and headers into an update: its fields,
// version, times, job and the rest; not its contact, class or place, which the
// queue knows. The body is
//
//	{"fields": {...}, "version": 17, "occurred_at": "2026-11-21T19:05:00Z"}
//
// or a CloudEvents 1.0 event around it (structured, or binary with ce-
// headers). It is strict: unknown, duplicate and case-variant members, invalid
// UTF-8, lone surrogates, trailing data, anything beyond [MaxBody], [MaxDepth]
// and [MaxMembers], and the control characters U+0000 to U+001F and U+007F
// other than tab, line feed and carriage return are refused. [Schema] says the
// same to producers as far as a JSON Schema can.
//
// It always returns an update with Raw and Header set; where the message is
// not one, Bad says why. The update aliases body and header.
func Decode(body []byte, header map[string][]string) *Update {
	u := &Update{
		Raw: body, Header: header,
		MsgID:       headerValue(header, HeaderMsgID),
		Job:         headerValue(header, HeaderJob),
		RedriveOf:   headerValue(header, HeaderRedriveOf),
		TraceParent: headerValue(header, HeaderTraceParent),
	}
	if row := headerValue(header, HeaderRow); row != "" {
		n, err := strconv.ParseInt(row, 10, 64)
		if err != nil || n < 1 {
			u.Bad = malformed("header %s is not a row number from 1", HeaderRow)
			return u
		}
		u.Row = n
	}
	if u.Redrive, u.Bad = redriveOf(u.RedriveOf, header); u.Bad != nil {
		return u
	}
	u.Bad = u.decode(body)
	if u.Bad != nil {
		u.Fields, u.Versioned, u.Version, u.OccurredAt = nil, false, 0, time.Time{}
	}
	return u
}

// headerValue looks a header up by its exact spelling first, as NATS does, and
// then in any case, as producers write them; of several spellings the first in
// byte order counts, so that the answer does not change from time to time.
func headerValue(h map[string][]string, name string) string {
	if v := h[name]; len(v) > 0 {
		return v[0]
	}
	found := ""
	for k, v := range h {
		if len(v) > 0 && strings.EqualFold(k, name) && (found == "" || k < found) {
			found = k
		}
	}
	if found == "" {
		return ""
	}
	return h[found][0]
}

func (u *Update) decode(body []byte) *BadUpdate {
	if bad := wellFormed(body); bad != nil {
		return bad
	}
	root, bad := objectOf(body, "", 1, true)
	if bad != nil {
		return bad
	}
	if headerValue(u.Header, "ce-specversion") != "" {
		return u.binaryEvent(root)
	}
	_, enveloped := root.Get("specversion")
	if media := headerValue(u.Header, headerContentType); media != "" && !enveloped {
		media, _, _ = mime.ParseMediaType(media)
		enveloped = media == cloudEventsJSON
	}
	if enveloped {
		return u.structuredEvent(root)
	}
	return u.members("", root)
}

// members reads the members of an update; at is where they stand, for errors.
func (u *Update) members(at string, members Patch) *BadUpdate {
	for _, m := range members {
		path := join(at, m.Name)
		var bad *BadUpdate
		switch m.Name {
		case "fields":
			u.Fields, bad = objectOf(m.Value, path, 2, false)
		case "version":
			u.Version, bad = counter(m.Value, path)
			u.Versioned = true
		case "occurred_at":
			u.OccurredAt, bad = instant(m.Value, path)
		default:
			bad = unknownMember(at, m.Name)
		}
		if bad != nil {
			return bad
		}
	}
	path := join(at, "fields")
	if _, ok := members.Get("fields"); !ok {
		return malformedAt(path, "the member is missing")
	}
	if len(u.Fields) == 0 {
		return &BadUpdate{Reason: Invalid, Field: path, Detail: "there is nothing to change"}
	}
	if _, ok := u.Fields.Get(""); ok {
		return &BadUpdate{Reason: Invalid, Field: path, Detail: "a field without a name"}
	}
	return nil
}

func unknownMember(at, name string) *BadUpdate {
	for _, known := range []string{"fields", "version", "occurred_at"} {
		if strings.EqualFold(name, known) {
			return malformedAt(join(at, name), "write it as %q", known)
		}
	}
	return malformedAt(join(at, name), "unknown member; an update has fields, version and occurred_at")
}

func counter(valid json.RawMessage, path string) (int64, *BadUpdate) {
	v, err := strconv.ParseInt(string(valid), 10, 64)
	if err != nil || v < 0 {
		return 0, malformedAt(path, "not a whole number from 0 to %d, written in digits only", int64(math.MaxInt64))
	}
	return v, nil
}

func instant(valid json.RawMessage, path string) (time.Time, *BadUpdate) {
	s, ok, bad := text(valid, path)
	if bad != nil {
		return time.Time{}, bad
	}
	if ok {
		if t, ok := parseTime(s); ok {
			return t, nil
		}
	}
	return time.Time{}, malformedAt(path, "not an RFC 3339 time with a zone, as 2026-11-21T19:05:00Z")
}

// parseTime is as strict as RFC 3339 (with upper-case T and Z); time.Parse also
// takes an hour of one digit, a comma before the fraction and a zone beyond a
// day.
func parseTime(s string) (time.Time, bool) {
	const short = len("2006-01-02T15:04:05")
	t, err := time.Parse(time.RFC3339Nano, s)
	if err != nil || len(s) <= short || s[short-3] != ':' || s[short] == ',' {
		return time.Time{}, false
	}
	if s[len(s)-1] != 'Z' {
		if zone := s[len(s)-len("07:00"):]; zone[:2] > "23" || zone[3:] > "59" {
			return time.Time{}, false
		}
	}
	return t, true
}

// Encode writes the body of an update; [Decode] reads it back to the same
// fields, version and time. What Decode would refuse is an error that wraps a
// *[BadUpdate].
func Encode(u *Update) ([]byte, error) {
	size := 64
	for _, f := range u.Fields {
		size += len(f.Name) + len(f.Value) + 4
	}
	b, err := u.Fields.appendJSON(append(make([]byte, 0, size), `{"fields":`...))
	if err == nil && u.Versioned {
		b = strconv.AppendInt(append(b, `,"version":`...), u.Version, 10)
	}
	if at := u.OccurredAt; err == nil && !at.IsZero() {
		if _, offset := at.Zone(); offset%60 != 0 {
			at = at.UTC() // RFC 3339 has no seconds in a zone
		}
		var text []byte
		text, err = at.MarshalJSON()
		b = append(append(b, `,"occurred_at":`...), text...)
	}
	if err != nil {
		return nil, fmt.Errorf("encode update of %s: %w", u.Contact, err)
	}
	b = append(b, '}')
	if bad := new(Update).decode(b); bad != nil {
		return nil, fmt.Errorf("encode update of %s: %w", u.Contact, bad)
	}
	return b, nil
}
