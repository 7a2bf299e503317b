// Package api is Lanyard's management API: JSON under /v1 by which an app
// begins, completes, lists, refreshes, revokes and deletes connections. It
// never shows a token.
//
// Everything that comes in is read strictly (input.go): what is not understood
// is refused before anything is changed. Errors are RFC 9457 problems with a
// stable code (problem.go).
package api

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/zap"

	"github.com/lanyard-proxy/lanyard/guard"
	"github.com/lanyard-proxy/lanyard/revoke"
	"github.com/lanyard-proxy/lanyard/tokenstore"
)

// Refresher renews tokens and knows when they were last used.
type Refresher interface {
	// Refresh renews the connection's token now, whatever its age, as by asks.
	// Its errors wrap tokenstore.ErrReconnect, ErrNotActive, ErrNotRenewed, an
	// *tokenstore.UnavailableError, or the store's own.
	Refresh(ctx context.Context, id string, by tokenstore.Actor) error
	// LastUsed returns when the connection last served a request, as far as
	// memory goes back, or the zero time.
	LastUsed(id string) time.Time
}

// Links makes signed connect links.
type Links interface {
	// Link returns the link that connects c, and when it ends. The browser
	// returns to redirectURL, which is registered, or empty where none is;
	// state is the app's and may be empty; scopes are what it asks for, nil for
	// what c has asked for before; formPost keeps the answer out of URLs.
	Link(c tokenstore.Connection, redirectURL, state string, scopes []string, formPost bool) (link string, expires time.Time)
}

// Revoker ends credentials, here and at their provider. Package revoke has the
// rules.
type Revoker interface {
	// Revoke erases a connection's credential and keeps its record. The error is
	// the store's.
	Revoke(ctx context.Context, id string, by tokenstore.Actor) (tokenstore.Connection, revoke.Outcome, error)
	// Delete removes a connection, and leaves the provider alone if it is told
	// so. The error is the store's.
	Delete(ctx context.Context, id string, by tokenstore.Actor, atProvider bool) (tokenstore.Connection, revoke.Outcome, error)
	// Discard ends a credential that nobody completed, and no record holds.
	Discard(
		ctx context.Context, integration, userID string, params map[string]string, account tokenstore.Account, t tokenstore.Token,
	)
}

// Integration is what the API has to know of a configured integration.
type Integration struct {
	Name     string
	Provider string   // the catalogue's name of its provider
	Title    string   // the provider's name for people
	Scopes   []string // asked for where a request names none
	// DeclaredScopes are the scopes that may be asked for; empty means any.
	DeclaredScopes []string
	CallbackURL    string // the redirect URI to register at the provider
	// CredentialHeader is the request header that carries the provider's
	// credential. Empty means Authorization.
	CredentialHeader string
	// Scheme is the auth scheme of its connections, one of
	// tokenstore.AuthSchemes. Empty means OAUTH2.
	Scheme string
	// RenewsItself: an access token is what renews it. There are no refresh tokens.
	RenewsItself bool
	// Fields are what a credential consists of where one is given; none for
	// OAUTH2 and OAUTH2_CLIENT_CREDENTIALS.
	Fields []tokenstore.Field
	// ParamFields are the connection parameters of its URLs.
	ParamFields []tokenstore.Field
	// Credentials makes the credentials of connections with these parameters, or
	// returns an error as CheckParams does. Nil: none can be given.
	Credentials func(params map[string]string) (Credentials, error)
	// CheckParams returns why connections can't have these parameters, naming
	// what is missing or wrong and no value, or nil. Nil: there are no
	// parameters.
	CheckParams func(params map[string]string) error
	// CheckToken returns why the API of a connection with these parameters and
	// this token is not known, or nil. Nil: it always is.
	CheckToken func(params map[string]string, t *tokenstore.Token) error
}

// Config says what a Handler works with.
type Config struct {
	Store     tokenstore.Store // required; writes have to reach the Refresher's cache
	Refresher Refresher        // required
	Revoker   Revoker          // required
	Links     Links            // required
	Keeper    Keeper           // required
	Freezer   Freezer          // default: the store can't be frozen
	Audit     Audit            // required
	Brake     *guard.Brake     // required; slows down those who try keys
	Devices   Devices          // default: no provider has a device flow
	Providers []Provider       // all that an integration may be of
	// Integrations are the configured ones.
	Integrations map[string]Integration // :: name → integration
	// RedirectURLs are the app's registered ones, compared byte for byte. The
	// first is the default.
	RedirectURLs []string
	Keys         []guard.Key // the API keys, at least one
	Local        guard.Local
	// Ready returns why Lanyard can't serve now, or nil. Required.
	Ready  func(ctx context.Context) error
	Logger *zap.Logger // default: none
}

// Handler serves the API. Close has to be called at its end.
type Handler struct {
	cfg   Config
	slots []string // the headers in which a credential may name a connection
	log   *zap.Logger

	streamCtx  context.Context //nolint:containedctx // the life of the streams of events
	endStreams context.CancelFunc
	streams    atomic.Int32 // open ones

	onceMu   sync.Mutex
	underWay map[string]bool // guarded by onceMu :: ID of the note of an idempotent request that is being served → true
}

// New returns a Handler, or an error that names what cfg lacks.
func New(cfg Config) (*Handler, error) {
	switch {
	case cfg.Store == nil, cfg.Refresher == nil, cfg.Revoker == nil, cfg.Links == nil, cfg.Keeper == nil, cfg.Audit == nil, cfg.Brake == nil, cfg.Ready == nil:
		return nil, errors.New("api: store, refresher, revoker, links, keeper, audit, brake and ready are all required")
	case len(cfg.Keys) == 0:
		return nil, errors.New("api: an API key is required")
	}
	for _, k := range cfg.Keys {
		if k.Value.IsZero() {
			return nil, fmt.Errorf("api: API key %q is empty", k.Name)
		}
	}
	h := &Handler{cfg: cfg, slots: []string{"Authorization"}, log: cfg.Logger, underWay: map[string]bool{}}
	for name, in := range cfg.Integrations {
		if name != in.Name {
			return nil, fmt.Errorf("api: integration %q is configured as %q", in.Name, name)
		}
		if in.CredentialHeader != "" {
			h.slots = append(h.slots, in.CredentialHeader)
		}
	}
	if h.cfg.Freezer == nil {
		h.cfg.Freezer = noFreezer{}
	}
	if h.log == nil {
		h.log = zap.NewNop()
	}
	h.streamCtx, h.endStreams = context.WithCancel(context.Background())
	return h, nil
}

// Close ends the streams of events.
func (h *Handler) Close() { h.endStreams() }

// Handles reports whether r is the API's: a path under /v1/ in a request that
// names no connection for the proxy, since providers have /v1/ of their own.
func (h *Handler) Handles(r *http.Request) bool {
	if !strings.HasPrefix(r.URL.EscapedPath(), "/v1/") {
		return false
	}
	if len(r.Header.Values("Connection-Id")) > 0 || len(r.Header.Values("User-Id")) > 0 {
		return false
	}
	for _, slot := range h.slots {
		if slices.ContainsFunc(r.Header.Values(slot), namesConnection) {
			return false
		}
	}
	return true
}

// namesConnection reports whether a credential is one for the proxy: KEY.conn_…
// or, where the proxy is open, conn_… alone; bare, after a scheme, or as the
// password of Basic (RFC 7617).
func namesConnection(credential string) bool {
	if strings.Contains(credential, ".conn_") || strings.HasPrefix(credential, "conn_") {
		return true
	}
	scheme, rest, _ := strings.Cut(credential, " ")
	rest = strings.TrimSpace(rest)
	if !strings.EqualFold(scheme, "Basic") {
		return strings.HasPrefix(rest, "conn_")
	}
	pair, err := base64.StdEncoding.DecodeString(rest)
	_, password, _ := strings.Cut(string(pair), ":")
	return err == nil && (strings.Contains(password, ".conn_") || strings.HasPrefix(password, "conn_"))
}

// ServeHTTP answers a request of the API. Handles has to be asked before.
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	path := r.URL.EscapedPath()
	if path == livePath || path == readyPath {
		h.health(w, r, path)
		return
	}
	if path == documentPath {
		h.describe(w, r)
		return
	}
	rt, in, p := h.open(w, r, path)
	switch {
	case p != nil:
		p.Write(w)
	case in.once.key != "" && rt.path != freezePath: // a frozen store keeps no answers
		h.serveOnce(w, r, rt, in) //nolint:contextcheck // what has begun is ended, whether the client waits or not
	default:
		h.serve(w, r, rt, in)
	}
}

// open checks who calls, and reads what.
func (h *Handler) open(w http.ResponseWriter, r *http.Request, path string) (*route, *input, *guard.Problem) {
	if p := h.cfg.Local.Check(r); p != nil {
		return nil, nil, p
	}
	by, p := h.caller(r)
	if p != nil {
		return nil, nil, p
	}
	rt, id, p := find(w.Header(), r.Method, path)
	if p != nil {
		return nil, nil, p
	}
	in, p := read(w, r, rt, id)
	if p != nil {
		return nil, nil, p
	}
	in.by, in.key = by, guard.Bearer(r)
	return rt, in, nil
}

// serve does what is asked, and answers.
func (h *Handler) serve(w http.ResponseWriter, r *http.Request, rt *route, in *input) {
	body, p := rt.run(h, r, in)
	if p != nil {
		p.Write(w)
		return
	}
	if write, ok := body.(stream); ok {
		write(w)
		return
	}
	h.write(w, rt.status, body)
}

// caller returns who calls. A wrong key is written down, and turned away by the
// brake where there are many.
func (h *Handler) caller(r *http.Request) (tokenstore.Actor, *guard.Problem) {
	by := tokenstore.Actor{From: guard.From(r)}
	if key, ok := guard.Match(h.cfg.Keys, guard.Bearer(r)); ok {
		by.Kind, by.Name = tokenstore.ActorAPIKey, key.Name
		return by, nil
	}
	h.cfg.Audit.Refused(r.Context(), tokenstore.Event{Type: tokenstore.EventKeyRefused, Actor: by, Reason: "api"})
	if !guard.Bearer(r).IsZero() { // a missing one is no guess
		if p := h.cfg.Brake.Wrong(by.From); p != nil {
			return by, p
		}
	}
	return by, &guard.Problem{
		Status: http.StatusUnauthorized, Code: "key_required",
		Detail: "The API needs an API key: `Authorization: Bearer KEY`. A client key opens the proxy only.",
	}
}
