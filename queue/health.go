package queue

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
)

// ErrNoSpace is wrapped where an update is not taken because the disk of the store
// is nearly full. What is stored goes on being worked on.
var ErrNoSpace = errors.New("the disk is nearly full")

// StoreState sums up a [Health].
type StoreState string

// The states of a store, the gravest first.
const (
	// StoreFailed: nothing can be stored. It mends itself where it can.
	StoreFailed StoreState = "failed"
	// StoreLost: something that was confirmed is missing, and nobody has
	// accepted that yet. All the rest is worked on.
	StoreLost StoreState = "lost"
	// StoreFull: publishing is refused until there is more space.
	StoreFull StoreState = "full"
	StoreOK   StoreState = "ok"
)

// StoreStates lists them.
func StoreStates() []StoreState { return []StoreState{StoreFailed, StoreLost, StoreFull, StoreOK} }

// Health is how a store is, as the process says that looks after it: the one that
// hosts the embedded server, or, of servers elsewhere, any worker.
type Health struct {
	State StoreState `json:"state"`
	// Text says what is wrong and what to do, or that all is well.
	Text string `json:"text"`
	// Dir is the embedded server's folder.
	Dir string `json:"dir,omitempty"`
	// Free is what may be written to its disk, Size the disk's size and MinFree
	// the space below which publishing is refused, in bytes; 0 where that is not
	// known, and MinFree also where there is no such bound.
	Free    int64 `json:"free,omitempty"`
	Size    int64 `json:"size,omitempty"`
	MinFree int64 `json:"min_free,omitempty"`
	// Stored is when a trial message was last stored.
	Stored time.Time `json:"stored,omitzero"`
	// Proved is when the streams last held all that had been confirmed, by their
	// high-water marks.
	Proved time.Time `json:"proved,omitzero"`
	// Checked is when all message files had last been read and found whole.
	Checked time.Time `json:"checked,omitzero"`
	// Losses are what is missing and has not been accepted.
	Losses []Loss `json:"losses,omitempty"`
	// Restarts is how many times the embedded server was started again to mend it.
	Restarts int `json:"restarts,omitempty"`
}

// OK says whether nothing is wrong.
func (h *Health) OK() bool { return h.State == StoreOK || h.State == "" }

// Space says how much of the disk is free; "" where that is not known.
func (h *Health) Space() string {
	if h.Size == 0 {
		return ""
	}
	s := fmt.Sprintf("%s of %s are free at %s", size(h.Free), size(h.Size), h.Dir)
	if h.MinFree > 0 {
		s += ", publishing stops below " + size(h.MinFree)
	}
	return s
}

// sum fills in State and Text.
func (h *Health) sum(failure string) {
	switch {
	case failure != "":
		h.State, h.Text = StoreFailed, failure
	case len(h.Losses) > 0:
		h.State, h.Text = StoreLost, lossText(h.Losses)
	case h.room() != nil:
		h.State, h.Text = StoreFull, h.Space()+": free some space"
	default:
		h.State, h.Text = StoreOK, "whole"
	}
}

func lossText(losses []Loss) string {
	const most = 10
	var parts []string
	for i, l := range losses {
		if i == most {
			parts = append(parts, fmt.Sprintf("and %d more", len(losses)-most))
			break
		}
		if l.Why == lossUnproven {
			parts = append(parts, "the high-water marks could not be read, nothing proves that the store is whole")
			continue
		}
		parts = append(parts, l.String())
	}
	return strings.Join(parts, "; ") + `: restore a backup, or accept it with "crmsync store accept"`
}

// size is a number of bytes for people.
func size(n int64) string {
	const unit = 1024
	if n < unit {
		return fmt.Sprint(n, " B")
	}
	f, names := float64(n), "KMGTPE"
	i := -1
	for ; f >= unit && i < len(names)-1; i++ {
		f /= unit
	}
	return fmt.Sprintf("%.3g %ciB", f, names[i])
}

// Where the process that looks after the store is asked: the host of the embedded
// server, which knows its disk, or else a worker.
const (
	healthSubject = "crm.store"
	acceptSubject = "crm.store.accept"
	missSubject   = "crm.store.miss"
	peerSuffix    = ".peer"
)

// errUnkept says that nothing is known of the store.
var errUnkept = errors.New("queue: nobody looks after the store: start \"crmsync run\"")

// Health asks how the store is. ok is false where no process looks after it: the
// servers are elsewhere and no worker runs.
func (q *Queue) Health(ctx context.Context) (h Health, ok bool, err error) {
	k := q.keeper.Load()
	if k != nil && k.srv != nil {
		return k.health(), true, nil
	}
	// The host of an embedded server knows more than a worker on it.
	if ok, err = q.askKeeper(ctx, healthSubject, nil, &h); ok || err != nil {
		return h, ok, err
	}
	if k != nil {
		return k.health(), true, nil
	}
	ok, err = q.askKeeper(ctx, healthSubject+peerSuffix, nil, &h)
	return h, ok, err
}

// AcceptLosses has it that what is missing is lost, and forgets it, once that is in
// the audit trail. It returns what that was. It is for a store that somebody looks
// after, else it is an error; see [Embedded] for one that is not served.
func (q *Queue) AcceptLosses(ctx context.Context, who Actor) ([]Loss, error) {
	h, ok, err := q.Health(ctx)
	for n := 0; err == nil && !ok && n < 5; n++ { // whoever does may be coming back
		if !sleep(ctx, pause(n)) {
			return nil, ctx.Err()
		}
		h, ok, err = q.Health(ctx)
	}
	if err == nil && !ok {
		err = errUnkept
	}
	if err != nil || len(h.Losses) == 0 {
		return nil, err
	}
	if err := q.auditLosses(ctx, who, h.Losses); err != nil {
		return nil, err
	}
	if k := q.keeper.Load(); k != nil && k.srv != nil {
		return h.Losses, k.forgive(h.Losses)
	}
	b, err := json.Marshal(h.Losses)
	if err != nil {
		return nil, err
	}
	var failed struct {
		Error string `json:"error"`
	}
	if ok, err = q.askKeeper(ctx, acceptSubject, b, &failed); err == nil && !ok {
		ok, err = q.askKeeper(ctx, acceptSubject+peerSuffix, b, &failed)
	}
	if err == nil && !ok {
		err = errUnkept
	}
	if err == nil && failed.Error != "" {
		err = errors.New(failed.Error)
	}
	return h.Losses, err
}

// Accepted is what was missing and is given up by [Embedded.AcceptLoss].
func (q *Queue) Accepted() []Loss {
	if q.srv == nil {
		return nil
	}
	return slices.Clone(q.srv.store.accepted)
}

// NoteAccepted puts that into the audit trail.
func (q *Queue) NoteAccepted(ctx context.Context, who Actor) error {
	return q.auditLosses(ctx, who, q.Accepted())
}

func (q *Queue) auditLosses(ctx context.Context, who Actor, losses []Loss) error {
	var parts []string
	for _, l := range losses {
		parts = append(parts, l.String())
	}
	detail := strings.Join(parts, "; ")
	const most = 4000
	if len(detail) > most {
		detail = detail[:most] + " ..."
	}
	return q.Audit(ctx, Entry{Actor: who, Action: "store-accept", Detail: detail, Count: int64(len(losses))})
}

func (q *Queue) askKeeper(ctx context.Context, subject string, question []byte, answer any) (ok bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, min(askWait, q.timeout))
	defer cancel()
	m, err := q.request(ctx, &nats.Msg{Subject: subject, Data: question})
	switch {
	case errors.Is(err, nats.ErrNoResponders):
		return false, nil
	case err != nil:
		return false, fmt.Errorf("queue: ask how the store is: %w", err)
	}
	if err := json.Unmarshal(m.Data, answer); err != nil {
		return false, fmt.Errorf("queue: how the store is cannot be read: %w", err)
	}
	return true, nil
}

// answer answers other processes, for as long as the connection lasts.
func (k *keeper) answer() {
	respond := func(m *nats.Msg, v any) {
		if b, err := json.Marshal(v); err == nil {
			_ = m.Respond(b) // who asked asks again
		}
	}
	suffix := ""
	if k.srv == nil {
		suffix = peerSuffix
	}
	if k.srv != nil {
		_, err := k.q.nc.Subscribe(missSubject, func(m *nats.Msg) {
			var losses []Loss
			if json.Unmarshal(m.Data, &losses) == nil {
				k.miss(k.q.life, losses)
				respond(m, struct{}{})
			}
		})
		if err != nil {
			k.q.log.Warn().Err(err).Msg("others cannot tell what is missing")
		}
	}
	_, err := k.q.nc.Subscribe(healthSubject+suffix, func(m *nats.Msg) { respond(m, k.health()) })
	if err == nil {
		_, err = k.q.nc.Subscribe(acceptSubject+suffix, func(m *nats.Msg) {
			var losses []Loss
			var failed struct {
				Error string `json:"error,omitempty"`
			}
			err := json.Unmarshal(m.Data, &losses)
			if err == nil {
				err = k.forgive(losses)
			}
			if err != nil {
				failed.Error = err.Error()
			}
			respond(m, failed)
		})
	}
	if err != nil {
		k.q.log.Warn().Err(err).Msg("others cannot ask how the store is")
	}
}

// miss notes losses that a reader came upon, with whoever looks after the store.
func (k *keeper) miss(ctx context.Context, losses []Loss) {
	if k.srv == nil {
		b, err := json.Marshal(losses)
		if err == nil {
			if ok, err := k.q.askKeeper(ctx, missSubject, b, &struct{}{}); ok && err == nil {
				return
			}
		}
	}
	if err := k.write(nil, k.news(losses)); err != nil {
		k.q.log.Warn().Err(err).Msg("the high-water marks cannot be written; trying on")
	}
}

// news is what of losses is not known.
func (k *keeper) news(losses []Loss) []Loss {
	k.mu.Lock()
	defer k.mu.Unlock()
	return slices.DeleteFunc(slices.Clone(losses), func(l Loss) bool {
		return slices.ContainsFunc(k.now.Losses, func(o Loss) bool { return o.Stream == l.Stream && o.From <= l.From && l.To <= o.To })
	})
}

// forgive forgets losses.
func (k *keeper) forgive(losses []Loss) error {
	rest := func(all []Loss) []Loss {
		return slices.DeleteFunc(slices.Clone(all), func(l Loss) bool { return slices.Contains(losses, l) })
	}
	if k.marks != nil {
		if err := k.marks.change(func(m *marks) { m.Losses = rest(m.Losses) }); err != nil {
			return err
		}
	}
	k.mu.Lock()
	k.now.Losses = rest(k.now.Losses)
	k.mu.Unlock()
	k.q.log.Warn().Int("losses", len(losses)).Msg("an operator has accepted what is missing")
	return nil
}

// roomFor is how long an answer about the disk's space counts.
const roomFor = time.Second

// hasRoom refuses to publish where the disk of the store is nearly full. Where
// nobody can say so it does not refuse.
func (q *Queue) hasRoom(ctx context.Context) error {
	if k := q.keeper.Load(); k != nil && k.srv != nil {
		h := k.health()
		return h.room()
	}
	q.mu.Lock()
	known, at := q.roomErr, q.roomAt
	q.mu.Unlock()
	if time.Since(at) < roomFor {
		return known
	}
	h, ok, err := q.Health(ctx)
	if err != nil || !ok {
		h = Health{}
	}
	err = h.room()
	q.mu.Lock()
	q.roomErr, q.roomAt = err, time.Now()
	q.mu.Unlock()
	return err
}

// holds is an error where the embedded server of this process confirms what it
// writes to files that are in no folder any more.
func (q *Queue) holds() error {
	if q.srv == nil {
		return nil
	}
	if err := q.srv.intact(); err != nil {
		return fmt.Errorf("queue: %w; it may not be stored", err)
	}
	return nil
}

// room is an error where the disk is nearly full.
func (h *Health) room() error {
	if h.MinFree <= 0 || h.Free >= h.MinFree {
		return nil
	}
	return fmt.Errorf("queue: %w: %s; free some space and try again", ErrNoSpace, h.Space())
}
