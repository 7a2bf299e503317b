package api

import (
	"context"
	"errors"
	"maps"
	"net/http"
	"time"

	"go.uber.org/zap"

	"github.com/lanyard-proxy/lanyard/guard"
	"github.com/lanyard-proxy/lanyard/secret"
	"github.com/lanyard-proxy/lanyard/tokenstore"
)

// guessedLife is how long an imported access token is taken to live whose end
// was not told, as with a token answer that doesn't tell it.
const guessedLife = time.Hour

// importedView is the answer to import.
type importedView struct {
	connectionView
	// Verified: true, the provider has taken the credential; false, it has
	// refused it; null, nobody asked, or it did not say.
	Verified *bool `json:"verified"`
}

// importing stores credentials that were obtained elsewhere: one connection, or
// a line for each.
func (h *Handler) importing(r *http.Request, in *input) (any, *guard.Problem) {
	verify := in.truth("verify", true)
	if in.lines != "" {
		if p := in.done(); p != nil {
			return nil, p
		}
		return stream(func(w http.ResponseWriter) { h.importLines(w, r, in, verify) }), nil
	}
	ctx, cancel := detached(r)
	defer cancel()
	c, verified, p := h.importOne(ctx, in, verify)
	if p != nil {
		return nil, p
	}
	return importedView{connectionView: h.single(c), Verified: verified}, nil
}

// importOne stores what in describes, and then verifies it: a refresh token that
// has been redeemed must have a place to put the next one.
func (h *Handler) importOne(ctx context.Context, in *input, verify bool) (tokenstore.Connection, *bool, *guard.Problem) {
	integration := h.chosen(in)
	c := in.described(integration)
	id, named := in.text("id", maxName)
	if c.ID = id; named && !tokenstore.IsID(id) {
		in.refuse(badID())
	}
	c.Disabled, _ = in.flag("disabled")
	given := in.credentials(integration)
	if scheme, named := in.text("auth_scheme", maxName); named && scheme != integration.scheme() {
		in.refuse(invalidRequest("Field `auth_scheme`: the integration's is %s.", integration.scheme()))
	}
	var got made
	tokens := given == nil && integration.scheme() == tokenstore.AuthOAuth2
	switch {
	case tokens:
		got.token = in.tokens(c.RequestedScopes, integration.RenewsItself)
	case given == nil && len(integration.Fields) > 0:
		in.refuse(invalidRequest("Field `credentials` is required: the integration's auth scheme is %s.", integration.scheme()))
	}
	if p := in.done(); p != nil {
		return c, nil, p
	}
	before, p := h.before(ctx, in.once, &c)
	if p != nil {
		return c, nil, p
	}
	if before == nil {
		if before, p = h.storeImported(ctx, in, c, integration, got, given, tokens); p != nil {
			return c, nil, p
		}
	}
	if !tokens { // it was tried when it was made
		return *before, triedBy(*before), nil
	}
	if !verify || before.Disabled { // nothing is asked with what is switched off
		return *before, nil, nil
	}
	c, verified := h.verify(ctx, *before, in.by, integration)
	return c, verified, nil
}

// storeImported stores c with what it was given.
func (h *Handler) storeImported(
	ctx context.Context, in *input, c tokenstore.Connection, integration Integration,
	got made, given map[string]secret.String, tokens bool,
) (*tokenstore.Connection, *guard.Problem) {
	if !tokens {
		var p *guard.Problem
		if got, p = h.credential(ctx, integration, c.Params, given); p != nil {
			return nil, p
		}
	}
	got.into(&c, integration, in.by, reasonImported)
	if c.Disabled {
		c.Happened(tokenstore.Event{Type: tokenstore.EventChanged, Actor: in.by, Reason: reasonDisabled})
	}
	c, err := h.cfg.Store.CreateConnection(ctx, c)
	if err != nil {
		return nil, h.storeProblem(err)
	}
	h.changed("connection imported", c)
	return &c, nil
}

// triedBy reports whether making c's credential has proved it: where it came
// with an account or by a token request. Nil: nobody could be asked.
func triedBy(c tokenstore.Connection) *bool {
	proved := c.Account != (tokenstore.Account{}) || !c.Token.RefreshToken.IsZero()
	if !proved {
		return nil
	}
	return &proved
}

// tokens takes the fields of the tokens themselves. One that renews itself is its
// own refresh token, as after a code.
func (in *input) tokens(scopes []string, renewsItself bool) tokenstore.Token {
	access, hasAccess := in.token("access_token")
	refresh, hasRefresh := in.token("refresh_token")
	ends := in.instant("expires_at")
	provisional, _ := in.flag("provisional")
	now := time.Now().UTC()
	t := tokenstore.Token{AccessToken: access, RefreshToken: refresh, IssuedAt: now, ExpiresAt: ends, Scopes: scopes, Provisional: provisional}
	switch {
	case !hasAccess && !hasRefresh:
		in.refuse(invalidRequest("Field `access_token` or `refresh_token` is required."))
	case !hasAccess && !ends.IsZero():
		in.refuse(invalidRequest("Field `expires_at` is of the `access_token`, which is missing."))
	case !hasAccess:
		t.ExpiresAt = now // the first use renews it
	case ends.IsZero():
		t.ExpiresAt, t.ExpiryUnknown = now.Add(guessedLife), true
	}
	switch {
	case renewsItself && hasRefresh:
		in.refuse(invalidRequest("Field `refresh_token`: the provider has none. Its access token renews itself."))
	case renewsItself:
		t.RefreshToken, t.RefreshExpiresAt = t.AccessToken, ends
	case provisional:
		in.refuse(invalidRequest("Field `provisional`: the provider has no second request that would make it last."))
	}
	return t
}

// verify asks the provider whether it takes the credential of c: by one refresh,
// or where there is nothing to refresh with, by asking whose it is.
func (h *Handler) verify(
	ctx context.Context, c tokenstore.Connection, by tokenstore.Actor, integration Integration,
) (tokenstore.Connection, *bool) {
	yes, no := true, false
	var verified *bool
	// What renews itself needs no redeeming to be tried, and some may not be renewed so soon.
	refreshable := !c.Token.RefreshToken.IsZero() && !integration.RenewsItself
	if refreshable {
		switch err := h.cfg.Refresher.Refresh(ctx, c.ID, by); {
		case err == nil:
			verified = &yes
		case errors.Is(err, tokenstore.ErrReconnect):
			verified = &no
		default:
			h.log.Info("imported connection not verified", zap.String("connection_id", c.ID), zap.Error(err))
		}
		if now, err := h.cfg.Store.Connection(ctx, c.ID); err == nil {
			c = now
		}
	}
	if refreshable && (verified == nil || !*verified) || c.Status != tokenstore.StatusActive {
		return c, verified
	}
	account, told, err := h.accountOf(ctx, c, integration)
	switch {
	case err == nil:
		verified = &yes
	case !refreshable && errors.Is(err, tokenstore.ErrCredentialRefused):
		verified = &no
	default:
		if errors.Is(err, tokenstore.ErrAccountNeeded) {
			h.log.Warn("where an imported connection's API is was not told", zap.String("connection_id", c.ID), zap.Error(err))
		}
		return c, verified
	}
	was := c
	now, err := h.cfg.Store.UpdateConnection(ctx, c.ID, func(c *tokenstore.Connection) error {
		if c.Status != tokenstore.StatusActive || !c.ConnectedAt.Equal(was.ConnectedAt) {
			return tokenstore.ErrUnchanged // revoked or connected again: it was about another credential
		}
		if *verified {
			if account != (tokenstore.Account{}) {
				c.Account = account
			}
			all := make(map[string]string, len(c.Token.Metadata)+len(told))
			maps.Copy(all, c.Token.Metadata)
			maps.Copy(all, told)
			c.Token.Metadata = all
			return nil
		}
		c.Expire(tokenstore.ReasonNoRefreshToken)
		c.Happened(tokenstore.Event{Type: tokenstore.EventExpired, Actor: by, Reason: tokenstore.ReasonNoRefreshToken})
		return nil
	})
	if err != nil {
		h.log.Warn("what was found of an imported connection not written", zap.String("connection_id", c.ID), zap.Error(err))
		return c, verified
	}
	return now, verified
}

// accountOf asks the provider whose c is, and what it tells of c's parameters.
func (h *Handler) accountOf(
	ctx context.Context, c tokenstore.Connection, integration Integration,
) (account tokenstore.Account, told map[string]string, err error) {
	if integration.Credentials == nil {
		return account, nil, errors.ErrUnsupported
	}
	source, err := integration.Credentials(c.Params)
	if err != nil {
		return account, nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, providerTimeout)
	defer cancel()
	t := c.Token
	account, err = source.Account(ctx, &t)
	return account, t.Metadata, err
}
