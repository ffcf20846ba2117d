package contact

import (
	"encoding/base64"
	"strings"
	"testing"
	"time"
)

const eventHead = `"specversion":"1.0","id":"e1","source":"/crm","type":"contact.changed"`

func TestStructuredEvent(t *testing.T) {
	inner := `{"fields":{"a":1},"version":3}`
	at := time.Date(2026, 11, 21, 19, 5, 0, 0, time.UTC)
	for name, c := range map[string]struct {
		body   string
		header map[string][]string
		at     time.Time
		msgID  string
	}{
		"by content type": {`{` + eventHead + `,"data":` + inner + `}`, map[string][]string{"Content-Type": {"application/cloudevents+json; charset=UTF-8"}}, time.Time{}, "/crm#e1"},
		"by specversion":  {`{` + eventHead + `,"data":` + inner + `}`, nil, time.Time{}, "/crm#e1"},
		"data first":      {`{"data":` + inner + `,` + eventHead + `}`, nil, time.Time{}, "/crm#e1"},
		"base64":          {`{` + eventHead + `,"data_base64":"` + base64.StdEncoding.EncodeToString([]byte(inner)) + `"}`, nil, time.Time{}, "/crm#e1"},
		"with all":        {`{` + eventHead + `,"time":"2026-11-21T19:05:00Z","subject":"7","datacontenttype":"application/vnd.x+json","ext":5,"on":{"a":[true]},"traceparent":"tp","data":` + inner + `}`, nil, at, "/crm#e1"},
		"message id wins": {`{` + eventHead + `,"data":` + inner + `}`, map[string][]string{HeaderMsgID: {"m"}}, time.Time{}, "m"},
		"occurred_at wins": {
			`{` + eventHead + `,"time":"2020-01-01T00:00:00Z","data":{"fields":{"a":1},"version":3,"occurred_at":"2026-11-21T19:05:00Z"}}`, nil, at, "/crm#e1",
		},
	} {
		t.Run(name, func(t *testing.T) {
			u := Decode([]byte(c.body), c.header)
			if u.Bad != nil {
				t.Fatal(u.Bad)
			}
			if v, _ := u.Fields.Get("a"); string(v) != "1" || len(u.Fields) != 1 || u.Version != 3 || !u.Versioned {
				t.Errorf("%+v", u)
			}
			if u.MsgID != c.msgID || !u.OccurredAt.Equal(c.at) || string(u.Raw) != c.body {
				t.Errorf("id %q, at %v", u.MsgID, u.OccurredAt)
			}
			if want := map[bool]string{true: "tp"}[name == "with all"]; u.TraceParent != want {
				t.Errorf("trace parent %q", u.TraceParent)
			}
		})
	}
}

func TestStructuredEventRefused(t *testing.T) {
	data := `,"data":{"fields":{"a":1}}`
	b64 := func(s string) string { return `,"data_base64":"` + base64.StdEncoding.EncodeToString([]byte(s)) + `"` }
	ce := map[string][]string{"content-type": {cloudEventsJSON}}
	for name, c := range map[string]struct {
		body          string
		header        map[string][]string
		reason        Reason
		field, detail string
	}{
		"no specversion":      {`{"id":"1","source":"s","type":"t"` + data + `}`, ce, Malformed, "specversion", "1.0"},
		"a bare body":         {`{"fields":{"a":1}}`, ce, Malformed, "specversion", "1.0"},
		"specversion 0.3":     {`{"specversion":"0.3","id":"1","source":"s","type":"t"` + data + `}`, nil, Malformed, "specversion", "1.0"},
		"specversion number":  {`{"specversion":1.0,"id":"1","source":"s","type":"t"` + data + `}`, nil, Malformed, "specversion", "1.0"},
		"no id":               {`{"specversion":"1.0","source":"s","type":"t"` + data + `}`, nil, Malformed, "id", "needs it"},
		"empty id":            {`{"specversion":"1.0","id":"","source":"s","type":"t"` + data + `}`, nil, Malformed, "id", "needs it"},
		"id a number":         {`{"specversion":"1.0","id":7,"source":"s","type":"t"` + data + `}`, nil, Malformed, "id", "needs it"},
		"no source":           {`{"specversion":"1.0","id":"1","type":"t"` + data + `}`, nil, Malformed, "source", "needs it"},
		"no type":             {`{"specversion":"1.0","id":"1","source":"s"` + data + `}`, nil, Malformed, "type", "needs it"},
		"bad time":            {`{` + eventHead + `,"time":"yesterday"` + data + `}`, nil, Malformed, "time", "RFC 3339"},
		"not JSON":            {`{` + eventHead + `,"datacontenttype":"text/csv"` + data + `}`, nil, Malformed, "datacontenttype", "not JSON"},
		"content type broken": {`{` + eventHead + `,"datacontenttype":"/"` + data + `}`, nil, Malformed, "datacontenttype", "not JSON"},
		"no data":             {`{` + eventHead + `}`, nil, Malformed, "data", "no data"},
		"data null":           {`{` + eventHead + `,"data":null}`, nil, Malformed, "data", "not a JSON object"},
		"data a string":       {`{` + eventHead + `,"data":"{}"}`, nil, Malformed, "data", "not a JSON object"},
		"data and base64":     {`{` + eventHead + data + b64(`{}`) + `}`, nil, Malformed, "data_base64", "both"},
		"base64 of nothing":   {`{` + eventHead + b64("") + `}`, nil, Malformed, "data_base64", "empty"},
		"base64 of garbage":   {`{` + eventHead + b64("x") + `}`, nil, Malformed, "data_base64", "not one JSON value"},
		"base64 of bad UTF-8": {`{` + eventHead + b64("{\"fields\":{\"a\":\"\xff\"}}") + `}`, nil, Malformed, "data_base64", "UTF-8"},
		"not base64":          {`{` + eventHead + `,"data_base64":"*"}`, nil, Malformed, "data_base64", "not base64"},
		"base64 an array":     {`{` + eventHead + `,"data_base64":[123,125]}`, nil, Malformed, "data_base64", "not base64"},
		"base64 null":         {`{` + eventHead + `,"data_base64":null}`, nil, Malformed, "data_base64", "not base64"},
		"no fields":           {`{` + eventHead + `,"data":{}}`, nil, Malformed, "data.fields", "missing"},
		"empty fields":        {`{` + eventHead + `,"data":{"fields":{}}}`, nil, Invalid, "data.fields", "nothing"},
		"unknown in data":     {`{` + eventHead + `,"data":{"fields":{"a":1},"x":1}}`, nil, Malformed, "data.x", "unknown"},
		"duplicate in data":   {`{` + eventHead + `,"data":{"fields":{"a":1,"a":1}}}`, nil, Malformed, "data.fields.a", "twice"},
		"duplicate attribute": {`{` + eventHead + `,"id":"2"` + data + `}`, nil, Malformed, "id", "twice"},
		"attribute in case":   {`{` + eventHead + `,"ID":"2"` + data + `}`, nil, Malformed, "id", "upper and lower"},
		"half in attribute":   {`{` + eventHead + `,"x":"\ud83d"` + data + `}`, nil, Malformed, "x", "surrogate"},
		"duplicate in other":  {`{` + eventHead + `,"x":{"y":1,"y":2}` + data + `}`, nil, Malformed, "x.y", "twice"},
		"deep in other":       {`{` + eventHead + `,"x":` + nested(MaxDepth) + data + `}`, nil, Malformed, "x", "deeper"},
		"bad version in data": {`{` + eventHead + `,"time":"2026-11-21T19:05:00Z","data":{"fields":{"a":1},"version":"1"}}`, nil, Malformed, "data.version", "whole number"},
	} {
		t.Run(name, func(t *testing.T) { refused(t, Decode([]byte(c.body), c.header), c.reason, c.field, c.detail) })
	}
}

func TestBinaryEvent(t *testing.T) {
	header := func(change map[string]string) map[string][]string {
		h := map[string][]string{"ce-specversion": {"1.0"}, "Ce-Id": {"e1"}, "ce-source": {"/crm"}, "ce-type": {"t"}}
		for k, v := range change {
			if h[k] = []string{v}; v == "" {
				delete(h, k)
			}
		}
		return h
	}
	body := `{"fields":{"a":1}}`
	u := Decode([]byte(body), header(map[string]string{
		"ce-time": "2026-11-21T19:05:00Z", "ce-traceparent": "tp", "ce-datacontenttype": "application/json", "Content-Type": "text/plain", "ce-empty": "",
	}))
	if u.Bad != nil || len(u.Fields) != 1 || u.MsgID != "/crm#e1" || u.TraceParent != "tp" || u.OccurredAt.Unix() != 1795287900 {
		t.Errorf("%+v %v", u, u.Bad)
	}
	if u := Decode([]byte(body), header(map[string]string{HeaderMsgID: "m", HeaderTraceParent: "own", "ce-traceparent": "tp"})); u.MsgID != "m" || u.TraceParent != "own" {
		t.Errorf("the message's own headers do not win: %+v", u)
	}
	for name, c := range map[string]struct {
		body          string
		change        map[string]string
		field, detail string
	}{
		"specversion":  {body, map[string]string{"ce-specversion": "2.0"}, "specversion", "1.0"},
		"no id":        {body, map[string]string{"Ce-Id": ""}, "id", "needs it"},
		"no source":    {body, map[string]string{"ce-source": ""}, "source", "needs it"},
		"no type":      {body, map[string]string{"ce-type": ""}, "type", "needs it"},
		"content type": {body, map[string]string{"Content-Type": "text/csv"}, "datacontenttype", "not JSON"},
		"time":         {body, map[string]string{"ce-time": "2026"}, "time", "RFC 3339"},
		"an envelope":  {`{"specversion":"1.0","data":{"fields":{"a":1}}}`, nil, "data", "unknown member"},
		"unknown":      {`{"fields":{"a":1},"x":1}`, nil, "x", "unknown member"},
	} {
		t.Run(name, func(t *testing.T) {
			refused(t, Decode([]byte(c.body), header(c.change)), Malformed, c.field, c.detail)
		})
	}
	if u := Decode([]byte(strings.Repeat(" ", 3)), header(nil)); u.Bad == nil {
		t.Error("an event without data was accepted")
	}
}
