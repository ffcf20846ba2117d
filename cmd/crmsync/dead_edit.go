package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"

	"crmsync/app"
)

type deadEditCmd struct {
	ID uint64 `arg:"" optional:"" help:"The letter; without it those that the filter chooses."`
	letterFilter
	Put     []string `short:"f" placeholder:"FIELD=VALUE" sep:"none" help:"Set a field, read as a spreadsheet's cell is. Repeatable."`
	PutJSON []string `name:"put-json" placeholder:"FIELD=JSON" sep:"none" help:"Set a field to a JSON value; null clears it in the CRM. Repeatable."`
	Unset   []string `placeholder:"FIELD" sep:"none" help:"Take a field out, so that the CRM keeps what it has. Repeatable."`
	Replace []string `placeholder:"FIELD:/RE/TEXT/" sep:"none" help:"Replace what a pattern matches in a field's text. Repeatable."`
	From    string   `placeholder:"FILE" help:"A corrected export (CSV or NDJSON): each row edits its letter."`
	Plan    bool     `help:"Only show what would change."`
	Yes     bool     `short:"y" help:"Do not ask before several letters are changed."`
}

// Help is the command's manual.
func (deadEditCmd) Help() string {
	return `The edit is stored with the letter and checked against the CRM's rules; a later
crmsync dead redrive sends it. The original is kept, and both are shown by
crmsync dead show. Without --put and its kin one letter is opened in $VISUAL or
$EDITOR. Passwords are masked; a mask that is left stands for what it masks.
Letters that somebody else changes between the question and the yes are skipped.
--replace works on what the last edit left: given twice, it replaces twice. Of a file, --target,
--group, --reason and --job take only some rows; a letter that is gone is skipped.
Exit code 3 means that some letters could not be edited so, or were skipped.`
}

// diffsShown is how many changed letters of a group are printed.
const diffsShown = 20

func (c *deadEditCmd) Run(ctx context.Context, g *Globals) error {
	edits, err := c.edits()
	if err == nil {
		err = c.sensible(edits)
	}
	if err != nil {
		return &exitError{exitUsage, err}
	}
	return g.notAField(g.with(ctx, func(a *app.App) error {
		if c.ID != 0 {
			return c.one(ctx, g, a, edits)
		}
		e := editing{g: g, a: a, again: "leaves them as they are", marks: map[uint64]app.Mark{}}
		if len(c.Replace) > 0 {
			e.again = "would replace in what they are now"
		}
		each := func(yield func(app.EditPlan, error) error) error {
			if c.From != "" {
				return a.EditFrom(ctx, c.From, c.filter(), yield)
			}
			return a.EditEach(ctx, c.filter(), func(app.Letter) *app.Edits { return edits }, yield)
		}
		return e.many(ctx, each, c.Plan, c.Yes)
	}))
}

// notAField says what was meant where --set, which is the configuration's, was given
// a field of the contact.
func (g *Globals) notAField(err error) error {
	if err == nil || len(g.Set) == 0 {
		return err
	}
	if _, bad := app.LoadConfig(g.configPath(), g.std.env, g.overrides()); bad == nil {
		return err
	}
	return fmt.Errorf("%w\n--set is for keys of the configuration; a field of the contact is set by --put %s", err, g.Set[0])
}

func (c *deadEditCmd) edits() (*app.Edits, error) {
	e := &app.Edits{Unset: c.Unset}
	for _, s := range c.Put {
		x, err := app.ParseSetting(s)
		if err != nil {
			return nil, fmt.Errorf("--put %w", err)
		}
		e.Set = append(e.Set, x)
	}
	for _, s := range c.PutJSON {
		x, err := app.ParseSetting(s)
		if err != nil {
			return nil, fmt.Errorf("--put-json %w", err)
		}
		e.JSON = append(e.JSON, x)
	}
	for _, s := range c.Replace {
		x, err := app.ParseReplacement(s)
		if err != nil {
			return nil, fmt.Errorf("--replace %w", err)
		}
		e.Replace = append(e.Replace, x)
	}
	return e, nil
}

func (c *deadEditCmd) sensible(e *app.Edits) error {
	switch {
	case c.From != "" && (c.ID != 0 || !e.IsZero()):
		return errors.New("--from says itself which letters become what; it goes with no id and no other edit")
	case c.From != "" && app.CheckFrom(c.filter()) != nil:
		return fmt.Errorf("--from: %w", app.CheckFrom(c.filter()))
	case c.ID != 0 && !c.filter().IsZero():
		return errors.New("name one letter by its id, or choose them with a filter, not both")
	case c.ID == 0 && c.From == "" && c.filter().IsZero():
		return errors.New("name a letter, or choose letters with a filter such as --group")
	case c.ID == 0 && c.From == "" && e.IsZero():
		return errors.New("say what to change in them: --put, --put-json, --unset, --replace or --from")
	}
	return nil
}

// one edits a single letter, by flags or in an editor.
func (c *deadEditCmd) one(ctx context.Context, g *Globals, a *app.App, edits *app.Edits) error {
	if edits.IsZero() {
		text, err := a.EditText(ctx, c.ID)
		if err != nil {
			return err
		}
		body, err := g.editor(ctx, text)
		if err != nil {
			return err
		}
		if bytes.Equal(body, text) {
			g.say("nothing was changed")
			return nil
		}
		edits.Body = body
	}
	p, err := a.PlanEdit(ctx, c.ID, edits)
	if app.IsBadUpdate(err) {
		return &exitError{exitRejects, fmt.Errorf("not stored: %w", err)}
	}
	if err != nil {
		return err
	}
	if len(p.Changes) == 0 {
		g.say("letter %d: nothing was changed", c.ID)
		return g.editAnswer(edited{Letters: 1, Unchanged: 1}, []app.EditPlan{p})
	}
	e := edited{Letters: 1, Planned: 1}
	if !c.Plan {
		if err := a.Edit(ctx, g.who(), p); err != nil {
			return err
		}
		e = edited{Letters: 1, Edited: 1}
	}
	return g.editAnswer(e, []app.EditPlan{p})
}

// edited counts what became of letters that were to be edited.
type edited struct {
	Letters   int64 `json:"letters"`
	Edited    int64 `json:"edited"`
	Planned   int64 `json:"planned,omitempty"` // would be edited
	Unchanged int64 `json:"unchanged"`
	Refused   int64 `json:"refused"`
	Skipped   int64 `json:"skipped,omitempty"` // gone, or not any more as they were shown
}

// editing is an edit of several letters. It goes through them twice: once to
// show what would change, and, when that is agreed to, to store just that.
type editing struct {
	g     *Globals
	a     *app.App
	again string // what the same edit does to letters that have it
	sum   edited
	shown []app.EditPlan
	marks map[uint64]app.Mark // of what was shown
}

func (e *editing) many(ctx context.Context, each func(func(app.EditPlan, error) error) error, planOnly, yes bool) error {
	if err := each(e.look); err != nil {
		return err
	}
	if e.sum.Letters == 0 {
		e.g.say("no dead letters match")
		return nil
	}
	if planOnly || e.sum.Planned == 0 {
		return e.end()
	}
	if !yes {
		if !e.g.JSON {
			e.g.printEdits(e.shown)
		}
		if err := e.g.confirm("store the edit of %d letter(s)?", e.sum.Planned); err != nil {
			return err
		}
	}
	who := e.g.who()
	e.sum.Planned = 0
	err := each(func(p app.EditPlan, _ error) error {
		mark, ok := e.marks[p.Letter.ID]
		if !ok {
			return nil // it was not shown, or has had its turn
		}
		delete(e.marks, p.Letter.ID)
		err := e.a.EditShown(ctx, who, p, mark)
		switch {
		case err == nil:
			e.sum.Edited++
		case app.IsChanged(err):
			e.skip(err)
		default:
			e.refuse(err)
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("%w\n%d letters were edited before that; the same edit again %s", err, e.sum.Edited, e.again)
	}
	e.sum.Skipped += int64(len(e.marks)) // they are no dead letters any more
	return e.end()
}

// look takes a plan, the first time.
func (e *editing) look(p app.EditPlan, err error) error {
	e.sum.Letters++
	switch {
	case app.IsGone(err):
		e.skip(err)
	case err != nil:
		e.refuse(err)
	case len(p.Changes) == 0:
		e.sum.Unchanged++
	case e.marks[p.Letter.ID] != app.Mark{}:
		e.refuse(fmt.Errorf("letter %d: it is named before, with another edit", p.Letter.ID))
	default:
		e.sum.Planned++
		e.marks[p.Letter.ID] = p.Mark()
		if len(e.shown) < diffsShown {
			e.shown = append(e.shown, p)
		}
	}
	return nil
}

func (e *editing) refuse(err error) {
	if e.sum.Refused++; e.sum.Refused <= diffsShown {
		fmt.Fprintln(e.g.std.err, "not edited:", err)
	}
}

func (e *editing) skip(err error) {
	if e.sum.Skipped++; e.sum.Skipped <= diffsShown {
		fmt.Fprintln(e.g.std.err, "skipped:", err)
	}
}

func (e *editing) end() error {
	if err := e.g.editAnswer(e.sum, e.shown); err != nil {
		return err
	}
	if e.sum.Refused+e.sum.Skipped > 0 {
		return &exitError{code: exitRejects}
	}
	return nil
}

// editedLetter is one changed letter in a command's answer.
type editedLetter struct {
	ID      uint64            `json:"id"`
	Target  string            `json:"target"`
	Contact string            `json:"contact"`
	Changes []app.FieldChange `json:"changes"`
}

func (g *Globals) editAnswer(sum edited, plans []app.EditPlan) error {
	if g.JSON {
		out := struct {
			edited
			Letters []editedLetter `json:"first"`
		}{edited: sum, Letters: []editedLetter{}}
		for _, p := range plans {
			out.Letters = append(out.Letters, editedLetter{p.Letter.ID, p.Letter.Target, p.Letter.Contact, p.Changes})
		}
		return g.printJSON(out)
	}
	g.printEdits(plans)
	switch {
	case sum.Planned > 0:
		fmt.Fprintf(g.std.out, "%d letter(s) would be edited", sum.Planned)
	default:
		fmt.Fprintf(g.std.out, "%d letter(s) edited", sum.Edited)
	}
	fmt.Fprintf(g.std.out, ", %d unchanged, %d refused\n", sum.Unchanged, sum.Refused)
	if sum.Skipped > 0 {
		g.say("%d skipped: they were edited, sent, discarded or removed meanwhile", sum.Skipped)
	}
	if sum.Edited > 0 {
		g.say("nothing was sent: crmsync dead redrive does that")
	}
	return nil
}

func (g *Globals) printEdits(plans []app.EditPlan) {
	for _, p := range plans {
		if len(p.Changes) == 0 {
			continue
		}
		fmt.Fprintf(g.std.out, "letter %d: contact %s of %s\n", p.Letter.ID, printable(p.Letter.Contact), p.Letter.Target)
		g.printChanges("  ", p.Changes)
	}
}

func (g *Globals) printChanges(indent string, changes []app.FieldChange) {
	for _, c := range changes {
		if c.Before != nil {
			fmt.Fprintf(g.std.out, "%s- %s: %s\n", indent, printable(c.Field), printable(string(c.Before)))
		}
		if c.After != nil {
			fmt.Fprintf(g.std.out, "%s+ %s: %s\n", indent, printable(c.Field), printable(string(c.After)))
		}
	}
}

// editor opens a text in the user's editor and returns what became of it. The
// file is readable by the user alone and is removed.
func (g *Globals) editor(ctx context.Context, text []byte) ([]byte, error) {
	command := g.getenv("VISUAL")
	if command == "" {
		command = g.getenv("EDITOR")
	}
	if command == "" {
		return nil, &exitError{exitUsage, errors.New("neither VISUAL nor EDITOR names an editor; use --put, --put-json, --unset or --replace")}
	}
	dir, err := os.MkdirTemp(g.getenv("XDG_RUNTIME_DIR"), "crmsync-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	path := filepath.Join(dir, "letter.json")
	if err := os.WriteFile(path, text, 0o600); err != nil {
		return nil, err
	}
	// The variable may hold arguments, as EDITOR="code --wait": a shell reads it.
	cmd := exec.CommandContext(ctx, "sh", "-c", command+` "$1"`, "sh", path)
	cmd.Stdin, cmd.Stdout, cmd.Stderr, cmd.Env = g.std.in, g.std.err, g.std.err, g.std.env
	if err := cmd.Run(); err != nil {
		return nil, fmt.Errorf("the editor %s: %w; nothing was stored", command, err)
	}
	return os.ReadFile(path)
}
