package crm

import (
	"net/http"

	"crmsync/contact"
)

// ByStatus is what an HTTP status means where nothing in the body says more.
// It is total: every int has an answer, and no status alone is a success,
// since a 2xx is the vendor's package to judge. Verdict, Reason, Incident and
// Status are set.
func ByStatus(status int) Answer {
	a := Answer{Status: status}
	switch {
	case status >= 300 && status < 400:
		a.Verdict, a.Incident = contact.VerdictTransient, true
		a.Detail = "redirect; check the url in the config"
	case status >= 400 && status < 500:
		a.Verdict, a.Reason, a.Incident = clientError(status)
	case status >= 500 && status < 600:
		a.Verdict, a.Incident = contact.VerdictTransient, serverIncident(status)
	default: // 1xx and 2xx nobody understood, and numbers HTTP does not have
		a.Verdict, a.Reason = contact.VerdictTransient, contact.Protocol
	}
	return a
}

func clientError(status int) (contact.Verdict, contact.Reason, bool) {
	switch status {
	case http.StatusUnauthorized:
		return contact.VerdictUnauthorized, contact.NoReason, true
	case http.StatusPaymentRequired, http.StatusForbidden:
		return contact.VerdictForbidden, contact.NoReason, true
	case http.StatusNotFound:
		// Without the CRM's own words it is as likely a wrong base URL as a
		// missing contact; the former must not make dead letters.
		return contact.VerdictTransient, contact.NoReason, true
	case http.StatusProxyAuthRequired, http.StatusMisdirectedRequest, http.StatusUpgradeRequired,
		495, 496, 497: // nginx: the TLS client certificate, or plain HTTP to a TLS port
		return contact.VerdictTransient, contact.NoReason, true
	case http.StatusRequestTimeout, http.StatusLocked, http.StatusTooEarly,
		499: // nginx: the proxy saw the connection close
		return contact.VerdictTransient, contact.NoReason, false
	case http.StatusTooManyRequests, 420: // 420: an older name of 429
		return contact.VerdictThrottled, contact.NoReason, false
	}
	return contact.VerdictInvalid, contact.Refused, false
}

// serverIncident tells what stands before the application (gateways, proxies,
// a server that cannot speak the protocol) from the application's own 500,
// which one odd contact can cause.
func serverIncident(status int) bool {
	switch {
	case status == http.StatusInternalServerError, status > 530:
		return false
	}
	return true
}

// Lost says of a status answered to a write that the write may have been
// carried out all the same: a gateway gave up waiting for the CRM.
func Lost(status int) bool {
	switch status {
	case http.StatusRequestTimeout, 499, http.StatusBadGateway, http.StatusGatewayTimeout:
		return true
	}
	return status >= 520 && status <= 527
}

// Fallback is the answer of a reply that the vendor's package has no better
// word for: by status, with the wait the CRM asked for. 503 with a Retry-After
// is a request to slow down, not an outage. Detail is left to the caller,
// except where the status explains itself.
func Fallback(r *Reply) Answer {
	a := ByStatus(r.Status)
	a.Wait = r.Hints.Wait()
	if r.Status == http.StatusServiceUnavailable && r.Hints.RetryAfter > 0 {
		a.Verdict, a.Incident = contact.VerdictThrottled, false
	}
	return a
}
