package caddymodule

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"go.uber.org/zap"

	"github.com/lanyard-proxy/lanyard/api"
	"github.com/lanyard-proxy/lanyard/tokenstore"
)

const (
	// freezeLife is how long a store stays frozen that nobody asks to stay so:
	// whoever moves it may have been killed.
	freezeLife = time.Minute
	// freezeWait is how long what is under way is waited for: a request to a token
	// endpoint, and time to write what came of it.
	freezeWait = 30 * time.Second
	// freezeAgain is the pause between two looks at code exchanges under way.
	freezeAgain = 100 * time.Millisecond
)

// freezer is a store that can be frozen by the process that has it.
type freezer interface {
	Freeze(ctx context.Context) error
	Thaw() error
	Frozen() bool
	Moved(to string) error
	Export(ctx context.Context, w io.Writer) error
}

// freezing is the state of that. The zero value is of one that takes writes.
type freezing struct {
	mu    sync.Mutex   // held while it freezes, too
	now   api.Freezing // guarded by mu
	timer *time.Timer  // guarded by mu; thaws
}

// Freezing implements api.Freezer.
func (e *engine) Freezing() api.Freezing {
	e.freeze.mu.Lock()
	defer e.freeze.mu.Unlock()
	if e.freeze.now.State == "" {
		return api.Freezing{State: "open"}
	}
	return e.freeze.now
}

// Freeze implements api.Freezer.
func (e *engine) Freeze(ctx context.Context, id string) (api.Freezing, error) {
	s, ok := e.store.(freezer)
	if !ok {
		return api.Freezing{}, errors.ErrUnsupported
	}
	f := &e.freeze
	f.mu.Lock()
	defer f.mu.Unlock()
	switch {
	case f.now.State == "moved":
		return f.now, fmt.Errorf("%w to %s", tokenstore.ErrMoved, f.now.MovedTo)
	case id != "" && (f.now.State != "frozen" || f.now.ID != id):
		return f.now, tokenstore.ErrNotFrozen
	}
	if f.now.State != "frozen" {
		if err := e.stopWrites(ctx, s); err != nil {
			return f.now, errors.Join(err, e.letWrite(s))
		}
		f.timer = time.AfterFunc(freezeLife, e.thawLate)
	}
	if id == "" { // whoever froze it before is not the one any more
		id = rand.Text()
	}
	f.timer.Reset(freezeLife)
	until := time.Now().Add(freezeLife).UTC().Truncate(time.Second)
	f.now = api.Freezing{State: "frozen", ID: id, Until: &until}
	return f.now, nil
}

// stopWrites ends what writes, the requests to providers first: what they answer
// has to be stored.
func (e *engine) stopWrites(ctx context.Context, s freezer) error {
	ctx, cancel := context.WithTimeout(ctx, freezeWait)
	defer cancel()
	if err := e.refresher.Freeze(ctx); err != nil {
		return err
	}
	e.tellMu.Lock()
	e.webhooks.Use(nil)
	e.tellMu.Unlock()
	for {
		if err := s.Freeze(ctx); err != nil {
			return err
		}
		// Taking a flow is a write: those that are taken now are all there are.
		taken, err := e.store.TakenFlows(ctx)
		if err != nil || len(taken) == 0 {
			return err
		}
		if err := s.Thaw(); err != nil {
			return err
		}
		select {
		case <-time.After(freezeAgain):
		case <-ctx.Done():
			return fmt.Errorf("waiting for %d code exchanges under way: %w", len(taken), ctx.Err())
		}
	}
}

// letWrite is the other way round.
func (e *engine) letWrite(s freezer) error {
	if err := s.Thaw(); err != nil {
		return err
	}
	e.refresher.Thaw()
	e.tellMu.Lock()
	defer e.tellMu.Unlock()
	if e.told != nil {
		e.webhooks.Use(e.told.settings.webhooks)
	}
	return nil
}

// Thaw implements api.Freezer.
func (e *engine) Thaw(ctx context.Context) (api.Freezing, error) {
	s, ok := e.store.(freezer)
	if !ok {
		return api.Freezing{}, errors.ErrUnsupported
	}
	f := &e.freeze
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.now.State == "moved" {
		return f.now, fmt.Errorf("%w to %s", tokenstore.ErrMoved, f.now.MovedTo)
	}
	if f.now.State == "frozen" {
		f.timer.Stop()
		if err := e.letWrite(s); err != nil {
			return f.now, err
		}
		e.report(e.audit.Record(ctx, tokenstore.Event{Type: tokenstore.EventThawed, Actor: tokenstore.Actor{Kind: tokenstore.ActorLanyard}}))
	}
	f.now = api.Freezing{State: "open"}
	return f.now, nil
}

// thawLate ends a freeze that nobody has asked to go on.
func (e *engine) thawLate() {
	now := e.Freezing()
	if now.State != "frozen" || time.Now().Before(*now.Until) {
		return // it was asked for meanwhile
	}
	ctx, cancel := context.WithTimeout(context.Background(), freezeWait)
	defer cancel()
	if _, err := e.Thaw(ctx); err != nil {
		e.logger.Error("store not thawed", zap.Error(err))
		return
	}
	e.logger.Warn("store thawed: whoever froze it has gone")
}

// Moved implements api.Freezer.
func (e *engine) Moved(_ context.Context, id, to string) (api.Freezing, error) {
	s, ok := e.store.(freezer)
	if !ok {
		return api.Freezing{}, errors.ErrUnsupported
	}
	f := &e.freeze
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.now.State != "frozen" || f.now.ID != id {
		return f.now, tokenstore.ErrNotFrozen
	}
	if err := s.Moved(to); err != nil {
		return f.now, err
	}
	f.timer.Stop()
	f.now = api.Freezing{State: "moved", MovedTo: to}
	e.logger.Warn("store moved: it takes no writes any more", zap.String("moved_to", to))
	return f.now, nil
}

// Export implements api.Freezer.
func (e *engine) Export(ctx context.Context, w io.Writer) error {
	s, ok := e.store.(freezer)
	if !ok {
		return errors.ErrUnsupported
	}
	return s.Export(ctx, w)
}

// stopFreezing ends the timer, at the engine's end.
func (e *engine) stopFreezing() {
	e.freeze.mu.Lock()
	defer e.freeze.mu.Unlock()
	if e.freeze.timer != nil {
		e.freeze.timer.Stop()
	}
}

// movable is a store that several Lanyards share, and that is frozen for all of
// them at once.
type movable interface {
	Moving(ctx context.Context) (bool, error)
}

// followMove begins nothing more whose end has to be written while the store is
// being moved. was is what it returned before.
func (e *engine) followMove(ctx context.Context, s movable, was bool) bool {
	ctx, cancel := context.WithTimeout(ctx, houseEvery)
	defer cancel()
	moving, err := s.Moving(ctx)
	if err != nil || moving == was {
		return was
	}
	e.tellMu.Lock()
	defer e.tellMu.Unlock()
	if moving {
		e.logger.Warn("store is being moved: nothing is renewed")
		cancel() // what is under way ends by itself, and whoever moves the store waits for it
		_ = e.refresher.Freeze(ctx)
		e.webhooks.Use(nil)
		return true
	}
	e.logger.Warn("store is not moved any more")
	e.refresher.Thaw()
	if e.told != nil {
		e.webhooks.Use(e.told.settings.webhooks)
	}
	return false
}
