package queue

import (
	"bytes"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/nats-io/nats.go"

	"crmsync/contact"
)

// Covered is one update whose end a [Record] tells.
type Covered struct {
	Class contact.Class `json:"class"`
	Seq   uint64        `json:"seq"`
	// Stored is when the broker stored the update; zero in records of
	// versions that did not keep it.
	Stored time.Time `json:"stored,omitzero"`
	Row    int64     `json:"row,omitempty"`
	MsgID  string    `json:"msg_id,omitempty"`
}

// Record is an outcome record as it is stored: how one update, or several of
// one contact that ended in the same way by the same call, came to their end. It
// names fields and never holds a value of the contact, except in the original of
// a dead letter.
type Record struct {
	Seq     uint64    `json:"id,omitempty"` // place among all records; the id of a dead letter
	Time    time.Time `json:"time,omitzero"`
	Target  string    `json:"target"`
	Contact string    `json:"contact"`

	Outcome  contact.Outcome   `json:"outcome"`
	Reason   contact.Reason    `json:"reason,omitempty"`
	Job      string            `json:"job,omitempty"`
	Call     string            `json:"call,omitempty"`
	Merged   int               `json:"merged,omitempty"`
	Status   int               `json:"status,omitempty"`
	Attempts int               `json:"attempts,omitempty"`
	Tries    []contact.Attempt `json:"tries,omitempty"`
	Field    string            `json:"field,omitempty"` // the offending one, where the CRM said which
	Detail   string            `json:"detail,omitempty"`
	// Resolved says how it was found out what became of a request whose answer
	// was lost.
	Resolved contact.Resolution `json:"resolved,omitempty"`
	Fields   []string           `json:"fields,omitempty"`
	Ended    time.Time          `json:"ended,omitzero"`
	Updates  []Covered          `json:"updates"`

	// RedriveOf is the dead letter that the update repeated, Redrive what else
	// is known of that. The record of a redrive tells of no other update.
	RedriveOf   string           `json:"redrive_of,omitempty"`
	Redrive     *contact.Redrive `json:"redrive,omitempty"`
	TraceParent string           `json:"traceparent,omitempty"`
	// MaybeSent says of a dead letter that the CRM may have carried out its side
	// effects: a redrive does not ask for them.
	MaybeSent bool `json:"maybe_sent,omitempty"`
	// Letter is the dead letter whose place a discarded record took.
	Letter uint64 `json:"letter,omitempty"`

	// Covers is the contact's watermark: in each class, every update of the
	// contact up to this sequence has ended. It is cumulative.
	Covers [contact.Classes]uint64 `json:"covers"`
	// Fence is the contact's fence once this record is stored; cumulative.
	Fence contact.Fence `json:"fence,omitempty"`
	// Owner is the claim under which it was stored.
	Owner string `json:"owner,omitempty"`

	// Original is the body of a dead letter as it arrived, OriginalHeader its
	// headers; nil otherwise. A discarded record has them where the letter was
	// edited before it was sent again.
	Original       []byte              `json:"original,omitempty"`
	OriginalHeader map[string][]string `json:"original_header,omitempty"`
}

// Update is the dead letter as an update again, decoded from its original; nil
// for any other record. The caller gives it a MsgID and, where it is to be sent
// again, RedriveOf.
func (r *Record) Update() *contact.Update {
	if r.Outcome != contact.Dead || len(r.Updates) == 0 {
		return nil
	}
	u := contact.Decode(r.Original, r.OriginalHeader)
	u.Contact = contact.Key{Target: r.Target, ID: r.Contact}
	u.Class, u.Seq, u.Stored = r.Updates[0].Class, r.Updates[0].Seq, r.Updates[0].Stored
	return u
}

// Headers of a record, for what is read without its body.
const (
	headerCovers = "Crmsync-Covers" // watermark: <live>,<bulk>
	headerOwner  = "Crmsync-Owner"
	headerReason = "Crmsync-Reason"
	headerLetter = "Crmsync-Letter" // of a discarded record: the dead letter it replaced
	headerTTL    = "Nats-TTL"
	headerLast   = "Nats-Expected-Last-Subject-Sequence"
	headerLastOf = "Nats-Expected-Last-Subject-Sequence-Subject"
)

// maxRecord is the largest body of a record, in bytes: with its headers it fits
// into the smallest payload that Setup accepts.
const maxRecord = minPayload - 16<<10

// fit is the record as JSON, without what is only for people where it would be
// too large: an update may have hundreds of fields with long names. The original
// of a dead letter, the watermark and the fence always fit.
func (r *Record) fit() ([]byte, error) {
	c := *r
	for _, shrink := range []func(){
		func() {},
		func() { c.Fields = nil },
		func() { c.Tries, c.Field, c.Detail = nil, "", "" },
		func() { c.OriginalHeader, c.TraceParent = nil, "" },
		func() {
			c.Updates = slices.Clone(c.Updates)
			for i := range c.Updates {
				c.Updates[i].MsgID = ""
			}
		},
	} {
		shrink()
		var out bytes.Buffer
		enc := json.NewEncoder(&out)
		enc.SetEscapeHTML(false) // one byte may become six
		if err := enc.Encode(&c); err != nil {
			return nil, err
		}
		if out.Len() <= maxRecord {
			return bytes.TrimRight(out.Bytes(), "\n"), nil
		}
	}
	return nil, fmt.Errorf("it would have more than %d bytes", maxRecord)
}

// encodeRecord is the record's message, without the condition.
func encodeRecord(r *Record) (*nats.Msg, error) {
	k := contact.Key{Target: r.Target, ID: r.Contact}
	m := nats.NewMsg(outcomeSubject(k, r.Outcome, r.Job))
	body, err := r.fit()
	if err != nil {
		return nil, fmt.Errorf("outcome record of %s: %w", k, err)
	}
	m.Data = body
	m.Header.Set(headerCovers, fmt.Sprintf("%d,%d", r.Covers[contact.Live], r.Covers[contact.Bulk]))
	m.Header.Set(headerOwner, r.Owner)
	if r.Outcome == contact.Dead {
		letterHeaders(m.Header, r)
	} else {
		m.Header.Set(headerTTL, recordTTL.String())
	}
	if r.Job != "" {
		if rows := rowsHeader(r.Updates); rows != "" {
			m.Header.Set(headerRows, rows)
		}
	}
	if r.RedriveOf != "" {
		m.Header.Set(contact.HeaderRedriveOf, oneLine(r.RedriveOf))
		if r.Redrive != nil && r.Redrive.Operation != "" {
			m.Header.Set(contact.HeaderOperation, oneLine(r.Redrive.Operation))
		}
	}
	if r.Letter > 0 {
		m.Header.Set(headerLetter, strconv.FormatUint(r.Letter, 10))
		m.Header.Set(headerReason, r.Reason.String())
	}
	return m, nil
}

// decodeRecord reads a record. What the subject and the headers say wins over
// the body: they are what the protocol works with.
func decodeRecord(subject string, seq uint64, at time.Time, h nats.Header, body []byte) (Record, error) {
	k, outcome, err := parseOutcomeSubject(subject)
	if err != nil {
		return Record{}, fmt.Errorf("outcome record %d: %w", seq, err)
	}
	var r Record
	if err := json.Unmarshal(body, &r); err != nil {
		return Record{}, fmt.Errorf("outcome record %d: %w", seq, err)
	}
	r.Seq, r.Time, r.Target, r.Outcome = seq, at, k.Target, outcome
	if k.ID != "" {
		r.Contact = k.ID
	}
	if r.Covers, err = parseCovers(h.Get(headerCovers)); err != nil {
		return Record{}, fmt.Errorf("outcome record %d: %w", seq, err)
	}
	r.Owner = h.Get(headerOwner)
	return r, nil
}

func parseCovers(s string) (out [contact.Classes]uint64, err error) {
	part := strings.Split(s, ",")
	if len(part) != contact.Classes {
		return out, fmt.Errorf("header %s is %q", headerCovers, s)
	}
	for i := range out {
		if out[i], err = strconv.ParseUint(part[i], 10, 64); err != nil {
			return out, fmt.Errorf("header %s is %q", headerCovers, s)
		}
	}
	return out, nil
}

// standing is what is known of a contact before a settlement is stored.
type standing struct {
	covers [contact.Classes]uint64
	fence  contact.Fence
	owner  string
}

const (
	// maxCovered bounds the updates in one record, so that it stays well
	// below what a server accepts as one message.
	maxCovered = 1000
	// maxRecords and maxBatchBytes bound what is stored as one act; a
	// settlement beyond is stored as several, each a prefix.
	maxRecords = 250
)

// settlementParts cuts a settlement into acts of bounded size. Each part is a
// prefix of what remains, so that storing only some of them is a valid state;
// the fence belongs to the last.
func settlementParts(ended []contact.Ended) [][]contact.Ended {
	var parts [][]contact.Ended
	start, alone, size := 0, 0, 0
	for i, e := range ended {
		if e.Ending.Outcome == contact.Dead || e.Update.RedriveOf != "" {
			alone++
		}
		if e.Ending.Outcome == contact.Dead {
			size += len(e.Update.Raw) * 3 / 2
		}
		if i > start && (alone > maxRecords || size > maxBatchBytes || i-start >= maxRecords*maxCovered) {
			parts = append(parts, ended[start:i])
			start, alone, size = i, 0, 0
		}
	}
	return append(parts, ended[start:])
}

// records are the records of one act, in the order in which they are stored: one
// for each outcome and job, each redrive by itself, then one for each dead
// letter. Only the last carries
// the new watermark and fence; the others repeat what stood before. So a store
// that kept only some of them has lost nothing: the updates are read again. Dead
// letters come last because they do not expire, and with them stays the
// watermark.
func records(k contact.Key, ended []contact.Ended, before, after standing) []*Record {
	var plain, dead []*Record
	open := map[string]*Record{}
	for _, e := range ended {
		u := e.Update
		if e.Ending.Outcome == contact.Dead {
			r := newRecord(k, e, before)
			r.Original, r.OriginalHeader = u.Raw, u.Header
			if r.OriginalHeader == nil {
				r.OriginalHeader = ownHeaders(u)
			}
			dead = append(dead, r)
			continue
		}
		key := e.Ending.Outcome.String() + " " + u.RedriveOf + " " + u.Job
		r := open[key]
		if r == nil || len(r.Updates) == maxCovered || u.RedriveOf != "" {
			r = newRecord(k, e, before)
			open[key] = r
			plain = append(plain, r)
			continue
		}
		r.add(e)
	}
	out := append(plain, dead...)
	last := out[len(out)-1]
	last.Covers, last.Fence = after.covers, after.fence
	return out
}

func newRecord(k contact.Key, e contact.Ended, before standing) *Record {
	u, d := e.Update, e.Ending
	if u.RedriveOf != "" && d.Outcome == contact.Superseded {
		d.Reason = contact.StaleRedrive
	}
	return &Record{
		Target: k.Target, Contact: k.ID,
		Outcome: d.Outcome, Reason: d.Reason, Job: u.Job, Call: d.Call, Merged: d.Merged, Status: d.Status,
		Attempts: d.Attempts, Tries: d.Tries, Field: d.Field, Detail: d.Detail, Resolved: d.Resolved, Fields: d.Fields, Ended: d.Ended, MaybeSent: d.MaybeSent,
		Updates:   []Covered{coveredOf(u)},
		RedriveOf: u.RedriveOf, Redrive: u.Redrive, TraceParent: u.TraceParent,
		Covers: before.covers, Fence: before.fence, Owner: before.owner,
	}
}

func coveredOf(u *contact.Update) Covered {
	return Covered{Class: u.Class, Seq: u.Seq, Stored: u.Stored, Row: u.Row, MsgID: u.MsgID}
}

// add takes one more update into the record: the newest one's evidence stands,
// and the fields of all.
func (r *Record) add(e contact.Ended) {
	u, d := e.Update, e.Ending
	r.Updates = append(r.Updates, coveredOf(u))
	r.Call, r.Merged, r.Status, r.Attempts, r.Tries, r.Field, r.Detail, r.Resolved, r.Ended = d.Call, d.Merged, d.Status, d.Attempts, d.Tries, d.Field, d.Detail, d.Resolved, d.Ended
	if u.TraceParent != "" {
		r.TraceParent = u.TraceParent
	}
	if slices.Equal(r.Fields, d.Fields) {
		return
	}
	fields := slices.Clone(r.Fields)
	for _, f := range d.Fields {
		if !slices.Contains(fields, f) {
			fields = append(fields, f)
		}
	}
	slices.Sort(fields)
	r.Fields = fields
}

// covering is the watermark after these endings.
func covering(covers [contact.Classes]uint64, ended []contact.Ended) [contact.Classes]uint64 {
	for _, e := range ended {
		covers[e.Update.Class] = max(covers[e.Update.Class], e.Update.Seq)
	}
	return covers
}
