package refresh

import (
	"context"
	"fmt"
	"maps"
	"slices"

	"github.com/lanyard-proxy/lanyard/tokenstore"
)

// Freeze lets no new renewal begin until Thaw, and waits for those under way:
// until they have an outcome that is stored, or ctx ends. Valid tokens are handed
// out as ever; who has none is told that the store takes no writes.
func (r *Refresher) Freeze(ctx context.Context) error {
	r.mu.Lock()
	r.frozen = true
	lanes := slices.Collect(maps.Values(r.lanes))
	r.mu.Unlock()
	for _, l := range lanes {
		l.turnAllAway(errFrozen)
	}
	for {
		f := r.anyFlight()
		if f == nil {
			return nil
		}
		select {
		case <-f.over:
		case <-ctx.Done():
			return fmt.Errorf("refresh: waiting for refreshes under way: %w", ctx.Err())
		}
	}
}

// Thaw lets renewals begin again.
func (r *Refresher) Thaw() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.frozen = false
}

// anyFlight returns a flight that is under way, or nil.
func (r *Refresher) anyFlight() *flight {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, w := range r.work {
		if w.flight != nil {
			return w.flight
		}
	}
	return nil
}

// errFrozen refuses renewals while the store is being moved.
var errFrozen = &tokenstore.UnavailableError{RetryAfter: minRetryAfter, Cause: tokenstore.ErrReadOnly}

// turnAllAway tells those who wait for the provider's pace why it is no use.
func (l *lane) turnAllAway(err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.turnAway(err)
}
