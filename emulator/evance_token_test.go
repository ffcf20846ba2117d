package emulator

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"maps"
	"net/url"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

func assertion(key, alg string, claims map[string]any) string {
	part := func(v any) string {
		b, _ := json.Marshal(v)
		return base64.RawURLEncoding.EncodeToString(b)
	}
	head := part(map[string]any{"alg": alg, "typ": "JWT"}) + "." + part(claims)
	mac := hmac.New(sha256.New, []byte(key))
	mac.Write([]byte(head))
	return head + "." + base64.RawURLEncoding.EncodeToString(mac.Sum(nil))
}

func tokenCall(c *CRM, form url.Values, headers ...string) answer {
	return call1(c, "POST", "/admin/oauth/token.json", form.Encode(),
		append([]string{"Content-Type", "application/x-www-form-urlencoded"}, headers...)...)
}

func TestEvanceJWT(t *testing.T) {
	now := time.Now().Unix()
	good := map[string]any{
		"iss": DefaultClientID, "sub": DefaultClientID, "aud": "https://" + DefaultAccount + "/admin/oauth/token",
		"iat": now, "exp": now + 3600, "scope": "",
	}
	with := func(k string, v any) map[string]any {
		c := maps.Clone(good)
		c[k] = v
		return c
	}
	tests := []struct {
		name, assertion string
		status          int
		problem         string
	}{
		{"good", assertion(DefaultPrivateKey, "HS256", good), 200, ""},
		{"audience with .json", assertion(DefaultPrivateKey, "HS256", with("aud", "https://"+DefaultAccount+"/admin/oauth/token.json")), 200, ""},
		{"audience is this host", assertion(DefaultPrivateKey, "HS256", with("aud", "http://example.com/admin/oauth/token")), 200, ""},
		{"audiences", assertion(DefaultPrivateKey, "HS256", with("aud", []string{"x", "https://" + DefaultAccount + "/admin/oauth/token"})), 200, ""},
		{"wrong key", assertion("x", "HS256", good), 400, "signature"},
		{"no algorithm", assertion(DefaultPrivateKey, "none", good), 400, "HS256"},
		{"wrong issuer", assertion(DefaultPrivateKey, "HS256", with("iss", "x")), 400, "(iss)"},
		{"wrong subject", assertion(DefaultPrivateKey, "HS256", with("sub", "x")), 400, "(sub)"},
		{"wrong audience", assertion(DefaultPrivateKey, "HS256", with("aud", "https://elsewhere/admin/oauth/token")), 400, "(aud)"},
		{"expired", assertion(DefaultPrivateKey, "HS256", with("exp", now-120)), 400, "(exp)"},
		{"no expiry", assertion(DefaultPrivateKey, "HS256", with("exp", 0)), 400, "(exp)"},
		{"expires too late", assertion(DefaultPrivateKey, "HS256", with("exp", now+7200)), 400, "(exp)"},
		{"from the future", assertion(DefaultPrivateKey, "HS256", with("iat", now+600)), 400, "(iat)"},
		{"no JWT", "abc", 400, "not a JWT"},
		{"empty", "", 400, "not a JWT"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			c := NewEvance(Options{Contacts: 1})
			a := tokenCall(c, url.Values{"grant_type": {jwtBearer}, "assertion": {tt.assertion}})
			got := a.json(t)
			if a.status != tt.status {
				t.Fatalf("%d %s", a.status, a.body)
			}
			if tt.status == 200 {
				token, _ := got["access_token"].(string)
				if token == "" || got["expires_in"] != 3600.0 || got["token_type"] != "Bearer" || got["scope"] != nil {
					t.Errorf("token answer %s", a.body)
				}
				if a := call1(c, "GET", "/api/contacts/1.json", "", "Authorization", "Bearer "+token); a.status != 200 {
					t.Errorf("the token does not work: %d", a.status)
				}
				return
			}
			if text, _ := got["error_description"].(string); got["error"] != "invalid_grant" || !strings.Contains(text, tt.problem) {
				t.Errorf("%s, want %s", a.body, tt.problem)
			}
		})
	}
}

func TestEvanceGrants(t *testing.T) {
	secret := url.Values{"grant_type": {"client_credentials"}, "client_id": {DefaultClientID}, "client_secret": {DefaultPrivateKey}}
	basic := "Basic " + base64.StdEncoding.EncodeToString([]byte(DefaultClientID+":"+DefaultPrivateKey))
	tests := []struct {
		name    string
		form    url.Values
		headers []string
		status  int
		code    any
	}{
		{"in the form", secret, nil, 200, nil},
		{"as Basic", url.Values{"grant_type": {"client_credentials"}}, []string{"Authorization", basic}, 200, nil},
		{"wrong secret", url.Values{"grant_type": {"client_credentials"}, "client_id": {DefaultClientID}, "client_secret": {"x"}}, nil, 401, "invalid_client"},
		{"wrong client", url.Values{"grant_type": {"client_credentials"}, "client_id": {"x"}, "client_secret": {DefaultPrivateKey}}, nil, 401, "invalid_client"},
		{"refresh", url.Values{"grant_type": {"refresh_token"}, "refresh_token": {"x"}}, nil, 400, "invalid_grant"},
		{"unknown grant", url.Values{"grant_type": {"password"}}, nil, 400, "unsupported_grant_type"},
		{"no grant", url.Values{}, nil, 400, "invalid_request"},
		{"no form", secret, []string{"Content-Type", "application/json"}, 400, "invalid_request"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			c := NewEvance(Options{})
			a := tokenCall(c, tt.form, tt.headers...)
			if a.status != tt.status || a.json(t)["error"] != tt.code {
				t.Errorf("%d %s", a.status, a.body)
			}
			if e := lastEntry(t, c); e.Operation != OpToken {
				t.Errorf("operation %s", e.Operation)
			}
		})
	}
	// A read-only scope reads and does not write.
	c := NewEvance(Options{Contacts: 1})
	secret.Set("scope", "contacts.readonly")
	a := tokenCall(c, secret)
	token, _ := a.json(t)["access_token"].(string)
	if got := call1(c, "GET", "/api/contacts/1.json", "", "Authorization", "Bearer "+token).status; got != 200 {
		t.Errorf("read: %d", got)
	}
	if got := call1(c, "PUT", "/api/contacts/1.json", `{"contact":{"phone":"1"}}`, "Authorization", "Bearer "+token).status; got != 403 {
		t.Errorf("write: %d", got)
	}
}

func TestEvanceTokenLife(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := NewEvance(Options{Contacts: 1, TokenLife: time.Minute})
		get := func(token string) int {
			return call1(c, "GET", "/api/contacts/1.json", "", "Authorization", "Bearer "+token).status
		}
		token := evanceToken(t, c)
		time.Sleep(time.Minute - time.Nanosecond)
		if got := get(token); got != 200 {
			t.Errorf("just before the end: %d", got)
		}
		time.Sleep(time.Nanosecond)
		if got := get(token); got != 401 {
			t.Errorf("at the end: %d", got)
		}
		token, other := evanceToken(t, c), evanceToken(t, c)
		if token == other || get(token) != 200 || get(other) != 200 {
			t.Error("two tokens at once must both be good")
		}
		c.RevokeTokens()
		if get(token) != 401 || get(other) != 401 || get("") != 401 || get("made-up") != 401 {
			t.Error("a worthless token was accepted")
		}
		if got := get(evanceToken(t, c)); got != 200 {
			t.Errorf("a new token: %d", got)
		}
		c.SetToken("another key")
		if a := tokenCall(c, url.Values{"grant_type": {"client_credentials"}, "client_id": {DefaultClientID}, "client_secret": {DefaultPrivateKey}}); a.status != 401 {
			t.Errorf("the old key: %d", a.status)
		}
	})
}
