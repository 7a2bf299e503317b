// Package connect is the browser's side of Lanyard: the flow in which a user
// connects an account, from the signed link to the provider and back to the
// app (RFC 6749 section 4.1, RFC 7636, RFC 9207), and the pages around it.
package connect

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"go.uber.org/zap"

	"github.com/lanyard-proxy/lanyard/guard"
	"github.com/lanyard-proxy/lanyard/internal/failpoint"
	"github.com/lanyard-proxy/lanyard/secret"
	"github.com/lanyard-proxy/lanyard/tokenstore"
)

// wallNow returns the time that links, flows and completions end by.
func wallNow() time.Time { return time.Now().Add(failpoint.Clock()).UTC() }

// Provider is what the flow needs of one authorization server and our client
// there. Its errors hold no secret.
type Provider interface {
	// AuthorizeURL returns the address to which the browser is sent (RFC 6749
	// section 4.1.1).
	AuthorizeURL(ctx context.Context, state, codeVerifier secret.String, scopes []string) (string, error)
	// Exchange redeems a code with exactly one request and returns the answer
	// unread. The error wraps tokenstore.ErrNotSent or ErrOutcomeUnknown.
	Exchange(ctx context.Context, code, codeVerifier secret.String) (tokenstore.Answer, error)
	// Parse reads such an answer. The error is a *tokenstore.RefusalError or
	// wraps tokenstore.ErrOutcomeUnknown.
	Parse(a tokenstore.Answer, prev tokenstore.Token, askedScopes []string) (tokenstore.Token, error)
	// Issuer returns the issuer identifier, empty if not known, and whether the
	// server promises to send it with every answer (RFC 9207 section 3).
	Issuer(ctx context.Context) (issuer string, required bool, err error)
	// Revoke revokes t (RFC 7009).
	Revoke(ctx context.Context, t tokenstore.Token) error
	// RevokesSingle reports whether Revoke ends t alone and never the user's
	// whole grant.
	RevokesSingle() bool
	// Denied reports whether the authorization error code, as the provider
	// spells it, says that the user declined.
	Denied(code string) bool
	// ScopeText returns what a scope allows in plain words, empty if unknown.
	ScopeText(scope string) string
}

// Integration is one registered client at one provider.
type Integration struct {
	// Name is the integration's name, as in {public_url}/callback/{name}.
	Name string
	// Title is the provider's name as people know it. Default: Name.
	Title string
	// ProviderName is the catalogue's name of the provider.
	ProviderName string
	// Provider speaks to the authorization server.
	Provider Provider
	// For returns the Provider for connections with these parameters, or an
	// error that names what is missing or wrong and holds no value. Nil: there
	// are no parameters, and Provider is for all.
	For func(params map[string]string) (Provider, error)
	// Scopes are asked for when a link names none.
	Scopes []string
	// DeclaredScopes are the scopes that may be asked for. Empty: any may.
	DeclaredScopes []string
	// Review shows the review page before the browser leaves.
	Review bool
}

// Config is what New needs. PublicURL, Signer and Store are required.
type Config struct {
	// PublicURL is where browsers reach the handler: https, or http on a
	// loopback name.
	PublicURL *url.URL
	// Signer checks the links; it must be for the same PublicURL.
	Signer *Signer
	// Store keeps flows and connections.
	Store tokenstore.Store
	// Integrations by name.
	Integrations map[string]Integration
	// RedirectURLs are the app's addresses to which a browser may return, each
	// as ValidRedirectURL takes it, compared exactly. None: the flow ends on a
	// page of Lanyard's.
	RedirectURLs []string
	// Completion keeps a new credential waiting until the app completes it.
	Completion bool
	// AppName is the app's name as its users know it. Default: the host of the
	// first redirect URL, else PublicURL's.
	AppName string
	// ClientIP returns the address of the client that sent a request, as far as
	// the server in front of the handler can tell. What it returns that is no
	// address, or nil, stands for the other end of the connection.
	ClientIP func(*http.Request) string
	// Audit is told what was refused. Default: nobody.
	Audit Audit
	// Logger gets what happened. Default: none.
	Logger *zap.Logger
}

// Handler serves the connect flow. Safe for concurrent use.
type Handler struct {
	cfg    Config
	base   string // escaped path of PublicURL, without a slash at its end
	secure bool   // PublicURL is https
	origin string // what pages call the app that they send the user back to
	log    *zap.Logger
	limits limits

	mu      sync.Mutex // guards closing and active, and that running grows only before Close waits
	closing bool
	active  map[string]bool // :: ID of a flow whose code is being exchanged → true
	running sync.WaitGroup  // as many as active
}

// New returns a Handler, or an error that says what is wrong with cfg.
func New(cfg Config) (*Handler, error) {
	if cfg.PublicURL == nil || cfg.Signer == nil || cfg.Store == nil {
		return nil, errors.New("connect: PublicURL, Signer and Store are required")
	}
	if err := ValidPublicURL(cfg.PublicURL); err != nil {
		return nil, fmt.Errorf("connect: public_url: %w", err)
	}
	for _, u := range cfg.RedirectURLs {
		if err := ValidRedirectURL(u); err != nil {
			return nil, fmt.Errorf("connect: redirect_url %q: %w", u, err)
		}
	}
	origin := cfg.AppName
	if cfg.AppName == "" {
		cfg.AppName = hostOf(append(slices.Clone(cfg.RedirectURLs), cfg.PublicURL.String())[0])
		origin = cfg.AppName
		if len(cfg.RedirectURLs) == 0 { // that name is our own host's, where there is nothing to go back to
			origin = "the app you came from"
		}
	}
	if cfg.Logger == nil {
		cfg.Logger = zap.NewNop()
	}
	return &Handler{
		cfg:    cfg,
		origin: origin,
		base:   strings.TrimRight(cfg.PublicURL.EscapedPath(), "/"),
		secure: cfg.PublicURL.Scheme == "https",
		log:    cfg.Logger,
		limits: newLimits(),
		active: make(map[string]bool),
	}, nil
}

// asItCame returns the escaped path and the raw query of the request line:
// neither a handler that strips prefixes nor one that rewrites has touched
// them, and the signature is over these bytes.
func asItCame(r *http.Request) (path, rawQuery string) {
	uri := r.RequestURI
	if !strings.HasPrefix(uri, "/") { // absolute form, or a request made in a test
		return r.URL.EscapedPath(), r.URL.RawQuery
	}
	path, rawQuery, _ = strings.Cut(uri, "?")
	return path, rawQuery
}

// Handles reports whether the request's path, as it came, is the handler's:
// {path of public_url}/connect, /connect/… or /callback/….
func (h *Handler) Handles(r *http.Request) bool {
	path, _ := asItCame(r)
	rest, ok := strings.CutPrefix(path, h.base)
	return ok && (rest == "/connect" || strings.HasPrefix(rest, "/connect/") || strings.HasPrefix(rest, "/callback/"))
}

// ServeHTTP serves the requests that Handles reports, and answers others with
// a page that says 404.
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	setHeaders(w.Header())
	path, rawQuery := asItCame(r)
	path, ours := strings.CutPrefix(path, h.base)
	name, isCallback := strings.CutPrefix(path, "/callback/")
	switch {
	case !ours:
		h.refuse(w, failure{code: codeNotFound})
	case !sameHost(r.Host, h.cfg.PublicURL):
		h.refuse(w, failure{code: codeHostInvalid})
	case path == "/connect/"+styleName:
		serveAsset(w, r, "text/css; charset=utf-8", style)
	case path == "/connect/favicon.svg":
		serveAsset(w, r, "image/svg+xml", favicon)
	case path != "/connect" && !isCallback:
		h.refuse(w, failure{code: codeNotFound})
	case prefetched(r) || r.Method == http.MethodHead && !isCallback:
		// Looked at ahead of the user, or by a link preview: nothing happens.
		w.WriteHeader(http.StatusNoContent)
	case r.Method != http.MethodGet:
		w.Header().Set("Allow", "GET")
		h.refuse(w, failure{code: codeMethod})
	default:
		switch wait := h.limits.requests.Take(guard.Network(h.from(r))); {
		case wait > 0:
			h.tooMany(w, r, &tokenstore.Flow{}, wait)
		case isCallback:
			h.callback(w, r, name, rawQuery)
		default:
			h.start(w, r, rawQuery)
		}
	}
}

func prefetched(r *http.Request) bool {
	return strings.Contains(r.Header.Get("Sec-Purpose"), "prefetch")
}

// sameHost compares host with u's, a default port being as good as none.
func sameHost(host string, u *url.URL) bool {
	port := map[string]string{"https": ":443", "http": ":80"}[u.Scheme]
	return strings.EqualFold(strings.TrimSuffix(host, port), strings.TrimSuffix(u.Host, port))
}

// enter counts the exchange of a flow's code as under way, before the flow is
// taken, until leave. It reports whether that may begin, and if not, whether
// because the Handler is closing.
func (h *Handler) enter(flowID string) (began, closing bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.closing || h.active[flowID] {
		return false, h.closing
	}
	h.active[flowID] = true
	h.running.Add(1)
	return true, false
}

func (h *Handler) leave(flowID string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.active, flowID)
	h.running.Done()
}

func (h *Handler) underWay(flowID string) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.active[flowID]
}

// Close waits for the code exchanges under way, or for ctx. Callbacks that come
// after it change nothing and may be repeated at the Handler that follows.
func (h *Handler) Close(ctx context.Context) error {
	h.mu.Lock()
	h.closing = true
	h.mu.Unlock()
	done := make(chan struct{})
	go func() { // ends with the last exchange, which has a deadline of its own
		h.running.Wait()
		close(done)
	}()
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("waiting for code exchanges: %w", context.Cause(ctx))
	}
}

// Limits of one request to a provider.
const (
	exchangeLimit = 20 * time.Second
	revokeLimit   = 20 * time.Second
	// discoverLimit bounds what may have to be fetched before the browser can
	// be sent on: the user is waiting.
	discoverLimit = 10 * time.Second
)
