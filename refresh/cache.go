package refresh

import (
	"hash/maphash"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/lanyard-proxy/lanyard/secret"
	"github.com/lanyard-proxy/lanyard/tokenstore"
)

// shards keeps two connections from waiting for each other's lock.
const shards = 256

// cache holds the connections used of late, ready to be used again.
type cache struct {
	seed  maphash.Seed
	limit int // entries per shard
	shard [shards]shard
}

type shard struct {
	mu      sync.RWMutex
	entries map[string]*entry // guarded by mu :: connection ID → what is known of it
	// epoch counts the changes, so that a slow read of the store does not
	// bring back what was changed or deleted meanwhile. Guarded by mu.
	epoch uint64
}

type entry struct {
	grant    *tokenstore.Grant // never changed; replaced as a whole, under the shard's lock
	revision uint64
	used     atomic.Int64 // Unix nanoseconds
}

// take makes g what is known. A generation that was known goes on being used.
func (e *entry) take(g *tokenstore.Grant, revision uint64) {
	if e.grant != nil && e.grant.Token.Generation == g.Token.Generation {
		g.Uses = e.grant.Uses
	}
	e.grant, e.revision = g, revision
}

func newCache(size int) *cache {
	c := &cache{seed: maphash.MakeSeed(), limit: max(size/shards, 1)}
	for i := range c.shard {
		c.shard[i].entries = map[string]*entry{}
	}
	return c
}

func (c *cache) of(id string) *shard {
	return &c.shard[maphash.String(c.seed, id)%shards]
}

// use returns the grant of a connection, or nil if it is not known.
func (c *cache) use(id string, now time.Time) *tokenstore.Grant {
	s := c.of(id)
	s.mu.RLock()
	defer s.mu.RUnlock()
	e := s.entries[id]
	if e == nil {
		return nil
	}
	e.used.Store(now.UnixNano())
	return e.grant
}

func (c *cache) lastUsed(id string) time.Time {
	s := c.of(id)
	s.mu.RLock()
	defer s.mu.RUnlock()
	if e := s.entries[id]; e != nil && e.used.Load() != 0 {
		return time.Unix(0, e.used.Load())
	}
	return time.Time{}
}

// dueAhead returns what should be renewed by now though nobody asks for it: what
// was used since it was issued, and can be renewed.
func (c *cache) dueAhead(now time.Time) []*tokenstore.Grant {
	var due []*tokenstore.Grant
	for i := range c.shard {
		s := &c.shard[i]
		s.mu.RLock()
		for _, e := range s.entries {
			g := e.grant
			if !g.Renewable || e.used.Load() <= g.Token.IssuedAt.UnixNano() || usable(g.Status, g.Disabled) != nil {
				continue
			}
			if at := aheadAt(g, now); !at.IsZero() && !now.Before(at) {
				due = append(due, g)
			}
		}
		s.mu.RUnlock()
	}
	return due
}

func (c *cache) epoch(id string) uint64 {
	s := c.of(id)
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.epoch
}

// load keeps a connection that was read from the store after epoch was seen,
// unless something has changed since, and returns its grant.
func (c *cache) load(conn *tokenstore.Connection, epoch uint64) *tokenstore.Grant {
	g := grantOf(conn)
	s := c.of(conn.ID)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.epoch == epoch {
		e := s.keep(conn.ID, c.limit)
		e.take(g, conn.Revision)
		e.used.Store(wallNow().UnixNano())
	}
	return g
}

// put makes conn, which was just written, what the next request sees.
func (c *cache) put(conn *tokenstore.Connection) *tokenstore.Grant {
	g := grantOf(conn)
	s := c.of(conn.ID)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.epoch++
	e := s.entries[conn.ID]
	if e == nil {
		return g // not in use: the next request reads it
	}
	if conn.Revision >= e.revision { // two writes may report in either order
		e.take(g, conn.Revision)
	}
	return g
}

func (c *cache) drop(id string) {
	s := c.of(id)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.epoch++
	delete(s.entries, id)
}

// keep returns the entry of id, making room for it if need be: of a few
// entries the one that was used least lately goes. s.mu is held.
func (s *shard) keep(id string, limit int) *entry {
	if e := s.entries[id]; e != nil {
		return e
	}
	if len(s.entries) >= limit {
		const looked = 8
		victim, oldest, n := "", int64(0), 0
		for k, e := range s.entries { // in random order
			if used := e.used.Load(); victim == "" || used < oldest {
				victim, oldest = k, used
			}
			if n++; n == looked {
				break
			}
		}
		delete(s.entries, victim)
	}
	e := &entry{}
	s.entries[id] = e
	return e
}

func grantOf(c *tokenstore.Connection) *tokenstore.Grant {
	g := &tokenstore.Grant{
		ConnectionID: c.ID, Integration: c.Integration, UserID: c.UserID, Params: maps.Clone(c.Params),
		AuthScheme: c.AuthScheme,
		Status:     c.Status, StatusReason: c.StatusReason, Disabled: c.Disabled, Token: c.Token.Clone(),
		Requested: slices.Clone(c.RequestedScopes),
		Renewable: !c.Token.RefreshToken.IsZero(), Uses: new(tokenstore.Uses),
		SeenAt: time.Now(), SeenWall: wallNow().Round(0),
	}
	g.Token.RefreshToken = secret.String{}
	return g
}
