package connect

import (
	"context"
	"errors"
	"fmt"
	"time"

	"go.uber.org/zap"

	"github.com/lanyard-proxy/lanyard/internal/failpoint"
	"github.com/lanyard-proxy/lanyard/metrics"
	"github.com/lanyard-proxy/lanyard/secret"
	"github.com/lanyard-proxy/lanyard/tokenstore"
)

// outcomeConnected is the outcome of a flow that ended well.
const outcomeConnected = metrics.FlowConnected

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
	ctx context.Context, f *tokenstore.Flow, in Integration, code secret.String, told map[string]string, by tokenstore.Actor,
) (landing, *failure) {
	if f.Reconnect {
		if _, err := h.cfg.Store.Connection(ctx, f.ConnectionID); err != nil {
			return landing{}, h.settle(ctx, f, failure{codeProvisioning, fmt.Errorf("reading the flow's connection: %w", err)}, by)
		}
	}
	_ = failpoint.Hit("connect.after_take")
	exchange, cancel := context.WithTimeout(ctx, exchangeLimit)
	defer cancel()
	a, err := in.Provider.Exchange(exchange, code, f.CodeVerifier, told)
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
			h.discard(ctx, f, brought{token: t})
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
	b, no := h.read(ctx, f, in, a, by)
	if no != nil {
		return landing{}, no
	}
	return h.bringIn(ctx, f, in, b, by)
}

// read reads the answer to a code and asks whose account it is of. A flow whose
// answer brings nothing is ended.
func (h *Handler) read(
	ctx context.Context, f *tokenstore.Flow, in Integration, a tokenstore.Answer, by tokenstore.Actor,
) (brought, *failure) {
	t, err := in.Provider.Parse(a, tokenstore.Token{}, f.Scopes)
	if err != nil {
		x := failure{codeSourceError, err}
		if no, ok := errors.AsType[*tokenstore.RefusalError](err); ok && no.Kind == tokenstore.RefusedScope {
			x.code = codeInvalidScope
		}
		return brought{}, h.settle(ctx, f, x, by)
	}
	return h.whose(ctx, in, t), nil
}

// bringIn writes what a taken flow brought, if anything can be called with it.
func (h *Handler) bringIn(
	ctx context.Context, f *tokenstore.Flow, in Integration, b brought, by tokenstore.Actor,
) (landing, *failure) {
	if errors.Is(b.unknown, tokenstore.ErrAccountNeeded) {
		no := h.settle(ctx, f, failure{codeSourceError, b.unknown}, by)
		h.discardUnused(ctx, f, b)
		return landing{}, no
	}
	return h.store(ctx, f, in, b, by)
}

// brought is the credential that a flow brought.
type brought struct {
	token   tokenstore.Token
	account tokenstore.Account // zero if it is not known
	unknown error              // why the account could not be asked for; nil where it was, or can't be
	scheme  string             // set by save
}

// whose asks once whose account a credential is of, and where the credential is
// of no use without knowing that, a few times.
func (h *Handler) whose(ctx context.Context, in Integration, t tokenstore.Token) brought {
	ctx, cancel := context.WithTimeout(ctx, accountLimit)
	defer cancel()
	account, err := in.Provider.Account(ctx, &t)
	for n := range accountTries - 1 {
		if !errors.Is(err, tokenstore.ErrAccountNeeded) || !passing(err) || !rest(ctx, accountPause<<n) {
			break
		}
		account, err = in.Provider.Account(ctx, &t)
	}
	switch {
	case errors.Is(err, errors.ErrUnsupported) && !errors.Is(err, tokenstore.ErrAccountNeeded):
		return brought{token: t}
	case err != nil:
		h.log.Warn("account not asked for", zap.String("integration", in.Name), zap.Error(err))
		return brought{token: t, unknown: err}
	}
	return brought{token: t, account: account}
}

// passing reports whether asking again may bring what err kept from coming.
func passing(err error) bool {
	no, refused := errors.AsType[*tokenstore.RefusalError](err)
	return refused && no.Kind == tokenstore.RefusedForNow ||
		errors.Is(err, tokenstore.ErrNotSent) || errors.Is(err, tokenstore.ErrOutcomeUnknown)
}

// rest waits, and reports false if ctx ends first.
func rest(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// errAccountUnknown: a connection is of a known account, and whether the new
// credential is too could not be found out.
var errAccountUnknown = errors.New("asking whose account it is")

// mismatchError says that a reconnect came back with another account.
type mismatchError struct{ had, got tokenstore.Account }

// Error implements error. Accounts are no secret, but personal.
func (*mismatchError) Error() string { return "credential is of another account than the connection" }

// belongs returns why b may not become c's credential, or nil. An app that
// reconnects counts on the account being the one before: somebody else's would
// mix two people's data.
func (b *brought) belongs(c *tokenstore.Connection) error {
	switch {
	case c.Account.ID != "" && b.unknown != nil:
		return fmt.Errorf("%w: %w", errAccountUnknown, b.unknown)
	case !b.account.SameAs(c.Account):
		return &mismatchError{had: c.Account, got: b.account}
	}
	return nil
}

// store writes what a taken flow brought, and ends the flow.
func (h *Handler) store(
	ctx context.Context, f *tokenstore.Flow, in Integration, b brought, by tokenstore.Actor,
) (landing, *failure) {
	got, err := h.save(ctx, f, in, b, by)
	if err != nil {
		x := failure{codeProvisioning, fmt.Errorf("storing the connection: %w", err)}
		if _, ok := errors.AsType[*mismatchError](err); ok {
			x.code = codeAccountMismatch
		} else if errors.Is(err, errAccountUnknown) {
			x.code = codeSourceError
		}
		no := h.settle(ctx, f, x, by)
		h.discardUnused(ctx, f, b)
		return landing{}, no
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
	ctx context.Context, f *tokenstore.Flow, in Integration, b brought, by tokenstore.Actor,
) (landing, error) {
	now := wallNow()
	code := ""
	if h.cfg.Completion && f.RedirectURL != "" {
		code = random()
	}
	b.scheme = in.Provider.Scheme()
	var replaced brought
	put := func(c *tokenstore.Connection) error {
		replaced = brought{}
		if c.LastFlow == f.ID { // written before a crash
			return tokenstore.ErrUnchanged
		}
		if err := b.belongs(c); err != nil {
			return err
		}
		if by == lanyard && c.Staged != nil && f.Answer != nil && f.Answer.ReceivedAt.Before(c.Staged.Until.Add(-tokenstore.CompletionLife)) {
			return errSuperseded
		}
		if c.Staged != nil {
			replaced = brought{token: c.Staged.Token, account: c.Staged.Account}
			c.Happened(tokenstore.Event{Type: tokenstore.EventDropped, Actor: by, Reason: tokenstore.ReasonReplaced})
		}
		b.giveTo(c, f, code, by, now)
		return nil
	}
	if !f.Reconnect {
		c := tokenstore.Connection{
			ID: f.ConnectionID, Integration: f.Integration, Provider: in.ProviderName, UserID: f.UserID,
			Params: f.Params,
			Status: tokenstore.StatusInitiated, RequestedScopes: f.Scopes, CreatedAt: now, UpdatedAt: now,
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
	if !replaced.token.AccessToken.IsZero() {
		h.discard(ctx, f, replaced)
	}
	return landing{c, code}, nil
}

// errSuperseded: what an interrupted flow brought is older than what the user has
// connected since, whose completion code the app has.
var errSuperseded = errors.New("the user has connected again since")

// giveTo makes b the credential of c: the live one, or with a completion code the
// one that waits for it.
func (b *brought) giveTo(c *tokenstore.Connection, f *tokenstore.Flow, code string, by tokenstore.Actor, now time.Time) {
	c.LastFlow = f.ID
	if f.RedirectURL != "" {
		c.RedirectURL = f.RedirectURL
	}
	if f.ConnectionName != "" {
		c.Name = f.ConnectionName
	}
	if f.Labels != nil {
		c.Labels = f.Labels
	}
	asked, account := tokenstore.UnionScopes(c.RequestedScopes, f.Scopes), b.account
	if account.ID == "" { // what is known of it stays known
		account = c.Account
	}
	if code == "" || c.Token.AccessToken.IsZero() { // else the live credential keeps its own until then
		c.AuthScheme = b.scheme
	}
	if code != "" {
		c.Stage(tokenstore.Staged{
			Token: b.token, Account: account, AuthScheme: b.scheme, RequestedScopes: asked, FlowID: f.ID,
			CodeHash: secret.New(code).Hash(), Until: now.Add(tokenstore.CompletionLife),
		})
		c.Happened(tokenstore.Event{Type: tokenstore.EventAuthorized, Actor: by})
		return
	}
	regranted := c.Token.Generation > 0 && !c.Token.SameScopes(&b.token)
	c.Activate(b.token, asked, now)
	c.Account = account
	c.Happened(tokenstore.Event{Type: tokenstore.EventActive, Actor: by})
	if regranted {
		c.Happened(tokenstore.Event{Type: tokenstore.EventScopes, Actor: by})
	}
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

// Lapse ends what has waited too long in this connection: a credential that
// nobody completed is erased, and revoked with care; a connection that nobody
// connected becomes FAILED (timeout). It does nothing where nothing is due.
func (h *Handler) Lapse(ctx context.Context, id string) error {
	var dropped brought
	now := wallNow()
	// Nearly all that is due are refreshes: a hundred thousand of them must not
	// stand in line with what is written.
	c, err := h.cfg.Store.Connection(ctx, id)
	if err == nil && !waitedTooLong(&c, now) {
		return nil
	}
	c, err = h.cfg.Store.UpdateConnection(ctx, id, func(c *tokenstore.Connection) error {
		dropped = brought{}
		waited := c.Status == tokenstore.StatusInitiated
		switch {
		case c.Staged != nil && !now.Before(c.Staged.Until):
			dropped = brought{token: c.Staged.Token, account: c.Staged.Account}
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
	if !dropped.token.AccessToken.IsZero() {
		h.discard(ctx, &tokenstore.Flow{ConnectionID: id, Integration: c.Integration, UserID: c.UserID, Params: c.Params}, dropped)
	}
	return nil
}

// waitedTooLong reports whether there is something in c for Lapse to end.
func waitedTooLong(c *tokenstore.Connection, now time.Time) bool {
	if c.Staged != nil {
		return !now.Before(c.Staged.Until)
	}
	return c.Status == tokenstore.StatusInitiated && !c.InitiatedUntil.IsZero() && !now.Before(c.InitiatedUntil)
}

// discardUnused discards what a flow brought that failed, unless another Handler
// of this store has ended the flow well: then it is a connection's.
func (h *Handler) discardUnused(ctx context.Context, f *tokenstore.Flow, b brought) {
	if c, err := h.cfg.Store.Connection(ctx, f.ConnectionID); err == nil && c.LastFlow == f.ID {
		return
	}
	h.discard(ctx, f, b)
}

// discard ends a credential of f's integration and user that no record holds any
// more.
func (h *Handler) discard(ctx context.Context, f *tokenstore.Flow, b brought) {
	if h.cfg.Discard != nil {
		h.cfg.Discard(ctx, f.Integration, f.UserID, f.Params, b.account, b.token)
	}
}
