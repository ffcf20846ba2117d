package crm

import (
	"math"
	"net/http"
	"testing"
	"time"

	"crmsync/contact"
)

func TestByStatus(t *testing.T) {
	type want struct {
		v contact.Verdict
		r contact.Reason
		i bool
	}
	transient, incident := want{contact.VerdictTransient, 0, false}, want{contact.VerdictTransient, 0, true}
	refused := want{contact.VerdictInvalid, contact.Refused, false}
	protocol := want{contact.VerdictTransient, contact.Protocol, false}
	named := map[int]want{
		401: {contact.VerdictUnauthorized, 0, true}, 402: {contact.VerdictForbidden, 0, true}, 403: {contact.VerdictForbidden, 0, true},
		404: incident, 407: incident, 421: incident, 426: incident, 495: incident, 496: incident, 497: incident,
		408: transient, 423: transient, 425: transient, 499: transient,
		429: {contact.VerdictThrottled, 0, false}, 420: {contact.VerdictThrottled, 0, false},
		500: transient,
	}
	for status := -1; status <= 1000; status++ {
		w, ok := named[status]
		switch {
		case ok:
		case status >= 300 && status < 400:
			w = incident
		case status >= 400 && status < 500:
			w = refused
		case status >= 500 && status <= 530:
			w = incident
		case status > 530 && status < 600:
			w = transient
		default:
			w = protocol
		}
		a := ByStatus(status)
		if got := (want{a.Verdict, a.Reason, a.Incident}); got != w || a.Status != status {
			t.Errorf("%d: %+v (status %d), want %+v", status, got, a.Status, w)
		}
		if a.Verdict.Success() || a.Verdict == contact.VerdictUnknown {
			t.Errorf("%d: a status alone says %v", status, a.Verdict)
		}
	}
	for _, status := range []int{math.MinInt, math.MaxInt} {
		if a := ByStatus(status); a.Verdict != contact.VerdictTransient || a.Reason != contact.Protocol {
			t.Errorf("%d: %+v", status, a)
		}
	}
}

func TestFallback(t *testing.T) {
	for _, tt := range []struct {
		status int
		header http.Header
		want   Answer
	}{
		{503, nil, Answer{Verdict: contact.VerdictTransient, Status: 503, Incident: true}},
		{503, http.Header{"Retry-After": {"9"}}, Answer{Verdict: contact.VerdictThrottled, Status: 503, Wait: 9 * time.Second}},
		{503, http.Header{"X-Ratelimit-Remaining": {"0"}, "X-Ratelimit-Reset": {"9"}}, Answer{Verdict: contact.VerdictTransient, Status: 503, Wait: 9 * time.Second, Incident: true}},
		{429, http.Header{"Retry-After": {"9"}}, Answer{Verdict: contact.VerdictThrottled, Status: 429, Wait: 9 * time.Second}},
		{429, nil, Answer{Verdict: contact.VerdictThrottled, Status: 429}},
		{502, http.Header{"Retry-After": {"9"}}, Answer{Verdict: contact.VerdictTransient, Status: 502, Wait: 9 * time.Second, Incident: true}},
		{302, nil, Answer{Verdict: contact.VerdictTransient, Status: 302, Incident: true, Detail: "redirect; check the url in the config"}},
	} {
		if got := Fallback(&Reply{Status: tt.status, Hints: ReadHints(tt.header, nil, noon)}); got != tt.want {
			t.Errorf("%d %v: %+v, want %+v", tt.status, tt.header, got, tt.want)
		}
	}
}

func TestLost(t *testing.T) {
	for status := 0; status < 1000; status++ {
		want := status == 408 || status == 499 || status == 502 || status == 504 || status >= 520 && status <= 527
		if Lost(status) != want {
			t.Errorf("%d: %v", status, Lost(status))
		}
	}
}

func TestCheckID(t *testing.T) {
	for _, id := range []string{"1", "7", "123456", "9223372036854775807"} {
		if bad := CheckID(id); bad != nil {
			t.Errorf("%q: %v", id, bad)
		}
	}
	for _, id := range []string{
		"", " 12", "12 ", ".", "..", "1/../2", "%2e%2e", "1?x=1", "1#f", "1;v=2", "é", "1%2F2", "\x00", "0", "00", "007",
		"-1", "+1", "1e3", "1.0", "0x10", "1_000", "９", "9223372036854775808", "99999999999999999999999", "1\n",
	} {
		bad := CheckID(id)
		if bad == nil || bad.Reason != contact.Invalid || bad.Field != "id" {
			t.Errorf("%q: %v", id, bad)
		}
	}
}
