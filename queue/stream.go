package queue

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"crmsync/contact"
)

// Quotas and limits of the streams that [Queue.Setup] creates. An operator may
// change MaxMsgs, MaxBytes and the replicas of an existing stream; Setup leaves
// them as they are.
const (
	DefaultMaxMsgs  = 5_000_000
	DefaultMaxBytes = 8 << 30

	// maxMsgSize leaves room for the headers beside the largest body.
	maxMsgSize = contact.MaxBody + 64<<10
	// minPayload is what a server must take as one message: a dead letter
	// holds the original in base64 and what is known about it.
	minPayload = 640 << 10
	// dedupeWindow is how long a second update with the same message id is
	// known as a duplicate.
	dedupeWindow = 10 * time.Minute
	// recordTTL is how long an outcome record is kept; dead letters have no
	// end.
	recordTTL = 30 * 24 * time.Hour
)

const (
	outcomeStream = "CRM_OUTCOMES"
	canaryStream  = "CRM_CANARY"
	canarySubject = "crm.canary"
	sessionBucket = "crm_sessions"
	ownerBucket   = "crm_owners"
	stateBucket   = "crm_state"
	letterBucket  = "crm_letters"
	auditStream   = "CRM_AUDIT"
	auditPrefix   = "crm.audit."
)

// streamName is one to one: a target's name has no upper-case letter.
func streamName(target string, c contact.Class) string {
	return "CRM_" + strings.ToUpper(target) + "_" + strings.ToUpper(c.String())
}

func updateFilter(target string, c contact.Class) string {
	return contact.UpdatePrefix + target + "." + c.String() + ".*"
}

// StreamPlan is a stream that must exist, as "nats stream add --config" takes
// it.
type StreamPlan struct {
	Name   string          `json:"name"`
	Config json.RawMessage `json:"config"`
}

// Plan lists the streams that [Queue.Setup] would create for these targets, the
// ones below the key-value buckets included, for operators who create streams
// themselves. replicas below 1 is 1; lease 0 is the default for that many.
func Plan(targets []string, replicas int, lease time.Duration) ([]StreamPlan, error) {
	configs, err := wanted(targets, max(replicas, 1), lease)
	if err != nil {
		return nil, err
	}
	out := make([]StreamPlan, len(configs))
	for i, c := range configs {
		b, err := json.MarshalIndent(c, "", "  ")
		if err != nil {
			return nil, fmt.Errorf("queue: plan of %s: %w", c.Name, err)
		}
		out[i] = StreamPlan{Name: c.Name, Config: b}
	}
	return out, nil
}

func wanted(targets []string, replicas int, lease time.Duration) ([]jetstream.StreamConfig, error) {
	if lease <= 0 {
		lease = DefaultLease
		if replicas > 1 {
			lease = DefaultLeaseCluster
		}
	}
	lease = max(lease, minLease)
	out := []jetstream.StreamConfig{
		bucketConfig(sessionBucket, "live worker processes", replicas, lease),
		bucketConfig(ownerBucket, "which session owns which target", replicas, 0),
		bucketConfig(stateBucket, "desired and live state of lanes", replicas, 0),
		letterBucketConfig(replicas),
		{
			Name: auditStream, Description: "who did what to letters and targets",
			Subjects: []string{auditPrefix + "*.*"}, Storage: jetstream.FileStorage, Replicas: replicas,
			Retention: jetstream.LimitsPolicy, Discard: jetstream.DiscardNew, DenyDelete: true, DenyPurge: true,
			MaxMsgs: -1, MaxBytes: -1, MaxMsgsPerSubject: -1, MaxMsgSize: -1, MaxConsumers: -1, Duplicates: time.Minute,
		},
		{
			Name: canaryStream, Description: "trial messages of readiness checks",
			Subjects: []string{canarySubject}, Storage: jetstream.FileStorage, Replicas: replicas,
			Retention: jetstream.LimitsPolicy, Discard: jetstream.DiscardOld,
			MaxMsgs: 16, MaxBytes: 1 << 20, MaxMsgsPerSubject: -1, MaxMsgSize: 1 << 10, MaxConsumers: -1, Duplicates: time.Minute,
		},
		{
			Name: outcomeStream, Description: "how updates ended; dead letters",
			Subjects: []string{contact.OutcomePrefix + ">"}, Storage: jetstream.FileStorage, Replicas: replicas,
			Retention: jetstream.LimitsPolicy, Discard: jetstream.DiscardNew,
			MaxMsgs: -1, MaxBytes: -1, MaxMsgsPerSubject: -1, MaxMsgSize: -1, MaxConsumers: -1, Duplicates: time.Minute,
			AllowMsgTTL: true, AllowAtomicPublish: true,
		},
	}
	seen := map[string]bool{}
	for _, t := range targets {
		if err := contact.CheckTarget(t); err != nil {
			return nil, fmt.Errorf("queue: %w", err)
		}
		if seen[t] {
			continue
		}
		seen[t] = true
		for c := range contact.Class(contact.Classes) {
			out = append(out, jetstream.StreamConfig{
				Name: streamName(t, c), Description: c.String() + " updates of target " + t,
				Subjects: []string{updateFilter(t, c)}, Storage: jetstream.FileStorage, Replicas: replicas,
				Retention: jetstream.LimitsPolicy, Discard: jetstream.DiscardNew,
				MaxMsgs: DefaultMaxMsgs, MaxBytes: DefaultMaxBytes, MaxMsgsPerSubject: -1, MaxMsgSize: maxMsgSize,
				MaxConsumers: -1, Duplicates: dedupeWindow, AllowAtomicPublish: true, AllowBatchPublish: true,
			})
		}
	}
	return out, nil
}

// bucketConfig is a key-value bucket as any NATS client knows it, except that it
// is read from its leader only: a follower that lags would call a live session
// dead.
func bucketConfig(name, about string, replicas int, ttl time.Duration) jetstream.StreamConfig {
	dup := 2 * time.Minute
	if ttl > 0 && ttl < dup {
		dup = ttl
	}
	return jetstream.StreamConfig{
		Name: "KV_" + name, Description: about, Subjects: []string{"$KV." + name + ".>"},
		Storage: jetstream.FileStorage, Replicas: replicas, Discard: jetstream.DiscardNew, MaxAge: ttl,
		MaxMsgs: -1, MaxBytes: -1, MaxMsgsPerSubject: 1, MaxMsgSize: -1, MaxConsumers: -1,
		Duplicates: dup, AllowRollup: true, DenyDelete: true,
	}
}

// letterBucketConfig is a bucket whose values can be erased for good, and whose
// keys can have an end each.
func letterBucketConfig(replicas int) jetstream.StreamConfig {
	c := bucketConfig(letterBucket, "letters that are sent again, edits, operations, begun side effects, what was forgotten", replicas, 0)
	c.AllowMsgTTL, c.AllowAtomicPublish, c.DenyDelete = true, true, false
	return c
}

// Setup creates the streams and buckets that these targets need and do not
// exist, and corrects existing ones where a setting that the protocol relies on
// differs. A stream that is right is not touched: each update of a stream's
// configuration is a moment at which a crash can cost the stream. Quotas,
// replicas, placement and the like are the operator's and stay. A difference
// that cannot be corrected is refused with what to do. It never deletes.
func (q *Queue) Setup(ctx context.Context, targets []string) error {
	if n := q.nc.MaxPayload(); n < minPayload {
		return fmt.Errorf("queue: the server takes messages of at most %d bytes, a dead letter can have %d: set max_payload to 1MB", n, minPayload)
	}
	replicas, chosen, err := q.replicas(ctx)
	if err != nil {
		return err
	}
	err = q.setUp(ctx, targets, replicas)
	for end := time.Now().Add(q.peersWait); isFewPeers(err) && q.clustered(); {
		// A cluster that has just been started finds itself first.
		if !sleep(ctx, 250*time.Millisecond) {
			return err
		}
		if time.Now().After(end) {
			if chosen {
				return err
			}
			q.log.Warn().Err(err).Msg("the cluster has too few servers to keep each stream on three: they are kept on one. With three servers, stop the workers and raise the replicas of all streams (nats stream edit --replicas 3)")
			replicas, chosen = 1, true
		}
		err = q.setUp(ctx, targets, replicas)
	}
	if err != nil {
		return err
	}
	q.know(targets...)
	if k := q.keeper.Load(); k != nil {
		poke(k.hurry) // copies of what was made are kept at once
	}
	return nil
}

func (q *Queue) setUp(ctx context.Context, targets []string, replicas int) error {
	configs, err := wanted(targets, replicas, q.opt.Lease)
	if err != nil {
		return err
	}
	for i := range configs {
		if q.opt.InMemory || q.opt.SessionsInMemory && i == 0 {
			configs[i].Storage, configs[i].MaxBytes = jetstream.MemoryStorage, -1 // a quota of memory is a reservation
		}
	}
	for _, c := range configs {
		if err := q.ensure(ctx, c); err != nil {
			return err
		}
	}
	return nil
}

func (q *Queue) ensure(ctx context.Context, want jetstream.StreamConfig) error {
	info, err := q.info(ctx, want.Name)
	ctx, cancel := context.WithTimeout(ctx, 2*q.timeout)
	defer cancel()
	if errors.Is(err, ErrNotSetUp) {
		if q.srv != nil {
			if err := q.srv.unloaded(want.Name); err != nil {
				if q.appears(ctx, want.Name) {
					return q.ensure(ctx, want)
				}
				return err
			}
		}
		if want.FirstSeq, err = q.goOnFrom(ctx, want); err != nil {
			return err
		}
		if k := q.keeper.Load(); k != nil && k.marks != nil { // no number is given twice
			if last := k.marks.read().Streams[want.Name].Last; last > 0 {
				want.FirstSeq = max(want.FirstSeq, last+1)
			}
		}
		if _, err := q.js.CreateStream(ctx, want); err != nil {
			return fmt.Errorf("queue: create stream %s: %w%s", want.Name, err, createHint(err))
		}
		q.log.Info().Str("stream", want.Name).Msg("stream created")
		return nil
	}
	if err != nil {
		return err
	}
	have := info.Config
	if bad := incompatible(have, want); bad != "" {
		return fmt.Errorf("queue: stream %s exists but %s; move it away with \"nats stream backup %s <dir>\" and \"nats stream rm %s\", then run setup again",
			want.Name, bad, want.Name, want.Name)
	}
	fixed, changed := corrected(have, want)
	if len(changed) == 0 {
		return nil
	}
	if _, err := q.js.UpdateStream(ctx, fixed); err != nil {
		return fmt.Errorf("queue: correct %s of stream %s: %w", strings.Join(changed, ", "), want.Name, err)
	}
	q.log.Info().Str("stream", want.Name).Strs("changed", changed).Msg("stream corrected")
	return nil
}

// appears says whether a stream of which there is a folder comes to exist after
// all: another process may be creating it at this moment.
func (q *Queue) appears(ctx context.Context, stream string) bool {
	for n := range 5 {
		if _, err := q.info(ctx, stream); err == nil {
			return true
		}
		if !sleep(ctx, pause(n)) {
			return false
		}
	}
	return false
}

// goOnFrom is the first sequence of an update stream that is to be created: 0
// where the target is new. Where there are outcome records of it, the stream was
// removed, and a new one that began at 1 would look to every contact as if its
// updates had ended long ago. So it goes on behind what the records cover.
func (q *Queue) goOnFrom(ctx context.Context, want jetstream.StreamConfig) (uint64, error) {
	if len(want.Subjects) != 1 || !strings.HasPrefix(want.Subjects[0], contact.UpdatePrefix) {
		return 0, nil
	}
	k, class, _ := contact.ParseSubject(want.Subjects[0]) // the contact is a wildcard
	var last uint64
	cfg := jetstream.ConsumerConfig{
		FilterSubject: contact.OutcomePrefix + k.Target + ".>", DeliverPolicy: jetstream.DeliverAllPolicy, HeadersOnly: true,
	}
	err := q.follow(ctx, outcomeStream, cfg, false, func(m inMsg) error {
		covers, err := parseCovers(m.header.Get(headerCovers))
		if err == nil {
			last = max(last, covers[class])
		}
		return nil
	})
	switch {
	case err != nil:
		return 0, fmt.Errorf("queue: see what target %s has had: %w", k.Target, err)
	case last == 0:
		return 0, nil
	}
	return last + 1, nil
}

func createHint(err error) string {
	switch e := apiErrorOf(err); e.ErrCode {
	case errStorage, errResources:
		return "; the server's or account's storage limit is too small for the quotas: raise it, or create the streams from \"crmsync setup --print\" with smaller ones"
	case errReplicas, errNoPeers:
		return "; the cluster has too few servers for this many replicas: set replicas"
	case errOverlap:
		return "; another stream takes these subjects: see \"nats stream find --subject\""
	}
	return ""
}

// incompatible names the first difference that no update can mend.
func incompatible(have, want jetstream.StreamConfig) string {
	switch {
	case have.Retention != want.Retention:
		return fmt.Sprintf("its retention is %s, not %s", have.Retention, want.Retention)
	case have.Storage != want.Storage:
		return fmt.Sprintf("its storage is %s, not %s", have.Storage, want.Storage)
	case have.Mirror != nil || len(have.Sources) > 0:
		return "it copies from another stream"
	case have.Sealed:
		return "it is sealed"
	case have.DenyPurge && !want.DenyPurge:
		return "it denies purging"
	case have.NoAck:
		return "it does not acknowledge publishes"
	case have.SubjectTransform != nil:
		return "it renames subjects"
	case !slices.Equal(have.Subjects, want.Subjects):
		return fmt.Sprintf("its subjects are %s, not %s", strings.Join(have.Subjects, " "), strings.Join(want.Subjects, " "))
	case have.AllowMsgTTL && !want.AllowMsgTTL:
		return "its messages may expire"
	}
	return ""
}

// corrected is the existing configuration with what the protocol relies on put
// right, and the names of what was changed.
func corrected(have, want jetstream.StreamConfig) (out jetstream.StreamConfig, changed []string) {
	out = have
	set := func(differs bool, name string, f func()) {
		if differs {
			f()
			changed = append(changed, name)
		}
	}
	set(have.Discard != want.Discard, "discard", func() { out.Discard = want.Discard })
	set(have.MaxAge != want.MaxAge && want.MaxAge == 0, "max_age", func() { out.MaxAge = 0 })
	set(have.MaxMsgsPerSubject != want.MaxMsgsPerSubject, "max_msgs_per_subject", func() { out.MaxMsgsPerSubject = want.MaxMsgsPerSubject })
	set(have.MaxMsgSize > 0 && (want.MaxMsgSize < 0 || have.MaxMsgSize < want.MaxMsgSize), "max_msg_size", func() { out.MaxMsgSize = want.MaxMsgSize })
	set(have.Duplicates < want.Duplicates && want.Duplicates == dedupeWindow, "duplicate_window", func() { out.Duplicates = want.Duplicates })
	set(want.AllowMsgTTL && !have.AllowMsgTTL, "allow_msg_ttl", func() { out.AllowMsgTTL = true })
	set(want.AllowAtomicPublish && !have.AllowAtomicPublish, "allow_atomic", func() { out.AllowAtomicPublish = true })
	set(want.AllowBatchPublish && !have.AllowBatchPublish, "allow_batched", func() { out.AllowBatchPublish = true })
	set(have.AllowDirect && !want.AllowDirect, "allow_direct", func() { out.AllowDirect = false })
	set(have.PersistMode != want.PersistMode, "persist_mode", func() { out.PersistMode = want.PersistMode })
	return out, changed
}
