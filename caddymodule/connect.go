package caddymodule

import (
	"net/http"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"github.com/caddyserver/caddy/v2/caddyconfig/httpcaddyfile"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
)

func init() {
	caddy.RegisterModule(Connect{})
	httpcaddyfile.RegisterHandlerDirective("lanyard_connect", func(h httpcaddyfile.Helper) (caddyhttp.MiddlewareHandler, error) {
		c := new(Connect)
		return c, c.UnmarshalCaddyfile(h.Dispenser)
	})
	// Each call puts its directive right before reverse_proxy, behind those of
	// the calls before it.
	for _, directive := range []string{"lanyard_connect", "lanyard_api", "lanyard_proxy", "lanyard_demo"} {
		httpcaddyfile.RegisterDirectiveOrder(directive, httpcaddyfile.Before, "reverse_proxy")
	}
}

// Connect serves the browser's side of Lanyard: the connect flow and its
// pages, under `{path of public_url}/connect` and `/callback/…`. It passes
// everything else on, so that it may stand beside an app's own handlers.
type Connect struct{ app *App }

// CaddyModule returns the Caddy module information.
func (Connect) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "http.handlers.lanyard_connect", New: func() caddy.Module { return new(Connect) }}
}

// Provision finds the app.
func (c *Connect) Provision(ctx caddy.Context) error {
	var err error
	c.app, err = appOf(ctx, "lanyard_connect")
	return err
}

// ServeHTTP implements caddyhttp.MiddlewareHandler.
func (c *Connect) ServeHTTP(w http.ResponseWriter, r *http.Request, next caddyhttp.Handler) error {
	if p := c.app.wait(r.Context()); p != nil {
		p.Write(w)
		return nil
	}
	h, came := c.app.instance.connect, asItCame(r)
	if !h.Handles(came) {
		return next.ServeHTTP(w, r)
	}
	h.ServeHTTP(w, came)
	return nil
}

// clientIP returns the address of the browser as Caddy's trusted_proxies make
// it out, empty if there is none.
func clientIP(r *http.Request) string {
	ip, _ := caddyhttp.GetVar(r.Context(), caddyhttp.ClientIPVarKey).(string)
	return ip
}

// asItCame returns r with the target of its request line, whatever rewrite or
// handle_path have made of it: links are signed, and redirect URIs registered,
// with the path of public_url.
func asItCame(r *http.Request) *http.Request {
	line, ok := r.Context().Value(caddyhttp.OriginalRequestCtxKey).(http.Request)
	if !ok || line.RequestURI == r.RequestURI {
		return r
	}
	came := r.WithContext(r.Context())
	came.RequestURI, came.URL = line.RequestURI, line.URL
	return came
}

// UnmarshalCaddyfile sets up the handler. Syntax:
//
//	lanyard_connect [<matcher>]
func (*Connect) UnmarshalCaddyfile(d *caddyfile.Dispenser) error {
	d.Next() // the directive's name
	return parseRest(d, options{})
}

// Interface guards
var (
	_ caddy.Provisioner           = (*Connect)(nil)
	_ caddyhttp.MiddlewareHandler = (*Connect)(nil)
	_ caddyfile.Unmarshaler       = (*Connect)(nil)
)
