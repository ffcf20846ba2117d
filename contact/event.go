package contact

import (
	"encoding/base64"
	"encoding/json"
	"maps"
	"mime"
	"slices"
	"strings"
)

const cloudEventsJSON = "application/cloudevents+json"

// structuredEvent reads a CloudEvents 1.0 envelope. Its id stands in for a
// missing message id, its time for a missing occurred_at.
func (u *Update) structuredEvent(members Patch) *BadUpdate {
	attr := map[string]string{}
	var data json.RawMessage
	at := ""
	for _, m := range members {
		switch m.Name {
		case "data", "data_base64":
			if at != "" {
				return malformedAt(m.Name, "the event has both data and data_base64")
			}
			at, data = m.Name, m.Value
		default:
			s, ok, bad := text(m.Value, m.Name)
			if bad != nil {
				return bad
			}
			if ok {
				attr[m.Name] = s
				continue
			}
			// Not an attribute that says anything to us; what is refused
			// everywhere is refused in it too.
			if bad := (&scanner{b: m.Value}).value(m.Name, 2); bad != nil {
				return bad
			}
		}
	}
	if bad := u.eventAttributes(attr, attr["datacontenttype"]); bad != nil {
		return bad
	}
	if at == "" {
		return malformedAt("data", "the event has no data")
	}
	if at == "data_base64" {
		var bad *BadUpdate
		if data, bad = base64Data(data, at); bad != nil {
			return bad
		}
	}
	inner, bad := objectOf(data, at, 1, true)
	if bad != nil {
		return bad
	}
	return u.members(at, inner)
}

func base64Data(valid json.RawMessage, path string) (json.RawMessage, *BadUpdate) {
	s, ok, bad := text(valid, path)
	if bad != nil {
		return nil, bad
	}
	b, err := base64.StdEncoding.DecodeString(s)
	if !ok || err != nil {
		return nil, malformedAt(path, "not base64")
	}
	if bad := wellFormed(b); bad != nil {
		bad.Field = path
		return nil, bad
	}
	return b, nil
}

// binaryEvent reads an update whose event attributes are headers.
func (u *Update) binaryEvent(members Patch) *BadUpdate {
	attr := map[string]string{}
	for _, k := range slices.Sorted(maps.Keys(u.Header)) {
		name, ok := strings.CutPrefix(strings.ToLower(k), "ce-")
		if v := u.Header[k]; ok && len(v) > 0 && attr[name] == "" {
			attr[name] = v[0]
		}
	}
	media := attr["datacontenttype"]
	if media == "" {
		media = headerValue(u.Header, headerContentType)
	}
	if bad := u.eventAttributes(attr, media); bad != nil {
		return bad
	}
	return u.members("", members)
}

func (u *Update) eventAttributes(attr map[string]string, media string) *BadUpdate {
	if attr["specversion"] != "1.0" {
		return malformedAt("specversion", "not a CloudEvents 1.0 event")
	}
	for _, name := range []string{"id", "source", "type"} {
		if attr[name] == "" {
			return malformedAt(name, "a CloudEvents event needs it")
		}
	}
	if media != "" {
		m, _, err := mime.ParseMediaType(media)
		if err != nil || m != "application/json" && !strings.HasSuffix(m, "+json") {
			return malformedAt("datacontenttype", "the event's data is not JSON")
		}
	}
	if s := attr["time"]; s != "" {
		at, ok := parseTime(s)
		if !ok {
			return malformedAt("time", "not an RFC 3339 time")
		}
		u.OccurredAt = at
	}
	if u.MsgID == "" {
		u.MsgID = attr["source"] + "#" + attr["id"]
	}
	if u.TraceParent == "" {
		u.TraceParent = attr["traceparent"]
	}
	return nil
}
