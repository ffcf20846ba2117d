package evance

import (
	"encoding/json"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"crmsync/contact"
)

func TestCheck(t *testing.T) {
	v1, v2 := open(t, nil), open(t, nil, api2)
	check := func(c *Client, id, fields string) *contact.BadUpdate {
		t.Helper()
		return c.Check(&contact.Update{Contact: contact.Key{ID: id}, Fields: fieldsOf(t, fields)})
	}
	const address = `{"address": {"line1": "2 Mews", "line3": "", "city": null, "countryCode": "GB", "zip": "IP4 1LN", "company": "x", "title": ""}}`
	for _, good := range []struct{ versions, fields string }{
		{"12", `{}`},
		{"12", `{"company": null, "phone": "", "type": "user", "email": "a@b"}`},
		{"12", `{"company": "` + strings.Repeat("é", 200) + `", "biography": "I <3 cats, 1 < 2"}`},
		{"12", address},
		{"12", `{"accessRoles": []}`},
		{"12", `{"accessRoles": ["customer", {"reference": "trade-account", "expires": "2018-01-01T00:00:00+00:00", "status": "active"}]}`},
		{"12", `{"accessRoles": [{"reference": "customer", "expires": null}]}`},
		{"12", `{"tags": {"contact": []}}`},
		{"12", `{"tags": {"contact": ["Engineers", "QA"]}}`},
		{"1", `{"firstname": "Bob", "lastname": null, "googlePlus": "x", "address": {"firstname": "B"}}`},
		{"2", `{"firstName": "Bob", "lastName": "B", "consentsToEmail": true, "startDate": "2020-01-01", "address": {"firstName": "B"}}`},
		{"2", `{"password": "secret"}`},
	} {
		for version, c := range map[string]*Client{"1": v1, "2": v2} {
			if strings.Contains(good.versions, version) {
				if bad := check(c, "7", good.fields); bad != nil {
					t.Errorf("v%s %.80s: %v", version, good.fields, bad)
				}
			}
		}
	}
	for _, tt := range []struct{ versions, fields, field, hint string }{
		{"12", `{"phone": 5}`, "phone", "string"},
		{"12", `{"company": "` + strings.Repeat("x", 201) + `"}`, "company", "200"},
		{"12", `{"company": "a<b"}`, "company", "HTML"},
		{"12", `{"biography": "a</b>"}`, "biography", "HTML"},
		{"12", `{"type": "hq"}`, "type", "guest"},
		{"12", `{"type": "User"}`, "type", "user"},
		{"12", `{"type": null}`, "type", "user"},
		{"12", `{"id": "8"}`, "id", "subject"},
		{"12", `{"isUser": true}`, "isUser", "type"},
		{"12", `{"hasPassword": true}`, "hasPassword", "derives"},
		{"12", `{"created": "x"}`, "created", "sets it"},
		{"12", `{"createdOn": "x"}`, "createdOn", "sets it"},
		{"1", `{"firstName": "x"}`, "firstName", "firstname"},
		{"2", `{"firstname": "x"}`, "firstname", "firstName"},
		{"1", `{"password": "x"}`, "password", "new contacts"},
		{"2", `{"password": ""}`, "password", "1 to"},
		{"2", `{"password": null}`, "password", "cleared"},
		{"2", `{"email": null}`, "email", "cleared"},
		{"2", `{"firstName": ""}`, "firstName", "cleared"},
		{"2", `{"consentsToSms": "yes"}`, "consentsToSms", "true"},
		{"2", `{"consentsToSms": null}`, "consentsToSms", "true"},
		{"1", `{"consentsToSms": true}`, "consentsToSms", "unknown"},
		{"2", `{"googlePlus": "x"}`, "googlePlus", "unknown"},
		{"12", `{"Phone": "x"}`, "Phone", "write it as phone"},
		{"12", `{"access_roles": []}`, "access_roles", "write it as accessRoles"},
		{"12", `{"role": "x"}`, "role", "unknown"},
		{"12", `{"address": null}`, "address", "one by one"},
		{"12", `{"address": {}}`, "address", "nothing"},
		{"12", `{"address": "x"}`, "address", "object"},
		{"12", `{"address": {"id": "5"}}`, "address.id", "primary"},
		{"12", `{"address": {"country": "UK"}}`, "address.country", "countryCode"},
		{"12", `{"address": {"latitude": "1"}}`, "address.latitude", "derives"},
		{"12", `{"address": {"postcode": "1"}}`, "address.postcode", "unknown"},
		{"12", `{"address": {"line1": 5}}`, "address.line1", "string"},
		{"12", `{"address": {"countryCode": "gb"}}`, "address.countryCode", "capital"},
		{"12", `{"address": {"countryCode": "GBR"}}`, "address.countryCode", "capital"},
		{"12", `{"address": {"countryCode": null}}`, "address.countryCode", "capital"},
		{"1", `{"address": {"firstName": "x"}}`, "address.firstName", "firstname"},
		{"2", `{"address": {"firstname": "x"}}`, "address.firstname", "firstName"},
		{"12", `{"accessRoles": null}`, "accessRoles", "list"},
		{"12", `{"accessRoles": {"customer": {"name": "Customer"}}}`, "accessRoles", "list"},
		{"12", `{"accessRoles": [5]}`, "accessRoles", "neither"},
		{"12", `{"accessRoles": [null]}`, "accessRoles", "neither"},
		{"12", `{"accessRoles": [""]}`, "accessRoles", "reference"},
		{"12", `{"accessRoles": [{}]}`, "accessRoles", "reference"},
		{"12", `{"accessRoles": ["a", {"reference": "a"}]}`, "accessRoles", "twice"},
		{"12", `{"accessRoles": [{"reference": "a", "name": "A"}]}`, "accessRoles", "only"},
		{"12", `{"accessRoles": [{"reference": "a", "status": "maybe"}]}`, "accessRoles.status", "active"},
		{"12", `{"accessRoles": [{"reference": "a", "expires": "2018-01-01"}]}`, "accessRoles.expires", "zone"},
		{"12", `{"accessRoles": [{"reference": "a", "expires": "10000-01-01T00:00:00Z"}]}`, "accessRoles.expires", "zone"},
		{"12", `{"tags": ["A"]}`, "tags", "object"},
		{"12", `{"tags": null}`, "tags", "object"},
		{"12", `{"tags": {"contact": ["A"], "other": []}}`, "tags", "one member"},
		{"12", `{"tags": {"contact": null}}`, "tags.contact", "list"},
		{"12", `{"tags": {"contact": ["A", 5]}}`, "tags.contact", "list"},
		{"12", `{"tags": {"contact": ["A", null]}}`, "tags.contact", "empty"},
		{"12", `{"tags": {"contact": [" "]}}`, "tags.contact", "empty"},
	} {
		for version, c := range map[string]*Client{"1": v1, "2": v2} {
			if !strings.Contains(tt.versions, version) {
				continue
			}
			bad := check(c, "7", tt.fields)
			if bad == nil || bad.Reason != contact.Invalid || bad.Field != tt.field || !strings.Contains(bad.Detail, tt.hint) {
				t.Errorf("v%s %.80s: %v; want field %s and a word of %q", version, tt.fields, bad, tt.field, tt.hint)
			}
		}
	}
	for _, id := range []string{"", "..", "1/2", "01", "x", "search"} {
		if bad := check(v1, id, `{}`); bad == nil || bad.Field != "id" {
			t.Errorf("id %q: %v", id, bad)
		}
	}
}

func TestRules(t *testing.T) {
	if r := open(t, nil).Rules(); !slices.Equal(r.Deep, []string{"address"}) || len(r.SideEffects) != 0 {
		t.Errorf("%+v", r)
	}
	if r := open(t, nil, api2).Rules(); !slices.Equal(r.Deep, []string{"address"}) || !slices.Equal(r.SideEffects, []string{"password"}) {
		t.Errorf("%+v", r)
	}
}

func TestRequest(t *testing.T) {
	for _, tt := range []struct {
		change     func(*Options)
		path, body string
		answer     string
	}{
		{func(*Options) {}, "PUT /api/contacts/7.json", `{"contact":{"address":{"city":"Ipswich"},"company":null,"phone":"a<b>&é"}}`, `{"contact":{"id":"7"}}`},
		{api2, "PUT /api/v2/contacts/7.json", `{"data":{"address":{"city":"Ipswich"},"company":null,"phone":"a<b>&é"}}`, `{"success":true,"status":200,"data":{"id":7}}`},
	} {
		s := &shop{handle: func(r *http.Request) *http.Response {
			if r.Header.Get("Content-Type") != "application/json" {
				t.Errorf("%v", r.Header)
			}
			return answer(200, tt.answer)
		}}
		if a := send(t, open(t, s, tt.change), `{"company": null, "phone": "a<b>&é", "address": {"city": "Ipswich"}}`); a.Verdict != contact.VerdictApplied {
			t.Errorf("%+v", a)
		}
		if s.paths[1] != tt.path || s.bodies[1] != tt.body && unescape(s.bodies[1]) != tt.body {
			t.Errorf("%s %s", s.paths[1], s.bodies[1])
		}
	}
}

func unescape(s string) string {
	return strings.NewReplacer(`\u003c`, "<", `\u003e`, ">", `\u0026`, "&").Replace(s)
}

func TestPaths(t *testing.T) {
	path := regexp.MustCompile(`^(PUT|GET) /api/(v2/)?contacts/[1-9][0-9]*\.json$`)
	rapid.Check(t, func(t *rapid.T) {
		id := rapid.OneOf(rapid.StringMatching(`[0-9]{1,20}`), rapid.String(), rapid.SampledFrom([]string{"7", "..", "search", "7/../8"})).Draw(t, "id")
		s := &shop{handle: func(*http.Request) *http.Response { return nil }}
		o := optionsFor(s)
		if rapid.Bool().Draw(t, "v2") {
			o.API = API2
		}
		c, err := New(o)
		if err != nil {
			t.Fatal(err)
		}
		p, _ := contact.ParsePatch([]byte(`{"phone": "x"}`))
		a := c.Send(t.Context(), free, []contact.Change{{Contact: contact.Key{ID: id}, Fields: p}})[0]
		for _, sent := range s.paths {
			if !path.MatchString(sent) && sent != "POST "+tokenPath {
				t.Fatalf("%q asked for %q", id, sent)
			}
		}
		if len(s.paths) == 0 && a.Verdict != contact.VerdictInvalid {
			t.Fatalf("%+v", a)
		}
	})
}

func TestConvert(t *testing.T) {
	v1, v2 := open(t, nil), open(t, nil, api2)
	for _, tt := range []struct {
		c                 *Client
		field, text, want string
	}{
		{v1, "firstname", "Bob", `"Bob"`},
		{v2, "firstName", "", `""`},
		{v1, "type", " User ", `"user"`},
		{v1, "address.city", "Ipswich", `"Ipswich"`},
		{v1, "address.countryCode", " gb ", `"GB"`},
		{v1, "accessRoles", "customer; trade-account,", `["customer","trade-account"]`},
		{v1, "accessRoles", "", `[]`},
		{v1, "tags", "A,B; C", `{"contact":["A","B","C"]}`},
		{v1, "tags", " ", `{"contact":[]}`},
		{v2, "consentsToEmail", "YES", `true`},
		{v2, "consentsToEmail", "0", `false`},
	} {
		got, err := tt.c.Convert(tt.field, tt.text)
		if err != nil || string(got) != tt.want {
			t.Errorf("%s %q: %s %v, want %s", tt.field, tt.text, got, err, tt.want)
		}
	}
	for _, tt := range []struct {
		c           *Client
		field, text string
	}{
		{v2, "consentsToEmail", "perhaps-canary"},
		{v2, "consentsToEmail", ""},
		{v1, "consentsToEmail", "yes"},
		{v1, "address", "canary"},
		{v1, "address.id", "canary"},
		{v1, "firstName", "canary"},
	} {
		if got, err := tt.c.Convert(tt.field, tt.text); err == nil || strings.Contains(err.Error(), "canary") {
			t.Errorf("%s %q: %s %v", tt.field, tt.text, got, err)
		}
	}
}

// Every label leads to a field that converts, and what it gives is JSON that
// Check knows the field of.
func TestLabels(t *testing.T) {
	for _, c := range []*Client{open(t, nil), open(t, nil, api2)} {
		for label, field := range c.Labels() {
			v, err := c.Convert(field, "no")
			if err != nil || !json.Valid(v) {
				t.Errorf("%s: %s: %s %v", label, field, v, err)
			}
		}
		for _, label := range []string{"First Name", "Last Name", "E-mail", "Phone Number", "City", "Country Code", "Post Code", "Access Roles", "tags", "type"} {
			if c.Labels()[label] == "" {
				t.Errorf("no label %q", label)
			}
		}
	}
}

func FuzzFields(f *testing.F) {
	f.Add([]byte(`{"accessRoles": ["customer", {"reference": "a", "expires": "2018-01-01T00:00:00Z"}]}`))
	f.Add([]byte(`{"tags": {"contact": ["A"]}, "address": {"city": "x", "countryCode": "GB"}}`))
	f.Add([]byte(`{"type": "user", "firstName": null}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		p, err := contact.ParsePatch(b)
		if err != nil {
			return
		}
		for _, v := range []version{v1, v2} {
			if bad := v.check(p); bad != nil {
				if bad.Detail == "" || bad.Reason != contact.Invalid {
					t.Fatalf("%+v", bad)
				}
				continue
			}
			// A contact that shows just what was sent holds it, as far as it can be seen.
			now := map[string]json.RawMessage{}
			for _, f := range p {
				now[f.Name] = f.Value
			}
			if h := v.holds(now, p); h == no && now[fieldRoles] == nil {
				t.Fatalf("%s does not hold itself", b)
			}
		}
	})
}
