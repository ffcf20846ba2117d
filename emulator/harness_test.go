package emulator

import (
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// answer is what a caller got; status 0 means a dropped connection.
type answer struct {
	status int
	header http.Header
	body   string
}

func (a answer) json(t *testing.T) map[string]any {
	t.Helper()
	var v map[string]any
	if err := json.Unmarshal([]byte(a.body), &v); err != nil {
		t.Fatalf("answer is no JSON object: %v: %q", err, a.body)
	}
	return v
}

// headers are pairs of name and value.
func call1(c http.Handler, method, target, body string, headers ...string) (a answer) {
	r := httptest.NewRequest(method, target, strings.NewReader(body))
	for i := 0; i < len(headers); i += 2 {
		r.Header.Set(headers[i], headers[i+1])
	}
	w := httptest.NewRecorder()
	defer func() {
		if p := recover(); p != nil {
			if p != http.ErrAbortHandler {
				panic(p)
			}
			a = answer{}
		}
	}()
	c.ServeHTTP(w, r)
	res := w.Result()
	b, _ := io.ReadAll(res.Body)
	return answer{res.StatusCode, res.Header, string(b)}
}

// perfexCall calls with the default token.
func perfexCall(c http.Handler, method, target, body string, headers ...string) answer {
	return call1(c, method, target, body, append([]string{"authtoken", DefaultToken}, headers...)...)
}

func evanceToken(t *testing.T, c *CRM) string {
	t.Helper()
	a := call1(c, "POST", "/admin/oauth/token", url.Values{
		"grant_type": {"client_credentials"}, "client_id": {DefaultClientID}, "client_secret": {DefaultPrivateKey},
	}.Encode(), "Content-Type", "application/x-www-form-urlencoded")
	token, _ := a.json(t)["access_token"].(string)
	if a.status != 200 || token == "" {
		t.Fatalf("no token: %d %s", a.status, a.body)
	}
	return token
}

func lastEntry(t *testing.T, c *CRM) Entry {
	t.Helper()
	l := c.Ledger()
	if len(l) == 0 {
		t.Fatal("the ledger is empty")
	}
	return l[len(l)-1]
}

func contact(t *testing.T, c *CRM, id string) map[string]any {
	t.Helper()
	r, ok := c.Contact(id)
	if !ok {
		t.Fatalf("contact %s does not exist", id)
	}
	return r
}

// keepFlags are the presence fields of a seeded contact that is not primary,
// as a careful client sends them.
const keepFlags = `"invoice_emails":"invoice_emails","permissions":["1","5"]`

func putBody(id int, rest string) string {
	b := `{"email":"` + seedEmail(id) + `",` + keepFlags
	if rest != "" {
		b += "," + rest
	}
	return b + "}"
}
