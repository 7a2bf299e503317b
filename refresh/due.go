package refresh

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"go.uber.org/zap"

	"github.com/lanyard-proxy/lanyard/tokenstore"
)

// Resolve looks after a connection whose time has come: a refresh with an
// unknown outcome is tried again, and the refresh token of a connection that
// nobody uses is renewed before it dies.
func (r *Refresher) Resolve(ctx context.Context, id string) {
	c, err := r.store.Connection(ctx, id)
	if err != nil {
		return
	}
	if c.Intent == nil {
		if at := c.KeepAliveAt(); !at.IsZero() && !wallNow().Before(at) {
			r.renewBehind(grantOf(&c))
		}
		return
	}
	f, err := r.join(grantOf(&c), c.Token.Generation, dueRenewal)
	if err != nil {
		return // the last try was too short a time ago, and said what it met
	}
	_, err = f.wait(ctx)
	switch {
	case err == nil, errors.Is(err, context.Canceled), errors.Is(err, tokenstore.ErrNotActive), errors.Is(err, errEndpointDown):
	default:
		r.cfg.Logger.Warn("interrupted refresh not resolved yet",
			zap.String("connection_id", id), zap.String("integration", c.Integration), zap.Error(err))
	}
}

// recoverAtOnce bounds the renewals that a start brings at the same time.
const recoverAtOnce = 16

// Recover finishes what the last run left open, before the first request asks
// for it: answers that were kept and not read, refreshes whose outcome nobody
// saw. It returns when all were tried once, or ctx ends.
func (r *Refresher) Recover(ctx context.Context) error {
	farFuture := time.Now().AddDate(100, 0, 0)
	ids, err := r.store.DueConnections(ctx, farFuture)
	if err != nil {
		return fmt.Errorf("refresh: looking for interrupted refreshes: %w", err)
	}
	slots := make(chan struct{}, recoverAtOnce)
	var wg sync.WaitGroup
	for _, id := range ids {
		select {
		case slots <- struct{}{}:
		case <-ctx.Done():
			wg.Wait()
			return ctx.Err()
		}
		wg.Go(func() {
			r.Resolve(ctx, id)
			<-slots
		})
	}
	wg.Wait()
	return nil
}

// RenewAhead begins to renew what is about to expire and was used since it was
// issued, the soonest first, so that requests find valid tokens. It does not
// wait. What a provider's pace leaves over is begun at the next call, which is
// to come every few seconds.
func (r *Refresher) RenewAhead() {
	due := r.cache.dueAhead(wallNow())
	slices.SortFunc(due, func(a, b *tokenstore.Grant) int { return a.Token.ExpiresAt.Compare(b.Token.ExpiresAt) })
	full := map[string]bool{} // integrations whose lanes take no more
	for _, g := range due {
		if full[g.Integration] {
			continue
		}
		if _, err := r.join(g, g.Token.Generation, aheadRenewal); errors.Is(err, errBusy) || errors.Is(err, errEndpointDown) {
			full[g.Integration] = true
		}
	}
}

// aheadAt returns when g is renewed though nobody asks for it: up to half the
// soft margin before that begins, another time for each connection, so that
// what was issued together is not renewed together.
func aheadAt(g *tokenstore.Grant, now time.Time) time.Time {
	soft := softAt(g, now)
	if soft.IsZero() {
		return soft
	}
	return soft.Add(-time.Duration(tokenstore.Share(g.ConnectionID) * float64(g.Token.ExpiresAt.Sub(soft)) / 2))
}
