package caddymodule

import (
	"fmt"
	"maps"
	"net/url"
	"os"
	"regexp"
	"slices"

	"github.com/caddyserver/caddy/v2"

	"github.com/lanyard-proxy/lanyard/connect"
	"github.com/lanyard-proxy/lanyard/webhook"
)

// checkApp resolves the configuration as the app does, but goes on where that
// stops.
func (d *doctor) checkApp() {
	d.checkPublicURL()
	d.checkRedirectURLs()
	d.checkKeys()
	d.checkBrand()
	for i := range d.app.Webhooks {
		d.checkWebhook(i)
	}
	for _, name := range slices.Sorted(maps.Keys(d.app.Integrations)) {
		d.checkIntegration(name)
	}
	if len(d.app.Integrations) == 0 {
		d.problem("integration", "integration_none", d.at(), "there is no integration, so nobody can connect anything",
			"add one: `integration github { client_id …; client_secret {env.…} }`")
	}
}

// Placeholders for what may not be known here.
var (
	envPlaceholder  = regexp.MustCompile(`\{env\.([^}]+)\}`)
	filePlaceholder = regexp.MustCompile(`\{file\.([^}]+)\}`)
)

// known reports whether the placeholders in value have values here. Each one
// that has none is a finding.
func (d *doctor) known(group, value, place string) bool {
	all := true
	for _, m := range envPlaceholder.FindAllStringSubmatch(value, -1) {
		if os.Getenv(m[1]) == "" {
			all = false
			d.envNotSet(group, m[1], place)
		}
	}
	for _, m := range filePlaceholder.FindAllStringSubmatch(value, -1) {
		text, err := os.ReadFile(m[1])
		if err != nil || len(text) == 0 {
			all = false
			d.problem(group, "file_unreadable", place, fmt.Sprintf("%s can't be read, or is empty", m[1]), "put the value there, readable for Lanyard's user")
		} else if info, err := os.Stat(m[1]); err == nil && info.Mode()&0o007 != 0 {
			d.problem(group, "file_permissions", place, fmt.Sprintf("every user of this machine has access to %s (%s)", m[1], info.Mode().Perm()), "chmod 600 "+m[1])
		}
	}
	return all
}

// resolve resolves a value, a secret if it has a field's name for that, and
// reports whether that went well. What does not is a finding.
func (d *doctor) resolve(group, field, value, place string) (string, bool) {
	if !d.known(group, value, place) {
		return "", false
	}
	r := &resolver{repl: caddy.NewReplacer()}
	var out string
	if field == "" {
		out = r.text(group, value)
	} else {
		out = r.secret(field, value)
	}
	if r.err != nil {
		d.problem(group, "placeholder_unknown", place, r.err.Error(), "use {env.NAME} or {file./path}")
	}
	if len(r.literals) > 0 {
		d.warning(group, "secret_literal", place, "the "+field+" stands in the configuration itself, where Caddy's admin API and autosave show it",
			"use a placeholder, {env.NAME} or {file./path}, and have a new one made")
	}
	return out, r.err == nil
}

// noPublicURL stands for a public_url that can't be used.
const noPublicURL = "public-url.invalid"

func (d *doctor) checkPublicURL() {
	place := d.at("public_url")
	d.settings.publicURL = &url.URL{Scheme: "https", Host: noPublicURL}
	text, ok := d.resolve("public_url", "", d.app.PublicURL, place)
	if !ok {
		return
	}
	u, err := parsePublicURL(text)
	if err != nil {
		d.problem("public_url", "public_url_invalid", place, err.Error(),
			"write where browsers reach lanyard_connect, https unless that is this machine: `public_url https://connect.example.com`")
		return
	}
	d.settings.publicURL = u
	d.ok("public_url", "public_url", u.String())
}

func (d *doctor) checkRedirectURLs() {
	for i, raw := range d.app.RedirectURLs {
		place := d.place(option{"redirect_url", i})
		raw, ok := d.resolve("redirect_url", "", raw, place)
		if !ok {
			continue
		}
		if err := connect.ValidRedirectURL(raw); err != nil {
			d.problem("redirect_url", "redirect_url_invalid", place, fmt.Sprintf("%q: %s", raw, err), "write the exact https URL of your app")
			continue
		}
		u, err := url.Parse(raw)
		switch {
		case slices.Contains(d.settings.redirectURLs, raw):
			d.warning("redirect_url", "redirect_url_twice", place, raw+" is there twice", "remove one of them")
		case err == nil && isLoopback(u.Hostname()) && !isLoopback(d.settings.publicURL.Hostname()) && d.settings.publicURL.Host != noPublicURL:
			d.warning("redirect_url", "redirect_url_local", place, raw+" leads users to their own machine, while public_url is public",
				"write the public https URL of your app")
		}
		d.settings.redirectURLs = append(d.settings.redirectURLs, raw)
	}
}

// checkKeys looks at the keys of the API and the proxy.
func (d *doctor) checkKeys() {
	owners := map[string]string{} // :: key → whose it is
	check := func(whose, value, place string, form func(string) error) {
		key, ok := d.resolve("keys", "key of "+whose, value, place)
		if !ok {
			return
		}
		if err := form(key); err != nil {
			d.problem("keys", "key_weak", place, fmt.Sprintf("%s: %s", whose, err), "make one with `openssl rand -hex 32`")
			return
		}
		if other, ok := owners[key]; ok {
			d.problem("keys", "key_shared", place, fmt.Sprintf("%s has the key of %s", whose, other), "give each a key of its own: `openssl rand -hex 32`")
		}
		owners[key] = whose
	}
	for i, key := range d.app.APIKeys {
		check("api_key", key, d.place(option{"api_key", i}), checkAPIKey)
	}
	names := map[string]bool{}
	for i, c := range d.app.Clients {
		place := d.place(option{"client", i})
		check("client "+c.Name, c.Key, place, checkClientKey)
		if c.Name == "" || names[c.Name] {
			d.problem("keys", "client_name", place, fmt.Sprintf("there is another client %q", c.Name), "give each client a name of its own")
		}
		names[c.Name] = true
		if err := d.app.hasIntegrations(c.Integrations); err != nil {
			d.problem("keys", "client_integration", place, fmt.Sprintf("client %s: %s", c.Name, err), "name integrations that are there")
		}
		if n := len(d.app.Integrations); n > 1 && c.Integrations == nil && c.Users == nil && c.Methods == nil && c.Paths == nil {
			d.add("keys", "client_unlimited", levelInfo, place, fmt.Sprintf("client %s may use every connection of %d integrations", c.Name, n),
				"limit it by `integrations`, `users`, `methods` or `paths`, if it needs less")
		}
	}
}

func (d *doctor) checkBrand() {
	b := d.app.Brand
	if b == nil {
		return
	}
	for _, part := range []struct {
		option, fix string
		brand       BrandConfig
	}{
		{"name", "write the app's name as its users know it", BrandConfig{Name: b.Name}},
		{"logo", "name a PNG or SVG file of at most 256 KiB that Lanyard's user can read", BrandConfig{Logo: b.Logo}},
		{"accent", "use a color with more contrast", BrandConfig{Accent: b.Accent}},
		{"home", "write an https URL", BrandConfig{Home: b.Home}},
		{"help", "write an https URL", BrandConfig{Help: b.Help}},
		{"privacy", "write an https URL", BrandConfig{Privacy: b.Privacy}},
		{"terms", "write an https URL", BrandConfig{Terms: b.Terms}},
	} {
		if _, err := part.brand.resolve(&resolver{repl: caddy.NewReplacer()}); err != nil {
			d.problem("brand", "brand_"+part.option, d.at("brand", part.option), err.Error(), part.fix)
		}
	}
}

// checkWebhook looks at one endpoint. It is called by its number: its URL may
// hold what only the app should know.
func (d *doctor) checkWebhook(i int) {
	c := d.app.Webhooks[i]
	name, webhookAt := fmt.Sprintf("webhook %d", i+1), option{"webhook", i}
	place := d.place(webhookAt)
	u, ok := d.resolve(name, "", c.URL, place)
	if ok {
		err := webhook.CheckURL(u)
		switch {
		case err != nil:
			d.problem(name, "webhook_url", place, err.Error(), "write an https URL of your app")
			u = ""
		case slices.ContainsFunc(d.settings.webhooks, func(e webhook.Endpoint) bool { return e.URL == u }):
			d.problem(name, "webhook_twice", place, "there is another one with this URL", "put the events of both into one")
		}
	}
	d.settings.webhooks = append(d.settings.webhooks, webhook.Endpoint{URL: u})
	if len(c.Secrets) == 0 {
		d.problem(name, "webhook_secret", place, "it needs a secret, which signs what is sent", "make one with `echo whsec_$(openssl rand -base64 32)`")
	}
	for n, value := range c.Secrets {
		secretPlace := d.place(webhookAt, option{"secret", n})
		text, ok := d.resolve(name, "secret", value, secretPlace)
		if !ok {
			continue
		}
		if _, err := webhook.ParseSecret(text); err != nil {
			d.problem(name, "webhook_secret", secretPlace, err.Error(), "make one with `echo whsec_$(openssl rand -base64 32)`")
		}
	}
	for _, t := range c.Events {
		if err := checkWebhookEvent(t); err != nil {
			d.problem(name, "webhook_event", d.place(webhookAt, option{words: "events"}), err.Error(), "name events that there are; docs/webhooks.md lists them")
		}
	}
}
