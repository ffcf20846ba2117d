package app

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"hash/maphash"
	"io"
	"maps"
	"slices"
	"strings"
	"time"

	"crmsync/config"
	"crmsync/contact"
	"crmsync/ingest"
	"crmsync/worker"
)

// Forecast is what an import would do. Nothing was sent and nothing queued for
// it. It holds no cell but ids of contacts and, of those that were compared,
// their fields.
type Forecast struct {
	Job    string `json:"job"` // as it would be called
	Target string `json:"target"`
	Kind   string `json:"kind"`

	Format     string            `json:"format"`
	Encoding   string            `json:"encoding"`
	Guessed    bool              `json:"guessed,omitempty"` // the encoding is a guess that may be wrong
	Compressed bool              `json:"compressed,omitempty"`
	Delimiter  string            `json:"delimiter,omitempty"`
	Sheet      string            `json:"sheet,omitempty"`        // of a workbook
	Others     []string          `json:"other_sheets,omitempty"` // which are not read
	IDColumn   string            `json:"id_column"`
	Mapping    []ingest.Column   `json:"mapping"`
	Constants  map[string]string `json:"constants,omitempty"`
	Unmapped   []string          `json:"unmapped,omitempty"`

	Rows     int64         `json:"rows"`
	Sendable int64         `json:"sendable"`
	Rejected int64         `json:"rejected"`
	Blank    int64         `json:"blank"`
	Problems []Trouble     `json:"problems,omitempty"` // why rows are rejected, the most frequent first
	Doubts   []Trouble     `json:"doubts,omitempty"`   // what does not keep a row from being sent
	Fields   []FieldCount  `json:"fields,omitempty"`   // what would be written, by field
	Repeats  Repeats       `json:"repeats"`
	Requests int64         `json:"requests"` // at most
	Each     int           `json:"each"`     // requests for an update, at most
	Takes    time.Duration `json:"takes"`
	Ends     time.Time     `json:"ends,omitzero"` // zero: never, since the quota allows nothing
	Quota    string        `json:"quota"`

	Compared []Compared `json:"compared,omitempty"`

	mapping Mapping
}

// AsMapping is the mapping in use, to be kept for the next file of the kind.
func (f *Forecast) AsMapping() Mapping { return f.mapping }

// Trouble is one kind of problem, and where it was met first.
type Trouble struct {
	Reason string  `json:"reason"`
	Rows   int64   `json:"rows"`
	Lines  []int64 `json:"lines"` // the first few
}

// FieldCount says how many rows would set a field, and how many clear it.
type FieldCount struct {
	Field string `json:"field"`
	Set   int64  `json:"set"`
	Clear int64  `json:"clear,omitempty"`
}

// Repeats are contacts that stand in more than one row. Their rows are applied
// in order, so that the last one wins.
type Repeats struct {
	Contacts int64       `json:"contacts"`
	Rows     int64       `json:"rows"` // beyond each contact's first
	First    []RepeatRow `json:"first,omitempty"`
	// Beyond says that so many contacts were told apart and no more.
	Beyond int `json:"beyond,omitempty"`
}

// RepeatRow is a row whose contact an earlier row has too.
type RepeatRow struct {
	Contact string `json:"contact"`
	Line    int64  `json:"line"`
	Earlier int64  `json:"earlier"` // line of the first
}

const (
	shownLines    = 5
	shownTroubles = 100 // kinds of them
	// toldApart is how many contacts are looked for again: about 100 MB.
	toldApart = 2_000_000
)

// Foresee reads a file as [App.Import] would and says what that would do. With
// compare above 0 it reads so many contacts from the CRM, at the target's rate,
// and sets what would be written beside them; else it talks to nobody.
func Foresee(ctx context.Context, cfg *config.Config, version string, im Import, compare int) (Forecast, error) {
	o, err := im.begin(cfg, version)
	if err != nil {
		return Forecast{}, err
	}
	defer o.close()
	s := &survey{
		f:      Forecast{Job: o.job, Target: im.Target, Kind: o.target.Kind, Constants: hideSecrets(im.Constants)},
		fields: map[string]*FieldCount{}, seen: map[uint64]int64{}, twice: map[uint64]bool{}, seed: maphash.MakeSeed(),
	}
	var some []*contact.Update
	for {
		row, err := o.rows.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err == nil {
			err = ctx.Err()
		}
		if err != nil {
			return s.f, fmt.Errorf("%s: %w", im.name(), err)
		}
		if u := s.row(o, row); u != nil && len(some) < compare {
			some = append(some, u)
		}
		if im.Progress != nil && s.f.Rows%10_000 == 0 {
			im.Progress(ImportReport{Job: o.job, Rows: s.f.Rows, Rejected: s.f.Rejected})
		}
	}
	s.sum(o, time.Now())
	if len(some) > 0 {
		s.f.Compared, err = o.compare(ctx, some)
	}
	return s.f, err
}

// survey adds up a file.
type survey struct {
	f        Forecast
	problems troubles
	doubts   troubles
	fields   map[string]*FieldCount
	seed     maphash.Seed
	seen     map[uint64]int64 // line of a contact's first row, by the hash of its id
	twice    map[uint64]bool
}

// row adds a row; it returns the row's update, nil where it has none.
func (s *survey) row(o *opened, row ingest.Row) *contact.Update {
	s.f.Rows++
	u, bad := o.update(row)
	if bad != nil {
		s.f.Rejected++
		s.problems.add(bad.Error(), row.Line)
		if o.im.Rejected != nil {
			o.im.Rejected(RejectedRow{Line: row.Line, Row: row.N, Reason: bad.Error()})
		}
		return nil
	}
	s.f.Sendable++
	for _, w := range row.Warnings {
		s.doubts.add(w, row.Line)
	}
	if mail, ok := u.Fields.Get("email"); ok && string(mail) != "null" && !strings.Contains(string(mail), "@") {
		s.doubts.add("email: it does not look like an e-mail address", row.Line)
	}
	for _, f := range u.Fields {
		s.field(f.Name, f.Value, o.client.Rules())
	}
	s.contact(row)
	return u
}

func (s *survey) field(name string, value []byte, r contact.Rules) {
	if slices.Contains(r.Deep, name) {
		if parts, err := contact.ParsePatch(value); err == nil {
			for _, p := range parts {
				s.field(name+"."+p.Name, p.Value, contact.Rules{})
			}
			return
		}
	}
	c := s.fields[name]
	if c == nil {
		c = &FieldCount{Field: name}
		s.fields[name] = c
	}
	if string(value) == "null" {
		c.Clear++
	} else {
		c.Set++
	}
}

// contact looks whether the contact was there before. Hashes of 64 bits do not
// meet by chance among so many.
func (s *survey) contact(row ingest.Row) {
	h := maphash.String(s.seed, row.ID)
	line, there := s.seen[h]
	r := &s.f.Repeats
	switch {
	case there:
		r.Rows++
		if !s.twice[h] {
			s.twice[h] = true
			r.Contacts++
		}
		if len(r.First) < shownLines {
			r.First = append(r.First, RepeatRow{Contact: row.ID, Line: row.Line, Earlier: line})
		}
	case len(s.seen) < toldApart:
		s.seen[h] = row.Line
	default:
		r.Beyond = toldApart
	}
}

// sum finishes the forecast.
func (s *survey) sum(o *opened, now time.Time) {
	r, f := o.rows.Report(), &s.f
	f.Format, f.Encoding, f.Guessed, f.Compressed, f.Delimiter = r.Format, r.Encoding, r.Guessed, r.Compressed, r.Delimiter
	f.Sheet, f.Others = r.Sheet, r.OtherSheets
	f.IDColumn, f.Mapping, f.Unmapped, f.Blank = r.IDColumn, r.Mapping, r.Unmapped, r.Blank
	f.mapping = r.AsMapping(o.options())
	f.Problems, f.Doubts = s.problems.most(), s.doubts.most()
	for _, name := range slices.Sorted(maps.Keys(s.fields)) {
		f.Fields = append(f.Fields, *s.fields[name])
	}
	f.Each = requestsOf(o.target.Kind)
	f.Requests = f.Sendable * int64(f.Each)
	f.Quota = o.target.Quota.String()
	if o.target.Quota.Rate > 0 || f.Requests == 0 {
		f.Ends = worker.NewBudget(quotaOf(o.target.Quota), nil, now).ETA(now, int(f.Requests))
		f.Takes = f.Ends.Sub(now)
	}
}

// troubles are problems by kind.
type troubles map[string]*Trouble

func (t *troubles) add(reason string, line int64) {
	if *t == nil {
		*t = troubles{}
	}
	key := contact.Normalise(reason)
	x := (*t)[key]
	if x == nil {
		if len(*t) >= shownTroubles {
			key, reason = "", "other problems"
		}
		if x = (*t)[key]; x == nil {
			x = &Trouble{Reason: reason}
			(*t)[key] = x
		}
	}
	x.Rows++
	if len(x.Lines) < shownLines {
		x.Lines = append(x.Lines, line)
	}
}

// most lists them, the most frequent first.
func (t troubles) most() []Trouble {
	var out []Trouble
	for _, x := range t {
		out = append(out, *x)
	}
	slices.SortFunc(out, func(a, b Trouble) int {
		return cmp.Or(cmp.Compare(b.Rows, a.Rows), strings.Compare(a.Reason, b.Reason))
	})
	return out
}
