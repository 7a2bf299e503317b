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
// nobody settled is of a run that ended in the middle, or of a process whose
// lease has ended, and so has its request; it may be tried at once, or after the
// provider's pause.
func mayPresent(p Provider, c *tokenstore.Connection, why reason) error {
	if c.Intent == nil {
		return nil
	}
	now := wallNow()
	if !settled(c.Intent) {
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
// saw: this program ended in the middle, or could not write. Of several processes
// that have read the same record only one can write its own.
func (r *Refresher) writeIntent(ctx context.Context, c *tokenstore.Connection) (tokenstore.Connection, error) {
	now := wallNow()
	next, err := r.note(ctx, c.ID, func(cur *tokenstore.Connection) error {
		if !stillOpen(cur, c) || usable(cur.Status, cur.Disabled) != nil {
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
func (r *Refresher) noAnswer(ctx context.Context, f *flight, p Provider, c *tokenstore.Connection, cause error) error {
	sent := !errors.Is(cause, tokenstore.ErrNotSent)
	r.cfg.Logger.Warn("token endpoint gave no answer", zap.String("connection_id", c.ID),
		zap.String("integration", c.Integration), zap.Bool("sent", sent), zap.Error(cause))
	if err := r.settleIntent(ctx, f, p, c, sent); err != nil {
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
func (r *Refresher) settleIntent(ctx context.Context, f *flight, p Provider, c *tokenstore.Connection, unknown bool) error {
	settle := func(cur *tokenstore.Connection) error {
		if !stillOpen(cur, c) || cur.Intent == nil {
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
	}
	_, err := r.note(ctx, c.ID, settle)
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
	if err != nil && f.lease.hold != nil {
		r.settleLater(ctx, f, c, settle)
	}
	return nil
}

// settleLater tries again and again to settle an intent in a store that can't
// write, while the lease is held: the others don't know what has happened, and may
// send the refresh token at once when they get it.
func (r *Refresher) settleLater(ctx context.Context, f *flight, c *tokenstore.Connection, settle func(*tokenstore.Connection) error) {
	f.land(nil, unavailable(0, tokenstore.ErrUnavailable))
	for !f.lease.lost() && r.pause(ctx, maxSharedPause) == nil {
		if _, err := r.note(ctx, c.ID, settle); err == nil || hasMoved(err) {
			return
		}
	}
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

// stillOpen reports whether cur is what c was, as far as its credential and the
// intent to redeem it go: nobody has got ahead.
func stillOpen(cur, c *tokenstore.Connection) bool {
	return sameCredential(cur, c) && sameRequest(cur.Intent, c.Intent) &&
		(cur.Intent == nil || cur.Intent.Unknown == c.Intent.Unknown &&
			cur.Intent.Deadline.Equal(c.Intent.Deadline) && sameAnswer(cur.Intent.Answer, c.Intent.Answer))
}

// redeeming reports whether cur waits for what c's intent has brought: the stored
// refresh token is the one that was sent, and no other answer is there. A store
// that was put back by a moment may have lost the intent.
func redeeming(cur, c *tokenstore.Connection) bool {
	return sameCredential(cur, c) && (cur.Intent == nil || sameAnswer(cur.Intent.Answer, c.Intent.Answer))
}

// sameRequest reports whether two intents are of one request.
func sameRequest(a, b *tokenstore.Intent) bool {
	if a == nil || b == nil {
		return a == b
	}
	return a.RefreshTokenHash == b.RefreshTokenHash && a.StartedAt.Equal(b.StartedAt)
}

func sameAnswer(a, b *tokenstore.Answer) bool {
	if a == nil || b == nil {
		return a == b
	}
	return a.SentAt.Equal(b.SentAt) && a.ReceivedAt.Equal(b.ReceivedAt) && a.Status == b.Status && a.Body.Equal(b.Body)
}

// settled reports whether what came of a request is noted in its intent: the
// deadline is no longer the request's own.
func settled(in *tokenstore.Intent) bool { return !in.Deadline.Equal(in.StartedAt.Add(requestLimit)) }
