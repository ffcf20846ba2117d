package crm

import (
	"encoding/json"
	"fmt"

	"crmsync/contact"
)

// Symptom is what letters that died of one cause have in common, as far as
// advice needs it. It holds no value of a contact.
type Symptom struct {
	Reason  contact.Reason
	Status  int    // HTTP status; 0 where no answer decided
	Field   string // the offending field, where it is known
	Message string // the CRM's words as [contact.Normalise] leaves them
}

// Advise says what an operator may do about letters of one cause, as far as
// that is the same for every CRM; "" where there is nothing to say. Of a CRM's
// own habits its package knows more.
func Advise(s Symptom) string {
	switch s.Reason {
	case contact.Malformed:
		return "the producer writes something that is no update; edit the letters into one, or discard them"
	case contact.Invalid:
		if s.Field != "" {
			return fmt.Sprintf("correct %s with dead edit, or take it out with --unset %s, then redrive", s.Field, s.Field)
		}
		return "correct the letters with dead edit, then redrive"
	case contact.Missing:
		return "the contacts are not in the CRM: deleted there, or numbered otherwise by the source"
	case contact.Conflict:
		if s.Field != "" {
			return fmt.Sprintf("another contact has this %s already; dead show ID --diff looks for it", s.Field)
		}
		return "another contact has the value already"
	case contact.Exhausted:
		return "it failed for as long as it was tried; redrive once the CRM is well, a few first (--canary)"
	case contact.Protocol:
		return "the answers make no sense: check the target's url and api, then redrive a few first (--canary)"
	case contact.Expired:
		return "they waited too long; redrive them if they are still wanted"
	}
	return ""
}

// Seen is how a field of a change stands beside what the contact holds.
type Seen string

const (
	// SeenSame: the contact holds the value.
	SeenSame Seen = "same"
	// SeenOther: the contact holds another value.
	SeenOther Seen = "differs"
	// SeenNot: no answer of the CRM shows the field.
	SeenNot Seen = "unseen"
)

// Difference is one field of a change beside what the contact holds now. It
// holds values of the contact: it is for the operator who asked, and is never
// stored or logged.
type Difference struct {
	Field string          `json:"field"` // its path, as address.city
	Sent  json.RawMessage `json:"sent"`
	Held  json.RawMessage `json:"held,omitempty"` // nil where it is not shown
	Seen  Seen            `json:"seen"`
}
