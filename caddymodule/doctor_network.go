package caddymodule

import (
	"bytes"
	"cmp"
	"context"
	"crypto/rand"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/caddyserver/caddy/v2"
	"golang.org/x/sync/errgroup"

	"github.com/lanyard-proxy/lanyard/provider"
	"github.com/lanyard-proxy/lanyard/secret"
	"github.com/lanyard-proxy/lanyard/tokenstore"
)

const (
	// probeTime bounds the requests to one provider, endpoint or Lanyard.
	probeTime = 5 * time.Second
	// probesAtOnce bounds those that are under way.
	probesAtOnce = 16
	// maxProbed bounds what is read of an answer, in bytes.
	maxProbed = 64 << 10
	// maxSkew is what expiries and signatures put up with.
	maxSkew = 30 * time.Second
)

// probe is a look at one party over the network. It has findings of its own, so
// that probes can be made at the same time.
type probe struct {
	doctor
	client *http.Client
	name   string // of the integration

	skew     time.Duration // of this machine's clock, against the party's
	skewOf   string        // that party, empty if it did not tell the time
	metadata discovered
}

// discovered is what the doctor wants to know of an authorization server's
// metadata (RFC 8414 section 2).
type discovered struct {
	Issuer string   `json:"issuer"`
	Token  string   `json:"token_endpoint"`
	Scopes []string `json:"scopes_supported"`
}

// checkNetwork asks the providers, the webhooks' endpoints and Lanyard itself.
func (d *doctor) checkNetwork(ctx context.Context) {
	if d.offline {
		return
	}
	var probes []*probe
	var all errgroup.Group
	all.SetLimit(probesAtOnce)
	start := func(allow func(*http.Transport), ask func(context.Context, *probe)) {
		transport := &http.Transport{DisableKeepAlives: true, TLSClientConfig: &tls.Config{MinVersion: tls.VersionTLS12}, MaxResponseHeaderBytes: maxProbed}
		if allow != nil {
			allow(transport)
		}
		p := &probe{client: &http.Client{
			Transport:     transport,
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		}}
		p.lines, p.app, p.settings, p.servers, p.others, p.withheld = d.lines, d.app, d.settings, d.servers, d.others, d.withheld
		probes = append(probes, p)
		all.Go(func() error {
			ctx, cancel := context.WithTimeout(ctx, probeTime)
			defer cancel()
			ask(ctx, p)
			return nil
		})
	}
	network, addr, host := d.api()
	here := func(t *http.Transport) {
		t.DialContext = func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, network, addr)
		}
	}
	if d.mute = addr == ""; !d.mute {
		start(here, func(ctx context.Context, p *probe) { p.askLanyard(ctx, addr, host) })
	}
	if !d.settings.database.IsZero() {
		start(nil, func(ctx context.Context, p *probe) { p.askDatabase(ctx) })
	}
	for i := range d.settings.webhooks {
		start(nil, func(ctx context.Context, p *probe) { p.askWebhook(ctx, i) })
	}
	for _, name := range slices.Sorted(maps.Keys(d.settings.integrations)) {
		entry, err := d.app.entry(d.settings.integrations[name].providerName)
		if err != nil {
			continue
		}
		if _, own := d.app.Providers[d.settings.integrations[name].providerName]; own {
			entry = (&resolver{repl: caddy.NewReplacer()}).entry(entry)
		}
		guarded := func(t *http.Transport) { t.DialContext = provider.DialContext(entry.AllowPrivate) }
		start(guarded, func(ctx context.Context, p *probe) { p.askProvider(ctx, name, &entry) })
	}
	_ = all.Wait() // they have no errors, but findings
	for _, p := range probes {
		d.findings = append(d.findings, p.findings...)
		d.answers, d.mute = d.answers || p.answers, d.mute || p.mute
	}
	d.checkClock(probes)
}

// checkClock takes the word of the provider that agrees best with this machine:
// another one may be wrong itself.
func (d *doctor) checkClock(probes []*probe) {
	var best *probe
	for _, p := range probes {
		if p.skewOf != "" && (best == nil || p.skew.Abs() < best.skew.Abs()) {
			best = p
		}
	}
	switch {
	case best == nil:
	case best.skew.Abs() > maxSkew:
		way := "ahead of"
		if best.skew < 0 {
			way = "behind"
		}
		d.problem("clock", "clock_skew", "", fmt.Sprintf("this machine's clock is %s %s %s", best.skew.Abs().Round(time.Second), way, best.skewOf), "set it by NTP: expiries and signatures depend on it")
	default:
		d.ok("clock", "clock_skew", fmt.Sprintf("within %s of %s", max(best.skew.Abs().Round(time.Second), time.Second), best.skewOf))
	}
}

// answer is what came back.
type answer struct {
	status   int
	location string
	body     []byte // its beginning
}

// ask makes a request. Its error does not hold the URL.
func (p *probe) ask(ctx context.Context, method, rawURL string) (answer, error) {
	req, err := http.NewRequestWithContext(ctx, method, rawURL, http.NoBody)
	if err != nil {
		return answer{}, errors.New("it is not a URL")
	}
	req.Header.Set("User-Agent", "lanyard-doctor")
	begun := time.Now()
	res, err := p.client.Do(req)
	if err != nil {
		return answer{}, errors.New(reason(err))
	}
	defer func() { _ = res.Body.Close() }()
	if date, err := http.ParseTime(res.Header.Get("Date")); err == nil && res.Header.Get("Age") == "" && p.name != "" {
		// Dates are whole seconds: half of one is the best guess.
		p.skew, p.skewOf = begun.Add(time.Since(begun)/2).Sub(date.Add(500*time.Millisecond)), req.URL.Host
	}
	body, err := io.ReadAll(io.LimitReader(res.Body, maxProbed))
	if err != nil {
		return answer{}, errors.New(reason(err))
	}
	return answer{status: res.StatusCode, location: res.Header.Get("Location"), body: body}, nil
}

// askWebhook looks whether something answers at an endpoint. It gets no event.
func (p *probe) askWebhook(ctx context.Context, i int) {
	e := p.settings.webhooks[i]
	if e.URL == "" {
		return
	}
	group := fmt.Sprintf("webhook %d", i+1)
	a, err := p.ask(ctx, http.MethodHead, e.URL)
	switch {
	case err != nil:
		p.warning(group, "webhook_silent", p.place(option{"webhook", i}), "its endpoint does not answer: "+err.Error(), "start the app, or correct the URL; webhooks wait for 28 hours")
	case a.status == http.StatusNotFound || a.status >= 500:
		p.warning(group, "webhook_silent", p.place(option{"webhook", i}), fmt.Sprintf("its endpoint answers %d to HEAD", a.status), "see that the app takes POST there")
	default:
		p.ok(group, "webhook", "its endpoint answers")
	}
}

// askProvider looks at a provider as far as it can be asked without a user.
func (p *probe) askProvider(ctx context.Context, name string, e *provider.Entry) {
	p.name = name
	in := p.settings.integrations[name]
	if e.Issuer != "" && (e.TokenURL == "" || e.AuthorizeURL == "") && !p.discover(ctx, e) {
		return
	}
	if token := cmp.Or(e.TokenURL, p.metadata.Token); token != "" && !strings.Contains(token, "{") && in.Scheme() != tokenstore.AuthAPIKey {
		if !p.askToken(ctx, token) {
			return
		}
	}
	if slices.Contains(p.metadata.Scopes, offlineScope) && !slices.Contains(in.scopes, offlineScope) && !slices.Contains(e.Scopes, offlineScope) && in.Scheme() == tokenstore.AuthOAuth2 {
		p.lacksOffline(name, offlineScope)
	}
	if in.Scheme() == tokenstore.AuthOAuth2 && !p.withheld[name] && p.settings.publicURL.Host != noPublicURL {
		p.askAuthorize(ctx, in)
	}
}

// providerAt returns where an option of the integration's provider is, the
// integration if the provider is the catalogue's.
func (p *probe) providerAt(option string) string {
	name := p.settings.integrations[p.name].providerName
	if _, own := p.app.Providers[name]; own {
		return p.at("provider "+name, option)
	}
	return p.at("integration " + p.name)
}

// servedHere reports whether a provider that does not answer is one that this
// configuration itself serves, once it runs, and says so.
func (p *probe) servedHere(u *url.URL) bool {
	here := u != nil && isLoopback(u.Hostname()) && slices.ContainsFunc(p.others, func(s server) bool { return s.listensAt(portOf(u.Scheme + "://" + u.Host)) })
	if here {
		p.add("integration "+p.name, "provider_here", levelInfo, "", "its provider is served by this configuration, which does not run", "")
	}
	return here
}

// discover reads the provider's metadata, and reports whether it is there.
func (p *probe) discover(ctx context.Context, e *provider.Entry) bool {
	group, place := "integration "+p.name, p.providerAt("issuer")
	u, err := url.Parse(e.Issuer)
	if err != nil {
		return false // said before
	}
	origin, path := u.Scheme+"://"+u.Host, strings.TrimSuffix(u.EscapedPath(), "/")
	var last string
	for _, at := range []string{origin + path + "/.well-known/openid-configuration", origin + "/.well-known/oauth-authorization-server" + path} {
		a, err := p.ask(ctx, http.MethodGet, at)
		if err != nil && p.servedHere(u) {
			return false
		}
		if err != nil {
			last = err.Error()
			break // the other one is on the same host
		}
		var found discovered
		if a.status != http.StatusOK || json.Unmarshal(a.body, &found) != nil {
			last = fmt.Sprintf("%s answers %d", at, a.status)
			continue
		}
		// RFC 8414 section 3.3: "The issuer value returned MUST be identical".
		if found.Issuer != e.Issuer {
			p.problem(group, "issuer_mismatch", place, fmt.Sprintf("the provider calls itself %q, not %q", found.Issuer, e.Issuer), "write the issuer exactly as the provider does")
			return false
		}
		p.metadata = found
		return true
	}
	p.problem(group, "discovery_failed", place, fmt.Sprintf("nothing is discovered at %s: %s", e.Issuer, last), "correct the issuer, allow outgoing HTTPS to it, or write authorize_url and token_url")
	return false
}

// askToken reports whether the token endpoint answers. It is asked for nothing:
// any answer will do, and 405 is expected.
func (p *probe) askToken(ctx context.Context, token string) bool {
	group, host := "integration "+p.name, token
	u, err := url.Parse(token)
	if err == nil {
		host = u.Host
	}
	a, err := p.ask(ctx, http.MethodGet, token)
	if err != nil && p.servedHere(u) {
		return false
	}
	if err != nil {
		p.problem(group, "token_unreachable", p.providerAt("token_url"), fmt.Sprintf("the token endpoint at %s can't be reached: %s", host, err),
			"allow outgoing HTTPS to "+host+", or correct token_url")
		return false
	}
	p.ok(group, "token_endpoint", fmt.Sprintf("the token endpoint at %s answers (%d to GET)", host, a.status))
	return true
}

// askAuthorize begins an authorization that nobody will go on with. A provider
// that does not know the client or the redirect URI must not send the browser
// back (RFC 6749 section 4.1.2.1), but says so on a page of its own; else it
// asks the user to log in.
func (p *probe) askAuthorize(ctx context.Context, in *integration) {
	group := "integration " + p.name
	link, err := in.AuthorizeURL(ctx, secret.New(rand.Text()), secret.New(rand.Text()+rand.Text()), in.scopes)
	if err != nil {
		p.problem(group, "discovery_failed", p.at("integration "+p.name), err.Error(), "correct the issuer, or write authorize_url and token_url")
		return
	}
	a, err := p.ask(ctx, http.MethodGet, link)
	if err != nil {
		p.warning(group, "authorize_unreachable", p.at("integration "+p.name), "the authorization endpoint can't be reached from here: "+err.Error(), "see that browsers reach it")
		return
	}
	var code string // of the error, if the provider sends the browser back with one
	to, err := url.Parse(a.location)
	back := err == nil && strings.HasPrefix(a.location, in.callbackURL)
	if back {
		code = to.Query().Get("error")
	}
	mismatch := !back && (bytes.Contains(a.body, []byte("redirect_uri_mismatch")) || strings.Contains(a.location, "redirect_uri_mismatch"))
	switch {
	case mismatch || a.status == http.StatusBadRequest || a.status == http.StatusNotFound:
		p.problem(group, "redirect_uri", p.at("integration "+p.name, "client_id"), fmt.Sprintf("the provider does not know this client ID, or not with this redirect URI (HTTP %d)", a.status),
			"register exactly "+in.callbackURL+" for this client")
	case code == "invalid_scope":
		p.problem(group, "unknown_scope", p.at("integration "+p.name, "scopes"), "the provider refuses the scopes (invalid_scope)", "ask for scopes that the client may have")
	case slices.Contains([]string{"unauthorized_client", "unsupported_response_type", "invalid_request"}, code):
		p.problem(group, "authorization_refused", p.at("integration "+p.name), "the provider refuses the request: "+code, "see what the provider's settings allow this client")
	default:
		p.ok(group, "redirect_uri", "the provider takes an authorization request")
	}
}
