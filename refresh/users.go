package refresh

import (
	"context"
	"errors"
	"fmt"
	"hash/maphash"
	"sync"
	"sync/atomic"

	"github.com/lanyard-proxy/lanyard/tokenstore"
)

// userKey is a user of an integration.
type userKey struct{ integration, userID string }

func keyOf(c *tokenstore.Connection) userKey { return userKey{c.Integration, c.UserID} }

// users knows which connection is the newest usable one of those users who were
// asked for of late. Whoever looks takes no lock.
type users struct {
	seed   maphash.Seed
	limit  int // entries per shard
	shards []userShard
}

type userShard struct {
	newest table[userKey, tokenstore.Position] // :: user → the newest usable connection
	// epoch counts the changes, as in shard. It is counted before what it counts
	// is seen.
	epoch atomic.Uint64

	mu sync.Mutex // held by what changes newest or epoch
}

func newUsers(size int) *users {
	n, limit := tables(size)
	return &users{seed: maphash.MakeSeed(), limit: limit, shards: make([]userShard, n)}
}

func (u *users) of(k userKey) *userShard {
	return &u.shards[maphash.Comparable(u.seed, k)%uint64(len(u.shards))]
}

// look returns the ID of the newest usable connection of a user, if that is
// known, and the epoch for load.
func (u *users) look(k userKey) (id string, epoch uint64) {
	s := u.of(k)
	epoch = s.epoch.Load()
	return s.newest.all()[k].ID, epoch
}

// load keeps what was read from the store after epoch was seen, unless something
// has changed since.
func (u *users) load(c *tokenstore.Connection, epoch uint64) {
	k := keyOf(c)
	s := u.of(k)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.epoch.Load() != epoch {
		return
	}
	if _, known := s.newest.all()[k]; !known && len(s.newest.all()) >= u.limit {
		for victim := range s.newest.all() { // any: it is read again when it is wanted
			s.newest.remove(victim)
			break
		}
	}
	s.newest.set(k, tokenstore.PositionOf(c))
}

// put takes notice of c, which was just written.
func (u *users) put(c *tokenstore.Connection) {
	k := keyOf(c)
	s := u.of(k)
	s.mu.Lock()
	defer s.mu.Unlock()
	known, ok := s.newest.all()[k]
	usable := usable(c.Status, c.Disabled) == nil
	if ok && known.ID == c.ID && usable {
		return // as most writes, which renew a token
	}
	s.epoch.Add(1)
	if ok && (known.ID == c.ID || usable && known.Compare(tokenstore.PositionOf(c)) < 0) {
		s.newest.remove(k)
	}
}

// clear forgets all users: what was written is not known.
func (u *users) clear() {
	for i := range u.shards {
		s := &u.shards[i]
		s.mu.Lock()
		s.epoch.Add(1)
		s.newest.clear()
		s.mu.Unlock()
	}
}

// drop forgets a user: what was written is not known.
func (u *users) drop(k userKey) {
	s := u.of(k)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.epoch.Add(1)
	s.newest.remove(k)
}

// FindUser returns the connection of a user at an integration: the newest that
// can be used, else the newest of all. It returns an error that wraps
// tokenstore.ErrNotFound, ErrCorrupt or ErrUnavailable.
func (r *Refresher) FindUser(ctx context.Context, integration, userID string) (*tokenstore.Grant, error) {
	k := userKey{integration, userID}
	id, epoch := r.users.look(k)
	if id != "" {
		if g, err := r.Find(ctx, id); err == nil && usable(g.Status, g.Disabled) == nil {
			return g, nil
		}
		r.users.drop(k)
		_, epoch = r.users.look(k)
	}
	c, err := r.newestUsable(ctx, k)
	if err != nil {
		return nil, fmt.Errorf("refresh: finding a user's connection: %w", err)
	}
	if usable(c.Status, c.Disabled) == nil {
		r.users.load(&c, epoch)
	}
	return r.Find(ctx, c.ID)
}

const (
	// maxDisabled bounds how many connections of one user are looked at for one
	// that is not disabled.
	maxDisabled = 1000
	pageOfUser  = 100
)

// newestUsable reads from the store which connection is a user's.
func (r *Refresher) newestUsable(ctx context.Context, k userKey) (tokenstore.Connection, error) {
	all := tokenstore.Filter{Integration: k.integration, UserID: k.userID}
	active := all
	active.Status = tokenstore.StatusActive
	newest, err := r.store.NewestConnection(ctx, active)
	if err == nil && !newest.Disabled {
		return newest, nil
	}
	if err == nil { // none but the newest may be in use
		older, found, err := r.newestEnabled(ctx, active)
		if found || err != nil {
			return older, err
		}
		return newest, nil
	}
	if !errors.Is(err, tokenstore.ErrNotFound) {
		return newest, err
	}
	return r.store.NewestConnection(ctx, all)
}

func (r *Refresher) newestEnabled(ctx context.Context, f tokenstore.Filter) (newest tokenstore.Connection, found bool, err error) {
	for cursor, looked := "", 0; looked < maxDisabled; looked += pageOfUser {
		page, next, err := r.store.ListConnections(ctx, f, cursor, pageOfUser)
		if err != nil {
			return newest, false, err
		}
		for i := range page { // oldest first
			if !page[i].Damaged && !page[i].Disabled {
				newest, found = page[i], true
			}
		}
		if next == "" {
			break
		}
		cursor = next
	}
	return newest, found, nil
}
