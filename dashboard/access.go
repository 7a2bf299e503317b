package dashboard

import (
	"crypto/rand"
	"encoding/base64"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strings"

	"github.com/lanyard-proxy/lanyard/guard"
	"github.com/lanyard-proxy/lanyard/secret"
)

// forwarded are the headers that tell of another proxy between the browser and
// this machine's loopback address.
var forwarded = []string{
	"Forwarded", "Via", "X-Forwarded-For", "X-Forwarded-Host", "X-Forwarded-Proto", "X-Forwarded-Port", "X-Real-Ip",
	"Cf-Connecting-Ip", "True-Client-Ip",
}

// local reports whether a request was made on this machine and meant for it: both
// ends of the connection are on loopback, no proxy has passed it on, and the host
// is a loopback name, so that no web page gets here by a name of its own that
// leads to this machine (DNS rebinding).
func local(r *http.Request) bool {
	here, ok := r.Context().Value(http.LocalAddrContextKey).(*net.TCPAddr)
	if !ok || !here.IP.IsLoopback() {
		return false
	}
	there, err := netip.ParseAddrPort(r.RemoteAddr)
	if err != nil || !there.Addr().Unmap().IsLoopback() {
		return false
	}
	if !r.ProtoAtLeast(1, 1) { // no browser's: a proxy that says nothing else of itself
		return false
	}
	for _, name := range forwarded {
		if len(r.Header.Values(name)) > 0 {
			return false
		}
	}
	host := (&url.URL{Host: r.Host}).Hostname()
	if strings.EqualFold(host, "localhost") {
		return true
	}
	addr, err := netip.ParseAddr(host)
	return err == nil && addr.IsLoopback()
}

// maxForm bounds the body of a form, in bytes.
const maxForm = 4 << 10

// admit gives the visitor a token for forms, and checks a form that they send. It
// returns the page to refuse it with, or nil.
//
// The token is a MAC over a cookie and the user: another site can't read it, and
// neither a cookie that somebody planted nor another user's form makes one.
func (h *Handler) admit(v *visit) *refusal {
	name := "lanyard-dashboard"
	if v.r.TLS != nil {
		name = "__Host-" + name
	}
	seed := ""
	if cookies := v.r.CookiesNamed(name); len(cookies) == 1 && len(cookies[0].Value) == seedLen {
		seed = cookies[0].Value
	}
	fresh := seed == ""
	if fresh {
		seed = rand.Text()
	}
	v.csrf = base64.RawURLEncoding.EncodeToString(h.cfg.Key.MAC("lanyard-dashboard-form-v1\n" + seed + "\n" + v.user))
	switch {
	case v.reads():
		if fresh {
			http.SetCookie(v.w, &http.Cookie{ //nolint:gosec // G124: Secure wherever the connection is
				Name: name, Value: seed, Path: "/", HttpOnly: true, Secure: v.r.TLS != nil, SameSite: http.SameSiteLaxMode,
			})
		}
		return nil
	case v.r.Method != http.MethodPost:
		p := wrongMethod("GET, HEAD, POST")
		return &p
	case guard.CheckEarly(v.r) != nil:
		return &tooEarly
	}
	v.r.Body = http.MaxBytesReader(v.w, v.r.Body, maxForm)
	given := v.r.PostFormValue("csrf")
	if fresh || !sameOrigin(v.r) || !secret.New(given).Equal(secret.New(v.csrf)) {
		return &notOurForm
	}
	return nil
}

// seedLen is the length of a cookie's value: 128 bits in base32, as rand.Text
// makes them.
const seedLen = 26

// sameOrigin reports whether the browser says that a page of this origin sent the
// form, as far as it says anything.
func sameOrigin(r *http.Request) bool {
	if sites := r.Header.Values("Sec-Fetch-Site"); len(sites) > 0 {
		return len(sites) == 1 && sites[0] == "same-origin"
	}
	origins := r.Header.Values("Origin")
	if len(origins) == 0 {
		return true
	}
	u, err := url.Parse(origins[0])
	return err == nil && len(origins) == 1 && u.Host != "" && strings.EqualFold(u.Host, r.Host)
}
