package proxy

import (
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/lanyard-proxy/lanyard/guard"
	"github.com/lanyard-proxy/lanyard/tokenstore"
)

// hostSegment says Lanyard-Host in a path: /_host/uploads.github.com/rest.
const hostSegment = "/_host/"

// route is a request target taken apart, each part as it was sent.
type route struct {
	prefix   string   // under which the app reaches the API: /github, /c/conn_…
	id       string   // the connection that the path names, if it does
	hosts    []string // the host that the path asks for, if it does
	path     string   // the rest, escaped
	query    string   // without its question mark
	hasQuery bool
}

// route reads the request target, from the bytes that were sent.
func (h *Handler) route(r *http.Request) (route, *guard.Problem) {
	var rt route
	target, ok := originForm(r)
	rt.path, rt.query, rt.hasQuery = strings.Cut(target, "?")
	if !ok || !pathAllowed(rt.path) || strings.IndexFunc(rt.query, isControl) >= 0 {
		return rt, &guard.Problem{
			Status: http.StatusBadRequest, Code: "path_invalid",
			Detail: "The path has a segment that is or decodes to . or .., a backslash, %00, or a character that no URL may have; or it is no path.",
		}
	}
	rest, ok := strings.CutPrefix(rt.path, h.cfg.Prefix)
	if !ok || (h.cfg.Prefix != "" && rest != "" && rest[0] != '/') {
		return rt, &guard.Problem{
			Status: http.StatusNotFound, Code: "not_found",
			Detail: "This proxy answers under " + h.cfg.Prefix + "/ only.",
		}
	}
	rt.prefix, rt.path = h.cfg.Prefix, rest
	if named, ok := strings.CutPrefix(rt.path, "/c/"); ok && h.cfg.Path {
		if id, rest := cutSegment(named); tokenstore.IsID(id) {
			rt.id, rt.path, rt.prefix = id, rest, rt.prefix+"/c/"+id
		}
	}
	if named, ok := strings.CutPrefix(rt.path, hostSegment); ok {
		var host string
		host, rt.path = cutSegment(named)
		rt.hosts = []string{unescape(host)}
	}
	return rt, nil
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
	if strings.IndexFunc(path, isControl) >= 0 || strings.ContainsRune(path, '\\') || hasDots(path) {
		return false
	}
	if strings.IndexByte(path, '%') < 0 {
		return true
	}
	once := unescape(path)
	return strings.IndexByte(once, 0) < 0 && !hasDots(once) && !hasDots(unescape(once))
}

func isControl(r rune) bool { return r <= ' ' || r == 0x7f }

// hasDots reports whether a segment is . or .., whatever separates it: some
// servers take a backslash for a slash, and drop parameters after a semicolon.
func hasDots(path string) bool {
	if !strings.Contains(path, ".") {
		return false
	}
	for segment := range strings.FieldsFuncSeq(path, func(r rune) bool { return r == '/' || r == '\\' }) {
		segment, _, _ = strings.Cut(segment, ";")
		if segment == "." || segment == ".." {
			return true
		}
	}
	return false
}

// unescape decodes every %XX that is one and leaves the others, so that a bad
// escape can't hide a good one.
func unescape(s string) string {
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
func (rt route) target(up *Upstream, asked []string) (*url.URL, *guard.Problem) {
	u := &url.URL{
		Scheme: up.API.Scheme, Host: up.API.Host,
		RawQuery: rt.query, ForceQuery: rt.hasQuery && rt.query == "",
	}
	asked = slices.Concat(rt.hosts, asked)
	path := rt.path
	if len(asked) == 0 {
		path = apiPath(up) + path
	}
	for _, name := range asked {
		host, ok := declaredHost(up, name)
		if !ok || !strings.EqualFold(name, asked[0]) {
			return nil, problemHost()
		}
		u.Host = host
	}
	if path == "" {
		path = "/"
	}
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
	u.RawPath = path
	if u.EscapedPath() != path && !strings.HasPrefix(path, "//") {
		u.Opaque = path
	}
}
