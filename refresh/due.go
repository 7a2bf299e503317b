package refresh

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/lanyard-proxy/lanyard/internal/spans"
	"github.com/lanyard-proxy/lanyard/tokenstore"
)

// lookPause is how long the keeper leaves a connection alone whose renewal could
// not begin.
const lookPause = 20 * time.Second

// Resolve begins what a connection whose time has come needs: an answer that is
// stored is read, a refresh with an unknown outcome is tried again, the refresh
// token of a connection that nobody uses is renewed before it dies, and one that
// lasts is made of a provisional token. It does not wait for that.
func (r *Refresher) Resolve(ctx context.Context, id string) {
	if r.restsUntil(id).After(wallNow()) {
		return
	}
	c, err := r.store.Connection(ctx, id)
	if err != nil {
		return
	}
	why := openRenewal
	switch at := c.KeepAliveAt(); {
	case c.Intent != nil && c.Intent.Answer != nil:
		why = readRenewal
	case c.Intent != nil:
	case !at.IsZero() && !wallNow().Before(at):
		why = aheadRenewal
	default:
		return
	}
	if _, err := r.join(grantOf(&c), c.Token.Generation, why, itself, spans.Origin{}); err != nil {
		r.rest(id, wallNow().Add(lookPause))
	}
}

// restsUntil returns when the keeper looks at a connection again.
func (r *Refresher) restsUntil(id string) time.Time {
	r.mu.Lock()
	defer r.mu.Unlock()
	if w := r.work[id]; w != nil {
		return later(w.lookAt, w.heldTill)
	}
	return time.Time{}
}

func (r *Refresher) rest(id string, until time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	w := r.work[id]
	if w == nil {
		w = &work{}
		r.work[id] = w
	}
	w.lookAt = until
}

// Recover begins to finish what the last run left open: answers that were kept
// and not read, refreshes whose outcome nobody saw.
func (r *Refresher) Recover(ctx context.Context) error {
	// An intent that nobody settled is due at the end of its request.
	ids, err := r.store.DueConnections(ctx, wallNow().Add(requestLimit))
	if err != nil {
		return fmt.Errorf("refresh: looking for interrupted refreshes: %w", err)
	}
	for _, id := range ids {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		r.Resolve(ctx, id)
	}
	return nil
}

// RenewAhead begins to renew what is about to expire and was used since it was
// issued, the soonest first, so that requests find valid tokens. It does not
// wait. What a provider's pace leaves over is begun at the next call, which is
// to come every few seconds.
func (r *Refresher) RenewAhead() {
	due := r.cache.dueAhead(wallNow())
	slices.SortFunc(due, func(a, b *tokenstore.Grant) int { return a.Token.ExpiresAt.Compare(b.Token.ExpiresAt) })
	full := map[string]bool{} // integrations that take no more
	for _, g := range due {
		if full[g.Integration] {
			continue
		}
		_, err := r.join(g, g.Token.Generation, sweepRenewal, itself, spans.Origin{})
		if errors.Is(err, errBusy) || errors.Is(err, errEndpointDown) || errors.Is(err, tokenstore.ErrNotActive) {
			full[g.Integration] = true
		}
	}
}

// aheadAt returns when g is renewed though nobody asks for it: up to half the
// soft margin before that begins, another time for each connection, so that
// what was issued together is not renewed together. A provider that has a margin
// of its own takes it no earlier.
func aheadAt(g *tokenstore.Grant, now time.Time) time.Time {
	soft := softAt(g, now)
	if soft.IsZero() || g.Token.Provisional || g.Token.Margin > 0 {
		return soft
	}
	return soft.Add(-time.Duration(tokenstore.Share(g.ConnectionID) * float64(g.Token.ExpiresAt.Sub(soft)) / 2))
}
