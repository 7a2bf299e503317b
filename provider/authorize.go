package provider

import (
	"context"
	"fmt"
	"net/url"
	"strings"

	"golang.org/x/oauth2"

	"github.com/lanyard-proxy/lanyard/secret"
)

// AuthorizeURL returns where the browser is sent for the user's consent (RFC
// 6749 section 4.1.1), with the S256 challenge of codeVerifier (RFC 7636)
// unless the catalogue says that the provider breaks on it. Without scopes the
// parameter is left out. The error is that of discovery, or wraps ErrParams.
func (p *Provider) AuthorizeURL(ctx context.Context, state, codeVerifier secret.String, scopes []string) (string, error) {
	ep, err := p.endpoints(ctx)
	if err != nil {
		return "", fmt.Errorf("finding the authorization endpoint: %w", err)
	}
	if err := filled(ep.authorize); err != nil {
		return "", err
	}
	e := &p.entry.Authorize
	params := url.Values{
		"response_type": {"code"}, "client_id": {p.clientID}, "redirect_uri": {p.redirectURI}, "state": {state.Reveal()},
	}
	values := p.inTexts()
	for name, text := range e.Params {
		value, err := filledText("parameter "+name, text, values)
		if err != nil {
			return "", err
		}
		params.Set(name, value)
	}
	if len(scopes) > 0 {
		params.Set("scope", strings.Join(scopes, p.scopeSeparator()))
	}
	if e.PKCEOff == "" && !ep.plain {
		params.Set("code_challenge", oauth2.S256ChallengeFromVerifier(codeVerifier.Reveal()))
		params.Set("code_challenge_method", "S256")
	}
	target := withQuery(ep.authorize, renamed(params, e.Rename, e.Drop))
	if e.Fragment != "" {
		target += "#" + e.Fragment
	}
	return target, nil
}

func (p *Provider) scopeSeparator() string {
	if sep := p.entry.Authorize.ScopeSeparator; sep != "" {
		return sep
	}
	return " "
}
