package emulator

import (
	"bufio"
	"encoding/json"
	"fmt"
	"reflect"
	"strings"
	"testing"
	"time"
)

func TestControl(t *testing.T) {
	c := NewPerfex(Options{Contacts: 12})
	h := NewControl(c)
	perfexCall(c, "PUT", "/api/contacts/6", putBody(6, `"title":"#1#","send_set_password_email":1`))
	perfexCall(c, "PUT", "/api/contacts/7", putBody(7, `"title":"#2#"`))

	for _, prefix := range []string{"", ControlPrefix} {
		a := call1(h, "GET", prefix+"/ledger?since=1", "")
		var entries []Entry
		for sc := bufio.NewScanner(strings.NewReader(a.body)); sc.Scan(); {
			var e Entry
			if err := json.Unmarshal(sc.Bytes(), &e); err != nil {
				t.Fatal(err)
			}
			entries = append(entries, e)
		}
		if len(entries) != 1 || entries[0].N != 2 || entries[0].Values["title"] != "#2#" || !entries[0].Arrived.Equal(c.Ledger()[1].Arrived) {
			t.Errorf("entries %+v", entries)
		}
	}
	tests := []struct {
		method, path, body string
		status             int
		want               string
	}{
		{"GET", "/stats", "", 200, `"requests":2,"updates":2,`},
		{"GET", "/contact/6", "", 200, `"title":"#1#"`},
		{"GET", "/contact/60", "", 404, `{"error":"no such contact"}`},
		{"GET", "/mails", "", 200, `"kind":"set-password","to":"contact6@example.com"`},
		{"GET", "/faults", "", 200, `[]`},
		{"GET", "/ledger?since=x", "", 400, `"error"`},
		{"PUT", "/faults", `[{"kind":"outage","from":"1h","status":503}]`, 204, ""},
		{"GET", "/faults", "", 200, `[{"kind":"outage","from":"1h0m0s","status":503}]`},
		{"PUT", "/faults", `[{"kind":"outrage"}]`, 400, `{"error":"faults[0]: unknown kind \"outrage\"`},
		{"PUT", "/faults", strings.Repeat(" ", 2<<20), 400, `too large`},
		{"POST", "/revoke-tokens", "", 204, ""},
		{"POST", "/set-token", `{"token":""}`, 400, `token is empty`},
		{"POST", "/set-token", `{"token":"a","x":1}`, 400, `unknown field`},
		{"GET", "/set-token", "", 405, ""},
		{"GET", "/nothing", "", 404, ""},
	}
	for _, tt := range tests {
		a := call1(h, tt.method, tt.path, tt.body)
		if a.status != tt.status || !strings.Contains(a.body, tt.want) {
			t.Errorf("%s %s: %d %s, want %d %s", tt.method, tt.path, a.status, a.body, tt.status, tt.want)
		}
	}
	if a := perfexCall(c, "GET", "/api/contacts/2/6", ""); a.status != 404 {
		t.Errorf("after revoke-tokens: %d", a.status)
	}
	if a := call1(h, "POST", ControlPrefix+"/set-token", `{"token":"new"}`); a.status != 204 {
		t.Errorf("set-token: %d %s", a.status, a.body)
	}
	if a := call1(c, "GET", "/api/contacts/2/6", "", "authtoken", "new"); a.status != 200 {
		t.Errorf("after set-token: %d", a.status)
	}
	if n := len(c.Ledger()); n != 4 {
		t.Errorf("%d entries: the control's own requests must not be among them", n)
	}
}

func TestFaultJSONRoundTrip(t *testing.T) {
	plan := Faults{{
		Kind: TooMany, Probability: 0.5, From: time.Second, To: time.Minute, Contact: "6", Operation: OpUpdate, Count: 3, Apply: true,
		Min: 1, Max: 2, Status: 503, RetryAfter: RetryDate, RetryIn: time.Hour, Body: LoginPage, Interval: 3, Size: 4,
		URL: "http://x", Delay: 5,
	}, {Kind: Lie}}
	v := reflect.ValueOf(plan[0])
	for i := range v.NumField() {
		if v.Field(i).IsZero() {
			t.Errorf("the test leaves %s out", v.Type().Field(i).Name)
		}
	}
	b, err := json.Marshal(plan)
	if err != nil {
		t.Fatal(err)
	}
	got, err := ParseFaults(b)
	if err != nil || !reflect.DeepEqual(got, plan) {
		t.Errorf("%v\n%s\n%+v", err, b, got)
	}
	if !strings.Contains(string(b), `"to":"1m0s"`) || !strings.HasSuffix(string(b), `,{"kind":"lie"}]`) {
		t.Errorf("%s", b)
	}
}

func TestStats(t *testing.T) {
	c := NewEvance(Options{Contacts: 12})
	put := func(phone string) {
		evanceCall(t, c, "PUT", "/api/contacts/4.json", fmt.Sprintf(`{"contact":{"phone":%q}}`, phone))
	}
	put("1")
	put("1")
	c.SetFaults(Faults{{Kind: LostAnswer, Operation: OpUpdate}})
	put("2")
	c.SetFaults(Faults{{Kind: ServerError, Operation: OpUpdate}})
	put("3")
	evanceCall(t, c, "GET", "/api/contacts/4.json", "")
	evanceCall(t, c, "DELETE", "/api/contacts/4.json", "")
	s := c.Stats()
	want := Stats{
		Requests: 12, Updates: 4, Reads: 1, Tokens: 6, Other: 1, Applied: 3, Unchanged: 1, Lost: 1,
		Refused: map[int]int{500: 1}, Faults: map[string]int{"lost-answer": 1, "server-error": 1},
		PeakSecond: 12, PeakMinute: 12, First: c.Ledger()[0].Arrived, Last: c.Ledger()[11].Arrived,
	}
	if !reflect.DeepEqual(s, want) {
		t.Errorf("got  %+v\nwant %+v", s, want)
	}
	if got := c.LedgerSince(99); len(got) != 0 {
		t.Errorf("%d entries after the end", len(got))
	}
	if got := c.LedgerSince(-1); len(got) != 12 {
		t.Errorf("%d entries from before the start", len(got))
	}
}
