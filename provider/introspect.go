package provider

import (
	"context"
	"errors"
	"fmt"
	"net/url"

	"github.com/lanyard-proxy/lanyard/tokenstore"
)

// Introspect asks the provider once whether t's access token is active (RFC
// 7662). The error wraps errors.ErrUnsupported if the provider has no way to
// do it.
func (p *Provider) Introspect(ctx context.Context, t tokenstore.Token) (active bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, RequestLimit)
	defer cancel()
	p, err = p.told(t.Metadata)
	if err != nil {
		return false, fmt.Errorf("introspecting: %w: %w", tokenstore.ErrNotSent, err)
	}
	ep, err := p.endpoints(ctx)
	if err != nil {
		return false, fmt.Errorf("introspecting: %w: %w", tokenstore.ErrNotSent, err)
	}
	if ep.introspect == "" {
		return false, fmt.Errorf("introspecting: the provider has no endpoint for it: %w", errors.ErrUnsupported)
	}
	r := request{
		url: ep.introspect, clientAuth: ep.clientAuth,
		form: url.Values{"token": {t.AccessToken.Reveal()}, "token_type_hint": {"access_token"}},
	}
	if err := p.shape(&r, p.elsewhere()); err != nil {
		return false, fmt.Errorf("introspecting: %w: %w", tokenstore.ErrNotSent, err)
	}
	a, err := p.send(ctx, r)
	if err != nil {
		return false, fmt.Errorf("introspecting: %w", err)
	}
	if err := p.plainAnswer("introspecting", &a, t.AccessToken); err != nil {
		return false, err
	}
	active, ok := decodeBody(a.Body.Reveal())["active"].(bool)
	if !ok {
		return false, fmt.Errorf("introspecting: %w", unreadable(&a, "without a member active"))
	}
	return active, nil
}
