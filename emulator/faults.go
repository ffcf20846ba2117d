package emulator

import (
	"fmt"
	"net/url"
	"slices"
	"strings"
	"time"
)

// Kind is what a fault does to the requests it hits.
type Kind string

// The kinds of faults. "Applies" means the CRM does the work all the same.
const (
	// Latency makes the CRM take between Min and Max; applies somewhere in
	// between. It goes together with any other fault.
	Latency Kind = "latency"
	// ServerError answers Status (default 500) with an HTML page.
	ServerError Kind = "server-error"
	// TooMany answers 429 the vendor's way with RetryAfter and RetryIn.
	TooMany Kind = "too-many"
	// LostAnswer applies, then drops the connection without an answer.
	LostAnswer Kind = "lost-answer"
	// ResetBefore drops the connection before anything is applied.
	ResetBefore Kind = "reset-before"
	// DeadToken answers as for a token the CRM does not know.
	DeadToken Kind = "dead-token"
	// Forbidden answers as for a token without the permission.
	Forbidden Kind = "forbidden"
	// ModuleOff answers as a Perfex whose API module is switched off; an
	// Evance answers 403.
	ModuleOff Kind = "module-off"
	// NoContacts answers as a CRM that holds no contact at all: the address of
	// another installation, or a database restored empty.
	NoContacts Kind = "no-contacts"
	// Refusing refuses every write for good, as for a value that breaks a
	// rule; it reads as ever.
	Refusing Kind = "refusing"
	// Garbage answers Status (default 200) with the nonsense Body names.
	Garbage Kind = "garbage"
	// SlowBody applies and sends the answer one byte per Interval.
	SlowBody Kind = "slow-body"
	// HugeBody applies and answers with Size bytes, chunked.
	HugeBody Kind = "huge-body"
	// GzipBomb applies and answers Size bytes, gzipped, asked for or not.
	GzipBomb Kind = "gzip-bomb"
	// CutBody applies and drops the connection in the middle of the answer.
	CutBody Kind = "cut-body"
	// Outage answers Status with an HTML page, or drops the connection when
	// Status is 0. Nothing behind it sees the request.
	Outage Kind = "outage"
	// Redirect answers Status (default 302) with URL as the Location.
	Redirect Kind = "redirect"
	// PoisonContact answers 500 for the contact that Contact names.
	PoisonContact Kind = "poison-contact"
	// LateApply keeps the caller waiting without an answer, applies after
	// Delay whether the caller is still there or not, and drops the
	// connection: what a dead worker's request does.
	LateApply Kind = "late-apply"
	// Lie answers success and stores nothing.
	Lie Kind = "lie"
)

var kinds = []Kind{
	Latency, ServerError, TooMany, LostAnswer, ResetBefore, DeadToken, Forbidden, ModuleOff, NoContacts, Refusing, Garbage, SlowBody,
	HugeBody, GzipBomb, CutBody, Outage, Redirect, PoisonContact, LateApply, Lie,
}

// Nonsense is what a Garbage fault answers with.
type Nonsense string

// The sorts of nonsense.
const (
	Noise     Nonsense = "noise"     // bytes that are no text
	LoginPage Nonsense = "login"     // an HTML page to log in at
	Truncated Nonsense = "truncated" // JSON that ends too early
	Empty     Nonsense = "empty"     // no body at all
	WrongJSON Nonsense = "wrong"     // valid JSON of another service
	Failure   Nonsense = "failure"   // {"status":false,...} in a success
)

var nonsenses = []Nonsense{"", Noise, LoginPage, Truncated, Empty, WrongJSON, Failure}

// Faults is a plan: the bad day. A request is held against the rules in
// order; the waits of all latency rules that hit add up, and the first other
// rule that hits decides. The zero value is a good day.
type Faults []Fault

// Fault is one rule of a plan. In JSON durations are strings ("2s").
type Fault struct {
	Kind Kind
	// Probability that it hits a request it matches, 0..1; 0 means always.
	Probability float64
	// From and To bound the time in which it is active, counted from the
	// moment the plan was set; To 0 means for ever.
	From, To time.Duration
	// Contact restricts it to requests about this contact (for a batch: any
	// of its contacts); Operation to requests of this kind. Empty: all.
	Contact   string
	Operation Operation
	// Count is how many more requests it may hit; 0 means no bound.
	Count int
	// Apply makes a ServerError, Garbage or Redirect do the work before it
	// answers.
	Apply bool

	Min, Max   time.Duration // Latency; Max below Min means Min
	Status     int           // ServerError, Garbage, Outage, Redirect
	RetryAfter RetryAfter    // TooMany, ServerError, Outage
	RetryIn    time.Duration // with RetryAfter; 0 means 30 s
	Body       Nonsense      // Garbage; empty means Noise
	Interval   time.Duration // SlowBody; 0 means 1 s
	Size       int64         // HugeBody, GzipBomb; 0 means 64 MiB
	URL        string        // Redirect
	Delay      time.Duration // LateApply; 0 means 60 s
}

// Validate reports the first rule that makes no sense, naming it by its index.
func (f Faults) Validate() error {
	for i, r := range f {
		if err := r.check(); err != nil {
			return fmt.Errorf("faults[%d]: %w", i, err)
		}
	}
	return nil
}

func (f Fault) check() error {
	if !slices.Contains(kinds, f.Kind) {
		return fmt.Errorf("unknown kind %q, want one of %s", f.Kind, list(kinds))
	}
	if !(f.Probability >= 0 && f.Probability <= 1) { // also refuses NaN
		return fmt.Errorf("probability %v is not within 0..1", f.Probability)
	}
	for name, d := range map[string]time.Duration{
		"from": f.From, "to": f.To, "min": f.Min, "max": f.Max, "retry_in": f.RetryIn, "interval": f.Interval, "delay": f.Delay,
	} {
		if d < 0 {
			return fmt.Errorf("%s %v is negative", name, d)
		}
	}
	switch {
	case f.To != 0 && f.To <= f.From:
		return fmt.Errorf("to %v is not after from %v", f.To, f.From)
	case f.Operation != "" && !slices.Contains(operations, f.Operation):
		return fmt.Errorf("unknown operation %q, want one of %s", f.Operation, list(operations))
	case f.Count < 0:
		return fmt.Errorf("count %d is negative", f.Count)
	case f.Size < 0:
		return fmt.Errorf("size %d is negative", f.Size)
	case f.Status != 0 && (f.Status < 200 || f.Status > 999):
		return fmt.Errorf("status %d is not within 200..999", f.Status)
	case !slices.Contains(retryForms, f.RetryAfter):
		return fmt.Errorf("unknown retry_after %q, want one of %s", f.RetryAfter, list(retryForms[1:]))
	case !slices.Contains(nonsenses, f.Body):
		return fmt.Errorf("unknown body %q, want one of %s", f.Body, list(nonsenses[1:]))
	case f.Kind == PoisonContact && f.Contact == "":
		return fmt.Errorf("kind %s needs a contact", f.Kind)
	case f.Kind == Latency && f.Min == 0 && f.Max == 0:
		return fmt.Errorf("kind %s needs min or max", f.Kind)
	case f.Kind == Redirect && f.Status != 0 && f.Status/100 != 3:
		return fmt.Errorf("kind %s needs a 3xx status, not %d", f.Kind, f.Status)
	case f.Kind == Redirect && f.URL == "":
		return fmt.Errorf("kind %s needs a url", f.Kind)
	}
	if _, err := url.Parse(f.URL); err != nil {
		return fmt.Errorf("url: %w", err)
	}
	return nil
}

func list[T ~string](all []T) string {
	s := make([]string, len(all))
	for i, v := range all {
		s[i] = string(v)
	}
	return strings.Join(s, ", ")
}

func (f Fault) matches(cl *call, age time.Duration) bool {
	if age < f.From || f.To != 0 && age >= f.To {
		return false
	}
	if f.Operation != "" && f.Operation != cl.op {
		return false
	}
	switch {
	case f.Kind == DeadToken && cl.op == OpToken:
		return false // the dead token is the one the token endpoint gave out
	case f.Kind == Refusing && cl.op != OpUpdate && cl.op != OpBatch:
		return false
	}
	return f.Contact == "" || slices.Contains(cl.contacts, f.Contact)
}

// SetFaults replaces the plan, at any time. Windows of time count from now.
// It panics on a plan that Validate refuses.
func (c *CRM) SetFaults(f Faults) {
	if err := f.Validate(); err != nil {
		panic("emulator: " + err.Error())
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.plan, c.planned = slices.Clone(f), time.Now()
}

// Faults returns what is left of the plan: counts are what remains, and rules
// whose count is spent are gone.
func (c *CRM) Faults() Faults {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.plan)
}

// hitLocked decides which faults meet a request: how long it takes, and the
// one rule that decides its answer (Kind empty: none). c.mu is held.
func (c *CRM) hitLocked(cl *call) (latency time.Duration, hit Fault) {
	age := cl.now.Sub(c.planned)
	for i := range c.plan {
		f := &c.plan[i]
		if !f.matches(cl, age) || hit.Kind != "" && f.Kind != Latency {
			continue
		}
		if f.Probability > 0 && f.Probability < 1 && c.rng.Float64() >= f.Probability {
			continue
		}
		if f.Kind == Latency {
			latency += f.Min
			if span := int64(f.Max - f.Min); span > 0 {
				latency += time.Duration(c.rng.Int64N(span + 1))
			}
		} else {
			hit = *f
		}
		if f.Count > 0 {
			if f.Count--; f.Count == 0 {
				f.Kind = ""
			}
		}
	}
	c.plan = slices.DeleteFunc(c.plan, func(f Fault) bool { return f.Kind == "" })
	return latency, hit
}
