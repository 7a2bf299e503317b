package caddymodule

import (
	"cmp"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"net"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp/reverseproxy"
	"go.uber.org/zap"

	"github.com/lanyard-proxy/lanyard/internal/failpoint"
	"github.com/lanyard-proxy/lanyard/internal/http1"
	"github.com/lanyard-proxy/lanyard/provider"
)

const (
	// idlePerHost keeps a sidecar's busy hour from dialling anew all the time:
	// Caddy's 32 halve what a TLS upstream can do at 64 calls at once.
	idlePerHost = 1024
	// handshakeTimeout is what Caddy leaves open.
	handshakeTimeout = 10 * time.Second
	// headerTimeout is how long an API may take for the head of its answer. The
	// slowest that are meant to answer in one go, models and exports, take
	// minutes.
	headerTimeout = 10 * time.Minute
	// continueTimeout is how long a body that the app asks leave for (Expect:
	// 100-continue) waits for the API's. Some never give it; curl waits as long.
	continueTimeout = time.Second
	// noHeaderTable keeps HTTP/2 from remembering the headers of requests, in a
	// table where nothing has room. Users share a connection, and what one sends
	// must not tell by its length what another has sent (RFC 7541 section 7.1).
	// And with a token of each user's the table would be all turnover: it is
	// written anew for each request, and seldom of use.
	noHeaderTable = 1
	// maxHeader bounds the head of an answer, in bytes: several times what
	// browsers take.
	maxHeader = 1 << 20
)

// upstreams reaches the providers' APIs. Those that are allowed to have
// private addresses have connections of their own, since a connection that was
// checked by the looser rule must not serve the others.
type upstreams struct {
	public, private *transport
	privateHosts    map[string]bool // by URL.Host
}

// newUpstreams has Caddy build the transports, so that all its options hold.
// config may be nil.
func newUpstreams(ctx caddy.Context, config *reverseproxy.HTTPTransport, s *settings) (*upstreams, error) {
	u := &upstreams{privateHosts: map[string]bool{}}
	for _, i := range s.integrations {
		for _, host := range i.PrivateHosts() {
			u.privateHosts[host] = true
		}
	}
	var err error
	if u.public, err = newTransport(ctx, config, false); err != nil {
		return nil, err
	}
	u.private, err = newTransport(ctx, config, true)
	return u, err
}

// warnIfInsecure tells the operator that anybody on the way to a provider can
// read the tokens.
func warnIfInsecure(config *reverseproxy.HTTPTransport, logger *zap.Logger) {
	if config != nil && config.TLS != nil && config.TLS.InsecureSkipVerify {
		logger.Warn("the certificates of upstreams are not verified: whoever is on the way to a provider can read its tokens; " +
			"trust the right certificate instead (tls_trust_pool)")
	}
}

func newTransport(ctx caddy.Context, config *reverseproxy.HTTPTransport, allowPrivate bool) (*transport, error) {
	// Provisioning writes into the configuration, so each has its own copy.
	own := new(reverseproxy.HTTPTransport)
	if config != nil {
		b, err := json.Marshal(config)
		if err != nil {
			return nil, err
		}
		if err := json.Unmarshal(b, own); err != nil {
			return nil, err
		}
	}
	if err := checkTransport(own); err != nil {
		return nil, err
	}
	own.Compression = new(bool)
	if own.KeepAlive == nil {
		own.KeepAlive = new(reverseproxy.KeepAlive)
	}
	if own.KeepAlive.MaxIdleConnsPerHost == 0 {
		own.KeepAlive.MaxIdleConnsPerHost = idlePerHost
	}
	proxied := own.ForwardProxyURL != "" || (len(own.NetworkProxyRaw) > 0 && !noProxy(own.NetworkProxyRaw))
	if err := own.Provision(ctx); err != nil {
		return nil, err
	}
	t := own.Transport
	t.TLSHandshakeTimeout = cmp.Or(t.TLSHandshakeTimeout, handshakeTimeout)
	t.ResponseHeaderTimeout = cmp.Or(t.ResponseHeaderTimeout, headerTimeout)
	t.ExpectContinueTimeout = cmp.Or(t.ExpectContinueTimeout, continueTimeout)
	t.MaxResponseHeaderBytes = cmp.Or(t.MaxResponseHeaderBytes, maxHeader)
	t.HTTP2 = &http.HTTP2Config{MaxEncoderHeaderTableSize: noHeaderTable}
	if t.TLSClientConfig == nil {
		t.TLSClientConfig = &tls.Config{MinVersion: tls.VersionTLS12}
	}
	t.TLSClientConfig.ClientSessionCache = tls.NewLRUClientSessionCache(0)
	if !proxied { // else what is dialled is the proxy, which has rules of its own
		t.Proxy = nil
		guardDials(t, own, allowPrivate)
	}
	dial := failpoint.Dial(t.DialContext)
	t.DialContext = answered(dial)
	if proxied || !usual(own, t) {
		return newSwitching(t, nil), nil
	}
	return newSwitching(t, &http1.Client{
		Dial: dial, TLS: t.TLSClientConfig, HandshakeTimeout: t.TLSHandshakeTimeout, HeadTimeout: t.ResponseHeaderTimeout,
		IdleTimeout: t.IdleConnTimeout, MaxIdle: t.MaxIdleConnsPerHost, MaxHead: t.MaxResponseHeaderBytes,
	}), nil
}

// usual reports whether nothing is configured that only http.Transport does.
func usual(own *reverseproxy.HTTPTransport, t *http.Transport) bool {
	return !hasDialler(own) && t.DialTLSContext == nil && !t.DisableKeepAlives && t.IdleConnTimeout > 0 &&
		t.MaxIdleConns == 0 && t.MaxConnsPerHost == 0 && t.MaxIdleConnsPerHost > 0 && t.ReadBufferSize == 0 &&
		(t.Protocols == nil || !t.Protocols.UnencryptedHTTP2())
}

// guardDials has each address looked at that is dialled.
func guardDials(t *http.Transport, own *reverseproxy.HTTPTransport, allowPrivate bool) {
	t.DialContext = guarded(t.DialContext, allowPrivate)
	if !hasDialler(own) {
		t.DialContext = checkedFirst(own, t.DialContext, allowPrivate)
	}
	if t.DialTLSContext != nil {
		t.DialTLSContext = guarded(t.DialTLSContext, allowPrivate)
	}
}

// checkTransport refuses what would go past what is promised of upstreams.
func checkTransport(own *reverseproxy.HTTPTransport) error {
	switch {
	case own.Compression != nil && *own.Compression:
		return errors.New("compression: bodies are passed on as they are")
	case slices.Contains(own.Versions, "3"):
		return errors.New("versions: HTTP/3 is not for upstreams that may be anywhere")
	case own.ProxyProtocol != "":
		return errors.New("proxy_protocol: a provider's API takes none, and it would be sent before the address was looked at")
	case own.TLS != nil && strings.Contains(own.TLS.ServerName, "{"):
		return errors.New("tls_server_name: no placeholders here, with them Caddy begins TLS before the address was looked at")
	}
	return nil
}

// noProxy reports whether a network_proxy says that there is none.
func noProxy(module json.RawMessage) bool {
	var m struct {
		From string `json:"from"`
	}
	return json.Unmarshal(module, &m) == nil && m.From == "none"
}

// hasDialler reports whether the options of a transport need Caddy's own
// dialler.
func hasDialler(own *reverseproxy.HTTPTransport) bool {
	return own.Resolver != nil || own.LocalAddress != "" || own.ReadTimeout != 0 || own.WriteTimeout != 0
}

// checkedFirst dials as Caddy does, but looks at each address before the first
// packet goes there: one that a provider must not have isn't even knocked at.
// Where a reverse proxy says whom to dial, another dialler does.
func checkedFirst(own *reverseproxy.HTTPTransport, other dialFunc, allowPrivate bool) dialFunc {
	d := &net.Dialer{
		Timeout: time.Duration(own.DialTimeout), FallbackDelay: time.Duration(own.FallbackDelay),
		Control: provider.DialControl(allowPrivate),
	}
	return func(ctx context.Context, network, addr string) (net.Conn, error) {
		if _, ok := reverseproxy.GetDialInfo(ctx); ok {
			return other(ctx, network, addr)
		}
		return d.DialContext(ctx, network, addr)
	}
}

type dialFunc func(ctx context.Context, network, addr string) (net.Conn, error)

// guarded closes connections to addresses that a provider must not have,
// before a request is written to them.
func guarded(dial dialFunc, allowPrivate bool) dialFunc {
	return func(ctx context.Context, network, addr string) (net.Conn, error) {
		conn, err := dial(ctx, network, addr)
		if err != nil {
			return nil, err
		}
		if err := provider.CheckConn(conn, allowPrivate); err != nil {
			return nil, errors.Join(err, conn.Close())
		}
		return conn, nil
	}
}

// RoundTrip implements http.RoundTripper.
func (u *upstreams) RoundTrip(r *http.Request) (*http.Response, error) {
	if u.privateHosts[strings.ToLower(r.URL.Host)] {
		return u.private.RoundTrip(r)
	}
	return u.public.RoundTrip(r)
}

// CloseIdleConnections closes what no request uses. It does nothing on nil.
func (u *upstreams) CloseIdleConnections() {
	if u != nil {
		u.public.CloseIdleConnections()
		u.private.CloseIdleConnections()
	}
}
