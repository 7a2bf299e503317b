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
	"github.com/lanyard-proxy/lanyard/metrics"
	"github.com/lanyard-proxy/lanyard/tokenstore"
	"github.com/lanyard-proxy/lanyard/ui"
)

// wallNow returns the time that links, flows and completions end by.
func wallNow() time.Time { return time.Now().Add(failpoint.Clock()).UTC() }

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
	// Discard ends at its provider, with care, a credential that nobody completed
	// or that was refused, and no record holds. Default: it is forgotten.
	Discard func(
		ctx context.Context, integration, userID string, params map[string]string, account tokenstore.Account, t tokenstore.Token,
	)
	// Brand is what the pages show of the app. The default of its name: the host
	// of the first redirect URL, else PublicURL's.
	Brand ui.Brand
	// Disconnect ends a connection's credential, here and at the provider, on
	// the word of its user. Nil: the pages offer no such thing.
	Disconnect func(ctx context.Context, id string, by tokenstore.Actor) error
	// ClientIP returns the address of the client that sent a request, as far as
	// the server in front of the handler can tell. What it returns that is no
	// address, or nil, stands for the other end of the connection.
	ClientIP func(*http.Request) string
	// Audit is told what was refused. Default: nobody.
	Audit Audit
	// Metrics counts the flows that end. Default: nobody sees them.
	Metrics *metrics.Set
	// Logger gets what happened. Default: none.
	Logger *zap.Logger
}

// Handler serves the connect flow. Safe for concurrent use.
type Handler struct {
	cfg    Config
	base   string                  // escaped path of PublicURL, without a slash at its end
	secure bool                    // PublicURL is https
	named  bool                    // the brand's name is the app's, not our own host's
	assets map[string]http.Handler // what pages refer to, by the name behind {base}/connect/
	log    *zap.Logger
	limits limits

	mu      sync.Mutex // guards closing, active, recent and devices, and that running grows only before Close waits
	closing bool
	active  map[string]*work // :: ID of a flow that is being worked on → the work
	recent  map[string]*work // :: ID of a flow that was worked on just now → what came of it
	running sync.WaitGroup   // as many as active
	devices int              // how many of active are devices that are waited for
	stop    chan struct{}    // closed when closing begins
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
	named := cfg.Brand.Name != "" || len(cfg.RedirectURLs) > 0
	if cfg.Brand.Name == "" {
		cfg.Brand.Name = hostOf(append(slices.Clone(cfg.RedirectURLs), cfg.PublicURL.String())[0])
	}
	if cfg.Logger == nil {
		cfg.Logger = zap.NewNop()
	}
	if cfg.Metrics == nil {
		cfg.Metrics = metrics.NewSet()
	}
	return &Handler{
		cfg:    cfg,
		named:  named,
		assets: assetsOf(cfg.Brand),
		base:   strings.TrimRight(cfg.PublicURL.EscapedPath(), "/"),
		secure: cfg.PublicURL.Scheme == "https",
		log:    cfg.Logger,
		limits: newLimits(),
		active: make(map[string]*work),
		recent: make(map[string]*work),
		stop:   make(chan struct{}),
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
	ui.SetHeaders(w.Header(), ui.Policy{})
	path, rawQuery := asItCame(r)
	path, ours := strings.CutPrefix(path, h.base)
	name, isCallback := strings.CutPrefix(path, "/callback/")
	switch {
	case !ours:
		h.refuse(w, r, failure{code: codeNotFound})
	case !sameHost(r.Host, h.cfg.PublicURL):
		h.refuse(w, r, failure{code: codeHostInvalid})
	case h.asset(w, r, path):
	case path == minePath || strings.HasPrefix(path, minePath+"/"):
		h.serveMine(w, r, path, rawQuery)
	case r.Method == http.MethodPost && (isCallback || path == keyPath || path == paramsPath):
		h.posted(w, r, path, name)
	case path != "/connect" && !isCallback:
		h.refuse(w, r, failure{code: codeNotFound})
	case prefetched(r) || r.Method == http.MethodHead && !isCallback:
		// Looked at ahead of the user, or by a link preview: nothing happens.
		w.WriteHeader(http.StatusNoContent)
	case r.Method != http.MethodGet:
		w.Header().Set("Allow", "GET")
		h.refuse(w, r, failure{code: codeMethod})
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

// Close waits for the requests to providers under way, or for ctx. Callbacks
// that come after it change nothing and may be repeated at the Handler that
// follows; devices that are waited for are taken up by its Resume.
func (h *Handler) Close(ctx context.Context) error {
	h.mu.Lock()
	if !h.closing {
		h.closing = true
		close(h.stop)
	}
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
	// accountLimit bounds asking whose account it is.
	accountLimit = 10 * time.Second
	// accountTries is how often that is asked where nothing goes on without, and
	// accountPause the first wait between two, which doubles.
	accountTries = 4
	accountPause = 500 * time.Millisecond
	// discoverLimit bounds what may have to be fetched before the browser can
	// be sent on: the user is waiting.
	discoverLimit = 10 * time.Second
)
