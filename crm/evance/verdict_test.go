package evance

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"crmsync/contact"
	"crmsync/crm"
)

const html = "<html><body><h1>Oops</h1></body></html>"

func TestVerdicts(t *testing.T) {
	type want struct {
		v     contact.Verdict
		r     contact.Reason
		inc   bool
		field string
	}
	applied := want{contact.VerdictApplied, 0, false, ""}
	missing := want{contact.VerdictMissing, contact.Missing, false, ""}
	wrongURL := want{contact.VerdictTransient, 0, true, ""}
	protocol := want{contact.VerdictTransient, contact.Protocol, false, ""} // after a read-back that shows another value
	e := func(status int, context, name, message string) string {
		return fmt.Sprintf(`{"success":false,"status":%d,"context":%q,"errors":[{"name":%q,"message":%q,"ref":"r"}]}`, status, context, name, message)
	}
	for _, tt := range []struct {
		versions string
		status   int
		body     string
		want     want
	}{
		{"1", 200, `{"contact":{"id":"7","phone":"x"}}`, applied},
		{"1", 200, `{"contact":{"id":7,"phone":"x"}}`, applied},
		{"1", 200, `{"contact":{"phone":"x"}}`, applied},
		{"2", 200, `{"success":true,"status":200,"data":{"id":7}}`, applied},
		{"2", 200, `{"success":true,"data":{"id":"7"}}`, applied},
		{"2", 201, `{"success":true,"status":201,"data":{"id":7}}`, applied},
		{"12", 204, ``, applied},
		{"12", 200, `{"contact":{"id":"8"},"data":{"id":"8"}}`, protocol},
		{"2", 200, `{"contact":{"id":"7"}}`, protocol},
		{"1", 200, `{"data":{"id":"7"}}`, protocol},
		{"12", 200, `{"contact":{},"data":{}}`, protocol},
		{"12", 200, `{"contact":[],"data":[]}`, protocol},
		{"12", 202, `{"contact":{"id":"7"},"data":{"id":"7"}}`, protocol},
		{"12", 200, `{"success":false,"contact":{"id":"7"},"data":{"id":"7"}}`, protocol},
		{"12", 200, `{"success":true,"status":500,"contact":{"id":"7"},"data":{"id":"7"}}`, protocol},
		{"12", 200, `{"success":false}`, protocol},
		{"12", 200, ``, protocol},
		{"12", 200, html, protocol},
		{"12", 200, e(404, "parameters", "id", "Contact not found"), missing},
		{"12", 200, e(422, "data", "email", "already in use"), want{contact.VerdictInvalid, contact.Conflict, false, "email"}},
		{"12", 200, e(500, "data", "", "x"), want{contact.VerdictTransient, 0, false, ""}},
		{"12", 400, e(400, "parameters", "id", "A valid contact id must be supplied"), want{contact.VerdictInvalid, contact.Invalid, false, "id"}},
		{"12", 400, html, want{contact.VerdictInvalid, contact.Refused, false, ""}},
		{"12", 403, e(403, "parameters", "scope", "no"), want{contact.VerdictForbidden, 0, true, "scope"}},
		{"12", 403, html, want{contact.VerdictForbidden, 0, true, ""}},
		{"12", 404, e(404, "parameters", "id", "Contact not found"), missing},
		{"12", 404, `{"success":false}`, missing},
		{"12", 404, e(404, "data", "accessRoles", "no such role"), want{contact.VerdictInvalid, contact.Invalid, false, "accessRoles"}},
		{"1", 404, `{"error":"Contact does not exist"}`, missing},
		{"1", 404, `{"message":"Contact does not exist"}`, missing},
		{"2", 404, `{"message":"no Route matched with those values"}`, wrongURL},
		{"12", 404, `{}`, wrongURL},
		{"12", 404, html, wrongURL},
		{"12", 404, ``, wrongURL},
		{"12", 405, e(405, "parameters", "method", "Method not allowed"), want{contact.VerdictInvalid, contact.Refused, false, "method"}},
		{"12", 409, `{"message":"duplicate"}`, want{contact.VerdictInvalid, contact.Conflict, false, ""}},
		{"12", 422, e(422, "data", "email", "The email address is already in use by another user"), want{contact.VerdictInvalid, contact.Conflict, false, "email"}},
		{"12", 422, e(422, "data", "email", "The value is required for a user"), want{contact.VerdictInvalid, contact.Invalid, false, "email"}},
		{"12", 422, e(422, "data", "accessRoles", "exists not"), want{contact.VerdictInvalid, contact.Invalid, false, "accessRoles"}},
		{"12", 422, e(422, "data", "username", "must be unique"), want{contact.VerdictInvalid, contact.Conflict, false, "username"}},
		{"12", 422, `{"message":"This email is already taken"}`, want{contact.VerdictInvalid, contact.Conflict, false, ""}},
		{"12", 422, `{"errors":"text"}`, want{contact.VerdictInvalid, contact.Invalid, false, ""}},
		{"12", 422, html, want{contact.VerdictInvalid, contact.Refused, false, ""}},
		{"12", 429, ``, want{contact.VerdictThrottled, 0, false, ""}},
		{"12", 500, html, want{contact.VerdictTransient, 0, false, ""}},
		{"12", 503, html, want{contact.VerdictTransient, 0, true, ""}},
		{"12", 301, ``, want{contact.VerdictTransient, 0, true, ""}},
	} {
		for _, api := range tt.versions {
			t.Run(fmt.Sprint("v", string(api), " ", tt.status, " ", tt.body), func(t *testing.T) {
				s := &shop{handle: func(r *http.Request) *http.Response {
					if r.Method == http.MethodGet {
						return answer(200, `{"success":true,"contact":{"id":"7","phone":"old"},"data":{"id":"7","phone":"old"}}`)
					}
					return answer(tt.status, tt.body, "Retry-After", "bogus")
				}}
				a := send(t, open(t, s, func(o *Options) { o.API = string(api) }), `{"phone": "Canary-01473"}`)
				if got := (want{a.Verdict, a.Reason, a.Incident, a.Field}); got != tt.want {
					t.Errorf("%+v, want %+v (%+v)", got, tt.want, a)
				}
				if !a.Verdict.Success() && a.Detail == "" || strings.Contains(a.Detail, "token-one") {
					t.Errorf("detail %q", a.Detail)
				}
			})
		}
	}
}

func TestWaits(t *testing.T) {
	for _, tt := range []struct {
		status int
		header []string
		v      contact.Verdict
		wait   time.Duration
	}{
		{429, []string{"Retry-After", "9"}, contact.VerdictThrottled, 9 * time.Second},
		{503, []string{"Retry-After", "9"}, contact.VerdictThrottled, 9 * time.Second},
		{200, []string{"X-RateLimit-Remaining", "0", "X-RateLimit-Reset", "9"}, contact.VerdictApplied, 9 * time.Second},
		{200, []string{"X-RateLimit-Remaining", "3", "X-RateLimit-Reset", "9"}, contact.VerdictApplied, 0},
	} {
		s := &shop{handle: func(*http.Request) *http.Response { return answer(tt.status, `{"contact":{"id":"7"}}`, tt.header...) }}
		if a := send(t, open(t, s), `{"phone": "1"}`); a.Verdict != tt.v || a.Wait != tt.wait {
			t.Errorf("%d %v: %+v", tt.status, tt.header, a)
		}
	}
}

func TestReadBack(t *testing.T) {
	const all = `{"phone": "01473", "company": null, "address": {"city": "Ipswich", "line3": ""}, "accessRoles": ["customer", {"reference": "trade", "expires": "2018-01-01T00:00:00+00:00", "status": "active"}], "tags": {"contact": ["B", "A"]}}`
	const shown = `{"id":"7","phone":"01473","company":"","address":{"id":"5","city":"Ipswich","line3":null},"accessRoles":{"customer":{"name":"Customer"},"trade":{"name":"T","status":"active","expires":"2018-01-01T01:00:00+01:00"}},"tags":{"contact":["A","B"]}}`
	without := func(s string) string { return strings.Replace(shown, s, "", 1) }
	with := func(a, b string) string { return strings.Replace(shown, a, b, 1) }
	for _, tt := range []struct {
		name, fields, now string
		status            int // of the read
		want              contact.Verdict
	}{
		{"all of it", all, shown, 200, contact.VerdictApplied},
		{"another phone", all, with("01473", "9"), 200, contact.VerdictTransient},
		{"no phone shown", all, without(`"phone":"01473",`), 200, contact.VerdictUnknown},
		{"another city", all, with("Ipswich", "York"), 200, contact.VerdictTransient},
		{"a city of no text", all, with(`"Ipswich"`, `5`), 200, contact.VerdictTransient},
		{"no city shown", all, without(`"city":"Ipswich",`), 200, contact.VerdictUnknown},
		{"no address shown", all, with(`"address":{"id":"5","city":"Ipswich","line3":null}`, `"address":null`), 200, contact.VerdictUnknown},
		{"a role too many", all, with(`"customer":`, `"other":{},"customer":`), 200, contact.VerdictTransient},
		{"a role too few", all, without(`"customer":{"name":"Customer"},`), 200, contact.VerdictTransient},
		{"another role", all, with(`"customer":`, `"other":`), 200, contact.VerdictTransient},
		{"a role that waits", all, with(`"status":"active"`, `"status":"pending"`), 200, contact.VerdictTransient},
		{"a role without its status", all, without(`"status":"active",`), 200, contact.VerdictUnknown},
		{"another expiry", all, with("01:00:00+01:00", "01:00:00+00:00"), 200, contact.VerdictTransient},
		{"an expiry that is none", all, with("2018-01-01T01:00:00+01:00", "soon"), 200, contact.VerdictTransient},
		{"no roles, as PHP says it", `{"accessRoles": []}`, `{"id":"7","accessRoles":[]}`, 200, contact.VerdictApplied},
		{"no roles", `{"accessRoles": []}`, `{"id":"7","accessRoles":{}}`, 200, contact.VerdictApplied},
		{"roles of no kind", `{"accessRoles": []}`, `{"id":"7","accessRoles":"x"}`, 200, contact.VerdictUnknown},
		{"other tags", all, with(`["A","B"]`, `["A","C"]`), 200, contact.VerdictTransient},
		{"no tags shown", all, without(`,"tags":{"contact":["A","B"]}`), 200, contact.VerdictUnknown},
		{"tags of no kind", all, with(`{"contact":["A","B"]}`, `5`), 200, contact.VerdictUnknown},
		{"gone", all, `{"x":1}`, 404, contact.VerdictMissing},
		{"no read", all, html, 500, contact.VerdictUnknown},
		{"nonsense", all, html, 200, contact.VerdictUnknown},
		{"another contact", all, with(`"id":"7"`, `"id":"8"`), 200, contact.VerdictUnknown},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := &shop{handle: func(r *http.Request) *http.Response {
				if r.Method == http.MethodPut {
					return nil
				}
				if tt.status == 404 {
					return answer(404, `{"success":false,"context":"parameters"}`)
				}
				if tt.now == html {
					return answer(tt.status, html)
				}
				return answer(tt.status, `{"contact":`+tt.now+`}`)
			}}
			a := send(t, open(t, s), tt.fields)
			if a.Verdict != tt.want || s.count("PUT") != 1 || s.count("GET") != 1 {
				t.Errorf("%+v, want %v", a, tt.want)
			}
		})
	}
	s := &shop{handle: func(r *http.Request) *http.Response {
		if r.Method == http.MethodPut {
			return nil
		}
		return answer(200, `{"success":true,"data":{"id":7,"hasPassword":true,"password":"x"}}`)
	}}
	if a := send(t, open(t, s, api2), `{"password": "secret"}`); a.Verdict != contact.VerdictUnknown {
		t.Errorf("a password was seen: %+v", a)
	}
}

func TestEveryStatus(t *testing.T) {
	bodies := []string{
		`{"contact":{"id":"7"}}`, `{"success":true,"data":{"id":7}}`, `{"success":false,"status":422,"errors":[{"name":"x","message":"y"}]}`,
		html, ``, `{"contact":{"id"`, "\x00\xff garbage", `[]`, `"x"`, `null`, `{"status":"x","errors":{},"success":0,"context":5}`, `{"success":false,"status":-99999}`,
	}
	for _, c := range []*Client{open(t, nil), open(t, nil, api2)} {
		k := &call{Client: c, id: "7"}
		for status := -1; status <= 1000; status++ {
			for i, body := range bodies {
				for _, write := range []bool{true, false} {
					a, d := k.verdict(&crm.Reply{Status: status, Body: []byte(body)}, write)
					good := c.v.name == API1 && i == 0 || c.v.name == API2 && i == 1
					success := status >= 200 && status < 300 && (good && status != 202 || status == 204 && write)
					if a.Verdict.Success() != success || success && d != certain || a.Status != status || a.Verdict == contact.VerdictUnknown {
						t.Errorf("v%s %d %q: %+v, doubt %v", c.v.name, status, body, a, d)
					}
				}
			}
		}
	}
}

func FuzzAnswer(f *testing.F) {
	f.Add(200, []byte(`{"contact":{"id":"7"}}`))
	f.Add(422, []byte(`{"success":false,"status":422,"context":"data","errors":[{"name":"email","message":"taken","ref":"r"}]}`))
	f.Add(404, []byte(html))
	f.Add(200, []byte(`{"access_token":"x","expires_in":3600}`))
	f.Fuzz(func(t *testing.T, status int, body []byte) {
		r := &crm.Reply{Status: status, Body: body}
		for _, c := range []*Client{open(t, nil), open(t, nil, api2)} {
			for _, write := range []bool{true, false} {
				k := &call{Client: c, id: "7"}
				a, _ := k.verdict(r, write)
				if a.Verdict.Success() && (status < 200 || status > 299) || len(a.Detail) > crm.MaxDetail {
					t.Fatalf("%+v", a)
				}
			}
			var now map[string]json.RawMessage
			if json.Unmarshal(body, &now) == nil {
				c.v.holds(now, fieldsOf(t, `{"phone": "1", "accessRoles": ["a"], "tags": {"contact": ["x"]}, "address": {"city": "y"}}`))
			}
		}
		if got := readToken(r); got.token != "" && (crm.CheckToken(got.token) != nil || got.life < minLife || got.life > maxLife) {
			t.Fatalf("%+v", got)
		}
	})
}
