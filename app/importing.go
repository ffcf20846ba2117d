package app

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"crmsync/contact"
	"crmsync/ingest"
	"crmsync/queue"
)

// Import is one file to be queued for one target.
type Import struct {
	Target    string
	Path      string    // of the file; "-" reads Stdin
	Stdin     io.Reader // for "-"
	Class     contact.Class
	Job       string // "" makes one: of the file's content, so that the same file again is the same job
	Format    string // auto, csv, ndjson or xlsx
	Sheet     string // of a workbook; "" takes the first that is not hidden
	ID        string // the column with the contact's id; "" guesses
	Map       map[string]string
	Constants map[string]string // fields that every row sets
	Empty     string            // ignore or clear
	Charset   string
	Comma     string
	By        string // who imports it, for the record
	Parent    string // the job whose rows these are again; "" takes what the file says

	// Canary is how many rows go first, alone; Confirm is told how these ended
	// and says whether the others go too. 0 sends all at once.
	Canary  int
	Confirm func(Canary) (bool, error)

	// Progress is told now and then how far it is; nil is nobody.
	Progress func(ImportReport)
	// Waiting is told now and then how the canary's rows stand; nil is nobody.
	Waiting func(ImportProgress)
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
	Sheet      string           `json:"sheet,omitempty"`    // of a workbook
	Mapping    []ingest.Column  `json:"mapping,omitempty"`  // what each column became
	Unmapped   []string         `json:"unmapped,omitempty"` // columns that go nowhere
	Took       time.Duration    `json:"took"`
	Parent     string           `json:"parent,omitempty"`   // the job whose rows these are again
	Stopped    bool             `json:"stopped,omitempty"`  // after the canary: the other rows were not queued
	Outcomes   map[string]int64 `json:"outcomes,omitempty"` // where it was waited for
	Dead       map[string]int64 `json:"dead,omitempty"`     // by reason
	Expired    int64            `json:"expired,omitempty"`  // rows that ended so long ago that their records are gone
	Done       bool             `json:"done"`               // every queued row has its outcome
	Resumed    *Resumed         `json:"resumed,omitempty"`  // an earlier run of this job, nil for the first

	class   contact.Class
	mapping Mapping
}

// Mapping says how columns become fields; see [ingest.Mapping].
type Mapping = ingest.Mapping

// AsMapping is the mapping in use, to be kept for the next file of the kind.
func (rep *ImportReport) AsMapping() Mapping { return rep.mapping }

// UseMapping reads a mapping file. What the import says itself goes before it.
func (im *Import) UseMapping(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	m, err := ingest.ReadMapping(f)
	if err != nil {
		return fmt.Errorf("mapping %s: %w", path, err)
	}
	m = m.With(Mapping{ID: im.ID, Columns: im.Map, Constants: im.Constants, Empty: im.Empty})
	im.ID, im.Map, im.Constants, im.Empty = m.ID, m.Columns, m.Constants, m.Empty
	return nil
}

// Resumed says of an earlier run of a job when it began, by whom, and whether it
// dealt with all rows.
type Resumed struct {
	At       time.Time `json:"at"`
	By       string    `json:"by,omitempty"`
	Complete bool      `json:"complete"`
}

// ErrNoID is wrapped where no column of a file is the contact's id.
var ErrNoID = ingest.ErrNoID

// ErrOtherFile says that a job of that name was made from another file, or the
// same one read otherwise.
var ErrOtherFile = errors.New("the job was made from another file, or with another mapping")

// Import reads the file and queues its rows. It stops at the first error that
// is not a row's own; what was queued until then stays queued and the report
// says how much that is. The same file under the same job again queues only what
// is missing, whenever that is: rows are stored in their order, so that what was
// stored is the beginning.
func (a *App) Import(ctx context.Context, im Import) (rep ImportReport, err error) {
	began := time.Now()
	rep.Target, rep.Job, rep.class = im.Target, im.Job, im.Class
	o, err := im.begin(a.cfg, a.o.Version)
	if err != nil {
		return rep, err
	}
	defer o.close()
	rep.Job = o.job
	if err := a.Setup(ctx); err != nil {
		return rep, err
	}
	in := &intake{a: a, o: o, rep: &rep}
	if err := in.resume(ctx); err != nil {
		return rep, err
	}
	rep.Parent, rep.class = in.job.Parent, im.Class
	in.batch = a.q.Batch(im.Target, im.Class)
	err = in.rows(ctx)
	if e := in.batch.Close(ctx); err == nil {
		err = e
	}
	in.count()
	if err == nil && !rep.Stopped {
		err = in.complete(ctx)
	} else if in.job.Loaded.IsZero() {
		// Whoever looks at the job sees how far it came, even if that was an
		// interruption.
		err = errors.Join(err, in.announce(context.WithoutCancel(ctx)))
	}
	r := o.rows.Report()
	rep.Encoding, rep.Delimiter, rep.Sheet, rep.Mapping, rep.Unmapped = r.Encoding, r.Delimiter, r.Sheet, r.Mapping, r.Unmapped
	rep.mapping = r.AsMapping(o.options())
	rep.Took = time.Since(began)
	return rep, err
}

// intake is one run of an import.
type intake struct {
	a     *App
	o     *opened
	rep   *ImportReport
	batch *queue.Batch
	job   Job
	told  time.Time   // when that was last stored
	after int64       // up to this row all was stored by an earlier run
	known int64       // and so many of these rows are updates
	first []CanaryRow // of the canary, those that are updates
}

// count brings the report up to what is stored.
func (in *intake) count() {
	stored, there := in.batch.Stored()
	in.rep.Queued, in.rep.Duplicates = stored, there+in.known
}

// rows queues the rows; an end for the canary's sake is none of its errors.
func (in *intake) rows(ctx context.Context) error {
	im, rep, last := in.o.im, in.rep, time.Now()
	for {
		row, err := in.o.rows.Next()
		if errors.Is(err, io.EOF) {
			if im.Canary > 0 && len(in.first) > 0 {
				_, err = in.canary(ctx, false)
				return err
			}
			return nil
		}
		if err != nil {
			return fmt.Errorf("%s: %w", im.name(), err)
		}
		if im.Canary > 0 && len(in.first) == im.Canary {
			if on, err := in.canary(ctx, true); err != nil || !on {
				rep.Stopped = err == nil
				return err
			}
		}
		rep.Rows++
		if err := in.row(ctx, row); err != nil {
			return fmt.Errorf("%s line %d: %w", im.name(), row.Line, err)
		}
		now := time.Now()
		if now.Sub(last) < 100*time.Millisecond {
			continue
		}
		last = now
		in.count()
		if im.Progress != nil {
			im.Progress(*rep)
		}
		if in.job.Loaded.IsZero() && now.Sub(in.told) > announceEvery {
			// What others see of the job may be late; its rows tell what counts.
			if err := in.announce(ctx); err != nil && !queue.Passing(err) {
				return err
			}
		}
	}
}

// row queues one row, or has it rejected.
func (in *intake) row(ctx context.Context, row ingest.Row) error {
	im := in.o.im
	u, bad := in.o.update(row)
	if bad != nil {
		in.rep.Rejected++
		if im.Rejected != nil {
			im.Rejected(RejectedRow{Line: row.Line, Row: row.N, Reason: bad.Error()})
		}
		return nil
	}
	if len(in.first) < im.Canary {
		in.first = append(in.first, CanaryRow{Line: row.Line, Row: row.N, Contact: row.ID})
	}
	if row.N <= in.after {
		in.known++
		return ctx.Err()
	}
	return in.batch.Add(ctx, u)
}
