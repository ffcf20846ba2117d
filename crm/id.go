package crm

import (
	"fmt"
	"strconv"

	"crmsync/contact"
)

// CheckID says whether a string is a contact id of a CRM that numbers its
// contacts, as Perfex and Evance do (crm-apis A1, B1): a decimal integer from
// 1 to 2^63-1 in its one spelling. Leading zeros, signs and spaces are
// refused: 7 and 007 would be one contact to the CRM and two to us, each with
// an order of its own. A string that passes is safe as a path segment.
func CheckID(id string) *contact.BadUpdate {
	n, err := strconv.ParseInt(id, 10, 64)
	if err != nil || n < 1 || strconv.FormatInt(n, 10) != id {
		return &contact.BadUpdate{
			Reason: contact.Invalid,
			Field:  "id",
			Detail: "the contact id is not a whole number from 1 without leading zeros",
		}
	}
	return nil
}

// Invalid is the refusal of an update that breaks a rule of its CRM. The
// format must not be given values of the contact.
func Invalid(field, format string, a ...any) *contact.BadUpdate {
	return &contact.BadUpdate{Reason: contact.Invalid, Field: field, Detail: fmt.Sprintf(format, a...)}
}
