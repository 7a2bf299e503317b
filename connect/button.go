package connect

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"net/http"
	"time"
)

// buttonName is the file, under {public_url}/connect/, that makes
// <connect-button> known to a page of the app.
const buttonName = "button.js"

var (
	button    = must(pageFiles.ReadFile("page/button.js"))
	buttonTag = `"` + hex.EncodeToString(func() []byte { sum := sha256.Sum256(button); return sum[:12] }()) + `"`
)

// serveButton serves the custom element to pages of other origins: its address
// does not change with its content, so browsers ask again after an hour.
func serveButton(w http.ResponseWriter, r *http.Request) {
	h := w.Header()
	h.Set("Content-Type", "text/javascript; charset=utf-8")
	h.Set("Cache-Control", "public, max-age=3600")
	h.Set("ETag", buttonTag)
	h.Set("Access-Control-Allow-Origin", "*") // modules are fetched with CORS; there is nothing in it to protect
	h.Set("Cross-Origin-Resource-Policy", "cross-origin")
	http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(button))
}
