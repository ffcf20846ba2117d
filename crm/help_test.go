package crm

import (
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptrace"
)

func hooks(r *http.Request) *httptrace.ClientTrace { return httptrace.ContextClientTrace(r.Context()) }

func gotReused(c net.Conn) httptrace.GotConnInfo {
	return httptrace.GotConnInfo{Conn: c, Reused: true}
}

func discard() *log.Logger { return log.New(io.Discard, "", 0) }
