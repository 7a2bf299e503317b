package proxy

import (
	"net/http"
	"slices"
	"strings"
)

// dropped reports whether a header of a request is never passed on: what is
// about the hop (RFC 9110 section 7.6.1), who the app is, where it came from,
// and Lanyard's own. The same goes for trailers. name is canonical.
func dropped(name string) bool {
	switch name {
	case "Connection", "Keep-Alive", "Te", "Trailer", "Transfer-Encoding", "Upgrade", "Http2-Settings",
		"Authorization", "Cookie", "Forwarded", "Via", "X-Real-Ip", "Connection-Id", "User-Id":
		return true
	}
	return strings.HasPrefix(name, "Lanyard-") || strings.HasPrefix(name, "Proxy-") || strings.HasPrefix(name, "X-Forwarded-")
}

// outgoing returns the header that goes upstream, without what is in spare. The
// values are shared with in, the map is not.
func outgoing(in http.Header, spare []string) http.Header {
	out := make(http.Header, len(in)+2)
	for name, values := range in {
		if !dropped(name) && !slices.Contains(spare, name) {
			out[name] = values
		}
	}
	removeNamed(out, in["Connection"])
	if hasToken(in["Te"], "trailers") {
		out["Te"] = []string{"trailers"}
	}
	if protocol := upgrade(in); protocol != "" {
		out["Connection"] = []string{"Upgrade"}
		out["Upgrade"] = []string{protocol}
	}
	if _, ok := out["User-Agent"]; !ok {
		out["User-Agent"] = nil // else the transport would send Go's own
	}
	return out
}

// removeNamed removes what the values of Connection name.
func removeNamed(h http.Header, connection []string) {
	for _, value := range connection {
		for name := range strings.SplitSeq(value, ",") {
			delete(h, http.CanonicalHeaderKey(strings.TrimSpace(name)))
		}
	}
}

// upgrade returns the protocol that a message asks to switch to, or "". HTTP/2
// is not carried that way: its requests would pass by all that is checked here.
func upgrade(h http.Header) string {
	values := h["Upgrade"]
	if len(values) != 1 || strings.Contains(strings.ToLower(values[0]), "h2c") || !hasToken(h["Connection"], "upgrade") {
		return ""
	}
	return values[0]
}

// hasToken reports whether a comma-separated header has this token.
func hasToken(values []string, token string) bool {
	for _, value := range values {
		for item := range strings.SplitSeq(value, ",") {
			if strings.EqualFold(strings.TrimSpace(item), token) {
				return true
			}
		}
	}
	return false
}

// removeOwn removes what only Lanyard itself may say to an app.
func removeOwn(h http.Header) {
	for name := range h {
		if strings.HasPrefix(name, "Lanyard-") {
			delete(h, name)
		}
	}
}

// ofHop reports whether a header of an answer is about the upstream's
// connection. name is canonical.
func ofHop(name string) bool {
	switch name {
	case "Connection", "Proxy-Connection", "Keep-Alive", "Proxy-Authenticate", "Proxy-Authentication-Info",
		"Te", "Trailer", "Transfer-Encoding", "Upgrade":
		return true
	}
	return false
}

// removeHop removes what an answer says about the upstream's connection.
func removeHop(h http.Header) {
	removeNamed(h, h["Connection"])
	for name := range h {
		if ofHop(name) {
			delete(h, name)
		}
	}
}

// trailers returns those of names, the trailers announced for a request body of
// unknown length, that go to up, and the function that fills them in once the
// body has ended. The transport sends what the map holds by then, announced or
// not.
func trailers(r *http.Request, names []string, up *Upstream) (announced http.Header, fill func()) {
	if r.ContentLength >= 0 {
		return nil, func() {}
	}
	pass := func(name string) bool {
		return !dropped(name) && !slices.Contains(overriding[:], name) && !up.injects(name) && name != "Content-Length" && name != "Host"
	}
	announced = make(http.Header, len(names))
	for _, name := range names {
		if pass(name) {
			announced[name] = nil
		}
	}
	return announced, func() {
		for name, values := range r.Trailer {
			if pass(name) {
				announced[name] = values
			}
		}
	}
}

// injects reports whether a header is put on requests to up.
func (up *Upstream) injects(name string) bool {
	return strings.EqualFold(name, up.Header) ||
		slices.ContainsFunc(up.Headers, func(in InjectedHeader) bool { return strings.EqualFold(name, in.Name) })
}
