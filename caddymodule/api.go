package caddymodule

import (
	"cmp"
	"fmt"
	"net/http"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"github.com/caddyserver/caddy/v2/caddyconfig/httpcaddyfile"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"go.uber.org/zap"

	"github.com/lanyard-proxy/lanyard/api"
	"github.com/lanyard-proxy/lanyard/guard"
)

func init() {
	caddy.RegisterModule(API{})
	httpcaddyfile.RegisterHandlerDirective("lanyard_api", func(h httpcaddyfile.Helper) (caddyhttp.MiddlewareHandler, error) {
		a := new(API)
		return a, a.UnmarshalCaddyfile(h.Dispenser)
	})
}

// Local says who may call the app's side of Lanyard, besides programs that
// call it by a loopback name or by the address it listens on.
type Local struct {
	// Further host names by which the app calls.
	Names []string `json:"names,omitempty"`
	// Origins whose web pages may call, such as `https://app.example.com`.
	AllowOrigin []string `json:"allow_origin,omitempty"`
}

func (l Local) guard() guard.Local { return guard.Local{Names: l.Names, AllowOrigin: l.AllowOrigin} }

// check judges what was not read from a Caddyfile, too.
func (l Local) check() error {
	for _, name := range l.Names {
		if err := checkHost(name); err != nil {
			return fmt.Errorf("names: %w", err)
		}
	}
	for _, origin := range l.AllowOrigin {
		if err := checkOrigin(origin); err != nil {
			return fmt.Errorf("allow_origin: %w", err)
		}
	}
	return nil
}

// API serves the management API under `/v1/`. It passes on requests that name
// a connection, since providers have a `/v1/` of their own.
type API struct {
	Local

	app     *App
	handler *api.Handler // set once the app has started
	addrs   []caddy.NetworkAddress
	logger  *zap.Logger
}

// CaddyModule returns the Caddy module information.
func (API) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "http.handlers.lanyard_api", New: func() caddy.Module { return new(API) }}
}

// Provision finds the app.
func (a *API) Provision(ctx caddy.Context) error {
	a.logger = ctx.Logger()
	app, err := appOf(ctx, "lanyard_api")
	if err != nil {
		return err
	}
	if err := a.check(); err != nil {
		return fmt.Errorf("lanyard_api: %w", err)
	}
	a.app, a.addrs = app, listeners(ctx)
	if srv, ok := ctx.Value(caddyhttp.ServerCtxKey).(*caddyhttp.Server); ok {
		// A server waits for the end of its answers before anything is cleaned up.
		srv.RegisterOnShutdown(a.endStreams)
	}
	app.apiURL = cmp.Or(app.apiURL, loopbackURL(a.addrs))
	app.onStart = append(app.onStart, a.start)
	return nil
}

func (a *API) start(in *instance) error {
	warnIfReachable(a.addrs, "lanyard_api", a.logger)
	integrations := map[string]api.Integration{}
	for name, i := range in.settings.integrations {
		integrations[name] = i.forAPI()
	}
	var err error
	a.handler, err = api.New(api.Config{
		Store: in.engine.refresher.Store(), Refresher: in.engine.refresher, Revoker: in.engine.revoker,
		Links: in.signer, Devices: in.connect, Keeper: in.engine, Freezer: in.engine, Audit: in.engine.audit, Brake: in.engine.brake,
		Providers:    a.app.providers(),
		Integrations: integrations, RedirectURLs: in.settings.redirectURLs, Keys: in.apiKeys,
		Local: a.guard(), Ready: in.ready, Logger: a.logger,
	})
	if err != nil {
		return err
	}
	in.closers = append(in.closers, a.handler.Close)
	return nil
}

// endStreams ends the answers that have no end of their own.
func (a *API) endStreams() {
	select {
	case <-a.app.started:
		if a.handler != nil {
			a.handler.EndStreams()
		}
	default: // none has begun
	}
}

// ServeHTTP implements caddyhttp.MiddlewareHandler.
func (a *API) ServeHTTP(w http.ResponseWriter, r *http.Request, next caddyhttp.Handler) error {
	if p := a.app.wait(r.Context()); p != nil {
		p.Write(w)
		return nil
	}
	if !a.handler.Handles(r) {
		return next.ServeHTTP(w, r)
	}
	a.handler.ServeHTTP(w, r)
	return nil
}

// UnmarshalCaddyfile sets up the handler. Syntax:
//
//	lanyard_api [<matcher>] {
//		names <hosts...>
//		allow_origin <origins...>
//	}
func (a *API) UnmarshalCaddyfile(d *caddyfile.Dispenser) error {
	d.Next() // the directive's name
	return parseRest(d, a.options())
}

func (l *Local) options() options {
	return options{"names": list(&l.Names, checkHost), "allow_origin": list(&l.AllowOrigin, checkOrigin)}
}

// Interface guards
var (
	_ caddy.Provisioner           = (*API)(nil)
	_ caddyhttp.MiddlewareHandler = (*API)(nil)
	_ caddyfile.Unmarshaler       = (*API)(nil)
)
