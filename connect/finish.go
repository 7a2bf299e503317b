package connect

import (
	"context"
	"errors"
	"fmt"

	"go.uber.org/zap"

	"github.com/lanyard-proxy/lanyard/internal/failpoint"
	"github.com/lanyard-proxy/lanyard/secret"
	"github.com/lanyard-proxy/lanyard/tokenstore"
)

// outcomeConnected is the outcome of a flow that ended well.
const outcomeConnected = "connected"

// reasonReplaced is why a credential was erased that nobody had completed when
// the next one came.
const reasonReplaced = "replaced"

// lanyard did what no request asked for.
var lanyard = tokenstore.Actor{Kind: tokenstore.ActorLanyard}

// landing is what a flow that ended well brings back to the browser.
type landing struct {
	connection     tokenstore.Connection
	completionCode string // empty if the credential is live already
}

// redeem exchanges the code of a taken flow, once. That the flow is stored as
// taken is the intent: no crash can make the code go out again. The answer is
// stored before anything reads it.
func (h *Handler) redeem(
	ctx context.Context, f *tokenstore.Flow, in Integration, code secret.String, by tokenstore.Actor,
) (landing, *failure) {
	if f.Reconnect {
		if _, err := h.cfg.Store.Connection(ctx, f.ConnectionID); err != nil {
			return landing{}, h.settle(ctx, f, failure{codeProvisioning, fmt.Errorf("reading the flow's connection: %w", err)}, by)
		}
	}
	_ = failpoint.Hit("connect.after_take")
	exchange, cancel := context.WithTimeout(ctx, exchangeLimit)
	defer cancel()
	a, err := in.Provider.Exchange(exchange, code, f.CodeVerifier)
	if err != nil {
		return landing{}, h.settle(ctx, f, failure{codeSourceError, err}, by)
	}
	_ = failpoint.Hit("connect.before_persist")
	_, err = h.cfg.Store.UpdateFlow(ctx, f.ID, func(f *tokenstore.Flow) error {
		if f.Stage != tokenstore.FlowTaken {
			return tokenstore.ErrFlowUsed
		}
		f.Answer = &a
		return nil
	})
	if err != nil {
		x := h.settle(ctx, f, failure{codeProvisioning, fmt.Errorf("storing the code's answer: %w", err)}, by)
		if t, err := in.Provider.Parse(a, tokenstore.Token{}, f.Scopes); err == nil {
			h.discard(ctx, f, t)
		}
		return landing{}, x
	}
	_ = failpoint.Hit("connect.after_persist")
	return h.conclude(ctx, f, in, a, by)
}

// conclude reads the answer to a code and writes what it brought. It may run
// again after a crash at any point.
func (h *Handler) conclude(
	ctx context.Context, f *tokenstore.Flow, in Integration, a tokenstore.Answer, by tokenstore.Actor,
) (landing, *failure) {
	t, err := in.Provider.Parse(a, tokenstore.Token{}, f.Scopes)
	if err != nil {
		x := failure{codeSourceError, err}
		if no, ok := errors.AsType[*tokenstore.RefusalError](err); ok && no.Kind == tokenstore.RefusedScope {
			x.code = codeInvalidScope
		}
		return landing{}, h.settle(ctx, f, x, by)
	}
	got, err := h.save(ctx, f, in, t, by)
	if err != nil {
		x := h.settle(ctx, f, failure{codeProvisioning, fmt.Errorf("storing the connection: %w", err)}, by)
		h.discard(ctx, f, t)
		return landing{}, x
	}
	if err := h.finish(ctx, f, outcomeConnected, by); err != nil {
		// The connection stands; Recover finishes the flow and finds it there.
		h.log.Error("connect flow not finished", zap.String("connection_id", f.ConnectionID), zap.Error(err))
	}
	h.log.Info("account connected", zap.String("connection_id", f.ConnectionID),
		zap.String("integration", f.Integration), zap.String("user_id", f.UserID),
		zap.String("status", string(got.connection.Status)))
	return got, nil
}

// save writes the credential that a flow brought, in one update: waiting for
// completion where an app is to complete it, else live.
func (h *Handler) save(
	ctx context.Context, f *tokenstore.Flow, in Integration, t tokenstore.Token, by tokenstore.Actor,
) (landing, error) {
	now := wallNow()
	code := ""
	if h.cfg.Completion && f.RedirectURL != "" {
		code = random()
	}
	var replaced tokenstore.Token
	put := func(c *tokenstore.Connection) error {
		if c.LastFlow == f.ID { // written before a crash
			return tokenstore.ErrUnchanged
		}
		c.LastFlow, c.RedirectURL = f.ID, f.RedirectURL
		if f.ConnectionName != "" {
			c.Name = f.ConnectionName
		}
		if f.Labels != nil {
			c.Labels = f.Labels
		}
		replaced = tokenstore.Token{}
		if c.Staged != nil {
			replaced = c.Staged.Token
			c.Happened(tokenstore.Event{Type: tokenstore.EventDropped, Actor: by, Reason: reasonReplaced})
		}
		asked := union(c.RequestedScopes, f.Scopes)
		if code == "" {
			c.Activate(t, asked, now)
			c.Happened(tokenstore.Event{Type: tokenstore.EventActive, Actor: by})
			return nil
		}
		c.Stage(tokenstore.Staged{
			Token: t, RequestedScopes: asked, FlowID: f.ID,
			CodeHash: secret.New(code).Hash(), Until: now.Add(tokenstore.CompletionLife),
		})
		c.Happened(tokenstore.Event{Type: tokenstore.EventAuthorized, Actor: by})
		return nil
	}
	if !f.Reconnect {
		c := tokenstore.Connection{
			ID: f.ConnectionID, Integration: f.Integration, Provider: in.ProviderName, UserID: f.UserID,
			Params: f.Params,
			Status: tokenstore.StatusInitiated, AuthScheme: tokenstore.AuthOAuth2,
			RequestedScopes: f.Scopes, CreatedAt: now, UpdatedAt: now,
		}
		_ = put(&c) // a new record has no flow yet
		c, err := h.cfg.Store.CreateConnection(ctx, c)
		if !errors.Is(err, tokenstore.ErrExists) {
			return landing{c, code}, err
		}
	}
	c, err := h.cfg.Store.UpdateConnection(ctx, f.ConnectionID, put)
	if err != nil {
		return landing{}, err
	}
	if !replaced.AccessToken.IsZero() {
		h.discard(ctx, f, replaced)
	}
	return landing{c, code}, nil
}

func (h *Handler) finish(ctx context.Context, f *tokenstore.Flow, outcome string, by tokenstore.Actor) error {
	_, err := h.cfg.Store.UpdateFlow(ctx, f.ID, func(f *tokenstore.Flow) error {
		if f.Stage == tokenstore.FlowFinished { // the first outcome stands
			return tokenstore.ErrUnchanged
		}
		f.Finish(outcome)
		if outcome != outcomeConnected {
			f.Happened(ended(f, outcome, by))
		}
		return nil
	})
	return err
}

// settle ends a taken flow that failed, and returns x.
func (h *Handler) settle(ctx context.Context, f *tokenstore.Flow, x failure, by tokenstore.Actor) *failure {
	if err := h.finish(ctx, f, x.code, by); err != nil {
		h.log.Error("connect flow not finished", zap.String("connection_id", f.ConnectionID), zap.Error(err))
	}
	h.failConnection(ctx, f, x.code, by)
	return &x
}

// failConnection lets a connection that waits for its first credential say why
// it got none. One that has or had a credential is left as it is.
func (h *Handler) failConnection(ctx context.Context, f *tokenstore.Flow, reason string, by tokenstore.Actor) {
	if !f.Reconnect {
		return
	}
	_, err := h.cfg.Store.UpdateConnection(ctx, f.ConnectionID, func(c *tokenstore.Connection) error {
		waiting := c.Status == tokenstore.StatusInitiated || c.Status == tokenstore.StatusFailed
		if !waiting || c.Staged != nil {
			return tokenstore.ErrUnchanged
		}
		c.Fail(reason)
		c.Happened(tokenstore.Event{Type: tokenstore.EventFailed, Actor: by, Reason: reason})
		return nil
	})
	if err != nil && !errors.Is(err, tokenstore.ErrNotFound) {
		h.log.Error("connection not marked as failed", zap.String("connection_id", f.ConnectionID), zap.Error(err))
	}
}

// Recover ends the flows whose exchange was under way when the program last
// ended: with the stored answer where there is one, else as failed, never by a
// second request. It is called once, when the program starts; flows that this
// Handler is working on are not touched. A flow whose integration is not
// configured now is left for a later start.
func (h *Handler) Recover(ctx context.Context) error {
	flows, err := h.cfg.Store.TakenFlows(ctx)
	if err != nil {
		return fmt.Errorf("listing interrupted connect flows: %w", err)
	}
	for i := range flows {
		f := &flows[i]
		if h.underWay(f.ID) {
			continue
		}
		in, ok := h.integration(f.Integration)
		var no *failure
		switch {
		case f.Answer == nil:
			no = h.settle(ctx, f, failure{codeSourceError, errors.New("exchange was interrupted")}, lanyard)
		case !ok:
			no = &failure{codeProvisioning, errIntegrationMissing}
		default:
			_, no = h.conclude(ctx, f, in, *f.Answer, lanyard)
		}
		if no != nil {
			h.report(f, *no)
		}
	}
	return nil
}

// Lapse ends what has waited too long in this connection: a credential that
// nobody completed is erased, and revoked with care; a connection that nobody
// connected becomes FAILED (timeout). It does nothing where nothing is due.
func (h *Handler) Lapse(ctx context.Context, id string) error {
	var dropped tokenstore.Token
	now := wallNow()
	c, err := h.cfg.Store.UpdateConnection(ctx, id, func(c *tokenstore.Connection) error {
		dropped = tokenstore.Token{}
		waited := c.Status == tokenstore.StatusInitiated
		switch {
		case c.Staged != nil && !now.Before(c.Staged.Until):
			dropped = c.Staged.Token
			c.Unstage(tokenstore.ReasonTimeout)
			c.Happened(tokenstore.Event{Type: tokenstore.EventDropped, Actor: lanyard, Reason: tokenstore.ReasonTimeout})
			if !waited {
				return nil // it has a credential, or has failed before
			}
		case c.Staged == nil && waited &&
			!c.InitiatedUntil.IsZero() && !now.Before(c.InitiatedUntil):
			c.Fail(tokenstore.ReasonTimeout)
		default:
			return tokenstore.ErrUnchanged
		}
		c.Happened(tokenstore.Event{Type: tokenstore.EventFailed, Actor: lanyard, Reason: tokenstore.ReasonTimeout})
		return nil
	})
	switch {
	case errors.Is(err, tokenstore.ErrNotFound):
		return nil
	case err != nil:
		return fmt.Errorf("ending what waited in %s: %w", id, err)
	}
	if !dropped.AccessToken.IsZero() {
		h.discard(ctx, &tokenstore.Flow{ConnectionID: id, Integration: c.Integration, UserID: c.UserID, Params: c.Params}, dropped)
	}
	return nil
}

// discard revokes a credential of f's integration and user that no record holds
// any more, with care: at many providers revoking one token ends the user's
// whole grant, and with it connections that work.
func (h *Handler) discard(ctx context.Context, f *tokenstore.Flow, t tokenstore.Token) {
	in, ok := h.integration(f.Integration)
	if !ok || in.bind(f.Params) != nil || !in.Provider.RevokesSingle() && h.grantInUse(ctx, f.Integration, f.UserID) {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, revokeLimit)
	defer cancel()
	if err := in.Provider.Revoke(ctx, t); err != nil {
		h.log.Warn("unclaimed credential not revoked", zap.String("connection_id", f.ConnectionID),
			zap.String("integration", f.Integration), zap.Error(err))
	}
}

// grantInUse reports whether a connection may rest on the same grant as a
// credential of this integration and user. Which account a connection has is
// not known here, and two users may have the same one (a link that was
// forwarded, say): so any live credential of the integration counts, and any
// that waits for this user.
func (h *Handler) grantInUse(ctx context.Context, integration, userID string) bool {
	live, _, err := h.cfg.Store.ListConnections(ctx,
		tokenstore.Filter{Integration: integration, Status: tokenstore.StatusActive}, "", 1)
	if err != nil || len(live) > 0 {
		return true
	}
	// 100: more connections than a user has at one integration; past that,
	// nothing is revoked.
	own, next, err := h.cfg.Store.ListConnections(ctx, tokenstore.Filter{Integration: integration, UserID: userID}, "", 100)
	if err != nil || next != "" {
		return true
	}
	for i := range own {
		if own[i].Staged != nil || own[i].Damaged {
			return true
		}
	}
	return false
}
