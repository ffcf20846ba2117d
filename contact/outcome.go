package contact

import (
	"fmt"
	"time"
)

// Verdict is what a CRM's answer means for the change it was given.
type Verdict uint8

const (
	// VerdictUnknown: the request may or may not have been carried out. It is
	// the zero value: what nobody judged is not known.
	VerdictUnknown Verdict = iota
	// VerdictApplied: the CRM now holds the change.
	VerdictApplied
	// VerdictUnchanged: the CRM held it already; nothing was written.
	VerdictUnchanged
	// VerdictInvalid: this change will never be accepted as it is.
	VerdictInvalid
	// VerdictMissing: the contact does not exist.
	VerdictMissing
	// VerdictThrottled: the target asks us to wait.
	VerdictThrottled
	// VerdictTransient: it failed, was not applied, and may work later.
	VerdictTransient
	// VerdictUnauthorized: the target refuses our credentials.
	VerdictUnauthorized
	// VerdictForbidden: our credentials lack a permission.
	VerdictForbidden

	verdicts = 9
)

var verdictNames = [verdicts]string{"unknown", "applied", "unchanged", "invalid", "missing", "throttled", "transient", "unauthorized", "forbidden"}

// String is the verdict's name in logs and metrics.
func (v Verdict) String() string { return nameOf(verdictNames[:], uint8(v), "verdict") }

// MarshalText writes the name; a value without one is an error.
func (v Verdict) MarshalText() ([]byte, error) {
	return marshalName(verdictNames[:], uint8(v), "verdict")
}

// UnmarshalText reads the name; any other text is an error.
func (v *Verdict) UnmarshalText(b []byte) error { return parseName(verdictNames[:], b, "verdict", v) }

// Success says that the CRM holds the change.
func (v Verdict) Success() bool { return v == VerdictApplied || v == VerdictUnchanged }

// Permanent says that sending the same change again is of no use.
func (v Verdict) Permanent() bool { return v == VerdictInvalid || v == VerdictMissing }

// Outcome is how one update ended. Each update has exactly one.
type Outcome uint8

const (
	// Pending is the zero value: no outcome yet. It is never stored.
	Pending Outcome = iota
	// Applied: a call that carried at least one of its fields succeeded.
	Applied
	// Unchanged: the CRM held its fields already.
	Unchanged
	// Superseded: newer updates overwrote all of its fields.
	Superseded
	// Dead: it cannot be applied; the record carries the dead letter.
	Dead
	// Discarded: an operator gave the dead letter up.
	Discarded
	// Cancelled: its job was cancelled before it was sent.
	Cancelled

	outcomes = 7
)

var outcomeNames = [outcomes]string{"pending", "applied", "unchanged", "superseded", "dead", "discarded", "cancelled"}

// String is the outcome's token in subjects and metrics.
func (o Outcome) String() string { return nameOf(outcomeNames[:], uint8(o), "outcome") }

// MarshalText writes the token; a value without one is an error.
func (o Outcome) MarshalText() ([]byte, error) {
	return marshalName(outcomeNames[:], uint8(o), "outcome")
}

// UnmarshalText reads the token; any other text is an error.
func (o *Outcome) UnmarshalText(b []byte) error { return parseName(outcomeNames[:], b, "outcome", o) }

// Outcomes lists every outcome an update can end with.
func Outcomes() []Outcome {
	return []Outcome{Applied, Unchanged, Superseded, Dead, Discarded, Cancelled}
}

// Reason says why a letter is dead. The codes are closed and stable: they
// stand in records, metrics, commands and pages.
type Reason uint8

const (
	// NoReason is the zero value: not dead.
	NoReason Reason = iota
	// Malformed: the message is not an update.
	Malformed
	// Invalid: the update breaks a rule, ours or the CRM's.
	Invalid
	// Missing: the contact does not exist in the CRM.
	Missing
	// Conflict: a value is taken by another contact (an e-mail address).
	Conflict
	// Refused: another permanent refusal.
	Refused
	// Exhausted: it failed for as long as we retry.
	Exhausted
	// Protocol: the CRM's answer makes no sense.
	Protocol
	// StaleRedrive: a redriven letter with nothing left to write, or so old
	// that what is newer than it is not known any more.
	StaleRedrive
	// Expired: it waited longer than its source allows.
	Expired

	reasons = 10
)

var reasonNames = [reasons]string{"", "malformed", "invalid", "missing", "conflict", "refused", "exhausted", "protocol", "stale-redrive", "expired"}

// String is the code.
func (r Reason) String() string { return nameOf(reasonNames[:], uint8(r), "reason") }

// MarshalText writes the code; a value without one is an error.
func (r Reason) MarshalText() ([]byte, error) { return marshalName(reasonNames[:], uint8(r), "reason") }

// UnmarshalText reads the code; any other text is an error.
func (r *Reason) UnmarshalText(b []byte) error { return parseName(reasonNames[:], b, "reason", r) }

// Reasons lists every code.
func Reasons() []Reason {
	out := make([]Reason, 0, reasons-1)
	for r := Malformed; r < reasons; r++ {
		out = append(out, r)
	}
	return out
}

func nameOf(names []string, i uint8, kind string) string {
	if int(i) < len(names) {
		return names[i]
	}
	return fmt.Sprintf("%s(%d)", kind, i)
}

// marshalName refuses what parseName would not read back: a record must not
// hold it.
func marshalName(names []string, i uint8, kind string) ([]byte, error) {
	if int(i) >= len(names) {
		return nil, fmt.Errorf("%s %d has no name", kind, i)
	}
	return []byte(names[i]), nil
}

func parseName[T ~uint8](names []string, b []byte, kind string, to *T) error {
	for i, n := range names {
		if n == string(b) {
			*to = T(i)
			return nil
		}
	}
	return fmt.Errorf("%s %q is not known", kind, b)
}

// Attempt is one call that was made for an update.
type Attempt struct {
	At      time.Time `json:"at"`
	Verdict Verdict   `json:"verdict"`
	Status  int       `json:"status,omitempty"` // HTTP status; 0 where no answer came
	Detail  string    `json:"detail,omitempty"` // redacted, at most a line
}

// Resolution says how it was found out what became of a request whose answer
// was lost.
type Resolution string

const (
	// Unlost is the zero value: no answer was lost.
	Unlost Resolution = ""
	// ReadBack: the contact was read and holds what the request carried.
	ReadBack Resolution = "read-back"
	// FoundDone: the next attempt found that nothing was left to write.
	FoundDone Resolution = "found-done"
	// Repeated: it was sent again, since that does no harm.
	Repeated Resolution = "repeated"
)

// Ending is how one update ended and on what evidence. It never holds a value
// of the contact: field names only.
type Ending struct {
	Outcome  Outcome
	Reason   Reason    // for Dead; StaleRedrive for a redrive that is Superseded; else NoReason
	Call     string    // id of the call that decided; "" where none was made
	Merged   int       // how many updates that call carried
	Status   int       // HTTP status of its answer
	Attempts int       // calls that counted against the update
	Tries    []Attempt // the last of them, oldest first, at most 10
	Field    string    // the offending field, where the CRM said which
	Detail   string    // the CRM's words, redacted and cut, or our own
	Resolved Resolution
	// MaybeSent says of a Dead one that the CRM may have carried out its side
	// effects.
	MaybeSent bool
	Fields    []string // paths it set; for a dead letter, the paths it wanted to set
	Ended     time.Time
}
