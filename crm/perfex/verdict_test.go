package perfex

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"crmsync/contact"
	"crmsync/crm"
)

const html = "<html><body><h1>Oops</h1><p>An error</p></body></html>"

// Every answer that crm-apis A6 lists, and its neighbours, as the answer to a
// write after a read that was in order.
func TestWriteVerdicts(t *testing.T) {
	type want struct {
		v     contact.Verdict
		r     contact.Reason
		inc   bool
		field string
	}
	unauthorized := want{contact.VerdictUnauthorized, 0, true, ""}
	throttled := want{contact.VerdictThrottled, 0, false, ""}
	protocol := want{contact.VerdictTransient, contact.Protocol, false, ""}
	for _, tt := range []struct {
		status int
		body   string
		want   want
	}{
		{200, `{"status":true,"message":"Contact Updated Successfully"}`, want{contact.VerdictApplied, 0, false, ""}},
		{200, `{"status":1}`, want{contact.VerdictApplied, 0, false, ""}},
		{201, `{"status":true}`, want{contact.VerdictApplied, 0, false, ""}},
		{200, "\xEF\xBB\xBF{\"status\":true}", want{contact.VerdictApplied, 0, false, ""}},
		{200, `{"status":false,"message":"Something"}`, protocol},
		{200, `{"status":false,"message":"Token is not found"}`, unauthorized},
		{200, `{"status":false,"message":"Contact not found"}`, want{contact.VerdictMissing, contact.Missing, false, ""}},
		{200, `{"status":false,"error":{"email":"This Email is already exists"}}`, want{contact.VerdictInvalid, contact.Conflict, false, "email"}},
		{200, `{"status":"maybe"}`, protocol},
		{200, `{}`, protocol},
		{200, `[]`, protocol},
		{200, `null`, protocol},
		{200, ``, protocol},
		{200, html, protocol},
		{204, ``, protocol},
		{401, `{"status":false,"message":"API Module is not active"}`, unauthorized},
		{401, `{"status":false,"error":"This API key has reached the time limit for this method"}`, throttled},
		{401, `{"status":false,"error":"Some other limit"}`, throttled},
		{401, `{"status":false,"error":"Invalid API key abc"}`, unauthorized},
		{401, `{"status":false,"error":"unauthorized","message":"Invalid or missing token"}`, unauthorized},
		{401, `{"status":false,"message":"Invalid or missing token"}`, unauthorized},
		{401, html, unauthorized},
		{401, ``, unauthorized},
		{403, `{"status":false,"message":"Your API token does not have the necessay permissions for the requested operation"}`, want{contact.VerdictForbidden, 0, true, ""}},
		{403, html, want{contact.VerdictInvalid, contact.Refused, false, ""}}, // a firewall: the read passed
		{404, `{"status":false,"message":"Token is not defined."}`, unauthorized},
		{404, `{"status":false,"message":"Token is not found"}`, unauthorized},
		{404, `{"status":false,"message":"Signature verification failed"}`, unauthorized},
		{404, `{"status":false,"message":"Wrong number of segments"}`, unauthorized},
		{404, `{"status":false,"message":"Token Time Expire."}`, unauthorized},
		{404, `{"status":false,"message":"Token Time Not Define!"}`, unauthorized},
		{404, `{"status":false,"message":"Forbidden"}`, unauthorized},
		{404, `{"status":false,"message":null}`, unauthorized},
		{404, `{"status":false}`, unauthorized},
		{404, `{"status":false,"message":"Unbekanntes Token"}`, unauthorized},
		{404, `{"status":false,"message":"No data were found"}`, want{contact.VerdictMissing, contact.Missing, false, ""}},
		{404, `{"status":false,"error":"not_found","message":"x"}`, want{contact.VerdictMissing, contact.Missing, false, ""}},
		{404, `{"status":false,"message":"Invalid Client ID"}`, want{contact.VerdictInvalid, contact.Refused, false, ""}},
		{404, html, want{contact.VerdictTransient, 0, true, ""}},
		{404, ``, want{contact.VerdictTransient, 0, true, ""}},
		{405, `{"status":false,"error":"Unknown method"}`, want{contact.VerdictInvalid, contact.Refused, false, ""}},
		{406, `{"status":false,"message":"Data Not Acceptable OR Not Provided"}`, want{contact.VerdictInvalid, contact.Invalid, false, ""}},
		{409, `{"status":false,"message":"Contact ID Doesn't Not Exist."}`, want{contact.VerdictMissing, contact.Missing, false, ""}},
		{409, `{"status":false,"message":"Kontakt gibt es nicht"}`, want{contact.VerdictMissing, contact.Missing, false, ""}},
		{409, `{"status":false,"error":{"email":"The Email field is required."},"message":"<p>The Email field is required.</p>\n"}`, want{contact.VerdictInvalid, contact.Invalid, false, "email"}},
		{409, `{"status":false,"error":{"email":"This Email is already exists"},"message":"<p>x</p>"}`, want{contact.VerdictInvalid, contact.Conflict, false, "email"}},
		{409, `{"status":false,"error":{"email":"Diese E-Mail ist vergeben"}}`, want{contact.VerdictInvalid, contact.Conflict, false, "email"}},
		{409, `{"status":false,"error":{"email":"The Email field cannot exceed 255 characters in length."}}`, want{contact.VerdictInvalid, contact.Invalid, false, "email"}},
		{409, `{"status":false,"error":{"firstname":"already there"}}`, want{contact.VerdictInvalid, contact.Invalid, false, "firstname"}},
		{409, html, want{contact.VerdictInvalid, contact.Refused, false, ""}},
		{422, `{"status":false,"error":"validation_failed","message":"m","errors":{"email":["This Email is already exists"]}}`, want{contact.VerdictInvalid, contact.Conflict, false, "email"}},
		{422, `{"status":false,"error":"validation_failed","message":"m","errors":{"direction":"bad"}}`, want{contact.VerdictInvalid, contact.Invalid, false, "direction"}},
		{400, `{"status":false,"error":"missing_field","message":"m","errors":{"email":"The Email field is required."}}`, want{contact.VerdictInvalid, contact.Invalid, false, "email"}},
		{400, "The URI you submitted has disallowed characters.", want{contact.VerdictInvalid, contact.Refused, false, ""}},
		{429, `{"status":false,"message":"Rate limit exceeded"}`, throttled},
		{429, `{"status":false,"message":"Too many failed authentication attempts. Try again later."}`, throttled},
		{429, html, throttled},
		{500, html, want{contact.VerdictTransient, 0, false, ""}},
		{503, html, want{contact.VerdictTransient, 0, true, ""}},
		{302, ``, want{contact.VerdictTransient, 0, true, ""}},
	} {
		t.Run(fmt.Sprint(tt.status, " ", tt.body), func(t *testing.T) {
			s := &script{t: t, gets: []*http.Response{answer(200, shown)}, puts: []*http.Response{answer(tt.status, tt.body)}}
			a := send(t, open(t, s), `{"firstname": "Canary-Bob"}`)
			if got := (want{a.Verdict, a.Reason, a.Incident, a.Field}); got != tt.want {
				t.Errorf("%+v, want %+v (%+v)", got, tt.want, a)
			}
			if strings.Contains(a.Detail, canary) || !a.Verdict.Success() && a.Detail == "" {
				t.Errorf("detail %q", a.Detail)
			}
		})
	}
}

// The answers to the read before.
func TestReadVerdicts(t *testing.T) {
	for _, tt := range []struct {
		status int
		body   string
		v      contact.Verdict
		r      contact.Reason
		inc    bool
	}{
		{404, `{"status":false,"message":"No data were found"}`, contact.VerdictMissing, contact.Missing, false},
		{404, `{"status":false,"message":"Token is not found"}`, contact.VerdictUnauthorized, 0, true},
		{404, html, contact.VerdictTransient, 0, true},
		{403, `{"status":false,"message":"no"}`, contact.VerdictForbidden, 0, true},
		{403, html, contact.VerdictForbidden, 0, true},
		{401, `{"status":false,"error":"This API key has reached the time limit for this method"}`, contact.VerdictThrottled, 0, false},
		{500, html, contact.VerdictTransient, 0, false},
		{502, html, contact.VerdictTransient, 0, true},
		{200, html, contact.VerdictTransient, contact.Protocol, false},
		{200, `{"status":true}`, contact.VerdictTransient, contact.Protocol, false},
		{200, `[` + shown + `]`, contact.VerdictTransient, contact.Protocol, false},
		{200, strings.Replace(shown, `"id":"7"`, `"id":"8"`, 1), contact.VerdictTransient, contact.Protocol, false},
		{200, strings.Replace(shown, `"is_primary":"1",`, ``, 1), contact.VerdictTransient, contact.Protocol, false},
		{200, strings.Replace(shown, `"ticket_emails":"1",`, ``, 1), contact.VerdictTransient, contact.Protocol, false},
		{206, shown, contact.VerdictTransient, contact.Protocol, false},
		{307, ``, contact.VerdictTransient, 0, true},
	} {
		s := &script{t: t, gets: []*http.Response{answer(tt.status, tt.body)}}
		a := send(t, open(t, s), `{"firstname": "Bob"}`)
		if a.Verdict != tt.v || a.Reason != tt.r || a.Incident != tt.inc || a.Alive || len(s.bodies) > 0 {
			t.Errorf("%d %.40s: %+v, %d writes", tt.status, tt.body, a, len(s.bodies))
		}
	}
	s := &script{t: t, gets: []*http.Response{answer(200, strings.Replace(shown, "ada@example.com", "", 1))}}
	if a := send(t, open(t, s), `{"firstname": "Bob"}`); a.Verdict != contact.VerdictInvalid || a.Field != fieldEmail {
		t.Errorf("no e-mail anywhere: %+v", a)
	}
	s = &script{t: t, gets: []*http.Response{answer(200, strings.ReplaceAll(strings.Replace(shown, `"id":"7"`, `"id":7`, 1), `"active":"1"`, `"active":true`))}}
	if a := send(t, open(t, s), `{"active": 1}`); a.Verdict != contact.VerdictUnchanged {
		t.Errorf("numbers and booleans in place of strings: %+v", a)
	}
}

// "Client Update Fail." has four meanings; the read-back tells them apart.
func TestNoRowChanged(t *testing.T) {
	fail := func() *http.Response { return answer(404, `{"status":false,"message":"Client Update Fail."}`) }
	with := func(name string) *http.Response { return answer(200, strings.Replace(shown, "Ada", name, 1)) }
	missing := func() *http.Response { return answer(404, `{"status":false,"message":"No data were found"}`) }
	for _, tt := range []struct {
		name, fields string
		before       *http.Response
		after        *http.Response
		want         contact.Verdict
	}{
		{"applied by somebody meanwhile", `{"firstname": "Bob"}`, with("Ada"), with("Bob"), contact.VerdictApplied},
		{"permissions were so already", `{"permissions": [1]}`, with("Ada"), with("Ada"), contact.VerdictUnchanged},
		{"the statement failed", `{"firstname": "Bob"}`, with("Ada"), with("Ada"), contact.VerdictTransient},
		{"rewritten before", `{"firstname": "<script>Bob"}`, with("[removed]Bob"), with("[removed]Bob"), contact.VerdictUnchanged},
		{"a tab is a space", `{"firstname": "B\tb"}`, with("B b"), with("B b"), contact.VerdictUnchanged},
		{"cut by the database", `{"firstname": "Bob😀x"}`, with("Bob"), with("Bob"), contact.VerdictUnchanged},
		{"cut elsewhere", `{"firstname": "Bob😀x"}`, with("Bo"), with("Bo"), contact.VerdictTransient},
		{"markup, and another value is there", `{"firstname": "<b>Bob"}`, with("Ada"), with("Ada"), contact.VerdictTransient},
		{"a password did not take", `{"password": "secret"}`, with("Ada"), with("Ada"), contact.VerdictTransient},
		{"only a mail", `{"send_set_password_email": true}`, with("Ada"), with("Ada"), contact.VerdictApplied},
		{"a mail, and the statement failed", `{"firstname": "Bob", "send_set_password_email": true}`, with("Ada"), with("Ada"), contact.VerdictUnknown},
		{"deleted meanwhile", `{"firstname": "Bob"}`, with("Ada"), missing(), contact.VerdictMissing},
		{"no answer", `{"firstname": "Bob"}`, with("Ada"), nil, contact.VerdictUnknown},
		{"garbage", `{"firstname": "Bob"}`, with("Ada"), answer(200, html), contact.VerdictUnknown},
		{"throttled", `{"firstname": "Bob"}`, with("Ada"), answer(429, ``, "Retry-After", "9"), contact.VerdictUnknown},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := &script{t: t, gets: []*http.Response{tt.before, tt.after}, puts: []*http.Response{fail()}}
			a := send(t, open(t, s), tt.fields)
			if a.Verdict != tt.want || a.Requests != 3 || a.Reason == contact.Protocol {
				t.Errorf("%+v, want %v", a, tt.want)
			}
			if tt.name == "throttled" && a.Wait != 9*time.Second {
				t.Errorf("wait %v", a.Wait)
			}
		})
	}
}

// A lost answer, and what the read-back shows.
func TestReadBack(t *testing.T) {
	with := func(name string) *http.Response { return answer(200, strings.Replace(shown, "Ada", name, 1)) }
	for _, tt := range []struct {
		name, fields string
		after        *http.Response
		want         contact.Verdict
	}{
		{"there", `{"firstname": "Bob"}`, with("Bob"), contact.VerdictApplied},
		{"not there", `{"firstname": "Bob"}`, with("Ada"), contact.VerdictTransient},
		{"another's value", `{"firstname": "Bob"}`, with("Cleo"), contact.VerdictTransient},
		{"there, rewritten", `{"firstname": "<script>Bob"}`, with("[removed]Bob"), contact.VerdictApplied},
		{"permissions cannot be seen", `{"firstname": "Bob", "permissions": [2]}`, with("Bob"), contact.VerdictUnknown},
		{"custom fields cannot be seen", `{"custom_fields": {"1": "x"}}`, with("Ada"), contact.VerdictUnknown},
		{"a mail cannot be seen", `{"firstname": "Bob", "send_set_password_email": true}`, with("Bob"), contact.VerdictUnknown},
		{"a new hash", `{"password": "secret"}`, answer(200, strings.Replace(shown, "$2a$08$x", "$2a$08$y", 1)), contact.VerdictApplied},
		{"the old hash", `{"password": "secret"}`, with("Ada"), contact.VerdictTransient},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := &script{t: t, gets: []*http.Response{with("Ada"), tt.after}, puts: []*http.Response{nil}}
			if a := send(t, open(t, s), tt.fields); a.Verdict != tt.want || !a.Alive {
				t.Errorf("%+v, want %v", a, tt.want)
			}
		})
	}
	rewritten := func() *http.Response { return with("[removed]Eve") }
	s := &script{t: t, gets: []*http.Response{rewritten(), rewritten()}, puts: []*http.Response{nil}}
	if a := send(t, open(t, s), `{"firstname": "<script>Bob"}`); a.Verdict != contact.VerdictTransient {
		t.Errorf("what was rewritten before us was taken for ours: %+v", a)
	}
}

func TestQuotaWait(t *testing.T) {
	for _, tt := range []struct {
		header []string
		want   time.Duration
	}{
		{nil, 5 * time.Minute},
		{[]string{"X-RateLimit-Remaining", "0", "X-RateLimit-Reset", "3600"}, 5 * time.Minute},
		{[]string{"X-RateLimit-Remaining", "0", "X-RateLimit-Reset", "20"}, 20 * time.Second},
		{[]string{"Retry-After", "1800"}, 30 * time.Minute},
	} {
		s := &script{t: t, gets: []*http.Response{answer(401, `{"status":false,"error":"time limit"}`, tt.header...)}}
		if a := send(t, open(t, s), `{"firstname": "Bob"}`); a.Verdict != contact.VerdictThrottled || a.Wait != tt.want {
			t.Errorf("%v: %+v", tt.header, a)
		}
	}
	s := &script{t: t, gets: []*http.Response{answer(200, shown)}, puts: []*http.Response{
		answer(200, `{"status":true}`, "X-RateLimit-Remaining", "0", "X-RateLimit-Reset", "3600"),
	}}
	if a := send(t, open(t, s), `{"firstname": "Bob"}`); a.Wait != 0 {
		t.Errorf("a success with nothing remaining asks for a wait of %v", a.Wait)
	}
}

func TestOwnMessages(t *testing.T) {
	own := func(o *Options) {
		o.Messages = Messages{Token: []string{" jeton "}, Missing: []string{"introuvable"}, Unchanged: []string{"rien"}, Quota: []string{"patience"}}
	}
	for body, want := range map[string]contact.Verdict{
		`404{"status":false,"message":"Contact INTROUVABLE"}`:            contact.VerdictMissing,
		`200{"status":false,"message":"mauvais Jeton"}`:                  contact.VerdictUnauthorized,
		`404{"status":false,"message":"No data were found"}`:             contact.VerdictUnauthorized,
		`401{"status":false,"error":"x","message":"un peu de patience"}`: contact.VerdictThrottled,
		`401{"status":false,"error":"jeton","message":"autre"}`:          contact.VerdictUnauthorized,
	} {
		s := &script{t: t, gets: []*http.Response{answer(int(body[0]-'0')*100+int(body[2]-'0'), body[3:])}}
		if a := send(t, open(t, s, own), `{"firstname": "Bob"}`); a.Verdict != want {
			t.Errorf("%s: %+v, want %v", body, a, want)
		}
	}
	s := &script{t: t, gets: []*http.Response{answer(200, shown)}, puts: []*http.Response{answer(404, `{"message":"rien de neuf"}`)}}
	if a := send(t, open(t, s, own), `{"permissions": [1]}`); a.Verdict != contact.VerdictUnchanged {
		t.Errorf("%+v", a)
	}
}

// Whatever comes, a write is a success only on the module's own word.
func TestEveryStatus(t *testing.T) {
	bodies := []string{
		`{"status":true,"message":"ok"}`, `{"status":false,"message":"no"}`, `{"status":false,"error":{"email":"x"}}`, `{"status":false,"error":"x"}`,
		html, ``, `{"status":tr`, "\x00\xff garbage", `[]`, `"x"`, `0`, `null`, `{"status":{},"message":[],"error":7,"errors":[1]}`,
	}
	k := &call{Client: open(t, nil), id: "7", secrets: []string{canary}}
	for status := -1; status <= 1000; status++ {
		for _, body := range bodies {
			for _, p := range []phase{reading, writing} {
				r := &crm.Reply{Status: status, Body: []byte(body)}
				a, d := k.verdict(r, p)
				success := p == writing && status >= 200 && status < 300 && strings.HasPrefix(body, `{"status":true,`)
				if a.Verdict.Success() != success || success && d != certain {
					t.Errorf("%d %q: %+v, doubt %v", status, body, a, d)
				}
				if p == reading && (d == noChange || d == pending) {
					t.Errorf("%d %q: a read leaves doubt %v", status, body, d)
				}
				if a.Status != status || a.Verdict == contact.VerdictUnknown {
					t.Errorf("%d %q: %+v", status, body, a)
				}
			}
		}
	}
}

func FuzzAnswer(f *testing.F) {
	f.Add(200, []byte(`{"status":true}`))
	f.Add(404, []byte(`{"status":false,"message":"Client Update Fail."}`))
	f.Add(409, []byte(`{"status":false,"error":{"email":"This Email is already exists"}}`))
	f.Add(200, []byte(shown))
	f.Add(401, []byte(html))
	f.Fuzz(func(t *testing.T, status int, body []byte) {
		c := open(t, nil)
		k := &call{Client: c, id: "7", secrets: []string{canary}}
		r := &crm.Reply{Status: status, Body: append(body, canary...)}
		for _, p := range []phase{reading, writing} {
			a, _ := k.verdict(r, p)
			if len(a.Detail) > crm.MaxDetail || strings.Contains(a.Detail+a.Field, canary) {
				t.Fatalf("%+v", a)
			}
			if a.Verdict.Success() && (status < 200 || status > 299) {
				t.Fatalf("%d is a success", status)
			}
		}
		r.Body = body
		obj, ok := r.Object()
		if !ok {
			return
		}
		if now, ok := readCurrent(obj); ok {
			w, _ := parse(fieldsOf(t, `{"firstname": "x", "is_primary": true, "active": true}`))
			left := w.differs(now)
			w.rewritten(left, now)
			w.body(now, []int{1}, writeOptions{})
		}
	})
}
