package emulator

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"
)

const jwtBearer = "urn:ietf:params:oauth:grant-type:jwt-bearer"

// clockSkew is forgiven in the times of an assertion.
const clockSkew = time.Minute

// issuer keeps the access tokens that are good. Guarded by CRM.mu.
type issuer struct {
	rng    *rand.Rand
	tokens map[string]grant
}

type grant struct {
	expires time.Time
	scope   string
}

func newIssuer(seed uint64) *issuer {
	return &issuer{rng: rand.New(rand.NewPCG(seed, 0x746f6b656e)), tokens: map[string]grant{}}
}

func (i *issuer) revoke() { clear(i.tokens) }

func (i *issuer) issue(now time.Time, life time.Duration, scope string) string {
	for t, g := range i.tokens {
		if !now.Before(g.expires) {
			delete(i.tokens, t)
		}
	}
	token := fmt.Sprintf("%016x%016x", i.rng.Uint64(), i.rng.Uint64())
	i.tokens[token] = grant{now.Add(life), scope}
	return token
}

// authorize checks the bearer token and returns its scope; empty means all.
func (ev *evance) authorize(cl *call) (scope string, refusal *reply) {
	kind, token, _ := strings.Cut(cl.header.Get("Authorization"), " ")
	g, ok := ev.issued.tokens[token]
	var rep reply
	switch {
	case !strings.EqualFold(kind, "Bearer") || token == "":
		rep = unauthorized("No access token was supplied")
	case !ok:
		rep = unauthorized("The access token provided is invalid")
	case !cl.now.Before(g.expires):
		rep = unauthorized("The access token provided has expired")
	default:
		return g.scope, nil
	}
	return "", &rep
}

func oauthError(status int, code, text string) reply {
	rep := jsonReply(status, m{"error": code, "error_description": text})
	rep.header.Set("Cache-Control", "no-store")
	return rep
}

// grant is the token endpoint (crm-apis B2). Neither grant gives a refresh
// token.
func (ev *evance) grant(cl *call) reply {
	if cl.method != http.MethodPost {
		return oauthError(http.StatusMethodNotAllowed, "invalid_request", "The token endpoint takes POST")
	}
	kind, _, _ := strings.Cut(cl.header.Get("Content-Type"), ";")
	if !strings.EqualFold(strings.TrimSpace(kind), "application/x-www-form-urlencoded") {
		return oauthError(http.StatusBadRequest, "invalid_request", "The body must be application/x-www-form-urlencoded")
	}
	form, err := url.ParseQuery(string(cl.body))
	if err != nil {
		return oauthError(http.StatusBadRequest, "invalid_request", "The body is malformed")
	}
	scope := form.Get("scope")
	switch form.Get("grant_type") {
	case "client_credentials":
		if !ev.knownClient(cl, form) {
			return oauthError(http.StatusUnauthorized, "invalid_client", "The client credentials are invalid")
		}
	case jwtBearer:
		claimed, problem := ev.verify(cl, form.Get("assertion"))
		if problem != "" {
			return oauthError(http.StatusBadRequest, "invalid_grant", problem)
		}
		scope = orElse(scope, claimed)
	case "refresh_token":
		return oauthError(http.StatusBadRequest, "invalid_grant", "The refresh token is invalid")
	case "":
		return oauthError(http.StatusBadRequest, "invalid_request", "The grant type was not specified")
	default:
		return oauthError(http.StatusBadRequest, "unsupported_grant_type", "The grant type is not supported")
	}
	for s := range strings.FieldsSeq(scope) {
		if s != "contacts" && s != "contacts.readonly" {
			return oauthError(http.StatusBadRequest, "invalid_scope", "An unsupported scope was requested")
		}
	}
	answer := m{
		"access_token": ev.issued.issue(cl.now, ev.opt.TokenLife, scope),
		"expires_in":   int(ev.opt.TokenLife / time.Second), "token_type": "Bearer", "scope": nil,
	}
	if scope != "" {
		answer["scope"] = scope
	}
	rep := jsonReply(http.StatusOK, answer)
	rep.header.Set("Cache-Control", "no-store")
	return rep
}

// knownClient takes the id and secret from the form or from Basic.
func (ev *evance) knownClient(cl *call, form url.Values) bool {
	id, secret := form.Get("client_id"), form.Get("client_secret")
	r := http.Request{Header: cl.header}
	if user, pass, ok := r.BasicAuth(); ok {
		id, _ = url.QueryUnescape(user)
		secret, _ = url.QueryUnescape(pass)
	}
	return id == ev.opt.ClientID && hmac.Equal([]byte(secret), []byte(ev.key))
}

type claims struct {
	Iss   string  `json:"iss"`
	Sub   string  `json:"sub"`
	Aud   any     `json:"aud"`
	Iat   float64 `json:"iat"`
	Exp   float64 `json:"exp"`
	Scope string  `json:"scope"`
}

// verify checks an assertion: HS256 with the private key's text as the key.
func (ev *evance) verify(cl *call, assertion string) (scope, problem string) {
	parts := strings.Split(assertion, ".")
	if len(parts) != 3 {
		return "", "The assertion is not a JWT"
	}
	var head struct{ Alg, Typ string }
	if !decodePart(parts[0], &head) || head.Alg != "HS256" {
		return "", "The assertion must be signed with HS256"
	}
	mac := hmac.New(sha256.New, []byte(ev.key))
	mac.Write([]byte(parts[0] + "." + parts[1]))
	sent, err := base64.RawURLEncoding.DecodeString(parts[2])
	if err != nil || !hmac.Equal(sent, mac.Sum(nil)) {
		return "", "The assertion's signature is invalid"
	}
	var c claims
	if !decodePart(parts[1], &c) {
		return "", "The assertion's claims are malformed"
	}
	now := cl.now
	switch exp := unix(c.Exp); {
	case c.Iss != ev.opt.ClientID:
		return "", "The issuer (iss) is not the client id"
	case c.Sub != ev.opt.ClientID:
		return "", "The subject (sub) is not the client id"
	case !ev.isAudience(cl, c.Aud):
		return "", "The audience (aud) is not the token URI"
	case c.Exp == 0 || !now.Before(exp.Add(clockSkew)):
		return "", "The assertion has expired (exp)"
	case exp.After(now.Add(time.Hour + clockSkew)):
		return "", "The assertion expires too late (exp)"
	case unix(c.Iat).After(now.Add(clockSkew)):
		return "", "The assertion was issued in the future (iat)"
	}
	return c.Scope, ""
}

func unix(seconds float64) time.Time { return time.Unix(int64(seconds), 0) }

// isAudience: the token URI of the account, or of the host the emulator is
// reached at, with or without .json.
func (ev *evance) isAudience(cl *call, aud any) bool {
	var uris []string
	for _, base := range []string{"https://" + ev.opt.Account, "https://" + cl.host, "http://" + cl.host} {
		uris = append(uris, base+"/admin/oauth/token", base+"/admin/oauth/token.json", base+cl.path)
	}
	switch aud := aud.(type) {
	case string:
		return slices.Contains(uris, aud)
	case []any:
		return slices.ContainsFunc(aud, func(v any) bool {
			s, ok := v.(string)
			return ok && slices.Contains(uris, s)
		})
	}
	return false
}

func decodePart(s string, into any) bool {
	b, err := base64.RawURLEncoding.DecodeString(s)
	return err == nil && json.Unmarshal(b, into) == nil
}
