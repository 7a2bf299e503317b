package proxy

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"time"

	"go.uber.org/zap"

	"github.com/lanyard-proxy/lanyard/guard"
	"github.com/lanyard-proxy/lanyard/tokenstore"
)

// refusalError carries a problem through where only an error can go.
type refusalError struct{ problem *guard.Problem }

func (e *refusalError) Error() string { return "refused: " + e.problem.Code }

// write answers with p.
func write(w http.ResponseWriter, p *guard.Problem) {
	if p.Status == http.StatusMethodNotAllowed {
		w.Header().Set("Allow", "GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS")
	}
	p.Write(w)
}

// checkMethod refuses the methods that could show the token to others, in any
// case: there are servers that take trace for TRACE.
func checkMethod(method string) *guard.Problem {
	if !strings.EqualFold(method, http.MethodTrace) && !strings.EqualFold(method, http.MethodConnect) {
		return nil
	}
	return &guard.Problem{
		Status: http.StatusMethodNotAllowed, Code: "method_not_allowed",
		Detail: "TRACE and CONNECT are not passed on: they could show the token to others.",
	}
}

func problemConnectionRequired() *guard.Problem {
	return &guard.Problem{
		Status: http.StatusBadRequest, Code: "connection_required",
		Detail: "The request names no connection. Send `Connection-Id: conn_…`, or `Authorization: Bearer KEY.conn_…`.",
	}
}

func problemUserNeedsIntegration() *guard.Problem {
	p := problemConnectionRequired()
	p.Detail = "A user may have connections at several integrations: `User-Id` names one only at a proxy that is bound to an integration " +
		"(`lanyard_proxy /github/* github`). Send `Connection-Id: conn_…`."
	return p
}

func problemAmbiguous() *guard.Problem {
	return &guard.Problem{
		Status: http.StatusBadRequest, Code: "connection_ambiguous",
		Detail: "The request names two connections or two keys. Name one, in one place.",
	}
}

// problemNotFound is one answer for all: unknown, deleted, another's.
func problemNotFound() *guard.Problem {
	return &guard.Problem{
		Status: http.StatusNotFound, Code: "connection_not_found",
		Detail: "There is no such connection here.",
	}
}

// problemNotAllowed answers a client that is limited in its methods or paths.
func problemNotAllowed() *guard.Problem {
	return &guard.Problem{
		Status: http.StatusForbidden, Code: "not_allowed",
		Detail: "This client key may not use this method or path, or asks for another one in a header (X-HTTP-Method-Override and the like).",
	}
}

func problemNoUpstream(reason string) *guard.Problem {
	p := &guard.Problem{
		Status: http.StatusConflict, Code: "connection_not_active",
		Detail: "The connection's integration is not in Lanyard's configuration.",
		Extra:  map[string]any{"reason": reason},
	}
	switch reason {
	case tokenstore.ReasonInvalidParameter:
		p.Detail = "The connection's parameters are not of the form that its integration's URLs have now."
	case tokenstore.ReasonSchemeChanged:
		p.Detail = "The connection's integration has another auth scheme now: connect again."
	}
	return p
}

// problemAPIUnknown answers for a connection whose provider has not told where
// its API is. Connecting again is what makes it tell.
func (h *Handler) problemAPIUnknown(ctx context.Context, g *tokenstore.Grant) *guard.Problem {
	return &guard.Problem{
		Status: http.StatusFailedDependency, Code: "reconnect_required",
		Detail: "The provider has not told which host or account this connection's API is at. Its user has to connect again.",
		Extra:  h.withConnectURL(ctx, g, tokenstore.ReasonAPIUnknown),
	}
}

// unusable returns the problem of a connection that has no live credential.
func (h *Handler) unusable(ctx context.Context, g *tokenstore.Grant) *guard.Problem {
	switch {
	case g.Disabled:
		return &guard.Problem{
			Status: http.StatusConflict, Code: "connection_not_active",
			Detail: "The connection is disabled. Enable it through the API.",
			Extra:  map[string]any{"reason": "disabled"},
		}
	case g.Status == tokenstore.StatusActive:
		return nil
	case g.Status == tokenstore.StatusExpired || g.Status == tokenstore.StatusRevoked:
		return h.problemReconnect(ctx, g)
	}
	reason := g.StatusReason
	if reason == "" {
		reason = strings.ToLower(string(g.Status))
	}
	return &guard.Problem{
		Status: http.StatusConflict, Code: "connection_not_active",
		Detail: "The connection is not connected: its flow is not completed, or it failed. Send the user to connect.",
		Extra:  h.withConnectURL(ctx, g, reason),
	}
}

func (h *Handler) problemReconnect(ctx context.Context, g *tokenstore.Grant) *guard.Problem {
	reason := g.StatusReason
	if reason == "" {
		reason = tokenstore.ReasonInvalidGrant
	}
	return &guard.Problem{
		Status: http.StatusFailedDependency, Code: "reconnect_required",
		Detail: "The provider no longer takes this connection's credential. Its user has to connect again.",
		Extra:  h.withConnectURL(ctx, g, reason),
	}
}

func (h *Handler) withConnectURL(ctx context.Context, g *tokenstore.Grant, reason string) map[string]any {
	extra := map[string]any{"reason": reason}
	if h.cfg.ConnectURL != nil {
		if link := h.cfg.ConnectURL(ctx, g, nil); link != "" {
			extra["connect_url"] = link
		}
	}
	return extra
}

// problemOf turns an error of Grants about g into an answer.
func (h *Handler) problemOf(ctx context.Context, err error, g *tokenstore.Grant) *guard.Problem {
	if unavailable, ok := errors.AsType[*tokenstore.UnavailableError](err); ok {
		if errors.Is(unavailable.Cause, tokenstore.ErrFull) {
			return problemStoreFull(unavailable.RetryAfter)
		}
		if errors.Is(unavailable.Cause, tokenstore.ErrReadOnly) {
			return problemReadOnly(unavailable.RetryAfter)
		}
		return problemUnavailable(unavailable)
	}
	switch {
	case errors.Is(err, tokenstore.ErrNotFound):
		return problemNotFound()
	case errors.Is(err, tokenstore.ErrReconnect), errors.Is(err, tokenstore.ErrNotActive):
		return h.problemEnded(ctx, err, g)
	case ctx.Err() != nil: // the app has gone: nobody reads this
		return &guard.Problem{Status: http.StatusServiceUnavailable, Code: "store_unavailable"}
	}
	h.logger.Error("connection not read", zap.String("connection_id", g.ConnectionID), zap.Error(err))
	if errors.Is(err, tokenstore.ErrCorrupt) {
		return &guard.Problem{
			Status: http.StatusServiceUnavailable, Code: "store_corrupt",
			Detail: "Lanyard's record of this connection is damaged. Its operator has to restore it, or the user to connect again.",
		}
	}
	return &guard.Problem{
		Status: http.StatusServiceUnavailable, Code: "store_unavailable",
		Detail: "Lanyard's store can't be read now.",
	}
}

// problemReadOnly answers where there is no valid token, and none can be had
// while the store is being moved.
func problemReadOnly(after time.Duration) *guard.Problem {
	return &guard.Problem{
		Status: http.StatusServiceUnavailable, Code: "store_readonly",
		Detail:     "Lanyard's store is being moved, and no token is renewed meanwhile.",
		RetryAfter: after,
	}
}

// problemStoreFull answers where there is no valid token, and no room to renew
// one: the refresh token is sent only after that has been written down.
func problemStoreFull(after time.Duration) *guard.Problem {
	return &guard.Problem{
		Status: http.StatusInsufficientStorage, Code: "store_full",
		Detail:     "The disk of Lanyard's store has too little room left to renew the token. Its operator has to free some.",
		RetryAfter: after,
	}
}

// problemEnded answers for a connection that ended since g was found. What it
// is now is in the store.
func (h *Handler) problemEnded(ctx context.Context, err error, g *tokenstore.Grant) *guard.Problem {
	if now, findErr := h.cfg.Grants.Find(ctx, g.ConnectionID); findErr == nil {
		if p := h.unusable(ctx, now); p != nil {
			return p
		}
		g = now
	}
	if errors.Is(err, tokenstore.ErrReconnect) {
		return h.problemReconnect(ctx, g)
	}
	return problemNoUpstream(tokenstore.ReasonIntegrationMissing)
}

func problemUnavailable(err *tokenstore.UnavailableError) *guard.Problem {
	if refused, ok := errors.AsType[*tokenstore.RefusalError](err); ok && refused.Kind == tokenstore.RefusedClient {
		return &guard.Problem{
			Status: http.StatusBadGateway, Code: "integration_misconfigured",
			Detail:     "The provider refuses this integration's client ID or secret. Its operator has to correct them.",
			RetryAfter: err.RetryAfter,
		}
	}
	return &guard.Problem{
		Status: http.StatusServiceUnavailable, Code: "refresh_unavailable",
		Detail:     "There is no valid token now: the provider's token endpoint is failing, or was asked too short a time ago. Try again later.",
		RetryAfter: err.RetryAfter,
	}
}

// problemUpstream answers for an upstream that gave none.
func (h *Handler) problemUpstream(err error, c *call) *guard.Problem {
	if refused, ok := errors.AsType[*refusalError](err); ok {
		return refused.problem
	}
	h.logger.Warn("upstream failed", zap.String("connection_id", c.grant.ConnectionID),
		zap.String("integration", c.grant.Integration), zap.String("upstream", c.target.Host), zap.String("cause", cause(err)))
	if timedOut(err) {
		return &guard.Problem{
			Status: http.StatusGatewayTimeout, Code: "upstream_timeout",
			Detail: "The provider's API did not answer in time.",
		}
	}
	return &guard.Problem{
		Status: http.StatusBadGateway, Code: "upstream_unreachable",
		Detail: "The provider's API can't be reached, or broke off.",
	}
}

func timedOut(err error) bool {
	ne, ok := errors.AsType[net.Error](err)
	return errors.Is(err, context.DeadlineExceeded) || (ok && ne.Timeout())
}

// cause says why an upstream failed, in words that can't hold anything the
// upstream sent: its first line may echo a token.
func cause(err error) string {
	if op, ok := errors.AsType[*net.OpError](err); ok {
		return op.Error()
	}
	if cert, ok := errors.AsType[*tls.CertificateVerificationError](err); ok {
		return cert.Error()
	}
	switch {
	case timedOut(err):
		return "timed out"
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return "connection closed"
	}
	return fmt.Sprintf("%T", err)
}

// response returns p as an answer of an upstream.
func response(req *http.Request, p *guard.Problem) *http.Response {
	w := &recorder{header: http.Header{}}
	write(w, p)
	return &http.Response{
		Status: fmt.Sprintf("%d %s", w.status, http.StatusText(w.status)), StatusCode: w.status,
		Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
		Header: w.header, ContentLength: int64(w.body.Len()), Body: io.NopCloser(&w.body), Request: req,
	}
}

// recorder is an http.ResponseWriter that keeps what is written.
type recorder struct {
	header http.Header
	status int
	body   bytes.Buffer
}

func (w *recorder) Header() http.Header         { return w.header }
func (w *recorder) WriteHeader(status int)      { w.status = status }
func (w *recorder) Write(b []byte) (int, error) { return w.body.Write(b) }
