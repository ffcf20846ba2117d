package perfex

import (
	"context"
	"io"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"go.uber.org/goleak"

	"crmsync/contact"
	"crmsync/crm"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const canary = "canary-token-77c1"

// script is a CRM that answers GETs and PUTs from lists; the last of each is
// repeated. What was sent is kept.
type script struct {
	t          testing.TB
	gets, puts []*http.Response
	paths      []string
	bodies     []string
}

func (s *script) RoundTrip(r *http.Request) (*http.Response, error) {
	s.paths = append(s.paths, r.Method+" "+r.URL.Path)
	list := &s.gets
	if r.Method == http.MethodPut {
		b, _ := io.ReadAll(r.Body)
		s.bodies = append(s.bodies, string(b))
		list = &s.puts
	}
	if len(*list) == 0 {
		s.t.Errorf("no answer to %s", r.Method)
		return nil, io.ErrUnexpectedEOF
	}
	out := (*list)[0]
	if len(*list) > 1 {
		*list = (*list)[1:]
	}
	if out == nil {
		return nil, io.ErrUnexpectedEOF
	}
	out.Body = io.NopCloser(strings.NewReader(out.Status))
	return out, nil
}

// answer keeps the body in Status until it is sent.
func answer(status int, body string, header ...string) *http.Response {
	h := http.Header{}
	for i := 0; i < len(header); i += 2 {
		h.Set(header[i], header[i+1])
	}
	return &http.Response{StatusCode: status, Header: h, Status: body}
}

const shown = `{"id":"7","userid":"2","is_primary":"1","firstname":"Ada","lastname":"Byron","email":"ada@example.com",
"phonenumber":"","title":null,"direction":null,"password":"$2a$08$x","active":"1","invoice_emails":"0","estimate_emails":"1",
"credit_note_emails":"0","contract_emails":"0","task_emails":"0","project_emails":"0","ticket_emails":"1","customfields":[{"label":"Region","value":"EU"}]}`

func open(t testing.TB, rt http.RoundTripper, change ...func(*Options)) *Client {
	t.Helper()
	o := optionsFor(rt)
	for _, f := range change {
		f(&o)
	}
	c, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func optionsFor(rt http.RoundTripper) Options {
	return Options{
		Base: &url.URL{Scheme: "https", Host: "crm.test"}, Permissions: []int{5, 1, 5}, Transport: rt,
		Token: func() (string, error) { return canary, nil },
	}
}

func free(context.Context) error { return nil }

func send(t testing.TB, c *Client, fields string) crm.Answer {
	t.Helper()
	return sendChange(c, contact.Change{Contact: contact.Key{ID: "7"}, Fields: fieldsOf(t, fields)})
}

func sendChange(c *Client, ch contact.Change) crm.Answer {
	return c.Send(context.Background(), free, []contact.Change{ch})[0]
}

func fieldsOf(t testing.TB, s string) contact.Patch {
	t.Helper()
	p, err := contact.ParsePatch([]byte(s))
	if err != nil {
		t.Fatal(err)
	}
	return p
}
