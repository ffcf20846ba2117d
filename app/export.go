package app

import (
	"context"
	"encoding/csv"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"crmsync/contact"
	"crmsync/ingest"
	"crmsync/queue"
)

// Formats of an export.
const (
	ExportAuto   = "auto" // CSV where the letters are rows of a job whose columns are known, else NDJSON
	ExportCSV    = "csv"
	ExportNDJSON = "ndjson"
)

// letterColumn is the column of an exported CSV that names the letter; an edit
// from the corrected file goes by it.
const letterColumn = "dead letter"

// maxExportColumns bounds the columns of a CSV, as ingest bounds those it reads.
const maxExportColumns = ingest.MaxColumns - 8

// ExportedLetter is a line of an NDJSON export. It holds the contact's values;
// passwords are masked.
type ExportedLetter struct {
	Letter     uint64          `json:"letter"`
	Target     string          `json:"target"`
	ID         string          `json:"id"`
	Fields     json.RawMessage `json:"fields,omitempty"`
	Version    *int64          `json:"version,omitempty"`
	OccurredAt time.Time       `json:"occurred_at,omitzero"`
	Reason     string          `json:"reason"`
	Status     int             `json:"status,omitempty"`
	Field      string          `json:"field,omitempty"`
	Detail     string          `json:"detail,omitempty"`
	Job        string          `json:"job,omitempty"`
	Row        int64           `json:"row,omitempty"`
	Ended      time.Time       `json:"ended"`
	Bytes      []byte          `json:"bytes,omitempty"` // of a letter that is no update: base64
}

// Export writes dead letters as a table or as JSON lines, as a redrive would
// send them, and says how many and in which format. It is noted in the audit
// trail, since it shows what contacts hold.
func (a *App) Export(ctx context.Context, who Who, f DeadFilter, ids []uint64, format string, w io.Writer) (n int64, used string, err error) {
	qf, err := f.filter()
	if err != nil {
		return 0, format, err
	}
	e := queue.Entry{Actor: a.actor(who), Action: "export", Target: f.Target, Contact: f.Contact, Filter: &qf, IDs: ids, Count: int64(len(ids))}
	if len(ids) > 0 {
		e.Filter = nil
		if e.Target, e.Contact, err = a.about(ctx, ids); err != nil {
			return 0, format, err
		}
	}
	if err := a.q.Audit(ctx, e); err != nil {
		return 0, format, err
	}
	each := func(yield func(queue.Letter) error) error { return a.pick(ctx, qf, ids, yield) }
	var upload *uploadColumns
	if format == ExportAuto || format == ExportCSV {
		if upload, err = a.uploadOf(ctx, each); err != nil {
			return 0, format, err
		}
		if format == ExportAuto {
			format = ExportNDJSON
			if upload != nil {
				format = ExportCSV
			}
		}
	}
	if format == ExportCSV {
		n, err = a.exportCSV(each, upload, w)
	} else {
		n, err = exportNDJSON(each, w)
	}
	return n, format, err
}

// pick calls yield for the letters of these ids or, without any, for those that
// the filter chooses.
func (a *App) pick(ctx context.Context, f queue.Filter, ids []uint64, yield func(queue.Letter) error) error {
	if len(ids) == 0 {
		return a.q.Letters(ctx, f, yield)
	}
	for _, id := range ids {
		l, err := a.letter(ctx, id)
		if err != nil {
			return err
		}
		if err := yield(l); err != nil {
			return err
		}
	}
	return nil
}

func exportNDJSON(each func(func(queue.Letter) error) error, w io.Writer) (n int64, err error) {
	enc := json.NewEncoder(w)
	enc.SetEscapeHTML(false)
	err = each(func(l queue.Letter) error {
		out := ExportedLetter{
			Letter: l.Seq, Target: l.Target, ID: l.Contact, Reason: l.Reason.String(), Status: l.Status, Field: l.Field,
			Detail: l.Detail, Job: l.Job, Row: rowOf(l), Ended: l.Time,
		}
		u := current(l)
		if err := editable(u); err != nil {
			out.Bytes = maskBody(u.Raw)
		} else {
			b, err := u.Fields.MarshalJSON()
			if err != nil {
				return fmt.Errorf("letter %d: %w", l.Seq, err)
			}
			out.Fields, out.OccurredAt = maskSecrets(b), u.OccurredAt
			if u.Versioned {
				out.Version = &u.Version
			}
		}
		n++
		return enc.Encode(out)
	})
	return n, err
}

func rowOf(l queue.Letter) int64 {
	if len(l.Updates) == 0 {
		return 0
	}
	return l.Updates[0].Row
}

// uploadColumns are the columns of the file that a job came from.
type uploadColumns struct {
	ID      string // the column with the contact's id
	Columns []ingest.Column
}

var errTwoJobs = errors.New("of several jobs")

// uploadOf finds the columns of the one job that all the letters are of; nil
// where they are not known.
func (a *App) uploadOf(ctx context.Context, each func(func(queue.Letter) error) error) (*uploadColumns, error) {
	target, job := "", ""
	err := each(func(l queue.Letter) error {
		if l.Job == "" || job != "" && (job != l.Job || target != l.Target) {
			return errTwoJobs
		}
		target, job = l.Target, l.Job
		return nil
	})
	if errors.Is(err, errTwoJobs) || err == nil && job == "" {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	j, err := a.q.Job(ctx, target, job)
	if errors.Is(err, queue.ErrNotFound) || err == nil && len(j.Columns) == 0 {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	u := &uploadColumns{ID: j.IDColumn}
	for _, c := range j.Mapping {
		u.Columns = append(u.Columns, ingest.Column{Name: c.Column, Field: c.Field})
	}
	return u, nil
}

// exportCSV writes a table: the letter, then the upload's own columns or, where
// they are not known, the contact's id and a column for each field, then why it
// is dead. Cells that a spreadsheet would run are made harmless.
func (a *App) exportCSV(each func(func(queue.Letter) error) error, upload *uploadColumns, w io.Writer) (n int64, err error) {
	if upload == nil {
		upload = &uploadColumns{ID: "id"}
	}
	columns := slices.Clone(upload.Columns)
	if err := each(func(l queue.Letter) error { return a.addColumns(&columns, l) }); err != nil {
		return 0, err
	}
	out := csv.NewWriter(w)
	header := []string{letterColumn, harmlessText(upload.ID)}
	for _, c := range columns {
		header = append(header, harmlessText(c.Name))
	}
	if err := out.Write(append(header, "dead reason", "dead detail")); err != nil {
		return 0, err
	}
	err = each(func(l queue.Letter) error {
		u := current(l)
		cells := []string{strconv.FormatUint(l.Seq, 10), l.Contact}
		for _, c := range columns {
			v, _ := at(u.Fields, c.Field)
			cells = append(cells, cellText(hide(c.Field, v)))
		}
		cells = append(cells, l.Reason.String(), l.Detail)
		for i := range cells {
			cells[i] = harmlessText(cells[i])
		}
		n++
		return out.Write(cells)
	})
	out.Flush()
	return n, errors.Join(err, out.Error())
}

// addColumns gives each field of a letter a column that has none. A field of
// which the upload had members has a column for each.
func (a *App) addColumns(columns *[]ingest.Column, l queue.Letter) error {
	u := current(l)
	if err := editable(u); err != nil {
		return nil // its row has no fields; NDJSON holds its bytes
	}
	for _, path := range columnPaths(a.rulesOf(l.Target), u.Fields, *columns) {
		if !utf8.ValidString(path) || slices.ContainsFunc(*columns, func(c ingest.Column) bool { return c.Field == path }) {
			continue
		}
		if len(*columns) == maxExportColumns {
			return fmt.Errorf("letter %d: more than %d different fields for one table; export fewer letters, or use --ndjson", l.Seq, maxExportColumns)
		}
		*columns = append(*columns, ingest.Column{Name: path, Field: path})
	}
	return nil
}

func columnPaths(rules contact.Rules, p contact.Patch, columns []ingest.Column) []string {
	var out []string
	for _, path := range sortedKeys(paths(rules, p)) {
		split := slices.ContainsFunc(columns, func(c ingest.Column) bool { return strings.HasPrefix(c.Field, path+".") })
		v, _ := at(p, path)
		members, err := contact.ParsePatch(v)
		if !split || err != nil {
			out = append(out, path)
			continue
		}
		for _, m := range members {
			out = append(out, path+"."+m.Name)
		}
	}
	return out
}
