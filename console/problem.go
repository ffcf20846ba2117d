package console

import (
	"encoding/json"
	"net/http"
	"strings"
)

// problem is an error as RFC 9457 has it. Its type is always about:blank, so
// the title is the status' own.
type problem struct {
	Title  string `json:"title"`
	Status int    `json:"status"`
	Detail string `json:"detail,omitempty"` // what is wrong, and what to do
}

func (p problem) write(w http.ResponseWriter) {
	p.Title = http.StatusText(p.Status)
	// Of strings and a number; the encoder mends invalid UTF-8.
	body, _ := json.Marshal(p)
	send(w, p.Status, "application/problem+json", body)
}

func badRequest(w http.ResponseWriter, detail string) {
	problem{Status: http.StatusBadRequest, Detail: detail}.write(w)
}

func notFound(w http.ResponseWriter) {
	problem{Status: http.StatusNotFound}.write(w)
}

func wrongMethod(w http.ResponseWriter, method string) {
	allow := method
	if method == http.MethodGet {
		allow = "GET, HEAD"
	}
	w.Header().Set("Allow", allow)
	problem{Status: http.StatusMethodNotAllowed, Detail: "use " + strings.Replace(allow, ", ", " or ", 1)}.write(w)
}

// send writes a whole answer. That the caller may be gone is no concern of ours.
func send(w http.ResponseWriter, status int, contentType string, body []byte) {
	w.Header().Set("Content-Type", contentType)
	w.WriteHeader(status)
	_, _ = w.Write(body)
}

func sendText(w http.ResponseWriter, status int, text string) {
	send(w, status, "text/plain; charset=utf-8", []byte(text+"\n"))
}
