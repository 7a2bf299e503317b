package api

import (
	"bytes"
	"context"
	"encoding/json"
	"net/http"
	"strconv"
	"strings"
	"time"

	"go.uber.org/zap"

	"github.com/lanyard-proxy/lanyard/guard"
	"github.com/lanyard-proxy/lanyard/tokenstore"
)

// route is one operation. run is given input that was read and not checked; it
// changes nothing before in.done has found nothing wrong.
type route struct {
	method string
	path   string // {id} stands for a connection ID
	status int    // of success
	run    func(h *Handler, r *http.Request, in *input) (any, *guard.Problem)
}

// importPath is the one route that takes JSON lines.
const importPath = "/v1/connections/import"

// freezePath is the one whose POST is done again when it comes again.
const freezePath = "/v1/freeze"

var routes = []route{
	{http.MethodPost, "/v1/connections", http.StatusCreated, (*Handler).begin},
	{http.MethodGet, "/v1/connections", http.StatusOK, (*Handler).list},
	{http.MethodPost, importPath, http.StatusCreated, (*Handler).importing},
	{http.MethodGet, "/v1/connections/{id}", http.StatusOK, (*Handler).get},
	{http.MethodPatch, "/v1/connections/{id}", http.StatusOK, (*Handler).patch},
	{http.MethodDelete, "/v1/connections/{id}", http.StatusOK, (*Handler).remove},
	{http.MethodPost, "/v1/connections/{id}/revoke", http.StatusOK, (*Handler).revoke},
	{http.MethodPost, "/v1/connections/{id}/refresh", http.StatusOK, (*Handler).refresh},
	{http.MethodPost, "/v1/connections/{id}/connect", http.StatusOK, (*Handler).connect},
	{http.MethodPost, "/v1/connections/{id}/complete", http.StatusOK, (*Handler).complete},
	{http.MethodGet, "/v1/integrations", http.StatusOK, (*Handler).integrations},
	{http.MethodGet, "/v1/providers", http.StatusOK, (*Handler).providers},
	{http.MethodGet, "/v1/events", http.StatusOK, (*Handler).events},
	{http.MethodGet, "/v1/backup", http.StatusOK, (*Handler).backup},
	{http.MethodGet, "/v1/rekey", http.StatusOK, (*Handler).rekeying},
	{http.MethodPost, "/v1/rekey", http.StatusAccepted, (*Handler).rekey},
	{http.MethodGet, "/v1/freeze", http.StatusOK, (*Handler).freezing},
	{http.MethodPost, freezePath, http.StatusOK, (*Handler).freeze},
	{http.MethodDelete, "/v1/freeze", http.StatusOK, (*Handler).thaw},
	{http.MethodGet, "/v1/freeze/records", http.StatusOK, (*Handler).frozenRecords},
}

// The probes' paths, which need no key.
const (
	livePath  = "/v1/health/live"
	readyPath = "/v1/health/ready"
)

// find returns the route of a request and the connection ID in its path. The
// path is compared as it came: nothing is decoded, cleaned or redirected.
func find(header http.Header, method, path string) (*route, string, *guard.Problem) {
	var allow []string
	for i := range routes {
		rt := &routes[i]
		id, ok := rt.match(path)
		if !ok {
			continue
		}
		if method != rt.method && (method != http.MethodHead || rt.method != http.MethodGet) {
			allow = append(allow, methods(rt.method)...)
			continue
		}
		if strings.Contains(rt.path, "{id}") && !tokenstore.IsID(id) {
			return nil, "", connectionNotFound()
		}
		return rt, id, nil
	}
	if allow != nil {
		return nil, "", methodNotAllowed(header, allow)
	}
	return nil, "", &guard.Problem{
		Status: http.StatusNotFound, Code: "not_found",
		Detail: "The API has no such path. A call for a provider's own /v1/ has to name a connection.",
	}
}

func (rt *route) match(path string) (id string, ok bool) {
	before, after, hasID := strings.Cut(rt.path, "{id}")
	if !hasID {
		return "", path == rt.path
	}
	rest, ok := strings.CutPrefix(path, before)
	if !ok {
		return "", false
	}
	id, ok = strings.CutSuffix(rest, after)
	return id, ok && id != "" && !strings.Contains(id, "/")
}

// methods returns the methods that a route's method stands for.
func methods(method string) []string {
	if method == http.MethodGet {
		return []string{http.MethodGet, http.MethodHead}
	}
	return []string{method}
}

func methodNotAllowed(header http.Header, allow []string) *guard.Problem {
	header.Set("Allow", strings.Join(allow, ", "))
	return &guard.Problem{
		Status: http.StatusMethodNotAllowed, Code: "method_not_allowed",
		Detail: "This path takes " + strings.Join(allow, ", ") + ".",
	}
}

// readyTimeout bounds one look at whether Lanyard is ready.
const readyTimeout = 5 * time.Second

// health answers the probes. They reach Lanyard by names and addresses of their
// own, so the host is not checked; a web page is kept out here too.
func (h *Handler) health(w http.ResponseWriter, r *http.Request, path string) {
	if p := h.cfg.Local.CheckOrigin(r); p != nil {
		p.Write(w)
		return
	}
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		methodNotAllowed(w.Header(), methods(http.MethodGet)).Write(w)
		return
	}
	if path == readyPath {
		ctx, cancel := context.WithTimeout(r.Context(), readyTimeout)
		defer cancel()
		if err := h.cfg.Ready(ctx); err != nil {
			// Anybody may ask, so that the reason is the log's alone.
			h.log.Warn("not ready", zap.Error(err))
			guard.Problem{
				Status: http.StatusServiceUnavailable, Code: "not_ready",
				Detail: "Lanyard can't serve now. Its log says why.",
			}.Write(w)
			return
		}
	}
	h.write(w, http.StatusOK, map[string]string{"status": "ok"})
}

// write answers with a JSON body.
func (h *Handler) write(w http.ResponseWriter, status int, body any) {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false) // a connect_url is copied out of terminals: & stays &
	if err := enc.Encode(body); err != nil {
		h.log.Error("answer not encoded", zap.Error(err))
		internalError().Write(w)
		return
	}
	header := w.Header()
	header.Set("Content-Type", "application/json")
	header.Set("Cache-Control", "no-store")
	header.Set("X-Content-Type-Options", "nosniff")
	header.Set("Content-Length", strconv.Itoa(b.Len()))
	w.WriteHeader(status)
	_, _ = w.Write(b.Bytes())
}
