package emulator

import (
	"fmt"
	"reflect"
	"strings"
	"testing"
)

var perfexModes = []string{Perfex208, Perfex303, PerfexDocs}

const updateFail = `{"message":"Client Update Fail.","status":false}`

// TestPerfexAnswers is the table of A6: what comes back for one call to a
// fresh CRM of 12 contacts. want maps a mode to "status body"; the mode "" is
// for all that are not named.
func TestPerfexAnswers(t *testing.T) {
	ok := putBody(6, `"title":"T"`)
	long := strings.Repeat("x", 250) + "@x.io"
	tests := []struct {
		name, method, path, body string
		headers                  []string
		want                     map[string]string
	}{
		{"update", "PUT", "/api/contacts/6", ok, nil, map[string]string{
			"": `200 {"message":"Contact Updated Successfully","status":true}`,
		}},
		{"sub-path", "PUT", "/crm/api/contacts/6", ok, nil, map[string]string{"": "200"}},
		{"content type does not matter", "PUT", "/api/contacts/6", ok, []string{"Content-Type", "text/plain"}, map[string]string{"": "200"}},
		{"second number is ignored", "PUT", "/api/contacts/6/99", ok, nil, map[string]string{"": "200"}},
		{"leading zeros", "PUT", "/api/contacts/006", ok, nil, map[string]string{"": "200"}},
		{"override by header", "POST", "/api/contacts/6", ok, []string{"X-HTTP-Method-Override", "put"}, map[string]string{"": "200"}},
		{"override by form field", "POST", "/api/contacts/6", "_method=put&email=x%40y.z", []string{"Content-Type", "application/x-www-form-urlencoded"}, map[string]string{
			"": "406", PerfexDocs: "200",
		}},
		{"only POST is overridden", "GET", "/api/contacts/1/6", "", []string{"X-HTTP-Method-Override", "PUT"}, map[string]string{"": `200 {"active"`}},
		{"not the module's", "PUT", "/contacts/6", ok, nil, map[string]string{"": "404 <!DOCTYPE"}},
		{"a number for an e-mail", "PUT", "/api/contacts/6", `{"email":12}`, nil, map[string]string{"": "200"}},
		{"a list is an object with numbers for keys", "PUT", "/api/contacts/6", `["x"]`, nil, map[string]string{"": "409", PerfexDocs: "400"}},
		{"a text is no object", "PUT", "/api/contacts/6", `"x"`, nil, map[string]string{"": "406"}},
		{"not UTF-8 when decoded", "PUT", "/api/contacts/6", putBody(6, `"title":"%ff"`), nil, map[string]string{"": "406"}},
		{"search by query", "GET", "/api/contacts/search?q=contact12%40", "", nil, map[string]string{Perfex208: "200 [{", "": `200 [{"active":"1","client_id":"3"`}},
		{"search finds nothing", "GET", "/api/contacts/search/zzz", "", nil, map[string]string{"": `404 {"message":"No data were found"`}},
		{"create without a name", "POST", "/api/contacts", `{"email":"a@b.c","customer_id":1}`, nil, map[string]string{
			"": `409 {"error":{"firstname":"The First Name field is required."}`, PerfexDocs: "400",
		}},
		{"create without a body", "POST", "/api/contacts", ``, nil, map[string]string{"": "406"}},
		{"no change", "PUT", "/api/contacts/6", putBody(6, ""), nil, map[string]string{
			"": "404 " + updateFail, PerfexDocs: "200",
		}},
		{"contact missing", "PUT", "/api/contacts/13", ok, nil, map[string]string{
			"": `409 {"message":"Contact ID Doesn't Not Exist.","status":false}`, PerfexDocs: "404",
		}},
		{"huge id", "PUT", "/api/contacts/99999999999999999999999", ok, nil, map[string]string{"": "409", PerfexDocs: "404"}},
		{"id zero", "PUT", "/api/contacts/0", ok, nil, map[string]string{"": `404 {"message":"Invalid Client ID","status":false}`}},
		{"no id", "PUT", "/api/contacts", ok, nil, map[string]string{"": `404 {"message":"Invalid Client ID","status":false}`}},
		{"id is no number", "PUT", "/api/contacts/abc", ok, nil, map[string]string{"": "404 <!DOCTYPE"}},
		{"patch", "PATCH", "/api/contacts/6", ok, nil, map[string]string{"": `405 {"error":"Unknown method","status":false}`}},
		{"plus in path", "GET", "/api/contacts/search/a+b", "", nil, map[string]string{"": "400 <!DOCTYPE"}},
		{"empty body", "PUT", "/api/contacts/6", "", nil, map[string]string{
			"": `406 {"message":"Data Not Acceptable OR Not Provided","status":false}`,
		}},
		{"empty object", "PUT", "/api/contacts/6", "{}", nil, map[string]string{"": "406"}},
		{"no JSON", "PUT", "/api/contacts/6", "{", nil, map[string]string{"": "406"}},
		{"two documents", "PUT", "/api/contacts/6", ok + ok, nil, map[string]string{"": "406"}},
		{"a form", "PUT", "/api/contacts/6", "email=a%40b.c", []string{"Content-Type", "application/x-www-form-urlencoded"}, map[string]string{
			"": "406", PerfexDocs: "200",
		}},
		{"the filter breaks the JSON", "PUT", "/api/contacts/6", putBody(6, `"title":"50%22"`), nil, map[string]string{"": "406"}},
		{"nested escapes break it too", "PUT", "/api/contacts/6", putBody(6, `"title":"50%2522"`), nil, map[string]string{"": "406"}},
		{"body before id", "PUT", "/api/contacts/0", "", nil, map[string]string{"": "406"}},
		{"existence before validation", "PUT", "/api/contacts/13", `{"title":"T"}`, nil, map[string]string{"": "409 {\"message\":\"Contact ID", PerfexDocs: "404"}},
		{"no email", "PUT", "/api/contacts/6", `{"title":"T"}`, nil, map[string]string{
			"":         `409 {"error":{"email":"The Email field is required."},"message":"\u003cp\u003eThe Email field is required.\u003c/p\u003e\n","status":false}`,
			PerfexDocs: "400",
		}},
		{"email null", "PUT", "/api/contacts/6", `{"email":null,"title":"T"}`, nil, map[string]string{"": "409", PerfexDocs: "400"}},
		{"email blank", "PUT", "/api/contacts/6", `{"email":"  ","title":"T"}`, nil, map[string]string{"": "409", PerfexDocs: "400"}},
		{"email too long", "PUT", "/api/contacts/6", `{"email":"` + long + `x"}`, nil, map[string]string{
			"": `409 {"error":{"email":"The Email field cannot exceed 255 characters in length."}`, PerfexDocs: "422",
		}},
		{"email of 255", "PUT", "/api/contacts/6", `{"email":"` + long + `"}`, nil, map[string]string{"": "200"}},
		{"email taken", "PUT", "/api/contacts/6", `{"email":"` + seedEmail(9) + `"}`, nil, map[string]string{
			"": `409 {"error":{"email":"This Email is already exists"}`, PerfexDocs: `422 {"error":"validation_failed"`,
		}},
		{"email taken, other case", "PUT", "/api/contacts/6", `{"email":"CONTACT9@example.com"}`, nil, map[string]string{"": "409", PerfexDocs: "422"}},
		{"own email, other case", "PUT", "/api/contacts/6", `{"email":"Contact6@example.com"}`, nil, map[string]string{"": "409", PerfexDocs: "422"}},
		{"email is not checked for form", "PUT", "/api/contacts/6", `{"email":"not an address"}`, nil, map[string]string{"": "200"}},
		{"unknown column", "PUT", "/api/contacts/6", putBody(6, `"title":"T","nickname":"x"`), nil, map[string]string{
			Perfex208: "404 " + updateFail, "": "200",
		}},
		{"customer_id", "PUT", "/api/contacts/6", putBody(6, `"title":"T","customer_id":1`), nil, map[string]string{
			Perfex208: "404 " + updateFail, "": "200",
		}},
		{"an object as a value", "PUT", "/api/contacts/6", putBody(6, `"title":{"a":"b"}`), nil, map[string]string{"": "404 " + updateFail}},
		{"batch", "POST", "/api/batch", `{"operations":[]}`, nil, map[string]string{Perfex208: "404 <!DOCTYPE", "": "422"}},
		{"openapi", "GET", "/api/openapi", "", nil, map[string]string{Perfex208: "404 <!DOCTYPE", "": "200"}},
		{"lists of contacts", "GET", "/api/contacts", "", nil, map[string]string{
			"": `404 {"message":"No data were found","status":false}`, PerfexDocs: "200 [",
		}},
		{"empty search", "GET", "/api/contacts/search", "", nil, map[string]string{
			Perfex208: "200 [", "": `400 {"message":"Search term is required.`,
		}},
		{"as HTML", "GET", "/api/contacts/2/6", "", []string{"Accept", "text/html"}, map[string]string{"": "200 <table>", PerfexDocs: "200 <table>"}},
		{"as XML", "GET", "/api/contacts/2/6?format=xml", "", nil, map[string]string{"": "200 <?xml"}},
		{"as JSONP", "GET", "/api/contacts/2/6?callback=f", "", nil, map[string]string{"": `200 f({"active"`}},
	}
	for _, mode := range perfexModes {
		for _, tt := range tests {
			t.Run(mode+"/"+tt.name, func(t *testing.T) {
				c := NewPerfex(Options{Mode: mode, Contacts: 12})
				want, named := tt.want[mode]
				if !named {
					want = tt.want[""]
				}
				a := perfexCall(c, tt.method, tt.path, tt.body, tt.headers...)
				if got := fmt.Sprintf("%d %s", a.status, a.body); !strings.HasPrefix(got, want) {
					t.Fatalf("got %s\nwant %s", got, want)
				}
				if e := lastEntry(t, c); e.Status != a.status || e.Answered.IsZero() || e.Path != strings.SplitN(tt.path, "?", 2)[0] {
					t.Fatalf("the ledger has %+v", e)
				}
			})
		}
	}
}

func TestPerfexTokens(t *testing.T) {
	jwt := "a.b.c"
	tests := []struct {
		name, path string
		headers    []string
		revoke     bool
		want       map[string]string
	}{
		{"none", "/api/contacts/2/6", nil, false, map[string]string{
			Perfex208: `404 {"message":"Token is not defined.","status":false}`, Perfex303: `404 {"message":"Token is not found","status":false}`, PerfexDocs: "401",
		}},
		{"wrong", "/api/contacts/2/6", []string{"authtoken", jwt}, false, map[string]string{
			Perfex208: `404 {"message":"Signature verification failed"`, Perfex303: `404 {"message":"Token is not found"`, PerfexDocs: "401",
		}},
		{"no JWT", "/api/contacts/2/6", []string{"authtoken", "xyz"}, false, map[string]string{
			Perfex208: `404 {"message":"Wrong number of segments"`, Perfex303: `404 {"message":"Token is not found"`, PerfexDocs: "401",
		}},
		{"revoked", "/api/contacts/2/6", []string{"authtoken", DefaultToken}, true, map[string]string{
			Perfex208: `404 {"message":null,"status":false}`, Perfex303: `404 {"message":"Token is not found"`, PerfexDocs: "401",
		}},
		{"in the query", "/api/contacts/2/6?authtoken=" + DefaultToken, nil, false, map[string]string{
			Perfex208: `404 {"message":"Token is not defined."`, Perfex303: "200", PerfexDocs: "200",
		}},
		{"as api_key", "/api/contacts/2/6?api_key=" + DefaultToken, nil, false, map[string]string{
			Perfex208: "404", Perfex303: "200", PerfexDocs: "200",
		}},
		{"as bearer", "/api/contacts/2/6", []string{"Authorization", "Bearer " + DefaultToken}, false, map[string]string{
			Perfex208: "404", Perfex303: "404", PerfexDocs: "401",
		}},
		{"before the method", "/api/nowhere", nil, false, map[string]string{
			Perfex208: "404 <!DOCTYPE", Perfex303: "404 <!DOCTYPE", PerfexDocs: "404 <!DOCTYPE",
		}},
	}
	for _, mode := range perfexModes {
		for _, tt := range tests {
			t.Run(mode+"/"+tt.name, func(t *testing.T) {
				c := NewPerfex(Options{Mode: mode, Contacts: 12})
				if tt.revoke {
					c.RevokeTokens()
				}
				a := call1(c, "GET", tt.path, "", tt.headers...)
				if got := fmt.Sprintf("%d %s", a.status, a.body); !strings.HasPrefix(got, tt.want[mode]) {
					t.Fatalf("got %s\nwant %s", got, tt.want[mode])
				}
			})
		}
	}
	c := NewPerfex(Options{Contacts: 1, Token: "one"})
	c.RevokeTokens()
	c.SetToken("two")
	if a := call1(c, "GET", "/api/contacts/1/1", "", "Authtoken", "two"); a.status != 200 {
		t.Errorf("after SetToken: %d %s", a.status, a.body)
	}
	if a := call1(c, "GET", "/api/contacts/1/1", "", "authtoken", "one"); a.status != 404 {
		t.Errorf("the old token still works: %d", a.status)
	}
}

// TestPerfexFields says for one PUT to contact 6 what is stored afterwards.
// Each body gets the e-mail and keepFlags before it.
func TestPerfexFields(t *testing.T) {
	tests := []struct {
		name, rest string
		v2, v3     map[string]any // v3 nil: as v2
	}{
		{"omitted is unchanged", `"title":"T"`, map[string]any{"title": "T", "firstname": "Goran", "phonenumber": "+44 1473 000006"}, nil},
		{"null in a nullable column", `"title":null,"lastname":"L"`, map[string]any{"title": nil}, map[string]any{"title": ""}},
		{"null in another column", `"phonenumber":null`, map[string]any{"phonenumber": ""}, nil},
		{"active as bool", `"active":false`, map[string]any{"active": "0"}, nil},
		{"active as word", `"active":"yes"`, map[string]any{"active": "0"}, nil},
		{"active clamped", `"active":1000`, map[string]any{"active": "127"}, nil},
		{"primary by true", `"is_primary":true`, map[string]any{"is_primary": "1"}, nil},
		{"primary by false", `"is_primary":false`, map[string]any{"is_primary": "1"}, nil},
		{"primary by zero", `"is_primary":0`, map[string]any{"is_primary": "1"}, nil},
		{"primary by nothing", `"is_primary":""`, map[string]any{"is_primary": "1"}, nil},
		{"primary by null", `"is_primary":null,"title":"T"`, map[string]any{"is_primary": "0"}, map[string]any{"is_primary": "1"}},
		{"flag by null", `"task_emails":null,"title":"T"`, map[string]any{"task_emails": "0"}, map[string]any{"task_emails": "1"}},
		{"flag by presence", `"task_emails":"0"`, map[string]any{"task_emails": "1", "invoice_emails": "1", "ticket_emails": "0"}, nil},
		{"cut to the column", `"title":"` + strings.Repeat("é", 101) + `"`, map[string]any{"title": strings.Repeat("é", 100)}, nil},
		{"direction cut", `"direction":"ltrx"`, map[string]any{"direction": "ltr"}, nil},
		{"password", `"password":"secret"`, map[string]any{"firstname": "Goran"}, nil},
		{"userid moves", `"userid":3`, map[string]any{"userid": "3"}, nil},
		{"no column is protected", `"datecreated":"2001-02-03 04:05:06","last_ip":"1.2.3.4"`, map[string]any{"datecreated": "2001-02-03 04:05:06", "last_ip": "1.2.3.4"}, nil},
		{"a bad date", `"last_login":"soon"`, map[string]any{"last_login": "0000-00-00 00:00:00"}, nil},
		{"permissions replaced", `"permissions":["6",2]`, map[string]any{permissionsField: []string{"2", "6"}}, nil},
		{"permissions null", `"permissions":null`, map[string]any{permissionsField: []string{}}, nil},
		{"custom field", `"custom_fields":{"contacts":{"2":"Gold","9":"x"}}`, map[string]any{customField: map[string]string{"1": "EU", "2": "Gold"}}, nil},
		{"percent", `"title":"100%25"`, map[string]any{"title": "100%"}, nil},
		{"percent twice", `"title":"a%252541"`, map[string]any{"title": "aA"}, nil},
		{"percent alone", `"title":"100% ok"`, map[string]any{"title": "100% ok"}, nil},
		{"tab", "\"title\":\"a\tb\"", map[string]any{"title": "a b"}, nil},
		{"control character", "\"title\":\"a\x01\x7fb\"", map[string]any{"title": "ab"}, nil},
		{"php tag", `"title":"<? x ?>"`, map[string]any{"title": "&lt;? x ?&gt;"}, nil},
		{"script", `"title":"<script>x</script>y"`, map[string]any{"title": "[removed]x[removed]y"}, nil},
		{"javascript", `"title":"JavaScript : x"`, map[string]any{"title": "[removed] x"}, nil},
		{"alert", `"title":"alert(1)"`, map[string]any{"title": "alert&#40;1&#41;"}, nil},
		{"escaped markup passes", `"title":"\u003cscript\u003e"`, map[string]any{"title": "<script>"}, nil},
		{"case of keys matters", `"TITLE":"T","lastname":"L"`, map[string]any{"lastname": "Petrov"}, map[string]any{"title": nil, "lastname": "L"}},
	}
	for _, mode := range []string{Perfex208, Perfex303} {
		for _, tt := range tests {
			t.Run(mode+"/"+tt.name, func(t *testing.T) {
				c := NewPerfex(Options{Mode: mode, Contacts: 12})
				want := tt.v2
				if mode == Perfex303 && tt.v3 != nil {
					want = tt.v3
				}
				before := contact(t, c, "6")
				a := perfexCall(c, "PUT", "/api/contacts/6", putBody(6, tt.rest))
				after := contact(t, c, "6")
				for k, v := range want {
					if !reflect.DeepEqual(after[k], v) {
						t.Errorf("%s = %#v, want %#v (%d %s)", k, after[k], v, a.status, a.body)
					}
				}
				e := lastEntry(t, c)
				for k := range after {
					_, listed := e.Values[k]
					if listed == reflect.DeepEqual(before[k], after[k]) {
						t.Errorf("%s: %#v to %#v, but the ledger says changed %v", k, before[k], after[k], e.Changed)
					}
				}
				if e.Applied != (a.status == 200) || e.Applied != (len(e.Changed) > 0) {
					t.Errorf("status %d with %+v", a.status, e)
				}
			})
		}
	}
}

// TestPerfexAbsentClears is the trap of partial updates: contact 5 is the
// primary of its customer with every flag and permission.
func TestPerfexAbsentClears(t *testing.T) {
	for _, mode := range perfexModes {
		c := NewPerfex(Options{Mode: mode, Contacts: 12})
		if a := perfexCall(c, "PUT", "/api/contacts/5", `{"email":"`+seedEmail(5)+`"}`); a.status != 200 {
			t.Fatalf("%s: %d %s", mode, a.status, a.body)
		}
		r := contact(t, c, "5")
		for _, f := range append([]string{"is_primary"}, perfexFlags...) {
			if r[f] != "0" {
				t.Errorf("%s: %s = %v, want cleared", mode, f, r[f])
			}
		}
		if p := r[permissionsField].([]string); len(p) != 0 {
			t.Errorf("%s: permissions = %v, want none", mode, p)
		}
		for _, id := range []string{"6", "7", "8"} {
			if contact(t, c, id)["is_primary"] != "0" {
				t.Errorf("%s: %s was promoted", mode, id)
			}
		}
	}
}

func TestPerfexPrimary(t *testing.T) {
	c := NewPerfex(Options{Contacts: 12})
	body := putBody(6, `"is_primary":"on"`)
	if a := perfexCall(c, "PUT", "/api/contacts/6", body); a.status != 200 {
		t.Fatal(a)
	}
	if e := lastEntry(t, c); !reflect.DeepEqual(e.Also, []string{"5"}) || !reflect.DeepEqual(e.Changed, []string{"is_primary"}) {
		t.Errorf("the ledger has %+v", e)
	}
	if got := contact(t, c, "5")["is_primary"]; got != "0" {
		t.Errorf("the former primary is still %v", got)
	}
	if got := contact(t, c, "1")["is_primary"]; got != "1" {
		t.Errorf("another customer's primary became %v", got)
	}
	// Set again without a change of the row, it does nothing, not even to a
	// second primary.
	c.Put("5", map[string]any{"is_primary": "1"})
	if a := perfexCall(c, "PUT", "/api/contacts/6", body); a.status != 404 {
		t.Errorf("no change: %d %s", a.status, a.body)
	}
	withPermission := strings.Replace(body, `["1","5"]`, `["2"]`, 1)
	if a := perfexCall(c, "PUT", "/api/contacts/6", withPermission); a.status != 200 {
		t.Errorf("permissions alone: %d %s", a.status, a.body)
	}
	if got := contact(t, c, "5")["is_primary"]; got != "1" {
		t.Error("a change of permissions demoted another contact: the row had not changed")
	}
}

func TestPerfexPasswordAlwaysChanges(t *testing.T) {
	c := NewPerfex(Options{Contacts: 12})
	body := putBody(6, `"password":"secret"`)
	var hashes []any
	for range 2 {
		if a := perfexCall(c, "PUT", "/api/contacts/6", body); a.status != 200 {
			t.Fatalf("%d %s", a.status, a.body)
		}
		r := contact(t, c, "6")
		hashes = append(hashes, r["password"])
		if h, _ := r["password"].(string); !strings.HasPrefix(h, "$2a$08$") || len(h) != 60 || strings.Contains(h, "secret") {
			t.Errorf("hash %q", h)
		}
		if r["last_password_change"] == nil {
			t.Error("last_password_change was not set")
		}
	}
	if hashes[0] == hashes[1] {
		t.Error("the same password gave the same hash twice")
	}
	if a := perfexCall(c, "PUT", "/api/contacts/6", putBody(6, `"password":""`)); a.status != 404 {
		t.Errorf("an empty password changed the row: %d", a.status)
	}
	if n := len(c.Mails()); n != 0 {
		t.Errorf("%d mails for a password", n)
	}
}

func TestPerfexMails(t *testing.T) {
	tests := []struct {
		name, rest string
		active     string
		status     int
		message    string
		mails      int
	}{
		{"with a change", `"title":"T","send_set_password_email":"on"`, "1", 200, "Profile updated and email", 1},
		{"any value counts", `"title":"T","send_set_password_email":false`, "1", 200, "Profile updated and email", 1},
		{"without a change", `"send_set_password_email":"on"`, "1", 404, "Client Update Fail.", 1},
		{"inactive: counted, not sent", `"active":0,"title":"T","send_set_password_email":"on"`, "0", 200, "Profile updated and email", 0},
		{"welcome has no effect", `"title":"T","donotsendwelcomeemail":"on"`, "1", 200, "Contact Updated Successfully", 0},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			c := NewPerfex(Options{Contacts: 12})
			c.Put("6", map[string]any{"active": tt.active})
			a := perfexCall(c, "PUT", "/api/contacts/6", putBody(6, tt.rest))
			if a.status != tt.status || !strings.Contains(a.body, tt.message) {
				t.Errorf("%d %s", a.status, a.body)
			}
			mails := c.Mails()
			if len(mails) != tt.mails {
				t.Fatalf("mails %+v, want %d", mails, tt.mails)
			}
			if tt.mails == 1 && (mails[0].Kind != "set-password" || mails[0].To != seedEmail(6) || mails[0].Contact != "6" || mails[0].Entry != 1) {
				t.Errorf("mail %+v", mails[0])
			}
		})
	}
	// The address is the one in the payload.
	c := NewPerfex(Options{Contacts: 12})
	perfexCall(c, "PUT", "/api/contacts/6", `{"email":"new@x.io","send_set_password_email":1}`)
	if m := c.Mails(); len(m) != 1 || m[0].To != "new@x.io" {
		t.Errorf("mails %+v", m)
	}
}
