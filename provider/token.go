package provider

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"net/url"
	"strings"
	"time"

	"github.com/lanyard-proxy/lanyard/secret"
	"github.com/lanyard-proxy/lanyard/tokenstore"
)

// RequestLimit is the longest that one request to a token endpoint takes, its
// answer included. It is the deadline of the intent that stands for it.
const RequestLimit = 20 * time.Second

// maxAnswer is how much of an answer is read, in bytes.
const maxAnswer = 1 << 20

// Exchange redeems an authorization code (RFC 6749 section 4.1.3): one request,
// whatever happens. The answer is not looked at; callback, what Callback
// returned, becomes its Callback. The error wraps tokenstore.ErrNotSent if
// provably nothing of it left, else tokenstore.ErrOutcomeUnknown.
func (p *Provider) Exchange(ctx context.Context, code, codeVerifier secret.String, callback map[string]string) (tokenstore.Answer, error) {
	p, err := p.told(callback)
	if err != nil {
		return tokenstore.Answer{}, fmt.Errorf("code exchange: %w: %w", tokenstore.ErrNotSent, err)
	}
	form := url.Values{
		"grant_type": {"authorization_code"}, "code": {code.Reveal()}, "redirect_uri": {p.redirectURI},
	}
	if p.entry.Authorize.PKCEOff == "" {
		form.Set("code_verifier", codeVerifier.Reveal())
	}
	a, err := p.askToken(ctx, tokenRequest{form: form})
	if err != nil {
		return tokenstore.Answer{}, fmt.Errorf("code exchange: %w", err)
	}
	a.Callback = maps.Clone(callback)
	return a, nil
}

// Refresh redeems t's refresh token (RFC 6749 section 6), or asks for the next
// access token with what stands in its place: the access token itself, our own
// client (section 4.4), or an assertion that the key signs (RFC 7523 section
// 2.1). Of a Provisional t it makes the token that lasts. One request, whatever
// happens. The answer is not looked at. The errors are those of Exchange.
func (p *Provider) Refresh(ctx context.Context, t tokenstore.Token) (tokenstore.Answer, error) {
	p, err := p.told(t.Metadata)
	if err != nil {
		return tokenstore.Answer{}, fmt.Errorf("token refresh: %w: %w", tokenstore.ErrNotSent, err)
	}
	r, err := p.renewal(ctx, &t)
	if err != nil {
		return tokenstore.Answer{}, fmt.Errorf("token refresh: %w: %w", tokenstore.ErrNotSent, err)
	}
	a, err := p.askToken(ctx, r)
	if err != nil {
		return tokenstore.Answer{}, fmt.Errorf("token refresh: %w", err)
	}
	return a, nil
}

// tokenRequest is a request for a token, as far as it is not like all of them.
type tokenRequest struct {
	url    string       // empty: the token endpoint
	how    RequestEntry // over the entry's token
	form   url.Values
	bearer string // the assertion that is all there is; empty: none
}

// renewal returns the request that renews t. What renews it has to be of this
// scheme: a connection may be older than the scheme of its integration, and a
// key must not go where a refresh token does.
func (p *Provider) renewal(ctx context.Context, t *tokenstore.Token) (tokenRequest, error) {
	scheme := renewedBy(t.RefreshToken)
	switch {
	case t.RefreshToken.IsZero():
		return tokenRequest{}, errors.New("there is no refresh token")
	case scheme != p.scheme:
		return tokenRequest{}, fmt.Errorf("the credential is of auth scheme %s, and the integration of %s", scheme, p.scheme)
	case scheme == tokenstore.AuthJWTBearer:
		return p.assert(ctx, t.RefreshToken)
	case scheme == tokenstore.AuthClientCredentials:
		form := url.Values{"grant_type": {"client_credentials"}}
		if len(p.scopes) > 0 {
			form.Set("scope", strings.Join(p.scopes, p.scopeSeparator()))
		}
		return tokenRequest{form: form}, nil
	}
	e := &p.entry
	form := url.Values{"grant_type": {"refresh_token"}}
	form.Set(cmp.Or(e.Refresh.With, withRefresh), t.RefreshToken.Reveal())
	if e.Refresh.SendScope && len(t.Scopes) > 0 {
		form.Set("scope", strings.Join(t.Scopes, p.scopeSeparator()))
	}
	if t.Provisional && e.Exchange != nil {
		return tokenRequest{url: e.Exchange.URL, how: e.Exchange.RequestEntry, form: form}, nil
	}
	return tokenRequest{url: e.Refresh.URL, how: e.Refresh.RequestEntry, form: form}, nil
}

// renewedBy returns the auth scheme of a credential by what renews it.
func renewedBy(refresh secret.String) string {
	switch {
	case refresh.Equal(tokenstore.ClientCredentials):
		return tokenstore.AuthClientCredentials
	case isKeyText(refresh):
		return tokenstore.AuthJWTBearer
	}
	return tokenstore.AuthOAuth2
}

// askToken sends a request for a token.
func (p *Provider) askToken(ctx context.Context, t tokenRequest) (tokenstore.Answer, error) {
	ctx, cancel := context.WithTimeout(ctx, RequestLimit)
	defer cancel()
	ep, err := p.endpoints(ctx)
	if err != nil {
		return tokenstore.Answer{}, fmt.Errorf("%w: %w", tokenstore.ErrNotSent, err)
	}
	if ep.plain { // no challenge was sent
		t.form.Del("code_verifier")
	}
	r := request{url: cmp.Or(t.url, ep.token), clientAuth: ep.clientAuth, form: t.form}
	if r.url == "" {
		return tokenstore.Answer{}, fmt.Errorf("%w: auth scheme %s has no token endpoint", tokenstore.ErrNotSent, p.scheme)
	}
	if err := p.shape(&r, p.entry.Token.over(t.how)); err != nil {
		return tokenstore.Answer{}, fmt.Errorf("%w: %w", tokenstore.ErrNotSent, err)
	}
	if t.bearer != "" {
		r.clientAuth, r.body = AuthOmit, bodyNone
		r.header.Set("Authorization", "Bearer "+t.bearer)
	}
	return p.send(ctx, r)
}
