package emulator

import (
	"bytes"
	"encoding/json"
	"io"
	"mime"
	"mime/multipart"
	"net/url"
	"regexp"
	"strconv"
	"strings"
	"unicode/utf8"
)

var (
	// Rewritten after decoding; a list of the effects that matter to values,
	// not of everything the filter knows (crm-apis A3).
	scripts   = regexp.MustCompile(`(?i)</*(?:script|xss)[^>]*>`)
	protocols = regexp.MustCompile(`(?i)(?:javascript|vbscript|jscript|wscript)\s*:`)
	calls     = regexp.MustCompile(`(?i)(alert|prompt|confirm|eval|exec|expression|system|passthru|fopen|unlink)(\s*)\(([^)]*)\)`)
	tags      = regexp.MustCompile(`(?i)<(/*\s*(?:iframe|object|embed|applet|form|input|link|meta|style|svg|base|body|html|head|frame|frameset|layer|math|video|audio|isindex|textarea|button|select|title|xml|plaintext|keygen|bgsound|blink|basefont|behavior|expression|ilayer)[^<>]*)>`)
)

// xssClean does to text what the framework does to a body before it is
// parsed: percent escapes are decoded until none is left, tabs become spaces,
// control characters go, and what looks like a script is rewritten.
func xssClean(s string) string {
	s = visible(s)
	for strings.Contains(s, "%") {
		decoded := percentDecode(s)
		if decoded == s {
			break
		}
		s = decoded
	}
	s = strings.ReplaceAll(visible(s), "\t", " ")
	s = forbiddenText.Replace(s)
	// The looks ahead are cheap, the expressions are not, and nearly no body
	// needs them.
	if strings.Contains(strings.ToLower(s), "script") {
		s = protocols.ReplaceAllString(s, "[removed]")
	}
	if strings.Contains(s, "<") {
		s = scripts.ReplaceAllString(s, "[removed]")
		s = tags.ReplaceAllString(s, "&lt;$1&gt;")
	}
	if strings.Contains(s, "(") {
		s = calls.ReplaceAllString(s, "$1$2&#40;$3&#41;")
	}
	return s
}

var forbiddenText = strings.NewReplacer(
	"<?", "&lt;?", "?>", "?&gt;", "<!--", "&lt;!--", "-->", "--&gt;", "document.cookie", "[removed]", "document.write", "[removed]",
)

// visible drops control characters other than tab and the ends of lines.
func visible(s string) string {
	hidden := func(r rune) bool { return r < ' ' && r != '\t' && r != '\n' && r != '\r' || r == 0x7f }
	if strings.IndexFunc(s, hidden) < 0 {
		return s
	}
	// By bytes: what is no UTF-8 must come through as it is.
	b := make([]byte, 0, len(s))
	for i := range len(s) {
		if !hidden(rune(s[i])) {
			b = append(b, s[i])
		}
	}
	return string(b)
}

// percentDecode decodes every %XX once and leaves the rest alone.
func percentDecode(s string) string {
	var b strings.Builder
	b.Grow(len(s))
	for i := 0; i < len(s); i++ {
		if s[i] == '%' && i+2 < len(s) {
			if n, err := strconv.ParseUint(s[i+1:i+3], 16, 8); err == nil {
				b.WriteByte(byte(n))
				i += 2
				continue
			}
		}
		b.WriteByte(s[i])
	}
	return b.String()
}

// phpBody reads a body as the contact PUT does: filtered, then as one JSON
// value whatever the content type says. ok is false for what ends in 406.
func phpBody(body []byte) (fields map[string]any, ok bool) {
	s := xssClean(string(body))
	if !utf8.ValidString(s) {
		return nil, false
	}
	v, ok := decodeJSON([]byte(s))
	if !ok {
		return nil, false
	}
	switch v := v.(type) {
	case map[string]any:
		fields = v
	case []any: // PHP makes no difference between the two
		fields = map[string]any{}
		for i, x := range v {
			fields[strconv.Itoa(i)] = x
		}
	}
	return fields, len(fields) > 0
}

func decodeJSON(b []byte) (v any, ok bool) {
	d := json.NewDecoder(bytes.NewReader(b))
	d.UseNumber()
	if d.Decode(&v) != nil {
		return nil, false
	}
	if _, err := d.Token(); err != io.EOF {
		return nil, false
	}
	return v, true
}

// formValues reads a form body as PHP fills $_POST; nil if it is none.
func formValues(cl *call) map[string]any {
	kind, params, err := mime.ParseMediaType(cl.header.Get("Content-Type"))
	if err != nil {
		return nil
	}
	fields := map[string]any{}
	switch kind {
	case "application/x-www-form-urlencoded":
		q, _ := url.ParseQuery(string(cl.body))
		for k := range q {
			addForm(fields, k, q[k])
		}
	case "multipart/form-data":
		f, err := multipart.NewReader(bytes.NewReader(cl.body), params["boundary"]).ReadForm(maxBody)
		if err != nil {
			return nil
		}
		defer func() { _ = f.RemoveAll() }()
		for k := range f.Value {
			addForm(fields, k, f.Value[k])
		}
	default:
		return nil
	}
	return fields
}

// addForm adds one form field: name[] is a list, anything else its last value.
func addForm(fields map[string]any, name string, values []string) {
	if list, ok := strings.CutSuffix(name, "[]"); ok {
		all := make([]any, len(values))
		for i, v := range values {
			all[i] = v
		}
		fields[list] = all
		return
	}
	fields[name] = values[len(values)-1]
}

// scalar is the text of a JSON value as PHP hands it to the database; ok is
// false for lists and objects.
func scalar(v any) (s string, ok bool) {
	switch v := v.(type) {
	case nil:
		return "", true
	case string:
		return v, true
	case json.Number:
		return v.String(), true
	case bool:
		if v {
			return "1", true
		}
		return "0", true
	}
	return "", false
}
