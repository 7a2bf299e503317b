package caddymodule

import (
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"

	"github.com/lanyard-proxy/lanyard/provider"
)

func (a *App) parseProvider(d *caddyfile.Dispenser) error {
	args, err := arguments(d, "NAME")
	if err != nil {
		return err
	}
	if _, ok := a.Providers[args[0]]; ok {
		return d.Errf("a second provider %q", args[0])
	}
	var e provider.Entry
	err = parseBlock(d, options{
		"issuer":         once(&e.Issuer),
		"authorize_url":  once(&e.AuthorizeURL),
		"token_url":      once(&e.TokenURL),
		"revoke_url":     once(&e.RevokeURL),
		"introspect_url": once(&e.IntrospectURL),
		"device_url":     once(&e.DeviceURL),
		"api_url":        once(&e.APIURL),
		"hosts":          list(&e.Hosts),
		"param":          paramOf(&e),
		"client_auth":    oneOf(&e.ClientAuth, provider.AuthBasic, provider.AuthBasicRaw, provider.AuthPost, provider.AuthNone),
		"scopes":         list(&e.Scopes),
		"token_param":    tokenParamOf(&e),
		"key":            keyOf(&e),
		"basic":          basicOf(&e),
		"jwt":            jwtOf(&e),
		"account":        accountOf(&e),
		"allow_private":  flag(&e.AllowPrivate),
	})
	if err != nil {
		return err
	}
	if a.Providers == nil {
		a.Providers = map[string]provider.Entry{}
	}
	a.Providers[args[0]] = e
	return nil
}

// paramOf reads a line of a provider block that declares a connection
// parameter.
func paramOf(e *provider.Entry) func(*caddyfile.Dispenser) error {
	return func(d *caddyfile.Dispenser) error {
		args, err := arguments(d, "NAME")
		if err != nil {
			return err
		}
		if _, ok := e.Params[args[0]]; ok {
			return d.Errf("a second param %q", args[0])
		}
		var p provider.ParamEntry
		if d.NextArg() {
			p.Pattern = d.Val()
		}
		if e.Params == nil {
			e.Params = map[string]provider.ParamEntry{}
		}
		e.Params[args[0]] = p
		return nil
	}
}

// tokenParamOf reads a line of a provider block that adds a parameter to the
// requests for tokens.
func tokenParamOf(e *provider.Entry) func(*caddyfile.Dispenser) error {
	return func(d *caddyfile.Dispenser) error {
		args, err := arguments(d, "NAME", "VALUE")
		if err != nil {
			return err
		}
		if _, ok := e.TokenParams[args[0]]; ok {
			return d.Errf("a second token_param %q", args[0])
		}
		if e.TokenParams == nil {
			e.TokenParams = map[string]string{}
		}
		e.TokenParams[args[0]] = args[1]
		return nil
	}
}

// keyOf reads where an API key goes.
func keyOf(e *provider.Entry) func(*caddyfile.Dispenser) error {
	return func(d *caddyfile.Dispenser) error {
		k := &e.Key
		if *k != (provider.KeyEntry{}) {
			return twice(d)
		}
		args, err := arguments(d, "header or query", "NAME")
		if err != nil {
			return err
		}
		switch args[0] {
		case "header":
			k.Header = args[1]
			if d.NextArg() {
				k.Prefix = d.Val()
			}
		case "query":
			k.Query = args[1]
		default:
			return d.Errf("key %q is not one of header, query", args[0])
		}
		return parseInner(d, "key", options{
			"pattern": once(&k.Pattern), "title": once(&k.Title), "help_url": once(&k.HelpURL),
		})
	}
}

// basicOf reads what a user name and a password are.
func basicOf(e *provider.Entry) func(*caddyfile.Dispenser) error {
	return func(d *caddyfile.Dispenser) error {
		b := &e.Basic
		if *b != (provider.BasicEntry{}) {
			return twice(d)
		}
		err := parseInner(d, "basic", options{
			"username": once(&b.Username), "password": once(&b.Password), "help_url": once(&b.HelpURL),
		})
		if err == nil && *b == (provider.BasicEntry{}) {
			return d.Err("basic needs username, password or help_url in a block: auth_scheme BASIC does without it")
		}
		return err
	}
}

// jwtOf reads what assertions say.
func jwtOf(e *provider.Entry) func(*caddyfile.Dispenser) error {
	return func(d *caddyfile.Dispenser) error {
		if e.JWT != nil {
			return twice(d)
		}
		j := new(provider.JWTEntry)
		e.JWT = j
		return parseInner(d, "jwt", options{
			"issuer": once(&j.Issuer), "subject": once(&j.Subject), "key_id": once(&j.KeyID),
			"audience": once(&j.Audience), "life": once(&j.Life), "scope": once(&j.Scope),
		})
	}
}

// accountOf reads the request that says whose a credential is.
func accountOf(e *provider.Entry) func(*caddyfile.Dispenser) error {
	return func(d *caddyfile.Dispenser) error {
		acc := &e.Account
		if acc.URL != "" {
			return twice(d)
		}
		args, err := arguments(d, "URL")
		if err != nil {
			return err
		}
		acc.URL = args[0]
		return parseInner(d, "account", options{
			"id": once(&acc.ID), "name": once(&acc.Name), "email": once(&acc.Email), "scopes": list(&acc.Scopes),
		})
	}
}

// parseInner reads the block of an option, if it has one.
func parseInner(d *caddyfile.Dispenser, name string, opts options) error {
	if d.NextArg() {
		return d.Errf("unexpected %q after %s", d.Val(), name)
	}
	return parseBlock(d, opts)
}
