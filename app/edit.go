package app

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"unicode/utf8"

	"crmsync/contact"
)

// Edits change the fields of a dead letter. They are carried out in the order
// of the members: a whole new body first, a field that is taken out last.
type Edits struct {
	Body    []byte        // the whole body anew; nil keeps the letter's
	Fields  contact.Patch // laid over the letter's, as a newer update would be
	Set     []Setting     // each a text, which the CRM's package makes a value of
	JSON    []Setting     // each a JSON value
	Replace []Replacement
	Unset   []string // fields that the update shall not mention
}

// Setting is one field and what it shall be.
type Setting struct{ Field, Value string }

// ParseSetting reads FIELD=VALUE.
func ParseSetting(s string) (Setting, error) {
	field, value, ok := strings.Cut(s, "=")
	if !ok || field == "" {
		return Setting{}, fmt.Errorf("%q: write it as FIELD=VALUE", s)
	}
	return Setting{Field: field, Value: value}, nil
}

// Replacement replaces what a pattern matches in a field's text.
type Replacement struct {
	Field string
	Find  *regexp.Regexp
	With  string // $1 is the first group
}

// ParseReplacement reads FIELD:/PATTERN/TEXT/; any character but a letter, a
// digit, a backslash or a blank may stand for the slashes.
func ParseReplacement(s string) (Replacement, error) {
	field, rule, ok := strings.Cut(s, ":")
	bad := fmt.Errorf("%q: write it as FIELD:/PATTERN/TEXT/, where another character may stand for the slashes", s)
	mark, n := utf8.DecodeRuneInString(rule)
	if !ok || field == "" || mark == utf8.RuneError || strings.ContainsRune(`\ `, mark) || isWord(mark) {
		return Replacement{}, bad
	}
	part := strings.Split(rule[n:], string(mark))
	if len(part) != 3 || part[0] == "" || part[2] != "" {
		return Replacement{}, bad
	}
	re, err := regexp.Compile(part[0])
	if err != nil {
		return Replacement{}, fmt.Errorf("%q: %w", s, err)
	}
	return Replacement{Field: field, Find: re, With: part[1]}, nil
}

func isWord(r rune) bool {
	return r >= '0' && r <= '9' || r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z'
}

// IsZero says that nothing is to be changed.
func (e *Edits) IsZero() bool {
	return e.Body == nil && len(e.Fields)+len(e.Set)+len(e.JSON)+len(e.Replace)+len(e.Unset) == 0
}

// FieldChange is what an edit does to one field. Values of secret fields are
// masked.
type FieldChange struct {
	Field  string          `json:"field"` // its path, as address.city
	Before json.RawMessage `json:"before,omitempty"`
	After  json.RawMessage `json:"after,omitempty"`
}

// errNoChange says that an edit leaves a letter as it is.
var errNoChange = errors.New("the edit changes nothing")

// editable is the letter's update, if its bytes are one that can be edited field
// by field.
func editable(u *contact.Update) error {
	if bad := u.Bad; bad != nil && bad.Reason == contact.Malformed {
		return fmt.Errorf("its bytes are no update (%s); give it a whole body", bad.Detail)
	}
	return nil
}

// edit carries out an edit of one letter and returns the new update, checked
// against the CRM's rules. The error is a *[contact.BadUpdate] where the result
// breaks one, and errNoChange where it is what was there.
func edit(c client, letter *contact.Update, e *Edits) (*contact.Update, error) {
	u := *letter
	if e.Body != nil {
		// Without the old headers: of an event they would say what the new
		// body is.
		n := contact.Decode(bytes.TrimSpace(e.Body), nil)
		if n.Bad != nil {
			return nil, n.Bad
		}
		fields, err := unmask(n.Fields, letter.Fields)
		if err != nil {
			return nil, err
		}
		u.Fields, u.Version, u.Versioned, u.OccurredAt, u.Bad = fields, n.Version, n.Versioned, n.OccurredAt, nil
	} else if err := editable(letter); err != nil {
		return nil, err
	}
	rules := c.Rules()
	fields := rules.Merge(u.Fields, e.Fields)
	for _, s := range e.Set {
		v, err := c.Convert(s.Field, s.Value)
		if err != nil {
			return nil, &contact.BadUpdate{Reason: contact.Invalid, Field: s.Field, Detail: err.Error()}
		}
		fields = lay(fields, s.Field, v)
	}
	for _, s := range e.JSON {
		if !json.Valid([]byte(s.Value)) {
			return nil, &contact.BadUpdate{Reason: contact.Invalid, Field: s.Field, Detail: "not a JSON value"}
		}
		fields = lay(fields, s.Field, json.RawMessage(s.Value))
	}
	for _, r := range e.Replace {
		var err error
		if fields, err = r.apply(fields); err != nil {
			return nil, err
		}
	}
	for _, name := range e.Unset {
		fields, _ = rules.Without(fields, func(path string) bool { return path == name || strings.HasPrefix(path, name+".") })
	}
	u.Fields, u.Bad = fields, nil
	body, err := contact.Encode(&u)
	if err != nil {
		var bad *contact.BadUpdate
		if errors.As(err, &bad) {
			return nil, bad
		}
		return nil, err
	}
	if bad := c.Check(&u); bad != nil {
		return nil, bad
	}
	if letter.Bad == nil && letter.Fields.Equal(u.Fields) && letter.Version == u.Version && letter.Versioned == u.Versioned {
		return nil, errNoChange
	}
	u.Raw, u.Header = body, nil
	return &u, nil
}

// unmask puts a secret that was shown as a mask, and left so, back.
func unmask(p, original contact.Patch) (contact.Patch, error) {
	for _, f := range p {
		v, ok := original.Get(f.Name)
		if ok && leftMasked(f.Name, f.Value, v) {
			p = p.With(f.Name, v)
			continue
		}
		if !isSecret(f.Name) || string(f.Value) != masked {
			continue
		}
		if !ok {
			return nil, &contact.BadUpdate{Reason: contact.Invalid, Field: f.Name, Detail: "the mask stands for a value that the letter does not have"}
		}
		p = p.With(f.Name, v)
	}
	return p, nil
}

// leftMasked says that a value is what is shown of another that holds secrets.
func leftMasked(path string, v, original json.RawMessage) bool {
	shown := hide(path, original)
	return !bytes.Equal(shown, original) && (contact.Patch{{Name: path, Value: shown}}).Equal(contact.Patch{{Name: path, Value: v}})
}

// lay sets a field; with a dot in its name, a member of an object.
func lay(p contact.Patch, path string, v json.RawMessage) contact.Patch {
	field, member, dotted := strings.Cut(path, ".")
	if !dotted {
		return p.With(field, v)
	}
	old, _ := p.Get(field)
	members, err := contact.ParsePatch(old)
	if err != nil {
		members = nil // it was no object: the member makes it one
	}
	out, err := members.With(member, v).MarshalJSON()
	if err != nil {
		return p.With(path, v) // Encode says what is wrong with it
	}
	return p.With(field, out)
}

// at finds a field's value by its path.
func at(p contact.Patch, path string) (json.RawMessage, bool) {
	if v, ok := p.Get(path); ok {
		return v, true
	}
	field, member, dotted := strings.Cut(path, ".")
	if !dotted {
		return nil, false
	}
	v, ok := p.Get(field)
	members, err := contact.ParsePatch(v)
	if !ok || err != nil {
		return nil, false
	}
	return members.Get(member)
}

// apply leaves a letter without the field as it is: of a group some may lack it.
func (r Replacement) apply(p contact.Patch) (contact.Patch, error) {
	v, ok := at(p, r.Field)
	if !ok {
		return p, nil
	}
	var s string
	if json.Unmarshal(v, &s) != nil {
		return nil, &contact.BadUpdate{Reason: contact.Invalid, Field: r.Field, Detail: "not a text: nothing can be replaced in it"}
	}
	changed := r.Find.ReplaceAllString(s, r.With)
	if changed == s {
		return p, nil
	}
	out, err := json.Marshal(changed)
	if err != nil {
		return nil, err
	}
	return lay(p, r.Field, out), nil
}

// fieldChanges is what lies between two updates, path by path.
func fieldChanges(rules contact.Rules, before, after *contact.Update) []FieldChange {
	out := []FieldChange{}
	was, is := paths(rules, before.Fields), paths(rules, after.Fields)
	for _, path := range union(was, is) {
		a, hadIt := was[path]
		b, hasIt := is[path]
		if hadIt && hasIt && (contact.Patch{{Name: path, Value: a}}).Equal(contact.Patch{{Name: path, Value: b}}) {
			continue
		}
		out = append(out, FieldChange{Field: path, Before: hide(path, a), After: hide(path, b)})
	}
	version := func(u *contact.Update) json.RawMessage {
		if !u.Versioned {
			return nil
		}
		return json.RawMessage(fmt.Sprint(u.Version))
	}
	if a, b := version(before), version(after); !bytes.Equal(a, b) {
		out = append(out, FieldChange{Field: "(version)", Before: a, After: b})
	}
	return out
}

func paths(rules contact.Rules, p contact.Patch) map[string]json.RawMessage {
	out := map[string]json.RawMessage{}
	for _, f := range p {
		if members, err := contact.ParsePatch(f.Value); err == nil && len(members) > 0 && slices.Contains(rules.Deep, f.Name) {
			for _, m := range members {
				out[f.Name+"."+m.Name] = m.Value
			}
			continue
		}
		out[f.Name] = f.Value
	}
	return out
}

func union(a, b map[string]json.RawMessage) []string {
	names := sortedKeys(a)
	for _, name := range sortedKeys(b) {
		if _, ok := a[name]; !ok {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}

// hide is the value as it may be shown.
func hide(path string, v json.RawMessage) json.RawMessage {
	if v == nil {
		return nil
	}
	for name := range strings.SplitSeq(path, ".") {
		if isSecret(name) && string(v) != "null" {
			return json.RawMessage(masked)
		}
	}
	return maskSecrets(v)
}
