package caddymodule

import (
	"cmp"
	"fmt"
	"maps"
	"net/url"
	"slices"
	"strings"

	"github.com/lanyard-proxy/lanyard/provider"
	"github.com/lanyard-proxy/lanyard/tokenstore"
)

// offlineScope asks an OpenID provider for a refresh token (OpenID Connect Core
// 1.0 section 11).
const offlineScope = "offline_access"

func sortedKeys[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }

// checkScopes returns the scopes that the provider has. Others are findings.
func (d *doctor) checkScopes(name, providerName string, e *provider.Entry) []string {
	var known []string
	for _, scope := range d.app.Integrations[name].Scopes {
		if len(e.Scopes) == 0 || slices.Contains(e.Scopes, scope) {
			known = append(known, scope)
			continue
		}
		d.problem("integration "+name, "unknown_scope", d.at("integration "+name, "scopes"),
			fmt.Sprintf("%q is none of the scopes of %s: %s", scope, providerName, hint(scope, slices.Clone(e.Scopes))), "ask for one that the provider has")
	}
	return known
}

// checkEntry compares an integration with what its provider's entry says.
func (d *doctor) checkEntry(name, providerName, scheme string, e *provider.Entry) {
	d.checkOwn(name, providerName, e)
	d.checkUnchecked(name, providerName, e)
	d.checkHosts(name, e)
	if scheme != tokenstore.AuthOAuth2 {
		return
	}
	d.checkOffline(name, e)
	d.checkClient(name, e)
	if c := d.app.Integrations[name]; c.RedirectURI == "" && registersName(e) {
		i := slices.IndexFunc(e.Notes, func(note string) bool { return strings.Contains(note, "redirect_uri") })
		d.warning("integration "+name, "redirect_uri_name", d.at("integration "+name, ""),
			e.Notes[i], "add `redirect_uri` to it, with that name")
	}
}

// checkOffline looks for the scopes without which no refresh token comes.
func (d *doctor) checkOffline(name string, e *provider.Entry) {
	wanted := e.Refresh.Scopes
	if len(wanted) == 0 && slices.Contains(e.Scopes, offlineScope) {
		wanted = []string{offlineScope}
	}
	asked := d.app.Integrations[name].Scopes
	if len(wanted) > 0 && !slices.ContainsFunc(wanted, func(scope string) bool { return slices.Contains(asked, scope) }) {
		d.lacksOffline(name, wanted...)
	}
}

func (d *doctor) lacksOffline(name string, wanted ...string) {
	d.warning("integration "+name, "offline_scope", d.at("integration "+name, "scopes"),
		"the scopes lack "+strings.Join(wanted, " or ")+": connections will end with their first access token", "add "+wanted[0]+" to its `scopes`")
}

// checkClient looks at how the client proves itself.
func (d *doctor) checkClient(name string, e *provider.Entry) {
	if d.app.Integrations[name].ClientSecret != "" || e.ClientAuth == provider.AuthPrivateKeyJWT {
		return
	}
	place := d.at("integration "+name, "client_id")
	switch {
	case e.Authorize.PKCEOff != "":
		d.problem("integration "+name, "client_open", place,
			"there is no client_secret, and the provider breaks on PKCE: who catches a code can redeem it (RFC 9700 section 2.1.1)", "register a client with a secret, and give its client_secret")
	case e.ClientAuth != provider.AuthNone && e.ClientAuth != "":
		d.warning("integration "+name, "client_public", place,
			"there is no client_secret, so the client has to be a public one; the provider's entry expects a secret", "give its client_secret, unless the client was registered without one")
	}
}

// checkUnchecked says what of the entry nobody checked at the provider.
func (d *doctor) checkUnchecked(name, providerName string, e *provider.Entry) {
	var words []string
	for _, line := range e.Unchecked {
		word, _, _ := strings.Cut(line, ":")
		words = append(words, word)
	}
	if len(words) > 0 {
		d.add("integration "+name, "entry_unchecked", levelInfo, "",
			"not checked at the provider: "+strings.Join(words, ", ")+"; `caddy lanyard providers "+providerName+"` says what", "")
	}
}

// checkHosts names the hosts that the integration gives beside those that the
// provider is known to have: a domain of the customer's own, or a slip that sends
// the client's secret elsewhere.
func (d *doctor) checkHosts(name string, e *provider.Entry) {
	given := d.app.Integrations[name].Params
	for _, param := range sortedKeys(given) {
		p := e.Params[param]
		if value := given[param]; p.Host && len(p.Domains) > 0 && !strings.Contains(value, "{") && !p.Known(value) {
			d.add("integration "+name, "param_host", levelInfo, d.at("integration "+name, "param "+param),
				fmt.Sprintf("param %s: %s is not among %s: see that it is yours, the client's secret goes there", param, value, strings.Join(p.Domains, ", ")), "")
		}
	}
}

// checkOwn compares a provider of the configuration's own with the catalogue's
// that has its name, or its authorization endpoint.
func (d *doctor) checkOwn(name, providerName string, e *provider.Entry) {
	if _, own := d.app.Providers[providerName]; !own {
		return
	}
	place := d.at("provider " + providerName)
	standard, same := provider.Lookup(providerName)
	meant := providerName
	if same {
		d.add("integration "+name, "provider_own", levelInfo, place,
			"the configuration's own provider "+providerName+" is used, and not the catalogue's", "")
	} else if meant, standard = sameEndpoint(e); meant == "" {
		return
	}
	for _, param := range sortedKeys(standard.Authorize.Params) {
		if e.Authorize.Params[param] == "" {
			d.warning("integration "+name, "authorize_param", place,
				fmt.Sprintf("the catalogue's %s sends %s=%s to the authorization endpoint, and this provider does not; a refresh token may depend on it",
					meant, param, standard.Authorize.Params[param]),
				fmt.Sprintf("use the catalogue's: `provider %s`; or add `param %s` to its `authorize`", meant, param))
		}
	}
}

// sameEndpoint returns the provider of the catalogue that has the authorization
// endpoint's host of e, and its entry.
func sameEndpoint(e *provider.Entry) (string, provider.Entry) {
	host := func(e *provider.Entry) string {
		u, err := url.Parse(cmp.Or(e.AuthorizeURL, e.Issuer))
		if err != nil || strings.Contains(u.Host, "{") {
			return ""
		}
		return u.Host
	}
	for _, name := range provider.Names() {
		if known, _ := provider.Lookup(name); host(e) != "" && host(&known) == host(e) {
			return name, known
		}
	}
	return "", provider.Entry{}
}
