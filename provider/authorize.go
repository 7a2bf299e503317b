package provider

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	"golang.org/x/oauth2"

	"github.com/lanyard-proxy/lanyard/secret"
)

// AuthorizeURL returns where the browser is sent for the user's consent (RFC
// 6749 section 4.1.1), with the S256 challenge of codeVerifier (RFC 7636)
// unless the catalogue says that the provider breaks on it. Without scopes the
// parameter is left out. The error is that of discovery.
func (p *Provider) AuthorizeURL(ctx context.Context, state, codeVerifier secret.String, scopes []string) (string, error) {
	ep, err := p.endpoints(ctx)
	if err != nil {
		return "", fmt.Errorf("finding the authorization endpoint: %w", err)
	}
	c := oauth2.Config{
		ClientID: p.clientID, RedirectURL: p.redirectURI,
		Endpoint: oauth2.Endpoint{AuthURL: ep.authorize},
	}
	var opts []oauth2.AuthCodeOption
	for _, name := range slices.Sorted(maps.Keys(p.entry.Authorize.Params)) {
		opts = append(opts, oauth2.SetAuthURLParam(name, p.entry.Authorize.Params[name]))
	}
	if len(scopes) > 0 {
		opts = append(opts, oauth2.SetAuthURLParam("scope", strings.Join(scopes, p.scopeSeparator())))
	}
	if p.entry.Authorize.PKCEOff == "" {
		opts = append(opts, oauth2.S256ChallengeOption(codeVerifier.Reveal()))
	}
	return c.AuthCodeURL(state.Reveal(), opts...), nil
}

func (p *Provider) scopeSeparator() string {
	if sep := p.entry.Authorize.ScopeSeparator; sep != "" {
		return sep
	}
	return " "
}
