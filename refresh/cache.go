package refresh

import (
	"hash/maphash"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"
	"unique"

	"github.com/lanyard-proxy/lanyard/secret"
	"github.com/lanyard-proxy/lanyard/tokenstore"
)

// cache holds the connections used of late, ready to be used again. Whoever
// looks for one takes no lock.
type cache struct {
	seed   maphash.Seed
	limit  int // entries per shard
	shards []shard
}

type shard struct {
	entries table[string, *entry] // :: connection ID → what is known of it

	mu sync.Mutex // held by what changes entries, one of them, or epoch
	// epoch counts the changes, so that a slow read of the store does not
	// bring back what was changed or deleted meanwhile. Guarded by mu.
	epoch uint64
}

type entry struct {
	grant    atomic.Pointer[tokenstore.Grant] // what it points to never changes
	used     atomic.Int64                     // Unix nanoseconds
	revision uint64                           // guarded by its shard's mu
}

// take makes g what is known. A generation that was known goes on being used.
func (e *entry) take(g *tokenstore.Grant, revision uint64) {
	if known := e.grant.Load(); known != nil && known.Token.Generation == g.Token.Generation {
		g.Uses = known.Uses
	}
	e.grant.Store(g)
	e.revision = revision
}

func newCache(size int) *cache {
	n, limit := tables(size)
	return &cache{seed: maphash.MakeSeed(), limit: limit, shards: make([]shard, n)}
}

func (c *cache) of(id string) *shard {
	return &c.shards[maphash.String(c.seed, id)%uint64(len(c.shards))]
}

// use returns the grant of a connection, or nil if it is not known.
func (c *cache) use(id string, now time.Time) *tokenstore.Grant {
	e := c.of(id).entries.all()[id]
	if e == nil {
		return nil
	}
	e.used.Store(now.UnixNano())
	return e.grant.Load()
}

func (c *cache) lastUsed(id string) time.Time {
	if e := c.of(id).entries.all()[id]; e != nil && e.used.Load() != 0 {
		return time.Unix(0, e.used.Load())
	}
	return time.Time{}
}

// dueAhead returns what should be renewed by now though nobody asks for it: what
// was used since it was issued, and can be renewed.
func (c *cache) dueAhead(now time.Time) []*tokenstore.Grant {
	var due []*tokenstore.Grant
	for i := range c.shards {
		for _, e := range c.shards[i].entries.all() {
			g := e.grant.Load()
			if !g.Renewable || e.used.Load() <= g.Token.IssuedAt.UnixNano() || usable(g.Status, g.Disabled) != nil {
				continue
			}
			if at := aheadAt(g, now); !at.IsZero() && !now.Before(at) {
				due = append(due, g)
			}
		}
	}
	return due
}

func (c *cache) epoch(id string) uint64 {
	s := c.of(id)
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.epoch
}

// load keeps a connection that was read from the store after epoch was seen,
// unless something has changed since, and returns its grant.
func (c *cache) load(conn *tokenstore.Connection, epoch uint64) *tokenstore.Grant {
	g := grantOf(conn)
	s := c.of(conn.ID)
	s.mu.Lock()
	defer s.mu.Unlock()
	switch e := s.entries.all()[conn.ID]; {
	case s.epoch != epoch, e != nil && conn.Revision < e.revision:
	case e != nil:
		e.take(g, conn.Revision)
		e.used.Store(wallNow().UnixNano())
	default:
		e = new(entry) // not seen by anybody before it is complete
		e.take(g, conn.Revision)
		e.used.Store(wallNow().UnixNano())
		s.makeRoom(c.limit)
		s.entries.set(conn.ID, e)
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
	e := s.entries.all()[conn.ID]
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
	s.entries.remove(id)
}

// dropOlder drops a connection of which another process has written revision.
func (c *cache) dropOlder(id string, revision uint64) {
	s := c.of(id)
	s.mu.Lock()
	defer s.mu.Unlock()
	if e := s.entries.all()[id]; e == nil || e.revision < revision {
		s.epoch++ // it may have been read before, and not be here yet
		s.entries.remove(id)
	}
}

// revisions returns what is known of each connection.
func (c *cache) revisions() map[string]uint64 {
	known := map[string]uint64{}
	for i := range c.shards {
		s := &c.shards[i]
		s.mu.Lock()
		for id, e := range s.entries.all() {
			known[id] = e.revision
		}
		s.mu.Unlock()
	}
	return known
}

// makeRoom lets one more entry in: of a few entries the one that was used least
// lately goes, where there are limit of them. s.mu is held.
func (s *shard) makeRoom(limit int) {
	if len(s.entries.all()) < limit {
		return
	}
	const looked = 8
	victim, oldest, n := "", int64(0), 0
	for k, e := range s.entries.all() { // in random order
		if used := e.used.Load(); victim == "" || used < oldest {
			victim, oldest = k, used
		}
		if n++; n == looked {
			break
		}
	}
	s.entries.remove(victim)
}

func grantOf(c *tokenstore.Connection) *tokenstore.Grant {
	g := &tokenstore.Grant{
		ConnectionID: c.ID, Integration: alike(c.Integration), UserID: c.UserID, Params: maps.Clone(c.Params),
		AuthScheme: alike(c.AuthScheme),
		Status:     tokenstore.Status(alike(string(c.Status))), StatusReason: alike(c.StatusReason),
		Disabled: c.Disabled, Token: c.Token.Clone(), Requested: slices.Clone(c.RequestedScopes),
		Renewable: !c.Token.RefreshToken.IsZero(), Uses: new(tokenstore.Uses),
		SeenAt: time.Now(), SeenWall: wallNow().Round(0),
	}
	g.Token.RefreshToken = secret.String{}
	g.Token.TokenType = alike(g.Token.TokenType)
	alikes(g.Token.Scopes)
	alikes(g.Requested)
	return g
}

// alike returns the one copy of a text that many connections have in common:
// each has read its own.
func alike(s string) string {
	if s == "" {
		return ""
	}
	return unique.Make(s).Value()
}

func alikes(texts []string) {
	for n, s := range texts {
		texts[n] = alike(s)
	}
}
