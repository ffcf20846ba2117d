package app

import (
	"context"
	"crypto/sha256"
	"encoding/csv"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"crmsync/contact"
	"crmsync/ingest"
	"crmsync/queue"
)

// Exportable are the ways in which a row can have ended, or not, for an export.
var Exportable = []string{"dead", "rejected", "cancelled", "discarded", "applied", "unchanged", "superseded", "waiting"}

// Export says which rows of a job are written where.
type Export struct {
	Target, Job string    // as [App.JobStatus]
	Only        []string  // of [Exportable]
	Out         string    // a file; "-" is Stdout
	Stdout      io.Writer // for "-"
	File        string    // where the job's file is now; "" where it was
}

// ExportReport is what an export wrote.
type ExportReport struct {
	Job      string `json:"job"`
	Target   string `json:"target"`
	Rows     int64  `json:"rows"`
	FromFile bool   `json:"from_file"` // the cells are those of the file that was imported
	// Again are the flags with which an import reads the columns as the job did.
	Again []string `json:"again,omitempty"`
}

// ErrFileNeeded says that rows can be exported only from the file that they came
// from.
var ErrFileNeeded = errors.New("the file that was imported is needed")

// ExportJob writes rows of a job as a table with the columns and the order of the
// file that they came from, and behind them _job, _row, _reason and _message: as
// CSV with that file's delimiter or, where Out ends in .xlsx, as a workbook. The cells are the file's own where it is there unchanged; else
// those of dead rows are put together from their letters, and for any other the
// error wraps [ErrFileNeeded]. An import of what is written is a child of the job.
func (a *App) ExportJob(ctx context.Context, e Export) (rep ExportReport, err error) {
	j, err := a.findJob(ctx, e.Target, e.Job)
	if err != nil {
		return rep, err
	}
	rep.Job, rep.Target, rep.Again = j.ID, j.Target, a.again(j)
	ledger, err := a.q.JobLedger(ctx, j.Target, j.ID)
	if err != nil {
		return rep, err
	}
	x := &export{a: a, job: j, ledger: ledger, only: e.Only, rep: &rep}
	file, missing := openUnchanged(j, e.File)
	if file != nil {
		defer file.Close()
		rep.FromFile = true
	} else if e.File != "" || !slices.Equal(e.Only, []string{"dead"}) {
		return rep, fmt.Errorf("%w: %w; say where it is with --file", ErrFileNeeded, missing)
	}
	if slices.Contains(e.Only, "rejected") && ledger.Count.Gone > 0 {
		return rep, errors.New("of some rows nothing is stored any more, so that they cannot be told from rejected ones; export the others")
	}
	out, finish, err := e.create(j)
	if err != nil {
		return rep, err
	}
	if x.out, err = e.table(j, out); err == nil {
		err = x.header()
	}
	if err == nil {
		if file != nil {
			err = x.fromFile(ctx, file)
		} else {
			err = x.fromLetters(ctx)
		}
	}
	if x.out != nil {
		err = errors.Join(err, x.out.Close())
	}
	return rep, finish(err)
}

// tableWriter writes rows of cells.
type tableWriter interface {
	Write(cells []string) error
	Close() error
}

// csvWriter is a tableWriter of CSV.
type csvWriter struct{ *csv.Writer }

func (w csvWriter) Close() error {
	w.Flush()
	return w.Error()
}

// byteOrderMark tells a spreadsheet that a file is UTF-8. Without it Excel takes
// it for something else, and what it saves then is damaged.
const byteOrderMark = "\ufeff"

// table begins what is written.
func (e Export) table(j Job, out io.Writer) (tableWriter, error) {
	if strings.EqualFold(filepath.Ext(e.Out), ".xlsx") {
		return ingest.NewWorkbookWriter(out, "rows")
	}
	if e.toFile() {
		if _, err := io.WriteString(out, byteOrderMark); err != nil {
			return nil, err
		}
	}
	w := csvWriter{csv.NewWriter(out)}
	if d := []rune(j.Delimiter); len(d) == 1 {
		w.Comma = d[0]
	}
	return w, nil
}

func (e Export) toFile() bool { return e.Out != "-" && e.Out != "" }

// openUnchanged finds the file of a job as it was imported; the error says why
// there is none.
func openUnchanged(j Job, elsewhere string) (*os.File, error) {
	path := elsewhere
	if path == "" {
		host, err := os.Hostname()
		switch {
		case j.Path == "":
			return nil, errors.New("it was no file, or nobody said which")
		case err != nil || host != j.Host:
			return nil, fmt.Errorf("it was %s on %s", j.Path, orSomebody(j.Host))
		}
		path = j.Path
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	h := sha256.New()
	if _, err = io.Copy(h, f); err == nil && hex.EncodeToString(h.Sum(nil)) != j.SHA256 {
		err = fmt.Errorf("%s is not the file that was imported, or was changed since", path)
	}
	if err == nil {
		_, err = f.Seek(0, io.SeekStart)
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

// create opens what is written to. A file appears when it is whole.
func (e Export) create(j Job) (w io.Writer, finish func(error) error, err error) {
	if !e.toFile() {
		return e.Stdout, func(err error) error { return err }, nil
	}
	if path, err := filepath.Abs(e.Out); err == nil && (path == j.Path || e.File != "" && e.Out == e.File) {
		return nil, nil, fmt.Errorf("%s is the file that was imported: write to another", e.Out)
	}
	f, err := os.CreateTemp(filepath.Dir(e.Out), filepath.Base(e.Out)+".*") // readable by its owner alone
	if err != nil {
		return nil, nil, err
	}
	return f, func(err error) error {
		err = errors.Join(err, f.Close())
		if err == nil {
			err = os.Rename(f.Name(), e.Out)
		}
		if err != nil {
			return errors.Join(err, os.Remove(f.Name()))
		}
		return nil
	}, nil
}

// export is an export under way.
type export struct {
	a      *App
	job    Job
	ledger *queue.JobLedger
	only   []string
	out    tableWriter
	rep    *ExportReport

	columns []int             // those of the file that are written
	fields  map[string]string // by column
}

// header writes the names of the columns. Remarks of an export that was imported
// give way to the new ones.
func (x *export) header() error {
	names := x.job.Columns
	x.fields = map[string]string{}
	for _, c := range x.job.Mapping {
		x.fields[c.Column] = c.Field
		if len(x.job.Columns) == 0 {
			names = append(names, c.Column)
		}
	}
	if len(x.job.Columns) == 0 && x.job.IDColumn != "" && !slices.Contains(names, x.job.IDColumn) {
		names = append([]string{x.job.IDColumn}, names...)
	}
	if len(names) == 0 {
		return fmt.Errorf("nobody has said what columns job %q has: crmsync dead ls --job %s has its letters", x.job.ID, x.job.ID)
	}
	x.job.Columns = names
	var row []string
	for i, n := range names {
		switch n {
		case ingest.GuardJob, ingest.GuardRow, ingest.GuardReason, ingest.GuardMessage:
			continue
		}
		x.columns = append(x.columns, i)
		row = append(row, n)
	}
	return x.out.Write(append(row, ingest.GuardJob, ingest.GuardRow, ingest.GuardReason, ingest.GuardMessage))
}

// wanted says whether a row is to be written, and what is said of it.
func (x *export) wanted(ctx context.Context, row int64, rejected error) (reason, message string, letter *queue.Record, ok bool, err error) {
	o, id, known := x.ledger.Row(row)
	how := o.String()
	switch {
	case !known:
		how = "rejected"
	case o == contact.Pending:
		how = "waiting"
	}
	if !slices.Contains(x.only, how) {
		return "", "", nil, false, nil
	}
	switch {
	case how != "rejected":
	case rejected != nil && (len(x.job.Constants) == 0 || !errors.Is(rejected, ingest.ErrNothing)):
		message = rejected.Error()
	case len(x.job.Constants) > 0: // what to is not kept
		message = "the row is no update together with what every row sets: " + strings.Join(x.job.Constants, ", ")
	}
	if o != contact.Dead {
		return how, message, nil, true, nil
	}
	r, err := x.a.q.Record(ctx, id)
	if errors.Is(err, queue.ErrNotFound) {
		return "", "", nil, false, nil // it was sent again, or given up, at this moment
	}
	return r.Reason.String(), r.Detail, &r, err == nil, err
}

func (x *export) write(cells []string, row int64, reason, message string) error {
	out := make([]string, 0, len(x.columns)+4)
	for _, i := range x.columns {
		cell := ""
		if i < len(cells) {
			cell = cells[i]
		}
		out = append(out, ingest.Guard(cell))
	}
	x.rep.Rows++
	return x.out.Write(append(out, ingest.Guard(x.job.ID), strconv.FormatInt(row, 10), reason, ingest.Guard(message)))
}

// fromFile goes through the file that was imported.
func (x *export) fromFile(ctx context.Context, f *os.File) error {
	t, err := x.a.target(x.job.Target)
	if err != nil {
		return err
	}
	c, err := newClient(t, x.a.o.Version)
	if err != nil {
		return err
	}
	defer c.CloseIdle()
	o := &opened{im: &Import{Target: x.job.Target, Class: x.job.Class}, client: c, job: x.job.ID}
	columns := map[string]string{}
	for _, m := range x.job.Mapping {
		columns[m.Column] = m.Field
	}
	rows, err := ingest.Open(f, ingest.Options{
		Format: x.job.Format, IDColumn: x.job.IDColumn, Map: columns, Encoding: x.job.Encoding, Delimiter: x.job.Delimiter, Sheet: x.job.Sheet,
		Empty: x.job.Empty, Labels: map[string]string{}, Convert: c.Convert,
	})
	if err != nil {
		return fmt.Errorf("%s: %w", f.Name(), err)
	}
	defer rows.Close()
	end := x.ledger.Last()
	if !x.job.Loaded.IsZero() {
		end = max(end, x.job.Read)
	}
	for {
		row, err := rows.Next()
		if errors.Is(err, io.EOF) || err == nil && row.N > end {
			return nil
		}
		if err == nil {
			err = ctx.Err()
		}
		if err != nil {
			return fmt.Errorf("%s: %w", f.Name(), err)
		}
		_, bad := o.update(row)
		reason, message, _, ok, err := x.wanted(ctx, row.N, bad)
		if err != nil || !ok {
			if err != nil {
				return err
			}
			continue
		}
		cells := row.Cells
		if cells == nil {
			cells = x.cells(row.ID, row.Fields)
		}
		if err := x.write(cells, row.N, reason, message); err != nil {
			return err
		}
	}
}

// fromLetters puts dead rows together from their letters.
func (x *export) fromLetters(ctx context.Context) error {
	last := x.ledger.Last()
	for n := int64(1); n <= last; n++ {
		reason, message, letter, ok, err := x.wanted(ctx, n, nil)
		if err != nil {
			return err
		}
		if !ok {
			continue
		}
		u := letter.Update()
		if err := x.write(x.cells(letter.Contact, u.Fields), n, reason, message); err != nil {
			return err
		}
	}
	return nil
}

// cells are a row's as its update tells them.
func (x *export) cells(id string, fields contact.Patch) []string {
	out := make([]string, len(x.job.Columns))
	for i, name := range x.job.Columns {
		switch field, mapped := x.fields[name]; {
		case name == x.job.IDColumn:
			out[i] = id
		case mapped:
			out[i] = cellOf(fields, strings.Split(field, "."))
		}
	}
	return out
}

// cellOf is a value as an import reads it: a list's members stand behind one
// another.
func cellOf(fields contact.Patch, path []string) string {
	v, ok := fields.Get(path[0])
	if !ok {
		return ""
	}
	if len(path) > 1 {
		inner, err := contact.ParsePatch(v)
		if err != nil {
			return ""
		}
		return cellOf(inner, path[1:])
	}
	var list []json.RawMessage
	if json.Unmarshal(v, &list) == nil {
		parts := make([]string, len(list))
		for i, m := range list {
			parts[i] = textOf(m)
		}
		return strings.Join(parts, ",")
	}
	return textOf(v)
}

func textOf(v json.RawMessage) string {
	var s string
	switch {
	case string(v) == "null":
		return ""
	case json.Unmarshal(v, &s) == nil:
		return s
	}
	return string(v)
}
