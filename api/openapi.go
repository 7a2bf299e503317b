package api

import (
	"bytes"
	"crypto/sha256"
	_ "embed"
	"encoding/hex"
	"net/http"
	"time"
)

// document describes the API in OpenAPI 3.1. The tests hold every route, request
// and answer against it.
//
//go:embed openapi.json
var document []byte

const documentPath = "/v1/openapi.json"

// documentTag tells one document from others (RFC 9110 section 8.8.3).
var documentTag = func() string {
	sum := sha256.Sum256(document)
	return `"` + hex.EncodeToString(sum[:16]) + `"`
}()

// describe answers with the document. It is the same for everybody, so that no
// key is needed; a web page is kept out here too.
func (h *Handler) describe(w http.ResponseWriter, r *http.Request) {
	if p := h.cfg.Local.CheckOrigin(r); p != nil {
		p.Write(w)
		return
	}
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		methodNotAllowed(w.Header(), methods(http.MethodGet)).Write(w)
		return
	}
	header := w.Header()
	header.Set("Content-Type", "application/json")
	header.Set("Cache-Control", "public, max-age=3600")
	header.Set("ETag", documentTag)
	header.Set("X-Content-Type-Options", "nosniff")
	http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(document))
}
