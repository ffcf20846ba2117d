package emulator

import (
	"context"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

func TestLink(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := NewPerfex(Options{Contacts: 1})
		link := Serve(c)
		res, err := link.Client().Get("http://any.name:81/api/contacts/1/1?authtoken=" + DefaultToken)
		if err != nil || res.StatusCode != 200 {
			t.Fatal(res, err)
		}
		_ = res.Body.Close()
		c.SetFaults(Faults{{Kind: Redirect, URL: "http://elsewhere/"}})
		if res, err = link.Client().Get("http://any.name/"); err != nil || res.StatusCode != 302 {
			t.Fatal(res, err)
		}
		_ = res.Body.Close()
		if n := len(c.Ledger()); n != 2 {
			t.Errorf("%d requests: the redirect was followed", n)
		}
		link.Close()
		link.Close()
		if _, err := link.Client().Get("http://any.name/"); err == nil || !strings.Contains(err.Error(), "closed") {
			t.Errorf("after Close: %v", err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		silent := &Link{conns: nil, done: make(chan struct{})}
		if _, err := silent.Dial(ctx, "", ""); err != context.DeadlineExceeded {
			t.Errorf("nobody accepts: %v", err)
		}
	})
}

func TestBodyLimit(t *testing.T) {
	c := NewPerfex(Options{Contacts: 12})
	if a := perfexCall(c, "PUT", "/api/contacts/6", `{"title":"`+strings.Repeat("x", maxBody)+`"}`); a.status != http.StatusRequestEntityTooLarge {
		t.Errorf("%d", a.status)
	}
	if e := lastEntry(t, c); e.Applied || e.Operation != OpUpdate {
		t.Errorf("ledger %+v", e)
	}
}

// TestEvanceRefusals: the faults in the other vendor's words; a dead token is
// one that the token endpoint gave out, which goes on giving out more.
func TestEvanceRefusals(t *testing.T) {
	tests := []struct {
		fault  Fault
		status int
		text   string
	}{
		{Fault{Kind: DeadToken}, 401, `"error":"invalid_token"`},
		{Fault{Kind: Forbidden}, 403, `"name":"scope"`},
		{Fault{Kind: ModuleOff}, 403, `"success":false`},
		{Fault{Kind: TooMany, RetryAfter: RetrySeconds, Operation: OpUpdate}, 429, `"status":429`},
		{Fault{Kind: PoisonContact, Contact: "4"}, 500, `<!DOCTYPE`},
	}
	for _, tt := range tests {
		c := NewEvance(Options{Contacts: 12})
		token := evanceToken(t, c)
		c.SetFaults(Faults{tt.fault})
		if tt.fault.Kind == DeadToken {
			token = evanceToken(t, c)
		}
		a := call1(c, "PUT", "/api/contacts/4.json", `{"contact":{"phone":"#1#"}}`, "Authorization", "Bearer "+token)
		if a.status != tt.status || !strings.Contains(a.body, tt.text) {
			t.Errorf("%s: %d %s", tt.fault.Kind, a.status, a.body)
		}
		if e := lastEntry(t, c); e.Applied || e.Fault != string(tt.fault.Kind) || len(e.Updates) != 1 {
			t.Errorf("%s: ledger %+v", tt.fault.Kind, e)
		}
	}
}

// TestFaultsMatchBatches: a fault for one contact hits the batch it is in.
func TestFaultsMatchBatches(t *testing.T) {
	body := `{"operations":[{"tool":"contacts_update","arguments":{"id":5,"data":{"title":"a"}}},{"tool":"contacts_update","arguments":{"id":6,"data":{"title":"b"}}}]}`
	for contact, want := range map[string]int{"6": 500, "7": 200} {
		c := NewPerfex(Options{Contacts: 12})
		c.SetFaults(Faults{{Kind: PoisonContact, Contact: contact}})
		if a := perfexCall(c, "POST", "/api/batch", body); a.status != want {
			t.Errorf("poison %s: %d", contact, a.status)
		}
	}
	c := NewPerfex(Options{Contacts: 12})
	c.SetFaults(Faults{{Kind: Lie}})
	if a := perfexCall(c, "POST", "/api/batch", body); a.status != 200 || lastEntry(t, c).Applied {
		t.Errorf("a lie: %d, ledger %+v", a.status, lastEntry(t, c))
	}
	if r, _ := c.Contact("5"); r["title"] != "Manager" {
		t.Error("a lie was stored")
	}
}

// TestFormMarks: a form body counts as a body.
func TestFormMarks(t *testing.T) {
	c := NewPerfex(Options{Mode: PerfexDocs, Contacts: 12})
	a := perfexCall(c, "PUT", "/api/contacts/6", "email=a%40b.c&title=%235%23&permissions[]=1&permissions[]=2", "Content-Type", "application/x-www-form-urlencoded")
	if e := lastEntry(t, c); a.status != 200 || len(e.Updates) != 1 || e.Updates[0] != 5 || e.Values["title"] != "#5#" {
		t.Errorf("%d %s, ledger %+v", a.status, a.body, e)
	}
	if p := contact(t, c, "6")[permissionsField].([]string); len(p) != 2 {
		t.Errorf("permissions %v", p)
	}
	multipart := "--X\r\nContent-Disposition: form-data; name=\"email\"\r\n\r\nm@x.io\r\n--X--\r\n"
	if a := perfexCall(c, "PUT", "/api/contacts/6", multipart, "Content-Type", "multipart/form-data; boundary=X"); a.status != 200 || contact(t, c, "6")["email"] != "m@x.io" {
		t.Errorf("%d %s", a.status, a.body)
	}
}

// TestBrokenBody: a request whose body does not arrive whole is in the ledger,
// without an answer and without an effect.
func TestBrokenBody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := NewPerfex(Options{Contacts: 12})
		link := Serve(c)
		defer link.Close()
		conn, err := link.Dial(t.Context(), "", "")
		if err != nil {
			t.Fatal(err)
		}
		if _, err := conn.Write([]byte("PUT /api/contacts/6 HTTP/1.1\r\nHost: x\r\nAuthtoken: " + DefaultToken + "\r\nContent-Length: 500\r\n\r\n" + putBody(6, `"title":"T"`))); err != nil {
			t.Fatal(err)
		}
		_ = conn.Close()
		synctest.Wait()
		if e := lastEntry(t, c); e.Answered.IsZero() || e.Status != 0 || e.Applied {
			t.Errorf("ledger %+v", e)
		}
	})
}

func TestContentTypes(t *testing.T) {
	c := NewPerfex(Options{Contacts: 12})
	for query, want := range map[string]string{
		"": "application/json; charset=utf-8", "?format=html": "text/html; charset=utf-8",
		"?format=xml": "application/xml; charset=utf-8", "?callback=f": "application/javascript; charset=utf-8",
	} {
		if got := perfexCall(c, "GET", "/api/contacts/2/6"+query, "").header.Get("Content-Type"); got != want {
			t.Errorf("%q: %s, want %s", query, got, want)
		}
	}
}

func TestCount(t *testing.T) {
	s := Count([]Entry{
		{Answered: epoch, Status: 299},
		{Answered: epoch, Status: 300},
		{Answered: epoch},
		{},
		{Answered: epoch, Status: 200, Operation: OpBatch, Batch: []Part{{Applied: true}, {Applied: true}, {Unchanged: true}}},
	})
	if s.Refused[299] != 0 || s.Refused[300] != 1 || s.Lost != 1 || s.Pending != 1 || s.Applied != 2 || s.Unchanged != 1 || s.Batches != 1 {
		t.Errorf("%+v", s)
	}
}
