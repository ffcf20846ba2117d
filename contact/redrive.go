package contact

import (
	"errors"
	"strconv"
	"strings"
	"time"
)

// Place is where the broker once stored an update. The zero value is no place.
type Place struct {
	Class  Class     `json:"class"`
	Seq    uint64    `json:"seq"`    // in the stream of its class, from 1
	Stored time.Time `json:"stored"` // by the broker's clock
}

// IsZero says that it is no place.
func (p Place) IsZero() bool { return p == Place{} }

// String is the place as [HeaderOrder] holds it: class,seq,Unix nanoseconds.
func (p Place) String() string {
	return p.Class.String() + "," + strconv.FormatUint(p.Seq, 10) + "," + strconv.FormatInt(p.Stored.UnixNano(), 10)
}

// ParsePlace reads what [Place.String] wrote, and nothing else.
func ParsePlace(s string) (Place, error) {
	bad := errors.New("not <class>,<sequence>,<Unix nanoseconds>")
	part := strings.Split(s, ",")
	if len(part) != 3 {
		return Place{}, bad
	}
	class, err := ParseClass(part[0])
	if err != nil {
		return Place{}, bad
	}
	seq, err := strconv.ParseUint(part[1], 10, 64)
	if err != nil || seq == 0 {
		return Place{}, bad
	}
	ns, err := strconv.ParseInt(part[2], 10, 64)
	if err != nil || ns <= 0 {
		return Place{}, bad
	}
	p := Place{Class: class, Seq: seq, Stored: time.Unix(0, ns).UTC()}
	if p.String() != s {
		return Place{}, bad // a sign, a leading zero
	}
	return p, nil
}

// Redrive is what an update that repeats a dead letter says beyond the letter's
// id. Its members travel as headers.
type Redrive struct {
	// Operation is the redrive of many that it belongs to; "" where it was
	// sent by itself.
	Operation string `json:"operation,omitempty"`
	// Root is the first letter of the chain: the letter itself, or what that
	// one repeated.
	Root string `json:"root,omitempty"`
	// By is who asked for it.
	By string `json:"by,omitempty"`
	// Edited is who changed the body; "" where it is the original.
	Edited string `json:"edited,omitempty"`
	// Order is the place of the original: the update is as old as that.
	Order Place `json:"order,omitzero"`
	// Force has the update's own place count instead of Order, and no version,
	// so that it overwrites what is newer than the original.
	Force bool `json:"force,omitempty"`
	// MaybeSent says that the CRM may have carried out the side effects of the
	// letter before it died: they are not asked for again.
	MaybeSent bool `json:"maybe_sent,omitempty"`
}

// redriveOf reads the headers of a redrive; nil where there are none.
func redriveOf(letter string, header map[string][]string) (*Redrive, *BadUpdate) {
	r := Redrive{
		Operation: headerValue(header, HeaderOperation), Root: headerValue(header, HeaderRedriveRoot),
		By: headerValue(header, HeaderRedriveBy), Edited: headerValue(header, HeaderEdited),
	}
	if v := headerValue(header, HeaderOrder); v != "" {
		p, err := ParsePlace(v)
		if err != nil {
			return nil, malformed("header %s is %s", HeaderOrder, err)
		}
		r.Order = p
	}
	for _, flag := range []struct {
		name string
		to   *bool
	}{{HeaderForce, &r.Force}, {HeaderMaybeSent, &r.MaybeSent}} {
		switch v := headerValue(header, flag.name); v {
		case "":
		case "1":
			*flag.to = true
		default:
			return nil, malformed("header %s is not 1", flag.name)
		}
	}
	if r == (Redrive{}) {
		return nil, nil
	}
	if letter == "" {
		return nil, malformed("a header of a redrive without %s", HeaderRedriveOf)
	}
	return &r, nil
}
