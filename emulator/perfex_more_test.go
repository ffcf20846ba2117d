package emulator

import (
	"encoding/json"
	"fmt"
	"reflect"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

func TestPerfexReads(t *testing.T) {
	c := NewPerfex(Options{Mode: Perfex208, Contacts: 12})
	one := perfexCall(c, "GET", "/api/contacts/1/8", "").json(t)
	for k, v := range one {
		if _, text := v.(string); !text && v != nil && k != "customfields" {
			t.Errorf("%s is %T, want text or null", k, v)
		}
	}
	if len(one) != len(perfexColumns)+1 || one["id"] != "8" || one["email"] != seedEmail(8) {
		t.Errorf("contact %v", one)
	}
	if _, shown := one[permissionsField]; shown {
		t.Error("permissions are in a GET")
	}
	if want := []any{map[string]any{"label": "Region", "value": "EU"}}; !reflect.DeepEqual(one["customfields"], want) {
		t.Errorf("customfields %v", one["customfields"])
	}

	// A customer's active contacts, the primary first.
	c.Put("6", map[string]any{"active": "0"})
	c.Put("5", map[string]any{"is_primary": "0"})
	c.Put("8", map[string]any{"is_primary": "1"})
	c.Put("30", map[string]any{"userid": "2", "email": "thirty@x.io"})
	if got := ids(t, perfexCall(c, "GET", "/api/contacts/2", "").body); got != "8 5 7 30" {
		t.Errorf("customer 2 has %q", got)
	}
	if a := perfexCall(c, "GET", "/api/contacts/99", ""); a.status != 404 {
		t.Errorf("an empty customer: %d", a.status)
	}
	if a := perfexCall(c, "GET", "/api/contacts/1/13", ""); a.status != 404 || !strings.Contains(a.body, "No data were found") {
		t.Errorf("a missing contact: %d %s", a.status, a.body)
	}
	if got := perfexCall(c, "GET", "/api/contacts/777/6", "").json(t)["active"]; got != "0" {
		t.Error("an inactive contact must be readable, by any customer")
	}
	if e := lastEntry(t, c); e.Operation != OpRead || e.Contact != "6" {
		t.Errorf("ledger %+v", e)
	}
	for key, want := range map[string]string{"contact1%40": "1", "company%203": "9 10 11 12", "EU": "1 2 3 4 5 6 7 8 9 10 11 12", "thirty": "30"} {
		if got := ids(t, perfexCall(c, "GET", "/api/contacts/search/"+key, "").body); got != want {
			t.Errorf("search %s found %q", key, got)
		}
	}
	if got := ids(t, perfexCall(c, "GET", "/api/contacts/search", "").body); got != "1 2 3 4 5 6 7 8 9 10 11 12 30" {
		t.Errorf("an empty search found %q", got)
	}
}

func ids(t *testing.T, body string) string {
	t.Helper()
	var rows []struct{ ID string }
	if err := json.Unmarshal([]byte(body), &rows); err != nil {
		t.Fatalf("%v: %s", err, body)
	}
	var out []string
	for _, r := range rows {
		out = append(out, r.ID)
	}
	return strings.Join(out, " ")
}

func TestPerfexPages(t *testing.T) {
	c := NewPerfex(Options{Mode: PerfexDocs, Contacts: 60})
	tests := []struct {
		query              string
		rows, page, of     int
		firstID, hasMoreOn string
	}{
		{"page=1", 25, 1, 3, "1", "true"},
		{"page=3", 10, 3, 3, "51", "false"},
		{"page=9", 10, 3, 3, "51", "false"},
		{"per_page=100", 60, 1, 1, "1", "false"},
		{"per_page=1000&page=0", 60, 1, 1, "1", "false"},
	}
	for _, tt := range tests {
		var got struct {
			Data []struct{ ID string }
			Meta struct {
				Page, Total int
				TotalPages  int  `json:"total_pages"`
				HasMore     bool `json:"has_more"`
			}
		}
		if err := json.Unmarshal([]byte(perfexCall(c, "GET", "/api/contacts?"+tt.query, "").body), &got); err != nil {
			t.Fatal(err)
		}
		if len(got.Data) != tt.rows || got.Meta.Page != tt.page || got.Meta.TotalPages != tt.of || got.Meta.Total != 60 ||
			got.Data[0].ID != tt.firstID || strconv.FormatBool(got.Meta.HasMore) != tt.hasMoreOn {
			t.Errorf("%s: %d rows from %s, %+v", tt.query, len(got.Data), got.Data[0].ID, got.Meta)
		}
	}
	// The documented GET by number is a contact, not a customer.
	if got := perfexCall(c, "GET", "/api/contacts/7", "").json(t)["id"]; got != "7" {
		t.Errorf("contact %v", got)
	}
}

func TestPerfexCreateAndDelete(t *testing.T) {
	body := `{"customer_id":2,"firstname":"N","lastname":"L","email":"n@x.io","password":"pw"}`
	for _, mode := range perfexModes {
		c := NewPerfex(Options{Mode: mode, Contacts: 12})
		a := perfexCall(c, "POST", "/api/contacts", body)
		want := map[string]int{Perfex208: 200, Perfex303: 200, PerfexDocs: 201}[mode]
		if a.status != want {
			t.Fatalf("%s: %d %s", mode, a.status, a.body)
		}
		if _, told := a.json(t)["record_id"]; told != (mode != Perfex208) {
			t.Errorf("%s: %s", mode, a.body)
		}
		r := contact(t, c, "13")
		if r["userid"] != "2" || r["email"] != "n@x.io" || r["id"] != "13" {
			t.Errorf("%s: stored %v", mode, r)
		}
		if m := c.Mails(); len(m) != 1 || m[0].Kind != "welcome" || m[0].To != "n@x.io" {
			t.Errorf("%s: mails %+v", mode, m)
		}
		if a := perfexCall(c, "POST", "/api/contacts", body); a.status/100 != 4 {
			t.Errorf("%s: the same e-mail again: %d", mode, a.status)
		}
		quiet := "customer_id=2&firstname=N&lastname=L&email=q%40x.io&password=pw&donotsendwelcomeemail=on"
		a = perfexCall(c, "POST", "/api/contacts", quiet, "Content-Type", "application/x-www-form-urlencoded")
		if a.status != want || len(c.Mails()) != 1 {
			t.Errorf("%s: quiet create: %d %s, mails %v", mode, a.status, a.body, c.Mails())
		}
		for _, path := range []string{"/api/contacts/13", "/api/delete/contacts/14"} {
			if a := perfexCall(c, "DELETE", path, ""); a.status != 200 {
				t.Errorf("%s: DELETE %s: %d %s", mode, path, a.status, a.body)
			}
		}
		if a := perfexCall(c, "DELETE", "/api/contacts/13", ""); a.status != 404 {
			t.Errorf("%s: deleted twice: %d", mode, a.status)
		}
		if got := len(c.Contacts()); got != 12 {
			t.Errorf("%s: %d contacts left", mode, got)
		}
		// The address of a deleted contact is free, the id is not used again.
		perfexCall(c, "POST", "/api/contacts", body)
		if _, ok := c.Contact("15"); !ok {
			t.Errorf("%s: contacts %v", mode, c.Contacts())
		}
	}
}

func TestPerfexBatch(t *testing.T) {
	c := NewPerfex(Options{Contacts: 12})
	op := func(id, data string) string {
		return `{"tool":"contacts_update","arguments":{"id":` + id + `,"data":` + data + `}}`
	}
	body := `{"operations":[` + strings.Join([]string{
		op("6", `{"title":"#1#"}`),
		op("7", `{"title":"#2#","email":"`+seedEmail(9)+`"}`),   // no check of uniqueness
		op("8", `{"invoice_emails":1,"permissions":["1","5"]}`), // no change is success
		op("9", `{"nickname":"x"}`),                             // an unknown column is success, and nothing is stored
		op("99", `{"title":"T"}`),
		`{"tool":"contacts_update","args":{"id":6,"data":{"title":"T"}}}`,
		`{"tool":"leads_update","arguments":{"id":6,"data":{"title":"T"}}}`,
		op(`"6"`, `{"title":"#3#","send_set_password_email":1}`),
	}, ",") + `]}`
	a := perfexCall(c, "POST", "/api/batch", body)
	if a.status != 200 {
		t.Fatalf("%d %s", a.status, a.body)
	}
	got := a.json(t)
	if got["status"] != false || got["completed"] != 5.0 || got["failed"] != 3.0 {
		t.Errorf("envelope %v", got)
	}
	var statuses, problems []string
	for _, r := range got["results"].([]any) {
		r := r.(map[string]any)
		statuses = append(statuses, fmt.Sprint(r["status"]))
		if p, ok := r["error"].(string); ok {
			problems = append(problems, p)
		}
	}
	if s := strings.Join(statuses, " "); s != "true true true true false false false true" {
		t.Errorf("statuses %s", s)
	}
	if p := strings.Join(problems, "; "); p != "Contact not found; Missing argument: id; Unknown tool" {
		t.Errorf("problems %s", p)
	}
	e := lastEntry(t, c)
	if e.Operation != OpBatch || !e.Applied || e.Contact != "" || !reflect.DeepEqual(e.Updates, []int64{1, 2, 3}) || len(e.Batch) != 8 {
		t.Fatalf("ledger %+v", e)
	}
	seqs := []int{}
	for _, p := range e.Parts() {
		seqs = append(seqs, p.Seq)
	}
	if !reflect.DeepEqual(seqs, []int{1, 2, 0, 0, 0, 0, 0, 3}) || !e.Batch[2].Unchanged || e.Batch[3].Unchanged {
		t.Errorf("parts %+v", e.Batch)
	}
	if contact(t, c, "6")["title"] != "#3#" || contact(t, c, "7")["email"] != seedEmail(9) {
		t.Error("the batch was not stored")
	}
	if len(c.Mails()) != 1 {
		t.Errorf("mails %v", c.Mails())
	}
	many := `{"operations":[` + strings.TrimSuffix(strings.Repeat(op("6", `{"title":"T"}`)+",", 51), ",") + `]}`
	for _, bad := range []string{many, `{}`, `[]`, ``} {
		if a := perfexCall(c, "POST", "/api/batch", bad); a.status != 422 || a.json(t)["error"] != "validation_failed" {
			t.Errorf("%.20q: %d %s", bad, a.status, a.body)
		}
	}
	fifty := `{"operations":[` + strings.TrimSuffix(strings.Repeat(op("6", `{"title":"T"}`)+",", 50), ",") + `]}`
	if a := perfexCall(c, "POST", "/api/batch", fifty); a.status != 200 {
		t.Errorf("50 operations: %d", a.status)
	}
	if none := NewPerfex(Options{Contacts: 12, Capabilities: []string{"get"}}); !strings.Contains(perfexCall(none, "POST", "/api/batch", body).body, "Permission denied") {
		t.Error("a batch went past the capability")
	}
}

func TestPerfexWritesTheID(t *testing.T) {
	c := NewPerfex(Options{Contacts: 12})
	if a := perfexCall(c, "PUT", "/api/contacts/6", putBody(6, `"id":7`)); a.status != 404 {
		t.Errorf("a taken id: %d", a.status)
	}
	if a := perfexCall(c, "PUT", "/api/contacts/6", putBody(6, `"id":70`)); a.status != 200 {
		t.Errorf("a free id: %d %s", a.status, a.body)
	}
	if _, still := c.Contact("6"); still {
		t.Error("the contact is still at its old id")
	}
	if contact(t, c, "70")["email"] != seedEmail(6) {
		t.Error("the contact is not at its new id")
	}
}

func TestPerfexThreeByteText(t *testing.T) {
	c := NewPerfex(Options{Contacts: 12, ThreeByteUTF8: true})
	perfexCall(c, "PUT", "/api/contacts/6", putBody(6, `"title":"€ok😀lost"`))
	if got := contact(t, c, "6")["title"]; got != "€ok" {
		t.Errorf("title %q", got)
	}
}

func TestPerfexPermissionsAndThrottle(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, mode := range []string{Perfex208, Perfex303} {
			c := NewPerfex(Options{Mode: mode, Contacts: 12, Capabilities: []string{"get"}})
			for range throttleAfter {
				if a := perfexCall(c, "PUT", "/api/contacts/6", putBody(6, "")); a.status != 403 || !strings.Contains(a.body, "necessay") {
					t.Fatalf("%s: %d %s", mode, a.status, a.body)
				}
			}
			get := func() int { return perfexCall(c, "GET", "/api/contacts/2/6", "").status }
			want := map[string]int{Perfex208: 200, Perfex303: 429}[mode]
			if got := get(); got != want {
				t.Errorf("%s: after %d failures a GET answers %d, want %d", mode, throttleAfter, got, want)
			}
			time.Sleep(15*time.Minute - time.Second)
			if got := get(); got != want {
				t.Errorf("%s: before the quarter is over: %d", mode, got)
			}
			time.Sleep(time.Second)
			if got := get(); got != 200 {
				t.Errorf("%s: after the quarter: %d", mode, got)
			}
		}
	})
}

// TestPerfexHourlyLimit walks through the three checks of A7.
func TestPerfexHourlyLimit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := NewPerfex(Options{Contacts: 12, Limits: Limits{PerHour: 5, Window: time.Minute}})
		get := func(id int) answer { return perfexCall(c, "GET", fmt.Sprintf("/api/contacts/1/%d", id), "") }
		for i := 1; i <= 5; i++ {
			a := get(i)
			if a.status != 200 || a.header.Get("X-RateLimit-Limit") != "5" || a.header.Get("X-RateLimit-Remaining") != strconv.Itoa(6-i) {
				t.Fatalf("call %d: %d %v", i, a.status, a.header)
			}
			if got := a.header.Get("X-RateLimit-Reset"); got != strconv.FormatInt(time.Now().Add(time.Minute).Unix(), 10) {
				t.Errorf("reset %s is not a window from now", got)
			}
			time.Sleep(time.Second)
		}
		a := get(6)
		if a.status != 401 || a.json(t)["error"] == nil || a.json(t)["message"] != nil || a.header.Get("X-RateLimit-Remaining") != "0" {
			t.Fatalf("beyond the limit: %d %s %v", a.status, a.body, a.header)
		}
		if e := lastEntry(t, c); e.Wait != time.Minute {
			t.Errorf("told to wait %v", e.Wait)
		}
		// The refused call counts: two of the first five have left the window,
		// and one slot is free, not two.
		time.Sleep(56 * time.Second)
		if a := get(1); a.status != 200 || a.header.Get("X-RateLimit-Remaining") != "1" {
			t.Errorf("with one slot: %d %v", a.status, a.header)
		}
		// One URI used up: 429 without headers, before the address counts.
		time.Sleep(2 * time.Minute)
		for range 5 {
			if a := get(3); a.status != 200 {
				t.Fatalf("%d %s", a.status, a.body)
			}
		}
		if a := get(3); a.status != 429 || a.header.Get("X-RateLimit-Limit") != "" || !strings.Contains(a.body, "Rate limit exceeded") {
			t.Errorf("one URI: %d %s %v", a.status, a.body, a.header)
		}
		if a := get(4); a.status != 401 {
			t.Errorf("another URI: %d", a.status)
		}
	})
}

func TestPerfexLimitVariants(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		run := func(o Options, n int) (last answer) {
			o.Contacts = 12
			c := NewPerfex(o)
			for i := range n {
				last = perfexCall(c, "GET", fmt.Sprintf("/api/contacts/1/%d", i%12+1), "")
			}
			return last
		}
		if a := run(Options{Mode: Perfex208, Limits: Limits{PerHour: 1, PerMinute: 1}}, 9); a.status != 200 || a.header.Get("X-RateLimit-Limit") != "" {
			t.Errorf("2.0.8 limited: %d %v", a.status, a.header)
		}
		if a := run(Options{Mode: PerfexDocs, Limits: Limits{PerHour: 3}}, 4); a.status != 429 || a.header.Get("X-RateLimit-Limit") != "3" {
			t.Errorf("documented: %d %v", a.status, a.header)
		}
		if a := run(Options{Limits: Limits{PerMinute: 3}}, 3); a.status != 200 {
			t.Errorf("within the burst: %d", a.status)
		}
		if a := run(Options{Limits: Limits{PerMinute: 3, PerHour: 2}}, 4); a.status != 429 || a.header.Get("X-RateLimit-Limit") != "" {
			t.Errorf("beyond the burst: %d %v", a.status, a.header)
		}
		if a := run(Options{Limits: Limits{PerMinute: 9, PerHour: 2}}, 4); a.status != 200 {
			t.Errorf("a burst limit switches the 401 off: %d", a.status)
		}
		if a := run(Options{Limits: Limits{PerHour: 2, NoHeaders: true}}, 3); a.status != 401 || a.header.Get("X-RateLimit-Limit") != "" {
			t.Errorf("without headers: %d %v", a.status, a.header)
		}
		// Fixed windows open all at once.
		c := NewPerfex(Options{Contacts: 12, Limits: Limits{PerHour: 2, FixedWindow: true}})
		get := func(id int) int {
			return perfexCall(c, "GET", fmt.Sprintf("/api/contacts/1/%d", id), "").status
		}
		get(1)
		time.Sleep(59 * time.Minute)
		get(2)
		if got := get(3); got != 401 {
			t.Errorf("within the window: %d", got)
		}
		time.Sleep(time.Minute)
		if a, b, d := get(4), get(5), get(6); a != 200 || b != 200 || d != 401 {
			t.Errorf("the next window: %d %d %d", a, b, d)
		}
	})
}
