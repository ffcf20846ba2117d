package evance

import (
	"bytes"
	"encoding/json"
	"slices"
	"time"

	"crmsync/contact"
)

// held says whether a contact holds a change.
type held uint8

const (
	yes held = iota
	cannotSay
	no
)

// holds compares a contact as Evance shows it with a change: text by text,
// the members of the address that were sent, roles by reference (a GET shows
// them keyed, a PUT takes a list, crm-apis B3), tags as a set.
func (v *version) holds(now map[string]json.RawMessage, p contact.Patch) held {
	out := yes
	for _, f := range p {
		have, shown := now[f.Name]
		h := cannotSay
		if shown {
			h = v.compare(v.fields[f.Name], have, f.Value)
		}
		out = max(out, h)
	}
	return out
}

func (v *version) compare(k kind, have, want json.RawMessage) held {
	switch k {
	case kindPassword:
		return cannotSay
	case kindAddress:
		var members map[string]json.RawMessage
		p, err := contact.ParsePatch(want)
		if err != nil || json.Unmarshal(have, &members) != nil {
			return cannotSay
		}
		out := yes
		for _, f := range p {
			if x, ok := members[f.Name]; !ok {
				out = max(out, cannotSay)
			} else if !sameText(x, f.Value) {
				return no
			}
		}
		return out
	case kindRoles:
		return compareRoles(have, want)
	case kindTags:
		return compareTags(have, want)
	case kindBool:
		if !bytes.Equal(bytes.TrimSpace(have), bytes.TrimSpace(want)) {
			return no
		}
		return yes
	}
	if !sameText(have, want) {
		return no
	}
	return yes
}

// sameText compares strings. null and "" count as equal: which of the two
// Evance keeps is not documented.
func sameText(a, b json.RawMessage) bool {
	x, okX := str(a)
	y, okY := str(b)
	return x == y && (okX || isNull(a)) && (okY || isNull(b))
}

func compareRoles(have, want json.RawMessage) held {
	roles, bad := parseRoles(want)
	var keyed map[string]struct {
		Status  *string `json:"status"`
		Expires *string `json:"expires"`
	}
	var none []json.RawMessage
	if json.Unmarshal(have, &none) == nil && len(none) == 0 {
		keyed = nil // PHP writes an empty object as an empty list
	} else if json.Unmarshal(have, &keyed) != nil {
		return cannotSay
	}
	if bad != nil {
		return cannotSay
	}
	if len(keyed) != len(roles) {
		return no
	}
	out := yes
	for _, r := range roles {
		x, ok := keyed[r.reference]
		switch {
		case !ok:
			return no
		case r.status != "" && x.Status == nil, r.expires != "" && x.Expires == nil:
			out = cannotSay
		case r.status != "" && *x.Status != r.status, r.expires != "" && !sameInstant(*x.Expires, r.expires):
			return no
		}
	}
	return out
}

func sameInstant(a, b string) bool {
	x, err := time.Parse(time.RFC3339, a)
	y, err2 := time.Parse(time.RFC3339, b)
	return err == nil && err2 == nil && x.Equal(y)
}

func compareTags(have, want json.RawMessage) held {
	var shown struct {
		Contact []string `json:"contact"`
	}
	tags, bad := parseTags(want)
	if bad != nil || json.Unmarshal(have, &shown) != nil {
		return cannotSay
	}
	slices.Sort(tags)
	slices.Sort(shown.Contact)
	if !slices.Equal(slices.Compact(tags), slices.Compact(shown.Contact)) {
		return no
	}
	return yes
}
