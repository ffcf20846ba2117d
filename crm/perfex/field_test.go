package perfex

import (
	"encoding/json"
	"net/http"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"crmsync/contact"
)

func TestCheck(t *testing.T) {
	c := open(t, nil)
	check := func(id, fields string) *contact.BadUpdate {
		t.Helper()
		return c.Check(&contact.Update{Contact: contact.Key{ID: id}, Fields: fieldsOf(t, fields)})
	}
	a := strings.Repeat
	for _, good := range []string{
		`{}`,
		`{"firstname": "` + a("é", 191) + `", "lastname": "", "title": null, "phonenumber": null, "direction": null}`,
		`{"direction": ""}`, `{"direction": "ltr"}`, `{"direction": "rtl"}`,
		`{"email": "` + a("x", 88) + `@example.com"}`,
		`{"password": " \u0022 "}`,
		`{"active": true, "is_primary": "on", "invoice_emails": "invoice_emails", "task_emails": null, "project_emails": "1", "ticket_emails": 0}`,
		`{"permissions": []}`, `{"permissions": null}`, `{"permissions": ["6", 1]}`,
		`{"custom_fields": {"contacts": {"1": "x", "2": null, "3": ["a", "b"], "4": 5}}}`, `{"custom_fields": {"12": "x"}}`,
		`{"customer_id": 5}`, `{"customer_id": "5"}`,
		`{"send_set_password_email": true}`, `{"send_set_password_email": null}`,
	} {
		if bad := check("7", good); bad != nil {
			t.Errorf("%s: %v", good, bad)
		}
	}
	for _, tt := range []struct{ fields, field, hint string }{
		{`{"firstname": "` + a("é", 192) + `"}`, "firstname", "191"},
		{`{"firstname": 5}`, "firstname", "string"},
		{`{"lastname": ["x"]}`, "lastname", "string"},
		{`{"title": "` + a("x", 101) + `"}`, "title", "100"},
		{`{"phonenumber": "` + a("1", 101) + `"}`, "phonenumber", "100"},
		{`{"email": null}`, "email", "cleared"},
		{`{"email": ""}`, "email", "empty"},
		{`{"email": " a@b"}`, "email", "space"},
		{`{"email": "` + a("x", 101) + `"}`, "email", "100"},
		{`{"direction": "RTL"}`, "direction", "ltr"},
		{`{"direction": "<script>"}`, "direction", ""},
		{`{"password": ""}`, "password", "ignore"},
		{`{"password": null}`, "password", "cleared"},
		{`{"password": 1}`, "password", "string"},
		{`{"password": "` + a("x", 1025) + `"}`, "password", "1024"},
		{`{"active": null}`, "active", "true"},
		{`{"active": "yes"}`, "active", "true"},
		{`{"active": 2}`, "active", "true"},
		{`{"is_primary": "off"}`, "is_primary", "true"},
		{`{"invoice_emails": "task_emails"}`, "invoice_emails", "true"},
		{`{"task_emails": {}}`, "task_emails", "true"},
		{`{"permissions": [7]}`, "permissions", "1 to 6"},
		{`{"permissions": [0]}`, "permissions", "1 to 6"},
		{`{"permissions": ["01"]}`, "permissions", "1 to 6"},
		{`{"permissions": [1.0]}`, "permissions", "1 to 6"},
		{`{"permissions": [null]}`, "permissions", "1 to 6"},
		{`{"permissions": "1"}`, "permissions", "list"},
		{`{"permissions": {"1": 1}}`, "permissions", "list"},
		{`{"custom_fields": null}`, "custom_fields", "object"},
		{`{"custom_fields": {}}`, "custom_fields", "object"},
		{`{"custom_fields": {"Region": "x"}}`, "custom_fields", "id"},
		{`{"custom_fields": {"contacts": []}}`, "custom_fields.contacts", "object"},
		{`{"custom_fields": {"contacts": {"1": {}}}}`, "custom_fields.1", "string"},
		{`{"custom_fields": {"1": true}}`, "custom_fields.1", "string"},
		{`{"customer_id": "x"}`, "customer_id", "number"},
		{`{"customer_id": null}`, "customer_id", "number"},
		{`{"customer_id": 1e3}`, "customer_id", "number"},
		{`{"send_set_password_email": "please"}`, "send_set_password_email", "true"},
		{`{"id": "8"}`, "id", "subject"},
		{`{"userid": "8"}`, "userid", "another customer"},
		{`{"datecreated": "2020-01-01"}`, "datecreated", "CRM"},
		{`{"last_login": null}`, "last_login", "CRM"},
		{`{"new_pass_key": "x"}`, "new_pass_key", "CRM"},
		{`{"donotsendwelcomeemail": true}`, "donotsendwelcomeemail", "no effect"},
		{`{"customfields": []}`, "customfields", "custom_fields"},
		{`{"FirstName": "x"}`, "FirstName", "write it as firstname"},
		{`{"first-name": "x"}`, "first-name", "write it as firstname"},
		{`{"Is Primary": "x"}`, "Is Primary", "write it as is_primary"},
		{`{"role": "admin"}`, "role", "unknown"},
		{`{"__proto__": {}}`, "__proto__", "unknown"},
	} {
		bad := check("7", tt.fields)
		if bad == nil || bad.Reason != contact.Invalid || bad.Field != tt.field || !strings.Contains(bad.Detail, tt.hint) {
			t.Errorf("%.80s: %v; want field %s and a word of %q", tt.fields, bad, tt.field, tt.hint)
		}
	}
	for _, id := range []string{"", "..", "1/2", "01", "x"} {
		if bad := check(id, `{"firstname": "x"}`); bad == nil || bad.Field != "id" {
			t.Errorf("id %q: %v", id, bad)
		}
	}
}

func TestBody(t *testing.T) {
	now := func() *http.Response { return answer(200, shown) }
	for _, tt := range []struct{ name, fields, want string }{
		{
			"what was on stays on", `{"firstname": "Bob"}`,
			`{"email":"ada@example.com","firstname":"Bob","is_primary":"on","estimate_emails":"estimate_emails","ticket_emails":"ticket_emails","permissions":["1","5"]}`,
		},
		{
			"off is absent", `{"is_primary": false, "ticket_emails": 0, "task_emails": true, "active": false}`,
			`{"email":"ada@example.com","active":0,"estimate_emails":"estimate_emails","task_emails":"task_emails","permissions":["1","5"]}`,
		},
		{
			"e-mail once, customer never", `{"email": "new@example.com", "customer_id": 2, "title": null}`,
			`{"email":"new@example.com","title":null,"is_primary":"on","estimate_emails":"estimate_emails","ticket_emails":"ticket_emails","permissions":["1","5"]}`,
		},
		{
			"no permissions", `{"permissions": []}`,
			`{"email":"ada@example.com","is_primary":"on","estimate_emails":"estimate_emails","ticket_emails":"ticket_emails"}`,
		},
		{
			"its own permissions", `{"permissions": [6, "2", 2]}`,
			`{"email":"ada@example.com","is_primary":"on","estimate_emails":"estimate_emails","ticket_emails":"ticket_emails","permissions":["2","6"]}`,
		},
		{
			"text for the filter", `{"firstname": "50 % \u003cb\u003e & \"x\" \\ \u00e9\t", "custom_fields": {"3": "%22", "4": ["%"]}}`,
			`{"email":"ada@example.com","firstname":"50 \u0025 <b> & \"x\" \\ é\t","is_primary":"on","estimate_emails":"estimate_emails","ticket_emails":"ticket_emails","permissions":["1","5"],"custom_fields":{"contacts":{"3":"\u002522","4":["\u0025"]}}}`,
		},
		{
			"a password passes whole", `{"password": "a<%😀\"Z9", "send_set_password_email": 1}`,
			`{"email":"ada@example.com","is_primary":"on","estimate_emails":"estimate_emails","ticket_emails":"ticket_emails","permissions":["1","5"],"password":"a\u003c\u0025\ud83d\ude00\u0022Z9","send_set_password_email":"on"}`,
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := &script{t: t, gets: []*http.Response{now()}, puts: []*http.Response{answer(200, `{"status":true}`)}}
			if a := send(t, open(t, s), tt.fields); a.Verdict != contact.VerdictApplied {
				t.Fatalf("%+v", a)
			}
			if len(s.bodies) != 1 || s.bodies[0] != tt.want {
				t.Errorf("sent %s\nwant %s", s.bodies, tt.want)
			}
		})
	}
	s := &script{t: t, gets: []*http.Response{now()}, puts: []*http.Response{answer(200, `{"status":true}`)}}
	clearing := open(t, s, func(o *Options) { o.Permissions, o.ClearPermissions = nil, true })
	send(t, clearing, `{"firstname": "Bob"}`)
	if strings.Contains(s.bodies[0], "permissions") {
		t.Errorf("permissions: clear sends %s", s.bodies[0])
	}
}

func TestUnchangedIsNotWritten(t *testing.T) {
	for _, same := range []string{
		`{"firstname": "Ada"}`, `{"title": ""}`, `{"title": null}`, `{"phonenumber": null}`, `{"is_primary": 1, "task_emails": null, "active": "1"}`,
		`{"customer_id": "2"}`, `{"send_set_password_email": false}`, `{}`,
	} {
		s := &script{t: t, gets: []*http.Response{answer(200, shown)}}
		if a := send(t, open(t, s), same); a.Verdict != contact.VerdictUnchanged || a.Requests != 1 {
			t.Errorf("%s: %+v", same, a)
		}
	}
	for _, other := range []string{
		`{"firstname": "ada"}`, `{"firstname": "Ada "}`, `{"is_primary": false}`, `{"task_emails": true}`, `{"active": 0}`,
		`{"password": "x"}`, `{"permissions": [1, 5]}`, `{"custom_fields": {"1": "EU"}}`, `{"send_set_password_email": true}`,
	} {
		s := &script{t: t, gets: []*http.Response{answer(200, shown)}, puts: []*http.Response{answer(200, `{"status":true}`)}}
		if a := send(t, open(t, s), other); a.Verdict != contact.VerdictApplied || a.Requests != 2 {
			t.Errorf("%s: %+v", other, a)
		}
	}
}

// Whatever ids and texts: the paths have the segments one sees, the body is
// JSON, says what was asked, and holds nothing that must not be sent.
func TestRequestsAsBuilt(t *testing.T) {
	path := regexp.MustCompile(`^(GET /api/contacts/[1-9][0-9]*/[1-9][0-9]*|PUT /api/contacts/[1-9][0-9]*)$`)
	rapid.Check(t, func(t *rapid.T) {
		id := rapid.OneOf(rapid.StringMatching(`[0-9]{1,20}`), rapid.String(), rapid.SampledFrom([]string{"7", "..", "7/../8"})).Draw(t, "id")
		first := rapid.StringN(0, 190, -1).Draw(t, "firstname")
		password := rapid.StringN(1, 40, -1).Draw(t, "password")
		fields, _ := json.Marshal(map[string]string{"firstname": first, "password": password})
		p, err := contact.ParsePatch(fields)
		if err != nil {
			t.Skip()
		}
		s := &script{gets: []*http.Response{answer(200, strings.Replace(shown, `"id":"7"`, `"id":"`+id+`"`, 1))}, puts: []*http.Response{answer(200, `{"status":true}`)}}
		c := openRapid(t, s)
		a := sendChange(c, contact.Change{Contact: contact.Key{ID: id}, Fields: p})
		for _, sent := range s.paths {
			if !path.MatchString(sent) {
				t.Fatalf("%q asked for %q", id, sent)
			}
		}
		if len(s.bodies) == 0 {
			if a.Verdict != contact.VerdictInvalid {
				t.Fatalf("%+v", a)
			}
			return
		}
		var body map[string]any
		if err := json.Unmarshal([]byte(s.bodies[0]), &body); err != nil {
			t.Fatalf("%v: %s", err, s.bodies[0])
		}
		if body["firstname"] != first || body["password"] != password || strings.Contains(s.bodies[0], "%") {
			t.Fatalf("%q and %q became %s", first, password, s.bodies[0])
		}
		for _, name := range []string{"customer_id", "id", "userid"} {
			if _, ok := body[name]; ok {
				t.Fatalf("%s is sent", name)
			}
		}
	})
}

func openRapid(t *rapid.T, s *script) *Client {
	c, err := New(optionsFor(s))
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestConvert(t *testing.T) {
	c := open(t, nil)
	for _, tt := range []struct{ field, text, want string }{
		{"firstname", "Bob", `"Bob"`},
		{"firstname", "", `""`},
		{"phonenumber", "+44 1", `"+44 1"`},
		{"password", " x ", `" x "`},
		{"is_primary", "Yes", `true`},
		{"is_primary", " 1 ", `true`},
		{"is_primary", "", `false`},
		{"active", "TRUE", `true`},
		{"active", "no", `false`},
		{"invoice_emails", "x", `true`},
		{"invoice_emails", "invoice_emails", `true`},
		{"send_set_password_email", "off", `false`},
		{"permissions", "1, 2;Support", `[1,2,5]`},
		{"permissions", "", `[]`},
		{"customer_id", " 5 ", `"5"`},
		{"custom_fields.12", "EU", `"EU"`},
	} {
		got, err := c.Convert(tt.field, tt.text)
		if err != nil || string(got) != tt.want {
			t.Errorf("%s %q: %s %v, want %s", tt.field, tt.text, got, err, tt.want)
		}
	}
	for _, tt := range []struct{ field, text string }{
		{"active", ""},
		{"active", "perhaps-canary"},
		{"is_primary", "perhaps-canary"},
		{"permissions", "7-canary"},
		{"permissions", "7"},
		{"custom_fields", "canary"},
		{"nonsense", "canary"},
	} {
		if got, err := c.Convert(tt.field, tt.text); err == nil || strings.Contains(err.Error(), "canary") {
			t.Errorf("%s %q: %s %v", tt.field, tt.text, got, err)
		}
	}
}

// What Labels names can be converted and checked.
func TestLabels(t *testing.T) {
	c := open(t, nil)
	fields := map[string]bool{}
	for _, f := range c.Labels() {
		fields[f] = true
	}
	if got := reflect.ValueOf(fields).Len(); got != len(fieldNames()) {
		t.Errorf("labels lead to %d fields, there are %d", got, len(fieldNames()))
	}
	for _, seed := range []string{"Customer ID", "First Name", "Last Name", "email", "Phone", "title", "direction", "password", "is_primary", "active"} {
		if c.Labels()[seed] == "" {
			t.Errorf("no label %q", seed)
		}
	}
	for name := range fields {
		if !slices.Contains(fieldNames(), name) {
			t.Errorf("label for %s", name)
		}
	}
}

func FuzzFields(f *testing.F) {
	f.Add([]byte(`{"firstname": "Bob", "is_primary": true, "permissions": [1]}`))
	f.Add([]byte(`{"custom_fields": {"contacts": {"1": ["%"]}}, "password": "\ud83d\ude00"}`))
	f.Add([]byte(`{"email": null, "id": 5}`))
	f.Add([]byte(`{"": [0]}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		p, err := contact.ParsePatch(b)
		if err != nil {
			return
		}
		w, bad := parse(p)
		if bad != nil {
			if bad.Detail == "" || bad.Reason != contact.Invalid {
				t.Fatalf("%+v", bad)
			}
			return
		}
		obj := map[string]json.RawMessage{}
		if err := json.Unmarshal([]byte(shown), &obj); err != nil {
			t.Fatal(err)
		}
		now, _ := readCurrent(obj)
		body := w.body(now, []int{1}, writeOptions{password: w.password != "", mail: w.mail})
		q, err := contact.ParsePatch(body)
		if err != nil {
			t.Fatalf("%v: %s", err, body)
		}
		if _, ok := q.Get("email"); !ok {
			t.Fatalf("no e-mail: %s", body)
		}
		for _, name := range []string{"id", "userid", "customer_id"} {
			if _, ok := q.Get(name); ok {
				t.Fatalf("%s is sent: %s", name, body)
			}
		}
	})
}
