package caddymodule

import (
	"context"
	"fmt"

	"go.uber.org/zap"

	"github.com/lanyard-proxy/lanyard/connect"
	"github.com/lanyard-proxy/lanyard/guard"
	"github.com/lanyard-proxy/lanyard/proxy"
	"github.com/lanyard-proxy/lanyard/tokenstore"
)

// instance is one configuration at work on an engine.
type instance struct {
	engine   *engine
	settings *settings
	logger   *zap.Logger

	emitter   *emitter // may be nil
	apiKeys   []guard.Key
	clients   []proxy.Client
	signer    *connect.Signer
	connect   *connect.Handler
	upstreams apis
	proxies   []*proxy.Handler // whose tunnels outlive a reload
	closers   []func()         // what handlers have to end when the configuration goes
}

func newInstance(e *engine, s *settings, logger *zap.Logger) (*instance, error) {
	in := &instance{engine: e, settings: s, logger: logger, upstreams: apisOf(s)}
	keys, err := ensureAPIKeys(e.dir, s.apiKeys, logger)
	if err != nil {
		return nil, fmt.Errorf("api_key: %w", err)
	}
	for i, k := range keys {
		in.apiKeys = append(in.apiKeys, guard.Key{Name: fmt.Sprintf("api_key %d", i+1), Value: k})
	}
	if in.clients, err = ensureClients(e.dir, s.clients, logger); err != nil {
		return nil, fmt.Errorf("client: %w", err)
	}
	in.signer = connect.NewSigner(s.publicURL, keys)
	integrations := map[string]connect.Integration{}
	for name, i := range s.integrations {
		integrations[name] = i.forConnect()
	}
	in.connect, err = connect.New(connect.Config{
		PublicURL: s.publicURL, Signer: in.signer, Store: e.refresher.Store(), Integrations: integrations,
		RedirectURLs: s.redirectURLs, Completion: s.completion, ClientIP: clientIP, Audit: e.audit,
		Metrics: e.metrics, Logger: logger,
		Discard: e.revoker.Discard, Brand: s.brand, Disconnect: e.disconnect,
	})
	if err != nil {
		return nil, err
	}
	return in, nil
}

// disconnect ends a connection's credential on the word of its user.
func (e *engine) disconnect(ctx context.Context, id string, by tokenstore.Actor) error {
	_, _, err := e.revoker.Revoke(ctx, id, by)
	return err
}

// drain waits for what the configuration has begun and ends what it keeps
// trying. Its providers go last: a refresh that began with one of them goes on
// with it after the configuration has gone.
func (in *instance) drain() {
	ctx, cancel := context.WithTimeout(context.Background(), drainTime)
	defer cancel()
	in.engine.endTunnels(in.proxies)
	if err := in.connect.Close(ctx); err != nil {
		in.engine.logger.Warn("code exchanges cut short", zap.Error(err))
	}
	in.engine.resumeDevices(ctx)
	for _, f := range in.closers {
		f()
	}
	select {
	case <-in.engine.over:
	case <-ctx.Done():
	}
	in.settings.close()
}

// ready returns why the store can't be read or written, or nil.
func (in *instance) ready(ctx context.Context) error {
	if n := in.engine.refresher.Unsaved(); n > 0 {
		return fmt.Errorf("%d token answers could not be stored yet: %w", n, tokenstore.ErrUnavailable)
	}
	return in.engine.writable(ctx)
}
