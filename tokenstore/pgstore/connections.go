package pgstore

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/lanyard-proxy/lanyard/tokenstore"
)

const (
	selectConnection = `select revision, sealed from lanyard_connections where id = $1`
	insertConnection = `insert into lanyard_connections (id, revision, sealed, due, changed_at, relisted_at)
		values (?, ?, ?, ?, clock_timestamp(), clock_timestamp()) on conflict (id) do nothing`
	updateConnection = `update lanyard_connections set revision = ?, sealed = ?, due = ?, changed_at = clock_timestamp()`
	deleteConnection = `update lanyard_connections set revision = ?, sealed = null, due = null,
		changed_at = clock_timestamp(), relisted_at = clock_timestamp() where id = ? and revision = ? and sealed = ?`
	touchConnection = `update lanyard_connections set changed_at = clock_timestamp() where id = $1`
	touchRelisted   = `update lanyard_connections set changed_at = clock_timestamp(), relisted_at = clock_timestamp() where id = $1`
	insertLists     = `, listed as (insert into lanyard_lists (digest, place)
		select x.digest, ?::bytea from unnest(?::bytea[]) as x (digest) where exists (select 1 from done))`
	deleteLists = `delete from lanyard_lists where place = ? and digest = any(?::bytea[])`
)

// CreateConnection implements tokenstore.Store.
func (s *Store) CreateConnection(ctx context.Context, c tokenstore.Connection) (tokenstore.Connection, error) {
	if err := checkID(c.ID); err != nil {
		return tokenstore.Connection{}, fmt.Errorf("pgstore: creating a connection: %w", err)
	}
	c = c.Clone()
	now := time.Now().UTC().Round(0)
	if c.CreatedAt.IsZero() {
		c.CreatedAt = now
	}
	c.UpdatedAt, c.Revision = now, 1
	news := c.TakeNews()
	created, took, err := replace(ctx, s, record[tokenstore.Connection]{
		key: "c/" + c.ID, make: true,
		wrote:  func(after stored) { s.recent.wrote(c.ID, after) },
		unsure: func() { s.unsure.add(c.ID) },
		read:   func(ctx context.Context) (stored, error) { return s.row(ctx, selectConnection, c.ID) },
		work: func(_ context.Context, was stored) (a attempt[tokenstore.Connection], err error) {
			if was.revision != 0 {
				return a, tokenstore.ErrExists
			}
			with := s.sealer.now.Load()
			sealed, err := with.codec.SealConnection(&c, with.data(tokenstore.KindConnection, c.ID, c.Revision))
			if err != nil {
				return a, err
			}
			q := s.insertion(&c, sealed)
			q.tell(s.sealNews(with, news))
			return attempt[tokenstore.Connection]{result: c, after: stored{c.Revision, sealed}, write: q}, nil
		},
	})
	if err != nil {
		return tokenstore.Connection{}, fmt.Errorf("pgstore: creating connection %q: %w", c.ID, err)
	}
	s.touch(ctx, c.ID, took, touchRelisted)
	return created, nil
}

// insertion makes a row and all that lists it.
func (s *Store) insertion(c *tokenstore.Connection, sealed []byte) *statement {
	q := write(insertConnection, []byte(c.ID), c.Revision, sealed, dueKey(c.Due()))
	return q.add(insertLists, place(tokenstore.PositionOf(c)), listed(s.keys.lists(c), nil))
}

// deletion takes the record away from a row, which has this revision then, and
// all that lists it. What lists a damaged one can't be known, and leads to nothing
// from then on.
func (s *Store) deletion(c *tokenstore.Connection, was stored, revision uint64) *statement {
	q := write(deleteConnection, revision, []byte(c.ID), was.revision, was.sealed)
	if !c.Damaged {
		q.add(`, unlisted as (`).add(deleteLists, place(tokenstore.PositionOf(c)), listed(s.keys.lists(c), nil)).
			add(` and exists (select 1 from done))`)
	}
	return q
}

// listed returns the digests that are in the one and not in the other.
func listed(in, notIn map[string]bool) (digests [][]byte) {
	for digest := range in {
		if !notIn[digest] {
			digests = append(digests, []byte(digest))
		}
	}
	return digests
}

// touch makes sure that a write that took long is seen by those who have looked
// at what had changed before it was there to be seen.
func (s *Store) touch(ctx context.Context, id string, took time.Duration, how string) {
	if s.unsure.has(id) {
		how = touchRelisted // whatever that was
	} else if took < slowWrite {
		return
	}
	if _, err := s.exec(context.WithoutCancel(ctx), how, []byte(id)); err != nil {
		s.log.Warn("others may learn late of a change", connectionField(id), errorField(err))
		return
	}
	s.unsure.remove(id)
}

// unsure are the connections of which a write has ended in doubt: it may be there
// to be seen long after it was marked as a change.
type unsure struct {
	mu  sync.Mutex
	ids map[string]bool // guarded by mu
}

func (u *unsure) add(id string) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.ids == nil {
		u.ids = map[string]bool{}
	}
	u.ids[id] = true
}

func (u *unsure) has(id string) bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.ids[id]
}

func (u *unsure) remove(id string) {
	u.mu.Lock()
	defer u.mu.Unlock()
	delete(u.ids, id)
}

func (u *unsure) all() []string {
	u.mu.Lock()
	defer u.mu.Unlock()
	return slices.Collect(maps.Keys(u.ids))
}

// tellUnsure has the others see what came of the writes in doubt: marking a row anew
// waits for a write of it that is under way yet.
func (s *Store) tellUnsure(ctx context.Context) error {
	for _, id := range s.unsure.all() {
		if _, err := s.exec(ctx, touchRelisted, []byte(id)); err != nil {
			return err
		}
		s.unsure.remove(id)
	}
	return nil
}

// Connection implements tokenstore.Store.
func (s *Store) Connection(ctx context.Context, id string) (c tokenstore.Connection, err error) {
	was, err := s.row(ctx, selectConnection, id)
	if err == nil {
		err = was.orNotFound()
	}
	if err == nil {
		c, err = s.openConnection(ctx, id, was)
	}
	if err != nil {
		return tokenstore.Connection{}, fmt.Errorf("pgstore: reading a connection: %w", err)
	}
	return c, nil
}

// openConnection opens a record and checks that it is the one asked for.
func (s *Store) openConnection(ctx context.Context, id string, was stored) (tokenstore.Connection, error) {
	with := s.sealer.now.Load()
	c, err := with.codec.OpenConnection(was.sealed, with.data(tokenstore.KindConnection, id, was.revision))
	if err == nil && (c.ID != id || c.Revision != was.revision) {
		err = fmt.Errorf("%w: it is another record", tokenstore.ErrCorrupt)
	}
	if err != nil {
		c, err = tokenstore.Connection{}, s.cantOpen(ctx, was.sealed, err)
	}
	s.noteDamage(id, err)
	return c, err
}

// UpdateConnection implements tokenstore.Store. Where a write is in doubt and
// another has changed the record meanwhile, change runs on what is there, though
// it may be in it already.
func (s *Store) UpdateConnection(
	ctx context.Context, id string, change func(*tokenstore.Connection) error,
) (tokenstore.Connection, error) {
	var refusal error // by change: returned as it is
	relisted := false
	c, took, err := replace(ctx, s, record[tokenstore.Connection]{
		key:    "c/" + id,
		wrote:  func(after stored) { s.recent.wrote(id, after) },
		unsure: func() { s.unsure.add(id) },
		read:   func(ctx context.Context) (stored, error) { return s.row(ctx, selectConnection, id) },
		work: func(ctx context.Context, was stored) (a attempt[tokenstore.Connection], err error) {
			refusal = nil
			if err := was.orNotFound(); err != nil {
				return a, err
			}
			old, err := s.openConnection(ctx, id, was)
			if err != nil {
				return a, err
			}
			c := old.Clone()
			if refusal = change(&c); refusal != nil {
				return attempt[tokenstore.Connection]{result: old}, refusal
			}
			if c.ID != id {
				return a, errNewID
			}
			c = c.Clone() // change may have kept what it was given
			c.UpdatedAt, c.Revision = time.Now().UTC().Round(0), was.revision+1
			relisted = relisted || old.Status != c.Status || old.Disabled != c.Disabled
			return s.workOut(&old, &c)
		},
	})
	switch {
	case err == nil, refusal != nil && errors.Is(err, tokenstore.ErrUnchanged):
		how := touchConnection
		if relisted {
			how = touchRelisted
		}
		s.touch(ctx, id, took, how)
		return c, nil
	case refusal != nil && errors.Is(err, refusal):
		return tokenstore.Connection{}, err
	}
	return tokenstore.Connection{}, fmt.Errorf("pgstore: changing a connection: %w", err)
}

// workOut returns the write of c in place of old.
func (s *Store) workOut(old, c *tokenstore.Connection) (a attempt[tokenstore.Connection], err error) {
	with := s.sealer.now.Load()
	news := c.TakeNews()
	sealed, err := with.codec.SealConnection(c, with.data(tokenstore.KindConnection, c.ID, c.Revision))
	if err != nil {
		return a, err
	}
	q := new(statement).add(`with done as (`).add(updateConnection, c.Revision, sealed, dueKey(c.Due()))
	if old.Status != c.Status || old.Disabled != c.Disabled {
		q.add(`, relisted_at = clock_timestamp()`)
	}
	q.add(` where id = ? and revision = ? and sealed is not null returning 1)`, []byte(c.ID), old.Revision)
	if !sameLists(old, c) {
		s.relist(q, old, c)
	}
	q.tell(s.sealNews(with, news))
	return attempt[tokenstore.Connection]{result: *c, after: stored{c.Revision, sealed}, write: q}, nil
}

// relist adds to q what differs between the lists of old and c. Not every
// database deletes from a table and inserts into it in one statement.
func (s *Store) relist(q *statement, old, c *tokenstore.Connection) {
	was, is := s.keys.lists(old), s.keys.lists(c)
	stale, fresh := listed(was, is), listed(is, was)
	if !old.CreatedAt.Equal(c.CreatedAt) {
		stale, fresh = listed(was, nil), listed(is, nil)
	}
	if len(fresh) > 0 {
		q.add(insertLists, place(tokenstore.PositionOf(c)), fresh)
	}
	if len(stale) > 0 {
		q.then = new(statement).add(deleteLists, place(tokenstore.PositionOf(old)), stale)
	}
}

// DeleteConnection implements tokenstore.Store.
func (s *Store) DeleteConnection(
	ctx context.Context, id string, news ...tokenstore.Event,
) (tokenstore.Connection, error) {
	c, took, err := replace(ctx, s, record[tokenstore.Connection]{
		key:    "c/" + id,
		wrote:  func(after stored) { s.recent.wrote(id, after) },
		unsure: func() { s.unsure.add(id) },
		read:   func(ctx context.Context) (stored, error) { return s.row(ctx, selectConnection, id) },
		work: func(ctx context.Context, was stored) (a attempt[tokenstore.Connection], err error) {
			if err := was.orNotFound(); err != nil {
				return a, err
			}
			c, err := s.openConnection(ctx, id, was)
			damaged := errors.Is(err, tokenstore.ErrCorrupt)
			if err != nil && !damaged {
				return a, err
			}
			if damaged {
				c = tokenstore.Connection{ID: id, Damaged: true}
			}
			q := s.deletion(&c, was, was.revision+1)
			told := c
			told.News = news
			q.tell(s.sealNews(s.sealer.now.Load(), told.TakeNews()))
			return attempt[tokenstore.Connection]{result: c, after: stored{revision: was.revision + 1}, write: q}, nil
		},
	})
	if errors.Is(err, tokenstore.ErrNotFound) {
		s.touch(ctx, id, 0, touchRelisted)
	}
	if err != nil {
		return tokenstore.Connection{}, fmt.Errorf("pgstore: deleting a connection: %w", err)
	}
	s.damage.set(id, false)
	s.touch(ctx, id, took, touchRelisted)
	return c, nil
}

// DueConnections implements tokenstore.Store, from the index alone: whoever looks
// at a connection that is due asks it again. Those that are known to be damaged
// are left out: they were logged, and nothing can be done for them.
func (s *Store) DueConnections(ctx context.Context, t time.Time) (ids []string, err error) {
	all, err := query(ctx, s, pgx.RowTo[[]byte],
		`select id from lanyard_connections where due <= $1 order by due, id`, appendTime(nil, t))
	if err != nil {
		return nil, fmt.Errorf("pgstore: finding what is due: %w", err)
	}
	for _, id := range all {
		if !s.damage.has(string(id)) {
			ids = append(ids, string(id))
		}
	}
	return ids, nil
}
