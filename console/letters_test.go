package console

import (
	"context"
	"fmt"
	"net/http"
	"reflect"
	"strings"
	"testing"
)

func TestLetterOrders(t *testing.T) {
	many := func(n int) string {
		ids := make([]string, n)
		for i := range ids {
			ids[i] = fmt.Sprintf("%q", fmt.Sprint(i+1))
		}
		return strings.Join(ids, ",")
	}
	group := `"target":"office","group":"0123456789ab"`
	for _, tc := range []struct {
		order, body string
		want        any
	}{
		{"redrive", `{"ids":["17","18446744073709551615"]}`, LetterOrder{IDs: []uint64{17, 18446744073709551615}}},
		{"redrive", `{` + group + `,"plan":true,"force":true}`, LetterOrder{Target: "office", Group: "0123456789ab", Plan: true, Force: true}},
		{"redrive", `{` + group + `,"plan":false}`, LetterOrder{Target: "office", Group: "0123456789ab"}},
		{"discard", `{"ids":["17"],"why":"left the company"}`, LetterOrder{IDs: []uint64{17}, Why: "left the company"}},
		{"redrive", `{"ids":[` + many(MaxLetters+1) + `]}`, "a list of 1 to 100 ids"},
		{"redrive", `{"ids":[]}`, "a list of 1 to 100 ids"},
		{"redrive", `{"ids":[17]}`, "each as a string"},
		{"redrive", `{"ids":["017"]}`, "ids is not"},
		{"redrive", `{"ids":["0"]}`, "ids is not"},
		{"redrive", `{"ids":["17","17"]}`, "ids is not"},
		{"redrive", `{"ids":["-1"]}`, "ids is not"},
		{"redrive", `{}`, "name either"},
		{"redrive", `{"ids":["17"],` + group + `}`, "name either"},
		{"redrive", `{"group":"0123456789ab"}`, "name both"},
		{"redrive", `{"ids":["1"],"target":"office"}`, "name both"},
		{"redrive", `{"target":"Office","group":"0123456789ab"}`, "target is not"},
		{"redrive", `{"target":"office","group":"*"}`, "12 hexadecimal"},
		{"redrive", `{` + group + `,"force":null}`, "true or false"},
		{"redrive", `{` + group + `,"plan":1}`, "true or false"},
		{"redrive", `{"ids":["1"],"why":"x"}`, "the body may have"},
		{"discard", `{"ids":["1"],"force":true,"why":"x"}`, "the body may have"},
		{"discard", `{"ids":["1"]}`, "say why"},
		{"discard", `{"ids":["1"],"why":" "}`, "say why"},
		{"discard", `{"ids":["1"],"why":"a\u202eb"}`, "printable"},
		{"discard", `{"ids":["1"],"why":"` + strings.Repeat("x", MaxNote+1) + `"}`, "printable"},
		{"redrive", `{"ids":["1"],"ids":["2"]}`, ""},
		{"redrive", `[]`, ""},
		{"redrive", ``, ""},
		{"redrive", `{"ids":["1"]} x`, ""},
	} {
		r := &recorder{}
		w := do(New(r.options()), request("POST", "/api/v1/dead/"+tc.order, tc.body))
		if text, bad := tc.want.(string); bad {
			if p := isProblem(t, w, http.StatusBadRequest); !strings.Contains(p.Detail, text) || len(r.letters) > 0 {
				t.Errorf("%s %s: %q, %v", tc.order, tc.body, p.Detail, r.letters)
			}
			continue
		}
		want := tc.want.(LetterOrder)
		want.By = "console from 127.0.0.1"
		if w.Code != http.StatusOK || len(r.letters) != 1 || !reflect.DeepEqual(r.letters[0], want) {
			t.Errorf("%s %s: %d %s, %+v", tc.order, tc.body, w.Code, w.Body, r.letters)
		}
	}
	isProblem(t, do(New((&recorder{}).options()), request("POST", "/api/v1/dead/redrive?x=1", `{"ids":["1"]}`)), http.StatusBadRequest)
}

func TestLetterByID(t *testing.T) {
	for id, want := range map[string]int{
		"17": 200, "18446744073709551615": 200, "18446744073709551616": 404, "0": 404, "-1": 404, "x": 404, "1e3": 404, "..": 404, "%2e%2e": 404,
	} {
		req := request("GET", "/api/v1/dead/letters/17", "")
		req.URL.Path = "/api/v1/dead/letters/" + id
		if w := do(New((&recorder{}).options()), req); w.Code != want {
			t.Errorf("%s: %d, want %d", id, w.Code, want)
		}
	}
	isProblem(t, do(New((&recorder{}).options()), request("GET", "/api/v1/dead/letters/17?raw=1", "")), http.StatusBadRequest)
	isProblem(t, do(New((&recorder{}).options()), request("GET", "/api/v1/dead/groups?after=7", "")), http.StatusBadRequest)
}

func FuzzLetterOrder(f *testing.F) {
	for _, s := range []string{`{"ids":["17"]}`, `{"target":"office","group":"0123456789ab","plan":true}`, `{"ids":["1"],"why":"x"}`, `{"ids":null}`} {
		f.Add([]byte(s), true)
		f.Add([]byte(s), false)
	}
	f.Fuzz(func(t *testing.T, body []byte, discard bool) {
		o, err := parseLetterOrder(body, discard)
		if err != nil {
			return
		}
		if len(o.IDs) > 0 == (o.Group != "") || len(o.IDs) > MaxLetters || discard && (o.Why == "" || o.Plan || o.Force) {
			t.Fatalf("%q gave %+v", body, o)
		}
	})
}

func (r *recorder) order(_ context.Context, o LetterOrder) (any, error) {
	r.letters = append(r.letters, o)
	return map[string]any{"count": len(o.IDs)}, r.err
}

// exampleBody is a body that the route takes.
func exampleBody(rt route) string {
	switch rt.path {
	case "/api/v1/dead/redrive":
		return `{"ids":["17"]}`
	case "/api/v1/dead/discard":
		return `{"ids":["17"],"why":"x"}`
	}
	return "{}"
}
