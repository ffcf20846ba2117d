package perfex

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"unicode/utf16"
)

// encodeText writes a JSON string so that it survives the way into the CRM.
// The raw text of the request goes through a filter before it is parsed
// (crm-apis A3): percent escapes are decoded there, again and again, and a
// decoded quote breaks the JSON. Written as \u0025 a percent sign passes, since
// the filter works on the raw text (inferred). Nothing else is hidden from the
// filter: markup must reach it as markup, or we would carry past the CRM's
// guard what the CRM shows unescaped.
func encodeText(s string) []byte {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	_ = e.Encode(s) // a string into a buffer: cannot fail
	return bytes.ReplaceAll(bytes.TrimRight(b.Bytes(), "\n"), []byte("%"), []byte(`\u0025`))
}

// encodeSecret writes a password with every character but letters and digits
// escaped, so that the filter changes none of it. A password is hashed, never
// shown, so there is nothing for the filter to guard.
func encodeSecret(s string) []byte {
	b := []byte{'"'}
	for _, r := range s {
		switch {
		case '0' <= r && r <= '9', 'a' <= r && r <= 'z', 'A' <= r && r <= 'Z':
			b = append(b, byte(r))
		case r > 0xFFFF:
			hi, lo := utf16.EncodeRune(r)
			b = fmt.Appendf(b, `\u%04x\u%04x`, hi, lo)
		default:
			b = fmt.Appendf(b, `\u%04x`, r)
		}
	}
	return append(b, '"')
}

// body builds the whole write: what changes, and what would be cleared or
// refused if it were not sent.
func (w *wish) body(now *current, policy []int, o writeOptions) []byte {
	var b bytes.Buffer
	b.WriteByte('{')
	put := func(name string, v []byte) {
		if b.Len() > 1 {
			b.WriteByte(',')
		}
		b.WriteString(`"` + name + `":`)
		b.Write(v)
	}
	if _, ok := w.columns[fieldEmail]; !ok {
		put(fieldEmail, encodeText(now.get(fieldEmail))) // required with each update (crm-apis A4)
	}
	for _, name := range slices.Sorted(maps.Keys(w.columns)) {
		if v := w.columns[name]; v == nil {
			put(name, []byte("null"))
		} else {
			put(name, encodeText(*v))
		}
	}
	if w.active != nil {
		put("active", []byte(digit(*w.active)))
	}
	for _, name := range flags {
		if on, ok := w.flags[name]; ok && !on || !ok && !now.on(name) {
			continue // present with any value would set it
		}
		if name == fieldPrimary {
			put(name, []byte(`"on"`))
		} else {
			put(name, []byte(`"`+name+`"`))
		}
	}
	perms := policy
	if w.setPermissions {
		perms = w.permissions
	}
	if len(perms) > 0 {
		list := []byte{'['}
		for i, p := range perms {
			if i > 0 {
				list = append(list, ',')
			}
			list = append(list, `"`+strconv.Itoa(p)+`"`...)
		}
		put(fieldPermissions, append(list, ']'))
	}
	if w.custom != nil {
		put(fieldCustom, w.custom)
	}
	if o.password {
		put(fieldPassword, encodeSecret(w.password))
	}
	if o.mail {
		put(fieldMail, []byte(`"on"`))
	}
	b.WriteByte('}')
	return b.Bytes()
}

// writeOptions say which of the fields that are not compared go out.
type writeOptions struct{ password, mail bool }

func digit(on bool) string {
	if on {
		return "1"
	}
	return "0"
}
