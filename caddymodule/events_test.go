package caddymodule_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyevents"

	"github.com/lanyard-proxy/lanyard/caddymodule"
	"github.com/lanyard-proxy/lanyard/tokenstore"
	"github.com/lanyard-proxy/lanyard/webhook"
)

func init() {
	caddy.RegisterModule(eventRecorder{})
	caddy.RegisterModule(deafHandler{})
}

// recorded gets what handlers are given: "To: name data". A handler waits until
// it was taken.
var recorded = make(chan string)

// eventRecorder is a handler of events for tests.
type eventRecorder struct {
	To string `json:"to"` // the configuration
}

func (eventRecorder) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "events.handlers.lanyard_test", New: func() caddy.Module { return new(eventRecorder) }}
}

// Handle implements caddyevents.Handler.
func (r *eventRecorder) Handle(ctx context.Context, e caddy.Event) error {
	data, err := json.Marshal(e.Data)
	if err != nil {
		return err
	}
	select {
	case recorded <- fmt.Sprintf("%s: %s %s by %s", r.To, e.Name(), data, e.Origin().CaddyModule().ID):
	case <-ctx.Done():
	}
	return nil
}

// subscribed starts a configuration with handlers of events, if there are any.
func subscribed(t *testing.T, dir, to string, names ...string) *instance {
	t.Helper()
	var subs []string
	for _, name := range names {
		subs = append(subs, fmt.Sprintf(`{"events": [%q], "handlers": [{"handler": "lanyard_test", "to": %q}]}`, name, to))
	}
	return subscribedBy(t, dir, strings.Join(subs, ", "))
}

// subscribedBy starts a configuration with these subscriptions to events.
func subscribedBy(t *testing.T, dir, subscriptions string) *instance {
	t.Helper()
	configMu.Lock()
	defer configMu.Unlock()
	cfg := &caddy.Config{Admin: &caddy.AdminConfig{Disabled: true}}
	base, err := caddy.ProvisionContext(cfg)
	if err != nil {
		t.Fatal(err)
	}
	cfg.AppsRaw = caddy.ModuleMap{
		"lanyard": json.RawMessage(config(dir, github)),
		"events":  json.RawMessage(`{"subscriptions": [` + subscriptions + `]}`),
	}
	ctx, cancel := caddy.NewContext(base)
	in := &instance{t: t}
	in.end = sync.OnceFunc(func() {
		configMu.Lock()
		defer configMu.Unlock()
		cancel()
	})
	t.Cleanup(in.end)
	for _, name := range []string{"lanyard", "events"} {
		app, err := ctx.App(name)
		if err != nil {
			t.Fatal(err)
		}
		in.apps = append(in.apps, app.(caddy.App))
	}
	for _, app := range in.apps {
		if err := app.Start(); err != nil {
			t.Fatal(err)
		}
	}
	in.apps[1].(*caddyevents.App).Emit(ctx, "started", nil) // as Caddy does
	return in
}

func happen(t *testing.T, dir string, e tokenstore.EventType, id string) {
	t.Helper()
	err := caddymodule.Happen(t.Context(), dir, tokenstore.Event{Type: e, ConnectionID: id})
	if err != nil {
		t.Fatal(err)
	}
}

// next returns what the next handler is given.
func next(t *testing.T) string {
	t.Helper()
	select {
	case text := <-recorded:
		return text
	case <-time.After(20 * time.Second):
		t.Fatal("no event came")
		return ""
	}
}

func wantEvent(t *testing.T, prefix, inside string) {
	t.Helper()
	got := next(t)
	if !strings.HasPrefix(got, prefix) || !strings.Contains(got, inside) || !strings.HasSuffix(got, " by lanyard") {
		t.Errorf("event = %q, want one that begins with %q and holds %q", got, prefix, inside)
	}
}

func TestEventsForCaddy(t *testing.T) {
	dir := t.TempDir()
	first := started(t, config(dir, github), nil)
	happen(t, dir, tokenstore.EventActive, "conn_before")
	in := subscribed(t, dir, "one", "connection.active", "connection.expired")
	first.end()
	happen(t, dir, tokenstore.EventActive, "conn_1")
	happen(t, dir, tokenstore.EventDeleted, "conn_1")
	happen(t, dir, tokenstore.EventExpired, "conn_1")
	wantEvent(t, `one: connection.active {`, `"connection_id":"conn_1"`)
	wantEvent(t, `one: connection.expired {`, `"allowed":true`)

	// A reload goes on where the log was, and gives events to the new handlers.
	happen(t, dir, tokenstore.EventActive, "conn_2")
	after := subscribed(t, dir, "two", "connection.active")
	in.end()
	happen(t, dir, tokenstore.EventActive, "conn_3")
	got := next(t)
	if strings.Contains(got, "conn_2") {
		got = next(t)
	}
	if !strings.HasPrefix(got, "two: ") || !strings.Contains(got, "conn_3") {
		t.Errorf("after the reload: %q", got)
	}

	// Without handlers nothing is followed, and what happens then is not told.
	after.end()
	none := subscribed(t, dir, "none")
	happen(t, dir, tokenstore.EventActive, "conn_4")
	last := subscribed(t, dir, "three", "connection.active")
	none.end()
	happen(t, dir, tokenstore.EventActive, "conn_5")
	wantEvent(t, "three: ", "conn_5")

	// A handler that waits holds up nothing but the events, and ends with its
	// configuration.
	happen(t, dir, tokenstore.EventActive, "conn_6")
	happen(t, dir, tokenstore.EventActive, "conn_7")
	wantEvent(t, "three: ", "conn_6")
	last.end()
}

func TestWebhooksOfAConfiguration(t *testing.T) {
	const whsec = "whsec_MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE="
	key, err := webhook.ParseSecret(whsec)
	if err != nil {
		t.Fatal(err)
	}
	got := make(chan string, 100)
	srv := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		got <- fmt.Sprintf("%s %v %s", r.URL.Path, webhook.Verify(key, r.Header, body, time.Now()), body)
	}))
	defer srv.Close()
	wants := func(parts ...string) {
		t.Helper()
		select {
		case text := <-got:
			for _, part := range parts {
				if !strings.Contains(text, part) {
					t.Errorf("webhook %q, want %q in it", text, part)
				}
			}
		case <-time.After(20 * time.Second):
			t.Fatal("no webhook came")
		}
	}
	hook := func(path string) string {
		return fmt.Sprintf(`{"url": %q, "secrets": [%q]}`, srv.URL+path, whsec)
	}
	dir := t.TempDir()
	one := started(t, config(dir, github+`, "webhooks": [`+hook("/a")+`]`), nil)
	happen(t, dir, tokenstore.EventActive, "conn_1")
	wants("/a <nil> ", `"type":"connection.active"`, `"connection_id":"conn_1"`, `"data":{"seq":`)
	two := started(t, config(dir, github+`, "webhooks": [`+hook("/b")+`]`), nil)
	one.end()
	happen(t, dir, tokenstore.EventExpired, "conn_1")
	wants("/b <nil> ", `"type":"connection.expired"`)
	two.end()
	select {
	case text := <-got:
		t.Errorf("the endpoint that was removed got %q", text)
	default:
	}
}

func TestWebhookProvisionErrors(t *testing.T) {
	t.Setenv("LANYARD_TEST_WHSEC", "whsec_MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE=")
	const secret = `"secrets": ["{env.LANYARD_TEST_WHSEC}"]`
	for _, tt := range []struct{ name, webhooks, want string }{
		{"no secret", `{"url": "https://a.example/h"}`, "webhook 1: it needs a secret"},
		{"a wrong secret", `{"url": "https://a.example/h", "secrets": ["canary-secret"]}`, "webhook 1: secret: it is not `whsec_`"},
		{"a wrong second secret", `{"url": "https://a.example/h", "secrets": ["{env.LANYARD_TEST_WHSEC}", "canary-secret"]}`, "webhook 1: secret: it is not `whsec_`"},
		{"http", `{"url": "http://a.example/canary-path", ` + secret + `}`, "webhook 1: http is for this machine alone"},
		{"no URL", `{` + secret + `}`, "webhook 1: it is not an absolute URL"},
		{"twice", `{"url": "https://a.example/canary-path", ` + secret + `}, {"url": "https://a.example/canary-path", ` + secret + `}`, "webhook 2: there is another one"},
		{"a type", `{"url": "https://a.example/h", ` + secret + `, "events": ["webhook.given_up"]}`, `webhook 1: events: "webhook.given_up" is no type`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, err := provision(t, config(t.TempDir(), github+`, "webhooks": [`+tt.webhooks+`]`), nil)
			if err == nil || !strings.Contains(err.Error(), tt.want) || strings.Contains(err.Error(), "canary") {
				t.Errorf("error = %v, want %q in it", err, tt.want)
			}
		})
	}
}

// Of the test that runs: Caddy makes the handler.
var deafCalled, deafEnds chan struct{}

// deafHandler is a handler of events that does not look at its context.
type deafHandler struct{}

func (deafHandler) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "events.handlers.lanyard_deaf", New: func() caddy.Module { return new(deafHandler) }}
}

// Handle implements caddyevents.Handler.
func (deafHandler) Handle(context.Context, caddy.Event) error {
	called, ends := deafCalled, deafEnds
	called <- struct{}{}
	<-ends
	return nil
}

// TestDeafHandlerDoesNotKeepTheStore: a handler that hangs holds up the events
// behind it and nothing else, not the end either.
func TestDeafHandlerDoesNotKeepTheStore(t *testing.T) {
	deafCalled, deafEnds = make(chan struct{}, 1), make(chan struct{})
	dir := t.TempDir()
	in := subscribedBy(t, dir, `{"events": ["connection.active"], "handlers": [{"handler": "lanyard_deaf"}]}`)
	happen(t, dir, tokenstore.EventActive, "conn_1")
	<-deafCalled
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		in.end()
	}()
	select {
	case <-ended:
	case <-time.After(30 * time.Second):
		t.Error("the configuration does not end while a handler hangs")
	}
	close(deafEnds)
	<-ended
}
