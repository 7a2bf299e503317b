package caddymodule

import (
	"context"
	"errors"
	"maps"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/caddyserver/caddy/v2"
	"go.uber.org/zap"
	"golang.org/x/sync/errgroup"

	"github.com/lanyard-proxy/lanyard/api"
	"github.com/lanyard-proxy/lanyard/audit"
	"github.com/lanyard-proxy/lanyard/guard"
	"github.com/lanyard-proxy/lanyard/metrics"
	"github.com/lanyard-proxy/lanyard/proxy"
	"github.com/lanyard-proxy/lanyard/refresh"
	"github.com/lanyard-proxy/lanyard/revoke"
	"github.com/lanyard-proxy/lanyard/tokenstore"
	"github.com/lanyard-proxy/lanyard/webhook"
)

// engines holds the engines by their store (settings.pool) and nothing else:
// Caddy provisions a new configuration before it cleans up the old one, Badger
// locks its directory, and two refreshers of one directory would redeem one
// token twice.
var engines = caddy.NewUsagePool()

const (
	// houseEvery is how late at most what falls due is looked after.
	houseEvery = 2 * time.Second
	// adoptEvery is how late at most is taken up what another Lanyard on the same
	// database has left open, once its leases have ended.
	adoptEvery = 30 * time.Second
	// dueAgain is how long what is due is left alone, on a store that others have
	// too, after it was looked at: each look reads it, in each of the processes.
	dueAgain = 10 * time.Second
	// houseAtOnce bounds what falls due at the same time.
	houseAtOnce = 16
	// drainTime is how long the last one out waits for requests to token
	// endpoints: their own limit, and time to write the answer.
	drainTime = 25 * time.Second
	// handlerTime is how long it waits for a handler of Caddy's events app that
	// does not end with its configuration.
	handlerTime = 5 * time.Second
	// exitLost is the exit status if a token was lost that can't be had again:
	// EX_IOERR of sysexits.h.
	exitLost = 74
)

// engine is what outlives a reload: the store, the tokens in memory and the
// refreshes under way.
type engine struct {
	pool      string // its key in engines
	dir       string // empty if the store is a database
	store     store
	refresher *refresh.Refresher
	revoker   *revoke.Revoker
	audit     *audit.Log
	brake     *guard.Brake
	webhooks  *webhook.Sender
	metrics   *metrics.Set
	census    atomic.Pointer[census] // the last that was taken, or nil
	storeSeen atomic.Int64           // Unix nanoseconds; when the store last answered
	looked    map[string]time.Time   // when what is due was looked at last; lookAfterDue's alone
	logger    *zap.Logger

	mu      sync.Mutex
	live    []*instance              // guarded by mu; the last is in force
	current atomic.Pointer[instance] // the one in force, or the last that was
	log     atomic.Pointer[zap.Logger]

	tunnelMu sync.Mutex
	left     []*proxy.Handler // guarded by tunnelMu; of configurations that have gone, while they have tunnels or may get some

	tellMu sync.Mutex
	told   *instance // guarded by tellMu; whose webhooks are sent

	freeze freezing

	keyMu  sync.Mutex
	keyset *keyset       // guarded by keyMu; in force
	rekeys chan struct{} // asks for everything to be sealed with the primary key

	keepOnce sync.Once
	stop     context.CancelFunc
	over     chan struct{}  // closed once no refresh is under way any more
	emitted  chan struct{}  // closed once no more event is emitted
	work     sync.WaitGroup // the keepers, and the ends of configurations that have gone
}

// acquire takes hold of the engine of the settings' store and opens it if
// nobody holds it. Each acquire needs one engines.Delete.
func acquire(s *settings, logger *zap.Logger) (*engine, error) {
	val, shared, err := engines.LoadOrNew(s.pool(), func() (caddy.Destructor, error) { return openEngine(s, logger) })
	if err != nil {
		return nil, err
	}
	e := val.(*engine)
	if shared {
		err = e.takeKeyset(s)
	}
	if err != nil {
		_, derr := engines.Delete(s.pool())
		return nil, errors.Join(err, derr)
	}
	return e, nil
}

func openEngine(s *settings, logger *zap.Logger) (*engine, error) {
	if err := hideMemory(); err != nil {
		logger.Warn("memory can be dumped: this system refuses to turn that off", zap.Error(err))
	}
	e := &engine{pool: s.pool(), dir: s.dir, rekeys: make(chan struct{}, 1), over: make(chan struct{})}
	e.log.Store(logger)
	e.logger = zap.New(followingCore{current: &e.log}).Named(logger.Name())
	open := e.openDirectory
	if s.dir == "" {
		open = e.openDatabase
	}
	err := open(s)
	if err != nil {
		return nil, err
	}
	e.audit, e.brake = audit.New(e.store, e.logger), guard.NewBrake()
	e.metrics = metrics.NewSet()
	e.storeSeen.Store(time.Now().UnixNano())
	e.webhooks = webhook.New(webhook.Config{Store: e.store, Encode: api.EventJSON, Metrics: e.metrics.Webhooks, Logger: e.logger})
	e.refresher = refresh.New(refresh.Config{
		Store: e.store, Provider: e.provider, Metrics: e.metrics, Logger: e.logger,
		Late: func(c tokenstore.Connection, t tokenstore.Token) { e.revoker.Late(c, t) },
	})
	e.revoker, err = revoke.New(revoke.Config{
		Store: e.refresher.Store(), Provider: e.grants, Late: e.refresher.Late, Logger: e.logger,
	})
	return e, err
}

// grants implements revoke.Config.Provider by the configuration in force.
func (e *engine) grants(name string, params map[string]string) (revoke.Provider, error) {
	if in := e.current.Load(); in != nil {
		if i, ok := in.settings.integrations[name]; ok {
			return i.For(params)
		}
	}
	return nil, revoke.ErrIntegrationMissing
}

// provider implements refresh.Config.Provider by the configuration in force.
func (e *engine) provider(name string, params map[string]string) (refresh.Provider, bool) {
	if in := e.current.Load(); in != nil {
		if i, ok := in.settings.integrations[name]; ok {
			p, err := i.For(params)
			return p, err == nil
		}
	}
	return nil, false
}

// adopt puts a configuration in force.
func (e *engine) adopt(in *instance) {
	e.mu.Lock()
	e.live = append(e.live, in)
	e.mu.Unlock()
	e.enforceLast()
	e.keepOnce.Do(func() {
		ctx, cancel := context.WithCancel(context.Background())
		e.stop = cancel
		e.recoverFlows(ctx, in)
		e.work.Go(func() { e.report(e.revoker.Recover(ctx)) })
		e.work.Go(func() {
			e.report(e.refresher.Recover(ctx))
			e.keep(ctx, houseEvery, func(now time.Time) { e.report(e.lookAfterDue(ctx, now)) })
		})
		e.work.Go(func() { e.keep(ctx, houseEvery, func(time.Time) { e.refresher.RenewAhead() }) })
		if s, ok := e.store.(movable); ok {
			moving := false
			e.work.Go(func() {
				e.keep(ctx, houseEvery, func(time.Time) { moving = e.followMove(ctx, s, moving) })
			})
		}
		if e.shared() {
			e.work.Go(func() { e.keep(ctx, adoptEvery, func(time.Time) { e.adoptOthers(ctx) }) })
		}
		e.work.Go(func() { e.keepRekeying(ctx) })
		e.work.Go(func() { e.keepCensus(ctx) })
		e.work.Go(func() { e.keep(ctx, houseEvery, func(time.Time) { e.lookAtStore(ctx) }) })
		e.work.Go(func() { e.keepLean(ctx) })
		e.emitted = make(chan struct{})
		go func() { // not of work: a handler may be anybody's
			defer close(e.emitted)
			e.keepEmitting(ctx)
		}()
	})
}

// recoverFlows ends the code exchanges that the last run left open. That is
// done before any request is served, since one that is under way now looks the
// same, unless a lease tells it apart.
func (e *engine) recoverFlows(ctx context.Context, in *instance) {
	ctx, cancel := context.WithTimeout(ctx, startWait/2)
	defer cancel()
	e.report(in.connect.Recover(ctx))
}

// adoptOthers takes up what Lanyards that have ended left open in a database
// that they shared with this one: what a living one is at has a lease.
func (e *engine) adoptOthers(ctx context.Context) {
	e.report(e.current.Load().connect.Recover(ctx))
	e.report(e.revoker.Recover(ctx))
}

// resumeDevices goes on with the devices that a configuration which has gone
// waited for.
func (e *engine) resumeDevices(ctx context.Context) {
	if in := e.current.Load(); in != nil {
		e.report(in.connect.Resume(ctx))
	}
}

// leave takes a configuration out. If it was in force, the one before it that
// is still there is again: that is the old one after a reload that failed.
func (e *engine) leave(in *instance) {
	e.mu.Lock()
	e.live = slices.DeleteFunc(e.live, func(l *instance) bool { return l == in })
	e.mu.Unlock()
	e.enforceLast()
	e.work.Go(in.drain)
}

// clients returns who may call the proxy by the configuration in force: nobody
// once the last one has left.
func (e *engine) clients() []proxy.Client {
	e.mu.Lock()
	defer e.mu.Unlock()
	if len(e.live) == 0 {
		return nil
	}
	return e.live[len(e.live)-1].clients
}

// endTunnels ends what may go on no longer: of the handlers of a configuration
// that has gone, and of those whose tunnels earlier reloads have kept.
func (e *engine) endTunnels(gone []*proxy.Handler) {
	e.tunnelMu.Lock()
	defer e.tunnelMu.Unlock()
	clients := e.clients()
	e.left = slices.DeleteFunc(append(e.left, gone...), func(h *proxy.Handler) bool { return h.EndTunnels(clients) == 0 })
}

func (e *engine) enforceLast() {
	e.mu.Lock()
	if n := len(e.live); n > 0 {
		e.current.Store(e.live[n-1])
		e.log.Store(e.live[n-1].logger)
		e.metrics.Know(slices.Collect(maps.Keys(e.live[n-1].settings.integrations))...)
	}
	e.mu.Unlock()
	// A lock of its own, since taking up an endpoint reads the store.
	e.tellMu.Lock()
	defer e.tellMu.Unlock()
	if in := e.current.Load(); in != e.told {
		e.told = in
		e.webhooks.Use(in.settings.webhooks)
	}
}

// keep looks, at an interval, until ctx ends.
func (*engine) keep(ctx context.Context, every time.Duration, look func(now time.Time)) {
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case now := <-tick.C:
			look(now)
		}
	}
}

func (e *engine) report(err error) {
	if err != nil && !errors.Is(err, context.Canceled) {
		e.logger.Error("looking after open work", zap.Error(err))
	}
}

// lookAfterDue looks after the connections whose time has come. It waits for no
// provider.
func (e *engine) lookAfterDue(ctx context.Context, now time.Time) error {
	ids, err := e.refresher.Store().DueConnections(ctx, now)
	if err != nil {
		return err
	}
	var g errgroup.Group
	g.SetLimit(houseAtOnce)
	_, shared := e.store.(tokenstore.Shared)
	looked := make(map[string]time.Time, len(ids))
	for _, id := range ids {
		if last, ok := e.looked[id]; ok && shared && now.Sub(last) < dueAgain {
			looked[id] = last
			continue
		}
		looked[id] = now
		g.Go(func() error {
			e.refresher.Resolve(ctx, id)
			return e.current.Load().connect.Lapse(ctx, id)
		})
	}
	e.looked = looked
	return g.Wait()
}

// Destruct implements caddy.Destructor: the last one out waits for what was
// sent to token endpoints, then closes the store.
func (e *engine) Destruct() error {
	if e.stop != nil {
		e.stop()
	}
	e.stopFreezing()
	ctx, cancel := context.WithTimeout(context.Background(), drainTime)
	defer cancel()
	e.work.Go(e.webhooks.Close) // takes none of the time that token requests have
	err := e.refresher.Close(ctx)
	e.revoker.Close() // while there are providers
	close(e.over)
	e.work.Wait()
	if e.emitted != nil {
		select {
		case <-e.emitted:
		case <-time.After(handlerTime):
			e.logger.Warn("handler of the events app does not end, not waiting for it")
		}
	}
	e.audit.Close()
	if e.refresher.Lost() > 0 && caddy.Exiting() {
		// Caddy asks nobody else what status to exit with.
		caddy.OnExit(func(context.Context) { os.Exit(exitLost) })
	}
	return errors.Join(err, e.store.Close())
}
