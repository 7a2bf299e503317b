package caddymodule

import (
	"net/http"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp/reverseproxy"

	"github.com/lanyard-proxy/lanyard/internal/http1"
)

// transport is net/http's but for two kinds of requests. For switches to another
// protocol net/http asks by HTTP/1.1 only if it is a WebSocket, where the upstream
// prefers HTTP/2, which has none (RFC 9113 section 8.6). And requests without a
// body cost much less by HTTP/1.1 without it.
type transport struct {
	*http.Transport
	h1     *http.Transport // the same without HTTP/2
	direct *http1.Client   // nil where the options are not for it
}

func newSwitching(t *http.Transport, direct *http1.Client) *transport {
	h1 := t.Clone()
	h1.ForceAttemptHTTP2 = false
	h1.Protocols = new(http.Protocols)
	h1.Protocols.SetHTTP1(true)
	h1.TLSNextProto = nil
	h1.TLSClientConfig.NextProtos = nil
	return &transport{Transport: t, h1: h1, direct: direct}
}

// RoundTrip implements http.RoundTripper.
func (t *transport) RoundTrip(r *http.Request) (*http.Response, error) {
	if len(r.Header["Upgrade"]) > 0 {
		return t.h1.RoundTrip(r)
	}
	if t.direct == nil {
		return t.Transport.RoundTrip(r)
	}
	if _, ok := reverseproxy.GetDialInfo(r.Context()); ok { // it goes elsewhere than its URL says
		return t.Transport.RoundTrip(r)
	}
	res, err := t.direct.RoundTrip(r)
	if err != http.ErrSkipAltProtocol { //nolint:errorlint // it is this very one
		return res, err
	}
	if res, err = t.Transport.RoundTrip(r); err == nil {
		t.direct.Learn(r, res)
	}
	return res, err
}

// CloseIdleConnections closes what no request uses.
func (t *transport) CloseIdleConnections() {
	t.Transport.CloseIdleConnections()
	t.h1.CloseIdleConnections()
	if t.direct != nil {
		t.direct.Close()
	}
}
