package caddymodule

import (
	"cmp"
	"errors"
	"fmt"
	"net/url"
	"slices"

	"github.com/caddyserver/caddy/v2"

	"github.com/lanyard-proxy/lanyard/provider"
	"github.com/lanyard-proxy/lanyard/tokenstore"
)

// unknownHere stands for a value that only Lanyard's own environment has.
const unknownHere = "unknown-here"

// offlineScope asks an OpenID provider for a refresh token (OpenID Connect Core
// 1.0 section 11).
const offlineScope = "offline_access"

// checkIntegration resolves an integration. Where its client can't be known
// here, the rest is checked all the same.
func (d *doctor) checkIntegration(name string) {
	group, at := "integration "+name, func(option string) string { return d.at("integration "+name, option) }
	c := d.app.Integrations[name]
	if c == nil {
		d.problem(group, "integration_invalid", at(""), "it is empty", "give it a client_id")
		return
	}
	providerName := cmp.Or(c.Provider, name)
	entry, err := d.app.entry(providerName)
	if err != nil {
		d.problem(group, "provider_unknown", at("provider"), err.Error(), "name a provider of the catalogue (docs/providers.md), or describe it")
		return
	}
	sound := true
	for _, u := range []string{entry.Issuer, entry.AuthorizeURL, entry.TokenURL, entry.RevokeURL, entry.APIURL} {
		sound = d.known(group, u, d.at("provider "+providerName)) && sound
	}
	reduced := *c
	if _, ok := d.resolve(group, "", c.ClientID, at("client_id")); !ok {
		reduced.ClientID = unknownHere
		d.withheld[name] = true
	}
	if _, ok := d.resolve(group, "client_secret", c.ClientSecret, at("client_secret")); !ok {
		reduced.ClientSecret = unknownHere
	}
	reduced.Scopes = nil
	for _, scope := range c.Scopes {
		if len(entry.Scopes) == 0 || slices.Contains(entry.Scopes, scope) {
			reduced.Scopes = append(reduced.Scopes, scope)
			continue
		}
		d.problem(group, "unknown_scope", at("scopes"), fmt.Sprintf("%q is none of the scopes of %s: %s", scope, providerName, hint(scope, slices.Clone(entry.Scopes))),
			"ask for one that the provider has")
	}
	if !sound {
		return
	}
	a := *d.app
	a.Integrations = map[string]*IntegrationConfig{name: &reduced}
	in, err := d.settings.resolveIntegration(&a, &resolver{repl: caddy.NewReplacer()}, name)
	if err != nil {
		d.problem(group, "integration_invalid", at(""), err.Error(), "correct it; docs/configuration.md has the options")
		return
	}
	d.settings.integrations[name] = in
	if in.Scheme() != tokenstore.AuthOAuth2 {
		return
	}
	if d.settings.publicURL.Host != noPublicURL {
		d.ok(group, "callback", "register exactly this redirect URI: "+in.redirectURI)
	}
	d.checkOffline(name, &entry)
}

// checkOffline looks for what a provider wants before it gives a refresh token.
func (d *doctor) checkOffline(name string, e *provider.Entry) {
	scopes := d.app.Integrations[name].Scopes
	if slices.Contains(e.Scopes, offlineScope) && !slices.Contains(scopes, offlineScope) {
		d.lacksOffline(name)
	}
	u, err := url.Parse(cmp.Or(e.AuthorizeURL, e.Issuer))
	if err == nil && u.Hostname() == "accounts.google.com" && e.Authorize.Params["access_type"] != "offline" {
		d.warning("integration "+name, "offline_scope", d.at("integration "+name, "provider"),
			"Google gives no refresh token without access_type=offline: connections will end after an hour", "use the catalogue's provider: `provider google`")
	}
}

func (d *doctor) lacksOffline(name string) {
	d.warning("integration "+name, "offline_scope", d.at("integration "+name, "scopes"),
		"the scopes lack "+offlineScope+": connections will end with their first access token", "add "+offlineScope+" to its `scopes`")
}

// reason returns why a request or a look at a file failed, without the URL,
// which may hold what nobody should see.
func reason(err error) string {
	if e, ok := errors.AsType[*url.Error](err); ok {
		return e.Err.Error()
	}
	return err.Error()
}
