package caddymodule

import (
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp/reverseproxy"
	"go.uber.org/zap"

	"github.com/lanyard-proxy/lanyard/guard"
	"github.com/lanyard-proxy/lanyard/internal/nearest"
	"github.com/lanyard-proxy/lanyard/proxy"
)

func init() { caddy.RegisterModule(Transport{}) }

// Transport is `lanyard_proxy` for a `reverse_proxy` of your own: it
// authenticates the caller, finds the connection that the request names and
// attaches its token, if the upstream is that connection's API. The options of
// Caddy's HTTP transport are there beside its own; they differ as in
// `lanyard_proxy`.
type Transport struct {
	// Origins whose web pages may call, such as `https://app.example.com`.
	AllowOrigin []string `json:"allow_origin,omitempty"`
	// Whether no key is asked for where nobody else can call.
	Open bool `json:"open,omitempty"`
	// The only integration whose connections may be named. Default: any.
	Integration string `json:"integration,omitempty"`

	reverseproxy.HTTPTransport

	app       *App
	rt        *proxy.Transport // set once the app has started
	upstreams *upstreams
	logger    *zap.Logger
}

// CaddyModule returns the Caddy module information.
func (Transport) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "http.reverse_proxy.transport.lanyard", New: func() caddy.Module { return new(Transport) }}
}

// Provision finds the app and sets up the connections.
func (t *Transport) Provision(ctx caddy.Context) error {
	t.logger = ctx.Logger()
	app, err := appOf(ctx, "the transport lanyard")
	if err != nil {
		return err
	}
	if err := errors.Join(app.hasIntegration(t.Integration), Local{AllowOrigin: t.AllowOrigin}.check()); err != nil {
		return fmt.Errorf("the transport lanyard: %w", err)
	}
	if t.upstreams, err = newUpstreams(ctx, &t.HTTPTransport, app.settings); err != nil {
		return fmt.Errorf("the transport lanyard: %w", err)
	}
	t.app = app
	app.onStart = append(app.onStart, t.start)
	return nil
}

func (t *Transport) start(in *instance) error {
	cfg := in.proxyConfig(t.upstreams, t.logger)
	cfg.Open, cfg.Integration = t.Open, t.Integration
	cfg.Local = guard.Local{AllowOrigin: t.AllowOrigin}
	warnIfInsecure(&t.HTTPTransport, t.logger)
	var err error
	t.rt, err = proxy.NewTransport(cfg)
	return err
}

// Cleanup closes the idle connections.
func (t *Transport) Cleanup() error {
	t.upstreams.CloseIdleConnections()
	return nil
}

// RoundTrip implements http.RoundTripper.
func (t *Transport) RoundTrip(r *http.Request) (*http.Response, error) {
	if p := t.app.wait(r.Context()); p != nil {
		// An error counts as the upstream's failure, which does no harm in a
		// configuration that will never be in force.
		return nil, fmt.Errorf("lanyard: %s", p.Detail)
	}
	return t.rt.RoundTrip(r)
}

// UnmarshalCaddyfile sets up the transport. Syntax:
//
//	transport lanyard {
//		integration <name>
//		open
//		allow_origin <origins...>
//		<options of Caddy's HTTP transport>
//	}
func (t *Transport) UnmarshalCaddyfile(d *caddyfile.Dispenser) error {
	d.Next() // the transport's name
	name := d.Token()
	if d.NextArg() {
		return d.Errf("unexpected %q after lanyard", d.Val())
	}
	own := options{"integration": once(&t.Integration), "open": flag(&t.Open), "allow_origin": list(&t.AllowOrigin, checkOrigin)}
	var rest caddyfile.Segment
	for nesting := d.Nesting(); d.NextBlock(nesting); {
		parse, ok := own[d.Val()]
		if !ok {
			if words := slices.Collect(maps.Keys(own)); nearest.Word(d.Val(), words) != "" {
				return unrecognized(d, "option", words)
			}
			rest = append(rest, d.NextSegment()...)
			continue
		}
		if err := parseOption(d, parse); err != nil {
			return err
		}
	}
	if len(rest) == 0 {
		return nil
	}
	open, end := rest[0], rest[len(rest)-1]
	open.Text, open.Line = "{", name.Line
	end.Text, end.Line = "}", end.Line+1
	segment := append(caddyfile.Segment{name, open}, rest...)
	return t.HTTPTransport.UnmarshalCaddyfile(caddyfile.NewDispenser(append(segment, end)))
}

// Interface guards
var (
	_ caddy.Provisioner                      = (*Transport)(nil)
	_ caddy.CleanerUpper                     = (*Transport)(nil)
	_ http.RoundTripper                      = (*Transport)(nil)
	_ caddyfile.Unmarshaler                  = (*Transport)(nil)
	_ reverseproxy.TLSTransport              = (*Transport)(nil)
	_ reverseproxy.RequestHeaderOpsTransport = (*Transport)(nil)
)
