package app

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"crmsync/contact"
	"crmsync/emulator"
	"crmsync/history"
	"crmsync/queue"
)

// simFields are what updates write: by target the paths, and which of them may be
// cleared.
var simFields = map[string]struct{ paths, clear []string }{
	simOffice: {[]string{"firstname", "lastname", "title", "phonenumber"}, []string{"title", "phonenumber"}},
	simShop:   {[]string{"firstname", "phone", "position", "address.city", "address.line1", "tags"}, []string{"position"}},
}

// Contacts of which something is wrong.
const (
	simMissing = "5001" // no CRM has it
	simPoison  = "900"  // the CRM breaks on it
	simCounts  = "7"    // how ids end whose source gives versions
)

func simPause(ctx context.Context, d time.Duration) bool {
	if d <= 0 {
		return ctx.Err() == nil
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// update draws one, with the next number.
func (w *simWorld) update(r *rand.Rand, target, id string) (n int64, fields map[string]string, body map[string]any) {
	w.mu.Lock()
	w.numbers++
	n = w.numbers
	w.mu.Unlock()
	all := simFields[target]
	fields, body = map[string]string{}, map[string]any{}
	for _, i := range r.Perm(len(all.paths))[:1+r.IntN(3)] {
		path := all.paths[i]
		value := fmt.Sprintf("%s %s %s", path[max(0, len(path)-4):], id, history.Mark(n))
		switch {
		case slices.Contains(all.clear, path) && r.IntN(8) == 0:
			fields[path], body[path] = "", nil
		case path == "tags":
			fields[path], body[path] = plain([]any{value}), map[string]any{"contact": []string{value}}
		case path == "address.city" || path == "address.line1":
			a, _ := body["address"].(map[string]any)
			if a == nil {
				a = map[string]any{}
				body["address"] = a
			}
			a[path[len("address."):]] = value
			fields[path] = value
		default:
			fields[path], body[path] = value, value
		}
	}
	return n, fields, body
}

// offer notes that an update is about to be published.
func (w *simWorld) offer(n int64, target, id string, class contact.Class, fields map[string]string, more history.Event) {
	w.mu.Lock()
	w.offered[n] = simOffer{target, id, fields}
	w.mu.Unlock()
	more.Kind, more.Update, more.Target, more.Contact, more.Class, more.Fields = history.Offer, n, target, id, class.String(), fields
	w.Note(more)
}

// produce publishes updates one by one, in bursts, until ctx ends.
func (w *simWorld) produce(ctx context.Context, name string) {
	r := w.actor("producer " + name)
	versions := map[contact.Key]int64{}
	popular := rand.NewZipf(r, 1.2, 1, uint64(w.o.contacts-1))
	for ctx.Err() == nil {
		for range 1 + r.IntN(6) {
			target := simTargets[r.IntN(len(simTargets))]
			id := fmt.Sprint(popular.Uint64() + 1)
			w.publishOne(ctx, r, target, id, versions)
		}
		simPause(ctx, time.Duration(r.ExpFloat64()*float64(w.o.pace)))
	}
}

func (w *simWorld) publishOne(ctx context.Context, r *rand.Rand, target, id string, versions map[contact.Key]int64) {
	more := history.Event{Actor: "producer"}
	effect := false
	switch x := r.IntN(200); {
	case versions == nil: // nothing is wrong with it
	case x == 0:
		id, more.Fate = simMissing, contact.Missing.String()
	case x == 1 && target == simOffice:
		id, more.Fate = simPoison, contact.Exhausted.String()
	case x < 5 && target == simOffice:
		effect = true
	}
	n, fields, body := w.update(r, target, id)
	switch x := r.IntN(100); {
	case more.Fate != "" || versions == nil:
	case x == 0:
		body["colour"], more.Fate = "red", contact.Invalid.String() // refused before anything is sent
		fields["colour"] = "red"
	case x == 1 && target == simOffice:
		fields["email"] = fmt.Sprintf("contact%d@example.com", 400+n%500) // somebody has that
		body["email"], more.Fate = fields["email"], contact.Conflict.String()
	case effect:
		body["send_set_password_email"], fields["send_set_password_email"] = true, "true"
	}
	k := contact.Key{Target: target, ID: id}
	doc := map[string]any{"fields": body}
	if strings.HasSuffix(id, simCounts) { // a source that counts, and sends out of order
		versions[k]++
		v := max(1, versions[k]+r.Int64N(5)-2)
		doc["version"], more.Version = v, &v
		if v < versions[k] {
			w.saw("version out of order")
		}
	}
	raw, err := json.Marshal(doc)
	if err != nil {
		w.t.Error(err)
		return
	}
	u := contact.Decode(raw, map[string][]string{contact.HeaderMsgID: {fmt.Sprint("u-", n)}})
	u.Contact = k
	if u.Bad != nil {
		w.t.Errorf("update %d: %v", n, u.Bad)
		return
	}
	if r.IntN(4) == 0 {
		u.Class = contact.Bulk
	}
	more.Body = digestOf(raw)
	w.offer(n, target, id, u.Class, fields, more)
	for {
		st, err := w.sources.q.Publish(context.WithoutCancel(ctx), u)
		if err == nil {
			w.Note(history.Event{Kind: history.Stored, Update: n, Seq: st.Seq})
			return
		}
		w.saw("publish repeated")
		time.Sleep(time.Second)
	}
}

// importFiles imports a spreadsheet now and then.
func (w *simWorld) importFiles(ctx context.Context) {
	r := w.actor("importer")
	for i := 0; simPause(ctx, time.Duration(r.ExpFloat64()*float64(w.o.safety)/3)); i++ {
		target := simTargets[r.IntN(len(simTargets))]
		job := fmt.Sprintf("night-%d", i)
		path := w.sheet(r, target, job)
		im := Import{Target: target, Path: path, Class: contact.Bulk, Job: job, By: "sim"}
		for {
			rep, err := w.sources.Import(context.WithoutCancel(ctx), im)
			if err == nil {
				w.saw("import")
				if rep.Rejected > 0 {
					w.t.Errorf("import %s: %+v", job, rep)
				}
				break
			}
			if !queue.Passing(err) {
				w.t.Errorf("import %s: %v", job, err)
				break
			}
			w.saw("import taken up again")
			time.Sleep(5 * time.Second)
		}
		w.steerJob(ctx, r, target, job)
	}
}

// sheet writes a file of rows, and offers them.
func (w *simWorld) sheet(r *rand.Rand, target, job string) (path string) {
	all := simFields[target]
	columns := slices.DeleteFunc(slices.Clone(all.paths), func(p string) bool { return p == "tags" })
	var b bytes.Buffer
	fmt.Fprint(&b, "id")
	for _, c := range columns {
		fmt.Fprint(&b, ",", c)
	}
	b.WriteByte('\n')
	rows := 20 + r.IntN(150)
	for row := int64(1); row <= int64(rows); row++ {
		id := fmt.Sprint(1 + r.IntN(2*w.o.contacts))
		if strings.HasSuffix(id, simCounts) { // its source counts; where some updates have versions there is no one order
			id += "0"
		}
		n, fields, _ := w.update(r, target, id)
		delete(fields, "tags")
		maps.DeleteFunc(fields, func(_, v string) bool { return v == "" }) // an empty cell says nothing
		if len(fields) == 0 {
			fields["firstname"] = "row " + history.Mark(n)
		}
		fmt.Fprint(&b, id)
		for _, c := range columns {
			fmt.Fprint(&b, ",", fields[c])
		}
		b.WriteByte('\n')
		w.mu.Lock()
		w.byRow[simRow{job, row}] = n
		w.mu.Unlock()
		w.offer(n, target, id, contact.Bulk, fields, history.Event{Actor: "importer", Job: job})
	}
	name := job + "-" + target + ".csv"
	w.write(name, b.String())
	return filepath.Join(w.dir, name)
}

// steerJob pauses, resumes or cancels a job while it runs, and looks at it.
func (w *simWorld) steerJob(ctx context.Context, r *rand.Rand, target, job string) {
	kind := r.IntN(4)
	for i := range 6 {
		if !simPause(ctx, time.Duration(r.ExpFloat64()*float64(20*time.Second))) {
			break // a paused one is still to be resumed
		}
		w.sample(ctx, target, job)
		var err error
		switch {
		case kind == 0 && i == 1:
			_, err = w.control.PauseJob(ctx, target, job, "sim")
			w.saw("job paused")
		case kind == 0 && i == 4:
			_, err = w.control.ResumeJob(context.WithoutCancel(ctx), target, job, "sim")
		case kind == 1 && i == 1:
			w.Note(history.Event{Kind: history.Act, Name: history.ActCancel, Target: target, Job: job})
			_, err = w.control.CancelJob(ctx, target, job, "sim")
			w.saw("job cancelled")
		}
		if err != nil && ctx.Err() == nil {
			w.saw("job order failed")
		}
	}
	if kind == 0 {
		if _, err := w.control.ResumeJob(context.WithoutCancel(ctx), target, job, "sim"); err != nil {
			w.t.Errorf("resume job %s: %v", job, err)
		}
	}
}

// sample writes down what a job's ledger says.
func (w *simWorld) sample(ctx context.Context, target, job string) {
	st, err := w.control.JobStatus(ctx, target, job)
	if err != nil {
		w.saw("job status failed")
		return
	}
	w.Note(history.Event{
		Kind: history.Sample, Target: target, Job: job, Rows: st.Counts.Queued, Waiting: st.Counts.Waiting, Ended: st.Counts.Ended() + st.Counts.Gone,
	})
}

// operate is a person at the controls.
func (w *simWorld) operate(ctx context.Context) {
	r := w.actor("operator")
	who := Who{By: "ann", Via: "cli"}
	for simPause(ctx, time.Duration(r.ExpFloat64()*float64(w.o.safety)/12)) {
		target := simTargets[r.IntN(len(simTargets))]
		var err error
		what := []string{"hold", "resume", "redrive", "discard", "forget", "rate", "redrive", "recall"}[r.IntN(8)]
		switch what {
		case "hold":
			err = w.control.Hold(ctx, who, target, "sim", time.Now().Add(time.Duration(r.IntN(90))*time.Second))
		case "resume":
			err = w.control.Resume(ctx, who, target)
		case "rate":
			_, err = w.control.Unlimit(ctx, who, target)
		case "redrive":
			w.Note(history.Event{Kind: history.Act, Name: history.ActRedrive, Target: target})
			var o Operation
			if o, err = w.control.StartRedrive(ctx, who, Redrive{Filter: DeadFilter{Target: target, Limit: 1 + r.IntN(20)}}); err == nil {
				_, err = w.control.RunRedrive(ctx, o.ID, nil)
			}
		case "discard":
			w.Note(history.Event{Kind: history.Act, Name: history.ActDiscard, Target: target})
			_, err = w.control.Discard(ctx, who, DeadFilter{Target: target, Limit: 2}, nil, "sim", nil)
		case "forget":
			id := fmt.Sprint(w.o.contacts + 1 + r.IntN(w.o.contacts)) // of the imports
			w.Note(history.Event{Kind: history.Act, Name: history.ActForget, Target: target, Contact: id})
			_, err = w.control.Forget(ctx, who, target, id)
		case "recall":
			_, err = w.control.ResumeStorm(ctx, who, target, RecallLetters)
			if err != nil {
				continue // there is none
			}
		}
		w.saw("operator " + what)
		if err != nil && ctx.Err() == nil && !errors.Is(err, queue.ErrUnreachable) {
			w.saw("operator " + what + " failed")
		}
	}
}

// simTrouble is one thing that goes wrong: what, from when, for how long.
type simTrouble struct {
	at, long time.Duration
	kind     string
	target   string
	proc     int
	p        float64
}

// rehearse draws the plan of what goes wrong: it is data, made before anything runs.
func (o *simOptions) rehearse(r *rand.Rand) (plan []simTrouble) {
	for range o.troubles {
		t := simTrouble{
			at:     time.Duration(r.Float64() * float64(o.safety)),
			long:   2*time.Second + time.Duration(r.ExpFloat64()*float64(40*time.Second)),
			kind:   o.kinds[r.IntN(len(o.kinds))],
			target: simTargets[r.IntN(len(simTargets))], proc: r.IntN(o.procs), p: 0.05 + 0.4*r.Float64(),
		}
		t.long = min(t.long, o.safety-t.at)
		plan = append(plan, t)
	}
	slices.SortFunc(plan, func(a, b simTrouble) int { return int(a.at - b.at) })
	return plan
}

// simKinds is everything that can go wrong.
var simKinds = []string{
	"crash", "crash", "restart", "stop", "nats cut", "nats held", "crm cut", "crm held", "source cut", "source held",
	"outage", "502", "429", "lost answers", "resets", "late", "slow", "token", "storm", "garbage", "secret", "redirect",
}

// trouble lets something go wrong and returns when it is over.
func (w *simWorld) trouble(ctx context.Context, t simTrouble) {
	note := func(kind history.Kind) {
		w.Note(history.Event{Kind: kind, Name: t.kind, Target: t.faultTarget(), Actor: w.nameIn(t.proc)})
	}
	w.saw("trouble " + t.kind)
	note(history.Fault)
	defer note(history.Heal)
	if rules := t.rules(); rules != nil {
		remove := w.faults[t.target].add(rules...)
		simPause(ctx, t.long)
		remove()
		return
	}
	cut := func(l *simLink) {
		l.sever()
		simPause(ctx, t.long)
		l.mend()
	}
	held := func(l *simLink) {
		l.hold()
		simPause(ctx, t.long)
		l.release()
	}
	switch t.kind {
	case "source cut":
		cut(&w.outside)
		return
	case "source held":
		held(&w.outside)
		return
	}
	p := w.in(t.proc)
	if p == nil {
		return // nobody is there to be troubled
	}
	switch t.kind {
	case "crash":
		p.crash()
		simPause(ctx, t.long/4)
		w.start(t.proc)
	case "restart":
		p.end()
		<-p.gone
		w.start(t.proc)
	case "stop":
		p.stopped()
		p.nats.hold()
		p.http.hold()
		simPause(ctx, t.long)
		p.nats.release()
		p.http.release()
		p.goOn()
	case "nats cut":
		cut(&p.nats)
	case "nats held":
		held(&p.nats)
	case "crm cut":
		cut(&p.http)
	case "crm held":
		held(&p.http)
	case "token":
		c := w.crms[t.target]
		if t.target == simShop {
			c.RevokeTokens()
			return
		}
		c.SetToken("another")
		simPause(ctx, t.long)
		c.SetToken(emulator.DefaultToken)
	case "secret": // it changes at both ends, at ours a little later
		if t.target == simShop {
			return
		}
		token := fmt.Sprintf("token-%d", t.at)
		w.crms[simOffice].SetToken(token)
		simPause(ctx, t.long/2)
		w.secret(token)
		simPause(ctx, t.long/2)
		w.secret(emulator.DefaultToken)
		w.crms[simOffice].SetToken(emulator.DefaultToken)
	}
}

// faultTarget is the target that a trouble belongs to, "" for all.
func (t simTrouble) faultTarget() string {
	switch t.kind {
	case "outage", "502", "429", "lost answers", "resets", "late", "slow", "token", "storm", "garbage", "secret", "redirect":
		return t.target
	}
	return ""
}

// rules are what a trouble is to the CRM; nil where it is something else.
func (t simTrouble) rules() []emulator.Fault {
	switch t.kind {
	case "outage":
		return []emulator.Fault{{Kind: emulator.Outage}}
	case "502":
		return []emulator.Fault{{Kind: emulator.ServerError, Status: 502, Probability: t.p / 2, Apply: t.p > 0.2}}
	case "429":
		return []emulator.Fault{{Kind: emulator.TooMany, Probability: t.p, RetryAfter: emulator.RetrySeconds, RetryIn: 3 * time.Second}}
	case "lost answers":
		return []emulator.Fault{{Kind: emulator.LostAnswer, Probability: t.p, Operation: emulator.OpUpdate}}
	case "resets":
		return []emulator.Fault{{Kind: emulator.ResetBefore, Probability: t.p}}
	case "late":
		return []emulator.Fault{{Kind: emulator.LateApply, Probability: t.p / 4, Operation: emulator.OpUpdate, Delay: 5*time.Second + t.long/2}}
	case "slow":
		return []emulator.Fault{{Kind: emulator.Latency, Probability: t.p, Min: time.Second, Max: 6 * time.Second}}
	case "storm":
		return []emulator.Fault{{Kind: emulator.Refusing}}
	case "redirect": // to another contact: whoever follows writes to that one
		other := map[string]string{simOffice: "http://office/api/contacts/700", simShop: "http://shop/api/contacts/700.json"}[t.target]
		return []emulator.Fault{{Kind: emulator.Redirect, Status: 307, URL: other, Probability: t.p / 2, Operation: emulator.OpUpdate}}
	case "garbage":
		return []emulator.Fault{{Kind: emulator.Garbage, Probability: t.p / 2, Body: emulator.LoginPage}}
	}
	return nil
}

// in is the process in a slot, nil where none lives there.
func (w *simWorld) in(slot int) *simProcess {
	for _, p := range w.running() {
		if p.slot == slot {
			return p
		}
	}
	return nil
}

func (w *simWorld) nameIn(slot int) string {
	if p := w.in(slot); p != nil {
		return p.name
	}
	return ""
}

// happened lists what was counted, in order.
func (w *simWorld) happened() (names []string, counts map[string]int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	counts = maps.Clone(w.somewhen)
	return sortedKeys(counts), counts
}
