package emulator

import (
	"compress/gzip"
	"encoding/json"
	"fmt"
	"html"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"
)

const defaultSize = 64 << 20

// send writes the answer, as badly as the fault says, and closes the entry.
func (c *CRM) send(w http.ResponseWriter, r *http.Request, cl *call, hit Fault, rep *reply) {
	if r.Context().Err() != nil {
		c.drop(cl) // nobody is left to hear it
	}
	for k, v := range rep.header {
		w.Header()[k] = v
	}
	c.mu.Lock()
	cl.entry.Wait = rep.wait
	c.mu.Unlock()
	var err error
	switch hit.Kind {
	case SlowBody:
		err = c.drip(w, rep, orDefault(hit.Interval, time.Second))
	case HugeBody:
		w.WriteHeader(rep.status)
		err = fill(w, hit.Size)
	case GzipBomb:
		w.Header().Set("Content-Encoding", "gzip")
		w.WriteHeader(rep.status)
		z := gzip.NewWriter(w)
		if err = fill(z, hit.Size); err == nil {
			err = z.Close()
		}
	case CutBody:
		w.Header().Set("Content-Length", strconv.Itoa(len(rep.body)+1))
		w.WriteHeader(rep.status)
		_, _ = w.Write(rep.body[:len(rep.body)/2])
		_ = http.NewResponseController(w).Flush()
		c.drop(cl)
	default:
		w.WriteHeader(rep.status)
		if allowsBody(rep.status) {
			_, err = w.Write(rep.body)
		}
	}
	if err != nil {
		c.drop(cl)
	}
	c.leave(cl.entry, rep.status)
}

// drip sends a body one byte at a time.
func (c *CRM) drip(w http.ResponseWriter, rep *reply, every time.Duration) error {
	w.WriteHeader(rep.status)
	flush := http.NewResponseController(w)
	for i := range rep.body {
		if !c.pause(every) {
			return io.ErrClosedPipe
		}
		if _, err := w.Write(rep.body[i : i+1]); err != nil {
			return err
		}
		if err := flush.Flush(); err != nil {
			return err
		}
	}
	return nil
}

// fill writes size bytes that begin like an answer and never come to the end.
func fill(w io.Writer, size int64) error {
	if size == 0 {
		size = defaultSize
	}
	head := `{"status":true,"message":"`
	if _, err := io.WriteString(w, head); err != nil {
		return err
	}
	block := []byte(strings.Repeat("a", 32<<10))
	for size -= int64(len(head)); size > 0; size -= int64(len(block)) {
		if _, err := w.Write(block[:min(size, int64(len(block)))]); err != nil {
			return err
		}
	}
	return nil
}

func allowsBody(status int) bool {
	return status >= 200 && status != http.StatusNoContent && status != http.StatusNotModified
}

// jsonReply is an answer in JSON.
func jsonReply(status int, v any) reply {
	b, err := json.Marshal(v)
	if err != nil {
		panic("emulator: an answer that is no JSON: " + err.Error())
	}
	h := http.Header{}
	h.Set("Content-Type", "application/json; charset=utf-8")
	return reply{status: status, header: h, body: b}
}

// page is an answer in HTML.
func page(status int, title, text string) reply {
	h := http.Header{}
	h.Set("Content-Type", "text/html; charset=utf-8")
	body := fmt.Sprintf("<!DOCTYPE html>\n<html lang=\"en\">\n<head><title>%s</title></head>\n<body><h1>%[1]s</h1><p>%s</p></body>\n</html>\n",
		html.EscapeString(title), html.EscapeString(text))
	return reply{status: status, header: h, body: []byte(body)}
}

func errorPage(status int) reply {
	title := http.StatusText(status)
	if title == "" {
		title = "Error"
	}
	return page(status, strconv.Itoa(status)+" "+title, "The server could not complete your request.")
}

func nonsense(f Fault) reply {
	status := f.Status
	if status == 0 {
		status = http.StatusOK
	}
	json := http.Header{"Content-Type": {"application/json; charset=utf-8"}}
	switch f.Body {
	case LoginPage:
		rep := page(status, "Login", "Please log in to continue.")
		return rep
	case Truncated:
		return reply{status: status, header: json, body: []byte(`{"status":true,"contact":{"id":"1","mess`)}
	case Empty:
		return reply{status: status, header: json}
	case WrongJSON:
		return reply{status: status, header: json, body: []byte(`[{"service":"weather","degrees":21}]`)}
	case Failure:
		return reply{status: status, header: json, body: []byte(`{"status":false,"success":false,"message":"Something went wrong"}`)}
	default:
		return reply{status: status, header: json, body: []byte("\x00\xff\xfe{{]]\x1b[31m\r\n\x80garbage")}
	}
}
