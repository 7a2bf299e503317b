package caddymodule

import (
	"maps"

	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"

	"github.com/lanyard-proxy/lanyard/provider"
)

// parseProvider reads a provider of one's own. Syntax:
//
//	provider <name> {
//		title <text>
//		issuer|authorize_url|token_url|revoke_url|introspect_url|device_url|api_url <url>
//		hosts <hosts...>
//		param <name> [<pattern>] {
//			title <text>
//			default <value>
//			from answer.<path>|callback.<name>|account.<path>
//			domains <domains...>
//			host
//			fixed
//		}
//		client_auth basic|basic_id|basic_raw|basic_secret|post|private_key_jwt|none
//		client_assertion {
//			issuer client_id|redirect_host
//			audience <value>
//		}
//		scopes <scopes...>
//		scope_text <scope> <text>
//		allow_private
//		key header <name> [<prefix>] {
//			suffix <text>
//			pattern <pattern>
//			title <text>
//			help_url <url>
//		}
//		key query <name> {
//			...
//		}
//		basic {
//			username <text>
//			password <text>|none
//			help_url <url>
//		}
//		jwt {
//			issuer client_id|given
//			subject issuer|given|optional
//			key_id given
//			audience <value>
//			life <duration>
//			scope claim|param|none
//			carry param|bearer
//		}
//		inject {
//			header <name>
//			prefix <text>|none
//			query <name>
//			set <header> <value>
//			query_param <name> <value>
//		}
//		account [<url>] {
//			method GET|POST
//			body <json>
//			id|name|email <path>
//			scopes <scopes...>
//		}
//		authorize {
//			param <name> <value>
//			rename <name> <new_name>
//			drop <names...>
//			fragment <text>
//			scope_separator <text>
//			pkce_off <why>
//		}
//		callback {
//			code|scope|hmac <name>
//		}
//		token {
//			<words of a request:>
//			method POST|GET
//			body form|json|query
//			param <name> <value>
//			rename <name> <new_name>
//			drop <names...>
//			header <name> <value>
//		}
//		exchange {
//			url <url>
//			<words of a request>
//		}
//		answer {
//			path <field> <path>
//			success <path> <value>
//			token_types <types...>
//			life <duration>|never
//		}
//		refresh {
//			url <url>
//			<words of a request>
//			with refresh_token|access_token
//			rotation single_use|grace|none
//			life|margin|pause|interval <duration>
//			scopes <scopes...>
//			send_scope
//			concurrency <number>
//		}
//		revoke {
//			method POST|DELETE|GET
//			client_auth <as above>|omit
//			body form|json|query|none
//			token any|access|none
//			param_name <name>
//			param <name> <value>
//			header <name> <value>
//			inject
//			single
//		}
//		errors {
//			dead|client|denied <codes...>
//		}
//		note|source|unchecked <text>
//		docs_url <url>
//	}
//
// param, scope_text, set, query_param, rename, header, path, success, note, source
// and unchecked may be repeated.
func (a *App) parseProvider(d *caddyfile.Dispenser) error {
	args, err := arguments(d, "NAME")
	if err != nil {
		return err
	}
	if _, ok := a.Providers[args[0]]; ok {
		return d.Errf("a second provider %q", args[0])
	}
	var e provider.Entry
	if err := parseBlock(d, entryOptions(&e)); err != nil {
		return err
	}
	if a.Providers == nil {
		a.Providers = map[string]provider.Entry{}
	}
	a.Providers[args[0]] = e
	return nil
}

// entryOptions are the words of a provider: those of a catalogue file. An object
// is a block. Of a map there is a line for each name, of a list of texts a line
// for each text, and the word for it is in the singular.
func entryOptions(e *provider.Entry) options {
	return options{
		"title":          once(&e.Title),
		"issuer":         once(&e.Issuer),
		"authorize_url":  once(&e.AuthorizeURL),
		"token_url":      once(&e.TokenURL),
		"revoke_url":     once(&e.RevokeURL),
		"introspect_url": once(&e.IntrospectURL),
		"device_url":     once(&e.DeviceURL),
		"api_url":        once(&e.APIURL),
		"hosts":          list(&e.Hosts),
		"param":          paramOf(e),
		"client_auth": oneOf(&e.ClientAuth,
			provider.AuthBasic, provider.AuthBasicID, provider.AuthBasicRaw, provider.AuthBasicSecret, provider.AuthPost,
			provider.AuthPrivateKeyJWT, provider.AuthNone),
		"client_assertion": block(options{"issuer": once(&e.ClientAssertion.Issuer), "audience": once(&e.ClientAssertion.Audience)}),
		"scopes":           list(&e.Scopes),
		"scope_text":       pairs(&e.ScopeTexts, "SCOPE", "TEXT"),
		"allow_private":    flag(&e.AllowPrivate),
		"key":              keyOf(&e.Key),
		"basic":            basicOf(&e.Basic),
		"jwt":              jwtOf(e),
		"inject":           injectOf(&e.Inject),
		"account":          accountOf(&e.Account),
		"authorize":        authorizeOf(&e.Authorize),
		"callback": block(options{
			"code": once(&e.Callback.Code), "scope": once(&e.Callback.Scope), "hmac": once(&e.Callback.HMAC),
		}),
		"token":    block(requestOptions(&e.Token)),
		"exchange": exchangeOf(e),
		"answer":   answerOf(&e.Answer),
		"refresh":  refreshOf(&e.Refresh),
		"revoke":   revokeOf(&e.Revoke),
		"errors": block(options{
			"dead": limit(&e.Errors.Dead, checkNotEmpty), "client": limit(&e.Errors.Client, checkNotEmpty), "denied": limit(&e.Errors.Denied, checkNotEmpty),
		}),
		"note":      repeated(&e.Notes),
		"docs_url":  once(&e.DocsURL),
		"source":    repeated(&e.Sources),
		"unchecked": repeated(&e.Unchecked),
	}
}

// paramOf reads the declaration of a connection parameter.
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
		err = parseInner(d, "param", options{
			"title": once(&p.Title), "default": once(&p.Default), "from": once(&p.From),
			"domains": list(&p.Domains), "host": flag(&p.Host), "fixed": flag(&p.Fixed),
		})
		if e.Params == nil {
			e.Params = map[string]provider.ParamEntry{}
		}
		e.Params[args[0]] = p
		return err
	}
}

// keyOf reads where an API key goes.
func keyOf(k *provider.KeyEntry) func(*caddyfile.Dispenser) error {
	return func(d *caddyfile.Dispenser) error {
		if *k != (provider.KeyEntry{}) {
			return twice(d)
		}
		args, err := arguments(d, "header or query", "NAME")
		if err != nil {
			return err
		}
		opts := options{"pattern": once(&k.Pattern), "title": once(&k.Title), "help_url": once(&k.HelpURL)}
		switch args[0] {
		case "header":
			k.Header = args[1]
			if d.NextArg() {
				k.Prefix = d.Val()
			}
			opts["suffix"] = once(&k.Suffix)
		case "query":
			k.Query = args[1]
		default:
			return d.Errf("key %q is not one of header, query", args[0])
		}
		return parseInner(d, "key", opts)
	}
}

// basicOf reads what a user name and a password are.
func basicOf(b *provider.BasicEntry) func(*caddyfile.Dispenser) error {
	return func(d *caddyfile.Dispenser) error {
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
			"audience": once(&j.Audience), "life": once(&j.Life), "scope": once(&j.Scope), "carry": once(&j.Carry),
		})
	}
}

// accountOf reads the request that says whose a credential is.
func accountOf(acc *provider.AccountEntry) func(*caddyfile.Dispenser) error {
	opts := options{
		"method": once(&acc.Method), "body": once(&acc.Body),
		"id": once(&acc.ID), "name": once(&acc.Name), "email": once(&acc.Email), "scopes": list(&acc.Scopes),
	}
	seen := false
	return func(d *caddyfile.Dispenser) error {
		if seen {
			return twice(d)
		}
		seen = true
		if d.NextArg() && d.Val() != "" {
			acc.URL = d.Val()
			return parseInner(d, "account", opts)
		}
		nesting := d.Nesting()
		if !d.NextBlock(nesting) {
			return d.Err("account needs its URL, or words in a block")
		}
		return parseWords(d, nesting, opts)
	}
}

// injectOf reads what requests to the API carry.
func injectOf(in *provider.InjectEntry) func(*caddyfile.Dispenser) error {
	return block(options{
		"header": once(&in.Header), "prefix": once(&in.Prefix), "query": once(&in.Query),
		"set": pairs(&in.Headers, "NAME", "VALUE"), "query_param": pairs(&in.Params, "NAME", "VALUE"),
	})
}

// authorizeOf reads the authorization request.
func authorizeOf(a *provider.AuthorizeEntry) func(*caddyfile.Dispenser) error {
	return block(options{
		"param": pairs(&a.Params, "NAME", "VALUE"), "rename": pairs(&a.Rename, "NAME", "NEW_NAME"), "drop": list(&a.Drop),
		"fragment": once(&a.Fragment), "scope_separator": once(&a.ScopeSeparator), "pkce_off": once(&a.PKCEOff),
	})
}

// requestOptions are the words of a request for a token.
func requestOptions(r *provider.RequestEntry) options {
	return options{
		"method": once(&r.Method), "body": once(&r.Body),
		"param": pairs(&r.Params, "NAME", "VALUE"), "rename": pairs(&r.Rename, "NAME", "NEW_NAME"), "drop": list(&r.Drop),
		"header": pairs(&r.Headers, "NAME", "VALUE"),
	}
}

// exchangeOf reads the second request for a token. Without a block it is as the
// first.
func exchangeOf(e *provider.Entry) func(*caddyfile.Dispenser) error {
	return func(d *caddyfile.Dispenser) error {
		if e.Exchange != nil {
			return twice(d)
		}
		e.Exchange = new(provider.ExchangeEntry)
		opts := requestOptions(&e.Exchange.RequestEntry)
		opts["url"] = once(&e.Exchange.URL)
		return parseInner(d, "exchange", opts)
	}
}

// answerOf reads what the token endpoint answers.
func answerOf(a *provider.AnswerEntry) func(*caddyfile.Dispenser) error {
	return block(options{
		"path": pairs(&a.Paths, "FIELD", "PATH"), "success": pairs(&a.Success, "PATH", "VALUE"),
		"token_types": limit(&a.TokenTypes, checkNotEmpty), "life": once(&a.Life),
	})
}

// refreshOf reads what there is to say of refresh tokens.
func refreshOf(r *provider.RefreshEntry) func(*caddyfile.Dispenser) error {
	opts := requestOptions(&r.RequestEntry)
	maps.Copy(opts, options{
		"url": once(&r.URL), "with": once(&r.With), "rotation": once(&r.Rotation), "life": once(&r.Life),
		"margin": once(&r.Margin), "pause": once(&r.Pause), "scopes": list(&r.Scopes), "send_scope": flag(&r.SendScope),
		"concurrency": number(&r.Concurrency), "interval": once(&r.Interval),
	})
	return block(opts)
}

// revokeOf reads the request for revocation.
func revokeOf(r *provider.RevokeEntry) func(*caddyfile.Dispenser) error {
	return block(options{
		"method": once(&r.Method), "client_auth": once(&r.ClientAuth), "body": once(&r.Body), "token": once(&r.Token),
		"param_name": once(&r.Param), "param": pairs(&r.Params, "NAME", "VALUE"), "header": pairs(&r.Headers, "NAME", "VALUE"),
		"inject": flag(&r.Inject), "single": flag(&r.Single),
	})
}
