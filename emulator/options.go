package emulator

import (
	"fmt"
	"slices"
	"time"
)

// Modes of the Perfex REST API module (crm-apis A1): which generation of the
// server answers.
const (
	// Perfex208 is module 2.0.8: no limits, header token only, unknown
	// columns fail the whole update with a false 404.
	Perfex208 = "2.0.8"
	// Perfex303 is module 3.0.3: hourly limit by address (401), bursts (429),
	// unknown columns dropped, batch and openapi endpoints. The default.
	Perfex303 = "3.0.3"
	// PerfexDocs answers as the vendor's 3.x documentation says (422, 401,
	// 404 for an unknown contact), which no read source does.
	PerfexDocs = "3.x-docs"
)

// Modes of the Evance API (crm-apis B1). The empty mode serves both side by
// side, as the vendor does.
const (
	// EvanceV1 serves /api/contacts only.
	EvanceV1 = "v1"
	// EvanceV2 serves /api/v2/contacts only.
	EvanceV2 = "v2"
)

// Values that stand in for credentials an Options leaves empty.
const (
	DefaultToken      = "emulated-token"
	DefaultAccount    = "demo.evance.me"
	DefaultClientID   = "0123456789abcdef0123456789abcdef.2.app.evance.me"
	DefaultPrivateKey = "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff"
)

// Options says which CRM to be. The zero value is usable: an empty CRM with
// the default credentials and no limits.
type Options struct {
	// Mode is one of the constants of the vendor; empty means Perfex303 for
	// Perfex and both generations for Evance.
	Mode string
	// Token is the authtoken Perfex accepts; empty means DefaultToken.
	Token string
	// Account, ClientID and PrivateKey are the values of an Evance
	// credentials file; empty means the Default constants.
	Account, ClientID, PrivateKey string
	// Contacts seeds the ids 1..n with deterministic contents. Seeds cost no
	// memory until they are written.
	Contacts int
	// Seed drives every random decision (faults, Evance tokens).
	Seed uint64
	// Limits are the CRM's own; the zero value has none.
	Limits Limits
	// Capabilities are what the Perfex token may do (get, search_get, post,
	// put, delete); nil means everything.
	Capabilities []string
	// TokenLife is how long an Evance access token is good for; zero means
	// one hour.
	TokenLife time.Duration
	// Roles are the Evance access roles that exist, by reference; nil means
	// customer (granted at once) and trade-account (waits for approval).
	Roles map[string]Role
	// ThreeByteUTF8 makes Perfex's database cut text at the first character
	// outside the basic plane, as MySQL's utf8 does (crm-apis A3).
	ThreeByteUTF8 bool
}

// Role is an Evance access role.
type Role struct {
	Name string
	// Approval makes a grant by plain name wait as pending; the object form
	// with status active bypasses it (crm-apis B3).
	Approval bool
}

// Limits are enforced on the server's side. Every field's zero value means no
// such limit.
type Limits struct {
	// Rate and Burst are a token bucket over all requests of all callers,
	// checked strictly on arrival; a refusal answers 429. Burst 0 means 1.
	// A refused request takes no token.
	Rate  float64
	Burst int
	// RetryAfter is how a 429 says when to come back; empty means not at all.
	RetryAfter RetryAfter
	// PerHour is Perfex's request_limit: requests of one address in Window;
	// beyond it 3.0.3 answers 401, the documented mode and Evance answer 429.
	// 2.0.8 has no limits and ignores it (crm-apis A7). Refused requests
	// count.
	PerHour int
	// PerMinute is Perfex's burst_limit: requests of the token in a sixtieth
	// of Window, 429 without headers beyond it. As on the real 3.0.3 it
	// switches the 401 of PerHour off.
	PerMinute int
	// Window is the length of PerHour's window; zero means one hour. Tests
	// compress it.
	Window time.Duration
	// FixedWindow counts in back-to-back windows from the first request
	// rather than in a sliding one.
	FixedWindow bool
	// NoHeaders leaves the X-RateLimit headers out.
	NoHeaders bool
}

// RetryAfter is the form in which a 429 says when to come back.
type RetryAfter string

// The forms of Retry-After.
const (
	RetryNone    RetryAfter = "none"
	RetrySeconds RetryAfter = "seconds"
	RetryDate    RetryAfter = "date"
	RetryGarbage RetryAfter = "garbage"
)

var retryForms = []RetryAfter{"", RetryNone, RetrySeconds, RetryDate, RetryGarbage}

func (l Limits) window() time.Duration {
	if l.Window <= 0 {
		return time.Hour
	}
	return l.Window
}

// check panics on options no CRM can have: an emulator that quietly ran in
// another mode would judge wrongly.
func (o Options) check(modes ...string) {
	if !slices.Contains(modes, o.Mode) {
		panic(fmt.Sprintf("emulator: unknown mode %q, want one of %q", o.Mode, modes))
	}
	if o.Contacts < 0 || o.Limits.Rate < 0 || o.Limits.Burst < 0 || o.Limits.PerHour < 0 || o.Limits.PerMinute < 0 {
		panic("emulator: contacts and limits cannot be negative")
	}
	if !slices.Contains(retryForms, o.Limits.RetryAfter) {
		panic(fmt.Sprintf("emulator: unknown Retry-After form %q, want one of %q", o.Limits.RetryAfter, retryForms[1:]))
	}
}

func orElse(v, fallback string) string {
	if v == "" {
		return fallback
	}
	return v
}
