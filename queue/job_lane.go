package queue

import (
	"context"
	"errors"
	"strings"

	"crmsync/contact"
)

// maxFound bounds the jobs that one ownership makes known.
const maxFound = 100

// sawJobOrder keeps what is wanted of jobs that are not simply to run.
func (q *Queue) sawJobOrder(e entry) {
	if e.gone { // its job was removed, and another may come to have its name
		q.mu.Lock()
		delete(q.jobs, strings.TrimPrefix(e.key, keyJobOrder))
		q.mu.Unlock()
		return
	}
	o, err := decodeJobOrder(e)
	if err != nil {
		q.log.Error().Err(err).Msg("the order of a job cannot be read, the former stays")
		return
	}
	key := jobKey(o.Target, o.Job)
	q.mu.Lock()
	if was, ok := q.jobs[key]; ok && was.rev >= o.rev {
		q.mu.Unlock()
		return
	}
	q.jobs[key] = o
	q.mu.Unlock()
	q.jobsSome.Store(true)
	q.pokeSources()
}

func (q *Queue) jobOrder(u *contact.Update) (JobOrder, bool) {
	if u.Job == "" || !q.jobsSome.Load() {
		return JobOrder{}, false
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	o, ok := q.jobs[jobKey(u.Contact.Target, u.Job)]
	return o, ok
}

// Paused says that an update must not be sent for now, since its job is paused.
// It asks no server and may be called for each update.
func (s *Source) Paused(u *contact.Update) bool {
	o, ok := s.q.jobOrder(u)
	return ok && o.State == JobPaused
}

// JobCancelled says who cancelled the job of an update, "" where nobody has; ok
// is false then. A letter that was sent again after that is not cancelled with
// the rest. It asks no server and may be called for each update.
func (s *Source) JobCancelled(u *contact.Update) (by string, ok bool) {
	o, ok := s.q.jobOrder(u)
	if !ok || o.State != JobCancelled || u.RedriveOf != "" && u.Stored.After(o.At) {
		return "", false
	}
	return o.By, true
}

// Steered has something whenever what Cancelled, JobCancelled or Paused say may
// have changed since it was last received from. One goroutine may listen.
func (s *Source) Steered() <-chan struct{} { return s.steered }

func (q *Queue) listen(s *Source, on bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if on {
		q.sources[s] = true
	} else {
		delete(q.sources, s)
	}
}

func (q *Queue) pokeSources() {
	q.mu.Lock()
	defer q.mu.Unlock()
	for s := range q.sources {
		poke(s.steered)
	}
}

// meet makes a job known whose updates come from somebody who announces none.
// Only the reader of a class calls it, for each update.
func (s *Source) meet(r *reading, u *contact.Update) {
	if u.Job == "" || u.Bad != nil || r.jobs[u.Job] || len(r.jobs) >= maxFound {
		return
	}
	if r.jobs == nil {
		r.jobs = map[string]bool{}
	}
	r.jobs[u.Job] = true
	j := Job{ID: u.Job, Target: s.target, Class: r.class, Created: u.Stored, Found: true}
	s.wg.Go(func() {
		if err := s.q.foundJob(s.ctx, j); err != nil && s.ctx.Err() == nil {
			s.q.log.Warn().Err(err).Str("target", s.target).Msg("a job cannot be listed; it is carried out all the same")
		}
	})
}

// foundJob stores a job unless somebody has.
func (q *Queue) foundJob(ctx context.Context, j Job) error {
	_, err := q.Job(ctx, j.Target, j.ID)
	if !errors.Is(err, ErrNotFound) {
		return err
	}
	_, err = q.PutAt(ctx, keyJob+jobKey(j.Target, j.ID), j, 0)
	if errors.Is(err, ErrChanged) {
		return nil
	}
	return err
}
