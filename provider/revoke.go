package provider

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"

	"github.com/lanyard-proxy/lanyard/secret"
	"github.com/lanyard-proxy/lanyard/tokenstore"
)

// Revoke asks the provider once to end t (RFC 7009): its refresh token, with
// which the access token goes, or else its access token. Nil, too, if the
// provider says that the token is dead already. The error wraps
// errors.ErrUnsupported if the provider has no way to do it, or the credential
// was not its to give: a key, a password, a token made by hand. What stands in
// the refresh token's place, a private key or our own client, is never sent.
func (p *Provider) Revoke(ctx context.Context, t tokenstore.Token) error {
	if !p.asks() {
		return fmt.Errorf("revoking: a credential of auth scheme %s ends at the provider: %w", p.scheme, errors.ErrUnsupported)
	}
	if renewedBy(t.RefreshToken) != tokenstore.AuthOAuth2 || p.entry.Refresh.With == withAccess {
		t.RefreshToken = secret.String{}
	}
	ctx, cancel := context.WithTimeout(ctx, RequestLimit)
	defer cancel()
	p, err := p.told(t.Metadata)
	if err != nil {
		return fmt.Errorf("revoking: %w: %w", tokenstore.ErrNotSent, err)
	}
	ep, err := p.endpoints(ctx)
	if err != nil {
		return fmt.Errorf("revoking: %w: %w", tokenstore.ErrNotSent, err)
	}
	if ep.revoke == "" {
		return fmt.Errorf("revoking: the provider has no endpoint for it: %w", errors.ErrUnsupported)
	}
	token, hint := t.RefreshToken, "refresh_token"
	if token.IsZero() || p.entry.Revoke.Token == tokenAccess || p.entry.Revoke.Inject {
		token, hint = t.AccessToken, "access_token"
	}
	if token.IsZero() && p.entry.Revoke.Token != tokenNone {
		return fmt.Errorf("revoking: %w: there is no token", tokenstore.ErrNotSent)
	}
	r, err := p.revocation(&ep, token, hint)
	if err != nil {
		return fmt.Errorf("revoking: %w: %w", tokenstore.ErrNotSent, err)
	}
	a, err := p.send(ctx, r)
	if err != nil {
		return fmt.Errorf("revoking: %w", err)
	}
	err = p.plainAnswer("revoking", &a, token)
	// RFC 7009 section 2.2: "invalid tokens do not cause an error response since
	// the client cannot handle such an error in a reasonable way. Moreover, the
	// purpose of the revocation request, invalidating the particular token, is
	// already achieved."
	if refusal, ok := errors.AsType[*tokenstore.RefusalError](err); ok && refusal.Kind == tokenstore.RefusedGrant {
		return nil
	}
	return err
}

// revocation returns the request that ends a token.
func (p *Provider) revocation(ep *endpoints, token secret.String, hint string) (request, error) {
	how := p.entry.Revoke
	r := request{
		url: strings.ReplaceAll(ep.revoke, tokenVar, url.PathEscape(token.Reveal())), form: url.Values{}, header: http.Header{},
		clientAuth: cmp.Or(p.revokeAuth(), ep.clientAuth),
	}
	switch {
	case how.Inject:
		in := p.Inject()
		r.url = in.apply(r.url, token, r.header)
	case strings.Contains(ep.revoke, tokenVar), how.Token == tokenNone:
	case how.Param != "":
		r.form.Set(how.Param, token.Reveal())
	default:
		r.form.Set("token", token.Reveal())
		r.form.Set("token_type_hint", hint)
	}
	return r, p.shape(&r, RequestEntry{
		Method: how.Method, Body: how.Body, Params: how.Params, Headers: how.Headers, Rename: clientNames(p.entry.Token.Rename),
	})
}

// revokeAuth returns how the client proves itself to the revocation endpoint,
// empty for as at the token endpoint. A public client can prove nothing, and on
// a request to the API the token proves enough.
func (p *Provider) revokeAuth() string {
	how := p.entry.Revoke.ClientAuth
	switch {
	case how == "" && p.entry.Revoke.Inject:
		return AuthOmit
	case p.clientAuth == AuthNone && how != AuthOmit:
		return AuthNone
	}
	return how
}

// plainAnswer returns the error of an answer that is no success: a
// *tokenstore.RefusalError, or for a 5xx one that wraps
// tokenstore.ErrOutcomeUnknown.
func (p *Provider) plainAnswer(doing string, a *tokenstore.Answer, sent secret.String) error {
	if a.Status >= http.StatusInternalServerError || a.Status < http.StatusOK {
		return fmt.Errorf("%s: %w: HTTP %d", doing, tokenstore.ErrOutcomeUnknown, a.Status)
	}
	fields := decodeBody(a.Body.Reveal())
	if a.Status < http.StatusMultipleChoices && !p.denies(fields) {
		return nil
	}
	no := p.refusal(a, &tokenstore.Token{AccessToken: sent}, p.codeOf(fields))
	// At the token endpoint errors.dead may have these, where nothing else gets
	// them: X's invalid_request, Reddit's 400. Here they say nothing of a token.
	if no.Kind == tokenstore.RefusedGrant && (no.Code == "invalid_request" || no.Code == strconv.Itoa(a.Status)) {
		no.Kind = tokenstore.RefusedForNow
	}
	return fmt.Errorf("%s: %w", doing, no)
}
