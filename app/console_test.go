package app

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"crmsync/console"
	"crmsync/emulator"
)

// page is a client of the console's API.
type page struct {
	t    *testing.T
	base string
}

func (p page) do(method, path, body string) (int, string) {
	p.t.Helper()
	req, err := http.NewRequestWithContext(p.t.Context(), method, p.base+path, strings.NewReader(body))
	if err != nil {
		p.t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/json")
	c := http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	r, err := c.Do(req)
	if err != nil {
		p.t.Fatal(err)
	}
	defer r.Body.Close()
	b, err := io.ReadAll(r.Body)
	if err != nil {
		p.t.Fatal(err)
	}
	return r.StatusCode, string(b)
}

func TestLettersOnTheConsole(t *testing.T) {
	t.Parallel()
	h := newHouse(t, emulator.Options{Contacts: 10}, emulator.Options{}, "http.listen=127.0.0.1:0")
	a := h.open()
	defer a.Close()
	for _, id := range []string{"77", "78", "79"} {
		h.raw(a, "office", id, `{"fields":{"title":"Nobody","password":"hunter2"}}`)
	}
	stop := h.work(a)
	defer stop()
	h.settled(a)
	ctx, cancel := context.WithCancel(t.Context())
	addr, wait, err := a.Serve(ctx)
	if err != nil {
		t.Fatal(err)
	}
	p := page{t, "http://" + addr}
	_, text := p.do("GET", "/api/v1/dead/groups", "")
	var groups struct{ Groups []LetterGroup }
	if err := json.Unmarshal([]byte(text), &groups); err != nil || len(groups.Groups) != 1 || groups.Groups[0].Count != 3 {
		t.Fatalf("%s, %v", text, err)
	}
	group := groups.Groups[0].Fingerprint
	_, text = p.do("GET", "/api/v1/dead?limit=2&group="+group, "")
	var first newest
	if err := json.Unmarshal([]byte(text), &first); err != nil || len(first.Letters) != 2 || first.Next != first.Letters[1].ID {
		t.Fatalf("%s, %v", text, err)
	}
	_, text = p.do("GET", "/api/v1/dead?limit=2&after="+first.Next, "")
	if strings.Count(text, `"contact"`) != 1 || strings.Contains(text, `"next"`) {
		t.Errorf("the second page: %s", text)
	}
	id := first.Letters[0].ID
	if status, text := p.do("GET", "/api/v1/dead/letters/"+id, ""); status != 200 || !strings.Contains(text, "Nobody") || strings.Contains(text, "hunter2") {
		t.Errorf("%d %s", status, text)
	}
	for path, body := range map[string]string{
		"letters/99999": "", "redrive": `{"ids":["99999"]}`, "discard": `{"ids":["99999"],"why":"x"}`,
	} {
		method := "POST"
		if body == "" {
			method = "GET"
		}
		if status, text := p.do(method, "/api/v1/dead/"+path, body); status != 404 {
			t.Errorf("%s: %d %s", path, status, text)
		}
	}
	status, text := p.do("POST", "/api/v1/dead/redrive", `{"target":"office","group":"`+group+`","plan":true}`)
	if status != 200 || !strings.Contains(text, `"sendable":3`) || !strings.Contains(text, `"text":"3 letter(s), 3 would be sent`) {
		t.Errorf("%d %s", status, text)
	}
	h.office.Put("77", map[string]any{"userid": "1", "email": "n77@example.com", "active": "1"})
	status, text = p.do("POST", "/api/v1/dead/redrive", `{"target":"office","group":"`+group+`"}`)
	if status != 200 || !strings.Contains(text, "sends 3 letter(s) again") {
		t.Errorf("%d %s", status, text)
	}
	for end := time.Now().Add(20 * time.Second); ; {
		list, err := a.Operations(t.Context())
		if err != nil || time.Now().After(end) {
			t.Fatalf("%+v, %v", list, err)
		}
		if len(list) == 1 && list[0].State == OperationDone && list[0].By == "console from 127.0.0.1" && list[0].Via == "api" {
			break
		}
	}
	if c, _ := h.office.Contact("77"); c["title"] != "Nobody" {
		t.Errorf("contact 77: %v", c["title"])
	}
	left := h.letters(a, DeadFilter{})
	body := `{"ids":["` + strconv.FormatUint(left["78"].ID, 10) + `"],"why":"left"}`
	if status, text := p.do("POST", "/api/v1/dead/discard", body); status != 200 || !strings.Contains(text, "1 letter(s) discarded") {
		t.Errorf("%d %s", status, text)
	}
	trail, err := a.Audit(t.Context(), AuditFilter{Action: "discard"})
	if err != nil || len(trail) != 1 || trail[0].By != "console from 127.0.0.1" || trail[0].Via != "api" || trail[0].Contact != "78" {
		t.Errorf("%+v, %v", trail, err)
	}
	// What the page began ends with the server.
	if err := a.Hold(t.Context(), ann, "office", "", time.Time{}); err != nil {
		t.Fatal(err)
	}
	h.obeyed(a, "office")
	if status, text := p.do("POST", "/api/v1/dead/redrive", `{"ids":["`+strconv.FormatUint(left["79"].ID, 10)+`"]}`); status != 200 {
		t.Errorf("%d %s", status, text)
	}
	for h.letters(a, DeadFilter{})["79"].State != "redriven" { // it is under way
	}
	status, text = p.do("POST", "/api/v1/dead/discard", `{"target":"office","group":"`+group+`","why":"x"}`)
	if status != 200 || !bytes.Contains([]byte(text), []byte("1 letter(s) are being discarded")) {
		t.Errorf("%d %s", status, text)
	}
	status, text = p.do("POST", "/api/v1/dead/discard", `{"ids":["`+strconv.FormatUint(left["79"].ID, 10)+`"],"why":"x"}`)
	if status != 200 || !strings.Contains(text, "0 letter(s) discarded, 1 are in other hands") {
		t.Errorf("%d %s", status, text)
	}
	if status, text = p.do("POST", "/api/v1/dead/discard", `{"target":"office","group":"000000000000","why":"x"}`); status != 200 || !strings.Contains(text, "no such letters") {
		t.Errorf("%d %s", status, text)
	}
	cancel()
	if err := wait(); err != nil {
		t.Error(err)
	}
}

// A group is discarded on the server's life: the end of the request that ordered
// it stops nothing, the end of the server does.
func TestDiscardOutlivesItsRequest(t *testing.T) {
	t.Parallel()
	h, a, end := dying(t)
	defer end()
	order := console.LetterOrder{Target: "office", Group: h.letters(a, DeadFilter{})["77"].Group, Why: "left"}
	var running sync.WaitGroup
	over, stop := context.WithCancel(t.Context())
	stop()
	if _, err := a.consoleDiscard(over, &running)(t.Context(), order); err != nil {
		t.Fatal(err)
	}
	running.Wait()
	if n := len(h.letters(a, DeadFilter{Group: order.Group, Target: "office"})); n != 2 {
		t.Errorf("a server that has ended discards: %d letters are left", n)
	}
	request, answered := context.WithCancel(t.Context())
	v, err := a.consoleDiscard(t.Context(), &running)(request, order)
	answered()
	b, e := json.Marshal(v)
	if err != nil || e != nil || !strings.Contains(string(b), `"chosen":2,"discarded":0,"text":"2 letter(s) are being discarded"`) {
		t.Errorf("%s, %v, %v", b, err, e)
	}
	running.Wait()
	if n := len(h.letters(a, DeadFilter{Group: order.Group, Target: "office"})); n != 0 {
		t.Errorf("%d letters are left", n)
	}
}

// What cannot be foreseen within a request is left to the command line.
func TestPlanOfManyLetters(t *testing.T) {
	o := console.LetterOrder{Target: "office", Group: "0123456789ab"}
	if text := tooManyToPlan(planAtMost, o); text != "" {
		t.Errorf("%q", text)
	}
	if text := tooManyToPlan(planAtMost+1, o); !strings.Contains(text, "20001 letter(s)") || !strings.Contains(text, "crmsync dead redrive --target office --group 0123456789ab --plan") {
		t.Errorf("%q", text)
	}
}
