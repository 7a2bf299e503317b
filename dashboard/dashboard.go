// Package dashboard is the operator's view of all connections: server-rendered
// pages that work without JavaScript and follow what happens with it. It never
// shows a token, and every change needs a person who was let in and a form that
// this package made (access.go).
package dashboard

import (
	"context"
	"errors"
	"net/http"
	"path"
	"strings"
	"sync"
	"time"

	"go.uber.org/zap"

	"github.com/lanyard-proxy/lanyard/guard"
	"github.com/lanyard-proxy/lanyard/revoke"
	"github.com/lanyard-proxy/lanyard/secret"
	"github.com/lanyard-proxy/lanyard/tokenstore"
	"github.com/lanyard-proxy/lanyard/ui"
)

// Store is what the dashboard reads, and where it switches connections off and
// on.
type Store interface {
	Connection(ctx context.Context, id string) (tokenstore.Connection, error)
	ListConnections(ctx context.Context, f tokenstore.Filter, cursor string, limit int) ([]tokenstore.Connection, string, error)
	UpdateConnection(ctx context.Context, id string, change func(*tokenstore.Connection) error) (tokenstore.Connection, error)
	ListEvents(ctx context.Context, f tokenstore.EventFilter, cursor string, limit int) ([]tokenstore.Event, string, error)
}

// Refresher renews tokens and knows when they were last used.
type Refresher interface {
	// Refresh renews the connection's token now, as by asks. Its errors wrap
	// tokenstore.ErrReconnect, ErrNotActive, ErrNotRenewed, an
	// *tokenstore.UnavailableError, or the store's own.
	Refresh(ctx context.Context, id string, by tokenstore.Actor) error
	// LastUsed returns when the connection last served a request, as far as
	// memory goes back, or the zero time.
	LastUsed(id string) time.Time
}

// Links makes signed connect links.
type Links interface {
	// Link returns the link that connects c, and when it ends. The browser
	// returns to redirectURL, which is registered, or empty where none is; state
	// may be empty; scopes are what it asks for, nil for what c asked for before.
	Link(c tokenstore.Connection, redirectURL, state string, scopes []string, formPost bool) (link string, expires time.Time)
}

// Revoker ends connections, here and at their provider.
type Revoker interface {
	// Revoke erases the credential and keeps the record.
	Revoke(ctx context.Context, id string, by tokenstore.Actor) (tokenstore.Connection, revoke.Outcome, error)
	// Delete does the same, and the record goes. The provider is asked to revoke
	// only if atProvider is true.
	Delete(ctx context.Context, id string, by tokenstore.Actor, atProvider bool) (tokenstore.Connection, revoke.Outcome, error)
}

// Audit writes the audit log, where an event belongs to no change of a record.
type Audit interface {
	// Record writes events of what was done: they are stored when it returns
	// nil. The error is the store's.
	Record(ctx context.Context, events ...tokenstore.Event) error
}

// Integration is what the dashboard has to know of a configured integration.
type Integration struct {
	Title  string // the provider's name for people
	Scheme string // one of tokenstore.AuthSchemes
	// ScopeText says in plain words what a scope allows, or nothing.
	ScopeText func(scope string) string
	// Hosts are those that may see the credential t of a connection with these
	// parameters, or as a code why they are not known:
	// tokenstore.ReasonInvalidParameter or ReasonAPIUnknown.
	Hosts func(params map[string]string, t *tokenstore.Token) (hosts []string, reason string)
}

// Config says what a Handler works with.
type Config struct {
	Store     Store     // required; writes have to reach the Refresher's cache
	Refresher Refresher // required
	Links     Links     // required
	Revoker   Revoker   // required
	Audit     Audit     // required
	// Integrations are the configured ones.
	Integrations map[string]Integration // :: name → integration
	// RedirectURLs are the app's registered ones.
	RedirectURLs []string
	// Key makes the tokens of forms. Required; the same in all processes that
	// serve one dashboard.
	Key secret.String
	// Brand is the app's whose connections these are.
	Brand ui.Brand
	// Live is how often a live page looks for what has happened. Default: 1 s.
	Live   time.Duration
	Logger *zap.Logger // default: none
}

// Handler serves the dashboard. Close has to be called at its end.
type Handler struct {
	cfg Config
	log *zap.Logger

	ctx     context.Context //nolint:containedctx // the life of the live streams
	stop    context.CancelFunc
	streams chan struct{}  // holds one for each live stream there may be
	live    sync.WaitGroup // live streams
	mu      sync.Mutex     // guards closed, and live's growing
	closed  bool
}

// New returns a Handler, or an error that names what cfg lacks.
func New(cfg Config) (*Handler, error) {
	if cfg.Store == nil || cfg.Refresher == nil || cfg.Links == nil || cfg.Revoker == nil || cfg.Audit == nil || cfg.Key.IsZero() {
		return nil, errors.New("dashboard: store, refresher, links, revoker, audit and key are all required")
	}
	if cfg.Logger == nil {
		cfg.Logger = zap.NewNop()
	}
	if cfg.Live <= 0 {
		cfg.Live = time.Second
	}
	h := &Handler{cfg: cfg, log: cfg.Logger, streams: make(chan struct{}, maxStreams)}
	h.ctx, h.stop = context.WithCancel(context.Background())
	return h, nil
}

// EndStreams ends the live pages' streams. Their browsers come back.
func (h *Handler) EndStreams() { h.stop() }

// Close ends the live pages' streams and waits for them.
func (h *Handler) Close() {
	h.mu.Lock()
	h.closed = true
	h.mu.Unlock()
	h.stop()
	h.live.Wait()
}

// Visitor is who asks.
type Visitor struct {
	// Name is whom the authentication before the dashboard has found out. Empty:
	// nobody was authenticated.
	Name string
	// Local lets somebody in without a name whose request never left this machine.
	Local bool
}

// visit is one request of somebody who was let in.
type visit struct {
	w    http.ResponseWriter
	r    *http.Request
	path string // below the dashboard's root, without a slash before it
	user string // empty: anybody on this machine
	lang *ui.Lang
	csrf string // the token of this visitor's forms
}

// by returns the visitor as the audit log names them.
func (v *visit) by() tokenstore.Actor {
	return tokenstore.Actor{Kind: tokenstore.ActorOperator, Name: v.user, From: guard.From(v.r)}
}

// root returns the relative way from the page to the dashboard's root.
func (v *visit) root() string {
	if n := strings.Count(v.path, "/"); n > 0 {
		return strings.Repeat("../", n)
	}
	return "./"
}

// Serve answers a request. below is the part of its escaped path that is below
// where the dashboard is mounted: empty, or with a slash before it.
func (h *Handler) Serve(w http.ResponseWriter, r *http.Request, below string, who Visitor) {
	setHeaders(w.Header())
	v := &visit{w: w, r: r, path: strings.TrimPrefix(below, "/"), user: who.Name, lang: words.For(r)}
	if name, ok := strings.CutPrefix(v.path, "assets/"); ok && v.reads() {
		h.asset(v, name)
		return
	}
	if below == "" {
		v.seeOther("./" + path.Base(r.URL.EscapedPath()) + "/")
		return
	}
	if who.Name == "" && (!who.Local || !local(r)) {
		h.refuse(v, closedDoor)
		return
	}
	if p := h.admit(v); p != nil {
		h.refuse(v, *p)
		return
	}
	h.route(v)
}

func (v *visit) reads() bool { return v.r.Method == http.MethodGet || v.r.Method == http.MethodHead }

// route answers by the path, which is compared as it came.
func (h *Handler) route(v *visit) {
	pages := map[string]func(*visit){"": h.list, "events": h.events, "live": h.stream}
	if page, ok := pages[v.path]; ok {
		if !v.reads() {
			h.refuse(v, wrongMethod("GET, HEAD"))
			return
		}
		page(v)
		return
	}
	rest, ok := strings.CutPrefix(v.path, "connections/")
	id, action, _ := strings.Cut(rest, "/")
	if !ok || !tokenstore.IsID(id) {
		h.refuse(v, notFound)
		return
	}
	op, ok := operations[action]
	switch {
	case !ok:
		h.refuse(v, notFound)
	case v.reads() && op.show != nil:
		op.show(h, v, id)
	case v.r.Method == http.MethodPost && op.do != nil:
		op.do(h, v, id)
	default:
		h.refuse(v, wrongMethod(op.methods()))
	}
}

// operation is what can be seen of a connection, or done with it.
type operation struct {
	show func(h *Handler, v *visit, id string) // GET
	do   func(h *Handler, v *visit, id string) // POST
}

func (o operation) methods() string {
	switch {
	case o.do == nil:
		return "GET, HEAD"
	case o.show == nil:
		return "POST"
	}
	return "GET, HEAD, POST"
}

// operations are those of one connection, by what stands behind its ID.
var operations = map[string]operation{
	"":           {show: (*Handler).detail},
	"refresh":    {do: (*Handler).refresh},
	"disable":    {do: func(h *Handler, v *visit, id string) { h.toggle(v, id, true) }},
	"enable":     {do: func(h *Handler, v *visit, id string) { h.toggle(v, id, false) }},
	"link":       {do: (*Handler).link},
	"disconnect": {show: (*Handler).askDisconnect, do: (*Handler).disconnect},
	"delete":     {show: (*Handler).askDelete, do: (*Handler).remove},
}

// storeTime bounds what one page asks of the store.
const storeTime = 10 * time.Second

// detached returns a context for a change that is not to end half done when the
// browser goes away.
func detached(r *http.Request) (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.WithoutCancel(r.Context()), 2*storeTime)
}
