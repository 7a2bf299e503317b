// Package guard stands at the app's side of Lanyard: it tells which requests
// may not come in at all, and says no in one form (RFC 9457).
package guard

import (
	"bytes"
	"encoding/json"
	"maps"
	"net/http"
	"strconv"
	"time"
)

// Problem is an answer of Lanyard's own, as application/problem+json (RFC
// 9457) with the header Lanyard-Error, so that nobody takes it for a
// provider's.
type Problem struct {
	Status int    // HTTP status
	Code   string // stable, snake_case; apps decide by it
	Detail string // what happened and what to do, for people
	// RetryAfter is sent in whole seconds where it is not zero.
	RetryAfter time.Duration
	// Extra members, such as connect_url.
	Extra map[string]any
}

// Write answers the request with p.
func (p Problem) Write(w http.ResponseWriter) {
	h := w.Header()
	h.Set("Content-Type", "application/problem+json")
	h.Set("Cache-Control", "no-store")
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Lanyard-Error", p.Code)
	if p.Status == http.StatusUnauthorized {
		h.Set("WWW-Authenticate", `Bearer realm="lanyard"`)
	}
	body := map[string]any{
		"type": "about:blank", "title": http.StatusText(p.Status),
		"status": p.Status, "code": p.Code, "detail": p.Detail,
	}
	if p.RetryAfter > 0 {
		h.Set("Retry-After", strconv.Itoa(int((p.RetryAfter+time.Second-1)/time.Second)))
		body["retryable"] = true
	}
	maps.Copy(body, p.Extra)
	var buf bytes.Buffer
	enc := json.NewEncoder(&buf)
	enc.SetEscapeHTML(false) // a connect_url is copied out of terminals: & stays &
	b := []byte(`{"status":` + strconv.Itoa(p.Status) + `}`)
	if enc.Encode(body) == nil { // else an Extra that can't be encoded: a mistake in this program
		b = buf.Bytes()
	}
	h.Set("Content-Length", strconv.Itoa(len(b)))
	w.WriteHeader(p.Status)
	_, _ = w.Write(b)
}
