// Package worker applies updates to a CRM: it takes them from a queue in
// order, merges what waits together, spends the target's quota, calls, decides
// what an answer leads to, and settles each update with one outcome. One [Lane]
// does this for one target; its files read in that order: intake, slot, take,
// quota, call, decide, hold, settle.
//
// It knows neither NATS nor HTTP: a [Source] hands out deliveries, a [Sender]
// makes calls. It therefore runs in virtual time under testing/synctest.
package worker

import (
	"context"
	"math/rand/v2"
	"time"

	"github.com/rs/zerolog"

	"crmsync/contact"
	"crmsync/crm"
)

// Source is one target's deliveries, in stream order within each class, for as
// long as we own the target. An error that is not the context's means that the
// target is no longer ours: the lane stops. Next is called by one goroutine a
// class, Settle and Lease by many.
type Source interface {
	// Next waits for the next delivery of a class.
	Next(ctx context.Context, class contact.Class) (contact.Delivery, error)
	// Settle ends updates of one contact; nil once that is stored. It tries
	// for as long as the context lasts. One contact's settlements are never
	// concurrent.
	Settle(ctx context.Context, s contact.Settlement) error
	// Recall puts dead letters back into the queue, as updates of their old
	// class and place; nil once that is stored. A letter that is none any more
	// is passed over; left are those that there was no room for. It waits for
	// the connection, never for room, for as long as the context lasts.
	Recall(ctx context.Context, letters []contact.Ref) (left []contact.Ref, err error)
	// Fence is a copy of the contact's fence as of its last settlement. It is
	// exact while the contact has updates that were handed out and not
	// settled; the lane asks when it opens a slot. (A fence that came with the
	// delivery could be older than a settlement which ended while the delivery
	// was on its way.)
	Fence(id string) contact.Fence
	// Lease is until when the target is certainly ours, by the local
	// monotonic clock. No call starts that could outlast it.
	Lease() time.Time
}

// Effects remembers, for whoever owns the target next, which updates with side
// effects were begun: what may have been asked for is not asked for again. Both
// methods are called by many goroutines, never for one contact at once.
type Effects interface {
	// Begin notes that an update is about to be sent, and returns once that is
	// stored; it tries for as long as the context lasts. before says that the
	// note was there already, from a former owner; nothing is noted then. An
	// error that is not the context's means that the target is no longer ours.
	Begin(ctx context.Context, u *contact.Update) (before bool, err error)
	// TakeBack removes the note: nothing of the update has reached the CRM.
	TakeBack(ctx context.Context, u *contact.Update) error
}

// Sender speaks to one CRM. Send makes one call for the changes, mostly one,
// and answers each. It is called concurrently, never for one contact at once.
type Sender interface {
	Send(ctx context.Context, spend crm.Spend, changes []contact.Change) []crm.Answer
}

// Retry says how an update that fails by itself is tried again.
type Retry struct {
	Attempts int           // calls that count, then it is exhausted; 0 means [DefaultAttempts]
	Base     time.Duration // longest wait before the second; doubles each time; 0 means [DefaultRetryBase]
	Max      time.Duration // longest wait of all; 0 means [DefaultRetryMax]
}

// The policy of a lane where its options say nothing.
const (
	DefaultAttempts  = 8
	DefaultRetryBase = 10 * time.Second
	DefaultRetryMax  = 5 * time.Minute

	// DefaultWindow and DefaultWindowBytes bound the unfinished updates that a
	// lane holds in memory, in each class. They are part of the takeover
	// protocol (what one owner may have merged, the next must have loaded), so
	// all workers of a target use the same.
	DefaultWindow      = 8192
	DefaultWindowBytes = 16 << 20

	// DefaultMargin is how much longer than a request the lease must last.
	DefaultMargin = 500 * time.Millisecond

	// DefaultOutageAfter is how many distinct contacts must fail in a row,
	// with no success between, for an outage of the target.
	DefaultOutageAfter = 5
	// DefaultBulkEvery is the floor of bulk: of so many slots taken while
	// both classes wait, one is bulk.
	DefaultBulkEvery = 10
)

// Options make a lane. Target, Source, Sender and Timeout are needed.
type Options struct {
	Target string
	Source Source
	Sender Sender
	// Effects keeps in mind which side effects were begun; nil: nobody does, and
	// after a crash the next owner asks for them again.
	Effects Effects
	Rules   contact.Rules
	// Check refuses, before anything is spent, what this CRM can never take;
	// nil accepts all.
	Check func(*contact.Update) *contact.BadUpdate
	// Timeout bounds each HTTP request of the sender. A request starts only if
	// the lease outlasts it by Margin.
	Timeout time.Duration
	Margin  time.Duration // 0 means [DefaultMargin]
	Quota   Quota
	// Shared is a quota that this target has in common with others, beside its
	// own; nil: none. What the CRM says of quotas is then said of this one.
	Shared *Budget
	Retry  Retry
	// Requests is how many requests a change mostly takes; 0 means 1. A call
	// starts only where the windows have room for them.
	Requests int
	// Orders are what the operator wants from the start; [Lane.Steer] changes
	// them.
	Orders Orders
	// Spent is what a former lane of this target had used of its windows.
	Spent []Spent

	// Memory is what a former lane of this target knew.
	Memory Memory
	// Inherited says that the former lane did not end in good order: a call of
	// it may still be at work in the CRM.
	Inherited bool
	// Late is how long after its sender gave a request up the CRM may still
	// carry it out; 0 means [DefaultLate].
	Late time.Duration

	Window, WindowBytes int // 0 means the defaults
	OutageAfter         int // 0 means the default
	StormAfter          int // 0 means the default
	BulkEvery           int // 0 means the default

	// Cancelled says why an update is to end cancelled instead of being sent,
	// "" for one that is not. nil cancels none. It is asked when the update's
	// turn has come and at each [Lane.Sweep], by the lane's own goroutine: it
	// must be quick.
	Cancelled func(u *contact.Update) string

	// Paused says that an update of class bulk must not be sent for now; nil
	// pauses none. It is asked as Cancelled is. A live update is never paused,
	// nor one that may have been sent already; bulk ones of the same contact
	// wait behind a paused one.
	Paused func(u *contact.Update) bool

	// SecretChanged says that the target's credentials are new since it was
	// last asked; nil means never. It ends a credentials hold with a probe.
	SecretChanged func() bool
	// OnSettled is told of every update that has ended, by the lane's own
	// goroutine: it must be quick. nil is nobody.
	OnSettled func(contact.Ended)
	// OnAnswer is told of every answer, by the lane's own goroutine.
	OnAnswer func(a crm.Answer, took time.Duration)
	Log      zerolog.Logger
	// Seed drives the jitter of retries and probes; 0 means a random one.
	Seed uint64
}

func (o Options) withDefaults() Options {
	def := func(v *int, d int) {
		if *v <= 0 {
			*v = d
		}
	}
	dur := func(v *time.Duration, d time.Duration) {
		if *v <= 0 {
			*v = d
		}
	}
	def(&o.Retry.Attempts, DefaultAttempts)
	dur(&o.Retry.Base, DefaultRetryBase)
	dur(&o.Retry.Max, DefaultRetryMax)
	def(&o.Window, DefaultWindow)
	def(&o.WindowBytes, DefaultWindowBytes)
	def(&o.OutageAfter, DefaultOutageAfter)
	def(&o.StormAfter, DefaultStormAfter)
	def(&o.BulkEvery, DefaultBulkEvery)
	def(&o.Requests, 1)
	def(&o.Quota.Concurrency, 1)
	def(&o.Quota.Burst, 1)
	dur(&o.Margin, DefaultMargin)
	dur(&o.Late, DefaultLate)
	if o.Seed == 0 {
		o.Seed = rand.Uint64()
	}
	return o
}
