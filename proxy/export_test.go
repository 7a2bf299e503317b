package proxy

import (
	"bytes"
	"errors"
	"io"
	"net/http"
	"sync/atomic"

	"github.com/lanyard-proxy/lanyard/secret"
)

// InsufficientScope is for the fuzz test of the WWW-Authenticate parser.
var InsufficientScope = insufficientScope

// ReadCaller returns what a header says about who calls and for which
// connection, if it says one thing.
func ReadCaller(h http.Header, pathID string) (key, id string, ok bool) {
	c, p := readCaller(h, pathID)
	return c.key.Reveal(), c.id, p == nil
}

// Mask returns what becomes of a text, read in pieces, in which token is masked.
func Mask(token string, pieces ...[]byte) ([]byte, error) {
	s := new(scrubber)
	s.add(secret.New(token))
	readers := make([]io.Reader, len(pieces))
	for i, piece := range pieces {
		readers[i] = bytes.NewReader(piece)
	}
	return io.ReadAll(s.body(&http.Response{
		Header: http.Header{"Content-Type": {"text/plain"}}, Body: io.NopCloser(io.MultiReader(readers...)),
	}))
}

// Accept does all that is done before the request that goes upstream is made.
func (h *Handler) Accept(r *http.Request) error {
	c := &call{in: r}
	if p := h.accept(r.Context(), c); p != nil {
		return errors.New(p.Code)
	}
	return nil
}

// Prepare does all that is done before a request without a body is sent.
func (h *Handler) Prepare(r *http.Request) error {
	c := &call{in: r}
	if p := h.accept(r.Context(), c); p != nil {
		return errors.New(p.Code)
	}
	prepared.Store(h.request(c.withInterim(nil, false), c)) //nolint:contextcheck // the request's own
	return nil
}

var prepared atomic.Pointer[http.Request] // so that what was made is not on the stack
