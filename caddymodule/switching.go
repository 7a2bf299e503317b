package caddymodule

import (
	"net/http"
)

// transport is net/http's but for switches to another protocol: net/http asks
// for a WebSocket by HTTP/1.1 where the upstream prefers HTTP/2, which has no
// switches (RFC 9113 section 8.6), and for any other not at all.
type transport struct {
	*http.Transport
	h1 *http.Transport // the same without HTTP/2
}

func newSwitching(t *http.Transport) *transport {
	h1 := t.Clone()
	h1.ForceAttemptHTTP2 = false
	h1.Protocols = new(http.Protocols)
	h1.Protocols.SetHTTP1(true)
	h1.TLSNextProto = nil
	h1.TLSClientConfig.NextProtos = nil
	return &transport{Transport: t, h1: h1}
}

// RoundTrip implements http.RoundTripper.
func (t *transport) RoundTrip(r *http.Request) (*http.Response, error) {
	if len(r.Header["Upgrade"]) > 0 {
		return t.h1.RoundTrip(r)
	}
	return t.Transport.RoundTrip(r)
}

// CloseIdleConnections closes what no request uses.
func (t *transport) CloseIdleConnections() {
	t.Transport.CloseIdleConnections()
	t.h1.CloseIdleConnections()
}
