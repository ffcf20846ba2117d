package console

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"net/http"
	"strings"
	"testing"
	"time"

	"crmsync/contact"
)

func TestStatus(t *testing.T) {
	r := &recorder{}
	w := do(New(r.options()), request("GET", "/api/v1/status", ""))
	if w.Code != http.StatusOK || w.Header().Get("Content-Type") != "application/json" || w.Body.String() != `{"targets":[],"version":"v1"}` {
		t.Errorf("%d %s %s", w.Code, w.Header(), w.Body)
	}
	isProblem(t, do(New(r.options()), request("GET", "/api/v1/status?x=1", "")), http.StatusBadRequest)

	o := r.options()
	o.Status = func(context.Context) (any, error) { return math.NaN(), nil }
	isProblem(t, do(New(o), request("GET", "/api/v1/status", "")), http.StatusInternalServerError)
}

// How the errors of each function reach the caller.
func TestFailures(t *testing.T) {
	for _, tc := range []struct {
		err    error
		status int
		detail string
	}{
		{errors.New("NATS is gone; check --server"), http.StatusServiceUnavailable, "NATS is gone; check --server"},
		{fmt.Errorf("steer office: %w", ErrUnknownTarget), http.StatusNotFound, ""},
		{fmt.Errorf("%w: office holds for an outage", ErrConflict), http.StatusConflict, "the target is not in that state: office holds for an outage"},
		{fmt.Errorf("letter 17: %w", ErrUnknownLetter), http.StatusNotFound, ""},
		{fmt.Errorf("letter 17: %w", ErrTaken), http.StatusConflict, "letter 17: somebody else is at work on it"},
		{fmt.Errorf("status: %w", context.DeadlineExceeded), http.StatusGatewayTimeout, "no answer in time: status: context deadline exceeded"},
	} {
		r := &recorder{err: tc.err}
		h := New(r.options())
		for _, req := range []*http.Request{
			request("GET", "/api/v1/status", ""), request("GET", "/api/v1/dead?target=office", ""),
			request("POST", "/api/v1/targets/office/hold", "{}"), request("POST", "/api/v1/targets/office/resume", "{}"),
			request("GET", "/api/v1/dead/groups", ""), request("GET", "/api/v1/dead/letters/17", ""),
			request("POST", "/api/v1/dead/redrive", `{"ids":["17"]}`), request("POST", "/api/v1/dead/discard", `{"ids":["17"],"why":"x"}`),
		} {
			if p := isProblem(t, do(h, req), tc.status); p.Detail != tc.detail {
				t.Errorf("%s: %q", req.URL.Path, p.Detail)
			}
		}
	}
}

// A target that cannot exist and one that does not are answered alike.
func TestUnknownTargetsLookAlike(t *testing.T) {
	r := &recorder{err: ErrUnknownTarget}
	h := New(r.options())
	a := do(h, request("POST", "/api/v1/targets/no-such/hold", "{}"))
	b := do(h, request("POST", "/api/v1/targets/NO_SUCH/hold", "{}"))
	if a.Code != http.StatusNotFound || a.Body.String() != b.Body.String() {
		t.Errorf("%s and %s", a.Body, b.Body)
	}
}

func TestCallsHaveADeadline(t *testing.T) {
	r := &recorder{}
	o := r.options()
	seen := 0
	look := func(ctx context.Context) {
		if d, ok := ctx.Deadline(); ok && time.Until(d) <= CallTimeout {
			seen++
		}
	}
	o.Status = func(ctx context.Context) (any, error) { look(ctx); return 1, nil }
	o.Dead = func(ctx context.Context, _ DeadQuery) (any, error) { look(ctx); return 1, nil }
	o.Steer = func(ctx context.Context, _ string, _ Steering) error { look(ctx); return nil }
	o.Groups = func(ctx context.Context, _ DeadQuery) (any, error) { look(ctx); return 1, nil }
	o.Letter = func(ctx context.Context, _ uint64) (any, error) { look(ctx); return 1, nil }
	o.Redrive = func(ctx context.Context, _ LetterOrder) (any, error) { look(ctx); return 1, nil }
	o.Discard = o.Redrive
	h := New(o)
	do(h, request("GET", "/api/v1/dead/groups", ""))
	do(h, request("GET", "/api/v1/dead/letters/1", ""))
	do(h, request("POST", "/api/v1/dead/redrive", `{"ids":["1"]}`))
	do(h, request("POST", "/api/v1/dead/discard", `{"ids":["1"],"why":"x"}`))
	do(h, request("GET", "/api/v1/status", ""))
	do(h, request("GET", "/api/v1/dead", ""))
	do(h, request("POST", "/api/v1/targets/a/hold", ""))
	if seen != 7 {
		t.Errorf("%d of 7 calls had a deadline", seen)
	}
}

func TestDeadQuery(t *testing.T) {
	long := strings.Repeat("a", 33)
	for query, want := range map[string]any{
		"":                              DeadQuery{Limit: DefaultDead},
		"target=&reason=&limit=&after=": DeadQuery{Limit: DefaultDead},
		"target=office&reason=invalid&limit=500&after=18446744073709551615": DeadQuery{
			Target: "office", Reason: contact.Invalid, Limit: 500, After: math.MaxUint64,
		},
		"reason=stale-redrive":        DeadQuery{Reason: contact.StaleRedrive, Limit: DefaultDead},
		"group=0123456789ab":          DeadQuery{Group: "0123456789ab", Limit: DefaultDead},
		"group=0123456789AB":          "group must be",
		"limit=1":                     DeadQuery{Limit: 1},
		"limit=0":                     "limit must be 1 to 500",
		"limit=501":                   "limit must be 1 to 500",
		"limit=-1":                    "limit must be 1 to 500",
		"limit=1e2":                   "limit must be 1 to 500",
		"after=-1":                    "after must be",
		"after=x":                     "after must be",
		"after=18446744073709551616":  "after must be",
		"reason=dead":                 "malformed, invalid, missing",
		"reason=Invalid":              "reason is none of",
		"target=Office":               "target name",
		"target=" + long:              "target name",
		"target=a&target=b":           "more than once",
		"limit=1&limit=1":             "more than once",
		"tarqet=office":               "the query may have",
		"target=%zz":                  "not written as",
		"limit=1;after=2":             "not written as",
		"contact=4711":                "the query may have",
		"TARGET=office":               "the query may have",
		strings.Repeat("limit=&", 99): "more than once",
	} {
		r := &recorder{}
		req := request("GET", "/api/v1/dead", "")
		req.URL.RawQuery = query
		w := do(New(r.options()), req)
		if text, bad := want.(string); bad {
			if p := isProblem(t, w, http.StatusBadRequest); !strings.Contains(p.Detail, text) || len(r.queries) > 0 {
				t.Errorf("%s: %q, asked %v", query, p.Detail, r.queries)
			}
		} else if w.Code != http.StatusOK || len(r.queries) != 1 || r.queries[0] != want {
			t.Errorf("%s: %d, asked %v", query, w.Code, r.queries)
		}
	}
}

func TestSteer(t *testing.T) {
	future := time.Now().Add(time.Hour).UTC().Truncate(time.Second)
	until := `"until":"` + future.Format(time.RFC3339) + `"`
	cet := `"until":"` + future.In(time.FixedZone("", 3600)).Format(time.RFC3339) + `"`
	for _, tc := range []struct {
		order, body string
		want        any
	}{
		{"hold", ``, Steering{Hold: true}},
		{"hold", `{}`, Steering{Hold: true}},
		{"hold", ` {"until":null} `, Steering{Hold: true}},
		{"hold", `{` + until + `,"note":"why: <b>"}`, Steering{Hold: true, Until: future, Note: "why: <b>"}},
		{"hold", `{` + cet + `}`, Steering{Hold: true, Until: future}},
		{"resume", ``, Steering{}},
		{"resume", `{"note":"done ✓"}`, Steering{Note: "done ✓"}},
		{"resume", `{"storm":"accept"}`, Steering{Storm: "accept"}},
		{"resume", `{"storm":"recall","note":"n"}`, Steering{Storm: "recall", Note: "n"}},
		{"resume", `{"storm":"ignore"}`, "accept or recall"},
		{"resume", `{"storm":true}`, "accept or recall"},
		{"hold", `{"storm":"accept"}`, "the body may have"},
		{"hold", `{"note":"` + strings.Repeat("x", MaxNote) + `"}`, Steering{Hold: true, Note: strings.Repeat("x", MaxNote)}},
		{"hold", `{"note":"` + strings.Repeat("x", MaxNote+1) + `"}`, "note may have"},
		{"hold", `{"note":"a\u202eb"}`, "note may have"},
		{"hold", `{"note":"a\nb"}`, ""},
		{"hold", `{"note":7}`, "note must be"},
		{"hold", `{"until":"2001-01-01T00:00:00Z"}`, "not in the future"},
		{"hold", `{"until":"tomorrow"}`, "until must be a time"},
		{"hold", `{"until":1795299568}`, "until must be a time"},
		{"resume", `{` + until + `}`, "only for hold"},
		{"hold", `{"Until":null}`, "the body may have"},
		{"hold", `{"accept":true}`, "the body may have"},
		{"hold", `{"note":"a","note":"b"}`, ""},
		{"hold", `{} {}`, ""},
		{"hold", `[]`, ""},
		{"hold", `null`, ""},
		{"hold", `{"note":`, ""},
		{"hold", "{\"note\":\"\xff\"}", ""},
	} {
		r := &recorder{}
		w := do(New(r.options()), request("POST", "/api/v1/targets/office/"+tc.order, tc.body))
		if text, bad := tc.want.(string); bad {
			if p := isProblem(t, w, http.StatusBadRequest); !strings.Contains(p.Detail, text) || len(r.orders) > 0 {
				t.Errorf("%s %s: %q, %v", tc.order, tc.body, p.Detail, r.orders)
			}
			continue
		}
		want := tc.want.(Steering)
		want.By = "console from 127.0.0.1"
		if got, ok := r.orders["office"]; w.Code != http.StatusNoContent || w.Body.Len() > 0 || !ok || got != want {
			t.Errorf("%s %s: %d %s, %+v", tc.order, tc.body, w.Code, w.Body, r.orders)
		}
	}
	isProblem(t, do(New((&recorder{}).options()), request("POST", "/api/v1/targets/a/hold?note=x", "")), http.StatusBadRequest)
}

// What a browser does on behalf of another site does not steer.
func TestOtherSites(t *testing.T) {
	for name, tc := range map[string]struct {
		header []string
		status int
	}{
		"a command":             {nil, http.StatusNoContent},
		"our page":              {[]string{"Sec-Fetch-Site", "same-origin", "Origin", "http://127.0.0.1:8321"}, http.StatusNoContent},
		"our page, old browser": {[]string{"Origin", "http://127.0.0.1:8321"}, http.StatusNoContent},
		"another site":          {[]string{"Sec-Fetch-Site", "cross-site", "Origin", "https://evil.example"}, http.StatusForbidden},
		"a sibling":             {[]string{"Sec-Fetch-Site", "same-site"}, http.StatusForbidden},
		"another port, old":     {[]string{"Origin", "http://127.0.0.1:9999"}, http.StatusForbidden},
		"a sandbox, old":        {[]string{"Origin", "null"}, http.StatusForbidden},
		"a form":                {[]string{"Content-Type", "application/x-www-form-urlencoded"}, http.StatusUnsupportedMediaType},
		"a text form":           {[]string{"Content-Type", "text/plain"}, http.StatusUnsupportedMediaType},
		"an upload":             {[]string{"Content-Type", "multipart/form-data; boundary=x"}, http.StatusUnsupportedMediaType},
		"no type":               {[]string{"Content-Type", ""}, http.StatusUnsupportedMediaType},
		"no type at all":        {[]string{"Content-Type", ";"}, http.StatusUnsupportedMediaType},
		"utf-8":                 {[]string{"Content-Type", "Application/JSON; charset=UTF-8"}, http.StatusNoContent},
		"utf-16":                {[]string{"Content-Type", "application/json; charset=utf-16"}, http.StatusUnsupportedMediaType},
		"problem":               {[]string{"Content-Type", "application/problem+json"}, http.StatusUnsupportedMediaType},
		"compressed":            {[]string{"Content-Encoding", "gzip"}, http.StatusUnsupportedMediaType},
	} {
		r := &recorder{}
		req := request("POST", "/api/v1/targets/office/hold", "{}")
		for i := 0; i+1 < len(tc.header); i += 2 {
			req.Header.Set(tc.header[i], tc.header[i+1])
		}
		w := do(New(r.options()), req)
		if w.Code != tc.status || (len(r.orders) > 0) != (tc.status == http.StatusNoContent) {
			t.Errorf("%s: %d %s, %v", name, w.Code, w.Body, r.orders)
		}
		if tc.status != http.StatusNoContent {
			isProblem(t, w, tc.status)
		}
	}
}

// Where nothing can be taken at the moment, the caller is told when to come back.
func TestBusy(t *testing.T) {
	r := &recorder{}
	o := r.options()
	o.Steer = func(context.Context, string, Steering) error {
		return fmt.Errorf("%w: the disk is nearly full", ErrBusy)
	}
	w := do(New(o), request("POST", "/api/v1/targets/office/hold", "{}"))
	p := isProblem(t, w, http.StatusServiceUnavailable)
	if w.Header().Get("Retry-After") != "30" || !strings.Contains(p.Detail, "nearly full") {
		t.Errorf("%s: %s", w.Header(), p.Detail)
	}
}

func TestBodyLimit(t *testing.T) {
	r := &recorder{}
	pad := func(n int) string { return strings.Repeat(" ", n-2) + "{}" }
	if w := do(New(r.options()), request("POST", "/api/v1/targets/a/hold", pad(maxOrder))); w.Code != http.StatusNoContent {
		t.Errorf("at the limit: %d", w.Code)
	}
	isProblem(t, do(New(r.options()), request("POST", "/api/v1/targets/a/hold", pad(maxOrder+1))), http.StatusRequestEntityTooLarge)
}

func FuzzDeadQuery(f *testing.F) {
	for _, s := range []string{"", "target=office&reason=invalid&limit=5&after=9", "limit=%31", "a=b;c=d", "after=0x1"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, raw string) {
		q, err := parseDeadQuery(raw)
		if err != nil {
			return
		}
		if q.Limit < 1 || q.Limit > MaxDead || q.Target != "" && contact.CheckTarget(q.Target) != nil || q.Reason > contact.Expired {
			t.Fatalf("%q gave %+v", raw, q)
		}
	})
}

func FuzzSteering(f *testing.F) {
	for _, s := range []string{"", "{}", `{"until":"2030-01-01T00:00:00+01:00","note":"x"}`, `{"note":"\u0000"}`, `{"until":null}`} {
		f.Add([]byte(s), true)
		f.Add([]byte(s), false)
	}
	now := time.Date(2026, 11, 21, 19, 5, 0, 0, time.UTC)
	f.Fuzz(func(t *testing.T, body []byte, hold bool) {
		s, err := parseSteering(body, hold, now)
		if err != nil {
			return
		}
		if s.Hold != hold || len(s.Note) > MaxNote || strings.ContainsFunc(s.Note, unprintable) ||
			!s.Until.IsZero() && (!hold || !s.Until.After(now)) {
			t.Fatalf("%q gave %+v", body, s)
		}
		if len(body) > 0 && !json.Valid(body) {
			t.Fatalf("%q was taken", body)
		}
	})
}
