package emulator

import (
	"net/http"
	"time"
)

// serve takes a request that was read through the bad day to its answer.
func (c *CRM) serve(w http.ResponseWriter, r *http.Request, cl *call) {
	latency, hit, refusal := c.admit(cl)
	before := time.Duration(float64(latency) * c.share(latency))
	if !c.pause(before) {
		c.drop(cl)
	}
	switch hit.Kind {
	case ResetBefore:
		c.drop(cl)
	case Outage:
		if hit.Status == 0 {
			c.drop(cl)
		}
	case LateApply:
		if c.pause(orDefault(hit.Delay, time.Minute)) {
			c.work(cl, hit)
		}
		c.drop(cl)
	}
	rep := refusal
	if rep == nil {
		rep = c.answer(cl, hit)
	}
	if !c.pause(latency - before) {
		c.drop(cl)
	}
	if hit.Kind == LostAnswer {
		c.drop(cl)
	}
	c.send(w, r, cl, hit, rep)
}

// admit decides on arrival what will happen: how long it takes, which fault
// hits, and whether the limits refuse. What an outage swallows uses up
// nothing.
func (c *CRM) admit(cl *call) (latency time.Duration, hit Fault, refusal *reply) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.api.classify(cl)
	e := cl.entry
	e.Operation, e.Updates = cl.op, sortedMarks(cl.doc)
	if cl.doc == nil {
		e.Updates = sortedMarks(formValues(cl))
	}
	if len(cl.contacts) > 0 && cl.op != OpBatch {
		e.Contact = cl.contacts[0]
	}
	latency, hit = c.hitLocked(cl)
	if e.Fault = string(hit.Kind); hit.Kind == "" && latency > 0 {
		e.Fault = string(Latency)
	}
	if hit.Kind == Outage || hit.Kind == ResetBefore || c.opt.Limits.Rate <= 0 {
		return latency, hit, nil
	}
	wait, ok := c.bucket.take(c.opt.Limits, cl.now)
	if ok {
		return latency, hit, nil
	}
	rep := c.api.refuse(cl, TooMany)
	rep.wait = setRetryAfter(rep.header, c.opt.Limits.RetryAfter, wait, cl.now)
	// The request did not get as far as the planned fault.
	hit = Fault{}
	if e.Fault = ""; latency > 0 {
		e.Fault = string(Latency)
	}
	return latency, hit, &rep
}

// share is how much of a latency passes before the work is done.
func (c *CRM) share(latency time.Duration) float64 {
	if latency <= 0 {
		return 0
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.rng.Float64()
}

// answer makes the reply of a request that the limits let through.
func (c *CRM) answer(cl *call, hit Fault) *reply {
	now := time.Now()
	var rep reply
	switch hit.Kind {
	case ServerError, Outage, PoisonContact:
		status := hit.Status
		if status == 0 || hit.Kind == PoisonContact {
			status = http.StatusInternalServerError
		}
		rep = errorPage(status)
		rep.wait = setRetryAfter(rep.header, hit.RetryAfter, orDefault(hit.RetryIn, 30*time.Second), now)
	case Garbage:
		rep = nonsense(hit)
	case Redirect:
		status := hit.Status
		if status == 0 {
			status = http.StatusFound
		}
		rep = reply{status: status, header: http.Header{"Location": {hit.URL}}}
	case TooMany, DeadToken, Forbidden, ModuleOff, Refusing:
		c.mu.Lock()
		rep = c.api.refuse(cl, hit.Kind)
		c.mu.Unlock()
		if hit.Kind == TooMany {
			rep.wait = setRetryAfter(rep.header, hit.RetryAfter, orDefault(hit.RetryIn, 30*time.Second), now)
		}
		return &rep
	default:
		rep = c.work(cl, hit)
		return &rep
	}
	if hit.Apply {
		c.work(cl, hit)
	}
	return &rep
}

// work lets the vendor handle the request and enters what it did.
func (c *CRM) work(cl *call, hit Fault) reply {
	c.mu.Lock()
	defer c.mu.Unlock()
	cl.now = time.Now()
	if len(cl.body) > maxBody {
		return errorPage(http.StatusRequestEntityTooLarge)
	}
	held := c.store
	if hit.Kind == NoContacts {
		held = newStore(c.store.schema, 0)
	}
	rep := c.api.handle(cl, &tx{store: held, discard: hit.Kind == Lie})
	c.noteLocked(cl.entry, rep.parts)
	for _, m := range rep.mails {
		m.Sent, m.Entry = cl.now, cl.entry.N
		c.mails = append(c.mails, m)
	}
	return rep
}

// drop ends a request without an answer. It does not return.
func (c *CRM) drop(cl *call) {
	c.leave(cl.entry, 0)
	panic(http.ErrAbortHandler)
}

func orDefault(d, fallback time.Duration) time.Duration {
	if d == 0 {
		return fallback
	}
	return d
}
