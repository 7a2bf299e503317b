package revoke

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"strings"
	"time"

	"go.uber.org/zap"

	"github.com/lanyard-proxy/lanyard/seal"
	"github.com/lanyard-proxy/lanyard/tokenstore"
)

// A run makes the revocations that it has noted. On a store that several processes
// have, each keeps a lease in the name of its run: notes of a run without one are
// taken up by whoever finds them, who makes them its own.

// leasePrefix begins the name of a run's lease.
const leasePrefix = "revoker/"

// noteID returns an ID for a note, and sees to the lease that keeps others from
// taking it up.
func (r *Revoker) noteID(ctx context.Context) string {
	return notePrefix + r.current(ctx) + "-" + random()
}

// current returns the name of this run. If its lease was lost it is another one
// from now on.
func (r *Revoker) current(ctx context.Context) string {
	if r.runLost() {
		r.startOver()
	}
	r.mu.Lock()
	closed := r.closed
	r.mu.Unlock()
	r.runMu.Lock()
	defer r.runMu.Unlock()
	if r.hold != nil || closed {
		return r.run
	}
	hold, err := tokenstore.TakeHold(ctx, r.cfg.Store, leasePrefix+r.run, 0)
	if err != nil {
		r.log.Warn("lease of revocations not taken: another sidecar may make them, too", zap.Error(err))
	}
	r.hold = hold
	return r.run
}

func (r *Revoker) runLost() bool {
	r.runMu.Lock()
	defer r.runMu.Unlock()
	return !r.hold.Held()
}

// startOver begins another run, since others take up what this one has noted: it
// is they who make it now, or this one when it takes it up.
func (r *Revoker) startOver() {
	r.endRun()
	r.mu.Lock()
	defer r.mu.Unlock()
	maps.DeleteFunc(r.queue, func(p *pending, _ bool) bool { return p.noted })
}

// endRun gives up the lease of this run, under which nothing is noted any more.
func (r *Revoker) endRun() {
	r.runMu.Lock()
	defer r.runMu.Unlock()
	r.hold.Release()
	r.hold, r.run = nil, random()
}

// queued reports whether p is still this run's to make.
func (r *Revoker) queued(p *pending) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.queue[p]
}

// Recover takes up the revocations that earlier runs have noted. It drops those
// that ended before anything was erased. It is called once, when the program
// starts; on a shared store again and again, since other processes end too: what
// those have noted that live is left to them.
func (r *Revoker) Recover(ctx context.Context) error {
	notes, err := r.cfg.Store.ListNotes(ctx, notePrefix)
	if err != nil {
		return fmt.Errorf("revoke: listing revocations to be made: %w", err)
	}
	r.runMu.Lock()
	own := r.run
	r.runMu.Unlock()
	byRun := map[string][]*tokenstore.Note{}
	for i := range notes {
		run, _, _ := strings.Cut(strings.TrimPrefix(notes[i].ID, notePrefix), "-")
		byRun[run] = append(byRun[run], &notes[i])
	}
	delete(byRun, own)
	for run, notes := range byRun {
		if err := r.adopt(ctx, run, notes); err != nil {
			return fmt.Errorf("revoke: taking up a revocation: %w", err)
		}
	}
	return nil
}

// adopt takes up what a run has noted that has ended.
func (r *Revoker) adopt(ctx context.Context, run string, notes []*tokenstore.Note) error {
	hold, err := tokenstore.TakeHold(ctx, r.cfg.Store, leasePrefix+run, 0)
	switch {
	case errors.Is(err, tokenstore.ErrLeased):
		return nil
	case err != nil:
		return err
	case hold == nil:
		for _, n := range notes {
			if err := r.recover(ctx, n); err != nil {
				return err
			}
		}
		return nil
	}
	defer hold.Release()
	for _, n := range notes {
		own, err := r.move(ctx, n)
		if err == nil && own != nil {
			err = r.recover(ctx, own)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// move makes a note this run's own. It returns nil if another has made it its own,
// there is
// no room, or it can't be read.
func (r *Revoker) move(ctx context.Context, n *tokenstore.Note) (*tokenstore.Note, error) {
	r.mu.Lock()
	full := r.closed || len(r.queue) >= maxPending
	r.mu.Unlock()
	if full {
		return nil, nil
	}
	if _, err := seal.ParseConnectionText(n.Text); err != nil {
		return nil, nil //nolint:nilerr,nilnil // one of another version may read it
	}
	// It was listed before its run's lease was held.
	if _, err := r.cfg.Store.Note(ctx, n.ID); err != nil {
		if errors.Is(err, tokenstore.ErrNotFound) {
			err = nil
		}
		return nil, err
	}
	own, err := r.cfg.Store.UpdateNote(ctx, r.noteID(ctx), func(own *tokenstore.Note) error {
		own.Text, own.KeepUntil = n.Text, n.KeepUntil
		return nil
	})
	if err != nil {
		return nil, err
	}
	return &own, r.cfg.Store.DeleteNote(ctx, n.ID)
}

func (r *Revoker) recover(ctx context.Context, n *tokenstore.Note) error {
	held, err := seal.ParseConnectionText(n.Text)
	p := &pending{note: n.ID, noted: true, since: held.UpdatedAt, held: held}
	if err != nil {
		r.log.Warn("note of a revocation is unreadable", zap.Error(err))
		r.forget(ctx, p)
		return nil
	}
	if held.ID != "" {
		c, err := r.cfg.Store.Connection(ctx, held.ID)
		switch {
		case err == nil && stillHolds(&c, &held):
			r.forget(ctx, p)
			return nil
		case errors.Is(err, tokenstore.ErrUnavailable):
			return err
		}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed || len(r.queue) >= maxPending {
		return nil // it is there at the next start, too
	}
	p.next = time.Now()
	r.queue[p] = true
	r.wake()
	return nil
}
