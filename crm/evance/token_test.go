package evance

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"crmsync/contact"
	"crmsync/crm"
)

func TestParseCredentials(t *testing.T) {
	const good = `{"account":"demo.evance.me","client_id":"abc.2.app.evance.me","private_key":"00ff","algorithm":"HS256","more":1}`
	c, err := ParseCredentials([]byte("\xEF\xBB\xBF" + good + "\n"))
	if err != nil || c.Account != "demo.evance.me" || c.ClientID != "abc.2.app.evance.me" || c.PrivateKey != "00ff" {
		t.Errorf("%v %v", c, err)
	}
	for _, tt := range []struct{ body, key string }{
		{``, "JSON"},
		{`null`, "JSON"},
		{`[]`, "JSON"},
		{`{"account":`, "JSON"},
		{good + good, "more than one"},
		{strings.Replace(good, `"account"`, `"Account"`, 1), "account"},
		{strings.Replace(good, `"demo.evance.me"`, `""`, 1), "account"},
		{strings.Replace(good, `"demo.evance.me"`, `"https://canary.me/"`, 1), "account"},
		{strings.Replace(good, `"abc.2.app.evance.me"`, `5`, 1), "client_id"},
		{strings.Replace(good, `"00ff"`, `"canary \n"`, 1), "private_key"},
		{strings.Replace(good, `"00ff"`, `null`, 1), "private_key"},
		{strings.Replace(good, `"HS256"`, `"canary"`, 1), "algorithm"},
	} {
		if _, err := ParseCredentials([]byte(tt.body)); err == nil || !strings.Contains(err.Error(), tt.key) || strings.Contains(err.Error(), "canary") {
			t.Errorf("%s: %v, want a word of %s", tt.body, err, tt.key)
		}
	}
	c, _ = credentials()
	text := fmt.Sprintf("%v %+v %#v %s %q", c, c, c, c, c)
	js, _ := c.MarshalJSON()
	if strings.Contains(text+string(js), canaryKey) || strings.Contains(text+string(js), canaryClient) {
		t.Errorf("%s %s", text, js)
	}
}

func FuzzCredentials(f *testing.F) {
	f.Add([]byte(`{"account":"a","client_id":"b","private_key":"c"}`))
	f.Add([]byte(`{"account":1}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		if c, err := ParseCredentials(b); err == nil && (c.Account == "" || c.ClientID == "" || c.PrivateKey == "") {
			t.Fatalf("%#v", c)
		}
	})
}

func TestNew(t *testing.T) {
	for name, change := range map[string]func(*Options){
		"no url":         func(o *Options) { o.Base = nil },
		"no credentials": func(o *Options) { o.Credentials = nil },
		"api 3":          func(o *Options) { o.API = "3" },
		"grant":          func(o *Options) { o.Grant = "password" },
	} {
		o := optionsFor(nil)
		change(&o)
		if _, err := New(o); err == nil || !strings.HasPrefix(err.Error(), "evance: ") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestGrants(t *testing.T) {
	token := func(path string) *http.Response {
		if path != tokenPath {
			t.Errorf("asked at %s", path)
		}
		return answer(200, `{"access_token":"token-one"}`)
	}
	byJWT := func(form url.Values, path string) *http.Response {
		parsed, err := jwt.Parse(form.Get("assertion"), func(*jwt.Token) (any, error) { return []byte(canaryKey), nil }, jwt.WithValidMethods([]string{"HS256"}))
		if err != nil || form.Get("grant_type") != jwtBearer || form.Has("client_secret") {
			t.Errorf("%v %v", form, err)
			return answer(400, ``)
		}
		claims := parsed.Claims.(jwt.MapClaims)
		exp, _ := claims.GetExpirationTime()
		iat, _ := claims.GetIssuedAt()
		if claims["iss"] != canaryClient || claims["sub"] != canaryClient || claims["aud"] != "https://demo.evance.me/admin/oauth/token" ||
			claims["scope"] != "" || exp.Sub(iat.Time) != time.Hour || time.Since(iat.Time) > 2*time.Second {
			t.Errorf("claims %v", claims)
		}
		return token(path)
	}
	bySecret := func(form url.Values, path string) *http.Response {
		if form.Get("grant_type") != "client_credentials" || form.Get("client_id") != canaryClient || form.Get("client_secret") != canaryKey {
			t.Errorf("%v", form)
		}
		return token(path)
	}
	refuse := func(code string) func(url.Values, string) *http.Response {
		return func(url.Values, string) *http.Response {
			return answer(400, `{"error":"`+code+`","error_description":"no"}`)
		}
	}
	for _, tt := range []struct {
		name, grant string
		answers     []func(url.Values, string) *http.Response
	}{
		{"auto begins with jwt", "", []func(url.Values, string) *http.Response{byJWT}},
		{"jwt", GrantJWT, []func(url.Values, string) *http.Response{byJWT}},
		{"client credentials", GrantClientCredentials, []func(url.Values, string) *http.Response{bySecret}},
		{"auto goes on", GrantAuto, []func(url.Values, string) *http.Response{refuse("unsupported_grant_type"), bySecret}},
		{"auto goes on when not allowed", GrantAuto, []func(url.Values, string) *http.Response{refuse("unauthorized_client"), bySecret}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			n := 0
			s := &shop{handle: func(r *http.Request) *http.Response {
				if r.Header.Get("Authorization") != "Bearer token-one" {
					t.Errorf("authorization %q", r.Header.Get("Authorization"))
				}
				return ok1()
			}}
			s.token = func(form url.Values, path string) *http.Response { n++; return tt.answers[n-1](form, path) }
			c := open(t, s, func(o *Options) { o.Grant = tt.grant })
			a := send(t, c, `{"phone": "1"}`)
			if a.Verdict != contact.VerdictApplied || n != len(tt.answers) || a.Requests != n+1 {
				t.Errorf("%+v after %d token requests", a, n)
			}
			if n == 2 { // what worked is remembered
				n = 1
				c.tokens.until = time.Time{}
				if a := send(t, c, `{"phone": "1"}`); a.Verdict != contact.VerdictApplied || n != 2 {
					t.Errorf("%+v after %d", a, n)
				}
			}
		})
	}
}

// The endpoint has two spellings; the one that is there is remembered.
func TestTokenEndpoint(t *testing.T) {
	s := &shop{handle: func(*http.Request) *http.Response { return ok1() }}
	s.token = func(_ url.Values, path string) *http.Response {
		if path == tokenPathJSON {
			return answer(200, `{"access_token":"token-one"}`)
		}
		return answer(404, `<h1>Not found</h1>`)
	}
	c := open(t, s)
	for i, want := range []int{3, 2} {
		c.tokens.until = time.Time{}
		if a := send(t, c, `{"phone": "1"}`); a.Verdict != contact.VerdictApplied || a.Requests != want {
			t.Errorf("call %d: %+v, want %d requests", i, a, want)
		}
	}
	s.token = func(url.Values, string) *http.Response { return answer(404, `<h1>Not found</h1>`) }
	c = open(t, s)
	if a := send(t, c, `{"phone": "1"}`); a.Verdict != contact.VerdictTransient || !a.Incident || a.Requests != 2 || !strings.Contains(a.Detail, "url") {
		t.Errorf("%+v", a)
	}
}

func TestTokenErrors(t *testing.T) {
	for _, tt := range []struct {
		status int
		body   string
		header []string
		v      contact.Verdict
		inc    bool
		n      int // requests
	}{
		{400, `{"error":"invalid_client","error_description":"` + canaryKey + `"}`, nil, contact.VerdictUnauthorized, true, 1},
		{401, `{"error":"invalid_client"}`, nil, contact.VerdictUnauthorized, true, 1},
		{400, `{"error":"unauthorized_client"}`, nil, contact.VerdictUnauthorized, true, 2},
		{400, `{"error":"invalid_grant"}`, nil, contact.VerdictUnauthorized, true, 2},
		{403, `{"error":"access_denied"}`, nil, contact.VerdictUnauthorized, true, 1},
		{200, `{"error":"invalid_client"}`, nil, contact.VerdictUnauthorized, true, 1},
		{401, `<h1>no ` + canaryClient + `</h1>`, nil, contact.VerdictUnauthorized, true, 1},
		{400, ``, nil, contact.VerdictUnauthorized, true, 1},
		{403, ``, nil, contact.VerdictUnauthorized, true, 1},
		{404, `{"error":"invalid_client"}`, nil, contact.VerdictUnauthorized, true, 2},
		{503, `{"error":"temporarily_unavailable"}`, nil, contact.VerdictTransient, true, 1},
		{400, `{"error":"server_error"}`, nil, contact.VerdictTransient, true, 1},
		{500, ``, nil, contact.VerdictTransient, true, 1},
		{502, `<h1>Bad gateway</h1>`, nil, contact.VerdictTransient, true, 1},
		{503, ``, []string{"Retry-After", "7"}, contact.VerdictThrottled, false, 1},
		{429, ``, []string{"Retry-After", "7"}, contact.VerdictThrottled, false, 1},
		{302, ``, nil, contact.VerdictTransient, true, 1},
		{200, `<h1>Log in</h1>`, nil, contact.VerdictTransient, true, 1},
		{200, `{}`, nil, contact.VerdictTransient, true, 1},
		{200, `{"access_token":""}`, nil, contact.VerdictTransient, true, 1},
		{200, `{"access_token":"a\r\nX-Evil: 1"}`, nil, contact.VerdictTransient, true, 1},
		{200, `{"access_token":"abc","token_type":"mac"}`, nil, contact.VerdictTransient, true, 1},
		{500, `{"access_token":"abc"}`, nil, contact.VerdictTransient, true, 1},
	} {
		s := &shop{token: func(url.Values, string) *http.Response { return answer(tt.status, tt.body, tt.header...) }}
		a := send(t, open(t, s), `{"phone": "1"}`)
		if a.Verdict != tt.v || a.Incident != tt.inc || a.Requests != tt.n || a.Requests != len(s.paths) || tt.header != nil && a.Wait != 7*time.Second {
			t.Errorf("%d %s: %+v, want %v, %v, %d requests", tt.status, tt.body, a, tt.v, tt.inc, tt.n)
		}
		if strings.Contains(a.Detail, canaryKey) || strings.Contains(a.Detail, canaryClient) || a.Detail == "" {
			t.Errorf("%d: detail %q", tt.status, a.Detail)
		}
		if s.count("PUT") != 0 {
			t.Errorf("%d: a write without a token", tt.status)
		}
	}
	s := &shop{token: func(url.Values, string) *http.Response { return nil }}
	if a := send(t, open(t, s), `{"phone": "1"}`); a.Verdict != contact.VerdictTransient || !a.Incident {
		t.Errorf("no answer: %+v", a)
	}
}

func TestCredentialsThatCannotBeRead(t *testing.T) {
	for name, creds := range map[string]func() (Credentials, error){
		"error":   func() (Credentials, error) { return Credentials{}, errors.New("no such file") },
		"empty":   func() (Credentials, error) { return Credentials{}, nil },
		"unclean": func() (Credentials, error) { c, _ := credentials(); c.PrivateKey += "\n"; return c, nil },
	} {
		s := &shop{}
		a := send(t, open(t, s, func(o *Options) { o.Credentials = creds }), `{"phone": "1"}`)
		if a.Verdict != contact.VerdictUnauthorized || !a.Incident || a.Requests != 0 || strings.Contains(a.Detail, canaryKey) {
			t.Errorf("%s: %+v", name, a)
		}
	}
}

// A token is fetched once, used by all until shortly before its end, and again
// when it is refused; credentials are read anew each time.
func TestTokenLife(t *testing.T) {
	bubble(t, func(t *testing.T) {
		reads := 0
		var valid atomic.Value
		valid.Store("token-1")
		s := &shop{}
		s.token = func(url.Values, string) *http.Response {
			token := fmt.Sprintf("token-%d", s.count("POST"))
			valid.Store(token)
			time.Sleep(100 * time.Millisecond)
			return answer(200, `{"access_token":"`+token+`","expires_in":3600}`)
		}
		s.handle = func(r *http.Request) *http.Response {
			if r.Header.Get("Authorization") != "Bearer "+valid.Load().(string) {
				return answer(401, `{"success":false,"status":401}`)
			}
			return ok1()
		}
		c := open(t, s, func(o *Options) {
			o.Credentials = func() (Credentials, error) { reads++; return credentials() }
		})
		all := func(want int) {
			t.Helper()
			var wg sync.WaitGroup
			var mu sync.Mutex
			requests := 0
			before := len(s.paths)
			for range 16 {
				wg.Go(func() {
					a := send(t, c, `{"phone": "1"}`)
					mu.Lock()
					defer mu.Unlock()
					requests += a.Requests
					if a.Verdict != contact.VerdictApplied {
						t.Errorf("%+v", a)
					}
				})
			}
			wg.Wait()
			if s.count("POST") != want || reads != want || requests != len(s.paths)-before {
				t.Errorf("%d tokens fetched, %d reads of the credentials, want %d; %d requests counted of %d", s.count("POST"), reads, want, requests, len(s.paths)-before)
			}
		}
		all(1)
		time.Sleep(58 * time.Minute)
		all(1)
		time.Sleep(2 * time.Minute) // within the last minute
		all(2)
		valid.Store("revoked")
		all(3)
		synctest.Wait()
	})
}

func TestTokenLifetimes(t *testing.T) {
	for body, want := range map[string]time.Duration{
		`{"access_token":"x"}`:                          time.Hour,
		`{"access_token":"x","expires_in":1800}`:        30 * time.Minute,
		`{"access_token":"x","expires_in":"1800"}`:      30 * time.Minute,
		`{"access_token":"x","expires_in":0}`:           time.Hour,
		`{"access_token":"x","expires_in":-5}`:          time.Hour,
		`{"access_token":"x","expires_in":1}`:           10 * time.Second,
		`{"access_token":"x","expires_in":1e300}`:       24 * time.Hour,
		`{"access_token":"x","expires_in":"NaN"}`:       time.Hour,
		`{"access_token":"x","expires_in":null}`:        time.Hour,
		`{"access_token":"x","token_type":"bearer"}`:    time.Hour,
		`{"access_token":"x","scope":null,"extra":[1]}`: time.Hour,
	} {
		got := readToken(&crm.Reply{Status: 200, Body: []byte(body)})
		if got.token != "x" || got.life != want {
			t.Errorf("%s: %+v, want %v", body, got, want)
		}
	}
}

// One caller that gives up does not fail the others.
func TestTokenFetchIsHandedOn(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := &shop{handle: func(*http.Request) *http.Response { return ok1() }}
		s.token = func(url.Values, string) *http.Response {
			time.Sleep(time.Second)
			return answer(200, `{"access_token":"token-one"}`)
		}
		c := open(t, s)
		ctx, cancel := context.WithCancel(context.Background())
		// The first caller never gets to its request: its quota ends.
		blocked := func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() }
		m := crm.NewMeter(blocked)
		_ = m.Pay(ctx)
		var wg sync.WaitGroup
		wg.Go(func() {
			if _, a, ok := c.tokens.get(ctx, m, ""); ok || a.Verdict != contact.VerdictTransient || a.Incident {
				t.Errorf("%+v", a)
			}
		})
		synctest.Wait()
		for range 3 {
			wg.Go(func() {
				if a := send(t, c, `{"phone": "1"}`); a.Verdict != contact.VerdictApplied {
					t.Errorf("%+v", a)
				}
			})
		}
		wg.Go(func() { // whoever has waited asks again whether a request may start
			expired := errors.New("the lease is over")
			a := c.Send(context.Background(), func(context.Context) error { return expired },
				[]contact.Change{{Contact: contact.Key{ID: "7"}, Fields: fieldsOf(t, `{"phone": "1"}`)}})[0]
			if a.Verdict != contact.VerdictTransient || a.Incident || a.Requests != 0 {
				t.Errorf("%+v", a)
			}
		})
		impatient, stop := context.WithTimeout(context.Background(), time.Second)
		defer stop()
		wg.Go(func() {
			a := c.Send(impatient, free, []contact.Change{{Contact: contact.Key{ID: "7"}, Fields: fieldsOf(t, `{"phone": "1"}`)}})[0]
			if a.Verdict != contact.VerdictTransient || a.Incident || a.Requests != 0 {
				t.Errorf("%+v", a)
			}
		})
		time.Sleep(5 * time.Second)
		cancel()
		wg.Wait()
		if n := s.count("POST"); n != 1 {
			t.Errorf("%d token requests", n)
		}
	})
}

// A refusal is shared by those who wait for it, not repeated by each.
func TestTokenRefusalIsShared(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := &shop{}
		s.token = func(url.Values, string) *http.Response {
			time.Sleep(time.Second)
			return answer(401, `{"error":"invalid_client"}`)
		}
		c := open(t, s)
		var wg sync.WaitGroup
		for range 8 {
			wg.Go(func() {
				if a := send(t, c, `{"phone": "1"}`); a.Verdict != contact.VerdictUnauthorized {
					t.Errorf("%+v", a)
				}
			})
		}
		wg.Wait()
		if n := s.count("POST"); n != 1 {
			t.Errorf("%d token requests", n)
		}
	})
}

func TestRefusedTwice(t *testing.T) {
	s := &shop{handle: func(*http.Request) *http.Response { return answer(401, `{"success":false,"status":401}`) }}
	a := send(t, open(t, s), `{"phone": "1"}`)
	if a.Verdict != contact.VerdictUnauthorized || !a.Incident || a.Status != 401 {
		t.Errorf("%+v", a)
	}
	want := []string{"POST " + tokenPath, "PUT /api/contacts/7.json", "POST " + tokenPath, "PUT /api/contacts/7.json"}
	if !slices.Equal(s.paths, want) {
		t.Errorf("%q", s.paths)
	}
}
