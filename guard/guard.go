package guard

import (
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"

	"github.com/lanyard-proxy/lanyard/secret"
)

// Local is the check that every request of the app's side passes first: it
// must come from a program, not from a web page, and be meant for this host.
// Between them the two checks keep out cross-site requests and DNS rebinding. A
// request that could be a replay must not change anything.
type Local struct {
	// Names are further host names under which the app reaches Lanyard.
	Names []string
	// AllowOrigin are the origins whose pages may call it all the same, exact.
	AllowOrigin []string
}

// Check returns the problem to answer with, or nil.
func (l Local) Check(r *http.Request) *Problem {
	if !l.hostAllowed(r) {
		return &Problem{
			Status: http.StatusMisdirectedRequest, Code: "host_invalid",
			Detail: "This host name is not one of Lanyard's. Call it by a loopback name, or add the name with `names`.",
		}
	}
	if p := l.CheckOrigin(r); p != nil {
		return p
	}
	return CheckEarly(r)
}

// CheckEarly is the part of Check that refuses what came before the TLS
// handshake was complete and does more than read: whoever saw it pass can send
// it again (RFC 8470). It returns the problem to answer with, or nil.
func CheckEarly(r *http.Request) *Problem {
	switch r.Method {
	case http.MethodGet, http.MethodHead, http.MethodOptions:
		return nil
	}
	if complete := r.TLS == nil || r.TLS.HandshakeComplete; complete && len(r.Header["Early-Data"]) == 0 {
		return nil
	}
	return &Problem{
		Status: http.StatusTooEarly, Code: "too_early",
		Detail: "The request came as early data of TLS, which can be replayed. Send it again once the handshake is complete.",
	}
}

// CheckOrigin is the half of Check that keeps web pages out, for what may be
// called by any host name: the health probes. It returns the problem to answer
// with, or nil.
func (l Local) CheckOrigin(r *http.Request) *Problem {
	if origin := r.Header["Origin"]; len(origin) > 0 || fetchedByPage(r) {
		if len(origin) == 1 && slices.Contains(l.AllowOrigin, origin[0]) {
			return nil
		}
		return &Problem{
			Status: http.StatusForbidden, Code: "browser_request_blocked",
			Detail: "This request comes from a web page. Lanyard is called by the app's server, never by a browser; `allow_origin` names exceptions.",
		}
	}
	return nil
}

// fetchedByPage reports whether a browser says that a page made the request.
func fetchedByPage(r *http.Request) bool {
	for _, v := range r.Header["Sec-Fetch-Site"] {
		if v != "none" {
			return true
		}
	}
	return false
}

func (l Local) hostAllowed(r *http.Request) bool {
	host := r.Host
	if strings.IndexByte(host, ':') >= 0 {
		if h, _, err := net.SplitHostPort(host); err == nil {
			host = h
		}
	}
	host = strings.TrimSuffix(strings.TrimPrefix(host, "["), "]")
	if strings.EqualFold(host, "localhost") || slices.ContainsFunc(l.Names, func(n string) bool { return strings.EqualFold(n, host) }) {
		return true
	}
	addr, err := netip.ParseAddr(host)
	if err == nil && addr.IsLoopback() {
		return true
	}
	local, _ := r.Context().Value(http.LocalAddrContextKey).(net.Addr)
	if local != nil && local.Network() == "unix" {
		return true
	}
	tcp, ok := local.(*net.TCPAddr)
	return ok && err == nil && tcp.AddrPort().Addr().Unmap() == addr.Unmap()
}

// From returns the address that a request came from, without its port: what the
// connection says, never a header. A unix socket has no addresses: "unix".
func From(r *http.Request) string {
	if local, ok := r.Context().Value(http.LocalAddrContextKey).(net.Addr); ok && local.Network() == "unix" {
		return "unix"
	}
	if ap, err := netip.ParseAddrPort(r.RemoteAddr); err == nil {
		return ap.Addr().Unmap().String()
	}
	return r.RemoteAddr
}

// Key is a named key that opens one side of Lanyard.
type Key struct {
	Name  string
	Value secret.String
}

// Match returns the key that equals given. It compares with every key, each in
// constant time.
func Match(keys []Key, given secret.String) (Key, bool) {
	var found Key
	ok := false
	for _, k := range keys {
		if k.Value.Equal(given) && !given.IsZero() {
			found, ok = k, true
		}
	}
	return found, ok
}

// Bearer returns the credential of a single Authorization header with the
// scheme Bearer (RFC 6750 section 2.1), or a zero String.
func Bearer(r *http.Request) secret.String {
	values := r.Header.Values("Authorization")
	if len(values) != 1 {
		return secret.String{}
	}
	scheme, value, ok := strings.Cut(values[0], " ")
	if !ok || !strings.EqualFold(scheme, "Bearer") {
		return secret.String{}
	}
	return secret.New(strings.TrimSpace(value))
}
