package queue

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"crmsync/contact"
)

// EventKind is what an [Event] tells.
type EventKind string

// Kinds of events.
const (
	EventUpdate    EventKind = "update"    // an update that lies in its stream
	EventRecord    EventKind = "record"    // updates that ended, or a dead letter that was discarded
	EventRedrive   EventKind = "redrive"   // a letter that is in somebody's hands
	EventEdit      EventKind = "edit"      // a letter that was edited
	EventForgotten EventKind = "forgotten" // the contact was forgotten
)

// Event is one thing that is stored about a contact.
type Event struct {
	At     time.Time      `json:"at"`
	Kind   EventKind      `json:"kind"`
	Update *WaitingUpdate `json:"update,omitempty"`
	Record *Record        `json:"record,omitempty"` // without the original
	Claim  *Claim         `json:"claim,omitempty"`  // without the body
	Edit   *EditOf        `json:"edit,omitempty"`
	Forgot *Receipt       `json:"forgotten,omitempty"`
	Place  contact.Place  `json:"-"` // of an update: orders what was stored at one instant
}

// WaitingUpdate is an update in its stream.
type WaitingUpdate struct {
	Covered
	Job       string           `json:"job,omitempty"`
	RedriveOf string           `json:"redrive_of,omitempty"`
	Redrive   *contact.Redrive `json:"redrive,omitempty"`
	Fields    []string         `json:"fields,omitempty"` // the names of what it sets
	Bad       string           `json:"bad,omitempty"`    // why it is no update
	// Ended says that a record tells its end and only the stream has not
	// forgotten it.
	Ended bool `json:"ended,omitempty"`
	// Begun is when its owner noted that it was about to ask for the update's
	// side effects; zero where that was not noted.
	Begun time.Time `json:"begun,omitzero"`
}

// EditOf is who edited which letter.
type EditOf struct {
	Letter uint64 `json:"letter"`
	By     string `json:"by"`
}

// Story is everything that is stored about a contact, in the order of time. It
// holds names of fields and no value.
func (q *Queue) Story(ctx context.Context, k contact.Key) ([]Event, error) {
	if err := contact.CheckTarget(k.Target); err != nil {
		return nil, fmt.Errorf("queue: %w", err)
	}
	var out []Event
	// The streams before the records: an update that ends meanwhile is told
	// twice rather than not at all.
	for c := range contact.Class(contact.Classes) {
		err := q.scan(ctx, streamName(k.Target, c), contact.Subject(k, c), 0, func(m *stored) error {
			u := decode(inMsg{subject: m.Subject, header: m.Header, data: m.Data, seq: m.Seq, time: m.Time})
			w := &WaitingUpdate{Covered: coveredOf(u), Job: u.Job, RedriveOf: u.RedriveOf, Redrive: u.Redrive}
			for _, f := range u.Fields {
				w.Fields = append(w.Fields, f.Name)
			}
			if u.Bad != nil {
				w.Bad = u.Bad.Error()
			}
			out = append(out, Event{At: m.Time, Kind: EventUpdate, Update: w, Place: contact.Place{Class: c, Seq: m.Seq, Stored: m.Time}})
			return nil
		})
		if err != nil {
			return nil, err
		}
	}
	var covers [contact.Classes]uint64
	err := q.Records(ctx, Filter{Target: k.Target, Contact: k.ID}, func(r Record) error {
		covers = r.Covers
		r.Original, r.OriginalHeader = nil, nil
		out = append(out, Event{At: r.Time, Kind: EventRecord, Record: &r})
		return nil
	})
	if err != nil {
		return nil, err
	}
	begun, err := q.begunNote(ctx, k)
	if err != nil {
		return nil, err
	}
	for _, e := range out {
		if e.Update != nil && begun.has(begunRef{e.Update.Class, e.Update.Seq}) {
			e.Update.Begun = begun.at
		}
		if e.Update != nil {
			e.Update.Ended = e.Update.Seq <= covers[e.Update.Class]
		}
	}
	if out, err = q.letterEvents(ctx, k, out); err != nil {
		return nil, err
	}
	forgot, err := q.Forgotten(ctx, k)
	if err != nil {
		return nil, err
	}
	if forgot != nil {
		out = append(out, Event{At: forgot.At, Kind: EventForgotten, Forgot: forgot})
	}
	slices.SortStableFunc(out, func(a, b Event) int {
		return cmp.Or(a.At.Compare(b.At), cmp.Compare(a.Place.Class, b.Place.Class), cmp.Compare(a.Place.Seq, b.Place.Seq))
	})
	return out, nil
}

// letterEvents adds what is in hand and what was edited.
func (q *Queue) letterEvents(ctx context.Context, k contact.Key, out []Event) ([]Event, error) {
	for _, kind := range []string{claimKey, editKey} {
		err := q.scan(ctx, q.letters.stream(), q.letters.subject(kind+personKey(k)+".*"), 0, func(m *stored) error {
			e := entry{key: strings.TrimPrefix(m.Subject, q.letters.subject("")), value: m.Data, rev: m.Seq, time: m.Time, gone: m.Header.Get(kvOperation) != ""}
			id, ok := lastNumber(e.key)
			if e.gone || !ok {
				return nil
			}
			if kind == claimKey {
				c, err := decodeClaim(e)
				if err != nil {
					return err
				}
				c.Body = nil
				out = append(out, Event{At: c.At, Kind: EventRedrive, Claim: c})
				return nil
			}
			d, err := decodeEdit(e)
			if err != nil {
				return err
			}
			out = append(out, Event{At: d.At, Kind: EventEdit, Edit: &EditOf{Letter: id, By: d.By}})
			return nil
		})
		if err != nil {
			return nil, err
		}
	}
	return out, nil
}
