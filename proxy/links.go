package proxy

import (
	"net/http"
	"net/url"
	"strings"
)

// turnBack makes the links in an answer's header that point at the provider's
// API, or at one of its declared hosts, point at this proxy: an SDK that
// follows them would otherwise send its key past Lanyard to the provider.
func (c *call) turnBack(h http.Header) {
	for _, name := range [...]string{"Location", "Content-Location"} {
		mapValues(h, name, c.turnBackURL)
	}
	mapValues(h, "Link", c.turnBackLinks)
}

// mapValues replaces the values of a header by what f makes of them.
func mapValues(h http.Header, name string, f func(string) string) {
	for i, value := range h[name] {
		h[name][i] = f(value)
	}
}

// turnBackLinks turns the targets of a Link header back.
func (c *call) turnBackLinks(value string) string { return mapLinks(value, c.turnBackURL) }

// mapLinks replaces the targets of a Link header (RFC 8288 section 3) by what f
// makes of them and leaves every other byte of it.
func mapLinks(value string, f func(string) string) string {
	var b strings.Builder
	for rest := value; ; {
		start := strings.IndexByte(rest, '<')
		end := strings.IndexByte(rest, '>')
		if start < 0 || end < start || strings.Trim(rest[:start], ", \t") != "" {
			// The end, or no Link header as we know it: the rest as it is.
			b.WriteString(rest)
			return b.String()
		}
		b.WriteString(rest[:start+1])
		b.WriteString(f(rest[start+1 : end]))
		params := rest[end:]
		n := paramsLength(params)
		b.WriteString(params[:n])
		rest = params[n:]
	}
}

// paramsLength returns how far the parameters of a link go: to the comma that
// is in no quoted string.
func paramsLength(s string) int {
	quoted := false
	for i := 0; i < len(s); i++ {
		switch {
		case s[i] == '"':
			quoted = !quoted
		case s[i] == '\\' && quoted:
			i++
		case s[i] == ',' && !quoted:
			return i
		}
	}
	return len(s)
}

// maxLinks bounds what the links in the headers of one answer come to, in
// bytes: a reference of one character becomes as long as the request's own
// address, and a header may hold millions. What is beyond stays as it is.
const maxLinks = 1 << 20

// turnBackURL returns the address at this proxy of a URL reference in an
// answer, or ref itself if it has none.
func (c *call) turnBackURL(ref string) string {
	if c.links > maxLinks {
		return ref
	}
	own := c.ownURL(ref)
	c.links += len(own)
	return own
}

// ownURL does it: ref has no address here if it points at neither the API nor a
// declared host.
func (c *call) ownURL(ref string) string {
	scheme, authority, rest, ok := c.resolve(ref)
	if !ok || !strings.EqualFold(scheme, c.upstream.API.Scheme) {
		return ref
	}
	if sameHost(scheme, authority, c.upstream.API.Host) {
		if path, ok := strings.CutPrefix(rest, apiPath(c.upstream)); ok && (path == "" || strings.IndexByte("/?#", path[0]) >= 0) {
			return c.base() + path
		}
	}
	for _, host := range c.upstream.Hosts {
		if sameHost(scheme, authority, host) {
			return c.base() + hostSegment + host + rest
		}
	}
	return ref
}

// base returns the URL under which the app reaches the upstream's API:
// http://127.0.0.1:9080/github.
func (c *call) base() string {
	scheme := "http://"
	if c.in.TLS != nil {
		scheme = "https://"
	}
	return scheme + c.in.Host + c.route.prefix
}

// resolve splits a URL reference into scheme, authority and the rest. A
// relative one is resolved against the request first; one of a scheme without
// an authority, an empty one or a bare fragment is not ok.
func (c *call) resolve(ref string) (scheme, authority, rest string, ok bool) {
	u, err := url.Parse(ref)
	if err != nil || u.Opaque != "" || u.User != nil || ref == "" || ref[0] == '#' {
		return "", "", "", false
	}
	switch {
	case u.Host != "" && u.Scheme != "": // absolute: what follows the host stays byte for byte
		_, ref, _ = strings.Cut(ref, "://")
	case u.Scheme != "":
		return "", "", "", false
	case u.Host == "" && u.Path != "" && ref[0] == '/' && !hasDots(u.Path):
		return c.target.Scheme, c.target.Host, ref, true
	default:
		base := *c.target
		base.Opaque = ""
		u = base.ResolveReference(u)
		_, ref, _ = strings.Cut(u.String(), "://")
	}
	i := strings.IndexAny(ref, "/?#")
	if i < 0 {
		i = len(ref)
	}
	return u.Scheme, ref[:i], ref[i:], true
}

// sameHost reports whether a and b are one host and port under scheme.
func sameHost(scheme, a, b string) bool {
	return strings.EqualFold(withoutDefaultPort(scheme, a), withoutDefaultPort(scheme, b))
}

func withoutDefaultPort(scheme, host string) string {
	if strings.EqualFold(scheme, "https") {
		return strings.TrimSuffix(host, ":443")
	}
	return strings.TrimSuffix(host, ":80")
}
