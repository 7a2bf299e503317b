// Package provider speaks to one OAuth authorization server, as an Entry of
// the catalogue describes it: authorization URLs, the token endpoint,
// revocation, introspection and discovery.
//
// It never retries. A code and a rotating refresh token work once, so each
// call sends one request at most, and its error says whether anything left
// (tokenstore.ErrNotSent, tokenstore.ErrOutcomeUnknown). What came back is
// handed over unread, to be stored before Parse looks at it.
package provider

import (
	"cmp"
	"context"
	"fmt"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/lanyard-proxy/lanyard/secret"
	"github.com/lanyard-proxy/lanyard/tokenstore"
)

// Config says which client speaks to which provider.
type Config struct {
	Entry Entry // required, valid
	// Scheme is the auth scheme of the connections, one of tokenstore.AuthSchemes.
	// Default: the first that the entry describes, OAUTH2 before all others.
	Scheme string
	// ClientID is the OAuth client identifier (RFC 6749 section 2.2). Required
	// where there is a client, refused where there is none.
	ClientID string
	// ClientSecret is zero for a public client, which then names itself in the
	// request's body whatever the entry's ClientAuth says.
	ClientSecret secret.String
	// RedirectURI is where the provider sends the browser back to, exactly as
	// registered there. Required for OAUTH2.
	RedirectURI string
	// Scopes are asked for where nobody is there to say which: by
	// OAUTH2_CLIENT_CREDENTIALS and JWT_BEARER.
	Scopes []string
	// Params are the connection parameters that the integration fixes for all its
	// connections, by name. A whole host may be any here.
	Params map[string]string
}

// Provider is one client at one authorization server. It is safe for
// concurrent use. Close has to be called at its end.
type Provider struct {
	entry        Entry             // with the parameters of a connection in their places
	template     Entry             // with the places themselves
	params       *params           // what may fill them
	fixed        map[string]string // by the configuration
	values       map[string]string // all that is known
	unbound      bool              // one that people are asked for is not
	origin       *Provider         // what New returned, of which For and With made p; nil: p itself
	scheme       string
	scopes       []string
	assertion    time.Duration // the life of one; zero: none is made
	keyForm      *regexp.Regexp
	title        string
	privateHosts []string
	clientID     string
	clientSecret secret.String
	redirectURI  string
	clientAuth   string        // empty: as discovery says
	api          *url.URL      // nil while a parameter in it or in hosts is not known
	life         time.Duration // of an access token; zero: unknown, forever: never ends
	refreshLife  time.Duration // of a refresh token; zero: unknown
	margin       time.Duration // before an access token's end; zero: the usual
	pause        time.Duration // of an access token that was just issued
	interval     time.Duration // between two refreshes
	transport    *http.Transport
	single       *http.Transport // for requests without a body
	discovery    *discovery      // nil: every endpoint was given by hand
	http2        *atomic.Bool    // the last answer came by HTTP/2
}

// New returns a Provider, or an error that names what is wrong with cfg.
func New(cfg Config) (*Provider, error) {
	if err := cfg.Entry.Validate(); err != nil {
		return nil, err
	}
	e := cfg.Entry.complete()
	scheme := cmp.Or(cfg.Scheme, e.DefaultScheme())
	if err := cfg.check(scheme); err != nil {
		return nil, err
	}
	e.RevokeURL = strings.ReplaceAll(e.RevokeURL, clientIDVar, url.PathEscape(cfg.ClientID))
	p := &Provider{
		template: e, http2: new(atomic.Bool), clientID: cfg.ClientID, clientSecret: cfg.ClientSecret, redirectURI: cfg.RedirectURI,
		clientAuth: e.ClientAuth, transport: newTransport(e.AllowPrivate), scheme: scheme, scopes: cfg.Scopes,
	}
	p.single = singleTransport(e.AllowPrivate)
	var err error
	if p.params, err = e.parseParams(scheme); err != nil {
		return nil, err
	}
	if err := p.start(cfg.Params); err != nil {
		return nil, err
	}
	if err := p.checkInjected(); err != nil {
		return nil, err
	}
	if err := p.readTimes(); err != nil {
		return nil, err
	}
	if p.keyForm, err = wholePattern(e.Key.Pattern); err != nil {
		return nil, fmt.Errorf("key.pattern %w", err)
	}
	switch {
	case !cfg.ClientSecret.IsZero():
	case scheme == tokenstore.AuthJWTBearer: // the assertion says who asks
		p.clientAuth = AuthOmit
	default:
		p.clientAuth = AuthNone
	}
	if p.discovers() {
		p.discovery = &discovery{entry: e, transport: p.transport, browser: scheme == tokenstore.AuthOAuth2}
	} else if p.clientAuth == "" {
		p.clientAuth = AuthBasic
	}
	if err := p.checkKeyStays(); err != nil {
		return nil, err
	}
	return p, nil
}

// readTimes reads the durations of the entry.
func (p *Provider) readTimes() (err error) {
	e := &p.template
	if p.life, err = parseLife(e.Answer.Life); err != nil {
		return fmt.Errorf("answer.life %w", err)
	}
	if p.refreshLife, err = parseLife(e.Refresh.Life); err != nil {
		return fmt.Errorf("refresh.life %w", err)
	}
	if p.interval, err = e.Refresh.interval(); err != nil {
		return fmt.Errorf("refresh.interval %w", err)
	}
	if p.margin, err = shortTime(e.Refresh.Margin, maxMargin); err != nil {
		return fmt.Errorf("refresh.margin %w", err)
	}
	if p.pause, err = shortTime(e.Refresh.Pause, maxPause); err != nil {
		return fmt.Errorf("refresh.pause %w", err)
	}
	if e.JWT != nil {
		p.assertion, err = e.JWT.life()
	}
	return err
}

// discovers reports whether the endpoints that are needed have to be
// discovered.
func (p *Provider) discovers() bool {
	return p.asks() && p.entry.Issuer != "" &&
		(p.entry.TokenURL == "" || p.entry.AuthorizeURL == "" && p.scheme == tokenstore.AuthOAuth2)
}

// newTransport returns the transport of one Provider's own requests.
//
// It honours no HTTP_PROXY: behind a proxy the guard in DialContext would see
// the proxy's address instead of the provider's.
func newTransport(allowPrivate bool) *http.Transport {
	return &http.Transport{
		DialContext:         DialContext(allowPrivate),
		ForceAttemptHTTP2:   true,
		TLSClientConfig:     tlsConfig(),
		TLSHandshakeTimeout: 10 * time.Second,
		// Many connections may expire at once; they share those of as many as may
		// be renewed at the same time (Pace).
		MaxIdleConnsPerHost: maxConcurrency,
		// A connection that the server is just closing loses the request that
		// is put on it, and nobody knows then what became of the token in it.
		// Servers keep idle connections for 5 s or longer.
		IdleConnTimeout:        3 * time.Second,
		DisableCompression:     true,
		MaxResponseHeaderBytes: 64 << 10,
	}
}

// Close ends a discovery that is under way and closes idle connections.
func (p *Provider) Close() {
	if p.discovery != nil {
		p.discovery.close()
	}
	p.transport.CloseIdleConnections()
}

// endpoints are the URLs in force, by hand or by discovery.
type endpoints struct {
	authorize, token, revoke, introspect, device, userinfo string

	clientAuth  string // one of the Auth constants
	issuer      string // empty: not known
	issRequired bool   // RFC 9207 section 2.3
	plain       bool   // the provider says that it does without PKCE's S256
}

// endpoints returns the provider's endpoints; those given by hand win.
func (p *Provider) endpoints(ctx context.Context) (endpoints, error) {
	if p.unbound {
		return endpoints{}, fmt.Errorf("%w: the provider has some, and none were given", ErrParams)
	}
	ep := endpoints{
		authorize: p.entry.AuthorizeURL, token: p.entry.TokenURL, revoke: p.entry.RevokeURL,
		introspect: p.entry.IntrospectURL, device: p.entry.DeviceURL, clientAuth: p.clientAuth, issuer: p.entry.Issuer,
	}
	if p.discovery == nil {
		return ep, nil
	}
	md, err := p.discovery.get(ctx)
	if err != nil {
		return endpoints{}, err
	}
	fill := func(have *string, found string) {
		if *have == "" {
			*have = found
		}
	}
	fill(&ep.authorize, md.authorize)
	fill(&ep.token, md.token)
	fill(&ep.revoke, md.revoke)
	fill(&ep.introspect, md.introspect)
	fill(&ep.device, md.device)
	ep.userinfo, ep.issRequired, ep.plain = md.userinfo, md.issRequired, md.plain
	if ep.clientAuth == "" {
		if ep.clientAuth, err = clientAuthOf(md.authMethods, isKeyText(p.clientSecret)); err != nil {
			return endpoints{}, err
		}
	}
	return ep, nil
}

// Issuer returns the provider's issuer identifier, empty if it is not known,
// and whether it promises to name itself in every authorization response
// (RFC 9207). The error is that of discovery.
func (p *Provider) Issuer(ctx context.Context) (issuer string, required bool, err error) {
	ep, err := p.endpoints(ctx)
	return ep.issuer, ep.issRequired, err
}

// Title returns the provider's name for people.
func (p *Provider) Title() string { return p.title }

// API returns the base URL of the provider's API, nil while a parameter that it
// or a host needs is not known.
func (p *Provider) API() *url.URL {
	if p.api == nil {
		return nil
	}
	u := *p.api
	return &u
}

// Hosts returns the further hosts, with a port where needed, that may see the
// token. They are reached by the scheme of API.
func (p *Provider) Hosts() []string { return slices.Clone(p.entry.Hosts) }

// PrivateHosts returns the hosts of API and Hosts, with a port where needed, if
// they may be on loopback and private addresses, else none. They are the same
// for all connections.
func (p *Provider) PrivateHosts() []string { return slices.Clone(p.privateHosts) }

// DeclaredScopes returns the scopes that may be asked for; none means any.
func (p *Provider) DeclaredScopes() []string { return slices.Clone(p.entry.Scopes) }

// ScopeText returns what a scope allows, in plain words for the user, or "" if
// the catalogue does not say.
func (p *Provider) ScopeText(scope string) string { return p.entry.ScopeTexts[scope] }

// Grace reports whether a refresh token that was redeemed is taken again, for a
// while or always, so that a refresh whose outcome is unknown may be repeated
// at once. A key that signs, our own client's secret, and an access token that is
// renewed with itself are never spent.
func (p *Provider) Grace() bool {
	return p.scheme == tokenstore.AuthClientCredentials || p.scheme == tokenstore.AuthJWTBearer ||
		p.entry.Refresh.Rotation == RotationGrace || p.entry.Refresh.Rotation == RotationNone || p.entry.Refresh.With == withAccess
}

// RenewsItself reports whether access tokens are renewed with themselves, so that
// there are no refresh tokens.
func (p *Provider) RenewsItself() bool {
	return p.scheme == tokenstore.AuthOAuth2 && p.entry.Refresh.With == withAccess
}

// Pace returns how many refreshes the provider takes at the same time, and the
// least time between the beginnings of two.
func (p *Provider) Pace() (concurrency int, interval time.Duration) {
	return cmp.Or(p.entry.Refresh.Concurrency, defaultConcurrency), p.interval
}

// Pause returns how long an access token is left alone after it was issued,
// whatever the API says of it.
func (p *Provider) Pause() time.Duration { return p.pause }

// RevokesSingle reports whether revoking one token leaves the account's other
// grants to this client alive.
func (p *Provider) RevokesSingle() bool { return p.entry.Revoke.Single }

// Denied reports whether code, the `error` of an authorization response, means
// that the user said no (RFC 6749 section 4.1.2.1: access_denied).
func (p *Provider) Denied(code string) bool {
	return code == "access_denied" || slices.Contains(p.entry.Errors.Denied, code)
}
