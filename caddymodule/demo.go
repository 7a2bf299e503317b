package caddymodule

import (
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"github.com/caddyserver/caddy/v2/caddyconfig/httpcaddyfile"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"go.uber.org/zap"

	"github.com/lanyard-proxy/lanyard/connect"
	"github.com/lanyard-proxy/lanyard/guard"
	"github.com/lanyard-proxy/lanyard/internal/demo"
	"github.com/lanyard-proxy/lanyard/internal/fakeprovider"
)

func init() {
	caddy.RegisterModule(Demo{})
	httpcaddyfile.RegisterHandlerDirective("lanyard_demo", func(h httpcaddyfile.Helper) (caddyhttp.MiddlewareHandler, error) {
		d := new(Demo)
		return d, d.UnmarshalCaddyfile(h.Dispenser)
	})
}

// demoProvider is the pretend provider of this process. It is there once,
// since what it has issued has to outlive a reload.
var demoProvider = sync.OnceValue(func() *fakeprovider.Server { return demo.Provider(demoAccessLife) })

// demoAccessLife is the life of its access tokens; zero is the demo's default.
// A command sets it before Caddy runs.
var demoAccessLife time.Duration

// The parts of the demo.
const (
	demoPartProvider = "provider"
	demoPartApp      = "app"
)

// demoCallback is where the demo app takes callbacks, under its address.
const demoCallback = "/callback"

// Demo serves a pretend provider, or a pretend app that uses Lanyard, for
// trying things out. It answers on loopback only.
type Demo struct {
	// `provider` or `app`.
	Part string `json:"part,omitempty"`

	logger  *zap.Logger
	app     *App
	handler http.Handler // set once the app has started
}

// CaddyModule returns the Caddy module information.
func (Demo) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "http.handlers.lanyard_demo", New: func() caddy.Module { return new(Demo) }}
}

// Provision finds the app.
func (d *Demo) Provision(ctx caddy.Context) error {
	d.logger = ctx.Logger()
	if d.Part != demoPartProvider && d.Part != demoPartApp {
		return fmt.Errorf("lanyard_demo: %q is not known; it is `provider` or `app`", d.Part)
	}
	app, err := appOf(ctx, "lanyard_demo")
	if err != nil {
		return err
	}
	d.app = app
	app.onStart = append(app.onStart, d.start)
	return nil
}

func (d *Demo) start(in *instance) error {
	if d.Part == demoPartProvider {
		d.handler = demoProvider()
		return nil
	}
	cfg, err := demoConfig(in, d.app.apiURL, d.app.proxyURL)
	if err != nil {
		return fmt.Errorf("lanyard_demo: %w", err)
	}
	d.handler, err = demo.NewApp(cfg)
	return err
}

// demoConfig tells the demo app where Lanyard is, and gives it the keys that
// Lanyard made, as an operator gives them to an app.
func demoConfig(in *instance, apiURL, proxyURL string) (demo.Config, error) {
	s := in.settings
	if s.dir == "" {
		return demo.Config{}, errors.New("the demo app reads the keys that Lanyard makes itself, which it does with `store badger` alone")
	}
	if len(s.apiKeys)+len(s.clients) > 0 {
		return demo.Config{}, errors.New("the demo app reads the keys that Lanyard makes itself: leave out api_key and client")
	}
	if apiURL == "" || proxyURL == "" {
		return demo.Config{}, errors.New("the demo app needs lanyard_api and lanyard_proxy in sites with `bind 127.0.0.1`")
	}
	appURL := ""
	for _, u := range s.redirectURLs {
		if base, ok := strings.CutSuffix(u, demoCallback); ok {
			appURL = base
		}
	}
	if appURL == "" {
		return demo.Config{}, errors.New("the demo app needs a redirect_url: its own address, then " + demoCallback)
	}
	cfg := demo.Config{
		ConnectURL: s.publicURL.String(), APIURL: apiURL, ProxyURL: proxyURL, AppURL: appURL,
		Provider: demoProvider(), Link: func(q url.Values) (string, error) { return demoLink(in.signer, q) },
	}
	return cfg, readDemoKeys(&cfg, in.engine.dir)
}

// readDemoKeys reads the keys of a data directory as an app does.
func readDemoKeys(cfg *demo.Config, dir string) error {
	for file, key := range map[string]*string{apiKeyFile: &cfg.APIKey, clientKeyFile: &cfg.ClientKey} {
		b, err := os.ReadFile(filepath.Join(dir, file)) //nolint:gosec // a fixed name in the configured directory
		if err != nil {
			return err
		}
		*key = strings.TrimSpace(string(b))
	}
	return nil
}

// demoLink signs a connect link. It knows the parameters that the demo uses.
func demoLink(signer *connect.Signer, q url.Values) (string, error) {
	for name := range q {
		switch name {
		case "integration", "user_id", "redirect_url", "state", "connection_id":
		default:
			return "", fmt.Errorf("the demo's links have no parameter %q", name)
		}
	}
	return signer.Sign(connect.Params{
		Integration: q.Get("integration"), UserID: q.Get("user_id"), RedirectURL: q.Get("redirect_url"),
		State: q.Get("state"), ConnectionID: q.Get("connection_id"),
	}, time.Now().Add(15*time.Minute)), nil
}

// ServeHTTP implements caddyhttp.MiddlewareHandler.
func (d *Demo) ServeHTTP(w http.ResponseWriter, r *http.Request, _ caddyhttp.Handler) error {
	if !bothEndsLoopback(r) {
		d.logger.Warn("demo refused to a caller that is not on loopback", zap.String("part", d.Part), zap.String("remote", r.RemoteAddr))
		guard.Problem{
			Status: http.StatusForbidden, Code: "not_allowed",
			Detail: "The demo answers on loopback only.",
		}.Write(w)
		return nil
	}
	if p := d.app.wait(r.Context()); p != nil {
		p.Write(w)
		return nil
	}
	d.handler.ServeHTTP(w, r)
	return nil
}

// UnmarshalCaddyfile sets up the handler. Syntax:
//
//	lanyard_demo [<matcher>] provider|app
func (d *Demo) UnmarshalCaddyfile(disp *caddyfile.Dispenser) error {
	disp.Next() // the directive's name
	if err := oneOf(&d.Part, demoPartProvider, demoPartApp)(disp); err != nil {
		return err
	}
	return parseRest(disp, options{})
}

// Interface guards
var (
	_ caddy.Provisioner           = (*Demo)(nil)
	_ caddyhttp.MiddlewareHandler = (*Demo)(nil)
	_ caddyfile.Unmarshaler       = (*Demo)(nil)
)
