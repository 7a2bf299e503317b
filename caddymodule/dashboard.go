package caddymodule

import (
	"crypto/tls"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"unicode"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"github.com/caddyserver/caddy/v2/caddyconfig/httpcaddyfile"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"go.uber.org/zap"

	"github.com/lanyard-proxy/lanyard/dashboard"
	"github.com/lanyard-proxy/lanyard/tokenstore"
)

func init() {
	caddy.RegisterModule(Dashboard{})
	httpcaddyfile.RegisterDirective("lanyard_dashboard", parseDashboard)
	httpcaddyfile.RegisterDirectiveOrder("lanyard_dashboard", httpcaddyfile.Before, "reverse_proxy")
}

// Dashboard is the operator's view of all connections. It answers every request
// it gets, of somebody whom the handlers before it have authenticated; without
// such a handler only requests of this machine itself.
type Dashboard struct {
	// The placeholder that says who is asking, once they are authenticated:
	// `{http.reverse_proxy.header.…}` behind `forward_auth`,
	// `{http.request.tls.client.…}` with client certificates that are verified,
	// or a `{http.vars.…}`. Default: `{http.auth.user.id}`, which Caddy's
	// authentication handlers set, such as `basic_auth`.
	User string `json:"user,omitempty"`
	// What stands before the dashboard's own paths, such as `/admin`.
	// Default: nothing.
	Prefix string `json:"prefix,omitempty"`

	user    string // User without its braces
	app     *App
	handler *dashboard.Handler // set once the app has started
	logger  *zap.Logger
}

// CaddyModule returns the Caddy module information.
func (Dashboard) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "http.handlers.lanyard_dashboard", New: func() caddy.Module { return new(Dashboard) }}
}

// Provision finds the app.
func (d *Dashboard) Provision(ctx caddy.Context) error {
	d.logger = ctx.Logger()
	app, err := appOf(ctx, "lanyard_dashboard")
	if err != nil {
		return err
	}
	if d.user, err = userPlaceholder(d.User); err != nil {
		return fmt.Errorf("lanyard_dashboard: user: %w", err)
	}
	if d.Prefix != "" && (d.Prefix[0] != '/' || strings.HasSuffix(d.Prefix, "/")) {
		return fmt.Errorf("lanyard_dashboard: prefix %q does not begin with a slash, or ends with one; it is such as `/admin`", d.Prefix)
	}
	d.app = app
	if srv, ok := ctx.Value(caddyhttp.ServerCtxKey).(*caddyhttp.Server); ok {
		// A server waits for the end of its answers before anything is cleaned up.
		srv.RegisterOnShutdown(d.endStreams)
	}
	app.onStart = append(app.onStart, d.start)
	return nil
}

// defaultUser is what Caddy's authentication handlers set.
const defaultUser = "http.auth.user.id"

// The beginnings of placeholders.
const (
	phAuthHeader = "http.reverse_proxy.header." // of the answer that forward_auth got
	phRequest    = "http.request.header."       // what anybody can send
	phClientCert = "http.request.tls.client."
)

// userPlaceholder returns the placeholder's name. Those that a client can set by
// itself are refused: whoever reached the dashboard by a way around the
// authentication would be whom they say.
func userPlaceholder(text string) (string, error) {
	if text == "" {
		return defaultUser, nil
	}
	name, ok := strings.CutPrefix(text, "{")
	name, end := strings.CutSuffix(name, "}")
	if !ok || !end || strings.ContainsAny(name, "{} ") {
		return "", fmt.Errorf("%q is not one placeholder such as {%s}", text, defaultUser)
	}
	if header, ok := strings.CutPrefix(name, phAuthHeader); ok {
		return phAuthHeader + http.CanonicalHeaderKey(header), nil
	}
	if header, ok := strings.CutPrefix(name, phRequest); ok {
		return "", fmt.Errorf("%s is a header that any client can send; behind forward_auth, what its answer says is {%s%s}", text, phAuthHeader, header)
	}
	for _, prefix := range []string{"http.auth.user.", phClientCert, "http.vars."} {
		if rest, ok := strings.CutPrefix(name, prefix); ok && rest != "" {
			return name, nil
		}
	}
	return "", fmt.Errorf("%s does not say who was authenticated; it is {%s}, {%s…}, {%s…} or {http.vars.…}", text, defaultUser, phAuthHeader, phClientCert)
}

func (d *Dashboard) start(in *instance) error {
	integrations := map[string]dashboard.Integration{}
	for name, i := range in.settings.integrations {
		integrations[name] = dashboard.Integration{Title: i.Title(), Scheme: i.Scheme(), ScopeText: i.ScopeText, Hosts: i.allowedHosts}
	}
	var err error
	d.handler, err = dashboard.New(dashboard.Config{
		Store: in.engine.refresher.Store(), Refresher: in.engine.refresher, Links: in.signer, Revoker: in.engine.revoker,
		Audit: in.engine.audit, Integrations: integrations, RedirectURLs: in.settings.redirectURLs,
		Key: in.apiKeys[0].Value, Brand: in.settings.brand, Logger: d.logger,
	})
	if err != nil {
		return err
	}
	in.closers = append(in.closers, d.handler.Close)
	return nil
}

// allowedHosts returns the hosts that may see the credential t of a connection
// with these parameters, or as a code why they are not known.
func (i *integration) allowedHosts(params map[string]string, t *tokenstore.Token) (hosts []string, reason string) {
	p, err := i.For(params)
	if err != nil {
		return nil, tokenstore.ReasonInvalidParameter
	}
	if p, err = p.With(t); err != nil {
		return nil, tokenstore.ReasonAPIUnknown
	}
	return append([]string{p.API().Host}, p.Hosts()...), ""
}

// endStreams ends the answers that have no end of their own.
func (d *Dashboard) endStreams() {
	select {
	case <-d.app.started:
		if d.handler != nil {
			d.handler.EndStreams()
		}
	default: // none has begun
	}
}

// ServeHTTP implements caddyhttp.MiddlewareHandler.
func (d *Dashboard) ServeHTTP(w http.ResponseWriter, r *http.Request, next caddyhttp.Handler) error {
	if p := d.app.wait(r.Context()); p != nil {
		p.Write(w)
		return nil
	}
	below, ok := strings.CutPrefix(r.URL.EscapedPath(), d.Prefix)
	if !ok || below != "" && below[0] != '/' {
		return next.ServeHTTP(w, r)
	}
	user, err := d.whoAsks(r)
	if err != nil {
		d.logger.Warn("who asks for the dashboard is not usable", zap.Error(err))
	}
	d.handler.Serve(w, r, below, dashboard.Visitor{Name: user, Local: d.User == "" && user == "" && err == nil})
	return nil
}

// maxUser bounds the name of an operator, in bytes.
const maxUser = 256

// whoAsks returns the user that the authentication has found out, empty if there
// is none.
func (d *Dashboard) whoAsks(r *http.Request) (string, error) {
	repl, ok := r.Context().Value(caddy.ReplacerCtxKey).(*caddy.Replacer)
	if !ok {
		return "", errors.New("no placeholders")
	}
	user, _ := repl.GetString(d.user)
	switch {
	case user == "":
		return "", nil
	case strings.HasPrefix(d.user, phClientCert) && !verified(r.TLS):
		return "", errors.New("the client's certificate was not verified: client_auth needs a mode that verifies, such as require_and_verify")
	case len(user) > maxUser || strings.ContainsFunc(user, unicode.IsControl):
		return "", errors.New("the name is too long, or has control characters in it")
	}
	return user, nil
}

func verified(state *tls.ConnectionState) bool { return state != nil && len(state.VerifiedChains) > 0 }

// parseDashboard reads the directive. A path matcher is the prefix.
func parseDashboard(h httpcaddyfile.Helper) ([]httpcaddyfile.ConfigValue, error) {
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
	d := new(Dashboard)
	if err := d.UnmarshalCaddyfile(h.Dispenser); err != nil {
		return nil, err
	}
	if strings.HasPrefix(matcher, "/") {
		prefix, ok := strings.CutSuffix(matcher, "/*")
		if !ok || strings.ContainsAny(prefix, "*%{") || strings.HasSuffix(prefix, "/") || (&url.URL{Path: prefix}).EscapedPath() != prefix {
			return nil, h.Errf("%s can't be where the dashboard is: the matcher is a prefix such as /admin/*", matcher)
		}
		if d.Prefix = prefix; prefix != "" {
			set = caddy.ModuleMap{"path": h.JSON(caddyhttp.MatchPath{prefix, prefix + "/*"})}
		}
	}
	return h.NewRoute(set, d), nil
}

// UnmarshalCaddyfile sets up the handler. Syntax:
//
//	lanyard_dashboard [<matcher>] {
//		user <placeholder>
//	}
//
// A matcher such as `/admin/*` says where the dashboard is.
func (d *Dashboard) UnmarshalCaddyfile(disp *caddyfile.Dispenser) error {
	disp.Next() // the directive's name
	return parseRest(disp, options{"user": func(disp *caddyfile.Dispenser) error {
		if err := once(&d.User)(disp); err != nil {
			return err
		}
		if _, err := userPlaceholder(d.User); err != nil {
			return disp.Errf("user: %w", err)
		}
		return nil
	}})
}

// Interface guards
var (
	_ caddy.Provisioner           = (*Dashboard)(nil)
	_ caddyhttp.MiddlewareHandler = (*Dashboard)(nil)
	_ caddyfile.Unmarshaler       = (*Dashboard)(nil)
)
