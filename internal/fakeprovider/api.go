package fakeprovider

import (
	"compress/gzip"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/coder/websocket"
)

// Items are served in itemPages pages of pageSize.
const (
	itemPages = 3
	pageSize  = 10
)

// serveAPI checks the token and answers:
//
//	/api/me, /api/user        who is signed in
//	/api/items?page=N         three pages with absolute Link headers; also
//	                          /api/user/repos and /api/users/NAME/repos
//	/api/echo                 the body back, as it comes, with its content type and trailers
//	/api/upload               size and SHA-256 of the body
//	/api/download?bytes=N     N bytes of Pattern; &chunked for no Content-Length
//	/api/events?count=N&interval=D  server-sent events
//	/api/ws                   WebSocket echo
//	/api/headers, /api/raw/…  the request as it arrived, without its token
//	/api/scope/SCOPE          200, or 403 insufficient_scope
//	/api/status/CODE?body=B&header=Name:+value  this status, headers and body
//	/api/trailers, /api/gzip  an answer with trailers; one compressed
func (s *Server) serveAPI(w http.ResponseWriter, r *http.Request, path string) {
	rec := &recorder{ResponseWriter: w, count: func(status int) {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.calls[Call{r.Method, path, status}]++
	}}
	defer rec.finish()
	// An early answer, such as a 401 in the middle of an upload, goes out
	// before the body was read. HTTP/2 does that anyway.
	_ = http.NewResponseController(rec).EnableFullDuplex()
	if r.ContentLength != 0 && r.ProtoMajor == 1 {
		// A connection whose request body may be left unread can't be used
		// again: in full duplex the server does not read the rest away.
		rec.Header().Set("Connection", "close")
	}

	f := s.Faults.take(endpointAPI, "")
	f.waitBefore(r.Context())
	if f.fails() {
		if f.commit {
			_, _ = io.Copy(io.Discard, r.Body)
		}
		f.send(rec, f.answerFor(map[string]any{"message": "cut off"}))
		return
	}
	t, ok := s.caller(r)
	if !ok {
		challenge := `Bearer realm="api"` // RFC 6750 section 3.1: no error without a token
		if r.Header.Get("Authorization") != "" {
			challenge = `Bearer realm="api", error="invalid_token", error_description="The access token has expired or was revoked"`
		}
		rec.Header().Set("WWW-Authenticate", challenge)
		writeJSON(rec, http.StatusUnauthorized, map[string]any{"message": "Requires authentication"})
		return
	}
	f.waitAfter(r.Context())
	s.route(rec, r, strings.TrimPrefix(path, "/api"), t)
}

// caller returns what the request's one credential stands for: a Bearer token, a
// password or a key.
func (s *Server) caller(r *http.Request) (accessToken, bool) {
	if t, ok := s.keyCaller(r); ok {
		return t, true
	}
	values := r.Header.Values("Authorization")
	if len(values) != 1 {
		return accessToken{}, false
	}
	scheme, text, ok := strings.Cut(values[0], " ")
	if !ok || !strings.EqualFold(scheme, "Bearer") {
		return accessToken{}, false
	}
	return s.liveAccess(text)
}

func (s *Server) route(w http.ResponseWriter, r *http.Request, path string, t accessToken) {
	switch {
	case path == "/me", path == "/user":
		u := t.grant.user
		writeJSON(w, http.StatusOK, map[string]any{"id": u.ID, "login": u.ID, "name": u.Name, "email": u.Email, "playlists": itemPages})
	case path == "/items", path == "/user/repos", strings.HasPrefix(path, "/users/") && strings.HasSuffix(path, "/repos"):
		serveItems(w, r, s.base(r)+"/api"+path)
	case path == "/echo":
		serveEcho(w, r)
	case path == "/upload":
		serveUpload(w, r)
	case path == "/download":
		serveDownload(w, r)
	case path == "/events":
		serveEvents(w, r)
	case path == "/ws":
		serveWebSocket(w, r)
	case path == "/headers", path == "/raw", strings.HasPrefix(path, "/raw/"):
		s.serveSeen(w, r)
	case strings.HasPrefix(path, "/scope/"):
		serveScope(w, strings.TrimPrefix(path, "/scope/"), t)
	case strings.HasPrefix(path, "/status/"):
		serveStatus(w, r, strings.TrimPrefix(path, "/status/"))
	case path == "/trailers":
		w.Header().Set("Trailer", "X-Sum, X-Count")
		_, _ = io.WriteString(w, "body\n")
		w.Header().Set("X-Sum", "sum")
		w.Header().Set("X-Count", "1")
	case path == "/gzip":
		w.Header().Set("Content-Encoding", "gzip")
		w.Header().Set("Content-Type", "text/plain")
		zip := gzip.NewWriter(w)
		_, _ = io.WriteString(zip, strings.Repeat("compressed at the source\n", 20))
		_ = zip.Close()
	default:
		writeJSON(w, http.StatusNotFound, map[string]any{"message": "Not Found"})
	}
}

// serveItems answers one page, with links as GitHub gives them: absolute.
func serveItems(w http.ResponseWriter, r *http.Request, self string) {
	q := r.URL.Query()
	page := max(1, number(q, "page", 1))
	link := func(n int, rel string) string {
		to := maps.Clone(q)
		to.Set("page", strconv.Itoa(n))
		return fmt.Sprintf("<%s?%s>; rel=%q", self, to.Encode(), rel)
	}
	var links []string
	if page > 1 {
		links = append(links, link(page-1, "prev"), link(1, "first"))
	}
	if page < itemPages {
		links = append(links, link(page+1, "next"), link(itemPages, "last"))
	}
	items := []map[string]any{}
	if page <= itemPages {
		for i := range pageSize {
			id := (page-1)*pageSize + i + 1
			items = append(items, map[string]any{"id": id, "name": fmt.Sprintf("item-%d", id)})
		}
	}
	w.Header().Set("Link", strings.Join(links, ", "))
	writeJSON(w, http.StatusOK, items)
}

func serveEcho(w http.ResponseWriter, r *http.Request) {
	if ct := r.Header.Get("Content-Type"); ct != "" {
		w.Header().Set("Content-Type", ct)
	}
	if r.ContentLength >= 0 {
		w.Header().Set("Content-Length", strconv.FormatInt(r.ContentLength, 10))
	}
	for name := range r.Trailer {
		w.Header().Add("Trailer", name)
	}
	if _, err := io.Copy(flushing{w}, r.Body); err != nil {
		panic(http.ErrAbortHandler) // half a body must not look whole
	}
	maps.Copy(w.Header(), r.Trailer)
}

// flushing sends each write at once.
type flushing struct{ w http.ResponseWriter }

// Write implements io.Writer.
func (f flushing) Write(p []byte) (int, error) {
	n, err := f.w.Write(p)
	if err != nil {
		return n, err
	}
	return n, http.NewResponseController(f.w).Flush()
}

func serveUpload(w http.ResponseWriter, r *http.Request) {
	sum := sha256.New()
	n, err := io.Copy(sum, r.Body)
	if err != nil {
		panic(http.ErrAbortHandler)
	}
	writeJSON(w, http.StatusOK, map[string]any{
		"bytes": n, "sha256": hex.EncodeToString(sum.Sum(nil)), "content_type": r.Header.Get("Content-Type"),
		"content_length": r.ContentLength, "transfer_encoding": r.TransferEncoding,
	})
}

func serveDownload(w http.ResponseWriter, r *http.Request) {
	n := max(0, number(r.URL.Query(), "bytes", 1<<20))
	w.Header().Set("Content-Type", "application/octet-stream")
	if !r.URL.Query().Has("chunked") {
		w.Header().Set("Content-Length", strconv.Itoa(n))
	}
	if r.Method != http.MethodHead {
		_, _ = io.Copy(w, Pattern(int64(n)))
	}
}

// Pattern returns a reader of n bytes that are the same each time.
func Pattern(n int64) io.Reader {
	// 251 fits no buffer, so that a block lost or doubled shifts the rest.
	block := make([]byte, 251*256)
	for i := range block {
		block[i] = byte(i % 251)
	}
	return io.LimitReader(&pattern{block: block}, n)
}

type pattern struct {
	block []byte
	at    int
}

// Read implements io.Reader.
func (p *pattern) Read(b []byte) (int, error) {
	n := copy(b, p.block[p.at:])
	p.at = (p.at + n) % len(p.block)
	return n, nil
}

func serveEvents(w http.ResponseWriter, r *http.Request) {
	q := r.URL.Query()
	interval, err := time.ParseDuration(q.Get("interval"))
	if err != nil {
		interval = 100 * time.Millisecond
	}
	w.Header().Set("Content-Type", "text/event-stream")
	w.Header().Set("Cache-Control", "no-cache")
	for i := range number(q, "count", 5) {
		if i > 0 {
			wait(r.Context(), interval)
		}
		if r.Context().Err() != nil {
			return
		}
		if _, err := fmt.Fprintf(flushing{w}, "id: %d\nevent: tick\ndata: event %d\n\n", i+1, i+1); err != nil {
			return
		}
	}
}

func serveWebSocket(w http.ResponseWriter, r *http.Request) {
	// The origin is not checked: what counts here is the token.
	c, err := websocket.Accept(w, r, &websocket.AcceptOptions{InsecureSkipVerify: true})
	if err != nil {
		return
	}
	defer func() { _ = c.CloseNow() }()
	c.SetReadLimit(16 << 20)
	for {
		kind, msg, err := c.Read(r.Context())
		if err != nil {
			_ = c.Close(websocket.StatusNormalClosure, "")
			return
		}
		if err := c.Write(r.Context(), kind, msg); err != nil {
			return
		}
	}
}

// Seen is the answer of /api/headers and /api/raw/…: a request as it arrived.
type Seen struct {
	Method           string      `json:"method"`
	Path             string      `json:"path"`  // as sent, escapes and all
	Query            string      `json:"query"` // as sent, but for the key in it, which is masked
	HasQuery         bool        `json:"has_query"`
	Host             string      `json:"host"`
	Proto            string      `json:"proto"`
	Header           http.Header `json:"header"` // with the credential masked
	Trailer          http.Header `json:"trailer"`
	ContentLength    int64       `json:"content_length"` // -1: not given
	TransferEncoding []string    `json:"transfer_encoding"`
}

func (s *Server) serveSeen(w http.ResponseWriter, r *http.Request) {
	_, _ = io.Copy(io.Discard, r.Body) // the trailers come after it
	h := r.Header.Clone()
	for i, v := range h["Authorization"] {
		scheme, _, _ := strings.Cut(v, " ")
		h["Authorization"][i] = scheme + " [masked]"
	}
	maskKey(h, s.cfg)
	path, query, has := strings.Cut(r.RequestURI, "?")
	query = s.maskQuery(query)
	writeJSON(w, http.StatusOK, Seen{
		Method: r.Method, Path: path, Query: query, HasQuery: has, Host: r.Host, Proto: r.Proto, Header: h,
		Trailer: r.Trailer, ContentLength: r.ContentLength, TransferEncoding: r.TransferEncoding,
	})
}

func serveScope(w http.ResponseWriter, scope string, t accessToken) {
	if !slices.Contains(t.scopes, scope) {
		f := InsufficientScope(scope)
		f.send(w, *f.replace)
		return
	}
	writeJSON(w, http.StatusOK, map[string]any{"scope": scope})
}

func serveStatus(w http.ResponseWriter, r *http.Request, code string) {
	status, err := strconv.Atoi(code)
	if err != nil || status < 200 || status > 599 {
		writeJSON(w, http.StatusBadRequest, map[string]any{"message": "no such status"})
		return
	}
	q := r.URL.Query()
	for _, line := range q["header"] {
		if name, value, ok := strings.Cut(line, ":"); ok {
			w.Header().Add(name, strings.TrimSpace(value))
		}
	}
	w.WriteHeader(status)
	if body := q.Get("body"); body != "" {
		_, _ = io.WriteString(w, body) //nolint:gosec // G705: what the test asks for, byte by byte
	}
}

func number(q url.Values, name string, absent int) int {
	n, err := strconv.Atoi(q.Get(name))
	if err != nil {
		return absent
	}
	return n
}

// recorder counts an answer when it begins.
type recorder struct {
	http.ResponseWriter
	count func(status int)
	begun bool
}

// WriteHeader implements http.ResponseWriter.
func (r *recorder) WriteHeader(status int) {
	if !r.begun && (status >= 200 || status == http.StatusSwitchingProtocols) {
		r.begun = true
		r.count(status)
	}
	r.ResponseWriter.WriteHeader(status)
}

// Write implements http.ResponseWriter.
func (r *recorder) Write(p []byte) (int, error) {
	if !r.begun {
		r.begun = true
		r.count(http.StatusOK)
	}
	return r.ResponseWriter.Write(p)
}

// Unwrap lets http.ResponseController reach the real writer.
func (r *recorder) Unwrap() http.ResponseWriter { return r.ResponseWriter }

// finish counts an answer that never began: 0 if the handler ended by a
// panic, which closes the connection, else the empty 200 that net/http sends.
func (r *recorder) finish() {
	p := recover()
	if !r.begun {
		status := http.StatusOK
		if p != nil {
			status = 0
		}
		r.count(status)
	}
	if p != nil {
		panic(p)
	}
}
