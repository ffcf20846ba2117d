package app

import (
	"context"
	"errors"
	"fmt"

	"crmsync/contact"
	"crmsync/queue"
)

// Published says where an update was stored.
type Published struct {
	Subject   string `json:"subject"`
	Seq       uint64 `json:"seq"`
	Duplicate bool   `json:"duplicate,omitempty"` // its message id was there already; nothing was added
}

// Message is an update that somebody wants to publish.
type Message struct {
	Target, Contact string
	Class           contact.Class
	Body            []byte // as in the README: {"fields": {...}}
	MsgID           string // "" for none: then every publish is a new update
}

// Publish checks an update as its lane would and stores it. When it returns
// without an error the update is on disk and will end with one outcome.
func (a *App) Publish(ctx context.Context, m Message) (Published, error) {
	if err := a.known(ctx, m.Target); err != nil {
		return Published{}, err
	}
	if err := contact.CheckID(m.Contact); err != nil {
		return Published{}, err
	}
	header := map[string][]string{}
	if m.MsgID != "" {
		header[contact.HeaderMsgID] = []string{m.MsgID}
	}
	u := contact.Decode(m.Body, header)
	u.Contact = contact.Key{Target: m.Target, ID: m.Contact}
	u.Class = m.Class
	if u.Bad == nil {
		if err := a.checkForTarget(u); err != nil {
			return Published{}, err
		}
	}
	if u.Bad != nil {
		return Published{}, u.Bad
	}
	s, err := a.q.Publish(ctx, u)
	if err != nil {
		return Published{}, err
	}
	return Published{Subject: contact.Subject(u.Contact, u.Class), Seq: s.Seq, Duplicate: s.Duplicate}, nil
}

// PublishAll stores updates in their order, many at once, and returns when all
// are on disk. It does not check them as Publish does: what is wrong with one,
// its lane finds and says in a dead letter. Each needs a MsgID; after an error
// some may have been stored, and the same ones again are stored once.
func (a *App) PublishAll(ctx context.Context, msgs []Message) error {
	open := map[string]*queue.Batch{} // by target
	class := map[string]contact.Class{}
	ctx, cancel := context.WithCancel(ctx)
	defer func() {
		cancel()
		for _, b := range open {
			_ = b.Close(ctx) // after an error: what is stored aside ends
		}
	}()
	for _, m := range msgs {
		b := open[m.Target]
		if b != nil && class[m.Target] != m.Class {
			// What comes later must not be stored earlier.
			if err := b.Close(ctx); err != nil {
				return err
			}
			b = nil
		}
		if b == nil {
			b = a.q.Batch(m.Target, m.Class)
			open[m.Target], class[m.Target] = b, m.Class
		}
		u := &contact.Update{
			Contact: contact.Key{Target: m.Target, ID: m.Contact}, Class: m.Class, Raw: m.Body, MsgID: m.MsgID,
		}
		if err := b.Add(ctx, u); err != nil {
			return err
		}
	}
	for _, target := range sortedKeys(open) {
		if err := open[target].Close(ctx); err != nil {
			return err
		}
	}
	return nil
}

// checkForTarget sets Bad where the target's CRM can never take the update. A
// target that this configuration does not have is not checked: its worker does.
func (a *App) checkForTarget(u *contact.Update) error {
	t, ok := a.cfg.Targets[u.Contact.Target]
	if !ok {
		return nil
	}
	c, err := newClient(t, a.o.Version)
	if err != nil {
		return fmt.Errorf("target %s: %w", t.Name, err)
	}
	defer c.CloseIdle()
	u.Bad = c.Check(u)
	return nil
}

// IsBadUpdate says whether an error is the update's own fault.
func IsBadUpdate(err error) bool {
	var bad *contact.BadUpdate
	return errors.As(err, &bad)
}
