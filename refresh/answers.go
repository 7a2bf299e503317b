package refresh

import (
	"context"
	"time"

	"go.uber.org/zap"

	"github.com/lanyard-proxy/lanyard/tokenstore"
)

// keep puts a, which came for the request of c's intent, into cur's. Where two
// processes have sent the same refresh token, since one of them stood still, a
// success stands before any failure, and of two successes that of the request
// that was made last.
//
// A success for a request that another has followed is left to that one, which
// may still bring a newer.
func keep(cur, c *tokenstore.Connection, p Provider, a tokenstore.Answer) error {
	if !sameCredential(cur, c) {
		return errMoved
	}
	if cur.Intent == nil { // a store that was put back by a moment has lost it
		in := *c.Intent
		cur.Intent = &in
	}
	good := func(a *tokenstore.Answer) bool {
		_, err := p.Parse(*a, c.Token, c.Token.Scopes)
		return err == nil
	}
	in, ours := cur.Intent, sameRequest(cur.Intent, c.Intent)
	switch {
	case in.Answer == nil && ours:
	case sameAnswer(in.Answer, &a): // it was written, and nobody said so
		return tokenstore.ErrUnchanged
	case ours && !good(&a): // the other one is a success
		return tokenstore.ErrUnchanged
	case ours:
	case !good(&a), in.Answer != nil && good(in.Answer):
		return errMoved
	default:
		in.Deadline = in.StartedAt.Add(requestLimit) // the keeper finds it if nobody else does
	}
	in.Answer = &a
	return nil
}

// revive makes next, which answer a brought for c's refresh token, the token of a
// connection that another process has given up meanwhile: the same refresh token
// was refused to it, since ours had been taken. It returns errMoved if that is not
// what has happened.
func (r *Refresher) revive(ctx context.Context, f *flight, c *tokenstore.Connection, a tokenstore.Answer, next tokenstore.Token) error {
	if f.lease.hold == nil {
		return errMoved
	}
	next.Provisional = false
	_, err := r.persist(ctx, c, func() (tokenstore.Connection, error) {
		return r.store.UpdateConnection(ctx, c.ID, func(cur *tokenstore.Connection) error {
			if !givenUp(cur, c) {
				return errMoved
			}
			tellRenewed(cur, &next, f.by)
			cur.Replace(next)
			cur.Status, cur.StatusReason = tokenstore.StatusActive, ""
			cur.LastRefreshedAt = a.ReceivedAt
			return nil
		})
	}, func() {})
	if err == nil {
		r.cfg.Logger.Info("token came after all", zap.String("connection_id", c.ID), zap.String("integration", c.Integration))
	}
	return err
}

// givenUp reports whether cur has lost c's refresh token since a provider refused
// it, and has got no other.
func givenUp(cur, c *tokenstore.Connection) bool {
	switch cur.StatusReason {
	case tokenstore.ReasonInvalidGrant, tokenstore.ReasonRefreshInterrupted, tokenstore.ReasonRestoredStale:
	default:
		return false
	}
	return cur.Token.Generation == c.Token.Generation && cur.Token.RefreshToken.IsZero() &&
		(cur.Status == tokenstore.StatusExpired || cur.Status == tokenstore.StatusActive)
}

// maxSharedPause is maxStorePause where other processes wait for what is in hand
// here, and not for long (lateTime).
const maxSharedPause = time.Second

// storePause returns the longest wait before a store that can't write is tried
// again.
func (r *Refresher) storePause() time.Duration {
	if r.shared != nil {
		return maxSharedPause
	}
	return maxStorePause
}
