package queue

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nuid"

	"crmsync/contact"
)

// Stored says where an update was stored.
type Stored struct {
	Seq uint64 // its place in the stream of its target and class
	// Duplicate says that an update with the same message id had been stored
	// within the last 10 minutes; Seq is that one's, and nothing was added.
	Duplicate bool
}

// Publish stores one update and returns once that is durable. The body is u.Raw
// where Fields is nil, as for a dead letter that is sent again unchanged, else
// [contact.Encode]'s. Its errors wrap [ErrFull], [ErrNoSpace] and [ErrNotSetUp]
// where they apply; after any other error the update may have been stored, and publishing
// it again with the same MsgID is safe.
func (q *Queue) Publish(ctx context.Context, u *contact.Update) (Stored, error) {
	m, err := message(u)
	if err == nil {
		err = q.hasRoom(ctx)
	}
	if err != nil {
		return Stored{}, err
	}
	ctx, cancel := context.WithTimeout(ctx, q.timeout)
	defer cancel()
	ack, err := q.publish(ctx, m)
	if err == nil {
		err = q.holds()
	}
	if errors.Is(err, nats.ErrNoResponders) {
		if _, absent := q.info(ctx, streamName(u.Contact.Target, u.Class)); absent != nil {
			return Stored{}, absent
		}
	}
	if err != nil {
		return Stored{}, fmt.Errorf("queue: publish update of %s: %w", u.Contact, err)
	}
	return Stored{Seq: ack.Seq, Duplicate: ack.Duplicate}, nil
}

// message is an update as it travels.
func message(u *contact.Update) (*nats.Msg, error) {
	if err := contact.CheckTarget(u.Contact.Target); err != nil {
		return nil, fmt.Errorf("queue: %w", err)
	}
	if err := contact.CheckID(u.Contact.ID); err != nil {
		return nil, fmt.Errorf("queue: target %s: %w", u.Contact.Target, err)
	}
	m := nats.NewMsg(contact.Subject(u.Contact, u.Class))
	m.Data = u.Raw
	if u.Fields != nil {
		body, err := contact.Encode(u)
		if err != nil {
			return nil, fmt.Errorf("queue: %w", err)
		}
		m.Data = body
	} else {
		for k, v := range u.Header {
			if !ownHeader(k) {
				m.Header[k] = v
			}
		}
	}
	values, bad := make([]string, 0, 4), ""
	eachOwnHeader(u, func(name, value string) {
		if strings.ContainsAny(value, "\r\n\x00") {
			bad = name
		}
		values = append(values, value)
		m.Header[name] = values[len(values)-1 : len(values) : len(values)]
	})
	if bad != "" {
		return nil, fmt.Errorf("queue: update of %s: header %s holds a control character", u.Contact, bad)
	}
	if n := len(m.Data); n > contact.MaxBody {
		return nil, fmt.Errorf("queue: update of %s has %d bytes, at most %d are allowed", u.Contact, n, contact.MaxBody)
	}
	return m, nil
}

// ownHeaders are the headers that say what the update itself says.
func ownHeaders(u *contact.Update) map[string][]string {
	out := map[string][]string{}
	eachOwnHeader(u, func(name, value string) { out[name] = []string{value} })
	return out
}

func eachOwnHeader(u *contact.Update, add func(name, value string)) {
	row := ""
	if u.Row > 0 {
		row = strconv.FormatInt(u.Row, 10)
	}
	set := func(name, value string) {
		if value != "" {
			add(name, value)
		}
	}
	set(contact.HeaderMsgID, u.MsgID)
	set(contact.HeaderJob, u.Job)
	set(contact.HeaderRow, row)
	set(contact.HeaderRedriveOf, u.RedriveOf)
	set(contact.HeaderTraceParent, u.TraceParent)
	if r := u.Redrive; r != nil {
		set(contact.HeaderOperation, r.Operation)
		set(contact.HeaderRedriveRoot, r.Root)
		set(contact.HeaderRedriveBy, r.By)
		set(contact.HeaderEdited, r.Edited)
		if !r.Order.IsZero() {
			set(contact.HeaderOrder, r.Order.String())
		}
		if r.Force {
			set(contact.HeaderForce, "1")
		}
		if r.MaybeSent {
			set(contact.HeaderMaybeSent, "1")
		}
	}
}

// lean drops headers from which nothing is lost: those of a batch, which spoke
// to the server, and those that the update's own fields repeat. A lane holds
// thousands of updates, and a map for each is a third of what they take. A
// dead letter gets its headers back from [ownHeaders].
func lean(u *contact.Update) {
	own := ownHeaders(u)
	for name, v := range u.Header {
		switch {
		case name == headerBatchID || name == headerBatchSeq || name == headerBatchCommit:
		case len(v) == 1 && len(own[name]) == 1 && v[0] == own[name][0]:
		default:
			return
		}
	}
	u.Header = nil
}

// ownHeader says that a header of an old message must not be copied to a new
// one: it speaks to the server, or it says what the update itself says.
func ownHeader(name string) bool {
	n := strings.ToLower(name)
	return strings.HasPrefix(n, "nats-") || strings.HasPrefix(n, "crmsync-") || n == contact.HeaderTraceParent
}

type pubAck struct {
	Error     *apiError `json:"error"`
	Seq       uint64    `json:"seq"`
	Duplicate bool      `json:"duplicate"`
	Count     int       `json:"count"`
}

// publish stores one message. ctx must have a deadline.
func (q *Queue) publish(ctx context.Context, m *nats.Msg) (pubAck, error) {
	if _, ok := ctx.Deadline(); !ok {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, q.timeout)
		defer cancel()
	}
	for n := 0; ; n++ {
		r, err := q.request(ctx, m)
		switch {
		case errors.Is(err, nats.ErrNoResponders) && n < 3 && sleep(ctx, pause(n)):
			continue // a stream that changes its leader; nothing was stored
		case errors.Is(err, nats.ErrNoResponders):
			return pubAck{}, fmt.Errorf("no stream takes %s now: %w", subjectFamily(m.Subject), err)
		case err != nil:
			return pubAck{}, err
		}
		var a pubAck
		if err := json.Unmarshal(r.Data, &a); err != nil {
			return pubAck{}, fmt.Errorf("the server's answer cannot be read: %w", err)
		}
		if a.Error != nil {
			return pubAck{}, a.Error
		}
		if a.Seq == 0 {
			return pubAck{}, errors.New("the server's answer has no sequence")
		}
		return a, nil
	}
}

var errRenewed = errors.New("the connection was renewed before the answer came")

// request sends a request and waits for its answer, no longer than the
// connection lasts: an answer to the former one does not come.
func (q *Queue) request(ctx context.Context, m *nats.Msg) (*nats.Msg, error) {
	lasting, cancel := q.untilReconnect(ctx)
	defer cancel()
	r, err := q.nc.RequestMsgWithContext(lasting, m)
	if err != nil && lasting.Err() != nil && ctx.Err() == nil {
		return nil, errRenewed
	}
	return r, err
}

// subjectFamily is a subject without its contact.
func subjectFamily(s string) string {
	part := strings.SplitN(s, ".", 5)
	return strings.Join(part[:min(len(part), 4)], ".")
}

const (
	maxBatch      = 1000    // messages in an atomic batch, the server's limit
	maxBatchBytes = 4 << 20 // of payload in one
)

const (
	headerBatchID     = "Nats-Batch-Id"
	headerBatchSeq    = "Nats-Batch-Sequence"
	headerBatchCommit = "Nats-Batch-Commit"
)

// atomic stores messages of one stream, at most maxBatch, together or not at
// all, one after another in the stream, and returns the sequence of the last.
// After an error that is not refused it is open whether they were stored.
func (q *Queue) atomic(ctx context.Context, msgs []*nats.Msg) (pubAck, error) {
	stage(msgs)
	if err := q.sendAllButLast(msgs); err != nil {
		return pubAck{}, err
	}
	return q.commitStaged(ctx, msgs)
}

// commitStaged sends the last message of a batch, and so has it stored.
func (q *Queue) commitStaged(ctx context.Context, msgs []*nats.Msg) (pubAck, error) {
	ctx, cancel := context.WithTimeout(ctx, q.timeout+time.Duration(len(msgs))*5*time.Millisecond)
	defer cancel()
	a, err := q.publish(ctx, msgs[len(msgs)-1])
	if err == nil && len(msgs) > 1 && a.Count != len(msgs) {
		return pubAck{}, fmt.Errorf("the server stored %d messages of a batch of %d", a.Count, len(msgs))
	}
	return a, err
}

// batchSeqs are the numbers of messages in a batch, as header values.
var batchSeqs = func() (out [maxBatch][]string) {
	for i := range out {
		out[i] = []string{strconv.Itoa(i + 1)}
	}
	return out
}()

var batchCommit = []string{"1"}

// stage makes messages a batch, in place of one that they may have been before. A
// single message is none.
func stage(msgs []*nats.Msg) {
	id := []string{nuid.Next()}
	for i, m := range msgs {
		delete(m.Header, headerBatchID)
		delete(m.Header, headerBatchSeq)
		delete(m.Header, headerBatchCommit)
		if len(msgs) > 1 {
			m.Header[headerBatchID], m.Header[headerBatchSeq] = id, batchSeqs[i]
		}
	}
	if len(msgs) > 1 {
		msgs[len(msgs)-1].Header[headerBatchCommit] = batchCommit
	}
}

func (q *Queue) sendAllButLast(msgs []*nats.Msg) error {
	for i, m := range msgs[:len(msgs)-1] {
		if err := q.nc.PublishMsg(m); err != nil {
			return fmt.Errorf("message %d of a batch of %d: %w", i+1, len(msgs), err)
		}
	}
	return nil
}

// stored is a message as it lies in a stream.
type stored struct {
	Subject string      `json:"subject"`
	Seq     uint64      `json:"seq"`
	Data    []byte      `json:"data"`
	Hdrs    []byte      `json:"hdrs"`
	Time    time.Time   `json:"time"`
	Header  nats.Header `json:"-"`
}

type getRequest struct {
	Seq  uint64 `json:"seq,omitempty"`
	Last string `json:"last_by_subj,omitempty"`
	Next string `json:"next_by_subj,omitempty"`
}

// ask makes a request to JetStream's API; out may be nil.
func (q *Queue) ask(ctx context.Context, what string, request, out any) error {
	ctx, cancel := context.WithTimeout(ctx, q.timeout)
	defer cancel()
	body, err := json.Marshal(request)
	if err != nil {
		return err
	}
	a, err := q.request(ctx, &nats.Msg{Subject: q.api + what, Data: body})
	if err != nil {
		return err
	}
	var failed struct {
		Error *apiError `json:"error"`
	}
	if err := json.Unmarshal(a.Data, &failed); err != nil {
		return fmt.Errorf("the server's answer cannot be read: %w", err)
	}
	if failed.Error != nil {
		return failed.Error
	}
	if out == nil {
		return nil
	}
	if err := json.Unmarshal(a.Data, out); err != nil {
		return fmt.Errorf("the server's answer cannot be read: %w", err)
	}
	return nil
}

// get reads one message from the stream's leader; nil where there is none.
func (q *Queue) get(ctx context.Context, stream string, r getRequest) (*stored, error) {
	var out struct {
		Message *stored `json:"message"`
	}
	err := q.ask(ctx, "STREAM.MSG.GET."+stream, r, &out)
	if apiErrorOf(err).ErrCode == errNoMessage {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	m := out.Message
	if m == nil {
		return nil, errors.New("the server's answer holds no message")
	}
	if len(m.Hdrs) > 0 {
		if m.Header, err = nats.DecodeHeadersMsg(m.Hdrs); err != nil {
			return nil, fmt.Errorf("headers of message %d: %w", m.Seq, err)
		}
	}
	return m, nil
}
