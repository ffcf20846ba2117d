package app

import (
	"bytes"
	"encoding/json"
	"errors"
	"regexp"
	"strings"
	"unicode/utf8"
)

// maskBody masks the secrets of a message's bytes, whatever they are.
func maskBody(b []byte) []byte {
	if json.Valid(b) && utf8.Valid(b) {
		return maskSecrets(b)
	}
	return maskText(b)
}

// maskText masks what looks like a secret field in bytes that are no JSON. Of
// quotes within quotes within quotes it does not look for the end: all that
// follows is masked.
func maskText(b []byte) []byte { return secretText.ReplaceAll(b, []byte(`$1"********"`)) }

var secretText = regexp.MustCompile(`(?i)((?:` + strings.Join(secretFields, "|") + `)[\\"']*\s*[:=]\s*)(?:` + strings.Join([]string{
	`"(?:[^"\\]|\\(?s:.))*"?`,
	`'(?:[^'\\]|\\(?s:.))*'?`,
	`\\"(?:[^"\\]|\\\\(?:\\.|[^\\])|\\[^"\\])*(?:\\")?`, // a text in a text
	`\\{2,}["'](?s:.*)`,
	`[^,}\s]+`,
}, "|") + `)`)

// secretFields are never shown, whatever the CRM.
var secretFields = []string{"password", "new_pass_key", "email_verification_key", "data_base64"}

const (
	masked     = `"********"`
	maskedText = "********"
)

// maskSecrets replaces the values of secret fields, at any depth, also within
// texts that are JSON themselves or begin as if they were.
func maskSecrets(body []byte) json.RawMessage {
	v, err := decodeAny(body)
	if err != nil {
		return maskText(body)
	}
	v, changed := mask(v)
	if !changed {
		return body
	}
	out, err := json.Marshal(v)
	if err != nil {
		return json.RawMessage(masked)
	}
	return out
}

func decodeAny(b []byte) (v any, err error) {
	if !json.Valid(b) { // a decoder stops behind the first value
		return nil, errNoJSON
	}
	dec := json.NewDecoder(bytes.NewReader(b))
	dec.UseNumber()
	err = dec.Decode(&v)
	return v, err
}

var errNoJSON = errors.New("no JSON")

// mask is the value with its secrets masked, and whether that changed anything.
func mask(v any) (out any, changed bool) {
	switch v := v.(type) {
	case map[string]any:
		for k, x := range v {
			if isSecret(k) && x != nil {
				v[k], changed = maskedText, true
			} else if y, ok := mask(x); ok {
				v[k], changed = y, true
			}
		}
	case []any:
		for i, x := range v {
			if y, ok := mask(x); ok {
				v[i], changed = y, true
			}
		}
	case string:
		if t := strings.TrimSpace(v); t == "" || !strings.ContainsRune(`{["`, rune(t[0])) {
			return v, false
		}
		s := string(maskSecrets([]byte(v)))
		return s, s != v
	}
	return v, changed
}

func isSecret(name string) bool {
	for _, s := range secretFields {
		if strings.EqualFold(name, s) {
			return true
		}
	}
	return false
}

// indented is a body as an editor shows it.
func indented(body []byte) []byte {
	if !json.Valid(body) || !utf8.Valid(body) {
		return maskText(body)
	}
	var b bytes.Buffer
	if json.Indent(&b, maskSecrets(body), "", "  ") != nil {
		return body
	}
	b.WriteByte('\n')
	return b.Bytes()
}
