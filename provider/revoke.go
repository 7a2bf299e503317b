package provider

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"

	"github.com/lanyard-proxy/lanyard/secret"
	"github.com/lanyard-proxy/lanyard/tokenstore"
)

// Revoke asks the provider once to end t (RFC 7009): its refresh token, with
// which the access token goes, or else its access token. The error wraps
// errors.ErrUnsupported if the provider has no way to do it, or the credential
// was not its to give: a key, a password, a token made by hand. What stands in
// the refresh token's place, a private key or our own client, is never sent.
func (p *Provider) Revoke(ctx context.Context, t tokenstore.Token) error {
	if !p.asks() {
		return fmt.Errorf("revoking: a credential of auth scheme %s ends at the provider: %w", p.scheme, errors.ErrUnsupported)
	}
	if renewedBy(t.RefreshToken) != tokenstore.AuthOAuth2 {
		t.RefreshToken = secret.String{}
	}
	ctx, cancel := context.WithTimeout(ctx, RequestLimit)
	defer cancel()
	ep, err := p.endpoints(ctx)
	if err != nil {
		return fmt.Errorf("revoking: %w: %w", tokenstore.ErrNotSent, err)
	}
	if ep.revoke == "" {
		return fmt.Errorf("revoking: the provider has no endpoint for it: %w", errors.ErrUnsupported)
	}
	how := p.entry.Revoke
	token, hint := t.RefreshToken, "refresh_token"
	if token.IsZero() || how.Token == tokenAccess {
		token, hint = t.AccessToken, "access_token"
	}
	if token.IsZero() {
		return fmt.Errorf("revoking: %w: there is no token", tokenstore.ErrNotSent)
	}
	form := url.Values{}
	if how.Param != "" {
		form.Set(how.Param, token.Reveal())
	} else {
		form.Set("token", token.Reveal())
		form.Set("token_type_hint", hint)
	}
	a, err := p.send(ctx, request{
		method: cmp.Or(how.Method, http.MethodPost), url: ep.revoke,
		clientAuth: cmp.Or(p.revokeAuth(), ep.clientAuth), form: form, json: how.Body == bodyJSON,
	})
	if err != nil {
		return fmt.Errorf("revoking: %w", err)
	}
	return p.plainAnswer("revoking", &a, token)
}

// revokeAuth returns how the client proves itself to the revocation endpoint,
// empty for as at the token endpoint. A public client can prove nothing.
func (p *Provider) revokeAuth() string {
	if p.clientAuth == AuthNone && p.entry.Revoke.ClientAuth != AuthOmit {
		return AuthNone
	}
	return p.entry.Revoke.ClientAuth
}

// plainAnswer returns the error of an answer that is no success: a
// *tokenstore.RefusalError, or for a 5xx one that wraps
// tokenstore.ErrOutcomeUnknown.
func (p *Provider) plainAnswer(doing string, a *tokenstore.Answer, sent secret.String) error {
	switch {
	case a.Status >= http.StatusInternalServerError || a.Status < http.StatusOK:
		return fmt.Errorf("%s: %w: HTTP %d", doing, tokenstore.ErrOutcomeUnknown, a.Status)
	case a.Status >= http.StatusMultipleChoices:
		code, _ := decodeBody(a.Body.Reveal())["error"].(string)
		return fmt.Errorf("%s: %w", doing, p.refusal(a, &tokenstore.Token{AccessToken: sent}, code))
	}
	return nil
}
