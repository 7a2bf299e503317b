package caddymodule_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"go.uber.org/goleak"

	"github.com/lanyard-proxy/lanyard/caddymodule"
)

func TestMain(m *testing.M) {
	dir, err := os.MkdirTemp("", "caddymodule-test-")
	if err != nil {
		panic(err)
	}
	// Nothing here may touch the data of a Caddy that is used otherwise.
	_ = os.Setenv("XDG_DATA_HOME", dir)
	_ = os.Setenv("XDG_CONFIG_HOME", dir)
	opts := []goleak.Option{goleak.IgnoreCurrent()}
	code := m.Run()
	if code == 0 {
		if err := goleak.Find(opts...); err != nil {
			fmt.Fprintln(os.Stderr, err)
			code = 1
		}
	}
	_ = os.RemoveAll(dir)
	os.Exit(code)
}

// configMu: Caddy writes package variables while it provisions.
var configMu sync.Mutex

// instance is one configuration of Caddy that was provisioned.
type instance struct {
	t    *testing.T
	app  caddy.App
	apps []caddy.App // all, app among them
	end  func()
	log  string // file
	http map[string]caddyhttp.MiddlewareHandler
}

// provision loads a configuration of the app, and one handler for each of the
// given modules. The handlers are JSON, keyed by module name.
// httpApp, if given, is the configuration of Caddy's http app.
func provision(t *testing.T, config string, handlers map[string]string, httpApp ...string) (*instance, error) {
	t.Helper()
	configMu.Lock()
	defer configMu.Unlock()
	in := &instance{t: t, http: map[string]caddyhttp.MiddlewareHandler{}, log: filepath.Join(t.TempDir(), "log")}
	logs := &caddy.CustomLog{BaseLog: caddy.BaseLog{
		WriterRaw: json.RawMessage(fmt.Sprintf(`{"output": "file", "filename": %q, "roll": false}`, in.log)), Level: "DEBUG",
	}}
	cfg := &caddy.Config{
		Admin:   &caddy.AdminConfig{Disabled: true},
		Logging: &caddy.Logging{Logs: map[string]*caddy.CustomLog{"default": logs}},
	}
	base, err := caddy.ProvisionContext(cfg)
	if err != nil {
		t.Fatal(err)
	}
	cfg.AppsRaw = caddy.ModuleMap{}
	if config != "" {
		cfg.AppsRaw["lanyard"] = json.RawMessage(config)
	}
	ctx, cancel := caddy.NewContext(base)
	in.end = sync.OnceFunc(func() {
		configMu.Lock()
		defer configMu.Unlock()
		for _, app := range in.apps {
			_ = app.Stop()
		}
		cancel()
	})
	t.Cleanup(in.end)
	if config != "" {
		app, err := ctx.App("lanyard")
		if err != nil {
			return in, err
		}
		in.app = app.(caddy.App)
		in.apps = append(in.apps, in.app)
	}
	for _, raw := range httpApp {
		cfg.AppsRaw["http"] = json.RawMessage(raw)
		app, err := ctx.App("http")
		if err != nil {
			return in, err
		}
		in.apps = append(in.apps, app.(caddy.App))
	}
	for name, raw := range handlers {
		mod, err := ctx.LoadModuleByID("http.handlers."+name, json.RawMessage(raw))
		if err != nil {
			return in, err
		}
		in.http[name] = mod.(caddyhttp.MiddlewareHandler)
	}
	return in, nil
}

// started provisions and starts.
func started(t *testing.T, config string, handlers map[string]string) *instance {
	t.Helper()
	in, err := provision(t, config, handlers)
	if err == nil {
		err = in.app.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	return in
}

// serve gives a request to one handler. Status 299 means that it was passed on.
func (in *instance) serve(handler string, r *http.Request) *httptest.ResponseRecorder {
	in.t.Helper()
	w := httptest.NewRecorder()
	next := caddyhttp.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) error {
		w.WriteHeader(299)
		return nil
	})
	if err := in.http[handler].ServeHTTP(w, r, next); err != nil {
		in.t.Errorf("%s: %v", handler, err)
	}
	return w
}

// config returns a configuration with its data in dir, and further members.
func config(dir, more string) string {
	if more != "" {
		more = ", " + more
	}
	return fmt.Sprintf(`{"public_url": "https://connect.example.com", "store": {"dir": %q}%s}`, dir, more)
}

func read(t *testing.T, parts ...string) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(parts...))
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(b))
}

func contextWithLocalAddr(ctx context.Context, addr net.Addr) context.Context {
	return context.WithValue(ctx, http.LocalAddrContextKey, addr)
}

// inForce returns the integrations that the engine of dir asks now.
func inForce(t *testing.T, dir string) string {
	t.Helper()
	names, ok := caddymodule.IntegrationsInForce(dir)
	if !ok {
		t.Fatalf("there is no engine for %s", dir)
	}
	return names
}
