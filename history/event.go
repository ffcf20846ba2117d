// Package history is the judge: it takes down what happened while updates were
// published, applied and settled, as one list of events, and says which promises
// the list breaks. It knows nothing of how crmsync works and imports nothing of
// it. Tests and the command in history/judge use it.
//
// Values are self-describing: each value that an update writes holds the update's
// number as #<number>#, so that what a CRM holds tells by itself which update won
// each field.
package history

import (
	"strconv"
	"strings"
	"time"
)

// Kind says what an event tells. The comments name the members that each has
// beside At, Kind and Actor.
type Kind string

// The kinds of events.
const (
	// World begins a history: Rules.
	World Kind = "world"
	// Offer is a producer about to publish: Update, Target, Contact, Class,
	// Fields; Version, Job, Body and Fate where there are any.
	Offer Kind = "offer"
	// Stored is the broker's acknowledgement: Update, Seq.
	Stored Kind = "stored"
	// Receive is an owner being handed an update: Update, Target, Contact, Class,
	// Seq, Placed.
	Receive Kind = "receive"
	// Call is an owner about to make a call: Call, Target, Contact, Fields, Merged,
	// Lease; Repair.
	Call Kind = "call"
	// Further is an owner about to make one more request of a call: Call, Target,
	// Contact.
	Further Kind = "further"
	// Answer is what the call came to: Call, Target, Contact, Verdict; Status, Wait, Cut.
	Answer Kind = "answer"
	// Arrive is a request reaching the CRM: Request, Target, Operation, Contact,
	// Updates.
	Arrive Kind = "arrive"
	// Apply is the CRM taking a write: Request, Target, Contact, Order, Fields (those
	// that changed; none where nothing did).
	Apply Kind = "apply"
	// Reply is the request's answer: Request, Target, Status (0: lost); Wait, Fault.
	Reply Kind = "reply"
	// Mail is a message that a request had the CRM send: Request, Target, Contact.
	Mail Kind = "mail"
	// Settle is an outcome that was stored: Update, Target, Contact, Class, Seq,
	// Outcome, Record; Reason, Attempts, Body and Letter of a dead one, Letter of
	// one that was discarded, Of and Force of a redrive.
	Settle Kind = "settle"
	// Own and Free are a process beginning and ending to own a target: Target; Lost
	// where it did not end in good order.
	Own  Kind = "own"
	Free Kind = "free"
	// Stop, Exit and Crash are a process being asked to end, ending, and being
	// killed.
	Stop  Kind = "stop"
	Exit  Kind = "exit"
	Crash Kind = "crash"
	// Fault and Heal are the beginning and end of something that goes wrong: Name;
	// Target.
	Fault Kind = "fault"
	Heal  Kind = "heal"
	// Act is what an operator ordered: Name, Target; Contact, Letter, Job.
	// Audit is the record of it, with the same members: it is stored first.
	Act   Kind = "act"
	Audit Kind = "audit"
	// Sample is a ledger as it was told to somebody: Job, Target, Rows, Waiting,
	// Ended.
	Sample Kind = "sample"
	// Calm says that from here on nothing goes wrong any more; Rest that all that
	// was to be settled should have been.
	Calm Kind = "calm"
	Rest Kind = "rest"
	// Final is what a CRM holds at the end: Target, Contact, Fields.
	Final Kind = "final"
)

// Event is one line of a history. Members that a kind does not have are zero.
type Event struct {
	At    time.Time `json:"at"` // one clock for the whole history
	Kind  Kind      `json:"kind"`
	Actor string    `json:"actor,omitempty"` // process, producer, operator

	Target  string `json:"target,omitempty"`
	Contact string `json:"contact,omitempty"`

	Update  int64     `json:"update,omitempty"` // its number, from 1, unique in the history
	Class   string    `json:"class,omitempty"`  // live or bulk
	Seq     uint64    `json:"seq,omitempty"`    // place in the stream of its class
	Placed  time.Time `json:"placed,omitzero"`  // when the broker stored it
	Version *int64    `json:"version,omitempty"`
	Job     string    `json:"job,omitempty"`
	// Fields are paths and what they hold or are to hold, "" for nothing.
	Fields map[string]string `json:"fields,omitempty"`
	// Body is a digest of the update's bytes.
	Body string `json:"body,omitempty"`
	// Fate is the reason for which the update has to end dead, "" where it must
	// not: a producer knows what it publishes.
	Fate string `json:"fate,omitempty"`

	Call    string        `json:"call,omitempty"` // unique in the history
	Merged  int           `json:"merged,omitempty"`
	Lease   time.Time     `json:"lease,omitzero"` // until when the owner owns
	Repair  bool          `json:"repair,omitempty"`
	Verdict string        `json:"verdict,omitempty"`
	Status  int           `json:"status,omitempty"`
	Wait    time.Duration `json:"wait,omitempty"` // that the CRM asked for
	Cut     bool          `json:"cut,omitempty"`  // the owner itself broke it off

	Request   int     `json:"request,omitempty"` // number of arrival at its CRM
	Operation string  `json:"operation,omitempty"`
	Order     int     `json:"order,omitempty"` // place in the order of applying
	Updates   []int64 `json:"updates,omitempty"`
	Fault     string  `json:"fault,omitempty"` // that met the request

	Outcome  string `json:"outcome,omitempty"`
	Reason   string `json:"reason,omitempty"`
	Attempts int    `json:"attempts,omitempty"`
	Record   uint64 `json:"record,omitempty"` // place among all records
	Letter   uint64 `json:"letter,omitempty"` // a dead letter's id
	Of       uint64 `json:"of,omitempty"`     // the letter that a redrive repeats
	Force    bool   `json:"force,omitempty"`

	Lost bool   `json:"lost,omitempty"`
	Name string `json:"name,omitempty"`

	Rows    int64 `json:"rows,omitempty"`
	Waiting int64 `json:"waiting,omitempty"`
	Ended   int64 `json:"ended,omitempty"`

	Rules *Rules `json:"rules,omitempty"`
}

// Rules are what the history is held against.
type Rules struct {
	Targets map[string]Limits `json:"targets"`
	// Grace is how long after an answer that asks for patience, or after being
	// asked to end, a request may still be on its way.
	Grace time.Duration `json:"grace,omitempty"`
	// Exit is how long a process that was asked to end may take.
	Exit time.Duration `json:"exit,omitempty"`
	// Repaired is how long an older value may stand that a request brought which
	// the CRM carried out after its sender had given it up.
	Repaired time.Duration `json:"repaired,omitempty"`
	// Drain is how long all may take to settle once nothing goes wrong any more.
	Drain time.Duration `json:"drain,omitempty"`
}

// Limits are a target's. Zero members limit nothing.
type Limits struct {
	Rate     float64       `json:"rate,omitempty"` // requests a second
	Burst    int           `json:"burst,omitempty"`
	Windows  []Window      `json:"windows,omitempty"`
	Attempts int           `json:"attempts,omitempty"` // that count, for one update
	Backoff  time.Duration `json:"backoff,omitempty"`  // least wait before the next
}

// Window is a rolling limit.
type Window struct {
	Span  time.Duration `json:"span"`
	Limit int           `json:"limit"`
}

// Mark is how the value of an update's field tells its number.
func Mark(update int64) string { return "#" + strconv.FormatInt(update, 10) + "#" }

// Marked reads the number from a value, 0 where it has none.
func Marked(value string) int64 {
	_, rest, ok := strings.Cut(value, "#")
	if !ok {
		return 0
	}
	digits, _, ok := strings.Cut(rest, "#")
	if !ok {
		return 0
	}
	n, err := strconv.ParseInt(digits, 10, 64)
	if err != nil || n <= 0 {
		return 0
	}
	return n
}
