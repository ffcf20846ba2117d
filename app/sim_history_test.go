package app

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"crmsync/contact"
	"crmsync/crm"
	"crmsync/emulator"
	"crmsync/history"
	"crmsync/queue"
	"crmsync/worker"
)

// simSource writes down what a lane is handed, and stops it with its process.
type simSource struct {
	worker.Source
	p      *simProcess
	target string
	own    atomic.Bool
}

func (s *simSource) Next(ctx context.Context, class contact.Class) (contact.Delivery, error) {
	if !s.own.Swap(true) {
		s.p.w.Note(history.Event{Kind: history.Own, Actor: s.p.name, Target: s.target})
	}
	s.p.here()
	d, err := s.Source.Next(ctx, class)
	if errors.Is(err, queue.ErrLost) && s.own.Swap(false) {
		s.p.w.Note(history.Event{Kind: history.Free, Actor: s.p.name, Target: s.target, Lost: true})
	}
	if u := d.Update; u != nil && u.RedriveOf == "" {
		if n := s.p.w.numberOf(u.MsgID, u.Job, u.Row); n > 0 {
			s.p.w.Note(history.Event{
				Kind: history.Receive, Actor: s.p.name, Target: s.target, Contact: u.Contact.ID, Update: n,
				Class: u.Class.String(), Seq: u.Seq, Placed: u.Stored,
			})
		}
	}
	return d, err
}

func (s *simSource) Lease() time.Time {
	s.p.here()
	return s.Source.Lease()
}

func (s *simSource) Settle(ctx context.Context, st contact.Settlement) error {
	s.p.here()
	return s.Source.Settle(ctx, st)
}

// simClient writes down the calls.
type simClient struct {
	client
	p      *simProcess
	target string
	calls  atomic.Int64
}

func (c *simClient) Probe(ctx context.Context, spend crm.Spend, k contact.Key) crm.Answer {
	c.p.here()
	return c.client.(worker.Prober).Probe(ctx, spend, k)
}

func (c *simClient) Send(ctx context.Context, spend crm.Spend, changes []contact.Change) []crm.Answer {
	w, ch := c.p.w, &changes[0]
	e := history.Event{
		Kind: history.Call, Actor: c.p.name, Target: c.target, Contact: ch.Contact.ID,
		Call: fmt.Sprintf("%s-%s-%d", c.p.name, c.target, c.calls.Add(1)), Merged: ch.Updates, Repair: ch.Repair, Fields: flatten(ch.Fields),
	}
	if !c.p.isDead() {
		w.Note(e)
	}
	var cut atomic.Bool
	answers := c.client.Send(ctx, func(ctx context.Context) error {
		c.p.here()
		err := spend(ctx)
		switch {
		case err != nil:
			cut.Store(true)
		case !c.p.isDead():
			w.Note(history.Event{Kind: history.Further, Actor: e.Actor, Target: e.Target, Contact: e.Contact, Call: e.Call})
		}
		return err
	}, changes)
	a := answers[0]
	if !c.p.isDead() {
		w.Note(history.Event{
			Kind: history.Answer, Actor: e.Actor, Target: e.Target, Contact: e.Contact, Call: e.Call,
			Verdict: a.Verdict.String(), Status: a.Status, Wait: a.Wait, Cut: cut.Load() || ctx.Err() != nil,
		})
	}
	w.saw("answer " + a.Verdict.String())
	if ch.Repair {
		w.saw("repair")
	}
	return answers
}

// flatten is a patch by path.
func flatten(p contact.Patch) map[string]string {
	out := map[string]string{}
	for _, f := range p {
		flattenInto(out, f.Name, f.Value)
	}
	return out
}

func flattenInto(out map[string]string, path string, raw json.RawMessage) {
	var v any
	_ = json.Unmarshal(raw, &v)
	if o, ok := v.(map[string]any); ok && path == "address" {
		for k, x := range o {
			out[path+"."+k] = plain(x)
		}
		return
	}
	out[path] = plain(v)
}

// plain is a value as a history has it.
func plain(v any) string {
	switch v := v.(type) {
	case nil:
		return ""
	case string:
		return v
	case map[string]any:
		if list, ok := v["contact"]; ok { // Evance keeps tags by kind
			return plain(list)
		}
	}
	b, _ := json.Marshal(v)
	if string(b) == "[]" {
		return ""
	}
	return string(b)
}

// numberOf is the number of an update, 0 where it is none of the producers'.
func (w *simWorld) numberOf(msgID, job string, row int64) int64 {
	if s, ok := strings.CutPrefix(msgID, "u-"); ok {
		n, _ := strconv.ParseInt(s, 10, 64)
		return n
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.byRow[simRow{job, row}]
}

// followRecords writes down every outcome as it is stored.
func (w *simWorld) followRecords(ctx context.Context, target string) {
	for ctx.Err() == nil {
		err := w.control.q.FollowJob(ctx, target, "", func(r queue.Record) error { w.settled(&r); return nil })
		if ctx.Err() == nil {
			w.t.Errorf("following the records of %s: %v", target, err)
			return
		}
	}
}

func (w *simWorld) settled(r *queue.Record) {
	base := history.Event{
		At: r.Time, Kind: history.Settle, Target: r.Target, Contact: r.Contact, Outcome: r.Outcome.String(), Record: r.Seq,
		Attempts: r.Attempts, Status: r.Status,
	}
	if r.Reason != contact.NoReason {
		base.Reason = r.Reason.String()
	}
	if r.Redrive != nil {
		base.Force = r.Redrive.Force
	}
	if r.RedriveOf != "" {
		base.Of, _ = strconv.ParseUint(r.RedriveOf, 10, 64)
		if r.Redrive != nil && r.Redrive.By == "storm brake" {
			base.Name = "recall"
		}
	}
	w.saw("outcome " + base.Outcome)
	for _, u := range r.Updates {
		e := base
		e.Class, e.Seq, e.Placed = u.Class.String(), u.Seq, u.Stored
		if e.Of != 0 || r.Letter != 0 {
			e.Letter = r.Letter
			w.mu.Lock()
			e.Update = w.lettered[max(e.Of, r.Letter)]
			w.mu.Unlock()
		} else {
			e.Update = w.numberOf(u.MsgID, r.Job, u.Row)
		}
		if r.Outcome == contact.Dead {
			e.Letter, e.Body = r.Seq, digestOf(r.Original)
			w.mu.Lock()
			w.lettered[r.Seq] = e.Update
			w.mu.Unlock()
		}
		w.Note(e)
	}
}

func digestOf(b []byte) string {
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:8])
}

// collect writes down what the CRMs and the audit trail know at the end.
func (w *simWorld) collect() {
	for target, c := range w.crms {
		for _, e := range c.Ledger() {
			w.ledger(target, e)
		}
		for _, m := range c.Mails() {
			w.Note(history.Event{At: m.Sent, Kind: history.Mail, Target: target, Contact: m.Contact, Request: m.Entry})
		}
	}
	contacts := map[contact.Key]map[string]string{}
	w.mu.Lock()
	for _, o := range w.offered {
		k := contact.Key{Target: o.target, ID: o.contact}
		if contacts[k] == nil {
			contacts[k] = map[string]string{}
		}
		for path := range o.fields {
			contacts[k][path] = ""
		}
	}
	w.mu.Unlock()
	now := time.Now()
	for k, fields := range contacts {
		have, ok := w.crms[k.Target].Contact(k.ID)
		if !ok {
			continue
		}
		for path := range fields {
			name, member, _ := strings.Cut(path, ".")
			v := have[name]
			if member != "" {
				o, _ := v.(map[string]any)
				v = o[member]
			}
			fields[path] = plain(v)
		}
		w.Note(history.Event{At: now, Kind: history.Final, Target: k.Target, Contact: k.ID, Fields: fields})
	}
	err := w.control.q.AuditTrail(w.t.Context(), queue.AuditFilter{}, func(e queue.Entry) error {
		name := e.Action
		if strings.Contains(name, "cancel") {
			name = history.ActCancel
		}
		w.Note(history.Event{At: e.At, Kind: history.Audit, Actor: e.By, Name: name, Target: e.Target, Contact: e.Contact})
		return nil
	})
	if err != nil {
		w.t.Errorf("audit trail: %v", err)
	}
}

func (w *simWorld) ledger(target string, e emulator.Entry) {
	base := history.Event{Target: target, Contact: e.Contact, Request: e.N}
	arrive := base
	arrive.At, arrive.Kind, arrive.Operation, arrive.Updates = e.Arrived, history.Arrive, string(e.Operation), e.Updates
	w.Note(arrive)
	answered := e.Answered
	if answered.IsZero() {
		answered = time.Now()
	}
	if e.Operation == emulator.OpUpdate && (e.Applied || e.Unchanged) {
		apply := base
		apply.At, apply.Kind, apply.Order = answered, history.Apply, e.Seq // 0: it changed nothing
		for _, path := range e.Changed {
			if apply.Fields == nil {
				apply.Fields = map[string]string{}
			}
			if slices.Contains(simFields[target].paths, path) { // others it derives
				apply.Fields[path] = plain(e.Values[path])
			}
		}
		w.Note(apply)
	}
	if !e.Answered.IsZero() {
		reply := base
		reply.At, reply.Kind, reply.Status, reply.Wait, reply.Fault = e.Answered, history.Reply, e.Status, e.Wait, e.Fault
		if e.Fault == string(emulator.Latency) {
			reply.Fault = ""
		}
		w.Note(reply)
	}
	if e.Fault != "" && e.Fault != string(emulator.Latency) {
		w.saw("met " + e.Fault)
	}
}
