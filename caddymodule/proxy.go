package caddymodule

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"github.com/caddyserver/caddy/v2/caddyconfig/httpcaddyfile"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp/reverseproxy"
	"github.com/dustin/go-humanize"
	"go.uber.org/zap"

	"github.com/lanyard-proxy/lanyard/proxy"
	"github.com/lanyard-proxy/lanyard/tokenstore"
)

func init() {
	caddy.RegisterModule(Proxy{})
	httpcaddyfile.RegisterDirective("lanyard_proxy", parseProxy)
}

// Proxy is the app's way to the providers' APIs: a request that names a
// connection goes out with that connection's token. It answers every request
// it gets.
type Proxy struct {
	Local

	// Whether no key is asked for: on a unix socket, or where both ends of the
	// TCP connection are on loopback and no other proxy is between.
	Open bool `json:"open,omitempty"`
	// Whether a request may name its connection by the path `/c/conn_…/rest`.
	Path bool `json:"path,omitempty"`
	// `off` leaves `Link`, `Location` and `Content-Location` as the provider
	// wrote them. Default: those that point at its API are turned back here.
	Links string `json:"links,omitempty"`
	// The only integration whose connections may be named. Default: any.
	Integration string `json:"integration,omitempty"`
	// What is taken off the path, which must begin with it: same case, at a
	// segment boundary, as it came. Default: nothing.
	Prefix string `json:"prefix,omitempty"`
	// `on` masks the token with asterisks where an upstream echoes it: in the
	// values of headers, and in the first MiB of a text that is not compressed.
	// `Accept-Encoding` is not sent on then.
	Scrub string `json:"scrub,omitempty"`
	// How many bytes of a request body are kept for sending it again after a
	// 401. Default: 1 MiB.
	Spool int64 `json:"spool,omitempty"`
	// How upstreams are reached, in the options of Caddy's own HTTP transport.
	// Differences: no compression, up to 1024 idle connections to each host,
	// and no proxy unless `network_proxy` names one.
	Transport *reverseproxy.HTTPTransport `json:"transport,omitempty"`

	app       *App
	handler   *proxy.Handler // set once the app has started
	upstreams *upstreams
	addrs     []caddy.NetworkAddress
	logger    *zap.Logger
}

// CaddyModule returns the Caddy module information.
func (Proxy) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "http.handlers.lanyard_proxy", New: func() caddy.Module { return new(Proxy) }}
}

// Provision finds the app and sets up the transport.
func (p *Proxy) Provision(ctx caddy.Context) error {
	p.logger = ctx.Logger()
	app, err := appOf(ctx, "lanyard_proxy")
	if err != nil {
		return err
	}
	p.addrs = listeners(ctx)
	if err := errors.Join(app.hasIntegration(p.Integration), p.check(), p.checkOptions(), p.checkLoop(app.settings)); err != nil {
		return fmt.Errorf("lanyard_proxy: %w", err)
	}
	if p.upstreams, err = newUpstreams(ctx, p.Transport, app.settings); err != nil {
		return fmt.Errorf("lanyard_proxy: transport: %w", err)
	}
	p.app = app
	app.proxyURL = cmp.Or(app.proxyURL, loopbackURL(p.addrs))
	app.onStart = append(app.onStart, p.start)
	return nil
}

func (p *Proxy) checkOptions() error {
	switch {
	case p.Links != "" && p.Links != "off":
		return fmt.Errorf("links %q is not known; it is `off` or left out", p.Links)
	case p.Scrub != "" && p.Scrub != "on":
		return fmt.Errorf("scrub %q is not known; it is `on` or left out", p.Scrub)
	case p.Prefix != "" && (p.Prefix[0] != '/' || strings.HasSuffix(p.Prefix, "/")):
		return fmt.Errorf("prefix %q does not begin with a slash, or ends with one; it is such as `/github`", p.Prefix)
	case p.Spool < 0:
		return fmt.Errorf("spool %d is negative", p.Spool)
	}
	return nil
}

// checkLoop refuses an API that is this proxy itself where nothing else would
// stop a request that goes round: its path names the connection each time, and
// no key is asked for.
func (p *Proxy) checkLoop(s *settings) error {
	if !p.Open || !p.Path {
		return nil
	}
	for _, name := range slices.Sorted(maps.Keys(s.integrations)) {
		for _, host := range s.integrations[name].PrivateHosts() {
			for _, a := range p.addrs {
				if u := (&url.URL{Host: host}); isLoopback(u.Hostname()) && u.Port() == strconv.FormatUint(uint64(a.StartPort), 10) {
					return fmt.Errorf("the API of integration %s, %s, is where this proxy listens", name, host)
				}
			}
		}
	}
	return nil
}

func (p *Proxy) start(in *instance) error {
	cfg := in.proxyConfig(p.upstreams, p.logger)
	cfg.Open, cfg.Path, cfg.KeepLinks = p.Open, p.Path, p.Links == "off"
	cfg.Integration, cfg.Prefix, cfg.Spool, cfg.Scrub = p.Integration, p.Prefix, p.Spool, p.Scrub == "on"
	cfg.Local = p.guard()
	warnIfReachable(p.addrs, "lanyard_proxy", p.logger)
	warnIfInsecure(p.Transport, p.logger)
	var err error
	if p.handler, err = proxy.New(cfg); err != nil {
		return err
	}
	in.proxies = append(in.proxies, p.handler)
	return nil
}

// Cleanup closes the idle connections.
func (p *Proxy) Cleanup() error {
	p.upstreams.CloseIdleConnections()
	return nil
}

// proxyConfig is what every proxy of this configuration has in common.
func (in *instance) proxyConfig(rt http.RoundTripper, logger *zap.Logger) proxy.Config {
	return proxy.Config{
		Grants: in.engine.refresher, Upstream: in.upstreams.of, Clients: in.clients, APIKeys: in.apiKeys,
		Brake: in.engine.brake, Audit: in.engine.audit, Metrics: in.engine.metrics,
		Transport: rt, ConnectURL: in.connectURL, Logger: logger,
	}
}

// connectURL implements proxy.Config.ConnectURL.
func (in *instance) connectURL(ctx context.Context, g *tokenstore.Grant, scopes []string) string {
	c, err := in.engine.refresher.Store().Connection(ctx, g.ConnectionID)
	if err != nil || c.Disabled || (len(scopes) == 0 && !c.Connectable()) ||
		(len(scopes) > 0 && cmp.Or(c.AuthScheme, tokenstore.AuthOAuth2) != tokenstore.AuthOAuth2) { // which has no scopes to ask for
		return ""
	}
	link, _ := in.signer.Link(c, c.ReturnTo(in.settings.redirectURLs), "", scopes, false)
	return link
}

// ServeHTTP implements caddyhttp.MiddlewareHandler.
func (p *Proxy) ServeHTTP(w http.ResponseWriter, r *http.Request, _ caddyhttp.Handler) error {
	if problem := p.app.wait(r.Context()); problem != nil {
		problem.Write(w)
		return nil
	}
	p.handler.ServeHTTP(w, r)
	return nil
}

// parseProxy reads the directive. With an integration a path matcher is the
// prefix to take off.
func parseProxy(h httpcaddyfile.Helper) ([]httpcaddyfile.ConfigValue, error) {
	h.Next() // the directive's name
	matcher := ""
	if h.NextArg() {
		matcher = h.Val()
		h.Prev()
	}
	set, err := h.ExtractMatcherSet()
	if err != nil {
		return nil, err
	}
	p := new(Proxy)
	if err := p.UnmarshalCaddyfile(h.Dispenser); err != nil {
		return nil, err
	}
	if p.Integration != "" && strings.HasPrefix(matcher, "/") {
		prefix, ok := strings.CutSuffix(matcher, "/*")
		if !ok || strings.ContainsAny(prefix, "*%{") || strings.HasSuffix(prefix, "/") {
			return nil, h.Errf("%s can't be taken off the path: with an integration the matcher is a prefix such as /%s/*", matcher, p.Integration)
		}
		if p.Prefix = prefix; prefix != "" {
			set = caddy.ModuleMap{"path": h.JSON(caddyhttp.MatchPath{prefix, prefix + "/*"})}
		}
	}
	return h.NewRoute(set, p), nil
}

// UnmarshalCaddyfile sets up the handler. Syntax:
//
//	lanyard_proxy [<matcher>] [<integration>] {
//		open
//		path
//		links off
//		scrub on
//		names <hosts...>
//		allow_origin <origins...>
//		spool <size>
//		transport {
//			<options of Caddy's HTTP transport>
//		}
//	}
//
// With an integration, a matcher such as `/github/*` is taken off the path.
func (p *Proxy) UnmarshalCaddyfile(d *caddyfile.Dispenser) error {
	d.Next() // the directive's name
	if d.NextArg() {
		p.Integration = d.Val()
	}
	opts := p.options()
	opts["open"] = flag(&p.Open)
	opts["path"] = flag(&p.Path)
	opts["links"] = oneOf(&p.Links, "off")
	opts["scrub"] = oneOf(&p.Scrub, "on")
	opts["spool"] = p.parseSpool
	opts["transport"] = p.parseTransport
	return parseRest(d, opts)
}

func (p *Proxy) parseSpool(d *caddyfile.Dispenser) error {
	args, err := arguments(d, "a size such as 1MiB")
	if err != nil {
		return err
	}
	size, err := humanize.ParseBytes(args[0])
	if err != nil || size == 0 || size > 1<<30 {
		return d.Errf("spool %q is not a size such as 1MiB, at most 1GiB", args[0])
	}
	p.Spool = int64(size)
	return nil
}

func (p *Proxy) parseTransport(d *caddyfile.Dispenser) error {
	if p.Transport != nil {
		return twice(d)
	}
	p.Transport = new(reverseproxy.HTTPTransport)
	return p.Transport.UnmarshalCaddyfile(d.NewFromNextSegment())
}

// Interface guards
var (
	_ caddy.Provisioner           = (*Proxy)(nil)
	_ caddy.CleanerUpper          = (*Proxy)(nil)
	_ caddyhttp.MiddlewareHandler = (*Proxy)(nil)
	_ caddyfile.Unmarshaler       = (*Proxy)(nil)
)
