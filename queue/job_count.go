package queue

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"crmsync/contact"
)

// JobCount is how a job stands. At every moment, whatever crashed:
//
//	Read = Rejected + Queued
//	Queued = every outcome + Waiting + Gone
type JobCount struct {
	Read     int64 `json:"rows"`
	Rejected int64 `json:"rejected"`
	Queued   int64 `json:"queued"`
	// Outcomes counts each row once, by the newest of its records: a dead one
	// that was sent again and applied is applied.
	Outcomes map[contact.Outcome]int64 `json:"outcomes"`
	Dead     map[contact.Reason]int64  `json:"dead,omitempty"` // those that are dead, by reason
	Waiting  int64                     `json:"waiting"`
	// Gone are rows of which nothing is stored any more: their records have
	// expired, or their contacts were forgotten.
	Gone int64 `json:"gone,omitempty"`
	// Inferred says that Waiting is what has not ended of what was queued; it
	// was not looked up in the stream, which is long.
	Inferred bool `json:"inferred,omitempty"`

	First  time.Time `json:"first,omitzero"`   // when the first row ended
	Last   time.Time `json:"last,omitzero"`    // and the last so far
	Recent int64     `json:"recent,omitempty"` // rows that ended within JobRateSpan before the count

	// Kept is when this was counted, where the records have expired since;
	// zero where it was counted now.
	Kept time.Time `json:"kept,omitzero"`
	UpTo uint64    `json:"up_to,omitempty"` // the last record that is in it
}

// JobRateSpan is the time that JobCount.Recent looks back.
const JobRateSpan = time.Minute

// Ended is how many rows have ended.
func (c *JobCount) Ended() (n int64) {
	for _, k := range c.Outcomes {
		n += k
	}
	return n
}

// inferAbove is how many updates a stream may hold for them to be looked
// through; beyond that what waits of a loaded job is inferred.
const inferAbove = 100_000

// CountJob counts a job. It reads the heads of its records, some tens of
// thousands a second, unless nothing has happened to the job since it ended and
// was counted. A job that nobody announced is counted from its records and from what waits.
func (q *Queue) CountJob(ctx context.Context, target, job string) (JobCount, error) {
	c, err := q.openCount(ctx, target, job)
	if err != nil {
		return JobCount{}, err
	}
	kept, found, err := c.kept(ctx)
	if err != nil || found {
		return kept, err
	}
	if err := c.readOn(ctx); err != nil {
		return JobCount{}, err
	}
	return c.result(ctx)
}

// WatchJob calls yield with a job's count at once and then each time after every
// has passed, until yield returns false or an error, which it returns, or ctx
// ends. It reads each record once.
func (q *Queue) WatchJob(ctx context.Context, target, job string, every time.Duration, yield func(Job, JobCount) (bool, error)) error {
	c, err := q.openCount(ctx, target, job)
	if err != nil {
		return err
	}
	for {
		if err := c.readOn(ctx); err != nil {
			return err
		}
		n, err := c.result(ctx)
		if err != nil {
			return err
		}
		if more, err := yield(c.job, n); err != nil || !more {
			return err
		}
		if !sleep(ctx, every) {
			return ctx.Err()
		}
		if err := c.refresh(ctx); err != nil {
			return err
		}
	}
}

// JobLedger is what is known of each of a job's rows, at the moment of asking.
type JobLedger struct {
	Count  JobCount
	ledger *jobLedger
}

// JobLedger reads a job row by row. It looks through its stream, however long,
// and takes some bytes a row. Rows without a number are in Count alone.
func (q *Queue) JobLedger(ctx context.Context, target, job string) (*JobLedger, error) {
	c, err := q.openCount(ctx, target, job)
	if err != nil {
		return nil, err
	}
	c.whole = true
	if err := c.readOn(ctx); err != nil {
		return nil, err
	}
	n, err := c.result(ctx)
	return &JobLedger{Count: n, ledger: c.ledger}, err
}

// Row says how a row ended, Pending for one that waits, and the id of its letter
// where it is dead. known is false where nothing is stored of it.
func (l *JobLedger) Row(row int64) (o contact.Outcome, letter uint64, known bool) {
	if row <= 0 || row > maxJobRow {
		return 0, 0, false
	}
	return l.ledger.row(row)
}

// Last is the highest row that is known.
func (l *JobLedger) Last() int64 {
	last := int64(0)
	l.ledger.each(func(row int64, _ contact.Outcome, _ uint64) bool { last = row; return true })
	return last
}

// counting is a job that is being counted.
type counting struct {
	q      *Queue
	id     string
	target string
	job    Job // its zero value but for the name where nobody announced it
	ledger *jobLedger

	read     [contact.Classes]uint64 // of the streams
	inferred bool
	whole    bool   // infer nothing
	none     bool   // nothing of the job is in a stream any more
	records  uint64 // the last record that was read
	first    time.Time
	last     time.Time
	recent   []jobMoment
	later    jobDelta
	end      JobCount // kept from an earlier count
	ended    bool     // there is such a one
}

type jobMoment struct {
	at time.Time
	n  int64
}

func (q *Queue) openCount(ctx context.Context, target, id string) (*counting, error) {
	c := &counting{q: q, id: id, target: target, ledger: newJobLedger()}
	if err := c.refresh(ctx); err != nil {
		return nil, err
	}
	if _, err := q.info(ctx, outcomeStream); err != nil {
		return nil, err
	}
	ended, err := q.Get(ctx, keyJobEnd+jobKey(target, id), &c.end)
	c.ended = ended
	c.later.upTo = c.end.UpTo
	return c, err
}

// refresh reads what is known of the job.
func (c *counting) refresh(ctx context.Context) error {
	j, err := c.q.Job(ctx, c.target, c.id)
	if errors.Is(err, ErrNotFound) {
		j, err = Job{ID: c.id, Target: c.target, Found: true}, nil
	}
	c.job = j
	return err
}

func (c *counting) filter() Filter { return Filter{Target: c.target, Job: c.id} }

// readOn reads what was stored since it was last called, the streams before the
// records: what ends in between counts as ended.
func (c *counting) readOn(ctx context.Context) error {
	c.none = true
	for class := range contact.Class(contact.Classes) {
		if !c.job.Found && class != c.job.Class {
			continue
		}
		if err := c.readStream(ctx, class); err != nil {
			return fmt.Errorf("queue: job %s: %w", c.id, err)
		}
	}
	cfg, err := c.filter().config()
	if err != nil {
		return err
	}
	cfg.HeadersOnly = true
	cfg.DeliverPolicy, cfg.OptStartSeq = jetstream.DeliverByStartSequencePolicy, c.records+1
	err = c.q.follow(ctx, outcomeStream, cfg, false, func(m inMsg) error {
		c.records = m.seq
		r, err := c.ending(ctx, m)
		if err == nil {
			c.add(r)
		}
		return err
	})
	if err != nil {
		return fmt.Errorf("queue: job %s: %w", c.id, err)
	}
	return nil
}

// readStream notes what lies in a stream of the job, unless that can be inferred.
func (c *counting) readStream(ctx context.Context, class contact.Class) error {
	info, err := c.q.info(ctx, streamName(c.target, class))
	if err != nil {
		return err
	}
	st := info.State
	from := max(c.read[class]+1, st.FirstSeq, c.job.First)
	to := st.LastSeq
	if c.job.Last > 0 && !c.job.Loaded.IsZero() {
		to = min(to, c.job.Last)
	}
	c.inferred = !c.whole && !c.job.Loaded.IsZero() && (c.inferred || to > from && to-from > c.q.limits.infer)
	if st.Msgs == 0 || from > to || c.inferred {
		if st.Msgs == 0 || st.FirstSeq > to {
			c.inferred = false
			c.ledger.scannedTo(class, to)
		} else {
			c.none = false
		}
		return nil
	}
	cfg := jetstream.ConsumerConfig{
		HeadersOnly: true, DeliverPolicy: jetstream.DeliverByStartSequencePolicy, OptStartSeq: from,
	}
	err = c.q.follow(ctx, streamName(c.target, class), cfg, false, func(m inMsg) error {
		if m.seq > to {
			return errEnough
		}
		if m.header.Get(contact.HeaderJob) != c.id {
			return nil
		}
		row, err := strconv.ParseInt(m.header.Get(contact.HeaderRow), 10, 64)
		if err != nil || row < 0 || row > maxJobRow {
			row = 0
		}
		c.ledger.waiting(jobEnd{row: row, class: class, seq: m.seq}, m.header.Get(contact.HeaderRedriveOf) != "")
		return nil
	})
	if err != nil && !errors.Is(err, errEnough) {
		return err
	}
	c.read[class], c.none = to, false
	c.ledger.scannedTo(class, to)
	return nil
}

// ending reads a record by its headers or, where they do not say all, whole.
func (c *counting) ending(ctx context.Context, m inMsg) (jobEnding, error) {
	_, outcome, err := parseOutcomeSubject(m.subject)
	if err != nil {
		return jobEnding{}, err
	}
	e := jobEnding{seq: m.seq, at: m.time, outcome: outcome}
	_ = e.reason.UnmarshalText([]byte(m.header.Get(headerReason))) // a code of a newer version counts as none
	e.again, _ = strconv.ParseUint(m.header.Get(contact.HeaderRedriveOf), 10, 64)
	e.letter, _ = strconv.ParseUint(m.header.Get(headerLetter), 10, 64)
	var ok bool
	if e.ends, ok = parseRows(m.header.Get(headerRows)); ok {
		return e, nil
	}
	r, err := c.q.Record(ctx, m.seq)
	if errors.Is(err, ErrNotFound) {
		return e, nil // it went at this moment; what took its place comes
	}
	e.ends = jobEnds(r.Updates)
	return e, err
}

func (c *counting) add(r jobEnding) {
	n := c.ledger.ended(r)
	c.later.add(r)
	if r.letter > 0 {
		return // of no use for the job's pace
	}
	if c.first.IsZero() {
		c.first = r.at
	}
	c.last = r.at
	if time.Since(r.at) < JobRateSpan && n > 0 {
		c.recent = append(c.recent, jobMoment{r.at, n})
	}
}

// result is the count, and keeps it where the job has ended.
func (c *counting) result(ctx context.Context) (JobCount, error) {
	l, j := c.ledger, &c.job
	out := JobCount{
		Rejected: j.Rejected, Outcomes: map[contact.Outcome]int64{}, Dead: map[contact.Reason]int64{},
		Waiting: l.waits, Inferred: c.inferred, First: c.first, Last: c.last, UpTo: c.records,
	}
	if c.none { // what was seen there and has no record was removed from both: its contact was forgotten
		out.Waiting = 0
	}
	for o, n := range l.count {
		if n != 0 {
			out.Outcomes[contact.Outcome(o)] = n
		}
	}
	for r, n := range l.reason {
		out.Dead[r] = n
	}
	for len(c.recent) > 0 && time.Since(c.recent[0].at) >= JobRateSpan {
		c.recent = c.recent[1:]
	}
	for _, m := range c.recent {
		out.Recent += m.n
	}
	ended := out.Ended()
	out.Queued = ended + out.Waiting
	if !j.Loaded.IsZero() {
		if c.inferred {
			out.Waiting = max(0, j.Queued-ended)
		}
		out.Queued = max(j.Queued, ended+out.Waiting)
		out.Gone = out.Queued - ended - out.Waiting
	}
	out.Read = out.Queued + out.Rejected
	if out.Waiting > 0 || out.Inferred || j.Loaded.IsZero() {
		return out, nil
	}
	return c.finished(ctx, out)
}
