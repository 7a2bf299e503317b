// Package caddymodule makes Lanyard available to Caddy: an app that owns the
// engine, three handlers and a transport that expose it, and the commands. It
// is the only package that knows Caddy; the rules are in the packages it wires.
package caddymodule

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/caddyserver/caddy/v2"
	"go.uber.org/zap"

	"github.com/lanyard-proxy/lanyard/guard"
	"github.com/lanyard-proxy/lanyard/tokenstore"
)

func init() { caddy.RegisterModule(App{}) }

// startWait is how long a request waits for the app to start. Caddy starts
// apps in any order, and when one of them fails it stops the others without
// telling those that never started, so the wait needs an end of its own.
const startWait = 10 * time.Second

// CaddyModule returns the Caddy module information.
func (App) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "lanyard", New: func() caddy.Module { return new(App) }}
}

// Provision resolves the configuration. It touches no store and makes no file:
// `caddy validate` provisions, too, and works beside a running instance.
func (a *App) Provision(ctx caddy.Context) error {
	a.logger = ctx.Logger()
	a.started = make(chan struct{})
	s, err := resolve(a)
	if err != nil {
		return err
	}
	a.settings, a.collector = s, &collector{settings: s}
	if err := ctx.GetMetricsRegistry().Register(a.collector); err != nil {
		return fmt.Errorf("metrics: %w", err)
	}
	if a.emitter, err = newEmitter(ctx); err != nil {
		return fmt.Errorf("events: %w", err)
	}
	return nil
}

// Validate judges what Provision resolved.
func (a *App) Validate() error { return a.checkClients() }

// Start takes hold of the engine, which may be shared with the configuration
// that is in force until now, and puts this configuration in force.
func (a *App) Start() error {
	a.startErr = a.start()
	close(a.started)
	return a.startErr
}

func (a *App) start() error {
	for _, field := range a.settings.literals {
		a.logger.Warn("secret stands in the configuration itself, where Caddy's admin API and autosave show it; "+
			"use a placeholder such as {env.NAME} or {file./path}", zap.String("field", field))
	}
	e, err := acquire(a.settings, a.logger)
	if err != nil {
		return err
	}
	a.engine = e
	in, err := newInstance(e, a.settings, a.logger)
	if err != nil {
		return err
	}
	if a.emitter != nil {
		if a.emitter.from, err = tokenstore.EventsEnd(context.Background(), e.store); err != nil {
			return err
		}
		in.emitter = a.emitter
	}
	for _, f := range a.onStart {
		if err := f(in); err != nil {
			return err
		}
	}
	a.instance = in
	e.adopt(in)
	a.collector.engine.Store(e)
	return nil
}

// Stop implements caddy.App. What is held is released in Cleanup: Caddy stops
// apps in any order, and requests are served until the last one has stopped.
func (*App) Stop() error { return nil }

// Cleanup releases what this configuration took. Caddy also calls it after a
// Provision or Start that failed.
func (a *App) Cleanup() error {
	if a.instance != nil {
		a.engine.leave(a.instance)
	} else if a.settings != nil {
		a.settings.close()
	}
	if a.engine == nil {
		return nil
	}
	a.collector.engine.Store(nil)
	_, err := engines.Delete(a.engine.pool)
	a.engine = nil
	return err
}

// wait returns nil once the app has started, or the problem to answer with.
func (a *App) wait(ctx context.Context) *guard.Problem {
	select {
	case <-a.started: // nearly always
	default:
		ctx, cancel := context.WithTimeout(ctx, startWait)
		defer cancel()
		select {
		case <-a.started:
		case <-ctx.Done():
			return notStarted()
		}
	}
	if a.startErr != nil {
		return notStarted()
	}
	return nil
}

func notStarted() *guard.Problem {
	return &guard.Problem{
		Status: http.StatusServiceUnavailable, Code: "store_unavailable",
		Detail: "Lanyard has not started.", RetryAfter: time.Second,
	}
}

// appOf returns the configured app for the module with this name.
func appOf(ctx caddy.Context, name string) (*App, error) {
	mod, err := ctx.AppIfConfigured("lanyard")
	if errors.Is(err, caddy.ErrNotConfigured) {
		return nil, fmt.Errorf("%s needs a `lanyard` block in the global options", name)
	}
	if err != nil {
		return nil, err
	}
	return mod.(*App), nil
}

// Interface guards
var (
	_ caddy.App          = (*App)(nil)
	_ caddy.Provisioner  = (*App)(nil)
	_ caddy.Validator    = (*App)(nil)
	_ caddy.CleanerUpper = (*App)(nil)
)
