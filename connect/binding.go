package connect

import (
	"crypto/rand"
	"encoding/base64"
	"net/http"
	"strings"

	"github.com/lanyard-proxy/lanyard/secret"
	"github.com/lanyard-proxy/lanyard/tokenstore"
)

// A flow ends only in the browser in which it began: a cookie of its own holds
// a random value whose hash is in the flow (RFC 9700 section 4.7.1). Without
// this, an authorization URL passed on to somebody else would connect that
// person's account to the sender's user.

// maxCookies bounds the cookies of flows that a browser holds at a time, so
// that opening links over and over can't grow the Cookie header past what
// servers take.
const maxCookies = 20

// random returns a fresh value of 256 bits in 43 characters, which is also
// the form of a code verifier (RFC 7636 section 4.1).
func random() string {
	var b [32]byte
	_, _ = rand.Read(b[:]) // never fails
	return base64.RawURLEncoding.EncodeToString(b[:])
}

func (h *Handler) cookiePrefix() string {
	if h.secure {
		return "__Host-lanyard-"
	}
	return "lanyard-" // browsers take __Host- with Secure only, and Secure with https only
}

func (h *Handler) cookieName(flowID string) string { return h.cookiePrefix() + flowID[:16] }

func (h *Handler) setCookie(w http.ResponseWriter, name, value string, maxAge int) {
	http.SetCookie(w, &http.Cookie{ //nolint:gosec // G124: Secure wherever the public URL is https
		Name: name, Value: value, Path: "/", MaxAge: maxAge,
		HttpOnly: true, Secure: h.secure, SameSite: http.SameSiteLaxMode,
	})
}

// bind gives the browser the cookie of a new flow, and takes away its oldest
// ones where it has too many.
func (h *Handler) bind(w http.ResponseWriter, r *http.Request, flowID, value string) {
	var held []string
	for _, c := range r.Cookies() {
		if len(c.Name) == len(h.cookieName(flowID)) && strings.HasPrefix(c.Name, h.cookiePrefix()) { // not those of forms, or the dashboard's
			held = append(held, c.Name)
		}
	}
	// Browsers send what was made earlier first (RFC 6265 section 5.4).
	for _, name := range held[:max(0, len(held)-maxCookies+1)] {
		h.setCookie(w, name, "", -1)
	}
	h.setCookie(w, h.cookieName(flowID), value, int(tokenstore.FlowLife.Seconds()))
}

// bound reports whether the request comes from the browser in which f began.
func (h *Handler) bound(r *http.Request, f *tokenstore.Flow) bool {
	for _, c := range r.CookiesNamed(h.cookieName(f.ID)) {
		if secret.New(secret.New(c.Value).Hash()).Equal(secret.New(f.BrowserHash)) {
			return true
		}
	}
	return false
}

// unbind takes away the cookie of a flow that has ended.
func (h *Handler) unbind(w http.ResponseWriter, f *tokenstore.Flow) {
	h.setCookie(w, h.cookieName(f.ID), "", -1)
}
