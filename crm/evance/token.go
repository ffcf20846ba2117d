package evance

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"crmsync/contact"
	"crmsync/crm"
)

const (
	// The vendor's clients post to the first, its pages say the second
	// (crm-apis B2).
	tokenPath     = "/admin/oauth/token"
	tokenPathJSON = "/admin/oauth/token.json"

	tokenLife = time.Hour        // documented
	tokenSkew = time.Minute      // renewed so much before it ends
	maxLife   = 24 * time.Hour   // whatever the answer says
	minLife   = 10 * time.Second // so that a nonsense answer is not fetched again for every call
	jwtBearer = "urn:ietf:params:oauth:grant-type:jwt-bearer"
	maxAsks   = 3 // two spellings, and the second grant
)

// tokens shares one access token among all calls. One caller at a time fetches
// it, the others wait for what it gets. No general OAuth client is used: every
// request, a token's too, must be paid for and go through the same manners.
type tokens struct {
	http  *crm.Client
	creds func() (Credentials, error)

	mu    sync.Mutex
	token string
	until time.Time
	fetch *fetch // in flight, or nil
	path  string // the spelling of the endpoint that works
	grant string // the grant that works; auto until known
}

// fetch is one attempt to get a token, and its result once done is closed.
type fetch struct {
	done    chan struct{}
	token   string
	answer  crm.Answer
	ok      bool
	retired bool // its caller gave up; the result says nothing
}

func newTokens(h *crm.Client, creds func() (Credentials, error), grant string) *tokens {
	return &tokens{http: h, creds: creds, path: tokenPath, grant: grant}
}

// get returns a token that is good for now. spoilt is one that was refused and
// must not be returned again; "" where there is none.
func (t *tokens) get(ctx context.Context, m *crm.Meter, spoilt string) (string, crm.Answer, bool) {
	for {
		t.mu.Lock()
		if t.token != "" && t.token != spoilt && time.Now().Before(t.until) {
			defer t.mu.Unlock()
			return t.token, crm.Answer{}, true
		}
		if f := t.fetch; f != nil {
			t.mu.Unlock()
			m.Lapse() // the wait may be long
			select {
			case <-f.done:
			case <-ctx.Done():
				return "", crm.Answer{Verdict: contact.VerdictTransient, Detail: "stopped while waiting for a token"}, false
			}
			if f.retired || f.token == spoilt && f.ok {
				continue
			}
			return f.token, f.answer, f.ok
		}
		f := &fetch{done: make(chan struct{})}
		t.fetch = f
		t.mu.Unlock()
		t.run(ctx, m, f)
		return f.token, f.answer, f.ok
	}
}

// run fetches a token and publishes the result, even if it panics: others wait.
func (t *tokens) run(ctx context.Context, m *crm.Meter, f *fetch) {
	var life time.Duration
	defer func() {
		t.mu.Lock()
		defer t.mu.Unlock()
		if f.ok {
			t.token, t.until = f.token, time.Now().Add(life-min(tokenSkew, life/10))
		}
		// The endpoint's failures are incidents; this one was the caller's own
		// (it was stopped, or not let through), or a panic.
		f.retired = !f.ok && !f.answer.Incident && f.answer.Verdict != contact.VerdictThrottled
		t.fetch = nil
		close(f.done)
	}()
	f.token, life, f.answer, f.ok = t.obtain(ctx, m)
}

// obtain asks for a token: at most once for each spelling of the endpoint and
// each grant. What worked is remembered.
func (t *tokens) obtain(ctx context.Context, m *crm.Meter) (string, time.Duration, crm.Answer, bool) {
	c, err := t.creds()
	if err == nil {
		err = c.check()
	}
	if err != nil {
		return "", 0, crm.NoCredentials(err, c.PrivateKey, c.ClientID).Answer(false), false
	}
	t.mu.Lock()
	path, grant := t.path, t.grant
	t.mu.Unlock()
	auto := grant == GrantAuto
	if auto {
		grant = GrantJWT
	}
	for turn := 1; ; turn++ {
		r, a, ok := t.ask(ctx, m, c, path, grant)
		if !ok {
			return "", 0, a, false
		}
		ans := readToken(r)
		switch {
		case ans.token != "":
			t.mu.Lock()
			t.path = path
			if auto {
				t.grant = grant
			}
			t.mu.Unlock()
			return ans.token, ans.life, crm.Answer{}, true
		case turn < maxAsks && r.Status == http.StatusNotFound && path == tokenPath:
			path = tokenPathJSON
		case turn < maxAsks && auto && grant == GrantJWT && ans.otherGrant():
			grant = GrantClientCredentials
		default:
			return "", 0, ans.refusal(r, c), false
		}
	}
}

func (t *tokens) ask(ctx context.Context, m *crm.Meter, c Credentials, path, grant string) (*crm.Reply, crm.Answer, bool) {
	form := url.Values{"grant_type": {"client_credentials"}, "client_id": {c.ClientID}, "client_secret": {c.PrivateKey}}
	secrets := []string{c.PrivateKey, c.ClientID}
	if grant == GrantJWT {
		signed, err := assertion(c, time.Now())
		if err != nil {
			return nil, crm.NoCredentials(errors.New("sign the token request"), secrets...).Answer(false), false
		}
		form = url.Values{"grant_type": {jwtBearer}, "assertion": {signed}}
		secrets = append(secrets, signed)
	}
	r, f := t.http.Do(ctx, m, crm.Request{
		Method: http.MethodPost, Path: path, Body: []byte(form.Encode()), Secrets: secrets,
		Header: http.Header{"Content-Type": {"application/x-www-form-urlencoded"}},
	})
	if f != nil {
		a := f.Answer(false) // a token asked for in vain changes nothing
		a.Incident = a.Incident || f.Kind != crm.FaultStopped
		return nil, a, false
	}
	return r, crm.Answer{}, true
}

// assertion is the JWT of the bearer grant; its claims are those of the
// vendor's own client (crm-apis B2).
func assertion(c Credentials, now time.Time) (string, error) {
	return jwt.NewWithClaims(jwt.SigningMethodHS256, jwt.MapClaims{
		"iss": c.ClientID, "sub": c.ClientID, "aud": "https://" + c.Account + tokenPath,
		"iat": now.Unix(), "exp": now.Add(time.Hour).Unix(), "scope": "",
	}).SignedString([]byte(c.PrivateKey))
}

// tokenAnswer is what the token endpoint said.
type tokenAnswer struct {
	token string
	life  time.Duration
	code  string // OAuth's error
	text  string
	json  bool
}

func readToken(r *crm.Reply) tokenAnswer {
	obj, ok := r.Object()
	a := tokenAnswer{json: ok}
	if !ok {
		return a
	}
	str := func(key string) (s string) {
		_ = json.Unmarshal(obj[key], &s) // anything but a string counts as absent
		return s
	}
	a.code, a.text = str("error"), str("error_description")
	if r.Status < 200 || r.Status > 299 || a.code != "" || len(obj["access_token"]) == 0 {
		return a
	}
	if kind := str("token_type"); kind != "" && !strings.EqualFold(kind, "bearer") {
		return a
	}
	if s := str("access_token"); crm.CheckToken(s) == nil {
		a.token = s
	}
	a.life = tokenLife
	if n, err := strconv.ParseFloat(strings.Trim(string(obj["expires_in"]), `"`), 64); err == nil && n > 0 {
		a.life = max(min(time.Duration(min(n, maxLife.Seconds())*float64(time.Second)), maxLife), minLife)
	}
	return a
}

// otherGrant says that the shop does not take this grant for this app.
func (a tokenAnswer) otherGrant() bool {
	switch a.code {
	case "unsupported_grant_type", "unauthorized_client", "invalid_grant":
		return true
	}
	return false
}

// refusal is what an answer without a token means for the target.
func (a tokenAnswer) refusal(r *crm.Reply, c Credentials) crm.Answer {
	basic := base64.StdEncoding.EncodeToString([]byte(c.ClientID + ":" + c.PrivateKey))
	out := crm.Fallback(r)
	out.Incident = true
	words := a.code + ": " + a.text
	if a.code == "" {
		words = string(r.Body)
	}
	out.Detail = crm.Detail([]byte("token endpoint: "+words), c.PrivateKey, c.ClientID, basic)
	switch {
	case r.Status == http.StatusTooManyRequests || out.Verdict == contact.VerdictThrottled:
		out.Verdict, out.Incident = contact.VerdictThrottled, false
	case a.code == "temporarily_unavailable" || a.code == "server_error":
		out.Verdict, out.Reason = contact.VerdictTransient, contact.NoReason
	case r.Status >= 500, r.Status >= 300 && r.Status < 400:
		out.Verdict, out.Reason = contact.VerdictTransient, contact.NoReason
	case r.Status == http.StatusNotFound && a.code == "":
		out.Verdict, out.Reason = contact.VerdictTransient, contact.NoReason
		out.Detail = "no token endpoint there; check the url in the config"
	case a.code != "", r.Status == http.StatusUnauthorized, r.Status == http.StatusBadRequest, r.Status == http.StatusForbidden:
		out.Verdict, out.Reason = contact.VerdictUnauthorized, contact.NoReason
	default:
		out.Verdict, out.Reason = contact.VerdictTransient, contact.Protocol
		out.Detail = "token endpoint: the answer holds no token"
	}
	return out
}
