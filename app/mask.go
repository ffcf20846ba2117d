package app

import (
	"bytes"
	"encoding/json"
	"regexp"
	"strings"
	"unicode/utf8"
)

// maskText masks what looks like a secret field in bytes that are no JSON.
func maskText(b []byte) []byte { return secretText.ReplaceAll(b, []byte(`$1"********"`)) }

var secretText = regexp.MustCompile(`(?i)((?:` + strings.Join(secretFields, "|") + `)["']?\s*[:=]\s*)("(?:[^"\\]|\\.)*"?|[^,}\s]+)`)

// secretFields are never shown, whatever the CRM.
var secretFields = []string{"password", "new_pass_key", "email_verification_key", "data_base64"}

const (
	masked     = `"********"`
	maskedText = "********"
)

// maskSecrets replaces the values of secret fields, at any depth.
func maskSecrets(body []byte) json.RawMessage {
	var v any
	dec := json.NewDecoder(strings.NewReader(string(body)))
	dec.UseNumber()
	if dec.Decode(&v) != nil || !mask(v) {
		return body
	}
	out, err := json.Marshal(v)
	if err != nil {
		return json.RawMessage(masked)
	}
	return out
}

// mask says whether it changed anything.
func mask(v any) bool {
	changed := false
	switch v := v.(type) {
	case map[string]any:
		for k, x := range v {
			if isSecret(k) && x != nil {
				v[k], changed = strings.Trim(masked, `"`), true
			} else if mask(x) {
				changed = true
			}
		}
	case []any:
		for _, x := range v {
			changed = mask(x) || changed
		}
	}
	return changed
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
