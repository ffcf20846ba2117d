package worker

import (
	"maps"
	"slices"
	"time"

	"crmsync/contact"
)

// simPause is a time in which a job was paused.
type simPause struct {
	job      string
	from, to time.Time
}

func (s *sim) pause(job string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, ok := s.paused[job]; !ok {
		s.paused[job] = time.Now()
		s.sometimes["job paused"]++
	}
}

func (s *sim) resume(job string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if from, ok := s.paused[job]; ok {
		delete(s.paused, job)
		s.pauses = append(s.pauses, simPause{job, from, time.Now()})
		s.sometimes["job resumed"]++
	}
}

// unwanted says that a newer value was of a job that was paused or cancelled when
// an older one was put over it: a former owner had sent it before that, and what
// the operator wants now is the value without it.
func (s *sim) unwanted(o overwrite) bool {
	if o.late && s.handedOver(o.at) {
		s.w.m.unsure[o.id+"."+o.path] = true // what a lane would put right it does not hand on
		return true
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	u := s.w.q.byNumber[o.old].update
	if u.Class != contact.Bulk || len(s.w.lanes) < 2 {
		return false
	}
	since, now := s.paused[u.Job]
	return s.cancelled[u.Job] || now && !o.at.Before(since) || slices.ContainsFunc(s.pauses, func(p simPause) bool {
		return p.job == u.Job && !o.at.Before(p.from) && !o.at.After(p.to)
	})
}

// handedOver says whether another lane began between a call and when the last of it
// could have been put right.
func (s *sim) handedOver(landed time.Time) bool {
	return slices.ContainsFunc(s.w.lanes, func(l *running) bool {
		return l.began.After(landed.Add(-DefaultLate)) && l.began.Before(landed.Add(DefaultLate))
	})
}

// checkPaused: what is paused is not sent, unless it may have been before; and
// what is not goes past it. The CRM's lock is held, and its calls end with this
// one.
func (s *sim) checkPaused(c *crmCall) {
	s.mu.Lock()
	paused := maps.Clone(s.paused)
	s.mu.Unlock()
	s.w.q.mu.Lock()
	defer s.w.q.mu.Unlock()
	of := s.w.q.contacts[c.change.Contact.ID].all
	for _, v := range flat(c.change.Fields) {
		u := s.w.q.byNumber[number(v)].update
		since, ok := paused[u.Job]
		// It may have been under another's value in an earlier call, and be what
		// is left of that one.
		before := slices.ContainsFunc(s.sent[u.Contact.ID], func(at time.Time) bool { return !at.Before(u.Stored) && !at.After(since) })
		if ok && u.Class == contact.Bulk && !before && c.at.After(since) {
			s.t.Errorf("%s: update %d was sent at %v, though its job %s has been paused since %v", u.Contact, number(v), c.at, u.Job, since)
		}
	}
	s.sent[c.change.Contact.ID] = append(s.sent[c.change.Contact.ID], c.at)
	for _, r := range of {
		if _, ok := paused[r.update.Job]; ok && r.ending == nil {
			s.saw("sent beside a paused one")
			return
		}
	}
}
