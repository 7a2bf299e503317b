package caddymodule

import (
	"cmp"
	"errors"
	"net/url"
	"strings"

	"github.com/caddyserver/caddy/v2"

	"github.com/lanyard-proxy/lanyard/provider"
	"github.com/lanyard-proxy/lanyard/tokenstore"
)

// unknownHere stands for a value that only Lanyard's own environment has.
const unknownHere = "unknown-here"

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
	for _, u := range []string{
		entry.Issuer, entry.AuthorizeURL, entry.TokenURL, entry.RevokeURL, entry.APIURL, entry.DeviceURL, entry.Refresh.URL, entry.Account.URL,
	} {
		sound = d.known(group, u, d.at("provider "+providerName)) && sound
	}
	reduced := *c
	if _, ok := d.resolve(group, "", c.ClientID, at("client_id")); !ok {
		reduced.ClientID = unknownHere
		d.withheld[name] = true
	}
	_, secretKnown := d.resolve(group, "client_secret", c.ClientSecret, at("client_secret"))
	if !secretKnown {
		reduced.ClientSecret = unknownHere
	}
	for _, param := range sortedKeys(c.Params) {
		sound = d.known(group, c.Params[param], at("param "+param)) && sound
	}
	reduced.Scopes = d.checkScopes(name, providerName, &entry)
	if !sound {
		return
	}
	a := *d.app
	a.Integrations = map[string]*IntegrationConfig{name: &reduced}
	in, err := d.settings.resolveIntegration(&a, &resolver{repl: caddy.NewReplacer()}, name)
	if err != nil {
		d.integrationInvalid(name, providerName, err, secretKnown)
		return
	}
	d.settings.integrations[name] = in
	d.checkEntry(name, providerName, in.Scheme(), &entry)
	if in.Scheme() != tokenstore.AuthOAuth2 {
		return
	}
	if d.settings.publicURL.Host != noPublicURL {
		text := "register exactly this redirect URI: " + in.callbackURL
		if c.RedirectURI != "" {
			text = "the browser has to come back to " + in.callbackURL + ", by the name of " + c.RedirectURI
		}
		d.ok(group, "callback", text)
	}
}

// integrationInvalid says what is wrong with an integration, and where.
func (d *doctor) integrationInvalid(name, providerName string, err error, secretKnown bool) {
	wrong, ok := errors.AsType[*provider.OptionError](err)
	if _, own := d.app.Providers[providerName]; !ok && own { // of the entry, hence of no option
		d.problem("integration "+name, "integration_invalid", d.at("provider "+providerName), err.Error(),
			"correct the provider; docs/providers.md has the words")
		return
	}
	option := ""
	if ok {
		option = wrong.Option
	}
	if option == "client_secret" && !secretKnown {
		return // that it is not known here is a finding already
	}
	d.problem("integration "+name, "integration_invalid", d.at("integration "+name, option), err.Error(), optionFix(option, providerName))
}

// optionFix says what to do about an option that New refuses.
func optionFix(option, providerName string) string {
	switch show := "`caddy lanyard providers " + providerName + "`"; {
	case option == "auth_scheme":
		return "name one that its provider has: " + show + " shows them"
	case option == "client_id":
		return show + " shows what an integration of its provider needs"
	case option == "client_secret":
		return show + " shows how the provider knows its clients"
	case strings.HasPrefix(option, "param "):
		return show + " says what it may be"
	}
	return "correct it; docs/configuration.md has the options"
}

// reason returns why a request or a look at a file failed, without the URL,
// which may hold what nobody should see.
func reason(err error) string {
	if e, ok := errors.AsType[*url.Error](err); ok {
		return e.Err.Error()
	}
	return err.Error()
}
