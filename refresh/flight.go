package refresh

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"go.uber.org/zap"

	"github.com/lanyard-proxy/lanyard/internal/spans"
	"github.com/lanyard-proxy/lanyard/tokenstore"
)

// reason says why a renewal is asked for. It decides what has to be waited
// for before the provider is asked, and what a dead refresh token means.
type reason int

const (
	// dueRenewal: the token is near its end, and somebody waits.
	dueRenewal reason = iota
	// aheadRenewal: the same, and nobody waits.
	aheadRenewal
	// sweepRenewal: the same, and nobody has even asked.
	sweepRenewal
	// refusedRenewal: an API refused the token, which was near its end anyway.
	refusedRenewal
	// forcedRenewal: an API refused a token that should have been good.
	forcedRenewal
	// askedRenewal: an operator wants it now.
	askedRenewal
	// openRenewal: the outcome of an earlier one is open, and nobody has asked.
	openRenewal
	// readRenewal: an answer is stored that nobody has read. The provider is not
	// asked.
	readRenewal
)

// waitedFor reports whether the renewal is urgent.
func (w reason) waitedFor() bool { return w != aheadRenewal && w != sweepRenewal }

// attended reports whether a caller waits for its end.
func (w reason) attended() bool { return w.waitedFor() && w != openRenewal && w != readRenewal }

// accessTokenDead reports whether the access token is known not to be taken.
func (w reason) accessTokenDead() bool { return w == refusedRenewal || w == forcedRenewal }

// work is what is known of the renewals of one connection. It is there while
// one is under way, and after one that failed or was forced.
type work struct {
	flight   *flight   // nil if none is under way
	failures int       // in a row
	provider Provider  // that they were met at; another one may do better
	retryAt  time.Time // nobody tries before
	cause    error     // of the last failure
	openTill time.Time // no due renewal before: an outcome is open
	quiet    time.Time // no request to the provider before: it wants a pause between two
	forcedAt time.Time // of the last forced renewal
	lookAt   time.Time // the keeper does not look before
	heldTill time.Time // nobody who has no caller tries before: another process is at it
	calmTill time.Time // not due before, whatever its token says: it was renewed just now
}

// flight is one renewal under way, shared by all who wait for it. It lands when
// its outcome is known, and is under way until that is stored, too: they differ
// only while the store can't write.
type flight struct {
	turn     *turn // its way to the token endpoint
	of       *tokenstore.Grant
	by       tokenstore.Actor // who had it begin
	attended atomic.Bool      // a caller waits for it, or did
	lease    lease            // the flight's own goroutine's
	trail    trail            // the same
	calmTill time.Time        // the same: of work, if it has brought a token
	done     chan struct{}
	landed   bool              // the flight's own goroutine's
	grant    *tokenstore.Grant // after done
	err      error             // after done

	over   chan struct{}         // closed when nothing of it is under way any more
	late   *tokenstore.Token     // after over: what came for a connection that had been revoked, deleted or reconnected
	lateOf tokenstore.Connection // after over: what that was
	asked  bool                  // guarded by Refresher.mu; somebody here waits for late
}

// land tells those who wait. The first outcome stands.
func (f *flight) land(g *tokenstore.Grant, err error) {
	if !f.landed {
		f.landed, f.grant, f.err = true, g, err
		close(f.done)
	}
}

// renewBehind starts a renewal that nobody waits for, if it may start.
func (r *Refresher) renewBehind(ctx context.Context, g *tokenstore.Grant) {
	_, err := r.join(g, g.Token.Generation, aheadRenewal, itself, spans.From(ctx))
	if err != nil && r.cfg.Logger.Core().Enabled(zap.DebugLevel) {
		r.cfg.Logger.Debug("refresh put off", zap.String("connection_id", g.ConnectionID), zap.Error(err))
	}
}

// renew starts or joins the flight of g's connection, whose generation seen is
// no good, and waits for it.
func (r *Refresher) renew(
	ctx context.Context, g *tokenstore.Grant, seen uint64, why reason, by tokenstore.Actor,
) (*tokenstore.Grant, error) {
	var before *flight
	for range maxFlights {
		f, err := r.join(g, seen, why, by, spans.From(ctx))
		if err != nil {
			return nil, err
		}
		next, err := f.wait(ctx)
		// It may have begun for one who could wait, or for nobody.
		again := why.accessTokenDead() && errors.Is(err, errOutcomeOpen) || errors.Is(err, errHeld)
		if before == nil && again {
			before = f
			continue
		}
		if err != nil {
			return nil, err
		}
		t := &next.Token
		ended := !t.ExpiresAt.IsZero() && !t.ExpiryUnknown && !ageNow(next).Before(t.ExpiresAt)
		if t.Generation > seen && !ended {
			return next, nil
		}
		if f == before {
			// It landed, can't be stored, and what it brought is no good by now.
			return nil, unavailable(0, tokenstore.ErrUnavailable)
		}
		before = f // it may have ended just now, with what was there before
		if t.Generation > seen {
			g, seen = next, t.Generation // another process's, which has ended meanwhile
		}
	}
	return nil, unavailable(0, errShortLived)
}

// maxFlights bounds the flights that one call waits for: one that had begun
// before, what another process did, and a token that ends before it is here.
const maxFlights = 4

// errShortLived is the cause of a renewal that brought nothing of use.
var errShortLived = errors.New("new tokens end before they can be used")

// wait returns what the flight brings, or ctx's error.
func (f *flight) wait(ctx context.Context) (*tokenstore.Grant, error) {
	select {
	case <-f.done:
		return f.grant, f.err
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// errClosing refuses renewals at the program's end.
var errClosing = &tokenstore.UnavailableError{RetryAfter: minRetryAfter, Cause: errors.New("shutting down")}

// Late returns how to wait for the renewal of a connection that is under way, or
// nil if none is. To be asked before the connection is revoked or deleted: the
// token that comes too late for it, if one does, is in nobody's hands, and is to
// be revoked, too.
func (r *Refresher) Late(id string) func(ctx context.Context) (tokenstore.Token, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	w := r.work[id]
	if w == nil || w.flight == nil {
		return nil
	}
	f := w.flight
	f.asked = true
	return func(ctx context.Context) (tokenstore.Token, bool) {
		select {
		case <-f.over:
		case <-ctx.Done():
			return tokenstore.Token{}, false
		}
		if f.late == nil {
			return tokenstore.Token{}, false
		}
		return *f.late, true
	}
}

// join returns the flight under way, or starts one. It returns an
// *UnavailableError while a failure is too fresh to try again or the token
// endpoint is down, ErrNotRenewed for the second forced renewal within
// forcedPause or one within the provider's own pause, ErrNotActive without a
// provider, and errBusy to one that nobody waits for.
func (r *Refresher) join(
	g *tokenstore.Grant, seen uint64, why reason, by tokenstore.Actor, from spans.Origin,
) (*flight, error) {
	p, ok := r.cfg.Provider(g.Integration, g.Params)
	if !ok {
		return nil, fmt.Errorf("refresh: integration %q is not configured: %w", g.Integration, tokenstore.ErrNotActive)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	w := r.work[g.ConnectionID]
	if w != nil && w.flight != nil {
		if why.waitedFor() {
			w.flight.turn.hurry()
		}
		if why.attended() {
			w.flight.attended.Store(true)
			r.cfg.Metrics.Of(g.Integration).Waiters.Add(1)
		}
		return w.flight, nil
	}
	if r.closing {
		return nil, errClosing
	}
	if r.frozen {
		return nil, errFrozen
	}
	if w == nil {
		w = &work{}
	}
	l, now := r.lane(g.Integration, p), wallNow()
	if err := w.refuses(why, p, now); err != nil {
		return nil, err
	}
	if err := w.pauses(g, why, p, now); err != nil {
		return nil, err
	}
	var t *turn
	if g.Renewable && why != readRenewal {
		var err error
		if t, err = l.queue(g.ConnectionID, why); err != nil {
			return nil, err
		}
	}
	if why == forcedRenewal {
		w.forcedAt = now
	}
	r.tidy(now)
	r.work[g.ConnectionID] = w
	f := &flight{turn: t, of: g, by: by, trail: trail{from: from}, done: make(chan struct{}), over: make(chan struct{})}
	f.attended.Store(why.attended())
	w.flight, w.provider = f, p
	r.flights.Go(func() { r.fly(f, g.ConnectionID, seen, why) })
	return f, nil
}

// sameProvider reports whether p and q, one of which may be nil, are one
// provider, whatever the parameters of the connections that they were made for:
// those with parameters are made anew for each question.
func sameProvider(p, q Provider) bool {
	return p != nil && q != nil && p.Origin() == q.Origin()
}

// refuses returns why the connection must not be renewed now, or nil.
func (w *work) refuses(why reason, p Provider, now time.Time) error {
	switch {
	case why != askedRenewal && sameProvider(p, w.provider) && now.Before(w.retryAt): // its last try has failed
		return unavailable(w.retryAt.Sub(now), w.cause)
	case (why == dueRenewal || why == openRenewal || !why.waitedFor()) && now.Before(w.openTill):
		return unavailable(w.openTill.Sub(now), errOutcomeOpen)
	case !why.attended() && now.Before(w.heldTill):
		return unavailable(w.heldTill.Sub(now), errHeld)
	case why == forcedRenewal && !w.forcedAt.IsZero() && now.Before(w.forcedAt.Add(forcedPause)):
		return tokenstore.ErrNotRenewed
	}
	return nil
}

// errPaused is the cause of a renewal that was not tried, since too little time
// has passed since the last one.
var errPaused = errors.New("not tried yet: the provider takes no more so soon")

// pauses returns why g must not be renewed yet by its provider p, which counts
// the requests and may end the grant of who makes too many, or nil. A token that
// was just issued is left alone unless it has ended or is provisional; and
// after a request, whatever came of it, nobody makes another one for a while.
func (w *work) pauses(g *tokenstore.Grant, why reason, p Provider, now time.Time) error {
	pause := p.Pause()
	if pause <= 0 || !g.Renewable || why == readRenewal {
		return nil
	}
	refused := why == forcedRenewal || why == refusedRenewal
	till := w.quiet
	fresh := !g.Token.Provisional && !g.Token.IssuedAt.After(now.Add(clockSlack))
	if fresh && (refused || !why.waitedFor()) {
		till = later(till, g.Token.IssuedAt.Add(pause))
	}
	switch {
	case !now.Before(till):
		return nil
	case refused:
		return tokenstore.ErrNotRenewed
	}
	return unavailable(till.Sub(now), errPaused)
}

// quieten notes that a request for a token of this connection was made of p.
func (r *Refresher) quieten(id string, p Provider) {
	pause := min(p.Pause(), maxQuiet)
	if pause <= 0 {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if w := r.work[id]; w != nil {
		w.quiet = wallNow().Add(pause)
	}
}

// fly runs one renewal when its turn has come, and leaves behind what the next
// one has to know.
func (r *Refresher) fly(f *flight, id string, seen uint64, why reason) {
	defer close(f.over)
	defer f.turn.end()
	var grant *tokenstore.Grant
	err := f.turn.wait(r.ctx)
	if err == nil {
		err = r.takeLease(r.ctx, f, id, seen)
	}
	if err == nil {
		grant, err = r.redeem(r.ctx, f, id, seen, why)
		r.count(f, grant, err)
	}
	if hasMoved(err) {
		grant, err = r.moved(r.ctx, f, id, seen, err)
	}

	r.mu.Lock()
	w := r.work[id]
	w.flight = nil
	un, failed := errors.AsType[*tokenstore.UnavailableError](err)
	switch {
	case failed && errors.Is(un.Cause, errOutcomeOpen):
		w.openTill = later(w.openTill, wallNow().Add(un.RetryAfter))
	case failed && (errors.Is(un.Cause, errEndpointDown) || errors.Is(un.Cause, errClocks) || un == errClosing || un == errFrozen):
		// Not this connection's failure: the lane refuses the next one itself.
	case failed && errors.Is(un.Cause, errHeld):
		w.heldTill = wallNow().Add(heldPause)
	case failed:
		if w.failures++; w.failures == 1 {
			r.tellFailure(f, un.Cause)
		}
		w.cause = un.Cause
		wait := max(un.RetryAfter, backOff(w.failures), w.quiet.Sub(wallNow()))
		if storeFailed(un.Cause) {
			wait = min(wait, maxStorePause)
		}
		w.retryAt = wallNow().Add(wait)
		un.RetryAfter = clampRetry(wait)
	default:
		w.failures, w.retryAt, w.openTill, w.cause = 0, time.Time{}, time.Time{}, nil
		w.calmTill = later(w.calmTill, f.calmTill) // it may only have found what another has got
		if w.forcedAt.IsZero() && w.quiet.IsZero() && w.calmTill.IsZero() {
			delete(r.work, id)
		}
	}
	asked := f.asked
	r.mu.Unlock()
	f.land(grant, err)
	if f.late != nil && !asked && r.shared != nil && r.cfg.Late != nil {
		r.cfg.Late(f.lateOf, *f.late)
	}
	if f.lease.hold != nil {
		r.flights.Go(f.lease.hold.Release) // those who wait are not kept by the store
	}
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// tidyOver is how much work may be remembered before what is no longer needed
// is looked for, at first.
const tidyOver = 4096

// tidy forgets work that no longer matters. It looks again when there is twice
// as much as it had to leave. A failure matters for a while after its back-off:
// the next one counts on from it. r.mu is held.
func (r *Refresher) tidy(now time.Time) {
	if len(r.work) < r.tidyAt {
		return
	}
	for id, w := range r.work {
		if w.flight == nil && now.After(w.retryAt.Add(maxBackOff)) && now.After(w.openTill) && now.After(w.lookAt) &&
			now.After(w.forcedAt.Add(forcedPause)) && now.After(w.quiet) && now.After(w.calmTill) {
			delete(r.work, id)
		}
	}
	r.tidyAt = max(tidyOver, 2*len(r.work))
}
