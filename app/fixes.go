package app

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"

	"crmsync/console"
	"crmsync/contact"
	"crmsync/ingest"
	"crmsync/queue"
)

// CheckFrom refuses a filter that [App.EditFrom] cannot go by: of a file's rows it
// knows the target, the group, the reason and the job.
func CheckFrom(f DeadFilter) error {
	f.Target, f.Group, f.Reason, f.Job = "", "", "", ""
	if !f.IsZero() {
		return errors.New("a file says itself which letters it edits: only a target, a group, a reason or a job may narrow it")
	}
	return nil
}

// EditFrom plans the edits that a corrected export asks for: each row names its
// letter and says what its fields shall be; an empty or masked cell leaves the
// letter's value. A plan, or what is wrong with a row, goes to yield, whose error
// ends it. Rows of letters that the filter does not choose are refused, as are
// those of a second target: without one in the filter that of the first letter
// counts. A letter that is gone is an error that [IsGone] knows.
func (a *App) EditFrom(ctx context.Context, path string, f DeadFilter, yield func(EditPlan, error) error) error {
	if err := CheckFrom(f); err != nil {
		return err
	}
	if _, err := f.filter(); err != nil {
		return err
	}
	first, err := a.firstLetter(ctx, path, f.Target)
	if err != nil {
		return err
	}
	c, err := a.clientOf(first.Target)
	if err != nil {
		return err
	}
	defer c.CloseIdle()
	upload, err := a.uploadOf(ctx, func(yield func(queue.Letter) error) error { return yield(first) })
	if err != nil {
		return err
	}
	in, err := os.Open(path)
	if err != nil {
		return err
	}
	defer in.Close()
	f.Target = first.Target
	return readFixes(in, c, upload, func(x fix) error {
		var p EditPlan
		if err = x.err; err == nil {
			p, err = a.planFix(ctx, c, x, f)
		}
		if err != nil {
			err = fmt.Errorf("%s line %d: %w", path, x.line, err)
		}
		return yield(p, err)
	})
}

func (a *App) planFix(ctx context.Context, c client, fix fix, f DeadFilter) (EditPlan, error) {
	id := fix.letter
	l, err := a.letter(ctx, id)
	if err != nil {
		return EditPlan{}, err
	}
	x := letterOf(l)
	if x.Target != f.Target {
		return EditPlan{Letter: x}, fmt.Errorf("letter %d is of target %s, not of %s", id, x.Target, f.Target)
	}
	if f.Group != "" && x.Group != f.Group || f.Reason != "" && x.Reason != f.Reason || f.Job != "" && x.Job != f.Job {
		return EditPlan{Letter: x}, fmt.Errorf("letter %d is not of those that were chosen", id)
	}
	if err := editable(current(l)); err != nil {
		return EditPlan{Letter: letterOf(l)}, fmt.Errorf("letter %d: %w", id, err)
	}
	if fix.cells {
		fix.fields = changedCells(c, current(l), fix.fields)
	} else if fix.fields, err = unmask(fix.fields, current(l).Fields); err != nil {
		return EditPlan{Letter: x}, fmt.Errorf("letter %d: %w", id, err)
	}
	return planEdit(c, l, &Edits{Fields: fix.fields})
}

// changedCells is what of a row says something else than the letter. A table
// shows a list, a flag or a number in one of several spellings, so a cell that
// reads as the letter's own would is left as it was; where the CRM refuses the
// letter's value, the reading may be the correction.
func changedCells(c client, was *contact.Update, row contact.Patch) contact.Patch {
	out, _ := c.Rules().Without(row, func(path string) bool {
		a, had := at(was.Fields, path)
		b, _ := at(row, path)
		if !had {
			return false
		}
		if shown := hide(path, a); !bytes.Equal(shown, a) {
			text, err := fixCell(c, path, cellText(shown))
			if err == nil && (contact.Patch{{Name: path, Value: text}}).Equal(contact.Patch{{Name: path, Value: b}}) {
				return true
			}
		}
		same, err := fixCell(c, path, cellText(a))
		if err != nil || !(contact.Patch{{Name: path, Value: same}}).Equal(contact.Patch{{Name: path, Value: b}}) {
			return false
		}
		return c.Check(&contact.Update{Contact: was.Contact, Fields: lay(nil, path, a)}) == nil
	})
	return out
}

// firstLetter is the first letter that a row names and that is there: of the
// target, where one is given.
func (a *App) firstLetter(ctx context.Context, path, target string) (queue.Letter, error) {
	in, err := os.Open(path)
	if err != nil {
		return queue.Letter{}, err
	}
	defer in.Close()
	var l queue.Letter
	gone, others := 0, 0
	err = readFixes(in, nil, nil, func(x fix) error {
		if x.err != nil || x.letter == 0 {
			return nil
		}
		found, err := a.letter(ctx, x.letter)
		switch {
		case IsGone(err):
			gone++
			return nil
		case err != nil:
			return err
		case target != "" && found.Target != target:
			others++
			return nil
		}
		l = found
		return errFound
	})
	switch {
	case errors.Is(err, errFound):
		return l, nil
	case err != nil:
		return queue.Letter{}, fmt.Errorf("%s: %w", path, err)
	case others > 0:
		return queue.Letter{}, fmt.Errorf("%s: none of its letters is of target %s", path, target)
	case gone > 0:
		return queue.Letter{}, fmt.Errorf("%s: %w: none of the %d that it names; they were sent, discarded or removed since", path, console.ErrUnknownLetter, gone)
	}
	return queue.Letter{}, fmt.Errorf("%s: no row names a letter in a column %q, as `crmsync dead export` writes it", path, letterColumn)
}

var errFound = errors.New("found")

// fix is a row of a corrected export: its letter and its fields, or what is
// wrong with it.
type fix struct {
	line   int64
	letter uint64
	fields contact.Patch
	cells  bool // the fields were read from text
	err    error
}

// readFixes reads a corrected export, a table or JSON lines. Without a client every
// column is taken as text.
func readFixes(r io.Reader, c client, upload *uploadColumns, yield func(fix) error) error {
	in := bufio.NewReader(r)
	head, _ := in.Peek(512) // fewer, or none, where the file is short
	if head = bytes.TrimLeft(head, " \t\r\n"); len(head) > 0 && head[0] == '{' {
		return readFixLines(in, yield)
	}
	o := ingest.Options{IDColumn: letterColumn}
	if c != nil {
		o.Labels, o.Convert = c.Labels(), func(field, text string) (json.RawMessage, error) { return fixCell(c, field, text) }
	}
	if upload != nil {
		for _, x := range upload.Columns {
			o.Labels[harmlessText(x.Name)] = x.Field
		}
	}
	rows, err := ingest.Open(in, o)
	if err != nil {
		return err
	}
	defer rows.Close()
	for {
		row, err := rows.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		id, err := uint64(0), row.Err
		if err == nil {
			id, err = letterID(row.ID)
		}
		if errors.Is(err, ingest.ErrNothing) {
			continue
		}
		if err := yield(fix{line: row.Line, letter: id, fields: row.Fields, cells: true, err: err}); err != nil {
			return err
		}
	}
}

func letterID(s string) (uint64, error) {
	id, err := strconv.ParseUint(plainText(s), 10, 64)
	if err != nil || id == 0 {
		return 0, fmt.Errorf("%q is not the id of a letter", s)
	}
	return id, nil
}

// fixCell reads a cell as the export wrote it: what Convert does not take may be
// the JSON of a value that no table can show otherwise.
func fixCell(c client, field, text string) (json.RawMessage, error) {
	text = plainText(text)
	if text == maskedText {
		return nil, nil
	}
	v, err := c.Convert(field, text)
	if err != nil && json.Valid([]byte(text)) {
		return json.RawMessage(text), nil
	}
	return v, err
}

// readFixLines reads the lines of an NDJSON export.
func readFixLines(in *bufio.Reader, yield func(fix) error) error {
	s := bufio.NewScanner(in)
	s.Buffer(make([]byte, 64<<10), contact.MaxBody*2)
	for line := int64(1); s.Scan(); line++ {
		text := bytes.TrimSpace(s.Bytes())
		if len(text) == 0 {
			continue
		}
		id, fields, err := fixLine(bytes.Clone(text))
		if err := yield(fix{line: line, letter: id, fields: fields, err: err}); err != nil {
			return err
		}
	}
	return s.Err()
}

func fixLine(text []byte) (uint64, contact.Patch, error) {
	members, err := contact.ParsePatch(text)
	if err != nil {
		return 0, nil, err
	}
	v, _ := members.Get("letter")
	id, err := letterID(string(v))
	if err != nil {
		return 0, nil, err
	}
	v, ok := members.Get("fields")
	if !ok {
		return id, nil, nil
	}
	fields, err := contact.ParsePatch(v)
	if err != nil {
		return id, nil, err
	}
	fields = slices.DeleteFunc(fields, func(f contact.Field) bool { return isSecret(f.Name) && string(f.Value) == masked })
	return id, fields, nil
}
