// Package refresh keeps the tokens of connections fresh: a valid one comes from
// memory, one that is about to expire is renewed behind the requests that use
// it, and only a request without a valid token waits.
//
// A renewal is one flight per connection, whoever asks for it (flight.go). It
// writes an intent before it sends the refresh token, keeps the answer before
// it reads it, and stores the new token before anybody uses it (redeem.go), so
// that a crash at any point loses nothing that reached this machine.
package refresh

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/zap"

	"github.com/lanyard-proxy/lanyard/metrics"
	"github.com/lanyard-proxy/lanyard/tokenstore"
)

// Provider renews tokens at the authorization server of one integration.
type Provider interface {
	// Refresh presents t's refresh token once (RFC 6749 section 6) and returns
	// what came back, unread. Its errors wrap tokenstore.ErrNotSent or
	// tokenstore.ErrOutcomeUnknown.
	Refresh(ctx context.Context, t tokenstore.Token) (tokenstore.Answer, error)
	// Parse reads an answer: a token, a *tokenstore.RefusalError, or an error
	// that wraps tokenstore.ErrOutcomeUnknown.
	Parse(a tokenstore.Answer, prev tokenstore.Token, askedScopes []string) (tokenstore.Token, error)
	// Grace reports whether the provider takes a refresh token again shortly
	// after it was redeemed.
	Grace() bool
	// Pace returns how many refreshes the provider takes at the same time, and
	// the least time between the beginnings of two.
	Pace() (concurrency int, interval time.Duration)
	// Pause returns how long an access token is left alone after it was issued,
	// zero for not at all. It is also the time between two requests for one, a
	// minute at most.
	Pause() time.Duration
	// Origin tells providers from one another, by ==: it is the same for all
	// parameters of connections, and another after a change of configuration.
	Origin() any
}

// Config says what a Refresher works with. All fields but CacheSize and Metrics
// are required.
type Config struct {
	Store tokenstore.Store
	// Provider returns the provider of an integration, for connections with
	// these parameters; false if the configuration has no such integration now,
	// or one with other parameters. It must not block.
	Provider func(integration string, params map[string]string) (Provider, bool)
	Logger   *zap.Logger
	// Late is told, on a shared store, of a token that came too late for a
	// connection, as it was before, where nobody waits for that (Refresher.Late):
	// another process may have revoked or deleted it, and connected it again. It
	// must not block. Optional.
	Late func(c tokenstore.Connection, t tokenstore.Token)
	// CacheSize is how many connections are kept in memory. Default: 50,000.
	CacheSize int
	// Metrics counts the renewals. Default: nobody sees them.
	Metrics *metrics.Set
}

// defaultCacheSize costs about 60 MB when it is full of tokens of 700 bytes, and
// as much again until the garbage collector runs: then a process with a million
// connections stays below 250 MB. One that is not in the cache costs its next
// call a read of the store.
const defaultCacheSize = 50_000

// forcedPause is the least time between two renewals of one connection that
// are forced by refused calls: an API that answers 401 to everything must not
// make its token endpoint busy.
const forcedPause = time.Minute

// maxQuiet bounds how long the next request waits after one that failed: a
// provider may leave tokens alone for a day, and one that is about to end can't
// wait as long.
const maxQuiet = time.Minute

// Refresher hands out valid tokens. Its methods are safe for concurrent use.
type Refresher struct {
	cfg     Config
	cache   *cache
	users   *users
	store   tokenstore.Store  // the write-through one
	shared  tokenstore.Shared // nil if no other process has the store
	watches watches

	ctx     context.Context //nolint:containedctx // the life of the flights, which outlive every caller
	stop    context.CancelFunc
	flights sync.WaitGroup
	follows sync.WaitGroup // the follower
	unsaved atomic.Int64   // answers that could not be stored yet
	lost    atomic.Int64   // answers that could not be stored until the end

	mu      sync.Mutex
	closing bool             // guarded by mu
	frozen  bool             // guarded by mu; see Freeze
	lanes   map[string]*lane // guarded by mu :: integration → the way to its token endpoint
	work    map[string]*work // guarded by mu :: connection ID → its renewal under way, or the last one's failure
	damaged map[string]bool  // guarded by mu :: ID of a connection whose damage was told → true
	tidyAt  int              // guarded by mu :: how much work has to be there for the next tidying
}

// New returns a Refresher. Close has to be called at its end.
func New(cfg Config) *Refresher {
	if cfg.CacheSize <= 0 {
		cfg.CacheSize = defaultCacheSize
	}
	if cfg.Metrics == nil {
		cfg.Metrics = metrics.NewSet()
	}
	r := &Refresher{
		cfg: cfg, cache: newCache(cfg.CacheSize), users: newUsers(cfg.CacheSize),
		work: map[string]*work{}, lanes: map[string]*lane{}, damaged: map[string]bool{},
	}
	r.ctx, r.stop = context.WithCancel(context.Background())
	r.store = watched{Store: cfg.Store, r: r}
	if shared, ok := cfg.Store.(tokenstore.Shared); ok {
		r.shared, r.store = shared, watchedShared{watched{Store: cfg.Store, r: r}, shared}
		r.follows.Go(r.follow)
	}
	return r
}

// Store returns the store through which everybody else has to write: what it
// writes is what the next request sees. It is Shared if Config's is: then what
// other processes write is seen within a second.
func (r *Refresher) Store() tokenstore.Store { return r.store }

// Find returns the connection with this ID as it is now. It returns an error
// that wraps tokenstore.ErrNotFound, ErrCorrupt or ErrUnavailable.
func (r *Refresher) Find(ctx context.Context, id string) (*tokenstore.Grant, error) {
	if g := r.cache.use(id, wallNow()); g != nil {
		return g, nil
	}
	seen := r.cache.epoch(id)
	c, err := r.store.Connection(ctx, id)
	if err != nil {
		return nil, fmt.Errorf("refresh: finding connection: %w", err)
	}
	return r.cache.load(&c, seen), nil
}

// Unsaved returns how many token answers are in memory only, since the store
// can't write. They are lost if the program ends now.
func (r *Refresher) Unsaved() int { return int(r.unsaved.Load()) }

// Lost returns how many token answers were never stored: to be asked after
// Close.
func (r *Refresher) Lost() int { return int(r.lost.Load()) }

// LastUsed returns when the connection's token was last handed out, as far as
// memory goes back, or the zero time.
func (r *Refresher) LastUsed(id string) time.Time { return r.cache.lastUsed(id) }

// Token returns g, or what has become of it, with a token that its provider
// can be expected to take. Only a request without one waits, and ctx is its
// patience alone: the renewal goes on without it.
//
// Errors: tokenstore.ErrReconnect, ErrNotActive, *UnavailableError, the
// store's own, ctx's.
func (r *Refresher) Token(ctx context.Context, g *tokenstore.Grant) (*tokenstore.Grant, error) {
	if g.Token.SoftAt().IsZero() {
		return g, nil // whatever the time
	}
	now := ageNow(g)
	soft := softAt(g, now)
	if now.Before(soft) {
		return g, nil
	}
	end := g.Token.ExpiresAt
	if !g.Renewable && (g.Token.ExpiryUnknown || now.Before(end) || !hasAged(g, end)) {
		return g, nil
	}
	if hard := g.Token.HardAt(); hard.IsZero() || now.Before(hard) {
		r.renewBehind(ctx, g)
		return g, nil
	}
	if !now.Before(end) {
		return r.renew(ctx, g, g.Token.Generation, dueRenewal, itself)
	}
	// Inside the hard margin the old token still has seconds to live. A renewal
	// that fails or takes too long fails no request before they are over.
	patience, cancel := context.WithTimeout(ctx, end.Sub(now)/2)
	defer cancel()
	next, err := r.renew(patience, g, g.Token.Generation, dueRenewal, itself)
	switch {
	case err == nil || ctx.Err() != nil:
		return next, err
	case ageNow(g).Before(end):
		if cur, ferr := r.Find(ctx, g.ConnectionID); ferr == nil && usable(cur.Status, cur.Disabled) == nil {
			return g, nil
		}
	case patience.Err() != nil: // and they are over all the same
		return r.renew(ctx, g, g.Token.Generation, dueRenewal, itself)
	}
	return nil, err
}

// Renew returns a token newer than the generation that an API has refused. If
// there is a valid one already, the provider is not asked.
//
// Errors are Token's, and tokenstore.ErrNotRenewed, also for a token that its
// provider wants to be left alone yet.
func (r *Refresher) Renew(ctx context.Context, id string, refused uint64) (*tokenstore.Grant, error) {
	g, err := r.Find(ctx, id)
	if err != nil {
		return nil, err
	}
	if err := usable(g.Status, g.Disabled); err != nil {
		return nil, err
	}
	if g.Token.Generation > refused {
		return r.Token(ctx, g) // it may be old by now: a call can take longer than a token lives
	}
	why := forcedRenewal
	now := ageNow(g)
	soft := softAt(g, now)
	due := !soft.IsZero() && !now.Before(soft)
	if lost := !g.Renewable && g.StatusReason != ""; due || lost {
		why = refusedRenewal // it was due anyway, or the provider won't be asked
	}
	next, err := r.renew(ctx, g, refused, why, itself)
	if !errors.Is(err, tokenstore.ErrReconnect) {
		return next, err
	}
	// It may have been a renewal under way that knew nothing of the refusal,
	// and left the access token to serve to its end. This is its end.
	if cur, ferr := r.Find(ctx, id); ferr == nil && usable(cur.Status, cur.Disabled) == nil {
		return r.renew(ctx, cur, refused, refusedRenewal, itself)
	}
	return nil, err
}

// Refresh renews the connection's token now, whatever its age, as by asks. One
// that is under way already is waited for, and is not by's.
func (r *Refresher) Refresh(ctx context.Context, id string, by tokenstore.Actor) error {
	g, err := r.Find(ctx, id)
	if err != nil {
		return err
	}
	if err := usable(g.Status, g.Disabled); err != nil {
		return err
	}
	_, err = r.renew(ctx, g, g.Token.Generation, askedRenewal, by)
	return err
}

// Close lets no new renewal begin and waits for those under way. When ctx
// ends first they are cut short: their intents stay, and the next start
// resolves them.
func (r *Refresher) Close(ctx context.Context) error {
	r.mu.Lock()
	r.closing = true
	lanes := slices.Collect(maps.Values(r.lanes))
	r.mu.Unlock()
	for _, l := range lanes {
		l.close()
	}
	done := make(chan struct{})
	go func() {
		r.flights.Wait()
		close(done)
	}()
	var err error
	select {
	case <-done:
	case <-ctx.Done():
		err = fmt.Errorf("refresh: closing with refreshes under way: %w", ctx.Err())
	}
	r.stop()
	<-done
	r.follows.Wait()
	return err
}

// usable returns why a connection with this status can't be used, or nil.
func usable(s tokenstore.Status, disabled bool) error {
	switch {
	case disabled:
		return tokenstore.ErrNotActive
	case s == tokenstore.StatusActive:
		return nil
	case s == tokenstore.StatusExpired || s == tokenstore.StatusRevoked:
		return tokenstore.ErrReconnect
	default:
		return tokenstore.ErrNotActive
	}
}
