package emulator

import (
	"encoding/json"
	"fmt"
	"reflect"
	"strings"
	"testing"
)

// evanceCall calls a fresh or given CRM with a good token.
func evanceCall(t *testing.T, c *CRM, method, target, body string) answer {
	t.Helper()
	return call1(c, method, target, body, "Authorization", "Bearer "+evanceToken(t, c))
}

func TestEvanceRoutes(t *testing.T) {
	v1, v2 := `{"contact":{"phone":"1"}}`, `{"data":{"phone":"1"}}`
	tests := []struct {
		mode, method, path, body string
		want                     string
	}{
		{"", "PUT", "/api/contacts/4.json", v1, `200 {"contact":{`},
		{"", "POST", "/api/contacts/4.json", v1, `200 {"contact":{`},
		{"", "PUT", "/api/v2/contacts/4.json", v2, `200 {"data":{`},
		{"", "POST", "/api/v2/contacts/4.json", v2, `405 {"context"`},
		{"", "PATCH", "/api/contacts/4.json", v1, `405`},
		{EvanceV1, "PUT", "/api/v2/contacts/4.json", v2, "404 <!DOCTYPE"},
		{EvanceV2, "PUT", "/api/contacts/4.json", v1, "404 <!DOCTYPE"},
		{EvanceV2, "PUT", "/api/v2/contacts/4.json", v2, "200"},
		{"", "PUT", "/shop/api/contacts/4.json", v1, "200"},
		{"", "PUT", "/api/contacts/4", v1, "404 <!DOCTYPE"},
		{"", "PUT", "/api/contacts/44.json", v1, `404 {"context":"parameters","errors":[{"message":"Contact not found","name":"id"`},
		{"", "PUT", "/api/contacts/x.json", v1, `400 {"context":"parameters"`},
		{"", "PUT", "/api/contacts/4.json", v2, `400 {"context":"data","errors":[{"message":"The body must be a JSON object with the property contact"`},
		{"", "PUT", "/api/v2/contacts/4.json", v1, `400 {"context":"data"`},
		{"", "PUT", "/api/contacts/4.json", "{", `400`},
		{"", "GET", "/api/contacts/4.json", "", `200 {"contact":{`},
		{"", "GET", "/api/v2/contacts/4.json", "", `200 {"data":{`},
		{"", "DELETE", "/api/v2/contacts/4.json", "", "204 "},
		{"", "GET", "/api/contacts/search.json?email=contact4@example.com", "", `200 {"contacts":[{`},
		{"", "GET", "/api/contacts/search.json?email=nobody@example.com", "", `200 {"contacts":[]}`},
		{"", "GET", "/api/v2/contacts.json", "", `200 {"data":[{`},
		{"", "GET", "/api/contacts.json", "", `405`},
		{"", "GET", "/elsewhere", "", `404 <!DOCTYPE`},
	}
	for _, tt := range tests {
		t.Run(tt.mode+tt.method+tt.path+tt.body, func(t *testing.T) {
			c := NewEvance(Options{Mode: tt.mode, Contacts: 12})
			a := evanceCall(t, c, tt.method, tt.path, tt.body)
			if got := fmt.Sprintf("%d %s", a.status, a.body); !strings.HasPrefix(got, tt.want) {
				t.Fatalf("got %s\nwant %s", got, tt.want)
			}
			if e := lastEntry(t, c); e.Status != a.status {
				t.Errorf("ledger %+v", e)
			}
		})
	}
}

// TestEvanceRules is the table of B3: one v1 update of contact 4 (which has an
// address; 3 has none) in a CRM where contact 9 is a guest, 10 a branch and 11
// a recipient. status and what is stored, or the name of the refused field.
func TestEvanceRules(t *testing.T) {
	tests := []struct {
		name, id, fields string
		refused          string
		want             map[string]any
	}{
		{"omitted is unchanged", "4", `"firstname":"Bob"`, "", map[string]any{"firstname": "Bob", "lastname": "Yilmaz", "phone": "01473 000004"}},
		{"null clears", "4", `"company":null,"phone":null`, "", map[string]any{"company": nil, "phone": nil}},
		{"empty is kept", "4", `"company":""`, "", map[string]any{"company": ""}},
		{"a name cannot be null", "4", `"firstname":null`, "firstname", nil},
		{"a name cannot be empty", "4", `"lastname":" "`, "lastname", nil},
		{"a number is no text", "4", `"phone":5`, "phone", nil},
		{"company of 200", "4", `"company":"` + strings.Repeat("é", 200) + `"`, "", map[string]any{"company": strings.Repeat("é", 200)}},
		{"company of 201", "4", `"company":"` + strings.Repeat("é", 201) + `"`, "company", nil},
		{"HTML in company", "4", `"company":"<b>x</b>"`, "company", nil},
		{"less-than in company", "4", `"company":"3 < 4"`, "", map[string]any{"company": "3 < 4"}},
		{"HTML in biography", "4", `"biography":"<b>x</b>"`, "biography", nil},
		{"HTML elsewhere", "4", `"position":"<b>x</b>"`, "", map[string]any{"position": "<b>x</b>"}},
		{"read-only is passed over", "4", `"id":"99","created":"x","isGuest":true,"hasPassword":false,"phone":"1"`, "", map[string]any{"id": "4", "created": created, "isGuest": false, "hasPassword": true}},
		{"unknown is passed over", "4", `"firstName":"V2","nonsense":1,"phone":"1"`, "", map[string]any{"firstname": "Emre", "phone": "1", "nonsense": nil}},
		{"password", "4", `"password":"secret"`, "", map[string]any{"hasPassword": true}},
		{"unknown type", "4", `"type":"robot"`, "type", nil},
		{"hq cannot be added", "4", `"type":"hq"`, "type", nil},
		{"a guest", "4", `"type":"guest"`, "", map[string]any{"type": "guest", "isGuest": true, "isUser": false}},
		{"a branch ignores names", "10", `"firstname":null,"phone":"1"`, "", map[string]any{"phone": "1", "firstname": "Chidi x"}},
		{"a branch needs a company", "10", `"company":null`, "company", nil},
		{"user against user", "4", `"email":"CONTACT5@example.com"`, "email", nil},
		{"user against guest", "4", `"email":"contact9@example.com"`, "", map[string]any{"email": "contact9@example.com"}},
		{"user against recipient", "4", `"email":"contact11@example.com"`, "", map[string]any{"email": "contact11@example.com"}},
		{"guest against user", "9", `"email":"contact5@example.com"`, "", map[string]any{"email": "contact5@example.com"}},
		{"recipient against user", "11", `"email":"contact5@example.com"`, "email", nil},
		{"recipient against guest", "11", `"email":"contact9@example.com"`, "", map[string]any{"email": "contact9@example.com"}},
		{"branch against user", "10", `"email":"contact5@example.com"`, "", map[string]any{"email": "contact5@example.com"}},
		{"guest becomes a user with a taken address", "12", `"type":"user"`, "email", nil},
		{"own email in another case", "4", `"email":"Contact4@example.com"`, "", map[string]any{"email": "Contact4@example.com"}},
		{"a user needs an email", "4", `"email":""`, "email", nil},
		{"address must be an object", "4", `"address":"x"`, "address", nil},
		{"country code", "4", `"address":{"countryCode":"gb"}`, "address.countryCode", nil},
		{"roles as GET shows them", "4", `"accessRoles":{"customer":{}}`, "accessRoles", nil},
		{"unknown role", "4", `"accessRoles":["nobody"]`, "accessRoles", nil},
		{"no role", "4", `"accessRoles":[]`, "", map[string]any{"accessRoles": map[string]any{}}},
		{"a role by name may wait", "4", `"accessRoles":["trade-account"]`, "", map[string]any{
			"accessRoles": map[string]any{"trade-account": map[string]any{"name": "Trade account", "status": "pending", "expires": nil}},
		}},
		{"a role by object", "4", `"accessRoles":["customer",{"reference":"trade-account","status":"active","expires":"2028-01-01T00:00:00+00:00"}]`, "", map[string]any{
			"accessRoles": map[string]any{
				"customer":      map[string]any{"name": "Customer", "status": "active", "expires": nil},
				"trade-account": map[string]any{"name": "Trade account", "status": "active", "expires": "2028-01-01T00:00:00+00:00"},
			},
		}},
		{"a bad expiry", "4", `"accessRoles":[{"reference":"customer","expires":"tomorrow"}]`, "accessRoles", nil},
		{"tags", "4", `"tags":{"contact":["A","B","A"]}`, "", map[string]any{"tags": map[string]any{"contact": []string{"A", "B"}}}},
		{"tags as a list", "4", `"tags":["A"]`, "tags", nil},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			c := NewEvance(Options{Contacts: 12})
			c.Put("9", map[string]any{"type": "guest"})
			c.Put("10", map[string]any{"type": "branch", "firstname": "Chidi x"})
			c.Put("11", map[string]any{"type": "recipient"})
			c.Put("12", map[string]any{"type": "guest", "email": "contact5@example.com"})
			before := contact(t, c, tt.id)
			a := evanceCall(t, c, "PUT", "/api/contacts/"+tt.id+".json", `{"contact":{`+tt.fields+`}}`)
			after, e := contact(t, c, tt.id), lastEntry(t, c)
			if tt.refused != "" {
				var got struct{ Errors []struct{ Name string } }
				_ = json.Unmarshal([]byte(a.body), &got)
				if a.status != 422 || len(got.Errors) != 1 || got.Errors[0].Name != tt.refused {
					t.Fatalf("%d %s, want 422 for %s", a.status, a.body, tt.refused)
				}
				if e.Applied || !reflect.DeepEqual(before, after) {
					t.Errorf("a refused update was stored: %+v", e)
				}
				return
			}
			if a.status != 200 || !e.Applied {
				t.Fatalf("%d %s %+v", a.status, a.body, e)
			}
			for k, v := range tt.want {
				if !reflect.DeepEqual(after[k], v) {
					t.Errorf("%s = %#v, want %#v", k, after[k], v)
				}
			}
			if strings.Contains(a.body, "secret") || strings.Contains(a.body, `"password"`) {
				t.Errorf("the answer shows the password: %s", a.body)
			}
		})
	}
}

func TestEvanceAddress(t *testing.T) {
	c := NewEvance(Options{Contacts: 12})
	body := `{"contact":{"address":{"line1":"#7# Lane","countryCode":"DE","id":"1","country":"x"}}}`
	// 4 has an address: it is modified. 3 has none: one is added, and inherits.
	for id, inherited := range map[string]string{"4": "Emre", "3": "Dora"} {
		if a := evanceCall(t, c, "PUT", "/api/contacts/"+id+".json", body); a.status != 200 {
			t.Fatalf("%d %s", a.status, a.body)
		}
		got := contact(t, c, id)["address"].(map[string]any)
		city := map[string]string{"4": "Ipswich", "3": ""}[id]
		if got["line1"] != "#7# Lane" || got["city"] != city || got["country"] != "Germany" || got["firstname"] != inherited || got["id"] != "50"+id || got["isPrimary"] != true {
			t.Errorf("contact %s: address %v", id, got)
		}
	}
	for _, e := range c.Ledger() {
		if e.Operation != OpUpdate {
			continue
		}
		if !reflect.DeepEqual(e.Updates, []int64{7}) || e.Values["address.line1"] != "#7# Lane" {
			t.Errorf("ledger %+v", e)
		}
		if e.Contact == "4" && !reflect.DeepEqual(e.Changed, []string{"address.country", "address.countryCode", "address.line1"}) {
			t.Errorf("changed %v", e.Changed)
		}
	}
}

func TestEvanceUnchanged(t *testing.T) {
	c := NewEvance(Options{Contacts: 12})
	for _, body := range []string{`{"contact":{}}`, `{"contact":{"phone":"01473 000004","accessRoles":["customer"],"address":{"city":"Ipswich"}}}`} {
		if a := evanceCall(t, c, "PUT", "/api/contacts/4.json", body); a.status != 200 {
			t.Fatalf("%d %s", a.status, a.body)
		}
		if e := lastEntry(t, c); e.Applied || !e.Unchanged || e.Changed != nil {
			t.Errorf("ledger %+v", e)
		}
	}
	if r := contact(t, c, "4"); r["modifiedOn"] != created {
		t.Errorf("an unchanged contact was modified on %v", r["modifiedOn"])
	}
}

func TestEvanceVersionsDiffer(t *testing.T) {
	c := NewEvance(Options{Contacts: 12})
	one := evanceCall(t, c, "GET", "/api/contacts/4.json", "").json(t)["contact"].(map[string]any)
	outer := evanceCall(t, c, "GET", "/api/v2/contacts/4.json", "").json(t)
	two := outer["data"].(map[string]any)
	if outer["success"] != true || outer["status"] != 200.0 {
		t.Errorf("envelope %v", outer)
	}
	for _, k := range []string{"firstname", "lastname", "created", "isUser", "hasNoType"} {
		if _, ok := one[k]; !ok {
			t.Errorf("v1 lacks %s", k)
		}
	}
	for _, k := range []string{"firstName", "lastName", "createdOn", "modifiedOn", "consentsToEmail"} {
		if _, ok := two[k]; !ok {
			t.Errorf("v2 lacks %s", k)
		}
		if _, ok := one[k]; ok {
			t.Errorf("v1 has %s", k)
		}
	}
	if _, ok := two["firstname"]; ok {
		t.Error("v2 has v1's names")
	}
	if id, text := one["id"].(string); !text || id != "4" {
		t.Errorf("id %v", one["id"])
	}
	if roles := one["accessRoles"].(map[string]any); roles["customer"].(map[string]any)["name"] != "Customer" {
		t.Errorf("roles %v", roles)
	}
	if _, renamed := two["address"].(map[string]any)["firstName"]; !renamed {
		t.Errorf("v2 address %v", two["address"])
	}
	a := evanceCall(t, c, "PUT", "/api/v2/contacts/4.json", `{"data":{"firstName":"Two","lastname":"One","consentsToSms":true,"address":{"firstName":"Addr"}}}`)
	r := contact(t, c, "4")
	if a.status != 200 || r["firstname"] != "Two" || r["lastname"] != "Yilmaz" || r["consentsToSms"] != true || r["address"].(map[string]any)["firstname"] != "Addr" {
		t.Errorf("%d %s, stored %v", a.status, a.body, r)
	}
}

func TestEvanceCreateInviteList(t *testing.T) {
	c := NewEvance(Options{Contacts: 45})
	a := evanceCall(t, c, "POST", "/api/v2/contacts.json", `{"data":{"type":"user","firstName":"N","lastName":"L","email":"n@x.io","sendInvitation":true}}`)
	if a.status != 200 || contact(t, c, "46")["email"] != "n@x.io" {
		t.Fatalf("%d %s", a.status, a.body)
	}
	if m := c.Mails(); len(m) != 1 || m[0].Kind != "invitation" || m[0].To != "n@x.io" || m[0].Contact != "46" {
		t.Errorf("mails %+v", m)
	}
	tests := map[string]string{
		"limit=2&page=2":                                     "3 4",
		"limit=20&page=3":                                    "41 42 43 44 45 46",
		"id:in=3,44,99":                                      "3 44",
		"id:min=44&limit=2":                                  "44 45",
		"id:after=44&id:max=45":                              "45",
		"email=CONTACT7@example.com":                         "7",
		"quickfind=*company%2012*":                           "12",
		"modifiedOn:after=2015-11-13T10:09:02%2B00:00":       "46",
		"modifiedOn:min=2015-11-13T10:09:02Z&limit=1&page=1": "1",
		"page=9": "",
	}
	for query, want := range tests {
		var got struct {
			Data       []struct{ ID string }
			Pagination struct{ Total, TotalPages, Limit, Page int }
			Links      map[string]any
		}
		a := evanceCall(t, c, "GET", "/api/v2/contacts.json?"+query, "")
		if err := json.Unmarshal([]byte(a.body), &got); err != nil || a.status != 200 {
			t.Fatalf("%s: %d %s", query, a.status, a.body)
		}
		var found []string
		for _, r := range got.Data {
			found = append(found, r.ID)
		}
		if strings.Join(found, " ") != want {
			t.Errorf("%s: found %v, want %s", query, found, want)
		}
		if query == "limit=20&page=3" && (got.Pagination.Total != 46 || got.Pagination.TotalPages != 3 || got.Links["next"] != nil || got.Links["previous"] == nil) {
			t.Errorf("%s: %+v %v", query, got.Pagination, got.Links)
		}
	}
	for _, bad := range []string{"id:min=x", "modifiedOn:after=yesterday"} {
		if a := evanceCall(t, c, "GET", "/api/v2/contacts.json?"+bad, ""); a.status != 400 {
			t.Errorf("%s: %d", bad, a.status)
		}
	}
}
