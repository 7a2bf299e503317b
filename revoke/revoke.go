// Package revoke ends credentials: here at once, and at their provider with care
// and patience (RFC 7009).
//
// With care: at many providers revoking one token ends the whole grant, and with
// it other connections of the same account. What might do that is only erased
// here (grant.go). With patience: what the provider did not confirm is tried
// again for a day, across restarts, by a note that is written before anything
// is erased (later.go).
package revoke

import (
	"context"
	"errors"
	"sync"
	"time"

	"go.uber.org/zap"

	"github.com/lanyard-proxy/lanyard/tokenstore"
)

// Why a provider was not asked, or has not confirmed (Outcome.Reason).
const (
	ReasonUnasked     = "not_requested"                     // only erased here, as was asked
	ReasonNothing     = "nothing_to_revoke"                 // no credential was held
	ReasonNoEndpoint  = "no_endpoint"                       // the provider can't revoke, or not what was held: a key, a password
	ReasonShared      = "shared_grant"                      // it might end another connection's grant
	ReasonMissing     = tokenstore.ReasonIntegrationMissing // not configured, so that nobody can ask
	ReasonParams      = tokenstore.ReasonInvalidParameter   // the connection's parameters are not the integration's now
	ReasonUnavailable = "provider_unavailable"              // it failed, and there is no room to try again
	ReasonDamaged     = "store_corrupt"                     // the record can't be opened
)

// ErrIntegrationMissing is what Config.Provider returns for an integration that
// is not configured.
var ErrIntegrationMissing = errors.New("integration is not configured")

// Provider ends grants at the authorization server of one integration.
type Provider interface {
	// Scheme is the integration's auth scheme, one of tokenstore.AuthSchemes.
	Scheme() string
	// Revoke asks the provider once to revoke t. The error wraps
	// errors.ErrUnsupported if the provider has no way to do it; it holds no
	// secret.
	Revoke(ctx context.Context, t tokenstore.Token) error
	// RevokesSingle reports whether revoking one token leaves the other grants
	// of the same account alone.
	RevokesSingle() bool
}

// Config says what a Revoker works with. Store and Provider are required.
type Config struct {
	// Store has to reach the cache of tokens with its writes.
	Store tokenstore.Store
	// Provider returns the provider of an integration, for connections with these
	// parameters, as configured now. It returns ErrIntegrationMissing, or an
	// error for parameters that are not the integration's. It must not block.
	Provider func(integration string, params map[string]string) (Provider, error)
	// Late returns how to wait for the renewal of a connection that is under
	// way, or nil. It returns the token that came too late, since the connection
	// was revoked or deleted meanwhile. Optional.
	Late func(id string) func(ctx context.Context) (tokenstore.Token, bool)
	// Logger. Default: none.
	Logger *zap.Logger
}

// Outcome is what has come of a credential at its provider.
type Outcome struct {
	Done    bool   // the provider has confirmed that it is revoked
	Pending bool   // it has not yet; it is tried on, or waits for a renewal under way
	Reason  string // why neither
}

// Revoker ends credentials. Its methods are safe for concurrent use. Close has
// to be called at its end.
type Revoker struct {
	cfg    Config
	log    *zap.Logger
	ctx    context.Context //nolint:containedctx // the life of the tries behind those who asked
	stop   context.CancelFunc
	work   sync.WaitGroup // the loop and its tries
	wakeUp chan struct{}

	lateCtx  context.Context //nolint:containedctx // the same, of those that wait for a renewal to end
	stopLate context.CancelFunc
	lates    sync.WaitGroup

	runMu sync.Mutex       // over a question to the store
	run   string           // guarded by runMu; begins the IDs of the notes of this run
	hold  *tokenstore.Hold // guarded by runMu; says on a shared store that this run lives

	mu     sync.Mutex
	closed bool              // guarded by mu
	queue  map[*pending]bool // guarded by mu :: what is tried again → true
	busy   map[string]bool   // guarded by mu :: integration that is being asked → true
}

// New returns a Revoker, or an error that names what cfg lacks.
func New(cfg Config) (*Revoker, error) {
	if cfg.Store == nil || cfg.Provider == nil {
		return nil, errors.New("revoke: store and provider are required")
	}
	if cfg.Late == nil {
		cfg.Late = func(string) func(context.Context) (tokenstore.Token, bool) { return nil }
	}
	if cfg.Logger == nil {
		cfg.Logger = zap.NewNop()
	}
	r := &Revoker{
		cfg: cfg, log: cfg.Logger, run: random(), wakeUp: make(chan struct{}, 1),
		queue: map[*pending]bool{}, busy: map[string]bool{},
	}
	r.ctx, r.stop = context.WithCancel(context.Background())
	r.lateCtx, r.stopLate = context.WithCancel(context.Background())
	r.work.Go(r.loop)
	return r, nil
}

// lateTime is how long Close waits for the renewals of connections that were
// revoked or deleted in the middle of them: a token request's own limit, and
// time to revoke what it brings.
const lateTime = 25 * time.Second

// Close ends what is being tried, and waits for it. What the store has a note of
// is taken up by the next Revoker.
func (r *Revoker) Close() {
	r.mu.Lock()
	r.closed = true
	r.mu.Unlock()
	r.stop()
	timer := time.AfterFunc(lateTime, r.stopLate)
	r.lates.Wait()
	timer.Stop()
	r.stopLate()
	r.work.Wait()
	r.endRun()
	r.mu.Lock()
	defer r.mu.Unlock()
	for p := range r.queue {
		if !p.noted {
			r.gaveUp(p, errClosed)
		}
	}
}

var errClosed = errors.New("the program ends")

// writeTimeout bounds a change that must not be given up because whoever asked
// for it has hung up.
const writeTimeout = 30 * time.Second

// detached returns a context that outlives the caller: what was begun is brought
// to its end.
func detached(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.WithoutCancel(ctx), writeTimeout)
}

// Revoke erases every credential of a connection, as by asks, keeps the record
// as REVOKED, and ends at the provider what it held. The error is the store's;
// then nothing was changed, as far as it knows.
func (r *Revoker) Revoke(ctx context.Context, id string, by tokenstore.Actor) (tokenstore.Connection, Outcome, error) {
	ctx, cancel := detached(ctx)
	defer cancel()
	var (
		held    tokenstore.Connection
		changed bool
	)
	late := r.cfg.Late(id)
	p := r.prepare(ctx, id)
	c, err := r.cfg.Store.UpdateConnection(ctx, id, func(c *tokenstore.Connection) error {
		held = heldBy(c)
		if changed = c.Status != tokenstore.StatusRevoked || holds(c.Token) || c.Staged != nil; !changed {
			return tokenstore.ErrUnchanged
		}
		c.Revoke()
		c.Happened(tokenstore.Event{Type: tokenstore.EventRevoked, Actor: by})
		return nil
	})
	if err != nil {
		r.unchanged(ctx, p)
		return c, Outcome{}, err
	}
	if changed {
		r.log.Info("connection revoked", connectionFields(&c)...)
	}
	r.keep(ctx, p, held)
	return c, r.end(ctx, p, late), nil
}

// Delete removes a connection, as by asks, and returns what it was, as REVOKED.
// With atProvider it ends at the provider what it held. One whose record can't
// be opened is returned as Damaged. The error is the store's; then nothing was
// changed, as far as it knows.
func (r *Revoker) Delete(
	ctx context.Context, id string, by tokenstore.Actor, atProvider bool,
) (tokenstore.Connection, Outcome, error) {
	ctx, cancel := detached(ctx)
	defer cancel()
	late := r.cfg.Late(id)
	p := newPending(r.noteID(ctx))
	if atProvider {
		p = r.prepare(ctx, id)
	}
	c, err := r.cfg.Store.DeleteConnection(ctx, id, tokenstore.Event{Type: tokenstore.EventDeleted, Actor: by})
	if err != nil {
		r.unchanged(ctx, p)
		return c, Outcome{}, err
	}
	r.log.Info("connection deleted", connectionFields(&c)...)
	if c.Damaged {
		r.forget(ctx, p)
		return c, Outcome{Reason: ReasonDamaged}, nil
	}
	held := heldBy(&c)
	c.Revoke() // shown as what has become of it
	if !atProvider {
		return c, Outcome{Reason: ReasonUnasked}, nil
	}
	r.keep(ctx, p, held)
	return c, r.end(ctx, p, late), nil
}

// Discard ends at the provider a credential that nobody completed, and no record
// holds any more. It may be of the account of quite another user, who followed a
// forwarded link: so every connection of the integration counts as a sibling,
// whoever's it is. account is the credential's, zero if it is not known. It
// waits for one try.
func (r *Revoker) Discard(
	ctx context.Context, integration, userID string, params map[string]string, account tokenstore.Account, t tokenstore.Token,
) {
	ctx, cancel := detached(ctx)
	defer cancel()
	held := tokenstore.Connection{Integration: integration, UserID: userID, Params: params, Account: account, Token: t}
	if provider, err := r.cfg.Provider(integration, params); err == nil {
		held.AuthScheme = provider.Scheme()
	}
	p := newPending(r.noteID(ctx))
	r.keep(ctx, p, heldBy(&held))
	r.end(ctx, p, nil)
}

// Late ends at the provider the token t, which a renewal of c has brought too late,
// if that is since another process has revoked or deleted c. It does so behind its
// caller.
func (r *Revoker) Late(c tokenstore.Connection, t tokenstore.Token) {
	r.follow(heldBy(&c), func(ctx context.Context) (tokenstore.Token, bool) {
		now, err := r.cfg.Store.Connection(ctx, c.ID)
		return t, errors.Is(err, tokenstore.ErrNotFound) || err == nil && now.Status == tokenstore.StatusRevoked
	})
}

func connectionFields(c *tokenstore.Connection) []zap.Field {
	return []zap.Field{
		zap.String("connection_id", c.ID), zap.String("integration", c.Integration), zap.String("user_id", c.UserID),
	}
}
