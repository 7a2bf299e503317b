package refresh

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/lanyard-proxy/lanyard/tokenstore"
)

// On a store that several processes share, a flight does its work under a lease.
// It keeps the others from beginning the same; what none of them may overwrite
// is kept by the conditions of the writes (intent.go).
const (
	// leaseLife outlives the request made under the lease: both are counted from
	// before it was taken. Renewals (tokenstore.Hold) make it longer, never shorter.
	leaseLife = requestLimit + 2*time.Second
	// askWithin is how soon after that the request has to begin. One that has
	// little time left would only make an outcome that nobody sees; and one that
	// comes late is of a process that stood still.
	askWithin = requestLimit / 2
	// maxLeaseWait is longer than the lease of a process lasts that has ended: it
	// has renewed it no later than its request could end.
	maxLeaseWait = 45 * time.Second
	// The pauses between two looks for what another process does.
	firstPause, longestPause = 50 * time.Millisecond, 250 * time.Millisecond
	// heldPause is how long those that nobody waits for leave a connection to the
	// process that has its lease.
	heldPause = 5 * time.Second
	// lateTime is how long the answer to a request of a process that has lost its
	// lease is waited for: it may have it in hand, and the store has only just
	// come back. It tries to write it every second (persist).
	lateTime = 5 * time.Second
	// raceTime is how long a newer token is waited for before a refresh token is
	// taken to be dead that another process may have redeemed.
	raceTime = time.Second
)

// errHeld ends a renewal that another process is at.
var errHeld = errors.New("another process renews it")

// errLate ends a renewal whose process stood still, or whose store was slow, for
// too long to go on under its lease.
var errLate = fmt.Errorf("too late to ask under this lease: %w", errHeld)

// lease is what a flight does its work under. It has no hold on a store that
// nobody shares.
type lease struct {
	hold  *tokenstore.Hold
	begun time.Time // before it was taken
	wall  time.Time // the same by the wall clock: the other one may stand still with the machine
}

// takeLease takes the connection's lease, and waits for it as long as somebody
// waits for f. It returns errMoved when another process has renewed the token, of
// which generation seen was known here.
func (r *Refresher) takeLease(ctx context.Context, f *flight, id string, seen uint64) error {
	giveUp := time.Now().Add(maxLeaseWait)
	for pause := firstPause; ; pause = min(2*pause, longestPause) {
		f.lease.begun, f.lease.wall = time.Now(), wallNow().Round(0)
		hold, err := tokenstore.TakeHold(ctx, r.cfg.Store, "refresh/"+id, leaseLife)
		switch {
		case err == nil:
			f.lease.hold = hold
			return nil
		case !errors.Is(err, tokenstore.ErrLeased):
			return unavailable(0, fmt.Errorf("taking lease: %w", err))
		case !f.attended.Load():
			return unavailable(heldPause, errHeld)
		case !time.Now().Before(giveUp):
			return unavailable(0, fmt.Errorf("waiting for lease: %w", err))
		}
		f.turn.end() // others can use its place meanwhile
		if err := r.pause(ctx, pause); err != nil {
			return err
		}
		c, err := r.store.Connection(ctx, id)
		if errors.Is(err, tokenstore.ErrNotFound) || err == nil && (c.Token.Generation > seen || usable(c.Status, c.Disabled) != nil) {
			return errMoved
		}
	}
}

// pause waits for about d, or returns why there is no use in it.
func (r *Refresher) pause(ctx context.Context, d time.Duration) error {
	d = time.Duration(float64(d) * (0.75 + 0.5*rand.Float64())) //nolint:gosec // spreads load; nobody gains by guessing it
	select {
	case <-time.After(d):
	case <-ctx.Done():
		return fmt.Errorf("refresh: waiting for another process: %w", ctx.Err())
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	switch {
	case r.closing:
		return errClosing
	case r.frozen:
		return errFrozen
	}
	return nil
}

// lost reports whether another may have the lease by now.
func (l *lease) lost() bool {
	select {
	case <-l.hold.Lost():
		return true
	default:
		return false
	}
}

// timeLeft returns how long the request may take.
func (l *lease) timeLeft() time.Duration { return requestLimit - time.Since(l.begun) }

// mayAsk returns nil if the request may begin now, else errLate.
func (l *lease) mayAsk() error {
	if l.hold == nil {
		return nil
	}
	if l.lost() || max(time.Since(l.begun), wallNow().Round(0).Sub(l.wall)) > askWithin {
		return unavailable(0, errLate)
	}
	return nil
}

// read reads the connection, whose generation seen is to be replaced. If the
// outcome of a request of another process is open, whose lease has ended, that
// one gets some time to write what it may have in hand.
func (r *Refresher) read(ctx context.Context, f *flight, id string, seen uint64) (tokenstore.Connection, error) {
	for until := time.Now().Add(lateTime); ; {
		c, err := r.store.Connection(ctx, id)
		if err != nil {
			return c, fmt.Errorf("refresh: reading connection: %w", err)
		}
		open := c.Token.Generation <= seen && c.Intent != nil && c.Intent.Answer == nil && !settled(c.Intent)
		if f.lease.hold == nil || !open || !time.Now().Before(until) {
			r.cache.dropOlder(id, c.Revision) // callers are told why by what is in memory
			return c, nil
		}
		f.turn.end()
		if err := r.pause(ctx, longestPause); err != nil {
			return c, err
		}
	}
}

// outrun reports whether c is no longer what is stored: another process has
// redeemed the refresh token that ours was refused for. Where there is a sign
// that one was at work, it gets some time to store what it got.
func (r *Refresher) outrun(ctx context.Context, f *flight, c *tokenstore.Connection) bool {
	if f.lease.hold == nil {
		return false
	}
	until := time.Now()
	if c.Intent.Unknown > 0 || f.lease.lost() {
		until = until.Add(raceTime)
	}
	for {
		cur, err := r.cfg.Store.Connection(ctx, c.ID)
		if err == nil && !stillOpen(&cur, c) {
			return true
		}
		if !time.Now().Before(until) || ctx.Err() != nil {
			return false
		}
		select {
		case <-time.After(firstPause):
		case <-ctx.Done():
		}
	}
}

// maxCalm bounds how long after a renewal a process takes no other one to be due:
// for half of the new token's life.
const maxCalm = 30 * time.Second

// errClocks is the cause of a renewal that was not tried: the token was renewed
// just now, and another process has put one in its place that looks old. Two
// whose clocks differ would renew each other's tokens without end.
var errClocks = errors.New("renewed just now: the clocks of two Lanyards may differ")

// mayRenew returns errClocks where it is the clock alone that asks for a renewal,
// and this process has renewed the connection's token just now.
func (r *Refresher) mayRenew(id string, why reason) error {
	if why != dueRenewal && why != aheadRenewal && why != sweepRenewal {
		return nil
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if wait := r.work[id].calmTill.Sub(wallNow()); wait > 0 {
		return unavailable(wait, errClocks)
	}
	return nil
}
