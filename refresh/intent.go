package refresh

import (
	"context"
	"errors"
	"fmt"
	"time"

	"go.uber.org/zap"

	"github.com/lanyard-proxy/lanyard/tokenstore"
)

// errOutcomeOpen says that a refresh token waits for its time to be tried
// again, after a request whose outcome nobody saw.
var errOutcomeOpen = fmt.Errorf("waiting to try again: %w", tokenstore.ErrOutcomeUnknown)

// mayPresent decides whether the refresh token may be sent while the outcome
// of an earlier request with it is open: at the time that settleIntent set, or
// before, if the access token turns out to be no use any more. An intent that
// nobody settled, so that its deadline is still the request's own, is of a run
// that ended in the middle; it may be tried at once, or after the provider's
// pause.
func mayPresent(p Provider, c *tokenstore.Connection, why reason) error {
	if c.Intent == nil {
		return nil
	}
	now := wallNow()
	if c.Intent.Deadline.Equal(c.Intent.StartedAt.Add(requestLimit)) {
		pause := min(p.Pause(), maxQuiet)
		if wait := c.Intent.StartedAt.Add(pause).Sub(now); 0 < wait && wait <= pause {
			return unavailable(wait, errOutcomeOpen)
		}
		return nil
	}
	if why.waitedFor() && c.Intent.StartedAt.After(now.Add(clockSlack)) {
		return nil // the clock was put back: its times say nothing
	}
	wait := c.Intent.Deadline.Sub(now)
	if c.Intent.Deadline.IsZero() {
		wait = maxRetryAfter
	}
	early := why.accessTokenDead() && !now.Before(c.Intent.StartedAt.Add(backOff(c.Intent.Unknown)))
	if wait <= 0 || early {
		return nil
	}
	return unavailable(wait, errOutcomeOpen)
}

// writeIntent stores that c's refresh token is about to be sent. An intent
// without an answer that is there already is a request whose outcome nobody
// saw: this program ended in the middle, or could not write.
func (r *Refresher) writeIntent(ctx context.Context, c *tokenstore.Connection) (tokenstore.Connection, error) {
	now := wallNow()
	next, err := r.note(ctx, c.ID, func(cur *tokenstore.Connection) error {
		if !sameCredential(cur, c) || usable(cur.Status, cur.Disabled) != nil {
			return errMoved
		}
		unknown := 0
		if cur.Intent != nil {
			unknown = max(cur.Intent.Unknown, 1)
		}
		cur.Intent = &tokenstore.Intent{
			RefreshTokenHash: cur.Token.RefreshToken.Hash(),
			Generation:       cur.Token.Generation,
			StartedAt:        now,
			Deadline:         now.Add(requestLimit),
			Unknown:          unknown,
		}
		return nil
	})
	if err != nil {
		return next, unavailable(0, fmt.Errorf("storing refresh intent: %w", err))
	}
	return next, nil
}

// note changes what no call sees of a connection. It passes the cache by, so
// that a store that can't write takes no valid token out of it. A write that
// has begun is seen through, as the cache's are.
func (r *Refresher) note(ctx context.Context, id string, change func(*tokenstore.Connection) error) (tokenstore.Connection, error) {
	return r.cfg.Store.UpdateConnection(context.WithoutCancel(ctx), id, change)
}

// noAnswer writes down that a request brought no answer, and says why.
func (r *Refresher) noAnswer(ctx context.Context, p Provider, c *tokenstore.Connection, cause error) error {
	sent := !errors.Is(cause, tokenstore.ErrNotSent)
	r.cfg.Logger.Warn("token endpoint gave no answer", zap.String("connection_id", c.ID),
		zap.String("integration", c.Integration), zap.Bool("sent", sent), zap.Error(cause))
	if err := r.settleIntent(ctx, p, c, sent); err != nil {
		cause = err
	}
	return unavailable(0, cause)
}

// settleIntent ends a try that brought no token. If the outcome of any try
// with this refresh token is open, the intent stays, with the time of the next
// try: soon where the provider has a grace window, else not before the access
// token is at its end, since presenting a spent refresh token can end the
// whole grant. An end that is only guessed counts, and a token that never ends
// serves until an API refuses it: no time is set then.
//
// The error is of a connection that has moved on: its credential is another.
func (r *Refresher) settleIntent(ctx context.Context, p Provider, c *tokenstore.Connection, unknown bool) error {
	_, err := r.note(ctx, c.ID, func(cur *tokenstore.Connection) error {
		if !redeeming(cur, c) {
			return errMoved
		}
		in := cur.Intent
		in.Answer = nil
		if unknown {
			in.Unknown++
		}
		if in.Unknown == 0 {
			cur.Intent = nil
			return nil
		}
		in.Deadline = retryTime(p, cur)
		return nil
	})
	if hasMoved(err) {
		return err
	}
	if err != nil {
		// In the store it stays as it is, as if the program had ended here. This
		// run knows better when to try again.
		r.cfg.Logger.Error("refresh intent not settled", zap.String("connection_id", c.ID), zap.Error(err))
		if unknown || c.Intent.Unknown > 0 {
			r.holdBack(c.ID, retryTime(p, c))
		}
	}
	return nil
}

// retryTime returns when the refresh token of c, whose outcome is open, may be
// tried again, zero if only a refused access token brings that about.
func retryTime(p Provider, c *tokenstore.Connection) time.Time {
	soon := wallNow().Add(backOff(c.Intent.Unknown))
	if p.Grace() {
		return soon
	}
	end := c.Token.HardAt()
	if end.IsZero() {
		end = c.Token.ExpiresAt
	}
	if end.IsZero() || end.After(soon) {
		return end
	}
	return soon
}

// holdBack lets no due renewal of a connection begin before t.
func (r *Refresher) holdBack(id string, t time.Time) {
	if t.IsZero() {
		t = wallNow().AddDate(100, 0, 0)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if w := r.work[id]; w != nil {
		w.openTill = later(w.openTill, t)
	}
}

// sameCredential reports whether cur still holds the tokens that c held.
func sameCredential(cur, c *tokenstore.Connection) bool {
	return cur.Token.Generation == c.Token.Generation && cur.Token.RefreshToken.Equal(c.Token.RefreshToken)
}

// redeeming reports whether cur still waits for the outcome of c's intent: the
// stored refresh token is the one that was sent.
func redeeming(cur, c *tokenstore.Connection) bool {
	return sameCredential(cur, c) && cur.Intent != nil && cur.Intent.RefreshTokenHash == c.Intent.RefreshTokenHash
}
