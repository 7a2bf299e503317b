package proxy

import (
	"net/http"
	"net/url"
	"strings"

	"github.com/lanyard-proxy/lanyard/guard"
	"github.com/lanyard-proxy/lanyard/tokenstore"
)

// hostSegment says Lanyard-Host in a path: /_host/uploads.github.com/rest.
const hostSegment = "/_host/"

// route is a request target taken apart, each part as it was sent.
type route struct {
	prefix   string // under which the app reaches the API: /github, /c/conn_…
	id       string // the connection that the path names, if it does
	host     string // the host that the path asks for, if hasHost
	hasHost  bool
	path     string // the rest, escaped
	query    string // without its question mark
	hasQuery bool
}

// read reads the request target into rt, from the bytes that were sent.
func (h *Handler) read(rt *route, r *http.Request) *guard.Problem {
	target, ok := originForm(r)
	rt.path, rt.query, rt.hasQuery = strings.Cut(target, "?")
	if !ok || !pathAllowed(rt.path) || hasControl(rt.query) {
		return &guard.Problem{
			Status: http.StatusBadRequest, Code: "path_invalid",
			Detail: "The path has a segment that is or decodes to . or .., a backslash, %00, or a character that no URL may have; or it is no path.",
		}
	}
	rest, ok := strings.CutPrefix(rt.path, h.cfg.Prefix)
	if !ok || (h.cfg.Prefix != "" && rest != "" && rest[0] != '/') {
		return &guard.Problem{
			Status: http.StatusNotFound, Code: "not_found",
			Detail: "This proxy answers under " + h.cfg.Prefix + "/ only.",
		}
	}
	rt.prefix, rt.path = h.cfg.Prefix, rest
	if named, ok := strings.CutPrefix(rt.path, "/c/"); ok && h.cfg.Path {
		if id, rest := cutSegment(named); tokenstore.IsID(id) {
			rt.id, rt.path = id, rest
			rt.prefix = target[:len(rt.prefix)+len("/c/")+len(id)]
		}
	}
	if named, ok := strings.CutPrefix(rt.path, hostSegment); ok {
		var host string
		host, rt.path = cutSegment(named)
		rt.host, rt.hasHost = unescape(host), true
	}
	return nil
}

// cutSegment splits "segment/rest" before the slash.
func cutSegment(s string) (segment, rest string) {
	if i := strings.IndexByte(s, '/'); i >= 0 {
		return s[:i], s[i:]
	}
	return s, ""
}

// originForm returns the request target without scheme and authority (RFC 9112
// section 3.2): the authority is r.Host, which has been checked. It reports
// false for a target that has neither an authority nor a slash at its start.
func originForm(r *http.Request) (string, bool) {
	target := r.RequestURI
	if target == "" { // made by a program, not read from a connection
		target = r.URL.RequestURI()
	}
	if strings.HasPrefix(target, "/") {
		return target, true
	}
	scheme, rest, ok := strings.Cut(target, "://")
	if !ok || strings.ContainsAny(scheme, "/?") {
		return "", false
	}
	i := strings.IndexAny(rest, "/?")
	switch {
	case i < 0:
		return "/", true
	case rest[i] == '?':
		return "/" + rest[i:], true
	}
	return rest[i:], true
}

// pathAllowed reports whether an escaped path means the same wherever it is
// read: providers differ in whether they decode before they resolve dots.
func pathAllowed(path string) bool {
	if hasControl(path) || strings.IndexByte(path, '\\') >= 0 || hasDots(path) {
		return false
	}
	if strings.IndexByte(path, '%') < 0 {
		return true
	}
	once := unescape(path)
	return strings.IndexByte(once, 0) < 0 && !hasDots(once) && !hasDots(unescape(once))
}

// hasControl reports whether there is a space or a control character in s.
func hasControl(s string) bool {
	for i := range len(s) {
		if s[i] <= ' ' || s[i] == 0x7f {
			return true
		}
	}
	return false
}

// hasDots reports whether a segment is . or .., whatever separates it: some
// servers take a backslash for a slash, and drop parameters after a semicolon.
func hasDots(path string) bool {
	if strings.IndexByte(path, '.') < 0 {
		return false
	}
	for i := range len(path) {
		if path[i] != '.' || (i > 0 && path[i-1] != '/' && path[i-1] != '\\') {
			continue
		}
		if rest := strings.TrimPrefix(path[i+1:], "."); rest == "" || strings.IndexByte(`/\;`, rest[0]) >= 0 {
			return true
		}
	}
	return false
}

// unescape decodes every %XX that is one and leaves the others, so that a bad
// escape can't hide a good one.
func unescape(s string) string {
	if strings.IndexByte(s, '%') < 0 { // nearly always
		return s
	}
	var b strings.Builder
	for {
		i := strings.IndexByte(s, '%')
		if i < 0 || i+3 > len(s) {
			b.WriteString(s)
			return b.String()
		}
		b.WriteString(s[:i])
		if c, err := url.PathUnescape(s[i : i+3]); err == nil {
			b.WriteString(c)
			s = s[i+3:]
			continue
		}
		b.WriteByte('%')
		s = s[i+1:]
	}
}

// target returns where a request goes: to the upstream's API, or to a declared
// host that the path or the header Lanyard-Host asks for.
func (rt *route) target(up *Upstream, asked []string) (*url.URL, *guard.Problem) {
	host, path := up.API.Host, rt.path
	switch {
	case rt.hasHost:
		asked = append([]string{rt.host}, asked...)
	case len(asked) == 0:
		path = apiPath(up) + path
	}
	for _, name := range asked {
		var ok bool
		if host, ok = declaredHost(up, name); !ok || !strings.EqualFold(name, asked[0]) {
			return nil, problemHost()
		}
	}
	if path == "" {
		path = "/"
	}
	u := &url.URL{Scheme: up.API.Scheme, Host: host, RawQuery: rt.query, ForceQuery: rt.hasQuery && rt.query == ""}
	setPath(u, path)
	return u, nil
}

func problemHost() *guard.Problem {
	return &guard.Problem{
		Status: http.StatusForbidden, Code: "host_not_allowed",
		Detail: "The host is not one of those declared for this provider (`hosts`), or two were asked for.",
	}
}

// apiPath returns the path of the upstream's API, without a slash at its end.
func apiPath(up *Upstream) string { return strings.TrimSuffix(up.API.EscapedPath(), "/") }

// declaredHost returns the declared host that name asks for, port included.
func declaredHost(up *Upstream, name string) (string, bool) {
	for _, host := range up.Hosts {
		if strings.EqualFold(host, name) {
			return host, true
		}
	}
	return "", false
}

// setPath makes u.RequestURI return path byte for byte. Bytes that no URL may
// have, but some clients send, go out by Opaque, which takes all but a path
// with two slashes at its start: that one would read as a host.
func setPath(u *url.URL, path string) {
	u.Path = unescape(path)
	if u.EscapedPath() == path { // nearly always
		return
	}
	u.RawPath = path
	if u.EscapedPath() != path && !strings.HasPrefix(path, "//") {
		u.Opaque = path
	}
}

// sentPath returns the path that u.RequestURI has.
func sentPath(u *url.URL) string {
	if u.Opaque == "" && u.Path != "" {
		return u.EscapedPath()
	}
	path, _, _ := strings.Cut(u.RequestURI(), "?")
	return path
}
