// Package proxy is the app's way to a provider's API: it takes a request that
// names a connection, puts that connection's token on it, and passes it and
// its answer through as they are.
//
// The way of a request, top down, is Handler.ServeHTTP. It uses none of
// httputil.ReverseProxy, which is not exact enough: that one re-encodes odd
// queries, lets the server guess a Content-Type the upstream did not send,
// forgets headers after a 1xx, and can't take a request body back for a replay.
package proxy

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptrace"
	"net/url"
	"strings"
	"time"

	"go.uber.org/zap"

	"github.com/lanyard-proxy/lanyard/guard"
	"github.com/lanyard-proxy/lanyard/internal/spans"
	"github.com/lanyard-proxy/lanyard/metrics"
	"github.com/lanyard-proxy/lanyard/tokenstore"
)

// defaultSpool is the part of a request body kept for a replay: larger than
// nearly every JSON body, small beside what one connection costs anyway.
const defaultSpool = 1 << 20

// Grants knows the connections and keeps their tokens fresh.
type Grants interface {
	// Find returns the connection with this ID. It returns an error that wraps
	// tokenstore.ErrNotFound, ErrCorrupt or ErrUnavailable.
	Find(ctx context.Context, id string) (*tokenstore.Grant, error)
	// FindUser returns the connection of a user at an integration: the newest
	// that can be used, else the newest. Its errors are Find's.
	FindUser(ctx context.Context, integration, userID string) (*tokenstore.Grant, error)
	// Token returns g with a token that the provider should take, waiting for
	// a refresh if it must. It returns an error that wraps
	// tokenstore.ErrReconnect, ErrNotActive or *UnavailableError.
	Token(ctx context.Context, g *tokenstore.Grant) (*tokenstore.Grant, error)
	// Renew returns a grant newer than the generation that the provider
	// refused, refreshing at most once for all that ask. It returns
	// tokenstore.ErrNotRenewed where the refusal may as well be passed on.
	Renew(ctx context.Context, id string, refused uint64) (*tokenstore.Grant, error)
	// Watch returns what is closed once the connection is no longer usable. stop
	// has to be called at the end.
	Watch(id string) (ended <-chan struct{}, stop func())
}

// Audit is the log of who did what.
type Audit interface {
	// Used writes that a token is used. It returns when that is on disk, or after
	// a moment. lost is called if it could not be written.
	Used(ctx context.Context, e tokenstore.Event, lost func())
	// Refused writes an event of what was refused, before it returns, unless
	// there are too many of its like.
	Refused(ctx context.Context, e tokenstore.Event)
}

// Config is what a Handler or a Transport is made of.
type Config struct {
	Grants Grants
	// Upstream returns the upstream of a connection, or as a code why there is
	// none: tokenstore.ReasonIntegrationMissing, ReasonInvalidParameter,
	// ReasonSchemeChanged or ReasonAPIUnknown. It is asked for every request and must not block.
	Upstream func(g *tokenstore.Grant) (up *Upstream, reason string)
	// Clients may call the proxy. Required unless Open.
	Clients []Client
	// APIKeys are known so that a caller that uses one here can be told.
	APIKeys []guard.Key
	// Brake slows down those that send wrong keys. Default: one of its own.
	Brake *guard.Brake
	// Audit gets the calls that were refused, and the first of each token
	// generation by each client. Optional.
	Audit Audit
	// Open asks for no key on a unix socket, nor where both ends of the TCP
	// connection are on loopback and nothing says that a proxy is between.
	Open bool
	// Path lets a request name its connection by the path /c/conn_…/rest.
	Path bool
	// Integration limits the proxy to the connections of one. Empty: any.
	Integration string
	// Prefix is stripped from the escaped path, which must begin with it at a
	// segment boundary: "/github". Empty: nothing.
	Prefix string
	// Local says which hosts and origins requests may come by.
	Local guard.Local
	// KeepLinks leaves Link, Location and Content-Location as the provider
	// wrote them. By default those that point at its API are turned back to
	// this proxy.
	KeepLinks bool
	// Scrub masks the token where an upstream echoes it in a header or in the
	// first MiB of a text.
	Scrub bool
	// Spool is how many bytes of a request body are kept, so that it can be
	// sent again after a 401. Default: 1 MiB.
	Spool int64
	// Transport reaches the upstreams. It must not decompress, use a proxy of
	// the environment unasked, or follow redirects. Required.
	Transport http.RoundTripper
	// ConnectURL returns a link by which the user can connect g again, or "". With
	// scopes it is for these, and for a connection that is ACTIVE, too. Optional.
	ConnectURL func(ctx context.Context, g *tokenstore.Grant, scopes []string) string
	// Metrics counts the calls. Default: nobody sees them.
	Metrics *metrics.Set
	// Logger. Default: none.
	Logger *zap.Logger
}

// Handler is the proxy. It is safe for concurrent use.
type Handler struct {
	cfg     Config
	logger  *zap.Logger
	tunnels tunnels
}

// New returns a Handler, or an error for a Config that can't work.
func New(cfg Config) (*Handler, error) {
	switch {
	case cfg.Grants == nil || cfg.Upstream == nil || cfg.Transport == nil:
		return nil, errors.New("proxy: Grants, Upstream and Transport are required")
	case len(cfg.Clients) == 0 && !cfg.Open:
		return nil, errors.New("proxy: no key is configured, and it is not open")
	case cfg.Spool < 0:
		return nil, errors.New("proxy: the spool can't be negative")
	case cfg.Prefix != "" && (!strings.HasPrefix(cfg.Prefix, "/") || strings.HasSuffix(cfg.Prefix, "/")):
		return nil, errors.New("proxy: the prefix must begin with a slash and not end with one")
	}
	for i := range cfg.Clients {
		if err := cfg.Clients[i].Check(); err != nil {
			return nil, fmt.Errorf("proxy: client %s: %w", cfg.Clients[i].Key.Name, err)
		}
	}
	if cfg.Brake == nil {
		cfg.Brake = guard.NewBrake()
	}
	if cfg.Spool == 0 {
		cfg.Spool = defaultSpool
	}
	if cfg.Logger == nil {
		cfg.Logger = zap.NewNop()
	}
	if cfg.Metrics == nil {
		cfg.Metrics = metrics.NewSet()
	}
	return &Handler{cfg: cfg, logger: cfg.Logger}, nil
}

// call is one request on its way.
type call struct {
	in       *http.Request    // as the app sent it
	who      tokenstore.Actor // less its address
	client   *Client          // whose key it is; nil where none is asked for
	id       string           // the connection that it names
	reason   string           // why it was refused, where that is more than the answer says
	grant    *tokenstore.Grant
	upstream *Upstream
	route    route     // what it asks for
	fixed    *url.URL  // where somebody else's reverse proxy sends it, which route says else
	target   *url.URL  // where it goes
	body     *source   // the app's body, nil if it has none
	trailers []string  // announced with it: the server writes to its map of them while the body is read
	spare    []string  // the headers that name the caller once more
	links    int       // bytes of links that were looked at, see maxLinks
	echo     *scrubber // nil where nothing is masked
	early    interim
	trace    httptrace.ClientTrace
	timing   timing
	span     spans.Span // of what is sent upstream
}

// ServeHTTP implements http.Handler.
//
// It panics with http.ErrAbortHandler where an answer breaks off half-way or
// nobody is left to answer, since only a connection cut says so.
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	start := time.Now()
	if upgrade(r.Header) != "" {
		defer h.tunnels.ask()()
	}
	ctx := r.Context()
	c := &call{in: r, timing: timing{since: start}}
	if problem := h.accept(ctx, c); problem != nil {
		h.noteRefusal(ctx, c, problem)
		if ctx.Err() != nil {
			h.failed(c, metrics.CallCanceled)
			panic(http.ErrAbortHandler)
		}
		h.failed(c, problem.Code)
		write(w, problem)
		return
	}
	status := h.forward(w, r, c)
	if entry := h.logger.Check(zap.DebugLevel, "request proxied"); entry != nil {
		entry.Write(zap.String("connection_id", c.grant.ConnectionID), zap.String("integration", c.grant.Integration),
			zap.Int("status", status), zap.Duration("duration", time.Since(start)), zap.Int("tokens_masked", c.echo.found()))
	}
}

// accept decides whether a request may pass, and has its token in hand before
// anything is sent.
func (h *Handler) accept(ctx context.Context, c *call) *guard.Problem {
	r := c.in
	if p := h.cfg.Local.Check(r); p != nil {
		return p
	}
	if p := checkMethod(r.Method); p != nil {
		return p
	}
	if p := h.read(&c.route, r); p != nil {
		return p
	}
	if p := h.open(ctx, c, c.route.id); p != nil {
		return p
	}
	return h.fetchToken(ctx, c)
}

// open finds the connection that the request names, by its path or otherwise,
// if the caller may use it.
func (h *Handler) open(ctx context.Context, c *call, pathID string) *guard.Problem {
	named, p := readCaller(c.in.Header, pathID)
	if p != nil {
		return p
	}
	c.id, c.spare = named.id, named.spare
	if p := h.authorize(c, named.key); p != nil {
		return p
	}
	switch {
	case c.id != "" && (named.userID == "" || h.cfg.Integration == ""): // where a user names nothing
		p = h.find(ctx, c)
	case c.id != "":
		p = h.findBoth(ctx, c, named.userID)
	case named.userID != "" && h.cfg.Integration != "" && c.client == nil:
		// Open: there the random ID of a connection is what nobody guesses.
		p = &guard.Problem{
			Status: http.StatusUnauthorized, Code: "key_required",
			Detail: "A user's connection is found with a client key only. Without one, name the connection: `Connection-Id: conn_…`.",
		}
	case named.userID != "":
		p = h.findUser(ctx, c, named.userID)
	default:
		p = problemConnectionRequired()
	}
	if p != nil {
		return p
	}
	// A header like X-Api-Key names a connection only where it is this
	// provider's own place for a credential.
	if named.slot != "" && named.slot != http.CanonicalHeaderKey(c.upstream.Header) {
		return problemConnectionRequired()
	}
	return nil
}

// find looks the connection up and refuses one that can't be used.
func (h *Handler) find(ctx context.Context, c *call) *guard.Problem {
	if !tokenstore.IsID(c.id) {
		return problemNotFound()
	}
	g, err := h.cfg.Grants.Find(ctx, c.id)
	if err != nil {
		return h.problemOf(ctx, err, &tokenstore.Grant{ConnectionID: c.id})
	}
	c.grant = g
	if c.reason = c.client.allows(g); c.reason == "" && h.cfg.Integration != "" && g.Integration != h.cfg.Integration {
		c.reason = "integration_not_allowed"
	}
	if c.reason != "" {
		// The store is asked as it is for a connection that is not there, so
		// that the time doesn't tell one from the other.
		_, _ = h.cfg.Grants.Find(ctx, tokenstore.NewID())
		return problemNotFound()
	}
	return h.use(ctx, c)
}

// use refuses a connection that was found and can't be used.
func (h *Handler) use(ctx context.Context, c *call) *guard.Problem {
	up, reason := h.cfg.Upstream(c.grant)
	switch reason {
	case "":
	case tokenstore.ReasonAPIUnknown:
		if p := h.unusable(ctx, c.grant); p != nil {
			return p
		}
		return h.problemAPIUnknown(ctx, c.grant)
	default:
		return problemNoUpstream(reason)
	}
	c.upstream = up
	return h.unusable(ctx, c.grant)
}

// findUser is find for a request that names a user of the only integration.
func (h *Handler) findUser(ctx context.Context, c *call, userID string) *guard.Problem {
	if h.cfg.Integration == "" {
		return problemUserNeedsIntegration()
	}
	asked := userID
	if c.reason = c.client.allows(&tokenstore.Grant{Integration: h.cfg.Integration, UserID: userID}); c.reason != "" {
		asked = tokenstore.NewID() // nobody's: it costs what a user costs who is not there
	}
	g, err := h.cfg.Grants.FindUser(ctx, h.cfg.Integration, asked)
	switch {
	case c.reason != "":
		return problemNotFound()
	case err != nil:
		return h.problemOf(ctx, err, &tokenstore.Grant{Integration: h.cfg.Integration, UserID: userID})
	}
	c.id, c.grant = g.ConnectionID, g
	return h.use(ctx, c)
}

// findBoth is find for a request that names a connection and a user: they have
// to name the same.
func (h *Handler) findBoth(ctx context.Context, c *call, userID string) *guard.Problem {
	if p := h.find(ctx, c); p != nil {
		return p
	}
	if c.grant.UserID == userID {
		g, err := h.cfg.Grants.FindUser(ctx, c.grant.Integration, userID)
		switch {
		case err != nil:
			return h.problemOf(ctx, err, c.grant)
		case g.ConnectionID == c.id:
			return nil
		}
	}
	return problemAmbiguous()
}

// fetchToken finds where the request goes, and replaces the grant of c by one
// whose token can be sent there, if the client may send this at all.
func (h *Handler) fetchToken(ctx context.Context, c *call) *guard.Problem {
	if p := h.aim(c); p != nil {
		return p
	}
	g, err := h.cfg.Grants.Token(ctx, c.grant)
	if err != nil {
		return h.problemOf(ctx, err, c.grant)
	}
	return h.follow(ctx, c, g)
}

// aim finds where the request goes, if the client may send this there.
func (h *Handler) aim(c *call) *guard.Problem {
	if p := c.place(); p != nil {
		return p
	}
	if c.reason = c.client.allowsCall(c.in, c.target, c.upstream); c.reason != "" {
		return problemNotAllowed()
	}
	return nil
}

// place finds the target of c at its upstream.
func (c *call) place() (p *guard.Problem) {
	if c.fixed == nil {
		c.target, p = c.route.target(c.upstream, c.in.Header["Lanyard-Host"])
		return p
	}
	if !mayReach(c.upstream, c.fixed.Scheme, c.fixed.Host) {
		return problemHost()
	}
	c.target = c.fixed
	return nil
}

// follow makes g the grant of c. With a new token the provider may have told
// another host, or another account's name: the token goes there alone.
func (h *Handler) follow(ctx context.Context, c *call, g *tokenstore.Grant) *guard.Problem {
	renewed, was := g.Token.Generation != c.grant.Token.Generation, c.upstream
	c.grant = g
	if !renewed {
		return nil
	}
	if p := h.use(ctx, c); p != nil || c.upstream == was {
		return p
	}
	return h.aim(c)
}
