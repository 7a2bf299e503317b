package provider

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"unicode"

	"github.com/lanyard-proxy/lanyard/tokenstore"
)

// maxAccountWord is the longest account ID, name and email address, in bytes.
const maxAccountWord = 320

// Account asks the provider once whose t is. Where the entry knows only a
// request that tells good from bad, the account is zero.
//
// The error wraps errors.ErrUnsupported where the entry knows no request, or
// none that t's scopes allow; tokenstore.ErrCredentialRefused for 401, and for
// 400 and 403 of what was entered by hand; a *tokenstore.RefusalError for
// another refusal, 429 among them; else tokenstore.ErrNotSent or
// ErrOutcomeUnknown: later it may work.
func (p *Provider) Account(ctx context.Context, t tokenstore.Token) (tokenstore.Account, error) {
	if p.unbound {
		return tokenstore.Account{}, fmt.Errorf("%w: the provider has some, and none were given", ErrParams)
	}
	e := p.entry.Account
	if e.URL == "" {
		return tokenstore.Account{}, fmt.Errorf("asking for the account: the entry has no account.url: %w", errors.ErrUnsupported)
	}
	if e.ID == "" && p.asks() { // it is for trying keys, and this is a token just issued
		return tokenstore.Account{}, fmt.Errorf("asking for the account: account.url does not tell it: %w", errors.ErrUnsupported)
	}
	granted := func(s string) bool { return slices.Contains(t.Scopes, s) }
	if len(e.Scopes) > 0 && p.asks() && !slices.ContainsFunc(e.Scopes, granted) {
		return tokenstore.Account{}, fmt.Errorf("asking for the account: no scope allows it: %w", errors.ErrUnsupported)
	}
	a, err := p.send(ctx, request{method: http.MethodGet, url: p.accountURL(&t), clientAuth: AuthOmit, header: p.credentialHeader(&t)})
	if err != nil {
		return tokenstore.Account{}, fmt.Errorf("asking for the account: %w", err)
	}
	// Of a token that was issued only a 401 says that it is dead (RFC 6750 section
	// 3.1): a 403 is a limit's, a firewall's, or about what the token may do. Of a
	// key that somebody enters, 400 and 403 are what APIs say that know it not.
	switch given := !p.asks(); {
	case a.Status == http.StatusUnauthorized,
		given && (a.Status == http.StatusBadRequest || a.Status == http.StatusForbidden):
		return tokenstore.Account{}, fmt.Errorf("asking for the account: %w: HTTP %d", tokenstore.ErrCredentialRefused, a.Status)
	}
	if err := p.plainAnswer("asking for the account", &a, t.AccessToken); err != nil {
		return tokenstore.Account{}, err
	}
	if e.ID == "" {
		return tokenstore.Account{}, nil
	}
	fields, err := decodeObject([]byte(a.Body.Reveal()))
	account := tokenstore.Account{ID: accountWord(fields, e.ID), Name: accountWord(fields, e.Name), Email: accountWord(fields, e.Email)}
	if err != nil || account.ID == "" {
		return tokenstore.Account{}, fmt.Errorf("asking for the account: %w", unreadable(&a, "without an account in it"))
	}
	return account, nil
}

// accountURL returns the account's URL, with the key of t in its query if that is
// where keys go.
func (p *Provider) accountURL(t *tokenstore.Token) string {
	_, _, query := p.Inject()
	if query == "" {
		return p.entry.Account.URL
	}
	sep := "?"
	if strings.Contains(p.entry.Account.URL, "?") {
		sep = "&"
	}
	return p.entry.Account.URL + sep + query + "=" + url.QueryEscape(t.AccessToken.Reveal())
}

// credentialHeader returns the header that carries t, if a header does.
func (p *Provider) credentialHeader(t *tokenstore.Token) http.Header {
	header, prefix, _ := p.Inject()
	if header == "" {
		return nil
	}
	return http.Header{header: {prefix + t.AccessToken.Reveal()}}
}

// accountWord returns the text or number at a path, empty if there is none that
// could be kept and shown.
func accountWord(fields map[string]any, path string) string {
	if path == "" {
		return ""
	}
	var text string
	switch v := lookup(fields, path).(type) {
	case string:
		text = strings.TrimSpace(v)
	case json.Number:
		text = v.String()
	}
	if len(text) > maxAccountWord || strings.IndexFunc(text, func(r rune) bool { return !unicode.IsPrint(r) }) >= 0 {
		return ""
	}
	return text
}
