package refresh

import (
	"context"
	"errors"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/lanyard-proxy/lanyard/tokenstore"
)

// watches are those who want to know when a connection is no longer usable.
type watches struct {
	mu sync.Mutex
	of map[string]map[chan struct{}]bool // guarded by mu :: connection ID → what to close
}

// Watch returns what is closed as soon as a write through Store has made the
// connection unusable: revoked, deleted, disabled, expired; within a second if
// another process did. A renewal of its token does not. It is closed at once if that is so already. stop has to be
// called at the end; it may be called more than once.
func (r *Refresher) Watch(id string) (ended <-chan struct{}, stop func()) {
	end := make(chan struct{})
	r.watches.add(id, end)
	// It may have happened since the caller looked.
	if g, err := r.Find(r.ctx, id); errors.Is(err, tokenstore.ErrNotFound) || err == nil && usable(g.Status, g.Disabled) != nil {
		r.watches.end(id)
	}
	return end, func() { r.watches.remove(id, end) }
}

func (w *watches) add(id string, end chan struct{}) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.of == nil {
		w.of = map[string]map[chan struct{}]bool{}
	}
	if w.of[id] == nil {
		w.of[id] = map[chan struct{}]bool{}
	}
	w.of[id][end] = true
}

func (w *watches) remove(id string, end chan struct{}) {
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.of[id], end)
	if len(w.of[id]) == 0 {
		delete(w.of, id)
	}
}

// ids returns the connections that are watched.
func (w *watches) ids() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Collect(maps.Keys(w.of))
}

func (w *watches) has(id string) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return len(w.of[id]) > 0
}

// end tells all who watch id.
func (w *watches) end(id string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for end := range w.of[id] {
		close(end)
	}
	delete(w.of, id)
}

// watched is the store with the cache kept right on every write, and with those
// told who watch. A write that has begun is seen through, whoever loses
// patience: one that succeeds unseen would leave an old grant in the cache.
type watched struct {
	tokenstore.Store
	r *Refresher
}

// watchedShared is watched where the store is Shared.
type watchedShared struct {
	watched
	sharedOnly
}

// sharedOnly is what Shared has and Store has not.
type sharedOnly interface {
	TakeLease(ctx context.Context, name, owner string, life time.Duration) error
	RenewLease(ctx context.Context, name, owner string, life time.Duration) error
	DropLease(ctx context.Context, name, owner string) error
	Changes(ctx context.Context, since tokenstore.ChangeMark) ([]tokenstore.Change, tokenstore.ChangeMark, error)
	Revisions(ctx context.Context, ids []string) (map[string]uint64, error)
}

var _ tokenstore.Shared = watchedShared{}

// Connection implements tokenstore.Store.
func (w watched) Connection(ctx context.Context, id string) (tokenstore.Connection, error) {
	c, err := w.Store.Connection(ctx, id)
	if errors.Is(err, tokenstore.ErrCorrupt) {
		w.r.noteDamage(ctx, id)
	}
	return c, err
}

// CreateConnection implements tokenstore.Store.
func (w watched) CreateConnection(ctx context.Context, c tokenstore.Connection) (tokenstore.Connection, error) {
	if err := ctx.Err(); err != nil {
		return tokenstore.Connection{}, err
	}
	key := keyOf(&c)
	c, err := w.Store.CreateConnection(context.WithoutCancel(ctx), c)
	if err != nil {
		w.r.users.drop(key)
		return c, err
	}
	w.r.users.put(&c)
	return c, nil
}

// UpdateConnection implements tokenstore.Store.
func (w watched) UpdateConnection(ctx context.Context, id string, change func(*tokenstore.Connection) error) (tokenstore.Connection, error) {
	var of atomic.Pointer[userKey] // whose it is
	c, err := w.Store.UpdateConnection(context.WithoutCancel(ctx), id, func(c *tokenstore.Connection) error {
		of.Store(new(keyOf(c)))
		return change(c)
	})
	if err != nil {
		w.r.cache.drop(id)
		if key := of.Load(); key != nil {
			w.r.users.drop(*key)
		}
		if errors.Is(err, tokenstore.ErrCorrupt) {
			w.r.noteDamage(ctx, id)
		}
		return c, err
	}
	w.r.cache.put(&c)
	w.r.users.put(&c)
	if usable(c.Status, c.Disabled) != nil {
		w.r.watches.end(id)
	}
	return c, nil
}

// DeleteConnection implements tokenstore.Store. A user whose connection it was is
// looked for anew when the connection isn't found.
func (w watched) DeleteConnection(ctx context.Context, id string, news ...tokenstore.Event) (tokenstore.Connection, error) {
	c, err := w.Store.DeleteConnection(context.WithoutCancel(ctx), id, news...)
	w.r.cache.drop(id)
	if err == nil {
		w.r.watches.end(id)
	}
	return c, err
}
