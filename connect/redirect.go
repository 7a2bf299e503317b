package connect

import (
	"errors"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"path"
	"slices"
	"strconv"
	"strings"

	"github.com/lanyard-proxy/lanyard/tokenstore"
)

// answerNames are the parameters that Lanyard adds to a redirect URL. A
// registered URL may not hold one: the app would see it twice.
var answerNames = []string{"connection_id", "completion_code", "state", "error", "error_description", "code"}

// ValidPublicURL returns why u can't be the public_url, or nil: it is https,
// or http on localhost, 127.0.0.1 or [::1], with nothing after its path.
func ValidPublicURL(u *url.URL) error {
	switch {
	case u.Host == "" || u.Opaque != "":
		return errors.New("it is not an absolute URL")
	case u.Scheme != "https" && (u.Scheme != "http" || !isLoopback(u.Hostname())):
		return errors.New("it must be https, or http on localhost, 127.0.0.1 or [::1]")
	case u.User != nil || u.RawQuery != "" || u.ForceQuery || u.Fragment != "":
		return errors.New("it must end with its host or path")
	case strings.ContainsFunc(u.Host, func(r rune) bool { return r > '~' }):
		return errors.New("its host must be written in ASCII, as xn--…")
	case !validHost(u.Hostname()):
		return errors.New("its host is none")
	case !validPort(u):
		return errors.New("its port is none")
	case strings.TrimRight(u.Path, "/") != strings.TrimRight(path.Clean("/"+u.Path), "/"):
		return errors.New("its path must be without . and .. and empty segments, which browsers resolve")
	}
	return nil
}

func validPort(u *url.URL) bool {
	_, err := strconv.ParseUint(u.Port(), 10, 16)
	return u.Port() == "" || err == nil
}

// validHost reports whether host is an IP address or a name of which every
// browser takes the same to be the host.
func validHost(host string) bool {
	if _, err := netip.ParseAddr(host); err == nil {
		return !strings.Contains(host, "%") // a zone is this machine's alone
	}
	return host != "" && !strings.ContainsFunc(host, func(r rune) bool {
		return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && r != '-' && r != '.' && r != '_'
	})
}

// ValidRedirectURL returns why raw can't be registered as a redirect URL, or
// nil: it is https, or http on a loopback host, written as a browser would
// write it, without user, fragment, wildcard, a path to be resolved, or a
// parameter that Lanyard adds.
func ValidRedirectURL(raw string) error {
	u, err := url.Parse(raw)
	if err != nil || u.Host == "" || u.Opaque != "" {
		return errors.New("it is not an absolute URL")
	}
	switch {
	case u.Scheme != "https" && (u.Scheme != "http" || !isLoopback(u.Hostname())):
		return errors.New("it must be https, or http on localhost, 127.0.0.1 or [::1]")
	case u.User != nil:
		return errors.New("it must not hold a user")
	case strings.Contains(raw, "#"):
		return errors.New("it must not hold a fragment")
	case !validPort(u):
		return errors.New("its port is none")
	case strings.Contains(raw, "*"):
		return errors.New("it must not hold a wildcard: redirect URLs are compared exactly")
	case u.String() != raw || strings.ContainsFunc(raw, func(r rune) bool { return r <= ' ' || r > '~' || r == '\\' }):
		return errors.New("it must be written in ASCII, with everything else percent-encoded")
	}
	switch {
	case !validHost(u.Hostname()):
		return errors.New("its host is none")
	case slices.ContainsFunc(strings.Split(u.Path, "/"), func(s string) bool { return s == "." || s == ".." }):
		return errors.New("its path must be without . and .., which browsers resolve")
	}
	query, err := url.ParseQuery(u.RawQuery)
	if err != nil {
		return errors.New("its query is not form-encoded")
	}
	for name := range query {
		if slices.Contains(answerNames, name) {
			return errors.New("its query must not hold `" + name + "`, which Lanyard adds")
		}
	}
	return nil
}

func isLoopback(host string) bool {
	if host == "localhost" {
		return true
	}
	addr, err := netip.ParseAddr(host)
	return err == nil && (addr == netip.AddrFrom4([4]byte{127, 0, 0, 1}) || addr == netip.IPv6Loopback())
}

// registered reports whether the app's redirect URL may be used. It compares
// bytes: whoever normalises opens doors (RFC 9700 section 2.1).
func (h *Handler) registered(redirectURL string) bool {
	return slices.Contains(h.cfg.RedirectURLs, redirectURL)
}

// returnURL adds name, value, name, value … to a registered redirect URL,
// leaving its own query as it is. Empty values are left out. A space becomes
// %20, which form decoders and decodeURIComponent both read.
func returnURL(redirectURL string, pairs ...string) string {
	var b strings.Builder
	b.WriteString(redirectURL)
	sep := "?"
	if _, query, ok := strings.Cut(redirectURL, "?"); ok {
		sep = "&"
		if query == "" || strings.HasSuffix(query, "&") {
			sep = ""
		}
	}
	for pair := range slices.Chunk(pairs, 2) {
		if pair[1] == "" {
			continue
		}
		b.WriteString(sep + pair[0] + "=" + strings.ReplaceAll(url.QueryEscape(pair[1]), "+", "%20"))
		sep = "&"
	}
	return b.String()
}

// seeOther sends the browser on with a GET, without a body that repeats the
// address (RFC 9700 section 4.12).
func seeOther(w http.ResponseWriter, target string) {
	w.Header().Set("Location", target)
	w.WriteHeader(http.StatusSeeOther)
}

// toApp sends the browser to the app with name, value, name, value … as the
// link asked for it: in the URL, or as a form. A redirect that follows one of
// our own forms would be held against the page's form-action, with all that the
// app redirects to, so a page comes between.
func (h *Handler) toApp(w http.ResponseWriter, r *http.Request, f *tokenstore.Flow, pairs ...string) {
	switch {
	case f.FormPost:
		h.postPage(w, r, f.RedirectURL, pairs...)
	case r.Method == http.MethodPost:
		h.onwardPage(w, r, f, returnURL(f.RedirectURL, pairs...))
	default:
		seeOther(w, returnURL(f.RedirectURL, pairs...))
	}
}

// hostOf returns the host of a URL for people to read.
func hostOf(raw string) string {
	u, err := url.Parse(raw)
	if err != nil {
		return ""
	}
	if host, port, err := net.SplitHostPort(u.Host); err == nil && (port == "443" || port == "80") {
		return host
	}
	return u.Host
}
