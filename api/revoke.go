package api

import (
	"context"
	"errors"
	"net/http"
	"time"

	"go.uber.org/zap"

	"github.com/lanyard-proxy/lanyard/guard"
	"github.com/lanyard-proxy/lanyard/tokenstore"
)

// Why the provider was not asked to revoke (`provider_revoked_reason`).
const (
	spareUnasked     = "not_requested"                     // ?revoke=false
	spareNothing     = "nothing_to_revoke"                 // no credential was held
	spareNoEndpoint  = "no_endpoint"                       // the provider can't revoke
	spareSibling     = "shared_grant"                      // it would end another connection's grant
	spareMissing     = tokenstore.ReasonIntegrationMissing // not configured, so that nobody can ask
	spareParams      = tokenstore.ReasonInvalidParameter   // the connection's parameters are not the integration's now
	spareUnreachable = "provider_unavailable"
	spareDamaged     = codeCorrupt // its record can't be opened
)

const (
	// revokeTimeout bounds one try at the provider.
	revokeTimeout = 5 * time.Second
	// maxRetrying bounds the revocations that go on behind their request.
	maxRetrying = 256
)

// retryAfter is how long a revocation that failed waits before each new try.
var retryAfter = []time.Duration{5 * time.Second, 30 * time.Second, 2 * time.Minute, 10 * time.Minute}

// revocation is a credential that was erased here and is to end at the
// provider too.
type revocation struct {
	connectionID string
	integration  Integration
	tokens       []tokenstore.Token
	// siblings are the connections whose grant must not end with it.
	siblings tokenstore.Filter
}

// revokedView is the answer to revoke and DELETE.
type revokedView struct {
	connectionView
	ProviderRevoked       any    `json:"provider_revoked"` // true, false or "pending"
	ProviderRevokedReason string `json:"provider_revoked_reason,omitempty"`
}

// revoke erases the credential and keeps the record.
func (h *Handler) revoke(r *http.Request, in *input) (any, *guard.Problem) {
	if p := in.done(); p != nil {
		return nil, p
	}
	ctx, cancel := detached(r)
	defer cancel()
	var (
		tokens  []tokenstore.Token
		changed bool
	)
	late := h.cfg.Refresher.Late(in.id)
	c, err := h.cfg.Store.UpdateConnection(ctx, in.id, func(c *tokenstore.Connection) error {
		tokens = credentials(c)
		if changed = c.Status != tokenstore.StatusRevoked || len(tokens) > 0; !changed {
			return tokenstore.ErrUnchanged
		}
		c.Revoke()
		c.Happened(tokenstore.Event{Type: tokenstore.EventRevoked, Actor: in.by})
		return nil
	})
	if err != nil {
		return nil, h.storeProblem(err)
	}
	if changed {
		h.changed("connection revoked", c)
	}
	answer := revokedView{connectionView: h.single(c)}
	answer.ProviderRevoked, answer.ProviderRevokedReason = h.revokeGrant(ctx, c, tokens, late)
	return answer, nil
}

// remove deletes a connection.
func (h *Handler) remove(r *http.Request, in *input) (any, *guard.Problem) {
	asked := true
	switch value, given := in.param("revoke", maxName); {
	case !given, value == "true":
	case value == "false":
		asked = false
	default:
		in.refuse(invalidRequest("Query parameter `revoke` is neither true nor false."))
	}
	if p := in.done(); p != nil {
		return nil, p
	}
	ctx, cancel := detached(r)
	defer cancel()
	late := h.cfg.Refresher.Late(in.id)
	c, err := h.cfg.Store.DeleteConnection(ctx, in.id, tokenstore.Event{Type: tokenstore.EventDeleted, Actor: in.by})
	if err != nil {
		return nil, h.storeProblem(err)
	}
	h.changed("connection deleted", c)
	if c.Damaged {
		return struct {
			damagedView
			ProviderRevoked       bool   `json:"provider_revoked"`
			ProviderRevokedReason string `json:"provider_revoked_reason"`
		}{viewDamaged(c), false, spareDamaged}, nil
	}
	tokens := credentials(&c)
	c.Revoke() // shown as what has become of it
	answer := revokedView{connectionView: h.view(c), ProviderRevoked: false, ProviderRevokedReason: spareUnasked}
	if asked {
		answer.ProviderRevoked, answer.ProviderRevokedReason = h.revokeGrant(ctx, c, tokens, late)
	}
	return answer, nil
}

// credentials returns what c holds, the live credential and the one that waits
// for completion.
func credentials(c *tokenstore.Connection) []tokenstore.Token {
	var tokens []tokenstore.Token
	if holds(c.Token) {
		tokens = append(tokens, c.Token)
	}
	if c.Staged != nil && holds(c.Staged.Token) {
		tokens = append(tokens, c.Staged.Token)
	}
	return tokens
}

func holds(t tokenstore.Token) bool { return !t.AccessToken.IsZero() || !t.RefreshToken.IsZero() }

// revokeGrant ends at the provider what c held, and then what a renewal that was
// under way brings late (nil: none was). It returns true, false and why not, or
// "pending".
func (h *Handler) revokeGrant(
	ctx context.Context, c tokenstore.Connection, tokens []tokenstore.Token, late func(context.Context) (tokenstore.Token, bool),
) (any, string) {
	integration, ok := h.cfg.Integrations[c.Integration]
	switch {
	case len(tokens) == 0:
		return false, spareNothing
	case !ok:
		return false, spareMissing
	case integration.bind(c.Params) != nil:
		return false, spareParams
	case integration.Revoker == nil:
		return false, spareNoEndpoint
	}
	rv := revocation{
		connectionID: c.ID, integration: integration, tokens: tokens,
		siblings: tokenstore.Filter{Integration: c.Integration, UserID: c.UserID},
	}
	done, why := h.endAtProvider(ctx, rv)
	if late != nil && h.revokeLate(rv, late) {
		return "pending", ""
	}
	return done, why
}

// revokeLate ends what late brings, behind the request. It reports whether
// there is still time for that.
func (h *Handler) revokeLate(rv revocation, late func(context.Context) (tokenstore.Token, bool)) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.closed {
		return false
	}
	h.lates.Go(func() {
		t, came := late(h.lateCtx)
		if !came {
			return
		}
		rv.tokens = []tokenstore.Token{t}
		spared, err := h.try(h.lateCtx, rv)
		switch {
		case err == nil:
			h.ended(rv, spared)
		case !h.tryLater(rv, err):
			h.gaveUp(rv, err)
		}
	})
	return true
}

// revokeRefused ends a credential at the provider that was never completed. It
// may be of the account of quite another user, who followed a forwarded link:
// so every connection of the integration counts as a sibling, whoever's it is.
func (h *Handler) revokeRefused(ctx context.Context, c tokenstore.Connection, t tokenstore.Token) {
	integration, ok := h.cfg.Integrations[c.Integration]
	if !ok || integration.bind(c.Params) != nil || integration.Revoker == nil || !holds(t) {
		return
	}
	h.endAtProvider(ctx, revocation{
		connectionID: c.ID, integration: integration, tokens: []tokenstore.Token{t},
		siblings: tokenstore.Filter{Integration: c.Integration},
	})
}

// endAtProvider tries once, and goes on behind the request if that fails.
func (h *Handler) endAtProvider(ctx context.Context, rv revocation) (any, string) {
	spared, err := h.try(ctx, rv)
	switch {
	case err == nil && spared != "":
		return false, spared
	case err == nil:
		return true, ""
	case !h.tryLater(rv, err):
		h.gaveUp(rv, err)
		return false, spareUnreachable
	}
	h.log.Warn("revocation at the provider not confirmed yet", rv.fields(zap.Error(err))...)
	return "pending", ""
}

// try asks the provider once, unless that would end a sibling's grant: then it
// returns why it did not ask. The siblings are looked for at each try, since
// the user may have connected again in between.
func (h *Handler) try(ctx context.Context, rv revocation) (spared string, err error) {
	ctx, cancel := context.WithTimeout(ctx, revokeTimeout)
	defer cancel()
	if !rv.integration.Revoker.RevokesSingle() {
		shared, err := h.anyLive(ctx, rv.siblings)
		if err != nil {
			return "", err
		}
		if shared {
			return spareSibling, nil
		}
	}
	for _, t := range rv.tokens {
		err := rv.integration.Revoker.Revoke(ctx, t)
		if errors.Is(err, errors.ErrUnsupported) {
			return spareNoEndpoint, nil
		}
		if err != nil {
			return "", err
		}
	}
	return "", nil
}

// anyLive reports whether a connection that f matches holds a credential. Which
// account that is of is not known, so it may be the same. What a damaged one
// holds is not known either.
func (h *Handler) anyLive(ctx context.Context, f tokenstore.Filter) (bool, error) {
	for cursor := ""; ; {
		page, next, err := h.cfg.Store.ListConnections(ctx, f, cursor, maxLimit)
		if err != nil {
			return false, err
		}
		for i := range page {
			if page[i].Damaged || len(credentials(&page[i])) > 0 {
				return true, nil
			}
		}
		if next == "" {
			return false, nil
		}
		cursor = next
	}
}

// tryLater tries again behind the request that wanted it, while the program
// runs. It reports whether there was room for that.
func (h *Handler) tryLater(rv revocation, failure error) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.closed || h.retrying >= maxRetrying {
		return false
	}
	h.retrying++
	h.retries.Go(func() {
		h.keepTrying(rv, failure)
		h.mu.Lock()
		h.retrying--
		h.mu.Unlock()
	})
	return true
}

func (h *Handler) keepTrying(rv revocation, failure error) {
	for _, wait := range retryAfter {
		select {
		case <-time.After(wait):
		case <-h.ctx.Done():
			h.gaveUp(rv, failure)
			return
		}
		spared, err := h.try(h.ctx, rv)
		if err == nil {
			h.ended(rv, spared)
			return
		}
		failure = err
	}
	h.gaveUp(rv, failure)
}

func (h *Handler) ended(rv revocation, spared string) {
	h.log.Info("revocation at the provider ended", rv.fields(zap.Bool("spared", spared != ""))...)
}

func (h *Handler) gaveUp(rv revocation, err error) {
	h.log.Warn("revocation at the provider given up", rv.fields(zap.Error(err))...)
}

func (rv revocation) fields(more zap.Field) []zap.Field {
	return []zap.Field{zap.String("connection_id", rv.connectionID), zap.String("integration", rv.integration.Name), more}
}
