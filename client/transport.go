package client

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"
)

// HTTPClient returns an HTTP client that calls the API of a connection's
// provider through Lanyard, for any SDK that takes one: requests to the API's
// own address go to the proxy, which puts the credential on. Path and query go
// as they are; the SDK's own Authorization and Cookie stay here.
//
// A request to any other host ends with ErrHostNotAllowed, so that no link in an
// answer leads past Lanyard; a redirect to one is handed back as it is. What
// Lanyard answers itself is an error too, so that nobody takes it for the
// provider's: a *ReconnectRequired where the user has to connect again, else an
// *APIError. errors.As finds them in what the SDK returns.
//
// apiURLs say where the API is: first its URL, as the provider's entry in Lanyard
// has it, then those of its further hosts. Left out, Lanyard is asked, at most
// every ten minutes for a connection: that needs Config.APIKey.
func (c *Client) HTTPClient(connectionID string, apiURLs ...string) *http.Client {
	t := &transport{client: c, connectionID: connectionID, given: apiURLs}
	return &http.Client{Transport: t, CheckRedirect: t.checkRedirect}
}

// MissingScopes returns the scopes that a provider's answer says a connection
// lacks, and a link of 15 minutes by which its user can grant them. Both are
// empty if the answer says no such thing, and the link where none can help.
func MissingScopes(res *http.Response) (scopes []string, connectURL string) {
	return strings.Fields(res.Header.Get("Lanyard-Missing-Scopes")), res.Header.Get("Lanyard-Connect-Url")
}

// upstream is where a provider's API is.
type upstream struct {
	api   *url.URL
	hosts []string // further ones, as Lanyard has them declared
}

// transport is the way through the proxy for one connection.
type transport struct {
	client       *Client
	connectionID string
	given        []string // where its API is; none: Lanyard knows
}

// dropped are the headers of a request that are Lanyard's to set, or nobody's.
var dropped = [...]string{"Authorization", "Cookie", "Lanyard-Key", "Lanyard-Host", "Connection-Id", "User-Id", "Proxy-Authorization"}

// RoundTrip implements http.RoundTripper.
func (t *transport) RoundTrip(req *http.Request) (*http.Response, error) {
	out, err := t.outgoing(req)
	if err != nil {
		if req.Body != nil {
			_ = req.Body.Close()
		}
		return nil, err
	}
	res, err := t.client.proxy.transport.RoundTrip(out)
	if err != nil {
		return nil, err
	}
	if res.Header.Get("Lanyard-Error") != "" {
		defer discard(res.Body)
		return nil, refusal(res, t.connectionID)
	}
	res.Request = req
	return res, nil
}

// outgoing returns the request to the proxy that stands for req.
func (t *transport) outgoing(req *http.Request) (*http.Request, error) {
	if t.client.proxy.url == nil {
		return nil, errors.New("lanyard: calls of APIs need ProxyURL or APIURL")
	}
	path, host, err := t.place(req)
	if err != nil {
		return nil, err
	}
	out := req.Clone(req.Context())
	out.URL, out.Host = t.at(req.URL, path), ""
	maps.DeleteFunc(out.Header, func(name string, _ []string) bool { // in any spelling: some SDKs fill the map themselves
		return slices.Contains(dropped[:], http.CanonicalHeaderKey(name))
	})
	out.Header.Set("Connection-Id", t.connectionID)
	if key := t.client.clientKey(); key != "" {
		out.Header.Set("Lanyard-Key", key)
	}
	if host != "" {
		out.Header.Set("Lanyard-Host", host)
	}
	return out, nil
}

// place returns the escaped path at the proxy for a request, and the further
// host that it is for, if it is for one.
func (t *transport) place(req *http.Request) (path, host string, err error) {
	u := req.URL
	path = u.EscapedPath()
	if u.Opaque != "" { // //host/path, or a path that is sent as it is
		path = u.Opaque
		if rest, ok := strings.CutPrefix(path, "//"); ok {
			if _, path, ok = strings.Cut(rest, "/"); ok {
				path = "/" + path
			}
		}
	}
	proxy := t.client.proxy.url
	if sameHost(u, proxy.Scheme, proxy.Host) {
		// A link that Lanyard has turned back, or an SDK that was told its address.
		rest, ok := below(path, proxy)
		if !ok {
			return "", "", notAllowed(u)
		}
		return rest, "", nil
	}
	up, err := t.upstream(req.Context())
	if err != nil {
		return "", "", err
	}
	if i := slices.IndexFunc(up.hosts, func(h string) bool { return sameHost(u, up.api.Scheme, h) }); i >= 0 {
		return path, up.hosts[i], nil
	}
	rest, ok := below(path, up.api)
	if !ok || !sameHost(u, up.api.Scheme, up.api.Host) {
		return "", "", notAllowed(u)
	}
	return rest, "", nil
}

// notAllowed names the host and nothing else of the address.
func notAllowed(u *url.URL) error { return fmt.Errorf("%w: %s", ErrHostNotAllowed, u.Host) }

// below cuts the path of base off an escaped path, at a segment's end.
func below(path string, base *url.URL) (string, bool) {
	rest, ok := strings.CutPrefix(path, strings.TrimSuffix(base.EscapedPath(), "/"))
	return rest, ok && (rest == "" || rest[0] == '/')
}

// sameHost reports whether u is on a host under a scheme, with or without the
// scheme's port.
func sameHost(u *url.URL, scheme, host string) bool {
	port := ":80"
	if scheme == "https" {
		port = ":443"
	}
	return strings.EqualFold(u.Scheme, scheme) &&
		strings.EqualFold(strings.TrimSuffix(u.Host, port), strings.TrimSuffix(host, port))
}

// at returns the address at the proxy of an escaped path, with the query of u,
// byte for byte.
func (t *transport) at(u *url.URL, path string) *url.URL {
	proxy := t.client.proxy.url
	to := &url.URL{Scheme: proxy.Scheme, Host: proxy.Host, RawQuery: u.RawQuery, ForceQuery: u.ForceQuery}
	path = proxy.EscapedPath() + path
	if path == "" {
		path = "/"
	}
	plain, err := url.PathUnescape(path)
	to.Path, to.RawPath = plain, path
	if err != nil || to.EscapedPath() != path {
		to.Path, to.RawPath, to.Opaque = "", "", path // bytes that no URL should have, as they came
	}
	return to
}

// checkRedirect hands back redirects that lead past Lanyard.
func (t *transport) checkRedirect(req *http.Request, via []*http.Request) error {
	if len(via) >= 10 { // as the standard library has it
		return errors.New("lanyard: stopped after 10 redirects")
	}
	if _, _, err := t.place(req); errors.Is(err, ErrHostNotAllowed) {
		return http.ErrUseLastResponse
	}
	return nil
}

// upstream returns where the connection's API is.
func (t *transport) upstream(ctx context.Context) (*upstream, error) {
	if len(t.given) > 0 {
		return newUpstream(t.given[0], t.given[1:])
	}
	return t.client.apis.of(ctx, t.client, t.connectionID)
}

func newUpstream(apiURL string, hosts []string) (*upstream, error) {
	api, err := parseURL(apiURL)
	if err != nil {
		return nil, fmt.Errorf("lanyard: the API's URL: %w", err)
	}
	up := &upstream{api: api}
	for _, host := range hosts {
		if u, err := url.Parse(host); err == nil && u.Host != "" {
			host = u.Host
		}
		up.hosts = append(up.hosts, host)
	}
	return up, nil
}

const (
	// knownFor is how long what Lanyard has said of its providers is remembered:
	// it changes with a reload of its configuration.
	knownFor = 10 * time.Minute
	// maxKnown bounds the connections of which it is.
	maxKnown = 10_000
)

// catalogue remembers where APIs are. The zero value knows nothing.
type catalogue struct {
	mu        sync.Mutex // guards what follows
	since     time.Time
	providers map[string]Provider
	upstreams map[string]*upstream // :: connection ID → its API
}

// known calls f with what is known and not too old.
func (a *catalogue) known(f func()) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if time.Since(a.since) > knownFor || len(a.upstreams) >= maxKnown {
		a.since, a.providers, a.upstreams = time.Now(), map[string]Provider{}, map[string]*upstream{}
	}
	f()
}

// of returns where a connection's API is. It asks Lanyard if that is not known.
func (a *catalogue) of(ctx context.Context, c *Client, connectionID string) (*upstream, error) {
	var up *upstream
	a.known(func() { up = a.upstreams[connectionID] })
	if up != nil {
		return up, nil
	}
	conn, err := c.Get(ctx, connectionID)
	if err != nil {
		return nil, err
	}
	p, err := a.provider(ctx, c, conn.Provider)
	if err != nil {
		return nil, err
	}
	var fill []string
	for name, value := range conn.Params {
		fill = append(fill, "{"+name+"}", value)
	}
	filled := strings.NewReplacer(fill...)
	var hosts []string
	for _, host := range p.Hosts {
		hosts = append(hosts, filled.Replace(host))
	}
	if up, err = newUpstream(filled.Replace(p.APIURL), hosts); err != nil {
		return nil, err
	}
	a.known(func() { a.upstreams[connectionID] = up })
	return up, nil
}

// provider returns a provider of Lanyard's. One that is not known yet may have
// come with a reload.
func (a *catalogue) provider(ctx context.Context, c *Client, name string) (p Provider, err error) {
	a.known(func() { p = a.providers[name] })
	if p.APIURL != "" {
		return p, nil
	}
	list, err := c.Providers(ctx)
	if err != nil {
		return Provider{}, err
	}
	a.known(func() {
		for _, p := range list {
			a.providers[p.Name] = p
		}
		p = a.providers[name]
	})
	if p.APIURL == "" {
		return Provider{}, fmt.Errorf("lanyard: where the API of provider %q is, is not known; give HTTPClient its URL", name)
	}
	return p, nil
}
