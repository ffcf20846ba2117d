package emulator

import (
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"strconv"
	"strings"
)

// ControlPrefix is where a process mounts the control handler.
const ControlPrefix = "/_emulator"

// NewControl returns the emulator's own API, for other processes, below
// ControlPrefix or with that prefix stripped:
//
//	GET  ledger?since=N          entries after the Nth, one JSON object per line
//	GET  stats                   Stats
//	GET  contact/{id}            a contact as stored, 404 if there is none
//	GET  mails                   all mails
//	GET  faults                  what is left of the plan
//	PUT  faults                  replaces the plan: a JSON array of rules
//	POST revoke-tokens
//	POST set-token               {"token":"..."}
//
// Errors are {"error":"..."} with a 4xx status. It has no authentication:
// bind it to the loopback interface. Its requests are not in the ledger.
func NewControl(c *CRM) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /ledger", c.controlLedger)
	mux.HandleFunc("GET /stats", func(w http.ResponseWriter, _ *http.Request) { writeJSON(w, http.StatusOK, c.Stats()) })
	mux.HandleFunc("GET /contact/{id}", func(w http.ResponseWriter, r *http.Request) {
		rec, ok := c.Contact(r.PathValue("id"))
		if !ok {
			controlError(w, http.StatusNotFound, errors.New("no such contact"))
			return
		}
		writeJSON(w, http.StatusOK, rec)
	})
	mux.HandleFunc("GET /mails", func(w http.ResponseWriter, _ *http.Request) {
		writeJSON(w, http.StatusOK, append([]Mail{}, c.Mails()...))
	})
	mux.HandleFunc("GET /faults", func(w http.ResponseWriter, _ *http.Request) {
		writeJSON(w, http.StatusOK, append(Faults{}, c.Faults()...))
	})
	mux.HandleFunc("PUT /faults", c.controlFaults)
	mux.HandleFunc("POST /revoke-tokens", func(w http.ResponseWriter, _ *http.Request) {
		c.RevokeTokens()
		w.WriteHeader(http.StatusNoContent)
	})
	mux.HandleFunc("POST /set-token", c.controlToken)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasPrefix(r.URL.Path, ControlPrefix+"/") {
			http.StripPrefix(ControlPrefix, mux).ServeHTTP(w, r)
			return
		}
		mux.ServeHTTP(w, r)
	})
}

func (c *CRM) controlLedger(w http.ResponseWriter, r *http.Request) {
	since := 0
	if s := r.URL.Query().Get("since"); s != "" {
		n, err := strconv.Atoi(s)
		if err != nil || n < 0 {
			controlError(w, http.StatusBadRequest, errors.New("since must be the number of an entry"))
			return
		}
		since = n
	}
	w.Header().Set("Content-Type", "application/x-ndjson")
	enc := json.NewEncoder(w)
	for _, e := range c.LedgerSince(since) {
		if enc.Encode(e) != nil {
			return // the reader has gone
		}
	}
}

func (c *CRM) controlFaults(w http.ResponseWriter, r *http.Request) {
	b, err := io.ReadAll(http.MaxBytesReader(w, r.Body, 1<<20))
	if err != nil {
		controlError(w, http.StatusBadRequest, err)
		return
	}
	plan, err := ParseFaults(b)
	if err != nil {
		controlError(w, http.StatusBadRequest, err)
		return
	}
	c.SetFaults(plan)
	w.WriteHeader(http.StatusNoContent)
}

func (c *CRM) controlToken(w http.ResponseWriter, r *http.Request) {
	b, err := io.ReadAll(http.MaxBytesReader(w, r.Body, 64<<10))
	var body struct {
		Token string `json:"token"`
	}
	if err == nil {
		err = strict(b, &body)
	}
	if err == nil && body.Token == "" {
		err = errors.New("token is empty")
	}
	if err != nil {
		controlError(w, http.StatusBadRequest, err)
		return
	}
	c.SetToken(body.Token)
	w.WriteHeader(http.StatusNoContent)
}

func controlError(w http.ResponseWriter, status int, err error) {
	writeJSON(w, status, map[string]string{"error": err.Error()})
}

func writeJSON(w http.ResponseWriter, status int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(v) // the reader may have gone
}
