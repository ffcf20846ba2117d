package app

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"crmsync/emulator"
)

func TestSecretsAreMaskedInLetters(t *testing.T) {
	got := string(maskSecrets([]byte(`{"fields":{"password":"hunter2","deep":[{"Password":"hunter2"}],"title":"x","n":12345678901234567890}}`)))
	if strings.Contains(got, "hunter2") || !strings.Contains(got, `"title":"x"`) || !strings.Contains(got, "12345678901234567890") {
		t.Errorf("masked: %s", got)
	}
}

func TestMaskText(t *testing.T) {
	for in, want := range map[string]string{
		`{"password":"hunter2","a":`:                           `{"password":"********","a":`,
		`password = hunter2, x`:                                `password = "********", x`,
		`{'Password': "hun\"ter2`:                              `{'Password': "********"`,
		`{"data_base64":"aHVudGVyMg=`:                          `{"data_base64":"********"`,
		`nothing here`:                                         `nothing here`,
		`{'password': 'a b', 'c':`:                             `{'password': "********", 'c':`,
		`"{\"password\":\"hunter2 \\\"of, Ely\\\"}\",\"a\":1}`: `"{\"password\":"********",\"a\":1}`,
		`"\"{\\\"password\\\":\\\"hunter2, x\\\"}\"`:           `"\"{\\\"password\\\":"********"`,
	} {
		if got := string(maskText([]byte(in))); got != want {
			t.Errorf("%s: %s, want %s", in, got, want)
		}
	}
}

// However often a message was made a text, whole or cut off, and wherever that
// text stands, its password is not shown.
func TestSecretsWithinTexts(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		secret := "hunter2" + rapid.StringMatching(`[a-z"\\,}{' \n]{0,8}`).Draw(t, "secret") + "hunter2"
		var v any = map[string]any{"fields": map[string]any{"Password": secret, "title": "x"}}
		for range rapid.IntRange(0, 4).Draw(t, "depth") {
			switch rapid.IntRange(0, 2).Draw(t, "in") {
			case 0:
				v = []any{1, v}
			case 1:
				v = map[string]any{"a": v}
			default:
				b, err := json.Marshal(v)
				if err != nil {
					t.Fatal(err)
				}
				v = string(b)
			}
		}
		b, err := json.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		got := maskBody(b)
		if bytes.Contains(got, []byte("hunter2")) || !json.Valid(got) {
			t.Fatalf("%s shows %s", b, got)
		}
		if b = b[:rapid.IntRange(0, len(b)-1).Draw(t, "cut")]; bytes.Contains(maskBody(b), []byte("hunter2")) {
			t.Fatalf("%s shows %s", b, maskBody(b))
		}
	})
	for in, want := range map[string]string{
		`{"note":"my password: none"}`:                     `{"note":"my password: none"}`,
		`{"note":"[password]"}`:                            `{"note":"[password]"}`,
		`{"note":"{\"password\":\"hunter2\"}","a":1}`:      `{"a":1,"note":"{\"password\":\"********\"}"}`,
		`{"note":" {\"password\":\"hunter2 x, y\"","a":1}`: `{"a":1,"note":" {\"password\":\"********\""}`,
	} {
		if got := string(maskBody([]byte(in))); got != want {
			t.Errorf("%s: %s, want %s", in, got, want)
		}
	}
}

// A message that is a JSON text is shown nowhere with its password, and what is
// left masked in a file stays what it was.
func TestSecretsWithinTextsOfLetters(t *testing.T) {
	t.Parallel()
	h := newHouse(t, emulator.Options{}, emulator.Options{})
	a := h.open()
	defer a.Close()
	h.raw(a, "office", "5", `"{\"fields\":{\"password\":\"hunter2\"}}"`)
	h.raw(a, "office", "77", `{"fields":{"title":"{\"password\":\"hunter2\"}","firstname":"x"}}`)
	stop := h.work(a)
	defer stop()
	h.settled(a)
	for contact, l := range h.letters(a, DeadFilter{}) {
		full, err := a.Letter(t.Context(), l.ID)
		if err != nil {
			t.Fatal(err)
		}
		shown, err := json.Marshal(full)
		if err != nil {
			t.Fatal(err)
		}
		text, err := a.EditText(t.Context(), l.ID)
		if err != nil || strings.Contains(string(text)+string(shown)+string(full.Bytes), "hunter2") {
			t.Errorf("contact %s: %s, %s, %v", contact, shown, text, err)
		}
		if contact == "77" {
			p, err := a.PlanEdit(t.Context(), l.ID, &Edits{Body: bytes.Replace(text, []byte(`"x"`), []byte(`"y"`), 1)})
			if err != nil || len(p.Changes) != 1 || p.Changes[0].Field != "firstname" || !bytes.Contains(p.body, []byte("hunter2")) {
				t.Errorf("in an editor: %+v, %v, %s", p.Changes, err, p.body)
			}
		}
	}
	for _, format := range []string{ExportCSV, ExportNDJSON} {
		text, path := h.export(a, DeadFilter{}, format)
		if strings.Contains(text, "hunter2") {
			t.Errorf("exported: %s", text)
		}
		plans, _ := h.plans(a, path, DeadFilter{Reason: "missing"})
		if len(plans) != 1 || len(plans[0].Changes) != 0 {
			t.Errorf("%s: %+v", format, plans)
		}
	}
	var out bytes.Buffer
	var line ExportedLetter
	if _, _, err := a.Export(t.Context(), ann, DeadFilter{Reason: "malformed"}, nil, ExportNDJSON, &out); err != nil || json.Unmarshal(out.Bytes(), &line) != nil ||
		len(line.Bytes) == 0 || bytes.Contains(line.Bytes, []byte("hunter2")) {
		t.Errorf("%s, %v", line.Bytes, err)
	}
}
