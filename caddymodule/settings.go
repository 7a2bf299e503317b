package caddymodule

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"net/url"
	"slices"
	"strings"

	"github.com/caddyserver/caddy/v2"

	"github.com/lanyard-proxy/lanyard/connect"
	"github.com/lanyard-proxy/lanyard/guard"
	"github.com/lanyard-proxy/lanyard/internal/nearest"
	"github.com/lanyard-proxy/lanyard/provider"
	"github.com/lanyard-proxy/lanyard/proxy"
	"github.com/lanyard-proxy/lanyard/seal"
	"github.com/lanyard-proxy/lanyard/secret"
	"github.com/lanyard-proxy/lanyard/ui"
	"github.com/lanyard-proxy/lanyard/webhook"
)

// settings is a configuration with its placeholders resolved.
type settings struct {
	publicURL    *url.URL
	dir          string        // absolute; empty if the store is a database
	database     secret.String // its URL; empty if the store is in dir
	keyset       *keyset
	apiKeys      []secret.String
	clients      []proxy.Client
	redirectURLs []string
	completion   bool
	brand        ui.Brand
	integrations map[string]*integration

	webhooks []webhook.Endpoint

	literals []string // the fields in which a secret stands itself
}

// keyset is a parsed keyset, and its text to tell it from others.
type keyset struct {
	*seal.Keyset
	text secret.String
}

func parseKeyset(text string) (*keyset, error) {
	ks, err := seal.Parse([]byte(text))
	if err != nil {
		return nil, err
	}
	return &keyset{Keyset: ks, text: secret.New(text)}, nil
}

// resolver resolves the strings of a configuration and remembers the first
// thing that was wrong, and which secrets were not given as placeholders.
type resolver struct {
	repl     *caddy.Replacer
	literals []string
	err      error
}

// text resolves a string that is no secret.
func (r *resolver) text(field, value string) string {
	out, err := r.repl.ReplaceOrErr(value, true, true)
	r.fail(field, err)
	return out
}

// key resolves a secret that is required and has to pass the check.
func (r *resolver) key(field, value string, check func(string) error) secret.String {
	if value == "" {
		r.fail(field, errors.New("the key is missing"))
		return secret.String{}
	}
	text := r.secret(field, value)
	r.fail(field, check(text))
	return secret.New(text)
}

// fail keeps the first error. It does nothing if err is nil.
func (r *resolver) fail(field string, err error) {
	if err != nil && r.err == nil {
		r.err = fmt.Errorf("%s: %w", field, err)
	}
}

// secret resolves a secret, which is empty only if it is not given.
func (r *resolver) secret(field, value string) string {
	if value == "" {
		return ""
	}
	out, err := r.repl.ReplaceOrErr(value, true, true)
	if err != nil && !isPlaceholder(value) {
		// A secret that has braces in it: the replacer's error would print
		// what is between them.
		err = errors.New("it has braces and is not one known placeholder; use {env.NAME} or {file./path}")
	}
	r.fail(field, err)
	if out == value {
		r.literals = append(r.literals, field)
	}
	return out
}

// isPlaceholder reports whether the whole of value is one placeholder for an
// environment variable or a file.
func isPlaceholder(value string) bool {
	return (strings.HasPrefix(value, "{env.") || strings.HasPrefix(value, "{file.")) &&
		strings.Index(value, "}") == len(value)-1
}

func resolve(a *App) (*settings, error) {
	r := &resolver{repl: caddy.NewReplacer()}
	s := &settings{completion: a.Completion != "off", integrations: map[string]*integration{}}
	if a.Completion != "" && a.Completion != "off" {
		return nil, fmt.Errorf("completion: %q is not known; it is `off` or left out", a.Completion)
	}
	for _, key := range a.APIKeys {
		s.apiKeys = append(s.apiKeys, r.key("api_key", key, checkAPIKey))
	}
	for _, c := range a.Clients {
		s.clients = append(s.clients, proxy.Client{
			Key:          guard.Key{Name: c.Name, Value: r.key("client "+c.Name, c.Key, checkClientKey)},
			Integrations: c.Integrations, Users: c.Users, Methods: c.Methods, Paths: c.Paths,
		})
	}
	for _, u := range a.RedirectURLs {
		u = r.text("redirect_url", u)
		r.fail(fmt.Sprintf("redirect_url %q", u), connect.ValidRedirectURL(u))
		s.redirectURLs = append(s.redirectURLs, u)
	}
	publicURL := r.text("public_url", a.PublicURL)
	if r.err != nil {
		return nil, r.err
	}
	var err error
	if s.publicURL, err = parsePublicURL(publicURL); err != nil {
		return nil, fmt.Errorf("public_url: %w", err)
	}
	if s.brand, err = a.Brand.resolve(r); err != nil {
		return nil, err
	}
	if err := s.resolveStore(a, r); err != nil {
		return nil, err
	}
	for _, name := range slices.Sorted(maps.Keys(a.Integrations)) {
		in, err := s.resolveIntegration(a, r, name)
		if err != nil {
			return nil, fmt.Errorf("integration %s: %w", name, err)
		}
		s.integrations[name] = in
	}
	if err := s.resolveWebhooks(a, r); err != nil {
		return nil, err
	}
	s.literals = r.literals
	return s, nil
}

func (s *settings) resolveIntegration(a *App, r *resolver, name string) (*integration, error) {
	c := a.Integrations[name]
	if c == nil {
		return nil, errors.New("it is empty")
	}
	if !isIntegrationName(name) {
		return nil, errors.New("its name must be of a-z, 0-9, _ and -, and begin with a letter or digit")
	}
	providerName := c.Provider
	if providerName == "" {
		providerName = name
	}
	entry, err := a.entry(providerName)
	if err != nil {
		return nil, err
	}
	if _, own := a.Providers[providerName]; own {
		entry = r.entry(entry)
	}
	params := make(map[string]string, len(c.Params))
	for _, param := range slices.Sorted(maps.Keys(c.Params)) {
		params[param] = r.text("param "+param, c.Params[param])
	}
	redirectURI := r.text("redirect_uri", c.RedirectURI)
	clientID := r.text("client_id", c.ClientID)
	clientSecret := r.secret("integration "+name+": client_secret", c.ClientSecret)
	if r.err != nil {
		return nil, r.err
	}
	for _, scope := range c.Scopes {
		if len(entry.Scopes) > 0 && !slices.Contains(entry.Scopes, scope) {
			return nil, fmt.Errorf("scopes: %q is none of its provider's: %s", scope, hint(scope, slices.Clone(entry.Scopes)))
		}
	}
	in := &integration{
		name: name, providerName: providerName, callbackURL: s.publicURL.String() + "/callback/" + name,
		clientSecret: secret.New(clientSecret), scopes: c.Scopes, review: c.Review, told: entry.Tells(),
	}
	if strings.ContainsFunc(redirectURI, func(c rune) bool { return c <= ' ' || c > '~' }) {
		return nil, errors.New("redirect_uri has a space, or a character that is not ASCII")
	}
	in.Provider, err = provider.New(provider.Config{
		Entry: entry, Scheme: c.AuthScheme, ClientID: clientID, ClientSecret: in.clientSecret,
		RedirectURI: cmp.Or(redirectURI, in.callbackURL), Scopes: c.Scopes, Params: params,
	})
	return in, err
}

// entry returns the provider with this name, the configuration's own before
// the catalogue's.
func (a *App) entry(name string) (provider.Entry, error) {
	if e, ok := a.Providers[name]; ok {
		e.Title = cmp.Or(e.Title, strings.ToUpper(name[:1])+name[1:]) // better than a host name
		return e, nil
	}
	if e, ok := provider.Lookup(name); ok {
		return e, nil
	}
	meant := ""
	if near := nearest.Word(name, slices.AppendSeq(provider.Names(), maps.Keys(a.Providers))); near != "" {
		meant = "did you mean " + near + "? "
	}
	return provider.Entry{}, fmt.Errorf("no provider %q: %s`caddy lanyard providers` lists the catalogue's; or describe it in a `provider %s` block", name, meant, name)
}

// hasIntegration returns an error that names the known integrations unless
// there is one with this name, or name is empty.
func (a *App) hasIntegration(name string) error {
	if _, ok := a.Integrations[name]; ok || name == "" {
		return nil
	}
	return fmt.Errorf("no integration %q: %s", name, hint(name, slices.Collect(maps.Keys(a.Integrations))))
}
