package app

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"time"

	"crmsync/contact"
	"crmsync/ingest"
	"crmsync/queue"
)

// Import is one file to be queued for one target.
type Import struct {
	Target  string
	Path    string    // of the file; "-" reads Stdin
	Stdin   io.Reader // for "-"
	Class   contact.Class
	Job     string // "" makes one: of the file's content, so that the same file again is the same job
	Format  string // auto, csv or ndjson
	ID      string // the column with the contact's id; "" guesses
	Map     map[string]string
	Empty   string // ignore or clear
	Charset string
	Comma   string

	// Progress is told now and then how far it is; nil is nobody.
	Progress func(ImportReport)
	// Rejected is told of every row that cannot be an update; nil is nobody.
	Rejected func(RejectedRow)
}

// RejectedRow is a row that was not queued, and why. It holds no cell.
type RejectedRow struct {
	Line   int64  `json:"line"` // in the file, from 1; where the row begins
	Row    int64  `json:"row"`  // data rows only, from 1
	Reason string `json:"reason"`
}

// ImportReport is how an import stands: Rows = Queued + Duplicates + Rejected,
// at every moment but for the rows that are being sent.
type ImportReport struct {
	Job        string           `json:"job"`
	Target     string           `json:"target"`
	Rows       int64            `json:"rows"`
	Queued     int64            `json:"queued"`     // stored as updates
	Duplicates int64            `json:"duplicates"` // were there already, from an earlier run of this job
	Rejected   int64            `json:"rejected"`
	Encoding   string           `json:"encoding,omitempty"`
	Delimiter  string           `json:"delimiter,omitempty"`
	Mapping    []ingest.Column  `json:"mapping,omitempty"`  // what each column became
	Unmapped   []string         `json:"unmapped,omitempty"` // columns that go nowhere
	Took       time.Duration    `json:"took"`
	Outcomes   map[string]int64 `json:"outcomes,omitempty"` // where it was waited for
	Dead       map[string]int64 `json:"dead,omitempty"`     // by reason
	Done       bool             `json:"done"`               // every queued row has its outcome

	class contact.Class
	after uint64 // the last update of that class before this import
}

// lastSeq is the last sequence of a target's stream.
func (a *App) lastSeq(ctx context.Context, target string, class contact.Class) (uint64, error) {
	stats, err := a.q.Stats(ctx)
	if err != nil {
		return 0, err
	}
	for _, s := range stats {
		if s.Target == target {
			return s.Class[class].Last, nil
		}
	}
	return 0, nil
}

// Import reads the file and queues its rows. It stops at the first error that
// is not a row's own; what was queued until then stays queued and the report
// says how much that is. The same file under the same job again queues only
// what is missing, within the queue's duplicates window.
func (a *App) Import(ctx context.Context, im Import) (rep ImportReport, err error) {
	began := time.Now()
	rep.Target, rep.Job = im.Target, im.Job
	t, err := a.target(im.Target)
	if err != nil {
		return rep, err
	}
	c, err := newClient(t, a.o.Version)
	if err != nil {
		return rep, fmt.Errorf("target %s: %w", t.Name, err)
	}
	defer c.CloseIdle()
	f, err := im.open()
	if err != nil {
		return rep, err
	}
	defer f.Close()
	if rep.Job == "" {
		if rep.Job, err = im.jobOf(f); err != nil {
			return rep, err
		}
	}
	rows, err := ingest.Open(f, ingest.Options{
		Format: im.Format, IDColumn: im.ID, Map: im.Map, Empty: im.Empty,
		Encoding: im.Charset, Delimiter: im.Comma, Labels: c.Labels(), Convert: c.Convert,
	})
	if err != nil {
		return rep, fmt.Errorf("%s: %w", im.name(), err)
	}
	if err := a.Setup(ctx); err != nil {
		return rep, err
	}
	if rep.after, err = a.lastSeq(ctx, im.Target, im.Class); err != nil {
		return rep, err
	}
	rep.class = im.Class
	if err := a.keepColumns(ctx, im.Target, rep.Job, rows.Report()); err != nil {
		return rep, err
	}
	batch := a.q.Batch(im.Target, im.Class)
	err = im.queue(ctx, rows, c, batch, &rep)
	if e := batch.Close(ctx); err == nil {
		err = e
	}
	rep.Queued, rep.Duplicates = batch.Stored()
	r := rows.Report()
	rep.Encoding, rep.Delimiter, rep.Mapping, rep.Unmapped = r.Encoding, r.Delimiter, r.Mapping, r.Unmapped
	rep.Took = time.Since(began)
	return rep, err
}

func (im *Import) queue(ctx context.Context, rows ingest.Reader, c client, batch *queue.Batch, rep *ImportReport) error {
	last := time.Now()
	for {
		row, err := rows.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("%s: %w", im.name(), err)
		}
		rep.Rows++
		u, bad := im.update(row, c, rep.Job)
		if bad != nil {
			rep.Rejected++
			if im.Rejected != nil {
				im.Rejected(RejectedRow{Line: row.Line, Row: row.N, Reason: bad.Error()})
			}
		} else if err := batch.Add(ctx, u); err != nil {
			return fmt.Errorf("%s line %d: %w", im.name(), row.Line, err)
		}
		if now := time.Now(); im.Progress != nil && now.Sub(last) > 100*time.Millisecond {
			rep.Queued, rep.Duplicates = batch.Stored()
			im.Progress(*rep)
			last = now
		}
	}
}

// update makes the update of a row, or says why there is none.
func (im *Import) update(row ingest.Row, c client, job string) (*contact.Update, error) {
	if row.Err != nil {
		return nil, row.Err
	}
	u := &contact.Update{
		Contact: contact.Key{Target: im.Target, ID: row.ID}, Class: im.Class, Fields: row.Fields,
		Version: row.Version, Versioned: row.Versioned, OccurredAt: row.OccurredAt,
		Job: job, Row: row.N, MsgID: job + ":" + strconv.FormatInt(row.N, 10),
	}
	if err := contact.CheckID(row.ID); err != nil {
		return nil, err
	}
	if bad := c.Check(u); bad != nil {
		return nil, bad
	}
	return u, nil
}

func (im *Import) name() string {
	if im.Path == "-" {
		return "standard input"
	}
	return im.Path
}

func (im *Import) open() (io.ReadCloser, error) {
	if im.Path == "-" {
		return io.NopCloser(im.Stdin), nil
	}
	f, err := os.Open(im.Path)
	if err != nil {
		return nil, err
	}
	if st, err := f.Stat(); err == nil && st.IsDir() {
		return nil, errors.Join(fmt.Errorf("%s is a folder, not a file", im.Path), f.Close())
	}
	return f, nil
}

// jobOf names a job: by the file's content, or by the time where it is a
// stream that can be read only once.
func (im *Import) jobOf(f io.Reader) (string, error) {
	s, ok := f.(io.Seeker)
	if ok {
		_, err := s.Seek(0, io.SeekStart)
		ok = err == nil
	}
	if !ok {
		return "j" + strconv.FormatInt(time.Now().UnixNano(), 36), nil
	}
	h := sha256.New()
	fmt.Fprintf(h, "%q %q %q %q %q %q %q %v ", im.Target, im.ID, im.Map, im.Empty, im.Format, im.Charset, im.Comma, im.Class)
	if _, err := io.Copy(h, f); err != nil {
		return "", fmt.Errorf("%s: %w", im.name(), err)
	}
	if _, err := s.Seek(0, io.SeekStart); err != nil {
		return "", fmt.Errorf("%s: %w", im.name(), err)
	}
	return "j" + hex.EncodeToString(h.Sum(nil))[:12], nil
}

// errAllEnded ends the following of a job.
var errAllEnded = errors.New("every row has its outcome")

// Wait follows a job until every queued row has its outcome, and tells progress
// as it goes. The report says how they ended.
func (a *App) Wait(ctx context.Context, rep ImportReport, progress func(ImportReport)) (ImportReport, error) {
	rep.Outcomes, rep.Dead = map[string]int64{}, map[string]int64{}
	want := rep.Queued + rep.Duplicates
	if want == 0 {
		rep.Done = true
		return rep, nil
	}
	// By row, the last one counts: a record may be handed out again after a
	// reconnect, and the same file may have been imported before.
	type end struct {
		seq     uint64
		outcome contact.Outcome
		reason  contact.Reason
	}
	ends := map[int64]end{}
	err := a.q.FollowJob(ctx, rep.Target, rep.Job, func(r queue.Record) error {
		for _, u := range r.Updates {
			if u.Class != rep.class || u.Seq < ends[u.Row].seq || rep.Duplicates == 0 && u.Seq <= rep.after {
				continue
			}
			if was, ok := ends[u.Row]; ok {
				rep.count(was.outcome, was.reason, -1)
			}
			ends[u.Row] = end{seq: u.Seq, outcome: r.Outcome, reason: r.Reason}
			rep.count(r.Outcome, r.Reason, 1)
		}
		if progress != nil {
			progress(rep)
		}
		if int64(len(ends)) >= want {
			return errAllEnded
		}
		return nil
	})
	if errors.Is(err, errAllEnded) {
		rep.Done, err = true, nil
	}
	return rep, err
}

func (rep *ImportReport) count(o contact.Outcome, r contact.Reason, n int64) {
	rep.Outcomes[o.String()] += n
	if o == contact.Dead {
		rep.Dead[r.String()] += n
	}
}
