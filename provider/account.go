package provider

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"unicode"

	"github.com/lanyard-proxy/lanyard/tokenstore"
)

// maxAccountWord is the longest account ID, name and email address, in bytes.
const maxAccountWord = 320

// scopeOpenID is what a userinfo endpoint asks for (OpenID Connect Core 1.0
// section 5.3).
const scopeOpenID = "openid"

// Account asks the provider once whose t is, and adds to t.Metadata what the
// answer tells of the connection's parameters. Where the entry knows only a
// request that tells good from bad, the account is zero.
//
// The error wraps errors.ErrUnsupported where the entry knows no request, or
// none that t's scopes allow; tokenstore.ErrCredentialRefused for 401, and for
// 400 and 403 of what was entered by hand; a *tokenstore.RefusalError for
// another refusal, 429 among them; else tokenstore.ErrNotSent or
// ErrOutcomeUnknown: later it may work. Beside any of them it wraps
// tokenstore.ErrAccountNeeded if where the API is, or what requests to it carry,
// depends on it.
func (p *Provider) Account(ctx context.Context, t *tokenstore.Token) (tokenstore.Account, error) {
	if p.unbound {
		return tokenstore.Account{}, fmt.Errorf("%w: the provider has some, and none were given", ErrParams)
	}
	account, err := p.askAccount(ctx, t)
	if err != nil {
		err = fmt.Errorf("asking for the account: %w", err)
	}
	if _, open := p.With(t); open != nil {
		return tokenstore.Account{}, fmt.Errorf("%w: %w", tokenstore.ErrAccountNeeded, cmp.Or(err, open))
	}
	return account, err
}

// askAccount is Account, but for what depends on it.
func (p *Provider) askAccount(ctx context.Context, t *tokenstore.Token) (tokenstore.Account, error) {
	p, err := p.told(t.Metadata)
	if err != nil {
		return tokenstore.Account{}, err
	}
	e, err := p.accountEntry(ctx, t.Scopes)
	if err != nil {
		return tokenstore.Account{}, err
	}
	if err := filled(e.URL); err != nil {
		return tokenstore.Account{}, fmt.Errorf("%w: %w", tokenstore.ErrNotSent, err)
	}
	r := request{method: cmp.Or(e.Method, http.MethodGet), json: e.Body, clientAuth: AuthOmit, header: http.Header{}, gzip: true}
	in := p.Inject()
	r.url = in.apply(e.URL, t.AccessToken, r.header)
	a, err := p.send(ctx, r)
	if err != nil {
		return tokenstore.Account{}, err
	}
	// Of a token that was issued only a 401 says that it is dead (RFC 6750 section
	// 3.1): a 403 is a limit's, a firewall's, or about what the token may do. Of a
	// key that somebody enters, 400 and 403 are what APIs say that know it not.
	switch given := !p.asks(); {
	case a.Status == http.StatusUnauthorized,
		given && (a.Status == http.StatusBadRequest || a.Status == http.StatusForbidden):
		return tokenstore.Account{}, fmt.Errorf("%w: HTTP %d", tokenstore.ErrCredentialRefused, a.Status)
	}
	if err := p.plainAnswer("reading it", &a, t.AccessToken); err != nil {
		if refusal, ok := errors.AsType[*tokenstore.RefusalError](err); ok && refusal.Kind == tokenstore.RefusedGrant {
			return tokenstore.Account{}, fmt.Errorf("%w: %w", tokenstore.ErrCredentialRefused, err)
		}
		return tokenstore.Account{}, err
	}
	if e.ID == "" && !p.tells(fromAccount) {
		return tokenstore.Account{}, nil
	}
	v, err := decodeJSON([]byte(a.Body.Reveal()))
	if err != nil {
		return tokenstore.Account{}, unreadable(&a, "without an account in it")
	}
	if told := p.readTold(fromAccount, v); len(told) > 0 {
		all := maps.Clone(t.Metadata)
		if all == nil {
			all = map[string]string{}
		}
		maps.Copy(all, told)
		t.Metadata = all
	}
	account := tokenstore.Account{ID: p.accountID(v, e.ID, t.Metadata), Name: accountWord(v, e.Name), Email: accountWord(v, e.Email)}
	if e.ID != "" && account.ID == "" {
		return tokenstore.Account{}, unreadable(&a, "without an account in it")
	}
	return account, nil
}

// accountID returns the account's ID, from a path or a parameter.
func (p *Provider) accountID(v any, id string, told map[string]string) string {
	name, ok := strings.CutPrefix(id, "{")
	if !ok {
		return accountWord(v, id)
	}
	name = strings.TrimSuffix(name, "}")
	return cmp.Or(told[name], p.values[name])
}

// tells reports whether source tells parameters.
func (p *Provider) tells(source string) bool {
	for _, pm := range p.params.declared {
		if pm.from == source {
			return true
		}
	}
	return false
}

// accountEntry returns the request that is to be made of a credential with these
// scopes.
func (p *Provider) accountEntry(ctx context.Context, scopes []string) (AccountEntry, error) {
	e := p.entry.Account
	if e.URL == "" && p.discovery != nil && slices.Contains(scopes, scopeOpenID) {
		ep, err := p.endpoints(ctx)
		if err != nil {
			return e, fmt.Errorf("%w: %w", tokenstore.ErrNotSent, err)
		}
		e = AccountEntry{URL: ep.userinfo, ID: "sub", Name: "name", Email: "email"}
	}
	granted := func(s string) bool { return slices.Contains(scopes, s) }
	switch {
	case e.URL == "":
		return e, fmt.Errorf("the entry has no account.url: %w", errors.ErrUnsupported)
	case e.ID == "" && p.asks() && !p.tells(fromAccount): // it is for trying keys, and this is a token just issued
		return e, fmt.Errorf("account.url does not tell it: %w", errors.ErrUnsupported)
	case len(e.Scopes) > 0 && p.asks() && !slices.ContainsFunc(e.Scopes, granted):
		return e, fmt.Errorf("no scope allows it: %w", errors.ErrUnsupported)
	}
	return e, nil
}

// accountWord returns the text or number at a path, empty if there is none that
// could be kept and shown.
func accountWord(v any, path string) string {
	text := strings.TrimSpace(textAt(v, path))
	if len(text) > maxAccountWord || strings.IndexFunc(text, func(r rune) bool { return !unicode.IsPrint(r) }) >= 0 {
		return ""
	}
	return text
}

// textAt returns the text or number at a path, empty if there is none.
func textAt(v any, path string) string {
	if path == "" {
		return ""
	}
	text, _ := plainText(lookup(v, path))
	return text
}
