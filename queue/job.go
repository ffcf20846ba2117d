package queue

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"crmsync/contact"
)

// Job is one bulk import as whoever publishes its rows describes it. What
// became of the rows is not in it: that is counted from what is stored of them,
// see [Queue.CountJob].
type Job struct {
	ID     string        `json:"id"` // the Crmsync-Job of its updates
	Target string        `json:"target"`
	Class  contact.Class `json:"class"`

	File   string `json:"file,omitempty"` // as it was given
	Path   string `json:"path,omitempty"` // absolute, on Host; "" where it was no file
	Host   string `json:"host,omitempty"`
	SHA256 string `json:"sha256,omitempty"` // hexadecimal, of the file's bytes
	Digest string `json:"digest,omitempty"` // of these and of how the file was read; "" where it was no file
	Size   int64  `json:"size,omitempty"`

	Format    string      `json:"format,omitempty"`
	Encoding  string      `json:"encoding,omitempty"`
	Delimiter string      `json:"delimiter,omitempty"` // one character
	Sheet     string      `json:"sheet,omitempty"`     // of a workbook
	IDColumn  string      `json:"id_column,omitempty"`
	Columns   []string    `json:"columns,omitempty"` // all, in the file's order
	Mapping   []JobColumn `json:"mapping,omitempty"` // those that were imported
	// Constants are the fields that every row sets, without what to; Empty is what
	// an empty cell does, "" for the default.
	Constants []string `json:"constants,omitempty"`
	Empty     string   `json:"empty,omitempty"`

	By      string    `json:"by,omitempty"`
	Created time.Time `json:"created,omitzero"`
	Saved   time.Time `json:"saved,omitzero"`   // when this was last stored, by the broker's clock
	Parent  string    `json:"parent,omitempty"` // the job whose rows these are again

	// Read is how many rows of the file have been read, Rejected how many of
	// those were not queued since they cannot be updates, Queued how many are
	// stored as updates, those of an earlier run of the job included.
	Read     int64 `json:"read"`
	Queued   int64 `json:"queued"`
	Rejected int64 `json:"rejected"`
	// First and Last bound the places of its updates in their stream; 0 where
	// that is not known.
	First uint64 `json:"first,omitempty"`
	Last  uint64 `json:"last,omitempty"`
	// Loaded is when the last row had been dealt with; zero until then.
	Loaded time.Time `json:"loaded,omitzero"`

	// Found says that nobody announced it: a worker met updates of it.
	Found bool `json:"found,omitempty"`
}

// JobColumn is a column of a job's file and the field that it became.
type JobColumn struct {
	Column string `json:"column"`
	Field  string `json:"field"`
}

// JobState is what is wanted of a job's updates that wait.
type JobState string

// Wanted states. The zero value is JobRunning.
const (
	JobRunning   JobState = "running"
	JobPaused    JobState = "paused"    // none of them is sent until it is resumed
	JobCancelled JobState = "cancelled" // for good: they end cancelled
)

// JobOrder is what an operator wants of a job, and since when.
type JobOrder struct {
	Target string    `json:"target"`
	Job    string    `json:"job"`
	State  JobState  `json:"state"`
	By     string    `json:"by,omitempty"`
	At     time.Time `json:"at,omitzero"` // by the broker's clock

	rev uint64
}

// ErrJobOpen is wrapped where a job is to be removed of which something is stored or
// still to come.
var ErrJobOpen = errors.New("the job is not over")

// ErrJobCancelled is wrapped where a job was cancelled, which is for good.
var ErrJobCancelled = errors.New("the job was cancelled")

// Keys of the shared state, each followed by a target and a job: one writer
// each, so that none has to merge what another wrote.
const (
	keyJob      = "job."      // Job: who imports
	keyJobOrder = "joborder." // JobOrder: operators
	keyJobEnd   = "jobend."   // JobCount: who counted a job that has ended
)

// jobKey is the part of a key that names a job.
func jobKey(target, job string) string {
	return target + "." + strings.NewReplacer("%", "=", "~", "==").Replace(jobToken(job))
}

func checkJob(target, job string) error {
	if err := contact.CheckTarget(target); err != nil {
		return fmt.Errorf("queue: job: %w", err)
	}
	if job == "" {
		return errors.New("queue: a job has a name")
	}
	return nil
}

// SaveJob stores what is known of a job, in place of what was stored before. One
// process at a time should: who imports it.
func (q *Queue) SaveJob(ctx context.Context, j Job) error {
	if err := checkJob(j.Target, j.ID); err != nil {
		return err
	}
	j.Saved = time.Time{}
	return q.Put(ctx, keyJob+jobKey(j.Target, j.ID), j)
}

// Job reads what is known of a job; the error wraps [ErrNotFound] where nobody
// has announced it and no worker has met it.
func (q *Queue) Job(ctx context.Context, target, id string) (Job, error) {
	if err := checkJob(target, id); err != nil {
		return Job{}, err
	}
	e, err := q.state.get(ctx, keyJob+jobKey(target, id))
	if err != nil {
		return Job{}, fmt.Errorf("queue: read job %s: %w", id, err)
	}
	if e.gone {
		return Job{}, fmt.Errorf("job %s of %s: %w", id, target, ErrNotFound)
	}
	return decodeJob(e)
}

func decodeJob(e entry) (Job, error) {
	var j Job
	if err := json.Unmarshal(e.value, &j); err != nil {
		return Job{}, fmt.Errorf("queue: state %s: %w", e.key, err)
	}
	j.Saved = e.time
	if j.Created.IsZero() {
		j.Created = e.time
	}
	return j, nil
}

// Jobs lists the jobs that are known, the newest first; target "" is all.
func (q *Queue) Jobs(ctx context.Context, target string) ([]Job, error) {
	match := keyJob + ">"
	if target != "" {
		if err := contact.CheckTarget(target); err != nil {
			return nil, fmt.Errorf("queue: %w", err)
		}
		match = keyJob + target + ".>"
	}
	var out []Job
	err := q.state.each(ctx, match, func(e entry) error {
		j, err := decodeJob(e)
		if err == nil {
			out = append(out, j)
		}
		return err
	})
	slices.SortStableFunc(out, func(a, b Job) int { return b.Created.Compare(a.Created) })
	return out, err
}

// JobOrder is what is wanted of a job: to run, where nobody has said anything.
func (q *Queue) JobOrder(ctx context.Context, target, job string) (JobOrder, error) {
	if err := checkJob(target, job); err != nil {
		return JobOrder{}, err
	}
	e, err := q.state.get(ctx, keyJobOrder+jobKey(target, job))
	if err != nil {
		return JobOrder{}, fmt.Errorf("queue: read the order of job %s: %w", job, err)
	}
	if e.gone {
		return JobOrder{Target: target, Job: job, State: JobRunning, rev: e.rev}, nil
	}
	return decodeJobOrder(e)
}

func decodeJobOrder(e entry) (JobOrder, error) {
	var o JobOrder
	if err := json.Unmarshal(e.value, &o); err != nil {
		return JobOrder{}, fmt.Errorf("queue: state %s: %w", e.key, err)
	}
	o.rev, o.At = e.rev, e.time
	return o, nil
}

// jobActions are the words of the audit trail for what is wanted.
var jobActions = map[JobState]string{JobRunning: "job-resume", JobPaused: "job-pause", JobCancelled: "job-cancel"}

// SteerJob says what is wanted of a job's updates that wait: whoever owns the
// target obeys within a moment, and every later owner before its first call. An
// update that may have been sent already is neither paused nor cancelled. What
// was cancelled is so for good: the error wraps [ErrJobCancelled] where it is to
// be anything else. Letters of a cancelled job may be sent again all the same.
//
// The audit trail tells of it before. It returns what is wanted now.
func (q *Queue) SteerJob(ctx context.Context, who Actor, target, job string, to JobState) (JobOrder, error) {
	action, ok := jobActions[to]
	if !ok {
		return JobOrder{}, fmt.Errorf("queue: job state %q is not known", to)
	}
	audited := false
	for n := 0; ; n++ {
		o, err := q.JobOrder(ctx, target, job)
		switch {
		case err != nil || o.State == to:
			return o, err
		case o.State == JobCancelled:
			return o, fmt.Errorf("job %s: %w by %s at %s, for good", job, ErrJobCancelled, o.By, o.At.UTC().Format(time.RFC3339))
		}
		if !audited {
			if err := q.Audit(ctx, Entry{Actor: who, Action: action, Target: target, Detail: "job " + job}); err != nil {
				return o, err
			}
			audited = true
		}
		rev := o.rev
		o = JobOrder{Target: target, Job: job, State: to, By: who.By}
		o.rev, err = q.PutAt(ctx, keyJobOrder+jobKey(target, job), o, rev)
		if err == nil {
			o.At = time.Now().UTC()
			return o, nil
		}
		if !errors.Is(err, ErrChanged) || !sleep(ctx, pause(min(n, 2))) {
			return o, err
		}
	}
}
