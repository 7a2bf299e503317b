package caddymodule_test

import (
	"context"
	"encoding/json"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyevents"

	"github.com/lanyard-proxy/lanyard/tokenstore"
)

func init() { caddy.RegisterModule(deafHandler{}) }

var (
	deafCalled = make(chan struct{}, 1)
	deafEnds   = make(chan struct{})
)

// deafHandler is a handler of events that does not look at its context.
type deafHandler struct{}

func (deafHandler) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "events.handlers.lanyard_deaf", New: func() caddy.Module { return new(deafHandler) }}
}

func (deafHandler) Handle(context.Context, caddy.Event) error {
	deafCalled <- struct{}{}
	<-deafEnds
	return nil
}

// TestDeafHandlerDoesNotKeepTheStore: a handler that hangs holds up the events
// behind it and nothing else, not the end either.
func TestDeafHandlerDoesNotKeepTheStore(t *testing.T) {
	dir := t.TempDir()
	configMu.Lock()
	cfg := &caddy.Config{Admin: &caddy.AdminConfig{Disabled: true}}
	base, err := caddy.ProvisionContext(cfg)
	if err != nil {
		t.Fatal(err)
	}
	cfg.AppsRaw = caddy.ModuleMap{
		"lanyard": json.RawMessage(config(dir, github)),
		"events":  json.RawMessage(`{"subscriptions": [{"events": ["connection.active"], "handlers": [{"handler": "lanyard_deaf"}]}]}`),
	}
	ctx, cancel := caddy.NewContext(base)
	var events *caddyevents.App
	for _, name := range []string{"lanyard", "events"} {
		app, err := ctx.App(name)
		if err != nil {
			t.Fatal(err)
		}
		if err := app.(caddy.App).Start(); err != nil {
			t.Fatal(err)
		}
		events, _ = app.(*caddyevents.App)
	}
	events.Emit(ctx, "started", nil)
	configMu.Unlock()
	happen(t, dir, tokenstore.EventActive, "conn_1")
	<-deafCalled
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		configMu.Lock()
		defer configMu.Unlock()
		cancel()
	}()
	select {
	case <-ended:
	case <-time.After(30 * time.Second):
		t.Error("the configuration does not end while a handler hangs")
	}
	close(deafEnds)
	<-ended
}
