package refresh

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"time"

	"go.uber.org/zap"

	"github.com/lanyard-proxy/lanyard/internal/failpoint"
	"github.com/lanyard-proxy/lanyard/tokenstore"
)

// requestLimit is how long a token endpoint may take: the deadline of the
// intent, and of the request itself.
const requestLimit = 20 * time.Second

// errMoved is returned inside an update when the record is no longer the one
// that the renewal began with: somebody reconnected, revoked or deleted it.
var errMoved = errors.New("connection has moved on")

// redeem renews the token of a connection whose generation is seen: intent,
// redeem, persist, serve. ctx is the Refresher's own, f is told the outcome
// early if it can't be stored.
func (r *Refresher) redeem(ctx context.Context, f *flight, id string, seen uint64, why reason) (*tokenstore.Grant, error) {
	c, err := r.read(ctx, f, id, seen)
	if err != nil {
		return nil, err
	}
	if err := usable(c.Status, c.Disabled); err != nil {
		return nil, err
	}
	if c.Token.Generation > seen {
		return r.cache.put(&c), nil
	}
	p, ok := r.cfg.Provider(c.Integration, c.Params)
	if !ok {
		return nil, fmt.Errorf("refresh: integration %q is not configured: %w", c.Integration, tokenstore.ErrNotActive)
	}
	switch {
	case c.Intent != nil && c.Intent.Answer != nil: // it was kept and not read
		return r.finish(ctx, f, p, &c, why, c.Token.Unproven)
	case c.Token.RefreshToken.IsZero():
		return r.withoutRefreshToken(ctx, &c, why)
	case f.turn == nil: // it has got a refresh token, or lost an answer, just now
		return nil, tokenstore.ErrNotRenewed
	}
	if err := cmp.Or(mayPresent(p, &c, why), r.mayRenew(id, why)); err != nil {
		return nil, err
	}
	answer, err := r.ask(ctx, f, p, &c)
	if err != nil {
		return nil, err
	}
	_ = failpoint.Hit("refresh.before_persist")
	c, err = r.keepAnswer(ctx, f, p, &c, answer)
	if err != nil {
		return nil, err
	}
	_ = failpoint.Hit("refresh.after_persist")
	return r.finish(ctx, f, p, &c, why, false)
}

// ask sends c's refresh token, whose turn f's is, and returns what came back. c
// becomes the record with the intent in it.
func (r *Refresher) ask(ctx context.Context, f *flight, p Provider, c *tokenstore.Connection) (tokenstore.Answer, error) {
	defer f.turn.leave()
	reqCtx, cancel := context.WithTimeout(ctx, f.lease.timeLeft())
	defer cancel()
	if err := f.turn.resume(reqCtx); err != nil {
		if ctx.Err() == nil && reqCtx.Err() != nil {
			err = unavailable(0, errLate)
		}
		return tokenstore.Answer{}, err
	}
	if err := f.lease.mayAsk(); err != nil {
		return tokenstore.Answer{}, err
	}
	f.trail.begin(c.Integration)
	next, err := r.writeIntent(ctx, c)
	if err != nil {
		return tokenstore.Answer{}, err
	}
	*c = next
	_ = failpoint.Hit("refresh.before_send")
	if err := f.lease.mayAsk(); err != nil {
		if serr := r.settleIntent(ctx, f, p, c, false); serr != nil {
			err = unavailable(0, serr)
		}
		return tokenstore.Answer{}, err
	}
	sent := time.Now()
	answer, err := p.Refresh(reqCtx, c.Token)
	r.cfg.Metrics.Of(c.Integration).RefreshTime.Observe(time.Since(sent))
	if !errors.Is(err, tokenstore.ErrNotSent) {
		r.quieten(c.ID, p)
	}
	if err == nil {
		return answer, nil
	}
	if ctx.Err() == nil { // else it was cut short here
		f.turn.report(p, err)
	}
	return answer, r.noAnswer(ctx, f, p, c, err)
}

// hasMoved reports whether err says that the connection changed under a
// renewal.
func hasMoved(err error) bool {
	return errors.Is(err, errMoved) || errors.Is(err, tokenstore.ErrNotFound)
}

// moved returns what a connection has become that changed under a renewal,
// which ended with err: the token of a reconnect, or of another process, is as
// good as a renewed one.
func (r *Refresher) moved(ctx context.Context, f *flight, id string, seen uint64, err error) (*tokenstore.Grant, error) {
	c, rerr := r.store.Connection(ctx, id)
	if rerr != nil {
		return nil, fmt.Errorf("refresh: reading connection again: %w", rerr)
	}
	r.cache.dropOlder(id, c.Revision)
	if uerr := usable(c.Status, c.Disabled); uerr != nil {
		return nil, uerr
	}
	if c.Token.Generation > seen {
		return r.cache.put(&c), nil
	}
	if f.lease.hold != nil { // another's request, or answer, is there now
		err = unavailable(0, fmt.Errorf("%w: %w", errHeld, err))
	}
	return nil, err
}

// withoutRefreshToken decides what becomes of a token that nothing can renew.
func (r *Refresher) withoutRefreshToken(ctx context.Context, c *tokenstore.Connection, why reason) (*tokenstore.Grant, error) {
	over := why == dueRenewal // Token asks at its end only
	refusedForGood := why.accessTokenDead() && c.StatusReason != ""
	if !over && !refusedForGood {
		return nil, tokenstore.ErrNotRenewed
	}
	reason := c.StatusReason
	if reason == "" {
		reason = tokenstore.ReasonNoRefreshToken
	}
	return nil, r.expire(ctx, c, reason)
}

// expire writes that c must be reconnected and returns ErrReconnect.
func (r *Refresher) expire(ctx context.Context, c *tokenstore.Connection, reason string) error {
	_, err := r.store.UpdateConnection(ctx, c.ID, func(cur *tokenstore.Connection) error {
		if !stillOpen(cur, c) {
			return errMoved
		}
		cur.Expire(reason)
		cur.Happened(tokenstore.Event{Type: tokenstore.EventExpired, Reason: reason, Actor: itself})
		return nil
	})
	if err != nil {
		return unavailable(0, fmt.Errorf("storing expiry: %w", err))
	}
	r.cfg.Logger.Warn("connection expired", zap.String("connection_id", c.ID),
		zap.String("integration", c.Integration), zap.String("reason", reason))
	return tokenstore.ErrReconnect
}

// keepAnswer stores an answer before anything reads it. Until it is stored the
// old refresh token must not be sent again, since a new one is in the answer. It
// is the one time that a token is used before it is stored.
func (r *Refresher) keepAnswer(ctx context.Context, f *flight, p Provider, c *tokenstore.Connection, a tokenstore.Answer) (tokenstore.Connection, error) {
	next, err := r.persist(ctx, c, func() (tokenstore.Connection, error) {
		return r.note(ctx, c.ID, func(cur *tokenstore.Connection) error { return keep(cur, c, p, a) })
	}, func() { f.land(r.unstored(f, p, c, a)) })
	switch {
	case err == nil && !sameRequest(next.Intent, c.Intent):
		return next, unavailable(0, errMoved)
	case err == nil:
		return next, nil
	case hasMoved(err), errors.Is(err, tokenstore.ErrCorrupt):
		// Reconnected, revoked, deleted or destroyed meanwhile: there is
		// nothing left that the answer could be kept in.
		t, perr := p.Parse(a, c.Token, c.Token.Scopes)
		if perr == nil && r.revive(ctx, f, c, a, t) != nil {
			f.late, f.lateOf = &t, *c
		}
		return next, unavailable(0, err)
	}
	r.lost.Add(1)
	r.cfg.Logger.Error("token answer lost", zap.String("connection_id", c.ID), zap.String("integration", c.Integration))
	return next, fmt.Errorf("refresh: storing token answer: %w", err)
}

// persist writes a token answer, or what was in it. A store that can't write is
// tried again until it can, or c has become another, or the program ends; then
// once more. After the first failure it calls serve, for those who wait.
func (r *Refresher) persist(
	ctx context.Context, c *tokenstore.Connection, write func() (tokenstore.Connection, error), serve func(),
) (tokenstore.Connection, error) {
	for attempt := 1; ; attempt++ {
		last := ctx.Err() != nil
		next, err := write()
		failed := err != nil && !hasMoved(err) && !errors.Is(err, tokenstore.ErrCorrupt)
		if failed && attempt == 1 {
			r.unsaved.Add(1)
			defer r.unsaved.Add(-1)
			serve()
		}
		if !failed || last {
			if err == nil && attempt > 1 {
				r.cfg.Logger.Info("token answer stored at last", zap.String("connection_id", c.ID), zap.Int("attempt", attempt))
			}
			return next, err
		}
		r.cfg.Logger.Error("token answer not stored, trying again",
			zap.String("connection_id", c.ID), zap.Int("attempt", attempt), zap.Error(err))
		select {
		case <-time.After(min(backOff(attempt), r.storePause())):
		case <-ctx.Done():
		}
	}
}

// unstored reads an answer that can't be stored.
func (r *Refresher) unstored(f *flight, p Provider, c *tokenstore.Connection, a tokenstore.Answer) (*tokenstore.Grant, error) {
	next, err := p.Parse(a, c.Token, c.Token.Scopes)
	f.turn.report(p, err)
	if err != nil {
		return nil, unavailable(0, err)
	}
	return asServed(c, next), nil
}

// asServed returns what c is with next for its token, before it is stored.
func asServed(c *tokenstore.Connection, next tokenstore.Token) *tokenstore.Grant {
	now := *c
	next.Generation = c.Token.Generation + 1
	now.Token = next
	return grantOf(&now)
}

// finish reads the answer that c's intent holds and makes what it says true.
// unproven says that the answer may be as old as a backup.
func (r *Refresher) finish(
	ctx context.Context, f *flight, p Provider, c *tokenstore.Connection, why reason, unproven bool,
) (*tokenstore.Grant, error) {
	// A refresh asks for the scopes that were granted, which may be fewer than
	// the connection has asked for (RFC 6749 section 6).
	next, err := p.Parse(*c.Intent.Answer, c.Token, c.Token.Scopes)
	f.turn.report(p, err)
	if err == nil {
		next.Unproven = unproven
		return r.commit(ctx, f, c, next)
	}
	refusal, readable := errors.AsType[*tokenstore.RefusalError](err)
	if readable && refusal.Kind == tokenstore.RefusedGrant {
		return nil, r.dead(ctx, f, c, why)
	}
	r.cfg.Logger.Warn("token not refreshed", zap.String("connection_id", c.ID),
		zap.String("integration", c.Integration), zap.Error(err))
	if moved := r.settleIntent(ctx, f, p, c, !readable); moved != nil {
		err = moved
	}
	return nil, unavailable(askedWait(err), err)
}

// commit makes next the connection's token.
func (r *Refresher) commit(ctx context.Context, f *flight, c *tokenstore.Connection, next tokenstore.Token) (*tokenstore.Grant, error) {
	rotated := !next.RefreshToken.Equal(c.Token.RefreshToken)
	next.Provisional = false // only a code brings one; else there would be no end of it
	stored, err := r.persist(ctx, c, func() (tokenstore.Connection, error) {
		return r.store.UpdateConnection(ctx, c.ID, func(cur *tokenstore.Connection) error {
			if !redeeming(cur, c) {
				return errMoved
			}
			tellRenewed(cur, &next, f.by)
			cur.Replace(next)
			cur.StatusReason = ""
			cur.LastRefreshedAt = c.Intent.Answer.ReceivedAt
			if used := r.LastUsed(cur.ID); used.After(cur.LastUsedAt) {
				cur.LastUsedAt = used.UTC()
			}
			return nil
		})
	}, func() { f.land(asServed(c, next), nil) })
	if hasMoved(err) {
		f.late, f.lateOf = &next, *c
	}
	if err != nil {
		// The answer is in the store: the next flight, or run, reads it again.
		return nil, unavailable(0, fmt.Errorf("storing token: %w", err))
	}
	if f.lease.hold != nil {
		f.calmTill = next.IssuedAt.Add(min(next.ExpiresAt.Sub(next.IssuedAt)/2, maxCalm))
	}
	_ = failpoint.Hit("refresh.before_serve")
	r.cfg.Logger.Info("token refreshed", zap.String("connection_id", c.ID), zap.String("integration", c.Integration),
		zap.Uint64("generation", stored.Token.Generation), zap.Bool("rotated", rotated))
	if err := usable(stored.Status, stored.Disabled); err != nil { // switched off meanwhile
		return nil, err
	}
	return r.cache.put(&stored), nil
}

// dead writes that the provider refuses the refresh token for good. A valid
// access token that nobody has refused goes on serving until its end.
func (r *Refresher) dead(ctx context.Context, f *flight, c *tokenstore.Connection, why reason) error {
	if r.outrun(ctx, f, c) {
		return unavailable(0, errMoved)
	}
	reason := tokenstore.ReasonInvalidGrant
	switch {
	case c.Intent.Unknown > 0:
		reason = tokenstore.ReasonRefreshInterrupted
	case c.Token.Unproven:
		reason = tokenstore.ReasonRestoredStale
	}
	t := &c.Token
	serves := t.ExpiresAt.IsZero() || t.ExpiryUnknown || wallNow().Before(t.ExpiresAt)
	if why.accessTokenDead() || !serves {
		return r.expire(ctx, c, reason)
	}
	_, err := r.store.UpdateConnection(ctx, c.ID, func(cur *tokenstore.Connection) error {
		if !stillOpen(cur, c) {
			return errMoved
		}
		cur.LoseRefreshToken(reason)
		cur.Happened(tokenstore.Event{Type: tokenstore.EventRefreshFailed, Reason: reason, Actor: itself})
		return nil
	})
	if err != nil {
		return unavailable(0, fmt.Errorf("storing dead refresh token: %w", err))
	}
	r.cfg.Logger.Warn("refresh token is dead, access token still serves", zap.String("connection_id", c.ID),
		zap.String("integration", c.Integration), zap.String("reason", reason), zap.Time("until", t.ExpiresAt))
	return tokenstore.ErrReconnect
}
